"""Decides whether a dataset version is worth a training, and checks everything before money is spent on it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from winnow import layout
from winnow.datasets.leaks import Member, leaks
from winnow.digests import short_id
from winnow.errors import ConfigError, Retryable
from winnow.metrics import Metric
from winnow.models.package import ANY_MASKER, UNMASKED
from winnow.ports import Ports
from winnow.privacy.masking import MASKER_VERSION
from winnow.steps import Outcome, labeled, pointers, vectors
from winnow.steps.documents import document
from winnow.steps.labeled import Dataset

ATTEMPTS = 3
"""Training jobs a dataset version gets: a name cannot be used again, and what failed three times is not bad luck."""

JsonDict = dict[str, Any]


def plan_training(request: Mapping[str, Any], ports: Ports) -> Outcome:
    """`{"dataset", "cause"}` → what `improve` does next.

    The body holds `decision` (`train`: start the job of `request`; `trained`: its `artifact` is there already; `skip`, with
    the `reason`), `model` and `dataset`. The same dataset, seed and committee size always give the same model id. What was
    begun is finished whatever the policy says now; only a new training must be worth its money.

    `{"dataset": "import-<model>", "cause", "by", "at", "reason", "masker", "trained_on"}` asks for an imported model, whose
    archive lies where a training job would have left it.

    Raises ConfigError when the version breaks its contract, Retryable while the model's job runs.
    """
    version = str(request["dataset"])
    imported = layout.imported_model(version)
    if imported is not None:
        return _plan_import(imported, request, ports)
    dataset = labeled.load(ports.data, version)
    train = _checked(dataset, ports)
    failure: str | None = None
    for attempt in range(ATTEMPTS):
        model = model_of(version, ports, attempt=attempt)
        reason = _settled(model, ports)
        if reason:
            return _skip(version, reason, model=model)
        artifact = ports.data.uri(layout.training_artifact(ports.stack, model))
        if ports.data.exists(layout.model(model)):
            return _go(version, model, artifact=artifact)
        state = ports.training.describe(model)
        if state is None:
            reason = _not_worth_it(train, ports)
            if reason:
                return _skip(version, reason)
            _write_spec(dataset, train, model, ports)
            body = ports.training.request(model, dataset=version, seed=ports.loop.training.seed)
            return _go(version, model, request=body)
        if state.status == "running":
            raise Retryable(f"the training job of {model} is running; its execution goes on when it has ended")
        if state.status == "completed":
            return _go(version, model, artifact=state.artifact or artifact)
        failure = state.failure or state.status
    return _skip(version, f"training failed {ATTEMPTS} times, the last time with: {failure}")


def model_of(dataset: str, ports: Ports, *, attempt: int = 0) -> str:
    """Name of the model that this dataset gives under the loop's settings."""
    policy = ports.loop.training
    return model_id(dataset, seed=policy.seed, members=policy.members, attempt=attempt, encoder=policy.encoder)


def model_id(dataset: str, *, seed: int, members: int, attempt: int = 0, encoder: str | None = None) -> str:
    """Name of the model that this dataset and these settings give.

    >>> model_id("d1", seed=0, members=4)
    'm42ee0d9ff9edec85b28'
    """
    on_top = {} if encoder is None else {"encoder": encoder}
    return short_id("m", {"dataset": dataset, "seed": seed, "members": members, "attempt": attempt, **on_top})


def _plan_import(model: str, request: Mapping[str, Any], ports: Ports) -> Outcome:
    version, key = str(request["dataset"]), layout.training_spec(model)
    masker = request["masker"] if request.get("masker") in (UNMASKED, ANY_MASKER) else _masker(ports)
    spec = _spec(model, dataset=request.get("trained_on"), masker=masker, encoder=None, ports=ports)
    spec["imported"] = {name: request.get(name) for name in ("by", "at", "reason")}
    if ports.data.exists(key):
        spec = document(ports.data, key)
    if "imported" not in spec:
        return _skip(version, f"a model {model} was trained here; import yours under another id", model=model)
    reason = _settled(model, ports)
    if reason:
        return _skip(version, reason, model=model)
    champion, _ = pointers.champion(ports)
    if not champion.is_bootstrap and champion.model != model and not spec["imported"]["reason"]:
        return _skip(
            version, f"{champion.model} is the champion; to replace it takes a reason (--replace)", model=model
        )
    ports.data.put_new(key, json.dumps(spec, indent=1, ensure_ascii=False).encode())
    return _go(version, model, artifact=ports.data.uri(layout.training_artifact(ports.stack, model)))


def _checked(dataset: Dataset, ports: Ports) -> list[JsonDict]:
    """The train part, after every check that can be made without spending anything."""
    task = ports.loop.task
    if dataset.kind != task.kind:
        raise ConfigError(f"dataset {dataset.version} is of kind {dataset.kind}, task.kind is {task.kind}")
    if dataset.task != task.type:
        raise ConfigError(
            f"dataset {dataset.version} is for {dataset.task}, task.type is {task.type}; a change of it needs a new stack"
        )
    if dataset.classes != task.classes:
        raise ConfigError(
            f"dataset {dataset.version} has classes {list(dataset.classes)}, task.classes is {list(task.classes)}; "
            "a change of classes needs a new stack"
        )
    if layout.dataset_part(dataset.version, "train") not in dataset.files:
        raise ConfigError(f"dataset {dataset.version} has no train part; collect the batch again")
    train = labeled.part(ports.data, dataset, "train")
    held_out = labeled.part(ports.data, dataset, "evaluation") + labeled.part(ports.data, dataset, "reward")
    for line in (*train, *held_out):
        _check_line(line, dataset)
    found = leaks(_members(train), _members(held_out))
    if found:
        raise ConfigError(
            f"dataset {dataset.version}: {len(found)} of {len(train)} train records are, or nearly are, records that models "
            f"are judged on (the first: {found[0].train} by {found[0].by}); nothing is trained on it"
        )
    return train


