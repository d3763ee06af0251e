"""Ground Truth labeling jobs: manifest in, tasks to annotators, answers over virtual time, consolidated manifest out.

One object's walk: pre-annotation Lambda -> task input -> up to N answers -> (all answers, or its availability runs out)
-> worker-response file -> post-annotation Lambda, in batches -> line of the output manifest. An object that nobody
answered has failed and never reaches consolidation. Shapes are those of aws-contracts 1.3 to 1.11.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from .annotators import Answer, Crowd
from .sagemaker import Request, Service, find, in_use, page, patches, refuse, split_uri

if TYPE_CHECKING:
    from .cloud import LocalCloud

INITIALIZING_SECONDS = STOPPING_SECONDS = 60.0
ARRIVALS_PER_BATCH = 25
"""Answers that come in together: a timer for each would only slow the simulation down."""
LAMBDA_ATTEMPTS = 3
MAX_TIME_LIMIT_SECONDS, MAX_AVAILABILITY_SECONDS = 28_800, 2_592_000
MAX_OBJECTS, MAX_LINE, MAX_VALUE = 100_000, 100_000, 20_000
OVER = ("Completed", "Failed", "Stopped")


@dataclass
class DataObject:
    """One manifest line on its way; `state` is waiting, consolidating, labeled, failed or apart (not for people)."""

    index: int
    line: dict[str, Any]
    state: str = "waiting"
    task: dict[str, Any] = field(default_factory=dict)
    answers: list[Answer] = field(default_factory=list)
    complete_at: float = 0.0
    content: dict[str, Any] = field(default_factory=dict)


@dataclass
class Job:
    """A labeling job: what Describe shows, the key of its workers' answers, its objects and its first trouble."""

    shown: Request
    answer_name: str
    objects: list[DataObject] = field(default_factory=list)
    error: str = ""


