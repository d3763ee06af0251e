from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
import pytest
from scipy.stats import entropy as scipy_entropy

from winnow.acquisition import DEFAULTS, OUTPUTS, STRATEGIES, able, check_choice, score
from winnow.acquisition.committee import bald, variance, vote_entropy
from winnow.acquisition.uncertainty import entropy, least_confidence, margin
from winnow.errors import BadInput, ConfigError
from winnow.models.predictions import Predictions

Array = npt.NDArray[np.float32]
EVERY = sorted(STRATEGIES)
BY_MODEL = sorted(name for name, strategy in STRATEGIES.items() if strategy.needs)


def simplex(rng: np.random.Generator, *shape: int) -> Array:
    return rng.dirichlet(np.ones(shape[-1]), size=shape[:-1]).astype(np.float32)


def outputs(n: int, *, of: str = "margin", classes: int = 4, seed: int = 0) -> Predictions:
    """What a model gives that the strategy `of` can score: a classification, or a regression about thousands."""
    rng = np.random.default_rng(seed)
    if "prediction" in STRATEGIES[of].needs:
        members = rng.normal(5000.0, 900.0, (n, 5)).astype(np.float32)
        embedding = rng.standard_normal((n, 3), dtype=np.float32)
        return Predictions(np.empty((n, 0), np.float32), embedding, members, members.mean(axis=1))
    return Predictions(
        probabilities=simplex(rng, n, classes),
        embedding=rng.standard_normal((n, 3), dtype=np.float32),
        members=simplex(rng, n, 5, classes),
    )


def take(predictions: Predictions, rows: npt.NDArray[np.int64]) -> Predictions:
    assert predictions.members is not None
    prediction = None if predictions.prediction is None else predictions.prediction[rows]
    return Predictions(
        predictions.probabilities[rows], predictions.embedding[rows], predictions.members[rows], prediction
    )


@pytest.mark.parametrize("name", EVERY)
class TestContract:
    """What every strategy of the table promises."""

    @pytest.mark.parametrize("n", [0, 1, 2, 300])
    def test_gives_one_finite_float32_score_a_record(self, name: str, n: int) -> None:
        scores = score(name, outputs(n, of=name), rng=np.random.default_rng(0))

        assert scores.shape == (n,)
        assert scores.dtype == np.float32
        assert np.isfinite(scores).all()
        assert (scores >= 0.0).all()

    def test_the_same_seed_gives_the_same_scores(self, name: str) -> None:
        first = score(name, outputs(50, of=name), rng=np.random.default_rng(7))
        second = score(name, outputs(50, of=name), rng=np.random.default_rng(7))

        assert first.tolist() == second.tolist()

    def test_leaves_its_input_alone(self, name: str) -> None:
        given, untouched = outputs(50, of=name), outputs(50, of=name)

        score(name, given, rng=np.random.default_rng(0))

        assert np.array_equal(given.probabilities, untouched.probabilities)
        assert given.members is not None
        assert untouched.members is not None
        assert np.array_equal(given.members, untouched.members)

    def test_says_where_it_comes_from(self, name: str) -> None:
        strategy = STRATEGIES[name]

        assert strategy.name == name
        assert strategy.source
        assert strategy.sentence.endswith(".")


