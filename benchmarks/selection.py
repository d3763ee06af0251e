"""Selecting a batch: k-center against the loop of the textbook, and what the default selector costs beside it."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from benchmarks.measure import Result, against
from winnow.selection import Pool, select
from winnow.selection.k_center import k_center

ROWS, DIMENSIONS, TAKEN, CLUSTERS = 20_000, 64, 200, 50
Floats = npt.NDArray[np.float32]


def results(*, seed: int = 0) -> Iterator[Result]:
    """Every ratio of this module."""
    rng = np.random.default_rng(seed)
    clouds = {
        "clustered": clustered(rng),
        "one cloud": rng.standard_normal((ROWS, DIMENSIONS), dtype=np.float32),
    }
    for name, embedding in clouds.items():
        same = np.array_equal(k_center(embedding, TAKEN), textbook(embedding, TAKEN))
        yield against(
            f"k_center, {TAKEN} of {ROWS} x {DIMENSIONS}, {name}",
            lambda embedding=embedding: k_center(embedding, TAKEN),
            lambda embedding=embedding: textbook(embedding, TAKEN),
            called="one pass over the pool a center",
            note="the same rows" if same else "OTHER ROWS",
            repeats=3,
        )
    pool = Pool(ROWS, scores=rng.random(ROWS, dtype=np.float32), embedding=clouds["clustered"])
    yield against(
        f"margin_kmeans, {TAKEN} of {ROWS} x {DIMENSIONS}, clustered",
        lambda: select("margin_kmeans", pool, TAKEN, rng=np.random.default_rng(0)),
        lambda: textbook(clouds["clustered"], TAKEN),
        called="the same textbook loop",
        repeats=3,
    )


def clustered(rng: np.random.Generator) -> Floats:
    """Points around centers, as embeddings of a trained model lie."""
    centers = 4.0 * rng.standard_normal((CLUSTERS, DIMENSIONS), dtype=np.float32)
    return centers[rng.integers(0, CLUSTERS, ROWS)] + rng.standard_normal((ROWS, DIMENSIONS), dtype=np.float32)


def textbook(embedding: Floats, k: int) -> npt.NDArray[np.int64]:
    """Gonzalez' algorithm as it is usually written, from the row nearest the mean."""
    first = int(np.argmin(((embedding - embedding.mean(axis=0)) ** 2).sum(axis=1)))
    taken = [first]
    nearest = ((embedding - embedding[first]) ** 2).sum(axis=1)
    while len(taken) < k:
        taken.append(int(np.argmax(nearest)))
        np.minimum(nearest, ((embedding - embedding[taken[-1]]) ** 2).sum(axis=1), out=nearest)
    return np.array(taken, dtype=np.int64)
