"""Labeled data for a demo: the digits that ship with scikit-learn, or a user's own files.

Loading splits every item in two: a `Sample`, which is what the loop gets to see, and its label, which goes into
`Truth`. Only the simulated people are handed a `Truth`: annotators, and the users who judge served answers.
"""

from __future__ import annotations

import csv
import gzip
import io
import json
import tarfile
import zipfile
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any, Literal

import numpy as np

from winnow_cli.errors import UsageError

Kind = Literal["text", "image"]
Payload = str | bytes

IMAGES = (".png", ".jpg", ".jpeg")
TABLES = (".jsonl", ".ndjson", ".jsonl.gz", ".ndjson.gz", ".csv", ".csv.gz")
ARCHIVES = (".tar", ".tar.gz", ".tgz", ".zip")
LABELS_FILE = "labels.csv"
ID_FIELDS = frozenset({"id", "subject", "slices", "cost", "captured_at"})
MAX_CLASSES = 1000
RARE_DIGIT = 8
RARE_SHARE = 0.1
DIGIT_SIDE = 16


@dataclass(frozen=True)
class Sample:
    """One unlabeled item: a text, or the bytes of a PNG or JPEG file. `name` is a file name or a record id."""

    name: str
    payload: Payload


@dataclass(frozen=True)
class Truth:
    """The true classes of samples, by payload. Nothing that the loop reads is ever derived from it."""

    pairs: tuple[tuple[Payload, str], ...] = field(repr=False)

    def __len__(self) -> int:
        return len(self.pairs)

    def lookup(self) -> dict[Payload, str]:
        """Payload, exactly as dropped or sent, to its true class."""
        return dict(self.pairs)


@dataclass(frozen=True)
class DemoData:
    """Samples without labels, the class names a team would write into its loop file, and the truth, apart.

    `rare` are the classes the team knows to be rare. `unlabeled` counts items left out because they name no class.
    """

    name: str
    kind: Kind
    classes: tuple[str, ...]
    samples: tuple[Sample, ...]
    truth: Truth
    rare: tuple[str, ...] = ()
    unlabeled: int = 0


def digits(*, rng: np.random.Generator, size: int | None = None) -> DemoData:
    """The 1,797 handwritten digits of scikit-learn as PNG files of 16 by 16 grey pixels, without nine in ten of the 8s.

    Source: E. Alpaydin and C. Kaynak, Optical Recognition of Handwritten Digits, UCI, 1998 (the test half).
    `size` keeps a uniform sample of that many.
    """
    from sklearn.datasets import load_digits

    bunch = load_digits()
    rare = np.flatnonzero(bunch.target == RARE_DIGIT)
    left_out = rng.permutation(rare)[round(RARE_SHARE * len(rare)) :]
    kept = np.setdiff1d(np.arange(len(bunch.target)), left_out)
    if size is not None:
        kept = np.sort(rng.permutation(kept)[:size])
    samples, pairs = [], []
    for index in kept:
        payload = png(np.round(bunch.images[index] * (255 / 16)).astype(np.uint8), side=DIGIT_SIDE)
        samples.append(Sample(f"digit-{index:04d}.png", payload))
        pairs.append((payload, str(bunch.target[index])))
    classes = tuple(str(name) for name in bunch.target_names)
    return DemoData("handwritten digits", "image", classes, tuple(samples), Truth(tuple(pairs)), (str(RARE_DIGIT),))


def png(pixels: np.ndarray, *, side: int | None = None) -> bytes:
    """A PNG file of uint8 pixels, (H, W) grey or (H, W, 3) colour; `side` rescales to a square of that many pixels."""
    from PIL import Image

    image = Image.fromarray(pixels)
    if side is not None:
        image = image.resize((side, side), Image.Resampling.BICUBIC)
    out = io.BytesIO()
    image.save(out, format="PNG")
    return out.getvalue()


