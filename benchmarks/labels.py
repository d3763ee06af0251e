"""Label efficiency on six real sets: our strategies beside other libraries', the same model, splits, seeds and first labels.

    make labels FLAGS="--data ../shared/data --encoder DIR [--sets digits,adult] [--seeds 10] [--json]"

Each curve is bought as `winnow simulate` buys it, with its automatic sizes. The figure is the mean of the measure over the
labels bought (the area under the curve); two strategies are compared seed by seed, as the share of the other's area that
is lost, with a 95 % interval. Level means that at most 2 % is lost, by the interval's upper end.

The peers come from .cache/peers (`sh scripts/setup_peers.sh`); without them, or without a set's files, they are left out with the
reason. Finished trials are kept (--cache): an interrupted run goes on.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from dataclasses import replace as with_
from pathlib import Path
from typing import Any

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # has to be said before numpy is imported

from benchmarks import label_peers
from winnow_cli.errors import UsageError
from winnow_cli.progress import Bar
from winnow_cli.simulate import prepare, records, runner
from winnow_cli.simulate.plan import automatic
from winnow_cli.simulate.statistics import Interval, area, mean, rounded, share
from winnow_cli.simulate.strategies import DEFAULT, RANDOM, contenders
from winnow_cli.simulate.trial import Contender, Outcome, Settings

LEVEL = 0.02
"""Share of another's area that may be lost, by the interval's upper end, for two strategies to be level."""


@dataclass(frozen=True)
class Set:
    """One set of labeled records: its files under --data and the options that `winnow simulate` would be given."""

    files: tuple[str, ...]
    options: Mapping[str, Any]
    encoder: bool = False


SETS: Mapping[str, Set] = {
    "banking77": Set(
        ("banking77/train.jsonl.gz", "banking77/test.jsonl.gz"), {"label": "label", "kind": "text", "text": "text"},
        encoder=True,
    ),
    "digits": Set((), {}),
    "fashion-mnist": Set(("fashion_mnist/fashion_mnist_20k.npz",), {}),
    "adult": Set(("adult/train.csv.gz", "adult/test.csv.gz"), {"label": "income", "kind": "table"}),
    "credit-default": Set(
        ("credit_default/credit_default.csv.gz",),
        {"label": "default_next_month", "kind": "table", "task": "classification", "positive": "1"},
    ),
    "california-housing": Set(
        ("california_housing/california_housing.csv.gz",),
        {"label": "median_house_value", "kind": "table", "task": "regression"},
    ),
}  # fmt: skip


@dataclass(frozen=True)
class Row:
    """One strategy on one set."""

    name: str
    area: Interval
    loss_to_random: Interval
    lost_by_ours: Interval
    """Share of this strategy's area that ours loses; below 0 where ours is better."""
    final: float
    select_seconds: float
    seeds: int

    def to_json(self) -> dict[str, Any]:
        intervals = ("area", "loss_to_random", "lost_by_ours")
        return {
            **{name: getattr(self, name).to_json() for name in intervals},
            "final": rounded(self.final), "select_seconds_per_round": rounded(self.select_seconds), "seeds": self.seeds,
        }  # fmt: skip


def compare(outcomes: Mapping[str, Sequence[Outcome]], *, ours: str) -> list[Row]:
    """A row a strategy, the largest area first; `ours` and random are among the outcomes, one a seed, in one order."""
    areas = {name: [area(one) for one in found] for name, found in outcomes.items()}
    rows = []
    for name, found in outcomes.items():
        seconds = [second for one in found for second in one.select_seconds]
        rows.append(
            Row(
                name, mean(areas[name]), lost(areas[name], to=areas[RANDOM]), lost(areas[ours], to=areas[name]),
                sum(one.values[-1] for one in found) / len(found), sum(seconds) / max(len(seconds), 1), len(found),
            )
        )  # fmt: skip
    return sorted(rows, key=lambda row: -(row.area.value or 0.0))


