"""The event bodies that function tests use: as AWS sends them, and as the template's rules and queues carry them."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest

from tests.template.stack import HOPS, ROOT, STACK, functions, machine, stack
from winnow.aws import events
from winnow.aws.groundtruth import consolidation_payload
from winnow.loop import Task
from winnow.steps.captured import Served, served

FOLDER = ROOT / "tests/events"
QUEUED = sorted(path.name for path in FOLDER.glob("sqs_*.json"))


def body(name: str) -> Any:
    return json.loads((FOLDER / name).read_text())


def messages(name: str) -> list[dict[str, Any]]:
    found = []
    for record in body(name)["Records"]:
        try:
            found.append(json.loads(record["body"]))
        except ValueError:
            continue
    return found


def matches(pattern: Any, event: Any) -> bool:
    """EventBridge's rules for exact values and prefixes, which are all the template uses."""
    if isinstance(pattern, dict):
        return all(name in event and matches(inner, event[name]) for name, inner in pattern.items())
    values = event if isinstance(event, list) else [event]
    return any(
        str(value).startswith(wanted["prefix"]) if isinstance(wanted, dict) else value == wanted
        for wanted in pattern
        for value in values
    )


@pytest.mark.parametrize("path", sorted(FOLDER.iterdir()), ids=lambda path: path.name)
def test_a_body_is_json(path: Path) -> None:
    lines = path.read_text().splitlines() if path.suffix == ".jsonl" else [path.read_text()]

    assert all(json.loads(line) for line in lines)


@pytest.mark.parametrize("name", QUEUED)
def test_a_queued_event_has_what_sqs_sends(name: str) -> None:
    queues = {stack().arn(queue) for queue in stack().resources("AWS::SQS::Queue")}

    for record in body(name)["Records"]:
        assert record["eventSourceARN"] in queues
        assert record["md5OfBody"] == hashlib.md5(record["body"].encode(), usedforsecurity=False).hexdigest()
        assert record["eventSource"] == "aws:sqs"
        assert record["attributes"]["ApproximateReceiveCount"].isdigit()


@pytest.mark.parametrize("name", QUEUED)
def test_a_rule_of_the_template_would_have_queued_it(name: str) -> None:
    rules = stack().resources("AWS::Events::Rule").values()

    for message in messages(name):
        if "detail-type" in message:
            (rule,) = [rule for rule in rules if matches(rule["EventPattern"], message)]
            assert rule["Targets"][0]["Arn"] == body(name)["Records"][0]["eventSourceARN"]


def test_both_forms_of_an_s3_event_name_the_same_object() -> None:
    (_, bridged), (notified,) = (
        [item for message in messages(name) for item in events.pool_objects(message)]
        for name in ("sqs_ingest_object_created.json", "sqs_ingest_notification.json")
    )

    assert bridged.key == notified.key == "photos/a b+é.png"
    assert (bridged.bucket, bridged.version, bridged.sequencer) == (
        notified.bucket,
        notified.version,
        notified.sequencer,
    )


def test_the_test_event_names_nothing() -> None:
    assert [events.pool_objects(message) for message in messages("sqs_ingest_test_event.json")] == [[]]


@pytest.mark.parametrize("status", ["completed", "failed", "stopped"])
def test_a_labeling_event_names_its_job_in_resources_only(status: str) -> None:
    (message,) = messages(f"sqs_collect_labeling_{status}.json")

    assert events.labeling_job(message) == f"{STACK}-b0123456789ab"
    assert message["detail"] == {"LabelingJobStatus": status.title()}


def test_the_answers_of_a_consolidation_request_are_read() -> None:
    text, image = consolidation_payload((FOLDER / "post_annotation_payload.json").read_bytes())

    assert [answer["label"] for answer in text["answers"]] == ["delivery", "delivery", "billing"]
    assert [answer["label"] for answer in image["answers"]] == ["seven", None]


@pytest.mark.parametrize(
    ("name", "kind", "labels"),
    [
        ("capture_text.jsonl", "text", ["delivery", "billing", "delivery"]),
        ("capture_image.jsonl", "image", ["seven", "one"]),
    ],
)
def test_captured_requests_are_read(name: str, kind: Any, labels: list[str]) -> None:
    found = list(served((FOLDER / name).read_bytes(), task=Task(kind=kind, classes=tuple(sorted(set(labels))))))

    assert [one.label for one in found if isinstance(one, Served)] == labels


def test_machines_send_what_their_events_show() -> None:
    states = machine("improve")["States"]

    for hop in ("publish_model", "evaluate_challenger", "deploy_challenger", "settle_deployment"):
        assert states[hop]["Arguments"]["Payload"].keys() == body(f"states_{hop}.json").keys()
    assert machine("rescore")["States"]["every_records_artifact"]["ItemBatcher"]["BatchInput"].keys() == (
        body("states_score_records.json")["BatchInput"].keys()
    )


def test_schedules_send_what_their_events_show() -> None:
    sent = {s["Name"]: json.loads(s["Target"]["Input"]) for s in stack().resources("AWS::Scheduler::Schedule").values()}

    assert sent == {
        f"{STACK}-{hop}": body(f"schedule_{hop}.json") for hop in ("select_batch", "reconcile", "report_health")
    }


def test_every_hop_has_an_event() -> None:
    shown = {record["eventSourceARN"] for name in QUEUED for record in body(name)["Records"]}
    fed = {
        mapping["FunctionName"].removeprefix(f"{STACK}-")
        for mapping in stack().resources("AWS::Lambda::EventSourceMapping").values()
        if mapping["EventSourceArn"] in shown
    }
    named = {path.name.split("_", 1)[1].removesuffix(".json") for path in FOLDER.glob("s[ct]*_*.json")}
    called = {"prepare_task", "consolidate_annotations", "receive_feedback"}

    assert set(HOPS) == set(functions())
    assert set(HOPS) - fed - named - called == {
        "index_candidates"
    }  # its messages are ours: tests make them with the step
