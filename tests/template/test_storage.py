"""Buckets, table, queues and topics: encrypted, reachable over TLS only, closed to the public, and kept."""

from __future__ import annotations

from typing import Any

import pytest

from tests.template.stack import ACCOUNT, REGION, STACK, expanded, stack

WORK = ("ingest", "score", "candidates", "collect", "capture")


def denies_plain_http(policy: dict[str, Any], *, action: str) -> bool:
    return any(
        s["Effect"] == "Deny"
        and s["Principal"] == "*"
        and s["Action"] == action
        and s["Condition"] == {"Bool": {"aws:SecureTransport": "false"}}
        for s in policy["Statement"]
    )


def test_names_derive_from_the_stack() -> None:
    buckets = {p["BucketName"] for p in stack().resources("AWS::S3::Bucket").values()}
    queues = {p["QueueName"] for p in stack().resources("AWS::SQS::Queue").values()}
    topics = {p["TopicName"] for p in stack().resources("AWS::SNS::Topic").values()}
    machines = {p["StateMachineName"] for p in stack().resources("AWS::StepFunctions::StateMachine").values()}
    roles = {p["RoleName"] for p in stack().resources("AWS::IAM::Role").values() if "RoleName" in p}
    groups = [p["ModelPackageGroupName"] for p in stack().resources("AWS::SageMaker::ModelPackageGroup").values()]

    assert buckets == {f"{STACK}-{part}-{ACCOUNT}-{REGION}" for part in ("pool", "data")}
    assert stack().name("Table") == STACK
    assert queues == {f"{STACK}-{q}{end}" for q in WORK for end in ("", "-dlq")} | {f"{STACK}-async-dlq"}
    assert topics == {f"{STACK}-page", f"{STACK}-ticket"}
    assert machines == {f"{STACK}-improve", f"{STACK}-rescore"}
    assert roles == {f"{STACK}-{part}" for part in ("groundtruth", "training", "endpoint")}
    assert groups == [STACK]


@pytest.mark.parametrize("bucket", ["PoolBucket", "DataBucket"])
def test_a_bucket_is_closed_encrypted_versioned_and_kept(bucket: str) -> None:
    properties = stack().resources("AWS::S3::Bucket")[bucket]
    policy = stack().resources("AWS::S3::BucketPolicy")[f"{bucket}Policy"]

    assert set(properties["PublicAccessBlockConfiguration"].values()) == {True}
    assert len(properties["PublicAccessBlockConfiguration"]) == 4
    assert properties["BucketEncryption"]["ServerSideEncryptionConfiguration"]
    assert properties["VersioningConfiguration"] == {"Status": "Enabled"}
    assert properties["NotificationConfiguration"] == {"EventBridgeConfiguration": {"EventBridgeEnabled": True}}
    assert denies_plain_http(policy["PolicyDocument"], action="s3:*")
    assert policy["PolicyDocument"]["Statement"][0]["Resource"] == [stack().arn(bucket), f"{stack().arn(bucket)}/*"]
    rules = {rule["Id"] for rule in properties["LifecycleConfiguration"]["Rules"]}
    assert {"old-versions", "broken-uploads"} <= rules
    assert kept(bucket)


def kept(logical: str) -> bool:
    resource = expanded()["Resources"][logical]
    return resource["DeletionPolicy"] == resource["UpdateReplacePolicy"] == "Retain"


def test_browsers_of_annotators_may_load_images() -> None:
    (rule,) = stack().resources("AWS::S3::Bucket")["DataBucket"]["CorsConfiguration"]["CorsRules"]

    assert (rule["AllowedMethods"], rule["AllowedOrigins"]) == (["GET"], ["*"])


def test_the_table_is_recoverable_encrypted_and_kept() -> None:
    table = stack().resources("AWS::DynamoDB::Table")["Table"]

    assert [key["AttributeName"] for key in table["KeySchema"]] == ["pk", "sk"]
    assert table["BillingMode"] == "PAY_PER_REQUEST"
    assert table["PointInTimeRecoverySpecification"] == {"PointInTimeRecoveryEnabled": True}
    assert table["SSESpecification"] == {"SSEEnabled": True}
    assert table["TimeToLiveSpecification"] == {"AttributeName": "expires_at", "Enabled": True}
    assert kept("Table")