def lost(areas: Sequence[float], *, to: Sequence[float]) -> Interval:
    """Share of the areas `to` that is lost, paired by seed, with its interval.

    >>> round(lost([0.45, 0.45], to=[0.5, 0.5]).value, 6)
    0.1
    """
    return share([theirs - mine for mine, theirs in zip(areas, to, strict=True)], to)


def is_level(loss: Interval) -> bool | None:
    """Whether at most 2 % is lost, by the interval's upper end; None where there is no interval."""
    return None if loss.high is None else loss.high <= LEVEL


def best_peer(rows: Sequence[Row]) -> Row | None:
    """The peer with the largest area."""
    return next((row for row in rows if row.name in label_peers.PEERS), None)


def run_set(name: str, given: argparse.Namespace) -> dict[str, Any]:
    """Everything about one set, as JSON. Raises UsageError with the reason when it cannot be run."""
    one = SETS[name]
    if one.encoder and given.encoder is None:
        raise UsageError("needs --encoder: a folder with a text encoder")
    paths = [given.data / file for file in one.files] if given.data else []
    if len(paths) < len(one.files) or not all(path.exists() for path in paths):
        raise UsageError(f"needs --data: a folder with {' and '.join(one.files)}")
    options = dict.fromkeys(records.OPTIONS, None) | {
        "data": paths[0] if paths else None, "test": paths[1] if len(paths) > 1 else None, **one.options,
    }  # fmt: skip
    read = records.read(argparse.Namespace(**options))
    problem, digest = prepare.problem_of(
        read, given.encoder if one.encoder else None, cache=given.cache, jobs=given.jobs
    )
    pool = read.test_from or read.size - round(Settings(1, 1, 1).holdout * read.size)
    settings = automatic(pool, len(read.data.classes))
    if given.rounds is not None:
        settings = with_(settings, budget=min(settings.budget, settings.initial + given.rounds * settings.batch))
    from winnow_cli.simulate.learner import Learner

    experiment = runner.Experiment(problem, Learner, settings, read.test_from)
    store = runner.Store(given.cache / "trials" / runner.key([digest, read.test_from], settings))
    asked = _asked(given, read=read, members=settings.members)
    tasks = [(contender, seed) for seed in range(given.seeds) for contender in asked]
    waiting = sum(store.get(*task) is None for task in tasks)
    bar = Bar(name, total=waiting * len(settings.levels), unit="rounds")
    failed: dict[str, str] = {}
    found: list[Outcome] = []
    try:
        found = runner.run(experiment, tasks, store=store, jobs=given.jobs, tell=bar.step)[0]
    except UsageError:  # one of them; what the others finished is kept
        for contender in asked:
            own = [task for task in tasks if task[0] is contender]
            try:
                found += runner.run(experiment, own, store=store, jobs=given.jobs, tell=bar.step)[0]
            except UsageError as error:
                if contender.name not in label_peers.PEERS:
                    raise
                failed[contender.name] = str(error)
    bar.close()
    outcomes: dict[str, list[Outcome]] = {}
    for outcome in found:
        outcomes.setdefault(outcome.strategy, []).append(outcome)
    rows = compare(outcomes, ours=given.ours)
    best = best_peer(rows)
    mine = next(row for row in rows if row.name == given.ours)
    return {
        "measure": problem.measure, "pool": pool, "labels": [settings.levels[0], settings.budget], "batch": settings.batch,
        "strategies": {row.name: row.to_json() for row in rows}, "failed": failed,
        "best_peer": best and best.name,
        "level_with_random": is_level(mine.loss_to_random),
        "level_with_best_peer": best and is_level(best.lost_by_ours),
    }  # fmt: skip


def _asked(given: argparse.Namespace, *, read: records.Records, members: int) -> list[Contender]:
    ours = contenders([given.ours, RANDOM, *given.strategies], task=read.task, kind=read.kind, members=members)
    lacking = label_peers.missing()
    return ours + [
        label_peers.contender(name)
        for name, peer in label_peers.PEERS.items()
        if peer.task == read.task and peer.library not in lacking and (given.peers is None or name in given.peers)
    ]


