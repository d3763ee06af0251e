"""One strategy on one split: what it asks for round by round, and what the model that learns from it is worth."""

from __future__ import annotations

import hashlib
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from winnow.models.predictions import Predictions
from winnow_cli.errors import UsageError

Indices = npt.NDArray[np.int64]

EVERYTHING = 1 << 40
"""More records than there are: no limit to a part of a split."""


class Fit(Protocol):
    """A fitted model: its measure on the test part, what it says of the pool, what phases need to know."""

    value: float
    predictions: Predictions
    doubt: Any


class Learner(Protocol):
    """Fits the loop's model on rows of a problem."""

    def fit(self, rows: Indices) -> Fit: ...


class Problem(Protocol):
    """Labeled records as a learner sees them; `winnow_cli.simulate.learner.Problem` is one."""

    task: Any
    classes: tuple[str, ...]
    labels: npt.NDArray[Any]
    embedding: npt.NDArray[np.float32]

    @property
    def size(self) -> int: ...

    @property
    def contents(self) -> Indices: ...

    @property
    def measure(self) -> str: ...

    def split(self, seed: int, *, holdout: float, pool: int, test: int) -> tuple[Indices, Indices]: ...


Teach = Callable[..., Learner]
"""`Learner(problem, pool, test, seed=, members=)`."""


@dataclass(frozen=True)
class Settings:
    """How labels are bought: a first sample, then batches, until the budget is spent. All count labels."""

    initial: int
    batch: int
    budget: int
    holdout: float = 0.3
    """Share of the records that judges, where no test part of its own is given."""
    members: int = 4
    """Members of the committee, for strategies that ask one."""

    @property
    def levels(self) -> list[int]:
        """Labels at which the model is judged.

        >>> Settings(initial=20, batch=30, budget=100).levels
        [20, 50, 80, 100]
        """
        rounds = max(0, math.ceil((self.budget - self.initial) / self.batch))
        return [min(self.initial + number * self.batch, self.budget) for number in range(rounds + 1)]


@dataclass(frozen=True, eq=False)
class State:
    """What a strategy gets to see before a batch. Rows are places in the pool; no label of an unasked record is here."""

    k: int
    """Records to choose."""
    embedding: npt.NDArray[np.float32]
    """(n, dim) of the whole pool."""
    contents: Indices
    """(n,) the same number for records with the same content."""
    labeled: Indices
    """(m,) rows asked so far, in order."""
    labels: npt.NDArray[Any]
    """(m,) their answers: numbers of classes, or numbers."""
    task: str
    classes: tuple[str, ...]
    predictions: Predictions | None
    """What the model says of the whole pool; None before the first labels."""
    doubt: Any
    """What the learner measured on held-out labels; None before the first labels."""
    memory: dict[str, Any]
    """A strategy's own notes, kept from batch to batch."""
    order: Indices
    """(n,) the pool's rows in the seed's random order, of which the shared first sample is the beginning."""
    rng: np.random.Generator

    @property
    def free(self) -> Indices:
        """Rows that may be chosen, in order."""
        open_rows = np.ones(len(self.embedding), dtype=bool)
        open_rows[self.labeled] = False
        return np.flatnonzero(open_rows)


Choose = Callable[[State], Indices]
"""Exactly min(k, free) different free rows, best first."""


@dataclass(frozen=True)
class Contender:
    """A strategy under its name. `choose` has to be importable by name, as other processes run it."""

    name: str
    choose: Choose
    members: bool = False
    """Whether it asks a committee."""
    starts: bool = False
    """Whether it chooses the first sample too; the others start from the seed's random one."""
    version: str = ""
    """Changes when results kept from earlier must not be used; the code of Winnow itself is watched anyway."""


@dataclass(frozen=True)
class Outcome:
    """One strategy on one seed: labels and measure after each round, CPU seconds that choosing took, what was asked."""

    strategy: str
    seed: int
    labels: tuple[int, ...]
    values: tuple[float, ...]
    select_seconds: tuple[float, ...]
    asked: tuple[int, ...]
    """Rows of the problem in the order in which they were asked."""

    def to_json(self) -> dict[str, Any]:
        return {"format": 1, **self.__dict__}

    @classmethod
    def from_json(cls, body: Mapping[str, Any]) -> Outcome:
        """Raises KeyError or TypeError for what is none."""
        names = ("labels", "values", "select_seconds", "asked")
        return cls(str(body["strategy"]), int(body["seed"]), *(tuple(body[name]) for name in names))


def parts(problem: Problem, seed: int, *, settings: Settings, test_from: int | None) -> tuple[Indices, Indices]:
    """Rows of the pool and of the test part for a seed."""
    if test_from is not None:
        rows = np.arange(problem.size)
        return rows[:test_from], rows[test_from:]
    return problem.split(seed, holdout=settings.holdout, pool=EVERYTHING, test=EVERYTHING)


def shuffled(pool: int, seed: int) -> Indices:
    """Places in the pool by chance, alike for a seed. Every strategy without a start of its own begins with the first of
    them, and random choice goes on along them, so that its labels are the same for any batch size."""
    return np.random.default_rng([seed, 0]).permutation(pool)


def run_trial(
    problem: Problem,
    teach: Teach,
    contender: Contender,
    seed: int,
    *,
    settings: Settings,
    test_from: int | None = None,
    tell: Callable[[], None] = lambda: None,
) -> Outcome:
    """Buy labels until the budget is spent. `tell` is called after every round.

    Raises UsageError when a strategy breaks its contract.
    """
    pool, test = parts(problem, seed, settings=settings, test_from=test_from)
    learner = teach(problem, pool, test, seed=seed, members=settings.members if contender.members else 0)
    memory: dict[str, Any] = {}
    order = shuffled(len(pool), seed)
    stream = int.from_bytes(hashlib.sha256(contender.name.encode()).digest()[:4], "big")
    values: list[float] = []
    seconds: list[float] = []

    def choose(k: int, labeled: Indices, fit: Fit | None) -> Indices:
        state = State(
            k=k, embedding=problem.embedding[pool], contents=problem.contents[pool], labeled=labeled,
            labels=problem.labels[pool[labeled]],
            task=problem.task, classes=problem.classes, predictions=None if fit is None else fit.predictions,
            doubt=None if fit is None else fit.doubt, memory=memory,
            order=order, rng=np.random.default_rng([seed, len(labeled) + 1, stream]),
        )  # fmt: skip
        started = time.process_time()
        rows = np.asarray(contender.choose(state), dtype=np.int64)
        seconds.append(time.process_time() - started)
        _check(rows, state, name=contender.name)
        return rows

    levels = settings.levels
    first = order[: levels[0]]
    labeled = choose(levels[0], first[:0], None) if contender.starts else first
    fit: Fit | None = None
    for level in levels:
        if level > len(labeled):
            labeled = np.concatenate([labeled, choose(level - len(labeled), labeled, fit)])
        fit = learner.fit(pool[labeled])
        values.append(float(fit.value))
        tell()
    return Outcome(
        contender.name, seed, tuple(levels), tuple(values), tuple(seconds), tuple(int(row) for row in pool[labeled])
    )


def _check(rows: Indices, state: State, *, name: str) -> None:
    wanted = min(state.k, len(state.embedding) - len(state.labeled))
    free = np.isin(rows, state.free).all()
    if len(rows) != wanted or len(np.unique(rows)) != len(rows) or not free:
        raise UsageError(
            f"strategy {name} chose {len(np.unique(rows))} different records{'' if free else ', some of them not free,'} where "
            f"{wanted} free ones were asked; correct it or leave it out of --strategies"
        )
