"""What a strategy is: a name, what it needs from the model, and the arithmetic."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np
import numpy.typing as npt

Need = Literal["probabilities", "prediction", "members", "embedding", "labeled"]
"""`probabilities` only a classification gives, `prediction` only a regression; `labeled` comes from the loop."""
Scores = npt.NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class Labeled:
    """What is labeled already."""

    embedding: npt.NDArray[np.float32]
    """(m, dim)."""
    labels: npt.NDArray[np.int64] | None = None
    """(m,) class numbers; None where there are no classes."""


class Outputs(Protocol):
    """What a model said about n records; `winnow.models.predictions.Predictions` is one."""

    @property
    def probabilities(self) -> npt.NDArray[np.float32]:
        """(n, classes), rows sum to 1; (n, 0) of a regression."""

    @property
    def prediction(self) -> npt.NDArray[np.float32] | None:
        """(n,) predicted numbers of a regression, else None."""

    @property
    def embedding(self) -> npt.NDArray[np.float32]:
        """(n, dim)."""

    @property
    def members(self) -> npt.NDArray[np.float32] | None:
        """(n, members, classes), of a regression (n, members); None for a model without a committee."""

    @property
    def labeled(self) -> Labeled | None:
        """The labeled train records, for strategies that compare with them."""


Scorer = Callable[[Outputs, np.random.Generator], Scores]


@dataclass(frozen=True)
class Strategy:
    """One way to say how much a record would teach. Scores are (n,) float32, higher = more worth labeling."""

    name: str
    score: Scorer
    needs: frozenset[Need]
    """Outputs of the model package without which the strategy cannot work."""
    source: str
    """The paper or book the method comes from."""
    sentence: str
    """What it does, in one sentence for an operator."""
    cost: str
    """How its time grows, n being the records scored: the sizes that are multiplied, as in "n x classes"."""
    scope: Literal["record", "pool"] = "record"
    """Whether a record's score depends on the other records that are scored with it."""
