"""Hops 6 and 7: every answer ends in one label or in quarantine, and datasets form one line."""

from __future__ import annotations

import gzip
import io
import json
from dataclasses import replace
from decimal import Decimal

import numpy as np
from PIL import Image

from tests.fakes import every_fault
from tests.steps.test_selection_walk import ready
from tests.steps.walk import LOOP, ingest, jsonl, score_all, world
from winnow import layout
from winnow.ports import Answer, LabelingOutcome
from winnow.records import from_jsonl
from winnow.steps.batches import committed, reservations
from winnow.steps.collect_labels import collect_labels
from winnow.steps.consolidate_annotations import consolidate_annotations
from winnow.steps.select_batch import SelectRequest, select_batch


def labeled(ports, *, confidence=lambda place: 1.0, label=lambda place: "cat", skip=()):
    """Select a batch and let its job end with these results."""
    batch = select_batch(SelectRequest(), ports).body["batch"]
    finish(ports, batch, confidence=confidence, label=label, skip=skip)
    return batch


def finish(ports, batch, *, confidence=lambda place: 1.0, label=lambda place: "cat", skip=()):
    lines = from_jsonl(ports.data.objects[layout.manifest(batch)])
    ids = [line["candidate_id"] for line in lines]
    answered = [(place, identity) for place, identity in enumerate(ids) if place not in skip]
    ports.labeling.outcomes[batch] = LabelingOutcome(
        "completed", len(answered), len(ids),
        results={i: {"label": label(place), "confidence": confidence(place)} for place, i in answered},
        answers={i: (Answer("w1", label(place), 4.0, "2026-01-06T09:00:00Z"),) for place, i in answered},
    )  # fmt: skip
    return ids


def answers(**given):
    return [{"worker": worker, "label": label} for worker, label in given.items()]


def part(ports, version, role):
    return from_jsonl(gzip.decompress(ports.data.objects[layout.dataset_part(version, role)]))


def test_answers_become_one_label_each():
    ports = world()
    items = [
        {
            "object": "0",
            "answers": [{"worker": w, "label": label} for w, label in zip("abc", ["dog", "dog", "cat"], strict=True)],
        },
        {"object": "1", "answers": [{"worker": "a", "label": None}, {"worker": "b", "label": "bird"}]},
    ]

    labels = consolidate_annotations(items, ports).body["labels"]

    assert labels == [{"object": "0", "label": "dog", "confidence": 2 / 3}]


def test_a_known_spammer_weighs_less():
    ports = world("task: {classes: [cat, dog]}\nquality: {consensus: dawid_skene}")
    truth = ["cat", "dog"] * 10
    items = [
        {
            "object": f"{n:02}",
            "answers": [{"worker": "a", "label": t}, {"worker": "b", "label": t}, {"worker": "s", "label": "cat"}],
        }
        for n, t in enumerate(truth)
    ]

    labels = consolidate_annotations(items, ports).body["labels"]

    assert [label["label"] for label in labels] == truth
    assert min(label["confidence"] for label in labels) > 0.9


def test_a_collected_batch_is_a_dataset_and_starts_improve():
    ports = ready()
    batch = labeled(ports, label=lambda place: "dog" if place % 2 else "cat")

    body = collect_labels(batch, ports).body

    version = body["dataset"]
    assert body["labeled"] == 12
    assert ports.data.json(layout.HEAD)["version"] == version
    description = ports.data.json(layout.dataset(version))
    assert description["counts"] == {"train": 9, "evaluation": 3, "reward": 0}
    assert {line["arm"] for line in part(ports, version, "train")} == {"active", "control"}
    assert all("text" in line and line["batch"] == 1 for line in part(ports, version, "train"))
    assert ports.executions.started["improve", version] == {"dataset": version, "cause": "labels"}
    assert ports.table.get("BATCH", batch)["status"] == "collected"


