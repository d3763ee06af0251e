"""Hop 8, called by `improve`: is this dataset worth a training, and may it be trained on?"""

from __future__ import annotations

from typing import Any

from winnow.aws import edge, wiring
from winnow.steps.plan_training import plan_training


@edge.hop("plan_training")
def handler(event: dict[str, Any]) -> dict[str, Any]:
    return edge.answer(plan_training(event, wiring.ports()))
