"""What one pass of a model over n records gives."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt


@dataclass(frozen=True)
class Predictions:
    """Outputs of a model package; rows follow the order of the input."""

    probabilities: npt.NDArray[np.float32]
    """(n, classes), rows sum to 1."""
    embedding: npt.NDArray[np.float32]
    """(n, dim), dim <= 512."""
    members: npt.NDArray[np.float32] | None = None
    """(n, members, classes), or None for a model without a committee."""