class Labeling(Service):
    """Labeling jobs and work teams. A team with a `Crowd` is simulated; without one, people `answer`."""

    actions = ("create_labeling_job", "describe_labeling_job", "list_labeling_jobs", "stop_labeling_job",
               "create_workteam", "describe_workteam", "list_workteams")  # fmt: skip

    def __init__(self, cloud: LocalCloud, tags: dict[str, dict[str, str]]) -> None:
        super().__init__(cloud, tags)
        self._jobs, self._teams, self._crowds = dict[str, Job](), dict[str, Request](), dict[str, Crowd | None]()

    def employ(self, team: str, crowd: Crowd | None) -> str:
        """Let `crowd` (None: people in a browser) answer for the work team, made if need be; gives its ARN."""
        self._crowds[team] = crowd
        if team not in self._teams:
            self.create_workteam({"WorkteamName": team, "Description": team, "MemberDefinitions": []})
        return str(self._teams[team]["WorkteamArn"])

    def waiting(self, job: str) -> dict[str, dict[str, Any]]:
        """Object id -> task input of every task of the job that still takes answers."""
        return {str(one.index): one.task for one in self._find(job).objects if one.state == "waiting" and one.task}

    def answer(self, job: str, object_id: str, worker: str, label: str) -> None:
        """A person's answer, now. The answer that completes an object sends it to consolidation."""
        found, now = self._find(job), self.clock.time()
        with self._lock:
            refuse(object_id not in self.waiting(job), f"object {object_id} of {job} takes no answer")
            one = found.objects[int(object_id)]
            one.answers = [a for a in one.answers if a.worker_id != worker] + [Answer(worker, label, now, now)]
            complete = len(one.answers) >= found.shown["HumanTaskConfig"]["NumberOfHumanWorkersPerDataObject"]
        if complete:
            with self.clock.busy():
                self._settle(found, [one])

    def create_labeling_job(self, p: Request) -> Request:
        name, attribute, human = p["LabelingJobName"], p["LabelAttributeName"], p["HumanTaskConfig"]
        manifest = p["InputConfig"]["DataSource"].get("S3DataSource", {}).get("ManifestS3Uri", "")
        template, team = human["UiConfig"].get("UiTemplateS3Uri", ""), human["WorkteamArn"]
        available = human.setdefault("TaskAvailabilityLifetimeInSeconds", MAX_AVAILABILITY_SECONDS)
        both = "PreHumanTaskLambdaArn" in human and "AnnotationConsolidationConfig" in human
        refuse(bool(re.search(r"-metadata$|-ref$|^source$|\$", attribute)), f"LabelAttributeName {attribute} is reserved")
        refuse(not manifest or not template or not both, "the local cloud runs custom tasks over an S3 manifest: "
               "ManifestS3Uri, UiTemplateS3Uri and both Lambdas are needed")  # fmt: skip
        for extra in sorted({"LabelingJobAlgorithmsConfig", "StoppingConditions", "PublicWorkforceTaskPrice"} & {*p, *human}):
            refuse(True, f"{extra} is not part of the local cloud")
        refuse(human["TaskTimeLimitInSeconds"] > MAX_TIME_LIMIT_SECONDS, "TaskTimeLimitInSeconds must be at most 28800")
        refuse(available > MAX_AVAILABILITY_SECONDS, "TaskAvailabilityLifetimeInSeconds must be at most 2592000")
        refuse(team not in [one["WorkteamArn"] for one in self._teams.values()], f"Work team {team} does not exist")
        for needed in (manifest, template):
            refuse(not self.exists(needed), f"Cannot access S3 object {needed}")
        split_uri(p["OutputConfig"]["S3OutputPath"])
        with self._lock:
            in_use(name.lower() in self._jobs, f"Labeling job name must be unique, but {name} exists")
            arn, now = self.arn("labeling-job", name.lower(), tags=p.get("Tags")), self.clock.now()
            made = {"LabelingJobArn": arn, "LabelingJobStatus": "Initializing", "CreationTime": now, "LastModifiedTime": now}
            code = hashlib.sha256(arn.encode()).hexdigest()[:10]
            job = Job({**p, **made, "JobReferenceCode": code}, _answer_name(self.get(template).decode()))
            self._jobs[name.lower()] = job
        self.clock.call_later(INITIALIZING_SECONDS, self._task(self._start, job), name=f"start {name}")
        return {"LabelingJobArn": arn}

    def describe_labeling_job(self, p: Request) -> Request:
        job = self._find(p["LabelingJobName"])
        tags = [{"Key": key, "Value": value} for key, value in self._tags[job.shown["LabelingJobArn"]].items()]
        return {**job.shown, "LabelCounters": _counters(job), "Tags": tags}

    def list_labeling_jobs(self, p: Request) -> Request:
        rows = []
        for job in list(self._jobs.values()):
            human = job.shown["HumanTaskConfig"]
            told = {key: human[key] for key in ("WorkteamArn", "PreHumanTaskLambdaArn")}
            consolidation = human["AnnotationConsolidationConfig"]
            rows.append({**job.shown, "LabelCounters": _counters(job), **told, **consolidation})
        return page(rows, p, into="LabelingJobSummaryList", name="LabelingJobName", status="LabelingJobStatus")

    def stop_labeling_job(self, p: Request) -> Request:
        job = self._find(p["LabelingJobName"])
        refuse(job.shown["LabelingJobStatus"] in OVER, f"{p['LabelingJobName']} is over and cannot be stopped")
        if job.shown["LabelingJobStatus"] != "Stopping":
            self._set(job, "Stopping")
            self.clock.call_later(STOPPING_SECONDS, self._task(self._finish, job, "Stopped"), name="stop labeling job")
        return {}

    def create_workteam(self, p: Request) -> Request:
        name = p["WorkteamName"]
        in_use(name in self._teams, f"Workteam {name} exists")
        arn = self.arn("workteam/private-crowd", name, tags=p.pop("Tags", ()))
        self._teams[name] = {**p, "WorkteamArn": arn, "CreateDate": self.clock.now(), "LastUpdatedDate": self.clock.now()}
        return {"WorkteamArn": arn}

    def describe_workteam(self, p: Request) -> Request:
        return {"Workteam": find(self._teams, p["WorkteamName"], "work team")}

    def list_workteams(self, p: Request) -> Request:
        return page(self._teams.values(), {"SortBy": "Name", **p}, into="Workteams", name="WorkteamName")

    def _find(self, name: str) -> Job:
        job: Job = find(self._jobs, name.lower(), "labeling job")
        return job

    def _task(self, act: Callable[..., None], *args: Any) -> Callable[[], None]:
        return lambda: self.clock.spawn(lambda: act(*args), name="labeling")

    def _start(self, job: Job) -> None:
        """Read the manifest, prepare every task and let the annotators plan their answers."""
        if job.shown["LabelingJobStatus"] != "Initializing":
            return
        self._set(job, "InProgress")
        p, human, start = job.shown, job.shown["HumanTaskConfig"], self.clock.time()
        try:
            job.objects = _read(self.get(p["InputConfig"]["DataSource"]["S3DataSource"]["ManifestS3Uri"]))
        except ValueError as error:
            job.error = f"ClientError: {error}"
            self._finish(job, "Failed")
            return
        for one in job.objects:
            self._prepare(job, one)
        tasks, wanted = [one for one in job.objects if one.task], human["NumberOfHumanWorkersPerDataObject"]
        expires_at = start + human["TaskAvailabilityLifetimeInSeconds"]
        team = next(one["WorkteamName"] for one in self._teams.values() if one["WorkteamArn"] == human["WorkteamArn"])
        crowd = self._crowds.get(team)
        for one in tasks:
            limit = human["TaskTimeLimitInSeconds"]
            planned = crowd.work(one.task, workers=wanted, start=start, time_limit=limit) if crowd else []
            one.answers = [answer for answer in planned if answer.submitted_at <= expires_at]
            one.complete_at = one.answers[-1].submitted_at if len(one.answers) == wanted else expires_at
        tasks.sort(key=lambda one: (one.complete_at, one.index))
        for first in range(0, len(tasks), ARRIVALS_PER_BATCH):
            batch = tasks[first : first + ARRIVALS_PER_BATCH]
            self.clock.call_at(batch[-1].complete_at, self._task(self._settle, job, batch), name="answers")
        self._finish_when_done(job)

    def _prepare(self, job: Job, one: DataObject) -> None:
        """Ask the pre-annotation Lambda what the worker shall see; an object it fails on has failed."""
        if job.shown["LabelAttributeName"] in one.line:
            one.state = "apart"
            return
        function = job.shown["HumanTaskConfig"]["PreHumanTaskLambdaArn"]
        event = {"version": "2018-10-16", "labelingJobArn": job.shown["LabelingJobArn"], "dataObject": one.line}
        result = self._call(job, function, event)
        if not isinstance(result, dict) or not isinstance(result.get("taskInput"), dict):
            one.state, job.error = "failed", job.error or f"{function} returned no taskInput for object {one.index}"
        elif result.get("isHumanAnnotationRequired", True) is False:
            one.state = "apart"
        else:
            one.task = result["taskInput"]

    def _settle(self, job: Job, objects: Sequence[DataObject]) -> None:
        """These objects' answers are in, or their time is over: note the answers and consolidate what there is."""
        with self._lock:
            objects = [one for one in objects if one.state == "waiting"]
            if job.shown["LabelingJobStatus"] != "InProgress":
                return
            for one in objects:
                one.state = "consolidating" if one.answers else "failed"
        answered = [one for one in objects if one.answers]
        for one in answered:
            at = datetime.fromtimestamp(one.answers[-1].submitted_at, UTC).strftime("%Y-%m-%d_%H:%M:%S")
            rows = [self._response(job, answer) for answer in one.answers]
            uri = f"{_folder(job)}/annotations/worker-response/iteration-1/{one.index}/{at}.json"
            self.put(uri, json.dumps({"answers": rows}).encode())
        if answered:
            self._consolidate(job, answered)
        self._finish_when_done(job)

    def _response(self, job: Job, answer: Answer) -> Request:
        who = {"identityProviderType": "Cognito", "issuer": "https://cognito-idp.local", "sub": answer.worker_id}
        return {
            "answerContent": {job.answer_name: {"label": answer.label}}, "workerId": self._worker(answer),
            "acceptanceTime": _iso(answer.accepted_at), "submissionTime": _iso(answer.submitted_at),
            "timeSpentInSeconds": round(answer.submitted_at - answer.accepted_at, 3),
            "workerMetadata": {"identityData": who},
        }  # fmt: skip

    def _worker(self, answer: Answer) -> str:
        return f"private.{self.cloud.region}.{answer.worker_id}"

    def _consolidate(self, job: Job, objects: Sequence[DataObject]) -> None:
        """One call of the post-annotation Lambda; objects it leaves out, or answers wrongly, have failed."""
        p, attribute, human = job.shown, job.shown["LabelAttributeName"], job.shown["HumanTaskConfig"]
        function = human["AnnotationConsolidationConfig"]["AnnotationConsolidationLambdaArn"]
        when, folder = f"{self.clock.now():%Y-%m-%d_%H:%M:%S}-{objects[0].index}", f"{_folder(job)}/annotations"
        payload = f"{folder}/consolidated-annotation/consolidation-request/iteration-1/{when}.json"
        self.put(payload, json.dumps([self._request(job, one) for one in objects]).encode())
        event = {
            "version": "2018-10-06", "labelingJobArn": p["LabelingJobArn"], "labelAttributeName": attribute,
            "roleArn": p["RoleArn"], "outputConfig": folder, "payload": {"s3Uri": payload},
            "maxHumanWorkersPerDataObject": human["NumberOfHumanWorkersPerDataObject"],
        }  # fmt: skip
        result = self._call(job, function, event)
        self.put(payload.replace("consolidation-request", "consolidation-response"), json.dumps(result).encode())
        rows = [row for row in result if isinstance(row, dict)] if isinstance(result, list) else []
        kept = {str(row.get("datasetObjectId")): row.get("consolidatedAnnotation", {}).get("content") for row in rows}
        for one in objects:
            content = kept.get(str(one.index))
            if isinstance(content, dict) and attribute in content:
                one.content, one.state = content, "labeled"
            else:
                one.state, job.error = "failed", job.error or f"{function} returned no {attribute} for object {one.index}"
        job.shown["LastModifiedTime"] = self.clock.now()

    def _request(self, job: Job, one: DataObject) -> Request:
        source = {"s3Uri": one.line["source-ref"]} if "source-ref" in one.line else {"content": one.line["source"]}
        contents = [(answer, json.dumps({job.answer_name: {"label": answer.label}})) for answer in one.answers]
        answers = [{"workerId": self._worker(a), "annotationData": {"content": content}} for a, content in contents]
        return {"datasetObjectId": str(one.index), "dataObject": source, "annotations": answers}

    def _call(self, job: Job, function: str, event: Request) -> Any:
        for _ in range(LAMBDA_ATTEMPTS):
            result, error = self.cloud.invoke(function, event, invoker="sagemaker")
            if not error:
                return result
            job.error = job.error or f"{function}: {error}"[:1024]
        return None

    def _finish_when_done(self, job: Job) -> None:
        states = {one.state for one in job.objects}
        if not states & {"waiting", "consolidating"}:
            self._finish(job, "Failed" if states == {"failed"} and job.error else "Completed")

    def _finish(self, job: Job, status: str) -> None:
        """Write the output manifest, show the final status and tell it."""
        with self._lock:
            before = job.shown["LabelingJobStatus"]
            if before in OVER or (before == "Stopping") != (status == "Stopped"):
                return
            uri = f"{_folder(job)}/manifests/output/output.manifest"
            self.put(uri, "".join(json.dumps(self._line(job, one)) + "\n" for one in job.objects).encode())
            job.shown["LabelingJobOutput"] = {"OutputDatasetS3Uri": uri}
            job.shown |= {"FailureReason": job.error[:1024]} if status == "Failed" else {}
            self._set(job, status)
        self.tell("Ground Truth Labeling Job", {"LabelingJobStatus": status}, job.shown["LabelingJobArn"])

    def _line(self, job: Job, one: DataObject) -> Request:
        attribute = job.shown["LabelAttributeName"]
        if one.state != "labeled":
            return one.line
        made = {"type": "groundTruth/custom", "job_name": f"labeling-job/{job.shown['LabelingJobName'].lower()}",
                "creation_date": f"{self.clock.now():%Y-%m-%dT%H:%M:%S.%f}"}  # fmt: skip
        metadata = {**made, **one.content.get(f"{attribute}-metadata", {})}
        return {**one.line, attribute: one.content[attribute], f"{attribute}-metadata": metadata}

    def _set(self, job: Job, status: str) -> None:
        job.shown["LabelingJobStatus"], job.shown["LastModifiedTime"] = status, self.clock.now()


