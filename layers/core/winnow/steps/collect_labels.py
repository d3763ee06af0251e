"""Hop 7: a labeling job ended. Its answers become labels, its disputes go to experts, and a new dataset version is born.

Order of writes: labels (immutable, derived from the job's output), the dispute batch, annotator statistics, reservations,
the dataset's parts and then its head, the `improve` execution, and last the batch's status.
"""

from __future__ import annotations

import base64
import gzip
import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from datetime import datetime
from decimal import Decimal
from typing import Any

import numpy as np

from winnow import layout
from winnow.datasets.versions import counts, next_version, ordered
from winnow.digests import short_id
from winnow.errors import BadInput, BudgetExceeded, Conflict, NotFound, Retryable
from winnow.labels.agreement import interval_alpha, krippendorff_alpha
from winnow.labels.annotators import AnnotatorStatistics, numeric_statistics, statistics, suspects
from winnow.labels.answers import Answers
from winnow.labels.consensus import Consensus
from winnow.labels.numbers import NumericAnswers, agree, number
from winnow.labels.numeric_consensus import NumericConsensus
from winnow.loop import Task
from winnow.metrics import Metric
from winnow.ports import Answer, LabelingOutcome, Ports
from winnow.privacy.masking import MASKER_VERSION
from winnow.records import Label, from_jsonl, to_jsonl
from winnow.steps import Outcome
from winnow.steps.batches import Choice, Plan, guideline_version, mark, open_batch, payloads, price, read_plan
from winnow.steps.pointers import head

ROLES = ("train", "evaluation", "reward")


def collect_labels(batch: str, ports: Ports) -> Outcome:
    """Collect the labels of a batch whose job ended. A job that still runs, or a batch collected before, changes nothing."""
    item = ports.table.get("BATCH", batch)
    if item is None:
        return Outcome({"batch": batch, "skipped": "no such batch"})
    if item["status"] == "collected":
        return Outcome({"batch": batch, "skipped": "collected before"})
    outcome = ports.labeling.outcome(batch)
    if outcome.status == "running":
        return Outcome({"batch": batch, "skipped": "the job still runs"})
    plan = read_plan(batch, ports)
    labels = _labels(plan, item, outcome, ports)
    annotators = _annotators(batch, labels, ports)
    _settle_reservations(plan, labels, ports)
    version = _commit(batch, labels, ports)
    ports.executions.start("improve", version, {"dataset": version, "cause": "labels"})
    mark(batch, "collected", ports)
    body = {"batch": batch, "dataset": version, **{status: _count(labels, status) for status in _STATUSES}}
    return Outcome(body, (*_metrics(plan, labels, version, ports), *annotators))


_STATUSES = ("labeled", "disputed", "expired", "quarantined")


def _count(labels: Sequence[Label], status: str) -> int:
    return sum(label.status == status for label in labels)


def _labels(plan: Plan, item: Mapping[str, Any], outcome: LabelingOutcome, ports: Ports) -> list[Label]:
    """The batch's labels, as an earlier run wrote them or decided now."""
    key = layout.labels(plan.batch)
    try:
        return [Label.from_json(body) for body in from_jsonl(ports.data.get(key))]
    except NotFound:
        pass
    asked = {str(line["candidate_id"]) for line in from_jsonl(ports.data.get(layout.manifest(plan.batch)))}
    labels = [
        _judge(choice, plan, outcome, ports) if choice.id in asked else _elsewhere(choice, plan, ports)
        for choice in plan.choices
    ]
    disputed = [label.id for label in labels if label.status == "disputed"]
    if disputed:
        refusal = _ask_experts(plan, disputed, ports)
        if refusal is not None:
            labels = [
                replace(label, status="quarantined", reason=refusal) if label.status == "disputed" else label
                for label in labels
            ]
    ports.data.put_new(key, to_jsonl([label.to_json() for label in labels]))
    return [Label.from_json(body) for body in from_jsonl(ports.data.get(key))]


