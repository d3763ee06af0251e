"""Hop 1: nothing is lost, nothing is counted twice, the newest version wins whatever the order of events."""

from __future__ import annotations

import gzip
import io
import itertools
from dataclasses import replace

import pytest
from PIL import Image

from tests import parquets
from tests.fakes import every_fault
from tests.steps.walk import ingest, jsonl, occurrences_of, records_of, world
from winnow import layout
from winnow.digests import digest
from winnow.records import Record, from_jsonl

IMAGES = "task: {kind: image, classes: [cat, dog]}"


def png(colour: int, *, size: tuple[int, int] = (12, 10), mode: str = "L") -> bytes:
    out = io.BytesIO()
    Image.new(mode, size, colour).save(out, "PNG")
    return out.getvalue()


def test_rows_become_masked_records_with_roles():
    ports = world()

    body = ingest(ports, ports.pool.drop("a.jsonl", jsonl("write to ada@example.org", "walk the dog")))

    records = records_of(ports, body["oid"])
    assert [record["text"] for record in records] == ["write to [EMAIL]", "walk the dog"]
    assert {record["role"] for record in records} <= {"train", "evaluation", "reward"}
    assert all(0.0 <= record["key"] < 1.0 for record in records)
    assert body == {"oid": body["oid"], "accepted": 2, "duplicates": 0, "quarantined": 0}


def test_fields_beside_the_payload_are_kept_and_others_are_not():
    ports = world()
    line = b'{"text":"hi there","id":7,"subject":"s1","slices":{"lang":"en"},"cost":2,"label":"dog","other":1}\n'

    body = ingest(ports, ports.pool.drop("a.jsonl", line))

    (record,) = records_of(ports, body["oid"])
    assert record["external_id"] == "7"
    assert record["subject"] == "s1"
    assert record["slices"] == {"lang": "en"}
    assert record["cost"] == 2.0
    assert record["label"] == "dog"
    assert "other" not in record


def test_a_label_that_is_no_class_is_named_and_its_row_refused():
    ports = world()

    body = ingest(ports, ports.pool.drop("a.jsonl", b'{"text":"a","label":"cow"}\n{"text":"b","label":null}\n'))

    (record,) = records_of(ports, body["oid"])
    assert "label" not in record
    assert occurrences_of(ports, body["oid"])[0]["reason"] == (
        "unknown-class: row 1: label 'cow' is none of task.classes (cat, dog)"
    )


TABLE = "task: {kind: table, classes: [cat, dog]}"


def test_rows_of_a_table_become_masked_records():
    ports = world(TABLE)
    file = b"id,age,city,contact,note,label\n7,39, Ulm ,call +1 541 714 1388,NA,dog\n"

    body = ingest(ports, ports.pool.drop("people.csv", file))

    (record,) = records_of(ports, body["oid"])
    row = {"age": 39.0, "city": "Ulm", "contact": "call [PHONE]", "note": None}
    assert (record["kind"], record["row"], record["label"]) == ("table", row, "dog")
    assert record["external_id"] == "7"
    assert record["id"] == digest({"row": row})
    assert Record.from_json(record).payload() == {"row": row}


def test_a_row_is_one_content_in_every_format_and_order_of_columns():
    ports = world(TABLE)
    first = ingest(ports, ports.pool.drop("a.csv", b"age,city,smokes\n39,Ulm,True\n"))

    others = [
        ingest(ports, ports.pool.drop("b.tsv", b"city\tage\tsmokes\nUlm\t39.0\ttrue\n")),
        ingest(ports, ports.pool.drop("c.jsonl", b'{"row": {"smokes": true, "age": 39, "city": "Ulm"}, "id": 3}\n')),
        ingest(ports, ports.pool.drop("d.parquet", parquets.file({"smokes": [True], "age": [39], "city": ["Ulm "]}))),
    ]

    assert first["accepted"] == 1
    assert [(other["accepted"], other["duplicates"]) for other in others] == [(0, 1)] * 3


def test_columns_that_the_task_does_not_name_stay_out():
    ports = world("task: {kind: table, classes: [cat, dog], columns: {age: number, city: category}}")

    body = ingest(ports, ports.pool.drop("a.csv", b"age,name,city\n007,Ada,12\n"))

    (record,) = records_of(ports, body["oid"])
    assert record["row"] == {"age": 7.0, "city": 12.0}


def test_a_regression_label_is_a_number():
    ports = world("task: {kind: table, type: regression}")

    body = ingest(ports, ports.pool.drop("a.csv", b"rooms;label\n3;1.250,5\n4;\n5;dear\n"))

    labels = [record.get("label") for record in records_of(ports, body["oid"])]
    assert labels == [1250.5, None]
    assert [row["reason"] for row in occurrences_of(ports, body["oid"]) if "reason" in row] == [
        "bad-label: row 4: label 'dear' is not a finite number"
    ]


