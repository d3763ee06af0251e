"""SageMaker of the local cloud: one door for its actions, the rules they share, and the model registry.

moto answers SageMaker calls with canned states; here the actions the loop uses are taken over whole, each by a method
of the same name on a service (labeling, training, endpoints, registry): request in, response out.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, ClassVar
from urllib.parse import urlsplit

from botocore import xform_name
from moto.core.responses import ActionResult
from moto.s3.models import s3_backends
from moto.sagemaker.exceptions import ResourceInUseException, ValidationError

from .patches import Patch

if TYPE_CHECKING:
    from moto.sagemaker.responses import SageMakerResponse

    from .cloud import LocalCloud

Request = dict[str, Any]
_TIMES = ("CreationTime", "LastModifiedTime")


class Service:
    """What the four services share: the cloud, its one lock, ARNs, tags and S3."""

    actions: ClassVar[tuple[str, ...]] = ()

    def __init__(self, cloud: LocalCloud, tags: dict[str, dict[str, str]]) -> None:
        self.cloud, self.clock, self._tags, self._lock = cloud, cloud.clock, tags, cloud.gateway.lock

    def arn(self, kind: str, name: str, *, tags: Iterable[dict[str, str]] | None = ()) -> str:
        """The ARN of a resource, whose tags are noted."""
        arn = f"arn:aws:sagemaker:{self.cloud.region}:{self.cloud.account}:{kind}/{name}"
        self._tags.setdefault(arn, {}).update({tag["Key"]: tag["Value"] for tag in tags or ()})
        return arn

    def tell(self, what: str, detail: Request, arn: str) -> None:
        """Emit `SageMaker <what> State Change`."""
        self.cloud.emit_event("aws.sagemaker", f"SageMaker {what} State Change", detail, [arn])

    def get(self, uri: str) -> bytes:
        """The bytes of an S3 object."""
        bucket, key = split_uri(uri)
        body: bytes = self.cloud.client("s3").get_object(Bucket=bucket, Key=key)["Body"].read()
        return body

    def put(self, uri: str, body: bytes) -> None:
        """Write an S3 object, with its event; past botocore, which would take most of a labeling job's time."""
        with self._lock:
            s3_backends[self.cloud.account]["aws"].put_object(*split_uri(uri), body)

    def exists(self, uri: str) -> bool:
        """Whether an S3 object is there."""
        bucket, key = split_uri(uri)
        s3 = self.cloud.client("s3")
        try:
            s3.head_object(Bucket=bucket, Key=key)
        except s3.exceptions.ClientError:
            return False
        return True


class Registry(Service):
    """Model packages by group and version, their approval, and the tags of every SageMaker resource."""

    actions = ("create_model_package_group", "describe_model_package_group", "create_model_package",
               "describe_model_package", "list_model_packages", "update_model_package", "list_tags")  # fmt: skip

    def __init__(self, cloud: LocalCloud, tags: dict[str, dict[str, str]]) -> None:
        super().__init__(cloud, tags)
        self._groups, self._packages, self._tokens = dict[str, Request](), dict[str, Request](), dict[str, str]()

    def create_model_package_group(self, p: Request) -> Request:
        name = p["ModelPackageGroupName"]
        refuse(name in self._groups, f"Model Package Group already exists: {name}")
        arn = self.arn("model-package-group", name, tags=p.get("Tags"))
        made = {"ModelPackageGroupArn": arn, "ModelPackageGroupStatus": "Completed", "CreatedBy": {}}
        self._groups[name] = {**p, **made, "CreationTime": self.clock.now()}
        return {"ModelPackageGroupArn": arn}

    def describe_model_package_group(self, p: Request) -> Request:
        return find(self._groups, p["ModelPackageGroupName"].rsplit("/", 1)[-1], "Model Package Group")

    def create_model_package(self, p: Request) -> Request:
        refuse("ModelPackageGroupName" not in p, "the local cloud keeps versioned packages only: name a group")
        group = self.describe_model_package_group(p)["ModelPackageGroupName"]
        with self._lock:
            if (token := p.get("ClientToken")) in self._tokens:
                return {"ModelPackageArn": self._tokens[token]}
            version = 1 + sum(package["ModelPackageGroupName"] == group for package in self._packages.values())
            arn = self.arn("model-package", f"{group}/{version}", tags=p.get("Tags"))
            self._packages[arn] = {
                "ModelApprovalStatus": "PendingManualApproval", **p, "ModelPackageArn": arn, "ModelPackageVersion": version,
                "ModelPackageGroupName": group, "ModelPackageStatus": "Completed", "CreationTime": self.clock.now(),
                "ModelPackageStatusDetails": {"ValidationStatuses": []},
            }  # fmt: skip
            self._tokens |= {token: arn} if token else {}
        self._tell(arn)
        return {"ModelPackageArn": arn}

    def describe_model_package(self, p: Request) -> Request:
        return find(self._packages, p["ModelPackageName"], "ModelPackage")

    def list_model_packages(self, p: Request) -> Request:
        group, approval = p.get("ModelPackageGroupName", "").rsplit("/", 1)[-1], p.get("ModelApprovalStatus")
        of_group = [one for one in self._packages.values() if group in ("", one["ModelPackageGroupName"])]
        kept = [one for one in of_group if approval in (None, one["ModelApprovalStatus"])]
        return page(kept, p, into="ModelPackageSummaryList", name="ModelPackageArn")

    def update_model_package(self, p: Request) -> Request:
        package = find(self._packages, p["ModelPackageArn"], "ModelPackage")
        customer = {**package.get("CustomerMetadataProperties", {}), **p.pop("CustomerMetadataProperties", {})}
        package.update(p, CustomerMetadataProperties=customer, LastModifiedTime=self.clock.now())
        self._tell(p["ModelPackageArn"])
        return {"ModelPackageArn": p["ModelPackageArn"]}

    def list_tags(self, p: Request) -> Request:
        tags = find(self._tags, p["ResourceArn"], "resource")
        return {"Tags": [{"Key": key, "Value": value} for key, value in tags.items()]}

    def _tell(self, arn: str) -> None:
        told = ("ModelPackageGroupName", "ModelPackageVersion", "ModelPackageArn", "ModelPackageStatus",
                "ModelApprovalStatus", "ApprovalDescription", "CustomerMetadataProperties")  # fmt: skip
        self.tell("Model Package", {key: self._packages[arn][key] for key in told if key in self._packages[arn]}, arn)


