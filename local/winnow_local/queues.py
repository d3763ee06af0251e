"""SQS on the virtual clock, and the pollers that hand its messages to functions in batches."""

from __future__ import annotations

import json
import uuid
from bisect import bisect_left
from copy import copy
from typing import TYPE_CHECKING, Any

from moto.awslambda.models import EventSourceMapping
from moto.core.exceptions import ServiceException
from moto.core.responses import ActionResult
from moto.moto_api._internal import mock_random
from moto.sqs.models import MAXIMUM_MESSAGE_DELAY, Message, Queue, sqs_backends

from .events import matches
from .patches import Patch

if TYPE_CHECKING:
    from .clock import Timer
    from .cloud import LocalCloud

LATENCY = 0.1
CONCURRENCY = 5
"""How many batches a poller has under way when its mapping does not say: what Lambda starts with."""
_BATCH_BYTES = 6 * 1024 * 1024
_METRIC = {"Visible": "ApproximateNumberOfMessagesVisible", "Age": "ApproximateAgeOfOldestMessage"}


class Queues:
    """The pollers of one cloud, and the levels of its queues over time."""

    def __init__(self, cloud: LocalCloud) -> None:
        self._cloud, self._pollers = cloud, dict[str, list[Poller]]()
        self._levels: dict[str, list[tuple[float, int, float | None]]] = {}
        self._sampling: set[str] = set()

    def poll(self, mapping: EventSourceMapping) -> None:
        """Serve a new event source mapping from now on."""
        queue = self.queue(mapping.event_source_arn)
        poller = Poller(self._cloud, mapping, queue)
        self._pollers.setdefault(queue.name, []).append(poller)
        poller.wake(LATENCY)

    def queue(self, arn: str) -> Queue:
        """The queue behind an ARN."""
        return sqs_backends[self._cloud.account][self._cloud.region].get_queue(arn.rsplit(":", 1)[-1])

    def changed(self, queue: Queue) -> None:
        """Something arrived in, left or became visible in a queue: wake its pollers, note its level at the minute."""
        for poller in self._pollers.get(queue.name, ()):
            poller.wake(LATENCY)
        if queue.name not in self._sampling:
            self._sampling.add(queue.name)
            now = self._cloud.clock.time()
            self._cloud.clock.call_at(
                now // 60 * 60 + 60, lambda: self._sample(queue), name="queue level", background=True
            )

    def level(self, name: str, metric: str, start: float, end: float) -> float | None:
        """The largest value of a queue's metric in a period; None for a queue that rests empty, or is unknown."""
        levels, end = self._levels.get(name, []), min(end, self._cloud.clock.time())
        first, last = bisect_left(levels, (start,)), bisect_left(levels, (end,))
        held = levels[max(first - 1, 0) : last]
        if not held or (first == last and held[-1][2] is None):
            return None
        if metric == _METRIC["Visible"]:
            return float(max(visible for _, visible, _ in held))
        until = [at for at, _, _ in held[1:]] + [end]
        return max(now - oldest if oldest else 0.0 for now, (_, _, oldest) in zip(until, held, strict=True))

    def busy(self, name: str) -> bool:
        """Whether the queue held messages when last looked at: its age grows by itself."""
        levels = self._levels.get(name, [])
        return bool(levels) and levels[-1][2] is not None

    def _sample(self, queue: Queue) -> None:
        self._sampling.discard(queue.name)
        now = self._cloud.clock.time()
        oldest = min((float(message.sent_timestamp or 0) / 1000 for message in queue._messages), default=None)
        self._levels.setdefault(queue.name, []).append((now, len(queue.messages), oldest))
        for metric in _METRIC.values():
            self._cloud.cloudwatch.arrived("AWS/SQS", metric, {"QueueName": queue.name})
        hidden = [at for message in queue._messages if (at := _wakes(message)) > now]
        if hidden:
            self._cloud.clock.call_at(min(hidden), lambda: self.changed(queue), name="queue level", background=True)


