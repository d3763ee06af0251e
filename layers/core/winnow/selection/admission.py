"""Which scored records become candidates, when more arrive than selection should look at.

Two forms of one rule, a quantile of the scores seen: `admit` for records as they arrive, against a budget a day;
`admit_again` for a pool that is scored over again under a new champion, against the same budget for all of it.

Stream-based active learning under a budget, after Žliobaitė, Bifet, Pfahringer & Holmes (2014), active learning with
drifting streaming data: from there come spending that is estimated over a sliding window and steers how selective to be,
and a random sample beside what is chosen (Winnow's uniform arms, which this never touches). Their threshold moves a step
a record; ours is the quantile itself, out of mergeable sketches, because many functions score at once (Cacciarelli &
Kulahci 2024, active learning for data streams: a survey, calls it the score-based sampler with a quantile threshold).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from winnow.selection.sketch import EMPTY, Keys, Scores, Sketch, merge

WINDOW = 24
"""Hours that the budget is for: the hour under way and the 23 before it."""
SLACK = 1.25
"""No more than this times the budget is admitted in a window, but for the quarter rate that is never refused."""
FLOOR = 0.25
"""Share of an even hour's budget that is admitted whatever was spent before, so that nothing starves."""
PATIENCE = 6.0
"""Hours over which a surplus or a deficit is made up for: at once, one odd hour would come back every day."""
RECORDS = 1000
"""The quantile is of at least so many of the newest records."""
TAIL = 20
"""And of so many that this number of them lie above it."""
KNOWN = 50
"""With fewer records seen there is no quantile; chance admits at the rate."""
_WIDE = 8192
"""Records of each kind in sketches that live for one call."""

Reason = Literal["open", "chance", "threshold", "spent"]


@dataclass(frozen=True)
class Hour:
    """What arrived in an hour and what of it was admitted."""

    arrivals: Sketch
    admitted: Sketch = EMPTY
    """By the threshold."""
    free: Sketch = EMPTY
    """While all passed: it counts for the hours after, but not against this hour's limit."""


@dataclass(frozen=True, eq=False)
class Admission:
    """Which of n records pass, and why: `open` (the volume is within the budget: all), `chance` (nothing is known of the scores:
    at the rate), `threshold` (the best), `spent` (the best, but the hour's limit held some back)."""

    mask: npt.NDArray[np.bool_]
    threshold: float | None
    reason: Reason


