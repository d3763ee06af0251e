"""evaluate_challenger: the same held-out records for both, one look each, one answer for ever, and never a yes by accident."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from tests.builders import card, commit, estimating, knowing, line, lines, sizes, uniform, write
from tests.fakes import FakeModel, every_fault, make_ports
from winnow import layout
from winnow.errors import ConfigError, NotFound
from winnow.models.gate import alpha_at, wilson
from winnow.models.predictions import Predictions
from winnow.steps.evaluate_challenger import evaluate_challenger

REQUEST = {"model": "m1", "dataset": "d1"}
LABELS = ["negative", "positive"] * 60
TRUTH = {f"e{number}": label for number, label in enumerate(LABELS)}


def world(*, wrong: int = 12, records: int = 120) -> Any:
    """A bootstrap champion and a challenger that is wrong about the first `wrong` of the evaluation records."""
    ports = make_ports()
    commit(ports, "d1", train=lines("t", ["negative", "positive"]), evaluation=lines("e", LABELS[:records]))
    ports.models.add("bootstrap-text", uniform("bootstrap-text"))
    ports.models.add("m1", knowing("m1", TRUTH, wrong=[f"e{number}" for number in range(wrong)]))
    return ports


def report_of(ports: Any, model: str = "m1") -> dict[str, Any]:
    return dict(ports.data.json(layout.gate_report(model)))


def test_a_better_challenger_is_promoted_with_all_it_rests_on() -> None:
    ports = world()

    outcome = evaluate_challenger(REQUEST, ports)

    assert outcome.body == {"model": "m1", "dataset": "d1", "verdict": "promote"}
    report = report_of(ports)
    assert (report["champion"], report["look"], report["evaluation"]["records"]) == ("bootstrap-text", 1, 120)
    assert report["alpha"] == pytest.approx(alpha_at(1, alpha=0.1, planned_looks=20))
    # 108 of 120 right, against the 60 that always saying the first class gives
    assert report["challenger"]["accuracy"] == pytest.approx(0.9)
    assert [report["challenger"]["low"], report["challenger"]["high"]] == pytest.approx(list(wilson(108, 120)))
    assert report["champion_metrics"]["accuracy"] == pytest.approx(0.5)
    assert (report["metric"], report["challenger"]["metric"], report["challenger"]["value"]) == (
        "accuracy", "accuracy", report["challenger"]["accuracy"],
    )  # fmt: skip
    assert report["challenger"]["correct"] == {name: report["challenger"][name] for name in ("value", "low", "high")}
    assert report["challenger"]["confusion"] == [[54, 6], [6, 54]]
    assert report["challenger"]["per_class"]["positive"] == {"recall": 0.9, "precision": 0.9, "n": 60}
    assert report["difference"]["value"] == pytest.approx(0.4)
    assert report["difference"]["low"] < 0.4 < report["difference"]["high"]
    assert report["entropy"]["before"] == pytest.approx(math.log(2))
    assert report["entropy"]["after"] == pytest.approx(-0.9 * math.log(0.9) - 0.1 * math.log(0.1))
    assert [reason["code"] for reason in report["reasons"]] == ["better"]
    values = {(metric.name, *metric.dimensions.values()): metric.value for metric in outcome.metrics}
    assert values == {
        ("GateVerdict", "promote"): 1,
        ("ChallengerAccuracy",): pytest.approx(90.0),
        ("ChampionAccuracy",): pytest.approx(50.0),
        ("ChallengerMetric", "accuracy"): pytest.approx(0.9),
        ("ChampionMetric", "accuracy"): pytest.approx(0.5),
    }


def test_the_class_the_bootstrap_model_always_names_is_no_recall_to_hold_on_to() -> None:
    ports = world()
    missed = [
        f"e{number}" for number in range(0, 60, 2)
    ]  # half of the first class, which the bootstrap model always names
    ports.models.add("m1", knowing("m1", TRUTH, wrong=missed))

    assert evaluate_challenger(REQUEST, ports).body["verdict"] == "promote"


def test_a_worse_challenger_is_rejected() -> None:
    ports = world(wrong=110)

    assert evaluate_challenger(REQUEST, ports).body["verdict"] == "reject"

    assert {reason["code"] for reason in report_of(ports)["reasons"]} >= {"worse"}


def test_too_few_records_decide_nothing() -> None:
    ports = world(records=20, wrong=0)

    assert evaluate_challenger(REQUEST, ports).body["verdict"] == "inconclusive"

    assert "few-records" in {reason["code"] for reason in report_of(ports)["reasons"]}


def test_no_evaluation_records_decide_nothing() -> None:
    ports = world(records=0)

    outcome = evaluate_challenger(REQUEST, ports)

    assert outcome.body["verdict"] == "inconclusive"
    report = report_of(ports)
    assert (report["challenger"], report["difference"], report["entropy"]) == (
        None,
        None,
        {"before": None, "after": None},
    )
    assert [metric.name for metric in outcome.metrics] == ["GateVerdict"]


def test_nan_is_never_promoted() -> None:
    ports = world()

    def nan(payloads: Any) -> Predictions:
        rows = np.full((len(payloads), 2), np.nan, dtype=np.float32)
        return Predictions(rows, np.zeros((len(payloads), 2), dtype=np.float32))

    ports.models.add("m1", FakeModel(card("m1"), nan))

    assert evaluate_challenger(REQUEST, ports).body["verdict"] == "reject"

    assert report_of(ports)["challenger"] is None


def test_another_evaluation_set_is_never_judged_on() -> None:
    ports = world()
    ports.data.objects[layout.dataset_part("d1", "evaluation")] += b"x"

    with pytest.raises(ConfigError, match="restore the version that was committed"):
        evaluate_challenger(REQUEST, ports)

    assert not ports.data.exists(layout.gate_report("m1"))
    assert ports.table.query("LOOK") == []


def test_a_model_that_is_not_published_is_never_judged() -> None:
    ports = world()
    del ports.models.models["m1"]

    with pytest.raises(NotFound):
        evaluate_challenger(REQUEST, ports)


def test_an_answer_stands_although_the_champion_changed() -> None:
    ports = world()
    evaluate_challenger(REQUEST, ports)
    before = dict(ports.data.objects)
    write(ports, layout.CHAMPION, {"format": 1, "model": "m1", "number": 1, "dataset": "d1"})
    ports.clock.advance(days=1)

    again = evaluate_challenger(REQUEST, ports)

    assert again.body["verdict"] == "promote"
    assert ports.data.objects == {**before, layout.CHAMPION: ports.data.objects[layout.CHAMPION]}


def test_every_model_has_its_own_look() -> None:
    ports = world()
    for model in ("m1", "m2", "m3"):
        ports.models.add(model, knowing(model, TRUTH))
        evaluate_challenger({"model": model, "dataset": "d1"}, ports)

    assert [report_of(ports, model)["look"] for model in ("m1", "m2", "m3")] == [1, 2, 3]
    assert report_of(ports, "m2")["alpha"] < report_of(ports, "m1")["alpha"]


def test_a_number_taken_at_the_same_moment_is_left_to_its_owner() -> None:
    ports = world()
    table = ports.table._fake
    query = table.query

    def query_before_the_other_claimed(pk: str, *, prefix: str = "") -> list[dict[str, Any]]:
        found = query(pk, prefix=prefix)
        table.put_new("LOOK", "000001", {"model": "m9", "number": 1, "dataset": "d1", "at": "2026-01-05"})
        return list(found)

    table.query = query_before_the_other_claimed

    evaluate_challenger(REQUEST, ports)

    assert report_of(ports)["look"] == 2


def test_looks_beyond_the_plan_promote_nothing() -> None:
    ports = world()
    for number in range(1, 21):
        ports.table.items["LOOK", f"{number:06d}"] = {"model": f"old{number}", "number": number}

    assert evaluate_challenger(REQUEST, ports).body["verdict"] == "inconclusive"

    assert "looks-spent" in {reason["code"] for reason in report_of(ports)["reasons"]}


def test_arms_are_compared_on_the_same_records() -> None:
    ports = world()
    active, control = (
        knowing("m1-a", TRUTH, wrong=[f"e{n}" for n in range(24)]),
        knowing("m1-c", TRUTH, wrong=list(TRUTH)[:48]),
    )
    for fit in (active, control):
        fit.card.metrics["n"] = 40  # type: ignore[index]
    ports.models.add("m1", knowing("m1", TRUTH), arms={"active": active, "control": control})

    outcome = evaluate_challenger(REQUEST, ports)

    arms = report_of(ports)["arms"]
    assert (arms["active"]["labels"], arms["active"]["accuracy"]) == (40, pytest.approx(0.8))
    assert (arms["control"]["labels"], arms["control"]["accuracy"]) == (40, pytest.approx(0.6))
    assert {metric.dimensions["Arm"]: metric.value for metric in outcome.metrics if metric.name == "ArmAccuracy"} == {
        "active": pytest.approx(80.0), "control": pytest.approx(60.0),
    }  # fmt: skip
    assert {metric.dimensions["Arm"]: metric.value for metric in outcome.metrics if metric.name == "ArmMetric"} == {
        "active": pytest.approx(0.8), "control": pytest.approx(0.6),
    }  # fmt: skip


def test_a_missing_arm_is_reported_as_missing() -> None:
    ports = world()
    ports.models.add("m1", knowing("m1", TRUTH), arms={"active": knowing("m1-a", TRUTH)})

    evaluate_challenger(REQUEST, ports)

    assert report_of(ports)["arms"]["control"] is None


def test_classes_are_matched_by_name() -> None:
    ports = world()
    good = knowing("m1", TRUTH)

    def swapped(payloads: Any) -> Predictions:
        found = good.predict(payloads)
        return Predictions(found.probabilities[:, ::-1], found.embedding)

    ports.models.add("m1", FakeModel(card("m1", classes=("positive", "negative")), swapped))

    assert evaluate_challenger(REQUEST, ports).body["verdict"] == "promote"

    assert report_of(ports)["challenger"]["accuracy"] == 1.0


def test_the_same_question_gets_the_same_numbers() -> None:
    one, other = world(), world()
    evaluate_challenger(REQUEST, one)
    evaluate_challenger(REQUEST, other)

    assert report_of(one) == report_of(other)


def test_every_fault_gives_one_look_and_one_report() -> None:
    expected = world()
    evaluate_challenger(REQUEST, expected)

    for what, ports in every_fault(world, lambda ports: evaluate_challenger(REQUEST, ports)):
        assert ports.data.objects == expected.data.objects, what
        assert ports.table.items == expected.table.items, what


NUMBERS = "task: {kind: table, type: regression, tolerance: 0.2}"
SIZES = [1.0 + number for number in range(60)]


def numeric(guess: Any, **gate: Any) -> Any:
    """A bootstrap champion and a regression that guesses; true numbers are 10 to 600, ten times the sizes."""
    ports = make_ports(loop=NUMBERS)
    train, evaluation = sizes("t", [10.0, 20.0, 60.0]), sizes("e", SIZES)
    commit(ports, "d1", train=train, evaluation=evaluation, classes=(), kind="table", task="regression")
    ports.models.add("bootstrap-table", estimating("bootstrap-table", lambda size: 0.0, dataset=None))
    ports.models.add("m1", estimating("m1", guess))
    return ports


def test_a_regression_is_judged_by_its_errors() -> None:
    ports = numeric(lambda size: 10 * size + (30 if size % 2 else -30))

    assert evaluate_challenger(REQUEST, ports).body["verdict"] == "promote"

    report = report_of(ports)
    found = report["challenger"]
    # Numbers 10, 20, ... 600 have a variance of 100 (60^2 - 1) / 12
    r2 = 1 - 900 / (100 * (60**2 - 1) / 12)
    assert (report["metric"], found["metric"], found["value"], found["r2"]) == (
        "r2", "r2", pytest.approx(r2), pytest.approx(r2),
    )  # fmt: skip
    assert found["low"] < r2 < found["high"] <= 1.0
    assert (found["mae"], found["rmse"]) == (pytest.approx(30.0), pytest.approx(30.0))
    # 30 is at most a fifth of the larger number for odd sizes from 13 on (24 of them) and for even ones from 16 on (23)
    assert found["correct"]["value"] == pytest.approx((24 + 23) / 60)
    assert found["correct"]["low"] < found["correct"]["value"] < found["correct"]["high"]
    assert (len(found["bins"]["edges"]), sum(found["bins"]["counts"])) == (9, 60)
    assert "accuracy" not in found
    assert "confusion" not in found
    assert report["entropy"] == {"before": None, "after": None}


def test_the_first_regression_has_to_beat_the_mean_of_the_labels() -> None:
    ports = numeric(lambda size: 290.0 + (size % 2))

    assert evaluate_challenger(REQUEST, ports).body["verdict"] != "promote"

    # The mean of the train labels is 300; the bootstrap model itself says 0, which anything beats.
    champion = report_of(ports)["champion_metrics"]
    assert champion["mae"] == pytest.approx(150.0, abs=1.0)
    assert champion["value"] == pytest.approx(0.0, abs=0.01)


def test_arms_of_a_regression_are_compared_by_r2() -> None:
    ports = numeric(lambda size: 10 * size)
    arms = {
        "active": estimating("a", lambda size: 10 * size + 10),
        "control": estimating("c", lambda size: 10 * size + 90),
    }
    ports.models.add("m1", ports.models.models["m1"], arms=arms)

    outcome = evaluate_challenger(REQUEST, ports)

    found = report_of(ports)["arms"]
    spread = 100 * (60**2 - 1) / 12
    assert found["active"]["value"] == found["active"]["r2"] == pytest.approx(1 - 100 / spread)
    assert found["control"]["value"] == pytest.approx(1 - 8100 / spread)
    named = {(metric.name, *metric.dimensions.values()): metric.value for metric in outcome.metrics}
    assert named == {
        ("GateVerdict", "promote"): 1,
        ("ChallengerMetric", "r2"): pytest.approx(1.0),
        ("ChampionMetric", "r2"): pytest.approx(report_of(ports)["champion_metrics"]["value"]),
        ("ArmMetric", "active"): pytest.approx(found["active"]["value"]),
        ("ArmMetric", "control"): pytest.approx(found["control"]["value"]),
    }


def test_numbers_that_are_nan_are_never_promoted() -> None:
    ports = numeric(lambda size: math.nan if size == 7 else 10 * size)

    assert evaluate_challenger(REQUEST, ports).body["verdict"] == "reject"

    assert report_of(ports)["challenger"] is None
    assert {reason["code"] for reason in report_of(ports)["reasons"]} == {"not-finite"}


def test_a_classifier_is_no_regression() -> None:
    ports = numeric(lambda size: 10 * size)
    silent = estimating("m1", lambda size: 10 * size)

    def mute(payloads: Any) -> Predictions:
        found = silent.predict(payloads)
        return Predictions(found.probabilities, found.embedding)

    ports.models.add("m1", FakeModel(silent.card, mute))

    assert evaluate_challenger(REQUEST, ports).body["verdict"] == "reject"
    assert {reason["code"] for reason in report_of(ports)["reasons"]} == {"shape"}


@pytest.mark.parametrize("label", [None, "12", True, math.inf])
def test_evaluation_labels_that_are_no_numbers_decide_nothing(label: Any) -> None:
    ports = numeric(lambda size: 10 * size)
    broken = [{**sizes("e", [1.0])[0], "label": label}]
    commit(ports, "d1", train=sizes("t", [1.0]), evaluation=broken, classes=(), kind="table", task="regression")

    with pytest.raises(ConfigError, match="which is no number"):
        evaluate_challenger(REQUEST, ports)


def test_every_fault_gives_one_report_about_numbers() -> None:
    def build() -> Any:
        return numeric(lambda size: 10 * size + 5)

    expected = build()
    evaluate_challenger(REQUEST, expected)

    for what, ports in every_fault(
        build, lambda ports: evaluate_challenger(REQUEST, ports), faults=("before", "after")
    ):
        assert ports.data.objects == expected.data.objects, what


def test_rare_positives_are_judged_by_their_ranking() -> None:
    """One in ten is positive; the challenger never says so, and ranks them first all the same."""
    ports = make_ports(
        loop="task: {rare_classes: [positive]}\ngate: {metric: average_precision, class_floor: 1.0, max_ece_increase: 1.0}"
    )
    labels = ["positive" if number % 10 == 0 else "negative" for number in range(120)]
    truth = {f"text of e{number}": label for number, label in enumerate(labels)}
    commit(ports, "d1", train=lines("t", ["negative", "positive"]), evaluation=lines("e", labels))
    ports.models.add("bootstrap-text", uniform("bootstrap-text"))

    def ranking(payloads: Any) -> Predictions:
        yes = np.array([0.4 if truth[one["text"]] == "positive" else 0.1 for one in payloads], dtype=np.float32)
        return Predictions(np.column_stack([1 - yes, yes]), np.zeros((len(payloads), 2), dtype=np.float32))

    ports.models.add("m1", FakeModel(card("m1"), ranking))

    assert evaluate_challenger(REQUEST, ports).body["verdict"] == "promote"

    report = report_of(ports)
    found, before = report["challenger"], report["champion_metrics"]
    assert (report["metric"], found["value"], found["average_precision"]) == ("average_precision", 1.0, 1.0)
    assert (found["accuracy"], found["correct"]["value"]) == (0.9, 0.9)
    assert found["correct"]["low"] == pytest.approx(wilson(108, 120)[0])
    assert (before["value"], before["accuracy"]) == (pytest.approx(0.1), 0.9)


def test_too_few_rare_records_decide_nothing() -> None:
    ports = make_ports(loop="task: {rare_classes: [positive]}\ngate: {metric: average_precision}")
    evaluation = [*lines("e", ["negative"] * 60), *(line(f"p{number}", "positive") for number in range(4))]
    commit(ports, "d1", train=lines("t", ["negative", "positive"]), evaluation=evaluation)
    ports.models.add("bootstrap-text", uniform("bootstrap-text"))
    known = {f"e{number}": "negative" for number in range(60)} | {f"p{number}": "positive" for number in range(4)}
    ports.models.add("m1", knowing("m1", known))

    assert evaluate_challenger(REQUEST, ports).body["verdict"] == "inconclusive"

    assert "few-positives" in {reason["code"] for reason in report_of(ports)["reasons"]}
