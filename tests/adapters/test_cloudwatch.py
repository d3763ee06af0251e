"""Alarms of a deployment: the requests CloudWatch gets, and their removal."""

from __future__ import annotations

from typing import Any

import boto3
import pytest
from moto import mock_aws

from winnow.aws.cloudwatch import DeploymentAlarms
from winnow.loop import RolloutPolicy
from winnow.steps.deploy_challenger import alarms


@pytest.fixture
def client(monkeypatch: pytest.MonkeyPatch) -> Any:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "testing")
    with mock_aws():
        yield boto3.client("cloudwatch", region_name="eu-west-1")


def put(client: Any, model: str) -> tuple[str, ...]:
    wanted = alarms(model, report={"challenger": {"low": 0.8}}, policy=RolloutPolicy(), stack="winnow")
    return DeploymentAlarms(client, "winnow").put(model, wanted)


def test_names_carry_stack_model_and_suffix(client: Any) -> None:
    assert put(client, "m1") == ("winnow-m1-errors", "winnow-m1-latency", "winnow-m1-quality")


def test_a_percentile_is_an_extended_statistic(client: Any) -> None:
    put(client, "m1")

    errors, latency, _ = client.describe_alarms()["MetricAlarms"]

    assert (errors["Statistic"], errors["Threshold"]) == ("Average", 0.05)
    assert (latency["ExtendedStatistic"], latency["Threshold"]) == ("p90", 2_000_000.0)
    assert {each["Name"]: each["Value"] for each in latency["Dimensions"]} == {
        "EndpointName": "winnow", "VariantName": "AllTraffic", "EndpointConfigName": "winnow-m1",
    }  # fmt: skip
    assert errors["TreatMissingData"] == "notBreaching"


def test_quality_counts_only_periods_with_enough_judgements(client: Any) -> None:
    put(client, "m1")

    (quality,) = client.describe_alarms(AlarmNames=["winnow-m1-quality"])["MetricAlarms"]

    expression = next(query for query in quality["Metrics"] if "Expression" in query)
    assert expression["Expression"] == f"IF(samples >= 5, measured, {quality['Threshold']!r})"
    stats = {query["Id"]: query["MetricStat"] for query in quality["Metrics"] if "MetricStat" in query}
    assert {name: stat["Stat"] for name, stat in stats.items()} == {"measured": "Average", "samples": "SampleCount"}
    assert {stat["Metric"]["MetricName"] for stat in stats.values()} == {"ServedCorrect"}


def test_only_the_alarms_of_one_deployment_are_removed(client: Any) -> None:
    put(client, "m1")
    put(client, "m2")
    adapter = DeploymentAlarms(client, "winnow")

    adapter.remove("m1")
    adapter.remove("m1")

    assert [alarm["AlarmName"] for alarm in client.describe_alarms()["MetricAlarms"]] == [
        "winnow-m2-errors", "winnow-m2-latency", "winnow-m2-quality",
    ]  # fmt: skip
    assert set(adapter.states(("winnow-m1-errors", "winnow-m2-errors"))) == {"winnow-m2-errors"}
    assert adapter.states(()) == {}
