"""Checks every AWS call a hop really makes in the local cloud against the role the template gives it.

The local cloud does not enforce policies (moto's IAM ignores conditions), so a missing permission would show on AWS only.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from botocore.client import BaseClient
from moto.awslambda.models import LambdaFunction

from tests.template.permissions import allows, role_of
from tests.template.stack import ACCOUNT, REGION, STACK
from winnow_local.cloud import LocalCloud

Need = tuple[str, str, Mapping[str, list[str]]]
"""Action, ARN, condition context."""

_SAGEMAKER = {
    "LabelingJobName": "labeling-job", "TrainingJobName": "training-job", "EndpointName": "endpoint", "ModelName": "model",
    "EndpointConfigName": "endpoint-config", "ModelPackageGroupName": "model-package-group",
}  # fmt: skip
_SAME = {
    ("s3", "HeadObject"): "s3:GetObject",
    ("s3", "ListObjectsV2"): "s3:ListBucket",
    ("s3", "ListObjectVersions"): "s3:ListBucketVersions",
    ("s3", "DeleteObjects"): "s3:DeleteObject",
    ("sqs", "SendMessageBatch"): "sqs:SendMessage",
}


@dataclass
class Audit:
    """What was called, and what the caller's role does not allow."""

    calls: set[tuple[str, str]] = field(default_factory=set)
    """Hop and action."""
    denied: set[tuple[str, str, str]] = field(default_factory=set)
    """Hop, action and ARN."""

    def note(self, hop: str, service: str, operation: str, given: Mapping[str, Any]) -> None:
        for action, arn, context in needed(service, operation, given):
            self.calls.add((hop, action))
            if not allows(role_of(hop), action, arn, context):
                self.denied.add((hop, action, arn))


@contextmanager
def audit(cloud: LocalCloud) -> Iterator[Audit]:
    """Listen to what functions call while the block runs; workers in process, which run one at a time."""
    found, call, run = Audit(), BaseClient._make_api_call, cloud.runner
    caller: list[str] = []

    def running(function: LambdaFunction, body: str) -> tuple[str, str | None, str]:
        caller.append(function.function_name.removeprefix(f"{STACK}-"))
        try:
            return run(function, body)
        finally:
            caller.pop()

    def calling(client: Any, operation: str, given: dict[str, Any]) -> Any:
        # The cloud's own clients do what AWS does by itself, and what tests do.
        if caller and all(client is not known for known in list(cloud._clients.values())):
            found.note(caller[-1], client.meta.service_model.service_name, operation, given)
        return call(client, operation, given)

    BaseClient._make_api_call, cloud.runner = calling, running
    try:
        yield found
    finally:
        BaseClient._make_api_call, cloud.runner = call, run


def needed(service: str, operation: str, given: Mapping[str, Any]) -> list[Need]:
    """What IAM asks of the caller of an operation.

    >>> needed("s3", "HeadObject", {"Bucket": "b", "Key": "k"})
    [('s3:GetObject', 'arn:aws:s3:::b/k', {})]
    >>> needed("sagemaker", "ListModels", {"NameContains": "m"})
    [('sagemaker:ListModels', '*', {})]
    """
    prefix = {"stepfunctions": "states"}.get(service, service)
    action = _SAME.get((service, operation), f"{prefix}:{operation}")
    if action == "s3:GetObject" and given.get("VersionId"):
        action = "s3:GetObjectVersion"
    context = {"dynamodb:LeadingKeys": _leading_keys(given)} if service == "dynamodb" else {}
    needs: list[Need] = [(action, arn, context) for arn in _resources(service, operation, given)]
    for key in ("RoleArn", "ExecutionRoleArn"):
        if key in given:
            needs.append(("iam:PassRole", given[key], {"iam:PassedToService": ["sagemaker.amazonaws.com"]}))
    if service == "sagemaker" and given.get("Tags"):
        needs += [("sagemaker:AddTags", arn, {}) for arn in _resources(service, operation, given)]
    return needs


def _leading_keys(given: Mapping[str, Any]) -> list[str]:
    keys = given.get("Key") or given.get("Item") or {}
    return [keys["pk"]["S"]] if "pk" in keys else []


def _resources(service: str, operation: str, given: Mapping[str, Any]) -> list[str]:
    here = f"{REGION}:{ACCOUNT}"
    if service == "s3":
        bucket = f"arn:aws:s3:::{given['Bucket']}"
        keys = (
            [given["Key"]] if "Key" in given else [item["Key"] for item in given.get("Delete", {}).get("Objects", ())]
        )
        return [f"{bucket}/{key}" for key in keys] or [bucket]
    if service == "dynamodb":
        return [f"arn:aws:dynamodb:{here}:table/{given['TableName']}"]
    if service == "sqs":
        return [f"arn:aws:sqs:{here}:{given.get('QueueName') or given['QueueUrl'].rsplit('/', 1)[-1]}"]
    if service == "stepfunctions":
        return [given.get("executionArn") or given["stateMachineArn"]]
    if service == "cloudwatch":
        names = [given["AlarmName"]] if "AlarmName" in given else given.get("AlarmNames", ["*"])
        return [
            f"arn:aws:cloudwatch:{here}:alarm:{name}" for name in (["*"] if operation == "DescribeAlarms" else names)
        ]
    assert service == "sagemaker", f"{service}: say here what {operation} needs"
    if "ModelPackageArn" in given:
        return [given["ModelPackageArn"]]
    named = [f"arn:aws:sagemaker:{here}:{kind}/{given[name]}" for name, kind in _SAGEMAKER.items() if name in given]
    return named or ["*"]
