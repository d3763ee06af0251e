"""The forms an export is written in: a row at a time, whatever the size."""

from __future__ import annotations

import base64
import csv
import gzip
import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any, Literal

import arro3.io
import yaml
from arro3.core import Array, DataType, Field, RecordBatch, RecordBatchReader, Schema, struct_array

from winnow.records import Kind
from winnow.tables import Cell, text_cell
from winnow_cli import label_studio

JsonDict = dict[str, Any]
SAID = ("subject", "slices", "cost", "captured_at", "winnow")
"""What stands behind the label, in the forms that have columns."""

ROWS = 1000
"""Rows of a Parquet row group; images need fewer to fit in memory."""

FORMULAS = ("=", "+", "-", "@", "\t", "\r")
"""How a cell begins that a spreadsheet calculates. Source: OWASP, CSV Injection."""


@dataclass
class Shape:
    """What the rows of an export are. `columns` are the features of a table, and whether each holds numbers or texts."""

    kind: Kind
    task: Literal["classification", "regression"]
    classes: tuple[str, ...]
    columns: Mapping[str, Literal["number", "text"]] = field(default_factory=dict)
    safe: bool = False
    look_like_numbers: int = 0
    """Texts in CSV that a reader will take for numbers or missing values."""

    @property
    def header(self) -> list[str]:
        return ["id", *(self.columns or (self.kind,)), "label", *SAID]

    def cells(self, row: Mapping[str, Any]) -> list[Any]:
        """A row in the order of the header; mappings as JSON."""
        values = {**row, **row["row"]} if self.kind == "table" else row
        return [_flat(values.get(name)) for name in self.header]


def columns_of(rows: Iterable[Mapping[str, Cell]]) -> dict[str, Literal["number", "text"]]:
    """The columns of a table in the order they turn up: numbers where no row has a text.

    >>> columns_of([{"age": 39.0, "city": None}, {"age": None, "city": "Ulm"}])
    {'age': 'number', 'city': 'text'}
    """
    found: dict[str, Literal["number", "text"]] = {}
    for row in rows:
        for name, cell in row.items():
            if found.get(name, "number") == "number":
                found[name] = "text" if isinstance(cell, str) else "number"
    return found


def _flat(value: Any) -> Any:
    return json.dumps(value, ensure_ascii=False) if isinstance(value, dict) else value


def write_jsonl(out: Path, rows: Iterable[JsonDict], shape: Shape) -> None:
    """A JSON object a line; gzip where the name ends in .gz."""
    with gzip.open(out, "wt", encoding="utf-8") if out.suffix == ".gz" else out.open("w", encoding="utf-8") as file:
        for row in rows:
            file.write(json.dumps(row, ensure_ascii=False) + "\n")


def write_csv(out: Path, rows: Iterable[JsonDict], shape: Shape) -> None:
    """Texts quoted, numbers not, which leaves nothing to guess."""
    with out.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, quoting=csv.QUOTE_NONNUMERIC, lineterminator="\n")
        writer.writerow(shape.header)
        for row in rows:
            cells = shape.cells(row)
            if shape.columns:
                features = (cell for cell in cells[1 : 1 + len(shape.columns)] if isinstance(cell, str))
                shape.look_like_numbers += sum(text_cell(cell) != cell for cell in features)
            writer.writerow([_safe(cell) if shape.safe else cell for cell in cells])


def _safe(cell: Any) -> Any:
    return f"'{cell}" if isinstance(cell, str) and cell.startswith(FORMULAS) else cell


def write_label_studio(out: Path, rows: Iterable[JsonDict], shape: Shape) -> None:
    """A JSON array of tasks."""
    with out.open("w", encoding="utf-8") as file:
        file.write("[")
        for number, row in enumerate(rows, start=1):
            task = label_studio.task(number, row, kind=shape.kind)
            file.write(("" if number == 1 else ",") + "\n" + json.dumps(task, ensure_ascii=False))
        file.write("\n]\n")


