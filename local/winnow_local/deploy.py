"""Deploying a SAM template: expand it as CloudFormation would, create it by moto, and add the resource types moto lacks.

Local paths (`CodeUri`, `ContentUri`, `DefinitionUri`, `Location`) go to an artifact bucket first, as `sam package` sends
them. A resource type nobody knows is an error that names it.
"""

from __future__ import annotations

import hashlib
import io
import json
import re
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import boto3
import yaml
from botocore import xform_name
from botocore.exceptions import ClientError
from botocore.model import ListShape, MapShape, Shape, StructureShape
from moto.awslambda.models import EventInvokeConfig, LambdaFunction
from moto.cloudformation.exceptions import ValidationError
from moto.core.exceptions import ServiceException
from samtranslator.parser.parser import Parser
from samtranslator.translator.translator import Translator
from samtranslator.yaml_helper import intrinsics_multi_constructor
from werkzeug.exceptions import HTTPException

from .patches import Patch

if TYPE_CHECKING:
    from .cloud import LocalCloud

ARTIFACTS = "winnow-local-artifacts"
Properties = dict[str, Any]
Made = tuple[str, dict[str, Any]]
_LOCAL = {
    "AWS::Serverless::Function": "CodeUri",
    "AWS::Serverless::LayerVersion": "ContentUri",
    "AWS::Serverless::StateMachine": "DefinitionUri",
    "AWS::Serverless::Application": "Location",
    "AWS::CloudFormation::Stack": "TemplateURL",
}
_MANAGED = ("AWSLambdaBasicExecutionRole", "AWSLambdaSQSQueueExecutionRole", "AWSXRayDaemonWriteAccess")


class _Loader(yaml.CSafeLoader):
    """YAML with CloudFormation's short intrinsics."""


_Loader.add_multi_constructor("!", intrinsics_multi_constructor)


class Deployment:
    """One deployed stack: its outputs, and where the code of its functions lies."""

    def __init__(self, cloud: LocalCloud, template: Path, *, stack: str, parameters: dict[str, str]) -> None:
        self._cloud, self._stack = cloud, stack
        self.code: dict[str, Path] = {}
        """Folder of the code behind each artifact key."""
        place = {} if cloud.region == "us-east-1" else {"LocationConstraint": cloud.region}
        cloud.client("s3").create_bucket(Bucket=ARTIFACTS, **({"CreateBucketConfiguration": place} if place else {}))
        expanded = self._expand(template, parameters)
        check_parameters(expanded, parameters)
        url = self._upload(json.dumps(expanded).encode(), name=f"{stack}.template")
        cloud.client("cloudformation").create_stack(
            StackName=stack,
            TemplateURL=url,
            Parameters=[{"ParameterKey": name, "ParameterValue": value} for name, value in parameters.items()],
            Capabilities=["CAPABILITY_NAMED_IAM", "CAPABILITY_AUTO_EXPAND"],
        )
        stacks = cloud.client("cloudformation").describe_stacks(StackName=stack)["Stacks"]
        self.outputs = {output["OutputKey"]: output["OutputValue"] for output in stacks[0].get("Outputs", [])}

    def _expand(self, template: Path, parameters: dict[str, str]) -> dict[str, Any]:
        document = yaml.load(template.read_text(), Loader=_Loader)  # a safe loader
        resources = document["Resources"]
        for resource in resources.values():
            name = _LOCAL.get(resource["Type"])
            given = resource.get("Properties", {}).get(name)
            if isinstance(given, str) and not given.startswith(("s3://", "https://")):
                self._package(resource, name or "", template.parent / given)
        if "AWS::Serverless-2016-10-31" not in str(document.get("Transform", "")):
            return dict(document)
        arns = {name: f"arn:aws:iam::aws:policy/service-role/{name}" for name in _MANAGED}
        session = boto3.Session(region_name=self._cloud.region)
        translator = Translator(arns, Parser(), boto_session=session)
        return dict(translator.translate(document, {"AWS::Region": self._cloud.region, **parameters}))

    def _package(self, resource: dict[str, Any], name: str, path: Path) -> None:
        if name in ("Location", "TemplateURL"):
            body = json.dumps(self._expand(path, {})).encode()
            resource["Properties"][name] = self._upload(body, name=path.name)
            resource["Type"], resource["Properties"] = "AWS::CloudFormation::Stack", {
                "TemplateURL": resource["Properties"].pop(name), **resource["Properties"]
            }  # fmt: skip
            return
        body = path.read_bytes() if path.is_file() else _zipped(path, layer=name == "ContentUri")
        key = self._upload(body, name=path.name).rsplit("/", 1)[-1]
        self.code[key] = path
        resource["Properties"][name] = {"Bucket": ARTIFACTS, "Key": key}

    def _upload(self, body: bytes, *, name: str) -> str:
        key = f"{hashlib.sha256(body).hexdigest()[:16]}-{name}"
        self._cloud.client("s3").put_object(Bucket=ARTIFACTS, Key=key, Body=body)
        return f"https://s3.amazonaws.com/{ARTIFACTS}/{key}"


