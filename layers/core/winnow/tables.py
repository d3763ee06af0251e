"""What a row of a table is: columns by name, each cell a number, a text or missing.

Everything that meets a row (ingest, training, the endpoint) comes through here, so that 39, "39" in a CSV file and 39.0
in JSON are one number everywhere, and one content. A format that knows types (JSON, Parquet) keeps them: its text "39"
is text. CSV knows none, so its cells are numbers where they are written like one.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime, time
from decimal import Decimal
from typing import Any, Literal

from winnow.errors import BadInput

Cell = float | str | None
Row = Mapping[str, Cell]
ColumnKind = Literal["number", "category"]

RESERVED = ("id", "subject", "slices", "cost", "captured_at", "label", "winnow")
"""Columns that say something about a row; they are never features."""

MISSING = frozenset({"", "?", "na", "n/a", "nan", "null", "none", "-"})
"""Texts that stand for a value nobody knows, in lower case."""

MAX_NAME = 256
MAX_DIGITS = 15
"""Digits that a float keeps of every whole number. What has more (a card, an account, an id) is text and not a number."""

_NUMBER = re.compile(r"-?(?:(0|[1-9][0-9]*)|(?:0|[1-9][0-9]*)\.[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?")
_LENIENT = re.compile(r"[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?")
_INFINITE = re.compile(r"[+-]?inf(?:inity)?", re.IGNORECASE)


Records = Generator[tuple[int, Sequence[Any] | BadInput], None, None]
"""Rows of cells in the order of the columns, each with its number, or why there is none."""


@dataclass(frozen=True)
class Sheet:
    """What a file with columns holds. Close `records` when not all of them are wanted."""

    header: tuple[str, ...]
    records: Records


def text_cell(text: str, *, kind: ColumnKind | None = None) -> Cell:
    """A cell of a format without types: missing, a number where it is written like one, else its text without borders.

    What begins with a plus or a superfluous zero, or has more than 15 digits, names something (a telephone, a post code,
    a card) and stays text, unless `kind` says that the column holds numbers. Infinities count as missing; true and false
    are spelled as JSON spells them.

    >>> text_cell(" 39 "), text_cell("-1.5e3"), text_cell("N/A"), text_cell("=1+1")
    (39.0, -1500.0, None, '=1+1')
    >>> text_cell("007"), text_cell("4111111111111111"), text_cell("007", kind="number")
    ('007', '4111111111111111', 7.0)
    """
    stripped = text.strip()
    match = _NUMBER.fullmatch(stripped)
    if match and len(match[1] or "") <= MAX_DIGITS:
        return _finite(float(stripped))
    if _is_missing(stripped):
        return None
    if kind == "number" and _LENIENT.fullmatch(stripped):
        return _finite(float(stripped))
    return stripped.lower() if len(stripped) < 6 and stripped.lower() in {"true", "false"} else stripped


def cell(value: Any, *, kind: ColumnKind | None = None) -> Cell:
    """The cell that a value of JSON or Parquet stands for. `kind` number reads numbers out of texts as well.

    Booleans become the texts true and false, dates and times ISO 8601, decimals and whole numbers of more than 15 digits
    text. Raises BadInput for lists, mappings and bytes: a table is flat.

    >>> cell(39), cell(True), cell(float("nan")), cell(" Ulm "), cell("39"), cell("39", kind="number")
    (39.0, 'true', None, 'Ulm', '39', 39.0)
    """
    if value is None:
        return None
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        if kind == "number":
            return text_cell(value, kind=kind)
        stripped = value.strip()
        return None if _is_missing(stripped) else stripped
    if isinstance(value, float):
        return _finite(value)
    if isinstance(value, int):
        return text_cell(str(value), kind=kind)
    if isinstance(value, Decimal):
        if not value.is_finite():
            return None
        return text_cell(format(value, "f"), kind=kind)
    if isinstance(value, datetime | date | time):
        return value.isoformat()
    raise BadInput(f"a cell holds {_TYPES.get(type(value), 'something')}; a table is flat", code="wrong-type")


def as_text(value: Cell) -> str:
    """A cell as categories spell it: numbers without a trailing `.0`, missing as the empty text.

    >>> as_text(39.0), as_text(3.5), as_text("Ulm"), as_text(None)
    ('39', '3.5', 'Ulm', '')
    """
    if value is None:
        return ""
    if isinstance(value, str):
        return value
    return str(int(value)) if value.is_integer() and abs(value) < 10**MAX_DIGITS else repr(value)


def column_names(found: Sequence[str], *, where: str, most: int) -> tuple[str, ...]:
    """The names of a table's columns, stripped; raises BadInput naming the first that no table can have.

    >>> column_names([" age", "city "], where="a.csv", most=10)
    ('age', 'city')
    """
    if len(found) > most:
        raise BadInput(
            f"{where} has {len(found)} columns, more than limits.max_columns ({most}) allows; drop some",
            code="oversized",
        )
    names = tuple(name.strip() for name in found)
    for number, name in enumerate(names, start=1):
        if not name:
            raise BadInput(
                f"{where}: column {number} has no name; name it, or leave it out (pandas: to_csv(..., index=False))",
                code="bad-header",
            )
        if len(name) > MAX_NAME:
            raise BadInput(
                f"{where}: the name of column {number} has {len(name)} characters, {MAX_NAME} at most; shorten it",
                code="bad-header",
            )
    seen: set[str] = set()
    for name in names:
        if name in seen:
            raise BadInput(f"{where} has two columns named {name!r}; rename one", code="bad-header")
        seen.add(name)
    return names


def features(names: Iterable[str], columns: Mapping[str, ColumnKind]) -> tuple[str, ...]:
    """The names that a row's features have: all but the reserved ones, or those of `columns` where it names any.

    >>> features(["id", "age", "city"], {}), features(["id", "age", "city"], {"age": "number"})
    (('age', 'city'), ('age',))
    """
    return tuple(name for name in names if name not in RESERVED and (not columns or name in columns))


def row(
    values: Mapping[str, Any],
    *,
    columns: Mapping[str, ColumnKind],
    read: Callable[..., Cell] = cell,
) -> dict[str, Cell]:
    """The canonical row of a row's values by column name: features only, cells read by `read` (`cell` or `text_cell`).

    Raises BadInput naming the column whose value is no cell.

    >>> row({"id": 7, "age": 39, "city": "n/a"}, columns={})
    {'age': 39.0, 'city': None}
    """
    cells: dict[str, Cell] = {}
    for name in features(values, columns):
        try:
            cells[name] = read(values[name], kind=columns.get(name))
        except BadInput as problem:
            raise BadInput(f"column {name!r}: {problem}", code=problem.code) from problem
    return cells


_TYPES: Mapping[type, str] = {dict: "a mapping", list: "a list", tuple: "a list", bytes: "bytes"}


def _is_missing(stripped: str) -> bool:
    if len(stripped) > len("-infinity"):
        return False
    return stripped.lower() in MISSING or _INFINITE.fullmatch(stripped) is not None


def _finite(number: float) -> float | None:
    return number + 0.0 if math.isfinite(number) else None  # + 0.0: there is one zero
