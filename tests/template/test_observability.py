"""Dashboards and alarms speak names that somebody emits, and every alarm reaches somebody."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

import pytest

from tests.template.stack import HOPS, STACK, functions, observability, observed, raw, stack
from winnow.metrics import CATALOGUE, NAMESPACE

AWS_METRICS = {
    "AWS/Lambda": ({"Errors", "Throttles", "Duration"}, ("FunctionName",)),
    "AWS/SQS": ({"ApproximateNumberOfMessagesVisible", "ApproximateAgeOfOldestMessage"}, ("QueueName",)),
    "AWS/States": (
        {"ExecutionsStarted", "ExecutionsSucceeded", "ExecutionsFailed", "ExecutionsTimedOut", "ExecutionsAborted"},
        ("StateMachineArn",),
    ),
    "AWS/SageMaker": (
        {"Invocations", "Invocation4XXErrors", "Invocation5XXErrors", "ModelLatency"},
        ("EndpointName", "VariantName"),
    ),
}
DASHBOARDS = {"ExecutiveDashboard": "executive", "OnCallDashboard": "on-call", "DebugDashboard": "debug"}
QUEUES = ("ingest", "score", "candidates", "collect", "capture")

PAGES = {"heartbeat-missing", "rolled-back", "endpoint-unhealthy"}
SILENT = {"endpoint-errors", "endpoint-latency", "rollout-under-way"}
"""They act through the composite alarm only."""


def alarms() -> dict[str, dict[str, Any]]:
    found = observed().resources("AWS::CloudWatch::Alarm").values()
    return {alarm["AlarmName"].removeprefix(f"{STACK}-"): alarm for alarm in found}


def widgets(dashboard: str) -> list[dict[str, Any]]:
    body = observed().resources("AWS::CloudWatch::Dashboard")[dashboard]["DashboardBody"]
    return list(json.loads(body)["widgets"])


def plotted(dashboard: str) -> Iterator[tuple[str, str, tuple[str, ...], list[str]]]:
    """Namespace, name, dimension names and dimension values of every metric on a dashboard."""
    for widget in widgets(dashboard):
        for row in widget["properties"].get("metrics", []):
            words = [item for item in row if isinstance(item, str)]
            if words:
                yield words[0], words[1], tuple(words[2::2]), words[3::2]
            else:
                expression = row[0]["expression"]
                namespace, *dims = re.findall(r"SEARCH\('\{([^}]+)\}", expression)[0].split(",")
                assert f'Stack="{STACK}"' in expression
                yield namespace, re.findall(r'MetricName="(\w+)"', expression)[0], tuple(dims), [STACK]


def assert_known(namespace: str, name: str, dimensions: tuple[str, ...]) -> None:
    if namespace == NAMESPACE:
        assert CATALOGUE[name].dimensions == dimensions, name
    else:
        names, expected = AWS_METRICS[namespace]
        assert name in names, namespace
        assert dimensions == expected, name


def test_every_alarm_is_on_a_metric_that_somebody_emits() -> None:
    for alarm in alarms().values():
        dimensions = tuple(dimension["Name"] for dimension in alarm["Dimensions"])
        assert_known(alarm["Namespace"], alarm["MetricName"], dimensions)


@pytest.mark.parametrize("dashboard", DASHBOARDS)
def test_every_plotted_metric_is_one_that_somebody_emits(dashboard: str) -> None:
    found = list(plotted(dashboard))

    assert len(found) >= 10
    for namespace, name, dimensions, values in found:
        assert_known(namespace, name, dimensions)
        assert any(STACK in value for value in values)


def test_every_metric_of_the_catalogue_is_shown_somewhere() -> None:
    shown = {name for dashboard in DASHBOARDS for namespace, name, *_ in plotted(dashboard) if namespace == NAMESPACE}

    assert shown == set(CATALOGUE)


@pytest.mark.parametrize(("dashboard", "name"), sorted(DASHBOARDS.items()))
def test_a_dashboard_fits_its_grid(dashboard: str, name: str) -> None:
    properties = observed().resources("AWS::CloudWatch::Dashboard")[dashboard]
    taken: set[tuple[int, int]] = set()

    assert properties["DashboardName"] == f"{STACK}-{name}"
    for widget in widgets(dashboard):
        cells = {
            (x, y)
            for x in range(widget["x"], widget["x"] + widget["width"])
            for y in range(widget["y"], widget["y"] + widget["height"])
        }
        assert not cells & taken, widget
        assert max(x for x, _ in cells) < 24
        taken |= cells
        assert widget["type"] in {"metric", "text", "alarm", "log"}
        if widget["type"] in ("metric", "log"):
            assert widget["properties"]["region"] == "us-east-1"
            assert widget["properties"]["title"]


def test_dashboards_name_functions_and_alarms_that_exist() -> None:
    shown = {
        value.removeprefix(f"{STACK}-")
        for namespace, _, _, values in plotted("OnCallDashboard")
        if namespace == "AWS/Lambda"
        for value in values
    }
    (board,) = [widget for widget in widgets("OnCallDashboard") if widget["type"] == "alarm"]
    (errors,) = [widget for widget in widgets("OnCallDashboard") if widget["type"] == "log"]
    listed = {arn.split(f":alarm:{STACK}-")[1] for arn in board["properties"]["alarms"]}

    assert shown == set(functions())
    assert listed == (set(alarms()) | PAGES) - {"endpoint-errors", "endpoint-latency"}
    assert set(re.findall(rf"SOURCE '/aws/lambda/{STACK}-(\w+)'", errors["properties"]["query"])) == set(HOPS)


def test_pages_and_tickets_go_their_own_ways() -> None:
    for name, alarm in alarms().items():
        wanted = [] if name in SILENT else [stack().arn("PageTopic" if name in PAGES else "TicketTopic")]
        assert alarm.get("AlarmActions", []) == wanted, name


def test_alarms_say_what_is_wrong_and_what_silence_means() -> None:
    for name, alarm in alarms().items():
        assert alarm["AlarmDescription"].endswith("."), name
        expected = "breaching" if name == "heartbeat-missing" else "notBreaching"
        assert alarm["TreatMissingData"] == expected, name
        window = alarm["Period"] * alarm["EvaluationPeriods"]
        assert window <= (7 * 86_400 if alarm["Period"] >= 3600 else 86_400), name
        assert alarm.get("DatapointsToAlarm", 1) <= alarm["EvaluationPeriods"], name


@pytest.mark.parametrize("queue", QUEUES)
def test_a_queue_is_watched_for_age_and_dead_letters(queue: str) -> None:
    def of(name: str) -> tuple[str, str, str]:
        alarm = alarms()[name]
        return alarm["Namespace"], alarm["MetricName"], alarm["Dimensions"][0]["Value"]

    assert of(f"{queue}-age") == ("AWS/SQS", "ApproximateAgeOfOldestMessage", f"{STACK}-{queue}")
    assert of(f"{queue}-dead-letters") == ("AWS/SQS", "ApproximateNumberOfMessagesVisible", f"{STACK}-{queue}-dlq")


@pytest.mark.parametrize("machine", ["improve", "rescore"])
def test_a_failing_machine_is_noticed(machine: str) -> None:
    arn = f"arn:aws:states:us-east-1:123456789012:stateMachine:{STACK}-{machine}"

    for end, metric in (("failed", "ExecutionsFailed"), ("timed-out", "ExecutionsTimedOut")):
        alarm = alarms()[f"{machine}-{end}"]
        assert (alarm["MetricName"], alarm["Dimensions"]) == (metric, [{"Name": "StateMachineArn", "Value": arn}])


def test_a_rollout_suppresses_the_page_about_the_endpoint() -> None:
    (composite,) = observed().resources("AWS::CloudWatch::CompositeAlarm").values()

    children = re.findall(rf'ALARM\("{STACK}-([a-z-]+)"\)', composite["AlarmRule"])
    assert set(children) == {"endpoint-errors", "endpoint-latency"}
    assert composite["AlarmActions"] == [stack().arn("PageTopic")]
    assert composite["ActionsSuppressor"].endswith(f"{STACK}-rollout-under-way")
    assert composite["ActionsSuppressorWaitPeriod"] > 0
    assert composite["ActionsSuppressorExtensionPeriod"] > 0
    assert alarms()["rollout-under-way"]["MetricName"] == "DeploymentsStarted"


def test_the_objectives_are_the_parameters() -> None:
    assert alarms()["label-hours"]["Threshold"] == 48
    assert alarms()["agreement"]["Threshold"] == 90
    assert alarms()["budget-left"]["Threshold"] == 100


def test_without_an_endpoint_nothing_watches_one() -> None:
    conditions = {
        resource["Properties"]["AlarmName"]["Fn::Sub"]: resource.get("Condition")
        for resource in observability()["Resources"].values()
        if "AlarmName" in resource["Properties"]
    }

    assert {name for name, condition in conditions.items() if condition == "Served"} == {
        "${Stack}-endpoint-errors", "${Stack}-endpoint-latency", "${Stack}-endpoint-unhealthy",
    }  # fmt: skip


def test_powertools_adds_no_dimension_of_its_own() -> None:
    for properties in functions().values():
        assert "POWERTOOLS_SERVICE_NAME" not in properties["Environment"]["Variables"]


def test_no_log_level_filters_embedded_metrics_out() -> None:
    assert raw()["Parameters"]["LogLevel"]["AllowedValues"] == ["DEBUG", "INFO"]
