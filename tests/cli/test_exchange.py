"""Out of one stack and into an empty one, in every form: the same contents, labels, roles and versions."""

from __future__ import annotations

import base64
import csv
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.steps.table_walk import CLASSES as TABLE
from tests.steps.table_walk import NUMBERS, dear, flat, price
from tests.steps.test_collect_labels import labeled, part
from tests.steps.test_import_labels import drop, records_of_all, seeds
from tests.steps.test_selection_walk import ready
from tests.steps.walk import LOOP, world
from winnow import layout
from winnow.steps.collect_labels import collect_labels
from winnow_cli import seeds as sources
from winnow_cli.export import export
from winnow_cli.importing_labels import _look, _objects
from winnow_cli.seeds import Names, Source

IMAGES = LOOP.replace("kind: text", "kind: image")
SUFFIX = {"jsonl": "x.jsonl", "csv": "x.csv", "parquet": "x.parquet", "label-studio": "x.json", "hf": "x"}


def picture(seed: int) -> str:
    out = io.BytesIO()
    Image.fromarray(np.random.default_rng(seed).integers(0, 255, (12, 9), dtype=np.uint8)).save(out, "PNG")
    return base64.b64encode(out.getvalue()).decode()


def rows(kind: str) -> tuple[str, bytes]:
    """A loop, and labeled rows for it."""
    if kind == "text":
        texts = [
            f'She said: "{word}, twice;\nor = {word}"\tand +{number}'
            for number, word in enumerate("abcdefghijklmnopqrst")
        ]
        return LOOP, seeds(texts, slices={"lang": "en"}, subject="s1", cost=2, captured_at="2026-01-02")
    if kind == "image":
        found = [
            {"image": picture(seed), "label": "dog" if seed % 2 else "cat", "id": f"p{seed}"} for seed in range(20)
        ]
        return IMAGES, b"".join(json.dumps(row).encode() + b"\n" for row in found)
    told = {"table": (TABLE, dear), "regression": (NUMBERS, price)}
    loop, truth = told[kind]
    found = [{**flat(n), "label": truth(flat(n)), "id": n} for n in range(40)]
    return loop, b"".join(json.dumps(row).encode() + b"\n" for row in found)


def imported(ports: Any, path: Path, **names: Any) -> dict[str, Any]:
    """What `winnow import labels` uploads, dropped and collected."""
    look = _look(Source(ports.loop, Names(**names)).seeds(path), ports.loop)
    assert look.problems == []
    ((key, body),) = _objects(look.seeds, ports.loop, {"by": "ada", "at": "2026-01-05T09:00:00+00:00"}, name=path.name)
    return drop(ports, body, key=key)[1]


@pytest.mark.parametrize("kind", ["text", "image", "table", "regression"])
@pytest.mark.parametrize("form", ["jsonl", "csv", "parquet", "hf", "label-studio"])
def test_labels_make_the_same_version_again(kind: str, form: str, tmp_path: Path) -> None:
    loop, body = rows(kind)
    source, target = world(loop), world(loop)
    version = drop(source, body)[1]["dataset"]

    told = export("labels", source, tmp_path / SUFFIX[form], form=form)
    again = imported(target, tmp_path / SUFFIX[form])

    assert sum(told["rows"].values()) == again["labeled"] > 10
    assert again["dataset"] == version
    assert target.data.json(layout.dataset(version)) == source.data.json(layout.dataset(version))
    kept = ("external_id", "slices", "subject", "cost", "captured_at")
    found = [{r["id"]: [r.get(name) for name in kept] for r in records_of_all(p)} for p in (source, target)]
    assert found[1].items() <= found[0].items()


@pytest.mark.parametrize("form", ["jsonl", "csv", "parquet", "hf", "label-studio"])
def test_datasets_of_several_batches_come_back_whole(form: str, tmp_path: Path) -> None:
    source = ready(loop=LOOP.replace("size: 12", "size: 20"))
    for label in ("cat", "dog"):
        version = collect_labels(labeled(source, label=lambda place, label=label: label), source).body["dataset"]
    target = world()

    told = export("datasets", source, tmp_path / "out", form=form)
    again = imported(target, tmp_path / "out")

    assert set(told["rows"]) == {"train", "evaluation"}
    assert again["dataset"] == version
    for role in ("train", "evaluation"):
        assert part(target, version, role) == part(source, version, role)
    label = json.loads(
        target.data.objects[layout.labels(source.data.json(layout.dataset(version))["batches"][0])].splitlines()[0]
    )
    assert label["answers"][0]["worker"] == "w1"
    assert label["source"]["by"] == "ada"


def test_the_pool_has_roles_and_the_champions_view(tmp_path: Path) -> None:
    ports = ready(30)

    export("pool", ports, tmp_path / "pool.jsonl", form="jsonl")

    found = [json.loads(line) for line in (tmp_path / "pool.jsonl").read_text().splitlines()]
    records = {record["id"]: record for record in records_of_all(ports)}
    assert {row["winnow"]["id"] for row in found} == set(records)
    assert all(row["winnow"]["role"] == records[row["winnow"]["id"]]["role"] for row in found)
    assert set(found[0]["winnow"]["scores"]) >= {"entropy", "margin"}
    assert "prediction" not in found[0]["winnow"]  # the bootstrap model knows nothing


