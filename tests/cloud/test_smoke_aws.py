"""The smoke test for AWS, asked of the local cloud: its steps, its bill, what it refuses, and that it cleans up."""

from __future__ import annotations

import doctest
import json
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

import pytest
from moto.cloudformation.models import cloudformation_backends

from tests import faults
from tests.cloud.stack import ROOT
from winnow_local.cloud import LocalCloud

sys.path.insert(0, str(ROOT / "scripts"))

import smoke_aws

pytestmark = pytest.mark.cloud

ACCOUNT, STACK = "123456789012", "winnow-smoke-0a1b2c3d"
STEPS = ["deploy", "drop", "answer", "train", "gate", "serve", "roll back", "dead letters", "clean up"]
TEAM = "arn:aws:sagemaker:us-east-1:123456789012:workteam/private-crowd/nobody"


class Here:
    """In place of the SAM CLI: the stack was deployed with the cloud, and gets its tag now."""

    def __init__(self, cloud: LocalCloud, *, tag: str = STACK) -> None:
        self._cloud, self._tag, self.parameters = cloud, tag, dict[str, str]()

    def deploy(self, stack: str, parameters: Mapping[str, str]) -> None:
        self.parameters = dict(parameters)
        backend = cloudformation_backends[self._cloud.account][self._cloud.region]
        backend.get_stack(stack).tags = {smoke_aws.TAG: self._tag}

    def delete(self, stack: str) -> None:
        self._cloud.client("cloudformation").delete_stack(StackName=stack)


@contextmanager
def deployed() -> Iterator[LocalCloud]:
    parameters = {"WorkteamArn": TEAM, "SelectSchedule": "rate(30 days)", "LogRetentionDays": "1"}
    start = datetime(2026, 1, 5, 9, tzinfo=UTC)
    with LocalCloud(ROOT / "template.yaml", stack=STACK, parameters=parameters, start=start) as cloud:
        cloud.client("s3").create_bucket(Bucket="somebody-elses")
        yield cloud


def run(cloud: LocalCloud, *options: str, account: str = ACCOUNT, minutes: float = 300, tag: str = STACK) -> int:
    arguments = ["--account", account, "--stack", STACK, "--seed", "7", *options]
    clock = cloud.clock
    patience = smoke_aws.Patience(minutes, clock.time, lambda seconds: cloud.advance(hours=seconds / 3600))
    return smoke_aws.main(arguments, deployer=Here(cloud, tag=tag), patience=patience)


def left(cloud: LocalCloud) -> dict[str, list[str]]:
    """What is in the account, of what costs money or keeps data."""
    sagemaker = cloud.client("sagemaker")
    return {
        "buckets": [one["Name"] for one in cloud.client("s3").list_buckets()["Buckets"] if "local" not in one["Name"]],
        "tables": cloud.client("dynamodb").list_tables()["TableNames"],
        "stacks": [one["StackName"] for one in cloud.client("cloudformation").describe_stacks()["Stacks"]],
        "endpoints": [one["EndpointName"] for one in sagemaker.list_endpoints()["Endpoints"]],
        "configs": [one["EndpointConfigName"] for one in sagemaker.list_endpoint_configs()["EndpointConfigs"]],
        "models": [one["ModelName"] for one in sagemaker.list_models()["Models"]],
        "alarms": [one["AlarmName"] for one in cloud.client("cloudwatch").describe_alarms()["MetricAlarms"]],
    }


NOTHING = {
    **{key: [] for key in ("tables", "stacks", "endpoints", "configs", "models", "alarms")},
    "buckets": ["somebody-elses"],
}