def test_what_was_decided_about_a_file_is_said():
    ports = world(TABLE)

    body = ingest(ports, ports.pool.drop("a.csv", "größe;preis\n1;2,5\n".encode("cp1252")))

    assert body["notes"] == [
        "it is not UTF-8 and was read as Windows-1252",
        "numbers are written with a decimal comma",
    ]
    (record,) = records_of(ports, body["oid"])
    assert record["row"] == {"größe": 1.0, "preis": 2.5}


def test_an_object_becomes_parts_that_are_small(monkeypatch):
    monkeypatch.setattr("winnow.steps.ingest_object.RECORDS_PER_PART", 2)
    ports = world()

    body = ingest(ports, ports.pool.drop("a.jsonl", jsonl("one", "two", "one", "three", "two") + b"{bad\n"))

    parts = [key for key in ports.data.objects if key.startswith(f"records/{body['oid']}/")]
    assert [len(from_jsonl(gzip.decompress(ports.data.objects[key]))) for key in sorted(parts)] == [2, 1]
    assert (body["accepted"], body["duplicates"], body["quarantined"]) == (3, 2, 1)
    assert [(row["row"], row["status"]) for row in occurrences_of(ports, body["oid"])] == [
        (1, "accepted"), (2, "accepted"), (3, "duplicate"), (4, "accepted"), (5, "duplicate"), (6, "quarantined")
    ]  # fmt: skip


def test_large_rows_make_more_parts(monkeypatch):
    monkeypatch.setattr("winnow.steps.ingest_object.PART_BYTES", 100)
    ports = world()

    body = ingest(ports, ports.pool.drop("a.jsonl", jsonl("x" * 60, "y" * 60, "z" * 60)))

    parts = [key for key in ports.data.objects if key.startswith(f"records/{body['oid']}/")]
    assert [len(from_jsonl(gzip.decompress(ports.data.objects[key]))) for key in sorted(parts)] == [2, 1]


@pytest.mark.parametrize(
    ("key", "data", "code"),
    [
        ("empty.jsonl", b"", "empty"),
        ("blank.jsonl", b"\n\n", "empty"),
        ("table.xls", b"abc", "unknown-format"),
        ("a.png", png(3), "wrong-kind"),
        ("a.jsonl", b"{not json}\n", "malformed-row"),
        ("a.jsonl", b"[1]\n", "wrong-type"),
        ("a.jsonl", b'{"body":"x"}\n', "missing-payload"),
        ("a.jsonl", b'{"text":5}\n', "wrong-type"),
        ("a.jsonl", b'{"text":"  "}\n', "empty"),
        ("a.jsonl", b'{"text":"x","cost":-1}\n', "wrong-type"),
        ("a.jsonl", b'{"text":"x","captured_at":"yesterday"}\n', "wrong-type"),
        ("a.jsonl", '{"text":"é"}'.encode("latin-1"), "encoding"),
        ("a.jsonl", "{}".encode("utf-16"), "encoding"),
        ("a.jsonl", jsonl("x" * 20_001), "oversized"),
        ("a.jsonl.gz", gzip.compress(jsonl("x"), mtime=0)[:-9], "truncated"),
    ],
)
def test_bad_input_goes_to_quarantine_with_a_reason(key, data, code):
    ports = world()

    body = ingest(ports, ports.pool.drop(key, data))

    statuses = [
        (one["status"], one["reason"].split(":")[0]) for one in occurrences_of(ports, body["oid"]) if "reason" in one
    ]
    assert statuses == [("quarantined", code)]
    assert layout.quarantine(body["oid"]) in ports.data.objects


