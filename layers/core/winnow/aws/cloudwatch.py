"""Alarms of one deployment: made with it, removed with it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from winnow.aws.errors import translated
from winnow.ports import DeploymentAlarm


class DeploymentAlarms:
    def __init__(self, client: Any, stack: str) -> None:
        self._cloudwatch = client
        self._stack = stack

    def put(self, model: str, alarms: Sequence[DeploymentAlarm]) -> tuple[str, ...]:
        names = []
        for alarm in alarms:
            name = f"{self._stack}-{model}-{alarm.suffix}"
            with translated(f"alarm {name}"):
                self._cloudwatch.put_metric_alarm(
                    AlarmName=name,
                    AlarmDescription=alarm.description,
                    Threshold=alarm.threshold,
                    ComparisonOperator=alarm.comparison,
                    EvaluationPeriods=alarm.evaluation_periods,
                    DatapointsToAlarm=alarm.datapoints_to_alarm,
                    TreatMissingData="notBreaching",
                    **(_plain(alarm) if alarm.min_samples <= 1 else _guarded(alarm)),
                )
            names.append(name)
        return tuple(names)

    def states(self, names: Sequence[str]) -> Mapping[str, str]:
        if not names:
            return {}
        with translated("alarms"):
            answer = self._cloudwatch.describe_alarms(AlarmNames=list(names))
        return {alarm["AlarmName"]: alarm["StateValue"] for alarm in answer["MetricAlarms"]}

    def remove(self, model: str) -> None:
        with translated(f"alarms of {model}"):
            answer = self._cloudwatch.describe_alarms(AlarmNamePrefix=f"{self._stack}-{model}-")
            names = [alarm["AlarmName"] for alarm in answer["MetricAlarms"]]
            if names:
                self._cloudwatch.delete_alarms(AlarmNames=names)


def _metric(alarm: DeploymentAlarm) -> dict[str, Any]:
    return {
        "Namespace": alarm.namespace,
        "MetricName": alarm.metric,
        "Dimensions": [{"Name": key, "Value": value} for key, value in alarm.dimensions.items()],
    }


def _plain(alarm: DeploymentAlarm) -> dict[str, Any]:
    kind = "ExtendedStatistic" if alarm.statistic.startswith("p") else "Statistic"
    return {**_metric(alarm), kind: alarm.statistic, "Period": alarm.period}


def _guarded(alarm: DeploymentAlarm) -> dict[str, Any]:
    """The alarm on an expression that says "threshold", which breaches nothing, while a period has too few values."""
    parts = [
        {
            "Id": name,
            "MetricStat": {"Metric": _metric(alarm), "Period": alarm.period, "Stat": stat},
            "ReturnData": False,
        }
        for name, stat in (("measured", alarm.statistic), ("samples", "SampleCount"))
    ]
    expression = f"IF(samples >= {alarm.min_samples}, measured, {alarm.threshold!r})"
    return {"Metrics": [*parts, {"Id": "judged", "Expression": expression, "Label": alarm.metric, "ReturnData": True}]}