def _zipped(folder: Path, *, layer: bool) -> bytes:
    """The folder as a zip; of a layer, which is imported from the repository, only its name."""
    if not folder.is_dir():
        raise FileNotFoundError(f"the template names {folder}, which is not there")
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        if layer:
            archive.writestr(zipfile.ZipInfo(f"python/{folder.name}.txt"), str(folder))
        for path in sorted(folder.rglob("*")) if not layer else ():
            if path.is_file() and "__pycache__" not in path.parts:
                archive.writestr(zipfile.ZipInfo(str(path.relative_to(folder))), path.read_bytes())
    return buffer.getvalue()


def check_parameters(template: dict[str, Any], parameters: dict[str, str]) -> None:
    """ValidationError unless every parameter is declared, given where needed, and within its constraints."""
    declared = template.get("Parameters", {})
    for name in parameters.keys() - declared.keys():
        raise ValidationError(message=f"Parameters: [{name}] do not exist in the template")
    for name, slot in declared.items():
        value = parameters.get(name, slot.get("Default"))
        if value is None:
            raise ValidationError(message=f"Parameters: [{name}] must have values")
        allowed, pattern = slot.get("AllowedValues"), slot.get("AllowedPattern")
        refused = allowed is not None and str(value) not in map(str, allowed)
        refused |= pattern is not None and re.fullmatch(pattern, str(value)) is None
        refused |= "MinValue" in slot and float(value) < float(slot["MinValue"])
        refused |= "MaxValue" in slot and float(value) > float(slot["MaxValue"])
        if refused:
            raise ValidationError(
                message=f"Parameter {name} is {value!r}: {slot.get('ConstraintDescription', 'refused')}"
            )


def call(cloud: LocalCloud, service: str, operation: str, given: Properties) -> dict[str, Any]:
    """An API action with a resource's properties, whose strings become the numbers and booleans the API wants."""
    client = cloud.client(service)
    shape = client.meta.service_model.operation_model(operation).input_shape
    answer: dict[str, Any] = getattr(client, xform_name(operation))(**_coerced(shape, given))
    return answer


def _coerced(shape: Shape, value: Any) -> Any:
    if isinstance(shape, StructureShape) and isinstance(value, dict):
        unknown = sorted(value.keys() - shape.members.keys())
        if unknown:
            raise NotImplementedError(f"{shape.name} has no {', '.join(unknown)}")
        return {name: _coerced(shape.members[name], inner) for name, inner in value.items()}
    if isinstance(shape, ListShape):
        return [_coerced(shape.member, inner) for inner in (value if isinstance(value, list) else [value])]
    if isinstance(shape, MapShape):
        return {name: _coerced(shape.value, inner) for name, inner in value.items()}
    if shape.type_name == "boolean":
        return str(value).lower() == "true"
    if shape.type_name in ("integer", "long"):
        return int(float(value))
    if shape.type_name in ("float", "double"):
        return float(value)
    if shape.type_name == "string":
        return json.dumps(value) if isinstance(value, (dict, list)) else str(value)
    return value


