"""State machine executions, started under derived names."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from winnow.aws.errors import translated
from winnow.aws.settings import Settings
from winnow.errors import Conflict, NotFound
from winnow.ports import MachineName


class StateMachines:
    def __init__(self, client: Any, settings: Settings) -> None:
        self._client = client
        self._settings = settings

    def start(self, machine: MachineName, name: str, body: Mapping[str, Any]) -> bool:
        # The name is checked first because StartExecution answers success for a running execution of the same input,
        # and callers need to know whether it was they who started it. The race is harmless: one execution runs.
        if self.status(machine, name) is not None:
            return False
        try:
            with translated(f"execution {machine}/{name}"):
                self._client.start_execution(
                    stateMachineArn=self._settings.state_machine(machine),
                    name=name,
                    input=json.dumps(body, sort_keys=True),
                )
        except Conflict:
            return False
        return True

    def status(self, machine: MachineName, name: str) -> str | None:
        try:
            with translated(f"execution {machine}/{name}"):
                arn = self._settings.execution(machine, name)
                return str(self._client.describe_execution(executionArn=arn)["status"])
        except NotFound:
            return None

    def running(self, machine: MachineName) -> list[str]:
        with translated(f"executions of {machine}"):
            pages = self._client.get_paginator("list_executions").paginate(
                stateMachineArn=self._settings.state_machine(machine), statusFilter="RUNNING"
            )
            return [item["name"] for page in pages for item in page["executions"]]

    def stop(self, machine: MachineName, name: str, *, cause: str) -> None:
        try:
            with translated(f"execution {machine}/{name}"):
                arn = self._settings.execution(machine, name)
                self._client.stop_execution(executionArn=arn, error="Superseded", cause=cause)
        except NotFound:
            return
