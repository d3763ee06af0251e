"""SQS and its event source mappings: each test names the AWS behaviour."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from moto.cloudformation.exceptions import ValidationError

from tests.local.test_contract_events import bodies
from winnow_local.cloud import LocalCloud

CODE = """
import json
def handler(event, context):
    bad = [{"itemIdentifier": record["messageId"]} for record in event["Records"] if "bad" in record["body"]]
    if any("crash" in record["body"] for record in event["Records"]):
        raise ValueError("crash")
    return RESULT if RESULT else {"batchItemFailures": bad}
RESULT = None
"""
Polled = Callable[..., tuple[LocalCloud, str]]


@pytest.fixture
def polled(tmp_path: Path, launch: Callable[..., LocalCloud]) -> Polled:
    """A queue whose function fails what contains `bad`, or all of a batch with `crash`: the cloud and the queue's URL."""

    def make(code: str = CODE, visibility: int = 60, **mapping: Any) -> tuple[LocalCloud, str]:
        (tmp_path / "f").mkdir()
        (tmp_path / "f" / "app.py").write_text(code)
        event = {
            "Queue": {"Fn::GetAtt": ["Queue", "Arn"]},
            "FunctionResponseTypes": ["ReportBatchItemFailures"],
            **mapping,
        }
        function = {
            "FunctionName": "f",
            "CodeUri": "f",
            "Handler": "app.handler",
            "Runtime": "python3.13",
            "Timeout": 10,
        }
        redrive = {"deadLetterTargetArn": {"Fn::GetAtt": ["Dead", "Arn"]}, "maxReceiveCount": 2}
        queue = {"QueueName": "q", "VisibilityTimeout": visibility, "RedrivePolicy": redrive}
        resources = {
            "Dead": {"Type": "AWS::SQS::Queue", "Properties": {"QueueName": "dead"}},
            "Queue": {"Type": "AWS::SQS::Queue", "Properties": queue},
            "F": {
                "Type": "AWS::Serverless::Function",
                "Properties": {**function, "Events": {"Q": {"Type": "SQS", "Properties": event}}},
            },
        }
        template = tmp_path / "template.yaml"
        template.write_text(json.dumps({"Transform": "AWS::Serverless-2016-10-31", "Resources": resources}))
        cloud = launch(template)
        return cloud, str(cloud.client("sqs").get_queue_url(QueueName="q")["QueueUrl"])

    return make


def send(cloud: LocalCloud, url: str, *texts: str, **more: Any) -> None:
    for text in texts:
        cloud.client("sqs").send_message(QueueUrl=url, MessageBody=json.dumps(text), **more)


def left(cloud: LocalCloud, name: str) -> int:
    names = ["ApproximateNumberOfMessages", "ApproximateNumberOfMessagesNotVisible"]
    url = cloud.client("sqs").get_queue_url(QueueName=name)["QueueUrl"]
    found = cloud.client("sqs").get_queue_attributes(QueueUrl=url, AttributeNames=names)["Attributes"]
    return sum(int(value) for value in found.values())


def minutes(cloud: LocalCloud) -> list[float]:
    start = cloud.invocations[0].at
    return [(call.at - start) / timedelta(minutes=1) for call in cloud.invocations]


def test_messages_arrive_in_batches_and_are_deleted_after_success(polled: Polled) -> None:
    cloud, url = polled(BatchSize=10)

    send(cloud, url, *[str(n) for n in range(25)])
    cloud.run_until_idle()

    assert len(cloud.invocations) == 3
    assert left(cloud, "q") == 0


def test_a_batch_window_waits_for_more_until_it_closes_or_the_batch_is_full(polled: Polled) -> None:
    cloud, url = polled(BatchSize=10, MaximumBatchingWindowInSeconds=120)

    send(cloud, url, "a")
    cloud.advance(hours=1 / 60)
    send(cloud, url, "b")
    cloud.run_until_idle()
    send(cloud, url, *[str(n) for n in range(10)])
    at = cloud.clock.time()
    cloud.run_until_idle()

    assert len(cloud.invocations) == 2
    assert cloud.invocations[1].at.timestamp() - at < 1


def test_only_the_named_failures_come_back_after_the_visibility_timeout_and_then_go_to_the_dead_letters(
    polled: Polled,
) -> None:
    cloud, url = polled(BatchSize=10)

    send(cloud, url, "good", "bad", "fine")
    cloud.run_until_idle()

    assert minutes(cloud) == [0.0, 1.0]
    assert left(cloud, "q") == 0
    assert bodies(cloud, cloud.client("sqs").get_queue_url(QueueName="dead")["QueueUrl"]) == ["bad"]


@pytest.mark.parametrize(
    "answer", ['{"batchItemFailures": [{"itemIdentifier": "unknown"}]}', '{"batchItemFailures": [{"id": "x"}]}']
)
def test_a_malformed_answer_fails_the_whole_batch(polled: Polled, answer: str) -> None:
    cloud, url = polled(CODE.replace("RESULT = None", f"RESULT = json.loads('{answer}')"), BatchSize=10)

    send(cloud, url, "a", "b")
    cloud.run_until_idle()

    assert left(cloud, "dead") == 2


