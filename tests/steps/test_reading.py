"""Rows of dropped objects: every format gives the same rows, and what cannot be used is refused by row with its reason."""

from __future__ import annotations

import base64
import gzip
import json
from collections.abc import Sequence

import pytest

from tests import parquets
from winnow.errors import BadInput
from winnow.formats.parquet import ParquetFiles
from winnow.loop import parse
from winnow.steps.reading import Row, rows

TABLE = "task: {kind: table, classes: [cat, dog]}"
TEXT = "task: {kind: text, classes: [cat, dog]}"
IMAGE = "task: {kind: image, classes: [cat, dog]}"
PNG = b"\x89PNG\r\n\x1a\n..."


def read(body: bytes, *, key: str = "a.jsonl", loop: str = TEXT, said: list[str] | None = None) -> list[Row]:
    policy = parse(loop)
    facts = [] if said is None else said
    return list(rows(body, key=key, task=policy.task, limits=policy.limits, parquet=ParquetFiles(), say=facts.append))


def reasons(found: Sequence[Row]) -> list[str]:
    return [f"{row.problem.code}: {row.problem}" for row in found if row.problem is not None]


@pytest.mark.parametrize(
    ("line", "code", "reason"),
    [
        (b'{"text": "a", "text": "b"}', "malformed-row", "'text' stands in one object twice"),
        (b'{"text": "a", "x": {"y": 1, "y": 1}}', "malformed-row", "'y' stands in one object twice"),
        (b'{"text": "\\ud800"}', "encoding", "half of a surrogate pair"),
        (b'{"text": "a", "id": "\\uDFFF"}', "encoding", "half of a surrogate pair"),
        (b'{"\x00t\x00e\x00x\x00t\x00', "encoding", "NUL bytes"),
        (b"[" * 100_000, "malformed-row", "recursion"),
    ],
)
def test_what_nothing_could_hold_is_refused_and_its_neighbours_are_not(line: bytes, code: str, reason: str) -> None:
    first, refused, last = read(b'{"text": "one"}\n' + line + b'\n{"text": "three"}\n')

    assert (first.text, last.text) == ("one", "three")
    assert refused.problem is not None
    assert refused.problem.code == code
    assert str(refused.problem).startswith("row 2 ")
    assert reason in str(refused.problem)


def test_a_whole_surrogate_pair_is_one_character() -> None:
    (row,) = read(b'{"text": "\\ud83d\\ude00"}')

    assert row.text == "\N{GRINNING FACE}"


def test_utf_16_without_a_mark_is_no_text() -> None:
    found = read("one\ntwo".encode("utf-16-le"), key="a.txt")

    assert [row.problem and row.problem.code for row in found] == ["encoding", "encoding"]


@pytest.mark.parametrize(
    ("key", "body"),
    [
        ("a.csv", b"text,id\nhello,7\nbye,8\n"),
        ("a.csv.gz", gzip.compress(b"text,id\nhello,7\nbye,8\n", mtime=0)),
        ("a.jsonl", b'{"text": "hello", "id": 7}\n{"text": "bye", "id": "8"}\n'),
        ("a", parquets.file({"id": [7, 8], "text": ["hello", "bye"], "other": parquets.listed()})),
    ],
)
def test_texts_stand_under_text_in_every_format(key: str, body: bytes) -> None:
    found = read(body, key=key)

    assert [(row.text, row.fields) for row in found] == [
        ("hello", {"external_id": "7"}), ("bye", {"external_id": "8"})
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("key", "body"),
    [
        ("a.csv", b"image,label\n" + base64.b64encode(PNG) + b",cat\n"),
        ("a.jsonl", json.dumps({"image": base64.b64encode(PNG).decode(), "label": "cat"}).encode()),
        ("a.parquet", parquets.file({"image": parquets.pictures([PNG], ["x.png"]), "label": ["cat"]})),
        ("a.parquet", parquets.file({"image": [PNG], "label": ["cat"]})),
        ("a.parquet", parquets.file({"image": [base64.b64encode(PNG).decode()], "label": ["cat"]})),
    ],
)
def test_images_stand_under_image_in_every_format(key: str, body: bytes) -> None:
    (row,) = read(body, key=key, loop=IMAGE)

    assert (row.image, row.fields) == (PNG, {"label": "cat"})


def test_a_csv_row_is_told_by_types_only_where_it_can_be() -> None:
    found = read(b"n,code,flag,when\n-1.5,007,TRUE,2026-01-02\nNaN,1e3,x,\n", key="a.csv", loop=TABLE)

    assert [row.row for row in found] == [
        {"n": -1.5, "code": "007", "flag": "true", "when": "2026-01-02"},
        {"n": None, "code": 1000.0, "flag": "x", "when": None},
    ]


def test_json_rows_keep_their_types() -> None:
    found = read(b'{"n": "39", "m": 39, "id": 1}\n{"row": {"n": true}, "m": 5}\n', loop=TABLE)

    assert [row.row for row in found] == [{"n": "39", "m": 39.0}, {"n": "true"}]
    assert found[0].fields == {"external_id": "1"}


def test_declared_numbers_are_read_out_of_texts() -> None:
    loop = "task: {kind: table, classes: [cat, dog], columns: {n: number, c: category}}"

    (row,) = read(b'{"n": "039", "c": "039", "d": 1}\n', loop=loop)

    assert row.row == {"n": 39.0, "c": "039"}


