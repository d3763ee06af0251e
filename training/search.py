"""A linear head or boosted trees: which of them predicts held-out rows of a table better.

Rows that are near-duplicates stay in one fold. What is chosen (`Recipe`) can be given to another fit, so that two fits
differ in their labels alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
from boosting import Forest, Trees
from columns import Rows
from committee import HeldOut, folds, judge, spread_over, usable_folds
from ridge import HeldOutRidge, usable

from winnow.models.calibration import softmax
from winnow.models.doubt import doubt
from winnow.models.evaluation import average_precision, evaluate_regression

TREES_FROM = 30
"""Fewer records are left to the linear head: trees of their size say little."""

LINEAR_COSTS = (1.0, 8.0, 64.0, 512.0, 4096.0)
"""Inverse penalties of a table's linear classifier: its features are few, so the weakest penalties pay too."""

MOST_TREES = 3_000
"""Trees over all classes of one boosting; with many classes there are fewer rounds."""

SEARCH_ROWS = 60_000
"""Records that the choice is made on, at most; the chosen model learns from all."""

ALL_FOLDS, RARE_RECORDS = 5_000, 500
"""The choice is made on one fold when there are more records than the first (a tenth of that when there are more than
two classes, for time's sake), and no class of two has fewer than the second."""

RARE_SHARE = 0.05
"""A rarer one of two classes is what the model is for: the choice is made by its average precision."""

MIN_POSITIVES = 10
"""Average precision over fewer positives is luck; the loss decides then."""

_GROWTH = 1.1
"""Rounds of the final fit for each of the search, which had fewer records."""

Targets = npt.NDArray[Any]
Floats = npt.NDArray[np.float64]
Known = npt.NDArray[np.bool_]
Folds = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Recipe:
    """What was chosen on held-out rows: a linear head's cost, or the settings of boosted trees."""

    cost: float | None = None
    trees: Trees | None = None

    @property
    def family(self) -> str:
        """`linear` or `boosting`."""
        return "linear" if self.trees is None else "boosting"


