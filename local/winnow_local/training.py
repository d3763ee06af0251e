"""SageMaker training jobs: the shipped training source run as script mode runs it, under a folder shaped like /opt/ml.

The subprocess runs at once, in real time, while the virtual clock stands; its result is shown `virtual_seconds` after
creation, when the artifact is uploaded and the event sent. Shapes: aws-contracts 1.11 and 2.1 to 2.4.
"""

from __future__ import annotations

import gzip
import io
import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from moto.logs.models import logs_backends

from .sagemaker import Request, Service, find, in_use, page, patches, refuse, split_uri

if TYPE_CHECKING:
    from .cloud import LocalCloud

MAX_RUNTIME_SECONDS = 28 * 86_400
REAL_LIMIT_SECONDS = 900.0  # a container that hangs may not hang the local cloud for a simulated day
GRACE_SECONDS = 120.0  # between SIGTERM and SIGKILL, as the container gets
OVER = ("Completed", "Failed", "Stopped")


@dataclass
class Run:
    """One job: what Describe shows, its folder, its process and how it ended."""

    shown: Request
    folder: Path
    process: subprocess.Popen[str] | None = None
    stopping: bool = False
    end: tuple[str, str, str] = ("Completed", "Completed", "")
    metrics: dict[str, float] = field(default_factory=dict)


