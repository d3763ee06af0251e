"""Selecting a batch against the loops of the textbook: one pass over the pool for each record taken."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from benchmarks import pools
from benchmarks.measure import Result, against
from benchmarks.pools import Floats
from winnow.selection import Pool, select
from winnow.selection.kmeans import kmeans

ROWS, DIMENSIONS, CLASSES = 100_000, 384, 10
BATCHES = (100, 1000)
LIMITS = {("k_center", 100): 0.6, ("k_center", 1000): 0.25, ("badge", 100): 0.15, ("badge", 1000): 0.03}
"""Of the textbook's time on clustered vectors; on other data a lazy method must only not fall behind."""
SHORTLISTS = ((770, 77), (7_000, 77))
"""Rows and clusters of a batch of 77 from BANKING77: from its shortlist and from its pool."""
Indices = npt.NDArray[np.int64]


def results(*, seed: int = 0) -> Iterator[Result]:
    """Every ratio of this module."""
    rng = np.random.default_rng(seed)
    for kind in (pools.clustered, pools.cloud, pools.copies):
        points = kind(ROWS, DIMENSIONS, rng=rng)
        pool = Pool(ROWS, embedding=points, probabilities=pools.probabilities(points, CLASSES, rng=rng))
        for k in BATCHES if kind is pools.clustered else BATCHES[:1]:
            yield _k_center(pool, k, kind.__name__)
            yield _badge(pool, k, kind.__name__)
    yield from _kmeans(rng)


def _limit(selector: str, k: int, kind: str) -> float | None:
    if (ROWS, DIMENSIONS) != (100_000, 384):
        return None  # on a smaller pool the processor's cache holds what the limits are about
    return LIMITS.get((selector, k)) if kind == "clustered" else 1.0


def _k_center(pool: Pool, k: int, kind: str) -> Result:
    assert pool.embedding is not None
    points: Floats = pool.embedding
    picked: dict[str, Indices] = {}

    # A copy of the pool has cached nothing yet.
    def ours() -> None:
        picked["ours"] = select("k_center", replace(pool), k, rng=np.random.default_rng(0))

    def reference() -> None:
        picked["reference"] = textbook_k_center(points, k, first=int(picked["ours"][0]))

    result = against(
        _name("k_center", k, kind), ours, reference,
        called="a pass over the pool a center", limit=_limit("k_center", k, kind), repeats=3 if k <= 100 else 1,
    )  # fmt: skip
    same = np.array_equal(picked["ours"], picked["reference"])
    return replace(result, note="the same rows" if same else "OTHER ROWS")


def _badge(pool: Pool, k: int, kind: str) -> Result:
    assert pool.embedding is not None
    assert pool.probabilities is not None
    points, said = pool.embedding, pool.probabilities
    return against(
        _name("badge", k, kind),
        lambda: select("badge", replace(pool), k, rng=np.random.default_rng(0)),
        lambda: textbook_badge(said, points, k, rng=np.random.default_rng(0)),
        called="a pass over the factors a record",
        limit=_limit("badge", k, kind),
        repeats=3 if k <= 100 else 1,
    )


def _name(selector: str, k: int, kind: str) -> str:
    return f"{selector}, {k} of {ROWS} x {DIMENSIONS}, {kind}"


def _kmeans(rng: np.random.Generator) -> Iterator[Result]:
    from sklearn.cluster import KMeans  # slow to import, and only this needs it

    for rows, k in SHORTLISTS:
        points = pools.clustered(rows, DIMENSIONS, rng=rng)
        inertia: dict[str, float] = {}

        def ours(points: Floats = points, k: int = k, inertia: dict[str, float] = inertia) -> None:
            inertia["ours"] = kmeans(points, k, rng=np.random.default_rng(0)).inertia

        def reference(points: Floats = points, k: int = k, inertia: dict[str, float] = inertia) -> None:
            inertia["theirs"] = float(KMeans(k, n_init=1, random_state=0).fit(points).inertia_)

        name = f"kmeans, {k} of {rows} x {DIMENSIONS}"
        timed = against(name, ours, reference, called="scikit-learn's, n_init=1", limit=1.0, repeats=3)
        yield replace(timed, note=f"{inertia['ours'] / inertia['theirs']:.3f} x its inertia")


def textbook_k_center(points: Floats, k: int, *, first: int) -> Indices:
    """Gonzalez' algorithm: after each center one matrix-vector product, then the farthest row."""
    norms = np.einsum("ij,ij->i", points, points)
    nearest = np.full(len(points), np.inf, dtype=np.float32)
    distances = np.empty(len(points), dtype=np.float32)
    taken = [first]
    while True:
        np.dot(points, points[taken[-1]], out=distances)
        distances *= -2
        distances += norms
        distances += norms[taken[-1]]
        np.minimum(nearest, distances, out=nearest)
        nearest[taken[-1]] = -1.0
        if len(taken) == k:
            return np.array(taken, dtype=np.int64)
        taken.append(int(nearest.argmax()))


def textbook_badge(said: Floats, points: Floats, k: int, *, rng: np.random.Generator) -> Indices:
    """k-means++ on the gradients, whose products are those of their factors; nothing larger than the pool is formed."""
    gaps = -said
    gaps[np.arange(len(said)), said.argmax(axis=1)] += 1.0
    norms = np.einsum("ij,ij->i", gaps, gaps) * np.einsum("ij,ij->i", points, points)
    nearest = np.full(len(points), np.inf, dtype=np.float32)
    taken = [int(norms.argmax())]
    while True:
        distances = points @ points[taken[-1]]
        distances *= gaps @ gaps[taken[-1]]
        distances *= -2
        distances += norms
        distances += norms[taken[-1]]
        np.maximum(distances, 0.0, out=distances)
        np.minimum(nearest, distances, out=nearest)
        nearest[taken[-1]] = 0.0
        if len(taken) == k:
            return np.array(taken, dtype=np.int64)
        mass = np.cumsum(nearest, dtype=np.float64)
        taken.append(int(np.searchsorted(mass, rng.random() * mass[-1], side="right")))


QUICK = {"ROWS": 20_000, "BATCHES": (100,), "SHORTLISTS": ((770, 77),)}
"""What --quick sets instead."""
