"""Temperature scaling against hand-computed losses and against scipy's minimiser."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.optimize import minimize_scalar

from winnow.models.calibration import HIGHEST, LOWEST, fit_temperature, nll, softmax


def test_softmax_divides_by_the_temperature() -> None:
    logits = [[0.0, np.log(4.0)]]

    assert softmax(logits)[0].tolist() == pytest.approx([0.2, 0.8])
    assert softmax(logits, temperature=2.0)[0].tolist() == pytest.approx([1 / 3, 2 / 3])
    assert softmax([[1000.0, 0.0]])[0].tolist() == [1.0, 0.0]


def test_nll_is_the_mean_log_loss() -> None:
    logits = [[0.0, np.log(4.0)], [0.0, np.log(4.0)]]

    assert nll(logits, [1, 0]) == pytest.approx(-(np.log(0.8) + np.log(0.2)) / 2)


def test_the_temperature_is_the_minimum_that_scipy_finds() -> None:
    rng = np.random.default_rng(4)
    labels = rng.integers(0, 3, 2_000)
    logits = 3.0 * (np.eye(3)[labels] + rng.normal(0.0, 1.0, (2_000, 3)))

    found = fit_temperature(logits, labels)

    oracle = minimize_scalar(
        lambda log: nll(logits, labels, temperature=float(np.exp(log))), bounds=(-3.0, 3.0), method="bounded"
    )
    assert found == pytest.approx(float(np.exp(oracle.x)), rel=0.01)  # the imaginary record moves it a little


def test_perfect_held_out_records_do_not_claim_certainty() -> None:
    sharp = fit_temperature(np.array([[9.0, 0.0]] * 4), [0] * 4)

    assert LOWEST < sharp < HIGHEST
    assert softmax([[9.0, 0.0]], temperature=sharp)[0, 0] == pytest.approx(4 / 5, abs=0.01)


def test_more_evidence_makes_a_sharper_model() -> None:
    few, many = (fit_temperature(np.array([[2.0, 0.0]] * n), [0] * n) for n in (5, 50))

    assert many < few


def test_logits_without_information_end_at_the_highest_temperature() -> None:
    rng = np.random.default_rng(0)

    assert fit_temperature(rng.normal(size=(500, 4)), rng.integers(0, 4, 500)) > 3.0