def printed(name: str, found: Mapping[str, Any], *, ours: str) -> str:
    """A set's table."""
    first, last = found["labels"]
    lines = [
        f"\n{name}: {found['measure']} over {first} to {last} labels, {found['batch']} at a time, of {found['pool']}",
        f"{'strategy':<20} {'area':>7}  {'loss to random, %':>24}  {f'lost by {ours}, %':>24}  {'final':>6}"
        "  s/round  seeds",
    ]
    for strategy, row in found["strategies"].items():
        lines.append(
            f"{strategy:<20} {row['area']['value']:7.4f}  {_percent(row['loss_to_random']):>24}  "
            f"{_percent(row['lost_by_ours']):>24}  {row['final']:6.3f}  {row['select_seconds_per_round']:7.2f}  {row['seeds']:>5}"
        )
    lines += [f"{strategy:<20} failed: {reason}" for strategy, reason in found["failed"].items()]
    peer = found["best_peer"]
    against = f"against the best peer, {peer}: {_said(found['level_with_best_peer'])}" if peer else "no peer was run"
    return "\n".join([*lines, f"{ours} against random: {_said(found['level_with_random'])}; {against}"])


def _percent(loss: Mapping[str, float | None]) -> str:
    value, low, high = (loss[name] for name in ("value", "low", "high"))
    if value is None:
        return "-"
    return f"{100 * value:.2f}" + (
        f" ({100 * low:.2f} to {100 * high:.2f})" if low is not None and high is not None else ""
    )


def _said(verdict: bool | None) -> str:
    return {True: "best or level", False: "not shown to be level", None: "no interval"}[verdict]


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.labels", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    names = lambda text: tuple(filter(None, text.split(",")))  # noqa: E731
    parser.add_argument("--data", type=Path, help="folder with the sets' files")
    parser.add_argument("--encoder", type=Path, help="folder with the text encoder for banking77")
    parser.add_argument("--sets", type=names, default=tuple(SETS), help=f"some of {','.join(SETS)}")
    parser.add_argument("--ours", default=DEFAULT, help="the strategy that is compared with all others")
    parser.add_argument("--strategies", type=names, default=(), help="further strategies of ours")
    parser.add_argument("--peers", type=names, help=f"some of {','.join(label_peers.PEERS)} (default: all)")
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--rounds", type=int, help="fewer batches than `winnow simulate` would buy")
    parser.add_argument("--jobs", type=int, default=prepare.jobs_of(argparse.Namespace(jobs=None)))
    parser.add_argument("--cache", type=Path, default=prepare.cache_folder(None))
    parser.add_argument("--json", action="store_true", help="print JSON instead of tables")
    given = parser.parse_args(arguments)
    for option, known in (("sets", SETS), ("peers", label_peers.PEERS)):
        unknown = sorted(set(getattr(given, option) or ()) - set(known))
        if unknown:
            parser.error(f"--{option}: there is no {', '.join(unknown)}; choose among {', '.join(known)}")
    for library in label_peers.missing():
        print(f"{library} is not installed here: its strategies are left out", file=sys.stderr)
    results: dict[str, dict[str, Any]] = {}
    skipped: dict[str, str] = {}
    for name in given.sets:
        try:
            results[name] = run_set(name, given)
        except UsageError as reason:
            skipped[name] = str(reason)
            print(f"{name}: left out, {reason}", file=sys.stderr)
            continue
        if not given.json:
            print(printed(name, results[name], ours=given.ours), flush=True)
    judged = [found["level_with_best_peer"] for found in results.values() if found["level_with_best_peer"] is not None]
    if given.json:
        print(json.dumps({"ours": given.ours, "seeds": given.seeds, "sets": results, "skipped": skipped}))
    elif judged:
        print(f"\n{given.ours} is best or level with the best peer on {sum(judged)} of {len(judged)} sets")
    return 0


if __name__ == "__main__":
    sys.exit(main())
