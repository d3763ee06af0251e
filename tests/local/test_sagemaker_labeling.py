"""Ground Truth in the local cloud: requests, arrivals, files, events."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from botocore.exceptions import ClientError

from tests.local.small_cloud import Event, SmallCloud, small_cloud
from winnow_local.annotators import Annotator, Crowd

ARN = "arn:aws:lambda:us-east-1:123456789012:function:"
TEXTS = [f"text {n}" for n in range(60)]
TRUTH = {text: "cat" if n % 2 else "dog" for n, text in enumerate(TEXTS)}


@pytest.fixture
def cloud() -> Iterator[SmallCloud]:
    with small_cloud() as cloud:
        cloud.functions["prepare"] = lambda event: {"taskInput": {"text": event["dataObject"]["source"]}}
        cloud.functions["consolidate"] = lambda event: majority(cloud, event)
        yield cloud


def majority(cloud: SmallCloud, event: Event) -> list[Event]:
    rows = []
    for one in json.loads(cloud.read(event["payload"]["s3Uri"])):
        votes = [json.loads(a["annotationData"]["content"])["answer"]["label"] for a in one["annotations"]]
        label = max(sorted(set(votes)), key=votes.count)
        content = {event["labelAttributeName"]: {"label": label}, "label-metadata": {"class-name": label}}
        rows.append({"datasetObjectId": one["datasetObjectId"], "consolidatedAnnotation": {"content": content}})
    return rows


def crowd(people: int = 5, **traits: Any) -> Crowd:
    workers = [Annotator.skilled(f"w{n}", accuracy=1.0, classes=2, **traits) for n in range(people)]
    return Crowd(workers, lambda task: TRUTH[str(task["text"])], classes=["cat", "dog"])


def request(cloud: SmallCloud, team: Crowd | None, *, texts: list[str] = TEXTS, **human: Any) -> dict[str, Any]:
    manifest = "\n".join(json.dumps({"source": text, "candidate_id": f"c{n}"}) for n, text in enumerate(texts))
    template = '<crowd-form><crowd-classifier name="answer" categories="[]"></crowd-classifier></crowd-form>'
    return {
        "LabelingJobName": "Round-7",
        "LabelAttributeName": "label",
        "InputConfig": {"DataSource": {"S3DataSource": {"ManifestS3Uri": cloud.put("m.jsonl", manifest)}}},
        "OutputConfig": {"S3OutputPath": "s3://data/jobs/"},
        "RoleArn": "arn:aws:iam::123456789012:role/groundtruth",
        "HumanTaskConfig": {
            "WorkteamArn": cloud.labeling.employ("crowd", team),
            "UiConfig": {"UiTemplateS3Uri": cloud.put("t.html", template)},
            "PreHumanTaskLambdaArn": f"{ARN}prepare",
            "AnnotationConsolidationConfig": {"AnnotationConsolidationLambdaArn": f"{ARN}consolidate"},
            "TaskTitle": "t", "TaskDescription": "d", "NumberOfHumanWorkersPerDataObject": 3,
            "TaskTimeLimitInSeconds": 600, "TaskAvailabilityLifetimeInSeconds": 86_400, **human,
        },
    }  # fmt: skip


def label(cloud: SmallCloud, wanted: dict[str, Any]) -> dict[str, Any]:
    cloud.client("sagemaker").create_labeling_job(**wanted)
    cloud.clock.run()
    shown: dict[str, Any] = cloud.client("sagemaker").describe_labeling_job(LabelingJobName=wanted["LabelingJobName"])
    return shown


def manifest(cloud: SmallCloud, shown: dict[str, Any]) -> list[dict[str, Any]]:
    lines = cloud.read(shown["LabelingJobOutput"]["OutputDatasetS3Uri"]).decode().splitlines()
    return [json.loads(line) for line in lines]


def keys(cloud: SmallCloud, prefix: str) -> list[str]:
    pages = cloud.client("s3").get_paginator("list_objects_v2").paginate(Bucket="data", Prefix=prefix)
    return [entry["Key"] for page in pages for entry in page.get("Contents", [])]


def test_ground_truth_labels_every_line_of_its_manifest_in_order(cloud: SmallCloud) -> None:
    shown = label(cloud, request(cloud, crowd()))

    lines = manifest(cloud, shown)
    assert shown["LabelingJobStatus"] == "Completed"
    assert shown["LabelCounters"]["HumanLabeled"] == 60
    assert shown["LabelCounters"]["Unlabeled"] == 0
    assert [line["candidate_id"] for line in lines] == [f"c{n}" for n in range(60)]
    assert [line["label"]["label"] for line in lines] == list(TRUTH.values())
    about = {"type": "groundTruth/custom", "job_name": "labeling-job/round-7", "class-name": "dog"}
    assert about.items() <= lines[0]["label-metadata"].items()


def test_the_event_carries_the_status_only_and_the_arn_in_lower_case(cloud: SmallCloud) -> None:
    label(cloud, request(cloud, crowd()))

    (event,) = cloud.sent
    assert event["detail-type"] == "SageMaker Ground Truth Labeling Job State Change"
    assert event["detail"] == {"LabelingJobStatus": "Completed"}
    assert event["resources"] == ["arn:aws:sagemaker:us-east-1:123456789012:labeling-job/round-7"]


def test_answers_arrive_over_time_and_go_to_consolidation_in_batches(cloud: SmallCloud) -> None:
    shown = label(cloud, request(cloud, crowd(seconds_per_item=20.0, spread=0.0)))

    sent = [event for name, event, _ in cloud.calls if name.endswith("consolidate")]
    assert len(sent) == 3  # 60 objects by 25
    assert sent[0]["labelAttributeName"] == "label"
    assert sent[0]["outputConfig"] == "s3://data/jobs/Round-7/annotations"
    # 60 objects x 3 answers x 20 s over 5 workers, after a minute of initialising
    assert (shown["LastModifiedTime"] - shown["CreationTime"]).total_seconds() == 60 + 60 * 3 * 20 / 5


def test_worker_responses_are_filed_by_manifest_line(cloud: SmallCloud) -> None:
    label(cloud, request(cloud, crowd(), texts=TEXTS[:12]))

    found = keys(cloud, "jobs/Round-7/annotations/worker-response/iteration-1/")
    rows = json.loads(cloud.read(f"s3://data/{found[0]}"))["answers"]
    assert sorted(int(key.split("/")[5]) for key in found) == list(range(12))
    assert {len({row["workerId"] for row in rows}), len(rows)} == {3}
    assert rows[0]["answerContent"] == {"answer": {"label": "dog"}}
    assert rows[0]["submissionTime"].endswith("Z")


def test_an_object_nobody_answers_expires_and_is_not_consolidated(cloud: SmallCloud) -> None:
    shown = label(cloud, request(cloud, crowd(1, availability=0.3), NumberOfHumanWorkersPerDataObject=1))

    lines, counters = manifest(cloud, shown), shown["LabelCounters"]
    assert shown["LabelingJobStatus"] == "Completed"
    assert 0 < counters["FailedNonRetryableError"] < 60
    assert counters["TotalLabeled"] + counters["FailedNonRetryableError"] == 60
    assert sum("label" in line for line in lines) == counters["TotalLabeled"]
    assert (shown["LastModifiedTime"] - shown["CreationTime"]).total_seconds() == 60 + 86_400


def test_a_failing_lambda_fails_the_job(cloud: SmallCloud) -> None:
    def broken(event: Event) -> None:
        raise RuntimeError("no")

    cloud.functions["prepare"] = broken

    shown = label(cloud, request(cloud, crowd()))

    assert shown["LabelingJobStatus"] == "Failed"
    assert "prepare" in shown["FailureReason"]
    assert shown["LabelCounters"]["FailedNonRetryableError"] == 60
    assert len(cloud.calls) == 180  # every object was tried three times


def test_objects_the_consolidation_leaves_out_are_unlabeled(cloud: SmallCloud) -> None:
    cloud.functions["consolidate"] = lambda event: majority(cloud, event)[1:]

    shown = label(cloud, request(cloud, crowd(), texts=TEXTS[:5]))

    assert shown["LabelCounters"]["TotalLabeled"] == 4
    assert sum("label" not in line for line in manifest(cloud, shown)) == 1


@pytest.mark.parametrize(
    ("path", "value", "complaint"),
    [
        (("HumanTaskConfig", "TaskTimeLimitInSeconds"), 28_801, "28800"),
        (
            ("HumanTaskConfig", "WorkteamArn"),
            "arn:aws:sagemaker:us-east-1:123456789012:workteam/private-crowd/x",
            "team",
        ),
        (("HumanTaskConfig", "UiConfig"), {"UiTemplateS3Uri": "s3://data/absent.html"}, "absent.html"),
        (("InputConfig",), {"DataSource": {"S3DataSource": {"ManifestS3Uri": "s3://data/absent"}}}, "absent"),
    ],
)
def test_a_request_aws_would_refuse_is_refused(
    cloud: SmallCloud, path: tuple[str, ...], value: Any, complaint: str
) -> None:
    wanted = request(cloud, crowd())
    inside = wanted
    for step in path[:-1]:
        inside = inside[step]
    inside[path[-1]] = value

    with pytest.raises(ClientError, match=complaint) as refused:
        cloud.client("sagemaker").create_labeling_job(**wanted)

    assert refused.value.response["Error"]["Code"] == "ValidationException"


def test_names_are_taken_for_ever_whatever_their_case(cloud: SmallCloud) -> None:
    label(cloud, request(cloud, crowd()))

    with pytest.raises(cloud.client("sagemaker").exceptions.ResourceInUse):
        label(cloud, {**request(cloud, crowd()), "LabelingJobName": "ROUND-7"})


def test_an_unknown_job_is_a_validation_exception(cloud: SmallCloud) -> None:
    with pytest.raises(ClientError) as refused:
        cloud.client("sagemaker").describe_labeling_job(LabelingJobName="nope")

    assert refused.value.response["Error"]["Code"] == "ValidationException"


def test_jobs_are_listed_by_a_part_of_their_name(cloud: SmallCloud) -> None:
    for name in ("b-1", "b-2", "a-1"):
        label(cloud, {**request(cloud, crowd(), texts=TEXTS[:2]), "LabelingJobName": name})
    listed = cloud.client("sagemaker").list_labeling_jobs

    assert [job["LabelingJobName"] for job in listed(NameContains="b-")["LabelingJobSummaryList"]] == ["b-1", "b-2"]
    with pytest.raises(NotImplementedError, match="StatusEquals"):
        listed(StatusEquals="Failed")


def test_a_team_of_nobody_leaves_a_job_open_until_its_tasks_expire(cloud: SmallCloud) -> None:
    wanted = request(cloud, None, texts=TEXTS[:2])
    cloud.client("sagemaker").create_labeling_job(**wanted)
    cloud.clock.run(until=cloud.clock.time() + 3600)

    shown = cloud.client("sagemaker").describe_labeling_job(LabelingJobName="Round-7")

    assert (shown["LabelingJobStatus"], shown["LabelCounters"]["Unlabeled"]) == ("InProgress", 2)


def test_stopping_a_job_is_not_simulated(cloud: SmallCloud) -> None:
    with pytest.raises(NotImplementedError, match="stop_labeling_job"):
        cloud.client("sagemaker").stop_labeling_job(LabelingJobName="Round-7")
