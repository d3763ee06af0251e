"""AWS event bodies into our nouns, and who sent them. Both forms of an S3 event are read, because users may wire either."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any
from urllib.parse import unquote_plus

from winnow.errors import BadInput
from winnow.records import PoolObject


def pool_objects(body: Mapping[str, Any]) -> list[PoolObject]:
    """The objects an S3 event names: EventBridge form, notification form, or none for S3's test event.

    >>> pool_objects({"Service": "Amazon S3", "Event": "s3:TestEvent"})
    []
    """
    if body.get("Event") == "s3:TestEvent":
        return []
    try:
        if "Records" in body:
            return [
                PoolObject(
                    bucket=record["s3"]["bucket"]["name"],
                    key=unquote_plus(record["s3"]["object"]["key"]),
                    version=record["s3"]["object"].get("versionId", ""),
                    sequencer=record["s3"]["object"].get("sequencer", ""),
                    size=int(record["s3"]["object"].get("size", 0)),
                )
                for record in body["Records"]
                if record["eventName"].startswith("ObjectCreated")
            ]
        item = body["detail"]["object"]
        return [
            PoolObject(
                bucket=body["detail"]["bucket"]["name"],
                key=item["key"],
                version=item.get("version-id", ""),
                sequencer=item.get("sequencer", ""),
                size=int(item.get("size", 0)),
            )
        ]
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise BadInput(f"not an S3 event: {error!r}", code="malformed-event") from error


def labeling_job(body: Mapping[str, Any]) -> str:
    """The job's name: the event carries it only in the ARN under `resources`.

    >>> labeling_job({"resources": ["arn:aws:sagemaker:us-east-1:1:labeling-job/winnow-b1"]})
    'winnow-b1'
    """
    try:
        return str(body["resources"][0]).rsplit("/", 1)[1]
    except (KeyError, IndexError, TypeError) as error:
        raise BadInput(
            "not a labeling-job event: resources[0] must be the job's ARN", code="malformed-event"
        ) from error


def invoker(event: Any) -> str:
    """Who woke the function, as the delivered event itself says.

    >>> invoker({"source": "aws.s3", "detail-type": "Object Created"})
    'aws.s3: Object Created'
    """
    if not isinstance(event, Mapping):
        return "direct invoke"
    records = event.get("Records")
    if records and records[0].get("eventSource") == "aws:sqs":
        queue = records[0]["eventSourceARN"].rsplit(":", 1)[-1]
        try:
            inner = json.loads(records[0]["body"])
        except ValueError:
            return f"queue {queue}"
        return f"queue {queue}" + (f" <- {invoker(inner)}" if isinstance(inner, Mapping) and "source" in inner else "")
    if "labelingJobArn" in event:
        return f"labeling job {event['labelingJobArn'].rsplit('/', 1)[-1]}"
    if "source" in event and "detail-type" in event:
        return f"{event['source']}: {event['detail-type']}"
    if "execution" in event or "BatchInput" in event:
        execution = event.get("execution") or event["BatchInput"].get("execution", "map")
        return f"execution {execution.split(':', 6)[-1]}"
    if "requestContext" in event:
        return "function url"
    return f"schedule {event['schedule']}" if "schedule" in event else str(event.get("from", "direct invoke"))
