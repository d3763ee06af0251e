"""Which set to ask for: a table of selectors, each from a pool to k rows of it.

A new selector is one module and one line in `SELECTORS`.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from winnow.errors import BadInput, ConfigError
from winnow.selection.badge import BADGE
from winnow.selection.batch_bald import BATCH_BALD
from winnow.selection.cluster_margin import CLUSTER_MARGIN
from winnow.selection.distances import Vectors, as_floats, blocks, squared_norms
from winnow.selection.k_center import K_CENTER
from winnow.selection.kmeans import KMEANS
from winnow.selection.margin_kmeans import MARGIN_KMEANS
from winnow.selection.power import POWER
from winnow.selection.selector import Indices, Pool, Selector
from winnow.selection.stratified import STRATIFIED
from winnow.selection.top_k import RANDOM, TOP_K, top_k
from winnow.selection.typiclust import TYPICLUST

SELECTORS: Mapping[str, Selector] = {
    selector.name: selector
    for selector in (
        TOP_K,
        POWER,
        MARGIN_KMEANS,
        CLUSTER_MARGIN,
        BADGE,
        BATCH_BALD,
        K_CENTER,
        KMEANS,
        TYPICLUST,
        STRATIFIED,
        RANDOM,
    )
}

SELECTING: Mapping[str, Mapping[str, str]] = {
    "classification": {"selector": MARGIN_KMEANS.name},
    "regression": {"selector": STRATIFIED.name},
}
"""What makes the active arm of a task for which nothing was chosen."""


def select(selector: str, pool: Pool, k: int, *, rng: np.random.Generator) -> Indices:
    """Exactly min(k, n) different rows of the pool, best first.

    Where a selector finds fewer than k (clusters of identical points), the rest are the best scores, or without scores
    the first rows. Records that tie go by their order in the pool, so bring the pool into an order that does not depend
    on chance (`plan_arms` orders by uniform key).

    Raises ConfigError for an unknown selector or a pool without what it needs, BadInput for columns that are NaN,
    infinite, not one a row or of the wrong shape.

    >>> pool = Pool(3, scores=np.float32([0.2, 0.9, 0.5]))
    >>> select("top_k", pool, 2, rng=np.random.default_rng(0)).tolist()
    [1, 2]
    """
    entry = SELECTORS.get(selector)
    if entry is None:
        raise ConfigError(f"selector {selector!r} is unknown; choose one of {', '.join(sorted(SELECTORS))}")
    for need in sorted(entry.needs):
        if getattr(pool, need) is None:
            raise ConfigError(
                f"selector {selector} needs {need}, which this pool does not carry; score it with a model"
            )
    _check(pool)
    k = min(max(k, 0), pool.size)
    rows = entry.select(pool, k, rng) if k else np.empty(0, dtype=np.int64)
    if len(rows) < k:
        rest = np.setdiff1d(np.arange(pool.size), rows)
        best = rest if pool.scores is None else rest[top_k(pool.scores[rest], k - len(rows))]
        rows = np.concatenate([rows, best[: k - len(rows)]])
    return rows


def _check(pool: Pool) -> None:
    columns: list[tuple[str, Vectors | None, int]] = [
        ("scores", pool.scores, 1),
        ("confidence", pool.confidence, 1),
        ("embedding", pool.embedding, 2),
        ("probabilities", pool.probabilities, 2),
        ("members", pool.members, 3),
    ]
    for name, values, axes in columns:
        if values is None:
            continue
        if len(values) != pool.size:
            raise BadInput(f"the pool has {pool.size} records but {len(values)} rows of {name}", code="pool-shape")
        if values.ndim != axes:
            raise BadInput(f"{name} of a pool have {axes} axes, not {values.ndim}", code="pool-shape")
        _check_finite(name, pool.squared_norms if name == "embedding" else _sums(values))
    if pool.labeled is not None and pool.embedding is not None and len(pool.labeled):
        if pool.labeled.shape[1:] != pool.embedding.shape[1:]:
            raise BadInput(
                f"labeled embeddings have shape {pool.labeled.shape}, those of the pool {pool.embedding.shape}",
                code="pool-shape",
            )
        _check_finite("labeled", squared_norms(pool.labeled))


def _sums(values: Vectors) -> Vectors:
    """One number a row, (n,), finite where all of the row are."""
    if values.ndim == 1:
        return values
    sums = np.empty(len(values), dtype=np.float32)
    for block in blocks(len(values)):
        rows = as_floats(values[block]).reshape(len(sums[block]), -1)
        sums[block] = rows @ np.ones(rows.shape[1], dtype=np.float32)
    return sums


def _check_finite(name: str, numbers: Vectors) -> None:
    finite = np.isfinite(numbers)
    if not finite.all():
        row = int(np.argmin(finite))
        raise BadInput(f"{name} of row {row} is NaN or infinite; score it again", code="pool-values")


__all__ = ["SELECTING", "SELECTORS", "Indices", "Pool", "Selector", "select"]
