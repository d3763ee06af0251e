"""What a dropped object holds: a row a record, whatever the format, with a reason for every row that cannot be used.

Formats: JSON Lines (.jsonl, .ndjson, .json), CSV (.csv, .tsv), plain text (.txt, one record a line), each gzip or not;
Parquet; PNG and JPEG (one record a file). The bytes decide where they can (gzip, Parquet, PNG and JPEG begin with a
signature); the name decides the rest.

What a record is says `task.kind`: the field or column `text`, the field or column `image` (base64; bytes in Parquet), or
for a table every column that is not reserved (`winnow.tables.RESERVED`), in JSON also gathered under `row`.
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from datetime import datetime
from functools import partial
from typing import Any

from winnow.errors import BadInput
from winnow.loop import Limits, Task
from winnow.ports import Parquet
from winnow.records import Kind
from winnow.steps.delimited import Dialect, sheet
from winnow.steps.streams import Content, lines
from winnow.tables import MISSING, RESERVED, Cell, Sheet, as_text, cell, column_names, features, text_cell
from winnow.tables import row as canonical_row

PARQUET = b"PAR1"
_PNG, _JPEG = b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff"
_REFUSED = (
    (b"PK\x03\x04", "a zip archive (or an Excel workbook): save its table as CSV, or drop the files in it one by one"),
    (b"\xd0\xcf\x11\xe0", "an old Excel workbook: save its table as CSV"),
    (b"Obj\x01", "Avro: write it as Parquet"),
    (b"ORC", "ORC: write it as Parquet"),
    (b"ARROW1", "an Arrow file: write it as Parquet"),
)
_JSON_LINES = (".jsonl", ".ndjson", ".json")
_CSV = (".csv", ".tsv")
FORMATS = (*_JSON_LINES, *_CSV, ".txt", ".parquet", ".png", ".jpg", ".jpeg")
"""Endings of names that are read; `.gz` may follow those of texts."""

LONGEST = 2_000_000
"""Characters of a line of JSON or of a record of CSV."""

LONGEST_IMAGE = 32_000_000
"""The same where an image stands in it, in base64. A larger one is better dropped as a file of its own."""

LONGEST_PROVENANCE = 20_000
"""Characters of what a row may say about its label's past."""

MOST_VALUES = 250_000
"""Values in one line of JSON: each may cost fifty times its three characters once it is parsed."""

MOST_CELLS = 20_000_000
"""Cells of one object: a minute or two of reading, which is what a hop's time allows."""

_READABLE = ".jsonl, .csv, .txt (each also .gz), .parquet, .png or .jpg"


@dataclass(frozen=True)
class Row:
    """One row: its payload and what came beside it, or why it cannot be used."""

    number: int
    text: str | None = None
    image: bytes | None = None
    row: Mapping[str, Cell] | None = None
    fields: Mapping[str, Any] = field(default_factory=dict)
    problem: BadInput | None = None


@dataclass(frozen=True)
class _Reading:
    """What every format needs to know to read an object."""

    key: str
    task: Task
    limits: Limits
    parquet: Parquet
    say: Callable[[str], None]
    names: Mapping[str, str] = field(default_factory=dict)
    """What the file calls a field → what it means."""

    @property
    def bytes(self) -> int:
        """The most an object may have."""
        return self.limits.max_object_mb * 1_000_000

    @property
    def longest(self) -> int:
        return LONGEST_IMAGE if self.task.kind == "image" else LONGEST

    @property
    def lines(self) -> int:
        """The most lines that are looked at: texts in CSV may have several, and empty ones are no rows."""
        return 30 * self.limits.max_rows

    @property
    def wanted(self) -> frozenset[str] | None:
        """The columns that are looked at; None for all."""
        if self.task.kind == "table":
            return frozenset(self.task.columns).union(RESERVED, self.names) if self.task.columns else None
        return frozenset({self.task.kind, *RESERVED, *self.names})

    def meant(self, found: Sequence[str]) -> list[str]:
        """What fields mean. Raises BadInput when two of them mean the same."""
        meant = [self.names.get(name, name) for name in found]
        for name, target in self.names.items():
            if name in found and meant.count(target) > 1:
                raise BadInput(
                    f"{self.key} has a field {target!r} beside {name!r}, which stands for it; rename or remove one",
                    code="duplicate-column",
                )
        return meant


