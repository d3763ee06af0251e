"""Hop 6: all answers to some items become one label and its confidence each."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from typing import Any

from winnow.errors import BadInput
from winnow.labels.answers import Answers
from winnow.labels.consensus import dawid_skene, majority_vote
from winnow.labels.numbers import NumericAnswers, number
from winnow.labels.numeric_consensus import median, weighted_mean
from winnow.loop import Task
from winnow.metrics import Metric
from winnow.ports import Ports
from winnow.steps import Outcome


def consolidate_annotations(items: Sequence[Mapping[str, Any]], ports: Ports) -> Outcome:
    """`[{"object", "answers": [{"worker", "label"}]}]` → `{"labels": [{"object", "label", "confidence"}]}`.

    An item without a usable answer is left out, which the backend records as failed. Answers that are no class of the
    task, or no number within its limits, are not counted; collecting the labels sees them again and says so.
    """
    decide = _numbers if ports.loop.task.type == "regression" else _classes
    labels = [
        {"object": task, "label": label, "confidence": float(confidence)}
        for task, label, confidence in decide(items, ports)
    ]
    return Outcome({"labels": labels}, (Metric("TasksConsolidated", len(labels)),))


def _classes(items: Sequence[Mapping[str, Any]], ports: Ports) -> Iterator[tuple[str, str, float]]:
    classes = ports.loop.task.classes
    rows = [(task, worker, str(label)) for task, worker, label in _given(items) if label in classes]
    answers = Answers.of(rows, classes=classes)
    skilled = ports.loop.quality.consensus == "dawid_skene"
    decided = dawid_skene(answers).consensus() if skilled else majority_vote(answers)
    named = [classes[label] for label in decided.labels]
    return zip(answers.tasks, named, decided.confidence, strict=True)


def _numbers(items: Sequence[Mapping[str, Any]], ports: Ports) -> Iterator[tuple[str, float, float]]:
    task = ports.loop.task
    answers = NumericAnswers.of(_readable(items, task))
    if ports.loop.quality.consensus == "weighted_mean":
        decided = weighted_mean(answers).consensus(answers, tolerance=task.tolerance)
    else:
        decided = median(answers, tolerance=task.tolerance)
    return zip(answers.tasks, decided.values.tolist(), decided.confidence, strict=True)


def _readable(items: Sequence[Mapping[str, Any]], task: Task) -> Iterator[tuple[str, str, float]]:
    for item, worker, answer in _given(items):
        with suppress(BadInput):
            yield item, worker, number(answer, minimum=task.minimum, maximum=task.maximum)


def _given(items: Sequence[Mapping[str, Any]]) -> Iterator[tuple[str, str, Any]]:
    for item in items:
        for answer in item["answers"]:
            yield str(item["object"]), str(answer["worker"]), answer["label"]
