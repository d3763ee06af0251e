"""Ground Truth labeling jobs: manifest in, tasks to simulated annotators, answers over virtual time, labeled manifest out.

One object's walk: pre-annotation Lambda -> task input -> up to N answers -> (all answers, or its availability runs out)
-> worker-response file -> post-annotation Lambda, in batches -> line of the output manifest. An object that nobody
answered has failed and never reaches consolidation. Shapes are those of aws-contracts 1.3 to 1.11.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, ClassVar

from .annotators import Answer, Crowd
from .sagemaker import Request, Service, only, refuse

INITIALIZING_SECONDS, LAMBDA_ATTEMPTS = 60.0, 3
ARRIVALS_PER_BATCH = 25
"""Answers that come in together: a timer for each would only slow the simulation down."""
_JOB = "LabelingJobName LabelAttributeName InputConfig OutputConfig RoleArn HumanTaskConfig Tags"
_HUMAN = """WorkteamArn UiConfig PreHumanTaskLambdaArn AnnotationConsolidationConfig TaskTitle TaskDescription TaskKeywords
    NumberOfHumanWorkersPerDataObject TaskTimeLimitInSeconds TaskAvailabilityLifetimeInSeconds MaxConcurrentTaskCount"""


@dataclass
class DataObject:
    """One manifest line on its way; `content` is what its answers were consolidated to."""

    index: int
    line: Request
    task: Request = field(default_factory=dict)
    answers: list[Answer] = field(default_factory=list)
    complete_at: float = 0.0
    content: Request = field(default_factory=dict)


@dataclass
class Job:
    """A labeling job: what Describe shows, where its files go, an answer's key, its objects and its first trouble."""

    shown: Request
    folder: str
    answer_name: str
    objects: list[DataObject]
    left: int = 0
    error: str = ""


