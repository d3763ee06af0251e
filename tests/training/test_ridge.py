"""Ridge regression: the closed form, its weights and its folds."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.sparse
from ridge import COSTS, HeldOutRidge, fit_ridge, usable


def test_the_penalty_by_hand() -> None:
    # Centred: x = -1, 0, 1 and y = -2, 0, 2, so the weight is 4 / (2 + 1 / cost), and the bias keeps the means.
    (head,) = fit_ridge(np.array([[9.0], [10.0], [11.0]]), np.array([3.0, 5.0, 7.0]), costs=[0.5])

    assert head.weights.tolist() == [[pytest.approx(1.0)]]
    assert head.bias.tolist() == [pytest.approx(5.0 - 10.0)]


@pytest.mark.parametrize("sparse", [False, True])
def test_a_weight_of_two_is_a_row_twice(sparse: bool) -> None:
    rng = np.random.default_rng(0)
    rows, targets = rng.normal(size=(20, 4)), rng.normal(size=20)
    weights = np.where(np.arange(20) < 5, 2.0, 1.0)
    twice = np.repeat(np.arange(20), weights.astype(int))
    form = scipy.sparse.csr_array(rows) if sparse else rows

    weighted = fit_ridge(form, targets, costs=[0.3, 30.0], weights=weights)
    repeated = fit_ridge(rows[twice], targets[twice], costs=[0.3, 30.0])

    for one, other in zip(weighted, repeated, strict=True):
        assert one.weights == pytest.approx(other.weights)
        assert one.bias == pytest.approx(other.bias)


def test_held_out_predictions_choose_the_cost() -> None:
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(90, 3))
    fold = np.arange(90) % 3

    clean = HeldOutRidge(rows, rows @ np.array([1.0, -1.0, 0.5]), fold=fold)
    noise = HeldOutRidge(rows, rng.normal(size=90), fold=fold)

    assert (clean.best_cost(), noise.best_cost()) == (COSTS[-1], COSTS[0])
    raw = clean.raw(COSTS[-1], [0, 2])
    truth = np.concatenate([(rows @ np.array([1.0, -1.0, 0.5]))[fold == number] for number in (0, 2)])
    assert raw.shape == (60, 1)
    assert raw[:, 0] == pytest.approx(truth, abs=0.01)


def test_too_few_rows_have_no_fold() -> None:
    assert usable(np.array([0, 1])) == []
    assert HeldOutRidge(np.eye(2), np.array([1.0, 2.0]), fold=np.array([0, 1])).best_cost() == COSTS[1]
