"""What a record teaches for each minute a person spends on it."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from winnow.acquisition.strategy import Scores


def per_minute(scores: npt.NDArray[np.floating], minutes: npt.NDArray[np.floating]) -> Scores:
    """Scores (n,) divided by the minutes (n,) each record needs.

    >>> per_minute(np.array([0.9, 0.6]), np.array([3.0, 1.0])).round(2).tolist()
    [0.30000001192092896, 0.6000000238418579]
    """
    return (scores / minutes).astype(np.float32)
