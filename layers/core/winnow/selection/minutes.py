"""People's minutes: what a record is expected to take, and how many records fit into a batch's minutes."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from winnow.errors import ConfigError

UNKNOWN = 1.0
"""Minutes a record is expected to take when no record says."""


def expected(minutes: npt.NDArray[np.floating]) -> npt.NDArray[np.float32]:
    """Minutes (n,) with the median of what is known in place of every NaN.

    >>> expected(np.array([2.0, np.nan, 6.0])).tolist(), expected(np.array([np.nan])).tolist()
    ([2.0, 4.0, 6.0], [1.0])
    """
    known = np.isfinite(minutes)
    typical = float(np.median(minutes[known])) if known.any() else UNKNOWN
    return np.where(known, minutes, typical).astype(np.float32)


def fitting(minutes: Sequence[float], limit: float) -> list[int]:
    """Places of the records that are taken into a batch of at most `limit` minutes, best first: what does not fit is passed over.

    Their sum never exceeds the limit. Source: the greedy rule for the knapsack problem, by the order that is given.

    >>> fitting([3.0, 4.0, 2.0, 1.0], 6.0)
    [0, 2, 3]
    """
    if not limit > 0.0:
        raise ConfigError(f"a batch of {limit} minutes holds nothing; raise batches.minutes")
    taken, total = [], 0.0
    for place, each in enumerate(minutes):
        if total + each <= limit:
            taken.append(place)
            total += each
    return taken
