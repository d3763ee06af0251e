"""Deploying the SAM template: expanded as CloudFormation would, made by moto, and by API calls where moto lacks a type.

Local paths become the keys of an artifact bucket first, as `sam package` sends them. A resource type nobody knows is an
error.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import yaml
from botocore import xform_name
from botocore.exceptions import BotoCoreError, ClientError
from moto.cloudformation.custom_model import CustomModel
from moto.cloudformation.exceptions import ValidationError
from moto.cloudformation.parsing import clean_json
from moto.core.exceptions import ServiceException
from moto.s3.models import s3_backends
from samtranslator.internal.managed_policies import get_bundled_managed_policy_map
from samtranslator.parser.parser import Parser
from samtranslator.translator.translator import Translator
from samtranslator.yaml_helper import intrinsics_multi_constructor
from werkzeug.exceptions import HTTPException

from .patches import Cloud, patched, refused

ARTIFACTS = "winnow-local-artifacts"
Properties = dict[str, Any]
MADE: dict[str, tuple[str, str, str]] = {
    "AWS::CloudWatch::Alarm": ("cloudwatch", "PutMetricAlarm", "AlarmName"),
    "AWS::CloudWatch::CompositeAlarm": ("cloudwatch", "PutCompositeAlarm", "AlarmName"),
    "AWS::Lambda::EventInvokeConfig": ("lambda", "PutFunctionEventInvokeConfig", "FunctionName"),
    "AWS::Lambda::LayerVersion": ("lambda", "PublishLayerVersion", "LayerVersionArn"),
    "AWS::Lambda::Url": ("lambda", "CreateFunctionUrlConfig", "FunctionArn"),
    "AWS::S3::BucketPolicy": ("s3", "PutBucketPolicy", "Bucket"),
    "AWS::SNS::Subscription": ("sns", "Subscribe", "SubscriptionArn"),
    "AWS::SNS::TopicPolicy": ("sns", "SetTopicAttributes", "Topics"),
    "AWS::SQS::QueuePolicy": ("sqs", "SetQueueAttributes", "Queues"),
    "AWS::SageMaker::ModelPackageGroup": ("sagemaker", "CreateModelPackageGroup", "ModelPackageGroupName"),
    "AWS::Scheduler::Schedule": ("scheduler", "CreateSchedule", "Name"),
    "AWS::StepFunctions::StateMachine": ("stepfunctions", "CreateStateMachine", "stateMachineArn"),
}
"""By type: the API action that makes it, and the member of properties or answer that is its `Ref`."""
_API_NAMES = {"PolicyDocument": "Policy", "TargetFunctionArn": "FunctionName"}
_LOCAL = {
    "AWS::Serverless::Function": "CodeUri", "AWS::Serverless::LayerVersion": "ContentUri",
    "AWS::Serverless::StateMachine": "DefinitionUri", "AWS::Serverless::Application": "Location",
}  # fmt: skip
_PARSING, _STACK = "moto.cloudformation.parsing", "moto.cloudformation.models.Stack"
_Loader = type("_Loader", (yaml.CSafeLoader,), {})  # YAML with the short intrinsics, such as !Ref
_Loader.add_multi_constructor("!", intrinsics_multi_constructor)


def deploy(cloud: Cloud, template: Path, *, stack: str, parameters: dict[str, str]) -> dict[str, str]:
    """Deploy a template with the code, definitions and stacks it refers to; gives its outputs."""
    s3_backends[cloud.account]["aws"].create_bucket(ARTIFACTS, cloud.region)
    document = _read(template)
    for resource in document["Resources"].values():
        if name := _LOCAL.get(resource["Type"]):
            given = resource["Properties"]
            path = (template.parent / given[name]).resolve(strict=True)
            url = _upload(cloud, path, _read(path) if path.is_file() else {})
            given[name] = url if name == "Location" else {"Bucket": ARTIFACTS, "Key": str(path)}
    if "Transform" in document:
        translator = Translator(get_bundled_managed_policy_map("aws"), Parser())
        document = translator.translate(document, {"AWS::Region": cloud.region, **parameters})
    if unknown := parameters.keys() - document.get("Parameters", {}).keys():
        raise ValidationError(message=f"Parameters: [{', '.join(unknown)}] do not exist in the template")
    client = cloud.client("cloudformation")
    client.create_stack(
        StackName=stack, TemplateURL=_upload(cloud, template, document),
        Parameters=[{"ParameterKey": name, "ParameterValue": value} for name, value in parameters.items()],
        Capabilities=["CAPABILITY_NAMED_IAM", "CAPABILITY_AUTO_EXPAND"],
    )  # fmt: skip
    (made,) = client.describe_stacks(StackName=stack)["Stacks"]
    return {output["OutputKey"]: output["OutputValue"] for output in made.get("Outputs", [])}


def _read(template: Path) -> Properties:
    return dict(yaml.load(template.read_text(), Loader=_Loader))  # a safe loader


def _upload(cloud: Cloud, path: Path, document: Properties) -> str:
    """Send an artifact; its key is its path, of code nothing else is sent: functions run from where it lies."""
    s3_backends[cloud.account]["aws"].put_object(ARTIFACTS, str(path), json.dumps(document).encode())
    return f"https://s3.amazonaws.com/{ARTIFACTS}/{path}"


def _requests(cloud: Cloud, kind: str, given: Properties) -> list[Properties]:
    """What the API is asked to make a resource; `$LATEST` is no qualifier but the function itself."""
    given = {name: json.dumps(value) if name == "PolicyDocument" else value for name, value in given.items()}
    if kind == "AWS::SNS::TopicPolicy":
        policy = {"AttributeName": "Policy", "AttributeValue": given["PolicyDocument"]}
        return [{"TopicArn": topic, **policy} for topic in given["Topics"]]
    if kind == "AWS::SQS::QueuePolicy":
        return [{"QueueUrl": queue, "Attributes": {"Policy": given["PolicyDocument"]}} for queue in given["Queues"]]
    if kind == "AWS::StepFunctions::StateMachine":
        text = cloud.client("s3").get_object(**given["DefinitionS3Location"])["Body"].read().decode()
        for name, value in given.get("DefinitionSubstitutions", {}).items():
            text = text.replace(f"${{{name}}}", str(value))
        return [{"name": given["StateMachineName"], "roleArn": given["RoleArn"], "definition": text}]
    return [{_API_NAMES.get(name, name): value for name, value in given.items() if value != "$LATEST"}]


class _Made(CustomModel):
    """A resource that is made by API calls, as moto's CloudFormation sees it."""

    def __init__(self, cloud: Cloud, kind: str, given: Properties, *, logical_id: str) -> None:
        service, operation, reference = MADE[kind]
        act = getattr(cloud.client(service), xform_name(operation))
        answers = [act(**asked) for asked in _requests(cloud, kind, given)]
        told = {**given, **answers[-1]}
        super().__init__(cloud.region, "", logical_id, str(told[reference]))
        alarm = f"arn:aws:cloudwatch:{cloud.region}:{cloud.account}:alarm:{self.resource_name}"
        self.set_data({**told, "Arn": alarm if service == "cloudwatch" else told.get("ScheduleArn", told[reference])})
        self.cf_resource_type, self.logical_resource_id = kind, logical_id

    def get_cfn_attribute(self, attribute_name: str) -> Any:
        """Fn::GetAtt; an attribute nobody filled in is an error."""
        return self.data[attribute_name]


