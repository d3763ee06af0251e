"""How a simulation buys labels when nobody says: sizes from the pool and the number of classes."""

from __future__ import annotations

import argparse
from dataclasses import replace

from winnow_cli.errors import UsageError
from winnow_cli.simulate.trial import Settings

ROUNDS = 15
POOL_OF_A_BATCH = 60
"""Records of the pool for each one of a batch: fifteen rounds then label a quarter of it."""
LEAST_BATCH, MOST_BATCH = 5, 50
"""Bounds of an automatic batch, unless there are more classes than that."""
MOST_OF_POOL = 0.5
"""Share of the pool that an automatic budget spends at most: with less left there is nothing to choose from."""


def automatic(pool: int, classes: int) -> Settings:
    """First sample, batch and budget for a pool of so many records and classes (0 of a regression).

    >>> [(one.initial, one.batch, one.budget) for one in (automatic(10_003, 77), automatic(1_258, 10), automatic(42, 2))]
    [(154, 77, 1309), (20, 20, 320), (5, 5, 21)]
    >>> automatic(32_561, 2).batch, automatic(14_448, 0).initial
    (50, 50)
    """
    fair = max(LEAST_BATCH, min(MOST_BATCH, pool // POOL_OF_A_BATCH))
    batch = _round(fair)
    if classes > batch and classes * ROUNDS <= MOST_OF_POOL * pool:
        batch = classes
    initial = max(batch, min(2 * classes, round(0.1 * pool)))
    return Settings(initial, batch, max(initial, min(initial + ROUNDS * batch, int(MOST_OF_POOL * pool))))


def _round(size: int) -> int:
    """The largest of 5, 10, 20 and 50 that is not above `size`."""
    return max(step for step in (5, 10, 20, 50) if step <= size)


def planned(given: argparse.Namespace, *, pool: int, classes: int) -> list[Settings]:
    """What the options say, and `automatic` for the rest; one plan for each of --batches.

    Raises UsageError for sizes that the pool cannot give.
    """
    base = automatic(pool, classes)
    sizes = given.batches or [given.batch or base.batch]
    initial = given.initial or base.initial
    budget = given.budget
    if budget is None:
        budget = max(initial, min(initial + ROUNDS * sizes[0], int(MOST_OF_POOL * pool)))
    if budget > pool:
        raise UsageError(f"--budget {budget} is more than the {pool} records of the pool; ask for fewer")
    if initial > budget:
        raise UsageError(
            f"--initial {initial} is more than the budget of {budget} labels; ask for fewer or raise --budget"
        )
    if initial < 2:
        raise UsageError("--initial 1 teaches no model; ask for 2 at least")
    return [replace(base, initial=initial, batch=size, budget=budget, holdout=given.holdout) for size in sizes]
