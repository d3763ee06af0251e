"""`winnow doctor`: looks at labeled data and a budget, and says whether active learning fits."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Sequence

import numpy as np

from winnow.models.doubt import auroc, doubt
from winnow.models.evaluation import calibration_error
from winnow_cli.doctor import findings
from winnow_cli.doctor.findings import Finding, Verdict
from winnow_cli.progress import Bar
from winnow_cli.simulate.prepare import cache_folder, jobs_of, problem_of
from winnow_cli.simulate.records import Records, read
from winnow_cli.simulate.runner import one_thread
from winnow_cli.simulate.statistics import mean
from winnow_cli.simulate.trial import Learner, Problem, Settings, Teach, parts

SEEDS = 3
MOST_LABELS = 1_000
"""Labels of the largest quick model."""
SIGNS = {"good": "+", "bad": "-", "open": "?", "note": " "}
HEADS: dict[Verdict, str] = {
    "fits": "Active learning fits.",
    "does not fit": "Active learning does not fit.",
    "unsure": "Unsure whether active learning fits.",
}


def run_command(given: argparse.Namespace) -> int:
    """Look, and say what was found. Raises UsageError for what was asked wrongly."""
    records = read(given)
    problem, _ = problem_of(records, given.encoder, cache=cache_folder(given.cache), jobs=jobs_of(given))
    from winnow_cli.simulate.learner import Learner as Own

    found = examine(records, problem, Own, pool=given.pool, price=given.price, budget=given.budget)
    said = findings.verdict(found)
    if given.json:
        body = {"verdict": said, "summary": summary(said, found), "findings": [one.to_json() for one in found]}
        print(json.dumps(body, ensure_ascii=False))
    else:
        print(text(said, found))
    return 0


def examine(
    records: Records, problem: Problem, teach: Teach, *, pool: int | None, price: float | None, budget: float | None
) -> list[Finding]:
    """Every finding. `pool` counts unlabeled records; None takes those of the file, unless they are so few that they must
    be stray ones."""
    size = records.test_from or records.size
    in_file = records.data.unlabeled if records.data.unlabeled >= findings.LEAST_RATIO * size else None
    unlabeled = in_file if pool is None else pool
    bought = int(budget / price) if price and budget is not None else None
    labels, known = (size, "in the file") if bought is None else (bought, "that the budget pays")
    names = [name for _, name in records.data.truth.pairs]
    found = [
        findings.pool_ratio(unlabeled, labels, known=known),
        findings.label_price(price, budget, pool=unlabeled),
    ]
    if problem.task == "classification":
        found.append(findings.balance(names))
    found += findings.copies(records.payloads, names, None if records.kind == "table" else problem.embedding)
    return found + learned(problem, teach, test_from=records.test_from, bought=bought or MOST_LABELS)


def learned(problem: Problem, teach: Teach, *, test_from: int | None, bought: int) -> list[Finding]:
    """What quick models on random labels show, on as many as are to be bought: calibration, whether doubt finds errors, and
    the curve's slope."""
    settings = Settings(initial=1, batch=1, budget=1)
    pool, _ = parts(problem, 0, settings=settings, test_from=test_from)
    # Half of the pool at most, as doubt is judged on the rest.
    most = min(MOST_LABELS, bought, len(pool) // 2)
    levels = [max(most // 4, 2), max(most // 2, 3), max(most, 4)]
    regression = problem.task == "regression"
    values, errors, aurocs = [], [], []
    bar = Bar("looking", total=SEEDS * len(levels), unit="models")
    with one_thread():
        for seed in range(SEEDS):
            pool, test = parts(problem, seed, settings=settings, test_from=test_from)
            learner: Learner = teach(problem, pool, test, seed=seed, members=4 if regression else 0)
            order = np.random.default_rng([seed, 0]).permutation(len(pool))
            row = []
            for level in levels:
                fit = learner.fit(pool[order[:level]])
                row.append(float(fit.value))
                bar.step()
            values.append(row)
            rest = np.sort(order[levels[-1] :])
            truth = problem.labels[pool[rest]]
            said = fit.predictions
            if regression:
                assert said.prediction is not None  # of a regression
                assert said.members is not None
                wide = said.members[rest].astype(np.float64).std(axis=1)
                wrong = np.abs(said.prediction[rest] - truth)
                large = wrong > np.median(wrong)
                aurocs.append(auroc(wide[large], wide[~large]))
            else:
                probabilities = said.probabilities[rest]
                errors.append(calibration_error(probabilities, truth))
                aurocs.append(doubt(probabilities, truth).auroc)
    bar.close()
    known = [one for one in aurocs if one is not None]
    what = "the committee's spread" if regression else "a small margin"
    table = np.array(values)
    gain = mean((table[:, -1] - table[:, -2]).tolist())
    found = [
        findings.doubt(float(np.mean(known)) if known else None, labels=levels[-1], what=what),
        findings.slope(levels, table.mean(axis=0).tolist(), gain, measure=problem.measure),
    ]
    return ([findings.calibration(float(np.mean(errors)), labels=levels[-1])] if errors else []) + found


def summary(said: Verdict, found: Sequence[Finding]) -> str:
    """The verdict with what it stands on, in words."""
    wanted: Callable[[Finding], bool] = {
        "fits": lambda one: one.sign == "good",
        "does not fit": lambda one: one.sign == "bad",
        "unsure": lambda one: one.sign == "open",
    }[said]
    reasons = [f"{one.name}: {one.meaning}" for one in found if wanted(one)]
    end = " Now compare strategies with winnow simulate." if said != "does not fit" else ""
    return f"{HEADS[said]} {' '.join(reasons)}{end}"


def text(said: Verdict, found: Sequence[Finding]) -> str:
    """The findings as text."""
    lines = []
    for one in found:
        lines.append(f"{SIGNS[one.sign]} {one.name:<15}{one.figure}")
        lines.append(f"  {'':<15}{one.meaning}")
        if one.remedy:
            lines.append(f"  {'':<15}-> {one.remedy}")
    return "\n".join([*lines, "", summary(said, found)])