class Poller:
    """Lambda's poller of one mapping: batches, a window, a cap, filters, partial failures."""

    def __init__(self, cloud: LocalCloud, mapping: EventSourceMapping, queue: Queue) -> None:
        if queue.fifo_queue:
            raise NotImplementedError(f"the local cloud does not poll FIFO queues ({queue.name})")
        self._cloud, self._mapping, self._queue = cloud, mapping, queue
        self._under_way, self._waiting_since = 0, None  # type: int, float | None
        self._timer: Timer | None = None

    def wake(self, delay: float) -> None:
        """Look into the queue that many seconds from now, or earlier if that is planned already."""
        due = self._cloud.clock.time() + delay
        if self._timer is not None and self._timer.live:
            if self._timer.when <= due:
                return
            self._timer.cancel()
        self._timer = self._cloud.clock.call_at(due, self._look, name=f"poll {self._queue.name}")

    def _look(self) -> None:
        mappings = self._cloud.lambda_backend._event_source_mappings
        if self._mapping.uuid not in mappings or not self._mapping.enabled:
            return
        cap = int((self._mapping.scaling_config or {}).get("MaximumConcurrency", CONCURRENCY))
        window = float(self._mapping.max_batch_window or 0)
        with self._cloud.gateway.lock:
            now = self._cloud.clock.time()
            while self._under_way < cap:
                ready = self._ready(now)
                if not ready:
                    self._waiting_since = None
                    break
                if len(ready) < self._mapping.batch_size and window:
                    self._waiting_since = self._waiting_since or now
                    left = self._waiting_since + window - now
                    if left > 0:
                        self.wake(left)
                        break
                self._waiting_since = None
                self._dispatch(ready)
            later = [at for message in self._queue._messages if (at := _wakes(message)) > now]
        if later:
            self.wake(min(later) - now)

    def _ready(self, now: float) -> list[Message]:
        """The next batch, still in the queue; on the way expired messages go, and spent ones to the dead-letter queue."""
        policy, dead = self._queue.redrive_policy, self._queue.dead_letter_queue
        kept = float(self._queue.message_retention_period)  # type: ignore[attr-defined]
        patterns = [each["Pattern"] for each in (self._mapping.filter_criteria or {}).get("Filters", [])]
        ready, size = list[Message](), 0
        for message in list(self._queue._messages):
            if _wakes(message) > now:
                continue
            if message.sent_timestamp / 1000 + kept < now:  # type: ignore[operator]
                self._queue._messages.remove(message)
            elif policy and dead is not None and message.approximate_receive_count >= policy["maxReceiveCount"]:
                self._queue._messages.remove(message)
                dead.add_message(message)
            elif patterns and not any(matches(pattern, _filterable(message)) for pattern in patterns):
                self._queue._messages.remove(message)
            else:
                size += len(message.body)
                if size > _BATCH_BYTES:
                    break
                ready.append(message)
                if len(ready) == self._mapping.batch_size:
                    break
        return ready

    def _dispatch(self, batch: list[Message]) -> None:
        for message in batch:
            message.mark_received(visibility_timeout=int(self._queue.visibility_timeout))  # type: ignore[attr-defined]
        event = {"Records": [self._record(message) for message in batch]}
        handles = {message.id: message.receipt_handle for message in batch}
        self._under_way += 1
        self._cloud.clock.spawn(lambda: self._run(event, handles), name=f"batch of {self._queue.name}")

    def _run(self, event: dict[str, Any], handles: dict[str, str | None]) -> None:
        function = self._cloud.lambdas.find(self._mapping.function_arn)
        payload, error, _ = self._cloud.lambdas.invoke(function, event)
        failed = set(handles) if error is not None else self._failed(payload, set(handles))
        with self._cloud.gateway.lock:
            self._under_way -= 1
            for message_id, handle in handles.items():
                if message_id not in failed and handle is not None:
                    self._queue.delete_message(handle)
        self._cloud.queues.changed(self._queue)

    def _failed(self, payload: str, sent: set[str]) -> set[str]:
        if "ReportBatchItemFailures" not in (self._mapping.function_response_types or []):
            return set()
        answer = json.loads(payload)
        if not answer:
            return set()
        try:
            named = {failure["itemIdentifier"] for failure in answer.get("batchItemFailures") or []}
        except (AttributeError, TypeError, KeyError):
            return sent
        return named if named <= sent else sent

    def _record(self, message: Message) -> dict[str, Any]:
        first = message.approximate_first_receive_timestamp
        told: dict[str, Any] = {
            "ApproximateReceiveCount": message.approximate_receive_count,
            "SentTimestamp": message.sent_timestamp,
        }
        told |= {"SenderId": message.sender_id, "ApproximateFirstReceiveTimestamp": first}
        return {
            "messageId": message.id,
            "receiptHandle": message.receipt_handle,
            "body": message.body,
            "attributes": {name: str(value) for name, value in told.items()},
            "messageAttributes": {name: _attribute(value) for name, value in message.message_attributes.items()},
            "md5OfBody": message.body_md5,
            "eventSource": "aws:sqs",
            "eventSourceARN": self._queue.queue_arn,
            "awsRegion": self._cloud.region,
        }


def _attribute(value: dict[str, Any]) -> dict[str, Any]:
    told = {"dataType": value["DataType"], "stringListValues": [], "binaryListValues": []}
    return told | {
        name[0].lower() + name[1:]: value[name] for name in ("StringValue", "BinaryValue") if value.get(name)
    }


def _filterable(message: Message) -> dict[str, Any]:
    try:
        return {"body": json.loads(message.body)}
    except ValueError:
        return {"body": message.body}


def _wakes(message: Message) -> float:
    return max(message.visible_at, message.delayed_until) / 1000


def _add(original: Any, cloud: LocalCloud) -> Any:
    def add(self: Queue, message: Message) -> None:
        mappings, self.lambda_event_source_mappings = self.lambda_event_source_mappings, {}
        original(self, message)
        self.lambda_event_source_mappings = mappings
        cloud.queues.changed(self)

    return add