def _label(choice: Choice, plan: Plan, ports: Ports, **judged: Any) -> Label:
    return Label(
        id=choice.id, batch=plan.batch, arm=choice.arm, strategy=choice.strategy, score=choice.score, rank=choice.rank,
        model=plan.model, job=plan.batch, guideline=guideline_version(ports.loop), cluster=choice.cluster,
        role=choice.role, **judged,
    )  # fmt: skip


def _elsewhere(choice: Choice, plan: Plan, ports: Ports) -> Label:
    reason = "reserved by another batch before this one was sent"
    return _label(
        choice, plan, ports, status="expired", label=None, confidence=0.0, labeled_at=plan.created_at, reason=reason
    )


def _judge(choice: Choice, plan: Plan, outcome: LabelingOutcome, ports: Ports) -> Label:
    quality = ports.loop.quality
    answers = tuple(_read(answer, ports.loop.task) for answer in outcome.answers.get(choice.id, ()))
    given = [answer for answer in answers if "refused" not in answer and answer["label"] is not None]
    labeled_at = max((str(answer["submitted_at"]) for answer in given), default=plan.created_at)
    result = outcome.results.get(choice.id)
    judged: dict[str, Any] = {"answers": answers, "labeled_at": labeled_at, "label": None, "confidence": 0.0}
    if result is None:
        if given:
            judged |= {"status": "quarantined", "reason": "answered, but the job ended before a consensus"}
        elif answers:
            refusal = answers[0].get("refused", "the form was sent without one")
            judged |= {"status": "quarantined", "reason": f"no answer can be used: {refusal}"}
        else:
            judged |= {"status": "expired", "reason": f"nobody answered before the job ended ({outcome.status})"}
        return _label(choice, plan, ports, **judged)
    judged |= {"label": result["label"], "confidence": float(result["confidence"])}
    refusal = _refusal(result["label"], ports.loop.task)
    if refusal is not None:
        judged |= {"status": "quarantined", "reason": refusal}
    elif judged["confidence"] < quality.min_confidence and plan.kind == "select" and quality.disputes:
        judged |= {"status": "disputed", "reason": f"confidence below {quality.min_confidence}"}
    else:
        judged |= {"status": "labeled"}
    return _label(choice, plan, ports, **judged)


def _read(answer: Answer, task: Task) -> dict[str, Any]:
    """An answer as the label keeps it: of a number what it says, or what was written with why that is none (`refused`)."""
    body = dict(answer.__dict__)
    if task.type == "regression":
        try:
            body["label"] = number(answer.label, minimum=task.minimum, maximum=task.maximum)
        except BadInput as problem:
            body["refused"] = str(problem)
    return body


def _refusal(label: Any, task: Task) -> str | None:
    """Why a consolidated label cannot be one of this task, or None."""
    if task.type == "classification":
        return None if label in task.classes else f"class {label!r} is not in task.classes"
    try:
        number(label, minimum=task.minimum, maximum=task.maximum)
    except BadInput as problem:
        return str(problem)
    return None


def _ask_experts(plan: Plan, disputed: Sequence[str], ports: Ports) -> str | None:
    """Open the dispute batch of a batch; a reason when it cannot be."""
    if not ports.labeling.has_team("expert"):
        return "annotators disagree and no expert team is configured (ExpertWorkteamArn)"
    choices = tuple(choice for choice in plan.choices if choice.id in set(disputed))
    cost = price("dispute", ports.loop) * len(choices)
    experts = Plan(
        batch=short_id("b", {"disputes": plan.batch, "ids": sorted(disputed)}), kind="dispute", team="expert",
        workers_per_item=ports.loop.quality.expert_workers, model=plan.model, cause="dispute", phase=plan.phase,
        usd=str(cost), created_at=ports.clock.now().isoformat(), choices=choices, parent=plan.batch,
    )  # fmt: skip
    try:
        if not open_batch(experts, ports):
            raise Retryable("another batch was opened at the same moment; collect again")
    except BudgetExceeded as error:
        return f"annotators disagree and the budget does not cover experts: {error}"
    return None


