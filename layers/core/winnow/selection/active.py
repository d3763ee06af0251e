"""The active arm's records: a selector's choice, without those that say nearly the same.

What a fresh loop does, `winnow simulate` does with the same function.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from winnow.selection import SELECTORS, select
from winnow.selection.distances import Floats
from winnow.selection.duplicates import suppress_near_duplicates
from winnow.selection.selector import Indices, Pool
from winnow.selection.top_k import top_k

_SHORTLIST = 20
"""Near-duplicate-free records offered for each place to a selector that goes by scores alone."""

_ROUNDS = 5
"""Times a selector is asked for places that near-duplicates left open; when that is not enough the pool is poor."""


def choose(
    pool: Pool, k: int, *, selector: str, rng: np.random.Generator, near_duplicate_distance: float = 0.0
) -> Indices:
    """At most k different rows of the pool, none nearer to another than the distance (cosine, 0 = any), best first.

    Fewer than k come back when the pool holds too few different records. With a selector that goes by scores, of
    near-duplicates the best-scored one stays; the labeled records do not suppress, since a label next to one that is
    known can still be worth it where classes meet.

    >>> pool = Pool(3, scores=np.float32([0.9, 0.8, 0.1]), embedding=np.float32([[1, 0], [1, 0], [0, 1]]))
    >>> choose(pool, 2, selector="top_k", rng=np.random.default_rng(0), near_duplicate_distance=0.02).tolist()
    [0, 2]
    """
    threshold = near_duplicate_distance
    rows = np.arange(pool.size)
    chosen = rows[:0]
    for _ in range(_ROUNDS):
        wanted = k - len(chosen)
        if wanted <= 0 or not len(rows):
            break
        here = pool.take(rows)
        if threshold > 0.0 and here.scores is not None and SELECTORS[selector].needs == {"scores"}:
            # Such a selector looks at the top of the ranking only: it has to find different things there.
            distinct = suppress_near_duplicates(
                _embedding(here), top_k(here.scores, here.size), threshold=threshold,
                limit=max(_SHORTLIST * wanted, 1000), against=_embedding(pool)[chosen],
            )  # fmt: skip
            rows = rows[np.sort(distinct)]
            here = pool.take(rows)
        if len(chosen):
            before = _embedding(pool)[chosen]
            here = replace(here, labeled=before if pool.labeled is None else np.vstack([pool.labeled, before]))
        picked = select(selector, here, wanted, rng=rng)
        kept = (
            suppress_near_duplicates(_embedding(here), picked, threshold=threshold, against=_embedding(pool)[chosen])
            if threshold > 0.0
            else picked
        )
        chosen = np.concatenate([chosen, rows[kept]])
        rows = np.delete(rows, picked)
    return chosen


def _embedding(pool: Pool) -> Floats:
    assert pool.embedding is not None  # near-duplicates are told by it
    return pool.embedding
