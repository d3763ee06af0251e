"""Multinomial logistic regression by L-BFGS, for features that are dense or sparse.

Liu and Nocedal, "On the limited memory BFGS method for large scale optimization", 1989; the step length is found by
bisection on the weak Wolfe conditions (Lewis and Overton 2013). With a million weights SciPy's L-BFGS-B spends five
times as long on its own bookkeeping as on the loss, hence this one.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

MEMORY = 6
"""Pairs of steps and gradient changes kept."""

GRADIENT_TOLERANCE = 1e-4
"""The search ends where no weight's slope of the mean loss is steeper."""

_DECREASE, _CURVATURE = 1e-4, 0.9
_TRIALS = 25

Floats = npt.NDArray[Any]
Objective = Callable[[Floats], tuple[float, Floats]]


@dataclass(frozen=True)
class Head:
    """Weights (D, C) and bias (C,) of one linear head; logits = features @ weights + bias."""

    weights: Floats
    bias: Floats


def fit_logistic(
    rows: Any,
    targets: npt.NDArray[np.int64],
    *,
    classes: int,
    cost: float,
    rounds: int,
    start: Head | None = None,
    weights: npt.NDArray[np.float64] | None = None,
) -> Head:
    """Minimise cost x (weighted sum of -ln p(target)) + |weights|^2 / 2 over features `rows` (n, D), targets (n,).

    `rows` is an array or a scipy.sparse matrix; the work is done in its float type. The bias is not penalised.
    """
    kind = rows.dtype
    weight = np.ones(len(targets), kind) if weights is None else weights.astype(kind)
    total = float(weight.sum())
    transposed = rows.T
    index = np.arange(len(targets))
    penalty = kind.type(1.0 / (cost * total))

    def objective(point: Floats) -> tuple[float, Floats]:
        logits = rows @ point[:-1] + point[-1]
        logits -= logits.max(axis=1, keepdims=True)
        hits = logits[index, targets]
        np.exp(logits, out=logits)
        sums = logits.sum(axis=1)
        loss = float(np.sum(weight * (np.log(sums) - hits), dtype=np.float64)) / total
        logits /= sums[:, None]
        logits[index, targets] -= 1
        logits *= (weight / kind.type(total))[:, None]
        slope = np.empty_like(point)
        slope[:-1] = transposed @ logits
        slope[:-1] += penalty * point[:-1]
        slope[-1] = logits.sum(axis=0)
        flat = point[:-1].reshape(-1)
        return loss + 0.5 * float(penalty) * float(flat @ flat), slope

    point = np.zeros((rows.shape[1] + 1, classes), kind)
    if start is not None:
        point[:-1], point[-1] = start.weights, start.bias
    point = minimise(objective, point, rounds=rounds)
    return Head(weights=point[:-1].astype(np.float64), bias=point[-1].astype(np.float64))


def minimise(objective: Objective, point: Floats, *, rounds: int) -> Floats:
    """The point of lowest value found from `point` in at most `rounds` steps downhill.

    `objective` gives value and gradient, the gradient in the shape and type of `point`.
    """
    steps: deque[tuple[Floats, Floats, float]] = deque(maxlen=MEMORY)
    value, slope = objective(point)
    for _ in range(rounds):
        if np.abs(slope).max(initial=0.0) <= GRADIENT_TOLERANCE:
            break
        direction = _direction(slope, steps)
        downhill = float(np.vdot(direction, slope))
        if downhill >= 0.0:  # rounding has spoilt the memory
            steps.clear()
            direction, downhill = -slope, -float(np.vdot(slope, slope))
        length = 1.0 if steps else min(1.0, 1.0 / float(np.sqrt(-downhill)))
        found = _search(objective, point, direction, value=value, downhill=downhill, length=length)
        if found is None:
            break
        new_point, new_value, new_slope = found
        moved, change = new_point - point, new_slope - slope
        curvature = float(np.vdot(moved, change))
        if curvature > 1e-10 * float(np.vdot(change, change)):
            steps.append((moved, change, curvature))
        settled = value - new_value <= 1e-7 * max(abs(value), 1e-7)
        point, value, slope = new_point, new_value, new_slope
        if settled:
            break
    return point


def _direction(slope: Floats, steps: deque[tuple[Floats, Floats, float]]) -> Floats:
    """Minus the gradient through the remembered inverse curvature (the two-loop recursion)."""
    out = -slope
    shares = []
    for moved, change, curvature in reversed(steps):
        share = slope.dtype.type(float(np.vdot(moved, out)) / curvature)
        out -= share * change
        shares.append(share)
    if steps:
        _, change, curvature = steps[-1]
        out *= slope.dtype.type(curvature / float(np.vdot(change, change)))
    for (moved, change, curvature), share in zip(steps, reversed(shares), strict=True):
        out += (share - slope.dtype.type(float(np.vdot(change, out)) / curvature)) * moved
    return out


def _search(
    objective: Objective, point: Floats, direction: Floats, *, value: float, downhill: float, length: float
) -> tuple[Floats, float, Floats] | None:
    """Point, value and gradient at a step that is short enough to descend and long enough to matter."""
    low, high = 0.0, np.inf
    best: tuple[Floats, float, Floats] | None = None
    for _ in range(_TRIALS):
        there = point + direction.dtype.type(length) * direction
        new_value, new_slope = objective(there)
        if not new_value <= value + _DECREASE * length * downhill:
            high = length
        else:
            best = (there, new_value, new_slope)
            if float(np.vdot(new_slope, direction)) >= _CURVATURE * downhill:
                return best
            low = length
        length = (low + high) / 2.0 if np.isfinite(high) else 2.0 * length
    return best
