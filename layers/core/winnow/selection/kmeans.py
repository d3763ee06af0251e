"""k-means, and the batch it makes: one record for each of k clusters."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from winnow.selection.distances import BLOCK, Floats, Vectors, as_floats, nearest, squared_norms
from winnow.selection.selector import Indices, Pool, Selector

_POINTS_A_CENTER = 256
"""Centers are fitted on at most this many points each: more move a mean by less than its clusters' spread."""
_FITTED = 32_768
_FEWEST_A_CENTER = 64
"""But on no more than so many points in all, or so many each where that is more: else a round on a large pool would take
four times as long for twice the centers, and lower the inertia of the whole by a hundredth or two."""
_SEEDED = 4096
"""Points among which starting centers are drawn, or four a center where that is more."""
_NEIGHBORS = 64
"""With many centers a point is compared, while they are fitted, with those nearest to its own: it hardly ever goes
farther in one round, and a round costs no more for more clusters."""
_MANY = 512
_FAR = 16.0
"""Points whose mean is this many times farther from zero (squared) than from them are moved there first: differences of
large squares lose the small ones in float32."""


@dataclass(frozen=True, eq=False)
class Clustering:
    """k-means' answer: centers (k, dim), each point's center (n,) and the weighted sum of squared distances."""

    centers: Floats
    assignment: npt.NDArray[np.int64]
    distances: Floats
    """(n,) squared distance of each point to its center."""
    inertia: float


def kmeans(
    points: Vectors,
    k: int,
    *,
    rng: np.random.Generator,
    weights: npt.NDArray[np.floating] | None = None,
    max_iter: int = 20,
    tolerance: float = 1e-4,
) -> Clustering:
    """Weighted k-means of points (n, dim), until a round lowers the inertia by less than `tolerance` of itself.

    Seeds are k-means++; k > n gives n centers. Weights (n,) must not be negative; without them every point weighs 1.
    Large inputs are fitted on a sample and assigned as a whole: 256 points a center, of 128 centers on 32,768 points, of
    512 on 64 a center. While more than 512 centers are fitted, a point looks for a nearer one among the 64 nearest to its
    own.

    Source: Lloyd, Least Squares Quantization in PCM, 1982; Arthur and Vassilvitskii, k-means++, 2007.

    >>> found = kmeans(np.float32([[0, 0], [0, 2], [9, 0], [9, 2]]), 2, rng=np.random.default_rng(0))
    >>> print(found.centers[np.argsort(found.centers[:, 0])].tolist(), found.inertia)
    [[0.0, 1.0], [9.0, 1.0]] 4.0
    """
    n = len(points)
    k = min(k, n)
    mass = np.ones(n) if weights is None else weights.astype(np.float64)
    if k <= 0:
        nothing = np.empty(0, dtype=np.float32)
        return Clustering(as_floats(points[:0]), np.empty(0, dtype=np.int64), nothing, 0.0)
    enough = min(_POINTS_A_CENTER * k, max(_FITTED, _FEWEST_A_CENTER * k))
    sample = np.sort(rng.choice(n, enough, replace=False)) if n > enough else slice(None)
    fitted, fitted_mass = as_floats(points[sample]), mass[sample]
    middle = _far_middle(fitted)
    if middle is not None:
        fitted = fitted - middle
    centers = _seeds(fitted, k, weights=fitted_mass, rng=rng)
    lloyd = _Lloyd(fitted, centers, fitted_mass)
    before = np.inf
    for _ in range(max_iter):
        inertia = lloyd.inertia()
        if before - inertia <= tolerance * inertia:
            break
        before = inertia
        lloyd.step()
    centers = lloyd.centers
    if middle is not None:
        points = points - middle
    assignment, distances = nearest(points, centers)
    if middle is not None:
        centers = centers + middle
    return Clustering(centers, assignment, distances, float((distances * mass).sum()))


