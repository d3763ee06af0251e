"""Hop 4: which records to ask next, and why each of them. One selection at a time; nothing is spent before it is sure.

When no batch is made the outcome says which condition held it back, and so does the metric.
"""

from __future__ import annotations

import secrets
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace
from decimal import Decimal
from typing import Any

import numpy as np

from winnow import layout
from winnow.datasets.roles import lowest
from winnow.digests import digest, short_id
from winnow.errors import BadInput, ConfigError
from winnow.loop import Loop
from winnow.metrics import Metric
from winnow.ports import Ports
from winnow.selection import arms
from winnow.selection.balance import class_worth
from winnow.selection.budget import affordable
from winnow.steps import Outcome
from winnow.steps.batches import Choice, Plan, committed, open_batch, price, recover, reservations, submit
from winnow.steps.candidates import Candidates, indexed
from winnow.steps.composition import composed, too_long, write_synthetic
from winnow.steps.course import Course, chart, counterfactuals, served, stopped
from winnow.steps.documents import document
from winnow.steps.pointers import Champion, champion, head
from winnow.steps.ranking import Recipe, able, ranking, widened

LEASE_SECONDS = 900


@dataclass(frozen=True)
class SelectRequest:
    """Why a batch is wanted, and optionally how large it may be at most (never more than `batches.size`).

    `anyway` asks it even where the next labels are not worth their price.
    """

    cause: str = "schedule"
    size: int | None = None
    anyway: bool = False

    @classmethod
    def from_json(cls, body: Mapping[str, Any]) -> SelectRequest:
        size = body.get("size")
        if size is not None and (isinstance(size, bool) or not isinstance(size, int) or size < 1):
            raise BadInput(f"size must be a whole number above 0, not {size!r}", code="bad-request")
        return cls(cause=str(body.get("cause", "schedule"))[:64], size=size, anyway=body.get("anyway") is True)


def select_batch(request: SelectRequest, ports: Ports) -> Outcome:
    """Make and submit one batch, or complete one that was left half-made."""
    owner = secrets.token_hex(8)
    if not ports.table.acquire_lease("select", owner, now=ports.clock.now(), seconds=LEASE_SECONDS):
        return _skip("busy")
    try:
        return _select(request, ports)
    finally:
        ports.table.release_lease("select", owner)


def _skip(reason: str, *metrics: Metric) -> Outcome:
    return Outcome({"batch": None, "reason": reason}, (Metric("SelectionSkipped", 1, {"Reason": reason}), *metrics))


def _select(request: SelectRequest, ports: Ports) -> Outcome:
    recover(ports)
    batches = ports.table.query("BATCH")
    for item in batches:
        if item["status"] == "planned":
            submit(item["sk"], ports)
    open_now = [item for item in batches if item["status"] != "collected" and item["kind"] == "select"]
    if len(open_now) >= ports.loop.batches.max_open:
        return _skip("open-batches")
    crowned = champion(ports)[0]
    superseded = {item["sk"] for item in ports.table.query("SUPERSEDED")}
    fresh = _fresh_share(crowned.model, superseded, ports)
    freshness = Metric("FreshShare", 100.0 * fresh)
    if fresh < ports.loop.acquisition.min_fresh_share:
        return _skip("stale-scores", freshness)
    pool = _pool(crowned.model, superseded, ports)
    if pool is None:
        return _skip("no-candidates", freshness)
    spent = committed(ports)
    rules, taken = ports.loop.batches, reservations(ports)
    course = chart(crowned, ports, asked=request.size, taken=taken)
    report = None if request.anyway else stopped(course, crowned, ports)
    if report is not None:
        held_back = _skip("gain-below-price", freshness, *course.metrics)
        return Outcome({**held_back.body, "why": course.prospect.reason, "report": report}, held_back.metrics)
    wanted = course.size
    size = affordable(wanted, left=ports.loop.budget.total_usd - spent, price=price("select", ports.loop))
    if size < min(rules.min_size, wanted):
        return _skip("budget", freshness, Metric("MoneyCommitted", float(spent)))
    plan, full = _plan(request, size, course, crowned, pool, taken, ports)
    if full and not plan.choices:
        return _skip("minutes", freshness)
    if not full and len(plan.choices) < min(rules.min_size, size):
        return _skip("pool-exhausted", freshness)
    if not open_batch(plan, ports):
        return _skip("busy", freshness)
    by_arm = Counter(choice.arm for choice in plan.choices)
    chosen = [Metric("ItemsSelected", places, {"Arm": arm}) for arm, places in sorted(by_arm.items())]
    money = Metric("MoneyCommitted", float(spent + Decimal(plan.usd)))
    told = Metric("BatchNotes", len(plan.told))
    body = {"batch": plan.batch, "size": len(plan.choices), "usd": plan.usd, "told": list(plan.told)}
    return Outcome(body, (*chosen, freshness, money, told, *course.metrics))


