"""Hop 7: a labeling job ended: its labels become the next dataset version, which starts `improve`."""

from __future__ import annotations

from typing import Any

from winnow.aws import edge, events, wiring
from winnow.aws.settings import Settings
from winnow.steps.collect_labels import collect_labels


@edge.hop("collect_labels")
def handler(event: dict[str, Any]) -> dict[str, Any]:
    ports, settings = wiring.ports(), Settings.from_environment()
    return edge.each_message(
        event, lambda body: [collect_labels(settings.identifier(events.labeling_job(body)), ports)]
    )
