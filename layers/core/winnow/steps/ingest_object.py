"""Hop 1: a dropped object becomes canonical records: masked, deduplicated, with their roles for ever.

Order of writes, each harmless to repeat: the claim on the object's newest version; part by part the claim on every
content, images and records (which wake scoring); quarantine; the labels that came along (which wake `collect_labels`);
and last the occurrences, whose presence says that all before it is done.
"""

from __future__ import annotations

import gzip
from collections.abc import Callable, Container, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any

from winnow import layout
from winnow.datasets.clusters import image_cluster, row_cluster, text_cluster
from winnow.datasets.roles import role, uniform_key
from winnow.digests import digest
from winnow.errors import BadInput, Conflict, NotFound, Retryable
from winnow.metrics import Metric
from winnow.ports import Ports
from winnow.privacy.masking import mask_row, mask_text
from winnow.records import (
    SYNTHETIC,
    Image,
    Occurrence,
    OccurrenceStatus,
    Origin,
    PoolObject,
    Record,
    from_jsonl,
    to_jsonl,
)
from winnow.steps import Outcome
from winnow.steps.reading import Row, rows
from winnow.tables import Cell

RECORDS_PER_PART = 2000
PART_BYTES = 16_000_000
"""Scoring takes a part at a time; this many records, and bytes before they are packed, fit its memory and time."""

INLINE_BYTES = 32 * 1024
"""Images up to this size travel inside the record, which saves every later hop a read."""


def ingest_object(item: PoolObject, ports: Ports) -> Outcome:
    """Ingest one version of one object, a part at a time. A version older than one already seen is only accounted for."""
    if _origin(item) == "production":
        item = replace(item, version="")  # named by its content, so versions of it are one
    oid = layout.object_id(item)
    if ports.data.exists(layout.occurrences(oid)):
        return Outcome({"oid": oid, "repeated": True})
    newest, superseded = _claim_version(item, oid, ports)
    notes: list[str] = []
    found = _read(item, oid, ports, say=notes.append)
    if not newest:
        settled = [replace(one, status="superseded") for one in map(_occurrence, found)]
        _write_occurrences(oid, settled, ports)
        return Outcome({"oid": oid, "superseded": len(settled)}, _metrics(settled, masked=0))

    settled = []
    kept: set[str] = set()
    elsewhere: dict[str, str] = {}
    labels: list[dict[str, Any]] = []
    masked = 0
    for part, group in enumerate(_parts(found)):
        drafts = [one for one in group if isinstance(one, _Draft)]
        accepted, duplicates, owners = _claim_contents(drafts, oid, superseded, ports, before=kept)
        elsewhere |= owners
        labels += [_label(draft, elsewhere.get(draft.record.id, oid)) for draft in drafts if draft.is_labeled]
        for draft in accepted:
            if draft.png is not None:
                ports.data.put(layout.content(draft.record.id), draft.png)
        if accepted:
            ports.data.put(layout.records(oid, part), _pack(draft.record.to_json() for draft in accepted))
        kept.update(draft.record.id for draft in accepted)
        masked += sum(draft.masked for draft in accepted)
        settled += [one for one in group if isinstance(one, Occurrence)]
        settled += [_occurrence(draft) for draft in accepted]
        settled += [_occurrence(draft, "duplicate") for draft in duplicates]
    for older in superseded:
        _rehome(older, kept, superseded, ports)
    problems = [one for one in settled if one.status == "quarantined"]
    if problems:
        ports.data.put(layout.quarantine(oid), _jsonl({"key": item.key, **one.to_json()} for one in problems))
    if labels:
        ports.data.put(layout.imported(oid), _pack({"key": item.key, **one} for one in labels))
    _write_occurrences(oid, settled, ports)
    duplicated = len(settled) - len(kept) - len(problems)
    body = {"oid": oid, "accepted": len(kept), "duplicates": duplicated, "quarantined": len(problems)}
    return Outcome(body | ({"notes": notes} if notes else {}), _metrics(settled, masked=masked))


