"""What a selector is: from a pool of scored, embedded records to the set worth asking for."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

Indices = npt.NDArray[np.int64]
PoolNeed = Literal["scores", "embedding", "probabilities", "members"]


@dataclass(frozen=True, eq=False)
class Pool:
    """n records a selector may choose from, row by row. Order matters only where two records tie: the first wins."""

    size: int
    scores: npt.NDArray[np.float32] | None = None
    """(n,) from a strategy, higher = more worth labeling."""
    embedding: npt.NDArray[np.float32] | None = None
    """(n, dim)."""
    labeled: npt.NDArray[np.float32] | None = None
    """(m, dim), what has been labeled already and need not be covered again."""
    probabilities: npt.NDArray[np.float32] | None = None
    """(n, classes), calibrated."""
    members: npt.NDArray[np.float32] | None = None
    """(n, members, classes)."""


@dataclass(frozen=True)
class Selector:
    """One way to choose a set. Rows come best first, so that a shorter batch is a prefix worth having."""

    name: str
    select: Callable[[Pool, int, np.random.Generator], Indices]
    needs: frozenset[PoolNeed]
    source: str
    """The paper or book the method comes from."""
    sentence: str
    """What it does, in one sentence for an operator."""
