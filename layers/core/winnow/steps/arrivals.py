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
from winnow.loop import Acquisition
from winnow.metrics import Metric
from winnow.ports import JsonDict, Ports
from winnow.selection import admission
from winnow.selection.admission import Admission, Hour
from winnow.selection.sketch import EMPTY, Sketch, chance, merge
from winnow.steps.candidates import Candidates
from winnow.steps.ranking import forwarded_by

ROWS = 16
"""Rows of the newest hours that are read before they are put together."""

RESCORE = "rescore"
"""Stands in place of the hour for what a rescore scored: a pool that is gone through once, at no hour of its own."""

_SIZES: Mapping[str, tuple[int, int]] = {
    "train": (1024, 1024), "admitted": (512, 0), "free": (512, 0), "evaluation": (128, 0), "reward": (128, 0),
}  # fmt: skip
"""What a row holds: records of the train role by their score, those of them that were admitted by the threshold or while
all passed, and how many there were of the other roles; (sample, top) of each sketch."""

_SPREAD = 1.5
"""Room for the error of a count of 128: four standard errors and more."""

State = Mapping[str, Sketch]
Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class Intake:
    """Which of the records just scored may become candidates."""

    admitted: Sequence[Mask]
    """Of each artifact (n,): which the threshold lets pass for their score."""
    bounds: Mapping[str, float]
    """Role → the uniform key below which a record belongs to its uniform sample."""
    metrics: tuple[Metric, ...]


class Arrivals:
    """Artifacts that a model has just scored among what else arrived: `weigh` before candidates are sent, `note` after."""

    def __init__(
        self, model: str, policy: Acquisition, parts: Sequence[Candidates], ports: Ports, *, rescore: bool
    ) -> None:
        self._ports, self._policy, self._rescore = ports, policy, rescore
        self._partition = f"ARRIVAL#{model}"
        self._now = ports.clock.now()
        self._slot = RESCORE if rescore else _slot(self._now)
        self._ends = np.cumsum([len(part) for part in parts])[:-1]
        ids = [name for part in parts for name in part.id.tolist()]
        self._name = digest(sorted(ids))
        self._keys = chance(ids)
        self._roles = np.concatenate([part.role for part in parts])
        nothing = np.zeros(len(ids), dtype=np.float32)
        worth = [forwarded_by(part, policy.strategy, policy) for part in parts]
        known = [each for each in worth if each is not None]
        self._scores = np.concatenate(known) if len(known) == len(parts) else nothing

    def weigh(self) -> Intake:
        """Write down what arrived, and decide. Without a budget all pass."""
        budget = self._policy.candidates_per_day
        admitted = np.ones(len(self._keys), dtype=bool)
        if not budget:
            return Intake(np.split(admitted, self._ends), {}, ())
        self._put(self._arrived())
        state = self._read()
        train = self._roles == "train"
        decided = self._decide(train, state, budget)
        self._spends = "free" if decided.reason == "open" else "admitted"
        admitted[train] = decided.mask
        metrics = () if decided.threshold is None else (Metric("AdmissionThreshold", decided.threshold),)
        return Intake(np.split(admitted, self._ends), self._bounds(state, budget), metrics)

    def note(self, admitted: Sequence[Mask]) -> tuple[Metric, ...]:
        """Write down which records of each artifact were sent for their score, now that they were."""
        if not self._policy.candidates_per_day:
            return ()
        rows = np.concatenate(admitted)
        self._put({**self._arrived(), self._spends: self._sketch(self._spends, rows)})
        train = int((self._roles == "train").sum())
        return (Metric("AdmittedShare", 100.0 * int(rows.sum()) / train),) if train else ()

    def _arrived(self) -> State:
        return {role: self._sketch(role, self._roles == role) for role in ("train", "evaluation", "reward")}

    def _bounds(self, state: Mapping[str, State], budget: int) -> dict[str, float]:
        """Above the n-th lowest of a role's keys, n being what selection may want of them: of the last day's records, so of
        the whole pool's all the more."""
        wanted = max(budget, self._policy.uniform_per_object)
        counts = {
            role: merge([one[role] for one in state.values()], sample=_SIZES[role][0]).count
            for role in ("train", "evaluation", "reward")
        }
        return {role: min(1.0, _SPREAD * wanted / count) for role, count in counts.items() if count}

    def _decide(self, train: Mask, state: Mapping[str, State], budget: int) -> Admission:
        scores, keys = self._scores[train], self._keys[train]
        if self._rescore:
            seen = merge([one["train"] for one in state.values()])
            return admission.admit_again(scores, keys, seen=seen, budget=budget)
        recent = {_hour(slot): Hour(one["train"], one["admitted"], one["free"]) for slot, one in state.items()}
        return admission.admit(scores, keys, at=self._now.timestamp() / 3600.0, recent=recent, budget=budget)

    def _sketch(self, name: str, rows: Mask) -> Sketch:
        sample, top = _SIZES[name]
        return Sketch.of(self._keys[rows], self._scores[rows], sample=sample, top=top)

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
            state[slot] = _union(rows)
            busy = slot in (RESCORE, self._slot, _slot(self._now - timedelta(hours=1)))
            if len(rows) > (ROWS if busy else 1):
                name = digest(sorted(item["sk"] for item in rows))
                table.put(self._partition, f"{slot}#{name}", _packed(state[slot]))
                self._delete(rows)
        return state

    def _delete(self, rows: Sequence[JsonDict]) -> None:
        for item in rows:
            self._ports.table.delete(self._partition, item["sk"])


def _slot(at: datetime) -> str:
    return at.strftime("%Y-%m-%dT%H")


def _hour(slot: str) -> int:
    return int(datetime.fromisoformat(f"{slot}:00+00:00").timestamp() // 3600)


def _packed(sketches: State) -> JsonDict:
    return {name: base64.b64encode(one.to_bytes()).decode("ascii") for name, one in sketches.items() if len(one.keys)}


def _union(rows: Sequence[JsonDict]) -> State:
    return {
        name: merge([_sketch_of(item.get(name)) for item in rows], sample=sample, top=top)
        for name, (sample, top) in _SIZES.items()
    }


def _sketch_of(text: str | None) -> Sketch:
    return EMPTY if text is None else Sketch.from_bytes(base64.b64decode(text))
