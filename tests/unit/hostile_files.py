"""Files made to hurt, and what has to become of each: so many rows read, and these reasons for the rest.

`python -m tests.unit.hostile_files FOLDER` ingests every file of the folder, as its case's kind, and prints a line of
JSON about each: the test runs that in a process of its own, whose memory is then that of ingest alone.
"""

from __future__ import annotations

import base64
import gzip
import io
import json
import os
import random
import struct
import sys
import threading
import time
import zlib
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from PIL import Image

from tests import parquets
from tests.fakes import make_ports
from winnow import layout
from winnow.records import from_jsonl
from winnow.steps.ingest_object import ingest_object

LOOPS = {
    "table": 'task: {kind: table, classes: ["no", "yes"]}',
    "regression": "task: {kind: table, type: regression, minimum: 0, columns: {a: number, b: category, c: number}}",
    "text": 'task: {kind: text, classes: ["no", "yes"]}',
    "image": 'task: {kind: image, classes: ["no", "yes"]}',
    "few": 'task: {kind: table, classes: ["no", "yes"]}\nlimits: {max_rows: 1000}',
}


@dataclass(frozen=True)
class Case:
    """A file: `key` names it, `data` (or what makes it) is in it, `good` rows are usable, `reasons` begin the others'.

    Where `good` is None nobody can say how many rows are usable, and `reasons` are among those given.
    """

    key: str
    data: bytes | Callable[[], bytes]
    good: int | None
    reasons: tuple[str, ...] = ()
    loop: str = "table"

    def bytes(self) -> bytes:
        return self.data if isinstance(self.data, bytes) else self.data()


