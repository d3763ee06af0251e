"""EventBridge: what is emitted reaches the targets of matching rules a moment later; schedules fire on the clock.

Events travel by timers, so a burst of puts is routed when the clock is driven, in order.
"""

from __future__ import annotations

import json
import random
import re
import uuid
from collections.abc import Callable, Iterable
from itertools import chain
from typing import Any

from moto.events.models import EventPattern, events_backends
from moto.sqs.models import sqs_backends

from .patches import Cloud, patched, refused

LATENCY = 0.5
Event = dict[str, Any]
_REASONS = {"Put": "PutObject", "Post": "POST Object", "Copy": "CopyObject"}
_UNITS = {"minute": 60, "hour": 3600, "day": 86400}
_BUS, _SCHEDULER = "moto.events.models.EventsBackend", "moto.scheduler.models.EventBridgeSchedulerBackend"


class Events:
    """The default bus of one cloud; `sequencer` is the last one that S3 gave to an object."""

    def __init__(self, cloud: Cloud, *, seed: int) -> None:
        self._cloud, self._rng, self.sequencer = cloud, random.Random(seed), 0
        self._subscribers: list[tuple[str, Callable[[Event], object]]] = []

    def emit(self, source: str, detail_type: str, detail: Event, resources: Iterable[str] = ()) -> None:
        """Publish an event of an AWS service; it is delivered half a second later."""
        identity, cloud = str(uuid.UUID(int=self._rng.getrandbits(128), version=4)), self._cloud
        event = {"version": "0", "id": identity, "detail-type": detail_type, "source": source, "account": cloud.account}
        event |= {"time": cloud.clock.now().strftime("%Y-%m-%dT%H:%M:%SZ"), "region": cloud.region}
        self.publish(event | {"resources": list(resources), "detail": json.loads(json.dumps(detail, default=str))})

    def publish(self, event: Event, *, late: float = 0.0) -> None:
        """Let a whole event be delivered; what tests wrap to lose, double or delay some."""
        self._cloud.clock.call_later(LATENCY + late, lambda: self._deliver(event))

    def subscribe(self, detail_type: str, callback: Callable[[Event], object]) -> None:
        """Call back for every delivered event of a type, as a service's managed rule would."""
        self._subscribers.append((detail_type, callback))

    def send(self, arn: str, event: Event, *, invoker: str) -> None:
        """Deliver to a queue, or to a function (asynchronously)."""
        if ":sqs:" in arn:
            sqs_backends[self._cloud.account][self._cloud.region].send_message(arn.split(":")[-1], json.dumps(event))
        elif ":lambda:" in arn:
            self._cloud.lambdas.start(arn, event, invoker=invoker)
        else:
            raise NotImplementedError(f"the local cloud does not deliver events to {arn}")

    def _deliver(self, event: Event) -> None:
        for detail_type, callback in self._subscribers:
            if detail_type == event["detail-type"]:
                callback(event)
        flat = EventPattern._flatten_dict(event)
        bus = events_backends[self._cloud.account][self._cloud.region].event_buses["default"]
        with self._cloud.gateway.lock:  # a deployment that makes a rule anew is not seen between
            rules = list(bus.rules.values())
        for rule in rules:
            pattern = rule.event_pattern
            if rule.state == "ENABLED" and pattern._does_event_match(flat, pattern.get_pattern()):
                for target in list(rule.targets):
                    if unknown := target.keys() - {"Id", "Arn", "DeadLetterConfig"}:
                        raise NotImplementedError(f"rule {rule.name}: the local cloud has no {unknown} of targets")
                    self.send(target["Arn"], event, invoker=event["source"])


@patched(_BUS, "put_rule", "A rule's pattern is held against the filters known here.")
def _put_rule(_: Cloud, original: Any, self: Any, *args: Any, **given: Any) -> Any:
    rule = original(self, *args, **given)
    if rule.scheduled_expression or rule.event_bus_name != "default" or "Object Deleted" in rule.event_pattern.dump():
        raise NotImplementedError(f"rule {rule.name}: no schedules, other buses or Object Deleted in the local cloud")
    for wanted in chain(*EventPattern._flatten_dict(rule.event_pattern.get_pattern()).values()):
        if not isinstance(wanted, str) and not (isinstance(wanted, dict) and wanted.keys() == {"prefix"}):
            raise NotImplementedError(f"rule {rule.name}: the local cloud does not know the event filter {wanted}")
    return rule


@patched("moto.s3.notifications", "send_event", "An asynchronous event a change, with sequencer and version.")
def _object_created(cloud: Cloud, _: Any, account: str, event_name: str, bucket: Any, key: Any) -> None:
    config, how = bucket.notification_configuration, event_name.removeprefix("s3:ObjectCreated:")
    part = how == "Put" and getattr(key, "multipart", None) is not None  # moto tells the completion by itself
    if config is None or config.event_bridge is None or ":" in how or part:
        return
    cloud.events.sequencer = sequencer = max(cloud.events.sequencer + 1, int(cloud.clock.time() * 1e6))
    told = {"key": key.name, "size": key.size, "etag": key.etag.strip('"'), "sequencer": f"{sequencer:016X}"}
    told |= {"version-id": key.version_id} if bucket.is_versioned else {}
    detail = {"version": "0", "bucket": {"name": bucket.name}, "object": told, "requester": account}
    cloud.emit_event("aws.s3", "Object Created", {**detail, "reason": _REASONS.get(how, how)}, [bucket.arn])


@patched(_SCHEDULER, "create_schedule", "Schedules fire.")
def _create_schedule(cloud: Cloud, original: Any, self: Any, *args: Any, **given: Any) -> Any:
    schedule = original(self, *args, **given)
    rate = re.fullmatch(r"rate\((\d+) (minute|hour|day)s?\)", schedule.schedule_expression)
    if rate is None or "Input" not in schedule.target:
        raise NotImplementedError(f"the local cloud knows rate(…) and Input only, not {schedule.schedule_expression}")
    seconds, group = int(rate[1]) * _UNITS[rate[2]], self.schedule_groups[schedule.group_name]

    def fire() -> None:
        if group.schedules.get(schedule.name) is schedule and schedule.state == "ENABLED":
            cloud.events.send(schedule.target["Arn"], json.loads(schedule.target["Input"]), invoker="aws.scheduler")
            cloud.clock.call_later(seconds, fire, background=True)

    cloud.clock.call_later(seconds, fire, background=True)
    return schedule


refused(_BUS, "put_events", "Only services put events here.", what="take events of yours (PutEvents)")
refused(_SCHEDULER, "update_schedule", "Schedules stay as made here.", what="update schedules")
