"""Deploying the SAM template: expanded as CloudFormation would, made by moto, and by API calls where moto lacks a type.

Local paths go to an artifact bucket first, as `sam package` sends them. A resource type nobody knows is an error.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import boto3
import yaml
from botocore import xform_name
from botocore.exceptions import ClientError
from moto.cloudformation.exceptions import ValidationError
from moto.cloudformation.parsing import clean_json
from moto.core.exceptions import ServiceException
from moto.s3.models import s3_backends
from samtranslator.parser.parser import Parser
from samtranslator.translator.translator import Translator
from samtranslator.yaml_helper import intrinsics_multi_constructor
from werkzeug.exceptions import HTTPException

from .patches import Patch, refusal

if TYPE_CHECKING:
    from .cloud import LocalCloud

ARTIFACTS = "winnow-local-artifacts"
Properties = dict[str, Any]
_LOCAL = {
    "AWS::Serverless::Function": "CodeUri", "AWS::Serverless::LayerVersion": "ContentUri",
    "AWS::Serverless::StateMachine": "DefinitionUri", "AWS::Serverless::Application": "Location",
}  # fmt: skip
_MANAGED = ("AWSLambdaBasicExecutionRole", "AWSLambdaSQSQueueExecutionRole", "AWSXRayDaemonWriteAccess")


class _Loader(yaml.CSafeLoader):
    """YAML with CloudFormation's short intrinsics."""


_Loader.add_multi_constructor("!", intrinsics_multi_constructor)


class Deployment:
    """One deployed stack: its outputs, and by artifact key where the code of its functions lies."""

    def __init__(self, cloud: LocalCloud, template: Path, *, stack: str, parameters: dict[str, str]) -> None:
        self._artifacts, self.code = s3_backends[cloud.account]["aws"], dict[str, Path]()
        self._artifacts.create_bucket(ARTIFACTS, cloud.region)
        document = _read(template)
        for resource in document["Resources"].values():
            if (name := _LOCAL.get(resource["Type"])) is not None:
                resource["Properties"][name] = self._packaged(template.parent / resource["Properties"][name], name)
        if "Transform" in document:
            arns = {name: f"arn:aws:iam::aws:policy/service-role/{name}" for name in _MANAGED}
            translator = Translator(arns, Parser(), boto_session=boto3.Session(region_name=cloud.region))
            document = translator.translate(document, {"AWS::Region": cloud.region, **parameters})
        check_parameters(document, parameters)
        client = cloud.client("cloudformation")
        client.create_stack(
            StackName=stack, TemplateURL=self._upload(json.dumps(document).encode(), name="template"),
            Parameters=[{"ParameterKey": name, "ParameterValue": value} for name, value in parameters.items()],
            Capabilities=["CAPABILITY_NAMED_IAM", "CAPABILITY_AUTO_EXPAND"],
        )  # fmt: skip
        (made,) = client.describe_stacks(StackName=stack)["Stacks"]
        self.outputs = {output["OutputKey"]: output["OutputValue"] for output in made.get("Outputs", [])}

    def _packaged(self, path: Path, name: str) -> Any:
        """Where the artifact is now; of a folder, which functions run from where it lies, only its path is sent."""
        if name == "Location":
            return self._upload(json.dumps(_read(path)).encode(), name=path.name)
        body = path.read_bytes() if path.is_file() else str(path.resolve(strict=True)).encode()
        key = self._upload(body, name=path.name).rsplit("/", 1)[-1]
        self.code[key] = path
        return {"Bucket": ARTIFACTS, "Key": key}

    def _upload(self, body: bytes, *, name: str) -> str:
        key = f"{hashlib.sha256(body).hexdigest()[:16]}-{name}"
        self._artifacts.put_object(ARTIFACTS, key, body)
        return f"https://s3.amazonaws.com/{ARTIFACTS}/{key}"


def _read(template: Path) -> dict[str, Any]:
    return dict(yaml.load(template.read_text(), Loader=_Loader))  # a safe loader


