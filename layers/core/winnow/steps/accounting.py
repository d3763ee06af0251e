"""Where every occurrence is, and whether the invariants hold: from artifacts and sets alone, never from a counter.

`winnow status` and the demo print this. Nothing here is believed because a hop said so: a record counts as scored when a
score artifact holds its id, as a duplicate when some other record carries its content, as quarantined when a line in
quarantine gives the reason.
"""

from __future__ import annotations

import gzip
import hashlib
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from winnow import layout
from winnow.datasets.leaks import Member, leaks
from winnow.errors import ConfigError, NotFound
from winnow.ports import Ports
from winnow.records import Label, Occurrence, PoolObject, Role, from_jsonl
from winnow.steps import deployment, labeled, pointers
from winnow.steps.batches import committed, read_plan
from winnow.steps.candidates import Candidates
from winnow.steps.documents import document

PARALLEL_READS = 16
READ_AHEAD = 256
"""Artifacts held in memory at once while they are read."""

HELD_OUT: tuple[Role, ...] = ("evaluation", "reward")


@dataclass(frozen=True)
class Ledger:
    """Occurrences by what became of them. An object that was not ingested yet counts as one occurrence."""

    scored: int = 0
    duplicate: int = 0
    superseded: int = 0
    quarantined: int = 0
    waiting: int = 0
    dead_lettered: int = 0
    lost: int = 0
    """Occurrences whose fate no artifact shows; I3 says there are none."""

    @property
    def arrived(self) -> int:
        """Occurrences in."""
        return (
            self.scored + self.duplicate + self.superseded + self.quarantined
            + self.waiting + self.dead_lettered + self.lost
        )  # fmt: skip

    def to_json(self) -> dict[str, int]:
        """The totals of the demo's document.

        >>> Ledger(scored=2, waiting=1).to_json()["in"]
        3
        """
        totals = {name: value for name, value in self.__dict__.items() if name != "lost"}
        return {"in": self.arrived, **totals}


@dataclass(frozen=True)
class Invariant:
    """Whether one invariant holds, and the first counterexample or how much was looked at."""

    ok: bool
    detail: str


def account(ports: Ports) -> Ledger:
    """Every occurrence that ever arrived, by its fate."""
    superseded = {item["sk"] for item in ports.table.query("SUPERSEDED")}
    scored, waiting = _contents(superseded, ports)
    fates: Counter[str] = Counter()
    for key, body in fetch(ports.data.list(layout.OCCURRENCES), ports):
        oid = key.removeprefix(layout.OCCURRENCES).removesuffix(".jsonl.gz")
        rows = [Occurrence.from_json(row) for row in from_jsonl(gzip.decompress(body))]
        refused = _quarantined_rows(oid, ports) if any(row.status == "quarantined" for row in rows) else set()
        for row in rows:
            fates[_fate(row, oid in superseded, refused, scored, waiting)] += 1
    pending = sum(1 for _ in pending_objects(ports))
    dead = min(pending, ports.queues.state("ingest").dead)
    fates["waiting"] += pending - dead
    fates["dead_lettered"] += dead
    return Ledger(**fates)


def _fate(row: Occurrence, superseded: bool, refused: set[int], scored: set[str], waiting: set[str]) -> str:
    if row.status == "quarantined" and row.row in refused:
        return "quarantined"
    if superseded or row.status == "superseded":
        return "superseded"
    if row.status == "accepted":
        return "scored" if row.content in scored else "waiting" if row.content in waiting else "lost"
    return "duplicate" if row.status == "duplicate" and row.content in scored | waiting else "lost"


def _contents(superseded: set[str], ports: Ports) -> tuple[set[str], set[str]]:
    """Ids that a score artifact holds, and ids of the records artifacts that have none yet."""
    artifacts: dict[str, str] = {}
    champion = pointers.champion(ports)[0].model
    for key in ports.data.list(layout.SCORES):
        model, _, rest = key.removeprefix(layout.SCORES).partition("/")
        if model == champion or rest not in artifacts:
            artifacts[rest] = key
    living = [key for key in ports.data.list(layout.RECORDS) if layout.oid_of(key) not in superseded]
    found = {key: artifacts.get(layout.scores("m", key).removeprefix(f"{layout.SCORES}m/")) for key in living}
    scored: set[str] = set()
    for _, body in fetch((key for key in found.values() if key is not None), ports):
        scored |= {str(identity) for identity in Candidates.from_bytes(body).id}
    waiting: set[str] = set()
    for _, body in fetch((key for key, scores in found.items() if scores is None), ports):
        waiting |= {str(row["id"]) for row in from_jsonl(gzip.decompress(body))}
    return scored, waiting - scored


def fetch(keys: Iterable[str], ports: Ports) -> Iterator[tuple[str, bytes]]:
    """Each key with its body, in order. Many small artifacts take as long as their answers travel, so several at once."""
    wanted = list(keys)
    with ThreadPoolExecutor(PARALLEL_READS) as pool:
        for start in range(0, len(wanted), READ_AHEAD):
            ahead = wanted[start : start + READ_AHEAD]
            yield from zip(ahead, pool.map(ports.data.get, ahead), strict=True)


