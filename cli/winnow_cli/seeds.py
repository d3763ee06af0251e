"""Labeled records in a user's files, read by the code that ingest reads with: rows with labels, and what is wrong where.

JSON Lines, CSV and Parquet as for the pool; Label Studio's JSON export; images in folders by class, or beside a labels.csv.
"""

from __future__ import annotations

import base64
import csv
import io
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from winnow.errors import BadInput
from winnow.formats.parquet import ParquetFiles
from winnow.loop import Limits, Loop
from winnow.steps.reading import FORMATS, Row, rows
from winnow_cli import label_studio
from winnow_cli.errors import UsageError

JsonDict = dict[str, Any]
LABELS_FILE = "labels.csv"
IMAGES = (".png", ".jpg", ".jpeg")
_SIGNATURES = (b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff")
_DATA = tuple(ending for ending in FORMATS if ending not in (*IMAGES, ".txt", ".json"))


@dataclass(frozen=True)
class Seed:
    """One row of a file: the file's name, the line it begins on (or its place), and what it says."""

    file: str
    row: Row

    def body(self, **origin: Any) -> JsonDict:
        """The canonical line of JSON that ingest reads; `origin` is said beside what the row itself says of its past."""
        fields = dict(self.row.fields)
        past = {**origin, **fields.pop("winnow", {})}
        if "external_id" in fields:
            fields["id"] = fields.pop("external_id")
        row = self.row
        payload: JsonDict = {"text": row.text} if row.text is not None else {"row": row.row}
        if row.image is not None:
            payload = {"image": base64.b64encode(row.image).decode("ascii")}
        return {**fields, **payload, "winnow": {"file": self.file, "line": row.number, **past}}


@dataclass(frozen=True)
class Names:
    """What the user's files call the label and the text, where it is not `label` and `text`."""

    label: str | None = None
    text: str | None = None

    def of(self, kind: str) -> dict[str, str]:
        """Field → what it means.

        >>> Names(label="sentiment", text="review").of("text")
        {'sentiment': 'label', 'review': 'text'}
        """
        given = {self.label: "label", self.text: kind}
        return {name: meant for name, meant in given.items() if name is not None and name != meant}


@dataclass(frozen=True)
class Source:
    """Reads files for one loop."""

    loop: Loop
    names: Names = field(default_factory=Names)

    def seeds(self, path: Path) -> Iterator[Seed]:
        """Every row of a file or a folder, the unusable ones with their problem. Raises UsageError naming file and remedy."""
        if not path.exists():
            raise UsageError(f"{path}: there is no such file or folder")
        if path.is_dir():
            files = sorted(
                file for file in path.rglob("*") if file.is_file() and not _is_hidden(file.relative_to(path))
            )
            images = [file for file in files if file.name.lower().endswith(IMAGES)]
            tables = [file for file in files if _holds_rows(file)]
            if self.loop.task.kind == "image" and images:
                yield from self._images(path, images)
            elif tables:
                for file in tables:
                    yield from self._file(file, file.relative_to(path).as_posix())
            else:
                raise UsageError(f"{path}: there is no file with labels in it; say JSON Lines, CSV or Parquet")
        else:
            yield from self._file(path, path.name)

    def _file(self, path: Path, name: str) -> Iterator[Seed]:
        data = path.read_bytes()
        try:
            if name.lower().endswith(".json") and _is_array(data):
                yield from self._array(data, name)
            else:
                for row in self._rows(data, name):
                    yield Seed(name, row)
        except BadInput as problem:
            hint = "; --text and --label name fields that are called otherwise" if problem.code == "wrong-kind" else ""
            raise UsageError(f"{path}: {problem}{hint}") from problem

    def _rows(self, data: bytes, key: str) -> Iterator[Row]:
        # One object's limits are not a file's: what is uploaded is divided.
        limits = Limits.model_construct(**{**dict(self.loop.limits), "max_rows": 100_000_000, "max_object_mb": 100_000})
        task = self.loop.task
        return rows(data, key=key, task=task, limits=limits, parquet=ParquetFiles(), names=self.names.of(task.kind))

    def _array(self, data: bytes, name: str) -> Iterator[Seed]:
        try:
            tasks = json.loads(data)
        except (ValueError, RecursionError) as error:
            raise BadInput(f"{name} is not JSON: {error}", code="malformed-row") from error
        for number, task in enumerate(tasks, start=1):
            try:
                row = self._element(task, name)
                said = row.problem
            except BadInput as problem:
                said = problem
            if said is not None:
                place = task.get("id", number) if label_studio.is_task(task) else number
                reason = str(said).removeprefix("row 1: ")
                row = Row(number, problem=BadInput(f"task {place}: {reason}", code=said.code))
            yield Seed(name, replace(row, number=number))

    def _element(self, task: Any, name: str) -> Row:
        """The row of one element of an array: a task of Label Studio's, or a plain object."""
        reader, body = self, task
        if label_studio.is_task(task):
            reader = replace(self, names=Names())
            body = label_studio.row(task, kind=self.loop.task.kind, text=self.names.text)
        (row,) = reader._rows(json.dumps(body).encode(), f"{name}.jsonl")
        return row

    def _images(self, folder: Path, images: list[Path]) -> Iterator[Seed]:
        named = _labels_of_files(folder, self.names.label)
        for number, image in enumerate(images, start=1):
            name = image.relative_to(folder).as_posix()
            label = named.get(name, named.get(image.name)) if named is not None else image.parent.name
            yield Seed(name, replace(self._image(image.read_bytes(), name, label), number=number))

    def _image(self, data: bytes, name: str, label: str | None) -> Row:
        if not data.startswith(_SIGNATURES):
            return Row(
                0, problem=BadInput(f"{name} is neither PNG nor JPEG, whatever its name says", code="unknown-format")
            )
        body = {"id": name, "image": base64.b64encode(data).decode("ascii"), "label": label}
        (row,) = replace(self, names=Names())._rows(json.dumps(body).encode(), "image.jsonl")
        return row


def _holds_rows(file: Path) -> bool:
    """Of the JSON files in a folder only the arrays: the others describe something."""
    name = file.name.lower()
    return name.removesuffix(".gz").endswith(_DATA) or (name.endswith(".json") and _is_array(file.read_bytes()))


def _is_array(data: bytes) -> bool:
    return data[:100].lstrip(b"\xef\xbb\xbf \t\r\n").startswith(b"[")


def _is_hidden(path: Path) -> bool:
    """What a desktop leaves beside one's own files."""
    return any(part.startswith((".", "__MACOSX")) for part in path.parts)


def _labels_of_files(folder: Path, label: str | None) -> Mapping[str, str] | None:
    """The labels of a folder's labels.csv by file name; None where sub-folders are the classes."""
    file = folder / LABELS_FILE
    if not file.is_file():
        return None
    column = label or "label"
    try:
        body = list(csv.DictReader(io.StringIO(file.read_text(encoding="utf-8-sig"))))
    except UnicodeDecodeError as error:
        raise UsageError(f"{file} is not UTF-8 ({error}); save it as UTF-8") from error
    columns = list(body[0]) if body else []
    missing = [name for name in ("file", column) if name not in columns]
    if missing:
        there = ", ".join(columns) or "no row"
        raise UsageError(f"{file} has no column {missing[0]!r}; it has {there} (--label names the one with the class)")
    return {line["file"]: line[column] for line in body if line["file"]}
