"""Hop 5: what an annotator sees of one item, and the model's view only when the policy allows it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from winnow.errors import BadInput
from winnow.metrics import Metric
from winnow.ports import Ports
from winnow.steps import Outcome


def prepare_task(line: Mapping[str, Any], ports: Ports) -> Outcome:
    """The task input of a manifest line. Arm, strategy, score and label are never shown: they would bias the answer."""
    task = ports.loop.task
    view: dict[str, Any] = {"classes": list(task.classes), "title": task.title, "guideline": task.guideline}
    if "source-ref" in line:
        view["image"] = line["source-ref"]
    elif "source" in line:
        view["text"] = line["source"]
    else:
        raise BadInput("a manifest line needs 'source' or 'source-ref'", code="malformed-manifest")
    if task.show_prediction and "prediction" in line:
        view["prediction"] = line["prediction"]
    return Outcome({"taskInput": view, "isHumanAnnotationRequired": True}, (Metric("TasksPrepared", 1),))
