"""reconcile: what an event did not bring about comes home, late events are not mistaken for lost ones, repeats do nothing."""

from __future__ import annotations

from typing import Any

import pytest

from tests.builders import commit, gate_report, lines, write
from tests.fakes import every_fault, make_ports
from tests.steps.test_accounting import LOOP, answer, asked
from tests.steps.walk import ingest, jsonl, score_all, world
from winnow import layout
from winnow.aws import events
from winnow.errors import Retryable
from winnow.ports import LabelingOutcome, TrainingState
from winnow.steps.collect_labels import collect_labels
from winnow.steps.ingest_object import ingest_object
from winnow.steps.plan_training import model_id
from winnow.steps.reconcile import reconcile
from winnow.steps.select_batch import SelectRequest, select_batch
from winnow.steps.suspects import MAX_REPAIRS

MODEL = model_id("d1", seed=0, members=4)


def run(ports: Any) -> list[tuple[str, str]]:
    """One run; the repairs it made as (kind, name)."""
    return [(repair["kind"], repair["name"]) for repair in reconcile({}, ports).body["repairs"]]


def later(ports: Any, **time: float) -> list[tuple[str, str]]:
    """The run after the grace has passed."""
    assert run(ports) == []
    ports.clock.advance(**(time or {"minutes": 16}))
    return run(ports)


def kinds(repairs: list[tuple[str, str]]) -> list[str]:
    return [kind for kind, _ in repairs]


def test_a_loop_in_order_needs_no_repairs() -> None:
    ports, _ = asked()

    assert later(ports) == []
    assert ports.table.query("SUSPECT") == []


def test_a_lost_drop_is_ingested_from_the_queue() -> None:
    ports = world(LOOP)
    ingest(ports, ports.pool.drop("a.jsonl", jsonl("one")))
    score_all(ports)
    lost = ports.pool.drop("b.jsonl", jsonl("two"))

    assert later(ports) == [("ingest", layout.object_id(lost))]

    (message,) = ports.queues.sent["ingest"]
    (item,) = events.pool_objects(message)
    assert (item.bucket, item.key, item.version, item.sequencer) == (lost.bucket, "b.jsonl", lost.version, "")
    ingest_object(item, ports)
    assert ports.data.exists(layout.occurrences(layout.object_id(lost)))
    score_all(ports)
    assert later(ports) == []
    assert ports.table.query("SUSPECT") == []


def test_a_late_event_is_no_lost_one() -> None:
    ports = world(LOOP)
    item = ports.pool.drop("a.jsonl", jsonl("one"))
    assert run(ports) == []
    ingest(ports, item)
    score_all(ports)
    ports.clock.advance(minutes=16)

    assert run(ports) == []
    assert ports.queues.sent["ingest"] == []


def test_captured_requests_come_back_too() -> None:
    ports = world(LOOP)
    write(ports, layout.production("c1"), jsonl("served"))

    later(ports)

    (message,) = ports.queues.sent["ingest"]
    assert message["detail"]["bucket"]["name"] == ports.data.bucket
    assert message["detail"]["object"] == {"key": "production/c1.jsonl", "size": 0}


def test_a_capture_file_whose_event_was_lost_is_read_from_the_queue() -> None:
    ports = world(LOOP)
    read, refused, lost = (f"capture/endpoint/AllTraffic/{name}.jsonl" for name in ("read", "refused", "lost"))
    for key in (read, refused, lost):
        write(ports, key, b"{}")
    write(ports, layout.production(layout.captured(read)), b"")
    write(ports, layout.quarantine(layout.captured(refused)), b"")

    assert ("watch", layout.captured(lost)) in later(ports)

    (message,) = ports.queues.sent["capture"]
    assert [item.key for item in events.pool_objects(message)] == [lost]


def test_repairs_wait_longer_each_time_and_end_with_a_person() -> None:
    ports = world(LOOP)
    lost = layout.object_id(ports.pool.drop("a.jsonl", jsonl("one")))
    run(ports)
    made = []
    for minute in range(1, 16 * 60):
        ports.clock.advance(minutes=1)
        made += [minute] * len(run(ports))

    assert made == [15, 45, 105, 225, 465]  # 15 minutes, then twice as long each time
    assert len(made) == MAX_REPAIRS
    assert reconcile({}, ports).body["attention"] == [{"kind": "ingest", "name": lost}]


