"""CloudWatch: series in memory, embedded metrics, statistics and metric math, and alarms that evaluate when it matters.

An alarm is looked at on the minute after data for it arrived, again while periods with that data leave its window, and
otherwise not at all: weeks of silence cost nothing.
"""

from __future__ import annotations

import ast
import math
import operator
import re
from bisect import bisect_left, insort
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import reduce
from typing import TYPE_CHECKING, Any

from moto.cloudwatch.models import Alarm, CloudWatchBackend, MetricDatum, cloudwatch_backends

from .patches import Patch

if TYPE_CHECKING:
    from .clock import Timer
    from .cloud import LocalCloud

Key = tuple[str, str, frozenset[tuple[str, str]]]
MINUTE = 60.0


@dataclass(frozen=True, order=True)
class Datum:
    """One reported value, or the statistics of `count` of them."""

    at: float
    total: float
    low: float
    high: float
    count: float
    unit: str = "None"


class CloudWatch:
    """Metrics and alarms of one cloud."""

    def __init__(self, cloud: LocalCloud) -> None:
        self._cloud, self._series = cloud, dict[Key, list[Datum]]()
        self._due: dict[str, Timer] = {}

    def record(self, namespace: str, name: str, dims: dict[str, str], value: float, *, unit: str = "None") -> None:
        """One value, now."""
        self._add(namespace, name, dims, Datum(self._cloud.clock.time(), value, value, value, 1, unit))

    def embedded(self, line: dict[str, Any]) -> None:
        """The metrics of one line in embedded metric format, at virtual now."""
        for directive in line["_aws"]["CloudWatchMetrics"]:
            for names in directive.get("Dimensions") or [[]]:
                dims = {name: line[name] for name in names}
                for metric in directive["Metrics"]:
                    values = line[metric["Name"]]
                    for value in values if isinstance(values, list) else [values]:
                        unit = metric.get("Unit", "None")
                        self.record(directive["Namespace"], metric["Name"], dims, float(value), unit=unit)

    def put(self, namespace: str, data: Iterable[dict[str, Any]]) -> None:
        """PutMetricData."""
        for given in data:
            stamp = given.get("Timestamp")
            at = stamp.replace(tzinfo=stamp.tzinfo or UTC).timestamp() if stamp else self._cloud.clock.time()
            dims = {each["Name"]: each["Value"] for each in given.get("Dimensions") or []}
            unit = given.get("Unit") or "None"
            values = given.get("Values") or ([given["Value"]] if "Value" in given else [])
            counts = given.get("Counts") or [1] * len(values)
            parts = [Datum(at, v * n, v, v, float(n), unit) for v, n in zip(map(float, values), counts, strict=True)]
            if stats := given.get("StatisticValues"):
                total, low, high, count = (float(stats[name]) for name in ("Sum", "Minimum", "Maximum", "SampleCount"))
                parts.append(Datum(at, total, low, high, count, unit))
            for datum in parts:
                self._add(namespace, given["MetricName"], dims, datum)

    def statistic(self, key: Key, stat: str, start: float, end: float) -> float | None:
        """One statistic of a series in [start, end); None without data."""
        if key[0] == "AWS/SQS":
            return self._cloud.queues.level(dict(key[2]).get("QueueName", ""), key[1], start, end)
        series = self._series.get(key, [])
        data = series[bisect_left(series, start, key=_at) : bisect_left(series, end, key=_at)]
        return _statistic(data, stat) if data else None

    def listed(self) -> list[Key]:
        """Every series there is."""
        return list(self._series)

    def points(
        self, queries: list[dict[str, Any]], start: float, end: float, *, period: float | None = None
    ) -> dict[str, list[tuple[float, float]]]:
        """Time and value of every query of a GetMetricData request or an alarm, expressions included, by id."""
        found: dict[str, list[tuple[float, float]]] = {}
        for query in queries:
            if stat := query.get("MetricStat"):
                metric, step = stat["Metric"], period or float(stat["Period"])
                key = series_key(metric["Namespace"], metric["MetricName"], metric.get("Dimensions") or [])
                first = start if period else start // step * step
                steps = [first + i * step for i in range(math.ceil((end - first) / step))]
                values = [(at, self.statistic(key, stat["Stat"], at, at + step)) for at in steps]
                found[query["Id"]] = [(at, value) for at, value in values if value is not None]
        for query in queries:
            if "Expression" in query and not query.get("MetricStat"):
                found[query["Id"]] = evaluate(query["Expression"], found)
        return found

    def arrived(self, namespace: str, name: str, dims: dict[str, str]) -> None:
        """Data of a metric arrived: its alarms are looked at on the next minute."""
        for alarm in self._alarms.values():
            if (namespace, name, frozenset(dims.items())) in _inputs(alarm):
                self._plan(alarm, self._cloud.clock.time() // MINUTE * MINUTE + MINUTE)

    def evaluate(self, names: Iterable[str]) -> None:
        """Evaluate these alarms now."""
        for name in names:
            if name in self._alarms:
                self._look(self._alarms[name])

    def created(self, alarm: Alarm) -> None:
        """A new alarm has no data yet; it is first looked at when its window has passed once."""
        alarm.state_value = "INSUFFICIENT_DATA"
        if alarm.rule is not None:
            self._look(alarm)
        else:
            self._plan(alarm, (self._cloud.clock.time() + _period(alarm)) // MINUTE * MINUTE + MINUTE)

    def changed(self, alarm: Alarm, old: str) -> None:
        """Run the actions of a new state, tell EventBridge, and look at the composite alarms that name it."""
        new, reason, when = alarm.state_value, alarm.state_reason, self._cloud.clock.now().isoformat()
        if old == "ALARM":
            alarm.ended_at = self._cloud.clock.time()  # type: ignore[attr-defined]
        states = {"state": {"value": new, "reason": reason, "timestamp": when}, "previousState": {"value": old}}
        detail = {"alarmName": alarm.name, **states}
        self._cloud.emit_event("aws.cloudwatch", "CloudWatch Alarm State Change", detail, [alarm.alarm_arn])
        if suppressor := getattr(alarm, "actions_suppressor", None):
            wait = float(alarm.actions_suppressor_wait_period)  # type: ignore[attr-defined]
            self._cloud.clock.call_later(
                wait, lambda: self._unless_suppressed(alarm, suppressor, detail), background=True
            )
        else:
            self._act(alarm, detail)
        for other in list(self._alarms.values()):
            if other.rule is not None and (f'"{alarm.name}"' in other.rule or f"({alarm.name})" in other.rule):
                self._look(other)

    def _unless_suppressed(self, alarm: Alarm, suppressor: str, detail: dict[str, Any]) -> None:
        """Run a composite alarm's actions unless its suppressor is in ALARM, or was within the extension period."""
        if alarm.state_value != detail["state"]["value"]:
            return
        other = self._alarms[suppressor.rsplit(":", 1)[-1]]
        extension = float(alarm.actions_suppressor_extension_period)  # type: ignore[attr-defined]
        left = getattr(other, "ended_at", float("-inf")) + extension - self._cloud.clock.time()
        if other.state_value != "ALARM" and left <= 0:
            self._act(alarm, detail)
            return
        again = MINUTE if other.state_value == "ALARM" else left
        self._cloud.clock.call_later(
            again, lambda: self._unless_suppressed(alarm, suppressor, detail), name="suppressed", background=True
        )

    def _act(self, alarm: Alarm, detail: dict[str, Any]) -> None:
        new, old, when = detail["state"]["value"], detail["previousState"]["value"], detail["state"]["timestamp"]
        actions = {"ALARM": alarm.alarm_actions, "OK": alarm.ok_actions}.get(new, alarm.insufficient_data_actions)
        for arn in (actions or []) if alarm.actions_enabled else []:
            if ":lambda:" in arn:
                event = {"source": "aws.cloudwatch", "alarmArn": alarm.alarm_arn, "time": when, "alarmData": detail}
                self._cloud.events.send(arn, event)
            elif ":sns:" in arn:
                told = {"AlarmName": alarm.name, "AlarmDescription": alarm.description, "AlarmArn": alarm.alarm_arn}
                told |= {"NewStateValue": new, "OldStateValue": old, "NewStateReason": detail["state"]["reason"]}
                told |= {"StateChangeTime": when, "AWSAccountId": self._cloud.account, "Region": self._cloud.region}
                self._cloud.events.send(arn, told)
            else:
                raise NotImplementedError(f"the local cloud does not run the alarm action {arn}")

    @property
    def _alarms(self) -> dict[str, Alarm]:
        backend: CloudWatchBackend = cloudwatch_backends[self._cloud.account][self._cloud.region]
        return backend.alarms

    def _add(self, namespace: str, name: str, dims: dict[str, str], datum: Datum) -> None:
        if not math.isfinite(datum.total):
            raise ValueError(f"{namespace} {name} reported {datum.total}: CloudWatch takes finite numbers")
        series = self._series.setdefault((namespace, name, frozenset(dims.items())), [])
        if series and series[-1].at > datum.at:
            insort(series, datum)
        else:
            series.append(datum)
        self.arrived(namespace, name, dims)

    def _plan(self, alarm: Alarm, when: float) -> None:
        planned = self._due.get(alarm.name)
        if planned is not None and planned.live:
            if planned.when <= when:
                return
            planned.cancel()
        look = lambda: self._look(alarm)  # noqa: E731 - the timer's action
        self._due[alarm.name] = self._cloud.clock.call_at(when, look, name=f"alarm {alarm.name}", background=True)

    def _look(self, alarm: Alarm) -> None:
        if self._alarms.get(alarm.name) is not alarm:
            return
        if alarm.rule is not None:
            holds = _rule_holds(alarm.rule, {name: other.state_value for name, other in self._alarms.items()})
            self._set(alarm, "ALARM" if holds else "OK", f"{alarm.rule} is {holds}")
            return
        now = self._cloud.clock.time() // MINUTE * MINUTE
        values = self._window(alarm, now)
        state, breaches = _judge(alarm, values)
        self._set(alarm, state, f"{breaches} of the last {len(values)} datapoints breached: {values}")
        missing = alarm.treat_missing_data or "missing"
        fades = any(value is not None for value in values) and (missing != "notBreaching" or state != "OK")
        if fades or any(self._grows(key) for key in _inputs(alarm)):
            self._plan(alarm, now + max(_period(alarm), MINUTE))

    def _grows(self, key: Key) -> bool:
        aged = key[0] == "AWS/SQS" and "Age" in key[1]
        return aged and self._cloud.queues.busy(dict(key[2]).get("QueueName", ""))

    def _window(self, alarm: Alarm, now: float) -> list[float | None]:
        """The alarm's last datapoints, oldest first."""
        period, count = _period(alarm), int(alarm.evaluation_periods)
        start = now - count * period
        queries, wanted = _queries(alarm), _returned(alarm)
        if len(queries) == 1:
            (key,), stat = _inputs(alarm), queries[0]["MetricStat"]["Stat"]
            return [self.statistic(key, stat, start + i * period, start + (i + 1) * period) for i in range(count)]
        found = dict(self.points(queries, start, now, period=period)[wanted])
        return [found.get(start + i * period) for i in range(count)]

    def _set(self, alarm: Alarm, state: str, reason: str) -> None:
        if alarm.state_value != state:
            alarm.update_state(reason, "{}", state)


def _at(datum: Datum) -> float:
    return datum.at


def series_key(namespace: str, name: str, dimensions: Iterable[Any]) -> Key:
    """The series of a metric; dimensions as the API has them."""
    return namespace, name, frozenset((each["Name"], each["Value"]) for each in dimensions)


def _statistic(data: list[Datum], stat: str) -> float:
    count = sum(each.count for each in data)
    if stat in ("Sum", "Average"):
        return sum(each.total for each in data) / (1 if stat == "Sum" else count)
    if stat in ("Minimum", "Maximum"):
        return min(each.low for each in data) if stat == "Minimum" else max(each.high for each in data)
    if stat == "SampleCount":
        return count
    if not re.fullmatch(r"p\d{1,2}(\.\d+)?|p100", stat):
        raise NotImplementedError(f"the local cloud has no statistic {stat}")
    rank, passed = float(stat[1:]) / 100 * count, 0.0
    for each in sorted(data, key=lambda each: each.total / each.count):
        passed += each.count
        if passed >= rank:
            return each.total / each.count
    return data[-1].high


def _queries(alarm: Alarm) -> list[dict[str, Any]]:
    """The alarm's metrics in GetMetricData's form."""
    if not alarm.metric_data_queries:
        dims = [{"Name": each.name, "Value": each.value} for each in alarm.dimensions]
        metric = {"Namespace": alarm.namespace, "MetricName": alarm.metric_name, "Dimensions": dims}
        stat = {"Metric": metric, "Period": alarm.period, "Stat": alarm.statistic or alarm.extended_statistic}
        return [{"Id": "m", "MetricStat": stat}]
    queries: list[dict[str, Any]] = []
    for query in alarm.metric_data_queries:
        if query.metric_stat is None:
            queries.append({"Id": query.id, "Expression": query.expression})
            continue
        named = query.metric_stat.metric
        dims = [{"Name": each.name, "Value": each.value} for each in named.dimensions]
        told = {"Namespace": named.namespace, "MetricName": named.metric_name, "Dimensions": dims}
        stat = {"Metric": told, "Period": query.metric_stat.period, "Stat": query.metric_stat.stat}
        queries.append({"Id": query.id, "MetricStat": stat})
    return queries


def _returned(alarm: Alarm) -> str:
    shown = [query.id for query in alarm.metric_data_queries if str(query.return_data).lower() != "false"]
    return shown[0] if shown else "m"


def _inputs(alarm: Alarm) -> set[Key]:
    cached: set[Key] | None = getattr(alarm, "input_keys", None)
    if cached is None:
        metrics = [
            query["MetricStat"]["Metric"] for query in _queries(alarm) if "MetricStat" in query and alarm.rule is None
        ]
        cached = {series_key(m["Namespace"], m["MetricName"], m["Dimensions"]) for m in metrics}
        alarm.input_keys = cached  # type: ignore[attr-defined]
    return cached


def _period(alarm: Alarm) -> float:
    periods = [query["MetricStat"]["Period"] for query in _queries(alarm) if "MetricStat" in query]
    return float(max((period for period in periods if period), default=MINUTE))


_COMPARISONS = {
    "GreaterThanThreshold": operator.gt,
    "GreaterThanOrEqualToThreshold": operator.ge,
    "LessThanThreshold": operator.lt,
    "LessThanOrEqualToThreshold": operator.le,
}


def _judge(alarm: Alarm, values: list[float | None]) -> tuple[str, int]:
    """The state a window of datapoints gives an alarm, and how many breach."""
    breaches = _COMPARISONS[alarm.comparison_operator]
    missing = alarm.treat_missing_data or "missing"
    needed = int(alarm.datapoints_to_alarm or alarm.evaluation_periods)
    bad = [breaches(value, float(alarm.threshold)) for value in values if value is not None]
    count = sum(bad) + ((len(values) - len(bad)) if missing == "breaching" else 0)
    if count >= needed:
        return "ALARM", count
    if not bad and missing in ("missing", "ignore"):
        return ("INSUFFICIENT_DATA" if missing == "missing" else alarm.state_value), count
    if missing == "ignore" and count and len(bad) < needed:
        return alarm.state_value, count
    return "OK", count


def _rule_holds(rule: str, states: dict[str, str]) -> bool:
    """Whether a composite alarm's rule holds."""

    def known(match: re.Match[str]) -> str:
        kind, name = match.group(1), match.group(2).strip().strip("\"'").rsplit(":", 1)[-1]
        return str(states.get(name) == kind)

    text = re.sub(r"\b(ALARM|OK|INSUFFICIENT_DATA)\s*\(\s*([^()]+?)\s*\)", known, rule)
    text = re.sub(r"\b(AND|OR|NOT)\b", lambda match: match.group(1).lower(), text)
    text = re.sub(r"\b(TRUE|FALSE)\b", lambda match: match.group(1).title(), text)
    return bool(_fold(ast.parse(" ".join(text.split()), mode="eval").body, {}))


_OPERATORS: dict[type, Callable[..., Any]] = {
    ast.Add: operator.add, ast.Sub: operator.sub, ast.Mult: operator.mul, ast.Div: operator.truediv, ast.Pow: operator.pow,
    ast.Lt: operator.lt, ast.LtE: operator.le, ast.Gt: operator.gt, ast.GtE: operator.ge, ast.Eq: operator.eq,
    ast.NotEq: operator.ne, ast.USub: operator.neg, ast.Not: operator.not_,
}  # fmt: skip
_FUNCTIONS: dict[str, Callable[..., Any]] = {
    "ABS": abs, "CEIL": math.ceil, "FLOOR": math.floor, "LOG": math.log, "LOG10": math.log10,
    "SUM": lambda *many: sum(_flat(many)), "MIN": lambda *many: min(_flat(many)), "MAX": lambda *many: max(_flat(many)),
    "AVG": lambda *many: sum(_flat(many)) / len(_flat(many)),
}  # fmt: skip


def _flat(many: Iterable[Any]) -> list[Any]:
    return [each for one in many for each in (one if isinstance(one, list) else [one])]


def evaluate(expression: str, series: dict[str, list[tuple[float, float]]]) -> list[tuple[float, float]]:
    """Metric math over points by id: arithmetic, comparisons, IF, FILL and the functions of one value or a list.

    A point is missing where a metric it needs is. NotImplementedError for what this small interpreter does not know.
    """
    text = expression.replace("&&", " and ").replace("||", " or ")
    tree = ast.parse(text.strip(), mode="eval").body
    names = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
    filled = {node.args[0].id: node.args[1] for node in ast.walk(tree)
              if isinstance(node, ast.Call) and _called(node) == "FILL" and isinstance(node.args[0], ast.Name)}  # fmt: skip
    used = [name for name in series if name in names] or list(series)
    points = {name: dict(series[name]) for name in used}
    found: list[tuple[float, float]] = []
    for at in sorted(set().union(*points.values())) if points else []:
        values = {name: points[name][at] for name in used if at in points[name]}
        values |= {name: float(_fold(fill, values)) for name, fill in filled.items() if name not in values}
        if all(name in values for name in used) or "METRICS" in text:
            try:
                found.append((at, float(_fold(tree, values))))
            except ZeroDivisionError:
                continue
    return found


def _called(node: ast.Call) -> str:
    return node.func.id if isinstance(node.func, ast.Name) else ""


def _fold(node: ast.expr, values: dict[str, float]) -> Any:
    def fold(inner: ast.expr) -> Any:
        return _fold(inner, values)

    match node:
        case ast.Constant(value=value):
            return value
        case ast.Name(id=name) if name in values:
            return values[name]
        case ast.BinOp(left=left, op=op, right=right):
            return _OPERATORS[type(op)](fold(left), fold(right))
        case ast.UnaryOp(op=op, operand=operand):
            return _OPERATORS[type(op)](fold(operand))
        case ast.Compare(left=left, ops=[op], comparators=[right]):
            return _OPERATORS[type(op)](fold(left), fold(right))
        case ast.BoolOp(op=op, values=parts):
            return reduce(lambda a, b: a and b if isinstance(op, ast.And) else a or b, map(fold, parts))
        case ast.List(elts=parts):
            return [fold(part) for part in parts]
        case ast.Call(args=args) if _called(node) == "IF":
            return fold(args[1]) if fold(args[0]) else fold(args[2])
        case ast.Call(args=args) if _called(node) == "FILL":
            return fold(args[0])
        case ast.Call() if _called(node) == "METRICS":
            return list(values.values())
        case ast.Call(args=args) if _called(node) in _FUNCTIONS:
            return _FUNCTIONS[_called(node)](*map(fold, args))
    raise NotImplementedError(f"the local cloud cannot compute {ast.unparse(node)}")


def _put_alarm(original: Any, cloud: LocalCloud) -> Any:
    def put(self: CloudWatchBackend, **kwargs: Any) -> Alarm:
        before = self.alarms.get(kwargs["name"])
        alarm: Alarm = original(self, **kwargs)
        cloud.cloudwatch.created(alarm)
        if before is not None:
            alarm.state_value, alarm.state_reason = before.state_value, before.state_reason
        return alarm

    return put


def _put_composite(_: Any, __: LocalCloud) -> Any:
    def put(self: Any) -> Any:
        answer = self.put_metric_alarm()
        alarm, given = self.cloudwatch_backend.alarms[self._get_param("AlarmName")], self._get_params()
        for name in ("", "WaitPeriod", "ExtensionPeriod"):
            field = "actions_suppressor" + {"": "", "WaitPeriod": "_wait_period"}.get(name, "_extension_period")
            setattr(alarm, field, given.get(f"ActionsSuppressor{name}"))
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
    def put(self: CloudWatchBackend, namespace: str, metric_data: list[dict[str, Any]]) -> None:
        for place, metric in enumerate(metric_data, 1):
            self._validate_parameters_put_metric_data(metric, place)
        cloud.cloudwatch.put(namespace, metric_data)

    return put


def _get_data(_: Any, cloud: LocalCloud) -> Any:
    def get(
        self: CloudWatchBackend,
        queries: list[dict[str, Any]],
        start_time: datetime,
        end_time: datetime,
        scan_by: str = "",
    ) -> list[dict[str, Any]]:
        found = cloud.cloudwatch.points(queries, _seconds(start_time), _seconds(end_time))
        results = []
        for query in queries:
            if not query.get("ReturnData", True):
                continue
            points = sorted(found[query["Id"]], reverse=scan_by != "TimestampAscending")
            times, values = [datetime.fromtimestamp(at, UTC) for at, _ in points], [value for _, value in points]
            stat = query.get("MetricStat")
            label = query.get("Label") or (stat["Metric"]["MetricName"] if stat else query["Id"])
            results.append(
                {"id": query["Id"], "label": label, "values": values, "timestamps": times, "status_code": "Complete"}
            )
        return results

    return get


def _get_statistics(_: Any, cloud: LocalCloud) -> Any:
    def get(self: Any) -> Any:
        from moto.core.responses import ActionResult

        given = self._get_params()
        key = series_key(given["Namespace"], given["MetricName"], given.get("Dimensions") or [])
        start, end, period = _seconds(given["StartTime"]), _seconds(given["EndTime"]), float(given["Period"])
        points = []
        for at in (start // period * period + i * period for i in range(math.ceil((end - start) / period) + 1)):
            plain = {
                stat: cloud.cloudwatch.statistic(key, stat, at, at + period) for stat in given.get("Statistics") or []
            }
            more = given.get("ExtendedStatistics") or []
            extended = {stat: cloud.cloudwatch.statistic(key, stat, at, at + period) for stat in more}
            if at < end and any(value is not None for value in (*plain.values(), *extended.values())):
                shown = {"ExtendedStatistics": extended} if extended else {}
                points.append({"Timestamp": datetime.fromtimestamp(at, UTC), **plain, **shown})
        return ActionResult({"Label": given["MetricName"], "Datapoints": points})

    return get


def _seconds(moment: datetime) -> float:
    return moment.replace(tzinfo=moment.tzinfo or UTC).timestamp()


def _all_metrics(_: Any, cloud: LocalCloud) -> Any:
    def get(self: CloudWatchBackend) -> list[MetricDatum]:
        return [
            MetricDatum(namespace, name, 0.0, [{"Name": key, "Value": value} for key, value in sorted(dims)], None)
            for namespace, name, dims in cloud.cloudwatch.listed()
        ]

    return get


_BACKEND, _RESPONSE = "moto.cloudwatch.models.CloudWatchBackend", "moto.cloudwatch.responses.CloudWatchResponse"
PATCHES = (
    Patch(_BACKEND, "put_metric_alarm", "A new alarm is INSUFFICIENT_DATA and evaluates.", _put_alarm),
    Patch("moto.cloudwatch.models.Alarm", "update_state", "A new state runs its actions.", _update_state),
    Patch(_BACKEND, "put_metric_data", "Values are kept by series.", _put_data),
    Patch(_BACKEND, "get_metric_data", "Percentiles and metric math compute.", _get_data),
    Patch(_BACKEND, "get_all_metrics", "Every series is listed once.", _all_metrics),
    Patch(_RESPONSE, "get_metric_statistics", "Percentiles compute, periods are aligned.", _get_statistics),
    Patch(_RESPONSE, "put_composite_alarm", "Composite alarms exist.",
          _put_composite, added=True),
)  # fmt: skip
