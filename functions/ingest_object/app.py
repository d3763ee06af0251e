"""Hop 1: objects dropped into the pool bucket become canonical records."""

from __future__ import annotations

from typing import Any

from winnow.aws import edge, events, wiring
from winnow.steps.ingest_object import ingest_object


@edge.hop("ingest_object")
def handler(event: dict[str, Any]) -> dict[str, Any]:
    ports = wiring.ports()
    return edge.each_message(event, lambda body: (ingest_object(item, ports) for item in events.pool_objects(body)))
