"""Tables walk the whole loop, with classes and with numbers: from dropped rows to a champion that chooses what to ask."""

from __future__ import annotations

import gzip
import json
import math
from typing import Any

import pytest

from tests.steps import table_walk as walk
from tests.steps.table_walk import CLASSES, NUMBERS, World
from tests.steps.walk import ingest, score_all
from winnow import layout
from winnow.metrics import CATALOGUE
from winnow.records import from_jsonl
from winnow.steps.accounting import account, check_invariants
from winnow.steps.candidates import Candidates
from winnow.steps.evaluate_challenger import evaluate_challenger
from winnow.steps.index_candidates import index_candidates
from winnow.steps.prepare_task import prepare_task
from winnow.steps.report_health import report_health
from winnow.steps.score_records import ScoreRequest, score_records
from winnow.steps.select_batch import SelectRequest, select_batch


def careful(row: walk.Row, worker: int) -> str:
    """Within 2 % of the price, and never twice the same."""
    return f"{walk.price(row) * (0.98 + 0.02 * worker):.2f}"


def dropped(loop: str, answer: Any, *, count: int = 240) -> World:
    here = walk.world(loop, answer)
    ingest(here.ports, here.ports.pool.drop("flats.jsonl", walk.flats(count)))
    score_all(here.ports)
    return here


def dataset_of(here: World, version: str, role: str) -> list[dict[str, Any]]:
    return from_jsonl(gzip.decompress(here.ports.data.objects[layout.dataset_part(version, role)]))


def rescore(here: World, model: str) -> None:
    """What the state machine does when a champion was crowned."""
    ports = here.ports
    before = len(ports.queues.sent["candidates"])
    score_records(ScoreRequest(tuple(ports.data.list(layout.RECORDS)), model=model), ports)
    index_candidates(ports.queues.sent["candidates"][before:], ports)


def assert_accounted(here: World, *, scored: int) -> None:
    ledger = account(here.ports)
    assert (ledger.scored, ledger.lost, ledger.arrived) == (scored, 0, scored)
    wrong = {name: found.detail for name, found in check_invariants(here.ports).items() if not found.ok}
    assert wrong == {}
    gauges = report_health({}, here.ports).body
    assert (gauges["PoolRecords"], gauges["UnscoredObjects"], gauges["BacklogItems"]) == (scored, 0, 0)
    assert ("RareClassShare" in gauges) == bool(here.ports.loop.task.rare_classes)


def test_numbers_go_all_the_way_round() -> None:
    here = dropped(NUMBERS, careful)
    ports = here.ports

    batch, body = walk.label_batch(here)

    assert (body["labeled"], body["disputed"], body["quarantined"]) == (48, 0, 0)
    choices = walk.arms_of(here, batch)
    assert {arm: len(each) for arm, each in choices.items()} == {"evaluation": 12, "control": 12, "active": 24}
    assert {choice.strategy for choice in choices["active"]} == {"coverage:stratified"}
    assert all(choice.prediction is None for each in choices.values() for choice in each)
    version = body["dataset"]
    description = ports.data.json(layout.dataset(version))
    assert (description["task"], description["classes"], description["by_class"]) == ("regression", [], {})
    assert description["counts"] == {"train": 36, "evaluation": 12, "reward": 0}
    line = dataset_of(here, version, "train")[0]
    assert set(line) == {"id", "cluster", "arm", "batch", "label", "confidence", "row"}
    assert line["label"] == pytest.approx(walk.price(line["row"]), rel=1e-4)  # the median of 98 %, 100 % and 102 %
    assert line["confidence"] == 1.0

    report = walk.improve(
        here, version, lambda name: walk.numbers(name, lambda row: walk.price(row) + 40, dataset=version, doubt=3.0)
    )

    spec = ports.data.json(layout.training_spec(report["model"]))
    assert (spec["task"], spec["kind"], spec["classes"], spec["columns"], spec["positive_class"]) == (
        "regression", "table", [], {}, None,
    )  # fmt: skip
    assert (report["verdict"], report["metric"]) == ("promote", "r2")
    assert report["challenger"]["r2"] == report["challenger"]["value"] > 0.99
    assert report["challenger"]["mae"] == pytest.approx(40.0, abs=0.01)
    assert report["entropy"] == {"before": None, "after": None}

    rescore(here, report["model"])
    again, body = walk.label_batch(here)

    assert body["labeled"] == 48
    choices = walk.arms_of(here, again)
    assert {choice.strategy for choice in choices["active"]} == {"variance"}
    rooms = {item: row["rooms"] for item, row in here.asked(again).items()}
    # Members are 3 a room on either side of the guess, so the variance is the square of it.
    assert all(choice.score == pytest.approx((3.0 * rooms[choice.id]) ** 2) for choice in choices["active"])
    assert sum(rooms[choice.id] for choice in choices["active"]) / 24 > 3.5  # of one to five
    assert choices["active"][0].prediction == pytest.approx(walk.price(here.asked(again)[choices["active"][0].id]) + 40)
    assert_accounted(here, scored=240)


