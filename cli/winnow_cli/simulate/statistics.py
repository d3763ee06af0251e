"""Learning curves over seeds, and how they compare with the random control's, always paired by seed.

Intervals are 95 %, by Student's t over the seeds: of a mean, of the logarithm of a ratio of two paired means, and of a
share of a mean, the latter two to first order (the delta method).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from winnow_cli.simulate.trial import Outcome

LEVEL = 0.95

TEN = 10
"""Records of a class that teach a model something of it."""

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Interval:
    """A figure with its interval; a bound is None where the data give none (one seed, or a trial cut short)."""

    value: float | None
    low: float | None = None
    high: float | None = None

    def to_json(self) -> dict[str, float | None]:
        return {name: rounded(bound) for name, bound in self.__dict__.items()}


NOTHING = Interval(None)


def rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 6)


def quantile(seeds: int, *, level: float = LEVEL) -> float:
    """Student's t for a two-sided interval over so many seeds.

    >>> round(quantile(5), 3)
    2.776
    """
    from scipy.stats import t

    return float(t.ppf((1.0 + level) / 2.0, seeds - 1))


def mean(values: Sequence[float], *, level: float = LEVEL) -> Interval:
    """Mean of one figure a seed, with its t interval.

    >>> mean([0.8, 0.9]).to_json()
    {'value': 0.85, 'low': 0.21469, 'high': 1.48531}
    """
    sample = np.asarray(values, dtype=np.float64)
    middle, half = float(sample.mean()), _half(sample, level=level)
    return Interval(middle) if half is None else Interval(middle, middle - half, middle + half)


def ratio(above: Sequence[float], below: Sequence[float], *, level: float = LEVEL) -> Interval:
    """Ratio of the means of paired positive figures, one pair a seed; its logarithm has a t interval.

    Seeds that are hard for both cancel out: figures in one proportion have no spread.

    >>> ratio([50.0, 60.0, 55.0], [100.0, 110.0, 120.0]).to_json()
    {'value': 0.5, 'low': 0.398927, 'high': 0.626682}
    >>> ratio([50.0, 60.0], [100.0, 120.0]).to_json()
    {'value': 0.5, 'low': 0.5, 'high': 0.5}
    """
    a, b = np.asarray(above, dtype=np.float64), np.asarray(below, dtype=np.float64)
    value = float(a.mean() / b.mean())
    half = _half(a / a.mean() - b / b.mean(), level=level)
    return Interval(value) if half is None else Interval(value, value * math.exp(-half), value * math.exp(half))


def share(parts: Sequence[float], wholes: Sequence[float], *, level: float = LEVEL) -> Interval:
    """Mean of paired parts, of either sign, as a share of the mean of their wholes; nothing for wholes of no size.

    >>> share([1.0, 3.0], [10.0, 10.0]).value
    0.2
    """
    part, whole = np.asarray(parts, dtype=np.float64), np.asarray(wholes, dtype=np.float64)
    if whole.mean() <= 0.0:
        return NOTHING
    value = float(part.mean() / whole.mean())
    half = _half((part - value * whole) / whole.mean(), level=level)
    return Interval(value) if half is None else Interval(value, value - half, value + half)


def _half(values: Floats, *, level: float) -> float | None:
    """Half the width of the t interval of a mean; None for a single value."""
    if len(values) < 2:
        return None
    return quantile(len(values), level=level) * float(values.std(ddof=1)) / math.sqrt(len(values))


def labels_to(target: float, outcome: Outcome) -> float | None:
    """Labels at which a seed's curve first reaches the target, between rounds by a straight line; None if it never does.

    >>> labels_to(0.5, Outcome("margin", 0, (10, 20, 30), (0.2, 0.4, 0.6), (), ()))
    25.0
    """
    labels, values = outcome.labels, outcome.values
    for place, value in enumerate(values):
        if value >= target:
            if place == 0:
                return float(labels[0])
            before = values[place - 1]
            part = (target - before) / (value - before)
            return labels[place - 1] + part * (labels[place] - labels[place - 1])
    return None


def area(outcome: Outcome) -> float:
    """Mean of the measure over the labels bought: the area under the curve, divided by its width.

    >>> area(Outcome("margin", 0, (10, 20, 40), (0.2, 0.4, 0.6), (), ()))
    0.43333333333333335
    """
    labels, values = np.array(outcome.labels, dtype=np.float64), np.array(outcome.values)
    if len(labels) < 2:
        return float(values[0])
    return float(np.sum(np.diff(labels) * (values[1:] + values[:-1]) / 2.0) / (labels[-1] - labels[0]))


@dataclass(frozen=True)
class Rare:
    """Labels until ten records of a rare class were asked for, beside random's."""

    name: str
    labels: float | None
    """Mean over the seeds; those that never get there count with the whole budget. None when none does."""
    ratio: Interval

    def to_json(self) -> dict[str, Any]:
        return {"class": self.name, "labels_to_ten": rounded(self.labels), "ratio_to_random": self.ratio.to_json()}