@dataclass(frozen=True)
class _Draft:
    """A record to be, with the image bytes that are written beside it."""

    record: Record
    row: int
    masked: int
    size: int
    """About how many bytes it takes in its part."""
    png: bytes | None = None
    provenance: Mapping[str, Any] | None = None
    """What the row says of where its label comes from."""

    @property
    def is_labeled(self) -> bool:
        """Served requests come without labels, whatever an application sends."""
        return self.record.label is not None and self.record.origin == "pool"


def _label(draft: _Draft, home: str) -> dict[str, Any]:
    """A line of `imports/<oid>.jsonl.gz`; `oid` names the object under which the content's record lies."""
    body = {"row": draft.row, "id": draft.record.id, "oid": home, "label": draft.record.label}
    return body | ({"winnow": draft.provenance} if draft.provenance else {})


def _parts(found: Iterable[_Draft | Occurrence]) -> Iterator[list[_Draft | Occurrence]]:
    """What becomes one part: bounded in number and in bytes, so that the size of an object does not matter to memory."""
    group: list[_Draft | Occurrence] = []
    room = PART_BYTES
    for one in found:
        group.append(one)
        room -= one.size if isinstance(one, _Draft) else 0
        if len(group) == RECORDS_PER_PART or room <= 0:
            yield group
            group, room = [], PART_BYTES
    if group:
        yield group


def _metrics(settled: Sequence[Occurrence], *, masked: int) -> tuple[Metric, ...]:
    def count(status: str) -> int:
        return sum(one.status == status for one in settled)

    return (
        Metric("OccurrencesIn", len(settled)),
        Metric("RecordsAccepted", count("accepted")),
        Metric("Duplicates", count("duplicate")),
        Metric("Quarantined", count("quarantined")),
        Metric("Superseded", count("superseded")),
        Metric("PersonalDataMasked", masked),
    )


def _jsonl(bodies: Iterable[Mapping[str, Any]]) -> bytes:
    """JSON Lines, encoded a few at a time: a hundred thousand dictionaries take more memory than their text."""
    rest = iter(bodies)
    return b"".join(iter(lambda: to_jsonl(list(islice(rest, RECORDS_PER_PART))), b""))


def _pack(bodies: Iterable[Mapping[str, Any]]) -> bytes:
    return gzip.compress(_jsonl(bodies), 6, mtime=0)


def _write_occurrences(oid: str, settled: Sequence[Occurrence], ports: Ports) -> None:
    ordered = sorted(settled, key=lambda one: one.row)
    ports.data.put(layout.occurrences(oid), _pack(one.to_json() for one in ordered))


def _occurrence(one: _Draft | Occurrence, status: OccurrenceStatus = "accepted") -> Occurrence:
    """What became of a row; one that could not be read says so already."""
    if isinstance(one, Occurrence):
        return one
    record = one.record
    return Occurrence(
        oid=record.oid, row=one.row, status=status, content=record.id, external_id=record.external_id,
        subject=record.subject,
    )  # fmt: skip


def _claim_version(item: PoolObject, oid: str, ports: Ports) -> tuple[bool, list[str]]:
    """Whether this is the newest version of its key, and the ids of the versions it supersedes.

    An object found by reconcile carries no sequencer, so its claim is `unordered`: beside it the bucket says what is newest.
    """
    pk = f"OBJECT#{digest({'bucket': item.bucket, 'key': item.key})}"
    for _ in range(5):
        known = ports.table.get(pk, "VERSION")
        older: list[str] = list(known.get("older", ())) if known else []
        if known is not None:
            if known["oid"] == oid:
                return True, older
            if not item.sequencer or known.get("unordered"):
                current = ports.pool.current(item.key)
                newest = current is not None and current.version == item.version
            else:
                newest = item.is_newer_than(known["sequencer"])
            if not newest:
                return False, []
            older = [*older, known["oid"]]
            ports.table.put("SUPERSEDED", known["oid"], {"by": oid, "at": ports.clock.now().isoformat()})
        claim = {
            "key": item.key, "bucket": item.bucket, "oid": oid, "version": item.version,
            "sequencer": item.sequencer, "unordered": not item.sequencer, "older": older,
        }  # fmt: skip
        try:
            ports.table.replace(pk, "VERSION", claim, expected=None if known is None else {"oid": known["oid"]})
        except Conflict:
            continue  # another version came in between: judge against that one
        return True, older
    raise Retryable(f"{item.key} keeps changing; try again later")


