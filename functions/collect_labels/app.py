"""Hop 7: a labeling job ended, or labels came with records: they become the next dataset version, which starts `improve`."""

from __future__ import annotations

from typing import Any

from winnow import layout
from winnow.aws import edge, events, wiring
from winnow.aws.settings import Settings
from winnow.steps import Outcome
from winnow.steps.collect_labels import collect_labels
from winnow.steps.import_labels import import_labels


@edge.hop("collect_labels")
def handler(event: dict[str, Any]) -> dict[str, Any]:
    ports, settings = wiring.ports(), Settings.from_environment()

    def collect(body: dict[str, Any]) -> list[Outcome]:
        if "object" in body.get("detail", {}):
            return [import_labels(layout.oid_of_import(item.key), ports) for item in events.pool_objects(body)]
        return [collect_labels(settings.identifier(events.labeling_job(body)), ports)]

    return edge.each_message(event, collect)
