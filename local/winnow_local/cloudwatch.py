"""CloudWatch: series in memory, embedded metrics, and alarms that evaluate when it matters.

An alarm is evaluated on the minute after data for it arrived, again while that data leaves its window, and otherwise
not at all: weeks of silence cost nothing.
"""

from __future__ import annotations

import json
import math
import operator
import re
from bisect import bisect_left
from collections.abc import Callable
from dataclasses import dataclass
from statistics import fmean
from typing import Any

from moto.cloudwatch.models import Alarm, CloudWatchBackend, MetricDatum, cloudwatch_backends

from .clock import Timer
from .patches import Cloud, patched, refused

Key = tuple[str, str, frozenset[tuple[str, str]]]
MINUTE = 60.0
_COMPARISONS = {"GreaterThanThreshold": operator.gt, "GreaterThanOrEqualToThreshold": operator.ge,
                "LessThanThreshold": operator.lt, "LessThanOrEqualToThreshold": operator.le}  # fmt: skip
_STATISTICS: dict[str, Callable[[list[float]], float]] = {
    "Sum": sum, "Average": fmean, "Minimum": min, "Maximum": max, "SampleCount": len,
}  # fmt: skip
_ENOUGH = re.compile(r"IF\((\w+) >= (\d+), (\w+), (.+)\)")
_EITHER = re.compile(r'ALARM\("[^"]+"\)( OR ALARM\("[^"]+"\))*')
_BACKEND, _RESPONSE = "moto.cloudwatch.models.CloudWatchBackend", "moto.cloudwatch.responses.CloudWatchResponse"


@dataclass(frozen=True)
class Watch:
    """A statistic of a series by period, `otherwise` in a period with fewer than `enough` values."""

    key: Key
    stat: str
    period: float
    enough: int = 0
    otherwise: float = 0.0