def _read(item: PoolObject, oid: str, ports: Ports, *, say: Callable[[str], None]) -> Iterator[_Draft | Occurrence]:
    """The usable rows as drafts, and an occurrence with its reason for each that is not."""
    limits, task = ports.loop.limits, ports.loop.task

    def refused(number: int, problem: BadInput) -> Occurrence:
        return Occurrence(oid=oid, row=number, status="quarantined", reason=f"{problem.code}: {problem}")

    try:
        data = ports.pool.read(item, limit=limits.max_object_mb * 1_000_000)
        for row in rows(data, key=item.key, task=task, limits=limits, parquet=ports.parquet, say=say):
            if row.problem is not None:
                yield refused(row.number, row.problem)
                continue
            try:
                draft = _draft(row, oid, _origin(item), ports)
            except BadInput as problem:
                yield refused(row.number, problem)
            else:
                yield draft
    except NotFound:
        yield refused(0, BadInput(f"{item.key} was deleted before it could be read", code="gone"))
    except BadInput as problem:
        yield refused(0, problem)


def _origin(item: PoolObject) -> Origin:
    return "production" if item.key.startswith(layout.PRODUCTION) and "-data-" in item.bucket else "pool"


def _draft(row: Row, oid: str, origin: Origin, ports: Ports) -> _Draft:
    make = _text_payload if row.text is not None else _row_payload if row.row is not None else _image_payload
    found = make(row, ports)
    salt, fields = ports.loop.privacy.salt, dict(row.fields)
    provenance = fields.pop("winnow", None)
    given = role(found.cluster, salt=salt)
    if isinstance(provenance, dict) and provenance.get("arm") == SYNTHETIC:
        if given != "train":
            message = f"row {row.number} was made of other records and would be judged on here; leave it out"
            raise BadInput(message, code="synthetic")
        origin = SYNTHETIC
    record = Record(
        id=found.identity, oid=oid, kind=ports.loop.task.kind, cluster=found.cluster,
        role=given, key=uniform_key(found.cluster, salt=salt),
        text=found.text, image=found.image, row=found.row, origin=origin, **fields,
    )  # fmt: skip
    return _Draft(record, row.number, found.masked, found.size, found.png, provenance)


@dataclass(frozen=True)
class _Payload:
    """A payload in its canonical, masked form, with the digests that identify it and its near-duplicates."""

    identity: str
    cluster: str
    size: int
    masked: int = 0
    text: str | None = None
    image: Image | None = None
    row: Mapping[str, Cell] | None = None
    png: bytes | None = None


def _text_payload(row: Row, ports: Ports) -> _Payload:
    limits = ports.loop.limits
    text = (row.text or "").strip()
    if not text:
        raise BadInput(f"row {row.number}: the text is empty", code="empty")
    if len(text) > limits.max_text_chars:
        raise BadInput(
            f"row {row.number}: the text has {len(text)} characters, more than limits.max_text_chars "
            f"({limits.max_text_chars}); split it",
            code="oversized",
        )
    masked = 0
    if ports.loop.privacy.mask:
        text, findings = mask_text(text)
        masked = len(findings)
    return _Payload(digest({"text": text}), text_cluster(text), len(text), masked, text=text)


def _row_payload(row: Row, ports: Ports) -> _Payload:
    limits = ports.loop.limits
    cells, masked = dict(row.row or {}), 0
    size = 0
    for name, cell in cells.items():
        chars = len(cell) if isinstance(cell, str) else 0
        size += len(name) + chars + 32
        if chars > limits.max_cell_chars:
            raise BadInput(
                f"row {row.number}: column {name!r} has {chars} characters, more than limits.max_cell_chars "
                f"({limits.max_cell_chars}); shorten it, or leave the column out with task.columns",
                code="oversized",
            )
    if all(cell is None for cell in cells.values()):
        raise BadInput(f"row {row.number} has a value in no column", code="empty")
    if ports.loop.privacy.mask:
        cells, masked = mask_row(cells)
    return _Payload(digest({"row": cells}), row_cluster(cells), size, masked, row=cells)