def _without(given: Properties, *names: str) -> Properties:
    return {name: value for name, value in given.items() if name not in names}


def _simple(service: str, operation: str, *, named: str, arn: str = "", **drop: tuple[str, ...]) -> Any:
    """A resource made by one idempotent action; `named` is its name, `arn` the member of the answer that is its ARN."""

    def make(cloud: LocalCloud, given: Properties, name: str) -> Made:
        given = {named: name, **_without(given, *drop.get("drop", ()))}
        answer = call(cloud, service, operation, given)
        return given[named], {"Arn": answer.get(arn, "")}

    return make


def _alarm(operation: str) -> Any:
    def make(cloud: LocalCloud, given: Properties, name: str) -> Made:
        given = {"AlarmName": name, **given}
        call(cloud, "cloudwatch", operation, given)
        found = cloud.client("cloudwatch").describe_alarms(AlarmNames=[given["AlarmName"]])
        return given["AlarmName"], {"Arn": (found["MetricAlarms"] + found["CompositeAlarms"])[0]["AlarmArn"]}

    return make


def _subscription(cloud: LocalCloud, given: Properties, _: str) -> Made:
    plain = ("TopicArn", "Protocol", "Endpoint")
    attributes = {
        k: v if isinstance(v, str) else json.dumps(v) for k, v in given.items() if k not in (*plain, "Region")
    }
    asked = {**{k: given[k] for k in plain if k in given}, "Attributes": attributes, "ReturnSubscriptionArn": True}
    return call(cloud, "sns", "Subscribe", asked)["SubscriptionArn"], {}


def _topic_policy(cloud: LocalCloud, given: Properties, name: str) -> Made:
    for topic in given["Topics"]:
        asked = {"TopicArn": topic, "AttributeName": "Policy", "AttributeValue": given["PolicyDocument"]}
        call(cloud, "sns", "SetTopicAttributes", asked)
    return name, {}


def _queue_policy(cloud: LocalCloud, given: Properties, name: str) -> Made:
    for queue in given["Queues"]:
        call(cloud, "sqs", "SetQueueAttributes", {"QueueUrl": queue, "Attributes": {"Policy": given["PolicyDocument"]}})
    return name, {}


def _bucket_policy(cloud: LocalCloud, given: Properties, name: str) -> Made:
    call(cloud, "s3", "PutBucketPolicy", {"Bucket": given["Bucket"], "Policy": given["PolicyDocument"]})
    return name, {}


def _schedule(cloud: LocalCloud, given: Properties, name: str) -> Made:
    given = {"Name": name[-64:], **given}
    try:
        answer = call(cloud, "scheduler", "CreateSchedule", given)
    except ClientError as error:
        if error.response["Error"]["Code"] != "ConflictException":
            raise
        answer = call(cloud, "scheduler", "UpdateSchedule", given)
    return given["Name"], {"Arn": answer["ScheduleArn"]}


def _invoke_config(cloud: LocalCloud, given: Properties, name: str) -> Made:
    function = cloud.lambdas.find(given["FunctionName"], given.get("Qualifier"))
    config = EventInvokeConfig(
        function.function_arn, function.last_modified, _without(given, "FunctionName", "Qualifier")
    )
    function.event_invoke_config = [config]
    return name, {}


def _url(cloud: LocalCloud, given: Properties, _: str) -> Made:
    asked = {**_without(given, "TargetFunctionArn"), "FunctionName": given["TargetFunctionArn"]}
    answer = call(cloud, "lambda", "CreateFunctionUrlConfig", asked)
    return answer["FunctionArn"], {"FunctionUrl": answer["FunctionUrl"], "FunctionArn": answer["FunctionArn"]}


def _version(cloud: LocalCloud, given: Properties, _: str) -> Made:
    asked = {"FunctionName": given["FunctionName"], "Description": given.get("Description", "")}
    answer = call(cloud, "lambda", "PublishVersion", asked)
    return answer["FunctionArn"], {"Version": answer["Version"], "FunctionArn": answer["FunctionArn"]}


