"""Hops 2, 4 and 7 with every arm: labels asked again, quotas, people's minutes, and strategies that read the whole pool."""

from __future__ import annotations

import copy
import gzip
import json
from collections import Counter
from decimal import Decimal
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from tests.fakes import FakeModel, Fault, every_fault
from tests.steps import table_walk
from tests.steps.walk import NAMES, animals, ingest, jsonl, score_all, world
from winnow import layout
from winnow.loop import Acquisition, Loop, parse
from winnow.models.predictions import Predictions
from winnow.ports import Answer
from winnow.records import from_jsonl, to_jsonl
from winnow.selection import SELECTORS
from winnow.steps.accounting import Ledger, check_invariants
from winnow.steps.batches import Plan, committed, read_plan, reservations
from winnow.steps.candidates import Candidates
from winnow.steps.collect_labels import collect_labels
from winnow.steps.index_candidates import index_candidates
from winnow.steps.pointers import Champion, head
from winnow.steps.reconcile import reconcile
from winnow.steps.score_records import ScoreRequest, score_records
from winnow.steps.select_batch import SelectRequest, select_batch

LOOP = """
task: {kind: text, classes: [cat, dog]}
batches: {size: 40, min_size: 2}
acquisition:
  near_duplicate_distance: 0.0
  arms: {control: 0.1, evaluation_target: 20, evaluation_share: 0.1, reward_share: 0.05, recheck: 0.2}
gate: {min_records: 10}
budget: {total_usd: 100, price_per_answer_usd: "0.10"}
training: {min_labels: 4}
"""

HARD: tuple[Fault, ...] = ("after", "lost")
"""What was done before the process died or the reply was lost: the faults that can make things happen twice."""


def truth(text: str) -> str:
    return "dog" if "ada" in text.split()[0] or "a" in text.split()[2] else "cat"


def knowing(payloads: Any) -> Predictions:
    """Sure of every text's class; the embedding keeps the classes apart, with noise that hangs on the text alone."""
    dog = np.array([truth(payload["text"]) == "dog" for payload in payloads])
    noise = [np.random.default_rng(list(payload["text"].encode())).normal(size=8) for payload in payloads]
    sure = np.where(dog, 0.9, 0.1).astype(np.float32) + 0.001 * np.array([row[0] for row in noise], np.float32)
    members = np.stack([sure, np.clip(sure + 0.05, 0, 1)], axis=1)
    return Predictions(
        np.stack([1 - sure, sure], axis=1),
        (4.0 * np.eye(8)[dog.astype(int)] + np.array(noise)).astype(np.float32),
        members=np.stack([1 - members, members], axis=2),
    )


def texts(ports: Any, batch: str) -> dict[str, str]:
    return {line["candidate_id"]: line["source"] for line in from_jsonl(ports.data.objects[layout.manifest(batch)])}


def answer(ports: Any, batch: str, labels: dict[str, str | None], *, sure: float = 1.0) -> None:
    """The batch's job ends with these labels; None is no answer at all."""
    given = {name: label for name, label in labels.items() if label is not None}
    ports.labeling.finish(
        batch,
        results={name: {"label": label, "confidence": sure} for name, label in given.items()},
        answers={
            name: [Answer(f"w{n}", label, 5.0, "2026-01-05T10:00:00Z") for n in range(3)]
            for name, label in given.items()
        },
        total=len(labels),
    )


def crown(ports: Any) -> None:
    """A champion that knows the classes; everything is scored again, as the state machine `rescore` does."""
    card = SimpleNamespace(model="m1", classes=("cat", "dog"), encoder=None)
    ports.models.models["m1"] = FakeModel(card, knowing)
    ports.data.objects[layout.CHAMPION] = Champion("m1", number=1).to_bytes()
    ports.queues.sent["candidates"].clear()
    score_records(ScoreRequest(tuple(ports.data.list(layout.RECORDS)), model="m1"), ports)
    index_candidates(list(ports.queues.sent["candidates"]), ports)


