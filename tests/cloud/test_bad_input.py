"""Hostile objects: each row that cannot be used is refused by name, while all that is good goes on."""

from __future__ import annotations

import gzip
import struct
import zlib
from collections.abc import Iterator

import pytest

from tests import parquets
from tests.cloud.stack import LOOP, Stack, deployed, jsonl, sentences
from winnow import layout
from winnow.steps.accounting import account

pytestmark = pytest.mark.cloud


def png_header(width: int, height: int) -> bytes:
    """A PNG that promises so many pixels and holds none."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


GOOD = iter(sentences(200, seed=7))
"""Every good row is another text."""


def good(count: int = 1) -> bytes:
    return jsonl(next(GOOD) for _ in range(count))


HOSTILE: dict[str, tuple[bytes, int, list[str]]] = {
    # key → bytes, good rows, how the reasons begin
    "empty.jsonl": (b"", 0, ["empty: empty.jsonl is empty"]),
    "blank.jsonl": (b"\n \n\n", 0, ["empty: blank.jsonl holds no rows"]),
    "folder/": (b"", 0, ["empty: folder/ is empty"]),
    "bomb.jsonl.gz": (
        gzip.compress(good(2) + b"0" * 20_000_000, mtime=0), 2,
        ["oversized: row 3 has more than 2000000 bytes", "oversized: the gzip stream expands beyond 8000000 bytes"],
    ),
    "noise.jsonl.gz": (b"\x1f\x8b" + bytes(range(64)), 0, ["truncated: the gzip stream is damaged"]),
    "vast.jsonl": (good() + b" " * 1_100_000, 0, ["oversized: vast.jsonl has"]),
    "table.xls": (b"text\n" + good(), 0, ["unknown-format: table.xls"]),
    "columns.csv": (b"a,b\n1,2\n", 0, ["wrong-kind: columns.csv has no column 'text' (its columns: a, b)"]),
    "texts.csv": (
        ("id;text\n1;" + next(GOOD) + "\n2;a;b\n3;\n4;" + next(GOOD) + "\n").encode("utf-16"), 2,
        ["ragged: row 3 has 3 cells, the header 2", "empty: row 4: the text is empty"],
    ),
    "texts.parquet": (parquets.file({"text": [next(GOOD), None, next(GOOD)]}), 2, ["missing-payload: row 2 needs a string"]),
    "cut.parquet": (parquets.file({"text": ["never read"]})[:-4], 0, ["truncated: cut.parquet does not end as Parquet does"]),
    "picture.jsonl": (png_header(4, 4), 0, ["wrong-kind: picture.jsonl is an image"]),
    "bomb.png": (png_header(100_000, 100_000), 0, ["wrong-kind: bomb.png is an image"]),
    "notes.png": (b"no picture at all", 0, ["unknown-format: notes.png"]),
    "utf16.txt": ("one\ntwo".encode("utf-16"), 0, ["encoding: row 1 is not UTF-8", "encoding: row 2 is not UTF-8"]),
    "latin.jsonl": (good() + '{"text": "café"}\n'.encode("latin-1") + good(), 2, ["encoding: row 2 is not UTF-8"]),
    "nan.jsonl": (
        b'{"text": NaN}\n' + good() + b'{"text": "a", "cost": NaN}\n{"text": "b", "cost": Infinity}\n', 1,
        ["wrong-type: row 1", "wrong-type: row 3: 'cost'", "wrong-type: row 4: 'cost'"],
    ),
    "deep.jsonl": (
        b"[" * 100_000 + b"\n" + good() + b'{"text": "x", "y": ' + b'{"z": ' * 100_000 + b"\n" + good(), 2,
        ["malformed-row: row 1 is not JSON", "malformed-row: row 3 is not JSON"],
    ),
    "prose.jsonl": (b"Dear sir or madam,\n" + good() + b"[1, 2]\nnull\n", 1, [
        "malformed-row: row 1", "wrong-type: row 3 is not a JSON object", "wrong-type: row 4 is not a JSON object",
    ]),
    "long.jsonl": (jsonl(["word " * 5_000]) + good(), 1, ["oversized: row 1: the text has 24999 characters"]),
    "twice.jsonl": (b'{"text": "one", "text": "two"}\n' + good(), 1, ["malformed-row: row 1"]),
    "half.jsonl": (b'{"text": "\\ud83d"}\n' + good() + b'{"text": "a", "id": "\\udc00"}\n', 1, [
        "encoding: row 1 holds half of a surrogate pair", "encoding: row 3 holds half of a surrogate pair",
    ]),
    "fields.jsonl": (
        b'{"text": "a", "id": [1]}\n{"text": "b", "captured_at": "soon"}\n{"text": "c", "slices": {"d": 1}}\n'
        b'{"txt": "d"}\n{"text": "  "}\n' + good(), 1,
        ["wrong-type: row 1: 'id'", "wrong-type: row 2: 'captured_at'", "wrong-type: row 3: 'slices'",
         "missing-payload: row 4", "empty: row 5"],
    ),
    "a b/ü%41+c&d=e ☃.jsonl": (good(3), 3, []),
    "%2e%2e/..//./.jsonl": (good(2), 2, []),
}  # fmt: skip


def cut_gzip() -> tuple[bytes, int]:
    """A gzip stream that ends early, and how many whole rows can still be read from it."""
    packed = gzip.compress(jsonl(sentences(400, seed=8)), mtime=0)
    half = packed[: len(packed) // 2]
    return half, zlib.decompressobj(wbits=31).decompress(half).count(b"\n")


@pytest.fixture(scope="module")
def stack() -> Iterator[Stack]:
    """A stack that was given all of it at once."""
    loop = {**LOOP, "limits": {"max_object_mb": 1}}
    with deployed(loop=loop, parameters={"SelectSchedule": "rate(30 days)"}) as running:
        for key, (body, _, _) in HOSTILE.items():
            running.drop(key, body)
        running.drop("cut.jsonl.gz", cut_gzip()[0])
        running.cloud.advance(hours=1)
        yield running


@pytest.mark.parametrize("key", HOSTILE)
def test_each_ends_in_quarantine_by_name_and_good_rows_go_on(stack: Stack, key: str) -> None:
    _, rows, reasons = HOSTILE[key]

    refused = [row for row in stack.lines("quarantine/") if row["key"] == key]

    assert [row["reason"][: len(reason)] for row, reason in zip(refused, reasons, strict=True)] == reasons
    assert len(stack.lines(f"{layout.RECORDS}{stack.oid(key)}/")) == rows


def test_what_can_be_read_of_a_cut_gzip_goes_on(stack: Stack) -> None:
    refused = [row["reason"] for row in stack.lines("quarantine/") if row["key"] == "cut.jsonl.gz"]
    whole = cut_gzip()[1]

    assert whole > 10
    assert refused[-1] == "truncated: the gzip stream ends early; upload it again"
    assert all(reason.startswith(("malformed-row", "truncated")) for reason in refused)
    records = {record["text"] for record in stack.lines(layout.RECORDS)}
    assert set(sentences(400, seed=8)[:whole]) <= records


def test_the_ledger_of_hostile_objects_balances(stack: Stack) -> None:
    ledger = account(stack.ports())
    good_rows = sum(rows for _, rows, _ in HOSTILE.values()) + cut_gzip()[1]
    refused = len(stack.lines("quarantine/"))

    assert ledger.to_json() == {
        "in": good_rows + refused, "scored": good_rows, "duplicate": 0, "superseded": 0, "quarantined": refused,
        "waiting": 0, "dead_lettered": 0,
    }  # fmt: skip
    assert ledger.lost == 0
    assert stack.errors() == []
    assert stack.dead_letters() == {}
