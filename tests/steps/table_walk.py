"""Small worlds of tables: flats whose price people know, a model that knows nothing, and one that learned something."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from tests.fakes import FakeModel, make_ports
from winnow import layout
from winnow.aws.groundtruth import consolidated, consolidation_payload
from winnow.labels.numbers import number
from winnow.models.package import ModelCard, ModelInput, ModelOutputs
from winnow.models.predictions import Predictions
from winnow.ports import Answer, LabelingOutcome
from winnow.privacy.masking import MASKER_VERSION
from winnow.records import from_jsonl
from winnow.steps.batches import read_plan
from winnow.steps.collect_labels import collect_labels
from winnow.steps.consolidate_annotations import consolidate_annotations
from winnow.steps.deploy_challenger import deploy_challenger
from winnow.steps.evaluate_challenger import evaluate_challenger
from winnow.steps.plan_training import plan_training
from winnow.steps.publish_model import publish_model
from winnow.steps.select_batch import SelectRequest, select_batch
from winnow.steps.settle_deployment import settle_deployment

_SHARED = """
batches: {size: 48, min_size: 2}
acquisition: {near_duplicate_distance: 0.0, arms: {control: 0.25, evaluation_target: 40, evaluation_share: 0.25}}
gate: {min_records: 10}
training: {min_labels: 10, min_new_labels: 2}
budget: {total_usd: 1000, price_per_answer_usd: "0.10"}
"""
CLASSES = "task: {kind: table, classes: [cheap, dear], rare_classes: [dear]}" + _SHARED
NUMBERS = "task: {kind: table, type: regression, unit: EUR, minimum: 0, maximum: 100000}" + _SHARED

Row = Mapping[str, Any]


def flat(n: int) -> dict[str, Any]:
    """The n-th flat; every one differs in its size, the heating of a third of them is not known."""
    heating = ("gas", "wood", None)[n % 3]
    return {"city": f"city {n % 4}", "rooms": 1 + n % 5, "m2": 30.5 + n, "heating": heating}


def flats(count: int) -> bytes:
    return "".join(json.dumps(flat(n)) + "\n" for n in range(count)).encode()


def price(row: Row) -> float:
    """What a flat really costs."""
    return float(20 * row["m2"] + 150 * row["rooms"])


def dear(row: Row) -> str:
    return "dear" if price(row) > 2000 else "cheap"


def embedding(rows: Sequence[Row]) -> np.ndarray[Any, np.dtype[np.float32]]:
    return np.array(
        [[row["m2"] / 200, row["rooms"] / 5, *(float(row["city"] == f"city {n}") for n in range(4))] for row in rows],
        dtype=np.float32,
    )


def card(model: str, *, dataset: str | None, regression: bool) -> ModelCard:
    return ModelCard(
        model=model, kind="table", task="regression" if regression else "classification",
        classes=() if regression else ("cheap", "dear"), masker=MASKER_VERSION, files={"model.onnx": "0" * 64},
        inputs=(ModelInput(name="c0", kind="number", source="m2"),), dataset=dataset,
        outputs=ModelOutputs(prediction="prediction" if regression else None),
    )  # fmt: skip


def numbers(model: str, guess: Callable[[Row], float], *, dataset: str | None, doubt: float = 0.0) -> FakeModel:
    """A regression whose two members differ by `doubt` times the number of rooms on either side of its guess."""

    def predict(payloads: Sequence[Mapping[str, Any]]) -> Predictions:
        rows = [payload["row"] for payload in payloads]
        found = np.array([guess(row) for row in rows], dtype=np.float32)
        apart = np.array([doubt * row["rooms"] for row in rows], dtype=np.float32)
        members = np.column_stack([found - apart, found + apart]) if doubt else None
        return Predictions(np.zeros((len(rows), 0), np.float32), embedding(rows), members, found)

    return FakeModel(card(model, dataset=dataset, regression=True), predict)


def classes(model: str, probability: Callable[[Row], float], *, dataset: str | None) -> FakeModel:
    """A classification that gives `dear` this probability."""

    def predict(payloads: Sequence[Mapping[str, Any]]) -> Predictions:
        rows = [payload["row"] for payload in payloads]
        found = np.array([probability(row) for row in rows], dtype=np.float32)
        return Predictions(np.column_stack([1 - found, found]), embedding(rows))

    return FakeModel(card(model, dataset=dataset, regression=False), predict)


@dataclass(frozen=True)
class World:
    """A loop over flats; `answer(row, worker)` is what the annotator number `worker` writes or chooses."""

    ports: Any
    answer: Callable[[Row, int], str]

    def asked(self, batch: str) -> dict[str, Row]:
        """The rows of a batch's manifest by id."""
        lines = from_jsonl(self.ports.data.objects[layout.manifest(batch)])
        return {line["candidate_id"]: json.loads(line["source"]) for line in lines}


