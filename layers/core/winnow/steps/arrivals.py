"""What arrived lately, kept so that hop 2 knows how selective to be: sketches by hour in the table, unions of sets all of them.

Whoever scores records writes down what arrived, reads what everybody else wrote, decides, and writes down what it admitted. A
sketch counts a record once however often it is shown, so doubles, late events and functions that run at once need no
order; for the same reason anybody may put rows together at any time (write the union, then delete its parts).
"""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

import numpy as np
import numpy.typing as npt

from winnow.digests import digest
from winnow.metrics import Metric
from winnow.ports import JsonDict, Ports
from winnow.selection import admission
from winnow.selection.admission import Admission, Hour
from winnow.selection.sketch import EMPTY, Scores, Sketch, chance, merge
from winnow.steps.candidates import Candidates

ROWS = 16
"""Rows of the newest hours that are read before they are put together."""

RESCORE = "rescore"
"""Stands in place of the hour for what a rescore scored: a pool that is gone through once, at no hour of its own."""

_SIZES: Mapping[str, tuple[int, int]] = {"role": (128, 0), "seen": (1024, 1024), "admitted": (512, 0), "free": (512, 0)}
"""What a row holds under `<kind>:<name>`: how many records of a role there were; of a lane the records by their score, and
those of them that were admitted by the threshold or while all passed. (sample, top) of each sketch; smaller where there are
more than four lanes, so that a row stays within DynamoDB's 400 KB."""

_SPREAD = 1.5
"""Room for the error of a count of 128: four standard errors and more."""

State = Mapping[str, Sketch]
Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class Lane:
    """One way to be worth forwarding, with a budget a day: a score, and of each artifact the rows that compete by it."""

    name: str
    budget: int
    most: int
    """Of one artifact."""
    scores: Sequence[Scores]
    """Of each artifact (n,), higher = more worth labeling."""
    rows: Sequence[Mask]
    """Of each artifact (n,)."""


@dataclass(frozen=True, eq=False)
class Intake:
    """What of the records just scored may become candidates."""

    admitted: Mapping[str, Sequence[Mask]]
    """Lane → of each artifact (n,) the rows that pass for their score."""
    bounds: Mapping[str, float]
    """Role → the uniform key below which a record belongs to its uniform sample."""
    metrics: tuple[Metric, ...]


