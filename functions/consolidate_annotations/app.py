"""Hop 6, called by the labeling backend with the answers to some items: one label and its confidence each."""

from __future__ import annotations

from typing import Any

from winnow.aws import edge, wiring
from winnow.aws.groundtruth import consolidated, consolidation_payload
from winnow.steps.consolidate_annotations import consolidate_annotations


@edge.hop("consolidate_annotations")
def handler(event: dict[str, Any]) -> list[dict[str, Any]]:
    ports = wiring.ports()
    payload = ports.data.get(ports.data.key_of(event["payload"]["s3Uri"]))
    outcome = consolidate_annotations(consolidation_payload(payload), ports)
    return consolidated(edge.answer(outcome)["labels"], attribute=event["labelAttributeName"])
