"""The gate by average precision and by R2: the same rules as by accuracy, and figures that match plain ones."""

from __future__ import annotations

from dataclasses import replace
from itertools import product
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from winnow.errors import ConfigError
from winnow.models.evaluation import average_precision, evaluate_regression
from winnow.models.gate import GatePolicy, Scores, Verdict, _measure, decide, estimate, paired_gain, wilson

Floats = npt.NDArray[np.float64]
NUMBERS = GatePolicy(metric="r2", alpha=0.1, planned_looks=4)
RARE = GatePolicy(metric="average_precision", positive_class="yes", alpha=0.1, planned_looks=4)


def numbers(model: str, truth: npt.ArrayLike, prediction: npt.ArrayLike, *, evaluation: str = "e1") -> Scores:
    values = np.asarray(prediction, dtype=np.float64)
    return Scores(model, evaluation, np.asarray(truth).tolist(), (), np.empty((len(values), 0)), values)


def ranked(model: str, positive: npt.ArrayLike, claimed: npt.ArrayLike) -> Scores:
    """A model that claims "yes" with these probabilities."""
    yes = np.asarray(claimed, dtype=np.float64)
    truth = np.where(np.asarray(positive), "yes", "no").tolist()
    return Scores(model, "e1", truth, ("no", "yes"), np.column_stack([1 - yes, yes]))


def judge(champion: Scores, challenger: Scores, policy: GatePolicy, *, look: int = 1, seed: int = 0) -> Verdict:
    return decide(policy, champion, challenger, look=look, rng=np.random.default_rng(seed))


def codes(verdict: Verdict) -> set[str]:
    return {reason.code for reason in verdict.reasons}


def prices(n: int = 200) -> tuple[Floats, Floats]:
    """True prices around 200,000 and standard normal errors."""
    rng = np.random.default_rng(4)
    return rng.uniform(100_000.0, 300_000.0, n), rng.standard_normal(n)


