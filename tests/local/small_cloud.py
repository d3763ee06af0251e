"""The part of a local cloud that the SageMaker half stands on: a clock, moto, functions that are plain Python."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any

import boto3
from moto import mock_aws

from winnow_local import patches, sagemaker, stepfunctions  # noqa: F401 - whose patches are needed
from winnow_local.clock import VirtualClock
from winnow_local.endpoints import Endpoints
from winnow_local.labeling import Labeling
from winnow_local.sagemaker import Registry
from winnow_local.training import Training

Event = dict[str, Any]


class SmallCloud:
    """What the real cloud object gives, kept in lists. `drop` decides which events never arrive."""

    account, region = "123456789012", "us-east-1"

    def __init__(self) -> None:
        self.clock = VirtualClock(datetime(2026, 3, 2, 9, tzinfo=UTC))
        self.gateway = SimpleNamespace(lock=threading.RLock())
        self.functions: dict[str, Callable[[Event], Any]] = {}
        self.calls: list[tuple[str, Event, str]] = []
        self.sent: list[Event] = []
        self.metrics: list[tuple[str, str, float, dict[str, str]]] = []
        self.drop: Callable[[Event], bool] = lambda event: False
        self._subscribers: list[tuple[str, Callable[[Event], object]]] = []
        self.cloudwatch = SimpleNamespace(evaluate=lambda names: None, record=self.record)
        self._clients: dict[str, Any] = {}
        self.labeling, self.training, self.endpoints = Labeling(self), Training(self), Endpoints(self)
        self.sagemaker = (Registry(self), self.labeling, self.training, self.endpoints)

    def client(self, service: str) -> Any:
        if service not in self._clients:
            keys = {"aws_access_key_id": "a", "aws_secret_access_key": "b"}
            self._clients[service] = boto3.client(service, region_name=self.region, **keys)
        return self._clients[service]

    def invoke(self, function: str, event: Event, *, invoker: str) -> tuple[Any, Event | None]:
        self.calls.append((function, event, invoker))
        try:
            return self.functions[function.rsplit(":", 1)[-1]](event), None
        except RuntimeError as error:
            return None, {"errorType": type(error).__name__, "errorMessage": str(error)}

    def emit_event(self, source: str, detail_type: str, detail: Event, resources: list[str]) -> None:
        event = {
            "source": source,
            "detail-type": detail_type,
            "detail": json.loads(json.dumps(detail)),
            "resources": resources,
        }
        self.sent.append(event)
        if not self.drop(event):
            self.clock.call_later(0.5, lambda: [tell(event) for kind, tell in self._subscribers if kind == detail_type])

    def subscribe(self, detail_type: str, callback: Callable[[Event], object]) -> None:
        self._subscribers.append((detail_type, callback))

    def record(self, namespace: str, name: str, dims: dict[str, str], value: float) -> None:
        self.metrics.append((namespace, name, value, dims))

    def told(self, detail_type: str, key: str) -> list[Any]:
        """One detail field of every event of a type, in order."""
        return [event["detail"][key] for event in self.sent if event["detail-type"] == detail_type]

    def put(self, key: str, body: bytes | str, *, bucket: str = "data") -> str:
        self.client("s3").put_object(Bucket=bucket, Key=key, Body=body)
        return f"s3://{bucket}/{key}"

    def read(self, uri: str) -> bytes:
        bucket, key = sagemaker.split_uri(uri)
        body: bytes = self.client("s3").get_object(Bucket=bucket, Key=key)["Body"].read()
        return body


@contextmanager
def small_cloud() -> Iterator[SmallCloud]:
    """A fresh cloud with the SageMaker half's patches in force and a bucket called data."""
    half = ("moto.sagemaker", "moto.stepfunctions", "moto.core.utils")
    rows = [row for row in patches.TABLE if row.owner.startswith(half)]
    with mock_aws():
        cloud = SmallCloud()
        with patches.applied(cloud, rows):  # type: ignore[arg-type]
            cloud.client("s3").create_bucket(Bucket="data")
            try:
                yield cloud
            finally:
                cloud.endpoints.close()
