"""Least privilege: what each role may do, what it may not, and a reason beside everything that looks too wide."""

from __future__ import annotations

import re
from typing import Any

import pytest

from tests.template.audit import Audit
from tests.template.permissions import allows, many, role_of, statements
from tests.template.stack import ACCOUNT, HOPS, REGION, ROOT, STACK, stack

DATA, POOL = (f"arn:aws:s3:::{STACK}-{part}-{ACCOUNT}-{REGION}" for part in ("data", "pool"))
TABLE = f"arn:aws:dynamodb:{REGION}:{ACCOUNT}:table/{STACK}"
WORKLOADS = ("GroundTruthRole", "TrainingRole", "EndpointRole")

WITHOUT_RESOURCES = {
    "xray:PutTraceSegments", "xray:PutTelemetryRecords", "xray:GetSamplingRules", "xray:GetSamplingTargets",
    "logs:CreateLogDelivery", "logs:GetLogDelivery", "logs:UpdateLogDelivery", "logs:DeleteLogDelivery",
    "logs:ListLogDeliveries", "logs:PutResourcePolicy", "logs:DescribeResourcePolicies", "logs:DescribeLogGroups",
    "ecr:GetAuthorizationToken", "cloudwatch:PutMetricData", "sagemaker:ListTags", "sagemaker:ListLabelingJobs",
    "sagemaker:ListTrainingJobs", "sagemaker:ListEndpoints", "sagemaker:ListEndpointConfigs", "sagemaker:ListModels",
}  # fmt: skip
"""Actions that IAM can only allow on everything."""

WRITES = {
    "ingest_object": {"contents", "records", "occurrences", "quarantine", "imports"},
    "score_records": {"scores", "embeddings/e1/records"},
    "index_candidates": {"candidates"},
    "select_batch": {"batches", "templates", "reports/stopping"},
    "prepare_task": set(),
    "consolidate_annotations": set(),
    "collect_labels": {"batches", "labels", "datasets", "templates", "quarantine"},
    "plan_training": {"training", "code", "embeddings/e1/batches"},
    "publish_model": {"models", "reports", "reports/stopping"},
    "evaluate_challenger": {"reports", "reports/stopping"},
    "deploy_challenger": set(),
    "settle_deployment": {"reports", "reports/stopping"},
    "watch_production": {"production", "quarantine"},
    "receive_feedback": {"feedback"},
    "reconcile": set(),
    "report_health": set(),
}
"""The families of artifacts each hop writes, beside the two pointers."""

PREFIXES = (
    "batches", "candidates", "capture", "code", "config", "contents", "datasets", "embeddings/e1/batches",
    "embeddings/e1/records", "encoders", "feedback", "imports", "jobs", "labels", "models", "occurrences", "production",
    "quarantine", "records", "reports", "reports/stopping", "scores", "templates", "training", "training-output",
)  # fmt: skip

OWNERS = {
    "OBJECT#1": {"ingest_object"},
    "SUPERSEDED": {"ingest_object"},
    "CONTENT#1": {"ingest_object"},
    "ARRIVAL#m1": {"score_records"},
    "SHARD#m1": {"index_candidates"},
    "BATCH": {"select_batch", "collect_labels"},
    "HEAD": {"select_batch", "collect_labels"},
    "BUDGET": {"select_batch", "collect_labels"},
    "RESERVATION": {"select_batch", "collect_labels", "reconcile"},
    "ANNOTATOR": {"collect_labels"},
    "LOOK": {"evaluate_challenger"},
    "REWARD": {"evaluate_challenger"},
    "DEPLOYMENT": {"deploy_challenger", "settle_deployment"},
    "SUSPECT": {"reconcile"},
    "EXPIRY": {"reconcile", "select_batch"},
    "IMPORT": {"collect_labels"},
    "LEASE": {"select_batch", "deploy_challenger", "settle_deployment"},
}
"""Partitions of the table → the hops that own items there (docstring of winnow.layout)."""


