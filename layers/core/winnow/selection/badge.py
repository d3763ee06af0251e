"""BADGE: gradients as they would be if the model were right, spread out: uncertain and diverse without a trade-off to set."""

from __future__ import annotations

import numpy as np

from winnow.selection.distances import Floats, Vectors, as_floats, blocks, squared_norms
from winnow.selection.selector import Indices, Pool, Selector
from winnow.selection.spread import spread


def badge(
    probabilities: Vectors,
    embedding: Vectors,
    k: int,
    *,
    rng: np.random.Generator,
    norms: Floats | None = None,
    origin: bool = False,
) -> Indices:
    """At most k rows in the order drawn, fewer where no gradient is left that differs from those taken.

    A record's gradient of the last layer, were its most probable class the right one, is the outer product of
    (probabilities (n, classes) - that class) and its embedding (n, dim): long when the model is unsure. The first row has
    the longest; each next is drawn by squared distance to the nearest before it. `origin` starts with the zero gradient
    that a model has on what it has learned instead, and draws the first by squared length. The products are never
    formed. `norms` (n,) are the embedding's squared lengths, for a caller who has them.

    Source: Ash et al., Deep Batch Active Learning by Diverse, Uncertain Gradient Lower Bounds, 2020.

    >>> torn = np.full((3, 2), 0.5, dtype=np.float32)
    >>> embedding = np.float32([[2, 0], [0, 3], [0, 3]])
    >>> badge(torn, embedding, 3, rng=np.random.default_rng(0)).tolist()
    [1, 0]
    """
    if not len(embedding) or k <= 0:
        return np.empty(0, dtype=np.int64)
    gaps = probabilities.copy()
    gap_norms = np.empty(len(gaps), dtype=np.float32)
    for block in blocks(len(gaps)):
        some = as_floats(gaps[block])
        some[np.arange(len(some)), some.argmax(axis=1)] -= 1.0
        np.einsum("ij,ij->i", some, some, out=gap_norms[block])
        gaps[block] = some
    lengths = gap_norms * (squared_norms(embedding) if norms is None else norms)
    first = None if origin else int(np.argmax(lengths))
    return spread([embedding, gaps], k, norms=lengths, first=first, origin=origin, rng=rng)


def _select(pool: Pool, k: int, rng: np.random.Generator) -> Indices:
    assert pool.probabilities is not None  # `winnow.selection.select` checks the needs first
    assert pool.embedding is not None
    learned = pool.labeled is not None and len(pool.labeled) > 0
    return badge(pool.probabilities, pool.embedding, k, rng=rng, norms=pool.squared_norms, origin=learned)


BADGE = Selector(
    name="badge",
    select=_select,
    needs=frozenset({"probabilities", "embedding"}),
    cost="n x (classes + dim) + k proposals; n x k at most",
    source="Ash et al., 2020",
    sentence="Draws records whose labels would move the model far and in different directions.",
)
