"""Hop 6: all answers to some items become one label and its confidence each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from winnow.labels.answers import Answers
from winnow.labels.consensus import dawid_skene, majority_vote
from winnow.metrics import Metric
from winnow.ports import Ports
from winnow.steps import Outcome


def consolidate_annotations(items: Sequence[Mapping[str, Any]], ports: Ports) -> Outcome:
    """`[{"object", "answers": [{"worker", "label"}]}]` → `{"labels": [{"object", "label", "confidence"}]}`.

    An item without a usable answer is left out, which the backend records as failed. Answers that are no class of the
    task are not counted; collecting the labels sees them again and says so.
    """
    classes = ports.loop.task.classes
    rows = [
        (str(item["object"]), str(answer["worker"]), str(answer["label"]))
        for item in items
        for answer in item["answers"]
        if answer["label"] in classes
    ]
    answers = Answers.of(rows, classes=classes)
    skilled = ports.loop.quality.consensus == "dawid_skene"
    decided = dawid_skene(answers).consensus() if skilled else majority_vote(answers)
    labels = [
        {"object": task, "label": classes[label], "confidence": float(confidence)}
        for task, label, confidence in zip(answers.tasks, decided.labels, decided.confidence, strict=True)
    ]
    return Outcome({"labels": labels}, (Metric("TasksConsolidated", len(labels)),))
