"""Hop 11, on a schedule: the heartbeat and the gauges that no event carries."""

from __future__ import annotations

from typing import Any

from winnow.aws import edge, wiring
from winnow.steps.report_health import report_health


@edge.hop("report_health")
def handler(event: dict[str, Any]) -> dict[str, Any]:
    return edge.answer(report_health(event, wiring.ports()))
