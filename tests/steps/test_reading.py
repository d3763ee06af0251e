"""Rows of dropped objects: what JSON and Unicode allow but nothing after ingest could hold is refused by row."""

from __future__ import annotations

import pytest

from winnow.steps.reading import Row, rows


def read(body: bytes, *, key: str = "a.jsonl") -> list[Row]:
    return list(rows(body, key=key, kind="text", limit=1000))


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
