"""State changes of jobs that are never told: reconcile brings labels and models home all the same."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests import faults
from tests.cloud.stack import LOOP, Stack, deployed, jsonl, sentences
from winnow import layout
from winnow.steps.accounting import check_invariants

pytestmark = pytest.mark.cloud


def ended(kind: str) -> Callable[[dict[str, Any]], bool]:
    """Picks the state change that says that a job was completed."""
    return lambda event: (
        event["detail-type"] == f"SageMaker {kind} State Change" and "Completed" in event["detail"].values()
    )


@pytest.fixture(scope="module")
def improved() -> Iterator[Stack]:
    """A stack whose labeling-state and training-state events never arrived, a day later."""
    schedules = {"ReconcileSchedule": "rate(1 hour)", "SelectSchedule": "rate(1 hour)"}
    with deployed(loop={**LOOP, "budget": {"total_usd": 15}}, parameters=schedules) as running:
        running.employ()
        faults.drop(running.cloud, ended("Ground Truth Labeling Job"))
        faults.drop(running.cloud, ended("Training Job"))
        running.drop("reviews.jsonl", jsonl(sentences(120)))
        running.cloud.advance(days=1)
        yield running


def repairs(stack: Stack) -> list[tuple[str, float]]:
    """Kind and number of the repairs reconcile reported, in order."""
    return [
        (line["Kind"], line["Repairs"][0])
        for line in stack.logged()
        if line["function"] == "winnow-reconcile" and "Repairs" in line
    ]


def test_a_lost_labeling_event_is_brought_home(improved: Stack) -> None:
    (batch,) = improved.table("BATCH")

    assert batch["status"] == "collected"
    assert len(improved.lines(layout.labels(batch["sk"]))) == 60
    assert ("collect", 1.0) in repairs(improved)


def test_a_lost_training_event_is_brought_home(improved: Stack) -> None:
    dataset = improved.json(layout.HEAD)["version"]
    jobs = improved.cloud.client("sagemaker").list_training_jobs()["TrainingJobSummaries"]

    statuses = {name: each["status"] for name, each in improved.executions("improve").items()}
    assert statuses == {dataset: "ABORTED", f"{dataset}-1": "SUCCEEDED"}
    assert [job["TrainingJobStatus"] for job in jobs] == ["Completed"]
    assert improved.champion() == jobs[0]["TrainingJobName"].removeprefix("winnow-")
    assert repairs(improved) == [("collect", 1.0), ("stalled", 1.0)]


def test_lost_events_break_no_invariant(improved: Stack) -> None:
    verdicts = check_invariants(improved.ports())

    assert {name: verdict.detail for name, verdict in verdicts.items() if not verdict.ok} == {}
    assert improved.dead_letters() == {}
