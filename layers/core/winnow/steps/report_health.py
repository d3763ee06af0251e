"""Hop 11: the gauges that no event carries, and the heartbeat that says the schedule still runs."""

from __future__ import annotations

import gzip
import json
from collections.abc import Mapping
from typing import Any, Final, get_args

from winnow import layout
from winnow.errors import NotFound
from winnow.metrics import Metric
from winnow.ports import Ports, QueueName
from winnow.records import from_jsonl
from winnow.steps import Outcome, labeled, pointers
from winnow.steps.accounting import fetch
from winnow.steps.batches import backlog, committed
from winnow.steps.reconcile import unscored

COUNTS: Final = "reports/pool.json"
"""Contents accepted per object: what was counted once (occurrences never change) is not read again."""


READS_A_RUN = 5000
"""Objects counted in one run, so that it ends in time after a large drop; the gauge catches up in the next runs."""


def report_health(request: Mapping[str, Any], ports: Ports) -> Outcome:
    """How the loop stands now. Nothing in the request matters."""
    champion, _ = pointers.champion(ports)
    items, hours = backlog(ports)
    gauges = {
        "Heartbeat": 1.0,
        "BacklogItems": float(items),
        "BacklogHours": hours,
        "PoolRecords": float(_pool_records(ports)),
        "UnscoredObjects": float(sum(1 for _ in unscored(champion.model, ports))),
        "DeadLetters": float(sum(ports.queues.state(queue).dead for queue in get_args(QueueName))),
        "BudgetLeft": float(ports.loop.budget.total_usd - committed(ports)),
    }
    rare = _rare_share(ports)
    if rare is not None:
        gauges["RareClassShare"] = 100.0 * rare
    return Outcome(gauges, tuple(Metric(name, value) for name, value in gauges.items()))


def _pool_records(ports: Ports) -> int:
    """Contents of living objects."""
    try:
        counts: dict[str, int] = json.loads(ports.data.get(COUNTS))
    except NotFound:
        counts = {}
    new = [key for key in ports.data.list(layout.OCCURRENCES) if _object(key) not in counts][:READS_A_RUN]
    for key, body in fetch(new, ports):
        counts[_object(key)] = sum(row["status"] == "accepted" for row in from_jsonl(gzip.decompress(body)))
    if new:
        ports.data.put(COUNTS, json.dumps(counts, sort_keys=True).encode())
    superseded = {item["sk"] for item in ports.table.query("SUPERSEDED")}
    return sum(count for oid, count in counts.items() if oid not in superseded)


def _object(occurrences_key: str) -> str:
    return occurrences_key.removeprefix(layout.OCCURRENCES).removesuffix(".jsonl.gz")


def _rare_share(ports: Ports) -> float | None:
    """Share of the newest dataset's train labels that are of a rare class; None when there is nothing to say."""
    version, _ = pointers.head(ports.data)
    rare = ports.loop.task.rare_classes
    if version is None or not rare:
        return None
    by_class = labeled.load(ports.data, version).by_class
    total = sum(by_class.values())
    return sum(by_class.get(name, 0) for name in rare) / total if total else None