def stories(count: int) -> bytes:
    """Texts whose second halves differ as well."""
    return jsonl(
        *(
            f"{NAMES[n % 16]} and {NAMES[n // 16]} went home, when {NAMES[n * 7 % 16]} told {NAMES[n * 3 % 11]} to stay"
            for n in range(count)
        )
    )


def built(loop: str = LOOP, body: bytes | None = None) -> tuple[Any, str, str]:
    """A world with a first batch labeled, one train label of it wrong, and a champion. The batch, and the wrong content."""
    ports = world(loop)
    ingest(ports, ports.pool.drop("a.jsonl", animals(120) if body is None else body))
    score_all(ports)
    batch = str(select_batch(SelectRequest(), ports).body["batch"])
    labels = {name: truth(text) for name, text in texts(ports, batch).items()}
    wrong = next(c.id for c in read_plan(batch, ports).choices if c.arm == "active")
    answer(ports, batch, {**labels, wrong: "cat" if labels[wrong] == "dog" else "dog"})
    collect_labels(batch, ports)
    crown(ports)
    ports.journal.calls.clear()  # the world is copied often
    return ports, batch, wrong


@pytest.fixture(scope="module")
def labeled() -> tuple[Any, str, str]:
    return built()


def plan_of(ports: Any, size: int | None = None) -> Plan:
    return read_plan(str(select_batch(SelectRequest(size=size), ports).body["batch"]), ports)


def line_of(ports: Any, content: str) -> dict[str, Any]:
    version = head(ports.data)[0]
    part = gzip.decompress(ports.data.objects[layout.dataset_part(str(version), "train")])
    (line,) = [line for line in from_jsonl(part) if line["id"] == content]
    return line


def broken(ports: Any) -> dict[str, str]:
    """Invariants that do not hold. I3, which is about ingest, takes a look at every artifact."""
    return {name: found.detail for name, found in check_invariants(ports, ledger=Ledger()).items() if not found.ok}


def test_a_label_that_looks_wrong_is_asked_again_in_place_of_the_least_doubtful_new_record(labeled: Any) -> None:
    ports, first, wrong = copy.deepcopy(labeled)

    plan = plan_of(ports)

    (again,) = [choice for choice in plan.choices if choice.arm == "recheck"]
    assert (again.id, again.again, again.strategy, again.rank) == (wrong, first, "disagreement", 1)
    assert again.score is not None
    assert 0.5 < again.score < 1.0
    assert Counter(choice.arm for choice in plan.choices)["recheck"] == 1  # eight places at most, one worth it
    assert len(plan.choices) == 40
    assert Decimal(plan.usd) == Decimal("12.00")
    assert reservations(ports)[wrong] == {**reservations(ports)[wrong], "batch": plan.batch, "state": "reserved"}
    assert ports.table.get("EXPIRY", f"{wrong}#{first}")["recheck"] == plan.batch
    assert line_of(ports, wrong)["batch"] == 1  # the label stands while it is asked
    assert broken(ports) == {}


def test_a_rescore_brings_along_whatever_was_asked() -> None:
    ports, first, _ = built(
        LOOP.replace("near_duplicate_distance: 0.0", "candidates_per_object: 10\n  uniform_per_object: 10")
    )

    found = set(indexed_rows(ports).id.tolist())

    assert {choice.id for choice in read_plan(first, ports).choices} <= found
    assert len(found) < 120


def test_what_people_say_again_takes_the_labels_place_and_is_the_last_word(labeled: Any) -> None:
    ports, _first, wrong = copy.deepcopy(labeled)
    before = line_of(ports, wrong)
    plan = plan_of(ports)

    answer(ports, plan.batch, {name: truth(text) for name, text in texts(ports, plan.batch).items()})
    collect_labels(plan.batch, ports)

    after = line_of(ports, wrong)
    assert after["label"] != before["label"]
    assert (after["label"], after["batch"], after["arm"]) == (truth(after["text"]), 2, "active")
    (label,) = [one for one in from_jsonl(ports.data.objects[layout.labels(plan.batch)]) if one["id"] == wrong]
    assert (label["arm"], label["strategy"], label["rank"]) == ("recheck", "disagreement", 1)
    crown(ports)
    assert wrong not in {choice.id for choice in plan_of(ports).choices}
    assert broken(ports) == {}