def test_an_exception_fails_the_whole_batch_and_the_receive_count_grows(polled: Polled) -> None:
    cloud, url = polled(BatchSize=10)

    send(cloud, url, "crash", "good")
    cloud.run_until_idle()

    assert [call.error for call in cloud.invocations] == ["ValueError", "ValueError"]
    assert left(cloud, "dead") == 2


def test_delayed_messages_wait_in_virtual_time(polled: Polled) -> None:
    cloud, url = polled(BatchSize=10)
    at = cloud.clock.time()

    send(cloud, url, "later", DelaySeconds=300)
    cloud.run_until_idle()

    assert 300 <= cloud.invocations[0].at.timestamp() - at < 301


def test_what_is_not_simulated_is_refused(polled: Polled) -> None:
    cloud, url = polled(BatchSize=10)
    (mapping,) = cloud.client("lambda").list_event_source_mappings(FunctionName="f")["EventSourceMappings"]

    with pytest.raises(NotImplementedError, match="update event source mappings"):
        cloud.client("lambda").update_event_source_mapping(UUID=mapping["UUID"], Enabled=False)
    with pytest.raises(NotImplementedError, match="attributes"):
        send(cloud, url, "x", MessageAttributes={"kind": {"DataType": "String", "StringValue": "image"}})


def test_without_its_mapping_a_queue_keeps_its_messages_for_the_next_one(polled: Polled) -> None:
    cloud, url = polled(BatchSize=10)
    lambdas = cloud.client("lambda")
    (mapping,) = lambdas.list_event_source_mappings(FunctionName="f")["EventSourceMappings"]
    send(cloud, url, "first")

    lambdas.delete_event_source_mapping(UUID=mapping["UUID"])
    cloud.run_until_idle()
    calls = len(cloud.invocations)
    lambdas.create_event_source_mapping(FunctionName="f", EventSourceArn=mapping["EventSourceArn"], BatchSize=10)
    cloud.run_until_idle()

    assert (calls, len(cloud.invocations)) == (0, 1)


def test_a_mapping_with_a_filter_is_refused(polled: Polled) -> None:
    with pytest.raises(NotImplementedError, match="filters"):
        polled(FilterCriteria={"Filters": [{"Pattern": "{}"}]})


def test_a_mapping_is_refused_when_the_function_may_outlast_the_visibility(polled: Polled) -> None:
    with pytest.raises(ValidationError, match="visibility timeout: 5 seconds is less than"):
        polled(visibility=5)


def test_the_record_a_function_sees(polled: Polled) -> None:
    code = "SEEN = []\ndef handler(event, context):\n    print(__import__('json').dumps(event['Records'][0]))\n"
    cloud, url = polled(code)

    cloud.client("sqs").send_message(QueueUrl=url, MessageBody="x")
    cloud.run_until_idle()

    record = json.loads(cloud.client("logs").filter_log_events(logGroupName="/aws/lambda/f")["events"][0]["message"])
    assert record["eventSource"] == "aws:sqs"
    assert record["eventSourceARN"] == "arn:aws:sqs:us-east-1:123456789012:q"
    assert record["attributes"]["ApproximateReceiveCount"] == "1"


def test_dead_letters_move_back_to_the_queue_they_came_from(polled: Polled) -> None:
    cloud, url = polled(BatchSize=10)
    send(cloud, url, "bad")
    cloud.run_until_idle()
    before = len(cloud.invocations)

    cloud.client("sqs").start_message_move_task(SourceArn="arn:aws:sqs:us-east-1:123456789012:dead")
    cloud.run_until_idle()

    assert len(cloud.invocations) == before + 2
    assert left(cloud, "dead") == 1


def test_a_received_message_hides_for_its_timeout_and_is_back_at_once_when_that_is_set_to_zero(
    empty: LocalCloud,
) -> None:
    sqs = empty.client("sqs")
    url = sqs.create_queue(QueueName="plain")["QueueUrl"]
    send(empty, url, "x")

    def take() -> list[Any]:
        return list(sqs.receive_message(QueueUrl=url, VisibilityTimeout=120, WaitTimeSeconds=20).get("Messages", []))

    first, hidden = take(), take()
    sqs.change_message_visibility(QueueUrl=url, ReceiptHandle=first[0]["ReceiptHandle"], VisibilityTimeout=0)
    again = take()
    empty.advance(hours=1 / 30)

    assert (len(first), len(hidden), len(again), len(take())) == (1, 0, 1, 1)


def test_a_long_queue_is_sent_to_and_read_quickly(polled: Polled) -> None:
    cloud, url = polled(BatchSize=100, ScalingConfig={"MaximumConcurrency": 2})

    for start in range(0, 1000, 10):
        entries = [{"Id": str(n), "MessageBody": json.dumps(n)} for n in range(start, start + 10)]
        cloud.client("sqs").send_message_batch(QueueUrl=url, Entries=entries)
    cloud.run_until_idle()

    assert len(cloud.invocations) == 10
    assert left(cloud, "q") == 0
