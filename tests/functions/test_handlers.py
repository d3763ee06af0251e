"""Every handler in a worker of the local cloud, on event bodies as AWS delivers them; a poison message fails alone."""

from __future__ import annotations

import base64
import importlib.util
import json
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from tests import faults
from tests.cloud.stack import ROOT, Stack, deployed, events, jsonl, sentences
from winnow import layout
from winnow.records import PoolObject

pytestmark = pytest.mark.cloud

LOOP = {
    "task": {"kind": "text", "classes": ["billing", "delivery"]},
    "batches": {"size": 20, "min_size": 10},
    "acquisition": {"arms": {"evaluation_target": 20}},
    "gate": {"min_records": 20},
}
TICKETS = sentences(24)
POISON = {"not JSON": "{", "no object": "[1]", "another service's": '{"detail": {"state": "running"}}', "a number": "7"}
RECORDED = "tickets/2026-10-01.jsonl"


def messages(name: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = events(name)["Records"]
    return found


def about(message: Mapping[str, Any], key: str, *, version: str = "") -> dict[str, Any]:
    """The same message about another object."""
    body = json.loads(message["body"])
    body["detail"]["object"] |= {"key": key, **({"version-id": version} if version else {})}
    return {**message, "body": json.dumps(body)}


def with_poison(name: str, *good: Mapping[str, Any]) -> tuple[dict[str, Any], set[str]]:
    """A batch with every kind of poison around the good messages, and the ids that have to fail."""
    template = messages(name)[0]
    bad = [{**template, "messageId": f"poison-{kind}", "body": body} for kind, body in POISON.items()]
    records = [*bad[:2], *({**one, "messageId": f"good-{place}"} for place, one in enumerate(good)), *bad[2:]]
    return {"Records": records}, {one["messageId"] for one in bad}


def failed(answer: Mapping[str, Any]) -> set[str]:
    return {failure["itemIdentifier"] for failure in answer["batchItemFailures"]}


def call(stack: Stack, hop: str, event: Any) -> Any:
    """Deliver by hand, as one of the clock's tasks: what the hop sets going begins after it has ended."""
    answers: list[tuple[Any, dict[str, Any] | None]] = []
    clock = stack.cloud.clock
    clock.spawn(lambda: answers.append(stack.cloud.invoke(f"winnow-{hop}", event)))
    clock.run(until=clock.time())
    ((answer, error),) = answers
    assert error is None, error
    return answer


@pytest.fixture(scope="module")
def stack() -> Iterator[Stack]:
    """A stack whose clock stands still: nothing happens but what a test delivers by hand."""
    with deployed(loop=LOOP) as running:
        running.employ(lambda task: "billing", classes=("billing", "delivery"))
        yield running


@pytest.fixture(scope="module")
def ingested(stack: Stack) -> str:
    """The id of the recorded object after its event came, with every kind of poison in the same batch."""
    version = stack.drop(RECORDED, jsonl(TICKETS))
    message = messages("sqs_ingest_object_created.json")[0]
    event, poison = with_poison("sqs_ingest_object_created.json", about(message, RECORDED, version=version))
    assert failed(call(stack, "ingest_object", event)) == poison
    return layout.object_id(PoolObject(stack.pool_bucket, RECORDED, version, ""))


@pytest.fixture(scope="module")
def scored(stack: Stack, ingested: str) -> list[dict[str, Any]]:
    """The candidate messages that scoring the recorded object left."""
    message = messages("sqs_score_object_created.json")[0]
    event, poison = with_poison("sqs_score_object_created.json", about(message, layout.records(ingested)))
    assert failed(call(stack, "score_records", event)) == poison
    sqs = stack.cloud.client("sqs")
    url = sqs.get_queue_url(QueueName="winnow-candidates")["QueueUrl"]
    received = sqs.receive_message(QueueUrl=url, MaxNumberOfMessages=10)["Messages"]
    return [{**message, "body": one["Body"]} for one in received]


@pytest.fixture(scope="module")
def indexed(stack: Stack, scored: list[dict[str, Any]]) -> dict[str, Any]:
    event, poison = with_poison("sqs_score_object_created.json", *scored)
    rubbish = [b"rubbish", b"PK\x03\x04 rubbish", base64.b64decode(json.loads(scored[0]["body"])["columns"])[:-40]]
    for number, columns in enumerate(rubbish):
        body = {"model": "bootstrap-text", "columns": base64.b64encode(columns).decode()}
        event["Records"].append({**scored[0], "messageId": f"rubbish-{number}", "body": json.dumps(body)})
        poison.add(f"rubbish-{number}")
    assert failed(call(stack, "index_candidates", event)) == poison
    (shard,) = stack.table("SHARD#bootstrap-text")
    return shard


@pytest.fixture(scope="module")
def batch(stack: Stack, indexed: dict[str, Any]) -> str:
    """A batch that the schedule asked for; its job is made, and nobody has started it."""
    answer = call(stack, "select_batch", events("schedule_select_batch.json"))
    assert answer["batch"], answer
    return str(answer["batch"])


def test_an_object_is_ingested_beside_poison(stack: Stack, ingested: str) -> None:
    records = stack.lines(f"{layout.RECORDS}{ingested}/")

    assert [record["text"] for record in records] == TICKETS
    assert {record["oid"] for record in records} == {ingested}


def test_the_notification_form_of_an_s3_event_is_read_with_its_key_decoded(stack: Stack) -> None:
    version = stack.drop("photos/a b+é.png", b"\x89PNG\r\n\x1a\n")
    event = events("sqs_ingest_notification.json")
    body = json.loads(event["Records"][0]["body"])
    body["Records"][0]["s3"]["object"]["versionId"] = version
    event["Records"][0]["body"] = json.dumps(body)

    assert failed(call(stack, "ingest_object", event)) == set()

    (refused,) = [row for row in stack.lines("quarantine/") if row["key"] == "photos/a b+é.png"]
    assert refused["reason"].startswith("wrong-kind: photos/a b+é.png is an image")


def test_s3s_test_event_changes_nothing(stack: Stack, ingested: str) -> None:
    before = stack.keys()

    assert call(stack, "ingest_object", events("sqs_ingest_test_event.json")) == {"batchItemFailures": []}

    assert stack.keys() == before


def test_versions_that_are_gone_are_accounted_for_in_any_order(stack: Stack) -> None:
    newer, older = (about(one, "tickets/gone.jsonl") for one in messages("sqs_ingest_overwritten.json"))

    assert failed(call(stack, "ingest_object", {"Records": [newer, older]})) == set()

    versions = ("L4kqtJlcpXroDTDmJ.rmSpXd3dIbrHY", "3HL4kqtJvjVBH40Nrjfkd.Vr8FXFbK7u")
    oids = [layout.object_id(PoolObject(stack.pool_bucket, "tickets/gone.jsonl", version, "")) for version in versions]
    rows = [row for oid in oids for row in stack.lines(layout.occurrences(oid))]
    assert [row["status"] for row in rows] == ["quarantined", "superseded"]
    assert rows[0]["reason"] == "gone: tickets/gone.jsonl was deleted before it could be read"


def test_records_are_scored_beside_poison(stack: Stack, ingested: str, scored: list[dict[str, Any]]) -> None:
    expected = [record["id"] for record in stack.lines(f"{layout.RECORDS}{ingested}/")]

    assert stack.scored("bootstrap-text") == expected
    assert sum(json.loads(message["body"])["rows"] for message in scored) == len(TICKETS)


def test_a_damaged_records_artifact_fails_alone(stack: Stack, scored: list[dict[str, Any]]) -> None:
    stack.put("records/odamaged/part-0000.jsonl.gz", b"\x1f\x8b rubbish")
    message = messages("sqs_score_object_created.json")[0]
    batch = {"Records": [about(message, "records/odamaged/part-0000.jsonl.gz"), {**message, "messageId": "absent"}]}

    assert failed(call(stack, "score_records", batch)) == {message["messageId"]}

    stack.cloud.client("s3").delete_object(Bucket=stack.data_bucket, Key="records/odamaged/part-0000.jsonl.gz")


def test_a_rescore_by_a_state_machine_ends_when_another_champion_reigns(stack: Stack) -> None:
    answer = call(stack, "score_records", events("states_score_records.json"))

    assert (answer["stale"], answer["failed"]) == (True, {})


def test_a_rescore_scores_what_it_is_given(stack: Stack, ingested: str, scored: list[dict[str, Any]]) -> None:
    event = events("states_score_records.json")
    event["BatchInput"]["model"] = "bootstrap-text"
    event["Items"][0]["Key"] = layout.records(ingested)

    answer = call(stack, "score_records", event)

    assert (answer["scored"], answer["skipped"], answer["failed"]) == (0, 2, {})


def test_candidates_are_indexed_beside_poison(stack: Stack, indexed: dict[str, Any]) -> None:
    assert indexed["rows"] == len(TICKETS)
    assert stack.keys(indexed["key"]) == [indexed["key"]]


def test_the_schedule_makes_a_batch_and_a_job(stack: Stack, batch: str) -> None:
    job = stack.cloud.client("sagemaker").describe_labeling_job(LabelingJobName=f"winnow-{batch}")

    assert len(stack.lines(layout.manifest(batch))) == len(stack.json(layout.plan(batch))["choices"])
    assert job["LabelingJobStatus"] in {"Initializing", "InProgress"}


@pytest.mark.parametrize(
    ("name", "key"), [("pre_annotation_text.json", "text"), ("pre_annotation_image.json", "image")]
)
def test_an_annotator_is_shown_the_item_and_no_guess(stack: Stack, name: str, key: str) -> None:
    event = events(name)
    source = event["dataObject"].get("source") or event["dataObject"]["source-ref"]

    answer = call(stack, "prepare_task", event)

    assert answer["isHumanAnnotationRequired"] is True
    assert answer["taskInput"][key] == source
    assert answer["taskInput"]["classes"] == ["billing", "delivery"]
    assert not answer["taskInput"].keys() & {"prediction", "score", "arm", "label"}


def test_answers_are_consolidated_and_what_is_no_class_does_not_count(stack: Stack) -> None:
    event = events("post_annotation.json")
    key = event["payload"]["s3Uri"].removeprefix(f"s3://{stack.data_bucket}/")
    stack.put(key, (ROOT / "tests" / "events" / "post_annotation_payload.json").read_bytes())

    (only,) = call(stack, "consolidate_annotations", event)

    assert only["datasetObjectId"] == "0"
    content = only["consolidatedAnnotation"]["content"]
    assert content["label"] == {"label": "delivery"}
    assert content["label-metadata"]["confidence"] == pytest.approx(2 / 3)


def test_labeling_events_are_collected_beside_poison(stack: Stack, batch: str) -> None:
    message = messages("sqs_collect_labeling_completed.json")[0]
    ours = {**message, "body": message["body"].replace("b0123456789ab", batch)}
    foreign = {**message, "body": message["body"].replace("winnow-b0123456789ab", "other-b1"), "messageId": "foreign"}
    event, poison = with_poison("sqs_collect_labeling_completed.json", ours, message)
    event["Records"].append(foreign)

    assert failed(call(stack, "collect_labels", event)) == poison | {"foreign"}
    assert stack.keys(layout.LABELS) == []


def test_a_job_that_ended_is_collected(stack: Stack, batch: str) -> None:
    lost = "SageMaker Ground Truth Labeling Job State Change"
    faults.drop(stack.cloud, lambda event: event["detail-type"] == lost)
    sagemaker = stack.cloud.client("sagemaker")

    def over() -> bool:
        return bool(
            sagemaker.describe_labeling_job(LabelingJobName=f"winnow-{batch}")["LabelingJobStatus"] == "Completed"
        )

    assert stack.cloud.run(condition=over, limit_days=1)
    message = messages("sqs_collect_labeling_completed.json")[0]
    event, poison = with_poison(
        "sqs_collect_labeling_completed.json", {**message, "body": message["body"].replace("b0123456789ab", batch)}
    )

    assert failed(call(stack, "collect_labels", event)) == poison

    assert {label["label"] for label in stack.lines(layout.labels(batch))} == {"billing"}
    assert stack.json(layout.HEAD)["version"] in stack.executions("improve")


def test_captures_are_read_beside_poison(stack: Stack) -> None:
    message = messages("sqs_capture_object_created.json")[0]
    key = json.loads(message["body"])["detail"]["object"]["key"]
    stack.put(key, (ROOT / "tests" / "events" / "capture_text.jsonl").read_bytes())
    event, poison = with_poison("sqs_capture_object_created.json", message, about(message, "capture/absent.jsonl"))

    answer = call(stack, "watch_production", event)

    assert failed(answer) == poison | {"good-1"}
    returned = [row["text"] for row in stack.lines(layout.PRODUCTION)]
    assert {"the parcel never came", "I was charged twice"} <= set(returned)


def test_served_requests_are_ingested_with_their_origin(stack: Stack) -> None:
    key = "production/c0123456789abcdef0123.jsonl"
    stack.put(key, jsonl(["where is my parcel, driver?"], id="inference-1"))

    assert failed(call(stack, "ingest_object", events("sqs_ingest_production.json"))) == set()

    oid = layout.object_id(PoolObject(stack.data_bucket, key, "", ""))
    (record,) = stack.lines(f"{layout.RECORDS}{oid}/")
    assert (record["origin"], record["external_id"]) == ("production", "inference-1")


@pytest.mark.parametrize(
    ("hop", "name", "error"),
    [
        ("plan_training", "states_plan_training.json", "NotFound"),
        ("publish_model", "states_publish_model.json", "NotFound"),
        ("evaluate_challenger", "states_evaluate_challenger.json", "NotFound"),
        ("deploy_challenger", "states_deploy_challenger.json", "NotFound"),
        ("settle_deployment", "states_settle_deployment.json", "NotFound"),
    ],
)
def test_state_machine_hops_name_the_error_that_its_catch_sees(stack: Stack, hop: str, name: str, error: str) -> None:
    answer, raised = stack.cloud.invoke(f"winnow-{hop}", events(name), invoker="states")

    assert answer is None
    assert raised is not None
    assert raised["errorType"] == error
    assert "0123456789ab" in raised["errorMessage"]


@pytest.mark.parametrize(
    "name", ["function_url_feedback.json", "function_url_feedback_base64.json", "http_api_feedback_jwt.json"]
)
def test_feedback_is_taken_in_every_form(stack: Stack, name: str) -> None:
    answer = call(stack, "receive_feedback", events(name))

    assert answer["statusCode"] == 200
    assert json.loads(answer["body"])["status"] in ("stored", "duplicate")


@pytest.mark.parametrize("name", ["reconcile", "report_health"])
def test_schedules_are_answered(stack: Stack, name: str) -> None:
    answer = call(stack, name, events(f"schedule_{name}.json"))

    assert answer.keys() >= ({"repairs", "attention"} if name == "reconcile" else {"Heartbeat"})


@pytest.mark.parametrize("folder", sorted((ROOT / "functions").iterdir()), ids=lambda folder: folder.name)
def test_no_function_can_be_imported_outside_a_worker(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AWS_LAMBDA_FUNCTION_NAME", raising=False)
    for name in [name for name in sys.modules if name == "winnow.aws.edge"]:
        monkeypatch.delitem(sys.modules, name)
    spec = importlib.util.spec_from_file_location(f"outside_{folder.name}", folder / "app.py")
    assert spec is not None
    assert spec.loader is not None

    import winnow.aws

    monkeypatch.delattr(winnow.aws, "edge", raising=False)
    with pytest.raises(ImportError, match="functions run in a Lambda worker only"):
        spec.loader.exec_module(importlib.util.module_from_spec(spec))


def test_a_fresh_process_refuses_too() -> None:
    code = "import functions.ingest_object.app"
    path = {"PYTHONPATH": f"{ROOT}:{ROOT / 'layers' / 'core'}", "PATH": "/usr/bin:/bin"}

    ended = subprocess.run([sys.executable, "-c", code], env=path, capture_output=True, text=True, check=False)

    assert ended.returncode == 1
    assert "ImportError: functions run in a Lambda worker only" in ended.stderr
