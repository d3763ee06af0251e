from __future__ import annotations

import json
import math
from dataclasses import replace
from itertools import pairwise, product
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from winnow.errors import ConfigError
from winnow.models.gate import GatePolicy, Reason, Scores, Verdict, alpha_at, decide, interval, wilson

POLICY = GatePolicy(alpha=0.1, planned_looks=4)


def scored(
    model: str, right: npt.ArrayLike, *, confidence: float = 0.8, classes: int = 2, evaluation: str = "e1"
) -> Scores:
    """A model right on the records where `right` is true, equally sure of all; truths go round the classes."""
    hits = np.asarray(right, dtype=bool)
    n = len(hits)
    truth = np.arange(n) % classes
    predicted = np.where(hits, truth, (truth + 1) % classes)
    probabilities = np.full((n, classes), (1 - confidence) / (classes - 1))
    probabilities[np.arange(n), predicted] = confidence
    names = tuple(f"c{code}" for code in range(classes))
    return Scores(model, evaluation, [names[code] for code in truth], names, probabilities)


def judge(champion: Scores, challenger: Scores, policy: GatePolicy = POLICY, *, look: int = 1, **more: Any) -> Verdict:
    return decide(policy, champion, challenger, look=look, rng=np.random.default_rng(0), **more)


def codes(verdict: Verdict) -> set[str]:
    return {reason.code for reason in verdict.reasons}


def share(n: int, right: float) -> npt.NDArray[np.bool_]:
    return np.random.default_rng(3).permutation(n) < right * n


class TestAlphaSpending:
    def test_the_planned_looks_spend_all_of_alpha_and_later_ones_nothing(self) -> None:
        parts = [alpha_at(look, alpha=0.1, planned_looks=20) for look in range(1, 25)]

        assert math.fsum(parts[:20]) == pytest.approx(0.1)
        assert parts[20:] == [0.0] * 4
        assert all(before > after for before, after in pairwise(parts[:20]))

    def test_a_single_look_has_all_of_it(self) -> None:
        assert alpha_at(1, alpha=0.05, planned_looks=1) == pytest.approx(0.05)

    @pytest.mark.parametrize(("look", "planned"), [(0, 5), (1, 0)])
    def test_looks_count_from_one(self, look: int, planned: int) -> None:
        with pytest.raises(ConfigError, match="looks count from 1"):
            alpha_at(look, alpha=0.1, planned_looks=planned)


class TestInterval:
    @pytest.mark.parametrize(("successes", "n"), [(0, 12), (9, 10), (50, 100), (12, 12)])
    def test_wilson_is_scipys(self, successes: int, n: int) -> None:
        expected = stats.binomtest(successes, n).proportion_ci(confidence_level=0.9, method="wilson")

        assert wilson(successes, n, level=0.9) == pytest.approx((expected.low, expected.high))

    def test_without_records_anything_is_possible(self) -> None:
        assert wilson(0, 0) == (0.0, 1.0)

    def test_a_mean_of_figures_is_bootstrapped(self) -> None:
        values = np.random.default_rng(0).normal(5.0, 1.0, 400)

        low, high = interval(values, rng=np.random.default_rng(1))

        half = 1.96 * values.std() / 20
        assert low == pytest.approx(values.mean() - half, abs=0.01)
        assert high == pytest.approx(values.mean() + half, abs=0.01)

    def test_right_and_wrong_use_wilson(self) -> None:
        assert interval(np.array([True] * 9 + [False]), rng=np.random.default_rng(0)) == wilson(9, 10)

    @pytest.mark.parametrize("values", [np.array([]), np.array([0.5, np.nan])])
    def test_what_has_no_mean_has_no_interval(self, values: npt.NDArray[np.float64]) -> None:
        with pytest.raises(ConfigError, match="at least one record"):
            interval(values, rng=np.random.default_rng(0))


