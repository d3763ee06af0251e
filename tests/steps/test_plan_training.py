"""plan_training: money is spent once, only on what is worth it, and never on data that breaks its contract."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.builders import commit, gate_report, line, lines, sizes, write
from tests.fakes import every_fault, make_ports
from winnow import layout
from winnow.errors import ConfigError, Retryable
from winnow.ports import TrainingState
from winnow.steps.plan_training import model_id, plan_training

LOOP = "training: {min_labels: 4, min_new_labels: 2}"
REQUEST = {"dataset": "d1", "cause": "labels"}
MODEL = model_id("d1", seed=0, members=4)


def world(labels: str = "nnpp", **parts: Any) -> Any:
    ports = make_ports(loop=LOOP)
    names = {"n": "negative", "p": "positive"}
    commit(ports, "d1", train=lines("t", [names[each] for each in labels]), **parts)
    return ports


def test_a_new_dataset_is_trained_under_a_derived_name() -> None:
    ports = world()

    outcome = plan_training(REQUEST, ports)

    assert outcome.body["decision"] == "train"
    assert outcome.body["model"] == MODEL
    assert outcome.body["request"]["TrainingJobName"] == f"winnow-{MODEL}"
    assert outcome.body["artifact"] is None
    spec = ports.data.json(layout.training_spec(MODEL))
    assert spec == {
        "format": 1, "model": MODEL, "task": "classification", "kind": "text", "classes": ["negative", "positive"],
        "columns": {}, "positive_class": None, "masker": "1", "dataset": "d1", "seed": 0, "members": 4,
        "encoder": None,
    }  # fmt: skip
    assert [(metric.name, metric.dimensions) for metric in outcome.metrics] == [
        ("TrainingPlanned", {"Decision": "train"})
    ]


@pytest.mark.parametrize(("labels", "reason"), [("nnp", "min_labels"), ("nnnn", "every train label is 'negative'")])
def test_too_little_to_learn_from_is_skipped_with_the_reason(labels: str, reason: str) -> None:
    outcome = plan_training(REQUEST, world(labels))

    assert outcome.body["decision"] == "skip"
    assert reason in outcome.body["reason"]


def test_too_little_news_since_the_champion_is_skipped() -> None:
    ports = world("nnppn")
    commit(ports, "d0", train=lines("t", ["negative", "negative", "positive", "positive"]), head=False)
    write(ports, layout.CHAMPION, {"format": 1, "model": "m0", "number": 1, "dataset": "d0"})

    outcome = plan_training(REQUEST, ports)

    assert outcome.body["reason"].startswith("1 new train labels since the last challenger")


def test_too_little_news_since_a_challenger_that_was_judged_is_skipped() -> None:
    ports = world("nnppn")
    commit(ports, "d0", train=lines("t", ["negative", "negative", "positive", "positive"]), head=False)
    ports.table.put("LOOK", "000001", {"model": "m0", "dataset": "d0", "number": 1})

    outcome = plan_training(REQUEST, ports)

    assert outcome.body["decision"] == "skip"
    assert outcome.body["reason"].startswith("1 new train labels since the last challenger")


def test_the_same_run_twice_orders_one_training() -> None:
    ports = world()

    first, second = plan_training(REQUEST, ports), plan_training(REQUEST, ports)

    assert first.body == second.body


def test_a_job_that_completed_is_taken_up() -> None:
    ports = world()
    artifact = ports.training.complete(MODEL)

    outcome = plan_training(REQUEST, ports)

    assert (outcome.body["decision"], outcome.body["artifact"], outcome.body["request"]) == ("trained", artifact, None)


def test_a_published_model_needs_no_job() -> None:
    ports = world()
    write(ports, layout.model(MODEL), {})

    outcome = plan_training(REQUEST, ports)

    assert outcome.body["decision"] == "trained"
    assert outcome.body["artifact"] == ports.data.uri(layout.training_artifact("winnow", MODEL))


def test_a_running_job_is_waited_for() -> None:
    ports = world()
    ports.training.jobs[MODEL] = TrainingState("running", None)

    with pytest.raises(Retryable, match="is running"):
        plan_training(REQUEST, ports)


def test_a_failed_job_gets_another_name_and_at_most_three() -> None:
    ports = world()
    names = [model_id("d1", seed=0, members=4, attempt=attempt) for attempt in range(3)]
    ports.training.jobs[names[0]] = TrainingState("failed", None, "out of memory")
    ports.training.jobs[names[1]] = TrainingState("stopped", None, "MaxRuntimeExceeded")

    third = plan_training(REQUEST, ports)
    ports.training.jobs[names[2]] = TrainingState("failed", None, "out of memory again")
    fourth = plan_training(REQUEST, ports)

    assert (third.body["decision"], third.body["model"]) == ("train", names[2])
    assert (fourth.body["decision"], fourth.body["reason"]) == (
        "skip", "training failed 3 times, the last time with: out of memory again",
    )  # fmt: skip


@pytest.mark.parametrize(
    ("report", "deployment", "decision"),
    [
        (gate_report(MODEL, verdict="reject"), None, "skip"),
        (gate_report(MODEL, verdict="inconclusive"), None, "skip"),
        (gate_report(MODEL), "PROMOTED", "skip"),
        (gate_report(MODEL), "FAILED", "skip"),
        (gate_report(MODEL), "STARTED", "trained"),
        (gate_report(MODEL), None, "trained"),
    ],
)
def test_a_repeat_finishes_what_was_begun_and_nothing_more(report: Any, deployment: str | None, decision: str) -> None:
    ports = world()
    write(ports, layout.model(MODEL), {})
    write(ports, layout.gate_report(MODEL), report)
    if deployment:
        ports.table.items["DEPLOYMENT", MODEL] = {"model": MODEL, "status": deployment}

    assert plan_training(REQUEST, ports).body["decision"] == decision


def test_a_promotion_that_died_half_way_is_finished_although_nothing_is_new() -> None:
    ports = world()
    write(ports, layout.model(MODEL), {})
    write(ports, layout.gate_report(MODEL), gate_report(MODEL))
    write(ports, layout.CHAMPION, {"format": 1, "model": MODEL, "number": 1, "dataset": "d1"})
    ports.table.items["DEPLOYMENT", MODEL] = {"model": MODEL, "status": "STARTED"}

    assert plan_training(REQUEST, ports).body["decision"] == "trained"


def test_a_refused_package_is_not_ordered_again() -> None:
    ports = world()
    write(ports, layout.publish_report(MODEL), {"reason": "pickle"})

    assert "refused by publish_model" in plan_training(REQUEST, ports).body["reason"]


@pytest.mark.parametrize(
    ("held_out", "message"),
    [
        (line("t0", "negative"), r"1 of 4 train records .*t0 by id"),
        (line("e9", "negative", cluster="cluster-t1"), r"1 of 4 train records .*t1 by cluster"),
    ],
)
def test_a_leak_is_refused_before_anything_is_spent(held_out: dict[str, Any], message: str) -> None:
    for role in ("evaluation", "reward"):
        ports = world(**{role: [held_out]})

        with pytest.raises(ConfigError, match=message):
            plan_training(REQUEST, ports)

        assert not ports.journal.of("training")


def test_a_wrong_digest_counts_as_no_dataset() -> None:
    ports = world()
    ports.data.objects[layout.dataset_part("d1", "train")] += b"x"

    with pytest.raises(ConfigError, match="restore the version that was committed"):
        plan_training(REQUEST, ports)


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("kind", "image", "is of kind image"),
        ("classes", ["positive", "negative"], "has classes"),
        ("format", 2, "format 2 is unknown"),
        ("files", {}, "no train part"),
        ("version", "d2", "says it is version d2"),
        ("counts", None, "malformed"),
    ],
)
def test_a_manifest_that_does_not_fit_the_loop_is_refused(key: str, value: Any, message: str) -> None:
    ports = world()
    write(ports, layout.dataset("d1"), {**ports.data.json(layout.dataset("d1")), key: value})

    with pytest.raises(ConfigError, match=message):
        plan_training(REQUEST, ports)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"label": "maybe"}, "'maybe', which is no class"),
        ({"label": None}, "lacks label"),
        ({"text": None}, "lacks text"),
    ],
)
def test_a_line_that_breaks_the_schema_is_refused(change: dict[str, Any], message: str) -> None:
    ports = make_ports(loop=LOOP)
    commit(ports, "d1", train=[*lines("t", ["negative", "positive", "positive"]), {**line("x", "negative"), **change}])

    with pytest.raises(ConfigError, match=message):
        plan_training(REQUEST, ports)


def test_every_fault_leaves_the_plan_of_an_undisturbed_run() -> None:
    expected = world()
    plan_training(REQUEST, expected)

    for what, ports in every_fault(world, lambda ports: plan_training(REQUEST, ports)):
        assert ports.data.objects == expected.data.objects, what


def test_a_missing_part_is_named() -> None:
    ports = world()
    del ports.data.objects[layout.dataset_part("d1", "evaluation")]

    with pytest.raises(ConfigError, match=r"evaluation\.jsonl\.gz of dataset d1 is missing"):
        plan_training(REQUEST, ports)


def test_the_request_is_json() -> None:
    assert json.loads(json.dumps(plan_training(REQUEST, world()).body))["decision"] == "train"


NUMBERS = LOOP + "\ntask: {kind: table, type: regression, columns: {size: number}}"


def numeric(numbers: list[float], *, loop: str = NUMBERS, **manifest: Any) -> Any:
    ports = make_ports(loop=loop)
    parts = {"train": sizes("t", numbers), "evaluation": sizes("e", [7.0])}
    commit(ports, "d1", **{"classes": (), "kind": "table", "task": "regression", **parts, **manifest})
    return ports


def test_a_regression_is_ordered_with_its_columns() -> None:
    ports = numeric([1.0, 2.0, 3.0, 4.0])

    assert plan_training(REQUEST, ports).body["decision"] == "train"

    spec = ports.data.json(layout.training_spec(MODEL))
    assert (spec["task"], spec["kind"], spec["classes"], spec["columns"], spec["positive_class"]) == (
        "regression", "table", [], {"size": "number"}, None,
    )  # fmt: skip


def test_the_class_average_precision_is_about_goes_along() -> None:
    ports = make_ports(loop=LOOP + "\ntask: {rare_classes: [positive]}")
    commit(ports, "d1", train=lines("t", ["negative", "positive"] * 2))

    plan_training(REQUEST, ports)

    assert ports.data.json(layout.training_spec(MODEL))["positive_class"] == "positive"


def test_numbers_that_are_all_the_same_teach_nothing() -> None:
    outcome = plan_training(REQUEST, numeric([3.0] * 5))

    assert outcome.body["reason"] == "every train label is 30.0; there is nothing to tell apart"


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"task": "classification", "classes": ("a", "b"), "train": [], "evaluation": []}, "is for classification"),
        ({"kind": "text"}, "is of kind text"),
        ({"train": [{**sizes("t", [1.0])[0], "label": "12"}]}, "has label '12', which is no number"),
        ({"evaluation": [{**sizes("e", [1.0])[0], "label": float("inf")}]}, "which is no number"),
        ({"train": [{**sizes("t", [1.0])[0], "row": None}]}, "lacks row"),
    ],
)
def test_numbers_that_break_the_contract_are_never_trained_on(change: dict[str, Any], reason: str) -> None:
    ports = numeric([1.0, 2.0, 3.0, 4.0], **change)

    with pytest.raises(ConfigError, match=reason):
        plan_training(REQUEST, ports)

    assert not ports.data.exists(layout.training_spec(MODEL))
