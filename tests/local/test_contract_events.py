"""S3 -> EventBridge -> targets, and schedules: each test names the AWS behaviour."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

import pytest

from winnow_local.cloud import LocalCloud
from winnow_local.events import matches, next_time, shaped


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


def test_a_multipart_upload_is_told_once_and_a_deletion_too(empty: LocalCloud) -> None:
    url = caught(empty, {"source": ["aws.s3"]})
    s3 = bucket(empty, "pool", versioned=False)
    upload = s3.create_multipart_upload(Bucket="pool", Key="big")["UploadId"]
    part = s3.upload_part(Bucket="pool", Key="big", UploadId=upload, PartNumber=1, Body=b"x" * 10)["ETag"]
    parts = {"Parts": [{"ETag": part, "PartNumber": 1}]}

    s3.complete_multipart_upload(Bucket="pool", Key="big", UploadId=upload, MultipartUpload=parts)
    s3.copy_object(Bucket="pool", Key="copy", CopySource={"Bucket": "pool", "Key": "big"})
    s3.delete_object(Bucket="pool", Key="big")
    empty.run_until_idle()

    told = [
        (event["detail-type"], event["detail"]["reason"], event["detail"]["object"]["key"])
        for event in bodies(empty, url)
    ]
    assert told == [
        ("Object Created", "CompleteMultipartUpload", "big"),
        ("Object Created", "CopyObject", "copy"),
        ("Object Deleted", "DeleteObject", "big"),
    ]


def test_a_disabled_rule_does_not_deliver(empty: LocalCloud) -> None:
    url = caught(empty, {"source": ["ours"]})
    empty.client("events").disable_rule(Name="caught-0")

    empty.emit_event("ours", "Something", {})
    empty.run_until_idle()

    assert bodies(empty, url) == []


def test_put_events_delivers_once_to_every_matching_rule(empty: LocalCloud) -> None:
    urls = [caught(empty, {"source": ["ours"]}), caught(empty, {"detail": {"n": [{"numeric": [">", 1]}]}})]
    entries = [{"Source": "ours", "DetailType": "T", "Detail": json.dumps({"n": n})} for n in (1, 2)]

    answer = empty.client("events").put_events(Entries=entries)
    empty.run_until_idle()

    assert answer["FailedEntryCount"] == 0
    assert [[event["detail"]["n"] for event in bodies(empty, url)] for url in urls] == [[1, 2], [2]]


def test_targets_shape_their_input(empty: LocalCloud) -> None:
    path = caught(empty, {"source": ["ours"]}, InputPath="$.detail.inner")
    template = {
        "InputPathsMap": {"n": "$.detail.n", "s": "$.detail.s"},
        "InputTemplate": '{"got": <n>, "text": "was <s>"}',
    }
    made = caught(empty, {"source": ["ours"]}, InputTransformer=template)
    fixed = caught(empty, {"source": ["ours"]}, Input='{"always": 1}')

    empty.emit_event("ours", "T", {"n": [1, 2], "s": "x", "inner": {"a": 1}})
    empty.run_until_idle()

    assert bodies(empty, path) == [{"a": 1}]
    assert bodies(empty, made) == [{"got": [1, 2], "text": "was x"}]
    assert bodies(empty, fixed) == [{"always": 1}]


def test_a_transformer_quotes_strings_outside_quotes() -> None:
    target = {"InputTransformer": {"InputPathsMap": {"s": "$.source"}, "InputTemplate": '{"s": <s>}'}}

    assert shaped(target, {"source": 'a"b'}) == {"s": 'a"b'}


@pytest.mark.parametrize(
    ("rule", "yes", "no"),
    [
        ("x", "x", "y"),
        ({"prefix": "re"}, "records/1", "scores"),
        ({"suffix": ".gz"}, "a.gz", "a.gzip"),
        ({"anything-but": ["a", "b"]}, "c", "a"),
        ({"anything-but": {"prefix": "tmp/"}}, "x/tmp/", "tmp/x"),
        ({"anything-but": {"suffix": ".tmp"}}, "a", "a.tmp"),
        ({"numeric": [">=", 1, "<", 5]}, 1, 5),
        ({"wildcard": "*/manifests/*.manifest"}, "j/manifests/o.manifest", "j/manifests/o.txt"),
        ({"equals-ignore-case": "Completed"}, "COMPLETED", "Failed"),
        ({"exists": True}, None, ...),
        ({"exists": False}, ..., "there"),
        (1, 1, True),
    ],
)
def test_event_patterns(rule: Any, yes: Any, no: Any) -> None:
    pattern = json.dumps({"detail": {"field": [rule]}})

    def event(value: Any) -> dict[str, Any]:
        return {"detail": {} if value is ... else {"field": value}}

    assert matches(pattern, event(yes))
    assert not matches(pattern, event(no))


def test_a_pattern_matches_any_element_of_a_list_and_either_side_of_or() -> None:
    pattern = json.dumps({"resources": [{"prefix": "arn:b"}], "$or": [{"source": ["a"]}, {"detail": {"n": [1]}}]})

    assert matches(pattern, {"resources": ["arn:a", "arn:b1"], "source": "a", "detail": {}})
    assert matches(pattern, {"resources": ["arn:b1"], "source": "z", "detail": {"n": 1}})
    assert not matches(pattern, {"resources": ["arn:b1"], "source": "z", "detail": {"n": 2}})


def test_an_unknown_filter_is_loud() -> None:
    with pytest.raises(NotImplementedError, match="cidr"):
        matches('{"detail": {"ip": [{"cidr": "10.0.0.0/8"}]}}', {"detail": {"ip": "10.0.0.1"}})


@pytest.mark.parametrize(
    ("expression", "zone", "due"),
    [
        ("rate(5 minutes)", "UTC", "2026-03-02T08:05:00+00:00"),
        ("cron(0 12 * * ? *)", "UTC", "2026-03-02T12:00:00+00:00"),
        ("cron(0 12 * * ? *)", "Europe/Berlin", "2026-03-02T11:00:00+00:00"),
        ("cron(0/20 8 ? * MON-FRI *)", "UTC", "2026-03-02T08:20:00+00:00"),
        ("cron(15 6 1 JAN,JUL ? *)", "UTC", "2026-07-01T06:15:00+00:00"),
        ("cron(0 0 ? * SUN *)", "UTC", "2026-03-08T00:00:00+00:00"),
        ("at(2026-03-05T10:00:00)", "UTC", "2026-03-05T10:00:00+00:00"),
    ],
)
def test_schedule_expressions(expression: str, zone: str, due: str) -> None:
    monday = datetime(2026, 3, 2, 8, tzinfo=UTC)

    assert next_time(expression, monday, zone=zone) == datetime.fromisoformat(due)


def test_an_at_expression_that_has_passed_never_fires() -> None:
    assert next_time("at(2026-03-01T10:00:00)", datetime(2026, 3, 2, tzinfo=UTC)) is None


def test_schedules_of_both_kinds_fire_and_an_update_changes_when(fixture_cloud: LocalCloud) -> None:
    cloud = fixture_cloud
    cloud.advance(to=datetime(2026, 3, 2, 13, 30, tzinfo=UTC))
    first = [(call.at.hour, call.invoker) for call in cloud.invocations if call.function == "fix-echo"]
    schedule = cloud.client("scheduler").get_schedule(Name="fix-echo")
    kept = {name: schedule[name] for name in ("Name", "FlexibleTimeWindow", "Target")}

    cloud.client("scheduler").update_schedule(**kept, ScheduleExpression="rate(10 minutes)")
    cloud.advance(hours=0.5)

    assert sorted(first) == [
        *[(hour, "aws.scheduler") for hour in (9, 10, 11)],
        (12, "aws.events"),
        (12, "aws.scheduler"),
        (13, "aws.scheduler"),
    ]
    assert [call.at.minute for call in cloud.invocations[len(cloud.invocations) - 2 :]] == [40, 50]


def test_events_are_lost_doubled_and_late_on_order(empty: LocalCloud) -> None:
    url = caught(empty, {"source": ["ours"]})
    empty.faults.drop(lambda event: event["detail"]["n"] == 1)
    empty.faults.duplicate(2, lambda event: event["detail"]["n"] == 2)
    empty.faults.delay(60, lambda event: event["detail"]["n"] == 3)

    for n in (1, 2, 3, 4, 1):
        empty.emit_event("ours", "T", {"n": n})
    empty.run_until_idle()

    assert [event["detail"]["n"] for event in bodies(empty, url)] == [2, 2, 4, 1, 3]


def test_a_subscriber_sees_what_is_delivered(empty: LocalCloud) -> None:
    seen: list[Any] = []
    empty.subscribe("T", lambda event: seen.append(event["detail"]["n"]))
    empty.faults.drop(times=1)

    for n in (1, 2):
        empty.emit_event("ours", "T", {"n": n})
    empty.run_until_idle()

    assert seen == [2]
