"""Training jobs in the local cloud: script mode, ends, artifacts, events; and the model registry."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Iterator
from typing import Any

import pytest
from botocore.exceptions import ClientError

from tests.local.small_cloud import SmallCloud, small_cloud

ROLE = "arn:aws:iam::123456789012:role/training"
SCRIPT = """
import argparse, json, os, pathlib, sys
parser = argparse.ArgumentParser()
parser.add_argument("--seed", type=int)
parser.add_argument("--then", default="end")
given = parser.parse_args()
inside = pathlib.Path(os.environ["SM_CHANNEL_TRAIN"])
if given.then == "fail":
    pathlib.Path(os.environ["SM_OUTPUT_DIR"], "failure").write_text("no labels")
    sys.exit(3)
if given.then == "crash":
    raise KeyError("label")
rows = {path.name: path.read_text() for path in sorted(inside.rglob("*")) if path.is_file()}
seen = {"rows": rows, "seed": given.seed, "pi": os.environ["PI"], "path": sys.path[1:2] == [os.getcwd()],
        "account": [name for name in os.environ if name.startswith("AWS_") and name != "AWS_REGION"]}
pathlib.Path(os.environ["SM_MODEL_DIR"], "model.json").write_text(json.dumps(seen))
"""


@pytest.fixture
def cloud() -> Iterator[SmallCloud]:
    with small_cloud() as cloud:
        buffer = io.BytesIO()
        with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
            entry = tarfile.TarInfo("train.py")
            entry.size = len(SCRIPT)
            tar.addfile(entry, io.BytesIO(SCRIPT.encode()))
        cloud.put("code/source.tar.gz", buffer.getvalue())
        cloud.put("training/m1/train/a.jsonl", "A")
        cloud.put("training/m1/train/b/b.jsonl", "B")
        cloud.put("training/m10/train/c.jsonl", "not this model's")
        yield cloud


def request(name: str = "job-1", *, runtime: int = 3600, **hyper: str) -> dict[str, Any]:
    source = {"S3DataType": "S3Prefix", "S3Uri": "s3://data/training/m1/train/"}
    script = {"sagemaker_program": '"train.py"', "sagemaker_submit_directory": "s3://data/code/source.tar.gz"}
    return {
        "TrainingJobName": name,
        "AlgorithmSpecification": {"TrainingImage": "image", "TrainingInputMode": "File"},
        "RoleArn": ROLE,
        "HyperParameters": {**script, "seed": "7", **hyper},
        "Environment": {"PI": "3"},
        "InputDataConfig": [{"ChannelName": "train", "DataSource": {"S3DataSource": source}}],
        "OutputDataConfig": {"S3OutputPath": "s3://data/training-output"},
        "ResourceConfig": {"InstanceCount": 1, "InstanceType": "ml.m5.large", "VolumeSizeInGB": 10},
        "StoppingCondition": {"MaxRuntimeInSeconds": runtime},
    }  # fmt: skip


def train(cloud: SmallCloud, wanted: dict[str, Any]) -> dict[str, Any]:
    cloud.client("sagemaker").create_training_job(**wanted)
    cloud.clock.run()
    return shown(cloud, wanted["TrainingJobName"])


def shown(cloud: SmallCloud, name: str) -> dict[str, Any]:
    found: dict[str, Any] = cloud.client("sagemaker").describe_training_job(TrainingJobName=name)
    return found


def test_a_job_runs_its_script_as_script_mode_does_and_leaves_its_model(cloud: SmallCloud) -> None:
    job = train(cloud, request())

    with tarfile.open(fileobj=io.BytesIO(cloud.read(job["ModelArtifacts"]["S3ModelArtifacts"]))) as tar:
        model = json.loads(tar.extractfile("model.json").read())  # type: ignore[union-attr]
    assert job["TrainingJobStatus"] == job["SecondaryStatus"] == "Completed"
    assert job["ModelArtifacts"]["S3ModelArtifacts"] == "s3://data/training-output/job-1/output/model.tar.gz"
    assert model == {"rows": {"a.jsonl": "A", "b.jsonl": "B"}, "seed": 7, "pi": "3", "path": True, "account": []}


def test_an_isolated_job_brings_its_script_in_a_channel(cloud: SmallCloud) -> None:
    code = {"S3DataSource": {"S3DataType": "S3Prefix", "S3Uri": "s3://data/code/source.tar.gz"}}
    isolated = {**request("by-channel"), "EnableNetworkIsolation": True}
    isolated["InputDataConfig"] = [*isolated["InputDataConfig"], {"ChannelName": "code", "DataSource": code}]
    isolated["HyperParameters"]["sagemaker_submit_directory"] = '"/opt/ml/input/data/code/source.tar.gz"'

    fetched = train(cloud, {**request("by-address"), "EnableNetworkIsolation": True})

    assert train(cloud, isolated)["TrainingJobStatus"] == "Completed"
    assert fetched["TrainingJobStatus"] == "Failed"
    assert "Could not connect to the endpoint URL" in fetched["FailureReason"]


def test_a_job_takes_virtual_time_and_tells_its_states(cloud: SmallCloud) -> None:
    job = train(cloud, request())

    kind = "SageMaker Training Job State Change"
    assert (job["TrainingEndTime"] - job["CreationTime"]).total_seconds() == 600
    assert job["BillableTimeInSeconds"] == 600
    assert cloud.told(kind, "TrainingJobStatus") == ["Completed"]


def test_the_same_files_make_the_same_archive(cloud: SmallCloud) -> None:
    one, other = (train(cloud, request(name))["ModelArtifacts"]["S3ModelArtifacts"] for name in ("a", "b"))

    assert cloud.read(one) == cloud.read(other)


@pytest.mark.parametrize(("then", "reason"), [("fail", "no labels"), ("crash", "KeyError: 'label'")])
def test_a_script_that_fails_fails_the_job_with_its_reason(cloud: SmallCloud, then: str, reason: str) -> None:
    job = train(cloud, request(then=then))

    assert job["TrainingJobStatus"] == "Failed"
    assert job["FailureReason"].startswith("AlgorithmError")
    assert reason in job["FailureReason"]
    with pytest.raises(ClientError, match="NoSuchKey"):
        cloud.read(job["ModelArtifacts"]["S3ModelArtifacts"])


def test_missing_data_fails_the_job(cloud: SmallCloud) -> None:
    wanted = request()
    wanted["InputDataConfig"][0]["DataSource"]["S3DataSource"]["S3Uri"] = "s3://data/nothing/"

    job = train(cloud, wanted)

    assert job["TrainingJobStatus"] == "Failed"
    assert "no S3 objects found under s3://data/nothing/" in job["FailureReason"]


def test_a_runtime_limit_ends_in_stopped_not_failed(cloud: SmallCloud) -> None:
    job = train(cloud, request(runtime=300))

    assert (job["TrainingJobStatus"], job["SecondaryStatus"]) == ("Stopped", "MaxRuntimeExceeded")
    assert (job["TrainingEndTime"] - job["CreationTime"]).total_seconds() == 300


def test_names_are_unique_for_ever(cloud: SmallCloud) -> None:
    train(cloud, request())

    with pytest.raises(cloud.client("sagemaker").exceptions.ResourceInUse):
        train(cloud, request())


def test_an_unknown_job_is_a_validation_exception(cloud: SmallCloud) -> None:
    with pytest.raises(ClientError) as refused:
        shown(cloud, "nope")

    assert refused.value.response["Error"]["Code"] == "ValidationException"


def test_spot_capacity_is_taken_and_what_is_not_simulated_is_refused(cloud: SmallCloud) -> None:
    waiting = {"MaxRuntimeInSeconds": 3600, "MaxWaitTimeInSeconds": 7200}
    checkpoints = {"CheckpointConfig": {"S3Uri": "s3://data/checkpoints"}}

    job = train(cloud, {**request(), "EnableManagedSpotTraining": True, "StoppingCondition": waiting})

    assert job["TrainingJobStatus"] == "Completed"
    with pytest.raises(NotImplementedError, match="CheckpointConfig"):
        train(cloud, {**request("job-2"), **checkpoints})
    with pytest.raises(NotImplementedError, match="stop_training_job"):
        cloud.client("sagemaker").stop_training_job(TrainingJobName="job-1")


def test_jobs_are_listed_oldest_first(cloud: SmallCloud) -> None:
    for name in ("b", "a"):
        train(cloud, request(name))
    listed = cloud.client("sagemaker").list_training_jobs

    assert [job["TrainingJobName"] for job in listed()["TrainingJobSummaries"]] == ["b", "a"]
    with pytest.raises(NotImplementedError, match="SortOrder"):
        listed(SortOrder="Descending")


def test_a_package_is_made_once_for_its_token_and_is_approved(cloud: SmallCloud) -> None:
    sagemaker = cloud.client("sagemaker")
    sagemaker.create_model_package_group(ModelPackageGroupName="winnow")
    made = [
        sagemaker.create_model_package(
            ModelPackageGroupName="winnow", ModelPackageDescription=f"m{n}", ClientToken=f"m{n}",
            ModelApprovalStatus="PendingManualApproval",
        )["ModelPackageArn"]
        for n in (1, 2, 2)
    ]  # fmt: skip

    sagemaker.update_model_package(
        ModelPackageArn=made[0], ModelApprovalStatus="Approved", ApprovalDescription="better"
    )

    listed = sagemaker.list_model_packages(ModelPackageGroupName="winnow")["ModelPackageSummaryList"]
    assert made[1] == made[2] == "arn:aws:sagemaker:us-east-1:123456789012:model-package/winnow/2"
    assert [package["ModelPackageVersion"] for package in listed] == [1, 2]
    assert [package["ModelPackageDescription"] for package in listed] == ["m1", "m2"]
    assert [package["ModelApprovalStatus"] for package in listed] == ["Approved", "PendingManualApproval"]


def test_a_package_needs_its_group_and_a_group_is_made_once(cloud: SmallCloud) -> None:
    sagemaker = cloud.client("sagemaker")
    with pytest.raises(ClientError, match="Could not find"):
        sagemaker.create_model_package(ModelPackageGroupName="winnow")

    sagemaker.create_model_package_group(ModelPackageGroupName="winnow")

    with pytest.raises(ClientError, match="already existing"):
        sagemaker.create_model_package_group(ModelPackageGroupName="winnow")
