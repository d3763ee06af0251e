"""The story of a finished demo, read from what the stack wrote: table, labels, datasets, gate and deployment reports."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from decimal import Decimal
from itertools import pairwise
from typing import Any, Literal

from winnow import layout
from winnow.errors import NotFound
from winnow.ports import Ports
from winnow.records import Label, from_jsonl
from winnow.steps import accounting, pointers
from winnow.steps.batches import Plan, payloads, read_plan
from winnow.steps.prepare_task import shown
from winnow_cli.demo.engine import Decided, decided
from winnow_cli.demo.scenario import Run
from winnow_cli.demo.story import (
    MEASURES,
    Asked,
    Confusion,
    Deployment,
    Estimate,
    Round,
    Served,
    Story,
    Verdict,
    days,
)
from winnow_cli.demo.watcher import reasons

JsonDict = dict[str, Any]
NOTHING = Estimate(None)


@dataclass(frozen=True)
class Batch:
    """A batch of a round: the one that was selected, or its disputes."""

    item: JsonDict
    plan: Plan
    labels: tuple[Label, ...]
    usd: Decimal


def story(ports: Ports, run: Run, *, title: str, seed: int, now: float, real_seconds: float) -> Story:
    """Read everything. `now` is virtual time, `run` says what was meant to go wrong and what the demo itself did."""
    families = _families(ports)
    versions = _versions(ports)
    gates = sorted(_reports(ports, "gate"), key=lambda report: str(report["created_at"]))
    deployments = {str(report["model"]): report for report in _reports(ports, "deployment")}
    rounds = _rounds(families, versions, gates, deployments, run)
    ledger = accounting.account(ports)
    checks = accounting.check_invariants(ports, ledger=ledger)
    promoted = [
        next(gate for gate in gates if gate["model"] == model)
        for model in sorted(
            (name for name, report in deployments.items() if report["status"] == "PROMOTED"),
            key=lambda name: str(deployments[name]["at"]),
        )
    ]
    return Story(
        title=title, kind=ports.loop.task.kind, classes=ports.loop.task.classes, seed=seed, days=days(now - run.start),
        rounds=tuple(rounds), totals=ledger.to_json(),
        invariants={name: check.ok for name, check in checks.items()},
        violations=tuple(f"{name}: {check.detail}" for name, check in checks.items() if not check.ok),
        asked=tuple(_asked(families, ports)), log=tuple(run.log), deployments=tuple(_deployments(deployments, rounds, run)),
        before=_confusion(promoted[0], ports.loop.task.classes) if promoted else None,
        after=_confusion(promoted[-1], ports.loop.task.classes) if promoted else None,
        served=tuple(_served(ports)), real_seconds=real_seconds, budget_usd=float(ports.loop.budget.total_usd),
        measure=MEASURES[ports.loop.metric], champion=_metric(promoted[-1]) if promoted else NOTHING,
    )  # fmt: skip


def _families(ports: Ports) -> list[list[Batch]]:
    """The batches of every round: the selected one first, its disputes after it."""
    money = {str(item["sk"]): Decimal(item["usd"]) for item in ports.table.query("BUDGET")}
    families: dict[str, list[Batch]] = {}
    for item in sorted(ports.table.query("BATCH"), key=lambda item: int(item["number"])):
        name = str(item["sk"])
        try:
            labels = tuple(Label.from_json(body) for body in from_jsonl(ports.data.get(layout.labels(name))))
        except NotFound:
            labels = ()
        batch = Batch(item, read_plan(name, ports), labels, money.get(name, Decimal(0)))
        families.setdefault(str(item.get("parent") or name), []).append(batch)
    return list(families.values())


def _versions(ports: Ports) -> dict[str, JsonDict]:
    """Every dataset version in the line of the head, oldest first."""
    line: list[JsonDict] = []
    version, _ = pointers.head(ports.data)
    while version is not None:
        line.append(json.loads(ports.data.get(layout.dataset(version))))
        version = line[-1]["parent"]
    return {str(body["version"]): body for body in reversed(line)}


def _reports(ports: Ports, kind: Literal["gate", "deployment"]) -> list[JsonDict]:
    keys = [key for key in ports.data.list("reports/") if key.endswith(f"/{kind}.json")]
    return [json.loads(ports.data.get(key)) for key in keys]


def _rounds(
    families: Sequence[Sequence[Batch]], versions: Mapping[str, JsonDict], gates: Sequence[JsonDict],
    deployments: Mapping[str, JsonDict], run: Run,
) -> list[Round]:  # fmt: skip
    rounds, bought = [], 0
    for number, family in enumerate(families, start=1):
        names = {str(batch.item["sk"]) for batch in family}
        mine = {name for name, body in versions.items() if body["batches"][-1] in names}
        gate = _decisive([report for report in gates if report["dataset"] in mine], deployments)
        done = [label for batch in family for label in batch.labels if label.status == "labeled"]
        bought += len(done)
        ended = max((_seconds(label.labeled_at) for label in done), default=run.start)
        following = families[number][0].plan.created_at if number < len(families) else None
        rounds.append(
            Round(
                number=number, batch=str(family[0].item["sk"]), labels=len(done),
                spend_usd=float(sum(batch.usd for batch in family)), metric=_metric(gate), active=_arm(gate, "active"),
                control=_arm(gate, "control"), champion=_champion(deployments, until=following),
                verdict=_verdict(gate, deployments), challenger=str(gate["model"]) if gate else None,
                reasons=_why(gate, deployments), difference=_estimate(gate["difference"]) if gate else None,
                started_day=days(_seconds(family[0].plan.created_at) - run.start), ended_day=days(ended - run.start),
                by_arm=Counter(label.arm for label in done), drill=_drill(family, gate, deployments, run),
                entropy_before=_entropy(gate, "before"), entropy_after=_entropy(gate, "after"),
                total_labels=bought, decided=_decided(family[0].plan),
            )
        )  # fmt: skip
    return rounds


def _decided(plan: Plan) -> Decided:
    arms = Counter(choice.arm for choice in plan.choices)
    return decided(plan.course, phase=plan.phase, size=len(plan.choices), asked=arms)


def _decisive(mine: Sequence[JsonDict], deployments: Mapping[str, JsonDict]) -> JsonDict | None:
    """The gate report that a round is remembered for: a rejection or a rollback before a promotion before the rest."""

    def failed(one: JsonDict) -> bool:
        return one["model"] in deployments and deployments[one["model"]]["status"] != "PROMOTED"

    for wanted in (lambda one: one["verdict"] == "reject", failed, lambda one: one["model"] in deployments):
        found = [one for one in mine if wanted(one)]
        if found:
            return found[-1]
    return mine[-1] if mine else None


def _verdict(gate: JsonDict | None, deployments: Mapping[str, JsonDict]) -> Verdict:
    if gate is None:
        return "not trained"
    if gate["verdict"] == "reject":
        return "rejected"
    ended = deployments.get(gate["model"])
    if gate["verdict"] != "promote" or ended is None:
        return "not decided"
    return "promoted" if ended["status"] == "PROMOTED" else "rolled back"


def _why(gate: JsonDict | None, deployments: Mapping[str, JsonDict]) -> tuple[str, ...]:
    if gate is None:
        return ("too few new labels for a training",)
    ended = deployments.get(gate["model"])
    rollback = (str(ended["reason"]),) if ended is not None and ended["status"] != "PROMOTED" else ()
    return (*reasons(gate), *rollback)


def _drill(
    family: Sequence[Batch], gate: JsonDict | None, deployments: Mapping[str, JsonDict], run: Run
) -> Literal["poison", "skew"] | None:
    if {str(batch.item["sk"]) for batch in family} & set(run.poisoned):
        return "poison"
    skewed = gate is not None and gate["model"] in run.skewed and gate["model"] in deployments
    return "skew" if skewed else None


def _champion(deployments: Mapping[str, JsonDict], *, until: str | None) -> str:
    """Who was champion when the next round began."""
    crowned = [
        (_seconds(report["at"]), model)
        for model, report in deployments.items()
        if report["status"] == "PROMOTED" and (until is None or _seconds(report["at"]) <= _seconds(until))
    ]
    return max(crowned)[1] if crowned else layout.BOOTSTRAP


def _metric(gate: JsonDict | None) -> Estimate:
    return NOTHING if gate is None else _figure(gate["challenger"])


def _arm(gate: JsonDict | None, arm: str) -> Estimate:
    measured = (gate.get("arms") or {}).get(arm) if gate else None
    return _figure(measured)


def _figure(body: Mapping[str, Any] | None) -> Estimate:
    """Of what the gate compares. Nothing is measured where too few records decide, or a model's outputs are no numbers."""
    if body is None or body.get("value") is None:
        return NOTHING
    labels = body.get("labels")
    return Estimate(
        float(body["value"]), float(body["low"]), float(body["high"]), None if labels is None else int(labels)
    )


