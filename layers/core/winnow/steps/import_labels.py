"""Hop 7 for labels that came with records: they become labels as if a batch had brought them, and a dataset version.

Nobody was paid and nobody is asked: an imported content is reserved as an answered one is. Whom to believe: people who
were asked here, before any import; of two imports the later one; of two rows of one object neither, if they differ.

What an export of Winnow says of a label (`winnow` in its row) is restored, its batch included, as long as no batch of
that name is known here. So the exports of a stack, imported into an empty one, make the same versions again.

Order of writes: the names of restored batches, reservations, labels (immutable from then on), the dataset's parts and
its head batch by batch, the `improve` execution, and last that the import is done.
"""

from __future__ import annotations

import gzip
import math
import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from itertools import groupby
from typing import Any, Literal, get_args

from winnow import layout
from winnow.datasets.roles import uniform_key
from winnow.digests import digest
from winnow.errors import Conflict, NotFound, Retryable
from winnow.metrics import Metric
from winnow.ports import JsonDict, Ports
from winnow.records import SYNTHETIC, Arm, Label, Record, from_jsonl, to_jsonl
from winnow.steps import Outcome, labeled
from winnow.steps.batches import reservations
from winnow.steps.dataset_versions import commit, evaluation_bound, lines
from winnow.steps.pointers import head

PARTITION = "IMPORT"
IMPORTED: Literal["imported"] = "imported"
_BATCH = re.compile(r"(b|io)[0-9a-f]{19,20}")
_SOURCE = ("file", "line", "by", "at")


def salt_digest(salt: str) -> str:
    """What an export says of the salt, so that an import can tell whether roles are the same here.

    >>> salt_digest("winnow")
    'a05876a352f4'
    """
    return digest({"salt": salt}, length=12)


def import_labels(oid: str, ports: Ports) -> Outcome:
    """Turn the labels that came with an object into a dataset version. An import that is done changes nothing.

    Raises Retryable while the record of a labeled content is not written yet.
    """
    batch = layout.import_batch(oid)
    done = ports.table.get(PARTITION, batch)
    if done is not None and done["oid"] == oid:
        return Outcome({"import": oid, "skipped": "imported before"})
    records = cache(lambda: _records(oid, ports))
    labels = _labels(oid, batch, records, ports)
    bound = _bound(labels, _known(ports), ports)
    version = None
    for name, group in groupby(labels, key=lambda label: label.batch):
        members = list(group)
        if name != batch:
            ports.data.put(layout.labels(name), _pack(members))
        if any(_is_used(label, bound, ports) for label in members):
            version = commit(name, members, records, ports)
    if version is not None:
        ports.executions.start("improve", version, {"dataset": version, "cause": IMPORTED})
    ports.table.put(PARTITION, batch, {"oid": oid, "dataset": version})
    counts = {status: sum(label.status == status for label in labels) for status in ("labeled", "quarantined")}
    return Outcome({"import": oid, "dataset": version, **counts}, _metrics(counts, version, ports))


def _metrics(counts: Mapping[str, int], version: str | None, ports: Ports) -> tuple[Metric, ...]:
    size = () if version is None else (Metric("DatasetSize", labeled.load(ports.data, version).counts["train"]),)
    return (Metric("LabelsImported", counts["labeled"]), Metric("ItemsQuarantined", counts["quarantined"]), *size)


def _pack(labels: Sequence[Label]) -> bytes:
    return to_jsonl([label.to_json() for label in labels])


def _entries(oid: str, ports: Ports) -> list[JsonDict]:
    return from_jsonl(gzip.decompress(ports.data.get(layout.imported(oid))))


def _records(oid: str, ports: Ports) -> dict[str, Record]:
    """The records of an import's contents, by id, wherever they lie."""
    homes: dict[str, set[str]] = defaultdict(set)
    for entry in _entries(oid, ports):
        homes[entry["oid"]].add(entry["id"])
    found: dict[str, Record] = {}
    for home, wanted in sorted(homes.items()):
        for key in ports.data.list(f"{layout.RECORDS}{home}/"):
            for body in from_jsonl(gzip.decompress(ports.data.get(key))):
                if body["id"] in wanted:
                    found[body["id"]] = Record.from_json(body)
        if not wanted <= found.keys():
            raise Retryable(f"the records of object {home} are not all written yet; import again")
    return found


