"""Labels that come with records become a dataset, once, and neither train on what is judged nor choose what judges."""

from __future__ import annotations

import gzip
import json

import pytest

from tests.fakes import every_fault
from tests.steps.test_collect_labels import finish, labeled, part
from tests.steps.test_selection_walk import ready
from tests.steps.walk import LOOP, animals, ingest, jsonl, occurrences_of, score_all, world
from winnow import layout
from winnow.datasets.roles import lowest
from winnow.errors import Retryable
from winnow.records import from_jsonl, to_jsonl
from winnow.steps.accounting import check_invariants
from winnow.steps.batches import committed, reservations
from winnow.steps.collect_labels import collect_labels
from winnow.steps.import_labels import import_labels, salt_digest
from winnow.steps.reconcile import reconcile
from winnow.steps.select_batch import SelectRequest, select_batch

TEXTS = [json.loads(line)["text"] for line in animals(200).decode().splitlines()]


def seeds(texts, label=lambda place: "dog" if place % 2 else "cat", **more):
    return b"".join(
        json.dumps({"text": text, "label": label(place), **more}).encode() + b"\n" for place, text in enumerate(texts)
    )


def drop(ports, body, key="seeds.jsonl"):
    """A user's drop, and what the event about its labels does."""
    oid = ingest(ports, ports.pool.drop(key, body))["oid"]
    return oid, dict(import_labels(oid, ports).body)


def test_seeds_become_a_dataset_with_roles_and_start_improve():
    ports = world()

    oid, body = drop(ports, seeds(TEXTS[:60], winnow={"file": "old.csv", "by": "ada", "at": "2026-01-02T03:04:05Z"}))

    version = body["dataset"]
    train, evaluation = part(ports, version, "train"), part(ports, version, "evaluation")
    records = {record["id"]: record for record in records_of_all(ports)}
    assert {line["arm"] for line in train + evaluation} == {"imported"}
    assert {records[line["id"]]["role"] for line in train} == {"train"}
    assert {records[line["id"]]["role"] for line in evaluation} == {"evaluation"}
    assert len(train) == sum(record["role"] == "train" for record in records.values())
    assert ports.data.json(layout.HEAD)["version"] == version
    assert ports.data.json(layout.dataset(version))["batches"] == [f"i{oid}"]
    assert ports.executions.started["improve", version] == {"dataset": version, "cause": "imported"}
    label = from_jsonl(ports.data.objects[layout.labels(f"i{oid}")])[0]
    assert label["source"] == {
        "object": "seeds.jsonl", "row": 1, "file": "old.csv", "by": "ada", "at": "2026-01-02T03:04:05Z",
    }  # fmt: skip
    assert label["labeled_at"] == "2026-01-02T03:04:05Z"
    assert committed(ports) == 0


def records_of_all(ports):
    keys = ports.data.list(layout.RECORDS)
    return [body for key in keys for body in from_jsonl(gzip.decompress(ports.data.objects[key]))]


def test_labels_of_records_that_are_in_the_pool_already_need_no_second_record():
    ports = world()
    ingest(ports, ports.pool.drop("pool.jsonl", jsonl(*TEXTS[:30])))

    oid, body = drop(ports, seeds(TEXTS[:30]))

    assert body["labeled"] == 30
    assert {row["status"] for row in occurrences_of(ports, oid)} == {"duplicate"}
    assert not ports.data.exists(layout.records(oid))
    assert all("text" in line for line in part(ports, body["dataset"], "train"))


def test_an_imported_content_is_never_asked_for_the_train_role():
    ports = world()
    drop(ports, seeds(TEXTS[:40]))
    ingest(ports, ports.pool.drop("pool.jsonl", jsonl(*TEXTS[40:90])))
    score_all(ports)
    imported = set(reservations(ports))

    batch = select_batch(SelectRequest(), ports).body["batch"]

    asked = {line["candidate_id"] for line in from_jsonl(ports.data.objects[layout.manifest(batch)])}
    assert len(asked) == 12
    assert not asked & imported


