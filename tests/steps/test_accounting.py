"""The ledger and the invariants are computed from artifacts: they hold after a quiet walk and name what was broken."""

from __future__ import annotations

import gzip
import json
from typing import Any

import pytest

from tests.builders import commit, gate_report, line, write
from tests.steps.walk import animals, ingest, jsonl, score_all, world
from winnow import layout
from winnow.ports import Answer, EndpointState, QueueState
from winnow.records import PoolObject, from_jsonl, to_jsonl
from winnow.steps.accounting import Invariant, Ledger, account, check_invariants
from winnow.steps.collect_labels import collect_labels
from winnow.steps.select_batch import SelectRequest, select_batch

LOOP = """
task: {kind: text, classes: [cat, dog]}
batches: {size: 12, min_size: 2, max_open: 2}
acquisition: {near_duplicate_distance: 0.0, arms: {control: 0.25, evaluation_target: 20, evaluation_share: 0.25}}
gate: {min_records: 10}
budget: {total_usd: 100, price_per_answer_usd: "0.10"}
"""


def asked() -> tuple[Any, str]:
    """Sixty texts, scored, and a batch sent to annotators."""
    ports = world(LOOP)
    ingest(ports, ports.pool.drop("a.jsonl", animals(60)))
    score_all(ports)
    return ports, str(select_batch(SelectRequest(), ports).body["batch"])


def answer(ports: Any, batch: str, *, silent: int = 0) -> list[str]:
    """Three annotators agree on every item but the last `silent`, which nobody answers. Returns the ids asked."""
    ids = [row["candidate_id"] for row in from_jsonl(ports.data.objects[layout.manifest(batch)])]
    answered = ids[: len(ids) - silent]
    ports.labeling.finish(
        batch,
        results={each: {"label": "cat", "confidence": 1.0} for each in answered},
        answers={each: [Answer(f"w{n}", "cat", 5.0, "2026-01-05T10:00:00Z") for n in range(3)] for each in answered},
        total=len(ids),
    )
    return ids


def labeled() -> tuple[Any, str]:
    ports, batch = asked()
    answer(ports, batch)
    collect_labels(batch, ports)
    return ports, batch


def failing(ports: Any) -> dict[str, str]:
    return {name: found.detail for name, found in check_invariants(ports).items() if not found.ok}


def test_an_empty_world_is_in_order() -> None:
    ports = world(LOOP)

    assert account(ports) == Ledger()
    assert check_invariants(ports) == {f"I{number}": Invariant(True, "0 checked") for number in range(1, 9)}


def test_every_fate_is_counted_once() -> None:
    ports = world(LOOP)
    old = ports.pool.drop("a.jsonl", jsonl("one", "two"))
    ingest(ports, old)
    score_all(ports)
    ingest(ports, ports.pool.drop("a.jsonl", jsonl("one", "three")))  # supersedes both rows of the old version
    ingest(
        ports, ports.pool.drop("b.jsonl", jsonl("three", "four") + b"{broken\n")
    )  # a duplicate, a new one, a bad one
    score_all(ports)
    ingest(ports, ports.pool.drop("c.jsonl", jsonl("five")))  # not scored yet
    ports.pool.drop("d.jsonl", jsonl("six"))  # its event was lost
    ports.pool.drop("e.jsonl", jsonl("seven"))  # nobody could ingest it
    ports.queues.depth["ingest"] = QueueState(0, 0, dead=1)

    ledger = account(ports)

    assert ledger.to_json() == {
        "in": 10, "scored": 3, "duplicate": 1, "superseded": 2, "quarantined": 1, "waiting": 2, "dead_lettered": 1,
    }  # fmt: skip
    assert ledger.lost == 0
    assert failing(ports) == {}


def test_captured_requests_that_were_not_ingested_wait() -> None:
    ports = world(LOOP)
    write(ports, layout.production("c1"), jsonl("served"))
    assert account(ports).waiting == 1

    ingest(ports, PoolObject(ports.data.bucket, layout.production("c1"), version="v9", sequencer="01"))

    # the fake pool does not hold our own bucket's objects, so the row is quarantined: it was accounted for under its own name
    assert account(ports).to_json()["in"] == 1
    assert account(ports).waiting == 0


def test_records_that_vanished_are_lost() -> None:
    ports = world(LOOP)
    ingest(ports, ports.pool.drop("a.jsonl", jsonl("one", "two")))
    (key,) = ports.data.list(layout.RECORDS)
    del ports.data.objects[key]

    assert account(ports).lost == 2
    assert failing(ports) == {"I3": "2 of 2 occurrences are nowhere"}


