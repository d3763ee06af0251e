"""`winnow simulate`: which strategy and batch size pays on labeled data, before a cent is spent."""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from winnow_cli.errors import UsageError
from winnow_cli.progress import Bar, spoken
from winnow_cli.simulate.advice import Advice, Comparison, advise
from winnow_cli.simulate.plan import planned
from winnow_cli.simulate.prepare import cache_folder, jobs_of, problem_of
from winnow_cli.simulate.records import Records, read
from winnow_cli.simulate.runner import Experiment, Store, Task, key, run
from winnow_cli.simulate.statistics import TEN, rare_class, rounded, summary
from winnow_cli.simulate.strategies import RANDOM, contenders
from winnow_cli.simulate.trial import Contender, Indices, Outcome, Problem, Settings, Teach, parts

RARE = 0.25
"""Share of its fair part of the pool below which it is told how soon a class is met."""
HIGHEST = {"accuracy": 1.0, "average precision": 1.0, "R2": 1.0}
METHOD = (
    "Curves are means over seeds. Without a target, it is what random choice reaches with the whole budget, seed by seed. Labels "
    "to the target are read off each seed's curve by straight lines. A ratio is that of the means over seeds, paired. Intervals "
    "are 95 %, by Student's t over the seeds, of a ratio on its logarithm. A seed that never reaches the target counts with the "
    "whole budget: its strategy's figures are then lower bounds, without an upper one. Area lost is the share of random's area "
    "under the curve that is lost. A strategy is recommended only if it still saves labels at the stricter level that comparing "
    "several asks for (Holm)."
)


@dataclass(frozen=True)
class Simulation:
    """A finished simulation: what the table, the JSON document and the page are made of."""

    name: str
    kind: str
    measure: str
    target: float
    target_given: bool
    comparisons: tuple[Comparison, ...]
    settings: tuple[Settings, ...]
    test: int
    advice: Advice
    seconds: float
    memory: float
    facts: dict[str, Any]

    @property
    def shown(self) -> Comparison:
        """The comparison at the recommended batch size, else the first."""
        return next((one for one in self.comparisons if one.batch == self.advice.batch), self.comparisons[0])

    def to_json(self) -> dict[str, Any]:
        body = {
            "strategies": {name: one.to_json() for name, one in self.shown.summaries.items()},
            "recommendation": self.advice.text, **self.advice.to_json(),
            "target": rounded(self.target), "target_from": "given" if self.target_given else "random at the whole budget",
            "measure": self.measure,
            "settings": {
                **self.facts, "kind": self.kind, "data": self.name, "pool": self.shown.pool, "test": self.test,
                "initial": self.shown.initial, "batch": self.shown.batch, "budget": self.settings[0].budget,
                "seeds": self.shown.random.seeds,
            },
            "method": METHOD, "peak_memory_mb": round(self.memory), "seconds": round(self.seconds, 1),
        }  # fmt: skip
        if len(self.comparisons) > 1:
            body["batches"] = {
                str(one.batch): {name: found.to_json() for name, found in one.summaries.items()}
                for one in self.comparisons
            }
        return body


