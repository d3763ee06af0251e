"""CloudWatch: series in memory, embedded metrics, and alarms that evaluate when it matters.

An alarm is looked at on the minute after data for it arrived, again while that data leaves its window, and otherwise
not at all: weeks of silence cost nothing.
"""

from __future__ import annotations

import math
import operator
import re
from bisect import bisect_left
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from statistics import fmean
from typing import TYPE_CHECKING, Any

from moto.cloudwatch.models import Alarm, MetricDatum, cloudwatch_backends
from moto.core.responses import ActionResult

from .patches import Patch

if TYPE_CHECKING:
    from .clock import Timer
    from .cloud import LocalCloud

Key = tuple[str, str, frozenset[tuple[str, str]]]
MINUTE = 60.0
_COMPARISONS = {"GreaterThanThreshold": operator.gt, "GreaterThanOrEqualToThreshold": operator.ge,
                "LessThanThreshold": operator.lt, "LessThanOrEqualToThreshold": operator.le}  # fmt: skip
_STATISTICS: dict[str, Callable[[list[float]], float]] = {
    "Sum": sum, "Average": fmean, "Minimum": min, "Maximum": max, "SampleCount": len,
}  # fmt: skip
_ENOUGH = re.compile(r"IF\((\w+) >= (\d+), (\w+), (.+)\)")
_EITHER = re.compile(r'ALARM\("[^"]+"\)( OR ALARM\("[^"]+"\))*')


@dataclass(frozen=True)
class Watch:
    """What an alarm looks at: a statistic of a series, `otherwise` in a period with fewer than `enough` values."""

    key: Key
    stat: str
    period: float
    enough: int = 1
    otherwise: float = 0.0


