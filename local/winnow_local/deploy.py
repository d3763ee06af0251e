"""CloudFormation: a stack is brought to what a template says, by `sam deploy` as by `deploy` here.

What is new is made, what says something else is changed in place (or made anew where that loses nothing), and what is gone
goes last; a failure leads back to the template before. Types moto lacks are made by API calls; an unknown type is an error.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import yaml
from botocore import xform_name
from botocore.exceptions import BotoCoreError, ClientError
from moto.cloudformation import parsing
from moto.cloudformation.custom_model import CustomModel
from moto.cloudformation.exceptions import AlreadyExistsException, ValidationError
from moto.cloudformation.models import cloudformation_backends
from moto.core.exceptions import ServiceException
from moto.s3.models import s3_backends
from samtranslator.internal.managed_policies import get_bundled_managed_policy_map
from samtranslator.parser.parser import Parser
from samtranslator.translator.translator import Translator
from samtranslator.yaml_helper import intrinsics_multi_constructor
from werkzeug.exceptions import HTTPException

from .patches import Cloud, patched, refused

ARTIFACTS = "winnow-local-artifacts"
"""The bucket of what lies in this file system: an object's key is its path, and functions run from there."""
Properties = dict[str, Any]
MADE: dict[str, tuple[str, str, str, str]] = {
    "AWS::CloudWatch::Alarm": ("cloudwatch", "PutMetricAlarm", "AlarmName", "DeleteAlarms"),
    "AWS::CloudWatch::CompositeAlarm": ("cloudwatch", "PutCompositeAlarm", "AlarmName", "DeleteAlarms"),
    "AWS::Lambda::EventInvokeConfig":
        ("lambda", "PutFunctionEventInvokeConfig", "FunctionName", "DeleteFunctionEventInvokeConfig"),
    "AWS::Lambda::LayerVersion": ("lambda", "PublishLayerVersion", "LayerVersionArn", "DeleteLayerVersion"),
    "AWS::Lambda::Url": ("lambda", "CreateFunctionUrlConfig", "FunctionArn", "DeleteFunctionUrlConfig"),
    "AWS::S3::BucketPolicy": ("s3", "PutBucketPolicy", "Bucket", "DeleteBucketPolicy"),
    "AWS::SNS::Subscription": ("sns", "Subscribe", "SubscriptionArn", "Unsubscribe"),
    "AWS::SNS::TopicPolicy": ("sns", "SetTopicAttributes", "Topics", ""),
    "AWS::SQS::QueuePolicy": ("sqs", "SetQueueAttributes", "Queues", ""),
    "AWS::SageMaker::ModelPackageGroup": ("sagemaker", "CreateModelPackageGroup", "ModelPackageGroupName", ""),
    "AWS::Scheduler::Schedule": ("scheduler", "CreateSchedule", "Name", "DeleteSchedule"),
    "AWS::StepFunctions::StateMachine": ("stepfunctions", "CreateStateMachine", "stateMachineArn", "DeleteStateMachine"),
}  # fmt: skip
"""By type: the API action that makes it, the member of properties or answer that is its `Ref`, and what deletes it."""
_CHANGE = {"AWS::Lambda::Url": "UpdateFunctionUrlConfig", "AWS::StepFunctions::StateMachine": "UpdateStateMachine"}
_DELETE = {"AWS::IAM::ManagedPolicy": ("iam", "delete_policy", "PolicyArn"),
           "AWS::S3::Bucket": ("s3", "delete_bucket", "Bucket")}  # fmt: skip
_IN_PLACE = {"Bucket", "Dashboard", "Function", "Parameter", "Rule"}
_ANEW = {"EventSourceMapping", "LayerVersion", "ManagedPolicy", "Permission", "Role", "Schedule", "Subscription"}
"""The last words of types: what moto changes without loss, and what holds nothing and is made anew."""
_API_NAMES = {"PolicyDocument": "Policy", "TargetFunctionArn": "FunctionName"}
_URI = {"Function": "CodeUri", "LayerVersion": "ContentUri", "StateMachine": "DefinitionUri", "Application": "Location"}
_PARSING, _MODELS, _RESPONSES = (f"moto.cloudformation.{name}" for name in ("parsing", "models", "responses"))
_STACK, _BACKEND = f"{_MODELS}.Stack", f"{_MODELS}.CloudFormationBackend"
_DOOR = re.compile(r"http://(127\.0\.0\.1|localhost):\d+/")
_Loader = type("_Loader", (yaml.CSafeLoader,), {})  # YAML with the short intrinsics, such as !Ref
_Loader.add_multi_constructor("!", intrinsics_multi_constructor)


