"""SageMaker of the local cloud: one door for its actions, the rules they share, and the model registry.

moto answers SageMaker calls with canned states, so none reaches it: an action is the method of that name on one of four
services (registry, labeling, training, endpoints), request in, response out. Any other action raises NotImplementedError.
"""

from __future__ import annotations

from collections import defaultdict
from functools import partial
from typing import Any, ClassVar

from botocore import xform_name
from moto.core.exceptions import ServiceException
from moto.core.responses import ActionResult
from moto.s3.models import s3_backends
from moto.sagemaker.exceptions import ResourceInUseException, ValidationError

from .patches import Cloud, patched

Request = dict[str, Any]
_RESPONSE = "moto.sagemaker.responses.SageMakerResponse"


class Service:
    """What the four services share: the cloud, its clock, S3, and resources by kind (such as `Model`) and name.

    `plain` actions only show or drop resources: action -> kind, and for a List action the member it answers with.
    """

    plain: ClassVar[dict[str, str]] = {}

    def __init__(self, cloud: Cloud) -> None:
        self.cloud, self.clock = cloud, cloud.clock
        self._kept: dict[str, dict[str, Request]] = defaultdict(dict)
        for action, of in self.plain.items():
            act = {"list": self.listed, "delete": self.drop}.get(action.split("_")[0], self.find)
            setattr(self, action, partial(act, *of.split()))

    def get(self, uri: str) -> bytes:
        """The bytes of an S3 object; ValidationException when there is none."""
        with self.cloud.gateway.lock:
            key = s3_backends[self.cloud.account]["aws"].get_object(*split_uri(uri))
        refuse(key is None, f"Could not access S3 object {uri}")
        return bytes(key.value)

    def put(self, uri: str, body: bytes) -> None:
        """Write an S3 object, with its event; past botocore, which would take most of a labeling job's time."""
        with self.cloud.gateway.lock:
            s3_backends[self.cloud.account]["aws"].put_object(*split_uri(uri), body)

    def arn(self, kind: str, name: str) -> str:
        """The ARN of a resource: names are in lower case there."""
        return f"arn:aws:sagemaker:{self.cloud.region}:{self.cloud.account}:{kind}/{name.lower()}"

    def tell(self, what: str, arn: str, **detail: str) -> None:
        """Emit `SageMaker <what> State Change`."""
        self.cloud.emit_event("aws.sagemaker", f"SageMaker {what} State Change", detail, [arn])

    def keep(self, kind: str, p: Request, **shown: Any) -> Request:
        """Keep a new resource and give it as Describe shows it. Names are taken whatever their case."""
        name, where = p[f"{kind}Name"], self._kept[kind]
        if name.lower() in where:
            clash = ResourceInUseException if kind.endswith("Job") else ValidationError
            raise clash(f"Cannot create already existing {kind} {name}")
        arn, now = self.arn(xform_name(kind).replace("_", "-"), name), self.clock.now()
        where[name.lower()] = {**p, f"{kind}Arn": arn, "CreationTime": now, "LastModifiedTime": now, **shown}
        return where[name.lower()]

    def find(self, kind: str, p: Request) -> Request:
        """The resource a request names; ValidationException for an absent one, whatever the model says (aws/aws-sdk#165)."""
        name, where = p[f"{kind}Name"], self._kept[kind]
        refuse(name.lower() not in where, f'Could not find {kind} "{name}".')
        return where[name.lower()]

    def drop(self, kind: str, p: Request) -> Request:
        """Forget the resource a request names."""
        self.find(kind, p)
        del self._kept[kind][p[f"{kind}Name"].lower()]
        return {}

    def listed(self, kind: str, into: str, p: Request) -> Request:
        """What a List action answers: everything in one page, oldest first."""
        only(p, "NameContains")
        return {into: [row for name, row in self._kept[kind].items() if p.get("NameContains", "").lower() in name]}


class Registry(Service):
    """Model packages by group and version, and their approval."""

    plain: ClassVar = {"delete_model_package": "ModelPackage"}

    def delete_model_package_group(self, p: Request) -> Request:
        refuse(bool(self.list_model_packages(p)["ModelPackageSummaryList"]), "a group that holds packages stays")
        return self.drop("ModelPackageGroup", p)

    def create_model_package_group(self, p: Request) -> Request:
        return self.keep("ModelPackageGroup", p)

    def create_model_package(self, p: Request) -> Request:
        group = self.find("ModelPackageGroup", p)["ModelPackageGroupName"]
        made = self.list_model_packages({"ModelPackageGroupName": group})["ModelPackageSummaryList"]
        for package in (package for package in made if package["ClientToken"] == p["ClientToken"]):
            return package
        arn = self.arn("model-package", f"{group}/{len(made) + 1}")
        about = {"ModelPackageArn": arn, "ModelPackageVersion": len(made) + 1}
        return self.keep("ModelPackage", {"ModelPackageName": arn, **p}, **about)

    def list_model_packages(self, p: Request) -> Request:
        only(p, "ModelPackageGroupName")
        rows = self._kept["ModelPackage"].values()
        return {"ModelPackageSummaryList": [one for one in rows if p.items() <= one.items()]}

    def update_model_package(self, p: Request) -> Request:
        only(p, "ModelPackageArn ModelApprovalStatus ApprovalDescription")
        self.find("ModelPackage", {"ModelPackageName": p["ModelPackageArn"]}).update(p)
        return {"ModelPackageArn": p["ModelPackageArn"]}


def refuse(when: bool, message: str) -> None:
    """Raise SageMaker's ValidationException when the condition holds."""
    if when:
        raise ValidationError(message)


def only(given: Request, known: str) -> None:
    """NotImplementedError for a member on which nothing here acts."""
    if unknown := sorted(set(given) - set(known.split())):
        raise NotImplementedError(f"the local cloud does not simulate {', '.join(unknown)}")


def split_uri(uri: str) -> tuple[str, str]:
    """Bucket and key of an `s3://` URI; ValidationException for anything else."""
    bucket, _, key = uri.removeprefix("s3://").partition("/")
    refuse(not uri.startswith("s3://") or not bucket, f"not an S3 URI: {uri}")
    return bucket, key


@patched(_RESPONSE, "call_action", "Jobs, models, endpoints and packages live; nothing is canned.")
def _served(cloud: Cloud, _: Any, response: Any) -> Any:
    action = xform_name(response._get_action())
    act = next((getattr(service, action) for service in cloud.sagemaker if hasattr(service, action)), None)
    if act is None:
        raise NotImplementedError(f"the local cloud does not simulate SageMaker's {action}")
    try:
        return response.serialized(ActionResult(act(dict(response._get_params()))))
    except ServiceException as error:
        return response.serialized(ActionResult(error))
