"""The arm `synthetic`: records made of two candidates, for people to label.

They are written with the batch that asks them, outside of the pool: nothing scores them, they are no candidates, and so no
other arm can choose them. Their role follows from their near-duplicate cluster as any record's does; one that would not be of
role train, or that resembles a known candidate, is not made (I5).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from winnow.datasets.clusters import row_cluster, text_cluster
from winnow.datasets.roles import role, uniform_key
from winnow.digests import digest
from winnow.ports import JsonDict, Ports
from winnow.privacy.masking import mask_row, mask_text
from winnow.records import SYNTHETIC, Record
from winnow.selection.arms import ScoredPool
from winnow.selection.synthesis import mixed, pairs, recombined
from winnow.steps.batches import Choice, payloads
from winnow.steps.candidates import Candidates
from winnow.tables import Cell

STRATEGIES = {"text": "recombination", "table": "mixup"}
"""Kind of record → strategy noted on what is made of two of them; it comes without a score."""

_TRIES = 4
"""Pairs looked at for each record wanted: halves may not fit, and a quarter of all clusters are not for training."""


def synthesised(
    most: int, columns: ScoredPool, rows: Candidates, taken: Mapping[str, JsonDict], ports: Ports
) -> list[Record]:
    """At most `most` new records, made of the best-scored train candidates that may be asked and their neighbours."""
    open_rows = rows.role == "train"
    if columns.excluded is not None:
        open_rows &= ~columns.excluded
    pool = np.flatnonzero(open_rows)
    predicted = None if ports.loop.task.type == "regression" else rows.prediction[pool].astype(np.int64)
    embedding = columns.embedding[pool].astype(np.float32, copy=False)
    found = pairs(columns.scores[pool], embedding, predicted, most=_TRIES * most)
    rng = np.random.default_rng(int(digest([str(rows.id[pool[row]]) for pair in found for row in pair], length=12), 16))
    known = set(rows.cluster.tolist())
    made: list[Record] = []
    for record in _made([(int(pool[one]), int(pool[other])) for one, other in found], rows, ports, rng=rng):
        if len(made) == most:
            break
        if record.cluster not in known and record.id not in taken:
            known.add(record.cluster)
            made.append(record)
    return made


def _made(
    found: Sequence[tuple[int, int]], rows: Candidates, ports: Ports, *, rng: np.random.Generator
) -> Iterator[Record]:
    """What the pairs give, as far as it is a record for training."""
    parents = payloads([_choice(row, rows) for row in sorted({row for pair in found for row in pair})], ports)
    for pair in found:
        one, other = (parents[str(rows.id[row])] for row in pair)
        share = float(rng.uniform(0.3, 0.7))
        text, row = None, None
        if one.text is not None and other.text is not None:
            text = recombined(one.text, other.text)
        elif one.row is not None and other.row is not None:
            row = mixed(one.row, other.row, share=share)
        record = _record(text, row, (one, other), ports)
        if record is not None:
            yield record


def _record(text: str | None, row: dict[str, Cell] | None, parents: Sequence[Record], ports: Ports) -> Record | None:
    """The canonical record of what was made, masked as at ingest; None where it is none, or not one for training."""
    masked, salt = ports.loop.privacy.mask, ports.loop.privacy.salt
    if text is not None:
        text = mask_text(text)[0] if masked else text
        identity, cluster = digest({"text": text}), text_cluster(text)
    elif row is not None:
        row = mask_row(row)[0] if masked else row
        identity, cluster = digest({"row": row}), row_cluster(row)
    else:
        return None
    if role(cluster, salt=salt) != "train":
        return None
    costs = [parent.cost for parent in parents if parent.cost is not None]
    return Record(
        id=identity, oid=SYNTHETIC, kind=parents[0].kind, cluster=cluster, role="train", origin=SYNTHETIC,
        key=uniform_key(cluster, salt=salt), cost=sum(costs) / len(costs) if costs else None, text=text, row=row,
    )  # fmt: skip


def _choice(row: int, rows: Candidates) -> Choice:
    """A candidate as one reads its payload."""
    return Choice(
        id=str(rows.id[row]), oid=str(rows.oid[row]), cluster=str(rows.cluster[row]), role="train",
        records=str(rows.records[row]), arm=SYNTHETIC, strategy="", score=None, rank=0,
    )  # fmt: skip