def deploy(cloud: Cloud, template: Path, *, stack: str, parameters: dict[str, str]) -> dict[str, str]:
    """Deploy a template with the code, definitions and stacks it refers to; gives its outputs."""
    s3_backends[cloud.account]["aws"].create_bucket(ARTIFACTS, cloud.region)
    document = _read(template.read_text())
    for resource in document["Resources"].values():
        if name := _URI.get(resource["Type"].removeprefix("AWS::Serverless::")):
            given = resource["Properties"]
            path = (template.parent / given[name]).resolve(strict=True)
            url = _upload(cloud, path, _read(path.read_text()) if path.is_file() else {})
            given[name] = url if name == "Location" else {"Bucket": ARTIFACTS, "Key": str(path)}
    made = _run(cloud, "CREATE", stack, _upload(cloud, template, document), parameters)
    return {output["OutputKey"]: output["OutputValue"] for output in made.outputs or []}


def _read(template: str) -> Properties:
    return dict(json.loads(template) if template.startswith("{") else yaml.load(template, Loader=_Loader))


def _upload(cloud: Cloud, path: Path, document: Properties) -> str:
    s3_backends[cloud.account]["aws"].put_object(ARTIFACTS, str(path), json.dumps(document).encode())
    return f"https://s3.amazonaws.com/{ARTIFACTS}/{path}"


def _run(cloud: Cloud, kind: str, stack: str, url: str, parameters: Properties) -> Any:
    """Make a change set as SAM does and execute it; gives the stack, and raises what it failed of."""
    client, stacks = cloud.client("cloudformation"), cloudformation_backends[cloud.account][cloud.region].stacks
    change = client.create_change_set(
        StackName=stack, ChangeSetName="local", ChangeSetType=kind, TemplateURL=url,
        Parameters=[{"ParameterKey": name, "ParameterValue": str(value)} for name, value in parameters.items()],
    )  # fmt: skip
    client.execute_change_set(ChangeSetName=change["Id"])
    made = stacks[change["StackId"]]
    if made.failure:
        stacks.pop(made.stack_id if kind == "CREATE" else "", None)
        raise made.failure
    return made


def _settle(cloud: Cloud, stack: Any, template: Properties, parameters: Properties) -> None:
    """Bring a stack from what it is to what a template says; what is left of `before` in the end goes, last things first."""
    old, stack.template_dict, stack.parameters = stack.resource_map, template, parameters
    stack.resource_map = known = stack._create_resource_map()
    made = [one for one in old._parsed_resources.values() if hasattr(one, "given")]
    known.before = [*getattr(old, "before", []), *made]
    known.create(template)
    while known.before:
        _delete(cloud, known, known.before[-1])
        known.before.pop()
    stack.output_map = stack._create_output_map()


def _delete(cloud: Cloud, known: Any, made: Any) -> None:
    kind = made.cf_resource_type
    if made.declared.get("DeletionPolicy") == "Retain":
        return
    try:
        if kind in _DELETE:
            service, action, member = _DELETE[kind]
            getattr(cloud.client(service), action)(**{member: made.physical_resource_id})
        elif kind not in MADE:
            known._delete_resource(made, {"Type": kind, "Properties": made.given})
        elif action := MADE[kind][3]:
            client = cloud.client(MADE[kind][0])
            wanted = client.meta.service_model.operation_model(action).input_shape.members
            getattr(client, xform_name(action))(**{name: made.data[name] for name in wanted if name in made.data})
    except (ServiceException, HTTPException, ClientError) as error:
        raise ValidationError(message=f"{made.logical_resource_id} could not be deleted: {error}") from error


def _requests(cloud: Cloud, kind: str, given: Properties, before: _Made | None) -> list[Properties]:
    """What the API is asked to make or change a resource; `$LATEST` is no qualifier but the function itself."""
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
        named = {"stateMachineArn": before.resource_name} if before else {"name": given["StateMachineName"]}
        return [{**named, "roleArn": given["RoleArn"], "definition": text}]
    return [{_API_NAMES.get(name, name): value for name, value in given.items() if value != "$LATEST"}]


