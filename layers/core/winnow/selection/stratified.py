"""A random sample, spread evenly: the pool cut into strata of equal weight, one record drawn from each."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from winnow.selection.distances import Vectors, as_floats
from winnow.selection.selector import Indices, Pool, Selector

_FLOOR = 0.05
"""Weight of a record with score 0 beside a mean of 1: the model may be wrong about where it is sure."""
_JUDGED = 4096
"""Rows of a stratum, at most, by which the direction of its cut is chosen."""


def stratified(
    embedding: Vectors,
    k: int,
    *,
    rng: np.random.Generator,
    scores: npt.NDArray[np.floating] | None = None,
    labeled: Vectors | None = None,
) -> Indices:
    """min(k, n) different rows in random order, each drawn from a stratum of its own by weight.

    Strata are the cells of a k-d tree: the widest direction of a cell is cut so that both halves hold their share of the
    weight, and of the records to be asked so many that they and the `labeled` (m, dim) are shared out alike: where there
    are more labeled than that, none is asked. A record weighs the square root of its score (n,) >= 0, or 1 without scores.
    With a variance as the score the sample is as dense as the model's error is large (Neyman's allocation), and otherwise
    as dense as the pool: unlike the k best scores, or clusters, it does not favour outliers, which a squared error over
    the pool punishes.

    Source: Neyman, On the Two Different Aspects of the Representative Method, 1934; the cells are those of Bentley,
    Multidimensional Binary Search Trees, 1975.

    >>> line = np.arange(8, dtype=np.float32)[:, None]
    >>> sorted((stratified(line, 4, rng=np.random.default_rng(0)) // 2).tolist())
    [0, 1, 2, 3]
    >>> scores = np.float32([1, 1, 1, 1, 0, 0, 0, 0])
    >>> sorted(stratified(line, 4, rng=np.random.default_rng(0), scores=scores).tolist())
    [0, 1, 2, 3]
    >>> int(stratified(line, 1, rng=np.random.default_rng(0), labeled=line[:3])[0]) >= 4
    True
    """
    n = len(embedding)
    k = min(k, n)
    if k <= 0:
        return np.empty(0, dtype=np.int64)
    weights = np.ones(n) if scores is None else np.sqrt(np.maximum(scores, 0.0).astype(np.float64))
    mean = weights.mean()
    weights = weights / mean + _FLOOR if mean > 0.0 else np.ones(n)
    known = as_floats(embedding[:0] if labeled is None else labeled)
    cells = [(np.arange(n), known, k)]
    chosen: list[int] = []
    while cells:
        rows, near, places = cells.pop()
        if places in (0, len(rows)):
            chosen.extend(rows[:places].tolist())
            continue
        if places == 1 and not len(near):
            mass = np.cumsum(weights[rows])
            drawn = int(np.searchsorted(mass, rng.random() * mass[-1], side="right"))
            chosen.append(int(rows[min(drawn, len(rows) - 1)]))
            continue
        direction = _widest(embedding, rows, weights, rng)
        rows = rows[np.argsort(embedding[rows, direction], kind="stable")]
        share, half = places + len(near), (places + len(near)) // 2
        mass = np.concatenate([[0.0], np.cumsum(weights[rows])])
        cut = int(np.argmin(np.abs(mass - mass[-1] * half / share)))
        cut = min(max(cut, 1), len(rows) - 1)
        below = near[:, direction] <= embedding[rows[cut - 1], direction]
        left = half - int(np.count_nonzero(below))
        left = min(max(left, 0, places - (len(rows) - cut)), places, cut)
        cells += [(rows[:cut], near[below], left), (rows[cut:], near[~below], places - left)]
    return rng.permutation(np.array(chosen, dtype=np.int64))


def _widest(embedding: Vectors, rows: Indices, weights: npt.NDArray[np.float64], rng: np.random.Generator) -> int:
    """The direction in which the rows' weighted variance is largest."""
    if len(rows) > _JUDGED:
        rows = rng.choice(rows, _JUDGED, replace=False)
    points, share = embedding[rows].astype(np.float64), weights[rows] / weights[rows].sum()
    points -= share @ points
    return int(np.argmax(share @ np.square(points)))


def _select(pool: Pool, k: int, rng: np.random.Generator) -> Indices:
    assert pool.embedding is not None  # `winnow.selection.select` checks the needs first
    return stratified(pool.embedding, k, rng=rng, scores=pool.scores, labeled=pool.labeled)


STRATIFIED = Selector(
    name="stratified",
    select=_select,
    needs=frozenset({"embedding"}),
    cost="n x log (k + labeled)",
    source="Neyman, 1934; cells by Bentley, 1975",
    sentence="Draws records from strata that hold the same share of the expected error and lack labels: the best for numbers.",
)
