"""One number out of several answers: the median, and a mean that weighs each worker by how little they scatter."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from winnow.errors import ConfigError
from winnow.labels.numbers import NumericAnswers, Values, agree

_FAR = 3.0
"""Standard deviations of a worker beyond which an answer is a slip: it counts as if it were this far away."""


@dataclass(frozen=True, eq=False)
class NumericConsensus:
    """One number a task: `values` (tasks,) in the target's unit, `confidence` (tasks,) in 0..1, higher = surer."""

    values: Values
    confidence: Values


def median(answers: NumericAnswers, *, tolerance: float) -> NumericConsensus:
    """The median answer to each task; the confidence is the share of the answers that agree with it.

    Less than half of the answers, however wrong, cannot carry the median away, nor can one far answer lower the
    confidence more than a near miss does. Every task of `answers` has an answer (`NumericAnswers.of`).

    >>> rows = [("t1", "a", 100.0), ("t1", "b", 104.0), ("t1", "c", 9000.0), ("t2", "a", 10.0), ("t2", "b", 20.0)]
    >>> found = median(NumericAnswers.of(rows), tolerance=0.1)
    >>> found.values.tolist(), found.confidence.round(2).tolist()
    ([104.0, 15.0], [0.67, 0.0])
    """
    values = _medians(answers)
    return NumericConsensus(values, _agreeing(answers, values, np.ones(len(answers.value)), tolerance))


def _medians(answers: NumericAnswers) -> Values:
    ordered = answers.value[np.lexsort((answers.value, answers.task))]
    given = answers.given()
    first = np.cumsum(given) - given
    middle: Values = (ordered[first + (given - 1) // 2] + ordered[first + given // 2]) / 2.0
    return middle


def _agreeing(answers: NumericAnswers, values: Values, weights: Values, tolerance: float) -> Values:
    """(tasks,) share of the weight of a task's answers that agree with its value."""
    tasks = len(answers.tasks)
    near = agree(answers.value, values[answers.task], tolerance=tolerance)
    share: Values = np.bincount(answers.task, weights=weights * near, minlength=tasks) / np.bincount(
        answers.task, weights=weights, minlength=tasks
    )
    return np.minimum(share, 1.0)


@dataclass(frozen=True, eq=False)
class WeightedMean:
    """What the model makes of the answers."""

    values: Values
    """(tasks,) in the target's unit."""
    spread: Values
    """(workers,) standard deviation of each worker's errors, in the target's unit; smaller = more reliable."""
    rounds: int
    """EM rounds run."""
    converged: bool
    """False when the last round still moved a value by more than the tolerance of the iteration."""

    def consensus(self, answers: NumericAnswers, *, tolerance: float) -> NumericConsensus:
        """The values, each with the share of its answers' weight that agrees with it."""
        weights = _weights(self.spread)[answers.worker]
        return NumericConsensus(self.values, _agreeing(answers, self.values, weights, tolerance))


def weighted_mean(
    answers: NumericAnswers, *, prior_answers: float = 20.0, max_rounds: int = 100, precision: float = 1e-6
) -> WeightedMean:
    """True numbers and each worker's spread, by expectation maximisation from the medians.

    Every worker is taken to err normally around the truth with a spread of their own, so the truth is the mean weighted
    by one over its square; `prior_answers` imaginary answers of everybody's spread keep a worker with few answers from
    being thought perfect or hopeless (an inverse-gamma prior; 20 is the strength the source uses). An answer further away
    than three of its worker's spreads counts as if it were that far (Huber's function), so that a slip of the comma
    moves little. Stops when no value moved by more than `precision` of the common spread.

    Raises ConfigError for a prior that is not above 0 or no rounds at all.

    Source: Zhao and Han, A Probabilistic Model for Estimating Real-valued Truth from Conflicting Sources, 2012, without
    its prior on the truth; the same estimate as Raykar et al., Learning From Crowds, 2010, section 4, without features.

    >>> rows = [(f"t{n}", worker, 10.0 * n + (9.0 if worker == "c" and n % 2 else 0.0)) for n in range(8) for worker in "abc"]
    >>> found = weighted_mean(NumericAnswers.of(rows), prior_answers=1.0)
    >>> found.values.round(1).tolist(), found.spread.round(1).tolist()
    ([0.0, 10.5, 20.0, 30.5, 40.0, 50.5, 60.0, 70.5], [2.0, 2.0, 6.0])
    """
    if prior_answers <= 0.0 or max_rounds < 1:
        raise ConfigError(f"prior_answers {prior_answers} must be above 0 and max_rounds {max_rounds} at least 1")
    tasks, workers = len(answers.tasks), len(answers.workers)
    values = _medians(answers)
    common = _common_variance(answers, values)
    variance = np.full(workers, common)
    if common == 0.0:  # nobody differs from anybody
        return WeightedMean(values, np.sqrt(variance), 0, True)
    worked = np.bincount(answers.worker, minlength=workers)
    converged, rounds = False, 0
    while rounds < max_rounds and not converged:
        rounds += 1
        far = _FAR * np.sqrt(variance[answers.worker])
        off = np.abs(answers.value - values[answers.task])
        weights = np.minimum(1.0, far / np.maximum(off, far)) / variance[answers.worker]
        total = np.bincount(answers.task, weights=weights, minlength=tasks)
        moved = np.bincount(answers.task, weights=weights * answers.value, minlength=tasks) / total
        # A truth that is itself uncertain explains a part of what its answers differ: the expectation adds its variance.
        error = np.clip(answers.value - moved[answers.task], -far, far) ** 2 + (1.0 / total)[answers.task]
        sums = np.bincount(answers.worker, weights=error, minlength=workers)
        variance = (sums + prior_answers * common) / (worked + prior_answers)
        converged = float(np.abs(moved - values).max()) <= precision * float(np.sqrt(common))
        values = moved
    return WeightedMean(values, np.sqrt(variance), rounds, converged)


def _common_variance(answers: NumericAnswers, values: Values) -> float:
    """Variance of an answer around its task's value over all workers, slips counted as three standard deviations."""
    free = len(answers.value) - len(answers.tasks)
    if free <= 0:
        return 0.0
    squares = (answers.value - values[answers.task]) ** 2
    variance = float(squares.sum()) / free
    for _ in range(20):
        variance = float(np.minimum(squares, _FAR**2 * variance).sum()) / free
    return variance


def _weights(spread: Values) -> Values:
    """(workers,) weights; everybody's is 1 where nobody differs from anybody."""
    return np.ones(len(spread)) if not spread.all() else 1.0 / spread**2