def test_unscored_records_go_to_the_score_queue() -> None:
    ports = world(LOOP)
    oid = ingest(ports, ports.pool.drop("a.jsonl", jsonl("one")))["oid"]

    assert later(ports) == [("score", f"{oid}/part-0000.jsonl.gz")]

    (message,) = ports.queues.sent["score"]
    assert [item.key for item in events.pool_objects(message)] == [layout.records(oid)]


def test_a_running_rescore_is_left_to_it() -> None:
    ports = world(LOOP)
    ingest(ports, ports.pool.drop("a.jsonl", jsonl("one")))
    write(ports, layout.CHAMPION, {"format": 1, "model": "m1", "number": 1})
    ports.executions.start("rescore", "m1", {"model": "m1"})

    assert later(ports) == []

    ports.executions.end("rescore", "m1", "FAILED")
    assert kinds(later(ports)) == ["score"]


def test_a_champion_without_a_rescore_gets_one() -> None:
    ports = world(LOOP)
    write(ports, layout.CHAMPION, {"format": 1, "model": "m1", "number": 1})

    assert later(ports) == [("rescore", "m1")]

    assert ports.executions.started["rescore", "m1"] == {"model": "m1"}


def test_a_job_that_ended_unheard_is_collected() -> None:
    ports, batch = asked()
    answer(ports, batch)

    assert later(ports) == [("collect", batch)]

    (message,) = ports.queues.sent["collect"]
    assert events.labeling_job(message) == f"winnow-{batch}"
    assert message["detail"] == {"LabelingJobStatus": "Completed"}
    collect_labels(batch, ports)
    assert later(ports) == []


def test_a_job_past_its_lifetime_is_stopped() -> None:
    ports, batch = asked()
    ports.clock.advance(hours=120 + 23)
    assert run(ports) == []
    ports.clock.advance(hours=2)

    assert later(ports) == [("stop", batch)]

    assert ports.labeling.outcomes[batch].status == "stopped"
    assert kinds(later(ports)) == ["collect"]


def test_a_batch_that_stays_planned_is_named() -> None:
    ports = world(LOOP)
    ingest(ports, ports.pool.drop("a.jsonl", jsonl("one", "two", "three", "four")))
    score_all(ports)
    start = len(ports.journal.calls)
    select_batch(SelectRequest(), ports)
    submit = next(n for n, call in enumerate(ports.journal.calls[start:]) if str(call) == "labeling.submit")
    ports = world(LOOP)
    ingest(ports, ports.pool.drop("a.jsonl", jsonl("one", "two", "three", "four")))
    score_all(ports)
    ports.journal.fail(submit, "busy")
    with pytest.raises(Retryable):
        select_batch(SelectRequest(), ports)
    (batch,) = [item["sk"] for item in ports.table.query("BATCH")]

    assert later(ports) == []

    assert reconcile({}, ports).body["attention"] == [{"kind": "submit", "name": batch}]


def test_unanswered_items_are_free_again_after_a_recorded_expiry() -> None:
    ports, batch = asked()
    ids = answer(ports, batch, silent=2)
    collect_labels(batch, ports)
    ports.executions.end("improve", ports.data.json(layout.HEAD)["version"])

    assert run(ports) == [("release", f"{each}#{batch}") for each in sorted(ids[-2:])]

    assert {item["sk"] for item in ports.table.query("EXPIRY")} == {f"{each}#{batch}" for each in ids[-2:]}
    for each in ids:
        reserved = ports.table.get(layout.RESERVATION, each)
        assert (reserved is None) == (each in ids[-2:])
    assert run(ports) == []


def improving(status: str | None) -> Any:
    """Dataset d1 is the head; its execution stands as told."""
    ports = make_ports()
    commit(ports, "d1", train=lines("t", ["negative", "positive"]))
    if status:
        ports.executions.start("improve", "d1", {"dataset": "d1", "cause": "labels"})
        ports.executions.end("improve", "d1", status)
    return ports


@pytest.mark.parametrize("status", ["RUNNING", "SUCCEEDED"])
def test_an_improvement_under_way_or_done_is_left_alone(status: str) -> None:
    assert later(improving(status)) == []


def test_an_improvement_that_was_never_started_is_started() -> None:
    ports = improving(None)

    assert later(ports) == [("improve", "d1")]

    assert ports.executions.started["improve", "d1"] == {"dataset": "d1", "cause": "repair"}


