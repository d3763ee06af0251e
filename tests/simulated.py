"""A problem whose answers are known, for tests of simulations: importable by name, as other processes run it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from winnow.models.predictions import Predictions
from winnow_cli.simulate.trial import Contender, Indices, State


@dataclass(frozen=True, eq=False)
class Made:
    """Records in groups that lie far apart; the groups' labels are what there is to learn."""

    labels: Any
    embedding: Any
    group: Any
    task: str = "classification"
    classes: tuple[str, ...] = ("no", "yes")
    measure: str = "accuracy"

    @property
    def size(self) -> int:
        return len(self.labels)

    @property
    def contents(self) -> Indices:
        return np.arange(self.size)

    def split(self, seed: int, *, holdout: float, pool: int, test: int) -> tuple[Indices, Indices]:
        order = np.random.default_rng([seed, 1]).permutation(self.size)
        count = round(holdout * self.size)
        return np.sort(order[count:]), np.sort(order[:count])


def grouped(groups: int = 40, *, skew: float = 2.0, size: int = 600) -> Made:
    """`groups` with sizes that fall off as a power law: random choice meets the small ones late."""
    rng = np.random.default_rng(3)
    weights = (1.0 + np.arange(groups)) ** -skew
    group = np.concatenate([np.arange(groups), rng.choice(groups, size - groups, p=weights / weights.sum())])
    centres = rng.normal(size=(groups, 8)) * 10.0
    labels = rng.integers(0, 2, groups)[group]
    embedding = (centres[group] + rng.normal(size=(size, 8)) * 0.1).astype(np.float32)
    return Made(labels.astype(np.int64), embedding, group)


def unlearnable(size: int = 600) -> Made:
    """Labels by chance: nothing that is asked teaches anything."""
    rng = np.random.default_rng(4)
    labels = rng.integers(0, 2, size).astype(np.int64)
    return Made(labels, rng.normal(size=(size, 8)).astype(np.float32), np.arange(size))


@dataclass(frozen=True, eq=False)
class Known:
    """What a fitted model shows."""

    value: float
    predictions: Predictions
    doubt: Any = None


class Nearest:
    """The label of the nearest labeled record, surer the nearer it is: a model that has no settings."""

    def __init__(self, problem: Made, pool: Indices, test: Indices, *, seed: int, members: int = 0) -> None:
        self._problem, self._pool, self._test = problem, pool, test

    def fit(self, rows: Indices) -> Known:
        said, sure = self._nearest(self._pool, rows)
        best = 0.5 + 0.5 * sure
        probabilities = np.where(np.arange(2) == said[:, None], best[:, None], 1.0 - best[:, None]).astype(np.float32)
        judged, _ = self._nearest(self._test, rows)
        value = float((judged == self._problem.labels[self._test]).mean())
        return Known(value, Predictions(probabilities, self._problem.embedding[self._pool]))

    def _nearest(self, rows: Indices, labeled: Indices) -> tuple[Any, Any]:
        points, known = self._problem.embedding[rows], self._problem.embedding[labeled]
        distances = np.linalg.norm(points[:, None] - known[None], axis=2)
        return self._problem.labels[labeled][distances.argmin(axis=1)], np.exp(-distances.min(axis=1) / 5.0)


def farthest(state: State) -> Indices:
    """Free rows farthest from everything labeled, one after the other: on groups that lie apart, none twice."""
    free = state.free
    points = state.embedding[free]
    distance = np.linalg.norm(points[:, None] - state.embedding[state.labeled][None], axis=2).min(axis=1)
    chosen: list[int] = []
    for _ in range(min(state.k, len(free))):
        row = int(distance.argmax())
        chosen.append(row)
        distance = np.minimum(distance, np.linalg.norm(points - points[row], axis=1))
        distance[row] = -1.0
    return free[chosen]


def commonest(state: State) -> Indices:
    """Free rows nearest to the first one labeled: what teaches least."""
    free = state.free
    return free[
        np.argsort(np.linalg.norm(state.embedding[free] - state.embedding[state.labeled[0]], axis=1))[: state.k]
    ]


def twice(state: State) -> Indices:
    """Breaks the contract: one record for every place."""
    return np.full(state.k, state.free[0])


def interrupted(state: State) -> Indices:
    """As somebody pressing Ctrl-C in the middle."""
    raise KeyboardInterrupt


def by_margin(state: State) -> Indices:
    """Free rows in the order of their margins."""
    assert state.predictions is not None
    two = np.sort(state.predictions.probabilities[state.free], axis=1)
    return state.free[np.argsort(two[:, -1] - two[:, -2], kind="stable")[: state.k]]


ORACLE = Contender("oracle", farthest)
WORST = Contender("worst", commonest)
MARGIN = Contender("by_margin", by_margin)


def scrambled(problem: Made, *, kept: Any) -> Made:
    """The same records with other labels everywhere but at `kept`."""
    labels = 1 - problem.labels
    labels[list(kept)] = problem.labels[list(kept)]
    return replace(problem, labels=labels)
