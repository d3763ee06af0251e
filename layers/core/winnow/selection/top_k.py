"""The k best scores, and the k first of a shuffle."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from winnow.selection.selector import Indices, Pool, Selector


def top_k(scores: npt.NDArray[np.floating], k: int) -> Indices:
    """Rows of the k highest of scores (n,), best first; of equal scores the first row wins. k > n gives all rows.

    >>> top_k(np.array([0.1, 0.9, 0.5, 0.9]), 3).tolist()
    [1, 3, 2]
    """
    n = len(scores)
    k = min(k, n)
    if k <= 0:
        return np.empty(0, dtype=np.int64)
    threshold = np.partition(scores, n - k)[n - k]
    above = np.flatnonzero(scores > threshold)
    ties = np.flatnonzero(scores == threshold)[: k - len(above)]
    rows = np.concatenate([above, ties])
    return rows[np.argsort(-scores[rows], kind="stable")].astype(np.int64, copy=False)


def by_chance(n: int, k: int, *, rng: np.random.Generator) -> Indices:
    """k of n rows without replacement, in random order.

    >>> by_chance(5, 3, rng=np.random.default_rng(0)).tolist()
    [2, 4, 3]
    """
    return rng.permutation(n)[: max(k, 0)].astype(np.int64, copy=False)


def _top_k(pool: Pool, k: int, rng: np.random.Generator) -> Indices:
    assert pool.scores is not None  # `winnow.selection.select` checks the needs first
    return top_k(pool.scores, k)


TOP_K = Selector(
    name="top_k",
    select=_top_k,
    needs=frozenset({"scores"}),
    cost="n",
    source="Lewis and Gale, 1994",
    sentence="Takes the highest scores; cheap, but a batch of near-equals teaches the same thing many times.",
)
RANDOM = Selector(
    name="random",
    select=lambda pool, k, rng: by_chance(pool.size, k, rng=rng),
    needs=frozenset(),
    cost="n",
    source="simple random sampling",
    sentence="Takes records by chance.",
)