def _fresh_share(model: str, superseded: set[str], ports: Ports) -> float:
    """Share of live record artifacts that this model has scored."""
    live = [key for key in ports.data.list(layout.RECORDS) if layout.oid_of(key) not in superseded]
    scored = set(ports.data.list(f"{layout.SCORES}{model}/"))
    return sum(layout.scores(model, key) in scored for key in live) / len(live) if live else 0.0


def _pool(model: str, superseded: set[str], ports: Ports) -> Candidates | None:
    rows = indexed(model, superseded, ports)
    # Order by uniform key, so that ties fall by chance that was fixed at ingest and not by arrival.
    return None if rows is None else rows.take(np.lexsort((rows.id, rows.key)))


def _plan(
    request: SelectRequest,
    size: int,
    course: Course,
    crowned: Champion,
    rows: Candidates,
    taken: Mapping[str, Any],
    ports: Ports,
) -> tuple[Plan, bool]:
    """The plan, and whether `batches.minutes` is why it holds no more."""
    loop = ports.loop
    asked = np.isin(rows.id, sorted(taken)) if taken else np.zeros(len(rows), dtype=bool)
    # What is a near-duplicate of something asked in an earlier batch would be paid for twice.
    excluded = np.isin(rows.cluster, rows.cluster[asked]) if asked.any() else asked
    excluded = excluded | too_long(rows, ports)
    seed = [loop.training.seed, int(digest([crowned.model, sorted(taken)], length=12), 16)]
    covers = course.phase == "coverage"
    if not covers:
        course = served(course, able(course.recipe, rows, ports))
    covered = asked & (rows.role == "train")
    among = ~excluded & (rows.role == "train")
    predicted = _predicted(rows, loop)
    columns = arms.ScoredPool(
        ids=rows.id.tolist(), roles=rows.role.tolist(), keys=rows.key, clusters=rows.cluster.tolist(),
        scores=np.empty(len(rows), np.float32), embedding=rows.embedding.astype(np.float32), excluded=excluded,
        predicted=None if loop.task.type == "regression" else [str(name) for name in predicted],
        confidence=None if loop.task.type == "regression" else rows.confidence,
        worth=_worth(rows, ports),
        labeled=rows.embedding[covered].astype(np.float32) if covered.any() else None,
        probabilities=widened(rows.probabilities), members=widened(rows.members),
    )  # fmt: skip
    evaluated = _evaluation_labeled(rows, taken, loop)

    def arms_of(recipe: Recipe, *, cold: bool) -> tuple[list[arms.Choice], arms.ScoredPool]:
        """What the arms choose by a recipe, and from what; the same state gives the same."""
        rng = np.random.default_rng(seed)
        scores = ranking(recipe.strategy, rows, among=among, covered=covered, ports=ports, rng=rng)
        scored = replace(columns, scores=scores)
        policy = _policy(loop, recipe)
        return arms.plan_arms(
            scored, size, policy=policy, rng=rng, bootstrap=cold, evaluation_labeled=evaluated
        ), scored

    def would_ask(recipe: Recipe) -> list[arms.Choice]:
        possible = able(recipe, rows, ports)
        if possible.told:
            raise ConfigError(possible.told[0])
        return arms_of(recipe, cold=False)[0]

    recipe = course.recipe
    picked, columns = arms_of(recipe, cold=covers)
    batch = composed(
        picked,
        columns,
        rows,
        taken,
        strategy=recipe.strategy,
        bootstrap=crowned.is_bootstrap,
        covers=covers,
        ports=ports,
    )
    charted = course.to_json()
    if charted["competition"]:
        charted["competition"]["picks"] = counterfactuals(course, picked, would_ask)
    place = {identity: row for row, identity in enumerate(rows.id.tolist())}
    number = (ports.table.get("HEAD", "BATCH") or {"number": 0})["number"] + 1
    ids = sorted(choice.id for choice in batch.choices)
    name = short_id("b", {"number": number, "model": crowned.model, "ids": ids})
    choices = write_synthetic(name, batch, ports)
    for pick in batch.choices:
        if pick.id in batch.made:
            continue
        row = place[pick.id]
        choices.append(
            Choice(
                id=pick.id, oid=str(rows.oid[row]), cluster=str(rows.cluster[row]), role=rows.role[row].item(),
                records=str(rows.records[row]), arm=pick.arm, strategy=pick.strategy, score=pick.score, rank=pick.rank,
                prediction=None if crowned.is_bootstrap else predicted[row], again=batch.again.get(pick.id),
            )
        )  # fmt: skip
    plan = Plan(
        batch=name, kind="select", team="crowd", workers_per_item=loop.quality.workers_per_item, model=crowned.model,
        cause=request.cause, phase=course.phase, course=charted,
        usd=str(price("select", loop) * len(choices)), created_at=ports.clock.now().isoformat(), choices=tuple(choices),
        told=(*recipe.told, *batch.told),
    )  # fmt: skip
    return plan, batch.full