@pytest.mark.parametrize("how", ["nobody answers", "people differ and experts do not answer"])
def test_a_label_asked_again_in_vain_stands_and_is_not_asked_a_third_time(labeled: Any, how: str) -> None:
    ports, first, wrong = copy.deepcopy(labeled)
    before = line_of(ports, wrong)
    plan = plan_of(ports)
    answers: dict[str, str | None] = {name: truth(text) for name, text in texts(ports, plan.batch).items()}

    if how == "nobody answers":
        answer(ports, plan.batch, {**answers, wrong: None})
        collect_labels(plan.batch, ports)
    else:
        answer(ports, plan.batch, answers, sure=0.4)
        experts = collect_labels(plan.batch, ports)
        assert experts.body["disputed"] == 40
        (batch,) = [item["sk"] for item in ports.table.query("BATCH") if item["kind"] == "dispute"]
        answer(ports, batch, dict.fromkeys(answers, None))
        collect_labels(batch, ports)

    assert line_of(ports, wrong) == before
    assert (reservations(ports)[wrong]["batch"], reservations(ports)[wrong]["state"]) == (first, "labeled")
    for _ in range(3):
        ports.clock.advance(hours=1)
        reconcile({}, ports)  # releases what expired
    assert wrong not in {choice.id for choice in plan_of(ports).choices}
    assert broken(ports) == {}


def test_every_fault_in_a_selection_with_a_recheck_asks_it_once(labeled: Any) -> None:
    def act(ports: Any) -> None:
        ports.clock.advance(minutes=20)
        select_batch(SelectRequest(size=8), ports)

    for what, ports in every_fault(lambda: copy.deepcopy(labeled[0]), act, faults=HARD):
        second = [item for item in ports.table.query("BATCH") if item["sk"] != labeled[1]]
        assert [item["status"] for item in second] == ["submitted"], what
        batch = str(second[0]["sk"])
        assert labeled[2] in texts(ports, batch), what
        assert reservations(ports)[labeled[2]]["batch"] == batch, what
        assert committed(ports) == Decimal("14.40"), what  # 40 and 8 items x 3 workers x 0.10
        assert broken(ports) == {}, what


def test_every_fault_in_collecting_a_recheck_leaves_one_label(labeled: Any) -> None:
    ports, _, wrong = copy.deepcopy(labeled)
    plan = plan_of(ports, size=6)
    answer(ports, plan.batch, {name: truth(text) for name, text in texts(ports, plan.batch).items()})

    def act(here: Any) -> None:
        collect_labels(plan.batch, here)

    for what, here in every_fault(lambda: copy.deepcopy(ports), act, faults=HARD):
        line = line_of(here, wrong)
        assert (line["label"], line["batch"]) == (truth(line["text"]), 2), what
        assert broken(here) == {}, what


def rows(count: int, **columns: Any) -> bytes:
    """The animals' texts with further fields, each given as a function of the row's number."""
    texts = [json.loads(line) for line in animals(count).splitlines()]
    more = [{name: value for name, of in columns.items() if (value := of(n)) is not None} for n in range(count)]
    return "".join(json.dumps({**text, **one}) + "\n" for text, one in zip(texts, more, strict=True)).encode()


def scored(loop: str, body: bytes) -> Any:
    ports = world(loop)
    ingest(ports, ports.pool.drop("a.jsonl", body))
    crown(ports)
    return ports


def indexed_rows(ports: Any) -> Candidates:
    keys = [item["key"] for item in ports.table.query("SHARD#m1")]
    return Candidates.concat([Candidates.from_bytes(ports.data.objects[key]) for key in keys])