def test_queues_are_encrypted_and_keep_what_fails_for_two_weeks() -> None:
    queues = stack().resources("AWS::SQS::Queue")

    for name, queue in queues.items():
        assert queue["SqsManagedSseEnabled"] is True
        assert queue["MessageRetentionPeriod"] == 1_209_600
        if name.endswith("Queue"):
            dead_letters = stack().arn(name.removesuffix("Queue") + "DeadLetters")
            assert queue["RedrivePolicy"] == {"deadLetterTargetArn": dead_letters, "maxReceiveCount": 5}


def test_every_queue_refuses_plain_http() -> None:
    covered = [
        queue
        for policy in stack().resources("AWS::SQS::QueuePolicy").values()
        if denies_plain_http(policy["PolicyDocument"], action="sqs:*")
        for queue in policy["Queues"]
    ]

    assert sorted(covered) == sorted(p["QueueName"] for p in stack().resources("AWS::SQS::Queue").values())


def test_a_rule_may_send_to_its_queue_and_nobody_else_may() -> None:
    for name, rule in stack().resources("AWS::Events::Rule").items():
        (target,) = rule["Targets"]
        queue = next(q for q in stack().resources("AWS::SQS::Queue") if stack().arn(q) == target["Arn"])
        statement = stack().resources("AWS::SQS::QueuePolicy")[f"{queue}Policy"]["PolicyDocument"]["Statement"][0]
        allowed = statement["Condition"]["ArnEquals"]["aws:SourceArn"]
        assert stack().arn(name) in (allowed if isinstance(allowed, list) else [allowed])
        assert (statement["Principal"], statement["Action"]) == ({"Service": "events.amazonaws.com"}, "sqs:SendMessage")
        assert target["DeadLetterConfig"] == {"Arn": stack().arn("AsyncDeadLetters")}


def test_rules_catch_what_wakes_the_hops() -> None:
    rules = stack().resources("AWS::Events::Rule")

    def caught(rule: str) -> tuple[Any, ...]:
        detail = rules[rule]["EventPattern"]["detail"]
        return (*detail["bucket"]["name"], *detail.get("object", {}).get("key", []))

    pool, data = stack().name("PoolBucket"), stack().name("DataBucket")
    assert caught("IngestRule") == (pool,)
    assert caught("ProductionRule") == (data, {"prefix": "production/"})
    assert caught("ScoreRule") == (data, {"prefix": "records/"})
    assert caught("ImportRule") == (data, {"prefix": "imports/"})
    assert caught("CaptureRule") == (data, {"prefix": "capture/"})
    assert rules["CollectRule"]["EventPattern"] == {
        "source": ["aws.sagemaker"],
        "detail-type": ["SageMaker Ground Truth Labeling Job State Change"],
        "resources": [{"prefix": f"arn:aws:sagemaker:{REGION}:{ACCOUNT}:labeling-job/{STACK}-"}],
    }


@pytest.mark.parametrize("topic", ["PageTopic", "TicketTopic"])
def test_a_topic_is_encrypted_with_a_key_that_alarms_can_use(topic: str) -> None:
    policy = stack().resources("AWS::SNS::TopicPolicy")[f"{topic}Policy"]["PolicyDocument"]
    key = stack().resources("AWS::KMS::Key")["TopicKey"]

    assert stack().resources("AWS::SNS::Topic")[topic]["KmsMasterKeyId"] == "TopicKey"
    assert "cloudwatch.amazonaws.com" in policy["Statement"][0]["Principal"]["Service"]
    assert denies_plain_http(policy, action="sns:Publish")
    assert key["EnableKeyRotation"] is True
    assert key["KeyPolicy"]["Statement"][1]["Action"] == ["kms:Decrypt", "kms:GenerateDataKey*"]
