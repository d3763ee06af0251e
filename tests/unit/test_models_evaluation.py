"""Evaluation figures: hand-computed, and equal to scikit-learn's on random predictions."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn import metrics

from winnow.models.evaluation import brier, calibration_error, confusion, evaluate, log_loss


def test_figures_of_four_records_by_hand() -> None:
    probabilities = [[0.8, 0.2, 0.0], [0.6, 0.4, 0.0], [0.1, 0.7, 0.2], [0.3, 0.3, 0.4]]

    report = evaluate(probabilities, [0, 1, 1, 1], classes=["a", "b", "c"])

    a, b, c = report.classes
    assert report.n == 4
    assert report.accuracy == 0.5
    assert (a.support, a.recall, a.precision) == (1, 1.0, 0.5)
    assert (b.support, b.recall, b.precision) == (3, pytest.approx(1 / 3), 1.0)
    assert (c.support, c.recall, c.precision, c.f1) == (0, None, 0.0, 0.0)
    assert report.macro_f1 == pytest.approx((2 / 3 + 1 / 2 + 0) / 3)
    assert report.log_loss == pytest.approx(-np.log([0.8, 0.4, 0.7, 0.3]).mean())
    assert report.brier == pytest.approx((0.08 + 0.72 + 0.14 + 0.74) / 4)


def test_a_class_that_never_occurs_does_not_count_in_macro_f1() -> None:
    report = evaluate([[0.9, 0.1, 0.0], [0.1, 0.9, 0.0]], [0, 1], classes=["a", "b", "c"])

    assert report.macro_f1 == 1.0
    assert report.classes[2].precision is None


def test_calibration_error_by_hand() -> None:
    probabilities = [[0.95, 0.05], [0.95, 0.05], [0.55, 0.45]]

    # Bin of 0.95: 1 of 2 right, so |1 - 1.9| / 3; bin of 0.55: 1 right, |1 - 0.55| / 3.
    assert calibration_error(probabilities, [0, 1, 0], bins=10) == pytest.approx((0.9 + 0.45) / 3)


def test_certainty_falls_into_the_last_bin() -> None:
    assert calibration_error([[1.0, 0.0]], [0]) == 0.0


def test_figures_equal_scikit_learn() -> None:
    rng = np.random.default_rng(1)
    probabilities = rng.dirichlet(np.ones(5), 400)
    labels = rng.integers(0, 5, 400)

    report = evaluate(probabilities, labels, classes=list("abcde"))

    predicted = probabilities.argmax(axis=1)
    assert report.accuracy == pytest.approx(metrics.accuracy_score(labels, predicted))
    assert report.macro_f1 == pytest.approx(metrics.f1_score(labels, predicted, average="macro"))
    assert log_loss(probabilities, labels) == pytest.approx(metrics.log_loss(labels, probabilities))
    assert confusion(predicted, labels, classes=5).tolist() == metrics.confusion_matrix(labels, predicted).tolist()
    assert [c.recall for c in report.classes] == pytest.approx(metrics.recall_score(labels, predicted, average=None))
    assert [c.precision for c in report.classes] == pytest.approx(
        metrics.precision_score(labels, predicted, average=None)
    )
    assert brier(probabilities[:, :2], labels * 0) == pytest.approx(
        np.mean((1 - probabilities[:, 0]) ** 2 + probabilities[:, 1] ** 2)
    )


def test_a_zero_probability_of_the_truth_stays_finite() -> None:
    assert log_loss([[1.0, 0.0]], [1]) == pytest.approx(15 * np.log(10))


@pytest.mark.parametrize(
    ("probabilities", "labels"),
    [([], []), ([[0.5, 0.5]], [0, 1]), ([[0.5, 0.5]], [2]), ([[0.5, 0.5]], [-1]), ([[float("nan"), 0.5]], [0])],
)
def test_unusable_input_is_refused(probabilities: list[list[float]], labels: list[int]) -> None:
    with pytest.raises(ValueError):
        evaluate(probabilities, labels, classes=["a", "b"])


def test_the_report_is_json() -> None:
    body = evaluate([[0.9, 0.1]], [0], classes=["a", "b"]).to_json()

    assert body["classes"][0] == {"name": "a", "support": 1, "recall": 1.0, "precision": 1.0, "f1": 1.0}
