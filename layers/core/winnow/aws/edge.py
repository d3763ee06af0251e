"""What every handler shares: who called, one structured log line, metrics as EMF, partial batch answers.

A function's module can be imported only inside a Lambda worker: nothing else may reach a hop but through what AWS carries.
"""

from __future__ import annotations

import base64
import json
import os
from collections.abc import Callable, Container, Iterable, Mapping
from typing import Any

from aws_lambda_powertools import Logger, Tracer
from aws_lambda_powertools.metrics import EphemeralMetrics

from winnow.aws.events import invoker
from winnow.aws.settings import Settings
from winnow.errors import BadInput, WinnowError
from winnow.metrics import CATALOGUE, NAMESPACE, Metric
from winnow.steps import Outcome

if "AWS_LAMBDA_FUNCTION_NAME" not in os.environ:
    raise ImportError("functions run in a Lambda worker only; call the step in winnow.steps, or start the local cloud")

JsonDict = dict[str, Any]


def hop(name: str) -> Callable[[Callable[[JsonDict], Any]], Callable[[JsonDict, Any], Any]]:
    """Decorate a handler of hop `name`: `handle(event) -> body`."""
    logger = Logger(service=name)
    tracer = Tracer(service=name)

    def decorate(handle: Callable[[JsonDict], Any]) -> Callable[[JsonDict, Any], Any]:
        def handler(event: JsonDict, context: Any) -> Any:
            logger.info(
                "invoked",
                extra={"hop": name, "invoker": invoker(event), "request": getattr(context, "aws_request_id", "")},
            )
            return handle(event)

        traced: Callable[[JsonDict, Any], Any] = tracer.capture_lambda_handler(handler, capture_response=False)
        return traced

    return decorate


def emit(metrics: Iterable[Metric]) -> None:
    """Write metrics in embedded metric format, one document a set of dimensions.

    Raises KeyError for a name that is not in the catalogue.
    """
    groups: dict[tuple[tuple[str, str], ...], list[Metric]] = {}
    stack = Settings.from_environment().stack
    for metric in metrics:
        expected = CATALOGUE[metric.name].dimensions[1:]
        if tuple(metric.dimensions) != expected:
            raise KeyError(f"{metric.name} has dimensions {expected}, not {tuple(metric.dimensions)}")
        groups.setdefault((("Stack", stack), *metric.dimensions.items()), []).append(metric)
    for dimensions, members in groups.items():
        document = EphemeralMetrics(namespace=NAMESPACE)
        for key, value in dimensions:
            document.add_dimension(key, value)
        for metric in members:
            unit = CATALOGUE[metric.name].unit
            document.add_metric(metric.name, unit="NoUnit" if unit == "None" else unit, value=metric.value)
        document.flush_metrics()


def answer(outcome: Outcome) -> JsonDict:
    """Emit an outcome's metrics and return its body."""
    emit(outcome.metrics)
    return dict(outcome.body)


def each_message(event: JsonDict, act: Callable[[JsonDict], Iterable[Outcome]]) -> JsonDict:
    """Run `act` on the JSON body of every SQS message; what fails goes back to the queue alone.

    Whatever the failure, the other messages of the batch must not suffer for it, so everything is caught here and
    reported by message: the queue retries it and its redrive policy ends in the dead-letter queue.
    """
    logger = Logger(service="queue")
    failures = []
    for message in event["Records"]:
        try:
            for outcome in act(json.loads(message["body"])):
                emit(outcome.metrics)
                if "notes" in outcome.body:
                    logger.info("notes", extra={"message_id": message["messageId"], **outcome.body})
        except (WinnowError, ValueError) as error:
            logger.warning("message failed", extra={"message_id": message["messageId"], "error": repr(error)})
            failures.append({"itemIdentifier": message["messageId"]})
        except Exception:
            logger.exception("message failed", extra={"message_id": message["messageId"]})
            failures.append({"itemIdentifier": message["messageId"]})
    return {"batchItemFailures": failures}


def bodies(event: JsonDict) -> list[JsonDict | None]:
    """The JSON bodies of an SQS event's messages, in order; None for one that is not a JSON object."""
    parsed: list[JsonDict | None] = []
    for message in event["Records"]:
        try:
            body = json.loads(message["body"])
        except ValueError:
            body = None
        parsed.append(body if isinstance(body, dict) else None)
    return parsed


def failed_places(event: JsonDict, failed: Container[int], *, reasons: Mapping[str, str] | None = None) -> JsonDict:
    """The partial batch answer of a step that handled all messages at once, from the places of those that failed.

    `reasons` (what failed → why) goes to the log: the queue's redrive keeps the message, not the reason.
    """
    for what, why in (reasons or {}).items():
        Logger(service="queue").warning("message failed", extra={"item": what, "error": why})
    failures = [
        {"itemIdentifier": message["messageId"]} for place, message in enumerate(event["Records"]) if place in failed
    ]
    return {"batchItemFailures": failures}


def http(handle: Callable[[JsonDict], Outcome], event: JsonDict) -> JsonDict:
    """Answer an HTTP event (format 2.0): 200 with the outcome, 400 with the reason for bad input."""
    try:
        raw = event.get("body") or "{}"
        body = json.loads(base64.b64decode(raw) if event.get("isBase64Encoded") else raw)
        if not isinstance(body, dict):
            raise BadInput("the body must be a JSON object", code="bad-request")
        status, content = 200, answer(handle(body))
    except ValueError as error:
        status, content = 400, {"error": "bad-request", "message": f"the body is not JSON: {error}"}
    except BadInput as error:
        status, content = 400, {"error": error.code, "message": str(error)}
    return {"statusCode": status, "headers": {"content-type": "application/json"}, "body": json.dumps(content)}
