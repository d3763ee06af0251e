"""The quick ways to S3 and DynamoDB answer as the long ways do."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pytest
from botocore.exceptions import ClientError
from moto.core import responses
from moto.s3.models import s3_backends
from moto.sqs import models
from moto.sqs.models import sqs_backends
from moto.sqs.responses import SQSResponse

from tests import faults
from winnow_local import speed
from winnow_local.cloud import LocalCloud

META = ("ResponseMetadata", "ChecksumCRC32", "ChecksumAlgorithm", "ChecksumType", "EncodingType", "RequestCharged")


def plain(value: Any) -> Any:
    """A response without what only HTTP knows."""
    if isinstance(value, dict):
        kept = {key: plain(each) for key, each in value.items() if key not in META}
        return {key: each.read() if key == "Body" else each for key, each in kept.items()}
    return [plain(each) for each in value] if isinstance(value, list) else value


@pytest.fixture
def both(empty: LocalCloud, monkeypatch: pytest.MonkeyPatch) -> Callable[..., tuple[Any, Any]]:
    """The answers of the quick way and of the long way."""
    s3 = empty.client("s3")
    for name in ("plain", "kept"):
        s3.create_bucket(Bucket=name)
    s3.put_bucket_versioning(Bucket="kept", VersioningConfiguration={"Status": "Enabled"})

    def ask(operation: str, **params: Any) -> tuple[Any, Any]:
        quick = plain(getattr(s3, operation)(**params))
        with monkeypatch.context() as patched:
            patched.setattr(speed, "PLAIN", {})
            return quick, plain(getattr(s3, operation)(**params))

    return ask


@pytest.mark.parametrize("bucket", ["plain", "kept"])
def test_reading_an_object(both: Callable[..., tuple[Any, Any]], empty: LocalCloud, bucket: str) -> None:
    empty.client("s3").put_object(Bucket=bucket, Key="a b/ü.png", Body=b"abc", ContentType="image/png")

    for operation in ("get_object", "head_object"):
        quick, long = both(operation, Bucket=bucket, Key="a b/ü.png")
        assert quick == long


def test_an_older_version_is_read_by_its_id(both: Callable[..., tuple[Any, Any]], empty: LocalCloud) -> None:
    first = empty.client("s3").put_object(Bucket="kept", Key="a", Body=b"1")["VersionId"]
    empty.client("s3").put_object(Bucket="kept", Key="a", Body=b"2")

    quick, long = both("get_object", Bucket="kept", Key="a", VersionId=first)

    assert quick == long
    assert quick["Body"] == b"1"


def test_writing_an_object(both: Callable[..., tuple[Any, Any]], empty: LocalCloud) -> None:
    quick, long = both("put_object", Bucket="plain", Key="a", Body=b"abc", ContentType="text/plain")
    assert quick == long

    quick, long = both("put_object", Bucket="plain", Key="b", Body=b"abc")
    assert quick == long

    kept = empty.client("s3").put_object(Bucket="kept", Key="a", Body="text")
    assert empty.client("s3").get_object(Bucket="kept", Key="a", VersionId=kept["VersionId"])["Body"].read() == b"text"


def test_pages_of_a_listing(both: Callable[..., tuple[Any, Any]], empty: LocalCloud) -> None:
    s3 = empty.client("s3")
    for n in range(5):
        s3.put_object(Bucket="kept", Key=f"a/{n} ü", Body=b"x")
    s3.delete_object(Bucket="kept", Key="a/2 ü")
    s3.put_object(Bucket="kept", Key="b", Body=b"x")

    quick, long = both("list_objects_v2", Bucket="kept", Prefix="a/")
    assert quick == long
    assert both("list_objects_v2", Bucket="kept", Prefix="none")[0].get("Contents") is None
    pages = s3.get_paginator("list_objects_v2").paginate(Bucket="kept", PaginationConfig={"PageSize": 2})
    assert [[entry["Key"] for entry in page["Contents"]] for page in pages] == [
        ["a/0 ü", "a/1 ü"],
        ["a/3 ü", "a/4 ü"],
        ["b"],
    ]


def test_pages_of_versions(both: Callable[..., tuple[Any, Any]], empty: LocalCloud) -> None:
    s3 = empty.client("s3")
    for key in ("a", "a", "b", "c"):
        s3.put_object(Bucket="kept", Key=key, Body=b"x")
        empty.advance(hours=1)
    s3.delete_object(Bucket="kept", Key="b")

    quick, long = both("list_object_versions", Bucket="kept")
    assert quick == long
    assert len(quick["DeleteMarkers"]) == 1
    quick, long = both("list_object_versions", Bucket="kept", MaxKeys=2)
    assert quick == long
    assert quick["NextKeyMarker"] == "a"
    quick, long = both("list_object_versions", Bucket="kept", Prefix="a")
    assert quick == long
    (long,) = s3.get_paginator("list_object_versions").paginate(Bucket="kept")
    pages = list(s3.get_paginator("list_object_versions").paginate(Bucket="kept", PaginationConfig={"PageSize": 2}))
    told = [(each["Key"], each["VersionId"]) for page in pages for each in page.get("Versions", [])]
    assert told == [(each["Key"], each["VersionId"]) for each in long["Versions"]]


def test_conditions_errors_and_orders_take_the_long_way(empty: LocalCloud) -> None:
    s3 = empty.client("s3")
    s3.create_bucket(Bucket="plain")
    s3.put_object(Bucket="plain", Key="a", Body=b"1", IfNoneMatch="*")

    with pytest.raises(ClientError, match="PreconditionFailed"):
        s3.put_object(Bucket="plain", Key="a", Body=b"2", IfNoneMatch="*")
    with pytest.raises(ClientError, match="NoSuchKey"):
        s3.get_object(Bucket="plain", Key="b")
    with pytest.raises(ClientError) as missing:
        s3.head_object(Bucket="plain", Key="b")
    assert missing.value.response["Error"]["Code"] == "404"
    assert missing.value.response["ResponseMetadata"]["HTTPStatusCode"] == 404
    with pytest.raises(ClientError, match="NoSuchBucket"):
        s3.get_object(Bucket="none", Key="b")
    with faults.failing("s3", "GetObject", times=5), pytest.raises(ClientError, match="GetObject"):
        s3.get_object(Bucket="plain", Key="a")
    assert s3.get_object(Bucket="plain", Key="a")["Body"].read() == b"1"


def test_of_two_versions_of_one_moment_the_last_is_the_latest(
    both: Callable[..., tuple[Any, Any]], empty: LocalCloud
) -> None:
    ids = [empty.client("s3").put_object(Bucket="kept", Key="a", Body=body)["VersionId"] for body in (b"1", b"2")]

    for answer in both("list_object_versions", Bucket="kept"):
        assert [(each["VersionId"], each["IsLatest"]) for each in answer["Versions"]] == [
            (ids[1], True),
            (ids[0], False),
        ]


def test_a_query_reads_its_partition_or_its_index(empty: LocalCloud) -> None:
    table, names = empty.client("dynamodb"), ("pk", "sk", "other")
    table.create_table(
        TableName="t", BillingMode="PAY_PER_REQUEST",
        AttributeDefinitions=[{"AttributeName": name, "AttributeType": "S"} for name in names],
        KeySchema=[{"AttributeName": "pk", "KeyType": "HASH"}, {"AttributeName": "sk", "KeyType": "RANGE"}],
        GlobalSecondaryIndexes=[{
            "IndexName": "others", "KeySchema": [{"AttributeName": "other", "KeyType": "HASH"}],
            "Projection": {"ProjectionType": "ALL"},
        }],
    )  # fmt: skip
    for pk, sk in (("a", "2"), ("b", "1"), ("a", "1")):
        table.put_item(TableName="t", Item={"pk": {"S": pk}, "sk": {"S": sk}, "other": {"S": sk}})

    def found(field: str, value: str, **index: str) -> list[tuple[str, str]]:
        query = {"KeyConditionExpression": f"{field} = :v", "ExpressionAttributeValues": {":v": {"S": value}}, **index}
        return [(item["pk"]["S"], item["sk"]["S"]) for item in table.query(TableName="t", **query)["Items"]]

    assert found("pk", "a") == [("a", "1"), ("a", "2")]
    assert found("pk", "c") == []
    assert sorted(found("other", "1", IndexName="others")) == [("a", "1"), ("b", "1")]


def test_messages_become_visible_by_the_clock(empty: LocalCloud) -> None:
    sqs = empty.client("sqs")
    url = sqs.create_queue(QueueName="q", Attributes={"VisibilityTimeout": "30"})["QueueUrl"]
    sqs.send_message(QueueUrl=url, MessageBody="now")
    sqs.send_message(QueueUrl=url, MessageBody="later", DelaySeconds=60)

    def received() -> list[str]:
        return [each["Body"] for each in sqs.receive_message(QueueUrl=url, MaxNumberOfMessages=10).get("Messages", [])]

    assert received() == ["now"]
    empty.clock.run(until=empty.clock.time() + 29)
    assert received() == []
    empty.clock.run(until=empty.clock.time() + 32)
    assert received() == ["now", "later"]


def test_a_request_carries_no_portrait_of_the_machine(empty: LocalCloud) -> None:
    seen = []
    empty.client("sqs").meta.events.register(
        "before-send", lambda request, **_: seen.append(request.headers["User-Agent"])
    )

    empty.client("sqs").list_queues()

    assert [agent.split()[0] for agent in seen] == [b"winnow"]  # Powertools, where it was imported, adds its own name


def test_a_services_addresses_are_found_once(empty: LocalCloud) -> None:
    backend = s3_backends[empty.account]["aws"]

    assert any(re.fullmatch(url, "https://kept.s3.amazonaws.com/") for url in backend.urls)
    assert backend.urls is backend.urls
    assert sqs_backends[empty.account][empty.region].urls is not backend.urls


def test_a_services_names_are_found_once(empty: LocalCloud) -> None:
    names = responses.method_names_from_class(SQSResponse)

    assert "send_message" in names
    assert responses.method_names_from_class(SQSResponse) is names
    assert models.camelcase_to_underscores("VisibilityTimeout") == "visibility_timeout"
    assert models.camelcase_to_underscores("QueueArn") is models.camelcase_to_underscores("QueueArn")


def test_an_answer_spelled_as_in_the_api_stays_as_it_is(empty: LocalCloud) -> None:
    table: Any = empty.client("dynamodb")
    table.create_table(
        TableName="t", BillingMode="PAY_PER_REQUEST", KeySchema=[{"AttributeName": "pk", "KeyType": "HASH"}],
        AttributeDefinitions=[{"AttributeName": "pk", "AttributeType": "S"}],
    )  # fmt: skip
    item = {"pk": {"S": "a"}, "Item": {"M": {"none": {"NULL": True}, "some": {"L": [{"N": "1"}, {"BOOL": False}]}}}}
    table.put_item(TableName="t", Item=item)

    assert table.get_item(TableName="t", Key={"pk": {"S": "a"}})["Item"] == item
    assert "Item" not in table.get_item(TableName="t", Key={"pk": {"S": "b"}})
    assert "SSEDescription" not in table.describe_table(TableName="t")["Table"]
