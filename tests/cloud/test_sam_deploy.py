"""The SAM CLI, as it is, against the local cloud, as it is: both in processes of their own, over HTTP.

One story, since its steps cost half a minute each: build, create, drop data, change a function while data flows, delete.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import boto3
import pytest

from tests.cloud.stack import ROOT, jsonl, sentences
from winnow import layout

pytestmark = [
    pytest.mark.cloud,
    pytest.mark.timeout(1200),
    pytest.mark.skipif(sys.version_info[:2] != (3, 13), reason="sam build makes layers for Python 3.13"),
    pytest.mark.skipif(not (ROOT / ".cache/sam/bin/sam").is_file(), reason="make sam was not run"),
]
TEAM = "WorkteamArn=arn:aws:sagemaker:us-east-1:123456789012:workteam/private-crowd/labelers"
SOURCES = ("template.yaml", "samconfig.toml", "functions", "layers", "training", "infra")
SPARE = "  Spare: {Type: AWS::SNS::Topic, Properties: {TopicName: !Sub '${AWS::StackName}-spare'}}\n"
DROPPED = 40


class Account:
    """A local cloud on a port, and a checkout of the product from which SAM deploys into it."""

    def __init__(self, url: str, checkout: Path) -> None:
        here = {"PATH": f"{sys.base_prefix}/bin{os.pathsep}{os.environ['PATH']}", "HOME": str(checkout)}
        pythonpath = os.pathsep.join(str(ROOT / folder) for folder in ("layers/core", "cli", "local"))
        self._environment = here | {
            "AWS_ENDPOINT_URL": url, "AWS_REGION": "us-east-1", "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_ACCESS_KEY_ID": "local", "AWS_SECRET_ACCESS_KEY": "local", "PYTHONPATH": pythonpath,
            "SAM_CLI_TELEMETRY": "0", "SAM_CLI_POLL_DELAY": "0.5",
        }  # fmt: skip
        self._url, self.checkout = url, checkout

    def client(self, service: str) -> Any:
        keys = {"aws_access_key_id": "local", "aws_secret_access_key": "local"}
        return boto3.client(service, endpoint_url=self._url, region_name="us-east-1", **keys)

    def sam(self, *arguments: str) -> str:
        """What it prints; a failure fails the test and shows it."""
        environment = {name: value for name, value in self._environment.items() if name != "PYTHONPATH"}
        command = [str(ROOT / ".cache/sam/bin/sam"), *arguments]
        done = subprocess.run(command, cwd=self.checkout, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, (done.stdout + done.stderr)[-4000:]
        return done.stdout + done.stderr

    def status(self) -> dict[str, Any]:
        """What `winnow status --json` says of the stack."""
        command = [sys.executable, "-m", "winnow_cli", "status", "--json", "--stack", "winnow-dev"]
        done = subprocess.run(command, env=self._environment, capture_output=True, text=True, check=False)
        assert done.stdout, done.stderr
        body: dict[str, Any] = json.loads(done.stdout)
        return body

    def identities(self) -> dict[str, Any]:
        """What a deployment must leave as it is, and the digest of each function's code."""
        functions = self.client("lambda").list_functions()["Functions"]
        mappings = self.client("lambda").list_event_source_mappings()["EventSourceMappings"]
        return {
            "code": {one["FunctionName"]: one["CodeSha256"] for one in functions},
            "kept": sorted([one["UUID"] for one in mappings] + self.client("sqs").list_queues()["QueueUrls"])
            + [self.client("dynamodb").describe_table(TableName="winnow-dev")["Table"]["CreationDateTime"]]
            + [one["stateMachineArn"] for one in self.client("stepfunctions").list_state_machines()["stateMachines"]],
        }