def _delete(_: Any, cloud: LocalCloud) -> Any:
    from moto.sqs.exceptions import ReceiptHandleIsInvalid

    def delete(self: Queue, receipt_handle: str) -> None:
        if receipt_handle in self.deleted_messages:
            return
        for place, message in enumerate(self._messages):
            if receipt_handle == message.receipt_handle or receipt_handle in message._old_receipt_handles:
                del self._messages[place]
                self.pending_messages.discard(message)
                self.deleted_messages.update(handle for handle in message.all_receipt_handles if handle)
                cloud.queues.changed(self)
                return
        raise ReceiptHandleIsInvalid()

    return delete


def _send(original: Any, _: LocalCloud) -> Any:
    def send(
        self: Any,
        queue_name: str,
        message_body: str,
        message_attributes: Any = None,
        delay_seconds: Any = None,
        **more: Any,
    ) -> Message:
        queue = self.get_queue(queue_name)
        delay = int(queue.delay_seconds if delay_seconds is None else delay_seconds)
        if queue.fifo_queue or delay > MAXIMUM_MESSAGE_DELAY or len(message_body) > queue.maximum_message_size:
            sent: Message = original(self, queue_name, message_body, message_attributes, delay_seconds, **more)
            return sent
        message = Message(str(mock_random.uuid4()), message_body, more.get("system_attributes"))
        message.message_attributes = message_attributes or {}
        message.mark_sent(delay_seconds=delay)
        queue.add_message(message)
        return message

    return send


def _receive(original: Any, cloud: LocalCloud) -> Any:
    def receive(self: Any, queue_name: str, count: int, wait_seconds_timeout: int, *args: Any, **kwargs: Any) -> Any:
        found = original(self, queue_name, count, 0, *args, **kwargs)
        cloud.queues.changed(self.get_queue(queue_name))
        return found

    return receive


def _map(original: Any, cloud: LocalCloud) -> Any:
    def create(self: Any, spec: dict[str, Any]) -> EventSourceMapping:
        if ":sqs:" not in spec["EventSourceArn"]:
            raise NotImplementedError(f"the local cloud polls queues only, not {spec['EventSourceArn']}")
        function, queue = self.get_function(spec["FunctionName"]), cloud.queues.queue(spec["EventSourceArn"])
        if int(function.timeout) > int(queue.visibility_timeout):  # type: ignore[attr-defined]
            raise ServiceException(
                "InvalidParameterValueException",
                f"Queue visibility timeout: {queue.visibility_timeout} seconds is less than "  # type: ignore[attr-defined]
                f"Function timeout: {function.timeout} seconds",
            )
        mapping: EventSourceMapping = original(self, spec)
        queue.lambda_event_source_mappings.clear()
        cloud.queues.poll(mapping)
        return mapping

    return create


def _remap(original: Any, cloud: LocalCloud) -> Any:
    def update(self: Any, *args: Any, **kwargs: Any) -> Any:
        mapping = original(self, *args, **kwargs)
        for poller in cloud.queues._pollers.get(mapping.event_source_arn.rsplit(":", 1)[-1], []):
            poller.wake(LATENCY)
        return mapping

    return update


def _move(_: Any, cloud: LocalCloud) -> Any:
    def start_message_move_task(self: Any) -> ActionResult:
        source = cloud.queues.queue(self._get_param("SourceArn"))
        feeders = self.sqs_backend.list_dead_letter_source_queues(source.name)
        if not feeders:
            raise ServiceException("InvalidParameterValue", "Source queue must be configured as a Dead Letter Queue.")
        named = self._get_param("DestinationArn")
        target = cloud.queues.queue(named) if named else feeders[0]
        messages, source._messages = source._messages, []
        for message in messages:
            message.approximate_receive_count, message.visible_at = 0, 0.0
            target.add_message(message)
        cloud.queues.changed(source)
        return ActionResult({"TaskHandle": uuid.uuid4().hex})

    return start_message_move_task


def _visible(_: Any, cloud: LocalCloud) -> Any:
    return property(lambda self: cloud.clock.time() * 1000 >= self.visible_at)


_QUEUE, _LAMBDA = "moto.sqs.models.Queue", "moto.awslambda.models.LambdaBackend"
PATCHES = (
    Patch(_QUEUE, "add_message", "Sending does not wait for the functions that poll.", _add),
    Patch(_QUEUE, "delete_message", "Deleting from a long queue is quick.", _delete),
    Patch("moto.sqs.models.SQSBackend", "send_message", "Sending to a long queue is quick.", _send),
    Patch("moto.sqs.models", "deepcopy", "Receiving from a long queue is quick.", lambda _original, _cloud: copy),
    Patch("moto.sqs.models.Message", "visible", "Visible again once its time has come.", _visible),
    Patch("moto.sqs.models.SQSBackend", "receive_message", "A long poll of an empty queue ends.", _receive),
    Patch(_LAMBDA, "create_event_source_mapping", "Batches, windows, caps, filters, partial failures.", _map),
    Patch(_LAMBDA, "update_event_source_mapping", "A mapping that is enabled again polls.", _remap),
    Patch("moto.sqs.responses.SQSResponse", "start_message_move_task", "Dead letters move back.", _move, added=True),
)
