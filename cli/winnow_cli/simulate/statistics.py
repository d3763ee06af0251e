"""Learning curves over seeds, and how they compare with the random control's, always paired by seed.

Intervals are 95 %: Student's t for a mean over seeds, Fieller's theorem for a ratio of two paired means.

Source: Fieller, Some Problems in Interval Estimation, 1954.
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
    middle = float(sample.mean())
    if len(sample) < 2:
        return Interval(middle)
    half = quantile(len(sample), level=level) * float(sample.std(ddof=1)) / math.sqrt(len(sample))
    return Interval(middle, middle - half, middle + half)


def ratio(above: Sequence[float], below: Sequence[float], *, level: float = LEVEL) -> Interval:
    """Ratio of the means of paired figures, one pair a seed, with Fieller's interval.

    The interval holds every ratio r for which the mean of `above - r below` does not differ from 0. Where the mean of
    `below` is not clearly different from 0 there is none.

    >>> ratio([50.0, 60.0, 55.0], [100.0, 110.0, 120.0]).to_json()
    {'value': 0.5, 'low': 0.396749, 'high': 0.630121}
    """
    a, b = np.asarray(above, dtype=np.float64), np.asarray(below, dtype=np.float64)
    n, mean_a, mean_b = len(a), float(a.mean()), float(b.mean())
    if mean_b == 0.0:
        return NOTHING
    value = mean_a / mean_b
    if n < 2:
        return Interval(value)
    share = quantile(n, level=level) ** 2 / n
    spread = np.cov(np.stack([a, b]), ddof=1)
    square = mean_b**2 - share * float(spread[1, 1])
    if square <= 0.0:
        return Interval(value)
    linear = mean_a * mean_b - share * float(spread[0, 1])
    root = math.sqrt(max(linear**2 - square * (mean_a**2 - share * float(spread[0, 0])), 0.0))
    return Interval(value, (linear - root) / square, (linear + root) / square)


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
            share = (target - before) / (value - before)
            return labels[place - 1] + share * (labels[place] - labels[place - 1])
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

    def to_json(self) -> dict[str, Any]:
        return {
            "labels_to_target": rounded(self.labels_to_target), "reached": self.reached, "seeds": self.seeds,
            "ratio_to_random": self.ratio.to_json(),
            "curve": [[labels, *(rounded(bound) for bound in bounds)] for labels, *bounds in self.curve],
            "area": self.area.to_json(), "area_loss": self.area_loss.to_json(),
            "select_seconds_per_round": rounded(self.select_seconds_per_round),
        }  # fmt: skip


def needed(outcomes: Sequence[Outcome], *, targets: Sequence[float]) -> tuple[list[float], list[bool]]:
    """Labels to each seed's target, and which seeds reach it; the others count with the whole budget."""
    found = [labels_to(target, outcome) for target, outcome in zip(targets, outcomes, strict=True)]
    budget = [float(outcome.labels[-1]) for outcome in outcomes]
    return [most if one is None else one for one, most in zip(found, budget, strict=True)], [
        one is not None for one in found
    ]


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
    lost = ratio([theirs - ours for ours, theirs in zip(areas, control_areas, strict=True)], control_areas)
    seconds = [second for outcome in outcomes for second in outcome.select_seconds]
    return Summary(
        name=name, seeds=len(outcomes), labels_to_target=float(np.mean(labels)) if any(reached) else None,
        reached=sum(reached), ratio=compared(outcomes, control, targets=targets), curve=tuple(points), area=mean(areas),
        area_loss=lost, select_seconds_per_round=float(np.mean(seconds)) if seconds else 0.0,
    )  # fmt: skip
