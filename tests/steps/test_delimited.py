"""CSV in every dialect: what was written comes back, and what is broken is refused alone."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from winnow.errors import BadInput
from winnow.steps.delimited import Dialect, sheet, sniff
from winnow.steps.streams import Content


def read(body: bytes, *, longest: int = 10_000) -> tuple[tuple[str, ...], list[Sequence[str]], list[str], Dialect]:
    """Header, good records, reasons of the others, and the dialect."""
    found, dialect = sheet(
        Content(body, limit=1_000_000), key="a.csv", longest=longest, most=10_000, say=lambda fact: None
    )
    good, bad = [], []
    for number, cells in found.records:
        if isinstance(cells, BadInput):
            bad.append(f"{number} {cells.code}")
        else:
            good.append(list(cells))
    return found.header, good, bad, dialect


CELLS = st.text(st.sampled_from("ab é1.,;|\t\"'\n\\"), max_size=8).map(str.strip)
DIALECTS = st.fixed_dictionaries(
    {
        "delimiter": st.sampled_from(",;\t|"), "lineterminator": st.sampled_from(["\n", "\r\n"]),
        "quoting": st.sampled_from([csv.QUOTE_ALL, csv.QUOTE_NONNUMERIC]),
    }
)  # fmt: skip
ENCODINGS = st.sampled_from(["utf-8", "utf-8-sig", "utf-16", "utf-32", "cp1252"])


@settings(deadline=None, max_examples=150)
@example([("", "\\1", "'\"'")], {"delimiter": ",", "lineterminator": "\n", "quoting": csv.QUOTE_ALL}, "utf-8")
@given(st.lists(st.tuples(CELLS, CELLS, CELLS), min_size=1, max_size=8), DIALECTS, ENCODINGS)
def test_what_a_writer_quotes_is_read_back(
    rows: list[tuple[str, ...]], dialect: dict[str, object], encoding: str
) -> None:
    out = io.StringIO(newline="")
    csv.writer(out, **dialect).writerows([("first", "second", "third"), *rows])  # type: ignore[arg-type]

    header, good, bad, found = read(out.getvalue().encode(encoding))

    assert header == ("first", "second", "third")
    assert found.delimiter == dialect["delimiter"]
    assert [[cell.strip() for cell in row] for row in good] == [list(row) for row in rows]
    assert bad == []


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a,b\n1,2\n", Dialect(",")),
        ("a;b\n1,5;2\n", Dialect(";", decimal_comma=True)),
        ("a;b\n1,500;2\n", Dialect(";", decimal_comma=True)),
        ("a;b\n1,5;2.5\n", Dialect(";")),
        ("a;b\n1.234,5;1.000\n", Dialect(";", decimal_comma=True)),
        ("a\tb\n1,234\t2\n", Dialect("\t")),
        ("a\tb\n1,2\t2\n", Dialect("\t", decimal_comma=True)),
        ("id|first, last\n1|x, y\n2|z\n", Dialect("|")),
        ("a,b\n1,2,3\n4,5,6\n", Dialect(",")),
        ("'a','b'\n'x, y','it''s'\n", Dialect(",", "'")),
        ("a,b\n'tis,1\n'twas,2\n", Dialect(",")),
        ("a,b\n'so-called',1\n\"x, y\",2\n", Dialect(",")),
        ('a,b\n"say \\"hi\\", she said",1\n', Dialect(",", backslash=True)),
        ("a,b\nC:\\new,1\n", Dialect(",")),
        ('a,b\n"x\n', Dialect(",")),
        ("", Dialect("\t")),
    ],
)
def test_the_dialect_is_found(text: str, expected: Dialect) -> None:
    assert sniff(text.splitlines(keepends=True)) == expected


def test_one_column_needs_no_delimiter() -> None:
    header, good, bad, _ = read(b'text\nhello, world; again\n\n"two\nlines"\n')

    assert (header, good, bad) == (("text",), [["hello, world; again"], ["two\nlines"]], [])


def test_lines_that_an_open_quote_swallowed_are_read_again() -> None:
    _, good, bad, _ = read(b'a,b\n1,2\n"3,4\n5,6\n7,"8\n9,10\n')

    assert good == [["1", "2"], ["5", "6"], ["9", "10"]]
    assert bad == ["3 malformed-row", "5 malformed-row"]


def test_ragged_records_are_refused_by_the_line_they_begin_on() -> None:
    _, good, bad, _ = read(b'a,b\n"one\nmore",1\n2\n3,4,5\n6,7,\n')

    assert good == [["one\nmore", "1"], ["6", "7"]]
    assert bad == ["4 ragged", "5 ragged"]


def test_a_record_that_is_too_long_is_skipped_and_counted() -> None:
    _, good, bad, _ = read(b"a,b\n" + b"x" * 310 + b",1\r\n2,3\n" + b'"' + b"y\n" * 200 + b'",1\n4,5\n', longest=100)

    assert good[0] == ["2", "3"]
    assert good[-1] == ["4", "5"]
    assert bad[:2] == ["2 oversized", "4 oversized"]


def test_a_line_that_was_cut_by_damage_is_not_believed() -> None:
    import gzip

    body = gzip.compress(b"a,b\n1,2\n3,45678\n", mtime=0)
    cut = Content(body[:-12], limit=1000)

    found, _ = sheet(cut, key="a.csv.gz", longest=100, most=100, say=lambda fact: None)
    records = list(found.records)

    assert records[0] == (2, ["1", "2"])
    assert [number for number, _ in records] == [2, 3]
    assert isinstance(records[1][1], BadInput)
    assert records[1][1].code == "truncated"


def test_what_was_decided_is_said() -> None:
    said: list[str] = []

    sheet(Content('a,b\n"é\\"",1\n'.encode("cp1252"), limit=100), key="a.csv", longest=100, most=9, say=said.append)

    assert said == ["it is not UTF-8 and was read as Windows-1252", "quotes inside cells are escaped with a backslash"]


@pytest.mark.parametrize(
    ("cell", "plain"),
    [
        ("1,5", "1.5"), ("-1.234.567,5", "-1234567.5"), ("1.234", "1234"), ("12.34", "12.34"), (",5", ".5"), ("12", "12"),
        ("1,2,3", "1,2,3"), ("5 %", "5 %"), ("", ""), ("01.02.2026", "01.02.2026"),
    ],
)  # fmt: skip
def test_decimal_commas_become_points(cell: str, plain: str) -> None:
    assert Dialect(";", decimal_comma=True).plain(cell) == plain
    assert Dialect(";").plain(cell) == cell
