"""Lambda in the local cloud: each test names the AWS behaviour."""

from __future__ import annotations

import json
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError

from tests.local.test_contract_events import bodies
from winnow_local.cloud import LocalCloud
from winnow_local.cloudwatch import Watch


def dead(cloud: LocalCloud) -> str:
    return str(cloud.client("sqs").get_queue_url(QueueName="fix-dead")["QueueUrl"])


def test_a_synchronous_call_returns_the_payload_or_the_error_and_the_log(fixture_cloud: LocalCloud) -> None:
    invoke = fixture_cloud.client("lambda").invoke

    good = invoke(FunctionName="fix-echo", Payload=b'{"a": 1}')
    bad = invoke(FunctionName="fix-fail", Payload=b"{}", LogType="Tail")

    assert json.loads(good["Payload"].read()) == {"event": {"a": 1}, "function": "fix-echo"}
    assert "FunctionError" not in good
    assert bad["FunctionError"] == "Unhandled"
    error = json.loads(bad["Payload"].read())
    assert (error["errorType"], error["errorMessage"]) == ("RuntimeError", "no luck")
    assert bad["LogResult"]


def test_an_unknown_function_is_not_found(fixture_cloud: LocalCloud) -> None:
    with pytest.raises(ClientError, match="ResourceNotFound"):
        fixture_cloud.client("lambda").invoke(FunctionName="fix-none")


def test_an_asynchronous_call_is_tried_three_times_then_sent_to_its_destination(fixture_cloud: LocalCloud) -> None:
    start = fixture_cloud.clock.now()

    answer = fixture_cloud.client("lambda").invoke(FunctionName="fix-fail", InvocationType="Event", Payload=b'{"n": 1}')
    assert fixture_cloud.invocations == []
    fixture_cloud.run_until_idle()

    assert answer["StatusCode"] == 202
    calls = [call for call in fixture_cloud.invocations if call.function == "fix-fail"]
    assert [round((call.at - start) / timedelta(minutes=1)) for call in calls] == [0, 1, 3]
    (told,) = bodies(fixture_cloud, dead(fixture_cloud))
    assert told["requestPayload"] == {"n": 1}
    assert told["requestContext"]["condition"] == "RetriesExhausted"
    assert told["responsePayload"]["errorType"] == "RuntimeError"


def test_payload_limits(fixture_cloud: LocalCloud) -> None:
    body = json.dumps({"x": "y" * (1024 * 1024)}).encode()
    invoke = fixture_cloud.client("lambda").invoke

    assert invoke(FunctionName="fix-echo", Payload=body)["StatusCode"] == 200
    with pytest.raises(ClientError, match="RequestTooLarge"):
        invoke(FunctionName="fix-echo", InvocationType="Event", Payload=body)
    with pytest.raises(Exception, match="262144"):
        fixture_cloud.invoke("fix-echo", {"x": "y" * 262144}, invoker="states")


@pytest.mark.parametrize(
    ("action", "given"),
    [
        ("publish_version", {}),
        ("create_alias", {"Name": "live", "FunctionVersion": "1"}),
        ("put_function_concurrency", {"ReservedConcurrentExecutions": 0}),
    ],
)
def test_what_lambda_has_beyond_the_template_is_refused(
    fixture_cloud: LocalCloud, action: str, given: dict[str, Any]
) -> None:
    with pytest.raises(NotImplementedError, match="the local cloud does not"):
        getattr(fixture_cloud.client("lambda"), action)(FunctionName="fix-echo", **given)


def test_a_topic_that_calls_a_function_is_refused(fixture_cloud: LocalCloud) -> None:
    sns = fixture_cloud.client("sns")
    topic = sns.create_topic(Name="calls")["TopicArn"]
    arn = "arn:aws:lambda:us-east-1:123456789012:function:fix-echo"
    sns.subscribe(TopicArn=topic, Protocol="lambda", Endpoint=arn)

    with pytest.raises(NotImplementedError, match="topics"):
        sns.publish(TopicArn=topic, Message="hello")


def test_output_goes_to_the_log_group_and_embedded_metrics_to_cloudwatch_at_virtual_time(
    fixture_cloud: LocalCloud,
) -> None:
    fixture_cloud.advance(hours=30)
    fixture_cloud.invoke("fix-count_object", {"Records": [1, 2, 3]})

    logs = fixture_cloud.client("logs")
    events = logs.filter_log_events(logGroupName="/aws/lambda/fix-count_object")["events"]
    assert events[0]["message"] == "counting"
    assert events[0]["timestamp"] == fixture_cloud.clock.time() * 1000
    hour = fixture_cloud.clock.time() - 3600
    for key, value in (
        (("Fixture", "Counted", frozenset({("Stack", "s")})), 3.0),
        (("AWS/Lambda", "Invocations", frozenset({("FunctionName", "fix-count_object")})), 1.0),
    ):
        assert fixture_cloud.cloudwatch.statistic(Watch(key, "Sum", 2 * 3600), hour) == value


def test_a_function_reads_its_own_environment_while_it_loads(tmp_path: Path, launch: Any) -> None:
    (tmp_path / "f").mkdir()
    (tmp_path / "f" / "app.py").write_text(
        "import os\nME = {k: os.environ.get(k) for k in ('AWS_LAMBDA_FUNCTION_NAME', 'OWN', 'AWS_REGION')}\n"
        "def handler(event, context):\n    return ME\n"
    )
    (tmp_path / "t.yaml").write_text(
        "Transform: AWS::Serverless-2016-10-31\nResources:\n  F:\n    Type: AWS::Serverless::Function\n    Properties:\n"
        "      {FunctionName: f, CodeUri: f, Handler: app.handler, Runtime: python3.13, Environment: {Variables: {OWN: mine}}}\n"
    )
    cloud = launch(tmp_path / "t.yaml", region="eu-central-1")

    answer, error = cloud.invoke("f", {})

    assert error is None
    assert answer == {"AWS_LAMBDA_FUNCTION_NAME": "f", "OWN": "mine", "AWS_REGION": "eu-central-1"}
