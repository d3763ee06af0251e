"""What a batch becomes after its arms have chosen: quotas met, doubtful labels asked again, people's minutes kept."""

from __future__ import annotations

import gzip
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from winnow import layout
from winnow.acquisition.cost import UNKNOWN, expected
from winnow.ports import JsonDict, Ports
from winnow.records import SYNTHETIC, Record, to_jsonl
from winnow.selection.arms import Choice, ScoredPool
from winnow.selection.fair import exchange, meet_quotas, within_minutes
from winnow.selection.quotas import PREDICTED, Mask, Unmet, dispensable, least, split
from winnow.steps import batches, rechecks
from winnow.steps.candidates import Candidates
from winnow.steps.groups import groups, unknown_slices
from winnow.steps.synthesis import STRATEGIES, synthesised

MINUTES = "batches.minutes leaves no room for more; raise it"


@dataclass(frozen=True)
class Composed:
    """The choices of a batch, with what has to be told about it."""

    choices: list[Choice]
    again: Mapping[str, str]
    """Contents whose label is asked again → the batch that gave it."""
    made: Mapping[str, Record]
    """Contents that were made of others, by id."""
    told: Sequence[str]
    """Sentences about quotas that the batch does not meet, and about records that fit into no batch."""
    full: bool
    """Whether the batch holds no more because of `batches.minutes`."""


def too_long(rows: Candidates, ports: Ports) -> Mask:
    """(n,) True for records that need more minutes than a whole batch may take: they can never be asked."""
    limit = ports.loop.batches.minutes
    if limit is None:
        return np.zeros(len(rows), dtype=np.bool_)
    return _minutes(rows) > limit


def composed(
    picked: Sequence[Choice],
    columns: ScoredPool,
    rows: Candidates,
    taken: Mapping[str, JsonDict],
    *,
    strategy: str,
    bootstrap: bool,
    covers: bool,
    ports: Ports,
) -> Composed:
    """The arms' choices made into the batch that is asked. `columns` and `rows` are the same candidates, row by row.

    A batch that `covers` the pool goes by no doubt, so no label is asked again for it and nothing is made of doubtful records.
    """
    loop = ports.loop
    draft = _Draft(columns, rows, taken, groups(rows, loop), ports)
    shares, place = draft.shares, draft.place
    reasons = unknown_slices(rows, loop)
    for quota in [quota for quota in shares if bootstrap and split(quota)[0] == PREDICTED]:
        reasons[quota] = "no trained champion predicts classes yet"
    possible = {quota: share for quota, share in shares.items() if quota not in reasons}
    choices = list(picked)
    if possible:
        choices, unmet = meet_quotas(
            columns, choices, groups=draft.masks, shares=possible, strategy=strategy, bootstrap=covers
        )
        reasons |= {one.quota: one.reason for one in unmet}
    again: dict[str, str] = {}
    made: dict[str, Record] = {}
    if not covers:
        choices, again = draft.with_rechecks(choices)
        choices, made = draft.with_synthetic(choices)
    before = len(choices)
    limit = loop.batches.minutes
    if limit is not None:
        known = _minutes(rows)
        typical = float(np.median(known)) if len(rows) else UNKNOWN
        needed = [
            (made[choice.id].cost or typical) if choice.id in made else float(known[place[choice.id]])
            for choice in choices
        ]
        choices = within_minutes(choices, needed, limit)
    batch = np.array([place[choice.id] for choice in choices if choice.id not in made], dtype=np.int64)
    told = []
    for quota, share in shares.items():
        wanted, got = least(share, len(choices)), int(draft.masks[quota][batch].sum())
        if got < wanted:
            told.append(str(Unmet(quota, wanted, got, reasons.get(quota, MINUTES))))
    never = int(too_long(rows, ports).sum())
    if never:
        told.append(f"{never} records need more than batches.minutes ({limit:g}) and can never be asked; raise it")
    kept = {choice.id for choice in choices}
    return Composed(
        choices, {name: batch for name, batch in again.items() if name in kept},
        {name: record for name, record in made.items() if name in kept}, told, full=len(choices) < before,
    )  # fmt: skip


