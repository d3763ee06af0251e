"""What the next batch is to be: how large, chosen by which strategy, in which phase, whether it is worth its price, and why.

Everything here is read from artifacts and the table; the arithmetic is in `winnow.selection.pace`, `.stopping` and `.bandit`.
Nothing is decided by chance that does not derive from the state it is decided in: a selection that runs twice decides the same.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from statistics import NormalDist
from typing import Any

import numpy as np

from winnow import layout
from winnow.digests import digest
from winnow.errors import ConfigError, NotFound
from winnow.loop import Loop
from winnow.metrics import Metric
from winnow.models.doubt import Doubt
from winnow.ports import JsonDict, Ports
from winnow.records import Label, from_jsonl
from winnow.selection import bandit, pace, stopping
from winnow.selection.arms import Choice
from winnow.selection.budget import affordable
from winnow.selection.phases import decide
from winnow.steps.batches import backlog, committed, price
from winnow.steps.documents import document
from winnow.steps.pointers import Champion, head
from winnow.steps.ranking import Recipe
from winnow.steps.rewards import rewards

READ_BACK = 40
"""Gate reports that a learning curve is fitted to: the newest ones."""
_ANSWERED = 0.95
"""Share of a batch whose answers its pace is measured by: the last few may wait for one person."""


@dataclass(frozen=True)
class Course:
    """What is decided before a single record is chosen."""

    size: int
    recipe: Recipe
    phase: str
    reasons: tuple[str, ...]
    """Of the size first, then of the strategy and its phase."""
    pace: pace.Pace
    """What the size is, or would be with `batches.adaptive`."""
    prospect: stopping.Verdict
    """What the batch should gain, and whether that is worth its price."""
    standing: bandit.Standing | None = None
    """Of the competitors, where there are some."""
    drawn: str | None = None
    """The competitor that makes this batch's active arm; None where none does."""
    labels_per_hour: float | None = None

    def to_json(self) -> JsonDict:
        """As `plan.json` keeps it; what the competitors would have asked comes with the choices (`counterfactuals`)."""
        return {
            "size": self.size, "recipe": self.chosen_by, "phase": self.phase, "reasons": list(self.reasons),
            "pace": {"size": self.pace.size, "reasons": list(self.pace.reasons)}, "prospect": _json(self.prospect),
            "competition": None if self.standing is None else self._competition(self.standing),
        }  # fmt: skip

    def _competition(self, found: bandit.Standing) -> JsonDict:
        return {
            "drawn": self.drawn, "rounds": found.rounds, "separated": found.separated, "sentence": found.sentence,
            "weights": {one.name: round(one.weight, 6) for one in found.competitors},
            "regret": round(found.regret, 6), "regret_error": round(found.regret_error, 6),
            "competitors": [one.to_json() for one in found.competitors],
        }  # fmt: skip

    @property
    def chosen_by(self) -> str:
        """What makes the active arm: coverage asks no strategy."""
        return f"coverage+{self.recipe.selector}" if self.phase == "coverage" else self.recipe.name

    @property
    def metrics(self) -> tuple[Metric, ...]:
        made = [Metric("BatchSize", self.size)]
        if self.labels_per_hour is not None:
            made.append(Metric("LabelsPerHour", self.labels_per_hour))
        if self.prospect.gain_per_label is not None:
            made.append(Metric("GainPerLabel", self.prospect.gain_per_label))
        if self.standing is not None:
            made.append(Metric("StrategyRegret", self.standing.regret))
            made += [Metric("StrategyWeight", one.weight, {"Strategy": one.name}) for one in self.standing.competitors]
        return tuple(made)