@dataclass(frozen=True)
class Summary:
    """One strategy over all seeds, beside the control on the same seeds."""

    name: str
    seeds: int
    labels_to_target: float | None
    """Mean over the seeds; those that never reach it count with the whole budget, so that it is at least this. None when
    none does."""
    reached: int
    """Seeds that reach the target."""
    ratio: Interval
    """Labels to the target divided by random's. No upper bound where a seed never reaches it."""
    curve: tuple[tuple[int, float, float | None, float | None], ...]
    area: Interval
    area_loss: Interval
    """Share of random's area that is lost, below 0 where it is won."""
    select_seconds_per_round: float
    rare: Rare | None = None
    """About the rarest class, where one is rare."""

    def to_json(self) -> dict[str, Any]:
        return {
            "labels_to_target": rounded(self.labels_to_target), "reached": self.reached, "seeds": self.seeds,
            "ratio_to_random": self.ratio.to_json(),
            "curve": [[labels, *(rounded(bound) for bound in bounds)] for labels, *bounds in self.curve],
            "area": self.area.to_json(), "area_loss": self.area_loss.to_json(),
            "select_seconds_per_round": rounded(self.select_seconds_per_round),
            **({} if self.rare is None else {"rare": self.rare.to_json()}),
        }  # fmt: skip


def needed(outcomes: Sequence[Outcome], *, targets: Sequence[float]) -> tuple[list[float], list[bool]]:
    """Labels to each seed's target, and which seeds reach it; the others count with the whole budget."""
    found = [labels_to(target, outcome) for target, outcome in zip(targets, outcomes, strict=True)]
    budget = [float(outcome.labels[-1]) for outcome in outcomes]
    return [most if one is None else one for one, most in zip(found, budget, strict=True)], [
        one is not None for one in found
    ]


def labels_to_ten(outcome: Outcome, members: npt.NDArray[np.bool_]) -> float | None:
    """Labels at which a seed has asked for ten of a class; `members` (n,) says which records are of it."""
    met = np.flatnonzero(members[list(outcome.asked)])
    return float(met[TEN - 1] + 1) if len(met) >= TEN else None


def rare_class(
    name: str, members: npt.NDArray[np.bool_], outcomes: Sequence[Outcome], control: Sequence[Outcome]
) -> Rare:
    """How soon a strategy meets a rare class, in labels and beside random choice."""
    found = [labels_to_ten(outcome, members) for outcome in outcomes]
    theirs = [labels_to_ten(outcome, members) for outcome in control]
    ours, others = (
        [float(one.labels[-1]) if labels is None else labels for one, labels in zip(side, met, strict=True)]
        for side, met in ((outcomes, found), (control, theirs))
    )
    if all(labels is None for labels in found):
        return Rare(name, None, NOTHING)
    result = ratio(ours, others)
    whole = None not in found
    return Rare(name, float(np.mean(ours)), result if whole else Interval(result.value, result.low))


def compared(
    outcomes: Sequence[Outcome], control: Sequence[Outcome], *, targets: Sequence[float], level: float = LEVEL
) -> Interval:
    """Labels to the target divided by the control's; no upper bound where a seed never reaches it, nothing where none
    does."""
    if outcomes is control:
        return Interval(1.0, 1.0, 1.0)
    labels, reached = needed(outcomes, targets=targets)
    found = ratio(labels, needed(control, targets=targets)[0], level=level)
    if all(reached):
        return found
    return Interval(found.value, found.low) if any(reached) else NOTHING


def summary(
    name: str, outcomes: Sequence[Outcome], control: Sequence[Outcome], *, targets: Sequence[float], most: float = 1.0
) -> Summary:
    """A strategy's outcomes beside the control's, seed by seed in the same order; `most` is the measure's highest value."""
    labels, reached = needed(outcomes, targets=targets)
    points = []
    for place, level in enumerate(outcomes[0].labels):
        one = mean([outcome.values[place] for outcome in outcomes])
        points.append((level, one.value or 0.0, one.low, None if one.high is None else min(one.high, most)))
    areas, control_areas = [area(outcome) for outcome in outcomes], [area(outcome) for outcome in control]
    lost = share([theirs - ours for ours, theirs in zip(areas, control_areas, strict=True)], control_areas)
    seconds = [second for outcome in outcomes for second in outcome.select_seconds]
    return Summary(
        name=name, seeds=len(outcomes), labels_to_target=float(np.mean(labels)) if any(reached) else None,
        reached=sum(reached), ratio=compared(outcomes, control, targets=targets), curve=tuple(points), area=mean(areas),
        area_loss=lost, select_seconds_per_round=float(np.mean(seconds)) if seconds else 0.0,
    )  # fmt: skip
