"""Which stack a command speaks to: names from settings, clients from the user's own AWS configuration."""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import Any
from urllib.parse import urlsplit

import boto3
from botocore.exceptions import BotoCoreError, ClientError

from winnow.aws.s3 import DataBucket
from winnow.aws.settings import Settings
from winnow_cli.errors import UsageError

LOOPBACK = ("127.0.0.1", "localhost", "::1")
LOCAL_REGION = "us-east-1"


@dataclass(frozen=True)
class Stack:
    """A deployed stack and the session that reaches it."""

    settings: Settings
    session: Any

    def client(self, service: str) -> Any:
        return self.session.client(service, region_name=self.settings.region)

    @cached_property
    def data(self) -> DataBucket:
        """The stack's own bucket."""
        return DataBucket(self.client("s3"), self.settings.data_bucket)

    def environment(self) -> dict[str, str]:
        """What functions of this stack find in their environment, as far as names need it."""
        return {
            "WINNOW_STACK": self.settings.stack,
            "WINNOW_ACCOUNT": self.settings.account,
            "AWS_REGION": self.settings.region,
        }


def connect(given: argparse.Namespace) -> Stack:
    """The stack of `--stack` and `--region`; asks STS which account this is. Raises UsageError with the remedy."""
    _local_credentials()
    session = boto3.Session(region_name=given.region)
    region = session.region_name or (LOCAL_REGION if _is_local() else None)
    if region is None:
        raise UsageError("no region: say --region, or set AWS_REGION")
    with explained(f"stack {given.stack!r}"):
        account = session.client("sts", region_name=region).get_caller_identity()["Account"]
    return Stack(
        Settings.from_environment({"WINNOW_STACK": given.stack, "WINNOW_ACCOUNT": account, "AWS_REGION": region}),
        session,
    )


@contextmanager
def explained(what: str) -> Iterator[None]:
    """AWS errors as one sentence that names what was asked for, and the likely remedy."""
    try:
        yield
    except ClientError as error:
        code = error.response["Error"]["Code"]
        remedy = {
            "NoSuchBucket": "is the stack deployed in this account and region? (--stack, --region)",
            "ResourceNotFoundException": "is the stack deployed in this account and region? (--stack, --region)",
            "ExpiredToken": "sign in again",
            "ExpiredTokenException": "sign in again",
            "AccessDenied": "your credentials do not allow it",
            "AccessDeniedException": "your credentials do not allow it",
        }.get(code, "")
        raise UsageError(f"{what}: {error}{f'; {remedy}' if remedy else ''}") from error
    except BotoCoreError as error:
        target = os.environ.get("AWS_ENDPOINT_URL")
        hint = (
            f"is the local cloud at {target} up? (winnow local up)"
            if target
            else "check your AWS credentials and region"
        )
        raise UsageError(f"{what}: {error}; {hint}") from error


def _is_local() -> bool:
    return urlsplit(os.environ.get("AWS_ENDPOINT_URL", "")).hostname in LOOPBACK


def _local_credentials() -> None:
    """A local cloud takes any credentials, but every AWS client insists on having some."""
    if _is_local() and boto3.Session().get_credentials() is None:
        os.environ.update(AWS_ACCESS_KEY_ID="local", AWS_SECRET_ACCESS_KEY="local")  # noqa: S106