class TestVerdict:
    def test_a_clear_gain_is_promoted_with_its_figures(self) -> None:
        verdict = judge(scored("old", share(200, 0.6)), scored("new", share(200, 0.8)))

        assert verdict.decision == "promote"
        assert codes(verdict) == {"better"}
        assert verdict.champion_value == pytest.approx(0.6)
        assert verdict.challenger_value == pytest.approx(0.8)
        assert verdict.gain == pytest.approx(0.2)
        assert verdict.gain_interval is not None
        assert 0 < verdict.gain_interval[0] < 0.2 < verdict.gain_interval[1]
        assert verdict.p_value is not None
        assert verdict.p_value <= verdict.alpha == alpha_at(1, alpha=0.1, planned_looks=4)
        assert (verdict.champion, verdict.challenger, verdict.evaluation) == ("old", "new", "e1")
        assert (verdict.records, verdict.look) == (200, 1)

    def test_a_clear_loss_is_rejected(self) -> None:
        verdict = judge(scored("old", share(200, 0.8)), scored("new", share(200, 0.6)))

        assert verdict.decision == "reject"
        assert "worse" in codes(verdict)

    def test_a_gain_that_may_be_chance_is_inconclusive(self) -> None:
        verdict = judge(scored("old", share(200, 0.80)), scored("new", share(200, 0.81)))

        assert verdict.decision == "inconclusive"
        assert codes(verdict) == {"not-significant"}

    def test_equal_models_are_inconclusive(self) -> None:
        verdict = judge(scored("old", share(200, 0.8)), scored("new", share(200, 0.8)))

        assert verdict.decision == "inconclusive"
        assert verdict.p_value == 1.0

    def test_the_same_seed_gives_the_same_verdict(self) -> None:
        old, new = scored("old", share(120, 0.6)), scored("new", share(120, 0.7))

        assert judge(old, new).to_json() == judge(old, new).to_json()

    def test_it_is_plain_json(self) -> None:
        verdict = judge(scored("old", share(120, 0.6)), scored("new", share(120, 0.7)))

        body = json.loads(json.dumps(verdict.to_json(), allow_nan=False))

        assert body["decision"] == verdict.decision
        assert body["reasons"][0]["code"] == verdict.reasons[0].code

    def test_the_p_value_is_never_below_the_exact_sign_test(self) -> None:
        new = np.ones(60, dtype=bool)
        old = new.copy()
        old[:5] = False  # five wins, no loss: resampling alone would call this p = 0.006

        verdict = judge(scored("old", old), scored("new", new), look=4)

        assert verdict.p_value == pytest.approx(stats.binomtest(5, 5, alternative="greater").pvalue)
        assert verdict.decision == "inconclusive"

    @settings(max_examples=25, deadline=None)
    @given(wins=st.integers(0, 30), losses=st.integers(0, 30))
    def test_promotion_needs_an_exact_p_value_within_alpha(self, wins: int, losses: int) -> None:
        old, new = np.ones(100, dtype=bool), np.ones(100, dtype=bool)
        old[:wins] = False
        new[wins : wins + losses] = False

        verdict = judge(scored("old", old), scored("new", new))

        exact = stats.binomtest(wins, wins + losses, alternative="greater").pvalue if wins + losses else 1.0
        if verdict.decision == "promote":
            assert exact <= verdict.alpha

    def test_a_margin_below_zero_asks_only_for_no_worse(self) -> None:
        old, new = scored("old", share(400, 0.80)), scored("new", share(400, 0.80))

        assert judge(old, new, replace(POLICY, min_gain=-0.03)).decision == "promote"
        assert judge(old, scored("new", share(400, 0.7)), replace(POLICY, min_gain=-0.03)).decision == "reject"

    def test_a_margin_above_zero_asks_for_more(self) -> None:
        old, new = scored("old", share(400, 0.7)), scored("new", share(400, 0.8))

        assert judge(old, new, replace(POLICY, min_gain=0.09)).decision == "inconclusive"
        assert judge(old, new, replace(POLICY, min_gain=0.02)).decision == "promote"