class _Made(CustomModel):
    """A resource that is made, or changed from what it was before, by API calls, as moto's CloudFormation sees it."""

    def __init__(self, cloud: Cloud, kind: str, given: Properties, *, logical_id: str, before: _Made | None) -> None:
        service, operation, reference, _ = MADE[kind]
        act = getattr(cloud.client(service), xform_name(_CHANGE.get(kind, operation) if before else operation))
        answers = [act(**asked) for asked in _requests(cloud, kind, given, before)]
        told = {**(before.data if before else {}), **given, **answers[-1]}
        told |= {"AlarmNames": [told.get("AlarmName")], "VersionNumber": told.get("Version")}  # as deletion names them
        told |= {"FunctionName": told.get("TargetFunctionArn", told.get("FunctionName"))}
        super().__init__(cloud.region, "", logical_id, str(told[reference]))
        alarm = f"arn:aws:cloudwatch:{cloud.region}:{cloud.account}:alarm:{self.resource_name}"
        self.set_data({**told, "Arn": alarm if service == "cloudwatch" else told.get("ScheduleArn", told[reference])})

    def get_cfn_attribute(self, attribute_name: str) -> Any:
        """Fn::GetAtt; an attribute nobody filled in is an error."""
        return self.data[attribute_name]


@patched(_PARSING, "resource_class_from_type", "Unknown types fail the stack.")
def _class(_: Cloud, original: Any, kind: str) -> Any:
    found = _Made if kind in MADE else None if kind.startswith("Custom::") else original(kind)
    if found is None:
        raise NotImplementedError(f"the local cloud has no resource type {kind}")
    return found


@patched(_PARSING, "parse_and_create_resource", "A resource is made, changed or left as it is; a failure names it.")
def _resource(cloud: Cloud, original: Any, logical_id: str, resource: Properties, known: Any, **where: Any) -> Any:
    kind, condition = resource["Type"], resource.get("Condition")
    if condition and not known.lazy_condition_map[condition]:
        return None
    try:
        given = parsing.clean_json(resource.get("Properties", {}), known)
        name = MADE[kind][2] if kind in MADE else str(parsing.resource_name_property_from_type(kind))
        found = [one for one in known.before if (one.logical_resource_id, one.cf_resource_type) == (logical_id, kind)]
        before = next((one for one in found if one.given.get(name) == given.get(name)), None)
        if before and kind.split("::")[2] in _ANEW and before.given != given:
            _delete(cloud, known, before)
            known.before.remove(before)
            before = None
        if before and before.given == given:
            made = before
        elif kind in MADE:
            made = _Made(cloud, kind, given, logical_id=logical_id, before=before)
        elif kind == "AWS::CloudFormation::Stack":
            stack = before.name if before else parsing.generate_resource_name(kind, known["AWS::StackName"], logical_id)
            asked = given["TemplateURL"], given.get("Parameters", {})
            made = _run(cloud, "UPDATE" if before else "CREATE", stack, *asked)
        elif before:
            made = _changed(cloud, known, before, given, resource)
        else:
            made = original(logical_id, resource, known, **where)
    except (ServiceException, HTTPException, BotoCoreError, ClientError, KeyError) as error:
        raise ValidationError(message=f"{logical_id} could not be made: {error}") from error
    known.before = [one for one in known.before if one is not before]
    if kind == "AWS::S3::Bucket":  # what moto's own bucket leaves out and something here depends on
        told = given.get("NotificationConfiguration", {})
        if told.keys() - {"EventBridgeConfiguration"}:
            raise NotImplementedError(f"{logical_id}: the local cloud tells S3 events to EventBridge only")
        made.set_notification_configuration(told)
        made.versioning_status = given.get("VersioningConfiguration", {}).get("Status")
    if kind == "AWS::Lambda::Function":
        made.layers, made.changed = made._get_layers_data(given.get("Layers", [])), before is not None
    made.given, made.declared, made.cf_resource_type, made.logical_resource_id = given, resource, kind, logical_id
    return made


def _changed(cloud: Cloud, known: Any, before: Any, given: Properties, resource: Properties) -> Any:
    """Change one of moto's resources in place; NotImplementedError where moto would throw away what it holds."""
    kind, logical_id = before.cf_resource_type, before.logical_resource_id
    if kind == "AWS::Logs::LogGroup":
        before.set_retention_policy(given.get("RetentionInDays"))
    elif kind == "AWS::SQS::Queue":
        about = {name: value for name, value in given.items() if name not in ("QueueName", "Tags")}
        about = {name: value if isinstance(value, str) else json.dumps(value) for name, value in about.items()}
        cloud.client("sqs").set_queue_attributes(QueueUrl=before.physical_resource_id, Attributes=about)
    elif kind.split("::")[2] in _IN_PLACE:
        known._parsed_resources[logical_id] = before
        return parsing.parse_and_update_resource(logical_id, resource, known, cloud.account, cloud.region)
    else:
        raise NotImplementedError(f"the local cloud cannot change {logical_id}: an {kind} stays as it was made")
    return before


