"""Tables in whatever form people keep them: the same rows come out, or a reason."""

from __future__ import annotations

import gzip
from pathlib import Path
from typing import Any

import pytest
import table_files
from table_files import Table, read_delimited, read_table

from winnow.errors import BadInput
from winnow.steps.streams import Content

ROWS = [{"city": "Köln", "price": 1.5, "note": 'a, "b"'}, {"city": "Ulm", "price": 2.0, "note": None}]
COMMAS = 'city,price,note\nKöln,1.5,"a, ""b"""\nUlm,2,\n'


def canonical(table: Table) -> list[dict[str, Any]]:
    return [{name: table.cell(value) for name, value in values.items()} for values in table.rows]


def read(data: bytes) -> tuple[Table, list[str]]:
    said: list[str] = []
    return read_delimited(Content(data, limit=1_000), say=said.append), said


@pytest.mark.parametrize(
    "data",
    [
        COMMAS.encode(),
        COMMAS.encode("utf-8-sig"),
        COMMAS.encode("utf-16"),
        COMMAS.encode("cp1252"),
        COMMAS.replace("\n", "\r\n").encode(),
        gzip.compress(COMMAS.encode(), mtime=0),
        'city, price, note\nKöln, 1.5, "a, ""b"""\nUlm, 2,\n'.encode(),
        'city;price;note\nKöln;1,5;a, "b"\nUlm;2;\n'.encode(),
        'city\tprice\tnote\nKöln\t1,5\ta, "b"\nUlm\t2\t\n'.encode(),
        'city|price|note\nKöln|1.5|a, "b"\nUlm|2|\n'.encode(),
        'sep=;\ncity;price;note\nKöln;1,5;"a, ""b"""\nUlm;2;\n'.encode(),
        "'city','price','note'\n'Köln','1.5','a, \"b\"'\n'Ulm','2',''\n".encode(),
        'city,price,note\nKöln,1.5,"a, \\"b\\""\nUlm,2,\n'.encode(),
    ],
    ids=str,
)
def test_one_table_in_many_dialects(data: bytes) -> None:
    assert canonical(read(data)[0]) == ROWS


def test_an_index_without_a_name_is_dropped() -> None:
    table, said = read(b",city\n0,Ulm\n1,Bonn\n")

    assert table.rows == [{"city": "Ulm"}, {"city": "Bonn"}]
    assert said == ["1 columns without a name are left out"]


def test_lines_that_cannot_be_read_are_told_apart() -> None:
    table, _ = read(b"a,b\n1,2\n1,2,3\n4,5\n")

    assert canonical(table) == [{"a": 1.0, "b": 2.0}, {"a": 4.0, "b": 5.0}]
    assert len(table.problems) == 1
    assert table.problems[0].startswith("row 3: ")


@pytest.mark.parametrize(
    ("data", "message"), [(b"", "holds no rows"), (b"a,a\n1,2\n", "has two columns named 'a'; rename one")]
)
def test_what_is_no_table_says_why(data: bytes, message: str) -> None:
    with pytest.raises(BadInput) as refused:
        read(data)

    assert message in str(refused.value)


def test_files_are_told_by_their_names(tmp_path: Path) -> None:
    (tmp_path / "a.csv.gz").write_bytes(gzip.compress(b"x,y\n1,2\n"))
    (tmp_path / "a.TSV").write_bytes(b"x\ty\n1\t2\n")
    (tmp_path / "a.jsonl").write_text('{"x": 1, "y": "2"}\n\n{"id": "c", "row": {"x": 3.5}, "label": "a"}\n')

    packed, tabs, lines = (read_table(tmp_path / name, say=print) for name in ("a.csv.gz", "a.TSV", "a.jsonl"))

    assert packed.rows == tabs.rows == [{"x": "1", "y": "2"}]
    assert lines.rows == [{"x": 1, "y": "2"}, {"id": "c", "label": "a", "x": 3.5}]
    assert [packed.cell("2"), lines.cell("2")] == [2.0, "2"]  # JSON knows what is text


@pytest.mark.parametrize(
    ("name", "data", "message"),
    [
        ("a.csv.gz", gzip.compress(b"a,b\n" + b"1,2\n" * 5_000, mtime=0)[:-12], "a.csv.gz: the gzip stream ends early"),
        ("a.csv", b"", "a.csv: the table holds no rows"),
        ("a.jsonl", b"[1]\n", "a.jsonl: line 1 is no JSON object"),
        ("a.jsonl", b"{}\n{\n", "a.jsonl: line 2 is not JSON"),
        ("a.xlsx", b"PK", "no table that is known by its name; give .csv"),
    ],
)
def test_damaged_files_are_named(tmp_path: Path, name: str, data: bytes, message: str) -> None:
    (tmp_path / name).write_bytes(data)

    with pytest.raises(ValueError) as refused:
        read_table(tmp_path / name, say=print)

    assert message in str(refused.value)


def write_parquet(path: Path) -> None:
    pytest.importorskip("arro3", reason="arro3 writes the Parquet file of this test")
    from tests import parquets

    columns = {"age": [39, 40], "x": [1.5, None], "city": ["Ulm", None], "member": [True, False]}
    path.write_bytes(parquets.file({**columns, "__index_level_0__": [0, 1]}))


@pytest.mark.parametrize("package", ["arro3", "pyarrow"])
def test_parquet_by_either_reader(tmp_path: Path, package: str, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip(package, reason=f"{package} is not installed here")
    write_parquet(tmp_path / "a.parquet")
    monkeypatch.setattr(table_files.importlib.util, "find_spec", lambda name: name == package or None)

    table = read_table(tmp_path / "a.parquet", say=print)

    assert canonical(table) == [
        {"age": 39.0, "x": 1.5, "city": "Ulm", "member": "true"},
        {"age": 40.0, "x": None, "city": None, "member": "false"},
    ]
    assert table.problems == ()


@pytest.mark.parametrize("package", ["arro3", "pyarrow"])
def test_damaged_parquet_is_refused(tmp_path: Path, package: str, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip(package, reason=f"{package} is not installed here")
    write_parquet(tmp_path / "a.parquet")
    data = (tmp_path / "a.parquet").read_bytes()
    (tmp_path / "a.parquet").write_bytes(data[: len(data) // 2])
    monkeypatch.setattr(table_files.importlib.util, "find_spec", lambda name: name == package or None)

    with pytest.raises(ValueError, match=r"a\.parquet cannot be read as Parquet"):
        read_table(tmp_path / "a.parquet", say=print)


def test_without_a_reader_parquet_names_the_remedy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(table_files.importlib.util, "find_spec", lambda _name: None)

    with pytest.raises(ValueError, match="needs arro3-io or pyarrow: pip install arro3-io"):
        read_table(tmp_path / "a.parquet", say=print)
