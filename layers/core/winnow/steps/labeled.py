"""Reading a dataset version: its manifest and its parts, with every digest checked before a line is believed."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import math
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from winnow import layout
from winnow.errors import BadInput, ConfigError, NotFound
from winnow.ports import ObjectStore
from winnow.records import Kind, Role, from_jsonl

FORMAT = 1
"""The `dataset.json` this code reads."""

JsonDict = dict[str, Any]

PAYLOADS: Mapping[Kind, str] = {"text": "text", "image": "image", "table": "row"}
"""The field of a line that a model sees, by kind."""


@dataclass(frozen=True)
class Dataset:
    """`dataset.json` of one version. `files` maps bucket keys to SHA-256 (64 hex)."""

    version: str
    parent: str | None
    kind: Kind
    classes: tuple[str, ...]
    files: Mapping[str, str]
    counts: Mapping[str, int]
    by_class: Mapping[str, int]
    task: str = "classification"

    @property
    def is_regression(self) -> bool:
        return self.task == "regression"

    @classmethod
    def from_json(cls, body: Mapping[str, Any]) -> Dataset:
        """Raises ConfigError when the manifest is not one this code understands."""
        if body.get("format") != FORMAT:
            raise ConfigError(f"dataset format {body.get('format')!r} is unknown; this code reads {FORMAT}")
        try:
            return cls(
                version=body["version"], parent=body.get("parent"), kind=body["kind"], classes=tuple(body["classes"]),
                files=dict(body["files"]), counts=dict(body["counts"]),
                by_class=dict(body.get("by_class") or {}), task=str(body.get("task", "classification")),
            )  # fmt: skip
        except (KeyError, TypeError, ValueError) as error:
            raise ConfigError(f"dataset.json is malformed: {error!r}; collect the batch again") from error


def load(data: ObjectStore, version: str) -> Dataset:
    """The manifest of a version. Raises NotFound, or ConfigError for a manifest that cannot be trusted."""
    try:
        dataset = Dataset.from_json(json.loads(data.get(layout.dataset(version))))
    except ValueError as error:
        raise ConfigError(f"{layout.dataset(version)} is not JSON: {error}") from error
    if dataset.version != version:
        raise ConfigError(f"{layout.dataset(version)} says it is version {dataset.version}; restore the right manifest")
    return dataset


def part(data: ObjectStore, dataset: Dataset, role: Role) -> list[JsonDict]:
    """The labeled lines of one role; a role without a file has none.

    Raises ConfigError when the file is missing or its digest is not the manifest's: such a version counts as absent.
    """
    body = _checked(data, dataset, role)
    if body is None:
        return []
    with _readable(dataset, role):
        return from_jsonl(gzip.decompress(body))


def _checked(data: ObjectStore, dataset: Dataset, role: Role) -> bytes | None:
    """The file of a role with its digest checked; None where the version has none."""
    key = layout.dataset_part(dataset.version, role)
    expected = dataset.files.get(key)
    if expected is None:
        return None
    try:
        body = data.get(key)
    except NotFound as error:
        raise ConfigError(
            f"{key} of dataset {dataset.version} is missing; restore it from the bucket's versions"
        ) from error
    found = hashlib.sha256(body).hexdigest()
    if found != expected:
        raise ConfigError(
            f"{key} has digest {found[:12]}, dataset.json says {expected[:12]}; restore the version that was committed"
        )
    return body


@contextmanager
def _readable(dataset: Dataset, role: Role) -> Iterator[None]:
    try:
        yield
    except (BadInput, ValueError, KeyError, OSError, EOFError, zlib.error) as error:
        raise ConfigError(f"{layout.dataset_part(dataset.version, role)} cannot be read: {error}") from error


def labels(data: ObjectStore, dataset: Dataset, role: Role) -> dict[str, str | float]:
    """Content id → label of one role, without keeping the payloads. Raises as `part` does."""
    body = _checked(data, dataset, role)
    found: dict[str, str | float] = {}
    if body is not None:
        with _readable(dataset, role), gzip.open(io.BytesIO(body)) as rows:
            for row in rows:
                line = json.loads(row)
                found[str(line["id"])] = truth(line, dataset)
    return found


def truth(line: Mapping[str, Any], dataset: Dataset) -> str | float:
    """The label of a line. Raises ConfigError for one that is no class of the dataset, or no finite number."""
    label = line.get("label")
    if not dataset.is_regression:
        if label in dataset.classes:
            return str(label)
        raise ConfigError(f"dataset {dataset.version}: record {line.get('id')} has label {label!r}, which is no class")
    if isinstance(label, bool) or not isinstance(label, int | float) or not math.isfinite(label):
        raise ConfigError(f"dataset {dataset.version}: record {line.get('id')} has label {label!r}, which is no number")
    return float(label)


def payload(line: Mapping[str, Any]) -> JsonDict:
    """What a model sees of a line: `{"text": ...}`, `{"image": {"png": base64}}` or `{"row": {...}}`.

    >>> payload({"id": "c1", "label": "cat", "text": "purr"})
    {'text': 'purr'}
    """
    return {name: line[name] for name in PAYLOADS.values() if name in line}
