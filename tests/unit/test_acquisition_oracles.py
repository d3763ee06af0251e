"""Every acquisition function against exact enumeration, with loops and refits that are too slow for a pool."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import softmax
from scipy.stats import entropy as scipy_entropy

from winnow.acquisition import per_minute
from winnow.acquisition.committee import bald, consensus_kl, variance, vote_entropy
from winnow.acquisition.density import density_weighted, typicality
from winnow.acquisition.error_reduction import expected_error_reduction
from winnow.acquisition.expected_change import expected_gradient_length
from winnow.acquisition.uncertainty import entropy, least_confidence, margin
from winnow.errors import BadInput

Floats = npt.NDArray[np.floating]


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


@st.composite
def shares(draw: st.DrawFn, *, members: bool = False) -> Floats:
    """Rows that sum to 1: smooth, sharp, tied, one-hot or full of denormals; of one class up to several hundred."""
    seed, classes = draw(st.integers(0, 2**32 - 1)), draw(st.sampled_from([1, 2, 3, 4, 5, 15, 16, 17, 18, 19, 77, 300]))
    shape = (draw(st.integers(0, 40)), *((draw(st.integers(1, 6)),) if members else ()), classes)
    scale = draw(st.sampled_from([0.0, 1.0, 5.0, 90.0, 500.0]))
    rows = softmax(rng(seed).standard_normal(shape) * scale, axis=-1)
    if draw(st.booleans()):
        rows = softmax(np.round(np.log(rows + 1e-6)), axis=-1)  # ties
    return rows.astype(draw(st.sampled_from([np.float16, np.float32, np.float64])))


def tolerance(rows: Floats) -> float:
    return 2e-3 if rows.dtype == np.float16 else 3e-6


@settings(max_examples=60, deadline=None)
@given(shares())
def test_uncertainty_agrees_with_sorting_and_with_the_definition(p: Floats) -> None:
    exact = p.astype(np.float64)
    ranked = np.sort(np.column_stack([np.zeros(len(p)), exact]), axis=1)

    assert np.allclose(least_confidence(p), 1 - ranked[:, -1], atol=tolerance(p))
    assert np.allclose(margin(p), 1 - (ranked[:, -1] - ranked[:, -2]) if p.shape[1] > 1 else 0.0, atol=tolerance(p))
    defined = -np.where(exact > 0, exact * np.log(np.where(exact > 0, exact, 1.0)), 0.0).sum(axis=1)
    assert np.allclose(entropy(p), defined, atol=1e-5)


def test_probabilities_rounded_to_below_zero_count_as_zero_and_spoil_no_other_row() -> None:
    p = np.float32([[1.0, -1e-8, 1e-8], [0.5, 0.5, -np.finfo(np.float32).tiny], [0.25, 0.75, 0.0]])

    assert entropy(p) == pytest.approx([0.0, 0.6931472, 0.5623351], abs=1e-6)


@settings(max_examples=40, deadline=None)
@given(shares(members=True))
def test_committees_agree_with_the_definition(members: Floats) -> None:
    n, _, classes = members.shape
    exact = members.astype(np.float64) / members.astype(np.float64).sum(axis=2, keepdims=True)
    votes, kl = np.empty(n), np.empty(n)
    for row in range(n):
        votes[row] = scipy_entropy(np.bincount(members[row].argmax(axis=1), minlength=classes))
        consensus = exact[row].mean(axis=0)
        kl[row] = np.mean([scipy_entropy(one, consensus) for one in exact[row]])

    loose = tolerance(members) * (1.0 + np.log(classes))
    assert np.allclose(vote_entropy(members), votes, atol=1e-6)
    assert np.allclose(consensus_kl(members), kl, atol=loose)
    assert np.allclose(bald(members), kl, atol=3.0 * loose)  # the same figure, by way of entropies
    numbers = members[:, :, 0]
    assert np.allclose(variance(numbers), numbers.astype(np.float64).var(axis=1), rtol=1e-5)


def test_gradient_length_agrees_with_the_gradients_of_every_label() -> None:
    x = rng(1).standard_normal((30, 5))
    weights, bias = rng(2).standard_normal((5, 4)), rng(3).standard_normal(4)
    p = softmax(x @ weights + bias, axis=1)
    expected = np.zeros(30)
    for row in range(30):
        for label in range(4):
            numeric = np.empty_like(weights)
            for place in np.ndindex(weights.shape):
                step = np.zeros_like(weights)
                step[place] = 1e-6
                ahead, behind = (softmax(x[row] @ (weights + sign * step) + bias)[label] for sign in (1, -1))
                numeric[place] = -(np.log(ahead) - np.log(behind)) / 2e-6
            expected[row] += p[row, label] * np.sqrt((numeric**2).sum())

    assert np.allclose(expected_gradient_length(p, x), expected, rtol=1e-4)


def test_gradients_longer_than_a_float32_stay_finite() -> None:
    torn = np.full((1, 2), 0.5)

    assert np.isfinite(expected_gradient_length(torn, np.full((1, 4), 3e38))).all()


@pytest.mark.parametrize("dimensions", [1, 4])
def test_density_agrees_with_every_pair(dimensions: int) -> None:
    p, x = softmax(rng(3).standard_normal((25, 3)), axis=1), rng(4).standard_normal((25, dimensions))
    x[7] = 0.0
    expected = np.empty(25)
    for row in range(25):
        cosines = [
            max(0.0, float(x[row] @ x[other]) / (np.linalg.norm(x[row]) * np.linalg.norm(x[other]) or 1.0))
            for other in range(25)
            if other != row
        ]
        expected[row] = scipy_entropy(p[row]) * np.mean(cosines)

    assert np.allclose(density_weighted(p, x, rng=rng()), expected, atol=1e-6)
    assert density_weighted(p[:1], x[:1], rng=rng()) == pytest.approx(scipy_entropy(p[0]))


def test_density_of_a_large_pool_is_estimated_from_a_part_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    p, x = np.full((900, 2), 0.5), rng(5).standard_normal((900, 3)) + 1.0
    whole = density_weighted(p, x, rng=rng())

    monkeypatch.setattr("winnow.acquisition.density.REFERENCE", 300)
    part = density_weighted(p, x, rng=rng())

    assert not np.array_equal(part, whole)
    assert np.allclose(part, whole, atol=0.05)


@pytest.mark.parametrize("neighbours", [1, 3, 20])
def test_typicality_agrees_with_sorting_all_distances(neighbours: int) -> None:
    x = rng(6).standard_normal((18, 4)) + 50.0  # far from the origin, where products of float32 lose digits
    expected = np.empty(18)
    for row in range(18):
        distances = np.sort([np.linalg.norm(x[row] - x[other]) for other in range(18) if other != row])
        expected[row] = 1.0 / distances[:neighbours].mean()

    assert np.allclose(typicality(x, neighbours=neighbours, rng=rng()), expected, rtol=1e-4)


def test_copies_are_as_typical_as_can_be_and_a_record_alone_is_not() -> None:
    copies = typicality(np.repeat(rng(7).standard_normal((2, 3)), 3, axis=0), neighbours=2, rng=rng())

    assert copies == pytest.approx(np.full(6, 1e7))
    assert typicality(np.ones((1, 3)), rng=rng()).tolist() == [0.0]


def ridge(x: Floats, y: Floats, strength: float) -> Floats:
    """Weights of a ridge regression on class indicators less 1 / classes, the bias penalised like the rest."""
    gram = x.T @ x + strength * np.eye(x.shape[1])
    weights: Floats = np.linalg.solve(gram, x.T @ (y - 1.0 / y.shape[1]))
    return weights


@pytest.mark.parametrize("classes", [2, 3, 5])
def test_error_reduction_agrees_with_refitting_for_every_record_and_label(classes: int) -> None:
    pool, labeled = rng(8).standard_normal((14, 3)), rng(9).standard_normal((12, 3))
    y = np.eye(classes)[rng(10).integers(0, classes, 12)]
    x, known = (np.column_stack([part, np.ones(len(part))]) for part in (pool, labeled))
    strength = float((known**2).sum(axis=1).mean())
    p = 1.0 / classes + x @ ridge(known, y, strength)
    expected = np.empty(14)
    for row in range(14):
        after = np.zeros(14)
        for label in range(classes):
            more = np.vstack([y, np.eye(classes)[label]])
            again = 1.0 / classes + x @ ridge(np.vstack([known, x[row]]), more, strength)
            after += p[row, label] * again.max(axis=1)
        gains = after - p.max(axis=1)
        expected[row] = np.delete(gains, row).mean()

    scores = expected_error_reduction(p, pool, labeled, rng=rng())

    assert np.allclose(scores, np.maximum(expected, 0.0), atol=1e-6)
    assert (expected > 1e-3).sum() >= 5


def test_error_reduction_of_a_large_pool_looks_at_a_part_and_judges_by_a_part(monkeypatch: pytest.MonkeyPatch) -> None:
    p, x = softmax(rng(11).standard_normal((300, 3)), axis=1), rng(12).standard_normal((300, 2))
    whole = expected_error_reduction(p, x, x[:5], rng=rng())

    monkeypatch.setattr("winnow.acquisition.error_reduction.CANDIDATES", 60)
    monkeypatch.setattr("winnow.acquisition.error_reduction.JUDGED", 150)
    part = expected_error_reduction(p, x, x[:5], rng=rng())

    looked = part > 0.0
    assert 50 <= looked.sum() <= 60
    assert np.allclose(part[looked], whole[looked], rtol=0.5)
    assert np.corrcoef(part[looked], whole[looked])[0, 1] > 0.9


def test_worth_by_the_minute_prefers_the_short_record_of_two_alike() -> None:
    scores, minutes = np.float32([0.9, 0.9, 0.3]), np.array([9.0, 3.0, np.nan])

    assert per_minute(scores, minutes) == pytest.approx([0.1, 0.3, 0.05])
    assert per_minute(scores, np.full(3, np.nan)) == pytest.approx(scores)
    assert per_minute(scores[:0], minutes[:0]).shape == (0,)


@pytest.mark.parametrize(
    ("scores", "minutes", "reason"),
    [
        ([0.5, 0.5], [1.0, 0.0], "minutes of row 1 are 0; give a number above 0, or NaN"),
        ([0.5, 0.5], [-2.0, 1.0], "minutes of row 0 are -2"),
        ([0.5, 0.5], [1.0, np.inf], "minutes of row 1 are inf"),
        ([0.5, -0.5], [1.0, 1.0], "the score of row 1 is -0.5"),
        ([0.5], [1.0, 1.0], "1 scores but minutes of 2 records"),
    ],
)
def test_minutes_that_cannot_be_divided_by_are_refused(scores: list[float], minutes: list[float], reason: str) -> None:
    with pytest.raises(BadInput, match=reason):
        per_minute(np.array(scores), np.array(minutes))
