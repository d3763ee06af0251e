"""The labeling backend on SageMaker Ground Truth: custom task, private work teams, our own pre- and post-annotation functions."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from importlib import resources
from typing import Any, Literal

from winnow.aws.errors import translated
from winnow.aws.listing import exists
from winnow.aws.s3 import DataBucket
from winnow.aws.settings import Settings
from winnow.digests import digest
from winnow.errors import BadInput, ConfigError, Conflict, NotFound
from winnow.ports import Answer, LabelingJob, LabelingOutcome
from winnow.records import from_jsonl

ATTRIBUTE = "label"
"""Key of the answer in the output manifest; its metadata is under `label-metadata`."""

FIELD = "answer"
"""Name of the crowd element in our templates."""

_STATUS: Mapping[str, Literal["running", "completed", "failed", "stopped"]] = {
    "Initializing": "running", "InProgress": "running", "Stopping": "running",
    "Completed": "completed", "Failed": "failed", "Stopped": "stopped",
}  # fmt: skip


class GroundTruth:
    def __init__(self, client: Any, settings: Settings, data: DataBucket) -> None:
        self._sagemaker = client
        self._settings = settings
        self._data = data

    def has_team(self, team: Literal["crowd", "expert"]) -> bool:
        return bool(self._settings.expert_workteam if team == "expert" else self._settings.workteam)

    def _team(self, team: str) -> str:
        arn = self._settings.expert_workteam if team == "expert" else self._settings.workteam
        if not arn:
            parameter = "ExpertWorkteamArn" if team == "expert" else "WorkteamArn"
            raise ConfigError(f"no {team} work team is configured; deploy the stack with parameter {parameter}")
        return arn

    def _template(self, kind: str) -> str:
        body = (resources.files("winnow.aws") / "templates" / f"{kind}.liquid.html").read_bytes()
        key = f"templates/{kind}-{digest(body, length=12)}.liquid.html"
        self._data.put_new(key, body)
        return self._data.uri(key)

    def submit(self, job: LabelingJob) -> None:
        settings = self._settings
        request = {
            "LabelingJobName": settings.named(job.name),
            "LabelAttributeName": ATTRIBUTE,
            "InputConfig": {"DataSource": {"S3DataSource": {"ManifestS3Uri": self._data.uri(job.manifest_key)}}},
            "OutputConfig": {"S3OutputPath": self._data.uri("jobs/")},
            "RoleArn": settings.role("groundtruth"),
            "HumanTaskConfig": {
                "WorkteamArn": self._team(job.team),
                "UiConfig": {"UiTemplateS3Uri": self._template(job.kind)},
                "PreHumanTaskLambdaArn": settings.function("prepare_task"),
                "AnnotationConsolidationConfig": {
                    "AnnotationConsolidationLambdaArn": settings.function("consolidate_annotations")
                },
                "TaskTitle": job.title,
                "TaskDescription": job.title,
                "TaskKeywords": ["estimation" if job.kind == "number" else "classification"],
                "NumberOfHumanWorkersPerDataObject": job.workers_per_item,
                "TaskTimeLimitInSeconds": job.task_seconds,
                "TaskAvailabilityLifetimeInSeconds": job.lifetime_seconds,
                "MaxConcurrentTaskCount": 1000,
            },
            "Tags": [{"Key": "winnow:stack", "Value": settings.stack}],
        }
        try:
            with translated(f"labeling job {job.name}"):
                self._sagemaker.create_labeling_job(**request)
        except Conflict:
            return  # names derive from content: a job of this name is this job

    def _describe(self, name: str) -> dict[str, Any] | None:
        full = self._settings.named(name)
        if not exists(self._sagemaker, "list_labeling_jobs", "LabelingJobSummaryList", "LabelingJobName", full):
            return None
        with translated(f"labeling job {full}"):
            answer: dict[str, Any] = self._sagemaker.describe_labeling_job(LabelingJobName=full)
        return answer

    def describe(self, name: str) -> LabelingOutcome | None:
        job = self._describe(name)
        if job is None:
            return None
        counters = job["LabelCounters"]
        total = sum(counters.get(part, 0) for part in ("TotalLabeled", "Unlabeled", "FailedNonRetryableError"))
        return LabelingOutcome(
            _STATUS[job["LabelingJobStatus"]], counters.get("TotalLabeled", 0), total, job.get("FailureReason")
        )

    def outcome(self, name: str) -> LabelingOutcome:
        job = self._describe(name)
        summary = self.describe(name)
        if job is None or summary is None:
            raise NotFound(f"there is no labeling job {name}")
        if summary.status == "running":
            return summary
        sent = from_jsonl(
            self._data.get(self._data.key_of(job["InputConfig"]["DataSource"]["S3DataSource"]["ManifestS3Uri"]))
        )
        output = job.get("LabelingJobOutput", {}).get("OutputDatasetS3Uri")
        lines = from_jsonl(self._data.get(self._data.key_of(output))) if output else []
        results = {line["candidate_id"]: found for line in lines if (found := _result(line)) is not None}
        return LabelingOutcome(
            summary.status, summary.labeled, len(sent), summary.failure, results, self._answers(name, sent)
        )

    def _answers(self, name: str, sent: Sequence[Mapping[str, Any]]) -> dict[str, list[Answer]]:
        """Every worker's latest answer, by candidate id, from the worker-response files."""
        prefix = f"jobs/{self._settings.named(name)}/annotations/worker-response/"
        keys = list(self._data.list(prefix))
        with ThreadPoolExecutor(8) as pool:
            bodies = list(pool.map(self._data.get, keys))
        latest: dict[str, dict[str, Answer]] = {}
        for key, body in zip(keys, bodies, strict=True):
            line = int(key.removeprefix(prefix).split("/")[1])  # iteration-1/<line>/<time>.json
            of_item = latest.setdefault(str(sent[line]["candidate_id"]), {})
            for raw in json.loads(body)["answers"]:
                answer = Answer(
                    worker=pseudonym(raw["workerId"], stack=self._settings.stack),
                    label=answered(raw["answerContent"]),
                    seconds=float(raw.get("timeSpentInSeconds", 0.0)),
                    submitted_at=str(raw["submissionTime"]),
                )
                known = of_item.get(answer.worker)
                if known is None or known.submitted_at <= answer.submitted_at:
                    of_item[answer.worker] = answer
        return {item: [answers[worker] for worker in sorted(answers)] for item, answers in latest.items()}

    def stop(self, name: str) -> None:
        if self._describe(name) is not None:
            with translated(f"labeling job {name}"):
                self._sagemaker.stop_labeling_job(LabelingJobName=self._settings.named(name))


