"""A small world for the first hops: a text loop, a model that counts letters, and the calls AWS would make between hops."""

from __future__ import annotations

import gzip
import json
from types import SimpleNamespace
from typing import Any

import numpy as np

from tests.fakes import FakeModel, make_ports
from winnow import layout
from winnow.models.predictions import Predictions
from winnow.records import PoolObject, from_jsonl
from winnow.steps.index_candidates import index_candidates
from winnow.steps.ingest_object import ingest_object
from winnow.steps.score_records import ScoreRequest, score_records

LOOP = """
task: {kind: text, classes: [cat, dog]}
batches: {size: 12, min_size: 2}
acquisition: {near_duplicate_distance: 0.0, arms: {control: 0.25, evaluation_target: 20, evaluation_share: 0.25}}
gate: {min_records: 10}
quality: {workers_per_item: 3}
budget: {total_usd: 100, price_per_answer_usd: "0.10"}
"""


NAMES = (
    "ada", "bob", "cyd", "dan", "eve", "fay", "gus", "hal", "ida", "joe", "kim", "lea", "max", "ned", "oda", "pia",
)  # fmt: skip


def letters(payloads: Any) -> Predictions:
    """Uncertainty falls with the length of the text; the embedding spreads texts out by their bytes."""
    length = np.array([len(payload["text"]) for payload in payloads], dtype=np.float32)
    dog = 0.5 + 0.5 * length / (length.max() + 1)
    rows = [np.random.default_rng(list(payload["text"].encode())).normal(size=8) for payload in payloads]
    return Predictions(np.stack([1 - dog, dog], axis=1), np.array(rows, dtype=np.float32))


def world(loop: str = LOOP) -> Any:
    ports = make_ports(loop=loop)
    card = SimpleNamespace(model="bootstrap-text", classes=("cat", "dog"), encoder=None)
    ports.models.models["bootstrap-text"] = FakeModel(card, letters)
    return ports


def jsonl(*texts: str) -> bytes:
    return "".join(json.dumps({"text": text}) + "\n" for text in texts).encode()


def animals(count: int) -> bytes:
    """Texts that are no near-duplicates of each other (digits are masked when clusters are made)."""
    return jsonl(
        *(f"{NAMES[n % 16]} and {NAMES[(n // 16) % 16]} walk the {NAMES[n // 256]} animal" for n in range(count))
    )


def ingest(ports: Any, item: PoolObject) -> dict[str, Any]:
    return dict(ingest_object(item, ports).body)


def score_all(ports: Any) -> None:
    """What the queues between hops 1, 2 and 3 do."""
    score_records(ScoreRequest(tuple(ports.data.list(layout.RECORDS))), ports)
    index_candidates(list(ports.queues.sent["candidates"]), ports)


def records_of(ports: Any, oid: str) -> list[dict[str, Any]]:
    keys = ports.data.list(f"{layout.RECORDS}{oid}/")
    return [body for key in keys for body in from_jsonl(gzip.decompress(ports.data.objects[key]))]


def occurrences_of(ports: Any, oid: str) -> list[dict[str, Any]]:
    return from_jsonl(gzip.decompress(ports.data.objects[layout.occurrences(oid)]))
