"""Every request: validated, failed on order, never met with silence; and the table of patches."""

from __future__ import annotations

import dataclasses
from typing import Any

import boto3
import moto
import pytest
from botocore.exceptions import ClientError

from tests import faults
from winnow_local import patches
from winnow_local.cloud import LocalCloud

ALARM = {"AlarmName": "a", "EvaluationPeriods": 1, "ComparisonOperator": "Above"}
DATA = {"Namespace": "N", "MetricData": [{"MetricName": "M", "Unit": "Furlongs"}]}
TARGET = {"Arn": "arn:aws:x", "RoleArn": "arn:aws:iam::123456789012:role/r"}
SCHEDULE = {
    "Name": "n",
    "ScheduleExpression": "rate(1 day)",
    "FlexibleTimeWindow": {"Mode": "SOMETIMES"},
    "Target": TARGET,
}
NEGATIVE = {"FunctionName": "f", "ReservedConcurrentExecutions": -1}


@pytest.mark.parametrize(
    ("service", "operation", "params", "told"),
    [
        (
            "sagemaker",
            "describe_labeling_job",
            {"LabelingJobName": "has_underscore"},
            "LabelingJobName.*regular expression",
        ),
        (
            "sagemaker",
            "describe_labeling_job",
            {"LabelingJobName": "x" * 64},
            "LabelingJobName.*length less than or equal to 63",
        ),
        ("cloudwatch", "put_metric_alarm", ALARM, "ComparisonOperator.*enum"),
        ("cloudwatch", "put_metric_data", DATA, "MetricData.1.member.Unit"),
        ("scheduler", "create_schedule", SCHEDULE, "FlexibleTimeWindow.Mode"),
        ("lambda", "put_function_concurrency", NEGATIVE, "(?i)ReservedConcurrentExecutions"),
    ],
)
def test_a_request_aws_would_refuse_is_refused_by_the_members_name(
    empty: LocalCloud, service: str, operation: str, params: dict[str, Any], told: str
) -> None:
    with pytest.raises(Exception, match=told) as refused:
        getattr(empty.client(service), operation)(**params)

    if isinstance(refused.value, ClientError):
        assert refused.value.response["Error"]["Code"] == "ValidationException"


def test_good_requests_pass_and_other_clients_are_held_to_the_same(empty: LocalCloud) -> None:
    boto3.client("sqs").create_queue(QueueName="good")

    with pytest.raises(ClientError, match="StateValue"):
        boto3.client("cloudwatch").set_alarm_state(AlarmName="a", StateValue="BAD", StateReason="x")


def test_an_action_moto_does_not_know_is_loud(empty: LocalCloud) -> None:
    with pytest.raises(NotImplementedError):
        empty.client("cloudwatch").start_metric_streams(Names=["x"])


def test_a_service_moto_does_not_know_is_loud(empty: LocalCloud) -> None:
    with pytest.raises(NotImplementedError, match="nothing at"):
        empty.client("frauddetector").get_detectors()


def test_a_failed_attempt_is_retried_and_acts_once(empty: LocalCloud) -> None:
    url = empty.client("sqs").create_queue(QueueName="q")["QueueUrl"]

    with faults.failing("sqs", "SendMessage", times=2):
        answer = empty.client("sqs").send_message(QueueUrl=url, MessageBody="x")

    assert answer["ResponseMetadata"]["RetryAttempts"] == 2
    assert _count(empty, url) == 1


def test_a_lost_reply_acts_twice(empty: LocalCloud) -> None:
    url = empty.client("sqs").create_queue(QueueName="q")["QueueUrl"]

    with faults.failing("sqs", "SendMessage", reply_lost=True):
        empty.client("sqs").send_message(QueueUrl=url, MessageBody="x")

    assert _count(empty, url) == 2


def test_more_failures_than_retries_reach_the_caller(empty: LocalCloud) -> None:
    with faults.failing("ssm", "GetParameter", times=5), pytest.raises(ClientError, match=r"503|ServiceUnavailable"):
        empty.client("ssm").get_parameter(Name="one")

    assert empty.client("ssm").get_parameter(Name="one")["Parameter"]["Value"] == "one"


def test_what_services_date_is_dated_by_the_virtual_clock(empty: LocalCloud) -> None:
    s3, cloudwatch = empty.client("s3"), empty.client("cloudwatch")
    empty.advance(days=400)

    s3.create_bucket(Bucket="dated")
    s3.put_object(Bucket="dated", Key="a", Body=b"x")
    cloudwatch.put_dashboard(DashboardName="dated", DashboardBody='{"widgets": []}')

    dates = {bucket["Name"]: bucket["CreationDate"] for bucket in s3.list_buckets()["Buckets"]}
    assert dates["dated"] == empty.clock.now()
    assert s3.head_object(Bucket="dated", Key="a")["LastModified"] == empty.clock.now()
    assert cloudwatch.list_dashboards()["DashboardEntries"][0]["LastModified"] == empty.clock.now()


def test_a_bucket_that_denies_what_does_not_come_by_tls_answers_what_does(fixture_cloud: LocalCloud) -> None:
    s3 = fixture_cloud.client("s3")
    s3.put_object(Bucket="fix-source", Key="a", Body=b"xyz", ContentType="text/plain")

    assert s3.get_object(Bucket="fix-source", Key="a", Range="bytes=0-0")["Body"].read() == b"x"


def _count(cloud: LocalCloud, url: str) -> int:
    found = cloud.client("sqs").get_queue_attributes(QueueUrl=url, AttributeNames=["ApproximateNumberOfMessages"])
    return int(found["Attributes"]["ApproximateNumberOfMessages"])


def test_every_patched_symbol_is_where_it_was() -> None:
    patches.check()


def test_every_patch_says_what_it_stands_for() -> None:
    assert all(row.behaviour.endswith(".") for row in patches.TABLE)


def test_a_moved_symbol_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    gone = dataclasses.replace(patches.TABLE[0], symbol="moved_elsewhere")
    monkeypatch.setattr(patches, "TABLE", [gone])

    with pytest.raises(RuntimeError, match=r"gone.*moved_elsewhere"):
        patches.check()


def test_a_symbol_that_moto_added_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    there = dataclasses.replace(patches.TABLE[0], added=True)
    monkeypatch.setattr(patches, "TABLE", [there])

    with pytest.raises(RuntimeError, match="in it now"):
        patches.check()


def test_another_moto_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(moto, "__version__", "6.0.0")

    with pytest.raises(RuntimeError, match=r"5\.2\.5"):
        patches.check()


def test_a_cloud_leaves_nothing_behind(launch: Any) -> None:
    before = [row.original for row in patches.TABLE]

    launch().close()

    assert [row.original for row in patches.TABLE] == before


def test_there_is_one_cloud_at_a_time(launch: Any, fixture_cloud: LocalCloud) -> None:
    with pytest.raises(RuntimeError, match="another local cloud"):
        launch()

    assert fixture_cloud.client("s3").list_buckets()["Buckets"]


def test_the_same_seed_gives_the_same_run(launch: Any) -> None:
    seen = []
    for _ in range(2):
        cloud = launch(seed=7)
        told: list[str] = []
        cloud.subscribe("Object Created", lambda event, told=told: told.append(event["id"]))
        cloud.client("s3").put_object(Bucket="fix-source", Key="a", Body=b"x")
        cloud.run_until_idle()
        seen.append((told, [(call.at, call.function) for call in cloud.invocations]))
        cloud.close()

    assert seen[0] == seen[1]
    assert len(seen[0][0]) == 2
