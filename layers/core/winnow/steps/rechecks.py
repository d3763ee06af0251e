"""Labels asked again: which ones look wrong enough, and what becomes of a label that nobody contradicted.

A recheck is an item of an ordinary batch. Before its content is reserved for that batch, the expiry of the label is recorded
(`EXPIRY <content>#<batch>` with `recheck`), and that stays: a content is asked again once, whatever came of it. While it is asked
the label stands in the dataset; what people say takes its place in the next version, and if they say nothing it goes on
standing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from winnow import layout
from winnow.acquisition.cost import expected
from winnow.loop import Loop
from winnow.ports import JsonDict, Ports
from winnow.records import Label
from winnow.selection.recheck import suspicion, worthwhile
from winnow.steps import labeled
from winnow.steps.batches import Plan
from winnow.steps.candidates import Candidates
from winnow.steps.pointers import head

STRATEGY = "disagreement"
"""Strategy noted on rechecks; their score is the probability that the label is wrong."""


@dataclass(frozen=True)
class Suspect:
    """A labeled candidate whose label may be wrong, and the batch that gave it."""

    row: int
    batch: str
    wrong: float
    """Probability that people contradict the label: the unit in which a new record's worth is stated too."""


def suspects(rows: Candidates, taken: Mapping[str, JsonDict], ports: Ports) -> list[Suspect]:
    """Labeled train records that were never asked again, the most suspicious first."""
    version, _ = head(ports.data)
    if version is None or ports.loop.task.type == "regression":
        return []
    dataset = labeled.load(ports.data, version)
    place = {name: number for number, name in enumerate(dataset.classes)}
    known = labeled.labels(ports.data, dataset, "train")
    candidates = [
        row for row, identity in enumerate(rows.id.tolist()) if identity in known and rows.role[row] == "train"
    ]
    if not candidates:
        return []
    ids = rows.id[candidates].tolist()
    given = np.array([place[str(known[identity])] for identity in ids], dtype=np.int64)
    wrong = suspicion(rows.embedding[candidates].astype(np.float32), given, classes=len(place))
    before = {item["sk"].partition("#")[0] for item in ports.table.query(layout.EXPIRY) if "recheck" in item}
    found = [
        Suspect(row, taken[identity]["batch"], float(chance))
        for row, identity, chance in zip(candidates, ids, wrong, strict=True)
        if chance > 0.0 and identity not in before and identity in taken and taken[identity]["state"] == "labeled"
    ]
    return sorted(found, key=lambda one: (-one.wrong, str(rows.id[one.row])))


def worth_more(
    found: Sequence[Suspect], fresh: Sequence[int], rows: Candidates, *, most: int, loop: Loop
) -> dict[int, Suspect]:
    """New record → suspect that takes its place, where that is worth more; both are rows.

    A new record is worth the probability that people contradict the champion's prediction, a suspect the probability that
    they contradict the label that stands: each is a mistake that the next model would have been built on. With
    `acquisition.per_minute` both are divided by the minutes they need.
    """
    minutes = np.ones(len(rows), dtype=np.float32)
    if loop.acquisition.per_minute and rows.minutes is not None:
        minutes = expected(rows.minutes)
    doubt = (1.0 - rows.confidence.astype(np.float64)) / minutes
    least = sorted(fresh, key=lambda row: (doubt[row], str(rows.id[row])))
    best = sorted(found, key=lambda one: (-one.wrong / minutes[one.row], str(rows.id[one.row])))
    count = worthwhile(
        np.array([one.wrong / minutes[one.row] for one in best]), np.array([doubt[row] for row in least]), most=most
    )
    return dict(zip(least[:count], best[:count], strict=True))


def standing(plan: Plan, labels: Sequence[Label], ports: Ports) -> dict[str, str]:
    """Contents of a batch that were asked again in vain → the batch whose label stands in the newest dataset version."""
    again = {choice.id: choice.again for choice in plan.choices if choice.again is not None}
    vain = {label.id for label in labels if label.id in again and label.status in ("expired", "quarantined")}
    version, _ = head(ports.data) if vain else (None, None)
    if version is None:
        return {}
    known = labeled.labels(ports.data, labeled.load(ports.data, version), "train")
    return {identity: str(again[identity]) for identity in sorted(vain & known.keys())}
