"""Ground Truth labeling jobs: manifest in, tasks to simulated annotators, answers over virtual time, labeled manifest out.

One object's walk: pre-annotation Lambda -> task input -> up to N answers -> (all answers, or its availability runs out)
-> worker-response file -> post-annotation Lambda, in batches -> line of the output manifest. An object that nobody
answered has failed and never reaches consolidation. Shapes are those of aws-contracts 1.3 to 1.11.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, ClassVar

from .annotators import Answer, Crowd
from .patches import Cloud
from .sagemaker import Request, Service, only, refuse

INITIALIZING_SECONDS, LAMBDA_ATTEMPTS = 60.0, 3
ARRIVALS_PER_BATCH = 25  # answers that come in together: a wait for each would only slow the simulation down
_JOB = "LabelingJobName LabelAttributeName InputConfig OutputConfig RoleArn HumanTaskConfig Tags"
_HUMAN = """WorkteamArn UiConfig PreHumanTaskLambdaArn AnnotationConsolidationConfig TaskTitle TaskDescription TaskKeywords
    NumberOfHumanWorkersPerDataObject TaskTimeLimitInSeconds TaskAvailabilityLifetimeInSeconds MaxConcurrentTaskCount"""


@dataclass
class Job:
    """A labeling job: what Describe shows, where its files go, an answer's key and whether a class is chosen (or typed), the
    objects of its manifest, by their place there what the settled ones became (nothing: failed), and its first trouble."""

    shown: Request
    folder: str
    answer_name: str
    chosen: bool
    objects: list[Request]
    contents: dict[int, Request] = field(default_factory=dict)
    error: str = ""


class Labeling(Service):
    """Labeling jobs over an S3 manifest, with a UI template and two Lambdas of the caller's."""

    plain: ClassVar = {"describe_labeling_job": "LabelingJob",
                       "list_labeling_jobs": "LabelingJob LabelingJobSummaryList"}  # fmt: skip

    def __init__(self, cloud: Cloud) -> None:
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
        field = re.search(r"""<crowd-(\S*classifier|input)\b[^>]*?\bname=["']([^"']+)""", template)
        refuse(field is None, "the UI template has no crowd-classifier or crowd-input with a name")
        objects = [json.loads(line) for line in lines]
        job = Job(self.keep("LabelingJob", p), folder, field[2], field[1] != "input", objects)
        self._show(job, "InProgress")
        self.clock.start(self._run(job))
        return job.shown

    def _run(self, job: Job) -> Iterator[float]:
        """Prepare every task, let the annotators plan their answers, take them in as they come, and end the job."""
        yield INITIALIZING_SECONDS
        human, start, planned = job.shown["HumanTaskConfig"], self.clock.time(), list[tuple[float, int, list[Answer]]]()
        crowd, limit = self._crowds[human["WorkteamArn"]], human["TaskTimeLimitInSeconds"]
        expires_at = start + human.get("TaskAvailabilityLifetimeInSeconds", 864_000)
        wanted = human["NumberOfHumanWorkersPerDataObject"]
        for place, line in enumerate(job.objects):
            event = {"version": "2018-10-16", "labelingJobArn": job.shown["LabelingJobArn"], "dataObject": line}
            task = (self._call(job, human["PreHumanTaskLambdaArn"], event) or {}).get("taskInput")
            work = crowd.work(task, workers=wanted, start=start, time_limit=limit) if crowd and task else []
            answers = [answer for answer in work if answer.submitted_at <= expires_at]
            complete = len(answers) == wanted or not task
            complete_at = max([start, *(answer.submitted_at for answer in answers)]) if complete else expires_at
            planned.append((complete_at, place, answers))
        planned.sort()
        for first in range(0, len(planned), ARRIVALS_PER_BATCH):
            batch = planned[first : first + ARRIVALS_PER_BATCH]
            yield max(0.0, batch[-1][0] - self.clock.time())
            self._settle(job, {place: answers for _, place, answers in batch})
        self._end(job)

    def _settle(self, job: Job, batch: dict[int, list[Answer]]) -> None:
        """These objects' answers are in, or their time is over: file the answers and consolidate what there is."""
        now, payload = f"{self.clock.now():%Y-%m-%d_%H:%M:%S}", list[Request]()
        for place, answers in ((place, answers) for place, answers in batch.items() if answers):
            filed, annotations, line = list[Request](), list[Request](), job.objects[place]
            for answer in answers:
                content = {job.answer_name: {"label": answer.label} if job.chosen else answer.label}
                worker = {"workerId": f"private.{self.cloud.region}.{answer.worker_id}"}
                times = {"acceptanceTime": _iso(answer.accepted_at), "submissionTime": _iso(answer.submitted_at)}
                spent = round(answer.submitted_at - answer.accepted_at, 3)
                filed.append({**worker, "answerContent": content, **times, "timeSpentInSeconds": spent})
                annotations.append({**worker, "annotationData": {"content": json.dumps(content)}})
            uri = f"{job.folder}/annotations/worker-response/iteration-1/{place}/{now}.json"
            self.put(uri, json.dumps({"answers": filed}).encode())
            source = {"s3Uri": line["source-ref"]} if "source-ref" in line else {"content": line["source"]}
            payload.append({"datasetObjectId": str(place), "dataObject": source, "annotations": annotations})
        contents = self._consolidated(job, payload, now) if payload else {}
        job.contents |= {place: contents.get(str(place), {}) for place in batch}
        self._show(job, "InProgress")

    def _consolidated(self, job: Job, payload: list[Request], now: str) -> dict[str, Request]:
        """What the post-annotation Lambda makes of these objects' answers; objects it leaves out have failed."""
        p, human, folder = job.shown, job.shown["HumanTaskConfig"], f"{job.folder}/annotations"
        name = f"{now}-{payload[0]['datasetObjectId']}.json"
        uri = f"{folder}/consolidated-annotation/consolidation-request/iteration-1/{name}"
        self.put(uri, json.dumps(payload).encode())
        event = {
            "version": "2018-10-06", "labelingJobArn": p["LabelingJobArn"], "labelAttributeName": p["LabelAttributeName"],
            "roleArn": p["RoleArn"], "outputConfig": folder, "payload": {"s3Uri": uri},
            "maxHumanWorkersPerDataObject": human["NumberOfHumanWorkersPerDataObject"],
        }  # fmt: skip
        rows = self._call(job, human["AnnotationConsolidationConfig"]["AnnotationConsolidationLambdaArn"], event) or []
        return {row["datasetObjectId"]: row["consolidatedAnnotation"]["content"] for row in rows}

    def _call(self, job: Job, function: str, event: Request) -> Any:
        for _ in range(LAMBDA_ATTEMPTS):
            result, error = self.cloud.invoke(function, event, invoker="sagemaker")
            if not error:
                return result
            job.error = job.error or f"{function}: {error}"[:1024]
        return None

    def _show(self, job: Job, status: str) -> None:
        labeled, left = sum(map(bool, job.contents.values())), len(job.objects) - len(job.contents)
        counters = {"TotalLabeled": labeled, "HumanLabeled": labeled, "MachineLabeled": 0, "Unlabeled": left,
                    "FailedNonRetryableError": len(job.objects) - left - labeled}  # fmt: skip
        job.shown.update(LabelingJobStatus=status, LabelCounters=counters, LastModifiedTime=self.clock.now())

    def _end(self, job: Job) -> None:
        """Write the output manifest, show the final status and tell it."""
        shown, failed = job.shown, bool(job.error) and not any(job.contents.values())
        uri, metadata = f"{job.folder}/manifests/output/output.manifest", f"{shown['LabelAttributeName']}-metadata"
        about = {"type": "groundTruth/custom", "job_name": f"labeling-job/{shown['LabelingJobName'].lower()}",
                 "creation_date": f"{self.clock.now():%Y-%m-%dT%H:%M:%S.%f}"}  # fmt: skip
        for place, content in ((place, content) for place, content in job.contents.items() if content):
            job.objects[place] |= {**content, metadata: {**about, **content.get(metadata, {})}}
        self.put(uri, "".join(json.dumps(line) + "\n" for line in job.objects).encode())
        shown.update({"FailureReason": job.error} if failed else {}, LabelingJobOutput={"OutputDatasetS3Uri": uri})
        self._show(job, "Failed" if failed else "Completed")
        self.tell("Ground Truth Labeling Job", shown["LabelingJobArn"], LabelingJobStatus=shown["LabelingJobStatus"])


def _iso(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