def test_only_seeds_in_the_pools_uniform_sample_are_judged_on():
    """evaluation_target is 20: of 200 texts the 20 lowest keys of the evaluation role are the sample, seeds or not."""
    ports = world()
    ingest(ports, ports.pool.drop("pool.jsonl", jsonl(*TEXTS[50:])))
    score_all(ports)

    _, body = drop(ports, seeds(TEXTS[:50]))

    keys = {record["id"]: record["key"] for record in records_of_all(ports) if record["role"] == "evaluation"}
    sample = sorted(keys, key=keys.__getitem__)[:20]
    imported = {label["id"] for label in from_jsonl(ports.data.objects[layout.labels(f"i{body['import']}")])}
    assert len(keys) > 30
    assert {line["id"] for line in part(ports, body["dataset"], "evaluation")} == imported & set(sample)
    assert not part(ports, body["dataset"], "reward")
    assert imported & set(keys) - set(sample) - set(reservations(ports)) == imported & set(keys) - set(sample)


def test_seeds_leave_the_evaluation_set_when_the_pool_outgrows_them():
    ports = world(LOOP.replace("evaluation_share: 0.25", "evaluation_share: 0.5"))
    _, first = drop(ports, seeds(TEXTS[:100]))
    assert len(part(ports, first["dataset"], "evaluation")) == 20
    ingest(ports, ports.pool.drop("pool.jsonl", jsonl(*TEXTS[100:])))
    score_all(ports)

    batch = labeled(ports)
    version = collect_labels(batch, ports).body["dataset"]

    keys = {record["id"]: record["key"] for record in records_of_all(ports) if record["role"] == "evaluation"}
    bound = lowest(keys.values(), 20)
    lines = part(ports, version, "evaluation")
    asked = [line for line in lines if line["arm"] == "evaluation"]
    assert 0 < len([line for line in lines if line["arm"] == "imported"]) < 20
    assert len(asked) == 6
    assert all(keys[line["id"]] <= bound for line in lines)
    left = {line["id"] for line in part(ports, first["dataset"], "evaluation")} - {line["id"] for line in lines}
    assert left
    assert not left & set(reservations(ports))


def test_twice_and_in_any_accident_there_is_one_version():
    def build():
        ports = world()
        ingest(ports, ports.pool.drop("seeds.jsonl", seeds(TEXTS[:20])))
        return ports

    def act(ports):
        (key,) = (key for key in ports.data.objects if key.startswith(layout.IMPORTS))
        import_labels(layout.oid_of_import(key), ports)

    expected = build()
    act(expected)
    for fault, ports in every_fault(build, act):
        assert ports.data.objects == expected.data.objects, fault
        assert ports.table.items == expected.table.items, fault


def test_a_lost_event_is_repaired():
    ports = world()
    oid = ingest(ports, ports.pool.drop("seeds.jsonl", seeds(TEXTS[:20])))["oid"]
    reconcile({}, ports)
    ports.clock.advance(hours=1)

    repairs = reconcile({}, ports).body["repairs"]

    assert ("import", oid) in {(one["kind"], one["name"]) for one in repairs}
    (event,) = [body for body in ports.queues.sent["collect"] if "object" in body["detail"]]
    assert event["detail"]["object"]["key"] == layout.imported(oid)
    import_labels(oid, ports)
    ports.clock.advance(hours=1)
    assert not [one for one in reconcile({}, ports).body["repairs"] if one["kind"] == "import"]


def test_people_count_before_an_import_and_the_later_import_before_the_earlier():
    ports = ready()
    batch = labeled(ports)
    version = collect_labels(batch, ports).body["dataset"]
    answered = part(ports, version, "train")
    texts = [line["text"] for line in answered]

    _, differing = drop(
        ports, seeds([texts[0], texts[1], TEXTS[180]], label=lambda place: "cat" if place == 0 else "dog")
    )
    _, corrected = drop(ports, seeds([TEXTS[180]], label=lambda place: "cat"), key="corrected.jsonl")

    lines = {
        line["text"]: line["label"]
        for role in ("train", "evaluation")
        for line in part(ports, corrected["dataset"], role)
    }
    assert (differing["labeled"], differing["quarantined"]) == (1, 1)
    (refused,) = [
        body for body in from_jsonl(ports.data.objects[layout.labels(f"i{differing['import']}")])
        if body["status"] == "quarantined"
    ]  # fmt: skip
    assert refused["reason"] == "people said 'cat'; what they say counts"
    assert (lines[texts[0]], lines[texts[1]]) == ("cat", "cat")
    assert lines.get(TEXTS[180], "cat") == "cat"


