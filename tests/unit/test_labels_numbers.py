"""Answers that are numbers: read strictly, agreed on robustly, and their authors judged."""

from __future__ import annotations

import csv
import gzip
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from winnow.errors import BadInput, ConfigError
from winnow.labels.agreement import interval_alpha
from winnow.labels.annotators import NumericStatistics, Suspect, SuspectRules, numeric_statistics, suspects
from winnow.labels.numbers import NumericAnswers, agree, number
from winnow.labels.numeric_consensus import NumericConsensus, median, weighted_mean

CROWD = Path(__file__).parents[3] / "shared" / "data" / "crowd"

SMALL = NumericAnswers.of(
    [("t1", "a", 10.0), ("t1", "b", 12.0), ("t1", "c", 14.0), ("t2", "a", 20.0), ("t2", "b", 20.0), ("t2", "c", 26.0)]
)


def simulated(
    spreads: list[float], *, biases: list[float] | None = None, tasks: int = 200, seed: int = 0
) -> tuple[NumericAnswers, npt.NDArray[np.float64]]:
    """Every worker answers every task, off by their bias and a normal error of their spread; truths go from 50 to 150."""
    rng = np.random.default_rng(seed)
    truth = rng.uniform(50.0, 150.0, tasks)
    rows = []
    for worker, spread in enumerate(spreads):
        given = truth + (biases[worker] if biases else 0.0) + spread * rng.standard_normal(tasks)
        rows += [(f"t{task:04d}", f"w{worker}", float(value)) for task, value in enumerate(given)]
    return NumericAnswers.of(rows), truth


def error(values: npt.NDArray[np.float64], truth: npt.NDArray[np.float64]) -> float:
    return float(np.abs(values - truth).mean())


class TestNumber:
    @pytest.mark.parametrize(
        ("answer", "value"),
        [
            ("123.4", 123.4),
            (" 12 ", 12.0),
            ("+3.", 3.0),
            (".5", 0.5),
            ("1e5", 1e5),
            ("-0", 0.0),
            (7, 7.0),
            (0.25, 0.25),
        ],
    )
    def test_a_plain_number_is_read(self, answer: Any, value: float) -> None:
        assert number(answer) == value
        assert str(number("-0")) == "0.0"

    @pytest.mark.parametrize(
        ("answer", "reason"),
        [
            ("1,234.5", "'1,234.5' is no plain number; write digits"),
            ("1.234,5", "no plain number"),
            ("1 234", "no plain number"),
            ("12,5", "no plain number"),
            ("abc", "no plain number"),
            ("1_000", "no plain number"),
            ("0x10", "no plain number"),
            ("٣", "no plain number"),
            ("−5", "no plain number"),
            ("$5", "no plain number"),
            ("nan", "no plain number"),
            ("inf", "no plain number"),
            ("1e999", "no number that can be learned"),
            (10**400, "no number that can be learned"),
            (float("nan"), "no number that can be learned"),
            ("", "nothing was answered"),
            ("  ", "nothing was answered"),
            (None, "nothing was answered"),
            (True, "of type bool is no number"),
            ({"label": "5"}, "of type dict is no number"),
            ("9" * 10_000, "no number that can be learned"),
        ],
    )
    def test_anything_else_is_refused_with_the_reason(self, answer: Any, reason: str) -> None:
        with pytest.raises(BadInput, match=reason) as refusal:
            number(answer)

        assert refusal.value.code == "no-number"
        assert len(str(refusal.value)) < 200

    def test_what_lies_outside_the_task_is_refused_and_its_borders_are_not(self) -> None:
        assert [number(answer, minimum=0.0, maximum=10.0) for answer in ("0", "10")] == [0.0, 10.0]
        with pytest.raises(BadInput, match=r"-0\.5 is below task.minimum \(0\)") as low:
            number("-0.5", minimum=0.0)
        with pytest.raises(BadInput, match=r"11 is above task.maximum \(10\)") as high:
            number("11", maximum=10.0)
        assert low.value.code == high.value.code == "out-of-range"


