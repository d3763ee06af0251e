"""Deploying a template: what it says takes effect, and what is unknown is loud."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError
from moto.cloudformation.exceptions import MissingParameterError, ValidationError

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

    with pytest.raises(ValidationError, match=r"(?s)A could not be made: .*ScheduleExpresion"):
        launch(template(tmp_path, bad))


def test_an_unknown_parameter_and_one_without_a_value_are_refused(launch: Launch, tmp_path: Path) -> None:
    needy = "Parameters: {Needed: {Type: String}}\nResources: {Q: {Type: AWS::SQS::Queue}}"

    with pytest.raises(ClientError, match=r"\[Unknown\] do not exist"):
        launch(parameters={"Unknown": "1"})
    with pytest.raises(MissingParameterError, match="Needed"):
        launch(template(tmp_path, needy))


def test_a_failing_resource_is_named(launch: Launch, tmp_path: Path) -> None:
    missing = "arn:aws:sns:us-east-1:123456789012:none"
    bad = f"Resources: {{Q: {{Type: AWS::SNS::TopicPolicy, Properties: {{Topics: ['{missing}'], PolicyDocument: {{}}}}}}}}"

    with pytest.raises(ValidationError, match="Q could not be made"):
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


STACK = """
Parameters: {Days: {Type: Number, Default: 7}, Room: {Type: Number, Default: 30}}
Resources:
  Queue: {Type: AWS::SQS::Queue, Properties: {QueueName: q, VisibilityTimeout: !Ref Room}}
  Group: {Type: AWS::Logs::LogGroup, Properties: {LogGroupName: g, RetentionInDays: !Ref Days}}
  Topic: {Type: AWS::SNS::Topic, Properties: {TopicName: t}}
  Listener: {Type: AWS::SNS::Subscription, Properties: {TopicArn: !Ref Topic, Protocol: sqs, Endpoint: !GetAtt Queue.Arn}}
  Alarm:
    Type: AWS::CloudWatch::Alarm
    Properties: {AlarmName: a, Namespace: n, MetricName: m, Statistic: Sum, Period: 60, EvaluationPeriods: 1,
      Threshold: !Ref Days, ComparisonOperator: GreaterThanThreshold, TreatMissingData: notBreaching}
  Wake: {Type: AWS::Scheduler::Schedule, Properties: {Name: w, ScheduleExpression: !Sub "rate(${Days} days)",
    FlexibleTimeWindow: {Mode: "OFF"},
    Target: {Arn: !GetAtt Queue.Arn, RoleArn: "arn:aws:iam::123456789012:role/r", Input: "{}"}}}
  Table:
    Type: AWS::DynamoDB::Table
    DeletionPolicy: Retain
    Properties: {TableName: t, BillingMode: PAY_PER_REQUEST, KeySchema: [{AttributeName: k, KeyType: HASH}],
      AttributeDefinitions: [{AttributeName: k, AttributeType: S}]}
