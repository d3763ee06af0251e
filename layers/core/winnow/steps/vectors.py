"""An encoder's vectors, kept: a content is encoded once for every encoder, however many models stand on it.

`embeddings/<encoder>/records/…` has those of one records artifact, written when it is first scored;
`embeddings/<encoder>/batches/<batch>.npz` has those of one labeled batch, gathered from them for trainings and gates.
"""

from __future__ import annotations

import gzip
import io
import json
import zlib
from collections.abc import Mapping, Sequence
from typing import Any
from zipfile import BadZipFile

import numpy as np
import numpy.typing as npt

from winnow import layout
from winnow.errors import ConfigError, NotFound
from winnow.models.encoder import EncoderCard
from winnow.ports import JsonDict, Model, ObjectStore, Ports
from winnow.records import SYNTHETIC, from_jsonl
from winnow.steps.batches import read_plan
from winnow.steps.documents import document

ROWS_KEPT_AT_ONCE = 500
"""Records encoded between two writes: what a function that ran out of time leaves, the next one need not do again."""

Vectors = npt.NDArray[np.float32]
Known = dict[str, Vectors]
"""Content id → vector (E,)."""


def configured(ports: Ports) -> EncoderCard | None:
    """The encoder that loop.yaml names, as the stack has it. Raises ConfigError when it was not imported."""
    name = ports.loop.training.encoder
    if name is None:
        return None
    try:
        return EncoderCard.from_json(json.loads(ports.data.get(layout.encoder(name))))
    except NotFound as error:
        raise ConfigError(
            f"training.encoder is {name!r}, but {layout.encoder(name)} does not exist; run `winnow import encoder DIR --name "
            f"{name}`"
        ) from error


def of_records(
    key: str, ids: Sequence[str], payloads: Sequence[JsonDict], model: Model, ports: Ports
) -> Vectors | None:
    """Vectors (n, E) of the records of one artifact, from the cache or else into it; None of a model without an encoder."""
    encoder = model.card.encoder
    if encoder is None:
        return None
    place = layout.embeddings(encoder.digest, key)
    known = _read(place, ports.data) or {}
    missing = [row for row, name in enumerate(ids) if name not in known]
    for start in range(0, len(missing), ROWS_KEPT_AT_ONCE):
        rows = missing[start : start + ROWS_KEPT_AT_ONCE]
        known.update(zip((ids[row] for row in rows), model.encode([payloads[row] for row in rows]), strict=True))
        ports.data.put(place, pack(known))
    return np.stack([known[name] for name in ids]) if ids else np.zeros((0, encoder.dimensions), np.float32)


def gathered(encoder: str, dataset: str, ports: Ports) -> Known:
    """Vectors of a dataset version's records, as far as they were encoded when they were scored.

    What is complete of a batch is kept in one artifact, so that the next version reads that alone.
    """
    known: Known = {}
    for batch in _batches(dataset, ports):
        kept = _read(layout.batch_embeddings(encoder, batch), ports.data)
        known |= _collected(encoder, batch, ports) if kept is None else kept
    return known


def kept(encoder: str, dataset: str, ports: Ports) -> Known:
    """What `gathered` kept of a dataset version's batches."""
    found = (_read(layout.batch_embeddings(encoder, batch), ports.data) for batch in _batches(dataset, ports))
    return {name: vector for known in found if known is not None for name, vector in known.items()}


def of_lines(
    lines: Sequence[Mapping[str, Any]], payloads: Sequence[JsonDict], model: Model, known: Known
) -> Vectors | None:
    """Vectors (n, E) of a dataset's lines; those that are not `known` are encoded now, and known from then on."""
    if model.card.encoder is None:
        return None
    missing = [place for place, line in enumerate(lines) if str(line["id"]) not in known]
    if missing:
        fresh = model.encode([payloads[place] for place in missing])
        known.update({str(lines[place]["id"]): vector for place, vector in zip(missing, fresh, strict=True)})
    width = model.card.encoder.dimensions
    return np.stack([known[str(line["id"])] for line in lines]) if lines else np.zeros((0, width), np.float32)


def pack(known: Mapping[str, Vectors]) -> bytes:
    """`.npz` with columns `id` and `vectors`; the same rows give the same bytes. Float32: rounded ones would be others.

    >>> unpack(pack({"a": np.array([0.5, 0.25], np.float32)}))
    {'a': array([0.5 , 0.25], dtype=float32)}
    """
    out = io.BytesIO()
    rows = np.stack(list(known.values())) if known else np.zeros((0, 0), np.float32)
    np.savez(out, allow_pickle=False, id=np.array(list(known), dtype=np.str_), vectors=rows.astype(np.float32))
    return out.getvalue()


def unpack(data: bytes) -> Known:
    """Raises ValueError for bytes that `pack` did not write."""
    try:
        with np.load(io.BytesIO(data), allow_pickle=False) as archive:
            return dict(zip(archive["id"].tolist(), archive["vectors"], strict=True))
    except (KeyError, TypeError, OSError, EOFError, BadZipFile, zlib.error) as error:
        raise ValueError(f"vectors cannot be read: {error!r}") from error


def _collected(encoder: str, batch: str, ports: Ports) -> Known:
    try:
        wanted, keys = (_imported if layout.is_import(batch) else _asked)(encoder, batch, ports)
    except NotFound:
        return {}  # a batch of another stack, that came here with its labels
    known: Known = {}
    for key in keys:
        known |= _read(key, ports.data) or {}
    found = {name: vector for name, vector in known.items() if name in wanted}
    if len(found) == len(wanted):
        ports.data.put(layout.batch_embeddings(encoder, batch), pack(found))
    return found


def _asked(encoder: str, batch: str, ports: Ports) -> tuple[set[str], list[str]]:
    """The contents of a batch, and where their vectors lie."""
    choices = [choice for choice in read_plan(batch, ports).choices if choice.arm != SYNTHETIC]  # nobody scored those
    keys = dict.fromkeys(layout.embeddings(encoder, choice.records) for choice in choices)
    return {choice.id for choice in choices}, list(keys)


def _imported(encoder: str, batch: str, ports: Ports) -> tuple[set[str], list[str]]:
    """The same of labels that came with their records."""
    entries = from_jsonl(gzip.decompress(ports.data.get(layout.imported(layout.oid_of_import_batch(batch)))))
    homes = dict.fromkeys(f"{layout.EMBEDDINGS}{encoder}/{layout.RECORDS}{entry['oid']}/" for entry in entries)
    return {entry["id"] for entry in entries}, [key for home in homes for key in ports.data.list(home)]


def _batches(dataset: str, ports: Ports) -> list[str]:
    return [str(batch) for batch in document(ports.data, layout.dataset(dataset)).get("batches", ())]


def _read(key: str, data: ObjectStore) -> Known | None:
    """None for what is not there or cannot be read: it is made again then."""
    try:
        return unpack(data.get(key))
    except (NotFound, ValueError):
        return None