@dataclass(frozen=True)
class _Draft:
    """What the places of the active arm may be exchanged for, and the quotas that an exchange must keep."""

    columns: ScoredPool
    rows: Candidates
    taken: Mapping[str, JsonDict]
    masks: Mapping[str, Mask]
    """(n,) of each quota's group."""
    ports: Ports

    @property
    def shares(self) -> Mapping[str, float]:
        return self.ports.loop.acquisition.quotas

    @cached_property
    def place(self) -> Mapping[str, int]:
        """Content → row."""
        return {name: row for row, name in enumerate(self.columns.ids)}

    def with_rechecks(self, choices: list[Choice]) -> tuple[list[Choice], dict[str, str]]:
        """The choices with those of the active arm replaced whose places are worth less than asking for a label again; of
        what is asked again, the batch that gave the label."""
        rows = self.rows
        most = int(self.ports.loop.acquisition.arms.recheck * len(choices) + 1e-9)
        found = rechecks.suspects(rows, self.taken, self.ports) if most else []
        if not found:
            return choices, {}
        fresh = self._spare(choices, -rows.confidence)
        places = rechecks.worth_more(found, fresh, rows, most=most, loop=self.ports.loop)
        comes = {
            str(rows.id[leaves]): Choice(str(rows.id[one.row]), "recheck", rechecks.STRATEGY, one.wrong, rank=0)
            for leaves, one in places.items()
        }
        return exchange(choices, comes), {str(rows.id[one.row]): one.batch for one in places.values()}

    def with_synthetic(self, choices: list[Choice]) -> tuple[list[Choice], dict[str, Record]]:
        """The choices with the last of the active arm replaced by records made of others, and these by id."""
        loop, rows = self.ports.loop, self.rows
        most = int(loop.acquisition.arms.synthesis * len(choices) + 1e-9)
        if not most:
            return choices, {}
        ranks = np.zeros(len(rows))
        for choice in choices:
            ranks[self.place[choice.id]] = choice.rank
        leaving = self._spare(choices, -ranks)
        made = synthesised(min(most, len(leaving)), self.columns, rows, self.taken, self.ports)
        comes = {
            str(rows.id[row]): Choice(record.id, SYNTHETIC, STRATEGIES[loop.task.kind], None, rank=0)
            for row, record in zip(leaving, made, strict=False)
        }
        return exchange(choices, comes), {record.id: record for record in made}

    def _spare(self, choices: Sequence[Choice], first: np.ndarray[tuple[int], np.dtype[np.floating]]) -> list[int]:
        """Rows of the active arm that may leave the batch, lowest `first` (n,) first, without breaking a quota."""
        batch = np.array([self.place[choice.id] for choice in choices], dtype=np.int64)
        active = np.array([self.place[choice.id] for choice in choices if choice.arm == "active"], dtype=np.int64)
        wanted = {quota: least(share, len(choices)) for quota, share in self.shares.items()}
        return dispensable(self.masks, wanted, batch=batch, order=active[np.argsort(first[active], kind="stable")])


def write_synthetic(name: str, batch: Composed, ports: Ports) -> list[batches.Choice]:
    """Put the records that were made for a batch beside its plan, and give them as the plan's choices."""
    if not batch.made:
        return []
    key = layout.synthetic(name)
    body = to_jsonl([record.to_json() for _, record in sorted(batch.made.items())])
    ports.data.put(key, gzip.compress(body, 6, mtime=0))
    return [
        batches.Choice(
            id=pick.id, oid=SYNTHETIC, cluster=batch.made[pick.id].cluster, role="train", records=key, arm=pick.arm,
            strategy=pick.strategy, score=pick.score, rank=pick.rank,
        )
        for pick in batch.choices
        if pick.id in batch.made
    ]  # fmt: skip


def _minutes(rows: Candidates) -> np.ndarray[tuple[int], np.dtype[np.float32]]:
    return expected(np.full(len(rows), np.nan, dtype=np.float32) if rows.minutes is None else rows.minutes)
