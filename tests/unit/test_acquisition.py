from __future__ import annotations

import dataclasses
import math
import sys
from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
import pytest
from scipy.stats import entropy as scipy_entropy

from winnow.acquisition import DEFAULTS, OUTPUTS, STRATEGIES, Labeled, able, check_choice, score
from winnow.acquisition.committee import bald, variance, vote_entropy
from winnow.acquisition.uncertainty import entropy, least_confidence, margin
from winnow.errors import BadInput, ConfigError
from winnow.models.predictions import Predictions

Array = npt.NDArray[np.float32]
EVERY = sorted(STRATEGIES)
BY_MODEL = sorted(name for name, strategy in STRATEGIES.items() if strategy.needs)
BY_RECORD = [name for name in BY_MODEL if STRATEGIES[name].scope == "record"]
BY_DOUBT = [name for name in BY_MODEL if STRATEGIES[name].needs & {"probabilities", "prediction"}]
"""Strategies that ask what the model thinks, and not only where a record lies."""


def simplex(rng: np.random.Generator, *shape: int) -> Array:
    return rng.dirichlet(np.ones(shape[-1]), size=shape[:-1]).astype(np.float32)


def outputs(n: int, *, of: str = "margin", classes: int = 4, members: int = 5, seed: int = 0) -> Predictions:
    """What a model gives that the strategy `of` can score: a classification, or a regression about thousands."""
    rng = np.random.default_rng(seed)
    embedding = rng.standard_normal((n, 3), dtype=np.float32)
    labeled = Labeled(rng.standard_normal((6, 3), dtype=np.float32), rng.integers(0, classes, 6))
    if "prediction" in STRATEGIES[of].needs:
        numbers = rng.normal(5000.0, 900.0, (n, members)).astype(np.float32)
        return Predictions(np.empty((n, 0), np.float32), embedding, numbers, numbers.mean(axis=1), labeled)
    shares, votes = simplex(rng, n, classes), simplex(rng, n, members, classes)
    return Predictions(shares, embedding, votes, labeled=labeled)


def take(predictions: Predictions, rows: npt.NDArray[np.int64]) -> Predictions:
    columns = {name: getattr(predictions, name) for name in ("probabilities", "embedding", "members", "prediction")}
    return dataclasses.replace(
        predictions, **{name: None if values is None else values[rows] for name, values in columns.items()}
    )


def arrays(predictions: Predictions) -> Iterator[npt.NDArray[np.generic]]:
    assert predictions.labeled is not None
    columns = (predictions.probabilities, predictions.embedding, predictions.members, predictions.prediction)
    yield from (values for values in columns if values is not None)
    yield predictions.labeled.embedding
    if predictions.labeled.labels is not None:
        yield predictions.labeled.labels


def blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every family walks its rows in blocks as small as it can."""
    for name, module in list(sys.modules.items()):
        if name.startswith("winnow.acquisition."):
            for constant in ("_BLOCK", "_BLOCK_BYTES"):
                if hasattr(module, constant):
                    monkeypatch.setattr(module, constant, 7 if constant == "_BLOCK" else 1)


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

    @pytest.mark.parametrize(
        "changed",
        [
            pytest.param({"embedding": np.zeros((40, 3), np.float32)}, id="all in one place"),
            pytest.param({"embedding": np.full((40, 3), 1e-30, np.float32)}, id="squares below float32"),
            pytest.param({"probabilities": np.full((40, 4), 0.25, np.float32)}, id="uniform rows"),
            pytest.param({"probabilities": np.eye(4, dtype=np.float32)[np.arange(40) % 4]}, id="one-hot rows"),
            pytest.param({"probabilities": np.float32([[1.0 - 1e-40, 1e-40, 0.0, 0.0]] * 40)}, id="denormals"),
            pytest.param({"probabilities": np.ones((40, 1), np.float32)}, id="one class"),
            pytest.param({"labeled": Labeled(np.zeros((0, 3), np.float32))}, id="nothing labeled"),
            pytest.param({"labeled": Labeled(np.zeros((4, 3), np.float32))}, id="labels in one place"),
        ],
    )
    def test_degenerate_outputs_are_scored_finitely(self, name: str, changed: dict[str, object]) -> None:
        given = outputs(40, of=name)
        if "prediction" in STRATEGIES[name].needs:
            changed = {part: value for part, value in changed.items() if part != "probabilities"}
        elif "probabilities" in changed and given.members is not None:
            changed = {**changed, "members": np.repeat(np.asarray(changed["probabilities"])[:, None], 2, axis=1)}

        scores = score(name, dataclasses.replace(given, **changed), rng=np.random.default_rng(0))

        assert np.isfinite(scores).all()
        assert (scores >= 0.0).all()

    def test_the_same_seed_gives_the_same_scores(self, name: str) -> None:
        first = score(name, outputs(50, of=name), rng=np.random.default_rng(7))
        second = score(name, outputs(50, of=name), rng=np.random.default_rng(7))

        assert first.tolist() == second.tolist()

    def test_leaves_its_input_alone(self, name: str) -> None:
        given, untouched = outputs(50, of=name), outputs(50, of=name)
        for values in arrays(given):
            values.flags.writeable = False

        score(name, given, rng=np.random.default_rng(0))

        for values, before in zip(arrays(given), arrays(untouched), strict=True):
            assert np.array_equal(values, before)

    def test_half_and_double_precision_change_little(self, name: str) -> None:
        given = outputs(60, of=name)
        whole = score(name, given, rng=np.random.default_rng(0))

        for dtype, tolerance in ((np.float16, 0.02), (np.float64, 1e-5)):
            columns = {
                column: values.astype(dtype)
                for column in ("probabilities", "embedding", "members")
                if (values := getattr(given, column)) is not None
            }
            scores = score(name, dataclasses.replace(given, **columns), rng=np.random.default_rng(0))
            assert scores.dtype == np.float32
            assert np.allclose(scores, whole, atol=tolerance * max(1.0, float(whole.max())))

    def test_says_where_it_comes_from_and_what_it_costs(self, name: str) -> None:
        strategy = STRATEGIES[name]

        assert strategy.name == name
        assert strategy.source
        assert strategy.sentence.endswith(".")
        assert strategy.cost
        assert strategy.scope in ("record", "pool")


@pytest.mark.parametrize("name", BY_MODEL)
class TestContractOfModelStrategies:
    """What every strategy that looks at a model promises beyond that."""

    def test_the_order_of_the_records_does_not_matter(self, name: str) -> None:
        given = outputs(200, of=name)
        order = np.random.default_rng(3).permutation(200)

        scores = score(name, given, rng=np.random.default_rng(0))
        permuted = score(name, take(given, order), rng=np.random.default_rng(0))

        assert np.allclose(permuted, scores[order], atol=1e-6, rtol=1e-4)

    def test_identical_records_score_alike(self, name: str) -> None:
        given = take(outputs(90, of=name), np.arange(90) % 30)

        scores = score(name, given, rng=np.random.default_rng(0)).reshape(3, 30)

        assert np.allclose(scores[0], scores[1], rtol=1e-4)
        assert np.allclose(scores[0], scores[2], rtol=1e-4)

    def test_is_blocked_correctly_beyond_one_block(self, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
        given = outputs(1000, of=name)
        whole = score(name, given, rng=np.random.default_rng(0))

        blocks(monkeypatch)
        blocked = score(name, given, rng=np.random.default_rng(0))

        assert np.allclose(whole, blocked, atol=1e-6, rtol=1e-4)

    def test_outputs_that_are_nan_are_refused_with_the_row(self, name: str) -> None:
        given = outputs(5, of=name)
        assert given.members is not None
        given.probabilities[3, 1:2] = np.nan
        given.members[3, 2] = np.nan
        given.embedding[3, 1] = np.nan

        with pytest.raises(BadInput, match=r"1 of 5 records, the first in row 3"):
            score(name, given, rng=np.random.default_rng(0), model="m1")


@pytest.mark.parametrize("name", BY_RECORD)
class TestContractOfRecordScope:
    """What `scope="record"` says: a score stands, whoever else is scored."""

    def test_a_records_score_is_the_same_to_the_last_bit_alone_and_anywhere(self, name: str) -> None:
        given = outputs(150, of=name, classes=19)
        order = np.random.default_rng(3).permutation(150)

        scores = score(name, given, rng=np.random.default_rng(0))
        permuted = score(name, take(given, order), rng=np.random.default_rng(0))
        alone = [score(name, take(given, order[[row]]), rng=np.random.default_rng(0))[0] for row in range(150)]

        assert permuted.tolist() == scores[order].tolist()
        assert [float(one) for one in alone] == scores[order].tolist()


@pytest.mark.parametrize("name", sorted(set(BY_MODEL) - set(BY_RECORD)))
class TestContractOfPoolScope:
    """What `scope="pool"` says: exact while the pool is small, by a sub-sample drawn from `rng` beyond."""

    def test_a_score_depends_on_the_other_records(self, name: str) -> None:
        given = outputs(200, of=name)

        whole = score(name, given, rng=np.random.default_rng(0))
        half = score(name, take(given, np.arange(100)), rng=np.random.default_rng(0))

        assert not np.allclose(whole[:100], half)

    def test_a_large_pool_is_sub_sampled_by_the_seed(self, name: str) -> None:
        given = outputs(5000, of=name)

        first, again, other = (score(name, given, rng=np.random.default_rng(seed)) for seed in (1, 1, 2))

        assert first.tolist() == again.tolist()
        assert first.tolist() != other.tolist()
        both = (first > 0.0) & (other > 0.0)
        assert both.sum() > 500
        assert np.corrcoef(first[both], other[both])[0, 1] > 0.8


@pytest.mark.parametrize("name", BY_DOUBT)
def test_total_doubt_is_worth_more_than_certainty(name: str) -> None:
    sure, torn = [1.0, 0.0], [0.5, 0.5]
    divided, agreed = [[1.0, 0.0], [0.0, 1.0]], [[1.0, 0.0], [1.0, 0.0]]
    given = Predictions(
        probabilities=np.array([sure, torn, torn], dtype=np.float32),
        embedding=np.ones((3, 2), dtype=np.float32),
        members=np.array([agreed, divided, divided], dtype=np.float32),
        labeled=Labeled(np.zeros((1, 2), dtype=np.float32)),
    )
    if "prediction" in STRATEGIES[name].needs:
        numbers = np.array([[7.0, 7.0], [5.0, 9.0], [5.0, 9.0]], dtype=np.float32)
        given = Predictions(given.probabilities[:, :0], given.embedding, numbers, numbers.mean(axis=1))

    scores = score(name, given, rng=np.random.default_rng(0))

    assert scores[0] == 0.0
    assert scores[1] == pytest.approx(scores[2])
    assert scores[1] > 0.0


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


@pytest.mark.parametrize("name", [name for name in BY_MODEL if "members" in STRATEGIES[name].needs])
def test_one_member_cannot_disagree(name: str) -> None:
    scores = score(name, outputs(10, of=name, members=1), rng=np.random.default_rng(0))

    assert np.allclose(scores, 0.0, atol=1e-6)


def test_bald_ignores_noise_that_every_member_sees() -> None:
    noisy = np.full((1, 3, 2), 0.5, dtype=np.float32)

    assert bald(noisy).tolist() == [0.0]


def test_an_unknown_strategy_is_refused_with_the_names() -> None:
    with pytest.raises(ConfigError, match=r"'magrin' is unknown; choose one of bald, consensus_kl, .*margin"):
        score("magrin", outputs(1), rng=np.random.default_rng(0))


def test_a_missing_output_is_refused_with_the_remedy() -> None:
    given = outputs(3)
    without = Predictions(given.probabilities, given.embedding)

    with pytest.raises(ConfigError, match="strategy bald needs members, which model m7 does not give") as refusal:
        score("bald", without, rng=np.random.default_rng(0), model="m7")

    assert "; train with members or choose one of density_weighted, entropy, " in str(refusal.value)


def test_a_strategy_that_compares_with_labels_says_so_when_there_are_none() -> None:
    unlabeled = dataclasses.replace(outputs(3), labeled=None)

    with pytest.raises(ConfigError, match=r"compares with labeled records, of which none are given; label some first"):
        score("expected_error_reduction", unlabeled, rng=np.random.default_rng(0))


@pytest.mark.parametrize(("strategy", "part"), [("entropy", "probabilities"), ("bald", "members")])
def test_rows_that_do_not_sum_to_1_are_refused_with_the_row(strategy: str, part: str) -> None:
    given = outputs(2500)
    getattr(given, part)[2:] *= 3.0  # scores of a model that ends without a softmax

    with pytest.raises(BadInput, match=rf"{part} of row 2 that model m7 gives do not sum to 1; end the model with a"):
        score(strategy, given, rng=np.random.default_rng(0), model="m7")


def test_variance_against_hand_computed_numbers() -> None:
    members = np.array([[1.0, 2.0, 6.0], [250_000.0, 250_000.0, 250_003.0], [4.0, 4.0, 4.0]])

    assert variance(members) == pytest.approx([14 / 3, 2.0, 0.0])
    assert variance(members[:, :1]).tolist() == [0.0, 0.0, 0.0]


def test_numbers_whose_squares_no_float32_holds_stay_finite() -> None:
    assert np.isfinite(variance(np.array([[-3e38, 3e38]], dtype=np.float32))).all()


@pytest.mark.parametrize("name", ["margin", "bald"])
def test_a_regression_has_no_classes_to_be_unsure_of(name: str) -> None:
    with pytest.raises(
        ConfigError, match=f"{name} needs probabilities, which model m7 .* choose one of random, typicality, variance"
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
            "needs probabilities, which a regression does not give; choose one of random, typicality, var",
        ),
        (
            "variance",
            "regression",
            0,
            "asks a committee, but training.members is 0; raise it or choose one of random, typicality$",
        ),
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
