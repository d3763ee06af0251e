"""Hops 2 to 5: scored once, indexed once, a batch within budget with a reason for every record."""

from __future__ import annotations

import base64
import json
from decimal import Decimal

import numpy as np
import pytest

from tests.fakes import every_fault
from tests.steps.walk import LOOP, animals, ingest, jsonl, score_all, world
from winnow import layout
from winnow.errors import BadInput, ConfigError
from winnow.records import from_jsonl
from winnow.steps.batches import committed, reservations
from winnow.steps.candidates import Candidates
from winnow.steps.index_candidates import index_candidates
from winnow.steps.pointers import Champion
from winnow.steps.prepare_task import prepare_task
from winnow.steps.score_records import ScoreRequest, score_records
from winnow.steps.select_batch import SelectRequest, select_batch


def ready(count: int = 60, loop: str = LOOP):
    ports = world(loop)
    ingest(ports, ports.pool.drop("a.jsonl", animals(count)))
    score_all(ports)
    return ports


def shard_rows(ports) -> Candidates:
    items = ports.table.query("SHARD#bootstrap-text")
    return Candidates.concat([Candidates.from_bytes(ports.data.objects[item["key"]]) for item in items])


def test_every_record_is_scored_and_becomes_a_candidate():
    ports = ready(60)

    (key,) = ports.data.list("scores/bootstrap-text/")
    scored = Candidates.from_bytes(ports.data.objects[key])
    assert len(scored) == 60
    assert set(scored.scores) >= {"margin", "entropy", "least_confidence"}
    assert sorted(shard_rows(ports).id) == sorted(scored.id)


def test_scoring_twice_changes_nothing():
    ports = ready(10)
    before = dict(ports.data.objects)

    outcome = score_records(ScoreRequest(tuple(ports.data.list("records/"))), ports)

    assert outcome.body["skipped"] == 1
    assert ports.data.objects == before


def test_a_superseded_version_is_not_scored_and_loses_its_scores():
    ports = ready(10)
    old = next(iter(ports.data.list("records/")))

    body = ingest(ports, ports.pool.drop("a.jsonl", jsonl("only this")))
    score_records(ScoreRequest((old, layout.records(body["oid"]))), ports)

    keys = list(ports.data.list("scores/bootstrap-text/"))
    assert keys == [layout.scores("bootstrap-text", layout.records(body["oid"]))]


def test_a_rescore_for_a_model_that_is_no_longer_champion_ends():
    ports = ready(10)

    outcome = score_records(ScoreRequest(("records/o1/part-0000.jsonl.gz",), model="m-old"), ports)

    assert outcome.body["stale"] is True


def test_a_damaged_records_artifact_fails_alone():
    ports = ready(10)
    ports.data.objects["records/obad/part-0000.jsonl.gz"] = b"\x1f\x8bnot gzip"
    body = ingest(ports, ports.pool.drop("b.jsonl", jsonl("something else")))

    outcome = score_records(ScoreRequest(("records/obad/part-0000.jsonl.gz", layout.records(body["oid"]))), ports)

    assert list(outcome.body["failed"]) == ["records/obad/part-0000.jsonl.gz"]
    assert outcome.body["scored"] == 1


def test_a_strategy_the_model_cannot_serve_is_refused_with_the_remedy():
    ports = ready(10, LOOP.replace("near_duplicate_distance", "strategy: bald, near_duplicate_distance"))
    champion = Champion("m-1", number=1)
    ports.data.objects[layout.CHAMPION] = champion.to_bytes()
    ports.models.models["m-1"] = ports.models.models["bootstrap-text"]

    with pytest.raises(ConfigError, match="bald needs members"):
        score_records(ScoreRequest(tuple(ports.data.list("records/"))), ports)


@pytest.mark.parametrize(
    ("strategy", "kept"),
    [("density_weighted", "uncertain"), ("expected_error_reduction", "uncertain"), ("typicality", "by chance")],
)
def test_what_compares_records_is_left_to_selection_and_gets_records_worth_comparing(strategy: str, kept: str):
    few = "candidates_per_object: 10, uniform_per_object: 20"
    ports = world(LOOP.replace("near_duplicate_distance", f"strategy: {strategy}, {few}, near_duplicate_distance"))
    ports.data.objects[layout.CHAMPION] = Champion("m-1", number=1).to_bytes()
    ports.models.models["m-1"] = ports.models.models["bootstrap-text"]
    ingest(ports, ports.pool.drop("a.jsonl", animals(300)))

    score_records(ScoreRequest(tuple(ports.data.list("records/"))), ports)

    (key,) = ports.data.list("scores/m-1/")
    scored = Candidates.from_bytes(ports.data.objects[key])
    assert set(scored.scores) == {"margin", "entropy", "least_confidence", "expected_gradient_length"}
    sent = Candidates.concat(
        [Candidates.from_bytes(base64.b64decode(body["columns"])) for body in ports.queues.sent["candidates"]]
    )
    train = scored.take(scored.role == "train")
    by_chance = set(train.id[np.argsort(train.key)][:20].tolist())
    uncertain = set(train.id[np.argsort(-train.scores["margin"], kind="stable")][:10].tolist())
    expected = by_chance | uncertain if kept == "uncertain" else by_chance
    assert set(sent.id[sent.role == "train"].tolist()) == expected
    assert uncertain - by_chance