def rows(
    data: bytes,
    *,
    key: str,
    task: Task,
    limits: Limits,
    parquet: Parquet,
    say: Callable[[str], None] = lambda fact: None,
    names: Mapping[str, str] | None = None,
) -> Iterator[Row]:
    """The rows of an object; what follows a damaged place becomes one row with the reason.

    `say` hears what was decided about the object that its reader should know, such as another encoding than UTF-8.
    `names` says of fields and columns that are called otherwise what they are, such as `{"sentiment": "label"}`.
    Raises BadInput when the object as a whole cannot be read: empty, unknown, or of another kind.

    >>> found = rows(b"one\\n\\ntwo", key="a.txt", task=Task(), limits=Limits(), parquet=None)
    >>> [row.text for row in found]
    ['one', 'two']
    """
    reading = _Reading(key, task, limits, parquet, say, names or {})
    if not data:
        raise BadInput(f"{key} is empty", code="empty")
    cells = 0
    with closing(_rows(data, reading)) as found:
        for count, row in enumerate(found):
            cells += len(row.row or ())
            if count >= limits.max_rows or cells > MOST_CELLS:
                bound = f"{MOST_CELLS} cells" if cells > MOST_CELLS else f"limits.max_rows ({limits.max_rows}) rows"
                yield Row(row.number, problem=BadInput(
                    f"row {row.number} and all that follow: an object has at most {bound}; split it", code="oversized"
                ))  # fmt: skip
                return
            yield row


def _rows(data: bytes, reading: _Reading) -> Generator[Row, None, None]:
    key, kind = reading.key, reading.task.kind
    if data.startswith((_PNG, _JPEG)):
        _require(kind == "image", f"{key} is an image but task.kind is {kind}; drop it into a stack for images")
        yield Row(1, image=data)
        return
    if data.startswith((PARQUET, b"PARE")):
        yield from _parquet_rows(data, reading)
        return
    content = Content(data, limit=reading.bytes)
    name = key.lower()
    if content.is_gzip:
        name = name.removesuffix(".gz")
        if content.first(4) == PARQUET:
            raise BadInput(
                f"{key} is Parquet inside gzip; upload it as it was, it is compressed already", code="unknown-format"
            )
    for signature, what in _REFUSED:
        if data.startswith(signature):
            raise BadInput(f"{key} is {what}", code="unknown-format")
    if name.endswith(_JSON_LINES):
        yield from _held(_json_rows(content, reading), reading)
    elif name.endswith(_CSV):
        yield from _held(_csv_rows(content, reading), reading)
    elif name.endswith(".txt"):
        _require(kind == "text", f"{key} is text but task.kind is {kind}; drop it into a stack for text")
        yield from _held(_text_rows(content, reading), reading)
    elif name.endswith(".parquet"):
        raise BadInput(f"{key} does not begin as Parquet does; it is damaged, upload it again", code="truncated")
    else:
        raise BadInput(f"{key} has a format that is not read; use {_READABLE}", code="unknown-format")


def _require(right: bool, message: str) -> None:
    if not right:
        raise BadInput(message, code="wrong-kind")


def _held(found: Iterator[Row], reading: _Reading) -> Iterator[Row]:
    """`found`, of which there must be one."""
    empty = True
    for row in found:
        empty = False
        yield row
    if empty:
        raise BadInput(f"{reading.key} holds no rows", code="empty")


# ---------------------------------------------------------------------------------------------- lines: text and JSON


def _text_rows(content: Content, reading: _Reading) -> Iterator[Row]:
    for number, line in lines(content, longest=reading.longest, most=reading.lines):
        text = line if isinstance(line, BadInput) else _decoded(number, line)
        yield Row(number, problem=text) if isinstance(text, BadInput) else Row(number, text=text.rstrip("\r"))


