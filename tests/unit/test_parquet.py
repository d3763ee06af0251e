"""The child that reads Parquet: it is bounded, and it ends when nobody listens."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from tests import parquets
from winnow.errors import BadInput
from winnow.formats.parquet import ParquetFiles


def read(data: bytes, *, reader: ParquetFiles | None = None, wanted: Sequence[str] | None = None, **limits: int) -> Any:
    """Header and records."""
    found = (reader or ParquetFiles()).sheet(
        data, key="a.parquet", wanted=wanted, most=limits.get("most", 100), limit=limits.get("limit", 1_000_000)
    )
    return found.header, list(found.records)


def children() -> set[str]:
    return set(Path(f"/proc/self/task/{os.getpid()}/children").read_text().split())


def test_wanted_columns_come_in_the_order_of_the_file() -> None:
    file = parquets.file({"a": [1, 2], "b": ["x", None], "c": [True, False]})

    assert read(file) == (("a", "b", "c"), [(1, [1, "x", True]), (2, [2, None, False])])
    assert read(file, wanted=["c", "a", "z"]) == (("a", "c"), [(1, [1, True]), (2, [2, False])])


def test_every_plain_type_is_read() -> None:
    kind = parquets.DataType
    columns = {
        "i8": parquets.array([-5], kind.int8()), "u64": parquets.array([2**63], kind.uint64()),
        "f32": parquets.array([0.5], kind.float32()), "large": parquets.array(["x"], kind.large_string()),
        "view": parquets.array(["x"], kind.string_view()), "date": parquets.array([1], kind.int32()).cast(kind.date32()),
        "ns": parquets.array([1_500_000_000], kind.timestamp("ns")), "s": parquets.array([-1], kind.timestamp("s", tz="UTC")),
        "time": parquets.array([3_600_000_000], kind.time64("us")),
        "decimal": parquets.array([1.25], parquets.FLOAT).cast(kind.decimal128(10, 2)),
    }  # fmt: skip

    header, records = read(parquets.file(columns))

    assert dict(zip(header, records[0][1], strict=True)) == {
        "i8": -5, "u64": 2**63, "f32": 0.5, "large": "x", "view": "x", "date": "1970-01-02",
        "ns": "1970-01-01T00:00:01.500000", "s": "1969-12-31T23:59:59+00:00", "time": "01:00:00", "decimal": 1.25,
    }  # fmt: skip


def test_slices_may_be_a_mapping_and_nothing_else_may() -> None:
    mapping = parquets.struct_array([parquets.array(["en"])], fields=[parquets.Field("lang", parquets.TEXT)])

    assert read(parquets.file({"slices": mapping, "a": [1]}))[1] == [(1, [{"lang": "en"}, 1])]
    with pytest.raises(BadInput, match=r"column 'more' is nested \(Struct") as refused:
        read(parquets.file({"more": mapping}))
    assert refused.value.code == "nested"


def test_a_child_that_takes_too_much_memory_is_a_reason() -> None:
    with pytest.raises(BadInput, match=r"a\.parquet needs more than 16 MB to be read") as refused:
        read(parquets.page(24), reader=ParquetFiles(megabytes=16))

    assert refused.value.code == "oversized"


def test_a_child_that_takes_too_long_is_a_reason() -> None:
    header, records = read(parquets.endless(20_000_000), reader=ParquetFiles(seconds=1), limit=10**9)

    assert header == ("a",)
    assert records[-1][1].code == "oversized"
    assert str(records[-1][1]) == "a.parquet takes more than 1 seconds to be read; split it"


def test_rows_that_outgrow_the_object_are_cut_off() -> None:
    _, records = read(parquets.endless(1_000_000), limit=1000)

    assert [cells for _, cells in records[:-1]] == [[7]] * (len(records) - 1)
    assert "expands beyond what limits.max_object_mb allows" in str(records[-1][1])


def test_a_file_whose_end_is_damaged_gives_what_comes_before() -> None:
    whole = parquets.file(
        {"a": list(range(1000))},
        compression="uncompressed",
        dictionary_enabled=False,
        data_page_row_count_limit=100,
        write_batch_size=100,
    )
    footer = len(whole) - 8 - int.from_bytes(whole[-8:-4], "little")
    torn = whole[:5000] + b"\xff" * (footer - 5000) + whole[footer:]

    header, records = read(torn)

    assert header == ("a",)
    assert 0 < len(records) < 1000
    assert records[0][1] == [0]
    assert records[-1][1].code == "truncated"
    assert str(records[-1][1]).startswith("a.parquet: the file is damaged")


def test_a_child_ends_when_nobody_wants_its_rows() -> None:
    before = children()
    found = ParquetFiles().sheet(parquets.endless(1_000_000), key="a", wanted=None, most=10, limit=10**9)
    assert next(found.records) == (1, [7])
    assert len(children() - before) == 1

    found.records.close()

    assert children() == before


def test_the_child_sees_none_of_our_secrets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    before = children()
    found = ParquetFiles().sheet(parquets.endless(1_000_000), key="a", wanted=None, most=10, limit=10**9)
    (child,) = children() - before

    environment = Path(f"/proc/{child}/environ").read_bytes()

    found.records.close()
    assert b"PYTHONPATH" in environment
    assert b"secret" not in environment