def admit(scores: Scores, keys: Keys, *, at: float, recent: Mapping[int, Hour], budget: int) -> Admission:
    """Which of n records that arrive together at hour `at` (a float; hours have whole numbers) may become candidates.

    `recent` holds the hours before and the hour under way; those more than a day old do not count. Keys are `chance` keys
    of the records: one that is in `recent` already counts once. Scores: higher = more worth labeling.

    - While a day's arrivals are within the budget, all pass.
    - Else the hour's aim is an even share of the budget, corrected by what the 23 hours before spent too little or too much, and
      the threshold is the quantile that admits the aim out of what arrived this hour and is still to come (as much as in the
      median hour). It is of the newest hours that hold max(1000, 20 arrivals an admitted record): when the scale of the scores
      changes, the threshold follows within that many records and the rest of the hour.
    - Any 24 hours admit at most 1.5 budgets (1.9 when a flood meets an idle loop) and 24 records, as far as calls saw of each
      other, however traffic comes; an hour of a hundred times the usual traffic leaves its day at less than 1.15 budgets, and
      gets stricter rather than deaf. Every hour may admit a quarter of its even share.
    - Ties at the threshold are decided by key.

    >>> keys = np.linspace(0.0, 1.0, 1000, endpoint=False)
    >>> scores = np.arange(1000, dtype=np.float32)
    >>> quiet, busy = (admit(scores, keys, at=7.5, recent={}, budget=budget) for budget in (1000, 100))
    >>> (quiet.reason, int(quiet.mask.sum())), (busy.reason, np.flatnonzero(busy.mask)[[0, -1]].tolist())
    (('open', 1000), ('threshold', [980, 999]))
    """
    hour = int(at // 1)
    window = {known: state for known, state in recent.items() if hour - WINDOW < known <= hour}
    fresh = Sketch.of(keys, scores, sample=_WIDE, top=_WIDE)
    before = {known: state for known, state in window.items() if known < hour}
    if _merged([fresh, *(state.arrivals for state in window.values())]).count <= budget:
        return Admission(np.ones(len(scores), dtype=bool), None, "open")
    now = window.get(hour, Hour(EMPTY))
    spent = _merged([part for state in before.values() for part in (state.admitted, state.free)]).count
    aim, limit = _aim(spent, budget)
    room = max(0.0, limit - now.admitted.count)
    to_come = _usual(before, hour) * (1.0 - (at - hour))
    share = min(1.0, min(aim, room) / (_merged([now.arrivals, fresh]).count + to_come))
    newest = _newest(fresh, window, needed=max(RECORDS, TAIL / share if share else 0.0))
    if newest.count < KNOWN:
        mask, threshold, reason = keys < share, None, "chance"
    else:
        cut = newest.cut(share)
        mask, threshold, reason = cut.passes(scores, keys), cut.score, "threshold"
    if mask.sum() > np.ceil(room):
        return Admission(_best(mask, scores, keys, int(np.ceil(room))), threshold, "spent")
    return Admission(mask, threshold, "chance" if reason == "chance" else "threshold")


def admit_again(scores: Scores, keys: Keys, *, seen: Sketch, budget: int) -> Admission:
    """Which of n records pass when a whole pool is scored at once, of which `seen` was scored so far.

    The best `budget` of what is known pass, so a pool of N in parts admits about budget * (1 + ln(N / budget)) in all; the
    threshold only rises, and the best `budget` of the pool are always among them, as far as the sketch can tell.

    >>> keys = np.linspace(0.0, 1.0, 1000, endpoint=False)
    >>> admit_again(np.arange(1000, dtype=np.float32), keys, seen=EMPTY, budget=10).mask.sum()
    np.int64(10)
    """
    known = _merged([seen, Sketch.of(keys, scores, sample=_WIDE, top=_WIDE)])
    if known.count <= budget:
        return Admission(np.ones(len(scores), dtype=bool), None, "open")
    cut = known.cut_at(budget)
    return Admission(cut.passes(scores, keys), cut.score, "threshold")


def _aim(spent: float, budget: int) -> tuple[float, float]:
    """What an hour should admit, and what it may, when the 23 hours before it admitted `spent`."""
    even = budget / WINDOW
    limit = max(FLOOR * even, (SLACK * budget - spent) / 2.0)
    aim = even + (budget - even - spent) / PATIENCE
    return min(max(aim, FLOOR * even), limit), limit


def _usual(before: Mapping[int, Hour], hour: int) -> float:
    """Arrivals of the median hour since the first one known: a burst does not move it."""
    hours = range(min(before, default=hour), hour)
    return float(np.median([before[one].arrivals.count if one in before else 0.0 for one in hours])) if hours else 0.0


def _newest(fresh: Sketch, window: Mapping[int, Hour], *, needed: float) -> Sketch:
    """The newest arrivals, whole hours of them, until they are enough."""
    newest = fresh
    for hour in sorted(window, reverse=True):
        newest = _merged([newest, window[hour].arrivals])
        if newest.count >= needed:
            break
    return newest


def _merged(sketches: list[Sketch]) -> Sketch:
    return merge(sketches, sample=_WIDE, top=_WIDE)


def _best(mask: npt.NDArray[np.bool_], scores: Scores, keys: Keys, room: int) -> npt.NDArray[np.bool_]:
    rows = np.flatnonzero(mask)
    kept = np.zeros_like(mask)
    kept[rows[np.lexsort((keys[rows], -scores[rows]))[:room]]] = True
    return kept
