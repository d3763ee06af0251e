"""TypiClust: where little is labeled, the most typical record of each large cluster nobody has labeled yet."""

from __future__ import annotations

import numpy as np

from winnow.selection.distances import Floats, Vectors, as_floats, blocks, squared_norms
from winnow.selection.kmeans import kmeans
from winnow.selection.selector import Indices, Pool, Selector

_NEIGHBORS = 20
_TINY = 5
"""Clusters of this many records or fewer are outliers."""
_SAMPLE = 512
"""In a larger cluster, records are compared with this many others first and only the densest half of as many with all."""


def typiclust(embedding: Vectors, k: int, *, rng: np.random.Generator, labeled: Vectors | None = None) -> Indices:
    """At most k rows: pool and `labeled` (m, dim) fall into m + k clusters; of each its most typical record, by turns.

    Clusters with the fewest labeled records come first, of these the largest; those of five records or fewer do not
    count unless all are so. Typicality is the inverse of the mean distance to the 20 nearest in the cluster (to half of
    a smaller one). Clusters of more than 512 records rank their records against a sample of them first.

    Source: Hacohen, Dekel and Weinshall, Active Learning on a Budget: Opposite Strategies Suit High and Low Budgets,
    2022; the constants are those of its code.

    >>> line = np.float32([[0], [1], [2], [3], [4], [5], [50], [51], [52], [53], [54], [55], [56]])
    >>> typiclust(line, 1, rng=np.random.default_rng(0), labeled=np.float32([[2]])).tolist()
    [7]
    """
    n = len(embedding)
    k = min(k, n)
    if k <= 0:
        return np.empty(0, dtype=np.int64)
    known = 0 if labeled is None else len(labeled)
    both = embedding if labeled is None or not known else np.concatenate([embedding, labeled.astype(embedding.dtype)])
    cluster = kmeans(both, known + k, rng=rng).assignment
    count = int(np.max(cluster)) + 1
    sizes, covered = np.bincount(cluster, minlength=count), np.bincount(cluster[n:], minlength=count)
    order = np.argsort(cluster[:n], kind="stable")
    ends = np.searchsorted(cluster[:n][order], np.arange(count + 1))
    worth = np.flatnonzero((sizes > _TINY) & (np.diff(ends) > 0))
    if not len(worth):
        worth = np.flatnonzero(np.diff(ends) > 0)
    worth = worth[np.lexsort((-sizes[worth], covered[worth]))][:k]
    turns = -(-k // len(worth))
    taken: list[tuple[int, int, int]] = []
    for rank, one in enumerate(worth.tolist()):
        rows = order[ends[one] : ends[one + 1]]
        typical = rows[np.argsort(_spacing(embedding, rows, rng=rng), kind="stable")[:turns]].tolist()
        taken.extend((turn, rank, row) for turn, row in enumerate(typical))
    return np.array([row for _, _, row in sorted(taken)[:k]], dtype=np.int64)


def _spacing(embedding: Vectors, rows: Indices, *, rng: np.random.Generator) -> Floats:
    """Mean distance (len(rows),) to the nearest neighbors among the rows; infinite for what is plainly not dense."""
    neighbors = max(1, min(_NEIGHBORS, len(rows) // 2))
    if len(rows) <= _SAMPLE:
        return _mean_distance(embedding, rows, rows, neighbors)
    rough = _mean_distance(embedding, rows, np.sort(rng.choice(rows, _SAMPLE, replace=False)), neighbors)
    dense = np.sort(np.argsort(rough, kind="stable")[: _SAMPLE // 2])
    spacing = np.full(len(rows), np.inf, dtype=np.float32)
    spacing[dense] = _mean_distance(embedding, rows[dense], rows, neighbors)
    return spacing


def _mean_distance(embedding: Vectors, rows: Indices, others: Indices, neighbors: int) -> Floats:
    """Mean distance (len(rows),) of each row to the nearest of the others, itself excepted; a block of both at a time."""
    means = np.empty(len(rows), dtype=np.float32)
    for block in blocks(len(rows), columns=_SAMPLE):
        points = as_floats(embedding[rows[block]])
        norms = squared_norms(points)
        best = np.full((len(points), neighbors), np.inf, dtype=np.float32)
        for part in blocks(len(others)):
            around = as_floats(embedding[others[part]])
            gaps = (-2 * points) @ around.T
            gaps += norms[:, None]
            gaps += squared_norms(around)
            gaps[rows[block][:, None] == others[part]] = np.inf
            best = np.partition(np.concatenate([best, gaps], axis=1), neighbors - 1, axis=1)[:, :neighbors]
        means[block] = np.sqrt(np.maximum(best, 0.0)).mean(axis=1)
    return means


def _select(pool: Pool, k: int, rng: np.random.Generator) -> Indices:
    assert pool.embedding is not None  # `winnow.selection.select` checks the needs first
    return typiclust(pool.embedding, k, rng=rng, labeled=pool.labeled)


TYPICLUST = Selector(
    name="typiclust",
    select=_select,
    needs=frozenset({"embedding"}),
    cost="n x (k + labeled)",
    source="Hacohen, Dekel and Weinshall, 2022",
    sentence="Takes the most typical record of each large cluster without a label; for the first few hundred labels.",
)