def test_the_owners_are_those_of_the_layout() -> None:
    docstring = (ROOT / "layers/core/winnow/layout.py").read_text().split('"""')[1]

    spelled = re.findall(r"^    ([A-Z]+)(#<[^>]+>)?\s", docstring, re.MULTILINE)

    assert {name + ("#" if digest else "") for name, digest in spelled} == {
        partition.split("#")[0] + ("#" if "#" in partition else "") for partition in OWNERS
    }


@pytest.mark.parametrize("hop", HOPS)
def test_a_hop_writes_its_own_artifacts_only(hop: str) -> None:
    written = {p for p in PREFIXES if allows(role_of(hop), "s3:PutObject", f"{DATA}/{p}/some-key")}

    assert written == WRITES[hop]


def test_only_settle_deployment_crowns_a_champion() -> None:
    may = {hop for hop in HOPS if allows(role_of(hop), "s3:PutObject", f"{DATA}/models/champion.json")}

    assert may - {"publish_model"} == {"settle_deployment"}  # publish_model writes all of models/


def test_only_ingest_and_the_users_touch_the_pool() -> None:
    assert {hop for hop in HOPS if allows(role_of(hop), "s3:GetObject", f"{POOL}/photo.png")} == {"ingest_object"}
    assert not [hop for hop in HOPS if allows(role_of(hop), "s3:PutObject", f"{POOL}/photo.png")]
    assert not [role for role in WORKLOADS if allows(role, "s3:GetObject", f"{POOL}/photo.png")]


@pytest.mark.parametrize("partition", sorted(OWNERS))
def test_items_are_written_by_their_owners_only(partition: str) -> None:
    context = {"dynamodb:LeadingKeys": [partition]}

    may = {hop for hop in HOPS if allows(role_of(hop), "dynamodb:PutItem", TABLE, context)}

    assert may == OWNERS[partition]


@pytest.mark.parametrize(
    ("hop", "machine"),
    [
        ("collect_labels", "improve"),
        ("settle_deployment", "rescore"),
        ("reconcile", "improve"),
        ("reconcile", "rescore"),
    ],
)
def test_machines_are_started_by_the_hop_that_wrote_their_input(hop: str, machine: str) -> None:
    arn = f"arn:aws:states:{REGION}:{ACCOUNT}:stateMachine:{STACK}-{machine}"

    assert allows(role_of(hop), "states:StartExecution", arn)
    others = {name for name in HOPS if allows(role_of(name), "states:StartExecution", arn)} - {hop, "reconcile"}
    assert len(others) <= 1
    assert not others & {"score_records", "ingest_object", "watch_production", "receive_feedback"}


def test_no_hop_can_invoke_another() -> None:
    for hop in HOPS:
        for target in HOPS:
            arn = f"arn:aws:lambda:{REGION}:{ACCOUNT}:function:{STACK}-{target}"
            assert not allows(role_of(hop), "lambda:InvokeFunction", arn)


def test_a_training_job_cannot_see_the_labels_it_is_judged_by() -> None:
    assert allows("TrainingRole", "s3:GetObject", f"{DATA}/datasets/d1/train/train.jsonl.gz")
    for role in ("evaluation", "reward"):
        assert not allows("TrainingRole", "s3:GetObject", f"{DATA}/datasets/d1/{role}/{role}.jsonl.gz")
    assert allows("TrainingRole", "s3:PutObject", f"{DATA}/training-output/winnow-m1/output/model.tar.gz")
    assert not allows("TrainingRole", "s3:PutObject", f"{DATA}/models/m1/model.onnx")


def test_the_endpoint_reads_models_writes_captures_and_sees_alarms() -> None:
    assert allows("EndpointRole", "s3:GetObject", f"{DATA}/training-output/winnow-m1/output/model.tar.gz")
    assert allows("EndpointRole", "s3:PutObject", f"{DATA}/capture/winnow/AllTraffic/2026/11/21/10/x.jsonl")
    assert allows(
        "EndpointRole", "cloudwatch:DescribeAlarms", f"arn:aws:cloudwatch:{REGION}:{ACCOUNT}:alarm:{STACK}-m1-errors"
    )
    assert not allows("EndpointRole", "s3:GetObject", f"{DATA}/records/o1/part-0000.jsonl.gz")