@cache
def _zipped(line: bytes, times: int) -> bytes:
    """`line` so many times, without ever lying in memory unpacked."""
    packer = zlib.compressobj(1, wbits=31)
    block = line * max(1, 1_000_000 // len(line))
    count = len(block) // len(line)
    return b"".join(packer.compress(block) for _ in range(times // count)) + packer.flush()


def _png(size: tuple[int, int], mode: str = "L", **options: object) -> bytes:
    out = io.BytesIO()
    Image.new(mode, size, 1).save(out, "PNG", **options)
    return out.getvalue()


def _jpeg(mode: str = "RGB", size: tuple[int, int] = (64, 64), **options: object) -> bytes:
    out = io.BytesIO()
    Image.effect_noise(size, 50).convert(mode).save(out, "JPEG", **options)
    return out.getvalue()


def _other(format_: str) -> bytes:
    out = io.BytesIO()
    Image.new("L", (8, 8)).save(out, format_)
    return out.getvalue()


def _chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def _png_of(*chunks: tuple[bytes, bytes], width: int = 4, height: int = 4) -> bytes:
    """A PNG of 8-bit grey with these chunks behind its header."""
    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + b"".join(_chunk(*one) for one in ((b"IHDR", header), *chunks, (b"IEND", b"")))


def _pixels(width: int = 4, height: int = 4) -> tuple[bytes, bytes]:
    return b"IDAT", zlib.compress(bytes((width + 1) * height))


def _many_passes() -> bytes:
    """A progressive JPEG that draws its last, nearly empty pass ten thousand times."""
    whole = _jpeg(progressive=True)
    last = whole.rindex(b"\xff\xda")
    return whole[:last] + whole[last:-2] * 10_000 + b"\xff\xd9"


def _encoded(picture: bytes) -> bytes:
    return json.dumps({"image": base64.b64encode(picture).decode()}).encode() + b"\n"


def _wide_json(columns: int) -> bytes:
    return b"{" + b", ".join(b'"c%d": 1' % number for number in range(columns)) + b"}"


def _parquet() -> bytes:
    return parquets.file(
        {"a": list(range(500)), "b": [f"value {number % 7}" for number in range(500)], "c": [0.5] * 500},
        compression="snappy",
    )


def _bent(seed: int) -> bytes:
    """The good Parquet file with a few bytes of its data, or of its description, changed."""
    rng = random.Random(seed)
    whole = bytearray(_parquet())
    footer = len(whole) - 8 - int.from_bytes(whole[-8:-4], "little")
    low, high = (4, footer) if seed % 2 else (footer, len(whole) - 8)
    for _ in range(rng.randint(1, 6)):
        whole[rng.randrange(low, high)] = rng.randrange(256)
    return bytes(whole)


def _footer(length: int) -> bytes:
    whole = _parquet()
    return whole[:-8] + struct.pack("<i", length) + whole[-4:]


WIDE = ",".join(f"c{number}" for number in range(1_000_000)).encode()
LONG = b"x" * 3_000_000

CSV = (
    Case("empty.csv", b"", 0, ("empty: empty.csv is empty",)),
    Case("header.csv", b"a,b\n", 0, ("empty: header.csv holds no rows",)),
    Case("blank.csv", b"\n \n\r\n\n", 0, ("empty: blank.csv holds no rows",)),
    Case(
        "cut.csv.gz",
        gzip.compress(b"a,b\n1,2\n3,4\n5,6\n", mtime=0)[:-8],
        2,
        ("truncated: the gzip stream ends early",),
    ),
    Case("noise.csv.gz", b"\x1f\x8b" + bytes(range(200)), 0, ("truncated: the gzip stream is damaged",)),
    Case(
        "line bomb.csv.gz", lambda: _zipped(b"0", 600_000_000), 0, ("bad-header: line bomb.csv.gz: the first line has",)
    ),
    Case(
        "cell bomb.csv.gz",
        lambda: gzip.compress(b"a,b\n1,2\n") + _zipped(b"0", 600_000_000),
        1,
        ("oversized: the gzip stream expands beyond 512000000 bytes",),
    ),
    Case(
        "row bomb.csv.gz",
        lambda: gzip.compress(b"a,b\n") + _zipped(b"1,2\n", 100_000_000),
        1,
        ("oversized: row 1002 and all that follow: an object has at most limits.max_rows (1000) rows",),
        "few",
    ),
    Case(
        "blank bomb.csv.gz",
        lambda: gzip.compress(b"a,b\n1,2\n") + _zipped(b"\n", 30_000_000),
        1,
        ("oversized: the object has more than 30000 lines",),
        "few",
    ),
    Case(
        "gzip in gzip.csv.gz",
        gzip.compress(gzip.compress(b"a,b\n1,2\n", mtime=0), mtime=0),
        0,
        ("encoding: gzip in gzip.csv.gz: the header",),
    ),
    Case("twice.csv", b"a,b,a\n1,2,3\n", 0, ("bad-header: twice.csv has two columns named 'a'",)),
    Case("twice stripped.csv", b"a,b, a \n1,2,3\n", 0, ("bad-header: twice stripped.csv has two columns named 'a'",)),
    Case("nameless.csv", b"a,,b\n1,2,3\n", 0, ("bad-header: nameless.csv: column 2 has no name",)),
    Case("pandas.csv", b",a,b\n0,1,2\n", 0, ("bad-header: pandas.csv: column 1 has no name",)),
    Case("trailing.csv", b"a,b,\n1,2,\n3,4\n5,6,7\n", 2, ("ragged: row 4 has 3 cells, the header 2",)),
    Case("headless.csv", b"1,2\n3,4\n", 0, ("bad-header: headless.csv begins with numbers (1, 2)",)),
    Case(
        "wide.csv", WIDE + b"\n" + b"1," * 999_999 + b"1\n", 0, ("bad-header: wide.csv: the first line has more than",)
    ),
    Case(
        "wider than allowed.csv",
        b",".join(b"c%d" % n for n in range(1001)) + b"\n",
        0,
        ("oversized: wider than allowed.csv has 1001",),
    ),
    Case("as wide as allowed.csv", b",".join(b"c%d" % n for n in range(1000)) + b"\n" + b"1," * 999 + b"2\n", 1),
    Case(
        "wide row.csv",
        b"a,b\n1,2\n" + b"1," * 900_000 + b"1\n3,4\n",
        2,
        ("ragged: row 3 has 900001 cells, the header 2",),
    ),
    Case(
        "long name.csv",
        b"a," + b"n" * 257 + b"\n1,2\n",
        0,
        ("bad-header: long name.csv: the name of column 2 has 257",),
    ),
    Case(
        "ragged.csv",
        b"a,b,c\n1,2,3\n1,2\n1,2,3,4\n\n1\n4,5,6\n",
        2,
        ("ragged: row 3 has 2 cells", "ragged: row 4 has 4 cells", "ragged: row 6 has 1 cell, the header 3"),
    ),
    Case("mixed.csv", b"a,b\n1,x\ntrue,2020-01-02\n-,3\n1e3,\xc3\xa9\n", 4),
    Case("nan.csv", b"a,b\nNaN,1\nInf,2\n-infinity,3\n1e999,4\n-1e999,5\n", 5),
    Case(
        "nothing.csv",
        b"a,b\n,\nNA,?\nnull,None\n1,2\n",
        1,
        (
            "empty: row 2 has a value in no column",
            "empty: row 3 has a value in no column",
            "empty: row 4 has a value in no column",
        ),
    ),
    Case("formulas.csv", b'a,b\n=1+1,@SUM(A1)\n"=HYPERLINK(""http://x"")",+49\n=cmd|\'/c calc\'!A1,-1+1\n', 3),
    Case("open quote.csv", b'a,b\n"1,2\n3,4\n5,6\n', 2, ("malformed-row: row 2 is not well quoted",)),
    Case(
        "open quotes.csv",
        b"a,b\n" + b'"1,2\n3,4\n' * 150,
        None,
        ("malformed-row: row 2 is not well quoted", "malformed-row: more than 100 quotes are opened and not closed"),
    ),
    Case(
        "open quote alone.csv",
        b'text\n"one\ntwo\nthree\n',
        0,
        ("malformed-row: rows 2 to 4 are not well quoted",),
        "text",
    ),
    Case("garbage after quotes.csv", b'a,b\n"1"x,2\n3,4\n', 1, ("malformed-row: row 2 is not well quoted",)),
    Case("only quotes.csv", b'"', 0, ("malformed-row: only quotes.csv: the header cannot be read",)),
    Case("quote walls.csv", b"a,b\n" + b'"' * 2000 + b",1\n2,3\n", 2),
    Case("carriage returns.csv", b"a,b\r1,2\r3,4\r", 2),
    Case("windows.csv", b"a,b\r\n1,2\r\n3,4\r\n", 2),
    Case("all line ends.csv", b"a,b\n1,2\r\n3,4\r5,6\n\r7,8", 4),
    Case("lines in cells.csv", b'a,b\n"one\ntwo\r\nthree",1\n4,"\n"\n', 2),
    Case("single quotes.csv", b"a,b\n'x, y',1\n'it''s',2\n", 2),
    Case("backslashes.csv", b'a,b\n"say \\"hi\\", she said",1\n"x",2\n', 2),
    Case("european.csv", "größe;preis\n1,5;1.234,50\n2,5;3,10\n".encode("cp1252"), 2),
    Case("tabs.tsv", b"a\tb\n1\t2, 3\n4\t5\n", 2),
    Case("bars.csv", b"a|b\n1|2, 3\n4|5\n", 2),
    Case("hint.csv", b"sep=;\r\na;b\r\n1;2\r\n", 1),
    Case(
        "only delimiters.csv",
        b"a;b\n;\n;;;\n1;2\n",
        1,
        ("empty: row 2 has a value in no column", "empty: row 3 has a value"),
    ),
    Case("mark.csv", b"\xef\xbb\xbfa,b\n1,2\n", 1),
    Case("utf-16 little.csv", "a,b\n1,é\n".encode("utf-16"), 1),
    Case("utf-16 big.csv", b"\xfe\xff" + "a,b\n1,é\n".encode("utf-16-be"), 1),
    Case("utf-32.csv", "a,b\n1,é\n".encode("utf-32"), 1),
    Case(
        "utf-16 without mark.csv",
        "a,b\n1,2\n".encode("utf-16-le"),
        0,
        ("encoding: utf-16 without mark.csv: the header cannot",),
    ),
    Case(
        "half a character.csv",
        "a,b\n1,2\n3,é".encode("utf-16")[:-1],
        1,
        ("encoding: row 3 holds bytes that are no text",),
    ),
    Case("windows-1252.csv", "a,b\ncafé,1\n„x“,2\n".encode("cp1252"), 2),
    Case("no character.csv", b"a,b\ncaf\xe9,1\n\x81\xe9\xe9,2\n", 1, ("encoding: row 3 holds bytes that are no text",)),
    Case(
        "one bad byte.csv", "a,b\nécole,1\nüber,2\n".encode() + b"b\xffd,3\n4,5\n", 3, ("encoding: row 4 holds bytes",)
    ),
    Case("nul.csv", b"a,b\n1,\x00\n3,4\n", 1, ("encoding: row 2 holds NUL bytes",)),
    Case("zeros.csv", bytes(100_000), 0, ("encoding: zeros.csv: the header cannot be read: row 1 holds NUL",)),
    Case("noise.csv", random.Random(1).randbytes(100_000), 0, ("",)),
    Case("one line.csv", LONG, 0, ("bad-header: one line.csv: the first line has more than 2000000",)),
    Case(
        "long cell.csv", b"a,b\n" + b"x" * 1001 + b",1\n2,3\n", 1, ("oversized: row 2: column 'a' has 1001 characters",)
    ),
    Case("longest cell.csv", b"a,b\n" + b"x" * 1000 + b",1\n", 1),
    Case("long row.csv", b"a,b\n" + LONG + b",1\n2,3\n", 1, ("oversized: row 2 has more than 2000000 characters",)),
    Case(
        "long quoted row.csv",
        b'a,b\n"' + b"x\n" * 1_500_000 + b'",1\n',
        None,
        ("oversized: row 2 has more than",),
        "few",
    ),
    Case(
        "workbook.csv", b"PK\x03\x04" + bytes(1000), 0, ("unknown-format: workbook.csv is a zip archive (or an Excel",)
    ),
    Case(
        "old workbook.csv",
        b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(1000),
        0,
        ("unknown-format: old workbook.csv is an old Excel",),
    ),
    Case("picture.csv", _png((4, 4)), 0, ("wrong-kind: picture.csv is an image but task.kind is table",)),
    Case("parquet.csv", _parquet, 500),
    Case("no ending", b"a,b\n1,2\n", 0, ("unknown-format: no ending has a format that is not read",)),
    Case(
        "labels.csv",
        b"a,label\n1,yes\n2,maybe\n3,\n4, no \n5,NaN\n",
        4,
        ("unknown-class: row 3: label 'maybe' is none of task.classes (no, yes)",),
    ),
    Case(
        "number labels.csv",
        b"a,label\n1,2.5\n2,maybe\n3,inf\n4,-1\n5,\n6,1e400\n",
        2,
        (
            "bad-label: row 3: label 'maybe' is not a finite number",
            "bad-label: row 4: label 'inf'",
            "bad-label: row 5: label -1.0 is outside task.minimum (0.0)",
            "bad-label: row 7: label '1e400'",
        ),
        "regression",
    ),
    Case(
        "fields.csv",
        b'a,cost,captured_at,slices,id\n1,-1,,,\n2,x,,,\n3,,soon,,\n4,,,{,\n5,,,[],\n6,2,2026-01-02,"{""s"": ""t""}",7\n7,,,,'
        + b"i" * 257
        + b"\n",
        1,
        (
            "wrong-type: row 2: 'cost'",
            "wrong-type: row 3: 'cost'",
            "wrong-type: row 4: 'captured_at'",
            "wrong-type: row 5: 'slices'",
            "wrong-type: row 6: 'slices'",
            "wrong-type: row 8: 'id'",
        ),
    ),
    Case("only reserved.csv", b"id,label\n1,yes\n", 0, ("bad-header: only reserved.csv has no feature",)),
    Case(
        "other columns.csv", b"x,y\n1,2\n", 0, ("bad-header: other columns.csv has none of task.columns",), "regression"
    ),
    Case("digits.csv", b"a,b\n" + b"9" * 400 + b",00123\n1" + b"0" * 30 + b",1\n", 2),
    Case("separators.csv", "a,b\none\u2028two,\x0b\x1c\x1d\x85x\n".encode(), 1),
    Case("signs.csv", "\u202ea,\U0001f600,\u200b\n1,2,3\n".encode(), 1),
    Case("markup.csv", b"a,b\n<script>alert(1)</script>,'; DROP TABLE x;--\n{{7*7}},${jndi:ldap://x}\n", 2),
    Case("header of lines.csv", b'"a\nb",c\n1,2\n', 1),
    Case(
        "no text.csv", b"a,b\n1,2\n", 0, ("wrong-kind: no text.csv has no column 'text' (its columns: a, b)",), "text"
    ),
    Case("texts.csv", b'id,text\n1,"hello, world"\n2,\n3,bye\n', 2, ("empty: row 3: the text is empty",), "text"),
)

JSONL = (
    Case(
        "nan.jsonl",
        b'{"a": NaN, "b": 1}\n{"a": Infinity, "b": 2}\n{"a": 1e400, "b": 3}\n{"a": NaN}\n',
        3,
        ("empty: row 4 has a value in no",),
    ),
    Case(
        "nested.jsonl",
        b'{"a": [1]}\n{"a": {"b": 1}}\n{"row": {"a": [[]]}}\n{"row": {"a": 1}}\n',
        1,
        (
            "wrong-type: row 1: column 'a': a cell holds a list",
            "wrong-type: row 2: column 'a': a cell holds a mapping",
            "wrong-type: row 3: column 'a': a cell holds a list",
        ),
    ),
    Case(
        "no objects.jsonl",
        b'[1]\nnull\n3\n"x"\n{"a": 1}\n',
        1,
        tuple(f"wrong-type: row {n} is not a JSON object" for n in range(1, 5)),
    ),
    Case(
        "twice.jsonl",
        b'{"a": 1, "a": 2}\n{"row": {"a": 1, " a": 2}}\n{"a": 1}\n',
        1,
        (
            "malformed-row: row 1 is not JSON: 'a' stands in one object twice",
            "bad-header: row 2 has two columns named 'a'",
        ),
    ),
    Case(
        "nameless.jsonl",
        b'{"": 1}\n{"row": {" ": 1}}\n{"a": 1}\n',
        1,
        ("bad-header: row 1: column 1 has no name", "bad-header: row 2"),
    ),
    Case(
        "nothing.jsonl",
        b'{}\n{"row": {}}\n{"id": 1, "label": "yes"}\n',
        0,
        tuple(f"empty: row {n} has a value in no" for n in (1, 2, 3)),
    ),
    Case("wide.jsonl", lambda: _wide_json(100_000) + b'\n{"a": 1}\n', 1, ("oversized: row 1 has 100000 columns",)),
    Case(
        "wider.jsonl",
        lambda: _wide_json(1_000_000) + b'\n{"a": 1}\n',
        1,
        ("oversized: row 1 has more than 2000000 bytes",),
    ),
    Case(
        "values.jsonl",
        b'{"a": [' + b"[]," * 600_000 + b"[]]}\n" + b'{"a": 1}\n',
        1,
        ("oversized: row 1 holds more than 250000 values",),
    ),
    Case(
        "deep.jsonl",
        b"[" * 100_000 + b'\n{"a":' * 1 + b'{"a":' * 100_000 + b'\n{"a": 1}\n',
        1,
        ("malformed-row: row 1", "malformed-row: row 2"),
    ),
    Case(
        "huge number.jsonl",
        b'{"a": ' + b"9" * 5000 + b'}\n{"a": 123456789012345678}\n',
        1,
        ("malformed-row: row 1 is not JSON",),
    ),
    Case(
        "half pair.jsonl",
        b'{"a": "\\ud800"}\n{"\\udfff": 1}\n{"a": "\\ud83d\\ude00"}\n',
        1,
        ("encoding: row 1", "encoding: row 2"),
    ),
    Case("nul.jsonl", b'{"a": "\x00"}\n{"a": 1}\n', 1, ("encoding: row 1 is not UTF-8 (NUL",)),
    Case("latin.jsonl", '{"a": "é"}\n{"a": 1}\n'.encode("latin-1"), 1, ("encoding: row 1 is not UTF-8",)),
    Case(
        "utf-16.jsonl",
        '{"a": 1}\n'.encode("utf-16"),
        0,
        ("encoding: row 1 is not UTF-8", "encoding: row 2 is not UTF-8"),
    ),
    Case("mark.jsonl", b'\xef\xbb\xbf{"a": 1}\n', 1),
    Case(
        "cut.jsonl.gz",
        gzip.compress(b'{"a": 1}\n{"a": 2}\n', mtime=0)[:-6],
        2,
        ("truncated: the gzip stream ends early",),
    ),
    Case(
        "line bomb.jsonl.gz",
        lambda: _zipped(b"0", 600_000_000),
        0,
        ("oversized: row 1 has more than 2000000", "oversized: the gzip stream"),
    ),
    Case(
        "blank bomb.jsonl.gz",
        lambda: gzip.compress(b'{"a": 1}\n') + _zipped(b"\n", 30_000_000),
        1,
        ("oversized: the object has more than 30000 lines",),
        "few",
    ),
    Case(
        "long.jsonl",
        b'{"a": "' + b"x" * 1001 + b'"}\n' + b'{"text": "' + LONG + b'"}\n',
        0,
        ("oversized: row 1: column 'a' has 1001", "oversized: row 2 has more than"),
    ),
    Case(
        "labels.jsonl",
        b'{"a": 1, "label": true}\n{"a": 2, "label": ["yes"]}\n{"a": 3, "label": "yes"}\n',
        1,
        ("unknown-class: row 1: label 'true'", "wrong-type: row 2: 'label'"),
    ),
    Case(
        "number labels.jsonl",
        b'{"a": 1, "label": "7"}\n{"a": 2, "label": NaN}\n{"a": 3, "label": true}\n',
        1,
        ("bad-label: row 2: label 'nan'", "wrong-type: row 3: 'label' must be a number"),
        "regression",
    ),
    Case(
        "text bomb.txt.gz",
        lambda: _zipped(b"0", 600_000_000),
        0,
        ("oversized: row 1 has more than", "oversized: the gzip stream"),
        "text",
    ),
    Case("mixed types.jsonl", b'{"a": 1}\n{"a": "x"}\n{"a": true}\n{"a": null, "b": 2}\n', 4),
)

IMAGES = (
    Case("cut.png", _png((200, 200))[:-40], 0, ("truncated: the image cannot be decoded",), "image"),
    Case(
        "promise.png",
        _png_of(_pixels(), width=100_000, height=100_000),
        0,
        ("oversized: the image is too large to be decoded",),
        "image",
    ),
    Case("nothing.png", _png_of(_pixels(), width=0, height=0), 0, ("",), "image"),
    Case("short.png", _png_of(_pixels(), width=4000, height=4000), 0, ("truncated:",), "image"),
    Case(
        "text bomb.png", _png_of((b"zTXt", b"c\0\0" + zlib.compress(bytes(50_000_000))), _pixels()), None, (), "image"
    ),
    Case(
        "profile bomb.png",
        _png_of((b"iCCP", b"p\0\0" + zlib.compress(bytes(50_000_000))), _pixels()),
        None,
        (),
        "image",
    ),
    Case("pixel bomb.png", _png_of((b"IDAT", zlib.compress(bytes(200_000_000)))), None, (), "image"),
    Case("wrong sum.png", _png((8, 8)).replace(b"IDAT", b"IDAU"), 0, ("",), "image"),
    Case("large.png", lambda: _png((4990, 4990), "RGBA", compress_level=1), 1, (), "image"),
    Case("large palette.png", lambda: _png((4990, 4990), "P", compress_level=1), 1, (), "image"),
    Case("too large.png", lambda: _png((5010, 5000), "1"), 0, ("oversized: the image has 5010 x 5000",), "image"),
    Case("thread.png", _png((1, 60_000)), 1, (), "image"),
    Case("deep.png", _png((20, 20), "I;16"), 1, (), "image"),
    Case("cut.jpg", _jpeg()[:300], 0, ("truncated:",), "image"),
    Case("print.jpg", _jpeg("CMYK"), 1, (), "image"),
    Case("passes.jpg", _many_passes, 0, ("oversized: the image is drawn in",), "image"),
    Case(
        "turned.jpg",
        _jpeg(exif=b"Exif\0\0MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0c\0\0\0\0\0\0"),
        1,
        (),
        "image",
    ),
    Case("other.png", _other("GIF"), 0, ("unknown-format: other.png",), "image"),
    Case("other.jpg", _other("TIFF"), 0, ("unknown-format: other.jpg",), "image"),
    Case("drawing.png", b"<svg xmlns='http://www.w3.org/2000/svg'/>", 0, ("unknown-format: drawing.png",), "image"),
    Case("table.csv", b"a,b\n1,2\n", 0, ("wrong-kind: table.csv has no column 'image'",), "image"),
    Case(
        "images.csv",
        b"id,image\n1," + base64.b64encode(_png((4, 4))) + b"\n2,%%%\n3,aGVsbG8=\n",
        1,
        ("wrong-type: row 3: 'image' is not base64", "undecodable: the bytes are neither PNG nor JPEG"),
        "image",
    ),
    Case(
        "images.jsonl",
        _encoded(_png((4, 4)))
        + _encoded(b"no image")
        + b'{"image": 3}\n{"image": "\xc3\xa9"}\n'
        + _encoded(_png_of(_pixels(), width=60_000, height=60_000)),
        1,
        (
            "undecodable:",
            "wrong-type: row 3 needs a base64 string",
            "wrong-type: row 4: 'image' is not base64",
            "oversized:",
        ),
        "image",
    ),
    Case(
        "values.jsonl",
        b'{"image": [' + b"[]," * 10_000_000 + b"[]]}\n",
        0,
        ("oversized: row 1 holds more than 250000",),
        "image",
    ),
    Case("text.txt", b"one\n", 0, ("wrong-kind: text.txt is text but task.kind is image",), "image"),
)

PARQUET = (
    Case("good.parquet", _parquet, 500),
    Case("marks.parquet", b"PAR1PAR1", 0, ("truncated: marks.parquet does not end",)),
    Case(
        "marks and nothing.parquet",
        b"PAR1\0\0\0\0PAR1",
        0,
        ("truncated: marks and nothing.parquet: the file is damaged",),
    ),
    Case("encrypted.parquet", b"PARE" + bytes(100) + b"PARE", 0, ("encrypted: encrypted.parquet is encrypted",)),
    Case("csv.parquet", b"a,b\n1,2\n", 0, ("truncated: csv.parquet does not begin as Parquet does",)),
    Case(
        "parquet.parquet.gz",
        lambda: gzip.compress(_parquet()),
        0,
        ("unknown-format: parquet.parquet.gz is Parquet inside gzip",),
    ),
    *(
        Case(
            f"cut {share}.parquet", lambda share=share: _parquet()[: len(_parquet()) * share // 10], 0, ("truncated:",)
        )
        for share in (1, 5, 9)
    ),
    *(Case(f"footer {n}.parquet", lambda n=n: _footer(n), 0, ("truncated:",)) for n in (-1, 0, 3, 2**31 - 1)),
    *(Case(f"bent {seed}.parquet", lambda seed=seed: _bent(seed), None) for seed in range(16)),
    Case(
        "row bomb.parquet", lambda: parquets.endless(3_000_000), 1, ("oversized: row 1001 and all that follow",), "few"
    ),
    Case(
        "text bomb.parquet",
        lambda: parquets.swollen(300),
        None,
        ("oversized: row 1: column 'a' has 900000", "oversized: text bomb.parquet needs"),
    ),
    Case("page bomb.parquet", lambda: parquets.page(280), 0, ("oversized: page bomb.parquet needs more than 256 MB",)),
    Case(
        "wide.parquet",
        lambda: parquets.file({f"c{n}": [1] for n in range(20_000)}),
        0,
        ("oversized: wide.parquet: the file has 20000 columns",),
    ),
    Case(
        "lists.parquet",
        lambda: parquets.file({"a": parquets.listed()}),
        0,
        ("nested: lists.parquet: column 'a' is nested (List(Int64",),
    ),
    Case("lists beside.parquet", lambda: parquets.file({"a": [1.5, 2.5], "z": parquets.listed()}), 2, (), "regression"),
    Case(
        "bytes.parquet",
        lambda: parquets.file({"a": [b"x"]}),
        0,
        ("nested: bytes.parquet: column 'a' is bytes (Binary)",),
    ),
    Case(
        "no rows.parquet",
        lambda: parquets.file({"a": parquets.array([], parquets.INT)}),
        0,
        ("empty: no rows.parquet holds no rows",),
    ),
    Case("twice.parquet", parquets.twice_named, 0, ("bad-header: twice.parquet: the file has two columns named 'a'",)),
    Case("nan.parquet", lambda: parquets.file({"a": [float("nan"), float("inf"), 1.0], "b": ["x", "y", "z"]}), 3),
    Case(
        "times.parquet",
        lambda: parquets.file({"a": parquets.array([0, 10**18], parquets.DataType.timestamp("ms"))}),
        1,
        ("wrong-type: times.parquet: column 'a' holds a time that no calendar has",),
    ),
    Case(
        "pictures.parquet",
        lambda: parquets.file({"image": parquets.pictures([_png((4, 4)), None, b"no"], [None, "x.png", None])}),
        1,
        ("missing-payload: pictures.parquet: column 'image' holds only the path", "undecodable:"),
        "image",
    ),
    Case("no text.parquet", _parquet, 0, ("wrong-kind: no text.parquet has no column 'text'",), "text"),
    Case(
        "numbers.parquet",
        lambda: parquets.file({"text": [1, 2]}),
        0,
        ("wrong-type: row 1 needs a string under 'text'", "wrong-type: row 2"),
        "text",
    ),
)

CASES = (*CSV, *JSONL, *IMAGES, *PARQUET)


class Watch(threading.Thread):
    """The most that this process held and the most that one child did since `reset`, in MB.

    Not `ru_maxrss`, which counts what the parent held when it started a process, and can only grow.
    """

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self._child = 0

    def run(self) -> None:
        children = Path(f"/proc/self/task/{os.getpid()}/children")
        while True:
            for child in children.read_text().split():
                with suppress(OSError):  # it may have ended meanwhile
                    if b"parquet_rows" in Path(f"/proc/{child}/cmdline").read_bytes():
                        self._child = max(self._child, _most(f"/proc/{child}/status"))
            time.sleep(0.005)

    def reset(self) -> None:
        self._child = 0
        Path("/proc/self/clear_refs").write_text("5")

    @property
    def peak(self) -> int:
        return (_most("/proc/self/status") + self._child) // 1024


def _most(status: str) -> int:
    """KB."""
    return next((int(line.split()[1]) for line in Path(status).read_text().splitlines() if line.startswith("VmHWM")), 0)


def main(folder: Path) -> None:
    watch = Watch()
    watch.start()
    for number, case in enumerate(CASES):
        ports = make_ports(loop=LOOPS[case.loop])
        watch.reset()
        began = time.monotonic()
        item = ports.pool.drop(case.key, (folder / str(number)).read_bytes())
        body = dict(ingest_object(item, ports).body)
        rows = from_jsonl(gzip.decompress(ports.data.objects[layout.occurrences(body["oid"])]))
        reasons = [row["reason"] for row in rows if row["status"] == "quarantined"]
        body |= {"rows": len(rows), "reasons": reasons[:10] + reasons[10:][-1:], "peak": watch.peak}
        print(json.dumps(body | {"seconds": round(time.monotonic() - began, 2)}), flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
