"""An encoder's vectors of many records, made once and kept on disk."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from winnow.errors import BadModel
from winnow.onnx.encoder import Encoder, Vectors, files_reader
from winnow.onnx.encoder_folder import read_encoder
from winnow_cli.errors import UsageError
from winnow_cli.labeled import Payload
from winnow_cli.progress import Bar

PART = 500
"""Records of one file: what an interrupt may cost."""


def open_encoder(folder: Path, *, kind: str, threads: int) -> Encoder:
    """The encoder in a folder. Raises UsageError for a folder that holds none, or one of another kind of record."""
    try:
        card, files = read_encoder(folder)
    except (BadModel, OSError) as error:
        raise UsageError(f"--encoder {folder}: {error}") from error
    if card.reads != kind:
        raise UsageError(f"--encoder {folder} reads {card.reads}; the records are of kind {kind}")
    return Encoder(card, files_reader(files), threads=threads)


def encoded(payloads: Sequence[Payload], encoder: Encoder, *, digest: str, cache: Path) -> Vectors:
    """Vectors (n, dimensions) of the payloads, read from `cache` where they were made before.

    `digest` names the payloads. Parts are written one by one, so that an interrupt costs little.
    """
    folder = cache / "vectors" / encoder.card.digest / digest
    folder.mkdir(parents=True, exist_ok=True)
    starts = range(0, len(payloads), PART)
    missing = [start for start in starts if not (folder / _name(start)).is_file()]
    bar = Bar("encoding", total=len(missing), unit="parts")
    for start in missing:
        path = folder / _name(start)
        vectors = encoder.encode(list(payloads[start : start + PART]))  # type: ignore[arg-type]
        draft = path.with_suffix(f".{os.getpid()}")
        with draft.open("wb") as out:
            np.save(out, vectors, allow_pickle=False)
        draft.replace(path)
        bar.step()
    bar.close()
    return np.concatenate([np.load(folder / _name(start), allow_pickle=False) for start in starts])


def _name(start: int) -> str:
    return f"{start:08d}.npy"