def test_a_refusal_without_a_written_reason_is_lost() -> None:
    ports = world(LOOP)
    oid = ingest(ports, ports.pool.drop("a.jsonl", b"{broken\n"))["oid"]
    del ports.data.objects[layout.quarantine(oid)]

    assert account(ports).lost == 1


def test_a_quiet_walk_to_a_dataset_keeps_every_invariant() -> None:
    ports, _ = labeled()

    assert failing(ports) == {}
    found = check_invariants(ports)
    assert found["I1"].detail == "36 checked"  # 12 items, 3 answers each
    assert found["I2"].detail == "12 checked"
    assert found["I3"].detail == "60 checked"


def lines_of(ports: Any, batch: str) -> list[dict[str, Any]]:
    return from_jsonl(ports.data.objects[layout.labels(batch)])


def test_an_answer_without_a_label_breaks_i1() -> None:
    ports, batch = labeled()
    write(ports, layout.labels(batch), to_jsonl(lines_of(ports, batch)[1:]))

    assert "3 answers about" in failing(ports)["I1"]
    assert "stand in 0 label lines" in failing(ports)["I1"]


def test_an_answer_with_two_labels_breaks_i1() -> None:
    ports, batch = labeled()
    lines = lines_of(ports, batch)
    write(ports, layout.labels(batch), to_jsonl([*lines, lines[0]]))

    assert "stand in 2 label lines" in failing(ports)["I1"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"answers": []}, "does not name its 3 annotators"),
        ({"status": "expired"}, "was answered but counts as expired"),
        ({"status": "quarantined"}, "is in quarantine without a reason"),
    ],
)
def test_a_label_that_hides_an_answer_breaks_i1(change: dict[str, Any], message: str) -> None:
    ports, batch = labeled()
    first, *rest = lines_of(ports, batch)
    write(ports, layout.labels(batch), to_jsonl([{**first, **change}, *rest]))

    assert message in failing(ports)["I1"]


def ask_again(ports: Any, batch: str) -> str:
    """A second batch that asks for the first one's first item, which select_batch would never make."""
    again = "bagain"
    write(ports, layout.manifest(again), ports.data.objects[layout.manifest(batch)].split(b"\n")[0] + b"\n")
    write(ports, layout.plan(again), {**ports.data.json(layout.plan(batch)), "batch": again})
    item = dict(ports.table.items["BATCH", batch])
    ports.table.items["BATCH", again] = {**item, "number": item["number"] + 1, "status": "submitted", "job": again}
    return again


def test_a_content_in_two_open_jobs_breaks_i2() -> None:
    ports, batch = asked()
    ask_again(ports, batch)

    assert "is in two open jobs" in failing(ports)["I2"]


def test_asking_again_without_a_recorded_expiry_breaks_i2() -> None:
    ports, batch = labeled()
    ask_again(ports, batch)
    assert "without a recorded expiry" in failing(ports)["I2"]

    content = from_jsonl(ports.data.objects[layout.manifest(batch)])[0]["candidate_id"]
    ports.table.items["EXPIRY", f"{content}#{batch}"] = {"at": "2026-01-05T10:00:00Z"}
    assert "I2" not in failing(ports)


def test_asking_again_after_a_batch_was_held_out_is_allowed() -> None:
    ports, batch = labeled()
    ask_again(ports, batch)
    version = ports.data.json(layout.HEAD)["version"]
    held = [{"batch": batch, "reason": "the gate rejected m1"}]
    write(ports, layout.dataset(version), {**ports.data.json(layout.dataset(version)), "held_out": held})

    assert "I2" not in failing(ports)


def test_experts_may_be_asked_about_a_dispute() -> None:
    ports, batch = asked()
    ids = answer(ports, batch)
    outcome = ports.labeling.outcomes[batch]
    doubtful = {**outcome.results, ids[0]: {"label": "cat", "confidence": 0.1}}
    ports.labeling.finish(batch, results=doubtful, answers=outcome.answers)

    collect_labels(batch, ports)

    assert len(ports.table.query("BATCH")) == 2
    assert failing(ports) == {}


def test_a_damaged_part_breaks_i4() -> None:
    ports, _ = labeled()
    version = ports.data.json(layout.HEAD)["version"]
    ports.data.objects[layout.dataset_part(version, "train")] += b"x"

    assert f"dataset {version}" in failing(ports)["I4"]


def test_a_missing_part_breaks_i4() -> None:
    ports, _ = labeled()
    version = ports.data.json(layout.HEAD)["version"]
    del ports.data.objects[layout.dataset_part(version, "reward")]

    assert "has digest no file" in failing(ports)["I4"]


def versions(ports: Any, *parents: tuple[str, str | None]) -> None:
    for version, parent in parents:
        commit(ports, version, train=[], parent=parent)


