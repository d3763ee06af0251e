"""Reading SageMaker's data capture: what an application sent to the endpoint and what the endpoint answered."""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from winnow.errors import BadInput
from winnow.labels.numbers import number
from winnow.loop import Task
from winnow.steps.delimited import sheet
from winnow.steps.streams import Content
from winnow.tables import Cell, cell, column_names, row, text_cell

MOST_COLUMNS = 10_000
"""As many as `task.columns` may name."""

_JSON_LINES = ("application/x-jsonlines", "application/jsonlines", "application/jsonl")


@dataclass(frozen=True)
class Served:
    """One prediction the endpoint gave.

    `payload` is `{"text": ...}` or `{"image": base64}` as it was sent, or `{"row": ...}` with canonical cells. A regression's
    `label` is a number, and has no `confidence`.
    """

    id: str
    model: str
    label: str | float
    confidence: float | None
    payload: Mapping[str, Any]
    at: str | None


@dataclass(frozen=True)
class Refused:
    """A captured request that cannot be read, with its line (from 1) and the reason."""

    line: int
    problem: BadInput


def served(data: bytes, *, task: Task) -> Iterator[Served | Refused]:
    """Every prediction in a capture file, in order; a line that cannot be used becomes a `Refused`."""
    for place, line in enumerate(data.split(b"\n"), start=1):
        if line.strip():
            try:
                yield from _predictions(line, task)
            except BadInput as problem:
                yield Refused(place, problem)


def _predictions(line: bytes, task: Task) -> list[Served]:
    """All predictions of one request, or BadInput for the whole of it: half an answer would be counted wrongly."""
    try:
        event = json.loads(line)
        captured, about = event["captureData"], event["eventMetadata"]
        payloads = _payloads(*_body(captured["endpointInput"]), task=task)
        model, predictions = _answer(*_body(captured["endpointOutput"]))
        request = str(about.get("inferenceId") or about["eventId"])
    except (KeyError, TypeError, AttributeError) as error:
        raise BadInput(
            f"the captured request lacks what a capture holds: {error!r}", code="malformed-capture"
        ) from error
    except (ValueError, RecursionError) as error:
        raise BadInput(f"the captured request is not JSON: {error}", code="malformed-capture") from error
    if not isinstance(model, str) or not isinstance(predictions, list) or len(predictions) != len(payloads):
        raise BadInput(f"the answer holds no prediction for each of {len(payloads)} instances", code="malformed-answer")
    found = []
    for place, (payload, prediction) in enumerate(zip(payloads, predictions, strict=True)):
        label, confidence = _prediction(prediction, task)
        name = request if len(payloads) == 1 else f"{request}.{place}"
        found.append(Served(name[:256], model, label, confidence, payload, about.get("inferenceTime")))
    return found


def _body(side: Mapping[str, Any]) -> tuple[bytes, str]:
    """Bytes and media type of one side of a request, whatever encoding the capture chose for it."""
    data, encoding = side["data"], side["encoding"]
    media = str(side.get("observedContentType") or "").partition(";")[0].strip().lower()
    if encoding == "BASE64":
        try:
            return base64.b64decode(data, validate=True), media
        except (binascii.Error, ValueError) as error:
            raise BadInput(f"captured data is not base64: {error}", code="malformed-capture") from error
    if encoding not in ("CSV", "JSON"):
        raise BadInput(f"capture encoding {encoding!r} is unknown", code="malformed-capture")
    return str(data).encode(), media


def _answer(body: bytes, media: str) -> tuple[Any, Any]:
    """Model and predictions of a response: one JSON object, or a line a prediction when the caller asked for that."""
    if media in _JSON_LINES:
        rows = [json.loads(line) for line in _utf8(body).split("\n") if line.strip()]
        return (rows[0]["model"] if rows else None), rows
    answer = json.loads(body)
    return answer["model"], answer["predictions"]


def _payloads(body: bytes, media: str, *, task: Task) -> list[dict[str, Any]]:
    """The instances of a request body, for every media type the endpoint accepts."""
    if media.startswith("image/"):
        return [_payload({"image": base64.b64encode(body).decode()}, task)]
    if media == "text/csv":
        return [_payload(instance, task, read=text_cell) for instance in _csv(body)]
    text = _utf8(body)
    if media == "application/json":
        return [_payload(instance, task) for instance in json.loads(text)["instances"]]
    if media in _JSON_LINES:
        return [_payload(json.loads(line), task) for line in text.split("\n") if line.strip()]
    if media == "text/plain":
        return [_payload({"text": text}, task)]
    raise BadInput(f"content type {media!r} is not one the endpoint accepts", code="unknown-format")


def _csv(body: bytes) -> Iterator[dict[str, str]]:
    """The lines below the header, by column."""
    limit = len(body) + 1
    found, dialect = sheet(
        Content(body, limit=limit), key="the request", longest=limit, most=limit, say=lambda fact: None
    )
    names = column_names(found.header, where="the request", most=MOST_COLUMNS)
    for _, cells in found.records:
        if isinstance(cells, BadInput):
            raise cells
        yield dict(zip(names, map(dialect.plain, cells), strict=True))


def _utf8(body: bytes) -> str:
    try:
        return body.decode("utf-8")
    except UnicodeDecodeError as error:
        raise BadInput(f"captured data is not UTF-8 (byte {error.start})", code="encoding") from error


def _payload(instance: Any, task: Task, *, read: Callable[..., Cell] = cell) -> dict[str, Any]:
    if task.kind == "table":
        inner = instance.get("row", instance) if isinstance(instance, dict) else None
        if not isinstance(inner, dict) or not inner:
            raise BadInput("an instance needs a row: values by column, alone or under 'row'", code="missing-payload")
        return {"row": row(inner, columns=task.columns, read=read)}
    value = instance.get(task.kind) if isinstance(instance, dict) else None
    if not isinstance(value, str):
        raise BadInput(f"an instance needs a string under {task.kind!r}", code="missing-payload")
    return {task.kind: value}


def _prediction(prediction: Any, task: Task) -> tuple[str | float, float | None]:
    if task.type == "regression":
        answer = prediction.get("prediction") if isinstance(prediction, dict) else None
        if isinstance(answer, bool) or not isinstance(answer, int | float):
            raise BadInput(
                f"a prediction needs a number under 'prediction', not {answer!r:.40}", code="malformed-answer"
            )
        return number(answer), None
    try:
        label, confidence = prediction["label"], float(prediction["confidence"])
    except (KeyError, TypeError, ValueError) as error:
        raise BadInput(f"a prediction needs label and confidence: {error!r}", code="malformed-answer") from error
    if label not in task.classes:
        raise BadInput(f"the answer {label!r} is none of the classes", code="unknown-class")
    if not 0.0 <= confidence <= 1.0:
        raise BadInput(f"confidence {confidence!r} is outside [0, 1]", code="malformed-answer")
    return label, confidence
