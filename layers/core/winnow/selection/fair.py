"""What a batch must hold and must not exceed, once its arms have chosen: quotas of groups, people's minutes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from winnow.errors import ConfigError
from winnow.selection.arms import Choice, ScoredPool, ranked
from winnow.selection.quotas import Mask, Unmet, exchanges, least


def meet_quotas(
    candidates: ScoredPool,
    choices: Sequence[Choice],
    *,
    groups: Mapping[str, Mask],
    shares: Mapping[str, float],
    strategy: str,
    bootstrap: bool = False,
) -> tuple[list[Choice], list[Unmet]]:
    """The batch with the least share of each group, best scores first, and the quotas that it cannot meet.

    `groups` are masks (n,) over the candidates, `shares` what of the batch each group gets at least. Only the active arm gives
    places up, its last picks first; the arms that judge stay as they are.
    """
    place = {name: row for row, name in enumerate(candidates.ids)}
    batch = np.array([place[choice.id] for choice in choices], dtype=np.int64)
    active = np.array([place[choice.id] for choice in choices if choice.arm == "active"], dtype=np.int64)
    _, clusters = np.unique(np.asarray(candidates.clusters, dtype=str), return_inverse=True)
    open_rows = np.asarray(candidates.roles, dtype=str) == "train"
    if candidates.excluded is not None:
        open_rows &= ~candidates.excluded
    free = np.flatnonzero(open_rows)
    # Of equal scores the lower uniform key: chance that was fixed at ingest.
    free = free[np.lexsort((candidates.keys[free], -candidates.scores[free]))]
    swaps, unmet = exchanges(
        groups, {name: least(share, len(choices)) for name, share in shares.items()},
        batch=batch, givable=active, free=free, clusters=clusters.astype(np.int64),
    )  # fmt: skip
    leaving = {str(candidates.ids[leaves]) for leaves, _, _ in swaps}
    kept = [choice for choice in choices if choice.id not in leaving]
    for _, comes, _ in swaps:
        score = None if bootstrap else float(candidates.scores[comes])
        kept.append(Choice(str(candidates.ids[comes]), "quota", strategy, score, rank=0))
    return ranked(kept), unmet


def within_minutes(choices: Sequence[Choice], minutes: Sequence[float], limit: float) -> list[Choice]:
    """The choices that fit into `limit` minutes, `minutes` being what each of them takes.

    Arms shrink together: the first of each arm is offered first, then the places that are as far down in theirs. The
    lowest uniform key of an arm that judges is therefore among the first of the next batch if it does not fit into this one.
    """
    sizes = Counter(choice.arm for choice in choices)
    order = sorted(range(len(choices)), key=lambda at: (choices[at].rank - 1) / sizes[choices[at].arm])
    kept = {order[at] for at in fitting([minutes[at] for at in order], limit)}
    return ranked(choice for at, choice in enumerate(choices) if at in kept)


def exchange(choices: Sequence[Choice], leaving: Mapping[str, Choice]) -> list[Choice]:
    """The choices with those named in `leaving` replaced, ranks counted anew; what comes stands behind what was there."""
    kept = [choice for choice in choices if choice.id not in leaving]
    return ranked([*kept, *(replace(choice, rank=0) for choice in leaving.values())])


def fitting(minutes: Sequence[float], limit: float) -> list[int]:
    """Places of the records that are taken into a batch of at most `limit` minutes, best first: what does not fit is passed over.

    Their sum never exceeds the limit. Source: the greedy rule for the knapsack problem, by the order that is given.

    >>> fitting([3.0, 4.0, 2.0, 1.0], 6.0)
    [0, 2, 3]
    """
    if not limit > 0.0:
        raise ConfigError(f"a batch of {limit} minutes holds nothing; raise batches.minutes")
    taken, total = [], 0.0
    for place, each in enumerate(minutes):
        if total + each <= limit:
            taken.append(place)
            total += each
    return taken