class Training(Service):
    """Training jobs. `virtual_seconds` is how long each takes on the virtual clock."""

    actions = ("create_training_job", "describe_training_job", "list_training_jobs", "stop_training_job")

    def __init__(self, cloud: LocalCloud, tags: dict[str, dict[str, str]]) -> None:
        super().__init__(cloud, tags)
        self.virtual_seconds = 600.0
        self._jobs: dict[str, Run] = {}

    def create_training_job(self, p: Request) -> Request:
        name = p["TrainingJobName"]
        for needed in ("AlgorithmSpecification", "ResourceConfig", "StoppingCondition"):
            refuse(needed not in p, f"{needed} is required for a training job")
        algorithm, resources, limits = p["AlgorithmSpecification"], p["ResourceConfig"], p["StoppingCondition"]
        refuse("TrainingImage" not in algorithm, "AlgorithmSpecification.TrainingImage is required")
        refuse(algorithm.get("TrainingInputMode", "File") != "File", "the local cloud runs TrainingInputMode File only")
        refuse(resources.get("InstanceCount") != 1, "the local cloud runs one instance: InstanceCount 1")
        longest = limits.setdefault("MaxRuntimeInSeconds", 86_400)
        refuse(longest > MAX_RUNTIME_SECONDS, f"MaxRuntimeInSeconds must be at most {MAX_RUNTIME_SECONDS}")
        spot = p.get("EnableManagedSpotTraining") and limits.get("MaxWaitTimeInSeconds", 0) < longest
        refuse(bool(spot), "managed spot training needs MaxWaitTimeInSeconds >= MaxRuntimeInSeconds")
        for metric in algorithm.get("MetricDefinitions", []):
            refuse(re.compile(metric["Regex"]).groups != 1, f"metric {metric['Name']}: the regex needs one capture group")
        for channel in p.get("InputDataConfig", []):
            source = channel["DataSource"].get("S3DataSource", {})
            refuse(source.get("S3DataType") != "S3Prefix", f"channel {channel['ChannelName']}: only S3Prefix is known here")
            split_uri(source["S3Uri"])
        needed = "sagemaker_program", "sagemaker_submit_directory"
        refuse(not set(needed) <= set(p.get("HyperParameters", {})), f"script mode needs the hyperparameters {needed}")
        with self._lock:
            in_use(name in self._jobs, f"Training job names must be unique within an account and region: {name}")
            arn = self.arn("training-job", name, tags=p.get("Tags"))
            made = {"TrainingJobArn": arn, "CreationTime": self.now(), "TrainingJobStatus": "InProgress"}
            run = self._jobs[name] = Run({**p, **made, "SecondaryStatusTransitions": []}, Path(tempfile.mkdtemp()))
            self._enter(run, "Starting")
        self.clock.spawn(lambda: self._run(run), name=f"train {name}", apart=True)
        return {"TrainingJobArn": arn}

    def describe_training_job(self, p: Request) -> Request:
        run: Run = find(self._jobs, p["TrainingJobName"], "training job")
        return run.shown

    def list_training_jobs(self, p: Request) -> Request:
        rows = [run.shown for run in list(self._jobs.values())]
        return page(rows, p, into="TrainingJobSummaries", name="TrainingJobName", status="TrainingJobStatus")

    def stop_training_job(self, p: Request) -> Request:
        run: Run = find(self._jobs, p["TrainingJobName"], "training job")
        refuse(run.shown["TrainingJobStatus"] in OVER, "The request was rejected because the training job is over")
        run.stopping, run.shown["TrainingJobStatus"] = True, "Stopping"
        self._enter(run, "Stopping")
        if run.process and run.process.poll() is None:
            run.process.terminate()
        else:
            self.clock.call_later(GRACE_SECONDS, lambda: self.clock.spawn(lambda: self._end(run)), name="stop training")
        return {}

    def close(self) -> None:
        """End every process and drop every folder."""
        for run in self._jobs.values():
            if run.process and run.process.poll() is None:
                run.process.kill()
            shutil.rmtree(run.folder, ignore_errors=True)

    def _run(self, run: Run) -> None:
        """Start the container's work, wait for it, and appoint the virtual moment at which it is seen to end."""
        name, took = run.shown["TrainingJobName"], self.virtual_seconds
        try:
            command, environment, code = self._prepare(run)
        except (LookupError, tarfile.TarError) as error:
            run.end, took = ("Failed", "Failed", f"ClientError: {error.args[0]}"), min(took, 60.0)
        else:
            run.process = subprocess.Popen(
                command, cwd=code, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
            )
            try:
                output = run.process.communicate(timeout=REAL_LIMIT_SECONDS)[0]
            except subprocess.TimeoutExpired:
                run.process.kill()
                output, took = run.process.communicate()[0], float("inf")
            self._judge(run, run.process.returncode, output)
        longest = float(run.shown["StoppingCondition"]["MaxRuntimeInSeconds"])
        if took > longest and run.end[0] != "Failed":
            run.end, took = ("Stopped", "MaxRuntimeExceeded", ""), longest
        took = min(took, GRACE_SECONDS) if run.stopping else took
        self.clock.call_later(min(60.0, took / 2), lambda: self._train(run), name=f"training {name}")
        self.clock.call_later(took, lambda: self.clock.spawn(lambda: self._end(run)), name=f"trained {name}")

    def _prepare(self, run: Run) -> tuple[list[str], dict[str, str], Path]:
        """Fill the folder; gives the command, its whole environment and the code folder. LookupError: data missing."""
        p, ml, name = run.shown, run.folder / "opt/ml", run.shown["TrainingJobName"]
        hyper, code = p.get("HyperParameters", {}), run.folder / "opt/ml/code"
        for needed in ("input/config", "input/data", "model", "output/data", "code"):
            (ml / needed).mkdir(parents=True)
        channels = {c["ChannelName"]: ml / "input/data" / c["ChannelName"] for c in p.get("InputDataConfig", [])}
        for channel in p.get("InputDataConfig", []):
            self._download(channel["DataSource"]["S3DataSource"]["S3Uri"], channels[channel["ChannelName"]])
        values = {key: _decoded(value) for key, value in hyper.items()}
        archive = self._download(str(values["sagemaker_submit_directory"]), run.folder / "source")
        with tarfile.open(archive) as tar:
            tar.extractall(code, filter="data")
        own = {key: value for key, value in values.items() if not key.startswith("sagemaker_")}
        arguments = [part for key in sorted(own) for part in (f"--{key}", str(own[key]))]
        described = {"hyperparameters": hyper, "inputdataconfig": {name: {} for name in channels},
                     "resourceconfig": {"current_host": "algo-1", "hosts": ["algo-1"]}}  # fmt: skip
        for file, content in described.items():
            (ml / f"input/config/{file}.json").write_text(json.dumps(content))
        environment = {
            "PATH": os.defpath, "HOME": str(run.folder), "LANG": "C.UTF-8", "LC_ALL": "C.UTF-8", "PYTHONPATH": str(code),
            "TRAINING_JOB_NAME": name, "TRAINING_JOB_ARN": p["TrainingJobArn"], "AWS_REGION": self.cloud.region,
            "SM_MODEL_DIR": str(ml / "model"), "SM_OUTPUT_DATA_DIR": str(ml / "output/data"), "SM_INPUT_DIR": str(ml / "input"),
            "SM_OUTPUT_DIR": str(ml / "output"), "SM_CHANNELS": json.dumps(sorted(channels)), "SM_HPS": json.dumps(own),
            "SM_HOSTS": '["algo-1"]', "SM_CURRENT_HOST": "algo-1", "SM_NUM_CPUS": str(os.cpu_count()), "SM_NUM_GPUS": "0",
            "SM_USER_ARGS": json.dumps(arguments), "SM_LOG_LEVEL": "20",
            **{f"SM_CHANNEL_{name.upper()}": str(path) for name, path in channels.items()},
            **{f"SM_HP_{key.upper()}": str(value) for key, value in own.items()}, **p.get("Environment", {}),
        }  # fmt: skip
        return [sys.executable, str(values["sagemaker_program"]), *arguments], environment, code

    def _download(self, uri: str, folder: Path) -> Path:
        """Copy every object whose key starts with the prefix; gives the last path. LookupError when there is none."""
        bucket, prefix = split_uri(uri)
        s3, target = self.cloud.client("s3"), folder
        for listed in s3.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix):
            for entry in listed.get("Contents", []):
                target = folder / (entry["Key"][len(prefix) :].lstrip("/") or Path(entry["Key"]).name)
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_bytes(self.get(f"s3://{bucket}/{entry['Key']}"))
        if target == folder:
            raise LookupError(f"Data download failed: no S3 objects found under {uri}")
        return target

    def _judge(self, run: Run, code: int, output: str) -> None:
        """Log, scrape metrics, and name the end from the exit code and the failure file."""
        lines, name = output.splitlines(), run.shown["TrainingJobName"]
        logs, group = logs_backends[self.cloud.account][self.cloud.region], "/aws/sagemaker/TrainingJobs"
        stream, at = f"{name}/algo-1-{int(self.clock.time())}", int(self.clock.time() * 1000)
        logs.ensure_log_group(group)
        logs.ensure_log_stream(group, stream)
        logs.groups[group].put_log_events(stream, [{"timestamp": at, "message": line} for line in lines])
        for metric in run.shown["AlgorithmSpecification"].get("MetricDefinitions", []):
            for found in re.findall(metric["Regex"], output):
                run.metrics[metric["Name"]] = float(found)
        failure = run.folder / "opt/ml/output/failure"
        if run.stopping:
            run.end = ("Stopped", "Stopped", "")
        elif code:
            said = failure.read_text() if failure.exists() else "\n".join(lines[-5:])
            run.end = ("Failed", "Failed", f"AlgorithmError: {said}, exit code: {code}"[:1024])

    def _train(self, run: Run) -> None:
        if run.shown["TrainingJobStatus"] == "InProgress":
            run.shown["TrainingStartTime"] = self.now()
            self._enter(run, "Training")
            self._tell(run)

    def _end(self, run: Run) -> None:
        """Upload what is there, show the end and tell it."""
        with self._lock:
            if run.shown["TrainingJobStatus"] in OVER:
                return
            if run.stopping:
                run.end = ("Stopped", "Stopped", "")
            status, secondary, reason = run.end
            shown, now = run.shown, self.now()
            target = f"{shown['OutputDataConfig']['S3OutputPath'].rstrip('/')}/{shown['TrainingJobName']}/output"
            for file, folder in (("model.tar.gz", "model"), ("output.tar.gz", "output/data")):
                path = run.folder / "opt/ml" / folder
                if status != "Failed" and path.is_dir() and any(path.iterdir()):
                    self.put(f"{target}/{file}", archive(path))
            metrics = [{"MetricName": k, "Value": v, "Timestamp": now} for k, v in run.metrics.items()]
            began = shown.setdefault("TrainingStartTime", now)
            seconds = int((now - began).total_seconds())
            shown.update(ModelArtifacts={"S3ModelArtifacts": f"{target}/model.tar.gz"}, FinalMetricDataList=metrics,
                         TrainingEndTime=now, TrainingTimeInSeconds=seconds, BillableTimeInSeconds=seconds)  # fmt: skip
            shown.update({"FailureReason": reason} if reason else {}, TrainingJobStatus=status)
            self._enter(run, secondary)
        for name, value in run.metrics.items():
            dimensions = {"TrainingJobName": shown["TrainingJobName"]}
            self.cloud.put_metric("/aws/sagemaker/TrainingJobs", name, value, dimensions, "None")
        self._tell(run)
        shutil.rmtree(run.folder, ignore_errors=True)

    def _enter(self, run: Run, secondary: str) -> None:
        now, passed = self.now(), run.shown["SecondaryStatusTransitions"]
        if passed:
            passed[-1]["EndTime"] = now
        passed.append({"Status": secondary, "StartTime": now, "StatusMessage": run.shown.get("FailureReason", secondary)})
        run.shown.update(SecondaryStatus=secondary, LastModifiedTime=now)

    def _tell(self, run: Run) -> None:
        hidden = {"ModelArtifacts", "FinalMetricDataList"}
        detail = {key: _told(value) for key, value in run.shown.items() if key not in hidden}
        detail["Tags"] = self._tags[run.shown["TrainingJobArn"]]
        self.tell("Training Job", detail, run.shown["TrainingJobArn"])


def archive(folder: Path) -> bytes:
    """A tar.gz of the folder's content with the same bytes for the same files: sorted, without times or owners."""
    plain = io.BytesIO()
    with tarfile.open(fileobj=plain, mode="w") as tar:
        for path in sorted(path for path in folder.rglob("*") if path.is_file()):
            entry = tarfile.TarInfo(str(path.relative_to(folder)))
            entry.size, entry.mode = path.stat().st_size, 0o644
            with path.open("rb") as file:
                tar.addfile(entry, file)
    return gzip.compress(plain.getvalue(), compresslevel=1, mtime=0)


def _decoded(value: str) -> Any:
    """A hyperparameter as the toolkit reads it: JSON, else the raw text."""
    try:
        return json.loads(value)
    except ValueError:
        return value


def _told(value: Any) -> Any:
    """Times in events are epoch milliseconds."""
    if isinstance(value, datetime):
        return int(value.timestamp() * 1000)
    if isinstance(value, dict):
        return {key: _told(item) for key, item in value.items()}
    return [_told(item) for item in value] if isinstance(value, list) else value


PATCHES = patches("training", Training.actions, "A job takes time and ends as its container did.", absent=("stop_training_job",))
