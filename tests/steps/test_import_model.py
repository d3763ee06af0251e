"""A model made elsewhere becomes champion because a person says so, by the same hops as one that was trained here."""

from __future__ import annotations

from typing import Any

import pytest

from tests.builders import card, commit, knowing, lines, uniform, write
from tests.fakes import FakeModel, every_fault, make_ports
from winnow import layout
from winnow.errors import BadModel
from winnow.steps.accounting import CHECKS
from winnow.steps.deploy_challenger import deploy_challenger
from winnow.steps.evaluate_challenger import evaluate_challenger
from winnow.steps.plan_training import plan_training
from winnow.steps.pointers import Champion, champion
from winnow.steps.publish_model import publish_model
from winnow.steps.settle_deployment import settle_deployment

REQUEST = {
    "dataset": "import-theirs", "cause": "import", "by": "ada", "at": "2026-01-05T09:00:00+00:00", "reason": None,
    "masker": "none", "trained_on": "elsewhere",
}  # fmt: skip


def theirs(**fields: Any) -> FakeModel:
    told = {"model": "theirs", "dataset": "elsewhere", **fields}
    made = card(told.pop("model"), **told)
    object.__setattr__(made, "masker", "none")
    return FakeModel(made, knowing("theirs", {}).predict)


def world() -> Any:
    ports = make_ports(loop="task: {classes: [negative, positive]}")
    ports.serving._fake.is_enabled = False
    ports.models.add("bootstrap-text", uniform("bootstrap-text"))
    ports.models.offer(ports.data.uri(layout.training_artifact(ports.stack, "theirs")), theirs())
    return ports


def improve(ports: Any, request: dict[str, Any] = REQUEST) -> dict[str, Any]:
    """The state machine's walk."""
    plan = plan_training(request, ports).body
    if plan["decision"] == "skip":
        return dict(plan)
    told = {"model": plan["model"], "dataset": plan["dataset"]}
    publish_model({**told, "artifact": plan["artifact"]}, ports)
    if evaluate_challenger(told, ports).body["verdict"] == "promote":
        deploy_challenger(told, ports)
        settle_deployment(told, ports)
    return dict(plan)


def test_before_any_champion_an_import_is_crowned_and_says_who_did_it() -> None:
    ports = world()

    improve(ports)

    crowned, _ = champion(ports)
    report = ports.data.json(layout.gate_report("theirs"))
    assert (crowned.model, crowned.number, crowned.dataset, crowned.previous) == ("theirs", 1, None, "bootstrap-text")
    assert report["reasons"][0]["message"] == (
        "imported by ada at 2026-01-05T09:00:00+00:00: no champion was trained yet"
    )
    assert (report["verdict"], report["gate_would_say"], report["look"]) == ("promote", "inconclusive", 0)
    assert report["challenger"] is None
    assert ports.executions.started["rescore", "theirs"] == {"model": "theirs"}
    assert ports.registry.packages["theirs"]["status"] == "Approved"
    assert [found for found in CHECKS["I6"](ports) if isinstance(found, str)] == []


def test_a_trained_champion_is_replaced_only_for_a_reason() -> None:
    ports = world()
    ports.models.add("m1", knowing("m1", {}))
    write(ports, layout.CHAMPION, Champion("m1", number=3, dataset="d1").to_bytes())
    refused = improve(ports)
    assert (refused["decision"], refused["reason"]) == (
        "skip", "m1 is the champion; to replace it takes a reason (--replace)",
    )  # fmt: skip

    improve(ports, {**REQUEST, "reason": "theirs knows the new products"})

    crowned, _ = champion(ports)
    assert (crowned.model, crowned.number, crowned.previous) == ("theirs", 4, "m1")
    assert "theirs knows the new products" in ports.data.json(layout.gate_report("theirs"))["reasons"][0]["message"]


def test_its_figures_are_told_where_an_evaluation_set_is_and_spend_no_look() -> None:
    ports = world()
    held_out = lines("e", ["negative", "positive"] * 30)
    commit(ports, "d1", train=lines("t", ["negative", "positive"]), evaluation=held_out)
    ports.models.offer(
        ports.data.uri(layout.training_artifact(ports.stack, "theirs")),
        FakeModel(theirs().card, knowing("theirs", {line["id"]: line["label"] for line in held_out}).predict),
    )

    improve(ports)

    report = ports.data.json(layout.gate_report("theirs"))
    assert (report["evaluation"]["records"], report["challenger"]["accuracy"]) == (60, 1.0)
    assert ports.table.query("LOOK") == []
    assert plan_training({"dataset": "d1", "cause": "labels"}, ports).body["decision"] in ("train", "skip")


@pytest.mark.parametrize(
    ("fields", "named"),
    [({"classes": ("positive", "negative")}, "classes"), ({"dataset": "another"}, "dataset")],
)
def test_a_model_of_another_task_is_refused_with_the_field_named(fields: dict[str, Any], named: str) -> None:
    ports = world()
    ports.models.offer(ports.data.uri(layout.training_artifact(ports.stack, "theirs")), theirs(**fields))

    with pytest.raises(BadModel, match=f"model.json says {named} is"):
        improve(ports)

    assert champion(ports)[0].is_bootstrap
    assert "was refused by publish_model" in improve(ports)["reason"]


def test_any_accident_on_the_way_ends_with_one_champion() -> None:
    def settled(ports: Any) -> tuple[Any, ...]:
        crowned, _ = champion(ports)
        return (
            crowned.model,
            crowned.number,
            ports.registry.packages["theirs"]["status"],
            ports.data.json(layout.deployment_report("theirs"))["status"],
        )

    for fault, ports in every_fault(world, improve):
        assert settled(ports) == ("theirs", 1, "Approved", "PROMOTED"), fault
