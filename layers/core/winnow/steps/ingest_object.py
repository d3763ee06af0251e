"""Hop 1: a dropped object becomes canonical records: masked, deduplicated, with their roles for ever.

Order of writes, each harmless to repeat: the claim on the object's newest version, the claim on every content, images,
records (which wake scoring), quarantine, and last the occurrences, whose presence says that all before it is done.
"""

from __future__ import annotations

import gzip
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from winnow import layout
from winnow.datasets.clusters import image_cluster, text_cluster
from winnow.datasets.roles import role, uniform_key
from winnow.digests import digest
from winnow.errors import BadInput, Conflict, NotFound, Retryable
from winnow.metrics import Metric
from winnow.ports import Ports
from winnow.privacy.masking import mask_text
from winnow.records import Image, Occurrence, Origin, PoolObject, Record, from_jsonl, to_jsonl
from winnow.steps import Outcome
from winnow.steps.reading import Row, rows

RECORDS_PER_PART = 2000
"""Scoring takes a part at a time; this many fit its memory and time with room to spare."""

INLINE_BYTES = 32 * 1024
"""Images up to this size travel inside the record, which saves every later hop a read."""


def ingest_object(item: PoolObject, ports: Ports) -> Outcome:
    """Ingest one version of one object. A version older than one already seen is only accounted for."""
    if _origin(item) == "production":
        item = replace(item, version="")  # named by its content, so versions of it are one
    oid = layout.object_id(item)
    if ports.data.exists(layout.occurrences(oid)):
        return Outcome({"oid": oid, "repeated": True})
    newest, superseded = _claim_version(item, oid, ports)
    found, problems = _read(item, oid, ports)
    if not newest:
        settled = [replace(one, status="superseded") for one in (*_occurrences(found, "superseded"), *problems)]
        _write_occurrences(oid, settled, ports)
        return Outcome({"oid": oid, "superseded": len(settled)}, _metrics(settled, masked=0))

    accepted, duplicates = _claim_contents(found, oid, superseded, ports)
    for draft in accepted:
        if draft.png is not None:
            ports.data.put(layout.content(draft.record.id), draft.png)
    bodies = [draft.record.to_json() for draft in accepted]
    for part, start in enumerate(range(0, len(bodies), RECORDS_PER_PART)):
        ports.data.put(layout.records(oid, part), _pack(bodies[start : start + RECORDS_PER_PART]))
    for older in superseded:
        _rehome(older, {draft.record.id for draft in accepted}, superseded, ports)
    if problems:
        ports.data.put(layout.quarantine(oid), to_jsonl([{"key": item.key, **one.to_json()} for one in problems]))
    settled = [*_occurrences(accepted, "accepted"), *_occurrences(duplicates, "duplicate"), *problems]
    _write_occurrences(oid, settled, ports)
    masked = sum(draft.masked for draft in accepted)
    body = {"oid": oid, "accepted": len(accepted), "duplicates": len(duplicates), "quarantined": len(problems)}
    return Outcome(body, _metrics(settled, masked=masked))


@dataclass(frozen=True)
class _Draft:
    """A record to be, with the image bytes that are written beside it."""

    record: Record
    row: int
    masked: int
    png: bytes | None = None


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


def _pack(bodies: Sequence[Mapping[str, Any]]) -> bytes:
    return gzip.compress(to_jsonl(list(bodies)), 6, mtime=0)


def _write_occurrences(oid: str, settled: Sequence[Occurrence], ports: Ports) -> None:
    ordered = sorted(settled, key=lambda one: one.row)
    ports.data.put(layout.occurrences(oid), _pack([one.to_json() for one in ordered]))


def _occurrences(drafts: Sequence[_Draft], status: str) -> list[Occurrence]:
    return [
        Occurrence(
            oid=draft.record.oid, row=draft.row, status=status, content=draft.record.id,  # type: ignore[arg-type]
            external_id=draft.record.external_id, subject=draft.record.subject,
        )
        for draft in drafts
    ]  # fmt: skip


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