@patched(_PARSING, "resource_class_from_type", "Unknown types fail the stack.")
def _class(_: Cloud, original: Any, kind: str) -> Any:
    found = _Made if kind in MADE else None if kind.startswith("Custom::") else original(kind)
    if found is None:
        raise NotImplementedError(f"the local cloud has no resource type {kind}")
    return found


@patched(_PARSING, "parse_and_create_resource", "Types moto lacks are made; a failed stack names the resource.")
def _create(
    cloud: Cloud, original: Any, logical_id: str, resource: Properties, known: Any, *where: Any, **named: Any
) -> Any:
    kind, condition = resource["Type"], resource.get("Condition")
    if condition and not known.lazy_condition_map[condition]:
        return None
    try:
        given = clean_json(resource.get("Properties", {}), known)
        if kind in MADE:
            return _Made(cloud, kind, given, logical_id=logical_id)
        made = original(logical_id, resource, known, *where, **named)
    except (ServiceException, HTTPException, BotoCoreError, ClientError, KeyError) as error:
        raise ValidationError(message=f"{logical_id} could not be made: {error}") from error
    if kind == "AWS::S3::Bucket":  # what moto's own bucket leaves out and something here depends on
        told = given.get("NotificationConfiguration", {})
        if told.keys() - {"EventBridgeConfiguration"}:
            raise NotImplementedError(f"{logical_id}: the local cloud tells S3 events to EventBridge only")
        made.set_notification_configuration(told)
        made.versioning_status = given.get("VersioningConfiguration", {}).get("Status")
    return made


@patched(_STACK, "parse_template", "Templates arrive as JSON and are read as JSON.", kind=staticmethod)
def _parse(_: Cloud, __: Any, template: str) -> Any:
    return json.loads(template)


@patched(_STACK, "stack_resources", "What a condition leaves out is not listed.", kind=property)
def _existing(_: Cloud, __: Any, stack: Any) -> Any:
    return [each for each in stack.resource_map.values() if each is not None]


refused(_STACK, "update", "A stack is updated in place; here that is refused.", what="update stacks")
