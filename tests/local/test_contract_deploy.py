"""Deploying a template: what it says takes effect, and what is unknown is loud."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError
from moto.cloudformation.exceptions import ValidationError

from winnow_local.cloud import LocalCloud

Launch = Callable[..., LocalCloud]


def template(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "template.yaml"
    path.write_text(text)
    return path


def test_outputs_nested_stacks_and_every_resource_are_made(fixture_cloud: LocalCloud) -> None:
    stacks = fixture_cloud.client("cloudformation").describe_stacks()["Stacks"]
    resources = fixture_cloud.client("cloudformation").describe_stack_resources(StackName="fix")["StackResources"]

    assert fixture_cloud.outputs["Source"] == "fix-source"
    assert fixture_cloud.outputs["Url"].startswith("https://")
    assert {stack["StackStatus"] for stack in stacks} == {"CREATE_COMPLETE"}
    assert len(stacks) == 2
    assert {"AWS::SNS::Subscription", "AWS::Scheduler::Schedule", "AWS::Lambda::Url"} <= {
        r["ResourceType"] for r in resources
    }
    assert "Extra" not in {resource["LogicalResourceId"] for resource in resources}
    board = fixture_cloud.client("cloudwatch").get_dashboard(DashboardName="fix-board")
    assert "us-east-1" in board["DashboardBody"]


def test_a_bucket_keeps_versions_and_tells_eventbridge_only(
    fixture_cloud: LocalCloud, launch: Launch, tmp_path: Path
) -> None:
    other = (
        "Resources: {B: {Type: AWS::S3::Bucket, Properties: {NotificationConfiguration: {QueueConfigurations: []}}}}"
    )

    assert fixture_cloud.client("s3").get_bucket_versioning(Bucket="fix-source")["Status"] == "Enabled"
    fixture_cloud.close()
    with pytest.raises(NotImplementedError, match="EventBridge only"):
        launch(template(tmp_path, other))


def test_a_tls_only_policy_does_not_block_tls(fixture_cloud: LocalCloud) -> None:
    fixture_cloud.client("s3").put_object(Bucket="fix-source", Key="tmp/a", Body=b"x")

    assert fixture_cloud.client("s3").get_object(Bucket="fix-source", Key="tmp/a")["Body"].read() == b"x"


def test_a_machine_gets_its_definition_with_the_substitutions(fixture_cloud: LocalCloud) -> None:
    machine = fixture_cloud.client("stepfunctions").list_state_machines()["stateMachines"][0]
    found = fixture_cloud.client("stepfunctions").describe_state_machine(stateMachineArn=machine["stateMachineArn"])

    assert machine["name"] == "fix-machine"
    assert '"FunctionName": "arn:aws:lambda:us-east-1:123456789012:function:fix-echo"' in found["definition"]


def test_a_machine_calls_a_function_of_the_stack(fixture_cloud: LocalCloud) -> None:
    machine = fixture_cloud.client("stepfunctions").list_state_machines()["stateMachines"][0]["stateMachineArn"]
    execution = fixture_cloud.client("stepfunctions").start_execution(stateMachineArn=machine, input='{"a": 1}')[
        "executionArn"
    ]
    fixture_cloud.run_until_idle()

    assert fixture_cloud.client("stepfunctions").describe_execution(executionArn=execution)["status"] == "SUCCEEDED"
    assert [(call.function, call.invoker) for call in fixture_cloud.invocations] == [("fix-echo", "states")]


def test_an_unknown_resource_type_fails_the_stack_and_is_named(launch: Launch) -> None:
    with pytest.raises(NotImplementedError, match="AWS::Glue::Job"):
        launch(parameters={"MakeExtra": "yes"})


def test_an_unknown_property_is_named(launch: Launch, tmp_path: Path) -> None:
    bad = "Resources: {A: {Type: AWS::Scheduler::Schedule, Properties: {ScheduleExpresion: rate(1 hour)}}}"

    with pytest.raises(ClientError, match=r"(?s)A could not be made: .*ScheduleExpresion"):
        launch(template(tmp_path, bad))


def test_an_unknown_parameter_and_one_without_a_value_are_refused(launch: Launch, tmp_path: Path) -> None:
    needy = "Parameters: {Needed: {Type: String}}\nResources: {Q: {Type: AWS::SQS::Queue}}"

    with pytest.raises(ValidationError, match=r"\[Unknown\] do not exist"):
        launch(parameters={"Unknown": "1"})
    with pytest.raises(ClientError, match="Needed"):
        launch(template(tmp_path, needy))


def test_a_failing_resource_is_named(launch: Launch, tmp_path: Path) -> None:
    missing = "arn:aws:sns:us-east-1:123456789012:none"
    bad = f"Resources: {{Q: {{Type: AWS::SNS::TopicPolicy, Properties: {{Topics: ['{missing}'], PolicyDocument: {{}}}}}}}}"

    with pytest.raises(ClientError, match="Q could not be made"):
        launch(template(tmp_path, bad))


def test_a_function_logs_to_its_group_and_is_not_retried_more_than_asked(launch: Launch, tmp_path: Path) -> None:
    for folder in ("f", "l"):
        (tmp_path / folder).mkdir()
    (tmp_path / "f" / "app.py").write_text("def handler(event, context):\n    raise KeyError('x')\n")
    cloud = launch(template(tmp_path, """
Transform: AWS::Serverless-2016-10-31
Resources:
  Layer: {Type: AWS::Serverless::LayerVersion, Properties: {LayerName: l, ContentUri: l, RetentionPolicy: Delete}}
  F:
    Type: AWS::Serverless::Function
    Properties:
      FunctionName: f
      CodeUri: f
      Handler: app.handler
      Runtime: python3.13
      Layers: [!Ref Layer]
      EventInvokeConfig: {MaximumRetryAttempts: 0}
Outputs: {Layer: {Value: !Ref Layer}}
"""))  # fmt: skip

    cloud.client("lambda").invoke(FunctionName="f", InvocationType="Event", Payload=b'{"n": 1}')
    cloud.run_until_idle()

    assert cloud.outputs["Layer"] == "arn:aws:lambda:us-east-1:123456789012:layer:l:1"
    assert len(cloud.invocations) == 1
    assert cloud.client("logs").filter_log_events(logGroupName="/aws/lambda/f")["events"]


def test_updating_a_stack_is_refused(fixture_cloud: LocalCloud) -> None:
    with pytest.raises(NotImplementedError, match="update stacks"):
        fixture_cloud.client("cloudformation").update_stack(StackName="fix", TemplateBody='{"Resources": {}}')


def test_timestamps_are_virtual(fixture_cloud: LocalCloud) -> None:
    fixture_cloud.advance(days=400)
    fixture_cloud.client("s3").put_object(Bucket="fix-target", Key="x", Body=b"x")
    fixture_cloud.client("cloudwatch").put_dashboard(DashboardName="d", DashboardBody="{}")

    assert fixture_cloud.client("s3").head_object(Bucket="fix-target", Key="x")["LastModified"].year == 2027
    boards: list[Any] = fixture_cloud.client("cloudwatch").list_dashboards(DashboardNamePrefix="d")["DashboardEntries"]
    assert boards[0]["LastModified"].year == 2027