def run_command(given: argparse.Namespace) -> int:
    """Simulate and say what came of it. Raises UsageError for what was asked wrongly."""
    if given.target is not None and not given.target <= 1.0:
        raise UsageError(f"--target {given.target:g} is no share; say 0.85 for 85 %")
    if not 0.0 < given.holdout < 1.0:
        raise UsageError(f"--holdout {given.holdout:g} is no share between 0 and 1")
    started = time.monotonic()
    records = read(given)
    # Names are checked before anything that takes long.
    asked = contenders(given.strategies, task=records.task, kind=records.kind, members=_MEMBERS)
    pool = records.test_from or records.size - round(given.holdout * records.size)
    plans = planned(given, pool=pool, classes=len(records.data.classes))
    for plan in plans:
        print(_said(plan, records, pool=pool, seeds=given.seeds), file=sys.stderr)
    cache = cache_folder(given.cache)
    problem, digest = problem_of(records, given.encoder, cache=cache, jobs=jobs_of(given))
    from winnow_cli.simulate.learner import Learner

    try:
        found = simulate(
            problem, Learner, asked, plans=plans, seeds=given.seeds, target=given.target, price=given.price,
            test_from=records.test_from, jobs=jobs_of(given), cache=cache, facts=[digest], fresh=given.fresh,
        )  # fmt: skip
    except KeyboardInterrupt:
        print(
            f"\nstopped. Finished trials are kept in {cache}: run the same command again to go on, or with --fresh to "
            "start over",
            file=sys.stderr,
        )
        return 130
    found = replace(
        found, name=records.data.name, kind=records.kind, seconds=time.monotonic() - started,
        facts={
            "task": records.task, "classes": len(records.data.classes), "positive": records.data.positive,
            "encoder": None if given.encoder is None else given.encoder.name,
            "holdout": None if records.test_from else given.holdout, "jobs": jobs_of(given), "price": given.price,
        },
    )  # fmt: skip
    if given.html is not None:
        from winnow_cli.simulate.page import page

        given.html.parent.mkdir(parents=True, exist_ok=True)
        given.html.write_text(page(found), encoding="utf-8")
        print(f"report: {given.html.resolve().as_uri()}", file=sys.stderr)
    print(json.dumps(found.to_json(), ensure_ascii=False) if given.json else table(found))
    return 0


_MEMBERS = Settings(initial=1, batch=1, budget=1).members


def simulate(
    problem: Problem,
    teach: Teach,
    asked: Sequence[Contender],
    *,
    plans: Sequence[Settings],
    seeds: int,
    cache: Path,
    facts: Any,
    target: float | None = None,
    price: float | None = None,
    test_from: int | None = None,
    jobs: int = 1,
    fresh: bool = False,
) -> Simulation:
    """Every strategy on every seed under every plan; `facts` tell these records from others in the cache.

    `random` has to be among the strategies. Trials finished earlier are read from the cache.
    """
    started = time.monotonic()
    tasks: list[Task] = [(one, seed) for seed in range(seeds) for one in asked]
    stores = [Store(cache / "trials" / key([facts, test_from], plan)) for plan in plans]
    if fresh:
        for store in stores:
            store.forget(tasks)
    rounds = [sum(len(plan.levels) for one, seed in tasks if store.get(one, seed) is None)
              for plan, store in zip(plans, stores, strict=True)]  # fmt: skip
    kept = sum(store.get(one, seed) is not None for store in stores for one, seed in tasks)
    if kept:
        print(
            f"{kept} of {len(tasks) * len(plans)} trials were finished before (--fresh forgets them)", file=sys.stderr
        )
    bar = Bar("simulating", total=sum(rounds), unit="rounds")
    memory, outcomes = 0.0, []
    for plan, store in zip(plans, stores, strict=True):
        experiment = Experiment(problem, teach, plan, test_from)
        found, peak = run(experiment, tasks, store=store, jobs=jobs, tell=bar.step)
        outcomes.append(found)
        memory = max(memory, peak)
    bar.close()
    by_name = [_by_name(found) for found in outcomes]
    # On an easy split random choice gets further: each seed is measured by its own.
    reached = tuple(outcome.values[-1] for outcome in by_name[0][RANDOM])
    targets = reached if target is None else (target,) * seeds
    level = sum(targets) / seeds
    pool, test = parts(problem, 0, settings=plans[0], test_from=test_from)
    comparisons = tuple(
        _comparison(one, plan, problem, pool=pool, targets=targets) for one, plan in zip(by_name, plans, strict=True)
    )
    shown = f"{problem.measure} {level:.3g}" + (
        "" if target is not None else " (what random reaches with the whole budget)"
    )
    return Simulation(
        name="records", kind="", measure=problem.measure, target=level, target_given=target is not None,
        comparisons=comparisons, settings=tuple(plans), test=len(test),
        advice=advise(comparisons, shown=shown, price=price), seconds=time.monotonic() - started, memory=memory, facts={},
    )  # fmt: skip