@pytest.mark.parametrize("name", BY_MODEL)
class TestContractOfModelStrategies:
    """What every strategy that looks at a model promises beyond that."""

    def test_a_records_score_does_not_depend_on_its_neighbours(self, name: str) -> None:
        given = outputs(200, of=name)
        order = np.random.default_rng(3).permutation(200)

        scores = score(name, given, rng=np.random.default_rng(0))
        permuted = score(name, take(given, order), rng=np.random.default_rng(0))

        assert np.allclose(permuted, scores[order], atol=1e-6)

    def test_total_doubt_is_worth_more_than_certainty_and_ties_score_alike(self, name: str) -> None:
        sure, torn = [1.0, 0.0], [0.5, 0.5]
        divided, agreed = [[1.0, 0.0], [0.0, 1.0]], [[1.0, 0.0], [1.0, 0.0]]
        given = Predictions(
            probabilities=np.array([sure, torn, torn], dtype=np.float32),
            embedding=np.zeros((3, 1), dtype=np.float32),
            members=np.array([agreed, divided, divided], dtype=np.float32),
        )

        if "prediction" in STRATEGIES[name].needs:
            numbers = np.array([[7.0, 7.0], [5.0, 9.0], [5.0, 9.0]], dtype=np.float32)
            given = Predictions(given.probabilities[:, :0], given.embedding, numbers, numbers.mean(axis=1))

        scores = score(name, given, rng=np.random.default_rng(0))

        assert scores[0] == 0.0
        assert scores[1] == scores[2] > 0.0

    def test_is_blocked_correctly_beyond_one_block(self, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
        given = outputs(1000, of=name)
        whole = score(name, given, rng=np.random.default_rng(0))

        monkeypatch.setattr("winnow.acquisition.uncertainty._BLOCK_BYTES", 1)
        monkeypatch.setattr("winnow.acquisition.committee._BLOCK", 7)
        blocked = score(name, given, rng=np.random.default_rng(0))

        assert np.allclose(whole, blocked, atol=1e-6)

    def test_outputs_that_are_nan_are_refused_with_the_row(self, name: str) -> None:
        given = outputs(5, of=name)
        assert given.members is not None
        given.probabilities[3, 1:2] = np.nan
        given.members[3, 2] = np.nan

        with pytest.raises(BadInput, match=r"1 of 5 records, the first in row 3"):
            score(name, given, rng=np.random.default_rng(0), model="m1")


def test_uncertainty_against_hand_computed_numbers() -> None:
    p = np.array([[0.7, 0.2, 0.1], [0.4, 0.4, 0.2], [1.0, 0.0, 0.0]])

    assert least_confidence(p) == pytest.approx([0.3, 0.6, 0.0], abs=1e-6)
    assert margin(p) == pytest.approx([0.5, 1.0, 0.0], abs=1e-6)
    assert entropy(p) == pytest.approx(
        [-(0.7 * math.log(0.7) + 0.2 * math.log(0.2) + 0.1 * math.log(0.1)), 1.0549201679861442, 0.0], abs=1e-6
    )


def test_a_single_class_leaves_nothing_to_ask() -> None:
    p = np.ones((3, 1), dtype=np.float32)

    assert least_confidence(p).tolist() == margin(p).tolist() == entropy(p).tolist() == [0.0, 0.0, 0.0]


@pytest.mark.parametrize("classes", [2, 10, 77])
def test_uncertainty_agrees_with_sorting_and_with_scipy(classes: int) -> None:
    p = simplex(np.random.default_rng(classes), 500, classes)
    ranked = np.sort(p, axis=1)

    assert np.allclose(margin(p), 1 - (ranked[:, -1] - ranked[:, -2]), atol=1e-6)
    assert np.allclose(least_confidence(p), 1 - ranked[:, -1], atol=1e-6)
    assert np.allclose(entropy(p), scipy_entropy(p, axis=1), atol=1e-5)
    assert np.allclose(entropy(p.astype(np.float16)), scipy_entropy(p, axis=1), atol=0.02)


def test_committee_against_exact_enumeration() -> None:
    members = simplex(np.random.default_rng(0), 40, 5, 3)

    for row, votes, disagreement in zip(members, vote_entropy(members), bald(members), strict=True):
        shares = np.bincount(row.argmax(axis=1), minlength=3) / 5
        assert votes == pytest.approx(scipy_entropy(shares), abs=1e-5)
        mutual = scipy_entropy(row.mean(axis=0)) - scipy_entropy(row, axis=1).mean()
        assert disagreement == pytest.approx(mutual, abs=1e-5)


def test_one_member_cannot_disagree() -> None:
    members = simplex(np.random.default_rng(0), 10, 1, 3)

    assert np.allclose(vote_entropy(members), 0.0)
    assert np.allclose(bald(members), 0.0, atol=1e-6)


def test_bald_ignores_noise_that_every_member_sees() -> None:
    noisy = np.full((1, 3, 2), 0.5, dtype=np.float32)

    assert bald(noisy).tolist() == [0.0]


def test_an_unknown_strategy_is_refused_with_the_names() -> None:
    with pytest.raises(ConfigError, match=r"'magrin' is unknown; choose one of bald, entropy, .*margin"):
        score("magrin", outputs(1), rng=np.random.default_rng(0))


def test_a_missing_output_is_refused_with_the_remedy() -> None:
    given = outputs(3)
    without = Predictions(given.probabilities, given.embedding)

    with pytest.raises(ConfigError, match="strategy bald needs members, which model m7 does not give") as refusal:
        score("bald", without, rng=np.random.default_rng(0), model="m7")

    assert "train with members or choose one of entropy, least_confidence, margin, random" in str(refusal.value)


def test_variance_against_hand_computed_numbers() -> None:
    members = np.array([[1.0, 2.0, 6.0], [250_000.0, 250_000.0, 250_003.0], [4.0, 4.0, 4.0]])

    assert variance(members) == pytest.approx([14 / 3, 2.0, 0.0])
    assert variance(members[:, :1]).tolist() == [0.0, 0.0, 0.0]


def test_numbers_whose_squares_no_float32_holds_stay_finite() -> None:
    assert np.isfinite(variance(np.array([[-3e38, 3e38]], dtype=np.float32))).all()


@pytest.mark.parametrize("name", ["margin", "bald"])
def test_a_regression_has_no_classes_to_be_unsure_of(name: str) -> None:
    with pytest.raises(
        ConfigError, match=f"{name} needs probabilities, which model m7 .* choose one of random, variance"
    ):
        score(name, outputs(3, of="variance"), rng=np.random.default_rng(0), model="m7")


def test_every_task_has_a_default_that_fits_it() -> None:
    for task, name in DEFAULTS.items():
        assert name in able(OUTPUTS[task])
        check_choice(name, task=task, members=4)


@pytest.mark.parametrize(
    ("strategy", "task", "members", "reason"),
    [
        (
            "variance",
            "classification",
            4,
            "needs prediction, which a classification does not give; choose one of bald, ",
        ),
        (
            "entropy",
            "regression",
            4,
            "needs probabilities, which a regression does not give; choose one of random, var",
        ),
        ("variance", "regression", 0, "asks a committee, but training.members is 0; raise it or choose one of random$"),
    ],
)
def test_a_choice_that_cannot_work_is_refused_before_anything_is_spent(
    strategy: str, task: str, members: int, reason: str
) -> None:
    with pytest.raises(ConfigError, match=reason):
        check_choice(strategy, task=task, members=members)


def test_random_differs_from_seed_to_seed() -> None:
    first = score("random", outputs(20), rng=np.random.default_rng(1))
    second = score("random", outputs(20), rng=np.random.default_rng(2))

    assert first.tolist() != second.tolist()
