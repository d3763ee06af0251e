"""How good a classifier's probabilities, or a regression's numbers, are on labeled records."""

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
    """Figures over n records. Accuracy, macro-F1 and average precision: higher is better; log loss, ECE and Brier: lower."""

    n: int
    accuracy: float
    macro_f1: float
    log_loss: float
    ece: float
    brier: float
    classes: tuple[ClassReport, ...]
    average_precision: float | None = None
    """Of the positive class; None without one, or without a record that has it."""

    def to_json(self) -> dict[str, Any]:
        return {
            "n": self.n,
            "accuracy": self.accuracy,
            "macro_f1": self.macro_f1,
            "log_loss": self.log_loss,
            "ece": self.ece,
            "brier": self.brier,
            "classes": [dict(report.__dict__) for report in self.classes],
            **({} if self.average_precision is None else {"average_precision": self.average_precision}),
        }


@dataclass(frozen=True)
class RegressionEvaluation:
    """Figures over n records. R2: higher is better, 1 is perfect, 0 is the mean of the truth; the errors: lower.

    `r2` is None when the truth does not vary: no share of nothing can be explained.
    """

    n: int
    r2: float | None
    mae: float
    rmse: float

    def to_json(self) -> dict[str, Any]:
        return dict(self.__dict__)


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


def average_precision(scores: npt.ArrayLike, positives: npt.ArrayLike) -> float | None:
    """Precision averaged over the recall that each score threshold adds, 0 to 1: the area under precision and recall.

    `scores` (n,): higher = more likely positive; `positives` (n,): truth. Records of equal score enter together, so
    their order does not matter; a score without any skill gives the share of positives. None without a positive.

    >>> average_precision([0.9, 0.8, 0.7, 0.1], [True, False, True, False])
    0.8333333333333333
    >>> average_precision([0.5, 0.5, 0.5, 0.5], [True, False, False, False])
    0.25
    """
    values = np.asarray(scores, dtype=np.float64)
    truth = np.asarray(positives, dtype=bool)
    total = int(truth.sum())
    if total == 0:
        return None
    order = np.argsort(-values, kind="stable")
    hits = np.cumsum(truth[order])
    last = np.append(np.flatnonzero(np.diff(values[order])), len(values) - 1)
    precision, recall = hits[last] / (last + 1), hits[last] / total
    return float(np.sum(np.diff(recall, prepend=0.0) * precision))


def evaluate_regression(prediction: npt.ArrayLike, truth: npt.ArrayLike) -> RegressionEvaluation:
    """Every figure of predicted numbers (n,) against the true ones (n,), errors in the target's own unit.

    Raises `ValueError` for no records, other shapes, and numbers that are not finite.

    >>> evaluate_regression([1.0, 2.0, 5.0], [1.0, 2.0, 3.0])
    RegressionEvaluation(n=3, r2=-1.0, mae=0.6666666666666666, rmse=1.1547005383792515)
    """
    guess, actual = np.asarray(prediction, dtype=np.float64), np.asarray(truth, dtype=np.float64)
    if actual.ndim != 1 or len(actual) == 0 or guess.shape != actual.shape:
        raise ValueError(f"predictions are {guess.shape} for {actual.shape} true numbers; give one for each")
    if not np.isfinite(guess).all() or not np.isfinite(actual).all():
        raise ValueError("predictions and true numbers must be finite")
    error = guess - actual
    squares, spread = float(np.square(error).sum()), float(np.square(actual - actual.mean()).sum())
    return RegressionEvaluation(
        n=len(actual),
        r2=1.0 - squares / spread if spread > 0.0 else None,
        mae=float(np.abs(error).mean()),
        rmse=float(np.sqrt(squares / len(actual))),
    )


def evaluate(
    probabilities: npt.ArrayLike, labels: npt.ArrayLike, *, classes: Sequence[str], positive: str | None = None
) -> Evaluation:
    """Every figure of probabilities (n, C) against labels (n,), which index `classes`.

    Macro-F1 is the mean over the classes that occur among the labels or the predictions; an F1 without any hit is 0.
    `positive` names the class that average precision is about.
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
    if positive is not None and positive not in classes:
        raise ValueError(f"the positive class {positive!r} is none of the {count} classes")
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
        average_precision=None
        if positive is None
        else average_precision(rows[:, list(classes).index(positive)], index == list(classes).index(positive)),
    )
