"""Where ports meet adapters. Nothing is built at import; clients live as long as the worker."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, lru_cache
from typing import Any, cast

import boto3
import botocore.session
from botocore.config import Config

from winnow import layout
from winnow.aws.clock import SystemClock
from winnow.aws.cloudwatch import DeploymentAlarms
from winnow.aws.dynamodb import DynamoTable
from winnow.aws.groundtruth import GroundTruth
from winnow.aws.s3 import DataBucket, PoolBucket
from winnow.aws.sagemaker import Endpoint, ModelRegistry, TrainingJobs
from winnow.aws.settings import Settings
from winnow.aws.sqs import SqsQueues
from winnow.aws.stepfunctions import StateMachines
from winnow.errors import NotFound
from winnow.loop import Loop, parse
from winnow.ports import Images, Models, Parquet, Ports

_CONFIG = Config(
    retries={"mode": "standard", "max_attempts": 5}, connect_timeout=5, read_timeout=60, max_pool_connections=32
)


@dataclass(frozen=True)
class _Clients:
    """boto3 clients, made when first used: a hop that never trains never loads SageMaker's service model."""

    session: Any

    @cache  # noqa: B019 - one instance a worker, and it lives as long as the worker
    def get(self, service: str) -> Any:
        return self.session.client(service, config=_CONFIG)


class _Lazy:
    """Stands in for a client until it is used, so that building the ports costs nothing."""

    def __init__(self, clients: _Clients, service: str) -> None:
        self._clients = clients
        self._service = service

    def __getattr__(self, operation: str) -> Any:
        return getattr(self._clients.get(self._service), operation)


@cache
def _clients(region: str) -> _Clients:
    # Nobody here reads the times in AWS's answers, and parsing them is a fifth of what listing a bucket costs.
    session = botocore.session.get_session()
    session.get_component("response_parser_factory").set_parser_defaults(timestamp_parser=str)
    return _Clients(boto3.session.Session(botocore_session=session, region_name=region))


class _Late:
    """Stands in for an adapter until it is used: what it imports lies in layers that only some functions carry."""

    def __init__(self, make: Callable[[], Any]) -> None:
        self._make = cache(make)

    def __getattr__(self, operation: str) -> Any:
        return getattr(self._make(), operation)


@cache
def _models(settings: Settings, data: DataBucket) -> Models:
    def make() -> Models:
        from winnow.aws.packages import PublishedModels

        return PublishedModels(data)

    return cast(Models, _Late(make))


@cache
def _images() -> Images:
    def make() -> Images:
        from winnow.formats.images import PillowImages

        return PillowImages()

    return cast(Images, _Late(make))


@cache
def _parquet() -> Parquet:
    def make() -> Parquet:
        from winnow.formats.parquet import ParquetFiles

        return ParquetFiles()

    return cast(Parquet, _Late(make))


@cache
def _data(settings: Settings) -> DataBucket:
    return DataBucket(_Lazy(_clients(settings.region), "s3"), settings.data_bucket)


@cache
def _queues(settings: Settings) -> SqsQueues:
    """Kept, because it remembers the addresses of the queues."""
    return SqsQueues(_Lazy(_clients(settings.region), "sqs"), settings.stack)


@lru_cache(maxsize=4)
def _parsed(document: bytes) -> Loop:
    """Reading is cheap, validating is not: a worker validates a version of the file once."""
    return parse(document)


def loop(data: DataBucket) -> Loop:
    """The team's loop.yaml, or all defaults before one was pushed. Raises ConfigError for an invalid one."""
    try:
        return _parsed(data.get(layout.LOOP))
    except NotFound:
        return Loop()


def ports() -> Ports:
    """Everything the steps of this worker may touch, with the loop as it is now."""
    settings = Settings.from_environment()
    clients = _clients(settings.region)
    data = _data(settings)
    policy = loop(data)
    sagemaker = _Lazy(clients, "sagemaker")
    return Ports(
        stack=settings.stack,
        clock=SystemClock(),
        data=data,
        pool=PoolBucket(_Lazy(clients, "s3"), settings.pool_bucket),
        table=DynamoTable(_Lazy(clients, "dynamodb"), settings.stack),
        queues=_queues(settings),
        labeling=GroundTruth(sagemaker, settings, data),
        training=TrainingJobs(sagemaker, settings, data, policy),
        serving=Endpoint(sagemaker, settings, data, policy),
        registry=ModelRegistry(sagemaker, settings),
        alarms=DeploymentAlarms(_Lazy(clients, "cloudwatch"), settings.stack),
        executions=StateMachines(_Lazy(clients, "stepfunctions"), settings),
        models=_models(settings, data),
        images=_images(),
        parquet=_parquet(),
        loop=policy,
    )