def test_each_annotators_work_is_judged_and_a_careless_one_is_named():
    ports = ready(loop=LOOP.replace("size: 12", "size: 48"))
    batch = labeled(ports, label=lambda place: "dog" if place % 2 else "cat")
    job = ports.labeling.outcomes[batch]
    for task, (honest,) in job.answers.items():
        job.answers[task] = (honest, replace(honest, worker="w2"), replace(honest, worker="w3", label="cat"))

    metrics = {metric.name: metric.value for metric in collect_labels(batch, ports).metrics}

    rows = {row["worker"]: row for row in ports.table.query("ANNOTATOR")}
    assert {name: row["suspect"] for name, row in rows.items()} == {"w1": [], "w2": [], "w3": ["spam", "agreement"]}
    assert (rows["w1"]["agreement"], rows["w3"]["agreement"]) == (1.0, 0.5)
    assert metrics["AnnotatorsSuspected"] == 1
    assert 0.0 < metrics["AnnotatorAlpha"] < 1.0


def test_collecting_again_changes_nothing():
    ports = ready()
    batch = labeled(ports)
    collect_labels(batch, ports)
    objects, items = dict(ports.data.objects), dict(ports.table.items)

    assert collect_labels(batch, ports).body["skipped"] == "collected before"
    assert (ports.data.objects, ports.table.items) == (objects, items)


def test_a_running_job_and_a_foreign_job_are_left_alone():
    ports = ready()
    batch = select_batch(SelectRequest(), ports).body["batch"]

    assert "still runs" in collect_labels(batch, ports).body["skipped"]
    assert collect_labels("b000", ports).body["skipped"] == "no such batch"


def test_disputes_go_to_experts_whose_answer_counts():
    ports = ready()
    batch = labeled(ports, confidence=lambda place: 0.4 if place < 2 else 1.0)

    body = collect_labels(batch, ports).body

    assert (body["labeled"], body["disputed"]) == (10, 2)
    (experts,) = [item for item in ports.table.query("BATCH") if item["kind"] == "dispute"]
    assert committed(ports) == Decimal("3.60") + 2 * Decimal("0.50")
    finish(ports, experts["sk"], label=lambda place: "dog")
    second = collect_labels(experts["sk"], ports).body
    assert second["labeled"] == 2
    description = ports.data.json(layout.dataset(second["dataset"]))
    assert description["parent"] == body["dataset"]
    assert sum(description["counts"].values()) == 12
    assert {item["state"] for item in reservations(ports).values()} == {"labeled"}


def test_disputes_nobody_can_settle_are_quarantined_with_the_reason():
    without = ready()
    without.labeling.teams.discard("expert")
    broke = ready(loop=LOOP.replace("total_usd: 100", "total_usd: 4"))
    for ports, reason in ((without, "no expert team"), (broke, "budget")):
        batch = labeled(ports, confidence=lambda place: 0.4 if place == 0 else 1.0)

        body = collect_labels(batch, ports).body

        assert body["quarantined"] == 1
        (line,) = [
            line for line in from_jsonl(ports.data.objects[layout.labels(batch)]) if line["status"] == "quarantined"
        ]
        assert reason in line["reason"]


def test_unanswered_items_expire_and_foreign_classes_are_quarantined():
    ports = ready()
    batch = labeled(ports, skip=(0,), label=lambda place: "bird" if place == 1 else "cat")

    body = collect_labels(batch, ports).body

    assert (body["labeled"], body["expired"], body["quarantined"]) == (10, 1, 1)
    states = sorted(item["state"] for item in reservations(ports).values())
    assert states == ["expired"] + ["labeled"] * 10 + ["quarantined"]


def test_large_images_travel_inside_the_dataset():
    ports = world(LOOP.replace("kind: text", "kind: image").replace("min_size: 2", "min_size: 1"))
    ports.models.models["bootstrap-image"] = type(ports.models.models["bootstrap-text"])(
        ports.models.models["bootstrap-text"].card,
        lambda rows: ports.models.models["bootstrap-text"].predict([{"text": row["image"]["png"]} for row in rows]),
    )
    for seed in range(4):
        out = io.BytesIO()
        Image.fromarray(np.random.default_rng(seed).integers(0, 255, (220, 220), dtype=np.uint8)).save(out, "PNG")
        ingest(ports, ports.pool.drop(f"{seed}.png", out.getvalue()))
    score_all(ports)
    batch = labeled(ports)

    version = collect_labels(batch, ports).body["dataset"]

    lines = part(ports, version, "train") + part(ports, version, "evaluation")
    assert lines
    assert all(len(line["image"]["png"]) > 32 * 1024 for line in lines)


