"""SQS on the virtual clock, and the pollers that hand its messages to functions in batches."""

from __future__ import annotations

import json
import uuid
from functools import partial
from typing import Any

from botocore import xform_name
from moto.awslambda.models import EventSourceMapping
from moto.core.exceptions import ServiceException
from moto.core.responses import ActionResult
from moto.sqs.models import Message, Queue, sqs_backends

from .patches import Cloud, patched, refused

LATENCY = 0.1
CONCURRENCY = 5  # batches under way when the mapping does not say, as Lambda starts
_LEVEL_SECONDS = 300
_BATCH_BYTES = 6 * 1024 * 1024
_LAMBDA, _RESPONSE = "moto.awslambda.models.LambdaBackend", "moto.sqs.responses.SQSResponse"


class Poller:
    """Lambda's poller of one mapping: batches, a window, a cap, partial failures."""

    def __init__(self, cloud: Cloud, mapping: EventSourceMapping, queue: Queue) -> None:
        self._cloud, self._mapping, self._queue = cloud, mapping, queue
        self._under_way, self._waiting_since = 0, None  # type: int, float | None
        self._timer = cloud.clock.call_later(LATENCY, self._look)

    def wake(self, delay: float) -> None:
        """Look into the queue that many seconds from now, or earlier if that is planned already."""
        self._timer = self._timer.by(self._cloud.clock.time() + delay)

    def _look(self) -> None:
        now, cap = self._cloud.clock.time(), (self._mapping.scaling_config or {}).get("MaximumConcurrency", CONCURRENCY)
        with self._cloud.gateway.lock:
            while self._queue.poller is self and self._under_way < int(cap) and (batch := self._batch(now)):
                if len(batch) < self._mapping.batch_size:
                    self._waiting_since = self._waiting_since or now
                    left = self._waiting_since + float(self._mapping.max_batch_window or 0) - now
                    if left > 0:
                        self.wake(left)
                        break
                self._waiting_since = None
                for message in batch:
                    message.mark_received(int(self._queue.visibility_timeout))  # type: ignore[attr-defined]
                self._under_way += 1
                self._cloud.clock.spawn(partial(self._run, batch))
            later = [at for message in self._queue._messages if (at := _wakes(message)) > now]
        if later:
            self.wake(min(later) - now)

    def _batch(self, now: float) -> list[Message]:
        """What is ready, as much as fits into a call; spent messages go to the dead-letter queue on the way."""
        batch, size, dead = list[Message](), 0, self._queue.dead_letter_queue
        for message in [each for each in self._queue._messages if _wakes(each) <= now]:
            if dead and message.approximate_receive_count >= self._queue.redrive_policy["maxReceiveCount"]:
                self._queue._messages.remove(message)
                dead.add_message(message)
                continue
            size += len(json.dumps(self._record(message))) + 20
            if size > _BATCH_BYTES or len(batch) == self._mapping.batch_size:
                break
            batch.append(message)
        return batch

    def _run(self, batch: list[Message]) -> None:
        records, arn = {message.id: self._record(message) for message in batch}, self._mapping.function_arn
        event = {"Records": list(records.values())}
        payload, error, _ = self._cloud.lambdas.invoke(arn, event, invoker=f"sqs:{self._queue.name}")
        answer = json.loads(payload) if self._mapping.function_response_types else {}
        failed = {each.get("itemIdentifier") for each in (answer or {}).get("batchItemFailures") or []}
        done = set() if error is not None or not failed <= records.keys() else records.keys() - failed
        with self._cloud.gateway.lock:
            self._under_way -= 1
            self._queue._messages = [message for message in self._queue._messages if message.id not in done]
        self.wake(LATENCY)

    def _record(self, message: Message) -> dict[str, Any]:
        names = ["ApproximateReceiveCount", "SentTimestamp", "ApproximateFirstReceiveTimestamp", "SenderId"]
        return {
            "messageId": message.id, "receiptHandle": message.receipt_handle, "body": message.body,
            "attributes": {name: str(getattr(message, xform_name(name))) for name in names}, "messageAttributes": {},
            "md5OfBody": message.body_md5, "eventSource": "aws:sqs", "eventSourceARN": self._queue.queue_arn,
            "awsRegion": self._cloud.region,
        }  # fmt: skip