def test_ground_truth_reaches_its_task_and_its_answers_only() -> None:
    function = f"arn:aws:lambda:{REGION}:{ACCOUNT}:function:{STACK}-{{}}"

    invoked = {hop for hop in HOPS if allows("GroundTruthRole", "lambda:InvokeFunction", function.format(hop))}
    written = {p for p in PREFIXES if allows("GroundTruthRole", "s3:PutObject", f"{DATA}/{p}/x")}
    seen = {p for p in PREFIXES if allows("GroundTruthRole", "s3:GetObject", f"{DATA}/{p}/x")}

    assert invoked == {"prepare_task", "consolidate_annotations"}
    assert written == {"jobs"}
    assert seen == {"batches", "contents", "jobs", "templates"}


@pytest.mark.parametrize(
    ("role", "passed"),
    [
        ("SelectBatchRole", "groundtruth"),
        ("CollectLabelsRole", "groundtruth"),
        ("ImproveRole", "training"),
        ("DeployChallengerRole", "endpoint"),
    ],
)
def test_exactly_one_role_is_passed_and_to_sagemaker_only(role: str, passed: str) -> None:
    found = [s for s in statements(role) if "iam:PassRole" in many(s["Action"])]

    (statement,) = found
    assert statement["Resource"] == f"arn:aws:iam::{ACCOUNT}:role/{STACK}-{passed}"
    assert statement["Condition"] == {"StringEquals": {"iam:PassedToService": "sagemaker.amazonaws.com"}}


def test_nobody_else_passes_roles() -> None:
    passing = {
        role
        for role in stack().resources("AWS::IAM::Role")
        if any("iam:" in action for s in statements(role) for action in many(s["Action"]))
    }

    assert passing == {"SelectBatchRole", "CollectLabelsRole", "ImproveRole", "DeployChallengerRole"}


def test_everything_is_allowed_only_where_iam_knows_no_resources() -> None:
    for role in stack().resources("AWS::IAM::Role"):
        for statement in statements(role):
            assert statement["Effect"] == "Allow"
            assert not any(action.endswith("*") for action in many(statement["Action"])), role
            if "*" in many(statement["Resource"]):
                assert set(many(statement["Action"])) <= WITHOUT_RESOURCES, role


def test_a_wildcard_resource_is_written_with_its_reason() -> None:
    lines = (ROOT / "template.yaml").read_text().splitlines()

    silent = [number for number, line in enumerate(lines, start=1) if re.fullmatch(r'\s+(- )?Resource: "\*"\s*', line)]

    assert silent == []


def test_services_are_trusted_for_this_account_only() -> None:
    for role, properties in stack().resources("AWS::IAM::Role").items():
        (statement,) = properties["AssumeRolePolicyDocument"]["Statement"]
        service = statement["Principal"]["Service"]
        if service != "lambda.amazonaws.com":
            assert statement["Condition"] == {"StringEquals": {"aws:SourceAccount": ACCOUNT}}, role


def test_aws_managed_policies_are_too_wide_for_us() -> None:
    own = set(stack().resources("AWS::IAM::ManagedPolicy"))

    for properties in stack().resources("AWS::IAM::Role").values():
        for arn in properties.get("ManagedPolicyArns", []):
            assert arn in {stack().arn(name) for name in own}


def test_the_audit_tells_what_a_role_allows() -> None:
    found = Audit()

    found.note("publish_model", "s3", "PutObject", {"Bucket": DATA.rsplit(":", 1)[1], "Key": "models/m1/model.onnx"})
    found.note("prepare_task", "s3", "PutObject", {"Bucket": DATA.rsplit(":", 1)[1], "Key": "labels/b1.jsonl"})
    found.note("index_candidates", "dynamodb", "PutItem", {"TableName": STACK, "Item": {"pk": {"S": "BATCH"}}})

    assert found.denied == {
        ("prepare_task", "s3:PutObject", f"{DATA}/labels/b1.jsonl"),
        ("index_candidates", "dynamodb:PutItem", TABLE),
    }


