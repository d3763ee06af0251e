"""EventBridge: what is emitted reaches the targets of matching rules a moment later; schedules fire on the clock.

Events travel by timers, so a burst of puts is routed when the clock is driven, in order, unless a fault says otherwise.
"""

from __future__ import annotations

import fnmatch
import json
import operator
import random
import re
import uuid
from collections.abc import Callable, Iterable
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any
from zoneinfo import ZoneInfo

from botocore.exceptions import ClientError
from moto.core.exceptions import JsonRESTError, ServiceException
from moto.events.models import events_backends
from moto.scheduler.models import scheduler_backends
from moto.sqs.models import sqs_backends

from .patches import Patch

if TYPE_CHECKING:
    from .cloud import LocalCloud

LATENCY = 0.5
Event = dict[str, Any]
Test = Callable[[Any], bool]
_ABSENT = object()
_NUMERIC = {"<": operator.lt, "<=": operator.le, "=": operator.eq, ">": operator.gt, ">=": operator.ge}
_REASONS = {"Put": "PutObject", "Post": "POST Object", "Copy": "CopyObject"}
_UNITS = {"minute": 60, "hour": 3600, "day": 86400}


class Events:
    """The default bus of one cloud, and both kinds of schedules."""

    def __init__(self, cloud: LocalCloud, *, seed: int) -> None:
        self._cloud, self._rng, self._sequencer = cloud, random.Random(seed), 0
        self._subscribers: list[tuple[str, Callable[[Event], object]]] = []

    def emit(self, source: str, detail_type: str, detail: Event, resources: Iterable[str] = ()) -> None:
        """Publish an event of an AWS service; it is delivered half a second later."""
        event = {
            "version": "0",
            "id": str(uuid.UUID(int=self._rng.getrandbits(128), version=4)),
            "detail-type": detail_type,
            "source": source,
            "account": self._cloud.account,
            "time": self._cloud.clock.now().strftime("%Y-%m-%dT%H:%M:%SZ"),
            "region": self._cloud.region,
            "resources": list(resources),
            "detail": json.loads(json.dumps(detail, default=str)),
        }
        self.publish(event)

    def publish(self, event: Event, *, bus: str = "default") -> None:
        """Put a whole event on a bus, through the faults on order."""
        copies, late = self._cloud.faults.event(event)
        for _ in range(copies):
            self._cloud.clock.call_later(LATENCY + late, lambda: self._deliver(event, bus), name=event["detail-type"])

    def subscribe(self, detail_type: str, callback: Callable[[Event], object]) -> None:
        """Call back for every delivered event of a type, as a service's managed rule would."""
        self._subscribers.append((detail_type, callback))

    def s3(self, kind: str, bucket: Any, key: Any) -> None:
        """Tell what happened to an object: `kind` is S3's name of it, as `s3:ObjectCreated:Put`."""
        config = bucket.notification_configuration
        if config is None:
            return
        if config.cloud_function or config.queue or config.topic:
            raise NotImplementedError(f"{bucket.name}: the local cloud delivers S3 events through EventBridge only")
        _, what, how = kind.split(":")
        created = what == "ObjectCreated"
        part = how == "Put" and getattr(key, "multipart", None) is not None  # moto tells the completion by itself
        if config.event_bridge is None or what not in ("ObjectCreated", "ObjectRemoved") or part:
            return
        self._sequencer = max(self._sequencer + 1, int(self._cloud.clock.time() * 1e6))
        told = {"key": key.name, "size": key.size, "etag": key.etag.strip('"'), "sequencer": f"{self._sequencer:016X}"}
        if bucket.is_versioned:
            told["version-id"] = key.version_id
        about = {"reason": _REASONS.get(how, how)}
        if not created:
            told = {name: told[name] for name in told if name not in ("size", "etag")}
            marker = "Delete Marker Created" if how == "DeleteMarkerCreated" else "Permanently Deleted"
            about = {"reason": "DeleteObject", "deletion-type": marker}
        common = {"request-id": f"{self._sequencer:016X}"[:16], "requester": self._cloud.account}
        detail = {"version": "0", "bucket": {"name": bucket.name}, "object": told, **common, **about}
        detail["source-ip-address"] = "127.0.0.1"
        self.emit("aws.s3", "Object Created" if created else "Object Deleted", detail, [bucket.arn])

    def send(self, arn: str, event: Any, *, invoker: str | None = None) -> None:
        """Deliver to a target: a queue, a function (asynchronously), a state machine, a topic or a bus."""
        service, name = arn.split(":")[2], arn.split(":")[-1]
        text = event if isinstance(event, str) else json.dumps(event)
        if service == "sqs":
            sqs_backends[self._cloud.account][self._cloud.region].send_message(name, text)
        elif service == "lambda":
            self._cloud.lambdas.start(self._cloud.lambdas.find(arn), event, invoker=invoker)
        elif service == "states":
            self._cloud.client("stepfunctions").start_execution(stateMachineArn=arn, input=text)
        elif service == "sns":
            self._cloud.client("sns").publish(TopicArn=arn, Message=text)
        elif service == "logs":
            self._cloud.log(arn.split(":")[6], [text])
        elif service == "events" and ":event-bus/" in arn:
            self.publish(event, bus=name.split("/", 1)[1])
        else:
            raise NotImplementedError(f"the local cloud does not deliver events to {arn}")

    def arm_rule(self, rule: Any) -> None:
        """Start the schedule of a rule, if it has one."""
        if not rule.scheduled_expression:
            return

        def fire() -> None:
            scheduled = {
                "source": "aws.events",
                "detail-type": "Scheduled Event",
                "detail": {},
                "resources": [rule.arn],
            }
            at = self._cloud.clock.now().strftime("%Y-%m-%dT%H:%M:%SZ")
            place = {"version": "0", "account": self._cloud.account, "region": self._cloud.region, "time": at}
            self._to_targets(
                rule, {**place, "id": str(uuid.UUID(int=self._rng.getrandbits(128), version=4)), **scheduled}
            )

        def current() -> bool:
            rules = self._backend.event_buses["default"].rules
            return rules.get(rule.name) is rule

        self._repeat(rule, rule.scheduled_expression, "UTC", fire=fire, current=current)

    def arm_schedule(self, schedule: Any) -> None:
        """Start a schedule of EventBridge Scheduler; call again when it was updated."""
        schedule.generation = getattr(schedule, "generation", 0) + 1
        generation = schedule.generation
        groups = scheduler_backends[self._cloud.account][self._cloud.region].schedule_groups

        def fire() -> None:
            at = self._cloud.clock.now().strftime("%Y-%m-%dT%H:%M:%SZ")
            given = schedule.target.get("Input")
            filled = given.replace("<aws.scheduler.scheduled-time>", at) if given else None
            default = {"version": "0", "source": "aws.scheduler", "detail-type": "Scheduled Event", "detail": "{}"}
            event = json.loads(filled) if filled else {**default, "time": at, "resources": [schedule.arn]}
            target = schedule.target["Arn"]
            if target.startswith("arn:aws:scheduler:::aws-sdk:"):
                self._universal(target, event)
            else:
                self.send(target, event, invoker="aws.scheduler")
            if schedule.schedule_expression.startswith("at(") and schedule.action_after_completion == "DELETE":
                groups[schedule.group_name].delete_schedule(schedule.name)

        def current() -> bool:
            group = groups.get(schedule.group_name)
            here = group is not None and group.schedules.get(schedule.name) is schedule
            return here and schedule.generation == generation

        self._repeat(
            schedule, schedule.schedule_expression, schedule.schedule_expression_timezone, fire=fire, current=current
        )

    @property
    def _backend(self) -> Any:
        return events_backends[self._cloud.account][self._cloud.region]

    def _repeat(
        self, thing: Any, expression: str, zone: str, *, fire: Callable[[], None], current: Callable[[], bool]
    ) -> None:
        clock = self._cloud.clock

        def tick() -> None:
            if current():
                if thing.state != "DISABLED":  # an update without a state leaves moto with none
                    fire()
                plan()

        def plan() -> None:
            due = next_time(expression, clock.now(), zone=zone)
            if due is not None:
                clock.call_at(due.timestamp(), tick, name=f"schedule {thing.name}", background=True)

        plan()

    def _universal(self, target: str, request: Event) -> None:
        service, action = target.rsplit(":", 2)[1:]
        client = self._cloud.client({"sfn": "stepfunctions"}.get(service, service))
        getattr(client, re.sub(r"(?<!^)(?=[A-Z])", "_", action).lower())(**request)

    def _deliver(self, event: Event, bus: str) -> None:
        for detail_type, callback in self._subscribers:
            if detail_type == event["detail-type"]:
                callback(event)
        for rule in list(self._backend.event_buses[bus].rules.values()):
            pattern = rule.event_pattern.dump()
            if rule.state == "ENABLED" and pattern and matches(pattern, event):
                self._to_targets(rule, event)

    def _to_targets(self, rule: Any, event: Event) -> None:
        for target in list(rule.targets):
            try:
                self.send(target["Arn"], shaped(target, event), invoker=event["source"])
            except (ServiceException, JsonRESTError, ClientError) as error:
                dead = target.get("DeadLetterConfig", {}).get("Arn")
                if dead is None:
                    raise
                self.send(dead, {**event, "error": str(error)})