class TestWhatCanOnlyLeadToNo:
    """Invariant I6: none of these may promote, however good the challenger looks."""

    OLD, NEW = scored("old", share(200, 0.5)), scored("new", share(200, 0.95))

    def test_the_comparison_itself_would_promote(self) -> None:
        assert judge(self.OLD, self.NEW).decision == "promote"

    def test_too_few_records(self) -> None:
        verdict = judge(scored("old", share(49, 0.1)), scored("new", share(49, 0.95)))

        assert verdict.decision == "inconclusive"
        assert "few-records" in codes(verdict)

    def test_no_records(self) -> None:
        verdict = judge(scored("old", []), scored("new", []))

        assert verdict.decision == "inconclusive"
        assert verdict.gain is None
        assert {"no-records", "few-records"} <= codes(verdict)

    @pytest.mark.parametrize("bad", [np.nan, np.inf])
    def test_a_challenger_that_gives_no_numbers_is_rejected(self, bad: float) -> None:
        probabilities = self.NEW.probabilities.copy()
        probabilities[7, 0] = bad

        verdict = judge(self.OLD, replace(self.NEW, probabilities=probabilities))

        assert verdict.decision == "reject"
        assert codes(verdict) == {"not-finite"}

    def test_a_champion_that_gives_no_numbers_supports_nobody(self) -> None:
        probabilities = self.OLD.probabilities.copy()
        probabilities[7, 0] = np.nan

        assert judge(replace(self.OLD, probabilities=probabilities), self.NEW).decision == "inconclusive"

    def test_another_evaluation_set(self) -> None:
        verdict = judge(replace(self.OLD, evaluation="e0"), self.NEW)

        assert verdict.decision == "reject"
        assert codes(verdict) == {"other-evaluation-set"}

    def test_other_truths_under_the_same_name(self) -> None:
        truth = [*self.OLD.truth]
        truth[0] = "c1"

        assert judge(replace(self.OLD, truth=truth), self.NEW).decision == "reject"

    def test_probabilities_of_the_wrong_shape(self) -> None:
        verdict = judge(self.OLD, replace(self.NEW, probabilities=self.NEW.probabilities[:-1]))

        assert verdict.decision == "reject"
        assert codes(verdict) == {"shape"}

    def test_a_class_the_challenger_forgot(self) -> None:
        old = scored("old", share(300, 0.3), classes=3)
        new = scored("new", share(300, 0.95), classes=3)
        fewer = replace(new, classes=("c0", "c1"), probabilities=new.probabilities[:, :2])

        verdict = judge(old, fewer)

        assert verdict.decision == "reject"
        assert "missing-classes" in codes(verdict)

    def test_a_look_beyond_the_planned_ones(self) -> None:
        assert judge(self.OLD, self.NEW, look=4).decision == "promote"
        verdict = judge(self.OLD, self.NEW, look=5)

        assert verdict.decision == "inconclusive"
        assert "looks-spent" in codes(verdict)
        assert verdict.alpha == 0.0

    def test_a_hard_finding_from_elsewhere(self) -> None:
        leak = Reason("leak", "2 evaluation records are in training", "hard", 2.0, 0.0)

        verdict = judge(self.OLD, self.NEW, failures=[leak])

        assert verdict.decision == "reject"
        assert leak in verdict.reasons

    def test_a_missing_figure_from_elsewhere(self) -> None:
        missing = Reason("no-leak-check", "the manifest could not be read", "missing")

        assert judge(self.OLD, self.NEW, failures=[missing]).decision == "inconclusive"


def test_a_new_class_only_the_challenger_knows_counts_for_it() -> None:
    new = scored("new", share(300, 0.9), classes=3)
    old = scored("old", share(300, 0.9), classes=3)
    fewer = replace(old, classes=("c0", "c1"), probabilities=old.probabilities[:, :2])

    verdict = judge(fewer, new)

    assert verdict.decision == "promote"
    assert verdict.champion_value is not None
    assert verdict.champion_value < 0.65


