"""Scoring and the forms records travel in: uncertainty, the candidate codec, JSON Lines."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from benchmarks.measure import Result, against
from winnow.acquisition.uncertainty import entropy, least_confidence, margin
from winnow.records import from_jsonl, to_jsonl
from winnow.steps.candidates import Candidates

SHAPES = ((200_000, 10), (40_000, 77))
CANDIDATES, DIMENSIONS = 2_000, 64
LINES = 5_000


def results(*, seed: int = 0) -> Iterator[Result]:
    """Every ratio of this module."""
    rng = np.random.default_rng(seed)
    for rows, classes in SHAPES:
        probabilities = rng.dirichlet(np.ones(classes), size=rows).astype(np.float32)
        for score in (least_confidence, margin, entropy):
            yield against(
                f"{score.__name__}, {rows} x {classes}",
                lambda score=score, probabilities=probabilities: score(probabilities),
                lambda probabilities=probabilities: probabilities.copy(),
                called="a copy of the probabilities",
            )
    yield from _codec(rng)
    yield from _lines()


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