def check_parameters(template: dict[str, Any], parameters: dict[str, str]) -> None:
    """ValidationError unless every parameter is declared, given where needed, and within its constraints."""
    declared = template.get("Parameters", {})
    for name in parameters.keys() - declared.keys():
        raise ValidationError(message=f"Parameters: [{name}] do not exist in the template")
    for name, slot in declared.items():
        value = parameters.get(name, slot.get("Default"))
        if value is None:
            raise ValidationError(message=f"Parameters: [{name}] must have values")
        allowed = str(value) in map(str, slot.get("AllowedValues", [value]))
        allowed &= re.fullmatch(slot.get("AllowedPattern", ".*"), str(value), re.DOTALL) is not None
        allowed &= "MinValue" not in slot or float(value) >= float(slot["MinValue"])
        if not allowed or ("MaxValue" in slot and float(value) > float(slot["MaxValue"])):
            told = slot.get("ConstraintDescription", "refused")
            raise ValidationError(message=f"Parameter {name} is {value!r}: {told}")


def call(cloud: LocalCloud, service: str, operation: str, given: Properties) -> dict[str, Any]:
    """An API action with a resource's properties, whose strings become the numbers and booleans the API wants."""
    client = cloud.client(service)
    shape = client.meta.service_model.operation_model(operation).input_shape
    return dict(getattr(client, xform_name(operation))(**_coerced(shape, given)))


def _coerced(shape: Any, value: Any) -> Any:
    if shape.type_name == "structure":
        if unknown := sorted(value.keys() - shape.members.keys()):
            raise NotImplementedError(f"{shape.name} has no {', '.join(unknown)}")
        return {name: _coerced(shape.members[name], inner) for name, inner in value.items()}
    if shape.type_name == "list":
        return [_coerced(shape.member, inner) for inner in value]
    if shape.type_name == "map":
        return {name: _coerced(shape.value, inner) for name, inner in value.items()}
    if shape.type_name == "boolean":
        return str(value).lower() == "true"
    if shape.type_name == "string":
        return json.dumps(value) if isinstance(value, dict) else str(value)
    return {"integer": int, "double": float}.get(shape.type_name, lambda same: same)(value)


def _machine(cloud: LocalCloud, given: Properties) -> list[Properties]:
    place = given["DefinitionS3Location"]
    text = cloud.client("s3").get_object(Bucket=place["Bucket"], Key=place["Key"])["Body"].read().decode()
    for name, value in given.get("DefinitionSubstitutions", {}).items():
        text = text.replace(f"${{{name}}}", str(value))
    if left := re.search(r"\$\{\w+\}", text):
        raise ValidationError(message=f"the definition of {given['StateMachineName']} keeps {left.group()}")
    return [{"name": given["StateMachineName"], "roleArn": given["RoleArn"], "definition": text}]


def _topic_policy(_: LocalCloud, given: Properties) -> list[Properties]:
    policy = {"AttributeName": "Policy", "AttributeValue": given["PolicyDocument"]}
    return [{"TopicArn": topic, **policy} for topic in given["Topics"]]


def _queue_policy(_: LocalCloud, given: Properties) -> list[Properties]:
    return [{"QueueUrl": queue, "Attributes": {"Policy": given["PolicyDocument"]}} for queue in given["Queues"]]


def _same(_: LocalCloud, given: Properties) -> list[Properties]:
    """The API's own names; `$LATEST` is no qualifier but the function itself."""
    names = {"PolicyDocument": "Policy", "TargetFunctionArn": "FunctionName"}
    return [
        {names.get(name, name): value for name, value in given.items() if (name, value) != ("Qualifier", "$LATEST")}
    ]


MADE: dict[str, tuple[str, str, str, Callable[[LocalCloud, Properties], list[Properties]]]] = {
    "AWS::CloudWatch::Alarm": ("cloudwatch", "PutMetricAlarm", "AlarmName", _same),
    "AWS::CloudWatch::CompositeAlarm": ("cloudwatch", "PutCompositeAlarm", "AlarmName", _same),
    "AWS::Lambda::EventInvokeConfig": ("lambda", "PutFunctionEventInvokeConfig", "FunctionName", _same),
    "AWS::Lambda::LayerVersion": ("lambda", "PublishLayerVersion", "LayerVersionArn", _same),
    "AWS::Lambda::Url": ("lambda", "CreateFunctionUrlConfig", "FunctionArn", _same),
    "AWS::S3::BucketPolicy": ("s3", "PutBucketPolicy", "Bucket", _same),
    "AWS::SNS::Subscription": ("sns", "Subscribe", "SubscriptionArn", _same),
    "AWS::SNS::TopicPolicy": ("sns", "SetTopicAttributes", "Topics", _topic_policy),
    "AWS::SQS::QueuePolicy": ("sqs", "SetQueueAttributes", "Queues", _queue_policy),
    "AWS::SageMaker::ModelPackageGroup": ("sagemaker", "CreateModelPackageGroup", "ModelPackageGroupName", _same),
    "AWS::Scheduler::Schedule": ("scheduler", "CreateSchedule", "Name", _same),
    "AWS::StepFunctions::StateMachine": ("stepfunctions", "CreateStateMachine", "stateMachineArn", _machine),
}
"""By type: the API action that makes it, the member of properties or answer that is its `Ref`, and the requests."""


