"""Faults, put upon an open local cloud from outside: requests that fail, events that are lost, doubled or late."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

from botocore.awsrequest import AWSResponse
from moto.core.botocore_stubber import BotocoreStubber, MockRawResponse

from winnow_local import speed
from winnow_local.cloud import LocalCloud

Event = dict[str, Any]
Picks = Callable[[Event], bool]
BUSY = '{"__type":"ServiceUnavailable","message":"Please try again."}'


@contextmanager
def failing(service: str, operation: str, times: int = 1, *, reply_lost: bool = False) -> Iterator[None]:
    """The next attempts at `s3`, `PutObject` answer 503, before they act or (reply_lost) after; retries do not wait."""
    act = BotocoreStubber.__call__

    def answer(self: BotocoreStubber, event_name: str, request: Any, **given: Any) -> AWSResponse | None:
        nonlocal times
        if times == 0 or event_name != f"before-send.{service}.{operation}":
            return act(self, event_name, request, **given)
        times -= 1
        if reply_lost:
            act(self, event_name, request, **given)
        return AWSResponse(request.url, 503, {}, MockRawResponse(BUSY))

    at_once = SimpleNamespace(time=time.time, sleep=lambda seconds: None)
    with (
        patch.object(BotocoreStubber, "__call__", answer),
        patch("botocore.endpoint.time", at_once),
        patch.dict(speed.PLAIN, clear=True),
    ):
        yield


def drop(cloud: LocalCloud, picks: Picks = lambda _: True, *, times: int = 1) -> None:
    """The next events that `picks` picks never arrive."""
    _publish(cloud, picks, times, copies=0)


def duplicate(cloud: LocalCloud, picks: Picks = lambda _: True, *, copies: int = 2, times: int = 1) -> None:
    """The next events that `picks` picks arrive `copies` times."""
    _publish(cloud, picks, times, copies=copies)


def delay(cloud: LocalCloud, seconds: float, picks: Picks = lambda _: True, *, times: int = 1) -> None:
    """The next events that `picks` picks arrive late, and so out of order."""
    _publish(cloud, picks, times, lag=seconds)


def _publish(cloud: LocalCloud, picks: Picks, times: int, *, copies: int = 1, lag: float = 0.0) -> None:
    publish = cloud.events.publish

    def faulty(event: Event, *, late: float = 0.0) -> None:
        nonlocal times
        if times and picks(event):
            times -= 1
            for _ in range(copies):
                publish(event, late=late + lag)
        else:
            publish(event, late=late)

    cloud.events.publish = faulty  # type: ignore[method-assign]