def shaped(target: Event, event: Event) -> Any:
    """The event as a target's Input, InputPath or InputTransformer wants it."""
    if "Input" in target:
        return json.loads(target["Input"])
    if "InputPath" in target:
        return _at(event, target["InputPath"])
    if "InputTransformer" not in target:
        return event
    transformer = target["InputTransformer"]
    values = {name: _at(event, path) for name, path in transformer.get("InputPathsMap", {}).items()}
    values |= {"aws.events.event.json": event, "aws.events.rule-arn": "", "aws.events.event": event}
    template, text, quoted = transformer["InputTemplate"], "", False
    for piece in re.split(r'(<[\w.-]+>|\\"|")', template):
        quoted ^= piece == '"'
        if piece[:1] == "<" and piece[1:-1] in values:
            value = values[piece[1:-1]]
            text += value if quoted and isinstance(value, str) else json.dumps(value)
        else:
            text += piece
    return json.loads(text)


def _at(event: Any, path: str) -> Any:
    for step in path.removeprefix("$").strip(".").split("."):
        event = event.get(step) if step and isinstance(event, dict) else event
    return event


_compiled: dict[str, Test] = {}


def matches(pattern: str, event: Event) -> bool:
    """Whether an event pattern (JSON text) picks the event."""
    if pattern not in _compiled:
        _compiled[pattern] = _object(json.loads(pattern))
    return _compiled[pattern](event)