def test_every_step_passes_and_nothing_is_left(capsys: pytest.CaptureFixture[str]) -> None:
    with deployed() as cloud:
        status = run(cloud, "--json")
        after = left(cloud)

    printed = capsys.readouterr()
    told = json.loads(printed.out)
    assert "NOT RUN ON AWS YET" in printed.err
    assert "It costs about $0.36: 10 min of training, 2 instances for 60 min" in printed.err
    assert [(one["name"], one["passed"]) for one in told["steps"]] == [(step, True) for step in STEPS], [
        (o["name"], o["detail"]) for o in told["steps"]
    ]
    assert status == 0
    assert after == NOTHING
    by_name = {one["name"]: one for one in told["steps"]}
    assert by_name["drop"]["detail"] == "200 records, scored by bootstrap-text"
    assert "smoke in ALARM state" in by_name["roll back"]["detail"]
    # 600 s of training at 0.115 an hour; the endpoint's two instances from its creation on, four while the update baked
    assert (told["cost"]["training_seconds"], told["cost"]["training_usd"]) == (600, 0.0192)
    assert told["cost"]["endpoint_usd"] == pytest.approx(told["cost"]["endpoint_instance_hours"] * 0.115, abs=1e-3)
    assert 2 * by_name["roll back"]["seconds"] / 3600 < told["cost"]["endpoint_instance_hours"] / 2 < 2


def test_a_failing_step_is_told_the_rest_is_skipped_and_everything_goes(capsys: pytest.CaptureFixture[str]) -> None:
    with deployed() as cloud:
        faults.drop(cloud, lambda event: event["detail-type"] == "Object Created", times=99)
        status = run(cloud, minutes=5)
        after = left(cloud)

    lines = capsys.readouterr().out.splitlines()
    verdicts = [line.split(" ")[0] for line in lines if line.startswith(("pass", "FAIL", "--  "))]
    assert status == 1
    assert verdicts == ["pass", "FAIL", *["--"] * 6, "pass"]
    assert any("was not ingested (see ingest_object's log) within 5 minutes" in line for line in lines)
    assert after == NOTHING


def test_its_examples_are_true() -> None:
    assert doctest.testmod(smoke_aws).failed == 0


def test_another_account_is_refused_before_anything_is_done(capsys: pytest.CaptureFixture[str]) -> None:
    with deployed() as cloud:
        status = run(cloud, account="999999999999")

        assert status == 2
        assert "your credentials belong to 123456789012; nothing was done" in capsys.readouterr().err
        assert left(cloud)["stacks"]


def test_a_stack_without_our_tag_is_left_alone_and_keep_keeps(capsys: pytest.CaptureFixture[str]) -> None:
    with deployed() as cloud:
        faults.drop(cloud, lambda event: event["detail-type"] == "Object Created", times=99)
        before = left(cloud)

        assert run(cloud, minutes=1, tag="somebody") == 1
        assert f"does not carry the tag winnow:smoke={STACK}: nothing was deleted" in capsys.readouterr().out
        assert left(cloud) == before
        assert run(cloud, "--keep", minutes=1) == 1
        assert f"--keep: {STACK} stays and costs money" in capsys.readouterr().out
        assert left(cloud) == before


def test_sam_is_asked_for_a_stack_of_its_own(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    asked = tmp_path / "asked"
    sam = tmp_path / ".cache" / "sam" / "bin" / "sam"
    sam.parent.mkdir(parents=True)
    sam.write_text(f'#!/bin/sh\necho "$@" >> {asked}\n[ "$1" = deploy ] || {{ echo no such stack; exit 1; }}\n')
    sam.chmod(0o700)
    monkeypatch.setattr(smoke_aws, "ROOT", tmp_path)

    smoke_aws.Sam("eu-central-1").deploy("s", {"SelectSchedule": "rate(30 days)"})
    with pytest.raises(smoke_aws.Failed, match="sam delete: no such stack"):
        smoke_aws.Sam("eu-central-1").delete("s")

    assert asked.read_text().splitlines() == [
        "deploy --template-file .aws-sam/build/template.yaml --stack-name s --s3-prefix s --resolve-s3 "
        "--no-confirm-changeset --capabilities CAPABILITY_NAMED_IAM CAPABILITY_AUTO_EXPAND --tags winnow:smoke=s "
        '--parameter-overrides SelectSchedule="rate(30 days)" --region eu-central-1',
        "delete --no-prompts --stack-name s --region eu-central-1",
    ]