def _json_rows(content: Content, reading: _Reading) -> Iterator[Row]:
    for number, line in lines(content, longest=reading.longest, most=reading.lines):
        text = line if isinstance(line, BadInput) else _decoded(number, line)
        yield Row(number, problem=text) if isinstance(text, BadInput) else _json_row(number, text, reading)


def _decoded(number: int, line: bytes) -> str | BadInput:
    if b"\0" in line:
        return BadInput(f"row {number} is not UTF-8 (NUL bytes, as UTF-16 has them); re-encode it", code="encoding")
    try:
        return line.decode("utf-8")
    except UnicodeDecodeError as error:
        return BadInput(f"row {number} is not UTF-8 (byte {error.start}); re-encode it", code="encoding")


def _json_row(number: int, text: str, reading: _Reading) -> Row:
    try:
        if text.count(",") + text.count("[") + text.count("{") > MOST_VALUES:
            raise BadInput(f"row {number} holds more than {MOST_VALUES} values; split it", code="oversized")
        body = json.loads(text, object_pairs_hook=_unambiguous)
        if "\\ud" in text or "\\uD" in text:
            json.dumps(body, ensure_ascii=False).encode()  # half of an escaped pair could not be stored
        if not isinstance(body, dict):
            raise BadInput(f"row {number} is not a JSON object", code="wrong-type")
        if reading.names:
            body = dict(zip(reading.meant(list(body)), body.values(), strict=True))
        return _record(number, body, _json_cells(number, body, reading), reading)
    except BadInput as problem:
        return Row(number, problem=problem)
    except UnicodeEncodeError:
        half = BadInput(f"row {number} holds half of a surrogate pair; escape the whole character", code="encoding")
        return Row(number, problem=half)
    except (ValueError, RecursionError) as error:
        return Row(number, problem=BadInput(f"row {number} is not JSON: {error}", code="malformed-row"))


