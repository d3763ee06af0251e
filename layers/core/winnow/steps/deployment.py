"""The record of one rollout, and the words for how an endpoint stands; deploy, settle and reconcile share them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from winnow.errors import Retryable
from winnow.ports import Ports

PARTITION = "DEPLOYMENT"
LEASE = "deployment"
LEASE_SECONDS = 1800
"""The lease is renewed every time the rollout is looked at (each minute); half an hour of silence means its owner died."""

WAIT_SECONDS = 60
"""Between two looks at a rollout; alarms evaluate minutes, so looking more often shows nothing new."""

MOVING = ("Creating", "Updating", "SystemUpdating", "RollingBack", "Deleting")
"""Endpoint statuses that will change by themselves."""

STARTING, STARTED, PROMOTED, FAILED, STALE = "STARTING", "STARTED", "PROMOTED", "FAILED", "STALE"
"""A rollout is STARTING before the endpoint is touched and STARTED after; the other three are final."""

FINAL = (PROMOTED, FAILED, STALE)


@dataclass(frozen=True)
class Deployment:
    """One rollout: `champion` is the model it set out to replace, `alarms` the names of the alarms that guard it."""

    model: str
    dataset: str
    status: str
    champion: str
    at: str
    alarms: tuple[str, ...] = ()

    def save(self, ports: Ports) -> None:
        ports.table.put(PARTITION, self.model, {**self.__dict__, "alarms": list(self.alarms)})

    @classmethod
    def from_item(cls, item: Mapping[str, Any]) -> Deployment:
        return cls(
            model=item["model"], dataset=item["dataset"], status=item["status"], champion=item["champion"], at=item["at"],
            alarms=tuple(item["alarms"]),
        )  # fmt: skip


def find(model: str, ports: Ports) -> Deployment | None:
    item = ports.table.get(PARTITION, model)
    return None if item is None else Deployment.from_item(item)


def hold(model: str, ports: Ports) -> None:
    """Take or renew the right to change the endpoint. Raises Retryable while another rollout has it."""
    if not ports.table.acquire_lease(LEASE, model, now=ports.clock.now(), seconds=LEASE_SECONDS):
        raise Retryable(f"another rollout is under way; {model} waits for its lease")
