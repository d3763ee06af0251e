"""Simulations: on data with known answers the right strategy wins, and where none does that is said."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests import simulated
from winnow_cli import labeled
from winnow_cli.errors import UsageError
from winnow_cli.main import main
from winnow_cli.simulate import learner, statistics, strategies
from winnow_cli.simulate.command import Simulation, simulate, table
from winnow_cli.simulate.page import page
from winnow_cli.simulate.runner import Experiment, Store, run
from winnow_cli.simulate.trial import Contender, Outcome, Settings, first_sample, parts, run_trial

RANDOM = Contender("random", strategies.by_chance)
PLAN = Settings(initial=10, batch=10, budget=80)


def played(
    problem: simulated.Made, others: list[Contender], tmp_path: Path, *, seeds: int = 5, **options: Any
) -> Simulation:
    options = {"plans": [PLAN], "facts": "made", **options}
    return simulate(problem, simulated.Nearest, [*others, RANDOM], seeds=seeds, cache=tmp_path, **options)


def test_a_strategy_that_must_win_is_recommended(tmp_path: Path) -> None:
    found = played(simulated.grouped(), [simulated.ORACLE, simulated.WORST], tmp_path, target=0.97, price=2.0)

    oracle, worst = found.shown.summaries["oracle"], found.shown.summaries["worst"]
    assert found.advice.verdict == "use"
    assert (found.advice.strategy, found.advice.batch) == ("oracle", 10)
    assert oracle.ratio.high is not None
    assert oracle.ratio.high < 1.0
    assert oracle.area_loss.value is not None
    assert oracle.area_loss.value < 0.0
    assert worst.reached == 0
    assert worst.labels_to_target is None
    saved = found.advice.saved
    assert saved is not None
    assert saved.value is not None
    assert f"{2 * saved.value:,.2f} in money" in found.advice.text


def test_where_nothing_wins_the_recommendation_is_not_to(tmp_path: Path) -> None:
    found = played(simulated.unlearnable(), [simulated.ORACLE, simulated.WORST], tmp_path, target=0.6)

    assert found.advice.verdict == "do not use"
    assert found.advice.text.startswith("Do not use active learning here")


def test_a_target_that_the_first_random_labels_reach_needs_no_loop(tmp_path: Path) -> None:
    found = played(simulated.grouped(), [simulated.ORACLE], tmp_path, target=0.3)

    assert found.advice.verdict == "do not use"
    assert "10 random labels already reach accuracy 0.3" in found.advice.text


def test_few_noisy_seeds_do_not_separate(tmp_path: Path) -> None:
    found = played(simulated.grouped(), [simulated.MARGIN], tmp_path, seeds=2, target=0.97)

    assert found.advice.verdict == "not separated"
    assert "--seeds 4" in found.advice.text


def test_the_control_and_the_others_share_split_and_first_sample() -> None:
    problem = simulated.grouped()
    outcomes = [
        run_trial(problem, simulated.Nearest, one, 3, settings=PLAN)
        for one in (RANDOM, simulated.ORACLE, simulated.WORST)
    ]

    pool, _ = parts(problem, 3, settings=PLAN, test_from=None)
    first = tuple(pool[first_sample(len(pool), 3, settings=PLAN)])
    assert {outcome.asked[:10] for outcome in outcomes} == {first}
    assert {outcome.values[0] for outcome in outcomes} == {outcomes[0].values[0]}
    assert all(len(set(outcome.asked)) == 80 for outcome in outcomes)


NAMED = ("default", "random", "margin", "badge", "typicality", "entropy+power")


@pytest.mark.parametrize(
    "one",
    [strategies.contender(name, task="classification", kind="text", members=4) for name in NAMED],
    ids=lambda one: str(one.name),
)
def test_labels_of_records_that_were_not_asked_change_no_pick(one: Contender) -> None:
    problem = simulated.grouped()
    before = run_trial(problem, simulated.Nearest, one, 0, settings=PLAN)

    after = run_trial(simulated.scrambled(problem, kept=before.asked), simulated.Nearest, one, 0, settings=PLAN)

    assert after.asked == before.asked
    assert after.values != before.values  # the test part was scrambled too


@pytest.mark.parametrize("name", ["default", "cluster_margin"])
def test_the_loops_own_model_chooses_alike_when_unasked_labels_are_scrambled(name: str) -> None:
    made = simulated.grouped(size=300)
    problem = learner.of_vectors(made.embedding / 30.0, made.labels, classes=made.classes)
    one, plan = (
        strategies.contender(name, task="classification", kind="text", members=4),
        Settings(initial=20, batch=20, budget=60),
    )
    before = run_trial(problem, learner.Learner, one, 0, settings=plan, test_from=200)

    other = replace(problem, labels=simulated.scrambled(made, kept=before.asked).labels)
    after = run_trial(other, learner.Learner, one, 0, settings=plan, test_from=200)

    assert after.asked == before.asked
    assert after.values != before.values


def test_results_do_not_depend_on_the_processes(tmp_path: Path) -> None:
    problem = simulated.grouped()
    tasks = [(one, seed) for seed in range(2) for one in (simulated.ORACLE, RANDOM)]
    experiment = Experiment(problem, simulated.Nearest, PLAN)

    alone, _ = run(experiment, tasks, store=Store(tmp_path / "one"), jobs=1)
    together, memory = run(experiment, list(reversed(tasks)), store=Store(tmp_path / "two"), jobs=2)

    def what(outcomes: list[Outcome]) -> list[Any]:
        return sorted((one.strategy, one.seed, one.asked, one.values) for one in outcomes)

    assert what(alone) == what(together)
    assert memory > 0.0


def test_an_interrupted_simulation_goes_on_where_it_was(tmp_path: Path) -> None:
    problem = simulated.grouped()
    stops = Contender("oracle", simulated.interrupted)
    with pytest.raises(KeyboardInterrupt):
        simulate(problem, simulated.Nearest, [RANDOM, stops], plans=[PLAN], seeds=2, cache=tmp_path, facts="made")
    kept = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.json")}

    found = simulate(
        problem, simulated.Nearest, [RANDOM, simulated.ORACLE], plans=[PLAN], seeds=2, cache=tmp_path, facts="made"
    )

    assert [path.name for path in kept] == ["random-0.json"]
    assert all(path.stat().st_mtime_ns == at for path, at in kept.items())
    assert found.shown.summaries["oracle"].seeds == 2
    assert len(list(tmp_path.rglob("*.json"))) == 4


def test_other_options_or_records_share_no_trials(tmp_path: Path) -> None:
    problem = simulated.grouped()
    for plan, facts in ((PLAN, "made"), (Settings(initial=10, batch=20, budget=80), "made"), (PLAN, "other")):
        simulate(problem, simulated.Nearest, [RANDOM], plans=[plan], seeds=1, cache=tmp_path, facts=facts)

    assert len(list(tmp_path.rglob("random-0.json"))) == 3


def test_fresh_forgets_finished_trials(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    played(simulated.grouped(), [], tmp_path, seeds=1)
    played(simulated.grouped(), [], tmp_path, seeds=1)
    assert "1 of 1 trials were finished before" in capsys.readouterr().err

    played(simulated.grouped(), [], tmp_path, seeds=1, fresh=True)

    assert "finished before" not in capsys.readouterr().err


def test_a_strategy_that_breaks_its_contract_is_named(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="strategy twice chose 1 different records where 10 free ones were asked"):
        played(simulated.grouped(), [Contender("twice", simulated.twice)], tmp_path, seeds=1)
    with pytest.raises(UsageError, match="strategy twice"):
        played(simulated.grouped(), [Contender("twice", simulated.twice)], tmp_path, seeds=2, jobs=2)


def test_the_document_has_the_promised_shape(tmp_path: Path) -> None:
    plans = [PLAN, Settings(initial=10, batch=35, budget=80)]
    found = played(simulated.grouped(), [simulated.ORACLE], tmp_path, seeds=3, target=0.97, plans=plans)

    body = json.loads(json.dumps(found.to_json()))

    oracle = body["strategies"]["oracle"]
    assert set(body["strategies"]) == {"oracle", "random"}
    assert set(oracle["ratio_to_random"]) == set(oracle["area_loss"]) == {"value", "low", "high"}
    assert [point[0] for point in oracle["curve"]] == ([10, 45, 80] if body["batch"] == 35 else list(range(10, 81, 10)))
    assert all(low <= value <= high for _, value, low, high in oracle["curve"])
    assert oracle["select_seconds_per_round"] >= 0.0
    assert isinstance(body["recommendation"], str)
    assert body["target"] == 0.97
    assert body["measure"] == "accuracy"
    assert set(body["batches"]) == {"10", "35"}
    assert body["peak_memory_mb"] > 0
    assert body["strategies"]["random"]["ratio_to_random"] == {"value": 1.0, "low": 1.0, "high": 1.0}


def test_table_and_page_say_the_same(tmp_path: Path) -> None:
    found = played(simulated.grouped(), [simulated.ORACLE], tmp_path, target=0.97)

    text, html = table(found), page(found)

    labels = f"{found.shown.summaries['oracle'].labels_to_target:.0f}"
    assert all(labels in made and found.advice.text in made for made in (text, html))
    assert "peak memory" in text
    assert html.count('class="band') == 2
    assert "http" not in html


def test_a_seed_that_never_arrives_leaves_no_upper_bound() -> None:
    control = [Outcome("random", seed, (10, 20, 30), (0.1, 0.5, 0.9), (), ()) for seed in range(2)]
    ours = [
        Outcome("x", 0, (10, 20, 30), (0.1, 0.9, 0.9), (), ()), Outcome("x", 1, (10, 20, 30), (0.1, 0.2, 0.3), (), ())
    ]  # fmt: skip

    found = statistics.summary("x", ours, control, targets=[0.5, 0.5])

    assert found.reached == 1
    assert found.labels_to_target == 22.5  # 15 by interpolation, and the budget of 30
    assert found.ratio.value == 1.125
    assert found.ratio.high is None


def test_the_interval_of_a_ratio_by_hand() -> None:
    found = statistics.ratio([50.0, 60.0, 55.0], [100.0, 110.0, 120.0])

    # 50/55 - 100/110, 60/55 - 1, 1 - 120/110: 0 and +-1/11, so the standard error is 1/11/sqrt(3); t = 4.302653
    half = 4.302653 / 11 / 3**0.5
    assert found.value == 0.5
    assert found.low == pytest.approx(0.5 * np.exp(-half))
    assert found.high == pytest.approx(0.5 * np.exp(half))


def test_labels_until_ten_of_a_rare_class_are_counted() -> None:
    control = [Outcome("random", seed, (10, 40), (0.1, 0.5), (), tuple(range(40))) for seed in range(2)]
    ours = [Outcome("x", seed, (10, 40), (0.1, 0.5), (), tuple(range(20, 60))) for seed in range(2)]
    found = statistics.rare_class("bad", np.arange(60) >= 20, ours, control)

    assert found.labels == 10.0  # all of the first ten; random meets the tenth with its 30th label
    assert found.ratio.value == pytest.approx(1 / 3)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--strategies", "nonsense"], "strategy 'nonsense' is unknown; name any of default, random"),
        (["--strategies", "margin+nonsense"], "strategy 'nonsense' is unknown"),
        (["--target", "85"], "--target 85 is no share; say 0.85 for 85 %"),
        (["--budget", "5000"], "--budget 5000 is more than the 1258 records of the pool"),
        (["--initial", "500", "--budget", "100"], "--initial 500 is more than the budget"),
        (["--holdout", "1"], "--holdout 1 is no share"),
        (["--label", "y"], "--label goes with --data"),
    ],
)
def test_what_is_asked_wrongly_is_refused_with_the_remedy(
    options: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["simulate", *options]) == 2

    assert message in capsys.readouterr().err


def test_a_regression_refuses_what_needs_classes() -> None:
    with pytest.raises(UsageError, match="margin needs probabilities, which a regression does not give; choose one of"):
        strategies.contender("margin", task="regression", kind="table", members=4)
    assert "margin" not in strategies.known("regression")


def test_the_command_reads_a_table_and_judges_by_its_test_part(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rng = np.random.default_rng(0)
    for name, size in (("train", 150), ("test", 60)):
        numbers = rng.normal(size=(size, 3))
        rows = [",".join(f"{cell:.4f}" for cell in row) + f",{'yes' if row[0] > row[1] else 'no'}" for row in numbers]
        (tmp_path / f"{name}.csv").write_text("\n".join(["a,b,c,label", *rows]) + "\n")

    status = main([
        "simulate", "--data", str(tmp_path / "train.csv"), "--test", str(tmp_path / "test.csv"), "--label", "label",
        "--strategies", "margin,random", "--seeds", "2", "--initial", "10", "--batch", "10", "--budget", "30", "--json",
        "--cache", str(tmp_path / "cache"), "--jobs", "1", "--html", str(tmp_path / "out" / "page.html"),
    ])  # fmt: skip

    body = json.loads(capsys.readouterr().out)
    assert status == 0
    assert (body["settings"]["pool"], body["settings"]["test"], body["settings"]["kind"]) == (150, 60, "table")
    assert [point[0] for point in body["strategies"]["margin"]["curve"]] == [10, 20, 30]
    assert "<svg" in (tmp_path / "out" / "page.html").read_text()


def test_arrays_are_read_as_images_with_their_test_part(tmp_path: Path) -> None:
    import argparse

    from winnow_cli.simulate.records import read

    pixels = np.arange(80 * 16, dtype=np.int64).reshape(80, 4, 4) % 17
    np.savez(
        tmp_path / "x.npz", x_train=pixels[:70], y_train=np.arange(70) % 2, x_test=pixels[70:], y_test=np.zeros(10, int)
    )
    given = argparse.Namespace(
        data=tmp_path / "x.npz", test=None, label=None, kind=None, text=None, task=None, positive=None
    )

    found = read(given)

    assert (found.kind, found.size, found.test_from, found.data.classes) == ("image", 80, 70, ("0", "1"))
    assert found.data.samples[0].payload == labeled.png(pixels[0].astype(np.uint8))