def test_numbers_agree_within_a_share_of_the_larger_one() -> None:
    pairs = [(90.0, 100.0), (89.9, 100.0), (-100.0, -90.0), (0.0, 0.0), (0.0, 0.001), (-5.0, 5.0)]

    assert [bool(agree(one, other, tolerance=0.1)) for one, other in pairs] == [True, False, True, True, False, False]
    assert agree([2.0, 2.0, 0.0], [2.0, 2.0001, 0.0], tolerance=0.0).tolist() == [True, False, True]
    assert 1.0 - 0.7 > 0.3  # in binary
    assert bool(agree(1.0, 0.7, tolerance=0.3))


def test_numbering_does_not_depend_on_the_order_of_arrival() -> None:
    rows = [("t2", "b", 1.0), ("t1", "a", 2.0), ("t1", "b", 3.0)]

    one, other = NumericAnswers.of(rows), NumericAnswers.of(rows[::-1])

    assert one.tasks == other.tasks == ("t1", "t2")
    assert one.given().tolist() == other.given().tolist() == [2, 1]
    with pytest.raises(BadInput, match="worker a gave task t nan"):
        NumericAnswers.of([("t", "a", float("nan"))])


class TestMedian:
    def test_hand_computed(self) -> None:
        rows = [("odd", worker, value) for worker, value in zip("abc", (100.0, 95.0, 150.0), strict=True)]
        rows += [("even", worker, value) for worker, value in zip("abcd", (10.0, 11.0, 12.0, 40.0), strict=True)]
        rows += [("alone", "a", 3.0), ("zeros", "a", 0.0), ("zeros", "b", 0.0)]

        found = median(NumericAnswers.of(rows), tolerance=0.1)

        # even: the median is 11.5; 10 is 1.5 away and 1.15 is allowed, 11 and 12 agree
        assert dict(zip(NumericAnswers.of(rows).tasks, zip(found.values, found.confidence, strict=True), strict=True)) == {
            "alone": (3.0, 1.0), "even": (11.5, 0.5), "odd": (100.0, pytest.approx(2 / 3)), "zeros": (0.0, 1.0),
        }  # fmt: skip

    def test_a_far_answer_carries_nothing_away(self) -> None:
        near = [("t", "a", 100.0), ("t", "b", 101.0)]

        found = [median(NumericAnswers.of([*near, ("t", "c", far)]), tolerance=0.1) for far in (130.0, 1e15, -1e15)]

        assert [float(one.confidence[0]) for one in found] == [pytest.approx(2 / 3)] * 3
        assert [float(one.values[0]) for one in found] == [101.0, 101.0, 100.0]

    def test_no_answers_are_no_tasks(self) -> None:
        assert median(NumericAnswers.of([]), tolerance=0.1).values.tolist() == []
        assert weighted_mean(NumericAnswers.of([])).values.tolist() == []