def _read(body: bytes) -> list[DataObject]:
    """The objects of a manifest; ValueError names the line that breaks a rule."""
    objects = []
    for number, text in enumerate(body.decode("utf-8").splitlines()):
        line = json.loads(text)
        longest = max(len(value if isinstance(value, str) else json.dumps(value)) for value in line.values())
        if ("source" in line) == ("source-ref" in line):
            raise ValueError(f"line {number} needs either source or source-ref")
        if len(text) > MAX_LINE or longest > MAX_VALUE:
            raise ValueError(f"line {number}: {MAX_LINE} characters a line and {MAX_VALUE} a value are allowed")
        if any(key.startswith("$") for key in line):
            raise ValueError(f"line {number} has an attribute that starts with $")
        objects.append(DataObject(number, line))
    if not 0 < len(objects) <= MAX_OBJECTS:
        raise ValueError(f"the manifest has {len(objects)} objects; 1 to {MAX_OBJECTS} are allowed")
    return objects


def _counters(job: Job) -> dict[str, int]:
    labeled = sum(one.state == "labeled" for one in job.objects)
    failed = sum(one.state == "failed" for one in job.objects)
    return {"TotalLabeled": labeled, "HumanLabeled": labeled, "MachineLabeled": 0,
            "FailedNonRetryableError": failed, "Unlabeled": len(job.objects) - labeled - failed}  # fmt: skip


def _answer_name(template: str) -> str:
    """The key of a worker's answer: the crowd element's name, else its tag."""
    found = re.search(r"<(crowd-[a-z-]*classifier)\b([^>]*)>", template)
    refuse(found is None, "the UI template has no crowd classifier element")
    assert found is not None
    name = re.search(r"""\bname=["']([^"']+)["']""", found[2])
    return name[1] if name else found[1]


def _folder(job: Job) -> str:
    return f"{job.shown['OutputConfig']['S3OutputPath'].rstrip('/')}/{job.shown['LabelingJobName']}"


def _iso(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


PATCHES = patches("labeling", Labeling.actions, "Ground Truth labels what its manifest names.", absent=Labeling.actions)
