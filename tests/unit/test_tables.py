"""Cells, rows and their names: one value has one form, whatever it was written in."""

from __future__ import annotations

from datetime import date, datetime
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from winnow.datasets.clusters import row_cluster
from winnow.errors import BadInput
from winnow.privacy.masking import mask_row
from winnow.records import Label, Record
from winnow.tables import Cell, as_text, cell, column_names, features, row, text_cell


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("39", 39.0), (" -0.5 ", -0.5), (".5", 0.5), ("1.", 1.0), ("1e3", 1000.0), ("2E-2", 0.02), ("0", 0.0),
        ("-0", 0.0), ("999999999999999", 999999999999999.0),
        ("", None), ("?", None), ("na", None), ("N/A", None), ("NaN", None), ("NULL", None), ("none", None), ("-", None),
        ("Inf", None), ("-Infinity", None), ("1e999", None),
        ("007", "007"), ("00.5", "00.5"), ("+49", "+49"), ("1234567890123456", "1234567890123456"), ("1,5", "1,5"),
        (".", "."), ("-.", "-."), ("e5", "e5"), ("1e", "1e"), ("0x10", "0x10"), ("1_000", "1_000"), ("٣", "٣"),
        ("=1+1", "=1+1"), (" a  b ", "a  b"), ("TRUE", "true"), ("False", "false"), ("truex", "truex"),
    ],
)  # fmt: skip
def test_text_without_types_is_a_number_only_where_it_is_written_like_one(text: str, expected: Cell) -> None:
    found = text_cell(text)

    assert found == expected
    assert type(found) is type(expected)


@pytest.mark.parametrize(
    ("text", "expected"),
    [("007", 7.0), ("+5", 5.0), ("1234567890123456", 1234567890123456.0), ("five", "five"), ("+1e999", None)],
)
def test_a_column_of_numbers_takes_what_else_would_be_a_name(text: str, expected: Cell) -> None:
    assert text_cell(text, kind="number") == cell(text, kind="number") == expected


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (39, 39.0), (-(10**15), str(-(10**15))), (10**15 - 1, 999999999999999.0), (0.1, 0.1), (float("inf"), None),
        (True, "true"), (False, "false"), ("39", "39"), ("", None), (" Ulm", "Ulm"), (None, None),
        (Decimal("1.50"), 1.5), (Decimal("NaN"), None), (Decimal("12345678901234567890"), "12345678901234567890"),
        (date(2026, 1, 2), "2026-01-02"), (datetime(2026, 1, 2, 3, 4, 5), "2026-01-02T03:04:05"),  # noqa: DTZ001
    ],
)  # fmt: skip
def test_typed_values_keep_their_types(value: Any, expected: Cell) -> None:
    assert cell(value) == expected


@pytest.mark.parametrize(("value", "what"), [([1], "a list"), ({"a": 1}, "a mapping"), (b"x", "bytes")])
def test_a_table_is_flat(value: Any, what: str) -> None:
    with pytest.raises(BadInput, match=f"column 'a': a cell holds {what}; a table is flat"):
        row({"a": value}, columns={})


@given(st.floats(allow_nan=False, allow_infinity=False).map(lambda number: number + 0.0))
def test_every_number_survives_being_written_down(number: float) -> None:
    if len(repr(number).partition(".")[0].lstrip("-")) <= 15 or "e" in repr(number):
        assert text_cell(repr(number)) == number
    assert cell(as_text(number), kind="number") == number


def test_numbers_in_categories_have_no_trailing_zero() -> None:
    assert [as_text(value) for value in (39.0, 3.5, -0.0, 1e20, "39.0", None)] == [
        "39",
        "3.5",
        "0",
        "1e+20",
        "39.0",
        "",
    ]


@pytest.mark.parametrize(
    ("names", "reason"),
    [
        (["a", " "], "x: column 2 has no name; name it, or leave it out"),
        (["a", "b", " a"], "x has two columns named 'a'; rename one"),
        (["n" * 257], "x: the name of column 1 has 257 characters, 256 at most"),
        (["a", "b", "c", "d"], r"x has 4 columns, more than limits.max_columns \(3\) allows"),
    ],
)
def test_names_that_no_table_can_have(names: list[str], reason: str) -> None:
    with pytest.raises(BadInput, match=reason):
        column_names(names, where="x", most=3)


def test_reserved_names_are_never_features() -> None:
    names = ("id", "subject", "slices", "cost", "captured_at", "label", "age", "ID")

    assert features(names, {}) == ("age", "ID")
    assert features(names, {"age": "number", "label": "category"}) == ("age",)


def test_near_duplicate_rows_share_a_cluster() -> None:
    row_ = {"city": "New  York", "rent": 1234.4, "note": None}

    assert row_cluster(row_) == row_cluster({"rent": 1234.0, "city": "new york"})
    assert row_cluster(row_) != row_cluster({"rent": 1235.4, "city": "new york"})
    assert row_cluster(row_) != row_cluster({"city": "new york", "price": 1234.0})
    assert row_cluster({"a": 39.0}) != row_cluster({"a": "39"})


def test_texts_in_rows_are_masked_and_numbers_are_not() -> None:
    masked, count = mask_row({"card": "4111 1111 1111 1111", "number": 4111.0, "to": "a@b.org, c@d.org", "none": None})

    assert masked == {"card": "[CARD]", "number": 4111.0, "to": "[EMAIL], [EMAIL]", "none": None}
    assert count == 3


def record(**changes: Any) -> dict[str, Any]:
    body = {"v": 1, "id": "i", "oid": "o", "kind": "table", "cluster": "c", "role": "train", "key": 0.5,
            "row": {"age": 39, "city": "Ulm", "note": None}}  # fmt: skip
    return {**body, **changes}


def test_a_record_of_a_table_keeps_its_row_and_its_label() -> None:
    found = Record.from_json(record(label=7))

    assert found.payload() == {"row": {"age": 39.0, "city": "Ulm", "note": None}}
    assert found.label == 7.0
    assert Record.from_json(found.to_json()) == found


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"row": None}, "a record of kind 'table' carries exactly that payload"),
        ({"text": "x"}, "a record of kind 'table' carries exactly that payload"),
        ({"kind": "text"}, "a record of kind 'text' carries exactly that payload"),
        ({"kind": "sound", "row": None}, "a record of kind 'sound' carries exactly that payload"),
        ({"row": {}}, "a row needs at least one column"),
        ({"row": [1]}, "canonical record is malformed"),
        ({"row": {"label": "x"}}, "'label' is no name of a feature"),
        ({"row": {"a": float("nan")}}, "column 'a' holds nan; a cell is a finite number, a text or null"),
        ({"row": {"a": True}}, "column 'a' holds True"),
        ({"label": float("inf")}, "label inf is not a finite number"),
    ],
)
def test_a_malformed_record_of_a_table_is_refused(changes: dict[str, Any], reason: str) -> None:
    with pytest.raises(BadInput, match=reason):
        Record.from_json(record(**changes))


def test_a_label_may_be_a_number() -> None:
    body = {
        "id": "i", "batch": "b", "status": "labeled", "label": 250000, "confidence": 1.0, "arm": "active",
        "strategy": "variance", "rank": 1, "model": "m", "job": "j", "guideline": "g", "cluster": "c", "role": "train",
        "labeled_at": "2026-01-02",
    }  # fmt: skip

    found = Label.from_json(body)

    assert (found.label, type(found.label)) == (250000.0, float)
    assert Label.from_json(found.to_json()) == found