def test_good_rows_of_a_bad_object_go_on():
    ports = world()
    whole = gzip.compress(b"".join(jsonl(f"{word} text") for word in ("first", "second", "third")) * 3000, mtime=0)

    body = ingest(ports, ports.pool.drop("cut.jsonl.gz", whole[: len(whole) // 2]))

    assert body["accepted"] == 3
    assert body["quarantined"] >= 1
    rows = occurrences_of(ports, body["oid"])
    assert len(rows) == body["accepted"] + body["duplicates"] + body["quarantined"]


def test_an_oversized_object_is_named():
    ports = world("limits: {max_object_mb: 1}")

    body = ingest(ports, ports.pool.drop("big.txt", b"x" * 1_000_001))

    (one,) = occurrences_of(ports, body["oid"])
    assert one["reason"].startswith("oversized")


@pytest.mark.parametrize("mode", ["L", "RGB", "RGBA", "P", "1", "I;16", "LA"])
def test_images_of_every_mode_become_grey_or_colour(mode):
    ports = world(IMAGES)

    body = ingest(ports, ports.pool.drop("a.png", png(1, mode=mode)))

    (record,) = records_of(ports, body["oid"])
    with Image.open(io.BytesIO(ports.data.objects[record["image"]["ref"]])) as canonical:
        assert canonical.mode in {"L", "RGB"}
        assert canonical.size == (12, 10)


def test_damaged_and_huge_images_are_refused():
    ports = world(IMAGES + "\nlimits: {max_image_megapixels: 1}")

    cut = ingest(ports, ports.pool.drop("cut.png", png(3, size=(200, 200))[:-40]))
    huge = ingest(ports, ports.pool.drop("huge.png", png(3, size=(1200, 1200))))

    assert occurrences_of(ports, cut["oid"])[0]["reason"].startswith("truncated")
    assert occurrences_of(ports, huge["oid"])[0]["reason"].startswith("oversized")


def test_the_same_picture_in_another_file_is_a_duplicate():
    ports = world(IMAGES)
    first = ingest(ports, ports.pool.drop("a.png", png(9)))

    second = ingest(ports, ports.pool.drop("b.png", png(9)))

    assert (first["accepted"], second["duplicates"]) == (1, 1)


def test_content_is_accepted_once_across_rows_and_objects():
    ports = world()

    first = ingest(ports, ports.pool.drop("a.jsonl", jsonl("one", "two", "one")))
    second = ingest(ports, ports.pool.drop("b.jsonl", jsonl("two", "three")))

    assert (first["accepted"], first["duplicates"]) == (2, 1)
    assert (second["accepted"], second["duplicates"]) == (1, 1)


@pytest.mark.parametrize("order", list(itertools.permutations([0, 1, 0, 1, 0])))
def test_the_newest_version_wins_in_every_order_of_events(order):
    ports = world()
    versions = [ports.pool.drop("a.jsonl", jsonl("old", "kept")), ports.pool.drop("a.jsonl", jsonl("kept", "new"))]

    for number in order:
        ingest(ports, versions[number])

    superseded = {item["sk"] for item in ports.table.query("SUPERSEDED")}
    live = [
        record["text"]
        for version in versions
        if (oid := layout.object_id(version)) not in superseded
        for record in records_of(ports, oid)
    ]
    assert sorted(live) == ["kept", "new"]


def test_a_superseded_content_lives_on_where_it_also_occurs():
    ports = world()
    old = ports.pool.drop("a.jsonl", jsonl("shared", "gone"))
    other = ports.pool.drop("b.jsonl", jsonl("shared"))
    ingest(ports, old)
    ingest(ports, other)

    ingest(ports, ports.pool.drop("a.jsonl", jsonl("fresh")))

    assert [record["text"] for record in records_of(ports, layout.object_id(other))] == ["shared"]


def test_an_object_found_without_its_event_is_the_newest_when_the_bucket_says_so():
    ports = world()
    ingest(ports, ports.pool.drop("a.jsonl", jsonl("old")))
    lost = ports.pool.drop("a.jsonl", jsonl("new"))

    body = ingest(ports, replace(lost, sequencer=""))

    assert body["accepted"] == 1
    later = ingest(ports, ports.pool.drop("a.jsonl", jsonl("newest")))
    assert later["accepted"] == 1


@pytest.mark.parametrize("known", [False, True])
def test_a_late_event_does_not_undo_an_object_found_without_its_own(known):
    ports = world()
    if known:
        ingest(ports, ports.pool.drop("a.jsonl", jsonl("first")))
    late = ports.pool.drop("a.jsonl", jsonl("late"))
    lost = ports.pool.drop("a.jsonl", jsonl("newest"))
    ingest(ports, replace(lost, sequencer=""))

    assert ingest(ports, late)["superseded"] == 1

    superseded = {item["sk"] for item in ports.table.query("SUPERSEDED")}
    assert layout.object_id(lost) not in superseded
    assert [record["text"] for record in records_of(ports, layout.object_id(lost))] == ["newest"]
    assert ingest(ports, ports.pool.drop("a.jsonl", jsonl("after all")))["accepted"] == 1


def test_every_fault_ends_in_the_same_world(monkeypatch):
    def build():
        ports = world()
        ingest(ports, ports.pool.drop("b.jsonl", jsonl("two")))
        ports.pool.drop("a.jsonl", jsonl("one", "two", "three") + b"{bad\n")
        return ports

    monkeypatch.setattr("winnow.steps.ingest_object.RECORDS_PER_PART", 2)

    def act(ports):
        ingest(ports, replace(ports.pool.newest["a.jsonl"]))

    expected = build()
    act(expected)
    for what, ports in every_fault(build, act):
        assert ports.data.objects == expected.data.objects, what
        assert ports.table.items == expected.table.items, what