def test_an_open_batch_is_answered_by_people_and_an_expired_item_by_the_import():
    ports = ready()
    batch = select_batch(SelectRequest(), ports).body["batch"]
    lines = from_jsonl(ports.data.objects[layout.manifest(batch)])
    roles = {record["id"]: record["role"] for record in records_of_all(ports)}
    first, second = [line for line in lines if roles[line["candidate_id"]] == "train"][:2]

    _, early = drop(ports, seeds([first["source"]]), key="early.jsonl")
    finish(ports, batch, skip=(lines.index(second),))
    collect_labels(batch, ports)
    _, late = drop(ports, seeds([second["source"]]), key="late.jsonl")

    assert (early["labeled"], early["quarantined"]) == (0, 1)
    assert (late["labeled"], late["quarantined"]) == (1, 0)
    assert reservations(ports)[second["candidate_id"]]["batch"] == f"i{late['import']}"


def test_rows_of_one_object_that_contradict_each_other_are_not_believed():
    ports = world()

    oid, body = drop(ports, seeds([TEXTS[0], TEXTS[1], TEXTS[0]], label=lambda place: "dog" if place == 2 else "cat"))

    reasons = [line.get("reason") for line in from_jsonl(ports.data.objects[layout.labels(f"i{oid}")])]
    assert sorted(reasons, key=str) == [None, "rows 1 and 3 say 'cat' and 'dog' of the same content"]
    assert body["quarantined"] == 1


def test_an_import_waits_for_the_record_that_another_object_is_about_to_write():
    ports = world()
    oid = ingest(ports, ports.pool.drop("seeds.jsonl", seeds(TEXTS[:3])))["oid"]
    body = ports.data.objects.pop(layout.records(oid))

    with pytest.raises(Retryable, match="not all written yet"):
        import_labels(oid, ports)

    ports.data.objects[layout.records(oid)] = body
    assert import_labels(oid, ports).body["labeled"] == 3


def exported(ports, version):
    """Rows as `winnow export` writes them."""
    batches = ports.data.json(layout.dataset(version))["batches"]
    rows = []
    for role in ("train", "evaluation", "reward"):
        for line in part(ports, version, role):
            name = batches[line["batch"] - 1]
            label = next(
                body for body in from_jsonl(ports.data.objects[layout.labels(name)]) if body["id"] == line["id"]
            )
            past = {field: value for field, value in label.items() if field not in ("id", "label", "status", "cluster")}
            past |= {"number": line["batch"], "salt": salt_digest(ports.loop.privacy.salt)}
            rows.append({"text": line["text"], "label": line["label"], "winnow": past})
    return to_jsonl(rows)


def test_what_was_exported_makes_the_same_versions_in_an_empty_stack():
    source = ready(loop=LOOP.replace("size: 12", "size: 20"))
    drop(source, seeds(TEXTS[150:170]))
    score_all(source)
    for label in ("cat", "dog"):
        version = collect_labels(labeled(source, label=lambda place, label=label: label), source).body["dataset"]
    target = world()

    _, body = drop(target, exported(source, version), key="export.jsonl")

    assert body["dataset"] == version
    assert target.data.json(layout.dataset(version)) == source.data.json(layout.dataset(version))
    assert {name: check.detail for name, check in check_invariants(target, ledger=None).items() if not check.ok} == {}
    again = drop(target, exported(target, version), key="again.jsonl")[1]
    assert (again["labeled"], again["quarantined"], again["dataset"]) == (0, 0, None)


def test_under_another_salt_the_labels_come_as_plain_imports():
    source = ready()
    version = collect_labels(labeled(source), source).body["dataset"]
    target = world(LOOP + "privacy: {salt: another}\n")

    oid, body = drop(target, exported(source, version))

    assert target.data.json(layout.dataset(body["dataset"]))["batches"] == [f"i{oid}"]
    assert {line["arm"] for line in part(target, body["dataset"], "train")} == {"imported"}
