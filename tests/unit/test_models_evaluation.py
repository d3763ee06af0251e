"""Evaluation figures: hand-computed, and equal to scikit-learn's on random predictions."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn import metrics

from winnow.models.evaluation import (
    average_precision,
    brier,
    calibration_error,
    confusion,
    evaluate,
    evaluate_regression,
    log_loss,
)


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


def test_average_precision_by_hand() -> None:
    # Thresholds 0.9 (1 of 1 right, recall 1/3), 0.8 (two records, 2 of 3, recall 2/3), 0.1 (3 of 5, recall 1).
    scores, positives = [0.9, 0.8, 0.8, 0.1, 0.1], [True, True, False, False, True]

    expected = 1 / 3 * 1 + 1 / 3 * 2 / 3 + 1 / 3 * 3 / 5
    assert average_precision(scores, positives) == pytest.approx(expected)
    assert average_precision(scores[::-1], positives[::-1]) == pytest.approx(expected)
    assert average_precision(scores, [False] * 5) is None


def test_average_precision_equals_scikit_learn() -> None:
    rng = np.random.default_rng(2)
    scores, positives = rng.integers(0, 20, 500) / 20, rng.random(500) < 0.02

    assert average_precision(scores, positives) == pytest.approx(metrics.average_precision_score(positives, scores))


def test_average_precision_belongs_to_the_positive_class() -> None:
    probabilities, labels = [[0.7, 0.3], [0.4, 0.6], [0.1, 0.9]], [1, 0, 1]

    report = evaluate(probabilities, labels, classes=["no", "yes"], positive="yes")

    assert report.average_precision == pytest.approx(1 / 2 * 1 + 1 / 2 * 2 / 3)
    assert report.to_json()["average_precision"] == report.average_precision
    assert "average_precision" not in evaluate(probabilities, labels, classes=["no", "yes"]).to_json()
    with pytest.raises(ValueError, match="'maybe' is none of the 2 classes"):
        evaluate(probabilities, labels, classes=["no", "yes"], positive="maybe")


def test_numbers_by_hand() -> None:
    report = evaluate_regression([1.0, 3.0, 3.0, 3.0], [0.0, 2.0, 4.0, 6.0])

    # Errors 1, 1, -1, -3: squares 12 of a spread of 9 + 1 + 1 + 9.
    assert report.to_json() == pytest.approx({"n": 4, "r2": 1 - 12 / 20, "mae": 1.5, "rmse": np.sqrt(3)})


def test_numbers_that_do_not_vary_have_no_share_to_explain() -> None:
    assert evaluate_regression([1.0, 2.0], [5.0, 5.0]).r2 is None


@pytest.mark.parametrize(
    ("prediction", "truth"), [([], []), ([1.0], [1.0, 2.0]), ([float("nan")], [1.0]), ([1.0], [float("inf")])]
)
def test_unusable_numbers_are_refused(prediction: list[float], truth: list[float]) -> None:
    with pytest.raises(ValueError):
        evaluate_regression(prediction, truth)
