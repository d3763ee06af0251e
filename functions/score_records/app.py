"""Hop 2: the champion scores record artifacts, as they arrive (queue) or all again (state machine `rescore`)."""

from __future__ import annotations

from typing import Any

from winnow.aws import edge, events, wiring
from winnow.steps.score_records import ScoreRequest, score_records


@edge.hop("score_records")
def handler(event: dict[str, Any]) -> dict[str, Any]:
    if "Items" in event:
        keys = tuple(item["Key"] for item in event["Items"])
        return edge.answer(score_records(ScoreRequest(keys, event["BatchInput"]["model"]), wiring.ports()))
    keys = [[item.key for item in events.pool_objects(body)] if body else [] for body in edge.bodies(event)]
    request = ScoreRequest(tuple(key for of_message in keys for key in of_message))
    failed = edge.answer(score_records(request, wiring.ports()))["failed"]
    return edge.failed_places(event, {place for place, of_message in enumerate(keys) if failed.keys() & set(of_message)})
