"""A batch from plan to labeling job: shared by selection and by disputes, safe to stop anywhere and to run twice.

The plan is written first. Then the head of batches moves by compare-and-set, and with it the budget: whoever moves it
owns the number, and the money of every earlier batch is already in the set that the sum is taken over. All that follows
is derived from the plan and may be repeated by anybody.
"""

from __future__ import annotations

import gzip
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Any, Literal

from winnow import layout
from winnow.digests import digest
from winnow.errors import BudgetExceeded, Conflict
from winnow.loop import Loop, Task
from winnow.ports import JsonDict, LabelingJob, Ports
from winnow.records import Arm, Record, Role, from_jsonl, to_jsonl
from winnow.steps.documents import document


@dataclass(frozen=True)
class Choice:
    """One record of a batch and why it was chosen."""

    id: str
    oid: str
    cluster: str
    role: Role
    records: str
    """Key of the records artifact with its payload."""
    arm: Arm
    strategy: str
    score: float | None
    rank: int
    prediction: str | float | None = None
    """The champion's class, or number."""
    again: str | None = None
    """Of a recheck the batch whose label is asked again."""

    def to_json(self) -> JsonDict:
        """The fields; `again` only where it says something, so that versions before it read all other plans."""
        return {name: value for name, value in self.__dict__.items() if name != "again" or value is not None}


@dataclass(frozen=True)
class Plan:
    """`batches/<batch>/plan.json`: what is asked, of whom, why, and for how much."""

    batch: str
    kind: Literal["select", "dispute"]
    team: Literal["crowd", "expert"]
    workers_per_item: int
    model: str
    cause: str
    phase: str
    usd: str
    """Money committed, as decimal text."""
    created_at: str
    choices: tuple[Choice, ...]
    parent: str | None = None
    """The batch whose disputed items this one asks experts about."""
    told: tuple[str, ...] = ()
    """What a selection could not do as loop.yaml asks, and why."""
    course: JsonDict | None = None
    """How the batch came to be: size, strategy and the reasons (`winnow.steps.course`)."""

    def to_bytes(self) -> bytes:
        body = {**self.__dict__, "format": 1, "choices": [choice.to_json() for choice in self.choices]}
        if not self.told:
            del body["told"]
        return json.dumps(body, indent=1, ensure_ascii=False).encode()


def read_plan(batch: str, ports: Ports) -> Plan:
    body = document(ports.data, layout.plan(batch))
    known = {name: body[name] for name in Plan.__dataclass_fields__ if name in body}
    choices = tuple(Choice(**choice) for choice in body["choices"])
    return Plan(**{**known, "choices": choices, "told": tuple(body.get("told", ()))})


def price(kind: Literal["select", "dispute"], loop: Loop) -> Decimal:
    """Money one item of a batch costs."""
    if kind == "dispute":
        return loop.budget.expert_price_per_answer_usd * loop.quality.expert_workers
    return loop.budget.price_per_answer_usd * loop.quality.workers_per_item


def committed(ports: Ports) -> Decimal:
    """Money committed to all batches so far: the sum over a set, so a repeat counts once."""
    return sum((Decimal(item["usd"]) for item in ports.table.query("BUDGET")), Decimal(0))


def backlog(ports: Ports) -> tuple[int, float]:
    """Items that wait for an annotator, and the age in hours of the oldest batch that has some."""
    waiting, oldest = 0, 0.0
    for item in ports.table.query("BATCH"):
        if item["status"] == "collected":
            continue
        job = ports.labeling.describe(item["job"])
        waiting += int(item["size"]) if job is None else max(0, job.total - job.labeled)
        age = (ports.clock.now() - datetime.fromisoformat(item["created_at"])).total_seconds() / 3600
        oldest = max(oldest, age)
    return waiting, oldest


def open_batch(plan: Plan, ports: Ports) -> bool:
    """Commit the money, reserve the contents, submit the job. False when another batch took the head first.

    Raises BudgetExceeded before anything is committed.
    """
    ports.data.put_new(layout.plan(plan.batch), plan.to_bytes())
    head = recover(ports)
    if ports.table.get("BATCH", plan.batch) is None:
        money, limit = committed(ports), ports.loop.budget.total_usd
        if money + Decimal(plan.usd) > limit:
            raise BudgetExceeded(
                f"batch {plan.batch} would cost {plan.usd} USD with {money} of {limit} committed; raise budget.total_usd"
            )
        claim = {"number": head["number"] + 1 if head else 1, "batch": plan.batch, "usd": plan.usd}
        try:
            ports.table.replace("HEAD", "BATCH", claim, expected={"number": head["number"]} if head else None)
        except Conflict:
            return False
        recover(ports)
    submit(plan.batch, ports)
    return True


def recover(ports: Ports) -> JsonDict | None:
    """Complete what the owner of the newest number may have left undone, and return the head."""
    head = ports.table.get("HEAD", "BATCH")
    if head is not None:
        ports.table.put_new("BUDGET", head["batch"], {"usd": head["usd"]})
        if ports.table.get("BATCH", head["batch"]) is None:
            plan = read_plan(head["batch"], ports)
            item = {
                "number": head["number"], "kind": plan.kind, "status": "planned", "job": plan.batch,
                "size": len(plan.choices), "model": plan.model, "created_at": plan.created_at, "parent": plan.parent,
            }  # fmt: skip
            ports.table.put_new("BATCH", head["batch"], item)
    return head


