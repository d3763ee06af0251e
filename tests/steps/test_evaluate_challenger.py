"""evaluate_challenger: the same held-out records for both, one look each, one answer for ever, and never a yes by accident."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from tests.builders import card, commit, knowing, lines, uniform, write
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