@pytest.fixture(scope="module")
def account(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Account]:
    checkout = tmp_path_factory.mktemp("checkout")
    for name in SOURCES:
        copy: Any = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
        copy(ROOT / name, checkout / name)
    paths = os.pathsep.join(str(ROOT / folder) for folder in ("layers/core", "cli", "local"))
    command = [sys.executable, "-m", "winnow_cli", "local", "up", "--empty", "--port", "0", "--speed", "600"]
    with subprocess.Popen(
        command, env={**os.environ, "PYTHONPATH": paths}, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as cloud:
        assert cloud.stdout is not None
        yield Account(cloud.stdout.readline().split(" at ")[1].split(";")[0], checkout)
        cloud.kill()


def eventually(holds: Callable[[], object], *, seconds: float = 180) -> None:
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end, "it did not come to that"
        time.sleep(1)


def test_create_change_while_data_flows_and_delete(account: Account) -> None:
    deploy = ("deploy", "--config-env", "dev", "--parameter-overrides", TEAM)
    s3, pool, data = account.client("s3"), *(f"winnow-dev-{name}-123456789012-us-east-1" for name in ("pool", "data"))

    # created, from what sam build made, as the shipped configuration says
    account.sam("build", "--config-env", "dev")
    account.sam(*deploy, "LogRetentionDays=7")
    stacks = account.client("cloudformation").describe_stacks()["Stacks"]
    assert {one["StackStatus"] for one in stacks} == {"CREATE_COMPLETE"}
    assert len(stacks) == 3  # SAM's own bucket, the stack, the nested one

    # data becomes scores and a labeling job, by the functions and layers that were uploaded
    s3.put_object(Bucket=data, Key=layout.LOOP, Body=json.dumps({"batches": {"size": 20, "min_size": 10}}).encode())
    s3.put_object(Bucket=pool, Key="first.jsonl", Body=jsonl(sentences(DROPPED)))
    eventually(lambda: account.client("sagemaker").list_labeling_jobs()["LabelingJobSummaryList"])
    before = account.identities()

    # changed while data flows: one function, one resource more, one parameter
    handler = account.checkout / "functions" / "ingest_object" / "app.py"
    handler.write_text(handler.read_text() + '\nprint("the second edition")\n')
    template = account.checkout / "template.yaml"
    template.write_text(template.read_text().replace("\nResources:\n", f"\nResources:\n{SPARE}", 1))
    account.sam("build", "--config-env", "dev")
    ended, dropped = threading.Event(), DROPPED

    def stream() -> None:
        nonlocal dropped
        while not ended.wait(0.5):
            s3.put_object(Bucket=pool, Key=f"{dropped}.jsonl", Body=jsonl(sentences(5, seed=dropped)))
            dropped += 5

    thread = threading.Thread(target=stream)
    thread.start()
    try:
        said = account.sam(*deploy, "LogRetentionDays=14")
    finally:
        ended.set()
        thread.join()
    after = account.identities()
    assert "UPDATE_COMPLETE" in said
    assert {name for name, digest in after["code"].items() if digest != before["code"][name]} == {
        "winnow-dev-ingest_object"
    }
    assert after["kept"] == before["kept"]
    assert [one["TopicArn"] for one in account.client("sns").list_topics()["Topics"] if "spare" in one["TopicArn"]]
    groups = account.client("logs").describe_log_groups(logGroupNamePrefix="/aws/lambda/winnow-dev")["logGroups"]
    assert {one["retentionInDays"] for one in groups} == {14}

    # nothing was lost on the way, and the new code has run
    eventually(lambda: account.status()["totals"]["waiting"] == 0)
    totals, invariants = (account.status()[name] for name in ("totals", "invariants"))
    assert dropped > DROPPED
    assert (totals["in"], totals["scored"] + totals["duplicate"]) == (dropped, dropped)
    assert all(one["holds"] for one in invariants.values()), invariants
    logged = account.client("logs").filter_log_events(logGroupName="/aws/lambda/winnow-dev-ingest_object")["events"]
    assert "the second edition" in {event["message"] for event in logged}

    # deleted, but for what the template retains
    account.sam("delete", "--stack-name", "winnow-dev", "--no-prompts")
    (own,) = account.client("cloudformation").describe_stacks()["Stacks"]
    assert own["StackName"] == "aws-sam-cli-managed-default"
    assert account.client("lambda").list_functions()["Functions"] == []
    assert account.client("cloudwatch").describe_alarms()["MetricAlarms"] == []
    assert account.client("sqs").list_queues().get("QueueUrls", []) == []
    (packaged,) = {one["Name"] for one in s3.list_buckets()["Buckets"]} - {pool, data}
    assert s3.list_objects_v2(Bucket=packaged)["KeyCount"] == 0
    assert s3.list_objects_v2(Bucket=pool)["KeyCount"] == (dropped - DROPPED) // 5 + 1
    assert account.client("dynamodb").list_tables()["TableNames"] == ["winnow-dev"]
