"""Nothing that is judged on may be learned from (invariant I5)."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Member:
    """What identifies one record of a manifest: its content and its near-duplicate cluster."""

    id: str
    cluster: str


@dataclass(frozen=True)
class Leak:
    """One training record that is, or nearly is, a held-out one. `by` says which."""

    train: str
    held_out: str
    by: Literal["id", "cluster"]


def leaks(train: Iterable[Member], held_out: Iterable[Member]) -> list[Leak]:
    """Every training record that repeats a held-out one (evaluation, reward, gold), in the order of `train`.

    The same content is reported once, as `id`; an empty cluster matches nothing.

    >>> leaks([Member("a", "x"), Member("b", "y"), Member("c", "z")], [Member("a", "x"), Member("d", "y")])
    [Leak(train='a', held_out='a', by='id'), Leak(train='b', held_out='d', by='cluster')]
    """
    ids: set[str] = set()
    clusters: dict[str, str] = {}
    for member in held_out:
        ids.add(member.id)
        if member.cluster:
            clusters.setdefault(member.cluster, member.id)
    found = []
    for member in train:
        if member.id in ids:
            found.append(Leak(member.id, member.id, "id"))
        elif member.cluster in clusters:
            found.append(Leak(member.id, clusters[member.cluster], "cluster"))
    return found
