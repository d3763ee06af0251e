"""What comes from elsewhere: seed labels train the first champion, and what a stack exports makes the same again."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from tests.cloud.stack import LOOP, Stack, deployed, jsonl, sentences, text_truth
from winnow import layout
from winnow.steps.accounting import check_invariants

pytestmark = pytest.mark.cloud

TEXTS = sentences(300)


def rows(texts: list[str]) -> bytes:
    return b"".join(jsonl([text], label=text_truth({"text": text})) for text in texts)


@pytest.fixture(scope="module")
def seeded() -> Iterator[Stack]:
    """A stack whose whole pool came with labels; nobody labels."""
    with deployed(loop=LOOP, parameters={"EndpointEnabled": "false"}) as running:
        running.drop("old/seeds.jsonl", rows(TEXTS))
        running.run_improve()
        running.cloud.advance(hours=13)
        yield running


def test_seeds_train_the_first_champion_without_money(seeded: Stack) -> None:
    champion = seeded.json(layout.CHAMPION)
    report = seeded.json(layout.gate_report(champion["model"]))
    dataset = seeded.json(layout.dataset(champion["dataset"]))

    assert (champion["number"], champion["previous"]) == (1, "bootstrap-text")
    assert (report["verdict"], report["evaluation"]["records"]) == ("promote", 40)
    assert dataset["by_arm"] == {"imported": dataset["counts"]["train"]}
    assert dataset["counts"]["evaluation"] == 40  # evaluation_target, of about 60 of that role
    assert seeded.table("BUDGET") == []
    assert seeded.errors() == []
    assert {name: check.detail for name, check in check_invariants(seeded.ports()).items() if not check.ok} == {}


def test_the_champion_scores_the_pool_and_nothing_imported_is_asked(seeded: Stack) -> None:
    records = {record["id"]: record["role"] for record in seeded.lines(layout.RECORDS)}
    asked = {
        choice["id"] for item in seeded.table("BATCH") for choice in seeded.json(layout.plan(item["sk"]))["choices"]
    }

    assert set(seeded.scored(seeded.champion() or "")) == set(records)
    assert not {identity for identity in asked if records[identity] == "train"}
    assert {line["invoker"] for line in seeded.logged() if line.get("hop") == "collect_labels"} == {
        "queue winnow-collect <- aws.s3: Object Created"
    }


def test_the_same_drop_again_changes_nothing(seeded: Stack) -> None:
    before = seeded.json(layout.HEAD)

    seeded.drop("old/seeds.jsonl", rows(TEXTS))
    seeded.drop("again/seeds.jsonl", rows(TEXTS[:50]))
    seeded.cloud.advance(hours=1)

    assert seeded.json(layout.HEAD) == before
    assert json.dumps(seeded.executions("improve"), default=str).count('"SUCCEEDED"') == 1
    assert not seeded.dead_letters()
