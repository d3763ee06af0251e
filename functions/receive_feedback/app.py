"""Hop 10, an HTTPS endpoint for applications: was a served prediction right?"""

from __future__ import annotations

from typing import Any

from winnow.aws import edge, wiring
from winnow.steps.receive_feedback import receive_feedback


@edge.hop("receive_feedback")
def handler(event: dict[str, Any]) -> dict[str, Any]:
    return edge.http(lambda body: receive_feedback(body, wiring.ports()), event)
