"""The template that ships, whole, in the local cloud."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from winnow_local.cloud import LocalCloud

TEMPLATE = Path(__file__).parents[2] / "template.yaml"
TEAM = "arn:aws:sagemaker:us-east-1:123456789012:workteam/private-crowd/labelers"


@pytest.fixture
def shipped(launch: Callable[..., LocalCloud]) -> LocalCloud:
    """The shipped stack, just deployed."""
    return launch(TEMPLATE, stack="winnow", layers=None, parameters={"WorkteamArn": TEAM})


def test_it_deploys_with_every_resource_type_known(shipped: LocalCloud) -> None:
    stacks = shipped.client("cloudformation").describe_stacks()["Stacks"]
    alarms = shipped.client("cloudwatch").describe_alarms()

    assert {stack["StackStatus"] for stack in stacks} == {"CREATE_COMPLETE"}
    assert shipped.outputs["PoolBucket"] == "winnow-pool-123456789012-us-east-1"
    assert len(alarms["MetricAlarms"]) > 30
    assert alarms["CompositeAlarms"]


def test_schedules_and_alarms_live_through_a_day_and_nothing_pages(shipped: LocalCloud) -> None:
    shipped.advance(days=1)

    called = {call.function for call in shipped.invocations}
    assert {"winnow-select_batch", "winnow-reconcile", "winnow-report_health"} <= called
    assert [call for call in shipped.invocations if call.error] == []
    ringing = shipped.client("cloudwatch").describe_alarms(StateValue="ALARM")["MetricAlarms"]
    assert [alarm["AlarmName"] for alarm in ringing] == []


def test_a_dropped_object_wakes_the_first_hop_through_its_queue(shipped: LocalCloud) -> None:
    shipped.client("s3").put_object(Bucket=shipped.outputs["PoolBucket"], Key="notes.txt", Body=b"hello")

    shipped.run_until_idle()

    first = shipped.invocations[0]
    assert (first.function, first.invoker, first.error) == ("winnow-ingest_object", "sqs:winnow-ingest", None)