def load(path: Path, *, label: str, kind: Kind | None = None, text: str | None = None) -> DemoData:
    """A user's labeled data: JSONL or CSV (`label` names a field), or images in sub-folders or beside a `labels.csv`.

    Archives (.tar, .zip) of such folders are read in place. Raises UsageError naming file, line and remedy.
    """
    if not path.exists():
        raise UsageError(f"--data {path}: there is no such file or folder")
    files = dict(_files(path))
    images = {name for name in files if name.lower().endswith(IMAGES)}
    tables = sorted(name for name in files if name.lower().endswith(TABLES) and PurePosixPath(name).name != LABELS_FILE)
    if kind is None:
        kind = "image" if images and not tables else "text"
    if kind == "image":
        if not images:
            raise UsageError(f"--data {path}: no PNG or JPEG file in it; for a file of texts say --kind text")
        rows, classes = _images(path, files, sorted(images), label=label)
    else:
        if not tables and not any(name.endswith(".txt") for name in files):
            raise UsageError(f"--data {path}: no .jsonl, .jsonl.gz or .csv file in it; for pictures say --kind image")
        rows, classes = _texts(path, files, tables, label=label, text=text)
    labeled = [(sample, name) for sample, name in rows if name is not None]
    known = Counter(name for _, name in labeled)
    if len(known) < 2:
        found = f"only the class {next(iter(known))!r}" if known else "no label"
        raise UsageError(f"--data {path}: {found} under --label {label}; two classes at least are needed. {classes}")
    if len(known) > MAX_CLASSES:
        raise UsageError(
            f"--data {path}: {len(known)} different values under --label {label}; at most {MAX_CLASSES} classes are "
            "supported. Is that field a label? Name another one"
        )
    return DemoData(
        name=path.name, kind=kind, classes=tuple(sorted(known, key=_natural)),
        samples=tuple(sample for sample, _ in labeled),
        truth=Truth(tuple((sample.payload, name) for sample, name in labeled)), unlabeled=len(rows) - len(labeled),
    )  # fmt: skip


Rows = list[tuple[Sample, str | None]]


def _files(path: Path) -> Iterator[tuple[str, bytes]]:
    """(relative POSIX name, bytes) of everything in a file, a folder or an archive, in the order of names."""
    lowered = path.name.lower()
    if path.is_dir():
        for item in sorted(path.rglob("*")):
            relative = item.relative_to(path)
            if item.is_file() and not _hidden(relative.as_posix()):
                yield relative.as_posix(), item.read_bytes()
    elif lowered.endswith(ARCHIVES):
        try:
            yield from sorted(_unzip(path) if lowered.endswith(".zip") else _untar(path))
        except (tarfile.TarError, zipfile.BadZipFile, EOFError, OSError) as error:
            raise UsageError(f"--data {path}: not a readable archive: {error}") from error
    else:
        yield path.name, path.read_bytes()


def _untar(path: Path) -> Iterator[tuple[str, bytes]]:
    with tarfile.open(path) as archive:
        for member in archive:
            stream = archive.extractfile(member) if member.isfile() else None
            if stream is not None and not _hidden(member.name.removeprefix("./")):
                yield member.name.removeprefix("./"), stream.read()


def _unzip(path: Path) -> Iterator[tuple[str, bytes]]:
    with zipfile.ZipFile(path) as archive:
        for name in archive.namelist():
            if not name.endswith("/") and not _hidden(name):
                yield name, archive.read(name)


def _hidden(name: str) -> bool:
    """Files that a desktop leaves beside one's own (`.DS_Store`, `__MACOSX/._1.png`)."""
    return any(part.startswith((".", "__MACOSX")) for part in PurePosixPath(name).parts)


def _images(path: Path, files: Mapping[str, bytes], images: Sequence[str], *, label: str) -> tuple[Rows, str]:
    named = _labels_of_files(path, files, label=label)
    rows: Rows = []
    for name in images:
        if named is not None:
            class_name = named.get(name, named.get(PurePosixPath(name).name))
        else:
            parents = PurePosixPath(name).parts[:-1]
            class_name = parents[-1].strip() if parents else None
        rows.append((Sample(name.replace("/", "-"), files[name]), class_name or None))
    if named is not None:
        return rows, f"{LABELS_FILE} must name the pictures of this folder in its column 'file'"
    return rows, "Give every class a sub-folder of its own"


