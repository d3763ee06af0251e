"""The smoke test for AWS, asked of the local cloud: what it drops, what it waits for, and what it refuses."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import faults
from tests.cloud.stack import LOOP, Stack, deployed
from winnow import layout

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "scripts"))

import smoke_aws

pytestmark = pytest.mark.cloud

ACCOUNT = "123456789012"


@pytest.fixture
def stack() -> Iterator[Stack]:
    with deployed(loop={**LOOP, "batches": {"size": 60, "min_size": 5}}) as running:
        running.employ()
        yield running


def patience(stack: Stack, *, minutes: float = 15.0) -> smoke_aws.Patience:
    """Virtual minutes."""
    clock = stack.cloud.clock
    return smoke_aws.Patience(minutes, clock.time, lambda seconds: stack.cloud.advance(hours=seconds / 3600))


def run(stack: Stack, *options: str, account: str = ACCOUNT, minutes: float = 15.0) -> int:
    arguments = ["--stack", "winnow", "--account", account, "--seed", "7", *options]
    return smoke_aws.main(arguments, patience=patience(stack, minutes=minutes))


def verdicts(printed: str) -> dict[str, str]:
    """Name of each line of the table, and its verdict."""
    found = {}
    for line in printed.splitlines():
        verdict, _, rest = line.partition(" ")
        if verdict in ("pass", "FAIL", "--"):
            found[rest.strip().split("  ")[0]] = verdict
    return found


def test_records_reach_a_labeling_job(stack: Stack, capsys: pytest.CaptureFixture[str]) -> None:
    status = run(stack)

    printed = capsys.readouterr().out
    assert printed.startswith("NOT RUN ON AWS YET")
    assert set(verdicts(printed).values()) == {"pass"}
    assert list(verdicts(printed)) == [
        "dropped", "records", "scores", "candidates", "batch", "labeling job", "dead letters"
    ]  # fmt: skip
    assert status == 0
    (batch,) = stack.table("BATCH")
    assert len(stack.json(layout.plan(batch["sk"]))["choices"]) == 10
    assert f"stop-labeling-job --labeling-job-name winnow-{batch['sk']}" in printed
    assert len(stack.lines(layout.RECORDS)) == 40


def test_another_account_is_refused_before_anything_is_done(stack: Stack, capsys: pytest.CaptureFixture[str]) -> None:
    status = run(stack, account="999999999999")

    assert status == 2
    assert "your credentials belong to 123456789012; nothing was done" in capsys.readouterr().err
    assert stack.cloud.client("s3").list_objects_v2(Bucket=stack.pool_bucket)["KeyCount"] == 0


def test_a_lost_event_is_a_failure_and_the_rest_is_not_tried(stack: Stack, capsys: pytest.CaptureFixture[str]) -> None:
    faults.drop(stack.cloud, lambda event: event["detail-type"] == "Object Created")

    status = run(stack, minutes=5.0)

    found = verdicts(capsys.readouterr().out)
    assert status == 1
    assert (found["dropped"], found["records"], found["scores"], found["labeling job"]) == ("pass", "FAIL", "--", "--")
    assert stack.table("BATCH") == []


def test_what_select_batch_refuses_is_said(stack: Stack, capsys: pytest.CaptureFixture[str]) -> None:
    stack.configure({**LOOP, "budget": {"total_usd": 0}})

    status = run(stack)

    assert status == 1
    assert "select_batch made no batch: budget" in capsys.readouterr().out
