"""Candidates in columns: what selection needs to know of a scored record, in messages and in shards.

One `.npz` without pickle is the form on the wire and on disk, so hops 2, 3 and 4 share this codec.
"""

from __future__ import annotations

import io
import json
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from zipfile import BadZipFile

import numpy as np
import numpy.typing as npt

from winnow.errors import BadInput
from winnow.ports import Ports
from winnow.selection.quotas import LONGEST_SLICE

FORMAT = 1
"""Version of the columns."""

_TEXT = ("id", "oid", "cluster", "role", "records")
_ALWAYS = (*_TEXT, "key", "prediction", "confidence", "embedding")
_OUTPUTS = ("probabilities", "members")
_OPTIONAL = (*_OUTPUTS, "minutes", "slices")
"""Columns that may be absent, and are from shards that were written before there were any."""

MOST_SLICES = 8
"""Slices kept of a record, the first by name."""


@dataclass(frozen=True, eq=False)
class Candidates:
    """n scored records, a row each."""

    id: npt.NDArray[np.str_]
    oid: npt.NDArray[np.str_]
    cluster: npt.NDArray[np.str_]
    role: npt.NDArray[np.str_]
    records: npt.NDArray[np.str_]
    """Key of the records artifact that holds the payload."""
    key: npt.NDArray[np.float64]
    """Uniform keys in [0, 1)."""
    prediction: npt.NDArray[np.int32] | npt.NDArray[np.float32]
    """Index of the most probable class, or the predicted number."""
    confidence: npt.NDArray[np.float32]
    """The class's probability; NaN for a number, which comes without one."""
    scores: Mapping[str, npt.NDArray[np.float32]]
    """Strategy name → (n,), higher = more worth labeling."""
    embedding: npt.NDArray[np.float16]
    """(n, dim)."""
    probabilities: npt.NDArray[np.float16] | None = None
    """(n, classes), where selection itself reads them (`Acquisition.reads`)."""
    members: npt.NDArray[np.floating] | None = None
    """(n, members, classes) float16, of a regression (n, members) float32, likewise."""
    minutes: npt.NDArray[np.float32] | None = None
    """(n,) minutes a person needs (the record's `cost`), NaN where nobody said; None where nobody said anything."""
    slices: npt.NDArray[np.str_] | None = None
    """(n,) what `packed` makes of the records' slices; None where no record has any."""

    def __len__(self) -> int:
        return len(self.id)

    def columns(self) -> dict[str, npt.NDArray[Any]]:
        """The columns that are there, by field name, without the scores."""
        found = {name: getattr(self, name) for name in (*_ALWAYS, *_OPTIONAL)}
        return {name: values for name, values in found.items() if values is not None}

    def take(self, rows: npt.NDArray[np.integer[Any]] | npt.NDArray[np.bool_]) -> Candidates:
        columns: dict[str, Any] = {name: values[rows] for name, values in self.columns().items()}
        return Candidates(**columns, scores={name: values[rows] for name, values in self.scores.items()})

    def to_bytes(self) -> bytes:
        """Deterministic: the same rows give the same bytes."""
        out = io.BytesIO()
        columns = self.columns() | {f"score_{name}": values for name, values in sorted(self.scores.items())}
        np.savez_compressed(out, allow_pickle=False, **columns)
        return out.getvalue()

    @classmethod
    def from_bytes(cls, data: bytes) -> Candidates:
        try:
            with np.load(io.BytesIO(data), allow_pickle=False) as archive:
                columns = {name: archive[name] for name in archive.files}
            # Absent means 1: stated, it would keep the versions before this one from reading what this one writes.
            version = int(columns.pop("format", 1))
            if version != FORMAT:
                raise BadInput(f"candidate columns have format {version}, this code reads {FORMAT}", code="format")
            scores = {
                name.removeprefix("score_"): columns.pop(name) for name in list(columns) if name.startswith("score_")
            }
            return cls(**columns, scores=scores)
        except (ValueError, KeyError, TypeError, OSError, EOFError, BadZipFile, zlib.error) as error:
            raise BadInput(f"candidate columns cannot be read: {error!r}", code="malformed-candidates") from error

    @classmethod
    def concat(cls, parts: Sequence[Candidates]) -> Candidates:
        """All rows of parts that carry the same scores; of rows with one id the first stays.

        Outputs of the model stay where every part has them: what some records lack cannot decide between them.
        """
        joined: dict[str, Any] = {name: np.concatenate([getattr(part, name) for part in parts]) for name in _ALWAYS}
        for name in _OUTPUTS:
            if all(getattr(part, name) is not None for part in parts):
                joined[name] = np.concatenate([getattr(part, name) for part in parts])
        for name, absent in (("minutes", np.float32(np.nan)), ("slices", np.str_(""))):
            columns = [getattr(part, name) for part in parts]
            if any(column is not None for column in columns):
                filled = zip(columns, parts, strict=True)
                joined[name] = np.concatenate(
                    [np.full(len(part), absent) if column is None else column for column, part in filled]
                )
        shared = set.intersection(*(set(part.scores) for part in parts))
        scores = {name: np.concatenate([part.scores[name] for part in parts]) for name in sorted(shared)}
        together = cls(**joined, scores=scores)
        _, first = np.unique(together.id, return_index=True)
        return together.take(np.sort(first))


def packed(slices: Mapping[str, str]) -> str:
    """A record's slices as one text of a column; none give an empty one.

    Every row is as wide as the widest, so only the first `MOST_SLICES` by name count, and none longer than `LONGEST_SLICE`.

    >>> packed({"lang": "de", "app": "web"}), unpacked('{"app":"web","lang":"de"}')
    ('{"app":"web","lang":"de"}', {'app': 'web', 'lang': 'de'})
    """
    kept = sorted((name, value) for name, value in slices.items() if len(name) + len(value) <= LONGEST_SLICE)
    return json.dumps(dict(kept[:MOST_SLICES]), ensure_ascii=False, separators=(",", ":")) if kept else ""


def unpacked(text: str) -> dict[str, str]:
    """The slices in a text of `packed`."""
    return dict(json.loads(text)) if text else {}


def indexed(model: str, superseded: set[str], ports: Ports) -> Candidates | None:
    """What a model's shards hold of living objects; None while there is no shard."""
    shards = [Candidates.from_bytes(ports.data.get(item["key"])) for item in ports.table.query(f"SHARD#{model}")]
    if not shards:
        return None
    rows = Candidates.concat(shards)
    return rows.take(~np.isin(rows.oid, sorted(superseded))) if superseded else rows