def test_classes_go_all_the_way_round() -> None:
    here = dropped(CLASSES.replace("arms: {", "arms: {rare: 0.25, "), lambda row, worker: walk.dear(row))
    ports = here.ports

    _, body = walk.label_batch(here)

    assert (body["labeled"], body["disputed"]) == (48, 0)
    version = body["dataset"]
    description = ports.data.json(layout.dataset(version))
    assert (description["task"], description["classes"]) == ("classification", ["cheap", "dear"])
    assert sum(description["by_class"].values()) == 36
    report = walk.improve(
        here,
        version,
        lambda name: walk.classes(
            name, lambda row: 1 / (1 + math.exp((2000 - walk.price(row)) / 300)), dataset=version
        ),
    )
    assert (report["verdict"], report["metric"], report["challenger"]["accuracy"]) == ("promote", "accuracy", 1.0)
    assert ports.data.json(layout.training_spec(report["model"]))["positive_class"] == "dear"

    rescore(here, report["model"])
    again, _ = walk.label_batch(here)

    choices = walk.arms_of(here, again)
    assert {choice.strategy for choice in choices["active"]} == {"margin"}
    assert {choice.prediction for choice in choices["rare"]} == {"dear"}
    from_the_border = {item: abs(walk.price(row) - 2000) for item, row in here.asked(again).items()}
    asked = [from_the_border[choice.id] for choice in choices["active"]]
    assert sum(asked) / len(asked) < 900  # 1500 in the whole pool
    assert_accounted(here, scored=240)


def test_the_bootstrap_model_covers_a_table_and_scores_nothing() -> None:
    here = dropped(NUMBERS, careful, count=60)

    (key,) = here.ports.data.list("scores/bootstrap-table/")
    scored = Candidates.from_bytes(here.ports.data.objects[key])

    assert scored.scores == {}
    assert scored.prediction.tolist() == [0.0] * 60
    assert scored.prediction.dtype.kind == "f"
    batch = str(select_batch(SelectRequest(), here.ports).body["batch"])
    rooms = {row["rooms"] for row in here.asked(batch).values()}
    assert rooms == {1.0, 2.0, 3.0, 4.0, 5.0}


def test_scoring_tells_how_far_the_committee_is_apart() -> None:
    here = dropped(NUMBERS, careful, count=60)
    here.ports.data.objects[layout.CHAMPION] = json.dumps({"format": 1, "model": "m1", "number": 1}).encode()
    here.ports.models.add("m1", walk.numbers("m1", walk.price, dataset=None, doubt=2.0))

    outcome = score_records(ScoreRequest(tuple(here.ports.data.list(layout.RECORDS))), here.ports)

    values = {metric.name: metric.value for metric in outcome.metrics}
    # Rooms go round 1 to 5, so members are 2 to 10 away from their mean, 6 on average.
    assert values == {"RecordsScored": 60, "PredictiveSpread": pytest.approx(6.0), "AdmittedShare": 100.0}


