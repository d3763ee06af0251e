"""The local cloud: one AWS account in this process, with the shipped template deployed into it, under one virtual clock.

    with LocalCloud(Path("template.yaml"), parameters={...}) as cloud:
        cloud.client("s3").put_object(Bucket=cloud.outputs["PoolBucket"], Key="a.txt", Body=b"...")
        cloud.run_until_idle()
        cloud.advance(days=3)

Inside the block every boto3 client of this process speaks to it; there is one local cloud in a process at a time.
"""

from __future__ import annotations

import json
import os
import sys
import threading
from collections.abc import Callable, Iterable
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal, Self
from unittest.mock import patch

import boto3
from moto import mock_aws
from moto.awslambda.models import lambda_backends
from moto.core.models import botocore_stubber
from moto.moto_api._internal import mock_random

from . import invoke, patches, queues, speed, stepfunctions  # noqa: F401 - some only patch
from .clock import VirtualClock
from .cloudwatch import CloudWatch
from .deploy import deploy
from .endpoints import Endpoints
from .events import Events
from .gateway import Gateway
from .labeling import Labeling
from .sagemaker import Registry
from .training import Training


class LocalCloud:
    """One account with one stack in it.

    `workers` runs functions in process or under awslambdaric; `layers` are the folders functions import from, the
    template's `layers/core` by default.
    """

    account = "123456789012"

    def __init__(
        self, template: Path | None, *, stack: str = "winnow", parameters: dict[str, str] | None = None,
        region: str = "us-east-1", workers: Literal["inprocess", "awslambdaric"] = "inprocess",
        start: datetime = datetime(2026, 3, 2, 8, tzinfo=UTC), seed: int = 0, layers: Iterable[Path] | None = None,
    ) -> None:  # fmt: skip
        self._template, self._parameters = template and Path(template).absolute(), parameters or {}
        self.stack, self.region, self.workers, self._seed = stack, region, workers, seed
        here = self._template.parent if self._template else Path()
        self.layers, self.outputs = [here / "layers" / "core"] if layers is None else list(layers), dict[str, str]()
        self.clock = VirtualClock(start)
        self.gateway = Gateway()
        self.cloudwatch, self.events = CloudWatch(self), Events(self, seed=seed)
        self.lambdas = invoke.Lambdas(self)
        self.emit_event, self.subscribe = self.events.emit, self.events.subscribe
        self.invocations, self.runner = self.lambdas.invocations, self.lambdas.run
        self.labeling, self.training, self.endpoints = Labeling(self), Training(self), Endpoints(self)
        self.sagemaker = (Registry(self), self.labeling, self.training, self.endpoints)
        self._clients, self._clients_lock, self._open = dict[str, Any](), threading.RLock(), ExitStack()

    def __enter__(self) -> Self:
        with ExitStack() as opening:  # what it is given ends with the cloud, or when the start fails, in reverse order
            enter = opening.enter_context
            here = {"AWS_REGION": self.region, "AWS_DEFAULT_REGION": self.region, "POWERTOOLS_TRACE_DISABLED": "true"}
            if botocore_stubber.enabled:
                raise RuntimeError("another local cloud is open in this process; close it first")
            enter(mock_aws())
            enter(patch.dict(os.environ, here))
            mock_random.seed(self._seed)
            self.lambda_backend = lambda_backends[self.account][self.region]
            enter(patches.applied(self))
            enter(patch.object(sys, "path", [*map(str, self.layers), *sys.path]))
            opening.callback(self.endpoints.close)
            self._session = boto3.Session(region_name=self.region)
            for name, module in list(sys.modules.items()):
                for value in vars(module).values() if name.startswith("winnow.aws") else ():
                    getattr(value, "cache_clear", int)()  # it is wired to an earlier cloud's environment and clients
            enter(patch("winnow.aws.clock._time", self.clock.time))  # the product's seam
            opening.callback(self.lambdas.opened.close)
            if self._template:
                self.outputs = deploy(self, self._template, stack=self.stack, parameters=self._parameters)
            functions = self.lambda_backend.list_functions()
            if shared := [set(invoke.environment_of(function).items()) for function in functions]:
                enter(patch.dict(os.environ, dict(set.intersection(*shared))))
            self._open = opening.pop_all()
        return self

    def close(self, *_: object) -> None:
        """End the cloud; what was patched is as before."""
        self._open.close()

    __exit__ = close

    def client(self, service: str) -> Any:
        """A boto3 client of this cloud; made once, safe for several threads."""
        with self._clients_lock:
            if service not in self._clients:
                self._clients[service] = self._session.client(service, region_name=self.region)
            return self._clients[service]

    def invoke(self, function: str, event: Any, *, invoker: str = "direct") -> tuple[Any, dict[str, Any] | None]:
        """Call a function by name or ARN: its result, or the error as the runtime reports it."""
        payload, error, _ = self.lambdas.invoke(function, event, invoker=invoker)
        answer = json.loads(payload)
        return (answer, None) if error is None else (None, answer)

    def run_until_idle(self) -> None:
        """Let everything under way finish, waits and retries included; schedules alone do not keep it going."""
        self.clock.run()

    def advance(self, *, hours: float = 0, days: float = 0) -> None:
        """Live through so much time."""
        self.clock.run(until=self.clock.time() + hours * 3600 + days * 86400)

    def run(self, *, condition: Callable[[], bool], limit_days: float = 365) -> bool:
        """Live until the condition holds, at most so long; whether it does."""
        return self.clock.run(until=self.clock.time() + limit_days * 86400, condition=condition)
