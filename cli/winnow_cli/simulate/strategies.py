"""The strategies that a simulation knows by name.

`margin` is an acquisition function with the best scores taken, `badge` a selector on the task's default scores,
`entropy+power` a pair of both, `random` the control, and `default` what a loop does that nobody configured.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from winnow.acquisition import DEFAULTS, OUTPUTS, STRATEGIES, able, check_choice, score
from winnow.acquisition.strategy import Labeled
from winnow.errors import ConfigError
from winnow.loop import Loop
from winnow.models.predictions import Predictions
from winnow.records import Kind
from winnow.selection import SELECTORS, Pool, active, select
from winnow.selection.balance import class_worth
from winnow.selection.phases import decide
from winnow.selection.selector import PoolNeed
from winnow_cli.errors import UsageError
from winnow_cli.simulate.trial import Contender, Indices, State

RANDOM, DEFAULT = "random", "default"
COMPARED = {
    "classification": (DEFAULT, RANDOM, "margin", "badge"),
    "regression": (DEFAULT, RANDOM, "variance", "k_center"),
}
"""What is compared when nobody says; names that the tables do not have are left out."""

_LACKING: Mapping[str, frozenset[PoolNeed]] = {
    "classification": frozenset(), "regression": frozenset({"probabilities", "members"})
}  # fmt: skip
"""What selectors may need and a task's models do not give: a regression has no probabilities, nor members that do."""


@dataclass(frozen=True)
class Paired:
    """Scores of one table entry, or none, and the set that another makes of them."""

    strategy: str | None
    selector: str

    def __call__(self, state: State) -> Indices:
        free = state.free
        pool = pool_of(state, free, strategy=self.strategy)
        return free[select(self.selector, pool, state.k, rng=state.rng)]


@dataclass(frozen=True)
class Fresh:
    """The active arm of a loop whose file says nothing about acquisition."""

    strategy: str
    selector: str
    cold_start: str
    near_duplicate_distance: float
    balance: bool

    @classmethod
    def of(cls, task: str, kind: Kind) -> Fresh:
        said = Loop.model_validate({"task": {"type": task, "kind": kind}}).acquisition
        return cls(said.strategy, said.selector, said.cold_start, said.near_duplicate_distance, said.balance)

    def __call__(self, state: State) -> Indices:
        # As in a loop, a content is one candidate however often it occurs, and none once it has been asked.
        new = state.free[~np.isin(state.contents[state.free], state.contents[state.labeled])]
        free = new[np.sort(np.unique(state.contents[new], return_index=True)[1])]
        if decide(state.doubt, bootstrap=state.predictions is None).phase == "coverage":
            pool = Pool(len(free), embedding=state.embedding[free], labeled=state.embedding[state.labeled])
            selector = self.cold_start
        else:
            pool, selector = pool_of(state, free, strategy=self.strategy), self.selector
            if self.balance and state.classes and pool.scores is not None:
                assert state.predictions is not None  # a phase of doubt has a model
                predicted = state.predictions.probabilities[free].argmax(axis=1)
                worth = class_worth(np.bincount(state.labels, minlength=len(state.classes)))
                pool = replace(pool, scores=pool.scores * worth[predicted])
        rows = active.choose(
            pool, state.k, selector=selector, rng=state.rng, near_duplicate_distance=self.near_duplicate_distance
        )
        # Places that near-duplicates leave open are the control arm's.
        chosen = free[rows]
        rest = state.rng.permutation(np.setdiff1d(free, chosen))
        copies = state.rng.permutation(np.setdiff1d(state.free, free))
        return np.concatenate([chosen, rest, copies])[: state.k]


def by_chance(state: State) -> Indices:
    """What comes next in the seed's random order: a uniform sample of what is free."""
    return state.order[~np.isin(state.order, state.labeled)][: state.k]


def pool_of(state: State, rows: Indices, *, strategy: str | None) -> Pool:
    """Some rows of the pool as selectors take them, with a strategy's scores."""
    said = of_rows(state, rows)
    classified = said.probabilities.shape[1] > 0
    return Pool(
        len(rows), scores=None if strategy is None else score(strategy, said, rng=state.rng), embedding=said.embedding,
        labeled=state.embedding[state.labeled], probabilities=said.probabilities if classified else None,
        members=said.members if classified else None,
        confidence=said.probabilities.max(axis=1) if classified else None,
    )  # fmt: skip


def of_rows(state: State, rows: Indices) -> Predictions:
    """What the model says of some rows of the pool, with what is labeled so far beside it."""
    whole = state.predictions
    assert whole is not None  # there are labels before a strategy without a start of its own is asked
    return replace(
        whole, probabilities=whole.probabilities[rows], embedding=whole.embedding[rows],
        labeled=Labeled(state.embedding[state.labeled], state.labels if state.task == "classification" else None),
        members=None if whole.members is None else whole.members[rows],
        prediction=None if whole.prediction is None else whole.prediction[rows],
    )  # fmt: skip


def contender(name: str, *, task: str, kind: Kind, members: int) -> Contender:
    """The strategy of a name for a task on records of a kind, with a committee of so many members.

    Raises UsageError for an unknown name, and for one that needs what the task's models do not give.
    """
    if name == RANDOM:
        return Contender(name, by_chance)
    if name == DEFAULT:
        fresh = Fresh.of(task, kind)
        return Contender(name, fresh, members=_asks_members(fresh.strategy, fresh.selector), starts=True)
    scores, _, selector = name.partition("+")
    if not selector:
        scores, selector = (DEFAULTS[task], name) if name in SELECTORS else (name, "top_k")
    if scores not in STRATEGIES or selector not in SELECTORS:
        unknown = scores if scores not in STRATEGIES else selector
        raise UsageError(
            f"strategy {unknown!r} is unknown; name any of {', '.join(known(task))}, or a pair such as entropy+k_center "
            "(winnow strategies explains them)"
        )
    try:
        check_choice(scores, task=task, members=members)
    except ConfigError as error:
        raise UsageError(f"strategy {name}: {error}") from error
    lacking = SELECTORS[selector].needs & _LACKING[task]
    if lacking:
        raise UsageError(
            f"strategy {name}: {selector} needs {min(lacking)} of classes, which a regression does not give; name any of "
            f"{', '.join(known(task))}"
        )
    if name == selector and "scores" not in SELECTORS[selector].needs:
        return Contender(name, Paired(None, selector), members="members" in SELECTORS[selector].needs)
    return Contender(name, Paired(scores, selector), members=_asks_members(scores, selector))


def _asks_members(strategy: str, selector: str) -> bool:
    return "members" in {*STRATEGIES[strategy].needs, *SELECTORS[selector].needs}


def known(task: str) -> list[str]:
    """Names that work for a task."""
    selectors = [name for name, entry in SELECTORS.items() if not entry.needs & _LACKING[task]]
    return list(dict.fromkeys([DEFAULT, RANDOM, *able(OUTPUTS[task]), *selectors]))


def contenders(names: Sequence[str] | None, *, task: str, kind: Kind, members: int) -> list[Contender]:
    """Strategies by name, `random` always among them, as every ratio is one to it. Raises UsageError like `contender`."""
    if names is None:
        names = [name for name in COMPARED[task] if name in (DEFAULT, RANDOM) or name in known(task)]
    return [contender(name, task=task, kind=kind, members=members) for name in dict.fromkeys([*names, RANDOM])]
