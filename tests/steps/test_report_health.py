"""report_health: the gauges say what is there, counted from sets."""

from __future__ import annotations

from typing import Any

import pytest

from tests.builders import commit, lines
from tests.fakes import every_fault
from tests.steps.test_accounting import LOOP, answer, asked
from tests.steps.walk import ingest, jsonl, score_all, world
from winnow import layout
from winnow.ports import LabelingOutcome, QueueState
from winnow.steps.collect_labels import collect_labels
from winnow.steps.report_health import COUNTS, report_health


def gauges(ports: Any) -> dict[str, float]:
    outcome = report_health({}, ports)
    assert {metric.name: metric.value for metric in outcome.metrics} == dict(outcome.body)
    return dict(outcome.body)


def test_an_empty_loop_beats() -> None:
    assert gauges(world(LOOP)) == {
        "Heartbeat": 1.0, "BacklogItems": 0.0, "BacklogHours": 0.0, "PoolRecords": 0.0, "UnscoredObjects": 0.0,
        "DeadLetters": 0.0, "BudgetLeft": 100.0,
    }  # fmt: skip


def test_the_backlog_is_what_annotators_have_not_answered() -> None:
    ports, batch = asked()
    ports.labeling._fake.outcomes[batch] = LabelingOutcome("running", labeled=5, total=12)
    ports.clock.advance(hours=6)

    found = gauges(ports)

    assert (found["BacklogItems"], found["BacklogHours"]) == (7.0, 6.0)
    assert found["BudgetLeft"] == pytest.approx(100 - 12 * 3 * 0.10)


def test_a_batch_without_a_job_yet_waits_whole() -> None:
    ports, batch = asked()
    del ports.labeling._fake.outcomes[batch]

    assert gauges(ports)["BacklogItems"] == 12.0


def test_a_collected_batch_is_no_backlog() -> None:
    ports, batch = asked()
    answer(ports, batch)
    collect_labels(batch, ports)

    assert gauges(ports)["BacklogItems"] == 0.0


def test_contents_of_superseded_objects_are_not_in_the_pool() -> None:
    ports = world(LOOP)
    ingest(ports, ports.pool.drop("a.jsonl", jsonl("one", "two", "two")))
    assert gauges(ports)["PoolRecords"] == 2.0

    ingest(ports, ports.pool.drop("a.jsonl", jsonl("three")))

    found = gauges(ports)
    assert found["PoolRecords"] == 1.0
    assert found["UnscoredObjects"] == 1.0
    score_all(ports)
    assert gauges(ports)["UnscoredObjects"] == 0.0


def test_what_was_counted_is_not_read_again() -> None:
    ports = world(LOOP)
    oid = ingest(ports, ports.pool.drop("a.jsonl", jsonl("one")))["oid"]
    report_health({}, ports)
    start = len(ports.journal.calls)

    report_health({}, ports)

    read = [call.args[0] for call in ports.journal.calls[start:] if str(call) == "data.get"]
    assert layout.occurrences(oid) not in read
    assert ports.data.json(COUNTS) == {oid: 1}


def test_dead_letters_of_all_queues_are_added() -> None:
    ports = world(LOOP)
    ports.queues.depth.update(score=QueueState(0, 0, dead=2), collect=QueueState(5, 1, dead=1))

    assert gauges(ports)["DeadLetters"] == 3.0


def test_the_share_of_rare_labels_is_told_when_there_are_rare_classes() -> None:
    ports = world("task: {kind: text, classes: [negative, positive], rare_classes: [positive]}")
    assert "RareClassShare" not in gauges(ports)

    commit(ports, "d1", train=lines("t", ["negative", "negative", "negative", "positive"]))

    assert gauges(ports)["RareClassShare"] == 25.0


def test_every_fault_leaves_the_same_figures() -> None:
    def build() -> Any:
        ports = world(LOOP)
        ingest(ports, ports.pool.drop("a.jsonl", jsonl("one")))
        return ports

    for what, ports in every_fault(build, lambda ports: report_health({}, ports)):
        assert gauges(ports)["PoolRecords"] == 1.0, what