def _labels(oid: str, batch: str, records: Callable[[], Mapping[str, Record]], ports: Ports) -> list[Label]:
    """The import's labels, batch by batch, as an earlier run wrote them or decided now."""
    key = layout.labels(batch)
    try:
        return [Label.from_json(body) for body in from_jsonl(ports.data.get(key))]
    except NotFound:
        pass
    contents = records()
    proposed = _agreed([_proposed(entry, contents[entry["id"]], batch, ports) for entry in _entries(oid, ports)])
    own = _claimed(proposed, oid, ports)
    labels = [
        replace(one.label, batch=one.label.batch if one.label.batch in own else batch)
        for one in sorted(proposed, key=lambda one: own.get(one.label.batch, (math.inf, "")))
    ]
    ports.data.put_new(key, _pack(_settled(labels, ports)))
    return [Label.from_json(body) for body in from_jsonl(ports.data.get(key))]


@dataclass(frozen=True)
class _Proposed:
    """A label as its row has it; `number` is the place its batch had where it comes from."""

    label: Label
    number: int = 0


def _proposed(entry: Mapping[str, Any], record: Record, batch: str, ports: Ports) -> _Proposed:
    past = entry.get("winnow", {})
    source = {"object": entry["key"], "row": entry["row"]}
    source |= {name: past[name] for name in _SOURCE if isinstance(past.get(name), str | int)}
    label = Label(
        id=record.id, batch=batch, status="labeled", label=entry["label"], confidence=1.0,
        arm=SYNTHETIC if record.origin == SYNTHETIC else IMPORTED,
        strategy=IMPORTED, score=None, rank=entry["row"], model="", job="", guideline="", cluster=record.cluster,
        role=record.role, labeled_at=str(source.get("at", ports.clock.now().isoformat())), source=source,
    )  # fmt: skip
    known = past.get("salt") == salt_digest(ports.loop.privacy.salt) and past.get("role") == record.role
    return _restored(label, past) if known and _is_whole(past) else _Proposed(label)


def _is_whole(past: Mapping[str, Any]) -> bool:
    """Whether a row holds what an export says of a label."""
    kinds = {
        "batch": str, "number": int, "arm": str, "confidence": int | float, "strategy": str, "rank": int, "model": str,
        "job": str, "guideline": str, "labeled_at": str,
    }  # fmt: skip
    return (
        all(isinstance(past.get(name), kind) and not isinstance(past[name], bool) for name, kind in kinds.items())
        and past["arm"] in get_args(Arm)
        and _BATCH.fullmatch(past["batch"]) is not None
        and 0.0 <= past["confidence"] <= 1.0
        and isinstance(past.get("score", 0.0), int | float)
        and isinstance(past.get("answers", []), list)
    )


def _restored(label: Label, past: Mapping[str, Any]) -> _Proposed:
    names = ("batch", "arm", "strategy", "score", "rank", "model", "job", "guideline", "labeled_at")
    same = {name: past[name] for name in names if name in past}
    same |= {"answers": tuple(past.get("answers", ())), "confidence": float(past["confidence"])}
    first = past.get("source")
    if isinstance(first, dict):  # however often it travels, where it came from first stays known
        same["source"] = {**(label.source or {}), "first": first.get("first", first)}
    return _Proposed(replace(label, **same), past["number"])


def _agreed(proposed: Sequence[_Proposed]) -> list[_Proposed]:
    """One label a content; in quarantine where rows of the object contradict each other."""
    found: dict[str, _Proposed] = {}
    for one in proposed:
        first = found.setdefault(one.label.id, one)
        if first.label.label != one.label.label and first.label.status == "labeled":
            rows = [label.source["row"] for label in (first.label, one.label) if label.source]
            reason = (
                f"rows {rows[0]} and {rows[1]} say {first.label.label!r} and {one.label.label!r} of the same content"
            )
            found[one.label.id] = replace(first, label=replace(first.label, status="quarantined", reason=reason))
    return list(found.values())