def test_a_quota_takes_the_last_places_of_the_active_arm_and_says_what_it_could_not_meet() -> None:
    loop = LOOP.replace(
        "near_duplicate_distance: 0.0",
        "near_duplicate_distance: 0.0\n  uniform_per_object: 10\n  candidates_per_object: 30\n"
        "  quotas: {lang=de: 0.2, lang=fr: 0.2, langue=it: 0.1, predicted=dog: 0.1}",
    )
    # Long texts are surest, so the strategy would take few of them; 3 of 150 are French.
    languages = {True: "de", False: "en"}
    ports = scored(loop, rows(150, slices=lambda n: {"lang": "fr" if n in (7, 77, 147) else languages[n % 5 == 0]}))

    outcome = select_batch(SelectRequest(), ports)

    plan = read_plan(outcome.body["batch"], ports)
    language = {
        record["id"]: record["slices"]["lang"]
        for key in ports.data.list(layout.RECORDS)
        for record in from_jsonl(gzip.decompress(ports.data.objects[key]))
    }
    asked = Counter(language[choice.id] for choice in plan.choices)
    assert len(plan.choices) == 40
    assert asked["de"] >= 8
    french = [choice for choice in plan.choices if language[choice.id] == "fr"]
    available = {choice.id for choice in french} | {i for i, lang in language.items() if lang == "fr"}
    assert len(french) <= len(available) == 3
    assert {choice.arm for choice in plan.choices if choice.strategy == "margin"} == {"active", "quota"}
    assert [line.split(";")[0] for line in plan.told] == [
        f"quota lang=fr: {len(french)} of 8 records", "quota langue=it: 0 of 4 records",
    ]  # fmt: skip
    assert "no candidate has a slice named langue; known are lang" in plan.told[1]
    assert outcome.body["told"] == list(plan.told)
    ranks = [choice.rank for choice in plan.choices if choice.arm == "quota"]
    assert ranks == list(range(1, len(ranks) + 1))


def test_a_batch_never_needs_more_minutes_than_it_may() -> None:
    loop = LOOP.replace("min_size: 2", "min_size: 2, minutes: 30")
    ports = scored(loop, rows(120, cost=lambda n: [1.5, 4.0, None, 31.0][n % 4]))

    outcome = select_batch(SelectRequest(), ports)

    plan = read_plan(outcome.body["batch"], ports)
    minutes = {
        identity: float(cost)
        for identity, cost in zip(indexed_rows(ports).id, indexed_rows(ports).minutes, strict=True)
    }
    needed = [minutes[choice.id] for choice in plan.choices]
    assert all(cost != 31.0 for cost in needed)
    known = [4.0 if np.isnan(cost) else cost for cost in needed]  # the median of 1.5, 4 and 31
    assert 28.5 < sum(known) <= 30.0
    assert {"evaluation", "control", "reward", "active"} <= {choice.arm for choice in plan.choices}
    assert plan.told[-1].endswith("records need more than batches.minutes (30) and can never be asked; raise it")
    assert committed(ports) == Decimal("0.30") * len(plan.choices)


def test_a_limit_that_no_record_fits_makes_no_batch() -> None:
    ports = scored(LOOP.replace("min_size: 2", "min_size: 2, minutes: 1"), rows(60, cost=lambda n: 2.0))

    outcome = select_batch(SelectRequest(), ports)

    assert outcome.body["reason"] == "pool-exhausted"
    assert ports.table.query("BATCH") == []


def test_value_by_the_minute_prefers_the_short_record_of_two_equally_doubtful_ones() -> None:
    loop = LOOP.replace("near_duplicate_distance: 0.0", "near_duplicate_distance: 0.0\n  per_minute: true")
    loop = loop.replace("near_duplicate_distance: 0.0", "near_duplicate_distance: 0.0\n  selector: top_k")
    ports = scored(loop, rows(120, cost=lambda n: 10.0 if n % 2 else 1.0))

    plan = plan_of(ports)

    rows_ = indexed_rows(ports)
    minutes = dict(zip(rows_.id.tolist(), rows_.minutes.tolist(), strict=True))
    active = [choice for choice in plan.choices if choice.arm == "active"]
    assert {minutes[choice.id] for choice in active} == {1.0}
    margin = dict(zip(rows_.id.tolist(), rows_.scores["margin"].tolist(), strict=True))
    assert active[0].score == pytest.approx(margin[active[0].id] / 1.0)


