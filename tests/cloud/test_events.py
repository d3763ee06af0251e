"""S3 events doubled, reordered, concurrent and lost change nothing in the end."""

from __future__ import annotations

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from tests import faults
from tests.cloud.stack import Stack, deployed, events, jsonl, sentences
from winnow import layout
from winnow.records import PoolObject
from winnow.steps.accounting import account, check_invariants

pytestmark = pytest.mark.cloud

COPIES = 5
ORDERS = ("old first", "new first", "in turn")
SCHEDULES = {"ReconcileSchedule": "rate(1 hour)", "SelectSchedule": "rate(30 days)"}


def created(key: str, *, into: list[dict[str, Any]]) -> Any:
    """Picks the Object Created events of one pool key, and keeps each."""

    def picks(event: dict[str, Any]) -> bool:
        found = event["detail-type"] == "Object Created" and event["detail"]["object"]["key"] == key
        if found:
            into.append(event)
        return found

    return picks


def two_versions(stack: Stack, key: str, *, seed: int) -> tuple[list[dict[str, Any]], list[str], list[str]]:
    """Put an object and a newer version whose events are kept from the stack: events, oids, texts of the newest."""
    kept: list[dict[str, Any]] = []
    faults.drop(stack.cloud, created(key, into=kept), times=2)
    old, both, new = (sentences(6, seed=seed + part) for part in range(3))
    versions = [stack.drop(key, jsonl([*old, *both])), stack.drop(key, jsonl([*both, *new]))]
    oids = [layout.object_id(PoolObject(stack.pool_bucket, key, version, "")) for version in versions]
    assert [event["detail"]["object"]["version-id"] for event in kept] == versions
    return kept, oids, [*both, *new]


def delivered(bodies: list[dict[str, Any]]) -> dict[str, Any]:
    """One batch of the ingest queue that carries these events."""
    message = events("sqs_ingest_object_created.json")["Records"][0]
    records = [{**message, "messageId": f"m{n}", "body": json.dumps(body)} for n, body in enumerate(bodies)]
    return {"Records": records}


def send(stack: Stack, bodies: list[dict[str, Any]]) -> None:
    sqs = stack.cloud.client("sqs")
    url = sqs.get_queue_url(QueueName="winnow-ingest")["QueueUrl"]
    for body in bodies:
        sqs.send_message(QueueUrl=url, MessageBody=json.dumps(body))


def settle(stack: Stack) -> None:
    """Long enough for every queue to drain, and too short for reconcile to help."""
    stack.cloud.advance(hours=0.5)


def assert_only_the_newest_is_scored(stack: Stack, oids: list[str], texts: list[str]) -> None:
    records = {record["id"]: record for record in stack.lines(f"{layout.RECORDS}{oids[1]}/")}
    assert {record["text"] for record in records.values()} == set(texts)
    assert len(stack.keys(f"{layout.SCORES}bootstrap-text/{oids[1]}/")) == 1
    assert stack.keys(f"{layout.SCORES}bootstrap-text/{oids[0]}/") == []
    scored = stack.scored("bootstrap-text")
    assert len(scored) == len(set(scored))
    assert set(scored) >= set(records)


@pytest.fixture(scope="module")
def stack() -> Iterator[Stack]:
    """A stack that never selects; each test drops objects of its own."""
    with deployed(parameters=SCHEDULES) as running:
        running.employ()
        yield running


@pytest.mark.parametrize(
    ("name", "places"),
    [
        ("old first", [0] * COPIES + [1] * COPIES),
        ("new first", [1] * COPIES + [0] * COPIES),
        ("in turn", [1, 0] * COPIES),
    ],
)
def test_the_same_events_five_times_in_any_order_leave_one_set_of_scores(
    stack: Stack, name: str, places: list[int]
) -> None:
    kept, oids, texts = two_versions(stack, f"doubled/{name}.jsonl", seed=100 + 10 * ORDERS.index(name))

    send(stack, [kept[place] for place in places])
    settle(stack)

    assert_only_the_newest_is_scored(stack, oids, texts)
    if name != "old first":
        assert stack.keys(f"{layout.RECORDS}{oids[0]}/") == []
        assert [row["status"] for row in stack.lines(layout.occurrences(oids[0]))] == ["superseded"] * 12
    assert stack.errors() == []


