"""The same template with every function in a process of its own, under the runtime interface client that Lambda uses."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

import pytest

from tests.cloud.stack import Stack, deployed, jsonl, sentences
from winnow import layout

pytestmark = pytest.mark.cloud

TEXTS = sentences(30)


@pytest.fixture(scope="module")
def stack() -> Iterator[Stack]:
    """Until the first labeling job has its tasks; nobody answers them."""
    parameters = {
        "SelectSchedule": "rate(1 hour)",
        "ReconcileSchedule": "rate(5 days)",
        "HealthSchedule": "rate(5 days)",
    }
    with deployed(workers="awslambdaric", parameters=parameters) as running:
        running.cloud.labeling.employ("crowd", None)
        running.drop("reviews.jsonl", jsonl(TEXTS) + b"no JSON\n")
        running.cloud.advance(hours=1.5)
        yield running


def test_real_workers_turn_an_object_into_records_and_scores(stack: Stack) -> None:
    records = stack.lines(layout.RECORDS)
    (refused,) = stack.lines("quarantine/")

    assert {record["text"] for record in records} == set(TEXTS)
    assert sorted(stack.scored("bootstrap-text")) == sorted(record["id"] for record in records)
    assert len(stack.keys(f"{layout.CANDIDATES}bootstrap-text/")) == 1
    assert refused["reason"].startswith("malformed-row: row 31")


def test_real_workers_ask_for_labels(stack: Stack) -> None:
    (batch,) = stack.table("BATCH")
    job = stack.cloud.client("sagemaker").describe_labeling_job(LabelingJobName=f"winnow-{batch['job']}")

    assert (batch["status"], job["LabelingJobStatus"]) == ("submitted", "InProgress")
    assert job["LabelCounters"]["Unlabeled"] == len(stack.json(layout.plan(batch["sk"]))["choices"]) >= 20


def test_they_were_woken_as_the_template_wires_them_and_log_as_lambda_does(stack: Stack) -> None:
    assert stack.errors() == []
    woken = Counter((line["function"], line["invoker"].split(" <-")[0]) for line in stack.logged() if "invoker" in line)
    (batch,) = stack.table("BATCH")

    assert woken == {
        ("winnow-ingest_object", "queue winnow-ingest"): 1,
        ("winnow-score_records", "queue winnow-score"): 1,
        ("winnow-index_candidates", "queue winnow-candidates"): 1,
        ("winnow-select_batch", "schedule select_batch"): 1,
        ("winnow-prepare_task", f"labeling job winnow-{batch['job']}"): len(
            stack.json(layout.plan(batch["sk"]))["choices"]
        ),
    }