def _unambiguous(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """A JSON object whose names are unique: readers do not agree on which of two values counts."""
    body = dict(pairs)
    if len(body) < len(pairs):
        seen: set[str] = set()
        for name, _ in pairs:
            if name in seen:
                raise ValueError(f"{name!r} stands in one object twice")
            seen.add(name)
    return body


def _json_cells(number: int, body: Mapping[str, Any], reading: _Reading) -> Mapping[str, Any]:
    """Where a line's columns stand: under `row`, or beside the reserved names."""
    if reading.task.kind != "table":
        return body
    cells = body["row"] if isinstance(body.get("row"), dict) else body
    names = column_names(list(cells), where=f"row {number}", most=reading.limits.max_columns)
    return dict(zip(names, cells.values(), strict=True))


# ---------------------------------------------------------------------------------------------- columns: CSV, Parquet


def _csv_rows(content: Content, reading: _Reading) -> Iterator[Row]:
    found, dialect = sheet(content, key=reading.key, longest=reading.longest, most=reading.lines, say=reading.say)
    if reading.task.kind == "table" and dialect.decimal_comma:
        reading.say("numbers are written with a decimal comma")
    yield from _sheet_rows(found, reading, dialect=dialect)


def _parquet_rows(data: bytes, reading: _Reading) -> Iterator[Row]:
    found = reading.parquet.sheet(
        data, key=reading.key, wanted=reading.wanted, most=reading.limits.max_columns, limit=reading.bytes
    )
    yield from _held(_sheet_rows(found, reading), reading)


def _sheet_rows(found: Sheet, reading: _Reading, *, dialect: Dialect | None = None) -> Iterator[Row]:
    """`dialect` when the cells are texts that know no types."""
    names = reading.meant(column_names(found.header, where=reading.key, most=reading.limits.max_columns))
    _check_header(names, reading)
    read: Callable[..., Cell] = cell if dialect is None else partial(_text_cell, dialect=dialect)
    with closing(found.records) as records:
        for number, values in records:
            if isinstance(values, BadInput):
                yield Row(number, problem=values)
                continue
            try:
                cells = dict(zip(names, values, strict=True))
                body = (
                    cells
                    if dialect is None
                    else {**cells, **_typed(cells, dialect, numeric=reading.task.type == "regression")}
                )
                yield _record(number, body, cells, reading, read=read)
            except BadInput as problem:
                yield Row(number, problem=problem)


def _check_header(names: Sequence[str], reading: _Reading) -> None:
    kind, key = reading.task.kind, reading.key
    known = ", ".join(names[:10]) + (", ..." if len(names) > 10 else "")
    if kind != "table":
        if kind not in names:
            raise BadInput(
                f"{key} has no column {kind!r} (its columns: {known}) and task.kind is {kind}; rename the column, or set "
                "task.kind: table",
                code="wrong-kind",
            )
        return
    if all(isinstance(text_cell(name), float) for name in names):
        raise BadInput(
            f"{key} begins with numbers ({known}) where the names of its columns belong; add a header",
            code="bad-header",
        )
    found = features(names, reading.task.columns)
    if not found:
        wanted = (
            f"none of task.columns ({', '.join(list(reading.task.columns)[:10])})"
            if reading.task.columns
            else "no feature"
        )
        raise BadInput(f"{key} has {wanted}; its columns: {known}", code="bad-header")
    absent = [name for name in reading.task.columns if name not in names]
    if absent:
        reading.say(f"columns {', '.join(absent[:10])} of task.columns are not there and count as missing")


def _text_cell(text: str, *, kind: Any = None, dialect: Dialect) -> Cell:
    return text_cell(dialect.plain(text.strip()) if dialect.decimal_comma else text, kind=kind)


def _typed(cells: Mapping[str, str], dialect: Dialect, *, numeric: bool) -> dict[str, Any]:
    """The reserved columns of a format without types, as JSON would hold them; empty ones are absent."""
    typed: dict[str, Any] = {}
    for name in RESERVED:
        text = cells.get(name, "").strip()
        typed[name] = text or None
    for name in ("cost", "captured_at"):
        if typed[name] is not None and typed[name].lower() in MISSING:
            typed[name] = None
    if typed["cost"] is not None:
        typed["cost"] = _text_cell(typed["cost"], kind="number", dialect=dialect)
    if typed["label"] is not None and numeric:
        typed["label"] = dialect.plain(typed["label"])
    return typed


# ---------------------------------------------------------------------------------------------- what a row says


def _record(
    number: int,
    body: Mapping[str, Any],
    cells: Mapping[str, Any],
    reading: _Reading,
    *,
    read: Callable[..., Cell] = cell,
) -> Row:
    """A row of whatever format, from its reserved names in `body` and its columns in `cells`. Raises BadInput."""
    fields = _fields(number, body, reading.task)
    kind: Kind = reading.task.kind
    if kind == "table":
        try:
            found = canonical_row(cells, columns=reading.task.columns, read=read)
        except BadInput as problem:
            raise BadInput(f"row {number}: {problem}", code=problem.code) from problem
        return Row(number, row=found, fields=fields)
    value = body.get(kind)
    if kind == "image" and isinstance(value, bytes):
        return Row(number, image=value, fields=fields)
    if not isinstance(value, str):
        what = "a string" if kind == "text" else "a base64 string"
        raise BadInput(
            f"row {number} needs {what} under {kind!r}", code="missing-payload" if value is None else "wrong-type"
        )
    if kind == "text":
        return Row(number, text=value, fields=fields)
    try:
        return Row(number, image=base64.b64decode(value, validate=True), fields=fields)
    except (binascii.Error, ValueError) as error:
        raise BadInput(f"row {number}: 'image' is not base64: {error}", code="wrong-type") from error


def _fields(number: int, body: Mapping[str, Any], task: Task) -> dict[str, Any]:
    """What came beside the payload, checked. Fields nobody asked for are left behind: the pool keeps the original."""
    fields: dict[str, Any] = {}
    for name, target in (("id", "external_id"), ("subject", "subject")):
        value = body.get(name)
        if isinstance(value, float) and value.is_integer():
            value = int(value)  # how pandas writes whole numbers beside missing ones
        if value is not None:
            if isinstance(value, bool) or not isinstance(value, str | int) or len(str(value)) > 256:
                raise BadInput(f"row {number}: {name!r} must be a string of at most 256 characters", code="wrong-type")
            fields[target] = str(value)
    slices = _mapping(body.get("slices"))
    if slices is not None:
        if not isinstance(slices, dict) or not all(isinstance(value, str) for value in slices.values()):
            raise BadInput(f"row {number}: 'slices' must map names to strings", code="wrong-type")
        fields["slices"] = slices
    cost = body.get("cost")
    if cost is not None:
        if isinstance(cost, bool) or not isinstance(cost, int | float) or not 0 < cost < 10_000:
            raise BadInput(f"row {number}: 'cost' must be minutes above 0", code="wrong-type")
        fields["cost"] = float(cost)
    captured = body.get("captured_at")
    if captured is not None:
        try:
            datetime.fromisoformat(captured)
        except (TypeError, ValueError) as error:
            raise BadInput(f"row {number}: 'captured_at' must be an ISO 8601 time", code="wrong-type") from error
        fields["captured_at"] = captured
    provenance = _mapping(body.get("winnow"))
    if provenance is not None:
        if not isinstance(provenance, dict) or len(json.dumps(provenance)) > LONGEST_PROVENANCE:
            raise BadInput(f"row {number}: 'winnow' is what an export wrote there, unchanged", code="wrong-type")
        fields["winnow"] = provenance
    label = body.get("label")
    if label is not None:
        known = _number_label(number, label, task) if task.type == "regression" else _class_label(number, label, task)
        if known is not None:
            fields["label"] = known
    return fields


def _mapping(value: Any) -> Any:
    """CSV and Parquet may hold a mapping as JSON text; Parquet's rows leave out what a row has not."""
    if isinstance(value, str):
        try:
            return json.loads(value)
        except (ValueError, RecursionError):
            return value
    if isinstance(value, dict):
        return {name: one for name, one in value.items() if one is not None}
    return value


def _class_label(number: int, label: Any, task: Task) -> str | None:
    """The class that a label names; None for one that says that nobody knows."""
    if isinstance(label, bool):
        spelled = ["true", "True", "1"] if label else ["false", "False", "0"]
    elif isinstance(label, int | float):
        spelled = [str(label), *([str(int(label))] if isinstance(label, float) and label.is_integer() else [])]
    elif isinstance(label, str):
        spelled = [label.strip(), as_text(text_cell(label))]
    else:
        raise BadInput(f"row {number}: 'label' must be the name of a class", code="wrong-type")
    found = next((name for name in spelled if name in task.classes), None)
    if found is None and spelled[0].lower() not in MISSING:
        classes = ", ".join(task.classes[:10]) + (", ..." if len(task.classes) > 10 else "")
        raise BadInput(
            f"row {number}: label {spelled[0][:100]!r} is none of task.classes ({classes})", code="unknown-class"
        )
    return found


def _number_label(number: int, label: Any, task: Task) -> float | None:
    if isinstance(label, bool) or not isinstance(label, int | float | str):
        raise BadInput(f"row {number}: 'label' must be a number", code="wrong-type")
    if isinstance(label, str) and label.strip().lower() in MISSING:
        return None
    value = cell(label, kind="number")
    if not isinstance(value, float):
        raise BadInput(f"row {number}: label {str(label)[:100]!r} is not a finite number", code="bad-label")
    lowest, highest = task.minimum, task.maximum
    if (lowest is not None and value < lowest) or (highest is not None and value > highest):
        raise BadInput(
            f"row {number}: label {value} is outside task.minimum ({lowest}) to task.maximum ({highest})",
            code="bad-label",
        )
    return value
