"""S3 -> EventBridge -> targets, and schedules: each test names the AWS behaviour."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests import faults
from winnow_local.cloud import LocalCloud

ROLE = "arn:aws:iam::123456789012:role/schedules"


def caught(cloud: LocalCloud, pattern: dict[str, Any], **target: Any) -> str:
    """A queue that gets the events of a pattern: its URL."""
    sqs, events = cloud.client("sqs"), cloud.client("events")
    name = f"caught-{len(sqs.list_queues().get('QueueUrls', []))}"
    url = sqs.create_queue(QueueName=name)["QueueUrl"]
    arn = sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["QueueArn"])["Attributes"]["QueueArn"]
    events.put_rule(Name=name, EventPattern=json.dumps(pattern))
    events.put_targets(Rule=name, Targets=[{"Id": "q", "Arn": arn, **target}])
    return str(url)


def bodies(cloud: LocalCloud, url: str) -> list[Any]:
    found = []
    while batch := cloud.client("sqs").receive_message(QueueUrl=url, MaxNumberOfMessages=10).get("Messages"):
        found += [json.loads(message["Body"]) for message in batch]
    return found


def bucket(cloud: LocalCloud, name: str, *, versioned: bool = True) -> Any:
    s3 = cloud.client("s3")
    s3.create_bucket(Bucket=name)
    if versioned:
        s3.put_bucket_versioning(Bucket=name, VersioningConfiguration={"Status": "Enabled"})
    s3.put_bucket_notification_configuration(Bucket=name, NotificationConfiguration={"EventBridgeConfiguration": {}})
    return s3


def test_a_put_is_told_once_half_a_second_later_with_key_version_and_a_growing_sequencer(empty: LocalCloud) -> None:
    url = caught(empty, {"source": ["aws.s3"]})
    s3 = bucket(empty, "pool")

    versions = [s3.put_object(Bucket="pool", Key="a b/ü.txt", Body=b"abc")["VersionId"] for _ in range(2)]
    assert bodies(empty, url) == []
    empty.run_until_idle()
    told = bodies(empty, url)

    assert [event["detail-type"] for event in told] == ["Object Created"] * 2
    assert [event["detail"]["object"]["version-id"] for event in told] == versions
    assert told[0]["detail"]["object"]["key"] == "a b/ü.txt"
    assert told[0]["detail"]["object"]["size"] == 3
    assert told[0]["detail"]["reason"] == "PutObject"
    assert told[0]["detail"]["object"]["sequencer"] < told[1]["detail"]["object"]["sequencer"]
    assert told[0]["id"] != told[1]["id"]
    assert told[0]["time"] == "2026-03-02T08:00:00Z"


def test_a_multipart_upload_is_told_once_and_a_copy_too(empty: LocalCloud) -> None:
    url = caught(empty, {"source": ["aws.s3"]})
    s3 = bucket(empty, "pool", versioned=False)
    upload = s3.create_multipart_upload(Bucket="pool", Key="big")["UploadId"]
    part = s3.upload_part(Bucket="pool", Key="big", UploadId=upload, PartNumber=1, Body=b"x" * 10)["ETag"]
    parts = {"Parts": [{"ETag": part, "PartNumber": 1}]}

    s3.complete_multipart_upload(Bucket="pool", Key="big", UploadId=upload, MultipartUpload=parts)
    s3.copy_object(Bucket="pool", Key="copy", CopySource={"Bucket": "pool", "Key": "big"})
    s3.delete_object(Bucket="pool", Key="big")
    empty.run_until_idle()

    told = [(event["detail"]["reason"], event["detail"]["object"]["key"]) for event in bodies(empty, url)]
    assert told == [("CompleteMultipartUpload", "big"), ("CopyObject", "copy")]


def test_a_disabled_rule_does_not_deliver(empty: LocalCloud) -> None:
    url = caught(empty, {"source": ["ours"]})
    empty.client("events").disable_rule(Name="caught-0")

    empty.emit_event("ours", "Something", {})
    empty.run_until_idle()

    assert bodies(empty, url) == []


def test_every_matching_rule_gets_the_event_once(empty: LocalCloud) -> None:
    urls = [caught(empty, {"source": ["ours"]}), caught(empty, {"detail": {"n": ["2"]}})]

    for n in ("1", "2"):
        empty.emit_event("ours", "T", {"n": n})
    empty.run_until_idle()

    assert [[event["detail"]["n"] for event in bodies(empty, url)] for url in urls] == [["1", "2"], ["2"]]


def test_what_eventbridge_has_beyond_the_template_is_refused_by_name(fixture_cloud: LocalCloud) -> None:
    events, scheduler = fixture_cloud.client("events"), fixture_cloud.client("scheduler")
    schedule = scheduler.get_schedule(Name="fix-echo")
    kept = {name: schedule[name] for name in ("FlexibleTimeWindow", "Target", "ScheduleExpression")}

    with pytest.raises(NotImplementedError, match="PutEvents"):
        events.put_events(Entries=[{"Source": "ours", "DetailType": "T", "Detail": "{}"}])
    with pytest.raises(NotImplementedError, match="no schedules"):
        events.put_rule(Name="noon", ScheduleExpression="rate(1 day)")
    with pytest.raises(NotImplementedError, match="update schedules"):
        scheduler.update_schedule(Name="fix-echo", **kept)
    with pytest.raises(NotImplementedError, match="Input"):
        scheduler.create_schedule(Name="bare", **{**kept, "Target": {"Arn": "arn:aws:lambda", "RoleArn": ROLE}})
    with pytest.raises(NotImplementedError, match=r"cron\(0 12"):
        scheduler.create_schedule(Name="noon", **{**kept, "ScheduleExpression": "cron(0 12 * * ? *)"})


def test_a_target_that_shapes_its_input_is_refused(empty: LocalCloud) -> None:
    caught(empty, {"source": ["ours"]}, Input='{"always": 1}')

    empty.emit_event("ours", "T", {})

    with pytest.raises(NotImplementedError, match="Input"):
        empty.run_until_idle()


@pytest.mark.parametrize(
    ("pattern", "picked"),
    [
        ({"detail": {"key": ["a"]}}, [0]),
        ({"detail": {"key": ["a", {"prefix": "records/"}]}}, [0, 1]),
        ({"detail": {"inner": {"key": ["a"]}}}, [2]),
        ({"resources": [{"prefix": "arn:b"}]}, [1]),
        ({"resources": ["arn:a"], "detail-type": ["T", "U"]}, [0, 1]),
        ({"resources": ["arn:a"], "detail-type": ["U"]}, []),
    ],
)
def test_a_pattern_picks_exact_values_and_prefixes_and_any_element_of_a_list(
    empty: LocalCloud, pattern: dict[str, Any], picked: list[int]
) -> None:
    url = caught(empty, pattern)
    sent = [({"key": "a"}, ["arn:a"]), ({"key": "records/1"}, ["arn:a", "arn:b1"]), ({"inner": {"key": "a"}}, [])]

    for detail, resources in sent:
        empty.emit_event("ours", "T", detail, resources)
    empty.run_until_idle()

    assert [event["detail"] for event in bodies(empty, url)] == [sent[n][0] for n in picked]


@pytest.mark.parametrize(
    "pattern", [{"detail": {"key": [{"suffix": ".gz"}]}}, {"$or": [{"source": ["a"]}]}, {"detail": {"n": [1]}}]
)
def test_an_unknown_filter_is_refused_when_the_rule_is_made(empty: LocalCloud, pattern: dict[str, Any]) -> None:
    with pytest.raises(NotImplementedError, match="event filter"):
        caught(empty, pattern)


def test_a_schedule_fires_at_its_rate_and_not_once_it_is_deleted(fixture_cloud: LocalCloud) -> None:
    fixture_cloud.advance(hours=3.5)
    fixture_cloud.client("scheduler").delete_schedule(Name="fix-echo")
    fixture_cloud.advance(hours=3)

    assert [(call.at.hour, call.invoker) for call in fixture_cloud.invocations] == [
        (hour, "aws.scheduler") for hour in (9, 10, 11)
    ]


def test_events_are_lost_doubled_and_late_on_order(empty: LocalCloud) -> None:
    url = caught(empty, {"source": ["ours"]})
    faults.drop(empty, lambda event: event["detail"]["n"] == 1)
    faults.duplicate(empty, lambda event: event["detail"]["n"] == 2)
    faults.delay(empty, 60, lambda event: event["detail"]["n"] == 3)

    for n in (1, 2, 3, 4, 1):
        empty.emit_event("ours", "T", {"n": n})
    empty.run_until_idle()

    assert [event["detail"]["n"] for event in bodies(empty, url)] == [2, 2, 4, 1, 3]


def test_a_subscriber_sees_what_is_delivered(empty: LocalCloud) -> None:
    seen: list[Any] = []
    empty.subscribe("T", lambda event: seen.append(event["detail"]["n"]))
    faults.drop(empty)

    for n in (1, 2):
        empty.emit_event("ours", "T", {"n": n})
    empty.run_until_idle()

    assert seen == [2]
