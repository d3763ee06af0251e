"""Reading SageMaker's data capture: what an application sent to the endpoint and what the endpoint answered."""

from __future__ import annotations

import base64
import binascii
import csv
import io
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from winnow.errors import BadInput
from winnow.records import Kind

_JSON_LINES = ("application/x-jsonlines", "application/jsonlines", "application/jsonl")


@dataclass(frozen=True)
class Served:
    """One prediction the endpoint gave: `payload` is `{"text": ...}` or `{"image": base64}`, as it was sent."""

    id: str
    model: str
    label: str
    confidence: float
    payload: Mapping[str, str]
    at: str | None


@dataclass(frozen=True)
class Refused:
    """A captured request that cannot be read, with its line (from 1) and the reason."""

    line: int
    problem: BadInput


def served(data: bytes, *, kind: Kind, classes: Sequence[str]) -> Iterator[Served | Refused]:
    """Every prediction in a capture file, in order; a line that cannot be used becomes a `Refused`."""
    for number, line in enumerate(data.split(b"\n"), start=1):
        if line.strip():
            try:
                yield from _predictions(line, kind=kind, classes=classes)
            except BadInput as problem:
                yield Refused(number, problem)


def _predictions(line: bytes, *, kind: Kind, classes: Sequence[str]) -> list[Served]:
    """All predictions of one request, or BadInput for the whole of it: half an answer would be counted wrongly."""
    try:
        event = json.loads(line)
        captured, about = event["captureData"], event["eventMetadata"]
        payloads = _payloads(*_body(captured["endpointInput"]), kind=kind)
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
    for number, (payload, prediction) in enumerate(zip(payloads, predictions, strict=True)):
        label, confidence = _prediction(prediction, classes)
        name = request if len(payloads) == 1 else f"{request}.{number}"
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


def _payloads(body: bytes, media: str, *, kind: Kind) -> list[dict[str, str]]:
    """The instances of a request body, for every media type the endpoint accepts."""
    if media.startswith("image/"):
        return [_payload({"image": base64.b64encode(body).decode()}, kind=kind)]
    text = _utf8(body)
    if media == "application/json":
        return [_payload(instance, kind=kind) for instance in json.loads(text)["instances"]]
    if media in _JSON_LINES:
        return [_payload(json.loads(line), kind=kind) for line in text.split("\n") if line.strip()]
    if media == "text/csv":
        return [_payload({"text": row[0]}, kind=kind) for row in csv.reader(io.StringIO(text)) if row]
    if media == "text/plain":
        return [_payload({"text": text}, kind=kind)]
    raise BadInput(f"content type {media!r} is not one the endpoint accepts", code="unknown-format")


def _utf8(body: bytes) -> str:
    try:
        return body.decode("utf-8")
    except UnicodeDecodeError as error:
        raise BadInput(f"captured data is not UTF-8 (byte {error.start})", code="encoding") from error


def _payload(instance: Any, *, kind: Kind) -> dict[str, str]:
    value = instance.get(kind) if isinstance(instance, dict) else None
    if not isinstance(value, str):
        raise BadInput(f"an instance needs a string under {kind!r}", code="missing-payload")
    return {kind: value}


def _prediction(prediction: Any, classes: Sequence[str]) -> tuple[str, float]:
    try:
        label, confidence = prediction["label"], float(prediction["confidence"])
    except (KeyError, TypeError, ValueError) as error:
        raise BadInput(f"a prediction needs label and confidence: {error!r}", code="malformed-answer") from error
    if label not in classes:
        raise BadInput(f"the answer {label!r} is none of the classes", code="unknown-class")
    if not 0.0 <= confidence <= 1.0:
        raise BadInput(f"confidence {confidence!r} is outside [0, 1]", code="malformed-answer")
    return label, confidence