def test_a_spreadsheet_calculates_nothing_when_asked(tmp_path: Path) -> None:
    ports = world()
    texts = [f"{sign}1+1 is {word}" for sign in "=+-@" for word in ("two", "three", "four", "five")]
    drop(ports, seeds([*texts, "plain = plain"]))

    for name, safe in (("safe.csv", True), ("exact.csv", False)):
        export("labels", ports, tmp_path / name, form="csv", safe=safe)

    with (tmp_path / "safe.csv").open(newline="") as file:
        found = [row["text"] for row in csv.DictReader(file)]
    with (tmp_path / "exact.csv").open(newline="") as file:
        exact = [row["text"] for row in csv.DictReader(file)]
    assert len(exact) > 10
    assert found == [text if text == "plain = plain" else f"'{text}" for text in exact]


def test_texts_that_csv_would_take_for_numbers_are_counted(tmp_path: Path) -> None:
    ports = world(TABLE)
    found = [{"code": "39", "m2": n + 0.5, "label": "cheap"} for n in range(20)]
    drop(ports, b"".join(json.dumps(row).encode() + b"\n" for row in found))

    told = export("labels", ports, tmp_path / "a.csv", form="csv")

    assert told["look_like_numbers"] == told["rows"]["labels"]


def test_exports_hold_the_masked_form_only(tmp_path: Path) -> None:
    ports = world()
    drop(ports, seeds([f"mail ada{letter}@example.org about the {letter} thing" for letter in "abcdefgh"]))

    for form, name in SUFFIX.items():
        if form != "hf":
            export("pool", ports, tmp_path / name, form=form)
            assert b"example.org" not in (tmp_path / name).read_bytes()


def test_label_studios_own_export_is_read(tmp_path: Path) -> None:
    def task(number: int, answers: list[str], **more: Any) -> dict[str, Any]:
        results = [
            {"result": [{"type": "choices", "value": {"choices": [answer]}}], "completed_by": {"email": "a@b.c"},
             "created_at": "2025-12-01T10:00:00Z", "was_cancelled": False} for answer in answers
        ]  # fmt: skip
        return {"id": number, "data": {"body": f"text {'abcde'[number]}"}, "annotations": results, **more}

    found = [task(0, ["cat", "cat"]), task(1, ["dog"]), task(2, ["cat", "dog"]), task(3, []), task(4, ["cow"])]
    (tmp_path / "project.json").write_text(json.dumps(found))
    ports = world()

    look = _look(Source(ports.loop).seeds(tmp_path / "project.json"), ports.loop)

    assert [(seed.row.text, seed.row.fields["label"]) for seed in look.seeds] == [("text a", "cat"), ("text b", "dog")]
    assert look.seeds[0].body(by="ada")["winnow"]["by"] == "Label Studio: a@b.c"
    assert look.unlabeled == 1
    assert [one["reason"] for one in look.problems] == [
        "task 2: its annotations differ ('cat', 'dog'); settle it in Label Studio and export again",
        "task 4: label 'cow' is none of task.classes (cat, dog)",
    ]


def test_fields_of_other_names_are_named(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text('Review;Stars\n"good; really";dog\nbad;cat\n', encoding="cp1252")
    (tmp_path / "b.csv").write_text("text;body;label\na;b;dog\n")
    ports = world()

    found = list(Source(ports.loop, Names(label="Stars", text="Review")).seeds(tmp_path / "a.csv"))

    assert [(seed.row.text, seed.row.fields) for seed in found] == [
        ("good; really", {"label": "dog"}), ("bad", {"label": "cat"}),
    ]  # fmt: skip
    with pytest.raises(sources.UsageError, match="has a field 'text' beside 'body'"):
        list(Source(ports.loop, Names(text="body")).seeds(tmp_path / "b.csv"))


def test_images_in_folders_by_class_and_beside_a_list(tmp_path: Path) -> None:
    ports = world(IMAGES)
    for number, label in enumerate(("cat", "dog", "cow")):
        (tmp_path / "folders" / label).mkdir(parents=True)
        (tmp_path / "folders" / label / "1.png").write_bytes(base64.b64decode(picture(number)))
    (tmp_path / "folders" / "dog" / "2.png").write_bytes(b"no picture")
    (tmp_path / "list").mkdir()
    (tmp_path / "list" / "1.png").write_bytes(base64.b64decode(picture(9)))
    (tmp_path / "list" / "labels.csv").write_text("file,animal\n1.png,dog\n")

    folders = _look(Source(ports.loop).seeds(tmp_path / "folders"), ports.loop)
    listed = _look(Source(ports.loop, Names(label="animal")).seeds(tmp_path / "list"), ports.loop)

    assert [(seed.file, seed.row.fields["label"]) for seed in folders.seeds] == [
        ("cat/1.png", "cat"),
        ("dog/1.png", "dog"),
    ]
    assert [one["code"] for one in folders.problems] == ["unknown-class", "unknown-format"]
    assert [(seed.file, seed.row.fields["label"]) for seed in listed.seeds] == [("1.png", "dog")]


def test_large_sets_become_several_objects_under_one_digest() -> None:
    ports = world(LOOP + "limits: {max_rows: 4}\n")
    body = seeds([f"{letter} text" for letter in "abcdefghij"])
    found = [sources.Seed("old.jsonl", row) for row in Source(ports.loop)._rows(body, "old.jsonl")]

    first = list(_objects(found, ports.loop, {"by": "ada", "at": "2026-01-05"}, name="old.jsonl"))
    later = list(_objects(found, ports.loop, {"by": "bob", "at": "2027-01-05"}, name="old.jsonl"))

    assert [key for key, _ in first] == [key for key, _ in later]
    assert [key.rsplit("/", 1)[1] for key, _ in first] == [f"old.jsonl-00{n}.jsonl.gz" for n in range(3)]