def refuse(when: bool, message: str) -> None:
    """Raise SageMaker's ValidationException when the condition holds."""
    if when:
        raise ValidationError(message=message)


def in_use(when: bool, message: str) -> None:
    """Raise ResourceInUse when the condition holds."""
    if when:
        raise ResourceInUseException(message=message)


def find(where: dict[str, Any], name: str, kind: str) -> Any:
    """The named resource. For an absent one SageMaker answers ValidationException, whatever its model says
    (https://github.com/aws/aws-sdk/issues/165)."""
    refuse(name not in where, f'Could not find {kind} "{name}".')
    return where[name]


def page(items: Iterable[Request], p: Request, *, into: str, name: str, status: str = "") -> Request:
    """One page of a List action: the filters, order and token that every SageMaker list has."""
    kept = [
        item for item in items
        if p.get("NameContains", "").lower() in str(item[name]).lower()
        and p.get("StatusEquals", item.get(status)) == item.get(status)
        and all(item[time] > _aware(p[f"{time}After"]) for time in _TIMES if f"{time}After" in p)
        and all(item[time] < _aware(p[f"{time}Before"]) for time in _TIMES if f"{time}Before" in p)
    ]  # fmt: skip
    by = {"Name": name, "Status": status}.get(p.get("SortBy", ""), "CreationTime")
    kept.sort(key=lambda item: item[by], reverse=p.get("SortOrder") == "Descending")
    start, size = int(p.get("NextToken") or 0), int(p.get("MaxResults") or 100)
    more = {"NextToken": str(start + size)} if start + size < len(kept) else {}
    return {into: kept[start : start + size], **more}


def split_uri(uri: str) -> tuple[str, str]:
    """Bucket and key of an `s3://` URI; ValidationException for anything else."""
    parts = urlsplit(uri)
    refuse(parts.scheme != "s3" or not parts.netloc, f"not an S3 URI: {uri}")
    return parts.netloc, uri[len(f"s3://{parts.netloc}/") :]


def install(cloud: LocalCloud) -> None:
    """Give the cloud its registry, labeling, training and endpoints."""
    from . import endpoints, labeling, training

    tags: dict[str, dict[str, str]] = {}
    cloud.registry, cloud.labeling = Registry(cloud, tags), labeling.Labeling(cloud, tags)
    cloud.training, cloud.endpoints = training.Training(cloud, tags), endpoints.Endpoints(cloud, tags)


def patches(service: str, actions: Iterable[str], behaviour: str, *, absent: Iterable[str] = ()) -> tuple[Patch, ...]:
    """Rows of the patch table that hand these actions of the SageMaker API to the cloud's service of that name."""

    def make(action: str) -> Callable[[Any, LocalCloud], Any]:
        def handler(_: Any, cloud: LocalCloud) -> Callable[[SageMakerResponse], ActionResult]:
            return lambda response: ActionResult(getattr(getattr(cloud, service), action)(dict(response._get_params())))

        return handler

    owner = "moto.sagemaker.responses.SageMakerResponse"
    return tuple(Patch(owner, action, behaviour, make(action), action in absent) for action in actions)


def _aware(time: datetime) -> datetime:
    return time if time.tzinfo else time.replace(tzinfo=UTC)


def _loud(original: Callable[[SageMakerResponse], Any], cloud: LocalCloud) -> Callable[[SageMakerResponse], Any]:
    def call_action(self: SageMakerResponse) -> Any:
        action = xform_name(self._get_action())
        if not any(action in one.actions for one in (cloud.registry, cloud.labeling, cloud.training, cloud.endpoints)):
            raise NotImplementedError(f"the local cloud does not simulate SageMaker's {action}")
        return original(self)

    return call_action


PATCHES = (
    Patch("moto.sagemaker.responses.SageMakerResponse", "call_action", "No action answers from a canned state.", _loud),
    *patches("registry", Registry.actions, "A package keeps its metadata, has an approval and tells of it."),
)