def submit(batch: str, ports: Ports) -> None:
    """Reserve the plan's contents, write the manifest and create the labeling job."""
    item = ports.table.get("BATCH", batch)
    if item is None or item["status"] != "planned":
        return
    plan, loop = read_plan(batch, ports), ports.loop
    mine = reserve(plan, ports)
    if not ports.data.exists(layout.manifest(batch)):
        ports.data.put(layout.manifest(batch), to_jsonl(_manifest(plan, mine, ports)))
    job = LabelingJob(
        name=batch, manifest_key=layout.manifest(batch), kind=form(loop.task), team=plan.team,
        workers_per_item=plan.workers_per_item, title=loop.task.title, guideline=loop.task.guideline,
        classes=loop.task.classes, task_seconds=loop.labeling.task_seconds,
        lifetime_seconds=loop.labeling.lifetime_hours * 3600,
    )  # fmt: skip
    ports.labeling.submit(job)
    mark(batch, "submitted", ports)


def form(task: Task) -> str:
    """The form that annotators of a task see (`LabelingJob.kind`)."""
    return "number" if task.type == "regression" else task.kind


def mark(batch: str, status: str, ports: Ports) -> None:
    """Move a batch's status on; a repeat finds it moved."""
    item = ports.table.get("BATCH", batch)
    if item is not None and item["status"] != status:
        body = {name: value for name, value in item.items() if name not in {"pk", "sk"}}
        ports.table.replace("BATCH", batch, {**body, "status": status}, expected={"status": item["status"]})


def reserve(plan: Plan, ports: Ports) -> set[str]:
    """Ids of the plan's contents that are reserved for it; one reserved elsewhere is left out (I2)."""
    claim = {"batch": plan.batch, "state": "reserved"}
    entries = [(layout.RESERVATION, choice.id, claim) for choice in plan.choices]
    mine: set[str] = set()
    for choice, present in zip(plan.choices, ports.table.put_new_many(entries), strict=True):
        if present is None or present["batch"] == plan.batch:
            mine.add(choice.id)
        elif plan.parent is not None and present["batch"] == plan.parent:
            ports.table.replace(layout.RESERVATION, choice.id, claim, expected={"batch": plan.parent})
            mine.add(choice.id)
        elif choice.again is not None and _labeled_by(choice.again, present) and _asks_again(choice, plan, ports):
            expected = {"batch": choice.again, "state": "labeled"}
            ports.table.replace(layout.RESERVATION, choice.id, claim, expected=expected)
            mine.add(choice.id)
    return mine


def _labeled_by(batch: str, reservation: Mapping[str, Any]) -> bool:
    return bool(reservation["batch"] == batch and reservation["state"] == "labeled")


def _asks_again(choice: Choice, plan: Plan, ports: Ports) -> bool:
    """Record, before the content is reserved, that its label expired for this batch's sake; False when for another's."""
    item = {"at": plan.created_at, "recheck": plan.batch}
    present = ports.table.put_new(layout.EXPIRY, f"{choice.id}#{choice.again}", item)
    return present is None or bool(present.get("recheck") == plan.batch)


def reservations(ports: Ports) -> dict[str, JsonDict]:
    """Every content that is asked or answered: id → item."""
    return {item["sk"]: item for item in ports.table.query(layout.RESERVATION)}


LONGEST_SOURCE = 20_000
"""Characters Ground Truth takes of one value in a manifest."""


def _source(record: Record, batch: str, ports: Ports) -> dict[str, Any]:
    """What a manifest line says of the payload: itself, or where it lies."""
    if record.text is not None:
        return {"source": record.text}
    if record.image is not None:
        return {"source-ref": ports.data.uri(record.image.ref)}
    row = json.dumps(record.payload()["row"], ensure_ascii=False, separators=(",", ":"))
    if len(row) <= LONGEST_SOURCE:
        return {"source": row}
    key = layout.asked_row(batch, record.id)
    ports.data.put(key, row.encode())
    return {"source-ref": ports.data.uri(key)}


def _manifest(plan: Plan, mine: set[str], ports: Ports) -> list[dict[str, Any]]:
    chosen = [choice for choice in plan.choices if choice.id in mine]
    records = payloads(chosen, ports)
    lines = []
    for choice in chosen:
        record = records[choice.id]
        line = {**_source(record, plan.batch, ports), "candidate_id": choice.id, "batch": plan.batch}
        if choice.prediction is not None:
            line["prediction"] = choice.prediction
        lines.append(line)
    return lines


def payloads(choices: Sequence[Choice], ports: Ports) -> Mapping[str, Record]:
    """The canonical records of the chosen contents, read once an artifact."""
    wanted = {choice.id for choice in choices}
    found: dict[str, Record] = {}
    for key in dict.fromkeys(choice.records for choice in choices):
        for body in from_jsonl(gzip.decompress(ports.data.get(key))):
            if body["id"] in wanted:
                found[body["id"]] = Record.from_json(body)
    return found


def guideline_version(loop: Loop) -> str:
    """Digest of what annotators were told, kept with every label."""
    task = loop.task
    told: dict[str, Any] = {"guideline": task.guideline, "classes": list(task.classes)}
    if task.type == "regression":
        told |= {"unit": task.unit, "minimum": task.minimum, "maximum": task.maximum}
    return digest(told, length=12)