def test_a_model_that_predicts_nan_scores_nothing() -> None:
    here = dropped(NUMBERS, careful, count=5)
    here.ports.data.objects[layout.CHAMPION] = json.dumps({"format": 1, "model": "m1", "number": 1}).encode()
    here.ports.models.add("m1", walk.numbers("m1", lambda row: math.nan, dataset=None, doubt=1.0))

    (reason,) = (
        score_records(ScoreRequest(tuple(here.ports.data.list(layout.RECORDS))), here.ports).body["failed"].values()
    )

    assert "NaN" in reason


def test_answers_further_apart_than_the_tolerance_go_to_experts() -> None:
    def divided(row: walk.Row, worker: int) -> str:
        far = row["rooms"] == 5 and worker != 0
        return f"{walk.price(row) * (1 + 0.4 * worker * far)}"

    here = dropped(NUMBERS, divided)

    batch, body = walk.label_batch(here)

    disputed = [row for row in here.asked(batch).values() if row["rooms"] == 5]
    assert (body["disputed"], body["labeled"]) == (len(disputed), 48 - len(disputed))
    (experts,) = [item for item in here.ports.table.query("BATCH") if item["kind"] == "dispute"]
    assert here.ports.labeling.jobs[experts["sk"]].kind == "number"
    assert here.ports.labeling.jobs[experts["sk"]].classes == ()


def test_what_was_written_is_kept_and_what_cannot_be_counted_says_why() -> None:
    def odd(row: walk.Row, worker: int) -> str:
        return ("1,234.5", "abc", " 999999 ")[worker] if row["rooms"] == 5 else ("oops", careful(row, 1), "-3")[worker]

    here = dropped(NUMBERS, odd)

    batch, body = walk.label_batch(here)

    labels = from_jsonl(here.ports.data.objects[layout.labels(batch)])
    rooms = {item: row["rooms"] for item, row in here.asked(batch).items()}
    none = [label for label in labels if rooms[label["id"]] == 5]
    some = [label for label in labels if rooms[label["id"]] != 5]
    assert none
    assert {label["status"] for label in none} == {"quarantined"}
    assert none[0]["reason"].startswith("no answer can be used: '1,234.5' is no plain number")
    assert [(answer["label"], "refused" in answer) for answer in none[0]["answers"]] == [
        ("1,234.5", True), ("abc", True), (" 999999 ", True),
    ]  # fmt: skip
    assert "is above task.maximum (100000)" in none[0]["answers"][2]["refused"]
    assert {label["status"] for label in some} == {"labeled"}
    assert some[0]["label"] == some[0]["answers"][1]["label"]
    assert isinstance(some[0]["label"], float)
    assert (body["labeled"], body["quarantined"]) == (len(some), len(none))
    assert check_invariants(here.ports)["I1"].ok


def test_agreement_between_numbers_is_measured_and_a_careless_annotator_named() -> None:
    def answer(row: walk.Row, worker: int) -> str:
        return careful(row, worker) if worker < 3 else "2500"

    here = dropped(NUMBERS, answer)

    walk.label_batch(here, workers=4)

    rows = {item["worker"]: item for item in here.ports.table.query("ANNOTATOR")}
    assert {name: item["suspect"] for name, item in rows.items() if item["suspect"]}.keys() == {"w3"}
    assert {"spam", "agreement", "spread"} <= set(rows["w3"]["suspect"])
    assert rows["w0"]["agreement"] == 1.0
    assert rows["w0"]["bias"] < 0.0 < rows["w2"]["bias"]
    assert rows["w3"]["spread"] > 10 * rows["w1"]["spread"]


