"""Tables as people keep them: CSV in any dialect, Parquet and JSON Lines become rows of raw values by column.

Files are read by the very code that reads them at ingest, so that training, scoring and serving see the same cells.
"""

from __future__ import annotations

import importlib.util
import json
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from winnow.errors import BadInput
from winnow.formats.parquet import ParquetFiles
from winnow.steps.delimited import Dialect, sheet
from winnow.steps.streams import Content, characters, encoding
from winnow.tables import RESERVED, Cell, Sheet, cell, column_names, text_cell

SUFFIXES = (
    ".csv", ".csv.gz", ".tsv", ".tsv.gz", ".parquet", ".jsonl", ".jsonl.gz", ".ndjson", ".ndjson.gz", ".json",
)  # fmt: skip

LONGEST_RECORD = 10_000_000
"""Characters of a CSV record."""

_EXPANDED = 1 << 37
_MOST_COLUMNS = 100_000
_PARQUET_SECONDS, _PARQUET_MEGABYTES = 3_600, 8_192
_INDEX = re.compile(r"__index_level_\d+__")
"""What pandas calls the numbers of rows, which say nothing about them."""

Row = dict[str, Any]


@dataclass(frozen=True)
class Table:
    """Rows of raw values, what makes cells of them, and why other rows of the file cannot be used."""

    rows: list[Row]
    cell: Callable[..., Cell]
    problems: tuple[str, ...] = ()


def read_table(path: Path, *, say: Callable[[str], None]) -> Table:
    """The table in a file, told by its name's ending; `say` hears what was decided about its form.

    A JSON line `{"row": {...}, "label": ...}`, as datasets have them, gives the row's columns and its label.
    `ValueError` names the file and the remedy.
    """
    if path.name.lower().endswith(".parquet") and importlib.util.find_spec("arro3") is None:
        return _with_pyarrow(path)
    return parse_table(path.name, path.read_bytes(), say=say)


def parse_table(name: str, data: bytes, *, say: Callable[[str], None]) -> Table:
    """The table that a file of this name holds, as `read_table` gives it."""
    lowered = name.lower()
    if lowered.endswith(".parquet"):
        return _with_arro3(name, data)
    if not lowered.endswith(SUFFIXES):
        raise ValueError(f"{name} is no table that is known by its name; give {', '.join(SUFFIXES)}")
    content = Content(data, limit=_EXPANDED)
    try:
        if ".json" in lowered or ".ndjson" in lowered:
            codec, _ = encoding(content)
            text = characters(content, codec).read()
            table = Table(list(_json_rows(text)), cell)
        else:
            table = read_delimited(content, say=lambda fact: say(f"{name}: {fact}"))
    except (BadInput, ValueError) as error:
        raise ValueError(f"{name}: {error}") from error
    if content.damage is not None:
        raise ValueError(f"{name}: {content.damage}")
    return table


def read_delimited(content: Content, *, say: Callable[[str], None]) -> Table:
    """The table in a CSV file with a header; columns without a name, as pandas writes an index, are dropped.

    Raises `BadInput` for a header that no table can have.
    """
    found, dialect = sheet(content, key="the table", longest=LONGEST_RECORD, most=sys.maxsize, say=say)
    places = [place for place, name in enumerate(found.header) if name.strip()]
    names = column_names([found.header[place] for place in places], where="the table", most=_MOST_COLUMNS)
    if len(places) < len(found.header):
        say(f"{len(found.header) - len(places)} columns without a name are left out")
    rows, problems = _told_apart(found, places, names)
    return Table(rows, _text_cell(dialect), tuple(problems))


def _text_cell(dialect: Dialect) -> Callable[..., Cell]:
    if not dialect.decimal_comma:
        return text_cell
    return lambda text, kind=None: text_cell(dialect.plain(text.strip()), kind=kind)


def _json_rows(text: str) -> Iterator[Row]:
    # Not splitlines(): a text may hold characters that it takes for line ends.
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        try:
            body = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise ValueError(f"line {number} is not JSON: {error}") from error
        if not isinstance(body, dict):
            raise ValueError(f"line {number} is no JSON object")
        yield flat(body)


def flat(body: Mapping[str, Any]) -> Row:
    """A JSON object's columns: those of its `row` when it has one, with what its reserved fields say about it.

    >>> flat({"label": "yes", "arm": "active", "row": {" age": 39.0}})
    {'label': 'yes', 'age': 39.0}
    """
    row = body.get("row")
    if isinstance(row, Mapping):
        body = {**{name: value for name, value in body.items() if name in RESERVED}, **row}
    return {name.strip(): value for name, value in body.items()}


def _with_arro3(name: str, data: bytes) -> Table:
    """By the child that reads Parquet at ingest, with more room: a person means well by the own machine."""
    reader = ParquetFiles(seconds=_PARQUET_SECONDS, megabytes=_PARQUET_MEGABYTES)
    try:
        found = reader.sheet(data, key=name, wanted=None, most=_MOST_COLUMNS, limit=_EXPANDED)
    except BadInput as error:
        raise ValueError(f"{name} cannot be read as Parquet: {error}") from error
    rows, problems = _told_apart(found, range(len(found.header)), found.header)
    return Table(rows, cell, tuple(problems))


def _with_pyarrow(path: Path) -> Table:
    """As SageMaker's container has it."""
    try:
        from pyarrow import ArrowException, parquet
    except ImportError as error:
        message = f"{path.name}: reading Parquet needs arro3-io or pyarrow: pip install arro3-io, or give a CSV"
        raise ValueError(message) from error

    try:
        table = parquet.ParquetFile(path).read()
    except (ArrowException, OSError) as error:
        raise ValueError(f"{path.name} cannot be read as Parquet: {str(error).splitlines()[0][:300]}") from error
    columns = {
        name: column.to_pylist()
        for name, column in zip(table.column_names, table.columns, strict=True)
        if not _INDEX.fullmatch(name)
    }
    return Table([dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)], cell)


def _told_apart(found: Sheet, places: Iterable[int], names: Sequence[str]) -> tuple[list[Row], list[str]]:
    """Rows by column, and why there are no others."""
    kept = list(places)
    rows: list[Row] = []
    problems: list[str] = []
    for number, values in found.records:
        if isinstance(values, BadInput):
            problems.append(f"row {number}: {values}")
        else:
            rows.append(dict(zip(names, (values[place] for place in kept), strict=True)))
    return rows, problems
