"""EventBridge: what is emitted reaches the targets of matching rules a moment later; schedules fire on the clock.

Events travel by timers, so a burst of puts is routed when the clock is driven, in order.
"""

from __future__ import annotations

import json
import random
import re
import uuid
from collections.abc import Callable, Iterable
from functools import cache
from typing import TYPE_CHECKING, Any

from moto.events.models import events_backends
from moto.scheduler.models import scheduler_backends
from moto.sqs.models import sqs_backends

from .patches import Patch, refusal

if TYPE_CHECKING:
    from .cloud import LocalCloud

LATENCY = 0.5
Event = dict[str, Any]
Test = Callable[[Any], bool]
_ABSENT = object()
_REASONS = {"Put": "PutObject", "Post": "POST Object", "Copy": "CopyObject"}
_UNITS = {"minute": 60, "hour": 3600, "day": 86400}


class Events:
    """The default bus of one cloud, and its schedules."""

    def __init__(self, cloud: LocalCloud, *, seed: int) -> None:
        self._cloud, self._rng, self._sequencer = cloud, random.Random(seed), 0
        self._subscribers: list[tuple[str, Callable[[Event], object]]] = []

    def emit(self, source: str, detail_type: str, detail: Event, resources: Iterable[str] = ()) -> None:
        """Publish an event of an AWS service; it is delivered half a second later."""
        identity, cloud = str(uuid.UUID(int=self._rng.getrandbits(128), version=4)), self._cloud
        event = {"version": "0", "id": identity, "detail-type": detail_type, "source": source, "account": cloud.account}
        event |= {"time": self._now(), "region": cloud.region, "resources": list(resources)}
        event["detail"] = json.loads(json.dumps(detail, default=str))
        self.publish(event)

    def publish(self, event: Event, *, late: float = 0.0) -> None:
        """Let a whole event be delivered; what tests wrap to lose, double or delay some."""
        self._cloud.clock.call_later(LATENCY + late, lambda: self._deliver(event), name=event["detail-type"])

    def subscribe(self, detail_type: str, callback: Callable[[Event], object]) -> None:
        """Call back for every delivered event of a type, as a service's managed rule would."""
        self._subscribers.append((detail_type, callback))

    def s3(self, how: str, bucket: Any, key: Any) -> None:
        """Tell that an object was created: `how` is S3's name of it, as `s3:ObjectCreated:Put`."""
        config, how = bucket.notification_configuration, how.removeprefix("s3:ObjectCreated:")
        part = how == "Put" and getattr(key, "multipart", None) is not None  # moto tells the completion by itself
        if config is None or config.event_bridge is None or ":" in how or part:
            return
        self._sequencer = max(self._sequencer + 1, int(self._cloud.clock.time() * 1e6))
        told = {"key": key.name, "size": key.size, "etag": key.etag.strip('"'), "sequencer": f"{self._sequencer:016X}"}
        told |= {"version-id": key.version_id} if bucket.is_versioned else {}
        detail = {"version": "0", "bucket": {"name": bucket.name}, "object": told, "requester": self._cloud.account}
        self.emit("aws.s3", "Object Created", {**detail, "reason": _REASONS.get(how, how)}, [bucket.arn])

    def send(self, arn: str, event: Any, *, invoker: str | None = None) -> None:
        """Deliver to a queue, a function (asynchronously) or a topic."""
        service, name = arn.split(":")[2], arn.split(":")[-1]
        if service == "sqs":
            sqs_backends[self._cloud.account][self._cloud.region].send_message(name, json.dumps(event))
        elif service == "lambda":
            self._cloud.lambdas.start(self._cloud.lambdas.find(arn), event, invoker=invoker)
        elif service == "sns":
            self._cloud.client("sns").publish(TopicArn=arn, Message=json.dumps(event))
        else:
            raise NotImplementedError(f"the local cloud does not deliver events to {arn}")

    def arm(self, schedule: Any) -> Any:
        """Let a schedule of EventBridge Scheduler fire, at its rate and while it is there."""
        rate = re.fullmatch(r"rate\((\d+) (minute|hour|day)s?\)", schedule.schedule_expression)
        if rate is None:
            raise NotImplementedError(f"the local cloud knows rate(…) only, not {schedule.schedule_expression}")
        group = scheduler_backends[self._cloud.account][self._cloud.region].schedule_groups[schedule.group_name]
        seconds = int(rate[1]) * _UNITS[rate[2]]

        def fire() -> None:
            if group.schedules.get(schedule.name) is schedule and schedule.state == "ENABLED":
                default = {"source": "aws.scheduler", "detail-type": "Scheduled Event", "time": self._now()}
                event = json.loads(schedule.target["Input"]) if schedule.target.get("Input") else default
                self.send(schedule.target["Arn"], event, invoker="aws.scheduler")
                plan()

        def plan() -> None:
            self._cloud.clock.call_later(seconds, fire, name=f"schedule {schedule.name}", background=True)

        plan()
        return schedule

    def _now(self) -> str:
        return self._cloud.clock.now().strftime("%Y-%m-%dT%H:%M:%SZ")

    def _deliver(self, event: Event) -> None:
        for detail_type, callback in self._subscribers:
            if detail_type == event["detail-type"]:
                callback(event)
        for rule in list(
            events_backends[self._cloud.account][self._cloud.region].event_buses["default"].rules.values()
        ):
            if rule.state == "ENABLED" and matches(rule.event_pattern.dump(), event):
                for target in list(rule.targets):
                    if unknown := target.keys() - {"Id", "Arn", "DeadLetterConfig"}:
                        raise NotImplementedError(
                            f"rule {rule.name}: the local cloud has no {', '.join(unknown)} of targets"
                        )
                    self.send(target["Arn"], event, invoker=event["source"])