def _alias(cloud: LocalCloud, given: Properties, _: str) -> Made:
    asked = _without(given, "ProvisionedConcurrencyConfig", "RoutingConfig")
    try:
        answer = call(cloud, "lambda", "CreateAlias", asked)
    except ClientError as error:
        if error.response["Error"]["Code"] != "ResourceConflictException":
            raise
        answer = call(cloud, "lambda", "UpdateAlias", asked)
    return answer["AliasArn"], {}


def _query_definition(cloud: LocalCloud, given: Properties, name: str) -> Made:
    names = {"Name": "name", "QueryString": "queryString", "LogGroupNames": "logGroupNames"}
    asked = {"name": name, **{names[key]: value for key, value in given.items() if key in names}}
    return call(cloud, "logs", "PutQueryDefinition", asked)["queryDefinitionId"], {}


_TAGS = {"drop": ("Tags",)}
MAKERS: dict[str, tuple[str, Callable[[LocalCloud, Properties, str], Made]]] = {
    "AWS::CloudWatch::Alarm": ("AlarmName", _alarm("PutMetricAlarm")),
    "AWS::CloudWatch::CompositeAlarm": ("AlarmName", _alarm("PutCompositeAlarm")),
    "AWS::SNS::Subscription": ("", _subscription),
    "AWS::SNS::TopicPolicy": ("", _topic_policy),
    "AWS::SQS::QueuePolicy": ("", _queue_policy),
    "AWS::S3::BucketPolicy": ("", _bucket_policy),
    "AWS::Scheduler::Schedule": ("Name", _schedule),
    "AWS::Scheduler::ScheduleGroup": ("Name", _simple("scheduler", "CreateScheduleGroup", named="Name", arn="ScheduleGroupArn")),
    "AWS::Lambda::EventInvokeConfig": ("", _invoke_config),
    "AWS::Lambda::Url": ("", _url),
    "AWS::Lambda::Version": ("", _version),
    "AWS::Lambda::Alias": ("", _alias),
    "AWS::Logs::QueryDefinition": ("Name", _query_definition),
    "AWS::SageMaker::ModelPackageGroup": (
        "ModelPackageGroupName",
        _simple("sagemaker", "CreateModelPackageGroup", named="ModelPackageGroupName", arn="ModelPackageGroupArn"),
    ),
    "AWS::SageMaker::Workteam": (
        "WorkteamName", _simple("sagemaker", "CreateWorkteam", named="WorkteamName", arn="WorkteamArn", **_TAGS),
    ),
}  # fmt: skip


class _Resource:
    """A made resource as moto's CloudFormation sees it."""

    maker: Callable[[LocalCloud, Properties, str], Made]
    cloud: LocalCloud

    def __init__(self, physical_resource_id: str, attributes: dict[str, Any]) -> None:
        self.physical_resource_id, self._attributes = physical_resource_id, attributes

    def is_created(self) -> bool:
        """Everything here is made at once."""
        return True

    def get_cfn_attribute(self, name: str) -> Any:
        """Fn::GetAtt; an attribute nobody filled in is an error."""
        if name not in self._attributes and not name.endswith("Arn"):
            raise NotImplementedError(f"the local cloud has no attribute {name} of {self.physical_resource_id}")
        return self._attributes.get(name) or self._attributes.get("Arn")

    @classmethod
    def has_cfn_attr(cls, _: str) -> bool:
        """Asked before anything is made."""
        return True

    @classmethod
    def create_from_cloudformation_json(cls, name: str, given: Any, *_: Any, **__: Any) -> _Resource:
        """Make it."""
        return cls(*cls.maker(cls.cloud, dict(given["Properties"]), name))

    @classmethod
    def update_from_cloudformation_json(
        cls, *, new_resource_name: str, cloudformation_json: Any, **_: Any
    ) -> _Resource:
        """Make it again: every maker is an upsert, or of a thing that never changes."""
        return cls.create_from_cloudformation_json(new_resource_name, cloudformation_json)

    @classmethod
    def delete_from_cloudformation_json(cls, *_: Any) -> None:
        """Nothing: a stack is deleted with its cloud."""