def candidates(records: int, *, outputs: int) -> list[Trees]:
    """Settings of boosted trees worth trying for so many records and so many trees a round.

    >>> [(trees.rounds, trees.leaves, trees.least) for trees in candidates(1_000, outputs=1)]
    [(400, 15, 20), (400, 3, 20), (800, 15, 20)]
    """
    if records < TREES_FROM:
        return []
    least = min(20, max(3, records // 50))
    leaves = 31 if records >= 2_000 else 15 if records >= 400 else 7
    rounds = min(400, records + 50, max(20, MOST_TREES // outputs))
    large = Trees(rounds=rounds, rate=0.1, leaves=leaves, least=least, ridge=1.0, share=1.0)
    small = replace(large, leaves=max(leaves // 4, 3))
    slow = replace(large, rounds=2 * rounds, rate=0.05, ridge=5.0, share=0.5)
    # A tree for every class makes each round dear: many classes go without the slow one.
    return [large, small, slow] if outputs == 1 else [large, replace(small, rate=0.2)]


class Linear(Protocol):
    """Linear heads fitted without the records they are asked about."""

    def best_cost(self) -> float: ...
    def raw(self, cost: float, numbers: Sequence[int]) -> Floats: ...


class Problem(Protocol):
    """What classification and regression do differently."""

    classify: bool

    @property
    def targets(self) -> Targets: ...
    @property
    def outputs(self) -> int: ...
    def strata(self) -> npt.NDArray[np.int64]: ...
    def take(self, places: npt.NDArray[np.int64]) -> Problem: ...
    def usable(self, fold: Folds) -> list[int]: ...
    def linear(self, features: Any, *, fold: Folds) -> Linear: ...
    def known(self, inside: Targets, outside: Targets) -> Known: ...
    def spread(self, raw: Floats, met: Targets) -> Floats: ...
    def score(self, raw: Floats, targets: Targets, known: Known) -> float: ...
    def figures(self, raw: Floats, targets: Targets, known: Known) -> tuple[float, dict[str, float]]: ...


@dataclass(frozen=True)
class Classes:
    """Classification with targets 0..count-1. Average precision of the class `positive` decides, else the loss."""

    targets: npt.NDArray[np.int64]
    count: int
    positive: int | None
    classify = True

    @classmethod
    def of(cls, targets: npt.NDArray[np.int64], *, positive: int | None) -> Classes:
        """Every class among the targets; without a `positive` one it is the rare one of two."""
        counts = np.bincount(targets)
        if positive is None and len(counts) == 2 and counts.min() < RARE_SHARE * len(targets):
            positive = int(counts.argmin())
        return cls(targets, len(counts), positive)

    @property
    def outputs(self) -> int:
        return 1 if self.count == 2 else self.count

    def strata(self) -> npt.NDArray[np.int64]:
        return self.targets

    def take(self, places: npt.NDArray[np.int64]) -> Classes:
        return replace(self, targets=self.targets[places])

    def usable(self, fold: Folds) -> list[int]:
        return usable_folds(self.targets, fold)[1]

    def linear(self, features: Any, *, fold: Folds) -> Linear:
        return HeldOut(features, self.targets, fold=fold, classes=self.count, costs=LINEAR_COSTS)

    def known(self, inside: Targets, outside: Targets) -> Known:
        """Which records have a class that was met outside of their fold."""
        return np.isin(inside, outside)

    def spread(self, raw: Floats, met: Targets) -> Floats:
        """Raw predictions of trees that met these classes as logits (m, count)."""
        scores = np.hstack([np.zeros_like(raw), raw]) if raw.shape[1] == 1 else raw
        return spread_over(scores, np.unique(met), classes=self.count)

    def score(self, raw: Floats, targets: Targets, known: Known) -> float:
        """How good held-out logits are; higher is better."""
        if self.positive is not None and (targets == self.positive).sum() >= MIN_POSITIVES:
            return average_precision(softmax(raw)[:, self.positive], targets == self.positive) or 0.0
        return -judge(raw, targets, known)[2]

    def figures(self, raw: Floats, targets: Targets, known: Known) -> tuple[float, dict[str, float]]:
        """The temperature of held-out logits, and what they are worth."""
        temperature, accuracy, loss = judge(raw, targets, known)
        probabilities = softmax(raw, temperature=temperature)
        found = {"cv_accuracy": accuracy, "cv_log_loss": loss, **doubt(probabilities, targets).figures()}
        if self.positive is not None:
            precision = average_precision(probabilities[:, self.positive], targets == self.positive)
            found |= {} if precision is None else {"cv_average_precision": precision}
        return temperature, found


@dataclass(frozen=True)
class Numbers:
    """Regression with targets of mean 0 and variance 1, each standing for `middle` + `unit` x target."""

    targets: Floats
    middle: float
    unit: float
    classify = False
    outputs = 1

    @classmethod
    def of(cls, numbers: Floats) -> Numbers:
        """Of numbers as they are; numbers that do not vary become zeros."""
        middle, unit = float(numbers.mean()), float(numbers.std())
        unit = unit if unit > 1e-12 * abs(middle) else 1.0
        return cls((numbers - middle) / unit, middle, unit)

    def strata(self) -> npt.NDArray[np.int64]:
        """Fifths of the targets, so that every fold has its share of high and low ones."""
        return np.digitize(self.targets, np.quantile(self.targets, (0.2, 0.4, 0.6, 0.8)))

    def take(self, places: npt.NDArray[np.int64]) -> Numbers:
        return replace(self, targets=self.targets[places])

    def usable(self, fold: Folds) -> list[int]:
        return usable(fold)

    def linear(self, features: Any, *, fold: Folds) -> Linear:
        return HeldOutRidge(features, self.targets, fold=fold)

    def known(self, inside: Targets, outside: Targets) -> Known:
        return np.ones(len(inside), dtype=bool)

    def spread(self, raw: Floats, met: Targets) -> Floats:
        return raw

    def score(self, raw: Floats, targets: Targets, known: Known) -> float:
        """Minus the mean squared error; higher is better."""
        return -float(np.square(raw[:, 0] - targets).mean())

    def figures(self, raw: Floats, targets: Targets, known: Known) -> tuple[float, dict[str, float]]:
        """No temperature (1), and what held-out predictions are worth in the label's own unit."""
        report = evaluate_regression(raw[:, 0] * self.unit + self.middle, targets * self.unit + self.middle)
        found = {"cv_mae": report.mae, "cv_rmse": report.rmse}
        return 1.0, found if report.r2 is None else {"cv_r2": report.r2, **found}


class Search:
    """Chooses a recipe, and measures one, on rows that the fit did not see."""

    def __init__(
        self, rows: Rows, problem: Problem, *, groups: Sequence[str], seed: int, rng: np.random.Generator
    ) -> None:
        if len(rows) > SEARCH_ROWS:
            chosen = np.sort(rng.choice(len(rows), SEARCH_ROWS, replace=False))
            rows, problem, groups = rows.take(chosen), problem.take(chosen), [groups[place] for place in chosen]
        self._rows, self._problem, self._seed = rows, problem, seed
        self._fold = folds(problem.strata(), groups=groups, rng=rng)
        self._usable = problem.usable(self._fold)
        self._linear = problem.linear(rows.features, fold=self._fold)
        self._raw: dict[tuple[int, Trees], Floats] = {}

    def best(self, settings: Sequence[Trees] | None = None) -> Recipe:
        """The recipe that predicts held-out rows best; the linear one when no row can be held out.

        Boosted trees are tried with all `candidates`, or with these `settings` alone.
        """
        linear = Recipe(cost=self._linear.best_cost())
        if not self._usable:
            return linear
        numbers = self._usable[:1] if self._has_plenty() else self._usable
        if settings is None:
            settings = candidates(len(self._rows), outputs=self._problem.outputs)
        tried = [Recipe(trees=self._grown(trees, numbers)) for trees in settings]
        return max([linear, *tried], key=lambda recipe: self._problem.score(*self._held_out(recipe, numbers)))

    def figures(self, recipe: Recipe) -> tuple[float, dict[str, float]]:
        """Temperature and figures of a recipe over all folds; 1 and none when no row can be held out."""
        if not self._usable:
            return 1.0, {}
        return self._problem.figures(*self._held_out(recipe, self._usable))

    def _has_plenty(self) -> bool:
        targets = self._problem.targets
        if self._problem.outputs > 1:
            return len(targets) > ALL_FOLDS // 10
        return len(targets) > ALL_FOLDS and not (self._problem.classify and np.bincount(targets).min() < RARE_RECORDS)

    def _grown(self, trees: Trees, numbers: Sequence[int]) -> Trees:
        """With the rounds after which the loss on held-out rows is lowest, on average over folds."""
        forests = {number: self._forest(number, trees, watch=True) for number in numbers}
        rounds = max(round(float(np.mean([forest.best_rounds() for forest in forests.values()]))), 1)
        grown = replace(trees, rounds=rounds)
        for number, forest in forests.items():
            self._raw[number, grown] = self._predicted(number, forest, rounds=rounds)
        return grown

    def _held_out(self, recipe: Recipe, numbers: Sequence[int]) -> tuple[Floats, Targets, Known]:
        """Raw predictions, targets, and which of them could be known, fold after fold."""
        targets = [self._problem.targets[self._fold == number] for number in numbers]
        known = [
            self._problem.known(inside, self._problem.targets[self._fold != number])
            for number, inside in zip(numbers, targets, strict=True)
        ]
        if recipe.cost is not None:
            raw = self._linear.raw(recipe.cost, numbers)
        else:
            assert recipe.trees is not None  # one of the two
            for number in numbers:
                if (number, recipe.trees) not in self._raw:
                    forest = self._forest(number, recipe.trees)
                    self._raw[number, recipe.trees] = self._predicted(number, forest)
            raw = np.concatenate([self._raw[number, recipe.trees] for number in numbers])
        return raw, np.concatenate(targets), np.concatenate(known)

    def _forest(self, number: int, trees: Trees, *, watch: bool = False) -> Forest:
        outside, inside = np.flatnonzero(self._fold != number), np.flatnonzero(self._fold == number)
        targets = self._problem.targets
        inside = inside[self._problem.known(targets[inside], targets[outside])]
        return Forest.fit(
            self._rows.take(outside), targets[outside], trees=trees, classify=self._problem.classify, seed=self._seed,
            held_out=(self._rows.take(inside), targets[inside]) if watch and len(inside) else None,
        )  # fmt: skip

    def _predicted(self, number: int, forest: Forest, *, rounds: int | None = None) -> Floats:
        raw = forest.predict(self._rows.take(np.flatnonzero(self._fold == number)), rounds=rounds)
        return self._problem.spread(raw, self._problem.targets[self._fold != number])


def final(recipe: Recipe) -> Recipe:
    """The recipe for all records, of which the search held some back: a few rounds more.

    >>> final(Recipe(trees=Trees(rounds=100, rate=0.1, leaves=31, least=20, ridge=1.0, share=1.0))).trees.rounds
    110
    """
    if recipe.trees is None:
        return recipe
    return Recipe(trees=replace(recipe.trees, rounds=round(recipe.trees.rounds * _GROWTH)))