def test_a_table_is_shown_as_its_columns_in_order() -> None:
    here = dropped(NUMBERS.replace("unit: EUR", "unit: EUR, show_prediction: true"), careful, count=60)
    batch = str(select_batch(SelectRequest(), here.ports).body["batch"])
    line = from_jsonl(here.ports.data.objects[layout.manifest(batch)])[0]
    row = json.loads(line["source"])

    view = prepare_task({**line, "prediction": 1234.0}, here.ports).body["taskInput"]

    assert [cell["name"] for cell in view["row"]] == ["city", "rooms", "m2", "heating"]
    values = {cell["name"]: cell["value"] for cell in view["row"]}
    assert values["rooms"] == str(int(row["rooms"]))
    assert values["m2"] == str(row["m2"])  # always half a square metre
    assert values["heating"] == (row["heating"] or "\N{EM DASH}")
    assert {name: view[name] for name in ("unit", "minimum", "maximum", "prediction")} == {
        "unit": "EUR", "minimum": "0", "maximum": "100000", "prediction": "1234",
    }  # fmt: skip
    assert "classes" not in view


def test_a_row_too_long_for_a_manifest_is_shown_from_where_it_lies() -> None:
    here = walk.world(CLASSES, lambda row, worker: walk.dear(row))
    wide = [{**walk.flat(n), **{f"note {k}": "n" * 900 for k in range(25)}} for n in range(30)]
    body = "".join(json.dumps(row) + "\n" for row in wide).encode()
    ingest(here.ports, here.ports.pool.drop("wide.jsonl", body))
    score_all(here.ports)

    batch = str(select_batch(SelectRequest(), here.ports).body["batch"])

    line = from_jsonl(here.ports.data.objects[layout.manifest(batch)])[0]
    assert line["source-ref"] == here.ports.data.uri(layout.asked_row(batch, line["candidate_id"]))
    shown = prepare_task(line, here.ports).body["taskInput"]["row"]
    assert [cell["name"] for cell in shown][:5] == ["city", "rooms", "m2", "heating", "note 0"]
    assert len(shown) == 29


def test_a_challenger_that_is_no_better_than_the_mean_never_becomes_the_first_champion() -> None:
    here = dropped(NUMBERS, careful)
    _, body = walk.label_batch(here)
    labels = [line["label"] for line in dataset_of(here, body["dataset"], "train")]

    def mean(row: walk.Row) -> float:
        return sum(labels) / len(labels) + (10 if row["rooms"] % 2 else -10)

    report = walk.improve(here, body["dataset"], lambda name: walk.numbers(name, mean, dataset=body["dataset"]))

    assert report["verdict"] == "inconclusive"
    assert report["champion"] == "bootstrap-table"
    assert abs(report["champion_metrics"]["value"]) < 0.2  # and not far below 0, as always saying 0 would be


def test_metrics_of_a_regression_are_in_the_catalogue_and_on_nobodys_nerves() -> None:
    here = dropped(NUMBERS, careful)
    _, body = walk.label_batch(here)
    report = walk.improve(
        here, body["dataset"], lambda name: walk.numbers(name, walk.price, dataset=body["dataset"], doubt=1.0)
    )
    control = walk.numbers("c", lambda row: 2 * walk.price(row), dataset=None)
    here.ports.models.arms[report["model"], "control"] = control

    outcome = evaluate_challenger({"model": report["model"], "dataset": body["dataset"]}, here.ports)

    named = {(metric.name, *metric.dimensions.values()): metric.value for metric in outcome.metrics}
    assert named == {
        ("GateVerdict", "promote"): 1,
        ("ChallengerMetric", "r2"): pytest.approx(1.0, abs=1e-3),
        ("ChampionMetric", "r2"): pytest.approx(report["champion_metrics"]["value"]),
    }
    for metric in outcome.metrics:
        assert tuple(metric.dimensions) == CATALOGUE[metric.name].dimensions[1:]