def _resource_class(original: Any, cloud: LocalCloud) -> Any:
    classes = {
        kind: type(kind.replace("::", "_"), (_Resource,), {"maker": staticmethod(maker), "cloud": cloud})
        for kind, (_, maker) in MAKERS.items()
    }

    def find(resource_type: str) -> Any:
        found = classes.get(resource_type) or original(resource_type)
        if found is None or resource_type.startswith("Custom::"):
            raise NotImplementedError(f"the local cloud has no resource type {resource_type}")
        return found

    return find


def _named_failure(original: Any, _: LocalCloud) -> Any:
    def create(logical_id: str, *args: Any, **kwargs: Any) -> Any:
        try:
            return original(logical_id, *args, **kwargs)
        except ValidationError:
            raise
        except (ServiceException, HTTPException, ClientError) as error:
            raise ValidationError(message=f"{logical_id} could not be made: {error}") from error

    return create


def _name_property(original: Any, _: LocalCloud) -> Any:
    names = {kind: name for kind, (name, _) in MAKERS.items()} | {"AWS::Lambda::LayerVersion": "LayerName"}
    return lambda resource_type: names[resource_type] if resource_type in names else original(resource_type)


def _parse(_: Any, __: LocalCloud) -> Any:
    def parse(template: str) -> Any:
        try:
            return json.loads(template)
        except ValueError:
            return yaml.load(template, Loader=_Loader)  # a safe loader

    return staticmethod(parse)


def _after(finish: Callable[[LocalCloud, Any, Properties], None]) -> Any:
    """Let `finish` apply the properties that moto's own class leaves out, at creation and update."""

    def make(original: Any, cloud: LocalCloud) -> Any:
        def wrapped(cls: type, *args: Any, **kwargs: Any) -> Any:
            given = kwargs.get("cloudformation_json") or next(arg for arg in args if isinstance(arg, dict))
            properties = json.loads(json.dumps(given.get("Properties", {})))
            resource = original.__func__(cls, *args, **kwargs)
            finish(cloud, resource, properties)
            return resource

        return classmethod(wrapped)

    return make


_APPLIED = {
    "VersioningConfiguration": "PutBucketVersioning",
    "PublicAccessBlockConfiguration": "PutPublicAccessBlock",
    "OwnershipControls": "PutBucketOwnershipControls",
    "CorsConfiguration": "PutBucketCors",
    "LifecycleConfiguration": "PutBucketLifecycleConfiguration",
    "NotificationConfiguration": "PutBucketNotificationConfiguration",
}
_RENAMED = {"CorsRules": "CORSRules", "CorsConfiguration": "CORSConfiguration", "ExposedHeaders": "ExposeHeaders", "Id": "ID",
            "EventBridgeEnabled": None, "ExpirationInDays": None, "Prefix": None, "MaxAge": "MaxAgeSeconds"}  # fmt: skip


def _api_form(value: Any) -> Any:
    """CloudFormation's spelling of bucket properties in the API's."""
    if isinstance(value, list):
        return [_api_form(each) for each in value]
    if not isinstance(value, dict):
        return value
    form = {_RENAMED.get(k, k): _api_form(v) for k, v in value.items() if _RENAMED.get(k, k) is not None}
    if "ExpirationInDays" in value:
        form["Expiration"] = {"Days": value["ExpirationInDays"]}
    if "Status" in value and "Id" in value:
        form["Filter"] = {"Prefix": value.get("Prefix", "")}
    return form


def _bucket(cloud: LocalCloud, bucket: Any, given: Properties) -> None:
    for name, operation in _APPLIED.items():
        if name in given:
            member = _RENAMED.get(name) or name
            call(cloud, "s3", operation, {"Bucket": bucket.name, member: _api_form(given[name])})