class TestClasses:
    def test_a_better_average_may_not_be_paid_by_one_class(self) -> None:
        truth = np.arange(400) % 4
        old, new = truth == truth, truth == truth
        old = share(400, 0.5) | (truth == 3)
        new = (truth != 3) | (share(400, 0.3) & (truth == 3))

        verdict = judge(scored("old", old, classes=4), scored("new", new, classes=4))

        assert verdict.decision == "reject"
        (reason,) = (reason for reason in verdict.reasons if reason.code == "class-recall")
        assert "class c3 loses" in reason.detail
        assert {"better", "class-recall"} == codes(verdict)

    def test_a_loss_within_the_floor_is_allowed(self) -> None:
        truth = np.arange(400) % 4
        old = share(400, 0.5) | (truth == 3)
        new = (truth != 3) | (np.arange(400) % 40 != 3)  # class 3 loses a tenth

        assert judge(scored("old", old, classes=4), scored("new", new, classes=4)).decision == "promote"

    def test_a_class_with_few_records_is_reported_and_not_judged(self) -> None:
        new, old = scored("new", share(200, 0.9)), scored("old", share(200, 0.6))
        truth = ["c1"] * 197 + ["rare"] * 3
        names = ("c0", "c1", "rare")

        def widened(scores: Scores, *, right: bool) -> Scores:
            probabilities = np.full((200, 3), 0.1)
            probabilities[:, 1] = np.where(share(200, 0.9 if right else 0.6), 0.8, 0.05)
            probabilities[197:] = [0.8, 0.1, 0.1]
            return replace(scores, truth=truth, classes=names, probabilities=probabilities)

        verdict = judge(widened(old, right=False), widened(new, right=True))

        assert verdict.decision == "promote"
        assert "class-not-judged" in codes(verdict)

    def test_a_required_recall_that_is_out_of_reach_rejects(self) -> None:
        old, new = scored("old", share(300, 0.5)), scored("new", share(300, 0.7))

        verdict = judge(old, new, replace(POLICY, recall_floors={"c0": 0.95, "absent": 0.9}))

        assert verdict.decision == "reject"
        assert "recall-floor" in codes(verdict)
        assert judge(old, new, replace(POLICY, recall_floors={"c0": 0.7})).decision == "promote"


class TestCalibration:
    def test_confidence_that_got_far_worse_rejects(self) -> None:
        old, new = scored("old", share(300, 0.5), confidence=0.51), scored("new", share(300, 0.65), confidence=0.99)

        verdict = judge(old, new)

        assert verdict.decision == "reject"
        assert "calibration" in codes(verdict)

    def test_a_good_enough_calibration_is_never_held_against_a_challenger(self) -> None:
        # The champion always says 1/2 and is right half the time: perfectly calibrated, and useless.
        old, new = scored("old", share(300, 0.5), confidence=0.5), scored("new", share(300, 0.9), confidence=0.97)

        assert judge(old, new, replace(POLICY, max_ece_increase=0.01)).decision == "promote"


@pytest.mark.parametrize(
    "wrong",
    [{"alpha": 0.0}, {"class_alpha": 1.0}, {"planned_looks": 0}, {"replicates": 10}, {"min_gain": math.nan}],
)
def test_a_policy_that_cannot_work_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match="gate"):
        GatePolicy(**wrong)


def test_the_bootstrap_is_the_exact_distribution_of_resampled_means() -> None:
    values = np.array([0.0, 0.0, 1.0, 3.0])
    every = sorted(float(np.mean(draw)) for draw in product(values, repeat=4))  # all 4^4 resamples

    low, high = interval(values, rng=np.random.default_rng(0), level=0.8, replicates=40_000)

    assert low == pytest.approx(float(np.quantile(every, 0.1)), abs=0.26)
    assert high == pytest.approx(float(np.quantile(every, 0.9)), abs=0.26)