def _image_payload(row: Row, ports: Ports) -> _Payload:
    assert row.image is not None  # a row without a problem has one payload
    limits = ports.loop.limits
    canonical = ports.images.canonical(row.image, side=limits.image_side, megapixels=limits.max_image_megapixels)
    png = canonical.png
    shape = "x".join(str(length) for length in canonical.pixels.shape)
    identity = digest(shape.encode() + b":" + canonical.pixels.tobytes())
    image = Image(
        layout.content(identity), canonical.width, canonical.height, png if len(png) <= INLINE_BYTES else None
    )
    return _Payload(identity, image_cluster(canonical.grey), len(png), image=image, png=png)


def _claim_contents(
    found: Sequence[_Draft], oid: str, superseded: Sequence[str], ports: Ports, *, before: Container[str]
) -> tuple[list[_Draft], list[_Draft], dict[str, str]]:
    """Those whose content is ours to score, those somebody had already, and which object has them.

    The first row of a content speaks for it. `before` are the contents of this object's earlier parts.
    """
    first: dict[str, _Draft] = {}
    duplicates: list[_Draft] = []
    for draft in found:
        if draft.record.id in first or draft.record.id in before:
            duplicates.append(draft)
        else:
            first[draft.record.id] = draft
    claims = [(f"CONTENT#{identity}", "CLAIM", {"oid": oid, "row": draft.row}) for identity, draft in first.items()]
    accepted: list[_Draft] = []
    taken: list[_Draft] = []
    owners: dict[str, str] = {}
    for draft, owner in zip(first.values(), ports.table.put_new_many(claims), strict=True):
        ours = owner is None or owner["oid"] == oid
        if not ours and owner is not None and _is_superseded(owner["oid"], superseded, ports):
            ours = _take_over(draft, oid, owner["oid"], ports)
        (accepted if ours else taken).append(draft)
        if not ours and owner is not None:
            owners[draft.record.id] = str(owner["oid"])
    duplicates += taken
    ports.table.put_new_many(
        [(f"CONTENT#{one.record.id}", f"ALSO#{oid}#{one.row}", {"oid": oid, "row": one.row}) for one in taken]
    )
    return accepted, duplicates, owners


def _is_superseded(oid: str, known: Sequence[str], ports: Ports) -> bool:
    return oid in known or ports.table.get("SUPERSEDED", oid) is not None


def _take_over(draft: _Draft, oid: str, owner: str, ports: Ports) -> bool:
    try:
        ports.table.replace(
            f"CONTENT#{draft.record.id}", "CLAIM", {"oid": oid, "row": draft.row}, expected={"oid": owner}
        )
    except Conflict:
        return False  # another object took the content over first
    return True


def _rehome(older: str, kept: set[str], superseded: Sequence[str], ports: Ports) -> None:
    """Contents that the new version dropped live on where else they occur, if anywhere."""
    moved: dict[str, list[Mapping[str, Any]]] = {}
    for key in ports.data.list(f"{layout.RECORDS}{older}/"):
        for body in from_jsonl(gzip.decompress(ports.data.get(key))):
            if body["id"] in kept:
                continue
            for also in ports.table.query(f"CONTENT#{body['id']}", prefix="ALSO#"):
                if not _is_superseded(also["oid"], superseded, ports):
                    claim = {"oid": also["oid"], "row": also["row"]}
                    try:
                        ports.table.replace(f"CONTENT#{body['id']}", "CLAIM", claim, expected={"oid": older})
                    except Conflict:
                        break
                    moved.setdefault(also["oid"], []).append({**body, "oid": also["oid"]})
                    break
    for home, bodies in moved.items():
        ports.data.put(layout.rehomed(home, older), _pack(bodies))
