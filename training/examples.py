"""Labeled examples, from the job's channel or from the files people keep."""

from __future__ import annotations

import base64
import binascii
import csv
import gzip
import io
import json
import math
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from table_files import SUFFIXES, read_table

from winnow.errors import BadInput
from winnow.tables import RESERVED, Cell, as_text, row, text_cell

Payload = str | bytes | npt.NDArray[np.uint8] | Mapping[str, Cell]

_TABLES = (".jsonl", ".jsonl.gz", ".json", ".csv", ".csv.gz")
IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg")
MOST_PROBLEMS = 0.1
"""Share of a table's lines that may be unreadable; more of them say that something else is wrong."""

_WHOLE = re.compile(r"-?(0|[1-9][0-9]{0,14})\.0+")
"""How pandas writes whole numbers of a column with gaps."""

_ID_FIELDS = ("file", "filename", "image", "path", "id")
_LABEL_FIELDS = ("class_name", "label", "class")


@dataclass(frozen=True)
class Example:
    """A labeled text (str), encoded image (bytes), decoded image (uint8 array) or table row (cells by column).

    `label` is a class, or a number (float); `cluster` names near-duplicates.
    """

    id: str
    payload: Payload
    label: str | float
    cluster: str
    arm: str = "imported"
    batch: int = 0
    encoded: npt.NDArray[np.float32] | None = field(default=None, compare=False, repr=False)
    """What an encoder makes of the payload, (E,)."""

    @property
    def row(self) -> Mapping[str, Cell]:
        """The payload of a table's example."""
        assert isinstance(self.payload, Mapping)  # the kind is table
        return self.payload

    @property
    def request(self) -> Any:
        """The payload as a model takes it."""
        return {"row": self.payload} if isinstance(self.payload, Mapping) else self.payload


def read_channel(folder: Path, *, kind: str, task: str = "classification") -> list[Example]:
    """The `train` channel: JSON Lines as `plan_training` writes them. Raises `ValueError` naming the line."""
    files = sorted(path for path in folder.iterdir() if path.name.endswith((".jsonl", ".jsonl.gz")))
    if not files:
        raise ValueError(f"channel train holds no .jsonl or .jsonl.gz file in {folder}")
    examples = []
    for path in files:
        for number, body in _json_lines(path):
            try:
                payload = _payload(body, kind=kind, text_field="text")
                label = body["label"]
                examples.append(
                    Example(
                        id=str(body["id"]), payload=payload,
                        label=_number(label) if task == "regression" else str(label),
                        cluster=str(body.get("cluster") or body["id"]), arm=str(body.get("arm", "imported")),
                        batch=int(body.get("batch", 0)),
                    )
                )  # fmt: skip
            except (KeyError, TypeError, ValueError, BadInput) as error:
                raise ValueError(f"{path.name} line {number}: {error!r}") from error
    # The order of lines must not decide anything: the same labels give the same model.
    return sorted(examples, key=lambda example: example.id)


def read_people(path: Path, *, kind: str, label: str | None, text: str, part: str) -> list[Example]:
    """Examples from JSON Lines, CSV, a folder or an .npz; `part` is `train` or `test`. `ValueError` names the remedy.

    Text: {text, label} lines or columns, plain or gzip, one file or a folder of them. Images: a folder with one sub-folder a
    class, a folder with labels.csv (file, label), JSON Lines with base64, or an .npz with x_train, y_train, x_test,
    y_test.
    """
    if not path.exists():
        raise ValueError(f"{path} does not exist")
    if path.suffix == ".npz":
        return _read_arrays(path, part=part)
    if path.is_dir() and kind == "image":
        table = path / "labels.csv"
        return _read_table(table, label=label) if table.is_file() else _read_folders(path)
    files = [path]
    if path.is_dir():
        files = sorted(item for item in path.iterdir() if item.name.endswith(_TABLES))
    examples = []
    for file in files:
        for number, body in _comma_lines(file) if ".csv" in file.suffixes else _json_lines(file):
            name = f"{file.name}:{number}"
            if (label or "label") not in body:
                raise ValueError(f"{name} has no field {label or 'label'!r}; name the label's field with --label")
            payload = _payload(body, kind=kind, text_field=text)
            examples.append(Example(id=name, payload=payload, label=str(body[label or "label"]), cluster=name))
    if not examples:
        raise ValueError(f"{path} holds no examples: give .jsonl, .csv (or .gz), .npz or a folder of images")
    return examples


def read_rows(path: Path, *, label: str, task: str, say: Callable[[str], None]) -> list[Example]:
    """Labeled rows of tables: CSV, Parquet or JSON Lines, plain or gzip, one file or a folder of them.

    Rows without a label are left out, so are lines that cannot be read, and a column that a row lacks is missing there.
    `say` hears of that. `ValueError` names the file and the remedy.
    """
    if not path.exists():
        raise ValueError(f"{path} does not exist")
    files = sorted(item for item in path.iterdir() if item.name.lower().endswith(SUFFIXES)) if path.is_dir() else [path]
    examples = []
    for file in files:
        table = read_table(file, say=say)
        if len(table.problems) > MOST_PROBLEMS * (len(table.rows) + len(table.problems)):
            raise ValueError(f"{file.name}: {len(table.problems)} lines cannot be read, the first: {table.problems[0]}")
        if table.problems:
            say(f"{file.name}: {len(table.problems)} lines are left out, the first: {table.problems[0]}")
        named = any(label in values for values in table.rows)
        if table.rows and not named:
            columns = ", ".join(repr(name) for name in list(table.rows[0])[:20])
            raise ValueError(f"{file.name} has no column {label!r}; name one of {columns} with --label")
        for name in sorted(set(RESERVED) & set(table.rows[0] if table.rows else ()) - {label}):
            say(f"column {name!r} of {file.name} is left out: the name is reserved; rename it if it is a feature")
        for number, values in enumerate(table.rows, start=1):
            name = f"{file.name}:{number}"
            try:
                found = _label(values.pop(label, None), table.cell, task=task)
                if found is not None:
                    cells = row(values, columns={}, read=table.cell)
                    examples.append(Example(id=name, payload=cells, label=found, cluster=name))
            except (ValueError, BadInput) as error:
                raise ValueError(f"{name}: {error}") from error
    if not examples:
        raise ValueError(f"{path} holds no labeled rows: give {', '.join(SUFFIXES)} or a folder of them")
    return examples


