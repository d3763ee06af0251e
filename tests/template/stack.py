"""The template as CloudFormation would see it: expanded by the SAM translator, intrinsics resolved, nothing deployed."""

from __future__ import annotations

import json
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import boto3
from samtranslator.parser.parser import Parser
from samtranslator.translator.translator import Translator
from samtranslator.yaml_helper import yaml_parse

ROOT = Path(__file__).parents[2]
ACCOUNT, REGION, STACK = "123456789012", "us-east-1", "winnow"
PSEUDO = {
    "AWS::AccountId": ACCOUNT, "AWS::Region": REGION, "AWS::StackName": STACK, "AWS::Partition": "aws",
    "AWS::URLSuffix": "amazonaws.com", "AWS::NoValue": None,
}  # fmt: skip
GIVEN = {"WorkteamArn": f"arn:aws:sagemaker:{REGION}:{ACCOUNT}:workteam/private-crowd/labelers"}

HOPS = (
    "ingest_object", "score_records", "index_candidates", "select_batch", "prepare_task", "consolidate_annotations",
    "collect_labels", "plan_training", "publish_model", "evaluate_challenger", "deploy_challenger", "settle_deployment",
    "watch_production", "receive_feedback", "reconcile", "report_health",
)  # fmt: skip

_NAMES = {
    "AWS::S3::Bucket": "BucketName", "AWS::DynamoDB::Table": "TableName", "AWS::SQS::Queue": "QueueName",
    "AWS::SNS::Topic": "TopicName",
    "AWS::Lambda::Function": "FunctionName", "AWS::Logs::LogGroup": "LogGroupName", "AWS::IAM::Role": "RoleName",
    "AWS::Events::Rule": "Name", "AWS::StepFunctions::StateMachine": "StateMachineName", "AWS::Scheduler::Schedule": "Name",
    "AWS::CloudWatch::Alarm": "AlarmName", "AWS::CloudWatch::CompositeAlarm": "AlarmName",
}  # fmt: skip
_ARNS = {
    "AWS::S3::Bucket": "arn:aws:s3:::{name}",
    "AWS::DynamoDB::Table": f"arn:aws:dynamodb:{REGION}:{ACCOUNT}:table/{{name}}",
    "AWS::SQS::Queue": f"arn:aws:sqs:{REGION}:{ACCOUNT}:{{name}}",
    "AWS::SNS::Topic": f"arn:aws:sns:{REGION}:{ACCOUNT}:{{name}}",
    "AWS::Lambda::Function": f"arn:aws:lambda:{REGION}:{ACCOUNT}:function:{{name}}",
    "AWS::Logs::LogGroup": f"arn:aws:logs:{REGION}:{ACCOUNT}:log-group:{{name}}:*",
    "AWS::IAM::Role": f"arn:aws:iam::{ACCOUNT}:role/{{name}}",
    "AWS::Events::Rule": f"arn:aws:events:{REGION}:{ACCOUNT}:rule/{{name}}",
    "AWS::StepFunctions::StateMachine": f"arn:aws:states:{REGION}:{ACCOUNT}:stateMachine:{{name}}",
    "AWS::CloudWatch::Alarm": f"arn:aws:cloudwatch:{REGION}:{ACCOUNT}:alarm:{{name}}",
}
_REF_IS_ARN = {"AWS::SNS::Topic", "AWS::IAM::ManagedPolicy", "AWS::StepFunctions::StateMachine"}


@cache
def raw() -> dict[str, Any]:
    """template.yaml as written."""
    return dict(yaml_parse((ROOT / "template.yaml").read_text()))


@cache
def expanded() -> dict[str, Any]:
    """template.yaml after the SAM transform; local paths replaced as `sam package` replaces them."""
    template = yaml_parse((ROOT / "template.yaml").read_text())
    for resource in template["Resources"].values():
        properties = resource.get("Properties", {})
        for field in ("CodeUri", "ContentUri"):
            if field in properties:
                properties[field] = f"s3://artifacts/{properties[field]}"
        if "DefinitionUri" in properties:
            properties["Definition"] = json.loads((ROOT / properties.pop("DefinitionUri")).read_text())
        if "Location" in properties:
            properties["Location"] = f"https://artifacts.s3.amazonaws.com/{properties['Location']}"
    session = boto3.Session(region_name=REGION)
    return dict(Translator({}, Parser(), boto_session=session).translate(template, dict(GIVEN)))


