"""Hop 8, called by `improve`: start the rollout of a challenger that passed the gate."""

from __future__ import annotations

from typing import Any

from winnow.aws import edge, wiring
from winnow.steps.deploy_challenger import deploy_challenger


@edge.hop("deploy_challenger")
def handler(event: dict[str, Any]) -> dict[str, Any]:
    return edge.answer(deploy_challenger(event, wiring.ports()))