def test_parquet_rows_keep_their_types() -> None:
    kind = parquets.DataType.timestamp("ms", tz="UTC")
    file = parquets.file(
        {
            "i": [1, None, 10**17], "f": [0.5, float("nan"), 2.0], "b": [True, None, False], "s": ["39", " x ", "NA"],
            "t": parquets.array([0, None, 1500], kind), "__index_level_0__": [0, 1, 2],
        }
    )  # fmt: skip

    found = read(file, key="a.parquet", loop=TABLE)

    assert [row.row for row in found] == [
        {"i": 1.0, "f": 0.5, "b": "true", "s": "39", "t": "1970-01-01T00:00:00+00:00"},
        {"i": None, "f": None, "b": None, "s": "x", "t": None},
        {"i": str(10**17), "f": 2.0, "b": "false", "s": None, "t": "1970-01-01T00:00:01.500000+00:00"},
    ]


def test_class_names_of_hugging_face_datasets_are_read() -> None:
    features = {"label": {"names": ["dog", "cat"], "_type": "ClassLabel"}}
    batch = parquets.RecordBatch.from_pydict({"text": parquets.array(["a", "b"]), "label": parquets.array([1, 0])})
    schema = batch.schema.with_metadata({"huggingface": json.dumps({"info": {"features": features}})})

    found = read(parquets.write(batch.with_schema(schema)), key="a.parquet")

    assert [row.fields["label"] for row in found] == ["cat", "dog"]


@pytest.mark.parametrize(
    ("given", "known"),
    [
        ('"1"', "1"),
        ("1", "1"),
        ("1.0", "1"),
        ('" 1 "', "1"),
        ('"1.0"', "1"),
        ("true", "true"),
        ('"NA"', None),
        ("null", None),
    ],
)
def test_labels_name_classes_however_they_are_spelled(given: str, known: str | None) -> None:
    (row,) = read(b'{"text": "a", "label": %s}' % given.encode(), loop='task: {classes: ["0", "1", "true"]}')

    assert row.fields.get("label") == known


def test_a_class_may_be_named_like_a_missing_value() -> None:
    found = read(b"text,label\na,none\nb,\n", key="a.csv", loop="task: {classes: [none, some]}")

    assert [row.fields.get("label") for row in found] == ["none", None]


@pytest.mark.parametrize(
    ("key", "body", "loop", "reason"),
    [
        (
            "a.csv",
            b"a,b\n1,2\n",
            TEXT,
            "wrong-kind: a.csv has no column 'text' (its columns: a, b) and task.kind is text;",
        ),
        ("a.txt", b"one\n", TABLE, "wrong-kind: a.txt is text but task.kind is table; drop it into a stack for text"),
        ("a.csv", PNG, TABLE, "wrong-kind: a.csv is an image but task.kind is table; drop it into a stack for images"),
        ("a.xlsx", b"PK\x03\x04...", TABLE, "unknown-format: a.xlsx is a zip archive (or an Excel workbook): save its"),
        ("a.feather", b"ARROW1..", TABLE, "unknown-format: a.feather is an Arrow file: write it as Parquet"),
        ("a.parquet", b"a,b\n1,2\n", TABLE, "truncated: a.parquet does not begin as Parquet does; it is damaged"),
        ("a.csv", b"1,2\n3,4\n", TABLE, "bad-header: a.csv begins with numbers (1, 2) where the names of its columns"),
    ],
)
def test_what_is_no_pool_object_here_is_refused_with_the_remedy(key: str, body: bytes, loop: str, reason: str) -> None:
    with pytest.raises(BadInput) as refused:
        read(body, key=key, loop=loop)

    assert f"{refused.value.code}: {refused.value}".startswith(reason)


def test_years_may_name_columns_beside_others() -> None:
    (row,) = read(b"country,2019,2020\nse,1,2\n", key="a.csv", loop=TABLE)

    assert row.row == {"country": "se", "2019": 1.0, "2020": 2.0}


def test_an_object_has_at_most_so_many_rows() -> None:
    found = read(b"one\ntwo\nthree\nfour\n", key="a.txt", loop="limits: {max_rows: 2}")

    assert [row.text for row in found] == ["one", "two", None]
    assert reasons(found) == [
        "oversized: row 3 and all that follow: an object has at most limits.max_rows (2) rows; split it"
    ]


def test_an_object_has_at_most_so_many_cells(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("winnow.steps.reading.MOST_CELLS", 5)

    found = read(b"a,b\n1,2\n3,4\n5,6\n", key="a.csv", loop=TABLE)

    assert [row.row for row in found] == [{"a": 1.0, "b": 2.0}, {"a": 3.0, "b": 4.0}, None]
    assert reasons(found) == ["oversized: row 4 and all that follow: an object has at most 5 cells; split it"]


def test_columns_that_are_not_there_are_said() -> None:
    said: list[str] = []

    read(b"a\n1\n", key="a.csv", loop="task: {kind: table, columns: {a: number, b: number}}", said=said)

    assert said == ["columns b of task.columns are not there and count as missing"]


def test_fields_beside_a_csv_row_have_their_types() -> None:
    line = b'1;s 1;"{""lang"": ""en""}";2,5;2026-01-02T03:04:05;5\n'

    (row,) = read(b"id;subject;slices;cost;captured_at;a\n" + line, key="a.csv", loop=TABLE)

    assert row.fields == {
        "external_id": "1", "subject": "s 1", "slices": {"lang": "en"}, "cost": 2.5, "captured_at": "2026-01-02T03:04:05"
    }  # fmt: skip
