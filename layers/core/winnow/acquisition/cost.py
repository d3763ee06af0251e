"""What a person's time buys: scores by the minute."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from winnow.acquisition.strategy import Scores
from winnow.errors import BadInput

UNKNOWN = 1.0
"""Minutes a record is expected to take when no record says."""


def expected(minutes: npt.NDArray[np.floating]) -> npt.NDArray[np.float32]:
    """Minutes (n,) with the median of what is known in place of every NaN or infinite one.

    >>> expected(np.array([2.0, np.nan, 6.0])).tolist(), expected(np.array([np.nan])).tolist()
    ([2.0, 4.0, 6.0], [1.0])
    """
    missing = ~np.isfinite(minutes)
    typical = UNKNOWN if missing.all() else float(np.median(minutes[~missing]))
    return np.where(missing, typical, minutes).astype(np.float32)


def per_minute(scores: npt.NDArray[np.floating], minutes: npt.NDArray[np.floating]) -> Scores:
    """Scores (n,) divided by the minutes (n,) that a label is expected to take: worth by the minute, higher first.

    Where records differ in effort, the best scores are often the longest records, and a budget is spent in minutes.
    Missing minutes (NaN) count as the median of the known ones, so that a record gains nothing by not saying.

    Raises BadInput for minutes that are zero, negative or infinite (nothing is worth infinitely much), and for negative
    scores, which a division would put in the wrong order.

    Source: Settles, Craven and Friedland, Active Learning with Real Annotation Costs, 2008.

    >>> print(per_minute(np.array([0.8, 0.6, 0.9]), np.array([4.0, 1.0, np.nan])).round(2))
    [0.2  0.6  0.36]
    """
    if len(minutes) != len(scores):
        raise BadInput(f"{len(scores)} scores but minutes of {len(minutes)} records; give one each", code="cost-shape")
    wrong = np.flatnonzero(~np.isnan(minutes) & ~((minutes > 0.0) & (minutes < np.inf)))
    if wrong.size:
        raise BadInput(
            f"minutes of row {wrong[0]} are {minutes[wrong[0]]:g}; give a number above 0, or NaN where it is not known",
            code="bad-cost",
        )
    below = np.flatnonzero(scores < 0.0)
    if below.size:
        raise BadInput(
            f"the score of row {below[0]} is {scores[below[0]]:g}; scores by the minute must not be negative",
            code="unusable-scores",
        )
    return (scores / expected(minutes)).astype(np.float32)
