"""Labeled data that people have: the digits that ship with scikit-learn, or a user's own texts, pictures or tables.

Loading splits every item in two: a `Sample`, which is what a loop gets to see, and its label, which goes into `Truth`.
Only simulated people are handed a `Truth`: annotators, and in a demo the users who judge served answers.
"""

from __future__ import annotations

import csv
import io
import math
import sys
import tarfile
import zipfile
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path, PurePosixPath
from typing import Any, Literal

import numpy as np

from winnow.errors import BadInput
from winnow.records import Kind
from winnow.tables import RESERVED, Cell, as_text
from winnow.tables import row as canonical_row
from winnow_cli.errors import UsageError
from winnow_training.table_files import SUFFIXES, Table, parse_table

Task = Literal["classification", "regression"]
Cells = tuple[tuple[str, Cell], ...]
"""A row of a table: its cells in the order of the columns."""

Payload = str | bytes | Cells

IMAGES = (".png", ".jpg", ".jpeg")
ARCHIVES = (".tar", ".tar.gz", ".tgz", ".zip")
LABELS_FILE = "labels.csv"
ID_FIELDS = frozenset(RESERVED)
MAX_CLASSES = 1000
MANY_NUMBERS, SOME_FRACTIONS = 50, 20
"""Different numbers, or numbers of which some are no whole ones, above which a table's labels are a quantity, no classes."""
WORDS = 3.0
"""Mean words of a column that holds texts to read rather than categories."""
BESIDE_A_TEXT = 2
"""Columns beside one with texts to read, at most; a table that has more is judged as a whole, notes and all."""
LOOKED_AT = 500
"""Rows by which it is decided what a file holds."""
RARE_CLASS = 0.125
"""Share of its fair part of all records below which the team counts a class as rare."""
RARE_DIGIT = 8
RARE_SHARE = 0.1
DIGIT_SIDE = 16


@dataclass(frozen=True)
class Sample:
    """One unlabeled item: a text, a row, or the bytes of a PNG or JPEG file. `name` is a file name or a record id."""

    name: str
    payload: Payload


@dataclass(frozen=True)
class Truth:
    """The true classes (or numbers, as texts) of samples, by payload. Nothing that the loop reads is derived from it."""

    pairs: tuple[tuple[Payload, str], ...] = field(repr=False)

    def __len__(self) -> int:
        return len(self.pairs)

    def lookup(self) -> dict[Payload, str]:
        """Payload, exactly as dropped or sent, to its true class or number."""
        return dict(self.pairs)


@dataclass(frozen=True)
class LabeledData:
    """Samples without labels, the class names a team would write into its loop file, and the truth, apart.

    `rare` are the classes the team knows to be rare. `unlabeled` counts items left out because they name no class. Of a
    regression there are no classes. `positive` is the class whose average precision the gate shall compare, if any.
    """

    name: str
    kind: Kind
    classes: tuple[str, ...]
    samples: tuple[Sample, ...]
    truth: Truth
    rare: tuple[str, ...] = ()
    unlabeled: int = 0
    positive: str | None = None

    @property
    def task(self) -> Task:
        return "classification" if self.classes else "regression"

    @property
    def positive_share(self) -> float:
        """Share of the samples that are of the positive class (1 without one)."""
        if self.positive is None:
            return 1.0
        return sum(label == self.positive for _, label in self.truth.pairs) / len(self.truth)


