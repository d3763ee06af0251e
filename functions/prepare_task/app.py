"""Hop 5, called by the labeling backend before an item is shown: what the annotator sees."""

from __future__ import annotations

from typing import Any

from winnow.aws import edge, wiring
from winnow.steps.prepare_task import prepare_task


@edge.hop("prepare_task")
def handler(event: dict[str, Any]) -> dict[str, Any]:
    return edge.answer(prepare_task(event["dataObject"], wiring.ports()))
