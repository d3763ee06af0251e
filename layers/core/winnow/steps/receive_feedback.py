"""Takes a judgement from an application's user: was this served prediction right?"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

from winnow import layout
from winnow.errors import BadInput, NotFound
from winnow.labels.numbers import agree, number
from winnow.loop import Task
from winnow.metrics import Metric
from winnow.ports import Ports
from winnow.privacy.masking import mask_row, mask_text
from winnow.steps import Outcome
from winnow.tables import row

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
"""Inference ids (at most 64 characters at SageMaker, plus our numbering of instances) and model ids; safe in a key."""

_FIELDS = {"inference_id", "label", "prediction", "model", "input"}


def receive_feedback(request: Mapping[str, Any], ports: Ports) -> Outcome:
    """`{"inference_id", "label", "prediction", "model"}`, optionally `"input"` → `{"status": "stored" | "duplicate"}`.

    `label` and `prediction` are classes; of a regression numbers, and the prediction was right when they agree within
    `task.tolerance`. The first judgement of an inference counts; later ones are acknowledged and change nothing. Raises
    BadInput.
    """
    task = ports.loop.task
    unknown = sorted(set(request) - _FIELDS)
    if unknown:
        raise BadInput(f"unknown fields {unknown}; known are {sorted(_FIELDS)}", code="unknown-field")
    inference, model = _name(request, "inference_id"), _name(request, "model")
    label, prediction = _answer(request, "label", task), _answer(request, "prediction", task)
    key = layout.feedback(inference)
    correct = _is_right(prediction, label, task)
    body: dict[str, Any] = {
        "format": 1, "inference_id": inference, "model": model, "label": label, "prediction": prediction,
        "correct": correct, "at": ports.clock.now().isoformat(),
    }  # fmt: skip
    if "input" in request:
        body["input"] = _input(request["input"], ports)
    try:
        kept = json.loads(ports.data.get(key))
        return Outcome({"status": "duplicate", "inference_id": inference, "label": kept["label"]})
    except NotFound:
        pass
    if not ports.data.put_new(key, json.dumps(body, ensure_ascii=False).encode()):
        return Outcome({"status": "duplicate", "inference_id": inference})
    return Outcome(
        {"status": "stored", "inference_id": inference, "correct": correct},
        (Metric("FeedbackReceived", 1), Metric("ServedCorrect", 100.0 * correct, {"Model": model})),
    )


def _name(request: Mapping[str, Any], field: str) -> str:
    value = request.get(field)
    if not isinstance(value, str) or not _NAME.fullmatch(value):
        raise BadInput(
            f"{field!r} must be 1 to 128 letters, digits, dots, underscores or hyphens, beginning with a letter or digit",
            code=f"bad-{field.replace('_', '-')}",
        )
    return value


def _answer(request: Mapping[str, Any], field: str, task: Task) -> str | float:
    """A class of the task, or a number: what users judge lies within the task's limits, what a model predicted may not."""
    value = request.get(field)
    if task.type == "classification":
        if value not in task.classes:
            raise BadInput(f"{field!r} must be one of the classes {list(task.classes)}", code=f"unknown-{field}")
        return str(value)
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise BadInput(f"{field!r} must be a number", code="no-number")
    limits = {"minimum": task.minimum, "maximum": task.maximum} if field == "label" else {}
    try:
        return number(value, **limits)
    except BadInput as problem:
        raise BadInput(f"{field!r}: {problem}", code=problem.code) from problem


def _is_right(prediction: str | float, label: str | float, task: Task) -> bool:
    if task.type == "regression":
        return bool(agree(prediction, label, tolerance=task.tolerance))
    return prediction == label


def _input(value: Any, ports: Ports) -> dict[str, Any]:
    kind, limits = ports.loop.task.kind, ports.loop.limits
    if kind == "table":
        return {"row": _input_row(value, ports)}
    payload = value.get(kind) if isinstance(value, dict) and set(value) == {kind} else None
    if not isinstance(payload, str):
        raise BadInput(f"'input' must be an object with a string under {kind!r} and nothing else", code="bad-input")
    if kind == "text":
        if len(payload) > limits.max_text_chars:
            raise BadInput(f"'input' is longer than {limits.max_text_chars} characters", code="oversized")
        return {"text": mask_text(payload)[0] if ports.loop.privacy.mask else payload}
    return {"image": payload}


def _input_row(value: Any, ports: Ports) -> dict[str, Any]:
    limits = ports.loop.limits
    given = value.get("row") if isinstance(value, dict) and set(value) == {"row"} else None
    if not isinstance(given, dict) or not given:
        raise BadInput("'input' must be an object with values by column under 'row' and nothing else", code="bad-input")
    if len(given) > limits.max_columns:
        raise BadInput(f"'input' has more than {limits.max_columns} columns", code="oversized")
    cells = row(given, columns=ports.loop.task.columns)
    for name, cell in cells.items():
        if isinstance(cell, str) and len(cell) > limits.max_cell_chars:
            raise BadInput(
                f"'input': column {name!r} is longer than {limits.max_cell_chars} characters", code="oversized"
            )
    return mask_row(cells)[0] if ports.loop.privacy.mask else cells