def _quarantined_rows(oid: str, ports: Ports) -> set[int]:
    """Rows of an object whose reason is written down."""
    try:
        return {int(body["row"]) for body in from_jsonl(ports.data.get(layout.quarantine(oid))) if body["reason"]}
    except NotFound:
        return set()


def pending_objects(ports: Ports) -> Iterator[PoolObject]:
    """Objects that were dropped (or captured) and not ingested yet. Ingest writes the occurrences last."""
    done = set(ports.data.list(layout.OCCURRENCES))
    captured = (
        PoolObject(bucket=_bucket(ports), key=key, version="", sequencer="")
        for key in ports.data.list(layout.PRODUCTION)
    )
    for item in (*ports.pool.list(), *captured):
        if layout.occurrences(layout.object_id(item)) not in done:
            yield item


def _bucket(ports: Ports) -> str:
    return ports.data.uri("").removeprefix("s3://").rstrip("/")


def check_invariants(ports: Ports, *, ledger: Ledger | None = None) -> dict[str, Invariant]:
    """I1 to I8 as far as artifacts can show them. A `ledger` that was just made need not be made again for I3."""
    known = account(ports) if ledger is None else ledger
    checks = {**CHECKS, "I3": lambda _: _nothing_lost(known)}
    return {name: _verdict(checks[name], ports) for name in sorted(checks)}


def _verdict(check: Callable[[Ports], Iterator[str | int]], ports: Ports) -> Invariant:
    """A check yields counterexamples as text, and how many things it looked at as numbers."""
    seen, wrong = 0, []
    for found in check(ports):
        if isinstance(found, str):
            wrong.append(found)
        else:
            seen += found
    if not wrong:
        return Invariant(True, f"{seen} checked")
    more = f" (and {len(wrong) - 1} more)" if len(wrong) > 1 else ""
    return Invariant(False, wrong[0] + more)


def _annotations_end_once(ports: Ports) -> Iterator[str | int]:
    """I1: every answer stands in exactly one line of its batch's labels."""
    for item in ports.table.query("BATCH"):
        if item["status"] != "collected":
            continue
        batch = str(item["sk"])
        lines: dict[str, list[Label]] = defaultdict(list)
        for body in from_jsonl(ports.data.get(layout.labels(batch))):
            lines[body["id"]].append(Label.from_json(body))
        for content, answers in ports.labeling.outcome(str(item["job"])).answers.items():
            yield len(answers)
            found = lines.get(content, [])
            if len(found) != 1:
                yield f"batch {batch}: {len(answers)} answers about {content} stand in {len(found)} label lines"
            elif Counter(answer.worker for answer in answers) != Counter(raw["worker"] for raw in found[0].answers):
                yield f"batch {batch}: the label of {content} does not name its {len(answers)} annotators"
            elif found[0].status not in ("labeled", "disputed", "quarantined"):
                yield f"batch {batch}: {content} was answered but counts as {found[0].status}"
            elif found[0].status == "quarantined" and not found[0].reason:
                yield f"batch {batch}: {content} is in quarantine without a reason"


def _asked_once(ports: Ports) -> Iterator[str | int]:
    """I2: no content in two open jobs; asked again only after a recorded expiry, a dispute or a held-out batch."""
    batches = sorted(ports.table.query("BATCH"), key=lambda item: int(item["number"]))
    asked: dict[str, str] = {}
    closed = {str(item["sk"]) for item in batches if item["status"] == "collected"}
    released = {item["sk"] for item in ports.table.query(layout.EXPIRY)}
    held_out = _held_out_batches(ports)
    for item in batches:
        batch = str(item["sk"])
        for content in _asked(batch, ports):
            yield 1
            before = asked.get(content)
            if before is not None and item.get("parent") != before:
                if before not in closed:
                    yield f"{content} is in two open jobs, {before} and {batch}"
                elif f"{content}#{before}" not in released and before not in held_out:
                    yield f"{content} was asked in {before} and again in {batch} without a recorded expiry"
            asked[content] = batch


def _asked(batch: str, ports: Ports) -> list[str]:
    """Ids in a batch's manifest; the plan's while there is no manifest yet."""
    try:
        return [str(line["candidate_id"]) for line in from_jsonl(ports.data.get(layout.manifest(batch)))]
    except NotFound:
        return []


def _held_out_batches(ports: Ports) -> set[str]:
    """Batches whose labels a later dataset version no longer believes, with the disputes that settled their items."""
    version, _ = pointers.head(ports.data)
    if version is None:
        return set()
    held = {entry["batch"] for entry in document(ports.data, layout.dataset(version)).get("held_out", [])}
    return held | {
        str(item["sk"]) for item in ports.table.query("BATCH") if read_plan(str(item["sk"]), ports).parent in held
    }


def _nothing_lost(ledger: Ledger) -> Iterator[str | int]:
    """I3: every occurrence is somewhere."""
    yield ledger.arrived
    if ledger.lost:
        yield f"{ledger.lost} of {ledger.arrived} occurrences are nowhere"


