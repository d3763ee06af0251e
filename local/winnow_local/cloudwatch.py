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
from dataclasses import dataclass, replace
from functools import partial
from statistics import fmean
from typing import Any

from moto.cloudwatch.models import Alarm, MetricDatum, cloudwatch_backends

from .patches import Cloud, patched, refused

Key = tuple[str, str, frozenset[tuple[str, str]]]
MINUTE = 60.0
_COMPARISONS = {"GreaterThanThreshold": operator.gt, "GreaterThanOrEqualToThreshold": operator.ge,
                "LessThanThreshold": operator.lt, "LessThanOrEqualToThreshold": operator.le}  # fmt: skip
_STATISTICS: dict[str, Any] = {"Sum": sum, "Average": fmean, "Minimum": min, "Maximum": max, "SampleCount": len}
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
    """Metrics and alarms of one cloud; an alarm of a metric has its Watch and when it is due, beside what moto gives it."""

    def __init__(self, cloud: Cloud) -> None:
        self._cloud, self._series = cloud, dict[Key, list[tuple[float, float]]]()

    @property
    def backend(self) -> Any:
        """Who holds the alarms, and of each series the first value, for ListMetrics."""
        return cloudwatch_backends[self._cloud.account][self._cloud.region]

    def record(self, namespace: str, name: str, dims: dict[str, str], value: float) -> None:
        """One value, now: its alarms are evaluated on the next minute."""
        if not math.isfinite(value):
            raise ValueError(f"{namespace} {name} reported {value}: CloudWatch takes finite numbers")
        key, now = (namespace, name, frozenset(dims.items())), self._cloud.clock.time()
        if key not in self._series:
            pairs = [{"Name": dim, "Value": dims[dim]} for dim in sorted(dims)]
            self.backend.metric_data.append(MetricDatum(namespace, name, value, pairs, None))
        self._series.setdefault(key, []).append((now, value))
        for alarm in list(self.backend.alarms.values()):
            if (watch := getattr(alarm, "watch", None)) and watch.key == key:
                alarm.due = alarm.due.by(now // MINUTE * MINUTE + MINUTE)

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

    def evaluate(self, names: list[str]) -> None:
        """Evaluate those of these alarms that are still there, now."""
        alarms = self.backend.alarms
        for alarm in [alarms[name] for name in names if name in alarms]:
            if alarm.rule:
                holds = any(alarms[other].state_value == "ALARM" for other in re.findall('"([^"]+)"', alarm.rule))
                reason = f"{alarm.rule} is {holds}"
            else:
                watch, breaches = alarm.watch, _COMPARISONS[alarm.comparison_operator]
                now, count = self._cloud.clock.time() // MINUTE * MINUTE, int(alarm.evaluation_periods)
                values = [self.statistic(watch, now - back * watch.period) for back in range(count, 0, -1)]
                missing = alarm.treat_missing_data == "breaching"
                bad = sum(missing if value is None else breaches(value, float(alarm.threshold)) for value in values)
                holds = bad >= int(alarm.datapoints_to_alarm or count)
                reason = f"{bad} of the last {count} datapoints breached: {values}"
                if (missing or holds) and values != [None] * count:
                    alarm.due = alarm.due.by(now + watch.period)
            state = "ALARM" if holds else "OK"
            if alarm.state_value != state:
                alarm.update_state(reason, "{}", state)


def _watch(alarm: Alarm) -> Watch:
    """What an alarm looks at; beside plain alarms there is the form IF(samples >= n, measured, otherwise)."""
    if alarm.treat_missing_data not in ("notBreaching", "breaching"):
        raise NotImplementedError(f"the local cloud does not treat missing data as {alarm.treat_missing_data}")
    if not alarm.metric_data_queries:
        return Watch(_key(alarm), alarm.statistic or str(alarm.extended_statistic), max(float(alarm.period), MINUTE))
    stats = {query.id: query.metric_stat for query in alarm.metric_data_queries if query.metric_stat}
    parts = {name: Watch(_key(part.metric), part.stat, float(part.period)) for name, part in stats.items()}
    maths = [str(query.expression) for query in alarm.metric_data_queries if not query.metric_stat]
    form = _ENOUGH.fullmatch(" ".join(maths))
    if not form or parts.keys() != {form[1], form[3]} or parts[form[1]] != replace(parts[form[3]], stat="SampleCount"):
        raise NotImplementedError(f"the local cloud cannot compute {maths} of {sorted(parts)}")
    return replace(parts[form[3]], enough=int(form[2]), otherwise=float(form[4]))


def _key(metric: Any) -> Key:
    return metric.namespace, metric.metric_name, frozenset((each.name, each.value) for each in metric.dimensions)


@patched(_BACKEND, "put_metric_alarm", "A new alarm has no data, and is evaluated when its window has passed once.")
def _put_alarm(cloud: Cloud, original: Any, self: Any, **given: Any) -> Any:
    before, alarm = self.alarms.get(given["name"]), original(self, **given)
    alarm.state_value = before.state_value if before else "INSUFFICIENT_DATA"
    alarm.suppressor = None
    if not alarm.rule:
        watch, look = _watch(alarm), partial(cloud.cloudwatch.evaluate, [alarm.name])
        first = (cloud.clock.time() + watch.period) // MINUTE * MINUTE + MINUTE
        alarm.due = cloud.clock.call_at(first, look, background=True)
        alarm.watch = watch
    return alarm


@patched(_RESPONSE, "put_composite_alarm", "Composite alarms exist.", added=True)
def _put_composite(cloud: Cloud, _: Any, self: Any) -> Any:
    given = self._get_params()
    if not _EITHER.fullmatch(given["AlarmRule"]):
        raise NotImplementedError(f"the local cloud knows composite alarms of any, not {given['AlarmRule']}")
    answer, alarm = self.put_metric_alarm(), self.cloudwatch_backend.alarms[given["AlarmName"]]
    if arn := given.get("ActionsSuppressor"):
        alarm.suppressor, alarm.wait = arn.rsplit(":", 1)[-1], float(given["ActionsSuppressorWaitPeriod"])
    cloud.cloudwatch.evaluate([alarm.name])
    return answer


@patched("moto.cloudwatch.models.Alarm", "update_state", "A new state is told, and acts if nothing suppresses it.")
def _update_state(cloud: Cloud, original: Any, self: Any, reason: str, data: str, new: str) -> None:
    old, when, alarms = self.state_value, cloud.clock.now().isoformat(), cloud.cloudwatch.backend.alarms
    original(self, reason, data, new)
    if new == old:
        return
    state = {"value": new, "reason": reason, "timestamp": when}
    detail = {"alarmName": self.name, "state": state, "previousState": {"value": old}}
    cloud.emit_event("aws.cloudwatch", "CloudWatch Alarm State Change", detail, [self.alarm_arn])
    told = {"AlarmName": self.name, "AlarmDescription": self.description, "OldStateValue": old}
    told |= {"NewStateValue": new, "NewStateReason": reason, "StateChangeTime": when}

    def act() -> None:
        if self.suppressor and (self.state_value != new or alarms[self.suppressor].state_value == "ALARM"):
            return
        actions = {"ALARM": self.alarm_actions, "OK": self.ok_actions}.get(new, [])
        for topic in actions if self.actions_enabled else []:
            cloud.client("sns").publish(TopicArn=topic, Message=json.dumps(told))

    if self.suppressor:
        cloud.clock.call_later(self.wait, act, background=True)
    else:
        act()
    cloud.cloudwatch.evaluate([name for name in alarms if f'"{self.name}"' in (alarms[name].rule or "")])


refused(_BACKEND, "put_metric_data", "Values arrive with their time.", what="take metrics of yours (PutMetricData)")
refused(_BACKEND, "get_metric_statistics", "Periods are aligned.", what="answer GetMetricStatistics")
refused(_BACKEND, "get_metric_data", "Metric math computes.", what="answer GetMetricData")