def digits(*, rng: np.random.Generator, size: int | None = None, rare: bool = True) -> LabeledData:
    """The 1,797 handwritten digits of scikit-learn as PNG files of 16 by 16 grey pixels; with `rare`, without nine in ten
    of the 8s.

    Source: E. Alpaydin and C. Kaynak, Optical Recognition of Handwritten Digits, UCI, 1998 (the test half).
    `size` keeps a uniform sample of that many.
    """
    from sklearn.datasets import load_digits

    bunch = load_digits()
    kept = np.arange(len(bunch.target))
    if rare:
        eights = np.flatnonzero(bunch.target == RARE_DIGIT)
        kept = np.setdiff1d(kept, rng.permutation(eights)[round(RARE_SHARE * len(eights)) :])
    if size is not None:
        kept = np.sort(rng.permutation(kept)[:size])
    samples, pairs = [], []
    for index in kept:
        payload = png(np.round(bunch.images[index] * (255 / 16)).astype(np.uint8), side=DIGIT_SIDE)
        samples.append(Sample(f"digit-{index:04d}.png", payload))
        pairs.append((payload, str(bunch.target[index])))
    classes = tuple(str(name) for name in bunch.target_names)
    found = LabeledData("handwritten digits", "image", classes, tuple(samples), Truth(tuple(pairs)))
    return replace(found, rare=(str(RARE_DIGIT),)) if rare else found


def png(pixels: np.ndarray, *, side: int | None = None) -> bytes:
    """A PNG file of uint8 pixels, (H, W) grey or (H, W, 3) colour; `side` rescales to a square of that many pixels."""
    from PIL import Image

    image = Image.fromarray(pixels)
    if side is not None:
        image = image.resize((side, side), Image.Resampling.BICUBIC)
    out = io.BytesIO()
    image.save(out, format="PNG")
    return out.getvalue()


def load(
    path: Path, *, label: str, kind: Kind | None = None, text: str | None = None, task: Task | None = None,
    positive: str | None = None,
) -> LabeledData:  # fmt: skip
    """A user's labeled data: JSONL, CSV in any dialect or Parquet (`label` names a field), or images in sub-folders or
    beside a `labels.csv`.

    What is not said is found: texts or tables by the columns, classes or numbers by the labels. Archives (.tar, .zip) of
    such files are read in place. Raises UsageError naming file, line and remedy.
    """
    if not path.exists():
        raise UsageError(f"--data {path}: there is no such file or folder")
    files = dict(_files(path))
    images = {name for name in files if name.lower().endswith(IMAGES)}
    names = sorted(
        name for name in files if name.lower().endswith(SUFFIXES) and PurePosixPath(name).name != LABELS_FILE
    )
    if kind == "image" or (kind is None and images and not names):
        if not images:
            raise UsageError(f"--data {path}: no PNG or JPEG file in it; for a file of texts say --kind text")
        kind = "image"
        rows, classes = _images(path, files, sorted(images), label=label)
    elif names:
        tables = {name: _table(path, name, files[name]) for name in names}
        kind = kind or _kind_of(path, tables, label=label, text=text)
        if kind == "table":
            numbers = task == "regression" or (task is None and _are_quantities(tables, label=label))
            rows, classes = _table_rows(path, tables, label=label, numbers=numbers)
            if numbers:
                return _quantities(path, rows, label=label, positive=positive)
        else:
            rows, classes = _texts(path, tables, label=label, text=text)
    elif kind != "table" and any(name.endswith(".txt") for name in files):
        kind = "text"
        rows, classes = _text_files(path, files)
    else:
        raise UsageError(
            f"--data {path}: no .jsonl, .csv or .parquet file in it (.gz may follow); for pictures say --kind image"
        )
    if task == "regression":
        raise UsageError(f"--data {path}: --task regression needs a table; texts and pictures are sorted into classes")
    labeled = [(sample, name) for sample, name in rows if name is not None]
    known = Counter(name for _, name in labeled)
    if positive is not None and positive not in known:
        raise UsageError(
            f"--data {path}: --positive {positive} is no class under --label {label}; it has "
            f"{', '.join(sorted(known, key=natural)[:10])}"
        )
    if len(known) < 2:
        found = f"only the class {next(iter(known))!r}" if known else "no label"
        raise UsageError(f"--data {path}: {found} under --label {label}; two classes at least are needed. {classes}")
    if len(known) > MAX_CLASSES:
        raise UsageError(
            f"--data {path}: {len(known)} different values under --label {label}; at most {MAX_CLASSES} classes are "
            "supported. Is that field a label? Name another one"
        )
    return LabeledData(
        name=path.name, kind=kind, classes=tuple(sorted(known, key=natural)),
        samples=tuple(sample for sample, _ in labeled),
        truth=Truth(tuple((sample.payload, name) for sample, name in labeled)), unlabeled=len(rows) - len(labeled),
        positive=positive,
        rare=tuple(
            name for name in sorted(known, key=natural)
            if name == positive or known[name] < RARE_CLASS * len(labeled) / len(known)
        ),
    )  # fmt: skip