def _versions(ports: Ports) -> dict[str, Mapping[str, Any]]:
    keys = [key for key in ports.data.list("datasets/") if key.endswith("/dataset.json")]
    return {body["version"]: body for body in (document(ports.data, key) for key in keys)}


def _versions_complete(ports: Ports) -> Iterator[str | int]:
    """I4: every version is complete, and the versions are one line that ends at the head."""
    versions = _versions(ports)
    head, _ = pointers.head(ports.data)
    for version, body in versions.items():
        for key, expected in body["files"].items():
            yield 1
            try:
                found = hashlib.sha256(ports.data.get(key)).hexdigest()
            except NotFound:
                found = "no file"
            if found != expected:
                yield f"dataset {version}: {key} has digest {found[:12]}, not {expected[:12]}"
    line: list[str] = []
    cursor = head
    while cursor is not None and cursor not in line:
        if cursor not in versions:
            yield f"dataset {cursor} is in the line of the head {head} but has no dataset.json"
            return
        line.append(cursor)
        cursor = versions[cursor]["parent"]
    if cursor is not None:
        yield f"the parents of dataset {cursor} form a circle"
    for version in versions.keys() - set(line):
        # A version may be written and not yet be the head: its parent is the head, or it lost the race and is nobody's parent.
        if any(body["parent"] == version for body in versions.values()):
            yield f"dataset {version} has successors but is not in the line of the head {head}"


def _nothing_leaks(ports: Ports) -> Iterator[str | int]:
    """I5: no version trains on what any version judges on, nor on a near-duplicate of it."""
    judged: dict[str, Member] = {}
    trained: dict[str, list[Member]] = {}
    for version in _versions(ports):
        try:
            dataset = labeled.load(ports.data, version)
            for role in HELD_OUT:
                judged.update({member.id: member for member in _members(labeled.part(ports.data, dataset, role))})
            trained[version] = _members(labeled.part(ports.data, dataset, "train"))
        except ConfigError as error:
            yield str(error)
    for version, members in trained.items():
        yield len(members)
        for leak in leaks(members, judged.values()):
            yield f"dataset {version} trains on {leak.train}, the {leak.by} of held-out {leak.held_out}"


def _members(lines: Iterable[Mapping[str, Any]]) -> list[Member]:
    return [Member(str(line["id"]), str(line["cluster"])) for line in lines]


def _deployment_reports(ports: Ports) -> Iterator[Mapping[str, Any]]:
    for key in ports.data.list("reports/"):
        if key.endswith("/deployment.json"):
            yield document(ports.data, key)


def _promotions_supported(ports: Ports) -> Iterator[str | int]:
    """I6: every promoted model has a gate report that says promote, against the champion it replaced."""
    for report in _deployment_reports(ports):
        if report["status"] != deployment.PROMOTED:
            continue
        yield 1
        try:
            gate = document(ports.data, layout.gate_report(report["model"]))
        except NotFound:
            yield f"{report['model']} was promoted without a gate report"
            continue
        if (gate["verdict"], gate["champion"], gate["dataset"]) != ("promote", report["champion"], report["dataset"]):
            yield f"{report['model']} was promoted; its gate said {gate['verdict']} against {gate['champion']}"


def _last_known_good_serves(ports: Ports) -> Iterator[str | int]:
    """I7: a rollout that an alarm stopped says FAILED, and what serves is the champion."""
    champion, _ = pointers.champion(ports)
    for report in _deployment_reports(ports):
        yield 1
        model, status = report["model"], report["status"]
        ringing = sorted(name for name, state in report["alarms"].items() if state == "ALARM")
        if ringing and status != deployment.FAILED and report["endpoint"]:
            yield f"{ringing[0]} was in ALARM but the rollout of {model} says {status}"
        if status == deployment.FAILED and model == champion.model:
            yield f"the rollout of {model} failed but it is the champion"
    rolling = [
        item["model"] for item in ports.table.query(deployment.PARTITION) if item["status"] not in deployment.FINAL
    ]
    state = ports.serving.state() if ports.serving.enabled() else None
    if state is not None and not rolling and not champion.is_bootstrap and state.status not in deployment.MOVING:
        yield 1
        if state.model != champion.model:
            yield f"the endpoint serves {state.model}, the champion is {champion.model}"


def _budget_kept(ports: Ports) -> Iterator[str | int]:
    """I8: the money committed to batches is within the budget."""
    spent, total = committed(ports), Decimal(ports.loop.budget.total_usd)
    yield len(ports.table.query("BUDGET"))
    if spent > total:
        yield f"{spent} USD are committed, the budget is {total}"


CHECKS: Mapping[str, Callable[[Ports], Iterator[str | int]]] = {
    "I1": _annotations_end_once,
    "I2": _asked_once,
    "I4": _versions_complete,
    "I5": _nothing_leaks,
    "I6": _promotions_supported,
    "I7": _last_known_good_serves,
    "I8": _budget_kept,
}