def _evaluation_labeled(rows: Candidates, taken: Mapping[str, Any], loop: Loop) -> int:
    """How many evaluation records are asked or answered. Of imported labels only those in the pool's uniform sample count."""
    sampled = rows.take(rows.role == "evaluation")
    bound = lowest(sampled.key.tolist(), loop.acquisition.arms.evaluation_target)
    return sum(
        identity in taken and (key <= bound or not layout.is_import(taken[identity]["batch"]))
        for identity, key in zip(sampled.id.tolist(), sampled.key.tolist(), strict=True)
    )


def _predicted(rows: Candidates, loop: Loop) -> list[str] | list[float]:
    """The champion's class of each record, or its number."""
    if loop.task.type == "regression":
        return [float(value) for value in rows.prediction]
    return [loop.task.classes[index] for index in rows.prediction]


def _worth(rows: Candidates, ports: Ports) -> np.ndarray[tuple[int], np.dtype[np.float32]] | None:
    """What each record's predicted class makes of its score; None where classes are not balanced, or nothing is labeled."""
    loop = ports.loop
    version, _ = head(ports.data)
    if not loop.acquisition.balance or loop.task.type == "regression" or version is None:
        return None
    counts = document(ports.data, layout.dataset(version)).get("by_class")
    if not counts:
        return None
    worth = class_worth(np.array([counts.get(name, 0) for name in loop.task.classes]))
    of_each: np.ndarray[tuple[int], np.dtype[np.float32]] = worth[rows.prediction]
    return of_each


def _policy(loop: Loop, recipe: Recipe) -> arms.ArmPolicy:
    acquisition, shares = loop.acquisition, loop.acquisition.arms
    return arms.ArmPolicy(
        strategy=recipe.strategy, selector=recipe.selector, cold_selector=acquisition.cold_start,
        control=shares.control, rare=shares.rare, rare_classes=loop.task.rare_classes,
        evaluation_target=shares.evaluation_target, evaluation_share=shares.evaluation_share,
        reward=shares.reward_share, near_duplicate_distance=acquisition.near_duplicate_distance,
    )  # fmt: skip