def _object(pattern: Event) -> Test:
    either = [_object(part) for part in pattern.get("$or", [])]
    fields = [
        (name, _object(rule) if isinstance(rule, dict) else _any(rule))
        for name, rule in pattern.items()
        if name != "$or"
    ]

    def test(value: Any) -> bool:
        value = value if isinstance(value, dict) else {}
        if not all(check(value.get(name, _ABSENT)) for name, check in fields):
            return False
        return not either or any(check(value) for check in either)

    return test


def _any(rules: list[Any]) -> Test:
    tests = [_one(rule) for rule in rules]

    def test(value: Any) -> bool:
        values = value if isinstance(value, list) and value else [value]
        return any(check(each) for each in values for check in tests)

    return test


def _one(rule: Any) -> Test:
    if not isinstance(rule, dict):
        return lambda value: (
            value is not _ABSENT and value == rule and isinstance(value, bool) == isinstance(rule, bool)
        )
    (kind, wanted), *_ = rule.items()
    if isinstance(wanted, dict) and kind in ("prefix", "suffix"):
        folded = wanted["equals-ignore-case"].lower()
        return lambda value: isinstance(value, str) and getattr(value.lower(), f"{kind[:-3]}swith")(folded)
    if kind == "exists":
        return lambda value: (value is not _ABSENT) is wanted
    if kind == "prefix":
        return lambda value: isinstance(value, str) and value.startswith(wanted)
    if kind == "suffix":
        return lambda value: isinstance(value, str) and value.endswith(wanted)
    if kind == "equals-ignore-case":
        return lambda value: isinstance(value, str) and value.lower() == wanted.lower()
    if kind == "wildcard":
        star = re.compile(fnmatch.translate(wanted.replace("[", "[[]").replace("?", "[?]")))
        return lambda value: isinstance(value, str) and star.match(value) is not None
    if kind == "anything-but":
        parts = (
            [{key: one} for key, ones in wanted.items() for one in (ones if isinstance(ones, list) else [ones])]
            if isinstance(wanted, dict)
            else wanted
        )
        inner = [_one(each) for each in (parts if isinstance(parts, list) else [parts])]
        return lambda value: value is not _ABSENT and not any(check(value) for check in inner)
    if kind == "numeric":
        bounds = [(_NUMERIC[wanted[i]], wanted[i + 1]) for i in range(0, len(wanted), 2)]
        return lambda value: isinstance(value, (int, float)) and all(holds(value, bound) for holds, bound in bounds)
    raise NotImplementedError(f"the local cloud does not know the event filter {kind!r}")


