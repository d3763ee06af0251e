from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from winnow.errors import BadInput
from winnow.models.drift import binned, ks_distance, psi, psi_of_values, quantile_edges


def test_psi_against_the_formula() -> None:
    p, q = (50.5 / 101, 50.5 / 101), (90.5 / 101, 10.5 / 101)  # half an observation in every bin

    expected = sum((a - b) * math.log(a / b) for a, b in zip(p, q, strict=True))

    assert psi([50, 50], [90, 10]) == pytest.approx(expected)
    assert psi([90, 10], [50, 50]) == pytest.approx(expected)


def test_psi_of_equal_shares_is_zero_and_of_an_empty_bin_finite() -> None:
    assert psi([10, 30], [10, 30]) == 0.0
    assert 0.5 < psi([500, 500, 0], [500, 0, 500]) < 20
    assert psi([10, 30], [1000, 3000]) == pytest.approx(0.0)


@pytest.mark.parametrize(
    ("expected", "observed", "message"),
    [
        ([1, 2], [1], "cannot be compared"),
        ([], [], "cannot be compared"),
        ([0, 0], [1, 1], "at least one observation"),
        ([1, -1], [1, 1], "0 or more"),
        ([1, 1], [math.nan, 1], "0 or more"),
    ],
)
def test_counts_that_are_none_are_refused(expected: list[float], observed: list[float], message: str) -> None:
    with pytest.raises(BadInput, match=message):
        psi(expected, observed)


def test_psi_of_values_sees_the_column_that_moved() -> None:
    rng = np.random.default_rng(0)
    reference, current = rng.standard_normal((3000, 3)), rng.standard_normal((3000, 3))
    current[:, 1] += 1.0

    found = psi_of_values(reference, current)

    assert found[1] > 0.5
    assert max(found[0], found[2]) < 0.02


def test_psi_of_values_of_a_constant_column_is_zero() -> None:
    assert psi_of_values(np.ones((50, 1)), np.ones((80, 1))).tolist() == [0.0]


def test_bins_of_equal_mass_and_what_falls_into_them() -> None:
    reference = np.arange(100.0)

    edges = quantile_edges(reference)

    assert edges.tolist() == pytest.approx([9.9 * tenth for tenth in range(1, 10)])
    assert binned(reference, edges).tolist() == [10] * 10
    assert binned([-1e9, 9.8, 9.9, 1e9], edges).tolist() == [2, 1, 0, 0, 0, 0, 0, 0, 0, 1]
    assert quantile_edges(np.array([0.0] * 90 + [1.0] * 10)).tolist() == pytest.approx([0.0, 0.1])
    assert binned([], edges).tolist() == [0] * 10


@pytest.mark.parametrize(("values", "bins"), [([], 10), ([1.0], 1)])
def test_nothing_makes_no_bins(values: list[float], bins: int) -> None:
    with pytest.raises(BadInput):
        quantile_edges(np.array(values), bins=bins)


def test_ks_distance_is_scipys_with_ties_too() -> None:
    rng = np.random.default_rng(0)
    reference = np.column_stack([rng.standard_normal(300), rng.integers(0, 4, 300)])
    current = np.column_stack([rng.standard_normal(200) + 0.3, rng.integers(0, 5, 200)])

    expected = [stats.ks_2samp(reference[:, column], current[:, column]).statistic for column in (0, 1)]

    assert ks_distance(reference, current).tolist() == pytest.approx(expected)


@pytest.mark.parametrize("method", [ks_distance, psi_of_values])
def test_tables_that_do_not_fit_are_refused(method: object) -> None:
    assert callable(method)
    with pytest.raises(BadInput, match="same columns"):
        method(np.zeros((3, 2)), np.zeros((3, 1)))
    with pytest.raises(BadInput, match="at least one observation"):
        method(np.zeros((3, 2)), np.zeros((0, 2)))


def test_one_bin_shows_nothing() -> None:
    with pytest.raises(BadInput, match="use 2 or more"):
        psi_of_values(np.zeros((3, 1)), np.zeros((3, 1)), bins=1)
