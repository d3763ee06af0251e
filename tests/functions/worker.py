"""A Lambda worker for tests: loads `functions/<hop>/app.py` as Lambda would, on fake ports, and reads what it logs."""

from __future__ import annotations

import importlib.util
import json
import logging
import sys
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
EVENTS = ROOT / "tests" / "events"
REGION, ACCOUNT, STACK = "us-east-1", "123456789012", "winnow"

ENVIRONMENT = {
    "AWS_REGION": REGION, "WINNOW_STACK": STACK, "WINNOW_ACCOUNT": ACCOUNT, "POWERTOOLS_TRACE_DISABLED": "true",
}  # fmt: skip


def event(name: str) -> Any:
    """A real event body from tests/events."""
    return json.loads((EVENTS / name).read_text())


@dataclass(frozen=True)
class Worker:
    """One loaded function. `invoke` delivers an event; `metrics` and `invokers` are what it wrote to its log."""

    hop: str
    handler: Any
    capsys: pytest.CaptureFixture[str]

    def invoke(self, delivered: Any) -> Any:
        context = SimpleNamespace(aws_request_id="r1", function_name=f"{STACK}-{self.hop}")
        return json.loads(json.dumps(self.handler(delivered, context)))

    def log(self) -> list[dict[str, Any]]:
        """The JSON lines written since the last look."""
        return [json.loads(line) for line in self.capsys.readouterr().out.splitlines() if line.startswith("{")]


def metrics(log: list[dict[str, Any]]) -> dict[tuple[str, ...], float]:
    """Embedded metrics as (name, dimension values after the stack) → value."""
    found: dict[tuple[str, ...], float] = {}
    for line in log:
        for directive in line.get("_aws", {}).get("CloudWatchMetrics", ()):
            (names,) = directive["Dimensions"]
            assert directive["Namespace"] == "Winnow"
            assert line["Stack"] == STACK
            values = [line[name] for name in names if name not in ("Stack", "service")]
            for metric in directive["Metrics"]:
                (found[(metric["Name"], *values)],) = line[metric["Name"]]
    return found


def load(hop: str, ports: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Worker:
    """Import the function as a fresh worker does, and forget the guarded module again: others test that it refuses."""
    for name, value in {**ENVIRONMENT, "AWS_LAMBDA_FUNCTION_NAME": f"{STACK}-{hop}"}.items():
        monkeypatch.setenv(name, value)
    import winnow.aws
    from winnow.aws import wiring

    monkeypatch.setattr(wiring, "ports", lambda: ports)
    # A logger keeps the output it was made with, and lives as long as the process: other tests get theirs back.
    loggers = logging.root.manager.loggerDict
    known = {name: logger for name, logger in loggers.items() if name not in (hop, "queue")}
    monkeypatch.setattr(logging.root.manager, "loggerDict", known)
    spec = importlib.util.spec_from_file_location(f"functions_{hop}", ROOT / "functions" / hop / "app.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    sys.modules.pop("winnow.aws.edge", None)
    del winnow.aws.edge
    return Worker(hop, module.handler, capsys)