@cache
def observability() -> dict[str, Any]:
    return dict(yaml_parse((ROOT / "infra/observability.yaml").read_text()))


@cache
def machine(name: str) -> dict[str, Any]:
    return dict(json.loads((ROOT / f"infra/{name}.asl.json").read_text()))


class Resolver:
    """Evaluates intrinsics with parameters at their defaults.

    A resource without a name of its own is called by its logical id.
    """

    def __init__(self, template: dict[str, Any], parameters: dict[str, Any]) -> None:
        self.template = template
        defaults = {name: slot["Default"] for name, slot in template["Parameters"].items() if "Default" in slot}
        self.parameters: dict[str, Any] = {**PSEUDO, **defaults, **parameters}

    def resources(self, kind: str) -> dict[str, dict[str, Any]]:
        """Logical id → resolved properties of every resource of a type whose condition holds."""
        return {
            name: self(resource.get("Properties", {}))
            for name, resource in self.template["Resources"].items()
            if resource["Type"] == kind and self.condition(resource.get("Condition"))
        }

    def condition(self, name: str | None) -> bool:
        return name is None or bool(self(self.template["Conditions"][name]))

    def name(self, logical: str) -> str:
        resource = self.template["Resources"][logical]
        return str(self(resource.get("Properties", {}).get(_NAMES.get(resource["Type"], ""), logical)))

    def arn(self, logical: str) -> str:
        kind = self.template["Resources"][logical]["Type"]
        return _ARNS.get(kind, f"arn:aws:{kind}:{{name}}").format(name=self.name(logical))

    def __call__(self, value: Any) -> Any:
        if isinstance(value, list):
            return [self(item) for item in value]
        if not isinstance(value, dict):
            return value
        if len(value) == 1:
            key, argument = next(iter(value.items()))
            if key == "Ref":
                return self._ref(argument)
            if key.startswith("Fn::"):
                return getattr(self, "_" + key[4:].lower())(argument)
        return {key: self(item) for key, item in value.items()}

    def _ref(self, name: str) -> Any:
        if name in self.parameters:
            return self.parameters[name]
        by_arn = self.template["Resources"][name]["Type"] in _REF_IS_ARN
        return self.arn(name) if by_arn else self.name(name)

    def _getatt(self, argument: Any) -> str:
        name, attribute = argument.split(".", 1) if isinstance(argument, str) else argument
        return self.arn(name) if attribute == "Arn" else f"{self.name(name)}.{attribute}"

    def _sub(self, argument: Any) -> str:
        text, extra = (argument, {}) if isinstance(argument, str) else argument
        variables = {key: self(item) for key, item in extra.items()}
        parts = text.split("${")
        out = parts[0]
        for part in parts[1:]:
            name, rest = part.split("}", 1)
            if name.startswith("!"):
                out += "${" + name[1:] + "}" + rest
            elif name in variables:
                out += str(variables[name]) + rest
            else:
                out += str(self._getatt(name) if "." in name else self._ref(name)) + rest
        return out

    def _join(self, argument: Any) -> str:
        return str(argument[0]).join(str(self(item)) for item in argument[1])

    def _if(self, argument: Any) -> Any:
        return self(argument[1] if self.condition(argument[0]) else argument[2])

    def _equals(self, argument: Any) -> bool:
        return str(self(argument[0])) == str(self(argument[1]))

    def _not(self, argument: Any) -> bool:
        return not self(argument[0])

    def _findinmap(self, argument: Any) -> Any:
        table, first, second = (self(item) for item in argument)
        return self.template["Mappings"][table][first][second]


@cache
def stack() -> Resolver:
    return Resolver(expanded(), dict(GIVEN))


@cache
def observed() -> Resolver:
    passed = stack().resources("AWS::CloudFormation::Stack")["Observability"]["Parameters"]
    return Resolver(observability(), passed)


def functions() -> dict[str, dict[str, Any]]:
    """Hop → resolved properties of its function."""
    found = stack().resources("AWS::Lambda::Function").values()
    return {properties["FunctionName"].removeprefix(f"{STACK}-"): properties for properties in found}


def states(definition: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Every state of a machine, those of Maps included."""
    for name, state in definition["States"].items():
        yield name, state
        if "ItemProcessor" in state:
            yield from states(state["ItemProcessor"])