def _label(value: Any, cell: Callable[..., Cell], *, task: str) -> str | float | None:
    """A row's label, None when it has none. Classes keep their text, so that one may be called None; only `1.0` is 1."""
    if task == "regression":
        found = cell(value, kind="number") if value is not None else None
        return None if found is None else _number(found)
    if isinstance(value, str) and not _WHOLE.fullmatch(value.strip()):
        return value.strip() or None
    return as_text(text_cell(value) if isinstance(value, str) else cell(value)) or None


def _number(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise ValueError(f"the label {value!r} is no number; a regression learns from numbers")
    return float(value)


def _text_of(path: Path) -> str:
    data = path.read_bytes()
    return (gzip.decompress(data) if path.suffix == ".gz" else data).decode("utf-8-sig")


def _comma_lines(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    yield from enumerate(csv.DictReader(io.StringIO(_text_of(path), newline="")), start=1)


def _json_lines(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    text = _text_of(path)
    # Not splitlines(): a text may hold characters that it takes for line ends.
    for number, line in enumerate(text.split("\n"), start=1):
        if line.strip():
            row = json.loads(line)
            if not isinstance(row, dict):
                raise ValueError(f"{path.name} line {number} is no JSON object")
            yield number, row


def _payload(body: Mapping[str, Any], *, kind: str, text_field: str) -> Payload:
    if kind == "table":
        cells = body.get("row")
        if not isinstance(cells, Mapping):
            raise ValueError("field 'row' holds no row")
        return row(cells, columns={})
    if kind == "text":
        text = body.get(text_field)
        if not isinstance(text, str):
            raise ValueError(f"field {text_field!r} holds no text")
        return text
    image = body.get("image")
    if isinstance(image, Mapping):
        image = image.get("png")
    if not isinstance(image, str):
        raise ValueError("field 'image' holds no base64 PNG")
    try:
        return base64.b64decode(image, validate=True)
    except binascii.Error as error:
        raise ValueError(f"field 'image' is not base64: {error}") from error


def _read_arrays(path: Path, *, part: str) -> list[Example]:
    with np.load(path, allow_pickle=False) as arrays:
        if f"x_{part}" not in arrays or f"y_{part}" not in arrays:
            raise ValueError(f"{path} lacks x_{part} or y_{part}; it holds {', '.join(arrays.files)}")
        images, labels = arrays[f"x_{part}"], arrays[f"y_{part}"].ravel()
        names = arrays.get("class_names")
    images = _as_pixels(images, name=f"x_{part}")
    texts = [str(names[value]) if names is not None else str(value) for value in labels.tolist()]
    ids = [f"{part}-{number:07d}" for number in range(len(images))]
    return [
        Example(id=i, payload=image, label=text, cluster=i) for i, image, text in zip(ids, images, texts, strict=True)
    ]


def _as_pixels(images: npt.NDArray[Any], *, name: str) -> npt.NDArray[np.uint8]:
    """uint8 (n, H, W) or (n, H, W, 1 or 3); floats in 0..1 or 0..255 are scaled, planes first become planes last."""
    if images.dtype.kind == "f" and images.size and 0.0 <= images.min() <= images.max() <= 255.0:
        images = np.rint(images * (255.0 if images.max() <= 1.0 else 1.0)).astype(np.uint8)
    if images.ndim == 4 and images.shape[1] in (1, 3) and images.shape[3] not in (1, 3):
        images = images.transpose(0, 2, 3, 1)
    if images.dtype != np.uint8 or images.ndim not in (3, 4) or images.shape[3:] not in ((), (1,), (3,)):
        raise ValueError(f"{name} is {images.dtype} {images.shape}; give uint8 (n, H, W) or (n, H, W, 1 or 3)")
    return images


def _read_table(table: Path, *, label: str | None) -> list[Example]:
    with table.open(newline="", encoding="utf-8") as lines:
        rows = list(csv.DictReader(lines))
    columns = list(rows[0]) if rows else []
    file_field = next((name for name in _ID_FIELDS if name in columns), None)
    label_field = label or next((name for name in _LABEL_FIELDS if name in columns), None)
    if file_field is None or label_field not in columns:
        raise ValueError(f"{table} has columns {columns}; it needs `file` and `label` (or name it with --label)")
    return [
        Example(
            id=row[file_field],
            payload=(table.parent / row[file_field]).read_bytes(),
            label=row[label_field],
            cluster=row[file_field],
        )
        for row in rows
    ]


def _read_folders(path: Path) -> list[Example]:
    files = sorted(file for file in path.glob("*/*") if file.suffix.lower() in IMAGE_SUFFIXES)
    if not files:
        raise ValueError(f"{path} needs one sub-folder of PNG or JPEG files a class, or a labels.csv (file, label)")
    names = [str(file.relative_to(path)) for file in files]
    return [
        Example(id=name, payload=file.read_bytes(), label=file.parent.name, cluster=name)
        for name, file in zip(names, files, strict=True)
    ]
