"""Quotas: the least share of a batch that each group of records gets, so that choosing the uncertain starves nobody.

A group is a slice's value (`lang=de`) or a predicted class (`predicted=refund`). Records of every arm count towards a quota;
what is missing takes the places of the active arm's last picks.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from winnow.errors import ConfigError
from winnow.selection.selector import Indices

PREDICTED = "predicted"
"""Stands for the champion's class where a quota names no slice."""

LONGEST_SLICE = 64
"""Characters of a slice's name and value together; a longer one is no group."""

Mask = npt.NDArray[np.bool_]


def split(quota: str) -> tuple[str, str]:
    """Name and value of a group.

    >>> split("lang=de"), split("predicted=price=high")
    (('lang', 'de'), ('predicted', 'price=high'))
    """
    name, found, value = quota.partition("=")
    if not found or not name or not value:
        raise ConfigError(f"quota {quota!r} names no group; write slice=value or {PREDICTED}=class")
    return name, value


def least(share: float, size: int) -> int:
    """Places of a batch of `size` that a share asks for at least.

    >>> least(0.1, 30), least(0.1, 31)
    (3, 4)
    """
    return math.ceil(share * size - 1e-9)


@dataclass(frozen=True)
class Unmet:
    """A quota that a batch does not meet, and why."""

    quota: str
    wanted: int
    got: int
    reason: str

    def __str__(self) -> str:
        return f"quota {self.quota}: {self.got} of {self.wanted} records; {self.reason}"


def exchanges(
    groups: Mapping[str, Mask],
    wanted: Mapping[str, int],
    *,
    batch: Indices,
    givable: Indices,
    free: Indices,
    clusters: npt.NDArray[np.int64],
) -> tuple[list[tuple[int, int, str]], list[Unmet]]:
    """What to exchange so that every group has its places: (row that leaves, row that comes, for which group).

    `groups` are masks (n,) over all rows and `wanted` the places of each. `batch` are the rows chosen so far, `givable` those
    of them that may leave and `free` the rows that may come, both best first; of a near-duplicate cluster, `clusters` (n,),
    one comes at most. Groups take turns. A row that another quota cannot do without stays.

    >>> german = np.array([False, False, True, True])
    >>> exchanges({"lang=de": german}, {"lang=de": 1}, batch=np.array([0, 1]), givable=np.array([0, 1]),
    ...           free=np.array([3, 2]), clusters=np.arange(4))
    ([(1, 3, 'lang=de')], [])
    """
    has = {name: int(groups[name][batch].sum()) for name in wanted}
    inside = set(batch.tolist())
    used = set(clusters[batch].tolist())
    leaving = givable.tolist()
    queues = {name: iter(free[groups[name][free]].tolist()) for name in wanted}
    swaps: list[tuple[int, int, str]] = []
    unmet: list[Unmet] = []
    turn = [name for name in wanted if has[name] < wanted[name]]
    while turn:
        name = turn.pop(0)
        if has[name] >= wanted[name]:  # served by what came for another group
            continue
        comes = next((row for row in queues[name] if row not in inside and int(clusters[row]) not in used), None)
        place = None if comes is None else _spare(leaving, groups, has, wanted)
        if comes is None or place is None:
            unmet.append(Unmet(name, wanted[name], has[name], _why(groups[name], comes)))
            continue
        leaves = leaving.pop(place)
        for group in wanted:
            has[group] += int(groups[group][comes]) - int(groups[group][leaves])
        inside.add(comes)
        used.add(int(clusters[comes]))
        swaps.append((leaves, comes, name))
        turn.append(name)
    return swaps, unmet


def dispensable(groups: Mapping[str, Mask], wanted: Mapping[str, int], *, batch: Indices, order: Indices) -> list[int]:
    """Rows of `order`, first come first served, that may all leave the batch without leaving a group short of its places.

    >>> german = np.array([False, True, True])
    >>> dispensable({"lang=de": german}, {"lang=de": 1}, batch=np.arange(3), order=np.array([2, 1, 0]))
    [2, 0]
    """
    has = {name: int(groups[name][batch].sum()) for name in wanted}
    found = []
    for row in order.tolist():
        mine = [name for name in wanted if groups[name][row]]
        if all(has[name] > wanted[name] for name in mine):
            found.append(row)
            for name in mine:
                has[name] -= 1
    return found


def _spare(
    leaving: Sequence[int], groups: Mapping[str, Mask], has: Mapping[str, int], wanted: Mapping[str, int]
) -> int | None:
    """Place of the last pick that no quota needs."""
    short = [groups[name] for name in wanted if has[name] <= wanted[name]]
    return next((at for at in reversed(range(len(leaving))) if not any(group[leaving[at]] for group in short)), None)


def _why(group: Mask, comes: int | None) -> str:
    if comes is not None:
        return "the other arms and quotas leave no place; lower their shares"
    if group.any():
        return "the pool has no more of them to ask"
    return "no scored record is of this group"