@pytest.mark.parametrize("status", ["FAILED", "TIMED_OUT", "ABORTED"])
def test_an_improvement_that_failed_gets_three_more_tries(status: str) -> None:
    ports = improving(status)
    names = []
    for _ in range(3):
        run(ports)
        ports.clock.advance(hours=8)
        assert run(ports) == [("improve", "d1")]
        (name,) = ports.executions.running("improve")
        ports.executions.end("improve", name, status)
        names.append(name)
    run(ports)
    ports.clock.advance(hours=8)

    assert run(ports) == []

    assert names == ["d1-1", "d1-2", "d1-3"]
    assert reconcile({}, ports).body["attention"] == [{"kind": "improve", "name": "d1"}]


def test_a_rollout_nobody_watches_is_taken_up_again() -> None:
    ports = improving("SUCCEEDED")
    ports.table.items["DEPLOYMENT", "m0"] = {"model": "m0", "dataset": "d0", "status": "STARTED"}
    ports.executions.start("improve", "d0", {})
    assert later(ports) == []
    ports.executions.end("improve", "d0", "TIMED_OUT")

    assert later(ports) == [("improve", "d0")]

    assert ports.executions.started["improve", "d0-1"] == {"dataset": "d0", "cause": "repair"}
    ports.table.items["DEPLOYMENT", "m0"]["status"] = "PROMOTED"
    ports.executions.end("improve", "d0-1")
    assert later(ports) == []


def test_an_execution_whose_training_event_was_lost_is_replaced() -> None:
    ports = improving("RUNNING")
    ports.training.jobs[MODEL] = TrainingState("running", None)
    assert later(ports, hours=1) == []
    ports.training.complete(MODEL)

    assert later(ports, minutes=31) == [("stalled", "d1")]

    assert ports.executions.statuses == {("improve", "d1"): "ABORTED", ("improve", "d1-1"): "RUNNING"}
    write(ports, layout.model(MODEL), {})
    assert later(ports, hours=8) == []


def test_an_execution_that_took_up_its_training_goes_on() -> None:
    ports = improving("RUNNING")
    ports.training.complete(MODEL)
    write(ports, layout.model(MODEL), {})
    write(ports, layout.gate_report(MODEL), gate_report(MODEL))

    assert later(ports, hours=1) == []


def test_a_job_that_is_not_there_yet_is_no_repair() -> None:
    ports, batch = asked()
    ports.labeling._fake.outcomes[batch] = LabelingOutcome("running", 0, 12)

    assert later(ports) == []


def broken() -> Any:
    """Everything wrong at once, and seen once already."""
    ports, batch = asked()
    answer(ports, batch, silent=2)
    collect_labels(batch, ports)
    version = ports.data.json(layout.HEAD)["version"]
    ports.executions.end("improve", version, "FAILED")
    write(ports, layout.CHAMPION, {"format": 1, "model": "m1", "number": 1})
    ports.pool.drop("lost.jsonl", jsonl("lost"))
    suspects = {f"ingest#{layout.object_id(ports.pool.newest['lost.jsonl'])}", "rescore#m1", f"improve#{version}"}
    suspects |= {f"score#{key.removeprefix(layout.RECORDS)}" for key in ports.data.list(layout.RECORDS)}
    for key in suspects:
        ports.table.items["SUSPECT", key] = {"since": ports.clock.now().timestamp() - 3600, "repairs": 0}
    return ports


def facts(ports: Any) -> dict[tuple[str, str], Any]:
    """The table without what reconcile remembers: a run that died is repeated with other suspects left."""
    return {key: item for key, item in ports.table.items.items() if key[0] != "SUSPECT"}


def test_every_fault_brings_everything_home() -> None:
    expected = broken()
    repairs = run(expected)
    assert sorted(kinds(repairs)) == ["improve", "ingest", "release", "release", "rescore", "score"]

    for what, ports in every_fault(broken, run):
        assert facts(ports) == facts(expected), what
        assert ports.executions.statuses == expected.executions.statuses, what
        for queue in ("ingest", "score"):  # a message may be sent twice: consumers find the work done
            (once,) = expected.queues.sent[queue]
            assert ports.queues.sent[queue], what
            assert all(message == once for message in ports.queues.sent[queue]), what


def test_a_repeat_at_once_does_nothing_more() -> None:
    ports = broken()
    run(ports)
    sent = {queue: list(messages) for queue, messages in ports.queues.sent.items()}

    assert run(ports) == []

    assert ports.queues.sent == sent
