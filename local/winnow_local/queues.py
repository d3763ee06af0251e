"""SQS on the virtual clock, and the pollers that hand its messages to functions in batches."""

from __future__ import annotations

import json
import uuid
from typing import TYPE_CHECKING, Any

from moto.awslambda.models import EventSourceMapping
from moto.core.exceptions import ServiceException
from moto.core.responses import ActionResult
from moto.sqs.models import Message, Queue, sqs_backends

from .patches import Patch

if TYPE_CHECKING:
    from .clock import Timer
    from .cloud import LocalCloud

LATENCY = 0.1
CONCURRENCY = 5
"""How many batches a poller has under way when its mapping does not say: what Lambda starts with."""
_SAMPLE_SECONDS = 300
_BATCH_BYTES = 6 * 1024 * 1024


class Queues:
    """The pollers of one cloud, and who samples the levels of its queues while they hold messages."""

    def __init__(self, cloud: LocalCloud) -> None:
        self._cloud, self._pollers, self._sampled = cloud, dict[str, list[Poller]](), set[str]()

    def poll(self, mapping: EventSourceMapping) -> None:
        """Serve a new event source mapping from now on."""
        poller = Poller(self._cloud, mapping, self.queue(mapping.event_source_arn))
        self._pollers.setdefault(poller.queue.name, []).append(poller)
        poller.wake(LATENCY)

    def queue(self, arn: str) -> Queue:
        """The queue behind an ARN."""
        return sqs_backends[self._cloud.account][self._cloud.region].get_queue(arn.rsplit(":", 1)[-1])

    def arrived(self, queue: Queue) -> None:
        """Something arrived in a queue: wake its pollers, and report its level from the next minute on."""
        for poller in self._pollers.get(queue.name, ()):
            poller.wake(LATENCY)
        if queue.name not in self._sampled:
            self._sampled.add(queue.name)
            self._sample_at(queue, self._cloud.clock.time() // 60 * 60 + 60)

    def _sample_at(self, queue: Queue, when: float) -> None:
        self._cloud.clock.call_at(when, lambda: self._sample(queue), name="queue level", background=True)

    def _sample(self, queue: Queue) -> None:
        now, dims = self._cloud.clock.time(), {"QueueName": queue.name}
        oldest = min((float(message.sent_timestamp or 0) / 1000 for message in queue._messages), default=now)
        visible = float(len(queue.messages))
        self._cloud.cloudwatch.record("AWS/SQS", "ApproximateNumberOfMessagesVisible", dims, visible)
        self._cloud.cloudwatch.record("AWS/SQS", "ApproximateAgeOfOldestMessage", dims, now - oldest)
        if queue._messages:
            self._sample_at(queue, now + _SAMPLE_SECONDS)
        else:
            self._sampled.discard(queue.name)


class Poller:
    """Lambda's poller of one mapping: batches, a window, a cap, partial failures."""

    def __init__(self, cloud: LocalCloud, mapping: EventSourceMapping, queue: Queue) -> None:
        if queue.fifo_queue or mapping.filter_criteria:
            raise NotImplementedError(f"the local cloud polls {queue.name} neither as a FIFO queue nor through filters")
        self._cloud, self._mapping, self.queue = cloud, mapping, queue
        self._cap = int((mapping.scaling_config or {}).get("MaximumConcurrency", CONCURRENCY))
        self._under_way, self._waiting_since = 0, None  # type: int, float | None
        self._timer: Timer | None = None

    def wake(self, delay: float) -> None:
        """Look into the queue that many seconds from now, or earlier if that is planned already."""
        due = self._cloud.clock.time() + delay
        if self._timer is not None and self._timer.live:
            if self._timer.when <= due:
                return
            self._timer.cancel()
        self._timer = self._cloud.clock.call_at(due, self._look, name=f"poll {self.queue.name}")

    def _look(self) -> None:
        now = self._cloud.clock.time()
        with self._cloud.gateway.lock:
            while self._under_way < self._cap:
                ready = self._ready(now)
                if 0 < len(ready) < self._mapping.batch_size:
                    self._waiting_since = self._waiting_since or now
                    left = self._waiting_since + float(self._mapping.max_batch_window or 0) - now
                    if left > 0:
                        self.wake(left)
                        break
                self._waiting_since = None
                if not ready:
                    break
                self._dispatch(ready)
            later = [at for message in self.queue._messages if (at := _wakes(message)) > now]
        if later:
            self.wake(min(later) - now)

    def _ready(self, now: float) -> list[Message]:
        """The next batch, still in the queue; spent messages go to the dead-letter queue on the way."""
        policy, dead = self.queue.redrive_policy, self.queue.dead_letter_queue
        ready, size = list[Message](), 0
        for message in list(self.queue._messages):
            if _wakes(message) > now:
                continue
            if policy and dead is not None and message.approximate_receive_count >= policy["maxReceiveCount"]:
                self.queue._messages.remove(message)
                dead.add_message(message)
                continue
            size += len(message.body)
            if size > _BATCH_BYTES or len(ready) == self._mapping.batch_size:
                break
            ready.append(message)
        return ready

    def _dispatch(self, batch: list[Message]) -> None:
        for message in batch:
            message.mark_received(visibility_timeout=int(self.queue.visibility_timeout))  # type: ignore[attr-defined]
        event = {"Records": [self._record(message) for message in batch]}
        self._under_way += 1
        self._cloud.clock.spawn(lambda: self._run(event, batch), name=f"batch of {self.queue.name}")

    def _run(self, event: dict[str, Any], batch: list[Message]) -> None:
        payload, error, _ = self._cloud.lambdas.invoke(self._cloud.lambdas.find(self._mapping.function_arn), event)
        sent = {message.id for message in batch}
        failed = sent if error is not None else self._failed(json.loads(payload) or {}, sent)
        with self._cloud.gateway.lock:
            self._under_way -= 1
            for message in batch:
                if message.id not in failed and message in self.queue._messages:
                    self.queue._messages.remove(message)
        self.wake(LATENCY)

    def _failed(self, answer: Any, sent: set[str]) -> set[str]:
        if "ReportBatchItemFailures" not in (self._mapping.function_response_types or []):
            return set()
        try:
            named = {failure["itemIdentifier"] for failure in answer.get("batchItemFailures") or []}
        except (AttributeError, TypeError, KeyError):
            return sent
        return named if named <= sent else sent

    def _record(self, message: Message) -> dict[str, Any]:
        attributes = {
            "ApproximateReceiveCount": message.approximate_receive_count, "SentTimestamp": message.sent_timestamp,
            "ApproximateFirstReceiveTimestamp": message.approximate_first_receive_timestamp,
            "SenderId": message.sender_id,
        }  # fmt: skip
        return {
            "messageId": message.id, "receiptHandle": message.receipt_handle, "body": message.body,
            "attributes": {name: str(value) for name, value in attributes.items()}, "messageAttributes": {},
            "md5OfBody": message.body_md5, "eventSource": "aws:sqs", "eventSourceARN": self.queue.queue_arn,
            "awsRegion": self._cloud.region,
        }  # fmt: skip


def _wakes(message: Message) -> float:
    return max(message.visible_at, message.delayed_until) / 1000


def _add(original: Any, cloud: LocalCloud) -> Any:
    def add(self: Queue, message: Message) -> None:
        if message.message_attributes and cloud.queues._pollers.get(self.name):
            raise NotImplementedError("the local cloud shows functions no message attributes")
        original(self, message)
        cloud.queues.arrived(self)

    return add


def _receive(original: Any, _: LocalCloud) -> Any:
    return lambda self, name, count, wait_seconds, *rest, **named: original(self, name, count, 0, *rest, **named)


def _map(original: Any, cloud: LocalCloud) -> Any:
    def create(self: Any, spec: dict[str, Any]) -> EventSourceMapping:
        if ":sqs:" not in spec["EventSourceArn"]:
            raise NotImplementedError(f"the local cloud polls queues only, not {spec['EventSourceArn']}")
        queue: Any = cloud.queues.queue(spec["EventSourceArn"])
        longest, hidden = int(self.get_function(spec["FunctionName"]).timeout), int(queue.visibility_timeout)
        if longest > hidden:
            text = f"Queue visibility timeout: {hidden} seconds is less than Function timeout: {longest} seconds"
            raise ServiceException("InvalidParameterValueException", text)
        mapping: EventSourceMapping = original(self, spec)
        queue.lambda_event_source_mappings.clear()
        cloud.queues.poll(mapping)
        return mapping

    return create


def _refused(original: Any, _: LocalCloud) -> Any:
    def refuse(*_: Any, **__: Any) -> None:
        raise NotImplementedError(f"the local cloud has no {original.__name__}")

    return refuse


def _move(_: Any, cloud: LocalCloud) -> Any:
    def start_message_move_task(self: Any) -> ActionResult:
        source = cloud.queues.queue(self._get_param("SourceArn"))
        feeders = self.sqs_backend.list_dead_letter_source_queues(source.name)
        if not feeders or self._get_param("DestinationArn"):
            raise NotImplementedError("the local cloud moves dead letters only, and back to where they came from")
        messages, source._messages = source._messages, []
        for message in messages:
            message.approximate_receive_count, message.visible_at = 0, 0.0
            feeders[0].add_message(message)
        return ActionResult({"TaskHandle": uuid.uuid4().hex})

    return start_message_move_task


def _visible(_: Any, cloud: LocalCloud) -> Any:
    return property(lambda self: cloud.clock.time() * 1000 >= self.visible_at)


_LAMBDA, _RESPONSE = "moto.awslambda.models.LambdaBackend", "moto.sqs.responses.SQSResponse"
PATCHES = (
    Patch("moto.sqs.models.Queue", "add_message", "Sending does not wait for the functions that poll.", _add),
    Patch("moto.sqs.models.Message", "visible", "Visible again once its time has come.", _visible),
    Patch("moto.sqs.models.SQSBackend", "receive_message", "A long poll of an empty queue ends.", _receive),
    Patch(_LAMBDA, "create_event_source_mapping", "Batches, windows, caps, partial failures.", _map),
    Patch(_LAMBDA, "update_event_source_mapping", "What is not simulated is refused.", _refused),
    Patch(_LAMBDA, "delete_event_source_mapping", "What is not simulated is refused.", _refused),
    Patch(_RESPONSE, "start_message_move_task", "Dead letters move back.", _move, added=True),
)
