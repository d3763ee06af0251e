"""What the next batch is to be: rewards measured once, competitors drawn and logged, sizes and stops with their reasons."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from tests.builders import commit, knowing, line, lines, write
from tests.fakes import FakeModel, every_fault, make_ports
from tests.steps.walk import LOOP, animals, ingest, score_all, world
from winnow import layout
from winnow.errors import ConfigError
from winnow.loop import REWARD_SHARE, parse
from winnow.models.predictions import Predictions
from winnow.steps.batches import read_plan
from winnow.steps.candidates import indexed
from winnow.steps.course import chart
from winnow.steps.evaluate_challenger import evaluate_challenger
from winnow.steps.plan_training import model_id
from winnow.steps.pointers import Champion, champion
from winnow.steps.rewards import rewards
from winnow.steps.select_batch import SelectRequest, select_batch

A, B = "margin+margin_kmeans", "entropy+top_k"
COMPETING = f"acquisition: {{competing: ['{A}', '{B}']}}"
RECORDS = 40
TRUTH = {f"{role}{n}": ("negative", "positive")[n % 2] for role in "er" for n in range(120)}
NEW = {"m1": "d1", "m2": "d2"}


def plan_of(ports: Any, batch: str, drawn: str | None, *, parent: str | None = None) -> None:
    body = {
        "format": 1, "batch": batch, "kind": "dispute" if parent else "select", "team": "crowd", "workers_per_item": 3,
        "model": "m", "cause": "schedule", "phase": "uncertainty", "usd": "1", "created_at": "2026-01-05T09:00:00+00:00",
        "choices": [], "parent": parent, "course": None if drawn is None else {"competition": {"drawn": drawn}},
    }  # fmt: skip
    write(ports, layout.plan(batch), body)


def model_named(ports: Any, model: str, dataset: str, wrong: int) -> None:
    """A published model that is wrong about so many of the reward records."""
    missed = [f"r{n}" for n in range(wrong)]
    ports.models.add(model, knowing(model, TRUTH, wrong=missed, dataset=dataset))
    write(ports, layout.model(model), {"format": 1, "model": model, "dataset": dataset})


def judged(*, loop: str = COMPETING, reward: int = RECORDS) -> Any:
    """Champion m1 learnt from 60 labels of b1; m2 has 50 more of b2 (drawn: A), of which 5 were settled by experts."""
    ports = make_ports(loop=loop)
    train = [line(f"t{n}", "positive", batch=1) for n in range(60)]
    more = [line(f"u{n}", "negative", batch=2 if n < 45 else 3) for n in range(50)]
    held = {"evaluation": lines("e", [TRUTH[f"e{n}"] for n in range(60)])}
    commit(ports, "d1", train=train, batches=["b1"], **held)
    commit(
        ports, "d2", train=[*train, *more], parent="d1", batches=["b1", "b2", "b2x"],
        reward=lines("r", [TRUTH[f"r{n}"] for n in range(reward)]), **held,
    )  # fmt: skip
    plan_of(ports, "b1", None)
    plan_of(ports, "b2", A)
    plan_of(ports, "b2x", None, parent="b2")
    model_named(ports, "m1", "d1", wrong=20)
    model_named(ports, "m2", "d2", wrong=8)
    write(ports, layout.CHAMPION, {"format": 1, "model": "m1", "number": 1, "dataset": "d1"})
    return ports


def test_the_reward_of_a_batch_is_the_paired_gain_on_reward_records() -> None:
    ports = judged()

    outcome = evaluate_challenger({"model": "m2", "dataset": "d2"}, ports)

    (item,) = ports.table.query("REWARD")
    # 20 of 40 wrong before, 8 of them after: 12 records changed, all for the better, and one more is counted.
    assert item["gain"] == pytest.approx(0.3)
    assert item["error"] == pytest.approx(math.sqrt(12 + 1 - 40 * 0.3**2) / 40)
    assert (item["sk"], item["baseline"], item["start"], item["records"]) == ("m2", "m1", 60, 40)
    assert item["batches"] == {"b2": [A, 45], "b2x": [A, 5]}  # what experts settled is the batch's whose dispute it was
    (reward,) = rewards(ports)
    assert (reward.gain, reward.labels) == (pytest.approx(30.0), 50)
    (told,) = [metric for metric in outcome.metrics if metric.name == "StrategyReward"]
    assert told.dimensions == {"Strategy": A}


def test_evaluation_records_have_no_part_in_the_reward() -> None:
    calm, wild = judged(), judged()
    wild.models.add("m2", knowing("m2", TRUTH, wrong=[*(f"r{n}" for n in range(8)), *(f"e{n}" for n in range(50))]))

    found = []
    for ports in (calm, wild):
        evaluate_challenger({"model": "m2", "dataset": "d2"}, ports)
        found.append(ports.table.query("REWARD"))

    assert found[0] == found[1]
    assert wild.data.json(layout.gate_report("m2"))["verdict"] == "reject"  # and a rejected challenger's labels count


def test_a_challenger_is_compared_with_the_newest_model_that_learnt_from_less() -> None:
    ports = judged()
    train = [line(f"t{n}", "positive", batch=1) for n in range(60)]
    extra = [line(f"v{n}", "negative", batch=4) for n in range(20)]
    known = [line(f"u{n}", "negative", batch=2) for n in range(50)]
    commit(
        ports, "d3", train=[*train, *known, *extra], parent="d2", batches=["b1", "b2", "b2x", "b4"],
        evaluation=lines("e", [TRUTH[f"e{n}"] for n in range(60)]), reward=lines("r", [TRUTH[f"r{n}"] for n in range(40)]),
    )  # fmt: skip
    plan_of(ports, "b4", B)
    unpromoted = model_id("d2", seed=ports.loop.training.seed, members=ports.loop.training.members)
    model_named(ports, unpromoted, "d2", wrong=8)
    model_named(ports, "m3", "d3", wrong=4)

    evaluate_challenger({"model": "m3", "dataset": "d3"}, ports)

    (item,) = ports.table.query("REWARD")
    assert (item["baseline"], item["gain"], item["batches"]) == (unpromoted, pytest.approx(0.1), {"b4": [B, 20]})


@pytest.mark.parametrize("loop", ["", COMPETING])
def test_nothing_is_measured_without_competitors_or_with_few_records(loop: str) -> None:
    ports = judged(loop=loop, reward=9 if loop else RECORDS)

    evaluate_challenger({"model": "m2", "dataset": "d2"}, ports)

    assert ports.table.query("REWARD") == []


def test_a_reward_is_written_once_whatever_goes_wrong() -> None:
    wanted = judged()
    evaluate_challenger({"model": "m2", "dataset": "d2"}, wanted)

    for what, ports in every_fault(
        judged, lambda ports: evaluate_challenger({"model": "m2", "dataset": "d2"}, ports), faults=("before", "lost")
    ):
        assert ports.table.query("REWARD") == wanted.table.query("REWARD"), what


def asking(loop: str = LOOP, *, trained: bool = True, count: int = 60) -> Any:
    ports = world(loop)
    if trained:
        ports.data.objects[layout.CHAMPION] = Champion("m-1", number=1).to_bytes()
        ports.models.models["m-1"] = ports.models.models["bootstrap-text"]
    ingest(ports, ports.pool.drop("a.jsonl", animals(count)))
    score_all(ports)
    return ports


RIVALS = LOOP.replace("acquisition: {", f"acquisition: {{competing: ['{A}', '{B}'], ")


def rival_reward(ports: Any, number: int, name: str, gain: float) -> None:
    item = {
        "dataset": "d", "baseline": "m", "metric": "accuracy", "gain": gain, "error": 0.002, "start": 1000 + 10 * number,
        "records": 100, "batches": {f"bq{number}": [name, 100]},
    }  # fmt: skip
    ports.table.put("REWARD", f"mq{number}", item)


def test_competitors_take_turns_by_weight_and_what_each_would_ask_is_logged() -> None:
    ports = asking(RIVALS)
    for number in range(12):
        rival_reward(ports, number, (A, B)[number % 2], (0.05, 0.01)[number % 2])

    outcome = select_batch(SelectRequest(), ports)

    plan = read_plan(outcome.body["batch"], ports)
    assert plan.course is not None
    competition = plan.course["competition"]
    assert competition["weights"][A] == pytest.approx(1 - 0.25 / math.sqrt(13), abs=1e-4)
    assert competition["sentence"].startswith(f"after 12 rounds {A} leads by ")
    assert competition["regret"] == pytest.approx(6 * competition["competitors"][0]["gain"] - 6 * 1.0, abs=1.0)
    active = [choice for choice in plan.choices if choice.arm == "active"]
    drawn = competition["drawn"]
    assert {choice.strategy for choice in active} == {drawn.split("+")[0]}
    assert competition["picks"][drawn] == {"ids": [choice.id for choice in active], "overlap": 1.0}
    (other,) = {A, B} - {drawn}
    picks = competition["picks"][other]
    assert len(picks["ids"]) == len(active)
    asked = {choice.id for choice in active}
    assert picks["overlap"] == pytest.approx(len(set(picks["ids"]) & asked) / len(active), abs=1e-4)
    weights = {metric.dimensions["Strategy"] for metric in outcome.metrics if metric.name == "StrategyWeight"}
    assert weights == {A, B}


def test_the_control_arm_is_what_it_is_without_a_competition() -> None:
    alone, rivals = asking(), asking(RIVALS.replace("control: 0.25", "reward_share: 0.1, control: 0.25"))

    def control(ports: Any) -> list[str]:
        plan = read_plan(select_batch(SelectRequest(), ports).body["batch"], ports)
        return [choice.id for choice in plan.choices if choice.arm == "control"]

    assert control(alone) == control(rivals) != []


def test_counterfactual_picks_are_logged_from_the_first_round() -> None:
    ports = asking(RIVALS, trained=False)

    plan = read_plan(select_batch(SelectRequest(), ports).body["batch"], ports)

    assert plan.phase == "coverage"
    assert plan.course is not None
    competition = plan.course["competition"]
    assert (competition["drawn"], competition["rounds"]) == (None, 0)
    assert sorted(competition["picks"]) == sorted([A, B])
    assert all(picks["ids"] for picks in competition["picks"].values())
    assert "the competitors wait until there is doubt to ask by" in plan.course["reasons"]


def test_the_same_state_draws_the_same_competitor_and_later_ones_draw_anew() -> None:
    ports = asking(RIVALS)
    crowned, _ = champion(ports)

    drawn = [chart(crowned, ports, taken=[f"c{n}"]).drawn for n in range(40)]

    assert drawn == [chart(crowned, ports, taken=[f"c{n}"]).drawn for n in range(40)]
    assert 8 <= drawn.count(A) <= 32


def test_competitors_need_reward_records_and_get_them() -> None:
    assert parse(COMPETING).acquisition.arms.reward_share == REWARD_SHARE
    assert parse("").acquisition.arms.reward_share == 0.0
    with pytest.raises(ConfigError, match=r"arms\.reward_share is 0; set it to 0\.1 or leave it out"):
        parse(f"acquisition: {{competing: ['{A}', '{B}'], arms: {{reward_share: 0}}}}")


def test_competitors_may_not_starve_the_control_arm() -> None:
    with pytest.raises(ConfigError, match=r"arms\.control is 0\.04; set it to 0\.05 at least"):
        parse(f"acquisition: {{competing: ['{A}', '{B}'], arms: {{control: 0.04}}}}")


def test_a_competitor_the_candidates_cannot_serve_makes_no_batch_and_says_why() -> None:
    pooled = "density_weighted+top_k"  # compares records by their probabilities, which were not carried along
    ports = asking()
    ports = replace(ports, loop=parse(RIVALS.replace(A, pooled)))
    told = []

    for size in (2, 3, 4, 5, 6):
        for item in ports.table.query("BATCH"):
            ports.table.put("BATCH", item["sk"], {**item, "status": "collected"})
        outcome = select_batch(SelectRequest(size=size), ports)
        course = read_plan(outcome.body["batch"], ports).course
        assert course is not None
        assert course["competition"]["drawn"] in (None, B)
        picks = course["competition"]["picks"][pooled]
        assert (picks["ids"], picks["overlap"]) == ([], None)
        assert picks["why_not"].startswith("strategy density_weighted reads what the candidates were scored without")
        told.append(course["competition"]["drawn"])

    assert set(told) == {None, B}  # it was drawn, and so was the other


@pytest.mark.parametrize(
    ("competing", "message"),
    [
        ("[margin, entropy]", r"'margin' is no strategy\+selector, such as margin\+margin_kmeans"),
        ("[margin+magic, entropy+top_k]", r"'margin\+magic' is no strategy\+selector"),
        ("[margin+top_k]", "a competition needs two different strategies"),
        ("[margin+top_k, margin+top_k]", "a competition needs two different strategies"),
        ("[variance+top_k, margin+top_k]", r"acquisition\.competing: variance needs prediction"),
    ],
)
def test_a_competition_that_cannot_be_is_refused_with_the_remedy(competing: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        parse(f"acquisition: {{competing: {competing}}}")


def gated(ports: Any, values: list[float], *, labels: int = 100) -> None:
    """Gate reports of challengers with ever more labels, as evaluate_challenger leaves them."""
    for number, value in enumerate(values, start=1):
        version, model = f"d{number}", f"m{number}"
        counts = {"train": labels * number, "evaluation": 300, "reward": 0}
        write(ports, layout.dataset(version), {"format": 1, "version": version, "counts": counts})
        difference = {"value": 0.01, "low": -0.02, "high": 0.04}
        body = {
            "format": 1, "model": model, "champion": f"m{number - 1}" if number > 1 else "bootstrap-text", "dataset": version,
            "verdict": "promote", "metric": "accuracy", "alpha": 0.1, "difference": difference,
            "challenger": {"value": value, "low": value - 0.01, "high": value + 0.01},
        }  # fmt: skip
        write(ports, layout.gate_report(model), body)
        ports.table.put("LOOK", f"{number:06d}", {"model": model, "number": number, "dataset": version, "at": "now"})
    write(ports, layout.HEAD, {"format": 1, "version": f"d{len(values)}"})


PRICED = LOOP.replace("budget: {", "budget: {gain_worth_usd: 1, ")


def test_labels_that_are_not_worth_their_price_are_not_bought_and_the_report_says_why() -> None:
    ports = asking(PRICED)
    gated(ports, [0.9] * 10)

    outcome = select_batch(SelectRequest(), ports)

    assert (outcome.body["batch"], outcome.body["reason"]) == (None, "gain-below-price")
    assert ports.labeling.jobs == {}
    report = ports.data.json(outcome.body["report"])
    assert outcome.body["report"].startswith("reports/stopping/")
    assert report["verdict"]["stop"] is True
    assert report["verdict"]["usd"] == pytest.approx(3.6)  # 12 items x 3 workers x 0.10
    assert [point["labels"] for point in report["curve"]] == list(range(100, 1100, 100))
    assert "--anyway" in report["what_would_change_it"]
    (skipped,) = [metric for metric in outcome.metrics if metric.name == "SelectionSkipped"]
    assert skipped.dimensions == {"Reason": "gain-below-price"}

    assert select_batch(SelectRequest(), ports).body == outcome.body  # the same evidence, the same report
    assert select_batch(SelectRequest.from_json({"anyway": True}), ports).body["size"] == 12


def test_a_rising_curve_or_no_price_buys_on() -> None:
    rising, free = asking(PRICED.replace("worth_usd: 1,", "worth_usd: 100,")), asking()
    gated(rising, [0.5 + 0.04 * n for n in range(10)])
    gated(free, [0.9] * 10)

    assert select_batch(SelectRequest(), rising).body["size"] == 12
    outcome = select_batch(SelectRequest(), free)
    assert outcome.body["size"] == 12
    assert {"GainPerLabel", "BatchSize"} <= {metric.name for metric in outcome.metrics}


def test_a_rejected_challenger_is_no_part_of_the_curve() -> None:
    ports = asking()
    gated(ports, [0.9] * 6)
    poisoned = ports.data.json(layout.gate_report("m6"))
    write(ports, layout.gate_report("m6"), {**poisoned, "verdict": "reject"})

    assert chart(champion(ports)[0], ports).prospect.points == 5


def test_sizes_adapt_where_they_may_and_are_advised_where_they_may_not() -> None:
    fixed, adaptive = LOOP.replace("total_usd: 100", "total_usd: 9"), "batches: {adaptive: true, "
    still, moving = asking(fixed), asking(fixed.replace("batches: {", adaptive))

    # $9 pays for 30 items at $0.30, which should last three rounds.
    assert select_batch(SelectRequest(), still).body["size"] == 12
    outcome = select_batch(SelectRequest(), moving)
    assert outcome.body["size"] == 10
    plan = read_plan(outcome.body["batch"], moving)
    assert plan.course is not None
    assert plan.course["reasons"][0] == "10 by budget: what is left pays for 30 items, which should last 3 rounds"
    advised = read_plan(next(iter(still.labeling.jobs)), still).course
    assert advised is not None
    assert advised["reasons"][0] == "12 records: batches.size, since batches.adaptive is off"
    assert advised["pace"]["size"] == 10


def test_the_pace_is_measured_from_the_batches_that_were_collected() -> None:
    ports = asking()
    created = ports.clock.now()
    done = {
        "number": 1,
        "kind": "select",
        "status": "collected",
        "job": "b1",
        "size": 20,
        "created_at": created.isoformat(),
    }
    ports.table.put("BATCH", "b1", done)
    answers = [
        {
            "id": f"c{n}", "batch": "b1", "status": "labeled", "label": "cat", "confidence": 1.0, "arm": "active",
            "strategy": "margin", "rank": n, "model": "m", "job": "b1", "guideline": "g", "cluster": f"k{n}", "role": "train",
            "labeled_at": created.replace(hour=created.hour + 1 + n // 5).isoformat().replace("+00:00", "Z"),
            "answers": [{"worker": "w", "label": "cat", "seconds": 5.0}],
        }
        for n in range(20)
    ]  # fmt: skip
    write(ports, layout.labels("b1"), "".join(f"{json.dumps(body)}\n" for body in answers).encode())

    course = chart(champion(ports)[0], ports)

    # Five an hour; of twenty, 95 % were answered within four hours.
    assert course.labels_per_hour == pytest.approx(0.95 * 20 / 4.0)


def torn(payloads: Any) -> Predictions:
    """Two classes are even for some texts (margin's choice), all three nearly so for the others (entropy's)."""
    two = np.array([payload["text"].startswith(("a", "b", "c", "d")) for payload in payloads])
    rows = np.where(two[:, None], [0.5, 0.5, 0.0], [0.4, 0.3, 0.3]).astype(np.float32)
    spread = [np.random.default_rng(list(payload["text"].encode())).normal(size=8) for payload in payloads]
    return Predictions(rows, np.array(spread, dtype=np.float32))


def test_the_best_of_every_competitor_are_forwarded() -> None:
    few = RIVALS.replace("acquisition: {", "acquisition: {candidates_per_object: 10, uniform_per_object: 10, ")
    ports = world(few.replace("[cat, dog]", "[cat, dog, cow]"))
    ports.data.objects[layout.CHAMPION] = Champion("m-1", number=1).to_bytes()
    card = SimpleNamespace(model="m-1", classes=("cat", "dog", "cow"), encoder=None)
    ports.models.models["m-1"] = FakeModel(card, torn)
    ingest(ports, ports.pool.drop("a.jsonl", animals(160)))

    score_all(ports)

    rows = indexed("m-1", set(), ports)
    assert rows is not None
    train = rows.take(rows.role == "train")
    by_margin = train.scores["margin"] > 0.95
    # Ten by uniform key and ten of each competitor, of which some are the same.
    assert by_margin.sum() >= 10
    assert (~by_margin).sum() >= 10
    assert len(train) <= 30


@pytest.mark.parametrize(
    ("metrics", "phase", "told"),
    [
        ({"cv_wrong": 30, "cv_right": 70, "cv_doubt_auroc": 0.9}, "uncertainty", "AUROC 0.90"),
        ({"cv_wrong": 3, "cv_right": 4, "cv_doubt_auroc": 0.55}, "coverage", "AUROC 0.55"),
        ({"cv_accuracy": 0.8}, "uncertainty", "no held-out figures"),
    ],
)
def test_coverage_goes_on_until_held_out_labels_show_that_doubt_tells(metrics: Any, phase: str, told: str) -> None:
    ports = judged()
    write(ports, layout.model("m1"), {"format": 1, "model": "m1", "dataset": "d1", "metrics": metrics})

    course = chart(Champion("m1", 1, "d1"), ports)

    assert course.phase == phase
    assert any(told in reason for reason in course.reasons)
