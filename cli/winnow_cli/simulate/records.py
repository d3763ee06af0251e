"""The labeled sample a simulation draws from: the user's own files, arrays in an .npz, or scikit-learn's digits."""

from __future__ import annotations

import argparse
import hashlib
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from winnow.records import Kind
from winnow_cli import labeled
from winnow_cli.errors import UsageError
from winnow_cli.labeled import LabeledData, Payload, Sample, Task, Truth

LEAST_RECORDS = 60
"""With fewer there is nothing left to choose from once a test part is held out."""

OPTIONS = ("label", "kind", "text", "task", "positive", "test", "encoder")
_PIXELS = ((), (1,), (3,))


@dataclass(frozen=True)
class Records:
    """Labeled records; those from `test_from` on, if any, are a test part of their own and never chosen."""

    data: LabeledData
    test_from: int | None = None

    @property
    def kind(self) -> Kind:
        return self.data.kind

    @property
    def task(self) -> Task:
        return self.data.task

    @property
    def size(self) -> int:
        return len(self.data.samples)

    @property
    def payloads(self) -> list[Any]:
        return [sample.payload for sample in self.data.samples]

    @property
    def labels(self) -> npt.NDArray[Any]:
        """(n,) numbers of classes (int64), or the numbers themselves (float64)."""
        names = [name for _, name in self.data.truth.pairs]
        if self.task == "regression":
            return np.array([float(name) for name in names])
        place = {name: number for number, name in enumerate(self.data.classes)}
        return np.array([place[name] for name in names], dtype=np.int64)

    @property
    def positive(self) -> int | None:
        """Number of the class whose average precision is the measure."""
        return None if self.data.positive is None else self.data.classes.index(self.data.positive)

    def contents(self) -> npt.NDArray[np.int64]:
        """(n,) the same number for records with the same payload."""
        seen: dict[Any, int] = {}
        return np.array([seen.setdefault(payload, len(seen)) for payload in self.payloads], dtype=np.int64)

    def digests(self) -> tuple[str, str]:
        """Of the payloads alone, and of everything that decides a result."""
        payloads = hashlib.sha256()
        for payload in self.payloads:
            body = payload if isinstance(payload, bytes) else repr(payload).encode("utf-8", "surrogatepass")
            payloads.update(len(body).to_bytes(8, "big") + body)
        whole = payloads.copy()
        names = "\0".join(name for _, name in self.data.truth.pairs)
        facts = (self.kind, self.data.classes, self.data.positive, self.test_from)
        whole.update(repr(facts).encode("utf-8", "surrogatepass") + names.encode("utf-8", "surrogatepass"))
        return payloads.hexdigest()[:24], whole.hexdigest()[:24]


def read(given: argparse.Namespace) -> Records:
    """What the options --data, --test, --label, --kind, --text, --task and --positive name.

    Raises UsageError naming file, field and remedy.
    """
    if given.data is None:
        for option in OPTIONS[:-1]:
            if getattr(given, option, None) is not None:
                raise UsageError(f"--{option} goes with --data: name the file or folder with your own data")
        return Records(labeled.digits(rng=np.random.default_rng(0), rare=False))
    test_path: Path | None = getattr(given, "test", None)
    data = _load(given, given.data, option="--data")
    if given.data.suffix == ".npz":
        test = _arrays(given.data, part="test", option="--data") if test_path is None else None
        test = _arrays(test_path, part="test", option="--test") if test_path and test_path.suffix == ".npz" else test
    else:
        test = None if test_path is None else _load(given, test_path, option="--test", like=data)
    if len(data.samples) < LEAST_RECORDS:
        raise UsageError(
            f"--data {given.data}: {len(data.samples)} labeled records; at least {LEAST_RECORDS} are needed"
        )
    if data.unlabeled:
        print(f"{data.unlabeled} records without a label are left out", file=sys.stderr)
    if data.kind == "table" and given.task is None:
        found = f"{len(data.classes)} classes" if data.classes else "numbers"
        print(f"the labels are {found}, so this is a {data.task} (--task says otherwise)", file=sys.stderr)
    return Records(data) if test is None else _joined(data, test, path=test_path or given.data)