def _labels_of_files(path: Path, files: Mapping[str, bytes], *, label: str) -> dict[str, str] | None:
    """The column `label` of `labels.csv` by file name; None for `--label folder` without such a column."""
    found = sorted((name for name in files if PurePosixPath(name).name == LABELS_FILE), key=len)
    if not found:
        if label == "folder":
            return None
        raise UsageError(
            f"--data {path}: there is no {LABELS_FILE} (columns file,{label}) beside the pictures; "
            "write one, or give every class a sub-folder and say --label folder"
        )
    rows = list(csv.DictReader(io.StringIO(_decode(files[found[0]], f"{path}: {found[0]}"))))
    columns = list(rows[0]) if rows else []
    if label not in columns and label == "folder":
        return None
    if not {"file", label} <= set(columns):
        missing, there = "file" if "file" not in columns else label, ", ".join(columns) or "no row"
        raise UsageError(f"--data {path}: {found[0]} has no column {missing!r}; it has {there}")
    base = PurePosixPath(found[0]).parent
    by_file: dict[str, str] = {}
    for row in rows:
        class_name = (row[label] or "").strip()
        if row["file"] and class_name:
            by_file[(base / row["file"]).as_posix()] = class_name
            by_file.setdefault(PurePosixPath(row["file"]).name, class_name)
    return by_file


def _texts(
    path: Path, files: Mapping[str, bytes], tables: Sequence[str], *, label: str, text: str | None
) -> tuple[Rows, str]:
    rows: Rows = []
    if not tables:
        for name in sorted(name for name in files if name.endswith(".txt")):
            parents = PurePosixPath(name).parts[:-1]
            body = _decode(files[name], f"{path}: {name}")
            rows.append((Sample(name.replace("/", "-"), body), parents[-1] if parents else None))
        return rows, "Give every class a sub-folder of its own"
    seen, fields = Counter[str](), set[str]()
    for table in tables:
        entries = list(_entries(files[table], table, path=path))
        fields.update(key for _, entry in entries for key in entry)
        if not entries:
            continue
        field_name = _text_field(entries, table, path=path, label=label, text=text)
        for number, entry in entries:
            value, class_name = entry.get(field_name), _class_name(entry.get(label))
            if not isinstance(value, str):
                class_name = None
            name = str(entry.get("id") or f"{PurePosixPath(table).name}-{number}")
            seen[name] += 1
            rows.append((Sample(name if seen[name] == 1 else f"{name}-{seen[name]}", str(value or "")), class_name))
    return rows, f"The fields are {', '.join(sorted(fields)) or 'none'}"


def _entries(data: bytes, name: str, *, path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    if name.lower().endswith(".gz"):
        try:
            data = gzip.decompress(data)
        except (OSError, EOFError) as error:
            raise UsageError(f"--data {path}: {name} is not a whole gzip file: {error}") from error
    body = _decode(data, f"{path}: {name}")
    if name.lower().removesuffix(".gz").endswith(".csv"):
        yield from enumerate(csv.DictReader(io.StringIO(body)), start=2)
        return
    for number, line in enumerate(body.split("\n"), start=1):
        if line.strip():
            where = f"--data {path}: line {number} of {name}"
            try:
                entry = json.loads(line)
            except ValueError as error:
                raise UsageError(f"{where} is not JSON ({error}); correct or remove it") from error
            if not isinstance(entry, dict):
                raise UsageError(f"{where} is not a JSON object; write one object a line")
            yield number, entry


def _text_field(
    entries: Sequence[tuple[int, Mapping[str, Any]]], name: str, *, path: Path, label: str, text: str | None
) -> str:
    keys = {key for _, entry in entries for key in entry}
    there = ", ".join(sorted(keys))
    if label not in keys:
        raise UsageError(f"--data {path}: {name} has no field {label!r} (--label); it has {there}")
    if text is not None:
        if text not in keys:
            raise UsageError(f"--data {path}: {name} has no field {text!r} (--text); it has {there}")
        return text
    if "text" in keys - {label}:
        return "text"
    others = sorted(keys - ID_FIELDS - {label})
    strings = [key for key in others if any(isinstance(entry.get(key), str) for _, entry in entries)]
    if len(strings) == 1:
        return strings[0]
    choice = f"which of {', '.join(strings)} is it" if strings else f"it has {there}"
    raise UsageError(f"--data {path}: {name} has no field 'text'; {choice}? Say --text FIELD")


def _class_name(value: Any) -> str | None:
    """The class a label names: text, number or boolean; None for what names none."""
    if isinstance(value, str):
        return value.strip() or None
    return None if value is None or isinstance(value, dict | list) else str(value)


def _natural(name: str) -> tuple[bool, float, str]:
    """Numbers by value and before words, so that '10' comes after '9'."""
    is_number = name.lstrip("-").isdigit()
    return (not is_number, float(name) if is_number else 0.0, name)


def _decode(data: bytes, what: str) -> str:
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise UsageError(f"--data {what} is not UTF-8 text ({error}); save it as UTF-8") from error
