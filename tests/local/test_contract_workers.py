"""Functions under the real runtime interface client, and the cloud over HTTP."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import boto3
import pytest

from winnow_local.cloud import LocalCloud
from winnow_local.gateway import door

Launch = Callable[..., LocalCloud]
TEMPLATE = """
Transform: AWS::Serverless-2016-10-31
Resources:
  F:
    Type: AWS::Serverless::Function
    Properties: {FunctionName: f, CodeUri: f, Handler: app.handler, Runtime: python3.13, Timeout: 2}
"""


@pytest.fixture
def worker(tmp_path: Path, launch: Launch) -> Callable[[str], LocalCloud]:
    """A cloud whose one function, in a process of its own, runs the given code."""

    def make(code: str) -> LocalCloud:
        (tmp_path / "f").mkdir()
        (tmp_path / "f" / "app.py").write_text(code)
        (tmp_path / "t.yaml").write_text(TEMPLATE)
        return launch(tmp_path / "t.yaml", workers="awslambdaric")

    return make


def test_the_walk_of_an_object_under_real_workers(launch: Launch) -> None:
    cloud = launch(workers="awslambdaric")

    for n in range(3):
        cloud.client("s3").put_object(Bucket="fix-source", Key=f"a/{n}", Body=b"x")
    cloud.run_until_idle()

    assert [(call.function, call.error) for call in cloud.invocations] == [
        ("fix-copy_object", None),
        ("fix-count_object", None),
    ]
    listed = cloud.client("s3").list_objects_v2(Bucket="fix-target")["Contents"]
    assert [entry["Key"] for entry in listed] == ["copies/a/0", "copies/a/1", "copies/a/2"]
    logged = cloud.client("logs").filter_log_events(logGroupName="/aws/lambda/fix-count_object")["events"]
    assert "counting" in {event["message"] for event in logged}


def test_a_worker_answers_again_fails_and_is_held_to_the_service_model(worker: Callable[[str], LocalCloud]) -> None:
    cloud = worker(
        "import boto3\nCALLS = []\n"
        "def handler(event, context):\n"
        "    CALLS.append(1)\n"
        "    if event.get('fail'): raise KeyError('no')\n"
        "    if event.get('bad'): boto3.client('cloudwatch').set_alarm_state(AlarmName='a', StateValue='BAD', StateReason='x')\n"
        "    return len(CALLS)\n"
    )

    first, second = cloud.invoke("f", {}), cloud.invoke("f", {})
    _, failed = cloud.invoke("f", {"fail": 1})
    _, refused = cloud.invoke("f", {"bad": 1})

    assert (first[0], second[0]) == (1, 2)
    assert failed is not None
    assert failed["errorType"] == "KeyError"
    assert refused is not None
    assert "StateValue" in refused["errorMessage"]


def test_a_worker_reads_the_virtual_clock(worker: Callable[[str], LocalCloud]) -> None:
    cloud = worker("from winnow.aws import clock\ndef handler(event, context):\n    return clock._time()\n")
    cloud.layers[:] = [Path(__file__).parents[2] / "layers" / "core"]

    before, _ = cloud.invoke("f", {})
    cloud.advance(days=30)
    after, _ = cloud.invoke("f", {})

    assert before == cloud.clock.time() - 30 * 86400
    assert after == cloud.clock.time()


def test_a_call_that_outlasts_its_timeout_ends_and_the_next_gets_a_new_worker(
    worker: Callable[[str], LocalCloud],
) -> None:
    code = "import threading\ndef handler(event, context):\n    return threading.Event().wait(60 if event else 0)\n"
    cloud = worker(code)

    cloud.invoke("f", {})
    _, late = cloud.invoke("f", {"wait": True})
    again, _ = cloud.invoke("f", {})

    assert late is not None
    assert late["errorType"] == "Sandbox.Timedout"
    assert again is False


def test_any_client_reaches_the_cloud_by_its_url(fixture_cloud: LocalCloud) -> None:
    with door(fixture_cloud) as url:
        remote: Any = boto3.client("sqs", endpoint_url=url, region_name="us-east-1")
        assert len(remote.list_queues()["QueueUrls"]) == 4


ARCHIVED = """
Resources:
  Layer: {Type: AWS::Lambda::LayerVersion, Properties: {LayerName: l, Content: {S3Bucket: built, S3Key: layer.zip}}}
  Role: {Type: AWS::IAM::Role, Properties: {RoleName: r, AssumeRolePolicyDocument: {Version: "2012-10-17", Statement: [
    {Effect: Allow, Principal: {Service: lambda.amazonaws.com}, Action: "sts:AssumeRole"}]}}}
  F:
    Type: AWS::Lambda::Function
    Properties: {FunctionName: f, Role: !GetAtt Role.Arn, Code: {S3Bucket: built, S3Key: KEY},
      Layers: [!Ref Layer], Handler: app.handler, Runtime: python3.13}
"""


def test_archives_run_with_their_layers_and_a_new_one_takes_the_next_call(empty: LocalCloud) -> None:
    s3, client = empty.client("s3"), empty.client("cloudformation")
    s3.create_bucket(Bucket="built")
    code = "import shared\nCALLS = []\ndef handler(event, context):\n    CALLS.append(1)\n"
    code += "    return [EDITION, shared.WORD, len(CALLS)]\n"
    for key, name, body in (
        ("layer.zip", "python/shared.py", "WORD = 'shared'"),
        ("1.zip", "app.py", "EDITION = 1\n" + code),
        ("2.zip", "app.py", "EDITION = 2\n" + code),
    ):
        archive = io.BytesIO()
        with zipfile.ZipFile(archive, "w") as file:
            file.writestr(name, body)
        s3.put_object(Bucket="built", Key=key, Body=archive.getvalue())

    def deploy(kind: str, key: str) -> None:
        asked = {"StackName": "archived", "ChangeSetName": "c", "ChangeSetType": kind}
        change = client.create_change_set(**asked, TemplateBody=ARCHIVED.replace("KEY", key))["Id"]
        client.execute_change_set(ChangeSetName=change)

    deploy("CREATE", "1.zip")
    first = [empty.invoke("f", {})[0] for _ in range(2)]
    deploy("UPDATE", "2.zip")
    second = empty.invoke("f", {})[0]

    assert first == [[1, "shared", 1], [1, "shared", 2]]
    assert second == [2, "shared", 1]
