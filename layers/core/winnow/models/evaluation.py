"""How good a classifier's probabilities are on labeled records."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

BINS = 15
"""Equal-width confidence bins of the calibration error (Guo et al. 2017)."""

_FLOOR = 1e-15


@dataclass(frozen=True)
class ClassReport:
    """One class: records that have it, how many of them were found, how many of those claimed were right.

    `recall` is None without records of the class, `precision` None when it was never predicted.
    """

    name: str
    support: int
    recall: float | None
    precision: float | None
    f1: float


@dataclass(frozen=True)
class Evaluation:
    """Figures over n records. Accuracy and macro-F1: higher is better; log loss, ECE and Brier: lower."""

    n: int
    accuracy: float
    macro_f1: float
    log_loss: float
    ece: float
    brier: float
    classes: tuple[ClassReport, ...]

    def to_json(self) -> dict[str, Any]:
        return {
            "n": self.n,
            "accuracy": self.accuracy,
            "macro_f1": self.macro_f1,
            "log_loss": self.log_loss,
            "ece": self.ece,
            "brier": self.brier,
            "classes": [dict(report.__dict__) for report in self.classes],
        }


def confusion(predicted: npt.ArrayLike, labels: npt.ArrayLike, *, classes: int) -> npt.NDArray[np.int64]:
    """Counts (C, C): row = the true class, column = the predicted one.

    >>> confusion([0, 1, 1], [0, 0, 1], classes=2).tolist()
    [[1, 1], [0, 1]]
    """
    flat = np.asarray(labels, dtype=np.int64) * classes + np.asarray(predicted, dtype=np.int64)
    return np.bincount(flat, minlength=classes * classes).reshape(classes, classes).astype(np.int64)


def log_loss(probabilities: npt.ArrayLike, labels: npt.ArrayLike) -> float:
    """Mean -ln p(true class), p at least 1e-15.

    >>> round(log_loss([[0.5, 0.5], [0.25, 0.75]], [0, 1]), 6)
    0.490415
    """
    rows = np.asarray(probabilities, dtype=np.float64)
    index = np.asarray(labels, dtype=np.int64)
    return float(-np.log(np.maximum(rows[np.arange(len(index)), index], _FLOOR)).mean())


def brier(probabilities: npt.ArrayLike, labels: npt.ArrayLike) -> float:
    """Mean squared distance to the one-hot truth, 0 (perfect) to 2 (Brier 1950).

    >>> brier([[0.5, 0.5], [0.0, 1.0]], [0, 1])
    0.25
    """
    rows = np.asarray(probabilities, dtype=np.float64).copy()
    index = np.asarray(labels, dtype=np.int64)
    rows[np.arange(len(index)), index] -= 1.0
    return float(np.square(rows).sum(axis=1).mean())


def calibration_error(probabilities: npt.ArrayLike, labels: npt.ArrayLike, *, bins: int = BINS) -> float:
    """Expected calibration error: |accuracy - confidence| by confidence bin, weighted by its records, 0 to 1.

    >>> round(calibration_error([[0.75, 0.25], [0.75, 0.25]], [0, 1]), 6)
    0.25
    """
    rows = np.asarray(probabilities, dtype=np.float64)
    index = np.asarray(labels, dtype=np.int64)
    confidence = rows.max(axis=1)
    right = (rows.argmax(axis=1) == index).astype(np.float64)
    place = np.minimum((confidence * bins).astype(np.int64), bins - 1)
    gap = np.bincount(place, weights=right - confidence, minlength=bins)
    return float(np.abs(gap).sum() / len(index))


def evaluate(probabilities: npt.ArrayLike, labels: npt.ArrayLike, *, classes: Sequence[str]) -> Evaluation:
    """Every figure of probabilities (n, C) against labels (n,), which index `classes`.

    Macro-F1 is the mean over the classes that occur among the labels or the predictions; an F1 without any hit is 0.
    Raises `ValueError` for no records, other shapes, labels outside the classes, and probabilities that are not finite.

    >>> report = evaluate([[0.9, 0.1], [0.2, 0.8], [0.6, 0.4]], [0, 1, 1], classes=["no", "yes"])
    >>> round(report.accuracy, 4), report.classes[1].recall
    (0.6667, 0.5)
    """
    rows = np.asarray(probabilities, dtype=np.float64)
    index = np.asarray(labels, dtype=np.int64)
    count = len(classes)
    if len(index) == 0 or rows.shape != (len(index), count):
        raise ValueError(f"probabilities are {rows.shape} for {len(index)} labels and {count} classes")
    if not np.isfinite(rows).all() or not ((index >= 0) & (index < count)).all():
        raise ValueError("probabilities must be finite and labels must index the classes")
    table = confusion(rows.argmax(axis=1), index, classes=count)
    hits, support, claimed = table.diagonal(), table.sum(axis=1), table.sum(axis=0)
    reports = tuple(
        ClassReport(
            name=name,
            support=int(support[k]),
            recall=float(hits[k] / support[k]) if support[k] else None,
            precision=float(hits[k] / claimed[k]) if claimed[k] else None,
            f1=float(2 * hits[k] / (support[k] + claimed[k])) if support[k] + claimed[k] else 0.0,
        )
        for k, name in enumerate(classes)
    )
    seen = [report.f1 for k, report in enumerate(reports) if support[k] + claimed[k]]
    return Evaluation(
        n=len(index),
        accuracy=float(hits.sum() / len(index)),
        macro_f1=float(np.mean(seen)),
        log_loss=log_loss(rows, index),
        ece=calibration_error(rows, index),
        brier=brier(rows, index),
        classes=reports,
    )