class Labeling(Service):
    """Labeling jobs over an S3 manifest, with a UI template and two Lambdas of the caller's."""

    plain: ClassVar = {
        "describe_labeling_job": "LabelingJob",
        "list_labeling_jobs": "LabelingJob LabelingJobSummaryList",
    }

    def __init__(self, cloud: Any) -> None:
        super().__init__(cloud)
        self._crowds: dict[str, Crowd | None] = {}

    def employ(self, team: str, crowd: Crowd | None) -> str:
        """Let `crowd` (None: nobody) answer what is sent to the private work team; gives the team's ARN."""
        arn = self.arn("workteam/private-crowd", team)
        self._crowds[arn] = crowd
        return arn

    def create_labeling_job(self, p: Request) -> Request:
        human, folder = p["HumanTaskConfig"], f"{p['OutputConfig']['S3OutputPath'].rstrip('/')}/{p['LabelingJobName']}"
        only(p, _JOB)
        only(human, _HUMAN)
        refuse(human["WorkteamArn"] not in self._crowds, f"Work team {human['WorkteamArn']} does not exist")
        refuse(human["TaskTimeLimitInSeconds"] > 28_800, "TaskTimeLimitInSeconds must be at most 28800")
        lines = self.get(p["InputConfig"]["DataSource"]["S3DataSource"]["ManifestS3Uri"]).splitlines()
        refuse(not lines, "the manifest is empty")
        template = self.get(human["UiConfig"]["UiTemplateS3Uri"]).decode()
        names = re.findall(r"""<crowd-\S*classifier\b[^>]*?\bname=["']([^"']+)""", template)
        refuse(not names, "the UI template has no crowd classifier with a name")
        made, objects = (
            self.keep("LabelingJob", p),
            [DataObject(index, json.loads(line)) for index, line in enumerate(lines)],
        )
        job = Job(self.find("LabelingJob", p), folder, names[0], objects, left=len(objects))
        self._show(job, "InProgress")
        self.clock.call_later(INITIALIZING_SECONDS, self._task(self._start, job), name="labeling starts")
        return made

    def _task(self, act: Callable[..., None], *args: Any) -> Callable[[], None]:
        return lambda: self.clock.spawn(lambda: act(*args), name="labeling")

    def _start(self, job: Job) -> None:
        """Prepare every task and let the annotators plan their answers."""
        human, start = job.shown["HumanTaskConfig"], self.clock.time()
        crowd, limit = self._crowds[human["WorkteamArn"]], human["TaskTimeLimitInSeconds"]
        expires_at = start + human.get("TaskAvailabilityLifetimeInSeconds", 864_000)
        wanted = human["NumberOfHumanWorkersPerDataObject"]
        for one in job.objects:
            event = {"version": "2018-10-16", "labelingJobArn": job.shown["LabelingJobArn"], "dataObject": one.line}
            one.task = (self._call(job, human["PreHumanTaskLambdaArn"], event) or {}).get("taskInput")
            planned = crowd.work(one.task, workers=wanted, start=start, time_limit=limit) if crowd and one.task else []
            one.answers = [answer for answer in planned if answer.submitted_at <= expires_at]
            complete = len(one.answers) == wanted or not one.task
            one.complete_at = max([start, *(answer.submitted_at for answer in one.answers)]) if complete else expires_at
        rows = sorted(job.objects, key=lambda one: (one.complete_at, one.index))
        for first in range(0, len(rows), ARRIVALS_PER_BATCH):
            batch = rows[first : first + ARRIVALS_PER_BATCH]
            self.clock.call_at(batch[-1].complete_at, self._task(self._settle, job, batch), name="answers")

    def _settle(self, job: Job, objects: list[DataObject]) -> None:
        """These objects' answers are in, or their time is over: file the answers and consolidate what there is."""
        answered = [one for one in objects if one.answers]
        for one in answered:
            rows = [
                {"answerContent": {job.answer_name: {"label": answer.label}}, "workerId": self._worker(answer),
                 "acceptanceTime": _iso(answer.accepted_at), "submissionTime": _iso(answer.submitted_at),
                 "timeSpentInSeconds": round(answer.submitted_at - answer.accepted_at, 3)}
                for answer in one.answers
            ]  # fmt: skip
            uri = f"{job.folder}/annotations/worker-response/iteration-1/{one.index}/{self._now()}.json"
            self.put(uri, json.dumps({"answers": rows}).encode())
        if answered:
            self._consolidate(job, answered)
        job.left -= len(objects)
        self._show(job, "InProgress")
        if not job.left:
            self._finish(job)

    def _consolidate(self, job: Job, objects: list[DataObject]) -> None:
        """One call of the post-annotation Lambda; objects it leaves out have failed."""
        p, human, payload = job.shown, job.shown["HumanTaskConfig"], []
        for one in objects:
            source = {"s3Uri": one.line["source-ref"]} if "source-ref" in one.line else {"content": one.line["source"]}
            answers = [
                {"workerId": self._worker(answer),
                 "annotationData": {"content": json.dumps({job.answer_name: {"label": answer.label}})}}
                for answer in one.answers
            ]  # fmt: skip
            payload.append({"datasetObjectId": str(one.index), "dataObject": source, "annotations": answers})
        folder = f"{job.folder}/annotations"
        uri = (
            f"{folder}/consolidated-annotation/consolidation-request/iteration-1/{self._now()}-{objects[0].index}.json"
        )
        self.put(uri, json.dumps(payload).encode())
        event = {
            "version": "2018-10-06", "labelingJobArn": p["LabelingJobArn"], "labelAttributeName": p["LabelAttributeName"],
            "roleArn": p["RoleArn"], "outputConfig": folder, "payload": {"s3Uri": uri},
            "maxHumanWorkersPerDataObject": human["NumberOfHumanWorkersPerDataObject"],
        }  # fmt: skip
        rows = self._call(job, human["AnnotationConsolidationConfig"]["AnnotationConsolidationLambdaArn"], event) or []
        kept = {row["datasetObjectId"]: row["consolidatedAnnotation"]["content"] for row in rows}
        for one in objects:
            one.content = kept.get(str(one.index), {})

    def _worker(self, answer: Answer) -> str:
        return f"private.{self.cloud.region}.{answer.worker_id}"

    def _now(self) -> str:
        return f"{self.clock.now():%Y-%m-%d_%H:%M:%S}"

    def _call(self, job: Job, function: str, event: Request) -> Any:
        for _ in range(LAMBDA_ATTEMPTS):
            result, error = self.cloud.invoke(function, event, invoker="sagemaker")
            if not error:
                return result
            job.error = job.error or f"{function}: {error}"[:1024]
        return None

    def _show(self, job: Job, status: str) -> None:
        labeled = sum(bool(one.content) for one in job.objects)
        counters = {"TotalLabeled": labeled, "HumanLabeled": labeled, "MachineLabeled": 0, "Unlabeled": job.left,
                    "FailedNonRetryableError": len(job.objects) - job.left - labeled}  # fmt: skip
        job.shown.update(LabelingJobStatus=status, LabelCounters=counters, LastModifiedTime=self.clock.now())

    def _finish(self, job: Job) -> None:
        """Write the output manifest, show the final status and tell it."""
        failed = bool(job.error) and not any(one.content for one in job.objects)
        uri, metadata = f"{job.folder}/manifests/output/output.manifest", f"{job.shown['LabelAttributeName']}-metadata"
        about = {"type": "groundTruth/custom", "job_name": f"labeling-job/{job.shown['LabelingJobName'].lower()}",
                 "creation_date": f"{self.clock.now():%Y-%m-%dT%H:%M:%S.%f}"}  # fmt: skip
        lines = [
            {**one.line, **one.content, metadata: {**about, **one.content.get(metadata, {})}}
            if one.content
            else one.line
            for one in job.objects
        ]
        self.put(uri, "".join(json.dumps(line) + "\n" for line in lines).encode())
        job.shown.update({"FailureReason": job.error} if failed else {}, LabelingJobOutput={"OutputDatasetS3Uri": uri})
        self._show(job, "Failed" if failed else "Completed")
        self.tell(
            "Ground Truth Labeling Job", job.shown["LabelingJobArn"], LabelingJobStatus=job.shown["LabelingJobStatus"]
        )


def _iso(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
