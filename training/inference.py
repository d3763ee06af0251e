"""Serves a trained package in SageMaker's scikit-learn container, or wherever these four functions are called.

Request: application/json {"instances": [{"text": ...} | {"image": base64}]}, application/x-jsonlines with one instance
a line, text/plain, image/png or image/jpeg. Response: {"model": id, "predictions": [{"label", "confidence",
"probabilities"}]}, probabilities in the order of model.json's classes. A request that cannot be answered gets status
400 (415 or 406 for another content type or accept) and {"error": reason}. The container's toolkit turns every exception
into a 500, so a refusal is not raised but handed on as a response.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent))

import vendored

vendored.provide()

from werkzeug.wrappers import Response  # noqa: E402

from winnow.errors import BadInput, BadModel  # noqa: E402
from winnow.models.package import ANY_MASKER, UNMASKED  # noqa: E402
from winnow.onnx.features import Payload, text_of  # noqa: E402
from winnow.onnx.runtime import OnnxModel  # noqa: E402
from winnow.privacy.masking import MASKER_VERSION, mask_text  # noqa: E402

JSON, JSON_LINES, TEXT = "application/json", "application/x-jsonlines", "text/plain"
JSON_LINES_NAMES = (JSON_LINES, "application/jsonlines", "application/jsonl")
IMAGES = ("image/png", "image/jpeg")
MAX_INSTANCES = 10_000


def model_fn(model_dir: str) -> OnnxModel:
    """Load the package; raises `BadModel` when it was trained behind another masker than the one here."""
    model = OnnxModel.load(model_dir)
    if model.card.kind == "text" and model.card.masker not in (MASKER_VERSION, UNMASKED, ANY_MASKER):
        raise BadModel(
            f"masker is {model.card.masker!r} and this code has version {MASKER_VERSION!r}: train again, so that the "
            "endpoint masks as training did"
        )
    return model


def input_fn(body: bytes | str, content_type: str) -> list[Payload] | Response:
    """The request's payloads, texts and encoded images; or the refusal."""
    kind = (content_type or JSON).split(";")[0].strip().lower()
    data = body.encode() if isinstance(body, str) else bytes(body)
    if kind in IMAGES:
        return [data]
    if kind not in (JSON, TEXT, *JSON_LINES_NAMES):
        known = ", ".join((JSON, JSON_LINES, TEXT, *IMAGES))
        return _refusal(415, f"content type {content_type!r} is not served; send one of {known}")
    try:
        text = data.decode("utf-8-sig")
        if kind == TEXT:
            return [text]
        if kind == JSON:
            request = json.loads(text)
            return _checked(request.get("instances") if isinstance(request, dict) else None)
        return _checked([json.loads(line) for line in text.split("\n") if line.strip()])
    except (ValueError, RecursionError) as error:
        return _refusal(400, f"the body is not {kind} as it should be: {error}")


def predict_fn(payloads: list[Payload] | Response, model: OnnxModel) -> dict[str, Any] | Response:
    """Label, confidence and probabilities of every payload, or the refusal; text is masked first, as in training."""
    if isinstance(payloads, Response):
        return payloads
    try:
        if model.card.kind == "text" and model.card.masker != UNMASKED:
            payloads = [mask_text(text_of(payload))[0] for payload in payloads]
        rows = model.predict(payloads).probabilities
    except BadInput as error:
        return _refusal(400, str(error))
    classes = model.card.classes
    return {
        "model": model.card.model,
        "predictions": [
            {
                "label": classes[int(row.argmax())],
                "confidence": round(float(row.max()), 6),
                "probabilities": [round(value, 6) for value in row.tolist()],
            }
            for row in rows
        ],
    }


def output_fn(prediction: dict[str, Any] | Response, accept: str) -> tuple[str, str] | Response:
    """The response body and its content type: JSON, or one JSON line a prediction when that is asked for."""
    if isinstance(prediction, Response):
        return prediction
    wanted = [part.split(";")[0].strip().lower() for part in (accept or "*/*").split(",")]
    if any(name in JSON_LINES_NAMES for name in wanted):
        lines = [{"model": prediction["model"], **row} for row in prediction["predictions"]]
        return "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines), JSON_LINES
    if any(name in ("*/*", "application/*", "", JSON) for name in wanted):
        return json.dumps(prediction, ensure_ascii=False), JSON
    return _refusal(406, f"accept {accept!r} is not served; ask for {JSON} or {JSON_LINES}")


def _checked(instances: Any) -> list[Payload]:
    if not isinstance(instances, list) or not instances:
        raise ValueError('it must hold {"instances": [...]} with at least one instance')
    if len(instances) > MAX_INSTANCES:
        raise ValueError(f"it holds {len(instances)} instances; send at most {MAX_INSTANCES}")
    for number, instance in enumerate(instances):
        if not isinstance(instance, dict):
            raise ValueError(f'instance {number} is no object; send {{"text": ...}} or {{"image": base64}}')
    return instances


def _refusal(status: int, reason: str) -> Response:
    return Response(json.dumps({"error": reason}, ensure_ascii=False), status=status, mimetype=JSON)