def chart(crowned: Champion, ports: Ports, *, asked: int | None = None, taken: Collection[str] = ()) -> Course:
    """The course of the next batch under the champion that reigns.

    `asked` is a size somebody asked for (never more than `batches.size`), `taken` the contents that are reserved: with the
    champion they are the state that chance derives from.
    """
    loop = ports.loop
    counts = _counts(ports)
    reports = _reports(ports)
    left = loop.budget.total_usd - committed(ports)
    item = price("select", loop)
    open_items, oldest = backlog(ports)
    speeds = _speeds(ports)
    share = _train_share(loop.batches.size, loop, counts)
    signs = pace.Signs(
        labels_per_hour=speeds, open_items=open_items, oldest_hours=oldest, gains=_gains(reports, ports), train_share=share,
        affordable=affordable(10**9, left=left, price=item) if item else None,
    )  # fmt: skip
    advised = pace.next_size(
        signs, least=loop.batches.min_size, most=loop.batches.size, objective_hours=float(loop.slo.label_hours_p95)
    )
    size, why = _size(advised, asked, loop)
    prospect = stopping.assess(
        _points(reports), further=max(1, round(size * _train_share(size, loop, counts))), now=counts.get("train", 0),
        usd=float(item * size), worth_usd=None if loop.budget.gain_worth_usd is None else float(loop.budget.gain_worth_usd),
    )  # fmt: skip
    decided = decide(_doubt(crowned, ports), bootstrap=crowned.is_bootstrap)
    phase, told = decided.phase, [f"{decided.phase}: {decided.reason}"]
    standing, drawn = None, None
    recipe = Recipe(loop.acquisition.strategy, loop.acquisition.selector)
    if phase == "coverage":
        recipe = Recipe("random", loop.acquisition.cold_start)
    if loop.acquisition.competing:
        standing = bandit.standing(rewards(ports), loop.acquisition.competing)
        if phase == "uncertainty":
            state = digest({"competition": crowned.model, "taken": sorted(taken)}, length=12)
            drawn = bandit.draw(standing.weights, rng=np.random.default_rng([loop.training.seed, int(state, 16)]))
            recipe = Recipe.of(drawn)
            told.append(f"{drawn} was drawn with weight {standing.weights[drawn]:.2f}; {standing.sentence}")
        else:
            told.append("the competitors wait until there is doubt to ask by")
    return Course(
        size, recipe, phase, (*why, *told), advised, prospect, standing, drawn, speeds[-1] if speeds else None
    )  # fmt: skip


def stopped(course: Course, crowned: Champion, ports: Ports) -> str | None:
    """The key of the report that says why no batch is asked, or None: the batch is worth its price, or nobody knows."""
    if not course.prospect.stop:
        return None
    body = {
        "format": 1, "reason": "gain-below-price", "champion": crowned.model, "dataset": head(ports.data)[0],
        "metric": ports.loop.metric, "size": course.size, "verdict": _json(course.prospect),
        "curve": [point.__dict__ for point in _points(_reports(ports))], "what_would_change_it": course.prospect.remedy,
    }  # fmt: skip
    key = layout.stopping_report(digest(body, length=20))
    # No time in it: the same evidence is the same report, whenever selection looks again.
    ports.data.put_new(key, json.dumps(body, indent=1, ensure_ascii=False).encode())
    return key


def served(course: Course, recipe: Recipe) -> Course:
    """The course with the recipe that the candidates can serve; where that is another one, no competitor made the batch."""
    if not recipe.told:
        return course
    return replace(course, recipe=recipe, drawn=None, reasons=(*course.reasons, *recipe.told))


def counterfactuals(
    course: Course, asked: Sequence[Choice], would_ask: Callable[[Recipe], Sequence[Choice]]
) -> JsonDict | None:
    """What each competitor's active arm would have been on the same pool: ids, and the share that is asked anyway.

    `would_ask` plans the batch by a recipe. A competitor that cannot choose here (the bootstrap model gives it nothing to go
    by) is told with the reason.
    """
    if course.standing is None:
        return None
    active = [choice.id for choice in asked if choice.arm == "active"]
    found: JsonDict = {}
    for name in sorted(course.standing.weights):
        if name == course.drawn:
            found[name] = {"ids": active, "overlap": 1.0}
            continue
        try:
            ids = [choice.id for choice in would_ask(Recipe.of(name)) if choice.arm == "active"]
        except ConfigError as error:
            found[name] = {"ids": [], "overlap": None, "why_not": str(error)}
            continue
        share = len(set(ids) & set(active)) / len(ids) if ids else None
        found[name] = {"ids": ids, "overlap": None if share is None else round(share, 4)}
    return found


def _size(advised: pace.Pace, asked: int | None, loop: Loop) -> tuple[int, tuple[str, ...]]:
    most = loop.batches.size
    if asked is not None:
        return min(asked, most), (f"{min(asked, most)} records, as was asked for",)
    if loop.batches.adaptive:
        return advised.size, advised.reasons
    fixed = f"{most} records: batches.size, since batches.adaptive is off"
    if advised.size == most:
        return most, (fixed,)
    return most, (fixed, f"batches.adaptive would ask {advised.size}: {'; '.join(advised.reasons)}")