def pseudonym(worker: str, *, stack: str) -> str:
    """A stable stand-in for a worker's id: worker ids are personal data and never leave Ground Truth's files."""
    return "w" + digest({"stack": stack, "worker": worker}, length=15)


def answered(content: Mapping[str, Any]) -> str | None:
    """What a worker answered, or None when the form was sent without an answer.

    A classifier nests the class under `label`; an input field gives what was typed into it.

    >>> answered({"answer": {"label": "cat"}}), answered({"answer": "123.4"}), answered({})
    ('cat', '123.4', None)
    """
    answer = content.get(FIELD)
    if isinstance(answer, Mapping):
        answer = answer.get("label")
    return None if answer is None else str(answer)


def _result(line: Mapping[str, Any]) -> dict[str, Any] | None:
    """Label and confidence of an output-manifest line; None when the item was not labeled. A number is a float.

    Metadata keys come with hyphens or underscores, so both are read.
    """
    if ATTRIBUTE not in line:
        return None
    metadata = {name.replace("_", "-"): value for name, value in (line.get(f"{ATTRIBUTE}-metadata") or {}).items()}
    confidence = float(metadata.get("confidence", 0.0))
    if metadata.get("number") is not None:
        return {"label": float(metadata["number"]), "confidence": confidence}
    if metadata.get("class-name") is not None:
        return {"label": str(metadata["class-name"]), "confidence": confidence}
    return None


def consolidation_payload(body: bytes) -> list[dict[str, Any]]:
    """The annotations of a consolidation request: `[{"object", "answers": [{"worker", "label"}]}]`."""
    try:
        return [
            {
                "object": str(item["datasetObjectId"]),
                "answers": [
                    {
                        "worker": str(annotation["workerId"]),
                        "label": answered(json.loads(annotation["annotationData"]["content"])),
                    }
                    for annotation in item["annotations"]
                ],
            }
            for item in json.loads(body)
        ]
    except (KeyError, TypeError, ValueError) as error:
        raise BadInput(
            f"consolidation request is not as Ground Truth writes it: {error!r}", code="malformed-payload"
        ) from error


def consolidated(labels: Sequence[Mapping[str, Any]], *, attribute: str) -> list[dict[str, Any]]:
    """The answer of a post-annotation function: the label under the job's attribute, its metadata beside it."""
    return [
        {
            "datasetObjectId": item["object"],
            "consolidatedAnnotation": {
                "content": {
                    attribute: {"label": item["label"]},
                    f"{attribute}-metadata": {
                        "number" if isinstance(item["label"], float) else "class-name": item["label"],
                        "confidence": item["confidence"],
                        "human-annotated": "yes",
                        "type": "groundtruth/custom",
                    },
                }
            },
        }
        for item in labels
    ]