def _table(cloud: LocalCloud, table: Any, given: Properties) -> None:
    if ttl := given.get("TimeToLiveSpecification"):
        call(cloud, "dynamodb", "UpdateTimeToLive", {"TableName": table.name, "TimeToLiveSpecification": ttl})
    if recovery := given.get("PointInTimeRecoverySpecification"):
        asked = {"TableName": table.name, "PointInTimeRecoverySpecification": recovery}
        call(cloud, "dynamodb", "UpdateContinuousBackups", asked)


def _function(_: LocalCloud, function: LambdaFunction, given: Properties) -> None:
    function.layers = function._get_layers_data(given.get("Layers", []))
    function.tracing_config = given.get("TracingConfig", function.tracing_config)
    function.dead_letter_arn = given.get("DeadLetterConfig", {}).get("TargetArn")  # type: ignore[attr-defined]
    function.logs_group_name = given.get("LoggingConfig", {}).get("LogGroup", function.logs_group_name)


def _machine(original: Any, cloud: LocalCloud) -> Any:
    """Turn DefinitionS3Location and DefinitionSubstitutions into the DefinitionString moto reads."""

    def wrapped(cls: type, *args: Any, **kwargs: Any) -> Any:
        given = (kwargs.get("cloudformation_json") or next(arg for arg in args if isinstance(arg, dict)))["Properties"]
        text = given.get("DefinitionString") or given.get("Definition")
        if place := given.pop("DefinitionS3Location", None):
            text = cloud.client("s3").get_object(Bucket=place["Bucket"], Key=place["Key"])["Body"].read().decode()
        text = text if isinstance(text, str) else json.dumps(text)
        for name, value in (given.pop("DefinitionSubstitutions", None) or {}).items():
            text = text.replace(f"${{{name}}}", str(value))
        if left := re.search(r"\$\{\w+\}", text):
            raise ValidationError(message=f"the definition of {given.get('StateMachineName')} keeps {left.group()}")
        given["DefinitionString"] = text if text.lstrip().startswith("{") else json.dumps(yaml.safe_load(text))
        return original.__func__(cls, *args, **kwargs)

    return classmethod(wrapped)


_P, _CREATE, _UPDATE = (
    "moto.cloudformation.parsing",
    "create_from_cloudformation_json",
    "update_from_cloudformation_json",
)
_WHOLE = "A property in the template takes effect."
PATCHES = (
    Patch(_P, "resource_class_from_type", "Types moto lacks are made; unknown types fail the stack.", _resource_class),
    Patch(_P, "parse_and_create_resource", "A failed stack names the resource.", _named_failure),
    Patch(_P, "resource_name_property_from_type", "A name given in the template is the resource's name.", _name_property),
    Patch("moto.cloudformation.models.Stack", "parse_template", "JSON templates are read as JSON, quickly.", _parse),
    Patch("moto.cloudformation.models.Stack", "stack_resources", "What a condition leaves out is not listed.",
          lambda _original, _cloud: property(lambda self: [each for each in self.resource_map.values() if each is not None])),
    Patch("moto.s3.models.FakeBucket", _CREATE, _WHOLE, _after(_bucket)),
    Patch("moto.s3.models.FakeBucket", _UPDATE, _WHOLE, _after(_bucket)),
    Patch("moto.dynamodb.models.table.Table", _CREATE, _WHOLE, _after(_table)),
    Patch("moto.awslambda.models.LambdaFunction", _CREATE, _WHOLE, _after(_function)),
    Patch("moto.awslambda.models.LambdaFunction", _UPDATE, _WHOLE, _after(_function)),
    Patch("moto.stepfunctions.models.StateMachine", _CREATE, "Definitions are fetched, substituted.", _machine),
    Patch("moto.stepfunctions.models.StateMachine", _UPDATE, "Definitions are fetched, substituted.", _machine),
    Patch("moto.awslambda.models.LayerVersion", "physical_resource_id", "Ref of a layer version is its ARN.",
          lambda _original, _cloud: property(lambda self: self.arn), added=True),
)  # fmt: skip