def _estimate(body: Mapping[str, Any] | None) -> Estimate | None:
    if not body or body.get("value") is None:
        return None
    return Estimate(float(body["value"]), body.get("low"), body.get("high"))


def _entropy(gate: JsonDict | None, when: str) -> float | None:
    value = (gate.get("entropy") or {}).get(when) if gate else None
    return None if value is None else float(value)


def _confusion(gate: JsonDict, classes: tuple[str, ...]) -> Confusion | None:
    metrics = gate["challenger"]
    if "confusion" not in metrics:
        return None
    counts = tuple(tuple(int(count) for count in row) for row in metrics["confusion"])
    return Confusion(str(gate["model"]), classes, counts, float(metrics["accuracy"]))


def _deployments(deployments: Mapping[str, JsonDict], rounds: Sequence[Round], run: Run) -> list[Deployment]:
    by_model = {one.challenger: one.number for one in rounds if one.challenger}
    made = []
    for model, report in sorted(deployments.items(), key=lambda pair: str(pair[1]["at"])):
        made.append(
            Deployment(
                model=model, round=by_model.get(model, 0), day=days(_seconds(report["started_at"]) - run.start),
                settled_day=days(_seconds(report["at"]) - run.start),
                outcome="promoted" if report["status"] == "PROMOTED" else "rolled back", cause=str(report["reason"]),
            )
        )  # fmt: skip
    crowned = [one for one in made if one.outcome == "promoted"]
    until = {one.model: after.settled_day for one, after in pairwise(crowned)}
    return [replace(one, serving_until=until.get(one.model)) for one in made]


