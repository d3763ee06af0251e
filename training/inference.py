"""Serves a trained package in SageMaker's scikit-learn container, or wherever these four functions are called.

Request: application/json {"instances": [{"text": ...} | {"image": base64} | {"row": {column: value}} | {column: value}]},
application/x-jsonlines with one instance a line, text/csv with a header, text/plain, image/png or image/jpeg. Response:
{"model": id, "predictions": [{"label", "confidence", "probabilities"}]}, probabilities in the order of model.json's
classes, or [{"prediction": number}] of a regression. A request that cannot be answered gets status 400 (415 or 406 for
another content type or accept) and {"error": reason}. The container's toolkit turns every exception into a 500, so a
refusal is not raised but handed on as a response.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent))

import vendored

vendored.provide()

from table_files import flat, read_delimited  # noqa: E402
from werkzeug.wrappers import Response  # noqa: E402

from winnow.errors import BadInput, BadModel  # noqa: E402
from winnow.models.package import ANY_MASKER, DECLARED, UNMASKED, ModelCard  # noqa: E402
from winnow.models.predictions import Predictions  # noqa: E402
from winnow.onnx.features import Payload, text_of  # noqa: E402
from winnow.onnx.runtime import OnnxModel  # noqa: E402
from winnow.privacy.masking import MASKER_VERSION, mask_row, mask_text  # noqa: E402
from winnow.steps.streams import Content  # noqa: E402
from winnow.tables import Cell, ColumnKind, cell, row  # noqa: E402

JSON, JSON_LINES, CSV, TEXT = "application/json", "application/x-jsonlines", "text/csv", "text/plain"
JSON_LINES_NAMES = (JSON_LINES, "application/jsonlines", "application/jsonl")
IMAGES = ("image/png", "image/jpeg")
MAX_INSTANCES = 10_000


class CsvLine(dict[str, Any]):
    """A line of a CSV request, with what makes cells of its texts, which have no types unlike a JSON instance's values."""

    def __init__(self, values: dict[str, Any], read: Callable[..., Cell]) -> None:
        super().__init__(values)
        self.read = read


def model_fn(model_dir: str) -> OnnxModel:
    """Load the package; raises `BadModel` when it was trained behind another masker than the one here."""
    model = OnnxModel.load(model_dir)
    if model.card.kind != "image" and model.card.masker not in (MASKER_VERSION, UNMASKED, ANY_MASKER):
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
    if kind not in (JSON, CSV, TEXT, *JSON_LINES_NAMES):
        known = ", ".join((JSON, JSON_LINES, CSV, TEXT, *IMAGES))
        return _refusal(415, f"content type {content_type!r} is not served; send one of {known}")
    try:
        if kind == CSV:
            table = read_delimited(Content(data, limit=len(data)), say=lambda _fact: None)
            if table.problems:
                raise ValueError(table.problems[0])
            return _checked([CsvLine(values, table.cell) for values in table.rows])
        text = data.decode("utf-8-sig")
        if kind == TEXT:
            return [text]
        if kind == JSON:
            request = json.loads(text)
            return _checked(request.get("instances") if isinstance(request, dict) else None)
        return _checked([json.loads(line) for line in text.split("\n") if line.strip()])
    except (BadInput, ValueError, RecursionError) as error:
        return _refusal(400, f"the body is not {kind} as it should be: {error}")


def predict_fn(payloads: list[Payload] | Response, model: OnnxModel) -> dict[str, Any] | Response:
    """What the model says of every payload, or the refusal; text is masked first, as in training."""
    if isinstance(payloads, Response):
        return payloads
    card = model.card
    try:
        if card.kind == "table":
            payloads = [{"row": cells} for cells in _rows(payloads, card)]
        elif card.kind == "text" and card.masker != UNMASKED:
            payloads = [mask_text(text_of(payload))[0] for payload in payloads]
        predictions = model.predict(payloads)
    except BadInput as error:
        return _refusal(400, str(error))
    return {"model": card.model, "predictions": _answers(predictions, card)}


def _answers(predictions: Predictions, card: ModelCard) -> list[dict[str, Any]]:
    if predictions.prediction is not None:
        # The shortest text that is this float32: 0.1 and not 0.10000000149.
        return [{"prediction": float(str(number))} for number in predictions.prediction]
    return [
        {
            "label": card.classes[int(values.argmax())],
            "confidence": round(float(values.max()), 6),
            "probabilities": [round(value, 6) for value in values.tolist()],
        }
        for values in predictions.probabilities
    ]


def _rows(payloads: list[Payload], card: ModelCard) -> list[dict[str, Cell]]:
    """Canonical rows, as ingest makes them of the same values; `BadInput` names the instance."""
    declared: dict[str, ColumnKind] = {}
    if any(item.form == DECLARED for item in card.payloads):
        declared = {item.source: item.kind for item in card.payloads}  # type: ignore[misc]
    rows = []
    for number, payload in enumerate(payloads):
        if not isinstance(payload, dict):
            raise BadInput(
                'a table model needs rows: send {"row": {column: value}} or CSV with a header', code="no-row"
            )
        try:
            cells = row(flat(payload), columns=declared, read=payload.read if isinstance(payload, CsvLine) else cell)
        except BadInput as error:
            raise BadInput(f"instance {number}: {error}", code=error.code) from error
        rows.append(cells if card.masker == UNMASKED else mask_row(cells)[0])
    return rows


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
            raise ValueError(
                f'instance {number} is no object; send {{"text": ...}}, {{"image": base64}} or {{"row": {{...}}}}'
            )
    return instances


def _refusal(status: int, reason: str) -> Response:
    return Response(json.dumps({"error": reason}, ensure_ascii=False), status=status, mimetype=JSON)
