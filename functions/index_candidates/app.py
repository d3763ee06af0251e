"""Hop 3: candidate messages become compact shards."""

from __future__ import annotations

from typing import Any

from winnow.aws import edge, wiring
from winnow.steps.index_candidates import index_candidates


@edge.hop("index_candidates")
def handler(event: dict[str, Any]) -> dict[str, Any]:
    bodies = [body or {} for body in edge.bodies(event)]
    failed = set(edge.answer(index_candidates(bodies, wiring.ports()))["failed"])
    return edge.failed_places(event, failed)
