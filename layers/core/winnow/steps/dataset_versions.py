"""Dataset versions: every believed label with its payload, immutable, in one line that ends at the head.

A version is its parent's lines and one batch more, less what is held out. A batch is a labeling batch or an import.
"""

from __future__ import annotations

import base64
import gzip
import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from winnow import layout
from winnow.datasets.roles import lowest, uniform_key
from winnow.datasets.versions import counts, next_version, ordered
from winnow.errors import Conflict, NotFound, Retryable
from winnow.ports import Ports
from winnow.privacy.masking import MASKER_VERSION
from winnow.records import SYNTHETIC, Label, Record, from_jsonl, to_jsonl
from winnow.steps import pointers
from winnow.steps.batches import guideline_version
from winnow.steps.candidates import indexed
from winnow.steps.documents import document
from winnow.steps.pointers import head

ROLES = ("train", "evaluation", "reward")


def commit(batch: str, labels: Sequence[Label], records: Callable[[], Mapping[str, Record]], ports: Ports) -> str:
    """The dataset version that holds this batch: parts first, then its description, then the head by compare-and-set.

    `records` gives the contents of the labels that are believed, by id; it is asked only when they are not in yet.
    """
    for _ in range(8):
        parent, tag = head(ports.data)
        previous = document(ports.data, layout.dataset(parent)) if parent else None
        if previous and batch in previous["batches"]:
            return str(parent)
        version = _write_version(batch, labels, records, previous, ports)
        try:
            ports.data.replace(layout.HEAD, json.dumps({"format": 1, "version": version}).encode(), tag=tag)
        except Conflict:
            continue  # another batch was collected at the same moment: build on its version
        return version
    raise Retryable("the dataset head keeps moving; collect again")


def _write_version(
    batch: str,
    labels: Sequence[Label],
    records: Callable[[], Mapping[str, Record]],
    previous: Mapping[str, Any] | None,
    ports: Ports,
) -> str:
    batches = [*(previous["batches"] if previous else ()), batch]
    held = _held_out(previous, ports) if previous else []
    refused = {entry["batch"] for entry in held}
    entries = {entry["id"]: entry for entry in _previous_entries(previous, ports)}
    for entry in _entries(len(batches), labels, records(), ports):
        before = entries.get(entry["id"], entry)
        # A later import takes the place of an earlier one, and people's labels that of either.
        if entry["arm"] != "imported" or before["arm"] == "imported":
            entries[entry["id"]] = _rechecked(entry, before) if entry["arm"] == "recheck" else entry
    kept = [entry for entry in entries.values() if batches[entry["batch"] - 1] not in refused]
    outside = _outside_the_sample(kept, ports)
    kept = [entry for entry in kept if entry["id"] not in outside]
    removed = [] if ports.loop.training.synthetic else [entry["id"] for entry in kept if entry["arm"] == SYNTHETIC]
    kept = [entry for entry in kept if entry["id"] not in removed]
    # Whatever decides what a version holds is in its name, so that two writers of one name write the same.
    sampled = [entry["id"] for entry in kept if entry["arm"] == "imported" and entry["role"] == "evaluation"]
    decisive = [batch, *sorted(refused), *sorted(sampled), *sorted(removed)]
    version = next_version(previous["version"] if previous else None, decisive)
    files: dict[str, str] = {}
    sizes: dict[str, int] = {}
    for role in ROLES:
        lines = [
            {name: value for name, value in entry.items() if name != "role"} for entry in kept if entry["role"] == role
        ]
        body = gzip.compress(to_jsonl(list(ordered(lines))), 6, mtime=0)
        ports.data.put(layout.dataset_part(version, role), body)
        files[layout.dataset_part(version, role)] = hashlib.sha256(body).hexdigest()
        sizes[role] = len(lines)
    task = ports.loop.task
    # A count of each number would say nothing, and could be as long as the dataset.
    train = counts(
        [entry for entry in kept if entry["role"] == "train"],
        by=("arm",) if task.type == "regression" else ("label", "arm"),
    )
    description = {
        "format": 1, "version": version, "parent": previous["version"] if previous else None, "batches": batches,
        "held_out": held, "masker": MASKER_VERSION, "counts": sizes, "by_class": train.get("label", {}), "by_arm": train["arm"],
        "classes": list(task.classes), "kind": task.kind, "task": task.type, "files": files,
        "guideline": guideline_version(ports.loop),
    }  # fmt: skip
    ports.data.put(layout.dataset(version), json.dumps(description, indent=1, ensure_ascii=False).encode())
    for entry in held:
        _quarantine_batch(entry, ports)
    for identity in sorted(outside):  # people may be asked about them
        ports.table.delete(layout.RESERVATION, identity, expected={"batch": batches[entries[identity]["batch"] - 1]})
    return version


def _rechecked(entry: dict[str, Any], before: Mapping[str, Any]) -> dict[str, Any]:
    """A label that was asked again, in the arm that chose its record: arms are compared by records they chose.

    An imported record stays in arm `recheck`: people confirmed its label, and no later import may change it.
    """
    return {**entry, "arm": entry["arm"] if before["arm"] == "imported" else before["arm"]}


def _outside_the_sample(entries: Sequence[Mapping[str, Any]], ports: Ports) -> set[str]:
    """Ids of imported labels that models may not be judged on.

    The evaluation set is the lowest uniform keys of the pool, whoever labels them; a seed set is no sample of the pool.
    As the pool grows, ever fewer of an imported set are. Strategies are compared on what was drawn here, and on no import.
    """
    imported = [entry for entry in entries if entry["arm"] == "imported" and entry["role"] != "train"]
    if not imported:
        return set()
    judged = {str(entry["id"]): _key(entry, ports) for entry in entries if entry["role"] == "evaluation"}
    bound = evaluation_bound(judged, ports)
    return {str(entry["id"]) for entry in imported if entry["role"] != "evaluation" or judged[str(entry["id"])] > bound}


