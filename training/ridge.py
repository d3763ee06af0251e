"""Linear regression with a penalty on the weights, for features that are dense or sparse.

Hoerl and Kennard, "Ridge Regression: Biased Estimation for Nonorthogonal Problems", 1970.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from committee import FOLDS
from logistic import Head

COSTS = (0.03, 0.3, 3.0, 30.0, 300.0)
"""Inverse penalties tried, strongest penalty first. Rows of features have length about 1, targets variance 1."""


def fit_ridge(
    rows: Any,
    targets: npt.NDArray[np.float64],
    *,
    costs: Sequence[float],
    weights: npt.NDArray[np.float64] | None = None,
) -> list[Head]:
    """A head of one column for each of `costs`, over features `rows` (n, D) and targets (n,).

    Minimises cost x (weighted sum of squared errors) + |weights|^2. The bias is not penalised. One decomposition of
    the features' covariance serves all costs.

    >>> rows = np.array([[-1.0], [1.0]])
    >>> [round(float(head.weights[0, 0]), 3) for head in fit_ridge(rows, np.array([0.0, 2.0]), costs=[0.5, 1e9])]
    [0.5, 1.0]
    """
    weight = np.ones(len(targets)) if weights is None else weights
    total = float(weight.sum())
    mean = np.asarray(rows.T @ weight.astype(rows.dtype), dtype=np.float64) / total
    middle = float(weight @ targets) / total
    heavy = rows.multiply(weight[:, None]).tocsr() if hasattr(rows, "multiply") else rows * weight[:, None]
    product = rows.T @ heavy
    covariance = np.asarray(product.toarray() if hasattr(product, "toarray") else product, dtype=np.float64)
    covariance -= total * np.outer(mean, mean)
    slope = np.asarray(heavy.T @ (targets - middle), dtype=np.float64) - mean * float(weight @ (targets - middle))
    values, vectors = np.linalg.eigh(covariance)
    turned = vectors.T @ slope
    heads = []
    for cost in costs:
        found = vectors @ (turned / (np.maximum(values, 0.0) + 1.0 / cost))
        heads.append(Head(weights=found[:, None], bias=np.array([middle - float(mean @ found)])))
    return heads


class HeldOutRidge:
    """Predictions (m, 1) of every record by a head fitted without its fold, by cost; each fold is fitted once."""

    def __init__(self, rows: Any, targets: npt.NDArray[np.float64], *, fold: npt.NDArray[np.int64]) -> None:
        self._rows, self._targets, self._fold = rows, targets, fold
        self._found: dict[int, list[npt.NDArray[np.float64]]] = {}

    def best_cost(self) -> float:
        """The cost with the smallest squared error; the second of `COSTS` when no fold can be fitted."""
        numbers = usable(self._fold)
        if not numbers:
            return COSTS[1]
        truth = np.concatenate([self._targets[self._fold == number] for number in numbers])
        return min(COSTS, key=lambda cost: float(np.square(self.raw(cost, numbers)[:, 0] - truth).mean()))

    def raw(self, cost: float, numbers: Sequence[int]) -> npt.NDArray[np.float64]:
        """Predictions (m, 1) of the records of these folds, fold after fold, at one of `COSTS`."""
        for number in numbers:
            if number not in self._found:
                inside, outside = np.flatnonzero(self._fold == number), np.flatnonzero(self._fold != number)
                heads = fit_ridge(self._rows[outside], self._targets[outside], costs=COSTS)
                self._found[number] = [
                    np.asarray(self._rows[inside] @ head.weights + head.bias, dtype=np.float64) for head in heads
                ]
        return np.concatenate([self._found[number][COSTS.index(cost)] for number in numbers])


def usable(fold: npt.NDArray[np.int64]) -> list[int]:
    """The folds that can be judged: two records outside, one inside."""
    return [number for number in range(FOLDS) if (fold == number).any() and (fold != number).sum() > 1]
