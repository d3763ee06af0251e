"""Hop 11, on a schedule: repair what events did not bring about."""

from __future__ import annotations

from typing import Any

from winnow.aws import edge, wiring
from winnow.steps.reconcile import reconcile


@edge.hop("reconcile")
def handler(event: dict[str, Any]) -> dict[str, Any]:
    return edge.answer(reconcile(event, wiring.ports()))
