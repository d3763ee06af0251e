"""Prints the rows of a Parquet file that nobody trusts, as JSON Lines: what `winnow.formats.parquet` runs as a child.

    python -m winnow.formats.parquet_rows FILE [--wanted JSON] [--most N] [--seconds S] [--megabytes M]

The first line is `{"header": [...], "pictures": bool}`, then comes an array a row, at last `{"end": true}`;
`{"problem": ..., "code": ...}` stands in for whatever cannot be read. With pictures the column `image` holds
`{"bytes": n}`, and the n bytes follow the line.
"""

from __future__ import annotations

import argparse
import json
import math
import re
import resource
import sys
from collections.abc import Callable, Collection, Iterator
from datetime import UTC, datetime, time, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any, BinaryIO

import arro3.io
from arro3.core import DataType, Schema

from winnow.errors import BadInput
from winnow.tables import MAX_DIGITS, column_names

BATCH = 128
IMAGE_BATCH = 8
"""Rows decoded at once: pictures are large."""

LONGEST = 1_000_000
"""Characters of a text before its row is refused here already."""

_PANIC = re.compile(r"on an `Err` value: (?:\w+\()*\"?([^\"{\[]+)")
_SECONDS = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}
_INDEX = re.compile(r"__index_level_\d+__")
"""What pandas calls the numbers of rows, which say nothing about them."""

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

Convert = Callable[[Any], Any]


def _plain(value: Any) -> Any:
    return value


def _text(value: str) -> str:
    if len(value) > LONGEST:
        raise BadInput(f"holds a text of {len(value)} characters, more than {LONGEST}; shorten it", code="oversized")
    return value


