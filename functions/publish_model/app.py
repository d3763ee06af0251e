"""Hop 8, called by `improve`: what training left becomes a published model package."""

from __future__ import annotations

from typing import Any

from winnow.aws import edge, wiring
from winnow.steps.publish_model import publish_model


@edge.hop("publish_model")
def handler(event: dict[str, Any]) -> dict[str, Any]:
    return edge.answer(publish_model(event, wiring.ports()))