class CloudWatch:
    """Metrics and alarms of one cloud."""

    def __init__(self, cloud: LocalCloud) -> None:
        self._cloud, self.series = cloud, dict[Key, list[tuple[float, float]]]()
        self._watches: dict[str, Watch] = {}
        self._due: dict[str, Timer] = {}

    def record(self, namespace: str, name: str, dims: dict[str, str], value: float) -> None:
        """One value, now: its alarms are looked at on the next minute."""
        if not math.isfinite(value):
            raise ValueError(f"{namespace} {name} reported {value}: CloudWatch takes finite numbers")
        key, now = (namespace, name, frozenset(dims.items())), self._cloud.clock.time()
        self.series.setdefault(key, []).append((now, value))
        for alarm, watch in self._watches.items():
            if watch.key == key:
                self._plan(alarm, now // MINUTE * MINUTE + MINUTE)

    def embedded(self, line: dict[str, Any]) -> None:
        """The metrics of one line in embedded metric format, at virtual now."""
        for directive in line["_aws"]["CloudWatchMetrics"]:
            for names in directive.get("Dimensions") or [[]]:
                for metric in directive["Metrics"]:
                    values, dims = line[metric["Name"]], {name: line[name] for name in names}
                    for value in values if isinstance(values, list) else [values]:
                        self.record(directive["Namespace"], metric["Name"], dims, float(value))

    def statistic(self, key: Key, stat: str, start: float, end: float) -> float | None:
        """One statistic of a series in [start, end); None without data."""
        series = self.series.get(key, [])
        values = [value for _, value in series[bisect_left(series, (start,)) : bisect_left(series, (end,))]]
        if stat in _STATISTICS:
            return float(_STATISTICS[stat](values)) if values else None
        if not re.fullmatch(r"p\d\d", stat):
            raise NotImplementedError(f"the local cloud has no statistic {stat}")
        return sorted(values)[max(math.ceil(float(stat[1:]) / 100 * len(values)) - 1, 0)] if values else None

    def evaluate(self, names: Iterable[str]) -> None:
        """Evaluate these alarms now."""
        for name in names:
            self._look(name)

    def created(self, alarm: Alarm) -> None:
        """A new alarm has no data yet; it is first looked at when its window has passed once."""
        alarm.state_value = "INSUFFICIENT_DATA"
        if alarm.rule is not None:
            if not _EITHER.fullmatch(alarm.rule):
                raise NotImplementedError(f"the local cloud knows composite alarms of any, not {alarm.rule}")
            self._look(alarm.name)
            return
        if alarm.treat_missing_data not in ("notBreaching", "breaching"):
            raise NotImplementedError(f"the local cloud does not treat missing data as {alarm.treat_missing_data}")
        watch = self._watches[alarm.name] = _watch(alarm)
        self._plan(alarm.name, (self._cloud.clock.time() + watch.period) // MINUTE * MINUTE + MINUTE)

    def changed(self, alarm: Alarm, old: str) -> None:
        """Tell EventBridge, run the actions of a new state, and look at the composite alarms that name the alarm."""
        when = self._cloud.clock.now().isoformat()
        state = {"value": alarm.state_value, "reason": alarm.state_reason, "timestamp": when}
        detail = {"alarmName": alarm.name, "state": state, "previousState": {"value": old}}
        self._cloud.emit_event("aws.cloudwatch", "CloudWatch Alarm State Change", detail, [alarm.alarm_arn])
        if suppressor := getattr(alarm, "suppressor", None):
            self._unless_suppressed(alarm, *suppressor, detail)
        else:
            self._act(alarm, detail)
        for other in list(self._alarms.values()):
            if other.rule and f'"{alarm.name}"' in other.rule:
                self._look(other.name)

    def _unless_suppressed(self, alarm: Alarm, name: str, wait: float, again: float, detail: dict[str, Any]) -> None:
        """Act after `wait`, unless the suppressor is in ALARM then; in that case see once more after `again`."""

        def see() -> None:
            if alarm.state_value == detail["state"]["value"]:
                if self._alarms[name].state_value == "ALARM":
                    self._unless_suppressed(alarm, name, again, again, detail)
                else:
                    self._act(alarm, detail)

        self._cloud.clock.call_later(wait, see, name="suppressed", background=True)

    def _act(self, alarm: Alarm, detail: dict[str, Any]) -> None:
        new, old = detail["state"], detail["previousState"]["value"]
        actions = {"ALARM": alarm.alarm_actions, "OK": alarm.ok_actions}.get(new["value"], [])
        for arn in actions if alarm.actions_enabled else []:
            if ":sns:" not in arn:
                raise NotImplementedError(f"the local cloud does not run the alarm action {arn}")
            told = {"AlarmName": alarm.name, "AlarmDescription": alarm.description, "AlarmArn": alarm.alarm_arn}
            told |= {"NewStateValue": new["value"], "OldStateValue": old, "NewStateReason": new["reason"]}
            told |= {"StateChangeTime": new["timestamp"], "AWSAccountId": self._cloud.account}
            self._cloud.events.send(arn, told)

    @property
    def _alarms(self) -> dict[str, Alarm]:
        alarms: dict[str, Alarm] = cloudwatch_backends[self._cloud.account][self._cloud.region].alarms
        return alarms

    def _plan(self, name: str, when: float) -> None:
        planned = self._due.get(name)
        if planned is None or not planned.live or planned.when > when:
            if planned is not None:
                planned.cancel()
            self._due[name] = self._cloud.clock.call_at(when, lambda: self._look(name), name="alarm", background=True)

    def _look(self, name: str) -> None:
        alarm = self._alarms.get(name)
        if alarm is None:
            self._watches.pop(name, None)
            return
        if alarm.rule:
            named = re.findall('"([^"]+)"', alarm.rule)
            holds = any(self._alarms[other].state_value == "ALARM" for other in named)
            reason = f"{alarm.rule} is {holds}"
        else:
            watch, breaches = self._watches[name], _COMPARISONS[alarm.comparison_operator]
            now, count = self._cloud.clock.time() // MINUTE * MINUTE, int(alarm.evaluation_periods)
            values = [self._value(watch, now - back * watch.period) for back in range(count, 0, -1)]
            missing = alarm.treat_missing_data == "breaching"
            bad = sum(missing if value is None else breaches(value, float(alarm.threshold)) for value in values)
            holds = bad >= int(alarm.datapoints_to_alarm or count)
            reason = f"{bad} of the last {count} datapoints breached: {values}"
            if (missing or holds) and any(value is not None for value in values):
                self._plan(name, now + watch.period)
        state = "ALARM" if holds else "OK"
        if alarm.state_value != state:
            alarm.update_state(reason, "{}", state)

    def _value(self, watch: Watch, start: float) -> float | None:
        few = (self.statistic(watch.key, "SampleCount", start, start + watch.period) or 0) < watch.enough
        found = self.statistic(watch.key, watch.stat, start, start + watch.period)
        return watch.otherwise if few and found is not None else found


def _watch(alarm: Alarm) -> Watch:
    """What an alarm looks at; beside plain alarms there is the form IF(samples >= n, measured, otherwise)."""
    if not alarm.metric_data_queries:
        stat = alarm.statistic or alarm.extended_statistic
        return Watch(_key(alarm), str(stat), max(float(alarm.period), MINUTE))
    stats = {query.id: query.metric_stat for query in alarm.metric_data_queries if query.metric_stat}
    (expression,) = [query.expression for query in alarm.metric_data_queries if not query.metric_stat] or [""]
    form = _ENOUGH.fullmatch(str(expression))
    counted, measured = (stats.get(form[1]), stats.get(form[3])) if form else (None, None)
    if not form or not counted or not measured or counted.stat != "SampleCount" or len(stats) > 2:
        raise NotImplementedError(f"the local cloud cannot compute {expression} of {sorted(stats)}")
    return Watch(_key(measured.metric), measured.stat, float(measured.period), int(form[2]), float(form[4]))


def _key(metric: Any) -> Key:
    return metric.namespace, metric.metric_name, frozenset((each.name, each.value) for each in metric.dimensions)


def _put_alarm(original: Any, cloud: LocalCloud) -> Any:
    def put(self: Any, **kwargs: Any) -> Alarm:
        before = self.alarms.get(kwargs["name"])
        alarm: Alarm = original(self, **kwargs)
        cloud.cloudwatch.created(alarm)
        if before is not None:
            alarm.state_value, alarm.state_reason = before.state_value, before.state_reason
        return alarm

    return put


def _put_composite(_: Any, __: LocalCloud) -> Any:
    def put(self: Any) -> Any:
        answer, given = self.put_metric_alarm(), self._get_params()
        if name := given.get("ActionsSuppressor"):
            times = (float(given[f"ActionsSuppressor{kind}Period"]) for kind in ("Wait", "Extension"))
            self.cloudwatch_backend.alarms[given["AlarmName"]].suppressor = (name.rsplit(":", 1)[-1], *times)
        return answer

    return put


def _update_state(original: Any, cloud: LocalCloud) -> Any:
    def update(self: Alarm, reason: str, reason_data: str, state_value: str) -> None:
        old = self.state_value
        original(self, reason, reason_data, state_value)
        if old != state_value:
            cloud.cloudwatch.changed(self, old)

    return update


def _put_data(_: Any, cloud: LocalCloud) -> Any:
    def put(_: Any, namespace: str, metric_data: list[dict[str, Any]]) -> None:
        for given in metric_data:
            if unknown := given.keys() - {"MetricName", "Dimensions", "Value", "Unit"}:
                raise NotImplementedError(f"the local cloud takes metrics of one value, now, without {sorted(unknown)}")
            dims = {each["Name"]: each["Value"] for each in given.get("Dimensions") or []}
            cloud.cloudwatch.record(namespace, given["MetricName"], dims, float(given["Value"]))

    return put


def _get_statistics(_: Any, cloud: LocalCloud) -> Any:
    def get(self: Any) -> ActionResult:
        given, points = self._get_params(), []
        dims = frozenset((each["Name"], each["Value"]) for each in given.get("Dimensions") or [])
        key, period = (given["Namespace"], given["MetricName"], dims), float(given["Period"])
        start, end = (given[name].replace(tzinfo=UTC).timestamp() for name in ("StartTime", "EndTime"))
        series = cloud.cloudwatch.series.get(key, [])
        for at in sorted({when // period * period for when, _ in series if start <= when < end}):
            found = [{stat: cloud.cloudwatch.statistic(key, stat, at, at + period) for stat in given.get(kind) or []}
                     for kind in ("Statistics", "ExtendedStatistics")]  # fmt: skip
            points.append({"Timestamp": datetime.fromtimestamp(at, UTC), **found[0], "ExtendedStatistics": found[1]})
        return ActionResult({"Label": given["MetricName"], "Datapoints": points})

    return get


def _get_data(*_: Any) -> Any:
    def get(*_: Any, **__: Any) -> None:
        raise NotImplementedError("the local cloud has no GetMetricData: ask GetMetricStatistics")

    return get


def _all_metrics(_: Any, cloud: LocalCloud) -> Any:
    def get(_: Any) -> list[MetricDatum]:
        return [MetricDatum(namespace, name, 0.0, [{"Name": key, "Value": value} for key, value in sorted(dims)], None)
                for namespace, name, dims in cloud.cloudwatch.series]  # fmt: skip

    return get


_BACKEND, _RESPONSE = "moto.cloudwatch.models.CloudWatchBackend", "moto.cloudwatch.responses.CloudWatchResponse"
PATCHES = (
    Patch(_BACKEND, "put_metric_alarm", "A new alarm is INSUFFICIENT_DATA and evaluates.", _put_alarm),
    Patch("moto.cloudwatch.models.Alarm", "update_state", "A new state runs its actions.", _update_state),
    Patch(_BACKEND, "put_metric_data", "Values are kept by series.", _put_data),
    Patch(_BACKEND, "get_metric_data", "What is not simulated is refused.", _get_data),
    Patch(_BACKEND, "get_all_metrics", "Every series is listed once.", _all_metrics),
    Patch(_RESPONSE, "get_metric_statistics", "Percentiles compute, periods are aligned.", _get_statistics),
    Patch(_RESPONSE, "put_composite_alarm", "Composite alarms exist.", _put_composite, added=True),
)