def _claimed(proposed: Iterable[_Proposed], oid: str, ports: Ports) -> dict[str, tuple[float, str]]:
    """Restored batches that are this import's, with their order: no batch of this stack and no other import has the name."""
    numbers: dict[str, int] = {}
    for one in proposed:
        numbers[one.label.batch] = min(one.number, numbers.get(one.label.batch, one.number))
    own = {}
    for name in sorted(numbers.keys() - {layout.import_batch(oid)}):
        if ports.table.get("BATCH", name) is None:
            present = ports.table.put_new(PARTITION, name, {"oid": oid})
            if present is None or present["oid"] == oid:
                own[name] = (float(numbers[name]), name)
    return own


def _settled(labels: Sequence[Label], ports: Ports) -> list[Label]:
    """The labels less those known before, each content reserved for its label, and in quarantine where people differ."""
    known = _known(ports)
    asked = {item["sk"] for item in ports.table.query("BATCH")}
    bound = _bound(labels, known, ports)
    wanted = [label for label in labels if _is_used(label, bound, ports)]
    entries = [(layout.RESERVATION, label.id, {"batch": label.batch, "state": "labeled"}) for label in wanted]
    holders: dict[str, JsonDict | None] = {**reservations(ports)}
    holders |= {one.id: item for one, item in zip(wanted, ports.table.put_new_many(entries), strict=True)}
    mine = {one.id for one in wanted if holders[one.id] is None}
    settled = []
    for label in labels:
        line = known.get(label.id)
        holder = holders.get(label.id)
        if label.status != "labeled" or label.id in mine or (holder is not None and holder["batch"] == label.batch):
            settled.append(label)
        elif line is not None and line["label"] == label.label:
            continue
        elif line is not None and line["arm"] != IMPORTED:
            settled.append(_refused(label, f"people said {line['label']!r}; what they say counts"))
        elif holder is not None and holder["batch"] in asked and holder["state"] != "expired":
            settled.append(_refused(label, f"batch {holder['batch']} asks people about it; what they say counts"))
        else:
            if holder is not None:
                _take_over(label, holder, ports)
            settled.append(label)
    return settled


def _refused(label: Label, reason: str) -> Label:
    return replace(label, status="quarantined", reason=reason)


def _take_over(label: Label, holder: Mapping[str, Any], ports: Ports) -> None:
    state = {"batch": label.batch, "state": "labeled"}
    expected = {"batch": holder["batch"], "state": holder["state"]}
    try:
        ports.table.replace(layout.RESERVATION, label.id, state, expected=expected)
    except Conflict as error:
        raise Retryable(f"{label.id} is being asked or imported at this moment; import again") from error


def _known(ports: Ports) -> dict[str, JsonDict]:
    """The lines of the newest dataset version, by content."""
    version, _ = head(ports.data)
    return {line["id"]: line for line in lines(version, ports)} if version else {}


def _bound(labels: Iterable[Label], known: Mapping[str, JsonDict], ports: Ports) -> float:
    """Up to which uniform key imported evaluation labels are used."""
    judged = {label.id: _key(label.cluster, ports) for label in labels if label.role == "evaluation"}
    judged |= {
        identity: _key(line["cluster"], ports) for identity, line in known.items() if line["role"] == "evaluation"
    }
    return evaluation_bound(judged, ports) if judged else 1.0


def _key(cluster: str, ports: Ports) -> float:
    return uniform_key(cluster, salt=ports.loop.privacy.salt)


def _is_used(label: Label, bound: float, ports: Ports) -> bool:
    """Whether the label will stand in a dataset now; people may be asked about the content of any other."""
    drawn = label.arm != IMPORTED or (label.role == "evaluation" and _key(label.cluster, ports) <= bound)
    return label.status == "labeled" and (label.role == "train" or drawn)
