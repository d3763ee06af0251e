"""publish_model: a package is published and registered, or refused for good with its reason."""

from __future__ import annotations

from typing import Any

import pytest

from tests.builders import card, commit, estimating, knowing, lines, sizes
from tests.fakes import FakeModel, every_fault, make_ports
from winnow import layout
from winnow.errors import BadModel
from winnow.steps.plan_training import plan_training
from winnow.steps.publish_model import publish_model


def trained(offer: Any = None) -> tuple[Any, dict[str, str]]:
    """A world in which the model of d1 was trained, and the request to publish it."""
    ports = make_ports(loop="training: {min_labels: 2, min_new_labels: 0}")
    commit(ports, "d1", train=lines("t", ["negative", "positive"]))
    model = plan_training({"dataset": "d1", "cause": "labels"}, ports).body["model"]
    artifact = ports.training.complete(model)
    ports.models.offer(artifact, offer or knowing(model, {}))
    return ports, {"model": model, "artifact": artifact}


def test_a_good_package_is_published_and_registered_pending() -> None:
    ports, request = trained()
    model = request["model"]

    outcome = publish_model(request, ports)

    assert outcome.body == {"model": model}
    assert model in ports.models.models
    package = ports.registry.packages[model]
    assert package["status"] == "PendingManualApproval"
    assert package["report_key"] == layout.gate_report(model)
    assert package["properties"]["dataset"] == "d1"
    assert [metric.name for metric in outcome.metrics] == ["ModelsPublished"]


def test_a_broken_package_is_refused_with_its_reason() -> None:
    ports, request = trained(BadModel("model.onnx has another sha256", code="digest"))

    with pytest.raises(BadModel, match="another sha256"):
        publish_model(request, ports)

    report = ports.data.json(layout.publish_report(request["model"]))
    assert (report["code"], report["reason"]) == ("digest", "model.onnx has another sha256")
    assert not ports.registry.packages


@pytest.mark.parametrize(
    "wrong", [{"classes": ("negative", "positive", "neutral")}, {"dataset": "d9"}, {"model": "other"}]
)
def test_another_model_than_the_one_ordered_is_refused(wrong: dict[str, Any]) -> None:
    ports, request = trained()
    fake = FakeModel(card(**{"model": request["model"], **wrong}), lambda payloads: None)  # type: ignore[arg-type]
    ports.models.offer(request["artifact"], fake)

    with pytest.raises(BadModel, match=f"model.json says {next(iter(wrong))} is"):
        publish_model(request, ports)

    assert ports.data.json(layout.publish_report(request["model"]))["code"] == "other-model"


def test_every_fault_ends_in_one_published_and_registered_package() -> None:
    requests: list[dict[str, str]] = []

    def build() -> Any:
        ports, request = trained()
        requests.append(request)
        return ports

    for what, ports in every_fault(build, lambda ports: publish_model(requests[-1], ports)):
        assert list(ports.models.models) == list(ports.registry.packages) == [requests[-1]["model"]], what


def test_a_model_of_another_task_is_not_the_one_that_was_ordered() -> None:
    ports, request = trained(estimating("m", lambda size: size))

    with pytest.raises(BadModel, match=r"says (model|task|kind) is"):
        publish_model(request, ports)

    assert not ports.registry.packages


def test_a_regression_is_published_as_it_was_ordered() -> None:
    ports = make_ports(loop="task: {kind: table, type: regression}\ntraining: {min_labels: 2, min_new_labels: 0}")
    commit(ports, "d1", train=sizes("t", [1.0, 2.0]), classes=(), kind="table", task="regression")
    model = plan_training({"dataset": "d1", "cause": "labels"}, ports).body["model"]
    artifact = ports.training.complete(model)
    ports.models.offer(artifact, estimating(model, lambda size: size))

    assert publish_model({"model": model, "artifact": artifact}, ports).body == {"model": model}

    assert ports.registry.packages[model]["properties"]["kind"] == "table"