class Arrivals:
    """Artifacts that a model has just scored among what else arrived: `weigh` before candidates are sent, `note` after."""

    def __init__(
        self, model: str, parts: Sequence[Candidates], lanes: Sequence[Lane], ports: Ports, *, rescore: bool
    ) -> None:
        self._ports, self._lanes, self._rescore = ports, lanes, rescore
        self._policy = ports.loop.acquisition
        self._partition = f"ARRIVAL#{model}"
        self._now = ports.clock.now()
        self._slot = RESCORE if rescore else _slot(self._now)
        self._ends = np.cumsum([len(part) for part in parts])[:-1]
        ids = [name for part in parts for name in part.id.tolist()]
        self._name = digest(sorted(ids))
        self._keys = chance(ids)
        self._roles = np.concatenate([part.role for part in parts])
        self._scores = {lane.name: np.concatenate(lane.scores) for lane in lanes}
        self._rows = {lane.name: np.concatenate(lane.rows) for lane in lanes}
        self._reasons: dict[str, str] = {}

    def weigh(self) -> Intake:
        """Write down what arrived, and decide. Without a budget all pass."""
        if not self._policy.candidates_per_day:
            return Intake({lane.name: lane.rows for lane in self._lanes}, {}, ())
        self._put(self._arrived())
        state = self._read()
        admitted: dict[str, Sequence[Mask]] = {}
        metrics: list[Metric] = []
        for lane in self._lanes:
            decided = self._decide(lane, state)
            self._reasons[lane.name] = decided.reason
            mask = np.zeros(len(self._keys), dtype=bool)
            mask[self._rows[lane.name]] = decided.mask
            admitted[lane.name] = np.split(mask, self._ends)
            if lane is self._lanes[0] and decided.threshold is not None:
                metrics.append(Metric("AdmissionThreshold", decided.threshold))
        return Intake(admitted, self._bounds(state), tuple(metrics))

    def note(self, sent: Mapping[str, Sequence[Mask]]) -> tuple[Metric, ...]:
        """Write down what each lane sent of each artifact, now that it was sent."""
        train = int((self._roles == "train").sum())
        if not self._policy.candidates_per_day or not self._lanes or not train:
            return ()
        spent = {}
        for lane in self._lanes:
            kind = "free" if self._reasons[lane.name] == "open" else "admitted"
            rows = np.concatenate(sent[lane.name])
            spent[f"{kind}:{lane.name}"] = self._sketch(kind, rows, self._scores[lane.name])
        self._put({**self._arrived(), **spent})
        share = np.stack([np.concatenate(rows) for rows in sent.values()]).any(axis=0).sum() / train
        return (Metric("AdmittedShare", 100.0 * float(share)),)

    def _arrived(self) -> State:
        nothing = np.zeros(len(self._keys), dtype=np.float32)
        roles = {
            f"role:{role}": self._sketch("role", self._roles == role, nothing)
            for role in ("train", "evaluation", "reward")
        }
        lanes = {
            f"seen:{lane.name}": self._sketch("seen", self._rows[lane.name], self._scores[lane.name])
            for lane in self._lanes
        }
        return {**roles, **lanes}

    def _bounds(self, state: Mapping[str, State]) -> dict[str, float]:
        """Above the n-th lowest of a role's keys, n being what selection may want of them: of the last day's records, so of
        the whole pool's all the more."""
        wanted = max(self._policy.candidates_per_day, self._policy.uniform_per_object)
        counts = {
            role: merge([one[f"role:{role}"] for one in state.values() if f"role:{role}" in one], sample=1024).count
            for role in ("train", "evaluation", "reward")
        }
        return {role: min(1.0, _SPREAD * wanted / count) for role, count in counts.items() if count}

    def _decide(self, lane: Lane, state: Mapping[str, State]) -> Admission:
        rows = self._rows[lane.name]
        scores, keys = self._scores[lane.name][rows], self._keys[rows]
        hours = {
            slot: Hour(*(one.get(f"{kind}:{lane.name}", EMPTY) for kind in ("seen", "admitted", "free")))
            for slot, one in state.items()
        }
        if self._rescore:
            seen = merge([hour.arrivals for hour in hours.values()])
            return admission.admit_again(scores, keys, seen=seen, budget=lane.budget)
        recent = {_hour(slot): hour for slot, hour in hours.items()}
        return admission.admit(scores, keys, at=self._now.timestamp() / 3600.0, recent=recent, budget=lane.budget)

    def _sketch(self, kind: str, rows: Mask, scores: Scores) -> Sketch:
        sample, top = self._size(kind)
        return Sketch.of(self._keys[rows], scores[rows], sample=sample, top=top)

    def _size(self, kind: str) -> tuple[int, int]:
        sample, top = _SIZES[kind]
        parts = 1 if kind == "role" else max(1, -(-len(self._lanes) // 4))
        return sample // parts, top // parts

    def _put(self, sketches: State) -> None:
        self._ports.table.put(self._partition, f"{self._slot}#{self._name}", _packed(sketches))

    def _read(self) -> dict[str, State]:
        """The sketches of every slot that still counts; too many rows of a slot are put together, those that aged out deleted."""
        table = self._ports.table
        first = self._now - timedelta(hours=admission.WINDOW - 1)
        prefixes = [RESCORE] if self._rescore else sorted({_slot(at)[:10] for at in (first, self._now)})
        items = [item for prefix in prefixes for item in table.query(self._partition, prefix=prefix)]
        by_slot: dict[str, list[JsonDict]] = {}
        for item in items:
            by_slot.setdefault(item["sk"].split("#")[0], []).append(item)
        state = {}
        for slot, rows in sorted(by_slot.items()):
            if slot < _slot(first):
                self._delete(rows)
                continue
            state[slot] = self._union(rows)
            busy = slot in (RESCORE, self._slot, _slot(self._now - timedelta(hours=1)))
            if len(rows) > (ROWS if busy else 1):
                name = digest(sorted(item["sk"] for item in rows))
                table.put(self._partition, f"{slot}#{name}", _packed(state[slot]))
                self._delete(rows)
        return state

    def _union(self, rows: Sequence[JsonDict]) -> State:
        held: dict[str, list[Sketch]] = {}
        for item in rows:
            for name in item.keys() - {"pk", "sk"}:
                held.setdefault(name, []).append(Sketch.from_bytes(base64.b64decode(item[name])))
        found = {}
        for name, sketches in held.items():
            sample, top = self._size(name.partition(":")[0])
            found[name] = merge(sketches, sample=sample, top=top)
        return found

    def _delete(self, rows: Sequence[JsonDict]) -> None:
        for item in rows:
            self._ports.table.delete(self._partition, item["sk"])


def _slot(at: datetime) -> str:
    return at.strftime("%Y-%m-%dT%H")


def _hour(slot: str) -> int:
    return int(datetime.fromisoformat(f"{slot}:00+00:00").timestamp() // 3600)


def _packed(sketches: State) -> JsonDict:
    return {name: base64.b64encode(one.to_bytes()).decode("ascii") for name, one in sketches.items() if len(one.keys)}