def _number(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _decimal(value: Decimal) -> int | float | str:
    """As a number when a float keeps all of it."""
    if len(value.as_tuple().digits) > MAX_DIGITS:
        return format(value, "f")
    return int(value) if value == value.to_integral_value() else float(value)


def _moment(unit: int, zone: bool) -> Convert:
    """Timestamps come as counts since 1970: neither a time zone database nor Python's range of years is needed to read them."""

    def convert(value: int) -> str:
        try:
            moment = _EPOCH + timedelta(seconds=value // unit, microseconds=value % unit * 10**6 // unit)
        except OverflowError as error:
            raise BadInput("holds a time that no calendar has", code="wrong-type") from error
        return moment.isoformat() if zone else moment.replace(tzinfo=None).isoformat()

    return convert


def _bytes_of(value: Any) -> bytes:
    found = value.get("bytes") if isinstance(value, dict) else value
    if not isinstance(found, bytes):
        raise BadInput("holds only the path of an image; put the image's bytes into the file", code="missing-payload")
    return found


def _converter(kind: DataType) -> tuple[DataType | None, Convert] | None:
    """What to cast a column of plain values to before it is read, and what to make of each of its values."""
    if DataType.is_dictionary(kind):
        values = kind.value_type
        found = _converter(values) if values is not None else None
        return found and (found[0] or values, found[1])
    if DataType.is_timestamp(kind):
        return DataType.int64(), _moment(_SECONDS[kind.time_unit or "us"], kind.tz is not None)
    if DataType.is_date64(kind):
        return DataType.date32(), str
    for fits, convert in _PLAIN:
        if fits(kind):
            return None, convert
    return None


def _read_as(name: str, kind: DataType, classes: list[str] | None) -> tuple[DataType | None, Convert]:
    """Raises BadInput naming the column that is no column of a table."""
    if name == "image" and (DataType.is_struct(kind) or _is_binary(kind)):
        return None, _bytes_of
    if name == "slices" and (DataType.is_struct(kind) or DataType.is_map(kind)):
        return None, dict
    if name == "label" and classes is not None and DataType.is_integer(kind):
        return None, lambda value: classes[value] if 0 <= value < len(classes) else value
    found = _converter(kind)
    if found is not None:
        return found
    what = "bytes" if _is_binary(kind) else "nested" if DataType.is_nested(kind) else "of a type that is not read"
    raise BadInput(
        f"column {name!r} is {what} ({_name(kind)}) and a table is flat: make plain columns of it, or leave it out "
        "(task.columns names those that are read)",
        code="nested",
    )


_PLAIN: tuple[tuple[Callable[[DataType], bool], Convert], ...] = (
    (DataType.is_string, _text),
    (DataType.is_large_string, _text),
    (DataType.is_string_view, _text),
    (DataType.is_floating, _number),
    (DataType.is_decimal, _decimal),
    (DataType.is_date, str),
    (DataType.is_time, time.isoformat),
    (DataType.is_duration, timedelta.total_seconds),
    (DataType.is_integer, _plain),
    (DataType.is_boolean, _plain),
    (DataType.is_null, _plain),
)


def _is_binary(kind: DataType) -> bool:
    return (
        DataType.is_binary(kind) or DataType.is_large_binary(kind) or DataType.is_binary_view(kind)
        or DataType.is_fixed_size_binary(kind)
    )  # fmt: skip


def _name(kind: DataType) -> str:
    return re.sub(r"^arro3\.core\.DataType<(.*)>\s*$", r"\1", repr(kind), flags=re.DOTALL)[:80]


def _class_names(schema: Schema) -> list[str] | None:
    """Hugging Face's datasets write classes as numbers and their names into the schema."""
    try:
        features = json.loads(schema.metadata_str["huggingface"])["info"]["features"]
        names = features["label"]["names"]
    except (KeyError, TypeError, ValueError):
        return None
    return names if isinstance(names, list) and all(isinstance(name, str) for name in names) else None


def rows(file: str, *, wanted: Collection[str] | None, most: int) -> Iterator[dict[str, Any] | list[Any]]:
    """The lines to print, images as bytes. Raises BadInput for the file as a whole."""
    pictures = wanted is not None and "image" in wanted
    reader = arro3.io.read_parquet(file, batch_size=IMAGE_BATCH if pictures else BATCH)
    schema = reader.schema
    names = column_names(schema.names, where="the file", most=most)
    types = schema.types
    classes = _class_names(schema)
    kept = {
        place: (name, *_read_as(name, types[place], classes))
        for place, name in enumerate(names)
        if (wanted is None or name in wanted) and not _INDEX.fullmatch(name)
    }
    yield {
        "header": [name for name, _, _ in kept.values()],
        "pictures": any(convert is _bytes_of for _, _, convert in kept.values()),
    }
    for batch in reader:
        columns = []
        for place, (name, cast, convert) in kept.items():
            column = batch.column(place)
            values = (column if cast is None else column.cast(cast)).to_pylist()
            columns.append([_cell(name, value, convert) for value in values])
        for row in zip(*columns, strict=True) if columns else [()] * batch.num_rows:
            problem = next((cell for cell in row if isinstance(cell, BadInput)), None)
            yield list(row) if problem is None else {"problem": str(problem), "code": problem.code}


def _cell(name: str, value: Any, convert: Convert) -> Any:
    try:
        return None if value is None else convert(value)
    except BadInput as problem:
        return BadInput(f"column {name!r} {problem}", code=problem.code)


def _print(line: dict[str, Any] | list[Any], out: BinaryIO) -> None:
    pictures = [cell for cell in line if isinstance(cell, bytes)] if isinstance(line, list) else []
    if pictures:
        line = [{"bytes": len(cell)} if isinstance(cell, bytes) else cell for cell in line]
    out.write(json.dumps(line, allow_nan=False).encode("ascii") + b"\n")
    for picture in pictures:
        out.write(picture)


def _limit(*, seconds: int, megabytes: int) -> None:
    """Budget this process, counted from what it uses now: the libraries are loaded already."""
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    budget = {
        resource.RLIMIT_AS: pages * resource.getpagesize() + (megabytes << 20),
        resource.RLIMIT_CPU: seconds,
        resource.RLIMIT_FSIZE: 1 << 20,  # what a panic says
        resource.RLIMIT_CORE: 0,
    }
    for which, limit in budget.items():
        _, hard = resource.getrlimit(which)
        soft = limit if hard == resource.RLIM_INFINITY else min(limit, hard)
        # At the soft limit of time comes SIGXCPU, which says why; at the hard one the kernel only kills.
        resource.setrlimit(which, (soft, hard if which == resource.RLIMIT_CPU else soft))


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Print the rows of a Parquet file.")
    parser.add_argument("file")
    parser.add_argument("--wanted", type=json.loads, default=None, help="JSON list of columns (default: all)")
    parser.add_argument("--most", type=int, default=1000, help="columns the file may have (default: 1000)")
    parser.add_argument("--seconds", type=int, default=120, help="processor time (default: 120)")
    parser.add_argument("--megabytes", type=int, default=256, help="memory beyond the libraries (default: 256)")
    given = parser.parse_args(argv)
    _limit(seconds=given.seconds, megabytes=given.megabytes)
    out = sys.stdout.buffer
    try:
        for line in rows(given.file, wanted=given.wanted, most=given.most):
            _print(line, out)
    except BadInput as problem:
        _print({"problem": str(problem), "code": problem.code}, out)
    except MemoryError:
        return 3
    # Rust's panics derive from BaseException; whatever it is, it is the file's fault and this process ends.
    except BaseException as error:  # noqa: BLE001
        said = _PANIC.search(str(error))
        why = said[1].strip() if said else f"{error}".partition("\n")[0] or type(error).__name__
        _print({"problem": f"the file is damaged: {why[:200]}", "code": "truncated"}, out)
    _print({"end": True}, out)
    out.flush()
    return 0


if __name__ == "__main__":
    sys.exit(main())