def _by_name(outcomes: Sequence[Outcome]) -> dict[str, list[Outcome]]:
    found: dict[str, list[Outcome]] = {}
    for outcome in outcomes:
        found.setdefault(outcome.strategy, []).append(outcome)
    return found


def _comparison(
    outcomes: dict[str, list[Outcome]], plan: Settings, problem: Problem, *, pool: Indices, targets: tuple[float, ...]
) -> Comparison:
    control, rarest = outcomes[RANDOM], _rarest(problem, pool)
    summaries = {}
    for name, found in outcomes.items():
        one = summary(name, found, control, targets=targets, most=HIGHEST[problem.measure])
        if rarest is not None:
            one = replace(one, rare=rare_class(problem.classes[rarest], problem.labels == rarest, found, control))
        summaries[name] = one
    return Comparison(plan.batch, plan.initial, len(pool), targets, outcomes, summaries)


def _rarest(problem: Problem, pool: Indices) -> int | None:
    """The number of the class with the fewest records in the pool, if that is rare and there are twice ten of it."""
    if problem.task == "regression":
        return None
    counts = np.bincount(problem.labels[pool], minlength=len(problem.classes))
    enough = np.where(counts >= 2 * TEN, counts, len(pool))
    number = int(enough.argmin())
    return number if enough[number] < RARE * len(pool) / len(problem.classes) else None


def _said(plan: Settings, records: Records, *, pool: int, seeds: int) -> str:
    what = f"{len(records.data.classes)} classes" if records.data.classes else "numbers"
    return (
        f"{records.data.name}: {records.kind}, {what}; {pool} records to choose from, {records.size - pool} that judge; first "
        f"{plan.initial} labels, batches of {plan.batch}, {plan.budget} in all, {seeds} seeds"
    )


def table(found: Simulation) -> str:
    """The figures as text."""
    lines = []
    for one in found.comparisons:
        lines += [f"{found.measure} {found.target:.4g}, batches of {one.batch}", ""]
        lines.append(
            f"{'strategy':<24}{'labels':>8}  {'times random':<24}{'area':>7}  {'area lost':<22}{'s a round':>9}"
        )
        for name, row in one.summaries.items():
            labels = "never" if row.labels_to_target is None else f"{row.labels_to_target:.0f}"
            mark = "+" if 0 < row.reached < row.seeds else " "
            lines.append(
                f"{name:<24}{labels:>8}{mark} {_interval(row.ratio, 2):<24}{row.area.value or 0.0:>7.3f}  "
                f"{_interval(row.area_loss, 3):<22}{row.select_seconds_per_round:>9.3f}"
            )
        rare = [(name, row.rare) for name, row in one.summaries.items() if row.rare is not None]
        if rare:
            said = ", ".join(
                f"{name} {'never' if found.labels is None else f'{found.labels:.0f}'} "
                f"({_interval(found.ratio, 2)} times random)" for name, found in rare
            )  # fmt: skip
            lines += ["", f"labels until ten of the rare {rare[0][1].name!r} are met: {said}"]
        lines.append("")
    if any(0 < row.reached < row.seeds for one in found.comparisons for row in one.summaries.values()):
        lines += ["+ some seeds never reach it and count with the whole budget: at least so many", ""]
    lines += [found.advice.text, ""]
    lines.append(f"{spoken(found.seconds)}, peak memory {found.memory:.0f} MB over all processes")
    return "\n".join(lines)


def _interval(one: Any, digits: int) -> str:
    if one.value is None:
        return "-"
    low, high = ("?" if bound is None else f"{bound:.{digits}f}" for bound in (one.low, one.high))
    return f"{one.value:.{digits}f} ({low} to {high})"
