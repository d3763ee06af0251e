"""Scoring and the forms records travel in: uncertainty, the candidate codec, JSON Lines."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterator
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt

from benchmarks.measure import Result, against
from winnow.acquisition import STRATEGIES
from winnow.models.predictions import Predictions
from winnow.records import from_jsonl, to_jsonl
from winnow.steps.candidates import Candidates

SHAPES = ((100_000, 10), (100_000, 77), (1_000_000, 10), (1_000_000, 77))
LIMITS = {
    ("entropy", 10): 7.0, ("entropy", 77): 4.0,
    ("margin", 10): 4.0, ("margin", 77): 7.5,
    ("least_confidence", 10): 3.0, ("least_confidence", 77): 6.5,
}  # fmt: skip
"""Copies that a strategy may cost by name and classes: what short loops in numpy reach, and the peers do not."""
CANDIDATES, DIMENSIONS = 2_000, 64
LINES = 5_000


def results(*, seed: int = 0) -> Iterator[Result]:
    """Every ratio of this module."""
    rng = np.random.default_rng(seed)
    yield from _uncertainty(rng)
    yield from _codec(rng)
    yield from _lines()


def _uncertainty(rng: np.random.Generator) -> Iterator[Result]:
    """Every strategy that asks for nothing but probabilities, against a copy of them into an array that is there."""
    for rows, classes in SHAPES:
        given = Predictions(softmax(rows, classes, rng=rng), np.empty((rows, 0), dtype=np.float32))
        room = np.empty_like(given.probabilities)
        for name, one in STRATEGIES.items():
            if one.needs == {"probabilities"}:
                yield against(
                    f"{name}, {rows} x {classes}",
                    partial(one.score, given, rng),
                    partial(np.copyto, room, given.probabilities),
                    called="a copy of the probabilities",
                    limit=LIMITS.get((name, classes)),
                )


def softmax(rows: int, classes: int, *, rng: np.random.Generator) -> npt.NDArray[np.float32]:
    """Probabilities as a model gives them: some sure, some torn."""
    logits = 2.0 * rng.standard_normal((rows, classes), dtype=np.float32)
    logits -= logits.max(axis=1, keepdims=True)
    np.exp(logits, out=logits)
    logits /= logits.sum(axis=1, keepdims=True)
    return logits


def candidates(rows: int, *, rng: np.random.Generator) -> Candidates:
    """Invented candidates with the columns real ones have."""
    ids = [f"{number:032x}" for number in rng.integers(0, 2**62, rows)]
    return Candidates(
        id=np.array(ids), oid=np.array([f"o{one[:19]}" for one in ids]), cluster=np.array(ids[::-1]),
        role=rng.choice(np.array(["train", "evaluation", "reward"]), rows),
        records=np.array([f"records/o{one[:19]}/part-0000.jsonl.gz" for one in ids]),
        key=rng.random(rows), prediction=rng.integers(0, 10, rows).astype(np.int32),
        confidence=rng.random(rows, dtype=np.float32),
        scores={name: rng.random(rows, dtype=np.float32) for name in ("entropy", "least_confidence", "margin")},
        embedding=rng.standard_normal((rows, DIMENSIONS)).astype(np.float16),
    )  # fmt: skip


def _codec(rng: np.random.Generator) -> Iterator[Result]:
    rows = candidates(CANDIDATES, rng=rng)
    packed, plain = rows.to_bytes(), _as_lines(rows)
    note = f"{len(packed) / len(plain):.2f} x the bytes"
    name = f"candidates of {CANDIDATES} rows"
    called = "gzipped JSON Lines of the same rows"
    yield against(f"write {name}", rows.to_bytes, lambda: _as_lines(rows), called=called, note=note, repeats=5)
    yield against(
        f"read {name}", lambda: Candidates.from_bytes(packed), lambda: _columns(plain), called=called, repeats=5
    )


def _as_lines(rows: Candidates) -> bytes:
    columns = rows.columns() | dict(rows.scores)
    lists = {name: values.tolist() for name, values in columns.items()}
    lines = (json.dumps({name: values[row] for name, values in lists.items()}) for row in range(len(rows)))
    return gzip.compress("\n".join(lines).encode(), 6, mtime=0)


def _columns(data: bytes) -> dict[str, npt.NDArray[Any]]:
    found = [json.loads(line) for line in gzip.decompress(data).decode().split("\n")]
    return {name: np.array([row[name] for row in found]) for name in found[0]}


def _lines() -> Iterator[Result]:
    bodies = [{"v": 1, "id": f"{number:032x}", "role": "train", "text": "wörter " * 12} for number in range(LINES)]
    data = to_jsonl(bodies)
    yield against(
        f"write {LINES} JSON Lines",
        lambda: to_jsonl(bodies),
        lambda: "\n".join(json.dumps(body) for body in bodies).encode(),
        called="json.dumps a line",
    )
    yield against(
        f"read {LINES} JSON Lines",
        lambda: from_jsonl(data),
        lambda: [json.loads(line) for line in data.splitlines()],
        called="json.loads a line",
    )


QUICK = {"SHAPES": SHAPES[:2]}
"""What --quick sets instead."""
