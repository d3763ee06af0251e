"""Greedy k-center: repeatedly take the record farthest from everything labeled or taken so far."""

from __future__ import annotations

import numpy as np

from winnow.selection.distances import Floats, Vectors, as_floats, blocks, nearest, squared_norms
from winnow.selection.selector import Indices, Pool, Selector

_REACH = 4096
"""Rows whose distances are brought up to date at a time, at first."""
_WIDTH = 512
"""Rows among which centers are taken at a time, at first: what a processor's own cache holds."""
_ENOUGH = 32
"""Centers taken in a round after which less reach will do."""
_TAKEN = np.float32(-np.inf)


def k_center(embedding: Vectors, k: int, *, labeled: Vectors | None = None, norms: Floats | None = None) -> Indices:
    """Rows (min(k, n),) in the order taken; each is at that moment the farthest from `labeled` and the rows before it.

    Exact, and of equidistant rows the lower: the rows of the textbook's loop of one pass over the pool a center, down
    to its rounding. Distances to the nearest center only shrink, so an old one is an upper bound: only the rows of the
    largest bounds are brought up to date, and centers are taken among the farthest of these while the best beats every
    bound outside. Without labeled records the first row is the one nearest the mean. Rows that coincide with a center
    are taken last, in order. Within a factor 2 of the smallest possible covering radius.

    `norms` (n,) are the squared lengths of the embedding (n, dim), for a caller who has them.

    Source: Gonzalez, Clustering to Minimize the Maximum Intercluster Distance, 1985; for active learning Sener and
    Savarese, Active Learning for Convolutional Neural Networks: A Core-Set Approach, 2018.

    >>> k_center(np.float32([[0, 0], [1, 0], [10, 0], [0, 5]]), 3).tolist()
    [1, 2, 3]
    >>> k_center(np.float32([[0, 0], [1, 0], [10, 0], [0, 5]]), 1, labeled=np.float32([[10, 0]])).tolist()
    [3]
    """
    n = len(embedding)
    k = min(k, n)
    if k <= 0:
        return np.empty(0, dtype=np.int64)
    cover = _Cover(embedding, squared_norms(embedding) if norms is None else norms, k)
    if labeled is not None and len(labeled):
        _, cover.bound[:] = nearest(embedding, labeled)
        cover.base = cover.bound.copy()
    else:
        cover.take(_nearest_the_mean(embedding, cover.norms))
        cover.refresh_all()
    everything = np.arange(n)
    reach, width, widest = min(n, _REACH), min(n, _WIDTH), min(n, max(_REACH, n // 16))
    while cover.count < k and np.max(cover.bound) > 0.0:
        rows, beyond, rival = _largest(cover.bound, everything, reach)
        cover.refresh(rows)
        block, within, other = _largest(cover.bound[rows], rows, width)
        ceiling = max(beyond, within)
        rival = min(first for first, bound in ((rival, beyond), (other, within)) if bound == ceiling)
        stuck = reach == n and width == widest
        taken = cover.take_farthest(block, k, ceiling=ceiling, rival=rival, near_is_enough=stuck)
        if not taken:
            reach, width = min(n, 2 * reach), min(widest, 2 * width)
        elif taken >= _ENOUGH:
            reach, width = max(min(n, _REACH), reach // 2), max(min(n, _WIDTH), width // 2)
    rest = np.flatnonzero(cover.bound > _TAKEN)[: k - cover.count]
    return np.concatenate([cover.rows[: cover.count], rest])


def _nearest_the_mean(embedding: Vectors, norms: Floats) -> int:
    total = np.zeros(embedding.shape[1])
    for block in blocks(len(embedding)):
        rows = as_floats(embedding[block])
        total += np.ones(len(rows), dtype=np.float32) @ rows
    mean = (total / len(embedding)).astype(np.float32)
    gaps = norms.copy()
    for block in blocks(len(embedding)):
        gaps[block] -= 2 * (as_floats(embedding[block]) @ mean)
    return int(np.argmin(gaps))


def _largest(bounds: Floats, rows: Indices, size: int) -> tuple[Indices, float, int]:
    """Those of rows (ascending) that have the `size` largest bounds, in the same order; of equal bounds the first rows.

    With them what no bound outside exceeds, and the first row outside that has this bound.
    """
    if size >= len(rows):
        return rows, -np.inf, len(rows)
    least = np.partition(bounds, len(rows) - size)[len(rows) - size]
    above = np.flatnonzero(bounds > least)
    ties = np.flatnonzero(bounds == least)
    chosen = np.sort(np.concatenate([above, ties[: size - len(above)]]))
    rival = rows[ties[size - len(above)]] if len(ties) > size - len(above) else rows[-1] + 1
    return rows[chosen], float(least), int(rival)


class _Cover:
    """What is taken so far, and for every row an upper bound of its squared distance to the nearest of it."""

    def __init__(self, embedding: Vectors, norms: Floats, k: int) -> None:
        n, dim = embedding.shape
        self.embedding, self.norms = embedding, norms
        self.count = 0
        self.rows = np.empty(k, dtype=np.int64)
        # Rounded up with zeros: a matrix product may sum its last, odd rows in another order.
        self._centers = np.zeros((k + -k % 16, dim), dtype=np.float32)
        self._center_norms = np.empty(k, dtype=np.float32)
        self.bound = np.full(n, np.inf, dtype=np.float32)
        self.base: Floats | None = None
        """(n,) distances to what was labeled."""
        self._seen = np.zeros(n, dtype=np.int32)
        """(n,) how many centers a bound knows of."""
        self._noise = np.float32(np.finfo(np.float32).eps * (4.0 + np.sqrt(dim)))
        """How much of a row's squared length its distance may be wrong by, because of rounding."""

    def take(self, row: int) -> None:
        self.rows[self.count] = row
        self._centers[self.count] = self.embedding[row]
        self._center_norms[self.count] = self.norms[row]
        self.bound[row] = _TAKEN
        self.count += 1

    def refresh_all(self) -> None:
        for block in blocks(len(self.bound), columns=self.count):
            self._lower(block, since=0)
        self._seen[:] = self.count

    def refresh(self, rows: Indices) -> None:
        """Bring the bounds of these rows up to date."""
        ages = self.count - self._seen[rows]
        for level in range(int(self.count).bit_length()):  # rows of similar age share a product
            group = rows[(ages >> level) == 1]
            if len(group):
                since = int(self._seen[group].min())
                for block in blocks(len(group), columns=max(self.count - since, 512)):
                    self._lower(group[block], since=since)
                self._seen[group] = self.count

    def _lower(self, rows: Indices | slice, *, since: int) -> None:
        products = (-2 * self._centers[since : self.count]) @ as_floats(self.embedding[rows]).T
        products += self._center_norms[since : self.count, None]
        closest: Floats = products.min(axis=0)
        norms = self.norms[rows]
        closest += norms
        closest[closest < 2 * self._noise * norms] = 0.0
        self.bound[rows] = np.minimum(self.bound[rows], closest)

    def take_farthest(self, block: Indices, k: int, *, ceiling: float, rival: int, near_is_enough: bool) -> int:
        """Take centers among the rows of the block, up to date, while the farthest is farther than the ceiling.

        Of rows that are farthest within rounding the distances are worked out as the textbook does. `rival` is the
        first row outside whose bound is the ceiling; `near_is_enough` gives up on telling the two apart.
        """
        points = as_floats(self.embedding[block])
        norms, distances = self.norms[block], self.bound[block]
        floor = np.where(distances == _TAKEN, _TAKEN, 2 * self._noise * norms)
        settled = np.zeros(len(block), dtype=bool)
        before = self.count
        while self.count < k:
            best = int(np.argmax(distances))
            farthest = distances[best]
            if farthest <= 0.0:
                break
            doubt = 2 * self._noise * (norms[best] + farthest)
            close = np.flatnonzero(distances >= farthest - doubt)
            if len(close) > 1 and not settled[close].all():
                for one in close[~settled[close]]:
                    distances[one] = self._exactly(int(block[one]), points[one], floor[one])
                settled[close] = True
                continue
            tied = farthest == ceiling and block[best] < rival
            if not (tied or farthest > ceiling + doubt or (near_is_enough and farthest >= ceiling - doubt)):
                break
            self.take(int(block[best]))
            update = points @ points[best]
            update *= -2
            update += norms
            update += norms[best]
            np.minimum(distances, update, out=distances)
            distances[distances < floor] = 0.0
            distances[best] = floor[best] = _TAKEN
        self.bound[block] = distances
        self._seen[block] = self.count
        return self.count - before

    def _exactly(self, row: int, point: Floats, floor: np.float32) -> np.float32:
        """The row's squared distance summed in the textbook's order, so that what ties there ties here."""
        distances: Floats = (self._centers @ point)[: self.count]
        distances *= -2
        distances += self.norms[row]
        distances += self._center_norms[: self.count]
        closest = np.min(distances) if self.base is None else min(np.min(distances, initial=np.inf), self.base[row])
        return np.float32(0.0) if closest < floor else np.float32(closest)


def _select(pool: Pool, k: int, rng: np.random.Generator) -> Indices:
    assert pool.embedding is not None  # `winnow.selection.select` checks the needs first
    return k_center(pool.embedding, k, labeled=pool.labeled, norms=pool.squared_norms)


K_CENTER = Selector(
    name="k_center",
    select=_select,
    needs=frozenset({"embedding"}),
    cost="n x (k + labeled) at most; a fraction of it in practice",
    source="Gonzalez, 1985; Sener and Savarese, 2018",
    sentence="Covers the pool: takes what lies farthest from everything labeled or taken; finds outliers first.",
)