def world(loop: str, answer: Callable[[Row, int], str]) -> World:
    ports = make_ports(loop=loop)
    if ports.loop.task.type == "regression":
        ports.models.add("bootstrap-table", numbers("bootstrap-table", lambda row: 0.0, dataset=None))
    else:
        ports.models.add("bootstrap-table", classes("bootstrap-table", lambda row: 0.5, dataset=None))
    return World(ports, answer)


def label_batch(here: World, *, workers: int = 3) -> tuple[str, dict[str, Any]]:
    """Select a batch, let people answer it as Ground Truth would carry it, and collect it."""
    ports = here.ports
    batch = str(select_batch(SelectRequest(), ports).body["batch"])
    given = {
        item: [(f"w{worker}", here.answer(row, worker)) for worker in range(workers)]
        for item, row in here.asked(batch).items()
    }
    results = through_ground_truth(ports, given)
    answers = {
        item: [Answer(worker, said, 8.0, "2026-01-05T10:00:00Z") for worker, said in each]
        for item, each in given.items()
    }
    ports.labeling.outcomes[batch] = LabelingOutcome(
        "completed", len(results), len(given), results=results, answers=answers
    )
    return batch, dict(collect_labels(batch, ports).body)


def through_ground_truth(ports: Any, given: Mapping[str, Sequence[tuple[str, str]]]) -> dict[str, dict[str, Any]]:
    """What consolidation makes of typed or chosen answers, in the shapes of Ground Truth's payloads."""
    typed = ports.loop.task.type == "regression"
    payload = [
        {
            "datasetObjectId": item,
            "dataObject": {"content": "{}"},
            "annotations": [
                {
                    "workerId": worker,
                    "annotationData": {"content": json.dumps({"answer": said if typed else {"label": said}})},
                }
                for worker, said in answers
            ],
        }
        for item, answers in given.items()
    ]
    outcome = consolidate_annotations(consolidation_payload(json.dumps(payload).encode()), ports)
    found = {}
    for one in consolidated(outcome.body["labels"], attribute="label"):
        metadata = one["consolidatedAnnotation"]["content"]["label-metadata"]
        label = number(metadata["number"]) if typed else metadata["class-name"]
        found[one["datasetObjectId"]] = {"label": label, "confidence": metadata["confidence"]}
    return found


def improve(here: World, dataset: str, model: Callable[[str], FakeModel]) -> dict[str, Any]:
    """Plan, train, publish and judge a challenger; deploy and settle it when the gate says so. Returns the gate's report."""
    ports = here.ports
    planned = plan_training({"dataset": dataset, "cause": "labels"}, ports).body
    assert planned["decision"] == "train", planned
    name = str(planned["model"])
    artifact = ports.training.complete(name)
    ports.models.offer(artifact, model(name))
    publish_model({"model": name, "artifact": artifact}, ports)
    card_body = {"model": name, "dataset": dataset}
    ports.data.objects[layout.model(name)] = json.dumps(card_body).encode()
    verdict = evaluate_challenger({"model": name, "dataset": dataset}, ports).body["verdict"]
    if verdict == "promote":
        deploy_challenger({"model": name, "dataset": dataset}, ports)
        ports.serving.finish()
        assert settle_deployment({"model": name}, ports).body["status"] == "PROMOTED"
    return dict(ports.data.json(layout.gate_report(name)))


def arms_of(here: World, batch: str) -> dict[str, list[Any]]:
    found: dict[str, list[Any]] = {}
    for choice in read_plan(batch, here.ports).choices:
        found.setdefault(choice.arm, []).append(choice)
    return found