@pytest.mark.parametrize(
    ("parents", "message"),
    [
        ([("d1", "d0")], "dataset d0 is in the line of the head d1 but has no dataset.json"),
        ([("d1", "d2"), ("d2", "d1")], "form a circle"),
        ([("d1", None), ("x1", None), ("x2", "x1"), ("d2", "d1")], "dataset x1 has successors but is not in the line"),
    ],
)
def test_versions_that_are_no_line_break_i4(parents: list[tuple[str, str | None]], message: str) -> None:
    ports = world(LOOP)
    versions(ports, *parents)

    assert message in failing(ports)["I4"]


def test_a_version_that_lost_the_race_for_the_head_is_no_fault() -> None:
    ports = world(LOOP)
    versions(ports, ("d1", None), ("lost", "d1"), ("d2", "d1"))

    assert failing(ports) == {}


@pytest.mark.parametrize(
    ("held_out", "message"),
    [
        (line("t1", "cat"), "the id of held-out t1"),
        (line("e1", "cat", cluster="cluster-t1"), "the cluster of held-out e1"),
    ],
)
def test_training_on_what_is_judged_breaks_i5(held_out: dict[str, Any], message: str) -> None:
    ports = world(LOOP)
    commit(ports, "d1", train=[line("t1", "dog")], classes=["cat", "dog"])
    commit(ports, "d2", train=[], evaluation=[held_out], parent="d1", classes=["cat", "dog"])

    assert message in failing(ports)["I5"]


def rolled_out(status: str, *, alarm: str = "OK", serving: str = "m1", champion: str = "m1", **report: Any) -> Any:
    ports = world(LOOP)
    endpoint = {"status": "InService", "model": serving}
    write(ports, layout.gate_report("m2"), gate_report("m2", champion="m1", dataset="d2", **report))
    write(
        ports,
        layout.deployment_report("m2"),
        {
            "model": "m2", "status": status, "champion": "m1", "dataset": "d2", "endpoint": endpoint,
            "alarms": {"winnow-m2-quality": alarm},
        },
    )  # fmt: skip
    write(ports, layout.CHAMPION, {"format": 1, "model": champion, "number": 2})
    ports.serving._fake.endpoint = EndpointState("InService", serving)
    return ports


def test_rollouts_that_ended_well_keep_i6_and_i7() -> None:
    assert failing(rolled_out("FAILED", alarm="ALARM")) == {}
    assert failing(rolled_out("PROMOTED", serving="m2", champion="m2")) == {}


@pytest.mark.parametrize(
    ("ports", "invariant", "message"),
    [
        (rolled_out("PROMOTED", verdict="reject", serving="m2", champion="m2"), "I6", "its gate said reject"),
        (rolled_out("PROMOTED", alarm="ALARM", serving="m2", champion="m2"), "I7", "was in ALARM but"),
        (rolled_out("FAILED", champion="m2", serving="m2"), "I7", "failed but it is the champion"),
        (rolled_out("FAILED", alarm="ALARM", serving="m2"), "I7", "the endpoint serves m2, the champion is m1"),
    ],
)
def test_rollouts_that_ended_badly_break_i6_or_i7(ports: Any, invariant: str, message: str) -> None:
    assert message in failing(ports)[invariant]


def test_a_promotion_without_a_report_breaks_i6() -> None:
    ports = rolled_out("PROMOTED", serving="m2", champion="m2")
    del ports.data.objects[layout.gate_report("m2")]

    assert failing(ports) == {"I6": "m2 was promoted without a gate report"}


def test_overspending_breaks_i8() -> None:
    ports = world(LOOP)
    ports.table.items["BUDGET", "b1"] = {"usd": "60.00"}
    ports.table.items["BUDGET", "b2"] = {"usd": "40.01"}

    assert failing(ports) == {"I8": "100.01 USD are committed, the budget is 100"}


def test_the_first_of_many_counterexamples_is_named() -> None:
    ports, batch = labeled()
    write(ports, layout.labels(batch), b"")

    assert failing(ports)["I1"].endswith("(and 11 more)")


def test_rehomed_contents_keep_their_duplicates_accounted_for() -> None:
    ports = world(LOOP)
    ingest(ports, ports.pool.drop("a.jsonl", jsonl("one", "two")))
    ingest(ports, ports.pool.drop("b.jsonl", jsonl("two")))
    ingest(ports, ports.pool.drop("a.jsonl", jsonl("one")))  # the new version drops "two", which lives on in b.jsonl

    ledger = account(ports)

    assert (ledger.superseded, ledger.duplicate, ledger.waiting, ledger.lost) == (2, 1, 1, 0)
    rehomed = [key for key in ports.data.objects if "/from-" in key]
    assert [json.loads(gzip.decompress(ports.data.objects[key]))["text"] for key in rehomed] == ["two"]
