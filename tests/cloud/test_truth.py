"""Only the annotators know the truth: scrambled everywhere else, it changes nothing about what is asked."""

from __future__ import annotations

import json
import random
from typing import Any

import pytest

from tests.cloud.stack import CLASSES, Stack, deployed, sentences, text_truth
from winnow import layout

pytestmark = pytest.mark.cloud

TEXTS = sentences(160)
TRUE = [text_truth({"text": text}) for text in TEXTS]


def dropped(labels: list[str]) -> bytes:
    """The pool object with a truth column in every place where a user might have one; `label` is a seed label, not truth."""
    rows = [
        {"text": text, "truth": label, "class": label, "target": CLASSES.index(label), "answer": {"label": label}}
        for text, label in zip(TEXTS, labels, strict=True)
    ]
    return b"".join(json.dumps(row).encode() + b"\n" for row in rows)


def first_round(labels: list[str]) -> tuple[list[dict[str, Any]], dict[str, str]]:
    """What was asked in the first batch, in order and with reasons, and the label each item got."""
    with deployed() as stack:
        stack.employ()
        stack.drop("reviews.jsonl", dropped(labels))
        assert stack.cloud.run(condition=lambda: collected(stack), limit_days=5)
        (batch,) = stack.table("BATCH")
        texts = {record["id"]: record["text"] for record in stack.lines(layout.RECORDS)}
        choices = [
            {name: value for name, value in choice.items() if name not in ("oid", "records")}
            for choice in stack.json(layout.plan(batch["sk"]))["choices"]
        ]
        return choices, {texts[label["id"]]: label["label"] for label in stack.lines(layout.labels(batch["sk"]))}


def collected(stack: Stack) -> bool:
    return [batch["status"] for batch in stack.table("BATCH")] == ["collected"]


def test_scrambling_the_truth_everywhere_but_with_the_annotators_changes_no_choice() -> None:
    scrambled = TRUE.copy()
    random.Random(1).shuffle(scrambled)
    assert sum(a != b for a, b in zip(TRUE, scrambled, strict=True)) > 40

    honest, labels = first_round(TRUE)
    blind, labels_of_the_blind = first_round(scrambled)

    assert len(honest) >= 50
    assert blind == honest
    assert labels_of_the_blind == labels == {text: text_truth({"text": text}) for text in labels}


def test_no_artifact_before_the_answers_holds_the_truth() -> None:
    with deployed() as stack:
        stack.employ()
        marked = [{"text": text, "truth": "truth-of-this-row"} for text in TEXTS]
        stack.drop("reviews.jsonl", b"".join(json.dumps(row).encode() + b"\n" for row in marked))
        assert stack.cloud.run(condition=lambda: bool(stack.table("BATCH")), limit_days=1)

        for prefix in (layout.RECORDS, layout.OCCURRENCES, "batches/"):
            rows = [row for key in stack.keys(prefix) if "jsonl" in key for row in stack.lines(key)]
            assert rows
            assert "truth-of-this-row" not in json.dumps(rows)
        assert not any("truth-of-this-row" in json.dumps(line, default=str) for line in stack.logged())