@pytest.mark.parametrize("strategy", ["expected_error_reduction", "density_weighted", "typicality"])
def test_strategies_that_compare_records_are_computed_over_the_candidates(strategy: str) -> None:
    loop = LOOP.replace("near_duplicate_distance: 0.0", f"near_duplicate_distance: 0.0\n  strategy: {strategy}")
    ports, _, _ = built(loop)

    plan = plan_of(ports)

    assert strategy not in indexed_rows(ports).scores
    active = [choice for choice in plan.choices if choice.arm == "active"]
    assert len(active) >= 20
    assert {choice.strategy for choice in active} == {strategy}
    assert len({choice.score for choice in active}) > 10
    assert plan.told == ()


@pytest.mark.parametrize("selector", sorted(SELECTORS))
def test_every_selector_makes_a_batch_of_what_the_candidates_carry(selector: str) -> None:
    ports = scored(
        LOOP.replace("near_duplicate_distance: 0.0", f"near_duplicate_distance: 0.0\n  selector: {selector}"),
        animals(120),
    )

    plan = plan_of(ports)

    carried = {name for name in ("probabilities", "members") if getattr(indexed_rows(ports), name) is not None}
    assert carried == SELECTORS[selector].needs & {"probabilities", "members"}
    assert plan.told == ()
    assert len(plan.choices) == 40
    assert [choice.arm for choice in plan.choices].count("active") == 30


def test_candidates_without_what_a_new_strategy_reads_are_chosen_by_the_default_until_scored_again() -> None:
    ports = scored(LOOP, animals(120))
    changed = LOOP.replace("near_duplicate_distance: 0.0", "near_duplicate_distance: 0.0\n  strategy: density_weighted")
    object.__setattr__(ports, "loop", parse(changed))

    plan = plan_of(ports)

    assert {choice.strategy for choice in plan.choices if choice.arm == "active"} == {"margin"}
    assert plan.told == (
        "strategy density_weighted reads what the candidates were scored without; until a new champion scores them, "
        "margin chooses",
    )


def test_candidates_of_a_thousand_classes_and_sixteen_members_travel_in_messages_that_fit() -> None:
    classes = [f"c{n}" for n in range(1000)]
    loop = LOOP.replace("[cat, dog]", json.dumps(classes)).replace(
        "near_duplicate_distance: 0.0", "near_duplicate_distance: 0.0\n  strategy: expected_gradient_length"
    )
    ports = world(loop)
    object.__setattr__(ports, "loop", reading_everything(ports.loop))

    def many(payloads: Any) -> Predictions:
        rng = np.random.default_rng(0)
        members = rng.dirichlet(np.ones(1000), (len(payloads), 16)).astype(np.float32)
        return Predictions(members.mean(axis=1), rng.normal(size=(len(payloads), 512)).astype(np.float32), members)

    card = SimpleNamespace(model="m1", classes=tuple(classes), encoder=None)
    ports.models.models["m1"] = FakeModel(card, many)
    ports.data.objects[layout.CHAMPION] = Champion("m1", number=1).to_bytes()
    ingest(ports, ports.pool.drop("a.jsonl", animals(40)))

    score_all(ports)  # the fake queue refuses what is longer than 256 KB

    found = indexed_rows(ports)
    assert found.members is not None
    assert found.members.shape == (40, 16, 1000)
    assert found.probabilities is not None
    assert found.probabilities.dtype == np.float16
    assert len(ports.queues.sent["candidates"]) > 5


def reading_everything(loop: Loop) -> Loop:
    """The loop with a selector that reads a committee."""
    return loop.model_copy(update={"acquisition": _Reading(**loop.acquisition.model_dump())})


class _Reading(Acquisition):
    @property
    def reads(self) -> frozenset[str]:
        return frozenset({"probabilities", "members"})


