"""Hop 2: the champion scores record artifacts, as they arrive (queue) or all again (state machine `rescore`)."""

from __future__ import annotations

from typing import Any

from winnow.aws import edge, events, wiring
from winnow.errors import BadInput
from winnow.steps.score_records import ScoreRequest, score_records


@edge.hop("score_records")
def handler(event: dict[str, Any]) -> dict[str, Any]:
    if "Items" in event:
        keys = tuple(item["Key"] for item in event["Items"])
        return edge.answer(score_records(ScoreRequest(keys, event["BatchInput"]["model"]), wiring.ports()))
    keys: dict[int, set[str]] = {}
    unread = set()
    for place, body in enumerate(edge.bodies(event)):
        try:
            keys[place] = {item.key for item in events.pool_objects(body or {})}
        except BadInput:
            unread.add(place)
    request = ScoreRequest(tuple(sorted(set().union(*keys.values()))))
    failed = edge.answer(score_records(request, wiring.ports()))["failed"]
    places = unread | {place for place, named in keys.items() if failed.keys() & named}
    return edge.failed_places(event, places, reasons=failed)