def write_parquet(out: Path, rows: Iterable[JsonDict], shape: Shape) -> None:
    """One file; images as a struct of `bytes` and `path` and classes as numbers, with Hugging Face's names in the schema."""
    columns = {name: _column(name, shape) for name in shape.header}
    features = {name: made.feature for name, made in columns.items()}
    schema = Schema(
        [Field(name, made.type, nullable=True) for name, made in columns.items()],
        metadata={"huggingface": json.dumps({"info": {"features": features}})},
    )
    size = ROWS // 10 if shape.kind == "image" else ROWS

    def batches() -> Iterator[RecordBatch]:
        rest = iter(rows)
        while group := [shape.cells(row) for row in islice(rest, size)]:
            arrays = [made.array([line[place] for line in group]) for place, made in enumerate(columns.values())]
            yield RecordBatch.from_arrays(arrays, schema=schema)

    arro3.io.write_parquet(RecordBatchReader.from_batches(schema, batches()), out, max_row_group_size=size)


@dataclass(frozen=True)
class _Column:
    """A column of Parquet: its Arrow type, its feature as `datasets` calls it, and how its values become an array."""

    type: DataType
    feature: JsonDict
    array: Callable[[list[Any]], Array]


def _column(name: str, shape: Shape) -> _Column:
    if name == "image" and shape.kind == "image":
        return _Column(_IMAGE, {"_type": "Image"}, _images)
    if name == "label" and shape.task == "classification":
        places = {label: place for place, label in enumerate(shape.classes)}
        return _Column(
            DataType.int64(), {"names": list(shape.classes), "_type": "ClassLabel"},
            lambda values: Array([places.get(value) for value in values], DataType.int64()),
        )  # fmt: skip
    if name in ("label", "cost") or shape.columns.get(name) == "number":
        return _Column(
            DataType.float64(), {"dtype": "float64", "_type": "Value"}, lambda values: Array(values, DataType.float64())
        )
    return _Column(
        DataType.string(), {"dtype": "string", "_type": "Value"},
        lambda values: Array([None if value is None else str(value) for value in values], DataType.string()),
    )  # fmt: skip


_PARTS = [Field("bytes", DataType.binary(), nullable=True), Field("path", DataType.string(), nullable=True)]


def _images(values: list[Any]) -> Array:
    found = [None if value is None else base64.b64decode(value) for value in values]
    none: list[str | None] = [None] * len(values)
    return struct_array([Array(found, DataType.binary()), Array(none, DataType.string())], fields=_PARTS)


_IMAGE = _images([]).type


def write_hf(out: Path, parts: Mapping[str, Iterable[JsonDict]], shape: Shape) -> None:
    """A folder that `datasets.load_dataset` reads: a Parquet file a split, and the card that names the splits."""
    (out / "data").mkdir(parents=True)
    for split, rows in parts.items():
        write_parquet(out / "data" / f"{split}-00000-of-00001.parquet", rows, shape)
    files = [{"split": split, "path": f"data/{split}-*.parquet"} for split in parts]
    features = [_card_feature(name, _column(name, shape).feature) for name in shape.header]
    card = {"configs": [{"config_name": "default", "data_files": files}], "dataset_info": {"features": features}}
    head = yaml.safe_dump(card, allow_unicode=True, sort_keys=False)
    (out / "README.md").write_text(f"---\n{head}---\n\nExported from Winnow, masked.\n", encoding="utf-8")


def _card_feature(name: str, feature: Mapping[str, Any]) -> JsonDict:
    if feature["_type"] == "ClassLabel":
        return {
            "name": name,
            "dtype": {"class_label": {"names": {str(n): one for n, one in enumerate(feature["names"])}}},
        }
    return {"name": name, "dtype": "image" if feature["_type"] == "Image" else feature["dtype"]}


FILES: Mapping[str, tuple[str, Callable[[Path, Iterable[JsonDict], Shape], None]]] = {
    "jsonl": (".jsonl", write_jsonl),
    "csv": (".csv", write_csv),
    "parquet": (".parquet", write_parquet),
    "label-studio": (".json", write_label_studio),
}
"""Format → the ending of its files, and how one is written."""
