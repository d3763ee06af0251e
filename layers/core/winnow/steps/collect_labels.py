"""Hop 7: a labeling job ended. Its answers become labels, its disputes go to experts, and a new dataset version is born.

Order of writes: labels (immutable, derived from the job's output), the dispute batch, annotator statistics, reservations,
the dataset's parts and then its head, the `improve` execution, and last the batch's status.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from datetime import datetime
from decimal import Decimal
from typing import Any

import numpy as np

from winnow import layout
from winnow.digests import short_id
from winnow.errors import BadInput, BudgetExceeded, NotFound, Retryable
from winnow.labels.agreement import interval_alpha, krippendorff_alpha
from winnow.labels.annotators import AnnotatorStatistics, numeric_statistics, statistics, suspects
from winnow.labels.answers import Answers
from winnow.labels.consensus import Consensus
from winnow.labels.numbers import NumericAnswers, agree, number
from winnow.labels.numeric_consensus import NumericConsensus
from winnow.loop import Task
from winnow.metrics import Metric
from winnow.ports import Answer, LabelingOutcome, Ports
from winnow.records import Label, Record, from_jsonl, to_jsonl
from winnow.steps import Outcome
from winnow.steps.batches import Choice, Plan, guideline_version, mark, open_batch, payloads, price, read_plan
from winnow.steps.dataset_versions import commit
from winnow.steps.documents import document
from winnow.steps.rechecks import standing


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
    version = commit(batch, labels, lambda: _contents(plan, labels, ports), ports)
    ports.executions.start("improve", version, {"dataset": version, "cause": "labels"})
    mark(batch, "collected", ports)
    body = {"batch": batch, "dataset": version, **{status: _count(labels, status) for status in _STATUSES}}
    return Outcome(body, (*_metrics(plan, labels, version, ports), *annotators))


def _contents(plan: Plan, labels: Sequence[Label], ports: Ports) -> Mapping[str, Record]:
    believed = {label.id for label in labels if label.status == "labeled"}
    return payloads([choice for choice in plan.choices if choice.id in believed], ports)


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
    """A labeled content stays taken for ever; an expired one stays reserved until reconcile records its expiry.

    One that was asked again in vain goes back to the batch whose label stands.
    """
    stands = standing(plan, labels, ports)
    for label in labels:
        if label.status == "disputed":
            continue  # the dispute batch holds it now
        present = ports.table.get(layout.RESERVATION, label.id)
        if present is not None and present["batch"] == plan.batch and present["state"] != label.status:
            state = {"batch": plan.batch, "state": label.status}
            if label.id in stands:
                state = {"batch": stands[label.id], "state": "labeled"}
            ports.table.replace(
                layout.RESERVATION, label.id, state, expected={"batch": plan.batch, "state": present["state"]}
            )


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
    description = document(ports.data, layout.dataset(version))
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