@patched(f"{_MODELS}.ChangeSet", "_parse_template", "The transform is expanded, with the values of the parameters.")
def _parse(cloud: Cloud, _: Any, self: Any) -> None:
    self.template_dict = document = _read(self.template)
    if unknown := self.parameters.keys() - document.get("Parameters", {}).keys():
        raise ValidationError(message=f"Parameters: [{', '.join(unknown)}] do not exist in the template")
    if "Transform" in document:
        translator = Translator(get_bundled_managed_policy_map("aws"), Parser())
        self.template_dict = translator.translate(document, {"AWS::Region": cloud.region, **self.parameters})


@patched(_BACKEND, "create_change_set", "A name is one stack's; one that was only reviewed gives way.")
def _create_change_set(_: Cloud, original: Any, self: Any, **asked: Any) -> Any:
    wanted = asked["stack_name"], asked["change_set_type"]
    for old in [one for one in self.stacks.values() if (one.name, "CREATE") == wanted]:
        if old.status != "REVIEW_IN_PROGRESS":
            raise AlreadyExistsException(f"Stack [{old.name}] already exists")
        del self.stacks[old.stack_id]
    return original(self, **asked)


@patched(_BACKEND, "execute_change_set", "A stack becomes what its template says, or what it was.")
def _execute(cloud: Cloud, _: Any, self: Any, change_set_name: str, stack_name: str | None = None) -> None:
    change = self.describe_change_set(change_set_name)
    stack, kind = change.stack, change.change_set_type
    old, stack.failure = (stack.template_dict or {"Resources": {}}, stack.parameters), None
    stack._add_stack_event(f"{kind}_IN_PROGRESS", "User Initiated")
    try:
        _settle(cloud, stack, change.template_dict, change.parameters)
        stack.template = change.template
    except (ServiceException, NotImplementedError) as error:
        stack.failure, kind = error, "UPDATE_ROLLBACK" if kind == "UPDATE" else "ROLLBACK"
        stack._add_stack_event(f"{kind}_IN_PROGRESS", str(error))
        _settle(cloud, stack, *old)
    stack.status, change.execution_status = f"{kind}_COMPLETE", "EXECUTE_COMPLETE"
    stack._add_stack_event(stack.status)


@patched(_BACKEND, "delete_stack", "What a stack made goes, last things first; what its template retains stays.")
def _delete_stack(cloud: Cloud, _: Any, self: Any, name: str) -> None:
    for stack in [one for one in self.stacks.values() if name in (one.name, one.stack_id)]:
        stack._add_stack_event("DELETE_IN_PROGRESS", "User Initiated")
        _settle(cloud, stack, {"Resources": {}}, {})
        stack.status = "DELETE_COMPLETE"
        stack._add_stack_event(stack.status)
        self.deleted_stacks[stack.stack_id] = self.stacks.pop(stack.stack_id)


@patched(_STACK, "stack_resources", "What a condition leaves out is not listed.", kind=property)
def _existing(_: Cloud, __: Any, stack: Any) -> Any:
    return [each for each in stack.resource_map.values() if each is not None]


@patched(_RESPONSES, "get_stack_from_s3_url", "Templates lie in S3, by whichever door they and their URLs came in.")
@patched(_MODELS, "get_stack_from_s3_url", "Templates lie in S3, by whichever door they and their URLs came in.")
def _from_s3(_: Cloud, original: Any, url: str, **where: Any) -> str:
    return _DOOR.sub("https://s3.amazonaws.com/", original(_DOOR.sub("https://s3.amazonaws.com/", url), **where))


patched(_STACK, "has_template", "A template is compared as it was sent.")(lambda _, __, self, new: self.template == new)
patched(_STACK, "has_parameters", "Values that stay as they are, defaults too, are no change.")(
    lambda _, __, self, new: all(str(self.stack_parameters.get(name)) == str(new[name]) for name in new)
)
refused(_BACKEND, "create_stack", "Stacks come by change sets.", what="create stacks without a change set")
refused(_BACKEND, "update_stack", "Stacks change by change sets.", what="update stacks without a change set")