def _annotators(batch: str, labels: Sequence[Label], ports: Ports) -> tuple[Metric, ...]:
    """Write how each annotator worked on this batch, and tell how far they agree and whose work needs a second look."""
    judge = _judged_numbers if ports.loop.task.type == "regression" else _judged_classes
    figures, alpha = judge(labels, ports.loop.task)
    reasons = {suspect.worker: list(suspect.reasons) for suspect in suspects(figures)}
    for one in figures:
        item = {**asdict(one), "batch": batch, "suspect": reasons.get(one.worker, [])}
        ports.table.put("ANNOTATOR", f"{one.worker}#{batch}", item)
    agreement = () if alpha is None else (Metric("AnnotatorAlpha", alpha),)
    return (*agreement, Metric("AnnotatorsSuspected", len(reasons)))


Judged = tuple[Sequence[AnnotatorStatistics], float | None]
"""Figures of each annotator, and Krippendorff's alpha of all of them."""


def _judged_classes(labels: Sequence[Label], task: Task) -> Judged:
    classes = task.classes
    judged = {label.id: classes.index(str(label.label)) for label in labels if label.label in classes}
    given = [(label.id, raw) for label in labels if label.id in judged for raw in label.answers]
    given = [(item, raw) for item, raw in given if raw["label"] in classes]
    answers = Answers.of([(item, raw["worker"], raw["label"]) for item, raw in given], classes=classes)
    decided = np.array([judged[item] for item in answers.tasks], dtype=np.int64)
    seconds = np.array([raw["seconds"] for _, raw in given], dtype=np.float64)
    figures = statistics(answers, Consensus(decided, np.ones(len(decided))), seconds=seconds)
    return figures, krippendorff_alpha(answers.counts())


def _judged_numbers(labels: Sequence[Label], task: Task) -> Judged:
    judged = {
        label.id: float(label.label)
        for label in labels
        if _refusal(label.label, task) is None and label.label is not None
    }
    given = [(label.id, raw) for label in labels if label.id in judged for raw in label.answers if "refused" not in raw]
    answers = NumericAnswers.of([(item, raw["worker"], raw["label"]) for item, raw in given])
    decided = np.array([judged[item] for item in answers.tasks], dtype=np.float64)
    consensus = NumericConsensus(decided, np.ones(len(decided)))
    seconds = np.array([raw["seconds"] for _, raw in given], dtype=np.float64)
    figures = numeric_statistics(answers, consensus, tolerance=task.tolerance, seconds=seconds)
    return figures, interval_alpha(answers)


def _settle_reservations(plan: Plan, labels: Sequence[Label], ports: Ports) -> None:
    """A labeled content stays taken for ever; an expired one stays reserved until reconcile records its expiry."""
    for label in labels:
        if label.status == "disputed":
            continue  # the dispute batch holds it now
        present = ports.table.get(layout.RESERVATION, label.id)
        if present is not None and present["batch"] == plan.batch and present["state"] != label.status:
            state = {"batch": plan.batch, "state": label.status}
            ports.table.replace(
                layout.RESERVATION, label.id, state, expected={"batch": plan.batch, "state": present["state"]}
            )


def _commit(batch: str, labels: Sequence[Label], ports: Ports) -> str:
    """The dataset version that holds this batch: parts first, then its description, then the head by compare-and-set."""
    for _ in range(8):
        parent, tag = head(ports.data)
        previous = json.loads(ports.data.get(layout.dataset(parent))) if parent else None
        if previous and batch in previous["batches"]:
            return str(parent)
        version = _write_version(batch, labels, previous, ports)
        try:
            ports.data.replace(layout.HEAD, json.dumps({"format": 1, "version": version}).encode(), tag=tag)
        except Conflict:
            continue  # another batch was collected at the same moment: build on its version
        return version
    raise Retryable("the dataset head keeps moving; collect again")


def _write_version(batch: str, labels: Sequence[Label], previous: Mapping[str, Any] | None, ports: Ports) -> str:
    batches = [*(previous["batches"] if previous else ()), batch]
    held = _held_out(previous, ports) if previous else []
    refused = {entry["batch"] for entry in held}
    version = next_version(previous["version"] if previous else None, [batch, *sorted(refused)])
    entries = [*_previous_entries(previous, ports), *_entries(batch, len(batches), labels, ports)]
    kept = [entry for entry in entries if batches[entry["batch"] - 1] not in refused]
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
    return version


