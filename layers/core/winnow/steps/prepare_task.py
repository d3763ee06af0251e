"""Hop 5: what an annotator sees of one item, and the model's view only when the policy allows it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from winnow.errors import BadInput
from winnow.loop import Task
from winnow.metrics import Metric
from winnow.ports import Ports
from winnow.steps import Outcome
from winnow.tables import Cell, as_text

MISSING = "\N{EM DASH}"
"""What stands where a row says nothing."""


def prepare_task(line: Mapping[str, Any], ports: Ports) -> Outcome:
    """The task input of a manifest line. Arm, strategy, score and label are never shown: they would bias the answer.

    A row is shown as `row`, its columns in their order: `[{"name", "value"}]`, values as text.
    """
    task = ports.loop.task
    view: dict[str, Any] = {"title": task.title, "guideline": task.guideline, **_answers(task)}
    if "source-ref" not in line and "source" not in line:
        raise BadInput("a manifest line needs 'source' or 'source-ref'", code="malformed-manifest")
    if task.kind == "table":
        view["row"] = [{"name": name, "value": shown(cell)} for name, cell in _row(line, ports).items()]
    elif "source-ref" in line:
        view["image"] = line["source-ref"]
    else:
        view["text"] = line["source"]
    if task.show_prediction and "prediction" in line:
        view["prediction"] = shown(line["prediction"])
    return Outcome({"taskInput": view, "isHumanAnnotationRequired": True}, (Metric("TasksPrepared", 1),))


def _answers(task: Task) -> dict[str, Any]:
    """What may be answered: one of the classes, or a number of a unit between limits (absent where there is none)."""
    if task.type == "classification":
        return {"classes": list(task.classes)}
    limits = {"minimum": task.minimum, "maximum": task.maximum}
    return {"unit": task.unit, **{name: as_text(limit) for name, limit in limits.items() if limit is not None}}


def shown(cell: Cell) -> str:
    """A cell as people read it: numbers in their shortest form, a dash where nothing is known.

    >>> shown(39.0), shown(0.5), shown("Ulm"), shown(None)
    ('39', '0.5', 'Ulm', '\N{EM DASH}')
    """
    return MISSING if cell is None else as_text(float(cell) if isinstance(cell, int) else cell)


def _row(line: Mapping[str, Any], ports: Ports) -> dict[str, Cell]:
    """The row of a line: in it, or where it lies when it is too long for a manifest."""
    try:
        source = line["source"] if "source" in line else ports.data.get(ports.data.key_of(line["source-ref"]))
        row = json.loads(source)
    except (TypeError, ValueError) as error:
        raise BadInput(f"the row of a manifest line is not JSON: {error}", code="malformed-manifest") from error
    if not isinstance(row, dict):
        raise BadInput("the row of a manifest line is no JSON object", code="malformed-manifest")
    return row
