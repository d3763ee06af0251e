"""Takes a judgement from an application's user: was this served prediction right?"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

from winnow import layout
from winnow.errors import BadInput, NotFound
from winnow.metrics import Metric
from winnow.ports import Ports
from winnow.privacy.masking import mask_text
from winnow.steps import Outcome

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
"""Inference ids (at most 64 characters at SageMaker, plus our numbering of instances) and model ids; safe in a key."""

_FIELDS = {"inference_id", "label", "prediction", "model", "input"}


def receive_feedback(request: Mapping[str, Any], ports: Ports) -> Outcome:
    """`{"inference_id", "label", "prediction", "model"}`, optionally `"input"` → `{"status": "stored" | "duplicate"}`.

    The first judgement of an inference counts; later ones are acknowledged and change nothing. Raises BadInput.
    """
    classes = ports.loop.task.classes
    unknown = sorted(set(request) - _FIELDS)
    if unknown:
        raise BadInput(f"unknown fields {unknown}; known are {sorted(_FIELDS)}", code="unknown-field")
    inference, model = _name(request, "inference_id"), _name(request, "model")
    label, prediction = _class(request, "label", classes), _class(request, "prediction", classes)
    key = layout.feedback(inference)
    correct = label == prediction
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


def _class(request: Mapping[str, Any], field: str, classes: tuple[str, ...]) -> str:
    value = request.get(field)
    if value not in classes:
        raise BadInput(f"{field!r} must be one of the classes {list(classes)}", code=f"unknown-{field}")
    return str(value)


def _input(value: Any, ports: Ports) -> dict[str, str]:
    kind, limits = ports.loop.task.kind, ports.loop.limits
    payload = value.get(kind) if isinstance(value, dict) and set(value) == {kind} else None
    if not isinstance(payload, str):
        raise BadInput(f"'input' must be an object with a string under {kind!r} and nothing else", code="bad-input")
    if kind == "text":
        if len(payload) > limits.max_text_chars:
            raise BadInput(f"'input' is longer than {limits.max_text_chars} characters", code="oversized")
        return {"text": mask_text(payload)[0] if ports.loop.privacy.mask else payload}
    return {"image": payload}
