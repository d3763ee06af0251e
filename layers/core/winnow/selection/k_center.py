"""Greedy k-center: repeatedly take the record farthest from everything labeled or taken so far."""

from __future__ import annotations

import numpy as np

from winnow.selection.distances import Floats, nearest, squared_norms
from winnow.selection.selector import Indices, Pool, Selector

_FIRST_BLOCK = 2048
_TAKEN = np.float32(-1.0)
"""Below every squared distance, so a taken row is never taken again."""


class _Centers:
    """Centers taken so far, in room for all that will be."""

    def __init__(self, capacity: int, dimensions: int) -> None:
        self._points = np.empty((capacity, dimensions), dtype=np.float32)
        self._norms = np.empty(capacity, dtype=np.float32)
        self.count = 0

    def add(self, point: Floats, norm: np.float32) -> None:
        self._points[self.count] = point
        self._norms[self.count] = norm
        self.count += 1

    def distances(self, points: Floats, norms: Floats, *, since: int) -> Floats:
        """Squared distance (n,) of each point to the nearest center taken after the first `since`."""
        products = points @ self._points[since : self.count].T
        products *= -2
        products += self._norms[since : self.count]
        closest: Floats = products.min(axis=1)
        closest += norms
        return np.maximum(closest, np.float32(0.0), out=closest)


def k_center(embedding: Floats, k: int, *, labeled: Floats | None = None) -> Indices:
    """Rows (min(k, n),) in the order taken; each is at that moment the farthest from `labeled` and the rows before it.

    Exact: distances to the nearest center only shrink, so an old one is an upper bound. Only the block of rows with the
    largest bounds is brought up to date, and rows are taken from it while the best of them beats every bound outside.
    Without labeled records the first row is the one nearest the mean. Of equidistant rows in a block the lower is
    taken. Within a factor 2 of the smallest possible covering radius.

    Source: Gonzalez, Clustering to Minimize the Maximum Intercluster Distance, 1985; for active learning Sener and
    Savarese, Active Learning for Convolutional Neural Networks: A Core-Set Approach, 2018.

    >>> k_center(np.float32([[0, 0], [1, 0], [10, 0], [0, 5]]), 3).tolist()
    [1, 2, 3]
    >>> k_center(np.float32([[0, 0], [1, 0], [10, 0], [0, 5]]), 1, labeled=np.float32([[10, 0]])).tolist()
    [3]
    """
    n, dimensions = embedding.shape
    k = min(k, n)
    if k <= 0:
        return np.empty(0, dtype=np.int64)
    norms = squared_norms(embedding)
    centers = _Centers(k, dimensions)
    taken: list[int] = []
    if labeled is not None and len(labeled):
        _, bound = nearest(embedding, labeled)
    else:
        bound = np.full(n, np.inf, dtype=np.float32)
        middle = embedding.mean(axis=0, dtype=np.float64).astype(np.float32)
        first = int(np.argmin(norms - 2 * (embedding @ middle)))
        centers.add(embedding[first], norms[first])
        taken.append(first)
        np.minimum(bound, centers.distances(embedding, norms, since=0), out=bound)
        bound[first] = _TAKEN
    seen = np.full(n, centers.count, dtype=np.int64)
    size = min(n, _FIRST_BLOCK)
    while len(taken) < k:
        rows = np.arange(n) if size == n else np.sort(np.argpartition(bound, n - size)[n - size :])
        outside = _TAKEN if size == n else np.min(bound[rows])
        points, point_norms = embedding[rows], norms[rows]
        distances = bound[rows]
        for since in np.unique(seen[rows]):
            if since < centers.count:
                group = np.flatnonzero(seen[rows] == since)
                update = centers.distances(points[group], point_norms[group], since=int(since))
                distances[group] = np.minimum(distances[group], update)
        before = len(taken)
        while len(taken) < k:
            best = int(np.argmax(distances))
            if distances[best] < outside:
                break
            row = int(rows[best])
            centers.add(embedding[row], norms[row])
            taken.append(row)
            update = centers.distances(points, point_norms, since=centers.count - 1)
            np.minimum(distances, update, out=distances)
            distances[best] = _TAKEN
        bound[rows] = distances
        seen[rows] = centers.count
        if len(taken) == before:
            size = min(n, 2 * size)
    return np.array(taken, dtype=np.int64)


def _select(pool: Pool, k: int, rng: np.random.Generator) -> Indices:
    assert pool.embedding is not None  # `winnow.selection.select` checks the needs first
    return k_center(pool.embedding, k, labeled=pool.labeled)


K_CENTER = Selector(
    name="k_center",
    select=_select,
    needs=frozenset({"embedding"}),
    source="Gonzalez, 1985; Sener and Savarese, 2018",
    sentence="Covers the pool: takes what lies farthest from everything labeled or taken; finds outliers first.",
)