def _key(entry: Mapping[str, Any], ports: Ports) -> float:
    return uniform_key(str(entry["cluster"]), salt=ports.loop.privacy.salt)


def evaluation_bound(known: Mapping[str, float], ports: Ports) -> float:
    """The uniform key up to which the pool's evaluation records are its sample, as far as they have been indexed.

    `known` are further evaluation records, id → uniform key.
    """
    champion, _ = pointers.champion(ports)
    rows = indexed(champion.model, {item["sk"] for item in ports.table.query("SUPERSEDED")}, ports)
    keys = dict(known)
    if rows is not None:
        sampled = rows.role == "evaluation"
        keys |= dict(zip(rows.id[sampled].tolist(), rows.key[sampled].tolist(), strict=True))
    return lowest(keys.values(), ports.loop.acquisition.arms.evaluation_target)


def _previous_entries(previous: Mapping[str, Any] | None, ports: Ports) -> list[dict[str, Any]]:
    return [] if previous is None else lines(previous["version"], ports)


def lines(version: str, ports: Ports) -> list[dict[str, Any]]:
    """Every line of a version, each with its `role`."""
    return [
        {**entry, "role": role}
        for role in ROLES
        for entry in from_jsonl(gzip.decompress(ports.data.get(layout.dataset_part(version, role))))
    ]


def _entries(number: int, labels: Sequence[Label], records: Mapping[str, Record], ports: Ports) -> list[dict[str, Any]]:
    """Dataset lines of a batch's believed labels, payload included, so that training reads one file."""
    entries = []
    for label in labels:
        if label.status != "labeled":
            continue
        record = records[label.id]
        payload = record.payload()
        if record.image is not None and record.image.png is None:
            payload["image"]["png"] = base64.b64encode(ports.data.get(record.image.ref)).decode("ascii")
        entries.append(
            {
                "id": label.id, "cluster": label.cluster, "arm": label.arm, "batch": number, "label": label.label,
                "confidence": label.confidence, "role": label.role, **payload,
            }
        )  # fmt: skip
    return entries


def _held_out(previous: Mapping[str, Any], ports: Ports) -> list[dict[str, str]]:
    """Batches whose labels made a challenger significantly worse: out of every later version, with the reason.

    A rejected challenger differs from the champion it was compared with by the batches it alone was trained on; until
    somebody looks at them they are not believed. Batches of a challenger that passed are no suspects, even where its
    rollout failed: the gate saw what they teach.
    """
    held: dict[str, str] = {entry["batch"]: entry["reason"] for entry in previous["held_out"]}
    reports = list(_gate_reports(ports))
    passed = {
        batch for report in reports if report["verdict"] == "promote" for batch in _believed(report["dataset"], ports)
    }
    for report in reports:
        if report["verdict"] != "reject":
            continue
        trained = document(ports.data, layout.dataset(report["dataset"]))
        before = _champion_batches(report["champion"], ports) | passed
        for batch in trained["batches"]:
            if batch in previous["batches"] and batch not in before and batch not in held:
                held[batch] = (
                    f"the gate rejected {report['model']}, which was trained on it: {'; '.join(_reasons(report))}"
                )
    return [{"batch": batch, "reason": reason} for batch, reason in held.items()]


def _gate_reports(ports: Ports) -> Iterator[dict[str, Any]]:
    for look in ports.table.query("LOOK"):
        try:
            yield document(ports.data, layout.gate_report(look["model"]))
        except NotFound:
            continue  # a gate that is still at work: its look is written first


def _reasons(report: Mapping[str, Any]) -> list[str]:
    return [str(reason["message"]) if isinstance(reason, dict) else str(reason) for reason in report["reasons"]]


def _champion_batches(model: str, ports: Ports) -> set[str]:
    """Batches a champion was trained on; none for the bootstrap model."""
    if model.startswith(layout.BOOTSTRAP):
        return set()
    dataset = json.loads(ports.data.get(layout.model(model)))["dataset"]
    # A model that was imported learned from no dataset of this stack.
    known = dataset is not None and ports.data.exists(layout.dataset(dataset))
    return _believed(dataset, ports) if known else set()


def _believed(version: str, ports: Ports) -> set[str]:
    """Batches whose labels are in a dataset version."""
    dataset = document(ports.data, layout.dataset(version))
    return set(dataset["batches"]) - {entry["batch"] for entry in dataset["held_out"]}


def _quarantine_batch(entry: Mapping[str, str], ports: Ports) -> None:
    """Account for the annotations of a held-out batch and let its contents be asked again."""
    key = layout.quarantine(f"labels-{entry['batch']}")
    labels = [Label.from_json(body) for body in from_jsonl(ports.data.get(layout.labels(entry["batch"])))]
    # An import's labels may also stand in the batches that it restored.
    labels = [label for label in labels if label.batch == entry["batch"]]
    lines = [
        {"id": label.id, "batch": label.batch, "reason": entry["reason"]}
        for label in labels
        if label.status == "labeled"
    ]
    ports.data.put(key, to_jsonl(lines))
    for label in labels:
        if label.status == "labeled":
            ports.table.delete(layout.RESERVATION, label.id, expected={"batch": label.batch})