def _asked(families: Sequence[Sequence[Batch]], ports: Ports) -> list[Asked]:
    asked = []
    for number, family in enumerate(families, start=1):
        settled = {label.id: label for batch in family[1:] for label in batch.labels}
        records = payloads(family[0].plan.choices, ports)
        for label in family[0].labels:
            record, final = records.get(label.id), settled.get(label.id, label)
            if record is None:
                continue
            cells = record.row or {}
            seen: str | bytes = record.text or ", ".join(f"{name} {shown(cell)}" for name, cell in cells.items())
            if record.image is not None:
                seen = record.image.png if record.image.png is not None else ports.data.get(record.image.ref)
            asked.append(
                Asked(
                    round=number, arm=label.arm, strategy=label.strategy, score=label.score, rank=label.rank,
                    label=None if final.label is None else shown(final.label), confidence=final.confidence,
                    status=final.status, payload=seen,
                )
            )  # fmt: skip
    return asked


def _served(ports: Ports) -> list[Served]:
    judged: dict[str, list[bool]] = defaultdict(list)
    for key in ports.data.list("feedback/"):
        body = json.loads(ports.data.get(key))
        judged[str(body["model"])].append(bool(body["correct"]))
    return [Served(model, len(answers), sum(answers)) for model, answers in sorted(judged.items())]


def _seconds(moment: str) -> float:
    return datetime.fromisoformat(moment.replace("Z", "+00:00")).timestamp()