def _far_middle(points: Floats) -> Floats | None:
    """The mean (dim,), where it is so far from zero that distances would suffer; else None."""
    few = points[:: max(1, len(points) // 1000)].astype(np.float64)
    mean = few.mean(axis=0)
    return mean.astype(np.float32) if (mean**2).sum() > _FAR * few.var(axis=0).sum() else None


def _seeds(points: Floats, k: int, *, weights: npt.NDArray[np.float64], rng: np.random.Generator) -> Floats:
    """k starting centers: each the best of a few points drawn by weight x squared distance to the nearest before it."""
    if len(points) > max(_SEEDED, 4 * k):
        sample = np.sort(rng.choice(len(points), max(_SEEDED, 4 * k), replace=False))
        points, weights = points[sample], weights[sample]
    norms = squared_norms(points)
    centers = np.empty((k, points.shape[1]), dtype=np.float32)
    closest = np.full(len(points), np.inf, dtype=np.float32)
    light = weights.astype(np.float32)
    mass = np.cumsum(weights)
    trials = 1
    for index in range(k):
        if mass[-1] > 0.0:
            drawn = np.minimum(np.searchsorted(mass, rng.random(trials) * mass[-1], side="right"), len(points) - 1)
        else:  # every point of any weight coincides with a center already
            drawn = rng.integers(len(points), size=1)
        distances = (-2 * points[drawn]) @ points.T
        distances += norms[drawn, None]
        distances += norms
        np.clip(distances, 0.0, closest, out=distances)
        best = int(np.argmin(distances @ light))
        centers[index], closest = points[drawn[best]], distances[best]
        closest[drawn[best]] = 0.0
        mass = np.cumsum(weights * closest)
        trials = 2 + int(np.log(k))
    return centers


class _Lloyd:
    """Rounds of k-means. Sums of clusters are kept and only points that change theirs are added and subtracted."""

    def __init__(self, points: Floats, centers: Floats, weights: npt.NDArray[np.float64]) -> None:
        self.points, self.centers, self.weights = points, centers, weights
        self._norms = squared_norms(points)
        self.assignment, self.distances = nearest(points, centers)
        self._sums = np.zeros(centers.shape)
        self._add(np.arange(len(points)), self.assignment, sign=1.0)

    def inertia(self) -> float:
        return float((self.distances * self.weights).sum())

    def step(self) -> None:
        """Move the centers to the weighted means of their clusters, then every point to the nearest."""
        moved = self._move()
        before = self.assignment
        if len(self.centers) > _MANY:
            self._assign_to_neighbors(moved)
        else:
            self.assignment, self.distances = nearest(self.points, self.centers)
        changed = np.flatnonzero(before != self.assignment)
        self._add(changed, before[changed], sign=-1.0)
        self._add(changed, self.assignment[changed], sign=1.0)

    def _add(self, rows: Indices, clusters: Indices, *, sign: float) -> None:
        order = np.argsort(clusters, kind="stable")
        for start in range(0, len(rows), BLOCK):  # short runs in float32, their sums in float64
            chunk = order[start : start + BLOCK]
            weighted = self.points[rows[chunk]] * (sign * self.weights[rows[chunk], None]).astype(np.float32)
            which, first = np.unique(clusters[chunk], return_index=True)
            self._sums[which] += np.add.reduceat(weighted, first, axis=0)

    def _move(self) -> npt.NDArray[np.bool_]:
        """Which centers have moved. One without weight restarts at one of the points farthest from their centers."""
        mass = np.bincount(self.assignment, weights=self.weights, minlength=len(self.centers))
        filled = mass > 0.0
        moved = self.centers.copy()
        moved[filled] = self._sums[filled] / mass[filled, None]
        empty = np.flatnonzero(~filled)
        if empty.size:
            farthest = np.argsort(-(self.distances * self.weights), kind="stable")
            moved[empty] = self.points[farthest[: empty.size]]
        old, self.centers = self.centers, moved
        changed: npt.NDArray[np.bool_] = (old != moved).any(axis=1)
        return changed

    def _assign_to_neighbors(self, moved: npt.NDArray[np.bool_]) -> None:
        centers, norms = self.centers, squared_norms(self.centers)
        neighbors = _neighbors(centers, norms)
        order = np.argsort(self.assignment, kind="stable")
        ends = np.searchsorted(self.assignment[order], np.arange(len(centers) + 1))
        assignment, distances = self.assignment.copy(), self.distances.copy()
        for cluster in np.flatnonzero(moved[neighbors].any(axis=1) & (np.diff(ends) > 0)).tolist():
            rows = order[ends[cluster] : ends[cluster + 1]]
            near = neighbors[cluster]
            products = self.points[rows] @ (-2 * centers[near]).T
            products += norms[near]
            best = products.argmin(axis=1)
            assignment[rows] = near[best]
            distances[rows] = products[np.arange(len(rows)), best] + self._norms[rows]
        self.assignment, self.distances = assignment, np.maximum(distances, np.float32(0.0))


def _neighbors(centers: Floats, norms: Floats) -> Indices:
    """(k, 64) rows of the centers nearest to each, itself among them."""
    gaps = norms - 2 * (centers @ centers.T)
    np.fill_diagonal(gaps, -np.inf)
    return np.argpartition(gaps, _NEIGHBORS, axis=1)[:, :_NEIGHBORS]


def representatives(clustering: Clustering) -> Indices:
    """The row nearest to each center that has any points, those of the largest clusters first.

    >>> found = kmeans(np.float32([[0, 0], [0, 1], [0, 3], [9, 0]]), 2, rng=np.random.default_rng(0))
    >>> representatives(found).tolist()
    [1, 3]
    """
    if not len(clustering.assignment):
        return np.empty(0, dtype=np.int64)
    order = np.lexsort((clustering.distances, clustering.assignment))
    _, first, sizes = np.unique(clustering.assignment[order], return_index=True, return_counts=True)
    rows = order[first]
    return rows[np.lexsort((rows, -sizes))].astype(np.int64, copy=False)


def _select(pool: Pool, k: int, rng: np.random.Generator) -> Indices:
    assert pool.embedding is not None  # `winnow.selection.select` checks the needs first
    weights = None
    if pool.labeled is not None and len(pool.labeled):
        # What lies near a labeled record is covered already: the others draw the centers to themselves.
        weights = nearest(pool.embedding, as_floats(pool.labeled))[1].astype(np.float64)
    return representatives(kmeans(pool.embedding, k, rng=rng, weights=weights))


KMEANS = Selector(
    name="kmeans",
    select=_select,
    needs=frozenset({"embedding"}),
    cost="n x k",
    source="Lloyd, 1982; as a first batch Kang, Ryu and Kwon, 2004",
    sentence="Takes the record nearest the middle of each of k clusters: typical ones, the best first batch.",
)