def test_messages_that_cannot_be_read_fail_alone():
    ports = ready(10)

    outcome = index_candidates([{}, ports.queues.sent["candidates"][0], {"model": "m", "columns": "AAAA"}], ports)

    assert outcome.body["failed"] == [0, 2]
    assert outcome.body["indexed"] == 10


def test_a_batch_has_its_arms_and_a_reason_for_every_record():
    ports = ready()

    outcome = select_batch(SelectRequest(), ports)

    plan = ports.data.json(layout.plan(outcome.body["batch"]))
    by_arm: dict[str, int] = {}
    for choice in plan["choices"]:
        by_arm[choice["arm"]] = by_arm.get(choice["arm"], 0) + 1
    assert by_arm == {"evaluation": 3, "control": 3, "active": 6}
    assert plan["phase"] == "coverage"
    assert Decimal(plan["usd"]) == Decimal("3.60")  # 12 items x 3 workers x 0.10
    assert len({choice["cluster"] for choice in plan["choices"]}) == 12
    rows = shard_rows(ports)
    keys = dict(zip(rows.id.tolist(), rows.key.tolist(), strict=True))
    control = sorted(keys[choice["id"]] for choice in plan["choices"] if choice["arm"] == "control")
    train = sorted(key for key, role in zip(rows.key.tolist(), rows.role.tolist(), strict=True) if role == "train")
    assert control == train[:3]
    (job,) = ports.labeling.jobs.values()
    lines = from_jsonl(ports.data.objects[job.manifest_key])
    assert {line["candidate_id"] for line in lines} == {choice["id"] for choice in plan["choices"]}
    assert all(set(line) == {"source", "candidate_id", "batch"} for line in lines)


def test_only_so_many_batches_are_open():
    ports = ready()
    select_batch(SelectRequest(), ports)

    outcome = select_batch(SelectRequest(), ports)

    assert outcome.body["reason"] == "open-batches"


def test_two_selections_at_once_make_one_batch():
    ports = ready()
    ports.table.acquire_lease("select", "somebody", now=ports.clock.now(), seconds=60)

    assert select_batch(SelectRequest(), ports).body["reason"] == "busy"
    ports.clock.advance(minutes=2)
    assert select_batch(SelectRequest(), ports).body["batch"]


def test_money_committed_never_exceeds_the_budget():
    ports = ready(loop=LOOP.replace("total_usd: 100", "total_usd: 5").replace("batches: {", "batches: {max_open: 9, "))

    sizes = [select_batch(SelectRequest(), ports).body for _ in range(4)]

    assert [body.get("size") for body in sizes] == [12, 4, None, None]
    assert sizes[-1]["reason"] == "budget"
    assert committed(ports) == Decimal("4.80")


def test_selection_waits_for_fresh_scores():
    ports = ready(20)
    ingest(ports, ports.pool.drop("b.jsonl", jsonl("not yet scored")))

    outcome = select_batch(SelectRequest(), ports)

    assert outcome.body["reason"] == "stale-scores"


def test_an_empty_pool_and_a_pool_used_up():
    assert select_batch(SelectRequest(), world()).body["reason"] == "stale-scores"
    ports = ready(1)
    assert select_batch(SelectRequest(), ports).body["reason"] == "pool-exhausted"


def test_a_batch_never_asks_what_is_reserved():
    ports = ready(loop=LOOP.replace("batches: {", "batches: {max_open: 9, "))

    first = select_batch(SelectRequest(), ports).body["batch"]
    second = select_batch(SelectRequest(), ports).body["batch"]

    def ids(batch: str) -> set[str]:
        return {choice["id"] for choice in ports.data.json(layout.plan(batch))["choices"]}

    assert not ids(first) & ids(second)
    assert set(reservations(ports)) == ids(first) | ids(second)


@pytest.mark.parametrize("size", [0, -1, "ten", True, 2.5])
def test_a_size_that_is_no_count_is_refused(size):
    with pytest.raises(BadInput, match="size must be"):
        SelectRequest.from_json({"size": size})


def test_every_fault_in_selection_ends_in_one_batch_paid_once():
    build = ready

    def act(ports):
        ports.clock.advance(minutes=20)  # a crashed selection's lease has run out
        select_batch(SelectRequest(), ports)

    for what, ports in every_fault(build, act, skip=("clock.now",)):
        batches = ports.table.query("BATCH")
        assert len(batches) == 1, what
        assert batches[0]["status"] == "submitted", what
        assert committed(ports) == Decimal("3.60"), what
        assert len(ports.labeling.jobs) == 1, what
        assert len(reservations(ports)) == 12, what


def test_the_annotator_sees_no_arm_score_or_prediction():
    ports = world()

    outcome = prepare_task(
        {"source": "a cat?", "candidate_id": "c", "batch": "b", "prediction": "dog", "arm": "x"}, ports
    )

    assert json.loads(json.dumps(outcome.body["taskInput"])) == {
        "classes": ["cat", "dog"],
        "title": "Choose the class",
        "guideline": "Choose the one class that fits best.",
        "text": "a cat?",
    }


def test_the_policy_may_show_the_prediction():
    ports = world("task: {kind: image, classes: [cat, dog], show_prediction: true}")

    outcome = prepare_task({"source-ref": "s3://b/k.png", "candidate_id": "c", "prediction": "dog"}, ports)

    assert outcome.body["taskInput"]["prediction"] == "dog"
    assert outcome.body["taskInput"]["image"] == "s3://b/k.png"
    with pytest.raises(BadInput, match="source"):
        prepare_task({"candidate_id": "c"}, ports)