Rows = list[tuple[Sample, str | None]]


def _quantities(path: Path, rows: Rows, *, label: str, positive: str | None) -> LabeledData:
    if positive is not None:
        raise UsageError(f"--data {path}: --positive is for classes; the labels under --label {label} are numbers")
    known = tuple((sample.payload, number) for sample, number in rows if number is not None)
    if len({number for _, number in known}) < 2:
        raise UsageError(
            f"--data {path}: {len(known)} rows have a number under --label {label}; two different ones at least are needed"
        )
    samples = tuple(sample for sample, number in rows if number is not None)
    return LabeledData(path.name, "table", (), samples, Truth(known), unlabeled=len(rows) - len(samples))


def _table(path: Path, name: str, data: bytes) -> Table:
    try:
        table = parse_table(name, data, say=lambda fact: print(f"--data {path}: {fact}", file=sys.stderr))
    except ValueError as error:
        raise UsageError(f"--data {path}: {error}; correct it, or leave it out") from error
    if table.problems:
        print(
            f"--data {path}: {len(table.problems)} rows of {name} cannot be read and are left out, the first: "
            f"{table.problems[0]}",
            file=sys.stderr,
        )
    return table


def _kind_of(path: Path, tables: Mapping[str, Table], *, label: str, text: str | None) -> Kind:
    """Whether these files hold texts, or rows that are to be judged as a whole."""
    columns = {key for table in tables.values() for entry in table.rows for key in entry}
    if text is not None or "text" in columns - {label}:
        return "text"
    found = sorted(columns - ID_FIELDS - {label})
    words = {name: _mean_words(tables, name) for name in found}
    wordy = [name for name in found if words[name] >= WORDS]
    if len(found) <= BESIDE_A_TEXT + 1 and (len(wordy) == 1 or (len(found) == 1 and words[found[0]] > 0)):
        return "text"
    if len(wordy) == len(found):
        raise UsageError(
            f"--data {path}: {', '.join(wordy)} hold texts; say --text FIELD for one of them, or --kind table for all"
        )
    print(f"--data {path}: read as a table of {len(found)} columns (--text FIELD reads texts)", file=sys.stderr)
    return "table"


def _mean_words(tables: Mapping[str, Table], name: str) -> float:
    """Words of the texts in a column, on average; 0 when none of its cells is a text."""
    cells = (table.cell(entry[name]) for table in tables.values() for entry in table.rows[:LOOKED_AT] if name in entry)
    texts = [len(cell.split()) for cell in cells if isinstance(cell, str)]
    return sum(texts) / len(texts) if texts else 0.0


def _are_quantities(tables: Mapping[str, Table], *, label: str) -> bool:
    """Whether a table's labels are all numbers, and too many different ones to be the names of classes."""
    known = {_number(table, entry.get(label)) for table in tables.values() for entry in table.rows}
    labels = {_class_name(table, entry.get(label)) for table in tables.values() for entry in table.rows}
    numbers = known - {None}
    if len(numbers) < len(labels - {None}):
        return False
    fractions = any(not number.is_integer() for number in numbers if number is not None)
    return len(numbers) > (SOME_FRACTIONS if fractions else MANY_NUMBERS)


def _table_rows(path: Path, tables: Mapping[str, Table], *, label: str, numbers: bool) -> tuple[Rows, str]:
    rows: Rows = []
    for name, table in tables.items():
        _require_label(path, name, table, label=label)
        for number, entry in enumerate(table.rows, start=1):
            value = _number(table, entry.get(label)) if numbers else None
            known = (None if value is None else repr(value)) if numbers else _class_name(table, entry.get(label))
            features = {key: cell for key, cell in entry.items() if key != label}
            try:
                cells = canonical_row(features, columns={}, read=table.cell)
            except BadInput as problem:
                raise UsageError(f"--data {path}: row {number} of {name}: {problem}") from problem
            rows.append((Sample(f"{PurePosixPath(name).name}-{number}", tuple(cells.items())), known))
    return rows, _columns(tables)