class TestWeightedMean:
    def test_one_round_by_hand(self) -> None:
        found = weighted_mean(SMALL, prior_answers=2.0, max_rounds=1)

        # medians 12 and 20, squares 4 0 4 0 0 36, so the common variance is 44 / (6 - 2) = 11 and all weigh the same
        assert found.values.tolist() == pytest.approx([12.0, 22.0])
        # c: squares 4 and 16, each task's variance 11 / 3 twice, two imaginary answers of 11, over four answers
        assert found.spread.tolist() == pytest.approx(np.sqrt([28 / 3, 25 / 3, 37 / 3]))
        assert (found.rounds, found.converged) == (1, False)

    def test_the_end_is_a_fixed_point_of_its_own_weights(self) -> None:
        answers, _ = simulated([2.0, 5.0, 9.0], tasks=50)

        found = weighted_mean(answers, precision=1e-12, max_rounds=1000)

        weights = 1.0 / found.spread[answers.worker] ** 2
        sums = np.bincount(answers.task, weights=weights * answers.value)
        assert found.converged
        assert found.values.tolist() == pytest.approx(sums / np.bincount(answers.task, weights=weights), abs=0.35)

    def test_who_scatters_less_weighs_more_than_the_mean_gives_them(self) -> None:
        answers, truth = simulated([2.0, 2.0, 15.0, 15.0, 15.0])

        found = weighted_mean(answers, prior_answers=1.0)

        mean = np.bincount(answers.task, weights=answers.value) / 5
        assert error(found.values, truth) < 0.5 * error(mean, truth)
        assert found.spread.tolist() == pytest.approx([2.0, 2.0, 15.0, 15.0, 15.0], rel=0.35)

    def test_slips_of_the_comma_move_little(self) -> None:
        answers, truth = simulated([2.0] * 5)
        slips = np.random.default_rng(1).choice(len(answers.value), 20, replace=False)
        answers.value[slips] *= 10

        found = weighted_mean(answers)

        mean = np.bincount(answers.task, weights=answers.value) / 5
        assert error(mean, truth) > 15.0
        assert error(found.values, truth) < 1.5

    def test_confidence_counts_the_weight_that_agrees(self) -> None:
        answers, _ = simulated([1.0, 1.0, 40.0])
        fitted = weighted_mean(answers)

        confidence = fitted.consensus(answers, tolerance=0.1).confidence

        assert float(np.median(confidence)) > 0.95  # though the third worker agrees with hardly anything
        assert float(np.median(median(answers, tolerance=0.1).confidence)) == pytest.approx(2 / 3)

    def test_equal_answers_are_certain(self) -> None:
        answers = NumericAnswers.of([(task, worker, 5.0) for task in "xy" for worker in "ab"])
        found = weighted_mean(answers)

        assert (found.values.tolist(), found.spread.tolist(), found.converged) == ([5.0, 5.0], [0.0, 0.0], True)
        assert found.consensus(answers, tolerance=0.0).confidence.tolist() == [1.0, 1.0]

    def test_a_prior_of_nothing_and_no_rounds_are_refused(self) -> None:
        with pytest.raises(ConfigError, match=r"prior_answers 0\.0 must be above 0"):
            weighted_mean(SMALL, prior_answers=0.0)
        with pytest.raises(ConfigError, match="max_rounds 0 at least 1"):
            weighted_mean(SMALL, max_rounds=0)


class TestIntervalAlpha:
    def test_krippendorffs_own_example(self) -> None:
        observers = {
            "A": "1 2 3 3 2 1 4 1 2 . . .", "B": "1 2 3 3 2 2 4 1 2 5 . 3",
            "C": ". 3 3 3 2 3 4 2 2 5 1 .", "D": "1 2 3 3 2 4 4 1 2 5 1 .",
        }  # fmt: skip
        rows = [
            (f"u{unit:02d}", name, float(value))
            for name, values in observers.items()
            for unit, value in enumerate(values.split())
            if value != "."
        ]

        assert interval_alpha(NumericAnswers.of(rows)) == pytest.approx(0.849, abs=0.0005)

    def test_it_does_not_depend_on_origin_or_unit(self) -> None:
        answers, _ = simulated([5.0, 5.0, 20.0], tasks=40)
        moved = NumericAnswers(answers.task, answers.worker, 1e6 + 1000 * answers.value, answers.tasks, answers.workers)

        assert interval_alpha(moved) == pytest.approx(interval_alpha(answers))

    def test_answers_that_say_nothing_about_it(self) -> None:
        assert interval_alpha(NumericAnswers.of([("t1", "a", 1.0), ("t2", "a", 2.0)])) is None
        assert interval_alpha(NumericAnswers.of([("t1", "a", 1.0), ("t1", "b", 1.0)])) is None
        assert interval_alpha(NumericAnswers.of([])) is None


