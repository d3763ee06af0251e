"""Hop 4: choose the records worth a person's time and have them labeled."""

from __future__ import annotations

from typing import Any

from winnow.aws import edge, wiring
from winnow.steps.select_batch import SelectRequest, select_batch


@edge.hop("select_batch")
def handler(event: dict[str, Any]) -> dict[str, Any]:
    return edge.answer(select_batch(SelectRequest.from_json(event), wiring.ports()))
