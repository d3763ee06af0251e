"""The solver against scikit-learn's and against minima known in closed form."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.sparse
from logistic import Head, fit_logistic, minimise
from sklearn.linear_model import LogisticRegression


def data(n: int = 200, *, classes: int = 4, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    targets = np.arange(n) % classes
    return np.eye(classes, 6)[targets] + rng.normal(0, 0.7, (n, 6)), targets


@pytest.mark.parametrize("cost", [0.1, 1.0, 50.0])
@pytest.mark.parametrize("weighted", [False, True])
def test_the_optimum_is_scikit_learns(cost: float, weighted: bool) -> None:
    rows, targets = data()
    weights = np.arange(200) % 3 + 1.0 if weighted else None

    head = fit_logistic(rows, targets, classes=4, cost=cost, rounds=500, weights=weights)

    oracle = LogisticRegression(C=cost, tol=1e-8, max_iter=2000).fit(rows, targets, sample_weight=weights)
    assert head.weights == pytest.approx(oracle.coef_.T, abs=0.03)
    assert head.weights.sum(axis=1) == pytest.approx(0.0, abs=1e-6)
    shift = head.bias - oracle.intercept_  # a constant in every column changes nothing
    assert shift - shift.mean() == pytest.approx(0.0, abs=0.03)


def test_sparse_and_single_precision_find_the_same() -> None:
    rows, targets = data()

    exact, single, sparse = (
        fit_logistic(form, targets, classes=4, cost=2.0, rounds=200)
        for form in (rows, rows.astype(np.float32), scipy.sparse.csr_array(rows.astype(np.float32)))
    )

    assert single.weights == pytest.approx(exact.weights, abs=0.02)
    assert sparse.weights == pytest.approx(single.weights, abs=1e-4)


def test_a_weight_of_two_is_a_record_twice() -> None:
    rows, targets = data(40)
    twice = np.r_[np.arange(40), np.arange(10)]

    weighted = fit_logistic(
        rows, targets, classes=4, cost=1.0, rounds=300, weights=np.where(np.arange(40) < 10, 2.0, 1.0)
    )
    doubled = fit_logistic(rows[twice], targets[twice], classes=4, cost=1.0, rounds=300)

    assert weighted.weights == pytest.approx(doubled.weights, abs=1e-3)


def test_a_start_at_the_optimum_stays_there() -> None:
    rows, targets = data()
    head = fit_logistic(rows, targets, classes=4, cost=1.0, rounds=500)

    again = fit_logistic(rows, targets, classes=4, cost=1.0, rounds=500, start=head)

    assert again.weights == pytest.approx(head.weights, abs=0.01)


def test_separable_records_stay_finite() -> None:
    head = fit_logistic(np.eye(2, dtype=np.float32), np.array([0, 1]), classes=2, cost=128.0, rounds=100)

    assert isinstance(head, Head)
    assert np.isfinite(head.weights).all()
    assert head.weights[0, 0] > 1.0 > -1.0 > head.weights[0, 1]


def test_a_narrow_valley_is_followed_to_its_end() -> None:
    def rosenbrock(point: np.ndarray) -> tuple[float, np.ndarray]:
        x, y = point
        return float((1 - x) ** 2 + 100 * (y - x * x) ** 2), np.array(
            [-2 * (1 - x) - 400 * x * (y - x * x), 200 * (y - x * x)]
        )

    assert minimise(rosenbrock, np.array([-1.2, 1.0]), rounds=200) == pytest.approx([1.0, 1.0], abs=1e-3)


def test_no_rounds_leave_the_start() -> None:
    assert minimise(lambda x: (float(x @ x), 2 * x), np.array([3.0]), rounds=0).tolist() == [3.0]