Outputs: {Days: {Value: !Ref Days}}
"""


def change(cloud: LocalCloud, text: str, kind: str = "UPDATE", **parameters: str) -> dict[str, Any]:
    """What DescribeStacks and the last reason say after a change set."""
    client = cloud.client("cloudformation")
    cloud.client("s3").create_bucket(Bucket="templates")
    cloud.client("s3").put_object(Bucket="templates", Key="t", Body=text.encode())
    change_set = client.create_change_set(
        StackName="fix", ChangeSetName="c", ChangeSetType=kind, TemplateURL="http://127.0.0.1:4566/templates/t",
        Parameters=[{"ParameterKey": name, "ParameterValue": value} for name, value in parameters.items()],
    )["Id"]  # fmt: skip
    if client.describe_change_set(ChangeSetName=change_set)["Status"] == "FAILED":
        return {"StackStatus": "UNCHANGED"}
    client.execute_change_set(ChangeSetName=change_set)
    reasons = [
        event.get("ResourceStatusReason") for event in client.describe_stack_events(StackName="fix")["StackEvents"]
    ]
    return {**client.describe_stacks(StackName="fix")["Stacks"][0], "reasons": reasons}


def test_an_update_changes_what_says_something_else_and_nothing_else(launch: Launch, tmp_path: Path) -> None:
    cloud = launch(template(tmp_path, STACK))
    sqs, url = cloud.client("sqs"), cloud.client("sqs").get_queue_url(QueueName="q")["QueueUrl"]
    sqs.send_message(QueueUrl=url, MessageBody="stays")
    cloud.client("dynamodb").put_item(TableName="t", Item={"k": {"S": "stays"}})
    more = "Resources:\n  More: {Type: AWS::SNS::Topic, Properties: {TopicName: more}}\n"

    same = change(cloud, STACK, Room="30")
    shown = change(
        cloud, STACK.replace("Resources:\n", more).replace("  Listener", "  #Listener"), Days="14", Room="60"
    )

    assert same["StackStatus"] == "UPDATE_COMPLETE"  # the template's text is another one: YAML instead of JSON
    assert (shown["StackStatus"], shown["Outputs"][0]["OutputValue"]) == ("UPDATE_COMPLETE", "14")
    assert sqs.receive_message(QueueUrl=url)["Messages"][0]["Body"] == "stays"
    asked = sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["VisibilityTimeout"])["Attributes"]
    assert asked == {"VisibilityTimeout": "60"}
    assert cloud.client("dynamodb").scan(TableName="t")["Count"] == 1
    assert cloud.client("logs").describe_log_groups()["logGroups"][0]["retentionInDays"] == 14
    assert cloud.client("cloudwatch").describe_alarms(AlarmNames=["a"])["MetricAlarms"][0]["Threshold"] == 14
    assert cloud.client("scheduler").get_schedule(Name="w")["ScheduleExpression"] == "rate(14 days)"
    assert len(cloud.client("sns").list_topics()["Topics"]) == 2
    assert cloud.client("sns").list_subscriptions()["Subscriptions"] == []
    again = change(
        cloud, STACK.replace("Resources:\n", more).replace("  Listener", "  #Listener"), Days="14", Room="60"
    )
    assert again == {"StackStatus": "UNCHANGED"}


def test_an_update_that_fails_is_rolled_back_and_says_why(launch: Launch, tmp_path: Path) -> None:
    cloud = launch(template(tmp_path, STACK))
    bad = (
        STACK.replace("Topic:", "New:")
        .replace("!Ref Topic", "!Ref New")
        .replace("BillingMode: PAY", "TableClass: STANDARD, BillingMode: PAY")
    )

    shown = change(cloud, bad, Days="30")

    assert shown["StackStatus"] == "UPDATE_ROLLBACK_COMPLETE"
    assert any(
        "cannot change Table: an AWS::DynamoDB::Table stays as it was made" in str(one) for one in shown["reasons"]
    )
    assert shown["Outputs"][0]["OutputValue"] == "7"
    assert cloud.client("logs").describe_log_groups()["logGroups"][0]["retentionInDays"] == 7


def test_a_creation_that_fails_leaves_nothing_but_the_reason(empty: LocalCloud) -> None:
    empty.client("cloudformation").delete_stack(StackName="fix")

    shown = change(empty, STACK.replace("rate(${Days} days)", "when I please"), kind="CREATE")

    assert shown["StackStatus"] == "ROLLBACK_COMPLETE"
    assert any("when I please" in str(one) for one in shown["reasons"])
    assert empty.client("sqs").list_queues().get("QueueUrls", []) == []


def test_a_deleted_stack_leaves_what_it_retains_and_a_full_bucket_stays(launch: Launch, tmp_path: Path) -> None:
    cloud = launch(template(tmp_path, STACK))
    change(
        cloud, STACK.replace("Outputs:", "  Full: {Type: AWS::S3::Bucket, Properties: {BucketName: full}}\nOutputs:")
    )
    client = cloud.client("cloudformation")
    cloud.client("s3").put_object(Bucket="full", Key="k", Body=b"x")

    with pytest.raises(ClientError, match="Full could not be deleted"):
        client.delete_stack(StackName="fix")
    cloud.client("s3").delete_object(Bucket="full", Key="k")
    client.delete_stack(StackName="fix")

    assert client.describe_stacks()["Stacks"] == []
    assert cloud.client("dynamodb").list_tables()["TableNames"] == ["t"]
    assert cloud.client("cloudwatch").describe_alarms()["MetricAlarms"] == []
    assert cloud.client("scheduler").list_schedules()["Schedules"] == []


def test_stacks_come_by_change_sets_only(fixture_cloud: LocalCloud) -> None:
    with pytest.raises(NotImplementedError, match="update stacks without a change set"):
        fixture_cloud.client("cloudformation").update_stack(StackName="fix", TemplateBody='{"Resources": {}}')
    with pytest.raises(NotImplementedError, match="create stacks without a change set"):
        fixture_cloud.client("cloudformation").create_stack(StackName="two", TemplateBody='{"Resources": {}}')


def test_timestamps_are_virtual(fixture_cloud: LocalCloud) -> None:
    fixture_cloud.advance(days=400)
    fixture_cloud.client("s3").put_object(Bucket="fix-target", Key="x", Body=b"x")
    fixture_cloud.client("cloudwatch").put_dashboard(DashboardName="d", DashboardBody="{}")

    assert fixture_cloud.client("s3").head_object(Bucket="fix-target", Key="x")["LastModified"].year == 2027
    boards: list[Any] = fixture_cloud.client("cloudwatch").list_dashboards(DashboardNamePrefix="d")["DashboardEntries"]
    assert boards[0]["LastModified"].year == 2027