def _previous_entries(previous: Mapping[str, Any] | None, ports: Ports) -> list[dict[str, Any]]:
    if previous is None:
        return []
    return [
        {**entry, "role": role}
        for role in ROLES
        for entry in from_jsonl(gzip.decompress(ports.data.get(layout.dataset_part(previous["version"], role))))
    ]


def _entries(batch: str, number: int, labels: Sequence[Label], ports: Ports) -> list[dict[str, Any]]:
    """Dataset lines of a batch's believed labels, payload included, so that training reads one file."""
    believed = {label.id: label for label in labels if label.status == "labeled"}
    choices = [choice for choice in read_plan(batch, ports).choices if choice.id in believed]
    records = payloads(choices, ports)
    entries = []
    for choice in choices:
        record, label = records[choice.id], believed[choice.id]
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
        trained = json.loads(ports.data.get(layout.dataset(report["dataset"])))
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
            yield json.loads(ports.data.get(layout.gate_report(look["model"])))
        except NotFound:
            continue  # a gate that is still at work: its look is written first


def _reasons(report: Mapping[str, Any]) -> list[str]:
    return [str(reason["message"]) if isinstance(reason, dict) else str(reason) for reason in report["reasons"]]


def _champion_batches(model: str, ports: Ports) -> set[str]:
    """Batches a champion was trained on; none for the bootstrap model."""
    if model.startswith(layout.BOOTSTRAP):
        return set()
    card = json.loads(ports.data.get(layout.model(model)))
    return _believed(card["dataset"], ports)


def _believed(version: str, ports: Ports) -> set[str]:
    """Batches whose labels are in a dataset version."""
    dataset = json.loads(ports.data.get(layout.dataset(version)))
    return set(dataset["batches"]) - {entry["batch"] for entry in dataset["held_out"]}


def _quarantine_batch(entry: Mapping[str, str], ports: Ports) -> None:
    """Account for the annotations of a held-out batch and let its contents be asked again."""
    key = layout.quarantine(f"labels-{entry['batch']}")
    labels = [Label.from_json(body) for body in from_jsonl(ports.data.get(layout.labels(entry["batch"])))]
    lines = [
        {"id": label.id, "batch": label.batch, "reason": entry["reason"]}
        for label in labels
        if label.status == "labeled"
    ]
    ports.data.put(key, to_jsonl(lines))
    for label in labels:
        if label.status == "labeled":
            ports.table.delete(layout.RESERVATION, label.id, expected={"batch": label.batch})


def _agrees(answer: Mapping[str, Any], label: Label, task: Task) -> bool:
    if task.type == "regression":
        return bool(agree(answer["label"], label.label, tolerance=task.tolerance))
    return bool(answer["label"] == label.label)


def _metrics(plan: Plan, labels: Sequence[Label], version: str, ports: Ports) -> tuple[Metric, ...]:
    started = datetime.fromisoformat(plan.created_at)
    done = [label for label in labels if label.status == "labeled"]
    hours = [
        (datetime.fromisoformat(label.labeled_at.replace("Z", "+00:00")) - started).total_seconds() / 3600
        for label in done
    ]
    agreed = [_agrees(raw, label, ports.loop.task) for label in done for raw in label.answers if "refused" not in raw]
    description = json.loads(ports.data.get(layout.dataset(version)))
    metrics = [
        Metric("ItemsLabeled", len(done)),
        Metric("ItemsDisputed", _count(labels, "disputed")),
        Metric("ItemsExpired", _count(labels, "expired")),
        Metric("ItemsQuarantined", _count(labels, "quarantined")),
        Metric("DatasetSize", description["counts"]["train"]),
    ]
    if hours:
        metrics.append(Metric("LabelHours", float(np.quantile(hours, 0.95))))
        metrics.append(Metric("MoneyPerLabel", float(Decimal(plan.usd) / len(done))))
    if agreed:
        metrics.append(Metric("AnnotatorAgreement", 100.0 * float(np.mean(agreed))))
    return tuple(metrics)
