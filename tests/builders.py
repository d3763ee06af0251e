"""Artifacts and models that step tests start from, spelled out once."""

from __future__ import annotations

import gzip
import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from tests.fakes import FakeModel
from winnow import layout
from winnow.models.package import ModelCard, ModelInput, ModelOutputs
from winnow.models.predictions import Predictions
from winnow.privacy.masking import MASKER_VERSION
from winnow.records import to_jsonl

CLASSES = ("negative", "positive")


def line(
    identity: str, label: str, *, arm: str = "active", batch: int = 1, cluster: str | None = None
) -> dict[str, Any]:
    """One line of a dataset part; its text is `text of <id>`."""
    return {
        "id": identity, "cluster": cluster or f"cluster-{identity}", "arm": arm, "batch": batch, "label": label,
        "confidence": 1.0, "text": f"text of {identity}",
    }  # fmt: skip


def lines(prefix: str, labels: Sequence[str], *, arm: str = "active") -> list[dict[str, Any]]:
    """A line a label: ids `<prefix>0`, `<prefix>1`, ..."""
    return [line(f"{prefix}{number}", label, arm=arm) for number, label in enumerate(labels)]


def sizes(prefix: str, numbers: Sequence[float], *, arm: str = "active") -> list[dict[str, Any]]:
    """A line of a table a number: its row holds the number as `size`, and its label is ten times that."""
    return [
        {
            **{k: v for k, v in line(f"{prefix}{n}", "", arm=arm).items() if k != "text"},
            "label": 10 * size,
            "row": {"size": size},
        }
        for n, size in enumerate(numbers)
    ]


def commit(
    ports: Any,
    version: str,
    *,
    train: Sequence[Mapping[str, Any]],
    evaluation: Sequence[Mapping[str, Any]] = (),
    reward: Sequence[Mapping[str, Any]] = (),
    parent: str | None = None,
    batches: Sequence[str] = ("b1",),
    classes: Sequence[str] = CLASSES,
    kind: str = "text",
    task: str = "classification",
    head: bool = True,
) -> str:
    """Write a dataset version, as collect_labels leaves it, without going through the journal."""
    parts = {"train": train, "evaluation": evaluation, "reward": reward}
    files = {}
    for role, rows in parts.items():
        body = gzip.compress(to_jsonl([dict(row) for row in rows]), mtime=0)
        key = layout.dataset_part(version, role)
        ports.data.objects[key] = body
        files[key] = hashlib.sha256(body).hexdigest()
    by_class: dict[str, int] = {}
    for row in train if task == "classification" else ():
        by_class[row["label"]] = by_class.get(row["label"], 0) + 1
    manifest = {
        "format": 1, "version": version, "parent": parent, "batches": list(batches), "held_out": [],
        "counts": {role: len(rows) for role, rows in parts.items()}, "by_class": by_class, "by_arm": {},
        "classes": list(classes), "kind": kind, "files": files,
    }  # fmt: skip
    if task != "classification":
        manifest["task"] = task
    ports.data.objects[layout.dataset(version)] = json.dumps(manifest).encode()
    if head:
        ports.data.objects[layout.HEAD] = json.dumps({"format": 1, "version": version}).encode()
    return version


def card(model: str, *, dataset: str | None = "d1", classes: Sequence[str] = CLASSES, **more: Any) -> ModelCard:
    return ModelCard(
        model=model, kind="text", classes=tuple(classes), inputs=(ModelInput(name="text", kind="text", source="text"),),
        masker=MASKER_VERSION, files={"model.onnx": "0" * 64}, dataset=dataset, **more,
    )  # fmt: skip


def knowing(
    model: str, truth: Mapping[str, str], *, wrong: Sequence[str] = (), sure: float = 0.9, dataset: str | None = "d1"
) -> FakeModel:
    """A model that gives `sure` to the true class of a content id, and to another one for the ids in `wrong`."""
    index = {name: number for number, name in enumerate(CLASSES)}

    def predict(payloads: Sequence[Mapping[str, Any]]) -> Predictions:
        rows = np.full((len(payloads), len(CLASSES)), (1 - sure) / (len(CLASSES) - 1), dtype=np.float32)
        for number, payload in enumerate(payloads):
            identity = payload["text"].removeprefix("text of ")
            rows[number, (index[truth[identity]] + (identity in wrong)) % len(CLASSES)] = sure
        return Predictions(rows, np.zeros((len(payloads), 2), dtype=np.float32))

    return FakeModel(card(model, dataset=dataset), predict)


def estimating(model: str, guess: Callable[[float], float], *, dataset: str | None = "d1") -> FakeModel:
    """A regression that predicts `guess(size)` of a row."""

    def predict(payloads: Sequence[Mapping[str, Any]]) -> Predictions:
        numbers = np.array([guess(payload["row"]["size"]) for payload in payloads], dtype=np.float32)
        empty = np.zeros((len(payloads), 0), dtype=np.float32)
        return Predictions(empty, np.zeros((len(payloads), 2), dtype=np.float32), prediction=numbers)

    made = ModelCard(
        model=model, kind="table", task="regression", classes=(), masker=MASKER_VERSION, files={"model.onnx": "0" * 64},
        inputs=(ModelInput(name="c0", kind="number", source="size"),), dataset=dataset,
        outputs=ModelOutputs(prediction="prediction"),
    )  # fmt: skip
    return FakeModel(made, predict)


def uniform(model: str) -> FakeModel:
    """A bootstrap model: it knows nothing."""

    def predict(payloads: Sequence[Mapping[str, Any]]) -> Predictions:
        share = 1.0 / len(CLASSES)
        return Predictions(
            np.full((len(payloads), len(CLASSES)), share, dtype=np.float32),
            np.zeros((len(payloads), 2), dtype=np.float32),
        )

    return FakeModel(card(model, dataset=None), predict)


def gate_report(
    model: str, *, champion: str = "bootstrap-text", dataset: str = "d1", verdict: str = "promote", low: float = 0.8
) -> dict[str, Any]:
    """A gate report with what deployment, production and health read of it."""
    return {
        "format": 1, "model": model, "champion": champion, "dataset": dataset, "verdict": verdict, "reasons": [], "look": 1,
        "challenger": {"accuracy": 0.9, "low": low, "high": 0.95, "confusion": [[45, 5], [5, 45]]},
    }  # fmt: skip


def write(ports: Any, key: str, body: Any) -> None:
    """Put an artifact without going through the journal."""
    ports.data.objects[key] = body if isinstance(body, bytes) else json.dumps(body).encode()