class CloudWatch:
    """Metrics and alarms of one cloud; `suppressors` has by composite alarm who suppresses it, seen after how long."""

    def __init__(self, cloud: Cloud) -> None:
        self._cloud, self._series = cloud, dict[Key, list[tuple[float, float]]]()
        self._watches, self._due = dict[str, Watch](), dict[str, Timer]()
        self.suppressors = dict[str, tuple[str, float]]()

    def record(self, namespace: str, name: str, dims: dict[str, str], value: float) -> None:
        """One value, now: its alarms are evaluated on the next minute."""
        if not math.isfinite(value):
            raise ValueError(f"{namespace} {name} reported {value}: CloudWatch takes finite numbers")
        key, now = (namespace, name, frozenset(dims.items())), self._cloud.clock.time()
        if key not in self._series:
            pairs = [{"Name": dim, "Value": dims[dim]} for dim in sorted(dims)]
            self._backend.metric_data.append(MetricDatum(namespace, name, value, pairs, None))  # what ListMetrics lists
        self._series.setdefault(key, []).append((now, value))
        for alarm, watch in self._watches.items():
            if watch.key == key:
                self._due[alarm] = self._due[alarm].by(now // MINUTE * MINUTE + MINUTE)

    def embedded(self, line: dict[str, Any]) -> None:
        """The metrics of one line in embedded metric format, at virtual now."""
        for directive in line["_aws"]["CloudWatchMetrics"]:
            for names in directive.get("Dimensions") or [[]]:
                for metric in directive["Metrics"]:
                    values, dims = line[metric["Name"]], {name: line[name] for name in names}
                    for value in values if isinstance(values, list) else [values]:
                        self.record(directive["Namespace"], metric["Name"], dims, float(value))

    def statistic(self, watch: Watch, start: float) -> float | None:
        """What is watched in the period that starts then; None without data."""
        series = self._series.get(watch.key, [])
        first, end = (bisect_left(series, (when,)) for when in (start, start + watch.period))
        values = [value for _, value in series[first:end]]
        if not values or len(values) < watch.enough:
            return watch.otherwise if values else None
        if watch.stat in _STATISTICS:
            return float(_STATISTICS[watch.stat](values))
        return sorted(values)[max(math.ceil(float(watch.stat.removeprefix("p")) / 100 * len(values)) - 1, 0)]

    def created(self, alarm: Alarm) -> None:
        """A new alarm is first evaluated when its window has passed once, a composite one at once."""
        if alarm.rule is None:
            watch, clock, names = _watch(alarm), self._cloud.clock, [alarm.name]
            first = (clock.time() + watch.period) // MINUTE * MINUTE + MINUTE
            self._watches[alarm.name] = watch
            self._due[alarm.name] = clock.call_at(first, lambda: self.evaluate(names), name="alarm", background=True)
        elif _EITHER.fullmatch(alarm.rule):
            self.evaluate([alarm.name])
        else:
            raise NotImplementedError(f"the local cloud knows composite alarms of any, not {alarm.rule}")

    def evaluate(self, names: list[str]) -> None:
        """Evaluate those of these alarms that are still there, now."""
        for alarm in self._backend.get_alarms_by_alarm_names(names):
            if alarm.rule:
                named = re.findall('"([^"]+)"', alarm.rule)
                holds = any(self._backend.alarms[other].state_value == "ALARM" for other in named)
                reason = f"{alarm.rule} is {holds}"
            else:
                watch, breaches = self._watches[alarm.name], _COMPARISONS[alarm.comparison_operator]
                now, count = self._cloud.clock.time() // MINUTE * MINUTE, int(alarm.evaluation_periods)
                values = [self.statistic(watch, now - back * watch.period) for back in range(count, 0, -1)]
                missing = alarm.treat_missing_data == "breaching"
                bad = sum(missing if value is None else breaches(value, float(alarm.threshold)) for value in values)
                holds = bad >= int(alarm.datapoints_to_alarm or count)
                reason = f"{bad} of the last {count} datapoints breached: {values}"
                if (missing or holds) and values != [None] * count:
                    self._due[alarm.name] = self._due[alarm.name].by(now + watch.period)
            state = "ALARM" if holds else "OK"
            if alarm.state_value != state:
                alarm.update_state(reason, "{}", state)

    def changed(self, alarm: Alarm, old: str) -> None:
        """Tell EventBridge, run the actions of a new state, and evaluate the composite alarms that name the alarm."""
        new, when = alarm.state_value, self._cloud.clock.now().isoformat()
        state = {"value": new, "reason": alarm.state_reason, "timestamp": when}
        detail = {"alarmName": alarm.name, "state": state, "previousState": {"value": old}}
        self._cloud.emit_event("aws.cloudwatch", "CloudWatch Alarm State Change", detail, [alarm.alarm_arn])
        told = {"AlarmName": alarm.name, "AlarmDescription": alarm.description, "OldStateValue": old}
        told |= {"NewStateValue": new, "NewStateReason": alarm.state_reason, "StateChangeTime": when}
        suppressor, wait = self.suppressors.get(alarm.name, ("", 0.0))

        def act() -> None:
            if suppressor and (alarm.state_value != new or self._backend.alarms[suppressor].state_value == "ALARM"):
                return
            actions = {"ALARM": alarm.alarm_actions, "OK": alarm.ok_actions}.get(new, [])
            for topic in actions if alarm.actions_enabled else []:
                self._cloud.client("sns").publish(TopicArn=topic, Message=json.dumps(told))

        if suppressor:
            self._cloud.clock.call_later(wait, act, background=True)
        else:
            act()
        named = f'"{alarm.name}"'
        self.evaluate([other.name for other in self._backend.alarms.values() if named in (other.rule or "")])

    @property
    def _backend(self) -> CloudWatchBackend:
        return cloudwatch_backends[self._cloud.account][self._cloud.region]


def _watch(alarm: Alarm) -> Watch:
    """What an alarm looks at; beside plain alarms there is the form IF(samples >= n, measured, otherwise)."""
    if alarm.treat_missing_data not in ("notBreaching", "breaching"):
        raise NotImplementedError(f"the local cloud does not treat missing data as {alarm.treat_missing_data}")
    if not alarm.metric_data_queries:
        return Watch(_key(alarm), alarm.statistic or str(alarm.extended_statistic), max(float(alarm.period), MINUTE))
    stats = {query.id: query.metric_stat for query in alarm.metric_data_queries if query.metric_stat}
    maths = [str(query.expression) for query in alarm.metric_data_queries if not query.metric_stat]
    form = _ENOUGH.fullmatch(" ".join(maths))
    if not form or stats.keys() != {form[1], form[3]} or stats[form[1]].stat != "SampleCount":
        raise NotImplementedError(f"the local cloud cannot compute {maths} of {sorted(stats)}")
    measured = stats[form[3]]
    return Watch(_key(measured.metric), measured.stat, float(measured.period), int(form[2]), float(form[4]))


def _key(metric: Any) -> Key:
    return metric.namespace, metric.metric_name, frozenset((each.name, each.value) for each in metric.dimensions)


@patched(_BACKEND, "put_metric_alarm", "A new alarm is INSUFFICIENT_DATA and evaluates.")
def _put_alarm(cloud: Cloud, original: Any, self: Any, **given: Any) -> Alarm:
    before = self.alarms.get(given["name"])
    alarm: Alarm = original(self, **given)
    alarm.state_value = before.state_value if before else "INSUFFICIENT_DATA"
    cloud.cloudwatch.created(alarm)
    return alarm


@patched(_RESPONSE, "put_composite_alarm", "Composite alarms exist.", added=True)
def _put_composite(cloud: Cloud, _: Any, self: Any) -> Any:
    given = self._get_params()
    if arn := given.get("ActionsSuppressor"):
        wait = float(given["ActionsSuppressorWaitPeriod"])
        cloud.cloudwatch.suppressors[given["AlarmName"]] = arn.rsplit(":", 1)[-1], wait
    return self.put_metric_alarm()


@patched("moto.cloudwatch.models.Alarm", "update_state", "A new state runs its actions.")
def _update_state(cloud: Cloud, original: Any, self: Alarm, reason: str, reason_data: str, state_value: str) -> None:
    old = self.state_value
    original(self, reason, reason_data, state_value)
    if old != state_value:
        cloud.cloudwatch.changed(self, old)


refused(_BACKEND, "put_metric_data", "Values arrive with their time.", what="take metrics of yours (PutMetricData)")
refused(_BACKEND, "get_metric_statistics", "Periods are aligned.", what="answer GetMetricStatistics")
refused(_BACKEND, "get_metric_data", "Metric math computes.", what="answer GetMetricData")