def _doubt(crowned: Champion, ports: Ports) -> Doubt | None:
    """What training measured of the champion's doubt; None where it did not (an imported model, a regression)."""
    if crowned.is_bootstrap:
        return None
    try:
        card = document(ports.data, layout.model(crowned.model))
    except NotFound:
        return None
    return Doubt.of(card.get("metrics", {}))


def _json(verdict: stopping.Verdict) -> JsonDict:
    body = verdict.to_json()
    return {name: round(value, 8) if isinstance(value, float) else value for name, value in body.items()}


def _counts(ports: Ports) -> Mapping[str, int]:
    """Labels of the newest dataset by role."""
    version, _ = head(ports.data)
    counts: Mapping[str, int] = document(ports.data, layout.dataset(version))["counts"] if version else {}
    return counts


def _train_share(size: int, loop: Loop, counts: Mapping[str, int]) -> float:
    """Share of a batch that is trained on: less what goes to evaluation until its target is met, and to reward."""
    arms = loop.acquisition.arms
    lacking = max(0, arms.evaluation_target - counts.get("evaluation", 0))
    return max(0.05, 1.0 - arms.reward_share - min(arms.evaluation_share, lacking / size))


def _reports(ports: Ports) -> list[JsonDict]:
    """The newest gate reports in the order of their looks, each with `labels`, the train labels behind it, and `before`,
    those behind its champion (None: it learnt none of them here)."""
    looks = ports.table.query("LOOK")
    datasets = {str(look["model"]): str(look["dataset"]) for look in looks}
    counts: dict[str, int | None] = {}

    def labels(model: str) -> int | None:
        version = datasets.get(model)
        if version is not None and version not in counts:
            try:
                counts[version] = int(document(ports.data, layout.dataset(version))["counts"]["train"])
            except NotFound:
                counts[version] = None
        return None if version is None else counts[version]

    found = []
    for look in looks[-READ_BACK:]:
        try:
            report = document(ports.data, layout.gate_report(look["model"]))
        except NotFound:
            continue  # a gate that is still at work
        if report.get("metric") == ports.loop.metric and labels(str(look["model"])) is not None:
            champion = str(report["champion"])
            found.append({**report, "labels": labels(str(look["model"])), "before": labels(champion)})
    return found


def _points(reports: Sequence[Mapping[str, Any]]) -> list[stopping.Point]:
    """What challengers reached, by their labels. Labels that made one significantly worse are no part of the curve."""
    spread = 2 * NormalDist().inv_cdf(0.975)
    return [
        stopping.Point(report["labels"], figures["value"], max(1e-4, (figures["high"] - figures["low"]) / spread))
        for report in reports
        if report["verdict"] != "reject" and (figures := report["challenger"]) and figures.get("value") is not None
    ]


def _gains(reports: Sequence[Mapping[str, Any]], ports: Ports) -> list[pace.Gain]:
    """What challengers gained over champions that were trained here."""
    found = []
    for report in reports:
        difference, before = report["difference"], report["before"]
        if difference is None or before is None or report["labels"] <= before:
            continue
        tails = 2 * NormalDist().inv_cdf(1 - (report["alpha"] or ports.loop.gate.alpha))
        error = max(1e-4, (difference["high"] - difference["low"]) / tails)
        found.append(pace.Gain(100 * difference["value"], 100 * error, report["labels"] - before))
    return found


def _speeds(ports: Ports) -> list[float]:
    """Labels an hour of the newest collected batches, oldest first."""
    done = [item for item in ports.table.query("BATCH") if item["status"] == "collected" and item["kind"] == "select"]
    newest = sorted(done, key=lambda item: int(item["number"]))[-pace.RECENT :]
    found = (_speed(str(item["sk"]), datetime.fromisoformat(item["created_at"]), ports) for item in newest)
    return [speed for speed in found if speed is not None]


def _speed(batch: str, started: datetime, ports: Ports) -> float | None:
    try:
        labels = [Label.from_json(body) for body in from_jsonl(ports.data.get(layout.labels(batch)))]
    except NotFound:
        return None
    hours = [
        (datetime.fromisoformat(label.labeled_at.replace("Z", "+00:00")) - started).total_seconds() / 3600
        for label in labels
        if label.answers
    ]
    needed = float(np.quantile(hours, _ANSWERED)) if hours else 0.0
    return _ANSWERED * len(hours) / needed if needed > 0.0 else None