def _check_line(line: Mapping[str, Any], dataset: Dataset) -> None:
    fields = ("id", "cluster", "arm", "batch", "label", labeled.PAYLOADS[dataset.kind])
    missing = [name for name in fields if line.get(name) is None]
    if missing:
        raise ConfigError(f"dataset {dataset.version}: record {line.get('id')!r} lacks {', '.join(missing)}")
    labeled.truth(line, dataset)


def _members(lines: Sequence[Mapping[str, Any]]) -> list[Member]:
    return [Member(str(line["id"]), str(line["cluster"])) for line in lines]


def _not_worth_it(train: Sequence[Mapping[str, Any]], ports: Ports) -> str | None:
    policy = ports.loop.training
    if len(train) < policy.min_labels:
        return f"{len(train)} train labels, training.min_labels asks for {policy.min_labels}"
    labels = {line["label"] for line in train}
    if len(labels) < 2:
        return f"every train label is {labels.pop()!r}; there is nothing to tell apart"
    judged = _last_judged(ports)
    known = labeled.labels(ports.data, labeled.load(ports.data, judged), "train") if judged else {}
    # A label that people corrected is news as well.
    new = sum(known.get(line["id"]) != line["label"] for line in train)
    if new < policy.min_new_labels:
        return (
            f"{new} new train labels since the last challenger, "
            f"training.min_new_labels asks for {policy.min_new_labels}"
        )
    return None


def _last_judged(ports: Ports) -> str | None:
    """The dataset of the newest challenger the gate looked at, else the champion's.

    A few labels more than that teach little, and another look at the evaluation set would be spent on them.
    """
    looks = ports.table.query("LOOK")
    judged = looks[-1]["dataset"] if looks else pointers.champion(ports)[0].dataset
    return judged if judged and ports.data.exists(layout.dataset(judged)) else None


def _settled(model: str, ports: Ports) -> str | None:
    """Why nothing is left to do for this model, or None."""
    if ports.data.exists(layout.publish_report(model)):
        return f"model {model} was refused by publish_model; see {layout.publish_report(model)}"
    if not ports.data.exists(layout.gate_report(model)):
        return None
    verdict = document(ports.data, layout.gate_report(model))["verdict"]
    if verdict != "promote":
        return f"the gate said {verdict} about model {model}"
    deployment = ports.table.get("DEPLOYMENT", model)
    if deployment and deployment["status"] in ("PROMOTED", "FAILED", "STALE"):
        return f"the deployment of model {model} ended as {deployment['status']}"
    return None


def _masker(ports: Ports) -> str:
    return MASKER_VERSION if ports.loop.privacy.mask else UNMASKED


def _spec(model: str, *, dataset: str | None, masker: str, encoder: str | None, ports: Ports) -> JsonDict:
    policy, task = ports.loop.training, ports.loop.task
    return {
        "format": 1, "model": model, "task": task.type, "kind": task.kind, "classes": list(task.classes),
        "columns": dict(task.columns), "positive_class": task.positive_class, "masker": masker, "dataset": dataset,
        "seed": policy.seed, "members": policy.members, "encoder": encoder,
    }  # fmt: skip


def _write_spec(dataset: Dataset, train: Sequence[Mapping[str, Any]], model: str, ports: Ports) -> None:
    encoder = vectors.configured(ports)
    if encoder is not None:
        if encoder.reads != dataset.kind:
            name = ports.loop.training.encoder
            raise ConfigError(f"training.encoder {name!r} reads {encoder.reads}, task.kind is {dataset.kind}")
        known = vectors.gathered(encoder.digest, dataset.version, ports)
        found = {str(line["id"]): known[line["id"]] for line in train if line["id"] in known}
        ports.data.put(layout.training_vectors(model), vectors.pack(found))
    named = None if encoder is None else encoder.digest
    spec = _spec(model, dataset=dataset.version, masker=_masker(ports), encoder=named, ports=ports)
    ports.data.put(layout.training_spec(model), json.dumps(spec, indent=1, ensure_ascii=False).encode())


def _go(version: str, model: str, *, request: JsonDict | None = None, artifact: str | None = None) -> Outcome:
    decision = "train" if request is not None else "trained"
    return _planned(decision, version, model=model, request=request, artifact=artifact)


def _skip(version: str, reason: str, *, model: str | None = None) -> Outcome:
    return _planned("skip", version, model=model, reason=reason)


def _planned(
    decision: str,
    version: str,
    *,
    model: str | None = None,
    reason: str | None = None,
    request: JsonDict | None = None,
    artifact: str | None = None,
) -> Outcome:
    body = {
        "decision": decision, "reason": reason, "model": model, "dataset": version, "request": request, "artifact": artifact,
    }  # fmt: skip
    return Outcome(body, (Metric("TrainingPlanned", 1, {"Decision": decision}),))
