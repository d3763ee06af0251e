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
import argparse, json, os, pathlib, sys, time
parser = argparse.ArgumentParser()
parser.add_argument("--seed", type=int)
parser.add_argument("--then", default="end")
given = parser.parse_args()
inside = pathlib.Path(os.environ["SM_CHANNEL_TRAIN"])
print("val_f1=0.5", flush=True)
print(f"val_f1=0.75 pi={os.environ['PI']}")
if given.then == "fail":
    pathlib.Path(os.environ["SM_OUTPUT_DIR"], "failure").write_text("no labels")
    sys.exit(3)
if given.then == "crash":
    raise KeyError("label")
if given.then == "hang":
    time.sleep(60)
rows = {path.name: path.read_text() for path in sorted(inside.rglob("*")) if path.is_file()}
described = json.loads(pathlib.Path(os.environ["SM_INPUT_DIR"], "config/hyperparameters.json").read_text())
seen = {"rows": rows, "seed": given.seed, "path": sys.path[1:2] == [os.getcwd()], "described": described["seed"],
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
        "AlgorithmSpecification": {
            "TrainingImage": "image", "TrainingInputMode": "File",
            "MetricDefinitions": [{"Name": "f1", "Regex": "val_f1=([0-9.]+)"}],
        },
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
    assert model == {"rows": {"a.jsonl": "A", "b.jsonl": "B"}, "seed": 7, "path": True, "described": "7", "account": []}
    assert {metric["MetricName"]: metric["Value"] for metric in job["FinalMetricDataList"]} == {"f1": 0.75}
    assert cloud.metrics == [("/aws/sagemaker/TrainingJobs", "f1", 0.75, {"TrainingJobName": "job-1"})]


def test_a_job_takes_virtual_time_and_tells_its_states(cloud: SmallCloud) -> None:
    job = train(cloud, request())

    kind = "SageMaker Training Job State Change"
    assert (job["TrainingEndTime"] - job["CreationTime"]).total_seconds() == 600
    assert [step["Status"] for step in job["SecondaryStatusTransitions"]] == ["Starting", "Training", "Completed"]
    assert cloud.told(kind, "TrainingJobStatus") == ["InProgress", "Completed"]
    assert cloud.told(kind, "CreationTime")[0] == int(job["CreationTime"].timestamp() * 1000)
    assert "ModelArtifacts" not in cloud.sent[-1]["detail"]


def test_the_same_files_make_the_same_archive(cloud: SmallCloud) -> None:
    one, other = (train(cloud, request(name))["ModelArtifacts"]["S3ModelArtifacts"] for name in ("a", "b"))

    assert cloud.read(one) == cloud.read(other)


def test_output_goes_to_the_jobs_log(cloud: SmallCloud) -> None:
    train(cloud, request())

    logs, group = cloud.client("logs"), "/aws/sagemaker/TrainingJobs"
    (stream,) = logs.describe_log_streams(logGroupName=group)["logStreams"]
    events = logs.get_log_events(logGroupName=group, logStreamName=stream["logStreamName"])["events"]
    assert stream["logStreamName"].startswith("job-1/algo-1-")
    assert [event["message"] for event in events] == ["val_f1=0.5", "val_f1=0.75 pi=3"]


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


def test_stopping_a_job_ends_its_process(cloud: SmallCloud) -> None:
    cloud.client("sagemaker").create_training_job(**request(then="hang"))

    cloud.client("sagemaker").stop_training_job(TrainingJobName="job-1")
    between = shown(cloud, "job-1")["TrainingJobStatus"]
    cloud.clock.run()

    assert (between, shown(cloud, "job-1")["TrainingJobStatus"]) == ("Stopping", "Stopped")
    with pytest.raises(ClientError, match="over"):
        cloud.client("sagemaker").stop_training_job(TrainingJobName="job-1")


def test_a_finished_script_can_still_be_stopped_before_its_time(cloud: SmallCloud) -> None:
    cloud.client("sagemaker").create_training_job(**request())
    cloud.clock.run(until=cloud.clock.time() + 100)

    cloud.client("sagemaker").stop_training_job(TrainingJobName="job-1")
    cloud.clock.run()

    assert shown(cloud, "job-1")["TrainingJobStatus"] == "Stopped"
    assert cloud.told("SageMaker Training Job State Change", "TrainingJobStatus")[-1] == "Stopped"


def test_names_are_unique_for_ever(cloud: SmallCloud) -> None:
    train(cloud, request())

    with pytest.raises(cloud.client("sagemaker").exceptions.ResourceInUse):
        train(cloud, request())


@pytest.mark.parametrize(
    ("field", "value", "complaint"),
    [
        ("ResourceConfig", {"InstanceCount": 2, "InstanceType": "ml.m5.large", "VolumeSizeInGB": 1}, "InstanceCount"),
        ("StoppingCondition", {"MaxRuntimeInSeconds": 28 * 86_400 + 1}, "MaxRuntimeInSeconds"),
        ("AlgorithmSpecification", {"TrainingImage": "i", "TrainingInputMode": "Pipe"}, "File"),
        ("EnableManagedSpotTraining", True, "MaxWaitTimeInSeconds"),
        ("HyperParameters", {"sagemaker_program": "train.py"}, "sagemaker_submit_directory"),
    ],
)
def test_a_request_aws_would_refuse_is_refused(cloud: SmallCloud, field: str, value: Any, complaint: str) -> None:
    with pytest.raises(ClientError, match=complaint) as refused:
        train(cloud, {**request(), field: value})

    assert refused.value.response["Error"]["Code"] == "ValidationException"


def test_a_metric_regex_has_one_group(cloud: SmallCloud) -> None:
    wanted = request()
    wanted["AlgorithmSpecification"]["MetricDefinitions"][0]["Regex"] = "val_f1=[0-9.]+"

    with pytest.raises(ClientError, match="one capture group"):
        train(cloud, wanted)


def test_jobs_are_listed_by_name_and_status(cloud: SmallCloud) -> None:
    train(cloud, request("good"))
    train(cloud, request("bad", then="fail"))

    listed = cloud.client("sagemaker").list_training_jobs(StatusEquals="Failed")["TrainingJobSummaries"]

    assert [job["TrainingJobName"] for job in listed] == ["bad"]


def test_an_unknown_job_is_a_validation_exception(cloud: SmallCloud) -> None:
    with pytest.raises(ClientError) as refused:
        shown(cloud, "nope")

    assert refused.value.response["Error"]["Code"] == "ValidationException"


def test_a_model_package_keeps_its_metadata_and_tells_of_its_approval(cloud: SmallCloud) -> None:
    sagemaker = cloud.client("sagemaker")
    group = sagemaker.create_model_package_group(ModelPackageGroupName="winnow")["ModelPackageGroupArn"]
    made = [
        sagemaker.create_model_package(
            ModelPackageGroupName=named, ModelPackageDescription=f"m{n}", CustomerMetadataProperties={"gate": "passed"},
            ClientToken=f"m{n}", Tags=[{"Key": "stack", "Value": "winnow"}],
        )["ModelPackageArn"]
        for n, named in ((1, "winnow"), (2, group), (2, "winnow"))
    ]  # fmt: skip

    sagemaker.update_model_package(ModelPackageArn=made[0], ModelApprovalStatus="Approved", ApprovalDescription="better")

    first = sagemaker.describe_model_package(ModelPackageName=made[0])
    waiting = sagemaker.list_model_packages(ModelPackageGroupName="winnow", ModelApprovalStatus="PendingManualApproval")
    assert made[1] == made[2] == "arn:aws:sagemaker:us-east-1:123456789012:model-package/winnow/2"
    assert first["CustomerMetadataProperties"] == {"gate": "passed"}
    assert (first["ModelApprovalStatus"], first["ModelPackageVersion"]) == ("Approved", 1)
    assert [package["ModelPackageDescription"] for package in waiting["ModelPackageSummaryList"]] == ["m2"]
    kind = "SageMaker Model Package State Change"
    assert cloud.told(kind, "ModelApprovalStatus") == ["PendingManualApproval"] * 2 + ["Approved"]
    assert sagemaker.list_tags(ResourceArn=made[0])["Tags"] == [{"Key": "stack", "Value": "winnow"}]


def test_a_package_needs_its_group_and_a_group_is_made_once(cloud: SmallCloud) -> None:
    sagemaker = cloud.client("sagemaker")
    with pytest.raises(ClientError, match="Could not find"):
        sagemaker.create_model_package(ModelPackageGroupName="winnow")

    sagemaker.create_model_package_group(ModelPackageGroupName="winnow")

    assert sagemaker.describe_model_package_group(ModelPackageGroupName="winnow")["ModelPackageGroupStatus"] == "Completed"
    with pytest.raises(ClientError, match="already exists"):
        sagemaker.create_model_package_group(ModelPackageGroupName="winnow")