class _Made:
    """A made resource as moto's CloudFormation sees it."""

    def __init__(self, cloud: LocalCloud, kind: str, given: Properties, *, logical_id: str) -> None:
        service, operation, reference, requests = MADE[kind]
        answers = [call(cloud, service, operation, asked) for asked in requests(cloud, given)]
        self._attributes = {**given, **answers[-1]}
        self.physical_resource_id = str(self._attributes[reference])
        if service == "cloudwatch":
            self._attributes["Arn"] = f"arn:aws:cloudwatch:{cloud.region}:{cloud.account}:alarm:{given['AlarmName']}"
        self.cf_resource_type, self.logical_resource_id = kind, logical_id

    @classmethod
    def has_cfn_attr(cls, _: str) -> bool:
        """Asked before anything is made."""
        return True

    def is_created(self) -> bool:
        """Everything here is made at once."""
        return True

    def get_cfn_attribute(self, name: str) -> Any:
        """Fn::GetAtt; an attribute nobody filled in is an error."""
        found = self._attributes.get(name, self.physical_resource_id if name == "Arn" else None)
        if found is None:
            raise KeyError(f"the local cloud has no attribute {name} of {self.physical_resource_id}")
        return found


def _class(original: Any, _: LocalCloud) -> Any:
    def find(kind: str) -> Any:
        found = _Made if kind in MADE else original(kind)
        if found is None or kind.startswith("Custom::"):
            raise NotImplementedError(f"the local cloud has no resource type {kind}")
        return found

    return find


def _create(original: Any, cloud: LocalCloud) -> Any:
    def create(logical_id: str, resource: dict[str, Any], known: Any, *args: Any, **more: Any) -> Any:
        kind, condition = resource["Type"], resource.get("Condition")
        if condition and not known.lazy_condition_map[condition]:
            return None
        try:
            given = clean_json(resource.get("Properties", {}), known)
            if kind in MADE:
                return _Made(cloud, kind, given, logical_id=logical_id)
            made = original(logical_id, resource, known, *args, **more)
            if kind == "AWS::S3::Bucket":
                _configure(cloud, made.name, given)
            return made
        except ValidationError:
            raise
        except (ServiceException, HTTPException, ClientError) as error:
            raise ValidationError(message=f"{logical_id} could not be made: {error}") from error

    return create


def _configure(cloud: LocalCloud, bucket: str, given: Properties) -> None:
    """What moto's own bucket leaves out and something here depends on."""
    told = {name: {} for name in given.get("NotificationConfiguration", {})}
    if told.keys() - {"EventBridgeConfiguration"}:
        raise NotImplementedError(f"{bucket}: the local cloud tells S3 events to EventBridge only")
    call(cloud, "s3", "PutBucketNotificationConfiguration", {"Bucket": bucket, "NotificationConfiguration": told})
    if versioning := given.get("VersioningConfiguration"):
        call(cloud, "s3", "PutBucketVersioning", {"Bucket": bucket, "VersioningConfiguration": versioning})


def _existing(_: Any, __: LocalCloud) -> Any:
    return property(lambda stack: [each for each in stack.resource_map.values() if each is not None])


_PARSING, _STACK = "moto.cloudformation.parsing", "moto.cloudformation.models.Stack"
PATCHES = (
    Patch(_PARSING, "resource_class_from_type", "Unknown types fail the stack.", _class),
    Patch(_PARSING, "parse_and_create_resource", "Types moto lacks are made; a failed stack names the resource.", _create),
    Patch(_STACK, "parse_template", "Templates arrive as JSON and are read as JSON.", lambda *_: staticmethod(json.loads)),
    Patch(_STACK, "stack_resources", "What a condition leaves out is not listed.", _existing),
    Patch(_STACK, "update", "A stack is updated in place; here that is refused.", refusal("update stacks")),
)  # fmt: skip