def next_time(expression: str, after: datetime, *, zone: str = "UTC") -> datetime | None:
    """When `rate(…)`, `cron(…)` or `at(…)` fires next after a time; None when it never does again."""
    kind, inside = re.fullmatch(r"(\w+)\((.*)\)", expression.strip()).groups()  # type: ignore[union-attr]
    if kind == "rate":
        count, unit = inside.split()
        return after + timedelta(seconds=int(count) * _UNITS[unit.rstrip("s")])
    local = after.astimezone(ZoneInfo(zone or "UTC"))
    if kind == "at":
        due = datetime.fromisoformat(inside).replace(tzinfo=local.tzinfo)
        return due.astimezone(UTC) if due > local else None
    minutes, hours, days, months, weekdays, years = (
        _field(text, low, high, names) for text, (low, high, names) in zip(inside.split(), _FIELDS, strict=True)
    )
    day = local.replace(hour=0, minute=0, second=0, microsecond=0)
    for _ in range(366 * 5):
        if day.year in years and day.month in months and day.day in days and day.isoweekday() % 7 + 1 in weekdays:
            for hour in sorted(hours):
                for minute in sorted(minutes):
                    due = day.replace(hour=hour, minute=minute)
                    if due > local:
                        return due.astimezone(UTC)
        day += timedelta(days=1)
    return None


_DAYS = {name: number for number, name in enumerate(("SUN", "MON", "TUE", "WED", "THU", "FRI", "SAT"), 1)}
_NAMES = ("JAN", "FEB", "MAR", "APR", "MAY", "JUN", "JUL", "AUG", "SEP", "OCT", "NOV", "DEC")
_MONTHS = {name: number for number, name in enumerate(_NAMES, 1)}
_FIELDS: tuple[tuple[int, int, dict[str, int]], ...] = (
    (0, 59, {}),
    (0, 23, {}),
    (1, 31, {}),
    (1, 12, _MONTHS),
    (1, 7, _DAYS),
    (1970, 2199, {}),
)


def _field(text: str, low: int, high: int, names: dict[str, int]) -> set[int]:
    chosen: set[int] = set()
    for part in text.upper().split(","):
        span, _, step = part.partition("/")
        first, _, last = span.partition("-")
        if first in ("*", "?"):
            start, end = low, high
        else:
            start = names.get(first) or int(first)
            end = (names.get(last) or int(last)) if last else (high if step else start)
        chosen.update(range(start, end + 1, int(step or 1)))
    return chosen


def _s3_event(_: Any, cloud: LocalCloud) -> Any:
    def send(account_id: str, event_name: Any, bucket: Any, key: Any) -> None:
        cloud.events.s3(event_name.value if hasattr(event_name, "value") else event_name, bucket, key)

    return send


def _put_rule(original: Any, cloud: LocalCloud) -> Any:
    def put(self: Any, *args: Any, **kwargs: Any) -> Any:
        rule = original(self, *args, **kwargs)
        cloud.events.arm_rule(rule)
        return rule

    return put


def _put_schedule(original: Any, cloud: LocalCloud) -> Any:
    def put(self: Any, *args: Any, **kwargs: Any) -> Any:
        schedule = original(self, *args, **kwargs)
        cloud.events.arm_schedule(schedule)
        return schedule

    return put


def _rule_event(_: Any, cloud: LocalCloud) -> Any:
    def send(self: Any, original_event: Event, transform_input: bool = True) -> None:
        """Nothing: `put_events` publishes to the bus once, below, not rule by rule."""

    return send


def _put_events(original: Any, cloud: LocalCloud) -> Any:
    def put(self: Any, events: list[Event]) -> list[Event]:
        entries: list[Event] = original(self, events)
        for entry, given in zip(entries, events, strict=True):
            if "EventId" not in entry:
                continue
            at = given.get("Time")
            when = datetime.fromtimestamp(float(at), UTC) if at else cloud.clock.now()
            event = {
                "version": "0",
                "id": entry["EventId"],
                "detail-type": given["DetailType"],
                "source": given["Source"],
                "account": cloud.account,
                "time": when.strftime("%Y-%m-%dT%H:%M:%SZ"),
                "region": cloud.region,
                "resources": given.get("Resources", []),
                "detail": json.loads(given["Detail"]),
            }
            cloud.events.publish(event, bus=self._normalize_event_bus_arn(given.get("EventBusName")))
        return entries

    return put


_BACKEND = "moto.events.models.EventsBackend"
_SCHEDULER = "moto.scheduler.models.EventBridgeSchedulerBackend"
PATCHES = (
    Patch(
        "moto.s3.notifications", "send_event", "One asynchronous event a change, with sequencer and version.", _s3_event
    ),
    Patch(
        "moto.events.models.Rule",
        "send_to_targets",
        "A bus delivers asynchronously to every kind of target.",
        _rule_event,
    ),
    Patch(_BACKEND, "put_events", "A bus delivers asynchronously to every kind of target.", _put_events),
    Patch(_BACKEND, "put_rule", "Scheduled rules fire.", _put_rule),
    Patch(_SCHEDULER, "create_schedule", "Schedules fire.", _put_schedule),
    Patch(_SCHEDULER, "update_schedule", "An updated schedule fires by its new expression.", _put_schedule),
)