def _wakes(message: Message) -> float:
    return max(message.visible_at, message.delayed_until) / 1000


def _measure(cloud: Cloud, queue: Any) -> None:
    clock, record, dims = cloud.clock, cloud.cloudwatch.record, {"QueueName": queue.name}
    oldest = min((float(message.sent_timestamp) / 1000 for message in queue._messages), default=clock.time())
    record("AWS/SQS", "ApproximateNumberOfMessagesVisible", dims, len(queue.messages))
    record("AWS/SQS", "ApproximateAgeOfOldestMessage", dims, clock.time() - oldest)
    queue.measured = bool(queue._messages)
    if queue.measured:
        clock.call_later(_LEVEL_SECONDS, partial(_measure, cloud, queue), background=True)


@patched("moto.sqs.models.Queue", "add_message", "Sending does not wait for who polls; a queue's level is a metric.")
def _add(cloud: Cloud, original: Any, self: Any, message: Message) -> None:
    poller, clock = getattr(self, "poller", None), cloud.clock
    if poller and message.message_attributes:
        raise NotImplementedError("the local cloud shows functions no message attributes")
    original(self, message)
    if poller:
        poller.wake(LATENCY)
    if not getattr(self, "measured", False):
        self.measured, minute = True, clock.time() // 60 * 60 + 60
        clock.call_at(minute, partial(_measure, cloud, self), background=True)


@patched("moto.sqs.models.Message", "visible", "Visible again once its time has come.", kind=property)
def _visible(cloud: Cloud, _: Any, self: Message) -> bool:
    return cloud.clock.time() * 1000 >= self.visible_at


@patched("moto.sqs.models.SQSBackend", "receive_message", "A long poll of an empty queue ends.")
def _receive(_: Cloud, original: Any, self: Any, name: str, count: int, __: int, *rest: Any, **named: Any) -> Any:
    return original(self, name, count, 0, *rest, **named)


@patched(_LAMBDA, "create_event_source_mapping", "Batches, windows, caps, partial failures.")
def _map(cloud: Cloud, original: Any, self: Any, spec: dict[str, Any]) -> EventSourceMapping:
    queue: Any = sqs_backends[cloud.account][cloud.region].get_queue(spec["EventSourceArn"].rsplit(":", 1)[-1])
    if queue.fifo_queue or spec.get("FilterCriteria") or getattr(queue, "poller", None):
        raise NotImplementedError(f"the local cloud polls {queue.name} once, not as a FIFO queue and without filters")
    longest, hidden = int(self.get_function(spec["FunctionName"]).timeout), int(queue.visibility_timeout)
    if longest > hidden:
        text = f"Queue visibility timeout: {hidden} seconds is less than Function timeout: {longest} seconds"
        raise ServiceException("InvalidParameterValueException", text)
    mapping: EventSourceMapping = original(self, spec)
    queue.lambda_event_source_mappings.clear()
    queue.poller = Poller(cloud, mapping, queue)
    return mapping


@patched(_RESPONSE, "start_message_move_task", "Dead letters move back.", added=True)
def _move(_: Cloud, __: Any, self: Any) -> ActionResult:
    source = self.sqs_backend.get_queue(self._get_param("SourceArn").rsplit(":", 1)[-1])
    feeders = self.sqs_backend.list_dead_letter_source_queues(source.name)
    if not feeders or self._get_param("DestinationArn"):
        raise NotImplementedError("the local cloud moves dead letters only, and back to where they came from")
    messages, source._messages = source._messages, []
    for message in messages:
        message.approximate_receive_count, message.visible_at = 0, 0.0
        feeders[0].add_message(message)
    return ActionResult({"TaskHandle": uuid.uuid4().hex})


@patched(_LAMBDA, "delete_event_source_mapping", "Polling ends; batches under way are finished.")
def _unmap(cloud: Cloud, original: Any, self: Any, uuid: str) -> EventSourceMapping | None:
    mapping: EventSourceMapping | None = original(self, uuid)
    if mapping:
        sqs_backends[cloud.account][cloud.region].get_queue(mapping.event_source_arn.rsplit(":", 1)[-1]).poller = None
    return mapping


refused(_LAMBDA, "update_event_source_mapping", "Pollers follow.", what="update event source mappings")
