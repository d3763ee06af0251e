"""Hop 8, called by `improve` until it has ended: how did the rollout go?"""

from __future__ import annotations

from typing import Any

from winnow.aws import edge, wiring
from winnow.steps.settle_deployment import settle_deployment


@edge.hop("settle_deployment")
def handler(event: dict[str, Any]) -> dict[str, Any]:
    return edge.answer(settle_deployment(event, wiring.ports()))