def _require_label(path: Path, name: str, table: Table, *, label: str) -> None:
    if table.rows and not any(label in entry for entry in islice(table.rows, LOOKED_AT)):
        there = ", ".join(sorted({key for entry in table.rows[:LOOKED_AT] for key in entry}))
        raise UsageError(f"--data {path}: {name} has no field {label!r} (--label); it has {there}")


def _columns(tables: Mapping[str, Table]) -> str:
    found = sorted({key for table in tables.values() for entry in table.rows[:LOOKED_AT] for key in entry})
    return f"The fields are {', '.join(found) or 'none'}"


def _number(table: Table, value: Any) -> float | None:
    try:
        cell = table.cell(value, kind="number")
    except BadInput:
        return None
    return cell if isinstance(cell, float) and math.isfinite(cell) else None


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


def _text_files(path: Path, files: Mapping[str, bytes]) -> tuple[Rows, str]:
    rows: Rows = []
    for name in sorted(name for name in files if name.endswith(".txt")):
        parents = PurePosixPath(name).parts[:-1]
        body = _decode(files[name], f"{path}: {name}")
        rows.append((Sample(name.replace("/", "-"), body), parents[-1] if parents else None))
    return rows, "Give every class a sub-folder of its own"


def _texts(path: Path, tables: Mapping[str, Table], *, label: str, text: str | None) -> tuple[Rows, str]:
    rows: Rows = []
    seen = Counter[str]()
    for file, table in tables.items():
        if not table.rows:
            continue
        field_name = _text_field(path, file, table, label=label, text=text)
        for number, entry in enumerate(table.rows, start=1):
            value, class_name = entry.get(field_name), _class_name(table, entry.get(label))
            if not isinstance(value, str):
                class_name = None
            name = str(entry.get("id") or f"{PurePosixPath(file).name}-{number}")
            seen[name] += 1
            rows.append((Sample(name if seen[name] == 1 else f"{name}-{seen[name]}", str(value or "")), class_name))
    return rows, _columns(tables)


def _text_field(path: Path, name: str, table: Table, *, label: str, text: str | None) -> str:
    _require_label(path, name, table, label=label)
    keys = {key for entry in table.rows for key in entry}
    there = ", ".join(sorted(keys))
    if text is not None:
        if text not in keys:
            raise UsageError(f"--data {path}: {name} has no field {text!r} (--text); it has {there}")
        return text
    if "text" in keys - {label}:
        return "text"
    others = sorted(keys - ID_FIELDS - {label})
    strings = [key for key in others if _mean_words({name: table}, key) > 0]
    wordy = [key for key in strings if _mean_words({name: table}, key) >= WORDS]
    for found in (strings, wordy):
        if len(found) == 1:
            return found[0]
    choice = f"which of {', '.join(strings)} is it" if strings else f"it has {there}"
    raise UsageError(f"--data {path}: {name} has no field 'text'; {choice}? Say --text FIELD")


def _class_name(table: Table, value: Any) -> str | None:
    """The class a label names: text, number or boolean; None for what names none."""
    if isinstance(value, str) and value.strip():
        known = table.cell(value)
        return None if known is None else as_text(known)
    try:
        return as_text(table.cell(value)) or None
    except BadInput:
        return None


def natural(name: str) -> tuple[bool, float, str]:
    """Numbers by value and before words, so that '10' comes after '9'."""
    is_number = name.lstrip("-").isdigit()
    return (not is_number, float(name) if is_number else 0.0, name)


def _decode(data: bytes, what: str) -> str:
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise UsageError(f"--data {what} is not UTF-8 text ({error}); save it as UTF-8") from error