def test_the_choice_of_a_batch_does_not_hang_on_the_truth() -> None:
    """Labels that nobody gave yet are scrambled wherever they lie; what is scored, sent and chosen stays as it was."""

    def chosen(*, scrambled: bool) -> tuple[bytes, list[dict[str, Any]], list[Any]]:
        ports, _, _ = built(LOOP.replace("near_duplicate_distance: 0.0", "strategy: expected_error_reduction"))
        ports.data.delete([*ports.data.list(layout.SCORES), *ports.data.list(layout.CANDIDATES)])
        ports.queues.sent["candidates"].clear()
        for key in list(ports.data.list(layout.RECORDS)):
            records = from_jsonl(gzip.decompress(ports.data.objects[key]))
            labels = [truth(record["text"]) for record in records]
            if scrambled:
                labels = list(np.random.default_rng(1).permutation(labels))
            truths = [{**record, "label": str(label)} for record, label in zip(records, labels, strict=True)]
            ports.data.objects[key] = gzip.compress(to_jsonl(truths), mtime=0)
        score_all(ports)
        (score,) = (ports.data.objects[key] for key in ports.data.list(f"{layout.SCORES}m1/"))
        return score, ports.queues.sent["candidates"], [choice.to_json() for choice in plan_of(ports).choices]

    told, scrambled = chosen(scrambled=False), chosen(scrambled=True)

    assert {choice["arm"] for choice in told[2]} >= {"active", "control", "evaluation", "reward", "recheck"}
    assert scrambled == told


SYNTHESIS = LOOP.replace("recheck: 0.2", "recheck: 0.0, synthesis: 0.2")


@pytest.fixture(scope="module")
def mixing() -> tuple[Any, str, str]:
    return built(SYNTHESIS, stories(120))


def test_records_made_of_others_are_marked_everywhere_and_labeled_by_people(mixing: Any) -> None:
    ports, _, _ = copy.deepcopy(mixing)

    plan = plan_of(ports)

    made = [choice for choice in plan.choices if choice.arm == "synthetic"]
    assert len(made) == 8  # a fifth of 40
    assert len(plan.choices) == 40
    assert {choice.strategy for choice in made} == {"recombination"}
    records = {
        body["id"]: body
        for body in from_jsonl(gzip.decompress(ports.data.objects[f"batches/{plan.batch}/synthetic.jsonl.gz"]))
    }
    assert {choice.id for choice in made} == set(records)
    assert {(body["origin"], body["role"]) for body in records.values()} == {("synthetic", "train")}
    pool = {json.loads(line)["text"] for line in stories(120).splitlines()}
    asked = texts(ports, plan.batch)
    for choice in made:
        begin, end = asked[choice.id].split(", ")
        assert asked[choice.id] not in pool
        assert any(text.startswith(begin) for text in pool)
        assert any(text.endswith(end) for text in pool)
    assert not set(records) & set(indexed_rows(ports).id.tolist())

    answer(ports, plan.batch, {name: truth(text) for name, text in asked.items()})
    collect_labels(plan.batch, ports)

    assert {line_of(ports, choice.id)["arm"] for choice in made} == {"synthetic"}
    description = ports.data.json(layout.dataset(str(head(ports.data)[0])))
    assert description["by_arm"]["synthetic"] == 8
    crown(ports)
    again = plan_of(ports)
    assert not {choice.id for choice in again.choices} & set(records)
    assert not {choice.id for choice in again.choices if choice.arm != "synthetic"} - set(
        indexed_rows(ports).id.tolist()
    )
    assert broken(ports) == {}


def test_every_fault_in_a_selection_with_synthetic_records_makes_them_once(mixing: Any) -> None:
    undisturbed = copy.deepcopy(mixing[0])
    expected = plan_of(undisturbed, size=10)
    assert [choice.arm for choice in expected.choices].count("synthetic") == 2

    def act(ports: Any) -> None:
        ports.clock.advance(minutes=20)
        select_batch(SelectRequest(size=10), ports)

    for what, ports in every_fault(lambda: copy.deepcopy(mixing[0]), act, faults=("after",)):
        (second,) = [item for item in ports.table.query("BATCH") if item["sk"] != mixing[1]]
        assert (second["sk"], second["status"]) == (expected.batch, "submitted"), what
        assert texts(ports, expected.batch) == texts(undisturbed, expected.batch), what
        assert committed(ports) == Decimal("15.00"), what  # 40 and 10 items x 3 workers x 0.10
        assert broken(ports) == {}, what


