"""k-means, and the batch it makes: one record for each of k clusters."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from winnow.selection.distances import Floats, nearest, squared_norms
from winnow.selection.selector import Indices, Pool, Selector

_POINTS_A_CENTER = 256
"""Centers are fitted on at most this many points each: more move a mean by less than its clusters' spread."""


@dataclass(frozen=True, eq=False)
class Clustering:
    """k-means' answer: centers (k, dim), each point's center (n,) and the weighted sum of squared distances."""

    centers: Floats
    assignment: npt.NDArray[np.int64]
    distances: Floats
    """(n,) squared distance of each point to its center."""
    inertia: float


def _seeds(points: Floats, k: int, *, weights: npt.NDArray[np.float64], rng: np.random.Generator) -> Floats:
    """k starting centers: each drawn with probability weight x squared distance to the nearest one before it."""
    norms = squared_norms(points)
    centers = np.empty((k, points.shape[1]), dtype=np.float32)
    closest = np.ones(len(points), dtype=np.float64)
    for index in range(k):
        mass = np.cumsum(weights * closest)
        if mass[-1] > 0.0:
            row = min(int(np.searchsorted(mass, rng.random() * mass[-1], side="right")), len(points) - 1)
        else:  # every point coincides with a center already
            row = int(rng.integers(len(points)))
        centers[index] = points[row]
        distances = np.maximum(norms + norms[row] - 2 * (points @ points[row]), 0.0).astype(np.float64)
        distances[row] = 0.0
        closest = distances if index == 0 else np.minimum(closest, distances)
    return centers


def _means(
    points: Floats, centers: Floats, *, weights: npt.NDArray[np.float64], assignment: Indices, distances: Floats
) -> Floats:
    """Weighted means of the clusters; one without weight restarts at one of the points farthest from their centers."""
    k = len(centers)
    order = np.argsort(assignment, kind="stable")
    starts = np.searchsorted(assignment[order], np.arange(k))
    mass = np.bincount(assignment, weights=weights, minlength=k)
    weighted = points[order] * weights[order, None].astype(np.float32)
    means = centers.copy()
    filled = np.flatnonzero(mass > 0.0)
    if filled.size:
        # A cluster of mass 0 lends its slice to the one before it, which is right: its points weigh nothing.
        sums = np.add.reduceat(weighted, starts[filled], axis=0)
        means[filled] = sums / mass[filled, None].astype(np.float32)
    empty = np.flatnonzero(mass <= 0.0)
    if empty.size:
        means[empty] = points[np.argsort(-(distances * weights), kind="stable")[: empty.size]]
    return means


def kmeans(
    points: Floats,
    k: int,
    *,
    rng: np.random.Generator,
    weights: npt.NDArray[np.floating] | None = None,
    max_iter: int = 20,
    tolerance: float = 1e-4,
) -> Clustering:
    """Weighted k-means of points (n, dim), until a round lowers the inertia by less than `tolerance` of itself.

    Seeds are k-means++; k > n gives n centers. Weights (n,) must not be negative; without them every point weighs 1.
    Large inputs are fitted on a sample of 256 points a center and assigned as a whole.

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
        return Clustering(points[:0], np.empty(0, dtype=np.int64), nothing, 0.0)
    if n > _POINTS_A_CENTER * k:
        sample = np.sort(rng.choice(n, _POINTS_A_CENTER * k, replace=False))
        fitted, fitted_mass = points[sample], mass[sample]
    else:
        fitted, fitted_mass = points, mass
    centers = _seeds(fitted, k, weights=fitted_mass, rng=rng)
    before = np.inf
    for _ in range(max_iter):
        assignment, distances = nearest(fitted, centers)
        inertia = float((distances * fitted_mass).sum())
        if before - inertia <= tolerance * inertia:
            break
        before = inertia
        centers = _means(fitted, centers, weights=fitted_mass, assignment=assignment, distances=distances)
    assignment, distances = nearest(points, centers)
    return Clustering(centers, assignment, distances, float((distances * mass).sum()))


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
    return representatives(kmeans(pool.embedding, k, rng=rng))


KMEANS = Selector(
    name="kmeans",
    select=_select,
    needs=frozenset({"embedding"}),
    cost="n x k",
    source="Lloyd, 1982; as a first batch Kang, Ryu and Kwon, 2004",
    sentence="Takes the record nearest the middle of each of k clusters: typical ones, the best first batch.",
)
