"""The best scores, with chance: a batch that is not the same near-equals over and over."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from winnow.selection.selector import Indices, Pool, Selector
from winnow.selection.top_k import top_k


def power(scores: npt.NDArray[np.floating], k: int, *, rng: np.random.Generator, beta: float = 1.0) -> Indices:
    """Rows (min(k, n),) drawn without replacement, each next with probability proportional to score to the power beta.

    Drawn at once: the k highest of log score + Gumbel noise / beta. With beta 0 all rows are equally likely, with a
    large one the k best are taken. Scores (n,) of zero or less come last, in order.

    Source: Kirsch et al., Stochastic Batch Acquisition: A Simple Baseline for Deep Active Learning, 2023.

    >>> power(np.array([0.5, 0.9, 0.0]), 3, rng=np.random.default_rng(0), beta=50.0).tolist()
    [1, 0, 2]
    """
    noise = rng.gumbel(size=len(scores))
    logs = np.full(len(scores), -np.inf)
    np.log(scores, out=logs, where=scores > 0.0, dtype=np.float64)
    return top_k(beta * logs + noise if beta > 0.0 else noise, k)


def _select(pool: Pool, k: int, rng: np.random.Generator) -> Indices:
    assert pool.scores is not None  # `winnow.selection.select` checks the needs first
    return power(pool.scores, k, rng=rng)


POWER = Selector(
    name="power",
    select=_select,
    needs=frozenset({"scores"}),
    cost="n",
    source="Kirsch et al., 2023",
    sentence="Draws records in proportion to their scores: as cheap as the top, and less repetitive.",
)