def matches(pattern: str, event: Event) -> bool:
    """Whether an event pattern (JSON text) picks the event; NotImplementedError for a filter unknown here."""
    return _compiled(pattern)(event)


@cache
def _compiled(pattern: str) -> Test:
    return _object(json.loads(pattern))


def _object(pattern: Event) -> Test:
    if "$or" in pattern:
        raise NotImplementedError("the local cloud does not know the event filter '$or'")
    fields = [(name, _object(rule) if isinstance(rule, dict) else _any(rule)) for name, rule in pattern.items()]

    def test(value: Any) -> bool:
        return isinstance(value, dict) and all(check(value.get(name, _ABSENT)) for name, check in fields)

    return test


def _any(rules: list[Any]) -> Test:
    tests = [_one(rule) for rule in rules]
    return lambda value: any(check(each) for each in (value if isinstance(value, list) else [value]) for check in tests)


def _one(rule: Any) -> Test:
    if not isinstance(rule, dict):
        return lambda value: type(value) is type(rule) and value == rule
    ((kind, wanted),) = rule.items()
    if kind == "exists":
        return lambda value: (value is not _ABSENT) is wanted
    if kind in ("prefix", "suffix") and isinstance(wanted, str):
        return lambda value: (
            isinstance(value, str) and (value.startswith if kind == "prefix" else value.endswith)(wanted)
        )
    if kind == "anything-but":
        inner = [_one(each) for each in (wanted if isinstance(wanted, list) else [wanted])]
        return lambda value: value is not _ABSENT and not any(check(value) for check in inner)
    raise NotImplementedError(f"the local cloud does not know the event filter {kind!r}")


def _s3_event(_: Any, cloud: LocalCloud) -> Any:
    return lambda _account, how, bucket, key: cloud.events.s3(getattr(how, "value", how), bucket, key)


def _put_rule(original: Any, cloud: LocalCloud) -> Any:
    def put(self: Any, *args: Any, **given: Any) -> Any:
        rule = original(self, *args, **given)
        pattern = rule.event_pattern.dump()
        if rule.scheduled_expression or rule.event_bus_name != "default" or "Object Deleted" in pattern:
            raise NotImplementedError(
                f"rule {rule.name}: no schedules, other buses or Object Deleted in the local cloud"
            )
        _compiled(pattern)
        return rule

    return put


def _armed(original: Any, cloud: LocalCloud) -> Any:
    return lambda self, *args, **given: cloud.events.arm(original(self, *args, **given))


_BUS, _SCHEDULER = "moto.events.models.EventsBackend", "moto.scheduler.models.EventBridgeSchedulerBackend"
PATCHES = (
    Patch(
        "moto.s3.notifications", "send_event", "An asynchronous event a change, with sequencer and version.", _s3_event
    ),
    Patch(_BUS, "put_rule", "A rule's pattern is held against the filters known here.", _put_rule),
    Patch(_BUS, "put_events", "Only services put events here.", refusal("take events of yours (PutEvents)")),
    Patch(_SCHEDULER, "create_schedule", "Schedules fire.", _armed),
    Patch(_SCHEDULER, "update_schedule", "Schedules stay as made here.", refusal("update schedules")),
)
