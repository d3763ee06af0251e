"""What a dataset version is called, in which order its entries stand, and what it holds."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise
from typing import Any

from winnow.digests import digest, short_id
from winnow.errors import BadInput


def next_version(parent: str | None, batches: Iterable[str]) -> str:
    """Name of the version that adds these batches to `parent` (None for the first); their order does not matter.

    The same parent and batches give the same name, so collecting twice makes one version; versions form one line
    because each names its parent.

    >>> next_version(None, ["b1"])
    'd33a2cac2e35194fdff2'
    """
    added = sorted(set(batches))
    if not added:
        raise BadInput("a dataset version adds at least one batch; there is nothing to version", code="empty-version")
    return short_id("d", {"parent": parent, "batches": added})


def ordered(entries: Iterable[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Manifest entries in their one order, by content id, whichever order they were collected in.

    Raises BadInput when two entries share an id: a content is labeled once.

    >>> [entry["id"] for entry in ordered([{"id": "b"}, {"id": "a"}])]
    ['a', 'b']
    """
    found = sorted(entries, key=lambda entry: str(entry["id"]))
    for before, after in pairwise(found):
        if before["id"] == after["id"]:
            raise BadInput(
                f"content {after['id']} stands twice in one manifest; keep one label", code="repeated-content"
            )
    return found


def manifest_digest(entries: Sequence[Mapping[str, Any]]) -> str:
    """Digest (32 hex) of a manifest's content; the order entries were collected in does not matter.

    >>> manifest_digest([{"id": "a"}, {"id": "b"}]) == manifest_digest([{"id": "b"}, {"id": "a"}])
    True
    """
    return digest([dict(entry) for entry in ordered(entries)])


def evaluation_identity(labels: Mapping[str, str | float]) -> str:
    """Digest (32 hex) of an evaluation set: content id → true class or number. The gate compares only scores with the same one.

    >>> evaluation_identity({"a": "cat"}) == evaluation_identity({"a": "dog"})
    False
    """
    return digest(sorted(labels.items()))


def counts(entries: Iterable[Mapping[str, Any]], *, by: Sequence[str] = ("label", "arm")) -> dict[str, Any]:
    """How many entries there are in all and for each value of the fields `by` (absent and None count as "none").

    >>> counts([{"label": "cat", "arm": "active"}, {"label": "dog", "arm": "active"}])
    {'total': 2, 'label': {'cat': 1, 'dog': 1}, 'arm': {'active': 2}}
    """
    rows = list(entries)
    found: dict[str, Any] = {"total": len(rows)}
    for name in by:
        values = Counter("none" if entry.get(name) is None else str(entry[name]) for entry in rows)
        found[name] = dict(sorted(values.items()))
    return found
