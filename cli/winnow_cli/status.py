"""`winnow status`: the ledger, the invariants, the champion and the batches, read from artifacts."""

from __future__ import annotations

import argparse
import json
import os
from typing import Any

from winnow.errors import WinnowError
from winnow.ports import Ports
from winnow_cli.errors import UsageError
from winnow_cli.stack import connect, explained

SHOWN_BATCHES = 10
TWO_SIDED = 1.96
"""Standard errors on either side of a figure that its 95 % interval takes."""


def run(given: argparse.Namespace) -> int:
    """Print how the loop stands; 1 when an invariant does not hold."""
    from winnow.aws import wiring

    stack = connect(given)
    os.environ.update(stack.environment())
    with explained(f"stack {given.stack!r}"):
        try:
            body = status(wiring.ports())
        except WinnowError as error:
            raise UsageError(f"stack {given.stack!r}: {error}") from error
    print(json.dumps(body, indent=1, ensure_ascii=False) if given.json else text(body))
    return 0 if all(check["holds"] for check in body["invariants"].values()) else 1


def status(ports: Ports) -> dict[str, Any]:
    """Everything there is to say, as one JSON-like document."""
    from winnow.steps import accounting, pointers
    from winnow.steps.batches import committed, reservations
    from winnow.steps.course import chart

    champion, _ = pointers.champion(ports)
    head, _ = pointers.head(ports.data)
    serving = ports.serving.state() if ports.serving.enabled() else None
    batches = sorted(ports.table.query("BATCH"), key=lambda item: int(item["number"]))
    ledger = accounting.account(ports)
    checks = accounting.check_invariants(ports, ledger=ledger)
    return {
        "stack": ports.stack,
        "champion": champion.__dict__,
        "dataset": head,
        "endpoint": None if serving is None else {"status": serving.status, "model": serving.model},
        "totals": ledger.to_json(),
        "budget_usd": {"committed": str(committed(ports)), "total": str(ports.loop.budget.total_usd)},
        "batches": [
            {"batch": item["sk"], **{name: item[name] for name in ("number", "kind", "status", "size", "created_at")}}
            for item in batches
        ],
        "next": chart(champion, ports, taken=reservations(ports)).to_json(),
        "running": {machine: ports.executions.running(machine) for machine in ("improve", "rescore")},
        "invariants": {name: {"holds": check.ok, "detail": check.detail} for name, check in checks.items()},
    }


def text(body: dict[str, Any]) -> str:
    """The document as lines for people."""
    champion, endpoint = body["champion"], body["endpoint"]
    serves = "no endpoint" if endpoint is None else f"endpoint {endpoint['status']} with {endpoint['model']}"
    totals = ", ".join(f"{count} {name.replace('_', '-')}" for name, count in body["totals"].items())
    money = body["budget_usd"]
    running = [f"{machine} {name}" for machine, names in body["running"].items() for name in names]
    lines = [
        f"stack     {body['stack']}",
        f"champion  {champion['model']} (number {champion['number']}), {serves}",
        f"dataset   {body['dataset'] or 'none yet'}",
        f"records   {totals}",
        f"budget    ${money['committed']} of ${money['total']} committed",
        f"running   {', '.join(running) or 'nothing'}",
    ]
    hidden = len(body["batches"]) - SHOWN_BATCHES
    if hidden > 0:
        lines.append(f"batches   {hidden} older ones are not shown")
    for batch in body["batches"][-SHOWN_BATCHES:]:
        lines.append(
            f"batch     {batch['number']:>3} {batch['batch']} {batch['kind']:<8} {batch['status']:<10} {batch['size']} records"
        )
    lines += coming(body["next"])
    for name, check in body["invariants"].items():
        lines.append(f"{name}        {'holds ' if check['holds'] else 'BROKEN'} {check['detail']}")
    return "\n".join(lines)


def coming(course: dict[str, Any]) -> list[str]:
    """What the next batch is to be, and why, as lines for people."""
    prospect, competition = course["prospect"], course["competition"]
    lines = [f"next      {course['size']} records by {course['recipe']}, phase {course['phase']}"]
    lines += [f"          {reason}" for reason in course["reasons"]]
    lines.append(f"worth     {'STOPPED: ' if prospect['stop'] else ''}{prospect['reason']}")
    if prospect["remedy"]:
        lines.append(f"          {prospect['remedy']}")
    if competition is not None:
        for one in competition["competitors"]:
            rounds = f"{one['rounds']} round{'s' if one['rounds'] > 1 else ''}"
            gained = f"{one['gain']:+.1f} ± {TWO_SIDED * one['error']:.1f} points per 100 labels in {rounds}"
            measured = gained if one["rounds"] else "not measured yet"
            lines.append(f"strategy  {one['name']} weight {one['weight']:.2f}, {measured}")
        lines.append(
            f"          {competition['sentence']}; "
            f"regret {competition['regret']:.1f} ± {TWO_SIDED * competition['regret_error']:.1f} points"
        )
    return lines
