"""What a selector is: from a pool of scored, embedded records to the set worth asking for."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Literal

import numpy as np
import numpy.typing as npt

from winnow.selection.distances import Floats, Vectors, squared_norms

Indices = npt.NDArray[np.int64]
PoolNeed = Literal["scores", "embedding", "probabilities", "members"]


@dataclass(frozen=True, eq=False)
class Pool:
    """n records a selector may choose from, row by row. Order matters only where two records tie: the first wins.

    The wide columns may be float16, as candidates are stored: selectors widen a block of rows at a time.
    """

    size: int
    scores: npt.NDArray[np.float32] | None = None
    """(n,) from a strategy, higher = more worth labeling."""
    embedding: Vectors | None = None
    """(n, dim)."""
    labeled: Vectors | None = None
    """(m, dim), what has been labeled already and need not be covered again."""
    probabilities: Vectors | None = None
    """(n, classes), rows sum to 1."""
    members: Vectors | None = None
    """(n, members, classes), a committee's probabilities."""
    confidence: npt.NDArray[np.float32] | None = None
    """(n,) calibrated probability that the model's own prediction is right; None where it has no opinion."""

    @cached_property
    def squared_norms(self) -> Floats:
        """(n,) squared lengths of the embeddings; a pass over memory that the checks and most selectors share."""
        assert self.embedding is not None
        return squared_norms(self.embedding)

    def take(self, rows: Indices) -> Pool:
        """Some of the records, in the order of `rows`; what is labeled stays. All of them as they are: the pool itself."""
        if np.array_equal(rows, np.arange(self.size)):
            return self
        columns = {name: getattr(self, name) for name in COLUMNS}
        return replace(self, size=len(rows), **{name: None if c is None else c[rows] for name, c in columns.items()})


COLUMNS = ("scores", "embedding", "probabilities", "members", "confidence")
"""Fields of a `Pool` with a row for each record."""


@dataclass(frozen=True)
class Selector:
    """One way to choose a set. Rows come best first, so that a shorter batch is a prefix worth having."""

    name: str
    select: Callable[[Pool, int, np.random.Generator], Indices]
    needs: frozenset[PoolNeed]
    cost: str
    """How time grows with the pool's n records and the k taken; memory stays near that of the data for all of them."""
    source: str
    """The paper or book the method comes from."""
    sentence: str
    """What it does, in one sentence for an operator."""