def _read(item: PoolObject, oid: str, ports: Ports) -> tuple[list[_Draft], list[Occurrence]]:
    """The usable rows as drafts, and an occurrence with its reason for each that is not."""
    limits, task = ports.loop.limits, ports.loop.task
    limit = limits.max_object_mb * 1_000_000
    drafts: list[_Draft] = []
    problems: list[Occurrence] = []

    def refuse(number: int, problem: BadInput) -> None:
        problems.append(Occurrence(oid=oid, row=number, status="quarantined", reason=f"{problem.code}: {problem}"))

    try:
        data = ports.pool.read(item, limit=limit)
        for row in rows(data, key=item.key, kind=task.kind, limit=limit):
            if row.problem is not None:
                refuse(row.number, row.problem)
                continue
            try:
                drafts.append(_draft(row, oid, _origin(item), ports))
            except BadInput as problem:
                refuse(row.number, problem)
    except NotFound:
        refuse(0, BadInput(f"{item.key} was deleted before it could be read", code="gone"))
    except BadInput as problem:
        refuse(0, problem)
    return drafts, problems


def _origin(item: PoolObject) -> Origin:
    return "production" if item.key.startswith(layout.PRODUCTION) and "-data-" in item.bucket else "pool"


def _draft(row: Row, oid: str, origin: Origin, ports: Ports) -> _Draft:
    limits, privacy = ports.loop.limits, ports.loop.privacy
    image: Image | None = None
    png: bytes | None = None
    text: str | None = None
    masked = 0
    if row.text is not None:
        text = row.text.strip()
        if not text:
            raise BadInput(f"row {row.number}: the text is empty", code="empty")
        if len(text) > limits.max_text_chars:
            raise BadInput(
                f"row {row.number}: the text has {len(text)} characters, more than limits.max_text_chars "
                f"({limits.max_text_chars}); split it",
                code="oversized",
            )
        if privacy.mask:
            text, findings = mask_text(text)
            masked = len(findings)
        identity, cluster = digest({"text": text}), text_cluster(text)
    else:
        assert row.image is not None  # a row without a problem has one payload
        canonical = ports.images.canonical(row.image, side=limits.image_side, megapixels=limits.max_image_megapixels)
        png = canonical.png
        shape = "x".join(str(length) for length in canonical.pixels.shape)
        identity = digest(shape.encode() + b":" + canonical.pixels.tobytes())
        cluster = image_cluster(canonical.grey)
        image = Image(
            layout.content(identity), canonical.width, canonical.height, png if len(png) <= INLINE_BYTES else None
        )
    record = Record(
        id=identity, oid=oid, kind=ports.loop.task.kind, cluster=cluster,
        role=role(cluster, salt=privacy.salt), key=uniform_key(cluster, salt=privacy.salt),
        text=text, image=image, origin=origin, **row.fields,
    )  # fmt: skip
    return _Draft(record, row.number, masked, png)


def _claim_contents(
    found: Sequence[_Draft], oid: str, superseded: Sequence[str], ports: Ports
) -> tuple[list[_Draft], list[_Draft]]:
    """Those whose content is ours to score, and those somebody had already. The first row of a content speaks for it."""
    first: dict[str, _Draft] = {}
    duplicates: list[_Draft] = []
    for draft in found:
        if draft.record.id in first:
            duplicates.append(draft)
        else:
            first[draft.record.id] = draft
    claims = [(f"CONTENT#{identity}", "CLAIM", {"oid": oid, "row": draft.row}) for identity, draft in first.items()]
    accepted: list[_Draft] = []
    taken: list[_Draft] = []
    for draft, owner in zip(first.values(), ports.table.put_new_many(claims), strict=True):
        ours = owner is None or owner["oid"] == oid
        if not ours and owner is not None and _is_superseded(owner["oid"], superseded, ports):
            ours = _take_over(draft, oid, owner["oid"], ports)
        (accepted if ours else taken).append(draft)
    duplicates += taken
    ports.table.put_new_many(
        [(f"CONTENT#{one.record.id}", f"ALSO#{oid}#{one.row}", {"oid": oid, "row": one.row}) for one in taken]
    )
    return accepted, duplicates


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