def reject(ports, version: str, *, model: str = "m-bad") -> None:
    """The gate looked at the challenger trained on this version and found it worse than the bootstrap champion."""
    ports.table.put("LOOK", "0001", {"model": model, "dataset": version})
    report = {
        "model": model,
        "dataset": version,
        "champion": "bootstrap-text",
        "verdict": "reject",
        "reasons": ["worse"],
    }
    ports.data.objects[layout.gate_report(model)] = json.dumps(report).encode()


def test_a_batch_whose_challenger_was_rejected_is_held_out_and_may_be_asked_again():
    ports = ready()
    poisoned = labeled(ports)
    first = collect_labels(poisoned, ports).body["dataset"]
    reject(ports, first)
    good = labeled(ports, label=lambda place: "dog")

    second = collect_labels(good, ports).body["dataset"]

    description = ports.data.json(layout.dataset(second))
    assert [entry["batch"] for entry in description["held_out"]] == [poisoned]
    assert {line["label"] for line in part(ports, second, "train")} == {"dog"}
    quarantined = from_jsonl(ports.data.objects[layout.quarantine(f"labels-{poisoned}")])
    assert len(quarantined) == 12
    assert {item["batch"] for item in reservations(ports).values()} == {good}


def test_a_batch_of_a_challenger_that_passed_is_no_suspect_though_its_rollout_failed():
    ports = ready()
    passed = labeled(ports)
    ports.table.put("LOOK", "0001", {"model": "m-good", "dataset": collect_labels(passed, ports).body["dataset"]})
    report = {
        "model": "m-good",
        "dataset": ports.table.query("LOOK")[0]["dataset"],
        "verdict": "promote",
        "reasons": [],
    }
    ports.data.objects[layout.gate_report("m-good")] = json.dumps({**report, "champion": "bootstrap-text"}).encode()
    poisoned = labeled(ports)
    second = collect_labels(poisoned, ports).body["dataset"]
    ports.table.put("LOOK", "0002", {"model": "m-bad", "dataset": second})
    report = {
        "model": "m-bad",
        "dataset": second,
        "verdict": "reject",
        "reasons": ["worse"],
        "champion": "bootstrap-text",
    }
    ports.data.objects[layout.gate_report("m-bad")] = json.dumps(report).encode()

    third = collect_labels(labeled(ports), ports).body["dataset"]

    assert [entry["batch"] for entry in ports.data.json(layout.dataset(third))["held_out"]] == [poisoned]


def test_a_look_without_a_report_yet_holds_nothing_out():
    ports = ready()
    first = labeled(ports)
    ports.table.put("LOOK", "0001", {"model": "m-busy", "dataset": collect_labels(first, ports).body["dataset"]})

    second = collect_labels(labeled(ports), ports).body["dataset"]

    assert ports.data.json(layout.dataset(second))["held_out"] == []


def test_every_fault_in_collecting_ends_in_the_same_dataset():
    def build():
        ports = ready(30)
        labeled(ports, confidence=lambda place: 0.4 if place == 0 else 1.0)
        return ports

    def act(ports):
        (batch,) = [item["sk"] for item in ports.table.query("BATCH") if item["kind"] == "select"]
        collect_labels(batch, ports)

    expected = build()
    act(expected)
    for what, ports in every_fault(build, act):
        assert ports.data.objects.keys() == expected.data.objects.keys(), what
        assert ports.data.objects[layout.HEAD] == expected.data.objects[layout.HEAD], what
        assert ports.table.items == expected.table.items, what
        assert ports.executions.started == expected.executions.started, what


def test_an_empty_line_of_text_never_reaches_the_pool():
    ports = world()

    assert ingest(ports, ports.pool.drop("a.jsonl", jsonl("a cat", " ")))["accepted"] == 1