def test_synthetic_labels_can_be_removed_from_every_later_dataset(mixing: Any) -> None:
    ports, _, _ = copy.deepcopy(mixing)
    plan = plan_of(ports)
    answer(ports, plan.batch, {name: truth(text) for name, text in texts(ports, plan.batch).items()})
    collect_labels(plan.batch, ports)
    assert ports.data.json(layout.dataset(str(head(ports.data)[0])))["by_arm"]["synthetic"] == 8
    removing = SYNTHESIS.replace("min_labels: 4", "min_labels: 4, synthetic: false")
    object.__setattr__(ports, "loop", parse(removing.replace("synthesis: 0.2", "synthesis: 0")))
    crown(ports)
    later = plan_of(ports)
    answer(ports, later.batch, {name: truth(text) for name, text in texts(ports, later.batch).items()})

    collect_labels(later.batch, ports)

    assert "synthetic" not in ports.data.json(layout.dataset(str(head(ports.data)[0])))["by_arm"]
    assert broken(ports) == {}


def test_a_synthetic_record_that_comes_back_from_an_export_is_still_no_sample_of_anything() -> None:
    ports = world(LOOP)
    rows_ = [{**json.loads(line), "winnow": {"arm": "synthetic"}} for line in animals(40).splitlines()]

    told = ingest(ports, ports.pool.drop("a.jsonl", "".join(json.dumps(row) + "\n" for row in rows_).encode()))
    crown(ports)

    records = [
        record
        for key in ports.data.list(layout.RECORDS)
        for record in from_jsonl(gzip.decompress(ports.data.objects[key]))
    ]
    refused = from_jsonl(ports.data.objects[layout.quarantine(told["oid"])])
    assert {(record["origin"], record["role"]) for record in records} == {("synthetic", "train")}
    assert len(records) + len(refused) == 40
    assert all("would be judged on" in line["reason"] for line in refused)
    assert ports.queues.sent["candidates"] == []
    assert select_batch(SelectRequest(), ports).body["reason"] == "no-candidates"


@pytest.mark.parametrize("loop", [table_walk.CLASSES, table_walk.NUMBERS], ids=["classes", "numbers"])
def test_rows_are_mixed_of_neighbours(loop: str) -> None:
    loop = loop.replace("control: 0.25", "control: 0.25, synthesis: 0.25")
    here = table_walk.world(loop, lambda row, _: "")
    ingest(here.ports, here.ports.pool.drop("a.jsonl", table_walk.flats(200)))
    if "regression" in loop:
        model = table_walk.numbers("m1", table_walk.price, dataset=None, doubt=1.0)
    else:
        model = table_walk.classes("m1", lambda row: 0.8 if table_walk.dear(row) == "dear" else 0.2, dataset=None)
    here.ports.models.add("m1", model)
    here.ports.data.objects[layout.CHAMPION] = Champion("m1", number=1).to_bytes()
    score_all(here.ports)

    plan = plan_of(here.ports)

    made = [choice for choice in plan.choices if choice.arm == "synthetic"]
    assert len(made) == 12  # a quarter of 48
    assert {choice.strategy for choice in made} == {"mixup"}
    asked = here.asked(plan.batch)
    for choice in made:
        row = asked[choice.id]
        assert set(row) == {"city", "rooms", "m2", "heating"}
        assert 30.5 <= row["m2"] <= 229.5
        assert row["rooms"] == int(row["rooms"])
        assert row["city"] in {f"city {n}" for n in range(4)}
    if "regression" not in loop:  # between a cheap and a dear one: where 20 m2 + 150 rooms passes 2000
        assert all(1000 < table_walk.price(asked[choice.id]) < 3500 for choice in made)