def few(n: int = 300, positives: int = 12) -> npt.NDArray[np.bool_]:
    return np.arange(n) % (n // positives) == 0


class TestFigures:
    def test_a_resampled_average_precision_is_that_of_the_records_repeated(self) -> None:
        rng = np.random.default_rng(0)
        claimed = rng.integers(0, 6, 40) / 6  # many ties
        positive = rng.random(40) < 0.3
        weights = rng.integers(0, 4, size=(20, 40))

        found = _measure(RARE, ranked("m", positive, claimed))(weights)

        expected = [average_precision(np.repeat(claimed, drawn), np.repeat(positive, drawn)) for drawn in weights]
        assert found.tolist() == pytest.approx(expected)

    def test_a_resample_without_a_positive_has_no_average_precision(self) -> None:
        found = _measure(RARE, ranked("m", [True, False], [0.5, 0.5]))(np.array([[0, 2], [2, 0]]))

        assert np.isnan(found).tolist() == [True, False]

    def test_a_resampled_r2_is_that_of_the_records_repeated(self) -> None:
        rng = np.random.default_rng(0)
        truth = 1e9 + rng.normal(size=30)
        guess = truth + rng.normal(size=30)
        weights = rng.integers(0, 4, size=(20, 30))

        found = _measure(NUMBERS, numbers("m", truth, guess))(weights)

        expected = [evaluate_regression(np.repeat(guess, drawn), np.repeat(truth, drawn)).r2 for drawn in weights]
        assert found.tolist() == pytest.approx(expected, abs=1e-6)

    def test_a_resample_of_one_record_has_no_r2(self) -> None:
        found = _measure(NUMBERS, numbers("m", [0.1, 0.7], [0.1, 0.6]))(np.array([[2, 0], [1, 1]]))

        assert np.isnan(found[0])
        assert found[1] == pytest.approx(1 - 0.01 / 0.18)

    def test_an_estimate_is_the_plain_figure_inside_its_interval(self) -> None:
        truth, noise = prices()
        guess = truth + 30_000 * noise
        positive = few()
        claimed = np.clip(0.3 * positive + np.random.default_rng(1).random(300) * 0.5, 0, 1)

        by_r2 = estimate(NUMBERS, numbers("m", truth, guess), rng=np.random.default_rng(0))
        by_rank = estimate(RARE, ranked("m", positive, claimed), rng=np.random.default_rng(0))
        by_hits = estimate(
            replace(RARE, metric="accuracy"), ranked("m", positive, claimed), rng=np.random.default_rng(0)
        )

        assert by_r2 is not None
        assert by_r2[0] == pytest.approx(evaluate_regression(guess, truth).r2)
        assert by_r2[1] < by_r2[0] < by_r2[2] < 1.0
        assert by_rank is not None
        assert by_rank[0] == pytest.approx(average_precision(claimed, positive))
        assert 0.0 <= by_rank[1] < by_rank[0] < by_rank[2] <= 1.0
        right = int(((claimed > 0.5) == positive).sum())
        assert by_hits == (right / 300, *wilson(right, 300))

    def test_the_r2_interval_is_about_as_wide_as_theory_says(self) -> None:
        truth, noise = prices(2000)

        found = estimate(NUMBERS, numbers("m", truth, truth + 30_000 * noise), rng=np.random.default_rng(0))

        # R2 is 1 - share, and the share's relative variance is that of the mean square of n normal errors, 2 / n, plus
        # that of the variance of n uniform truths, 0.8 / n.
        share = 30_000**2 / (200_000**2 / 12)
        assert found is not None
        assert (found[2] - found[1]) / 2 == pytest.approx(1.96 * share * np.sqrt(2.8 / 2000), rel=0.1)

    def test_what_has_no_figure_has_no_estimate(self) -> None:
        rng = np.random.default_rng(0)

        assert estimate(NUMBERS, numbers("m", [5.0] * 9, [4.0] * 9), rng=rng) is None
        assert estimate(RARE, ranked("m", [False] * 9, [0.5] * 9), rng=rng) is None
        for unusable in (numbers("m", [], []), numbers("m", [1.0], [np.nan])):
            with pytest.raises(ConfigError, match="at least one record and finite outputs"):
                estimate(NUMBERS, unusable, rng=rng)


class TestNumbers:
    def test_smaller_errors_are_promoted_with_their_figures(self) -> None:
        truth, noise = prices()
        old, new = truth + 60_000 * noise, truth + 30_000 * noise

        verdict = judge(numbers("old", truth, old), numbers("new", truth, new), NUMBERS)

        assert verdict.decision == "promote"
        assert codes(verdict) == {"better"}
        assert verdict.metric == "r2"
        assert verdict.champion_value == pytest.approx(evaluate_regression(old, truth).r2)
        assert verdict.challenger_value == pytest.approx(evaluate_regression(new, truth).r2)
        assert verdict.gain is not None
        assert verdict.gain_interval is not None
        assert verdict.gain_interval[0] < verdict.gain < verdict.gain_interval[1]
        assert verdict.p_value is not None
        assert verdict.p_value <= verdict.alpha
        assert "R2 " in verdict.reasons[0].detail

    def test_larger_errors_are_rejected_and_equal_ones_decide_nothing(self) -> None:
        truth, noise = prices()
        old = numbers("old", truth, truth + 30_000 * noise)

        assert judge(old, numbers("new", truth, truth + 60_000 * noise), NUMBERS).decision == "reject"
        assert judge(old, numbers("new", truth, truth - 30_000 * noise), NUMBERS).decision == "inconclusive"

    def test_a_margin_is_a_part_of_r2(self) -> None:
        truth, noise = prices()
        old, new = numbers("old", truth, truth + 30_000 * noise), numbers("new", truth, truth + 24_000 * noise)

        verdict = judge(old, new, replace(NUMBERS, min_gain=0.15))

        assert verdict.gain == pytest.approx(0.10, abs=0.02)
        assert verdict.decision == "inconclusive"
        assert judge(old, new, replace(NUMBERS, min_gain=0.05)).decision == "promote"

    @pytest.mark.parametrize("seed", range(6))
    def test_the_p_value_is_not_below_that_of_exchanging_the_models(self, seed: int) -> None:
        rng = np.random.default_rng(seed)
        truth = rng.normal(size=10)
        old, new = (truth + size * np.exp(rng.normal(size=10)) for size in (1.5, 1.0))
        changes = (old - truth) ** 2 - (new - truth) ** 2
        sums = [float(np.dot(signs, changes)) for signs in product((-1, 1), repeat=10)]
        exact = float(np.mean([total >= changes.sum() - 1e-12 for total in sums]))

        verdict = judge(numbers("old", truth, old), numbers("new", truth, new), replace(NUMBERS, min_records=1))

        assert verdict.p_value is not None
        assert verdict.p_value >= exact - 0.02

    def test_a_model_that_is_right_by_one_lucky_record_is_not_promoted(self) -> None:
        truth, noise = prices(60)
        old = truth + 10_000 * noise
        old[7] += 2_000_000.0
        new = truth - 10_000 * noise

        verdict = judge(numbers("old", truth, old), numbers("new", truth, new), NUMBERS)

        assert verdict.gain is not None
        assert verdict.gain > 1.0
        assert verdict.decision == "inconclusive"


class TestRarePositives:
    def test_a_better_ranking_is_promoted_though_both_always_say_no(self) -> None:
        positive, dice = few(), np.random.default_rng(0).random(300)
        old, new = 0.3 * dice, 0.25 * positive + 0.2 * dice

        verdict = judge(ranked("old", positive, old), ranked("new", positive, new), RARE)

        assert verdict.decision == "promote"
        assert verdict.champion_value == pytest.approx(average_precision(old, positive))
        assert verdict.challenger_value == pytest.approx(average_precision(new, positive))
        assert "average precision" in verdict.reasons[0].detail
        by_accuracy = judge(
            ranked("old", positive, old), ranked("new", positive, new), replace(RARE, metric="accuracy")
        )
        assert (by_accuracy.champion_value, by_accuracy.gain) == (0.96, 0.0)

    def test_a_worse_ranking_is_rejected(self) -> None:
        positive, dice = few(positives=30), np.random.default_rng(0).random(300)

        verdict = judge(
            ranked("old", positive, 0.25 * positive + 0.2 * dice), ranked("new", positive, 0.3 * dice), RARE
        )

        assert verdict.decision == "reject"
        assert "worse" in codes(verdict)

    def test_rankings_without_skill_hardly_ever_replace_a_champion_that_says_the_same_of_all(self) -> None:
        policy = replace(RARE, planned_looks=1, replicates=1000)
        positive = few(positives=6)
        flat = ranked("old", positive, np.full(300, 0.5))

        promoted = 0
        for seed in range(60):
            dice = ranked("new", positive, 0.5 * np.random.default_rng(seed).random(300))
            promoted += judge(flat, dice, policy, seed=seed).decision == "promote"

        assert promoted <= 6  # alpha is 0.1; resampling alone would promote two in five

    def test_recall_and_calibration_still_count(self) -> None:
        positive, dice = few(positives=60), np.random.default_rng(0).random(300)
        old = ranked("old", positive, 0.2 + 0.35 * positive + 0.2 * dice)  # finds every positive above one half
        new = ranked("new", positive, 0.2 * positive + 0.2 * dice)  # ranks as well, and finds none

        verdict = judge(old, new, replace(RARE, min_gain=-0.2))

        assert verdict.decision == "reject"
        assert "class-recall" in codes(verdict)


class TestWhatCanOnlyLeadToNo:
    """Invariant I6 for both metrics."""

    TRUTH, NOISE = prices()
    OLD, NEW = numbers("old", TRUTH, TRUTH + 60_000 * NOISE), numbers("new", TRUTH, TRUTH + 20_000 * NOISE)
    POSITIVE = few(positives=30)

    def test_the_comparison_itself_would_promote(self) -> None:
        assert judge(self.OLD, self.NEW, NUMBERS).decision == "promote"

    def test_numbers_that_are_nan(self) -> None:
        assert self.NEW.prediction is not None
        assert self.OLD.prediction is not None
        broken = self.NEW.prediction.copy()
        broken[3] = np.nan
        silent = self.OLD.prediction.copy()
        silent[3] = np.inf

        by_challenger = judge(self.OLD, replace(self.NEW, prediction=broken), NUMBERS)
        by_champion = judge(replace(self.OLD, prediction=silent), self.NEW, NUMBERS)

        assert (by_challenger.decision, codes(by_challenger)) == ("reject", {"not-finite"})
        assert (by_champion.decision, codes(by_champion)) == ("inconclusive", {"not-finite"})
        assert by_challenger.challenger_value is None

    @pytest.mark.parametrize("prediction", [None, np.zeros(3)])
    def test_a_model_that_gives_no_number_for_each_record(self, prediction: Any) -> None:
        verdict = judge(self.OLD, replace(self.NEW, prediction=prediction), NUMBERS)

        assert (verdict.decision, codes(verdict)) == ("reject", {"shape"})

    def test_a_regression_judged_by_classes(self) -> None:
        verdict = judge(self.OLD, self.NEW, replace(NUMBERS, metric="accuracy"))

        assert (verdict.decision, codes(verdict)) == ("reject", {"shape"})

    def test_another_evaluation_set(self) -> None:
        assert judge(replace(self.OLD, evaluation="e0"), self.NEW, NUMBERS).decision == "reject"
        moved = [self.TRUTH[0] + 1.0, *self.OLD.truth[1:]]
        assert judge(replace(self.OLD, truth=moved), self.NEW, NUMBERS).decision == "reject"

    def test_too_few_records_and_none(self) -> None:
        short = [numbers(one.model, one.truth[:49], one.prediction[:49]) for one in (self.OLD, self.NEW)]  # type: ignore[index]

        assert "few-records" in codes(judge(*short, NUMBERS))
        assert judge(*short, NUMBERS).decision == "inconclusive"
        assert judge(numbers("old", [], []), numbers("new", [], []), NUMBERS).decision == "inconclusive"
        assert judge(ranked("old", [], []), ranked("new", [], []), RARE).decision == "inconclusive"

    def test_records_that_all_have_the_same_number(self) -> None:
        same = [3.0] * 60

        verdict = judge(numbers("old", same, [9.0] * 60), numbers("new", same, same), NUMBERS)

        assert (verdict.decision, codes(verdict)) == ("inconclusive", {"no-variance"})

    def test_labels_that_are_nan(self) -> None:
        truth = [float("nan"), *self.OLD.truth[1:]]

        verdict = judge(replace(self.OLD, truth=truth), replace(self.NEW, truth=truth), NUMBERS)

        assert verdict.decision != "promote"
        assert "not-finite" in codes(verdict)

    @pytest.mark.parametrize(("positives", "code"), [(0, "no-positives"), (4, "few-positives")])
    def test_too_few_positives(self, positives: int, code: str) -> None:
        positive = np.arange(200) < positives
        perfect = ranked("new", positive, np.where(positive, 0.49, 0.1))

        verdict = judge(ranked("old", positive, np.full(200, 0.3)), perfect, RARE)

        assert verdict.decision == "inconclusive"
        assert code in codes(verdict)
        assert (verdict.challenger_value is None) == (positives == 0)

    def test_a_look_beyond_the_planned_ones(self) -> None:
        assert codes(judge(self.OLD, self.NEW, NUMBERS, look=5)) >= {"looks-spent"}
        assert judge(self.OLD, self.NEW, NUMBERS, look=5).decision == "inconclusive"

    def test_average_precision_of_no_class(self) -> None:
        with pytest.raises(ConfigError, match="name it in positive_class"):
            GatePolicy(metric="average_precision")

    def test_a_positive_class_the_challenger_never_heard_of(self) -> None:
        new = ranked("new", self.POSITIVE, np.where(self.POSITIVE, 0.49, 0.1))
        old = replace(new, model="old", classes=("no", "maybe"))

        assert judge(old, new, RARE).champion_value == pytest.approx(0.1)  # 30 of 300, in no order
        assert judge(new, replace(old, model="x"), RARE).decision == "reject"


def test_a_paired_gain_has_the_error_of_its_records() -> None:
    rng = np.random.default_rng(3)
    truth = rng.normal(size=80)
    outputs = {"old": truth + rng.normal(0.0, 0.8, 80), "new": truth + rng.normal(0.0, 0.4, 80)}
    old, new = (Scores(name, "e1", truth.tolist(), (), np.empty((80, 0)), said) for name, said in outputs.items())

    found = paired_gain(GatePolicy(metric="r2"), old, new, rng=np.random.default_rng(0))

    def r2(name: str, rows: np.ndarray) -> float:
        left = np.square(outputs[name] - truth)[rows].sum()
        return 1.0 - float(left / np.square(truth[rows] - truth[rows].mean()).sum())

    drawn = np.random.default_rng(1).integers(0, 80, size=(3000, 80))
    spread = np.std([r2("new", rows) - r2("old", rows) for rows in drawn])
    assert found is not None
    assert found[0] == pytest.approx(r2("new", np.arange(80)) - r2("old", np.arange(80)))
    assert found[1] == pytest.approx(spread, rel=0.08)


def test_models_that_agree_about_few_records_are_not_known_to_be_equal() -> None:
    truth = ["a", "b"] * 10
    rows = np.array([[0.9, 0.1], [0.1, 0.9]] * 10)
    same = [Scores(name, "e1", truth, ("a", "b"), rows) for name in ("old", "new")]

    assert paired_gain(GatePolicy(), *same, rng=np.random.default_rng(0)) == (0.0, 1 / 20)


def test_what_cannot_be_compared_has_no_gain() -> None:
    truth = ["a", "b"] * 10
    rows = np.array([[0.9, 0.1]] * 20)
    one = Scores("old", "e1", truth, ("a", "b"), rows)

    def gain(other: Scores, policy: GatePolicy) -> tuple[float, float] | None:
        return paired_gain(policy, one, other, rng=np.random.default_rng(0))

    assert gain(Scores("new", "e2", truth, ("a", "b"), rows), GatePolicy()) is None
    assert gain(Scores("new", "e1", truth, ("a", "b"), rows * np.nan), GatePolicy()) is None
    assert gain(one, GatePolicy(metric="average_precision", positive_class="c")) is None
