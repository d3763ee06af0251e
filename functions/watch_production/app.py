"""Hop 10: captured requests become figures about production, and records of the pool."""

from __future__ import annotations

from typing import Any

from winnow.aws import edge, events, wiring
from winnow.steps.watch_production import watch_production


@edge.hop("watch_production")
def handler(event: dict[str, Any]) -> dict[str, Any]:
    ports = wiring.ports()
    return edge.each_message(
        event, lambda body: (watch_production({"key": item.key}, ports) for item in events.pool_objects(body))
    )