class TestStatistics:
    def test_hand_computed(self) -> None:
        consensus = NumericConsensus(np.array([12.0, 20.0]), np.ones(2))

        figures = numeric_statistics(
            SMALL, consensus, tolerance=0.1, seconds=np.array([4.0, 1.0, np.nan, 6.0, 1.0, np.nan])
        )

        a, b, c = figures
        assert (a.answers, a.agreement, a.bias, a.spread) == (2, 0.5, -1.0, 1.0)  # -2 and 0 from the consensus
        assert (c.agreement, c.bias, c.spread) == (0.0, 4.0, 2.0)  # 2 and 6: 14 is 2/14 off, 26 is 6/26 off
        # a agrees with b about t2 only: of two others, half once in two tasks
        assert (a.peer_agreement, b.peer_agreement, c.peer_agreement) == (0.25, 0.25, 0.0)
        assert (a.median_seconds, c.median_seconds) == (5.0, None)
        assert a.spam is None  # two answers show no correlation

    def test_an_answer_without_company_is_compared_with_nobody(self) -> None:
        answers = NumericAnswers.of([("t1", "a", 1.0), ("t2", "b", 2.0), ("t2", "c", 2.0)])

        figures = numeric_statistics(answers, median(answers, tolerance=0.1), tolerance=0.1)

        assert [one.peer_agreement for one in figures] == [None, 1.0, 1.0]

    @pytest.mark.parametrize("kind", ["constant", "dice", "inverse"])
    def test_spam_is_what_the_others_tell_apart_and_the_worker_does_not(self, kind: str) -> None:
        answers, truth = simulated([3.0, 3.0, 3.0, 0.0], tasks=100)
        dice = np.random.default_rng(2).uniform(50.0, 150.0, 100)
        answers.value[answers.worker == 3] = {"constant": np.full(100, 99.0), "dice": dice, "inverse": 200.0 - truth}[
            kind
        ]

        figures = numeric_statistics(answers, median(answers, tolerance=0.1), tolerance=0.1)

        spam = [one.spam for one in figures]
        assert spam[3] is not None
        assert spam[3] > 0.95
        assert all(score is not None and score < 0.6 for score in spam[:3])
        assert [one.worker for one in suspects(figures) if "spam" in one.reasons] == ["w3"]

    def test_suspects_among_numbers(self) -> None:
        answers, _ = simulated([3.0, 3.0, 3.0, 3.0, 30.0], biases=[0.0, 0.0, 0.0, 9.0, 0.0])
        figures = numeric_statistics(
            answers, median(answers, tolerance=0.1), tolerance=0.1, seconds=np.full(len(answers.value), 5.0)
        )

        named = {one.worker: one.reasons for one in suspects(figures)}

        assert named.keys() == {"w3", "w4"}
        assert "bias" in named["w3"]
        assert "spread" in named["w4"]

    def test_a_bias_within_the_tolerance_harms_nobody(self) -> None:
        answers, _ = simulated([0.1, 0.1, 0.1, 0.1], biases=[0.0, 0.0, 0.0, 3.0])

        figures = numeric_statistics(answers, median(answers, tolerance=0.1), tolerance=0.1)

        assert figures[3].bias > 20 * figures[0].spread
        assert suspects(figures) == ()

    def test_few_answers_accuse_nobody(self) -> None:
        far = NumericStatistics("w", 19, 0.0, 0.0, 1.0, 0.1, bias=1e6, spread=1e6)
        fine = [NumericStatistics(name, 50, 0.9, 0.9, 0.1, 9.0, bias=0.0, spread=1.0) for name in "abc"]

        assert suspects([*fine, far]) == ()
        assert suspects([*fine, far], rules=SuspectRules(minimum_answers=19)) == (
            Suspect("w", ("spam", "agreement", "speed", "bias", "spread")),
        )


@pytest.mark.shared
def test_weighing_beats_the_mean_on_real_answers() -> None:
    if not CROWD.exists():
        pytest.skip(f"the real data beside the checkout is absent: {CROWD}")
    with gzip.open(CROWD / "emotion_numeric_labels.csv.gz", "rt", encoding="utf-8") as file:
        rows = [(row["task"], row["worker"], float(row["label"])) for row in csv.DictReader(file)]
    with gzip.open(CROWD / "emotion_numeric_truth.csv.gz", "rt", encoding="utf-8") as file:
        known = {row["task"]: float(row["truth"]) for row in csv.DictReader(file)}
    answers = NumericAnswers.of(rows)
    truth = np.array([known[task] for task in answers.tasks])
    mean = np.bincount(answers.task, weights=answers.value) / answers.given()

    fitted = weighted_mean(answers)

    assert error(mean, truth) == pytest.approx(12.0, abs=0.05)
    assert error(fitted.values, truth) == pytest.approx(
        11.81, abs=0.05
    )  # the root of the mean square: 18.2, the mean's 17.8
    assert error(median(answers, tolerance=0.1).values, truth) == pytest.approx(13.5, abs=0.05)
    assert interval_alpha(answers) == pytest.approx(0.357, abs=0.001)
