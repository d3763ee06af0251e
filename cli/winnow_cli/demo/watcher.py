"""Follows a running stack through its table and artifacts, and tells what is new. It changes nothing."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from typing import Any

from winnow import layout
from winnow.aws import wiring
from winnow.errors import NotFound
from winnow_cli.demo.story import MEASURES, Happening, days, short
from winnow_local.cloud import LocalCloud

TELLING = {
    "select_batch", "collect_labels", "plan_training", "publish_model", "evaluate_challenger", "deploy_challenger",
    "settle_deployment", "reconcile",
}  # fmt: skip
"""Hops after which there may be news: asking the table after each of the others would cost more than the loop itself."""
FINAL = ("PROMOTED", "FAILED", "STALE")


class Watcher:
    """What is new since the last look, and how far the rounds are."""

    def __init__(self, cloud: LocalCloud, tell: Callable[[Happening], None]) -> None:
        self._cloud, self._tell = cloud, tell
        self._ports = wiring.ports()
        self._start = cloud.clock.time()
        self._seen_invocations = 0
        self._told: set[str] = set()
        self.batches: list[dict[str, Any]] = []
        self.deployments: list[dict[str, Any]] = []
        self.gates: dict[str, dict[str, Any]] = {}
        self._executions: dict[str, str] = {}
        self.rounds_ended = 0

    def look(self) -> bool:
        """Whether anything may have changed; tells it when it did."""
        calls = self._cloud.invocations
        new, self._seen_invocations = calls[self._seen_invocations :], len(calls)
        hops = {call.function.removeprefix(f"{self._cloud.stack}-") for call in new}
        if not hops & TELLING and not self._execution_ended():
            return False
        table = self._ports.table
        self.batches = sorted(table.query("BATCH"), key=lambda item: int(item["number"]))
        self.deployments = table.query("DEPLOYMENT")
        if hops & {"evaluate_challenger", "reconcile"}:
            self._read_gates()
        self._list_executions()
        self._tell_batches()
        self._tell_gates()
        self._tell_deployments()
        self.rounds_ended = self._count_rounds()
        return True

    def _execution_ended(self) -> bool:
        """Whether an improvement that ran at the last look runs no longer: its last state may call no function."""
        before = {name for name, status in self._executions.items() if status == "RUNNING"}
        if not before:
            return False
        self._list_executions()
        return any(self._executions[name] != "RUNNING" for name in before)

    def batch_of_round(self, number: int) -> dict[str, Any] | None:
        """The batch item of a round."""
        rounds = [item for item in self.batches if item["kind"] == "select"]
        return rounds[number - 1] if len(rounds) >= number else None

    def challengers(self, *, since_round: int) -> list[str]:
        """Models being trained or later, of a round and after it."""
        batch = self.batch_of_round(since_round)
        if batch is None or batch["status"] != "collected":
            return []
        jobs = self._cloud.client("sagemaker").list_training_jobs()["TrainingJobSummaries"][-10:]
        found = [job["TrainingJobName"].removeprefix(f"{self._cloud.stack}-") for job in jobs]
        return [model for model in found if not self._is_older(model, batch)]

    def rolled_back(self, models: Iterable[str]) -> bool:
        """Whether one of these models was rolled back."""
        return any(item["model"] in set(models) and item["status"] == "FAILED" for item in self.deployments)

    def at_rest(self) -> bool:
        """No batch is open and no execution runs."""
        self._list_executions()
        running = [status for status in self._executions.values() if status == "RUNNING"]
        rescoring = self._running("rescore")
        return not running and not rescoring and all(item["status"] == "collected" for item in self.batches)

    def standing(self) -> str:
        """How things stand, for a message."""
        open_batches = [f"{item['sk']} is {item['status']}" for item in self.batches if item["status"] != "collected"]
        running = [name for name, status in self._executions.items() if status == "RUNNING"]
        failures = [f"{call.function}: {call.error}" for call in self._cloud.invocations if call.error]
        said = [
            f"{self.rounds_ended} rounds ended", f"open batches: {', '.join(open_batches) or 'none'}",
            f"running: {', '.join(running) or 'none'}", f"failed calls: {'; '.join(sorted(set(failures))[:5]) or 'none'}",
        ]  # fmt: skip
        return "; ".join(said)

    def _day(self) -> float:
        return days(self._cloud.clock.time() - self._start)

    def _once(self, key: str, kind: Any, text: str, *, model: str | None = None, verdict: str | None = None) -> None:
        if key not in self._told:
            self._told.add(key)
            self._tell(Happening(self._day(), kind, text, model, verdict))

    def _is_older(self, model: str, batch: dict[str, Any]) -> bool:
        """Whether the model was trained on a dataset without this batch."""
        try:
            spec = json.loads(self._ports.data.get(layout.training_spec(model)))
            dataset = json.loads(self._ports.data.get(layout.dataset(spec["dataset"])))
        except NotFound:
            return True
        return batch["sk"] not in dataset["batches"]

    def _read_gates(self) -> None:
        for item in self._ports.table.query("LOOK"):
            if item["model"] not in self.gates:
                try:
                    self.gates[item["model"]] = json.loads(self._ports.data.get(layout.gate_report(item["model"])))
                except NotFound:
                    continue

    def _list_executions(self) -> None:
        client = self._cloud.client("stepfunctions")
        pages = client.get_paginator("list_executions").paginate(stateMachineArn=self._machine("improve"))
        self._executions = {item["name"]: item["status"] for page in pages for item in page["executions"]}

    def _running(self, machine: str) -> list[str]:
        found = self._cloud.client("stepfunctions").list_executions(
            stateMachineArn=self._machine(machine), statusFilter="RUNNING"
        )
        return [item["name"] for item in found["executions"]]

    def _machine(self, name: str) -> str:
        return f"arn:aws:states:{self._cloud.region}:{self._cloud.account}:stateMachine:{self._cloud.stack}-{name}"

    def _count_rounds(self) -> int:
        """Rounds whose batch, disputes and improvement are over. Rounds end in order, so the open one is the last."""
        rounds = [item for item in self.batches if item["kind"] == "select"]
        busy = any(status == "RUNNING" for status in self._executions.values())
        busy = busy or any(item["status"] != "collected" for item in self.batches)
        return len(rounds) - 1 if rounds and busy else len(rounds)

    def _tell_batches(self) -> None:
        names = {
            item["sk"]: index for index, item in enumerate((i for i in self.batches if i["kind"] == "select"), start=1)
        }
        for item in self.batches:
            batch, size = str(item["sk"]), int(item["size"])
            if item["kind"] == "select":
                self._once(f"sent {batch}", "batch", f"round {names[batch]}: {size} records sent to annotators")
            else:
                self._once(f"sent {batch}", "batch", f"experts are asked about {size} disputed records")
            if item["status"] == "collected":
                who = f"round {names[batch]}" if item["kind"] == "select" else "experts"
                self._once(f"in {batch}", "labels", f"{who}: the labels are in")

    def _tell_gates(self) -> None:
        for model, report in self.gates.items():
            figures = report["challenger"] or {}
            reached = "cannot be measured"
            if figures.get("value") is not None:
                reached = f"reaches {MEASURES[figures['metric']].text(figures['value'])}"
            why = "" if report["verdict"] == "promote" else f" ({'; '.join(reasons(report))})"
            text = f"{short(model)} {reached}; the gate says {report['verdict']}{why}"
            self._once(f"gate {model}", "gate", text, model=model, verdict=str(report["verdict"]))

    def _tell_deployments(self) -> None:
        for item in self.deployments:
            model, status = str(item["model"]), str(item["status"])
            if status == "STARTED":
                self._once(f"rollout {model}", "deploy", f"{short(model)} is rolled out", model=model)
            elif status == "PROMOTED":
                self._once(f"crown {model}", "champion", f"{short(model)} is the champion", model=model)
            elif status == "FAILED":
                self._once(f"back {model}", "rollback", f"{short(model)} was rolled back", model=model)


def reasons(report: dict[str, Any]) -> list[str]:
    """The sentences of a gate report's reasons; what only informs is left to the report."""
    return [str(one["message"]) for one in report["reasons"] if one["weight"] != "informs"]
