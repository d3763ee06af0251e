"""When the next labels are not worth their price: a learning curve is fitted to what challengers reached, and read ahead."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from winnow.digests import digest

Floats = npt.NDArray[np.float64]

LEAST_POINTS = 5
"""Dataset sizes a curve needs: it has a height, a slope and a bend, and something must be left to judge it by."""
DOUBT = 0.2
"""Chance of being worth the price that still buys the batch: four to one against is enough to stop, since a person can go on."""
_INTERVAL = 0.8
_DRAWS = 8000
_EXPONENTS = np.geomspace(0.05, 2.5, 150)
"""Of the power law: from hardly bending to quickly done."""
_SCALES = np.geomspace(0.1, 8.0, 150)
"""Of the exponential, in spans of the measured sizes."""
_NOISE = (0.3, 0.6, 1.0, 2.0)
"""How the scatter of the points may relate to their errors: those of one evaluation set move together, so it is often less."""
_HEIGHT, _DROP = 0.5, 0.5
"""Prior standard deviations of the curve's end and of what is missing at its first point: metrics live in 0..1, but a line that
still rises straight ends, as far as it tells, beyond."""


@dataclass(frozen=True)
class Point:
    """What a model reached with so many train labels; `error` is the standard error of the value."""

    labels: int
    value: float
    error: float


@dataclass(frozen=True)
class Expected:
    """What further labels should add to the metric (in the metric's own unit): the mean, and an 80 % interval."""

    labels: int
    value: float
    low: float
    high: float
    draws: Floats
    """(n,) of the posterior."""


@dataclass(frozen=True)
class Verdict:
    """Whether to stop, with every figure it rests on; None where nothing could be computed."""

    stop: bool
    reason: str
    points: int
    labels: int
    """Train labels the next batch brings."""
    usd: float
    """What it costs."""
    worth_usd: float | None
    """What a point of the metric is worth."""
    gain: float | None = None
    """Points the batch should gain."""
    low: float | None = None
    high: float | None = None
    chance: float | None = None
    """Of being worth the price."""
    remedy: str = ""
    """What would change the verdict."""

    @property
    def gain_per_label(self) -> float | None:
        """Points for one further train label."""
        return None if self.gain is None else self.gain / self.labels

    def to_json(self) -> dict[str, Any]:
        per_label = self.gain_per_label
        return {**self.__dict__, "gain_per_label": None if per_label is None else round(per_label, 8)}


def expected_gain(points: Sequence[Point], *, further: int, now: int | None = None) -> Expected | None:
    """What `further` train labels should add to a model of `now` labels (the largest point's, unless it is given).

    Two families are fitted to the points, the power law `c - a n^-b` and the exponential `c - a exp(-n / s)`, over a grid of
    `b`, `s` and of how the points scatter; each member counts by its likelihood, so that the interval holds what is unknown
    about the shape too. Labels never harm in it (a >= 0) and what is read ahead does not pass 1. Points of one size are
    averaged, and None comes back with fewer than five sizes. Order does not matter.

    Sources: Hestness et al., Deep Learning Scaling is Predictable, Empirically, 2017; Viering and Loog, The Shape of Learning
    Curves: a Review, 2022.

    >>> steep = [Point(n, 0.9 - 4.0 / n, 0.01) for n in (20, 40, 60, 80, 100)]
    >>> found = expected_gain(steep, further=100)
    >>> found.low < 0.02 < found.high
    True
    >>> expected_gain(steep[:4], further=100) is None
    True
    """
    merged = _merged(points)
    if len(merged) < LEAST_POINTS or further < 1:
        return None
    sizes = np.array([point.labels for point in merged], dtype=np.float64)
    values = np.array([point.value for point in merged])
    errors = np.array([max(point.error, 1e-4) for point in merged])
    start = float(sizes[-1] if now is None else max(now, 1))
    missing, ahead = _shapes(sizes, np.array([start, start + further]))
    fits = [_fit(missing, values, errors * noise) for noise in _NOISE]
    evidence = np.concatenate([fit[0] for fit in fits])
    means = np.concatenate([fit[1] for fit in fits])
    roots = np.concatenate([fit[2] for fit in fits])
    steps = np.tile(ahead[:, 0] - ahead[:, 1], len(_NOISE))
    shares = np.exp(evidence - evidence.max())
    rng = np.random.default_rng(int(digest([[p.labels, p.value, p.error] for p in merged], length=12), 16))
    member = rng.choice(len(shares), size=_DRAWS, p=shares / shares.sum())
    drawn = means[member] + np.einsum("nij,nj->ni", roots[member], rng.standard_normal((_DRAWS, 2)))
    reached = drawn[:, 0] - drawn[:, 1] * np.tile(ahead[:, 1], len(_NOISE))[member]
    allowed = (drawn[:, 1] >= 0.0) & (reached <= 1.0)
    # Where no shape allows it, the points fall: more labels of this kind add nothing.
    gains = drawn[allowed, 1] * steps[member[allowed]] if allowed.any() else np.zeros(1)
    low, high = np.quantile(gains, [(1 - _INTERVAL) / 2, (1 + _INTERVAL) / 2])
    return Expected(further, float(gains.mean()), float(low), float(high), gains)


def assess(points: Sequence[Point], *, further: int, now: int, usd: float, worth_usd: float | None) -> Verdict:
    """Whether a batch that brings `further` train labels for `usd` is worth it, a point of the metric being worth `worth_usd`.

    It stops when the batch is worth its price with a chance below one in five. Without a price, or with too few points, it
    never does.

    >>> flat = [Point(n, 0.9 + 0.001 * (n % 3), 0.005) for n in range(100, 1100, 100)]
    >>> found = assess(flat, further=100, now=1000, usd=24.0, worth_usd=20.0)
    >>> found.stop, found.reason.split(", worth")[0]
    (True, '100 further labels cost $24.00 and should gain 0.0 points')
    >>> assess(flat[:3], further=100, now=300, usd=24.0, worth_usd=20.0).reason
    '3 sizes were measured, a learning curve needs 5'
    """
    sizes = len(_merged(points))
    known = {"points": sizes, "labels": further, "usd": usd, "worth_usd": worth_usd}
    found = expected_gain(points, further=further, now=now)
    if found is None:
        return Verdict(False, f"{sizes} sizes were measured, a learning curve needs {LEAST_POINTS}", **known)  # type: ignore[arg-type]
    gain, low, high = (100.0 * value for value in (found.value, found.low, found.high))
    figures = {**known, "gain": gain, "low": low, "high": high}
    expects = f"{further} further labels cost ${usd:,.2f} and should gain {gain:.1f} points"
    between = f"80 % interval {low:.2f} to {high:.2f} points"
    if worth_usd is None:
        return Verdict(False, f"{expects} ({between}); budget.gain_worth_usd is not set", **figures)  # type: ignore[arg-type]
    chance = float(np.mean(100.0 * found.draws * worth_usd >= usd))
    reason = f"{expects}, worth ${gain * worth_usd:,.2f}; {between}, {100 * chance:.0f} % chance of being worth it"
    bound = 100.0 * float(np.quantile(found.draws, 1 - DOUBT))
    if chance >= DOUBT:
        return Verdict(False, reason, chance=chance, **figures)  # type: ignore[arg-type]
    remedy = "winnow select --anyway asks a batch all the same"
    if bound > 1e-6:
        remedy += f"; it would go on by itself with a point worth ${usd / bound:,.2f} (budget.gain_worth_usd)"
        remedy += f" or a label at ${bound * worth_usd / further:,.4f}"
    return Verdict(True, reason, chance=chance, remedy=remedy, **figures)  # type: ignore[arg-type]


def _merged(points: Sequence[Point]) -> list[Point]:
    """Points by size; of one size their mean, weighted by their errors."""
    by_size: dict[int, list[Point]] = {}
    for point in points:
        if point.labels > 0 and math.isfinite(point.value) and math.isfinite(point.error):
            by_size.setdefault(point.labels, []).append(point)
    merged = []
    for labels, same in sorted(by_size.items()):
        weights = sorted((max(point.error, 1e-4) ** -2, point.value) for point in same)
        total = sum(weight for weight, _ in weights)
        merged.append(Point(labels, sum(weight * value for weight, value in weights) / total, total**-0.5))
    return merged


def _shapes(sizes: Floats, ahead: Floats) -> tuple[Floats, Floats]:
    """What is missing at each of n sizes (members, n) and ahead (members, 2): 1 at the first size, falling to 0."""
    first, span = sizes[0], sizes[-1] - sizes[0]

    def missing(at: Floats) -> Floats:
        power = (at / first) ** -_EXPONENTS[:, None]
        return np.vstack([power, np.exp(-(at - first) / (_SCALES[:, None] * span))])

    return missing(sizes), missing(ahead)


def _fit(missing: Floats, values: Floats, errors: Floats) -> tuple[Floats, Floats, Floats]:
    """Of each member the log evidence, and mean (members, 2) and root of the covariance (members, 2, 2) of (c, a) in
    `c - a missing`, under the wide prior."""
    columns = np.stack([np.ones_like(missing), -missing], axis=2) / errors[None, :, None]
    middle, prior = np.array([0.5, 0.0]), np.array([_HEIGHT, _DROP]) ** -2.0
    target = values / errors
    precision = np.swapaxes(columns, 1, 2) @ columns + np.diag(prior)
    covariance = np.linalg.inv(precision)
    mean = np.einsum("mij,mj->mi", covariance, columns.swapaxes(1, 2) @ target + prior * middle)
    misfit = np.square(target - np.einsum("mnj,mj->mn", columns, mean)).sum(axis=1)
    misfit += (prior * np.square(mean - middle)).sum(axis=1)
    size = -np.log(errors).sum() + 0.5 * np.log(prior).sum() - 0.5 * np.linalg.slogdet(precision)[1]
    return size - 0.5 * misfit, mean, np.linalg.cholesky(covariance)