DATA_BUCKET = f"{STACK}-data-{ACCOUNT}-{REGION}"
_PACKAGE = f"arn:aws:sagemaker:{REGION}:{ACCOUNT}:model-package/{STACK}/3"
_RESCORING = f"arn:aws:states:{REGION}:{ACCOUNT}:execution:{STACK}-rescore:m1"
_LABELER = f"arn:aws:iam::{ACCOUNT}:role/{STACK}-groundtruth"
_SCORE = f"https://sqs.{REGION}.amazonaws.com/{ACCOUNT}/{STACK}-score"
RARE = [
    ("deploy_challenger", "sagemaker", "UpdateEndpoint", {"EndpointName": STACK, "EndpointConfigName": f"{STACK}-m2"}),
    ("deploy_challenger", "sagemaker", "UpdateModelPackage", {"ModelPackageArn": _PACKAGE}),
    ("settle_deployment", "sagemaker", "DeleteEndpointConfig", {"EndpointConfigName": f"{STACK}-m1"}),
    ("settle_deployment", "sagemaker", "DeleteModel", {"ModelName": f"{STACK}-m1"}),
    ("settle_deployment", "stepfunctions", "StopExecution", {"executionArn": _RESCORING}),
    ("settle_deployment", "cloudwatch", "DeleteAlarms", {"AlarmNames": [f"{STACK}-m2-errors"]}),
    ("collect_labels", "sagemaker", "CreateLabelingJob",
     {"LabelingJobName": f"{STACK}-b2", "Tags": [{}], "RoleArn": _LABELER}),
    ("collect_labels", "dynamodb", "DeleteItem", {"TableName": STACK, "Key": {"pk": {"S": "RESERVATION"}}}),
    ("reconcile", "sagemaker", "StopLabelingJob", {"LabelingJobName": f"{STACK}-b1"}),
    ("reconcile", "sqs", "SendMessageBatch", {"QueueUrl": _SCORE}),
    ("score_records", "s3", "DeleteObjects",
     {"Bucket": DATA_BUCKET, "Delete": {"Objects": [{"Key": "scores/m1/o1/part-0000.npz"}]}}),
    ("watch_production", "s3", "PutObject", {"Bucket": DATA_BUCKET, "Key": "production/c1.jsonl"}),
    ("ingest_object", "s3", "GetObject", {"Bucket": DATA_BUCKET, "Key": "production/c1.jsonl", "VersionId": "v"}),
    ("receive_feedback", "s3", "PutObject", {"Bucket": DATA_BUCKET, "Key": "feedback/i1.json"}),
]  # fmt: skip
"""Calls that a short run of the loop does not make."""


@pytest.mark.parametrize(
    ("hop", "service", "operation", "given"), RARE, ids=lambda value: value if isinstance(value, str) else ""
)
def test_rare_calls_are_allowed_too(hop: str, service: str, operation: str, given: dict[str, Any]) -> None:
    found = Audit()

    found.note(hop, service, operation, given)

    assert found.calls
    assert not found.denied


@pytest.mark.parametrize(
    ("hop", "service", "operation", "given"),
    [
        (
            "deploy_challenger",
            "sagemaker",
            "UpdateEndpoint",
            {"EndpointName": "other", "EndpointConfigName": f"{STACK}-m2"},
        ),
        ("collect_labels", "sagemaker", "StopLabelingJob", {"LabelingJobName": f"{STACK}-b2"}),
        ("select_batch", "sagemaker", "CreateLabelingJob", {"LabelingJobName": "other-b2"}),
        ("settle_deployment", "cloudwatch", "DeleteAlarms", {"AlarmNames": ["other-alarm"]}),
        ("plan_training", "sagemaker", "CreateTrainingJob", {"TrainingJobName": f"{STACK}-m1"}),
    ],
)
def test_what_is_not_a_hops_own_is_denied(hop: str, service: str, operation: str, given: dict[str, Any]) -> None:
    found = Audit()

    found.note(hop, service, operation, given)

    assert found.denied
