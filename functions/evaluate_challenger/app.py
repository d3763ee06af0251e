"""Hop 8, called by `improve`: the gate decides whether the challenger is better."""

from __future__ import annotations

from typing import Any

from winnow.aws import edge, wiring
from winnow.steps.evaluate_challenger import evaluate_challenger


@edge.hop("evaluate_challenger")
def handler(event: dict[str, Any]) -> dict[str, Any]:
    return edge.answer(evaluate_challenger(event, wiring.ports()))