def test_a_newer_version_replaces_scores_that_exist(stack: Stack) -> None:
    (old, new), oids, texts = two_versions(stack, "replaced.jsonl", seed=200)
    send(stack, [old])
    settle(stack)
    assert len(stack.keys(f"{layout.SCORES}bootstrap-text/{oids[0]}/")) == 1

    send(stack, [new, old])
    settle(stack)

    assert_only_the_newest_is_scored(stack, oids, texts)


def test_concurrent_workers_agree_on_the_newest(stack: Stack) -> None:
    (old, new), oids, texts = two_versions(stack, "concurrent.jsonl", seed=300)
    batches = [delivered([body]) for body in [new, old] * COPIES]

    with ThreadPoolExecutor(len(batches)) as pool:
        answers = list(pool.map(lambda batch: stack.cloud.invoke("winnow-ingest_object", batch), batches))
    assert all(error is None for _, error in answers)
    send(stack, [old, new])  # whoever lost a race is told so, and its message comes again
    settle(stack)

    records = stack.lines(f"{layout.RECORDS}{oids[1]}/")
    assert {record["text"] for record in records} == set(texts)
    assert stack.keys(f"{layout.SCORES}bootstrap-text/{oids[0]}/") == []
    scored = stack.scored("bootstrap-text")
    assert len(scored) == len(set(scored))
    assert set(scored) >= {record["id"] for record in records}


def test_a_lost_s3_event_is_brought_home(stack: Stack) -> None:
    texts, kept = sentences(5, seed=400), list[dict[str, Any]]()
    faults.drop(stack.cloud, created("lost.jsonl", into=kept))
    version = stack.drop("lost.jsonl", jsonl(texts))
    oid = layout.object_id(PoolObject(stack.pool_bucket, "lost.jsonl", version, ""))
    settle(stack)
    assert stack.keys(layout.occurrences(oid)) == []
    assert account(stack.ports()).waiting == 1

    stack.cloud.advance(hours=3)

    assert {record["text"] for record in stack.lines(f"{layout.RECORDS}{oid}/")} == set(texts)
    assert len(stack.keys(f"{layout.SCORES}bootstrap-text/{oid}/")) == 1
    assert account(stack.ports()).waiting == 0


def test_a_late_event_of_an_older_version_does_not_undo_what_reconcile_brought_home(stack: Stack) -> None:
    (old, new), oids, texts = two_versions(stack, "late.jsonl", seed=600)
    stack.cloud.advance(hours=3)
    assert {record["text"] for record in stack.lines(f"{layout.RECORDS}{oids[1]}/")} == set(texts)

    send(stack, [old, new, old])
    settle(stack)

    assert_only_the_newest_is_scored(stack, oids, texts)
    assert [row["status"] for row in stack.lines(layout.occurrences(oids[0]))] == ["superseded"] * 12


def test_a_lost_event_of_a_records_artifact_is_brought_home(stack: Stack) -> None:
    lost = list[dict[str, Any]]()

    def picks(event: dict[str, Any]) -> bool:
        key = event["detail"].get("object", {}).get("key", "")
        if event["detail-type"] == "Object Created" and key.startswith(layout.RECORDS):
            lost.append(event)
            return True
        return False

    faults.drop(stack.cloud, picks)
    stack.drop("unscored.jsonl", jsonl(sentences(5, seed=500)))
    settle(stack)
    (event,) = lost
    target = layout.scores("bootstrap-text", event["detail"]["object"]["key"])
    assert stack.keys(target) == []

    stack.cloud.advance(hours=3)

    assert stack.keys(target) == [target]


def test_after_all_of_it_the_ledger_balances(stack: Stack) -> None:
    ledger = account(stack.ports())

    assert ledger.lost == ledger.waiting == ledger.dead_lettered == ledger.quarantined == 0
    assert ledger.arrived == 6 * 24 + 2 * 5
    assert {name for name, verdict in check_invariants(stack.ports(), ledger=ledger).items() if not verdict.ok} == set()
    assert stack.errors() == []
    assert stack.dead_letters() == {}
