"""How the time of every selector grows when the pool or the batch doubles: none may be worse than records x batch."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from benchmarks import pools
from benchmarks.measure import Result, against, milliseconds, often
from winnow.selection import SELECTORS, Pool, select
from winnow.selection.duplicates import suppress_near_duplicates

ROWS, DIMENSIONS, CLASSES, MEMBERS = 100_000, 64, 10, 4
TAKEN = 200
REPEATS = 5
LIMIT = 2.6
"""Twice, and what a cache that is outgrown and a busy machine add."""


def results(*, seed: int = 0) -> Iterator[Result]:
    """Every ratio of this module."""
    rng = np.random.default_rng(seed)
    whole = pool(2 * ROWS, rng=rng)
    half = whole.take(np.arange(ROWS))
    for name in SELECTORS:
        once = _time(name, half, TAKEN)
        yield _grown(f"{name}, {2 * ROWS} records", _time(name, whole, TAKEN), once, called=f"{ROWS} records")
        yield _grown(f"{name}, {2 * TAKEN} taken", _time(name, half, 2 * TAKEN), once, called=f"{TAKEN} taken")
    yield _near_duplicates(whole)


def pool(rows: int, *, rng: np.random.Generator) -> Pool:
    """A pool with every column, as a calibrated model would give them."""
    points = pools.clustered(rows, DIMENSIONS, rng=rng)
    members = np.stack([pools.probabilities(points, CLASSES, rng=rng) for _ in range(MEMBERS)], axis=1)
    said = members.mean(axis=1)
    confidence = said.max(axis=1)
    return Pool(
        rows, scores=1 - confidence, embedding=points, probabilities=said, members=members, confidence=confidence
    )


def _time(name: str, some: Pool, k: int) -> float:
    def run() -> None:
        select(name, replace(some), k, rng=np.random.default_rng(0))  # a copy has cached nothing yet

    return min(milliseconds(run) for _ in range(often(REPEATS, milliseconds(run))))


def _grown(name: str, more: float, once: float, *, called: str) -> Result:
    return Result(name, called, more, once, limit=LIMIT)


def _near_duplicates(whole: Pool) -> Result:
    """What a selector that goes by scores alone is offered, 20 records a place, beside comparing all with all of that."""
    assert whole.embedding is not None
    points = whole.embedding[:ROWS]
    offered = 20 * TAKEN
    order = np.random.default_rng(0).permutation(ROWS)

    def reference() -> None:
        for start in range(0, ROWS, 512):
            (points[start : start + 512] @ points[:offered].T).max(axis=1)

    return against(
        f"near-duplicates out of {ROWS} records, {offered} kept",
        lambda: suppress_near_duplicates(points, order, threshold=0.02, limit=offered),
        reference,
        called="a product of all records with those kept",
        limit=1.0,
        repeats=REPEATS,
    )


QUICK = {"ROWS": 10_000, "TAKEN": 50}
"""What --quick sets instead."""
