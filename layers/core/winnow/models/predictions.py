"""What one pass of a model over n records gives."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from winnow.acquisition.strategy import Labeled


@dataclass(frozen=True)
class Predictions:
    """Outputs of a model package; rows follow the order of the input."""

    probabilities: npt.NDArray[np.float32]
    """(n, classes), rows sum to 1; (n, 0) of a regression."""
    embedding: npt.NDArray[np.float32]
    """(n, dim), dim <= 512."""
    members: npt.NDArray[np.float32] | None = None
    """(n, members, classes), of a regression (n, members); None for a model without a committee."""
    prediction: npt.NDArray[np.float32] | None = None
    """(n,) predicted numbers of a regression, None of a classification."""
    labeled: Labeled | None = None
    """The labeled train records, where a strategy compares with them."""