def _load(given: argparse.Namespace, path: Path, *, option: str, like: LabeledData | None = None) -> LabeledData:
    if path.suffix == ".npz":
        return _positive(_arrays(path, part="train", option=option), given.positive, where=f"{option} {path}")
    if given.label is None:
        raise UsageError(
            f"{option} needs --label: the field or labels.csv column with the class or number, or 'folder' for sub-folders"
        )
    try:
        return labeled.load(
            path, label=given.label, kind=given.kind or (like.kind if like else None), text=given.text,
            task=given.task or (like.task if like and like.kind == "table" else None), positive=given.positive,
        )  # fmt: skip
    except UsageError as error:
        raise UsageError(str(error).replace("--data", option, 1)) from error


def _joined(data: LabeledData, test: LabeledData, *, path: Path) -> Records:
    """One set of records with the test part behind; a class that only the test part has can only be missed."""
    if (data.kind, data.task) != (test.kind, test.task):
        raise UsageError(
            f"--test {path}: a {test.task} of kind {test.kind}, but --data is a {data.task} of kind {data.kind}; give the "
            "same form"
        )
    classes = sorted({*data.classes, *test.classes}, key=labeled.natural)
    both = replace(
        data, classes=tuple(classes), samples=(*data.samples, *test.samples),
        truth=Truth((*data.truth.pairs, *test.truth.pairs)),
    )  # fmt: skip
    return Records(both, test_from=len(data.samples))


def _positive(data: LabeledData, positive: str | None, *, where: str) -> LabeledData:
    if positive is not None and positive not in data.classes:
        raise UsageError(f"{where}: --positive {positive} is no class; it has {', '.join(data.classes[:10])}")
    return replace(data, positive=positive)


def _arrays(path: Path, *, part: str, option: str) -> Any:
    """Images or rows of numbers in an .npz: x_train, y_train and perhaps x_test, y_test, class_names; None without a
    test part."""
    if not path.exists():
        raise UsageError(f"{option} {path}: there is no such file or folder")
    try:
        with np.load(path, allow_pickle=False) as arrays:
            if f"x_{part}" not in arrays and part == "test" and option == "--data":
                return None
            if f"x_{part}" not in arrays or f"y_{part}" not in arrays:
                raise UsageError(f"{option} {path} lacks x_{part} or y_{part}; it holds {', '.join(arrays.files)}")
            rows, labels = arrays[f"x_{part}"], arrays[f"y_{part}"].ravel()
            names = arrays.get("class_names")
    except (ValueError, OSError) as error:
        raise UsageError(f"{option} {path}: not a readable .npz without pickle: {error}") from error
    if len(rows) != len(labels):
        raise UsageError(f"{option} {path}: {len(rows)} rows in x_{part}, {len(labels)} labels in y_{part}")
    texts = [str(names[value]) if names is not None else str(value) for value in labels.tolist()]
    kind: Kind
    payloads: Sequence[Payload]
    if rows.ndim == 2:
        kind = "table"
        payloads = [tuple((f"x{i}", float(cell)) for i, cell in enumerate(row)) for row in rows.tolist()]
    else:
        kind, payloads = "image", [labeled.png(image) for image in _pixels(rows, where=f"{option} {path}: x_{part}")]
    numbers = kind == "table" and labels.dtype.kind == "f" and len(set(texts)) > labeled.SOME_FRACTIONS
    classes = () if numbers else tuple(sorted(set(texts), key=labeled.natural))
    samples = tuple(Sample(f"{part}-{number:07d}", payload) for number, payload in enumerate(payloads))
    return LabeledData(path.name, kind, classes, samples, Truth(tuple(zip(payloads, texts, strict=True))))


def _pixels(images: npt.NDArray[Any], *, where: str) -> npt.NDArray[np.uint8]:
    """uint8 (n, H, W) or (n, H, W, 3); floats in 0..1 or 0..255 are scaled, planes first become planes last."""
    if images.dtype.kind in "fiu" and images.size and 0 <= images.min() <= images.max() <= 255:
        scale = 255.0 if images.dtype.kind == "f" and images.max() <= 1.0 else 1.0
        images = np.rint(images * scale).astype(np.uint8)
    if images.ndim == 4 and images.shape[1] in (1, 3) and images.shape[3] not in (1, 3):
        images = images.transpose(0, 2, 3, 1)
    if images.dtype != np.uint8 or images.ndim not in (3, 4) or images.shape[3:] not in _PIXELS:
        raise UsageError(f"{where} is {images.dtype} {images.shape}; give uint8 (n, H, W) or (n, H, W, 1 or 3)")
    return images[..., 0] if images.ndim == 4 and images.shape[3] == 1 else images
