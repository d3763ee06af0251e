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
REAL_LIMIT_SECONDS = 900.0
"""A container that hangs may not hang the local cloud for as long as its job would be allowed to run."""
STOPPING_SECONDS, STARTING_SECONDS = 120.0, 60.0
LOG_GROUP = "/aws/sagemaker/TrainingJobs"
OVER = ("Completed", "Failed", "Stopped")


@dataclass
class Run:
    """One job: what Describe shows, its folder, its process and how it ended (status, secondary status, reason)."""

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
        for needed in sorted({"AlgorithmSpecification", "ResourceConfig", "StoppingCondition"} - set(p)):
            refuse(True, f"{needed} is required for a training job")
        algorithm, limits = p["AlgorithmSpecification"], p["StoppingCondition"]
        longest, hyper = limits.setdefault("MaxRuntimeInSeconds", 86_400), p.get("HyperParameters", {})
        refuse("TrainingImage" not in algorithm, "AlgorithmSpecification.TrainingImage is required")
        refuse(algorithm.get("TrainingInputMode", "File") != "File", "the local cloud runs TrainingInputMode File only")
        refuse(p["ResourceConfig"].get("InstanceCount") != 1, "the local cloud runs one instance: InstanceCount 1")
        refuse(longest > MAX_RUNTIME_SECONDS, f"MaxRuntimeInSeconds must be at most {MAX_RUNTIME_SECONDS}")
        waits = not p.get("EnableManagedSpotTraining") or limits.get("MaxWaitTimeInSeconds", 0) >= longest
        refuse(not waits, "managed spot training needs MaxWaitTimeInSeconds >= MaxRuntimeInSeconds")
        for metric in algorithm.get("MetricDefinitions", []):
            refuse(re.compile(metric["Regex"]).groups != 1, f"metric {metric['Name']}: its regex needs one capture group")
        for channel in p.get("InputDataConfig", []):
            source = channel["DataSource"].get("S3DataSource", {})
            refuse(source.get("S3DataType") != "S3Prefix", f"channel {channel['ChannelName']}: only S3Prefix is known here")
        for needed in sorted({"sagemaker_program", "sagemaker_submit_directory"} - set(hyper)):
            refuse(True, f"script mode needs the hyperparameter {needed}")
        with self._lock:
            in_use(name in self._jobs, f"Training job names must be unique within an account and region: {name}")
            arn = self.arn("training-job", name, tags=p.get("Tags"))
            made = {"TrainingJobArn": arn, "CreationTime": self.clock.now(), "TrainingJobStatus": "InProgress"}
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
        if run.process:
            run.process.terminate()
        self._end_after(run, STOPPING_SECONDS)
        return {}

    def close(self) -> None:
        """End every process and drop every folder."""
        for run in self._jobs.values():
            if run.process:
                run.process.kill()
                run.process.wait()
            shutil.rmtree(run.folder, ignore_errors=True)

    def _run(self, run: Run) -> None:
        """Do the container's work, and appoint the virtual moment at which it is seen to end."""
        took, longest = self.virtual_seconds, float(run.shown["StoppingCondition"]["MaxRuntimeInSeconds"])
        try:
            command, environment, code = self._prepare(run)
        except (LookupError, tarfile.TarError) as error:
            run.end, took = ("Failed", "Failed", f"ClientError: {error.args[0]}"), STARTING_SECONDS
        else:
            pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
            run.process = subprocess.Popen(command, cwd=code, env=environment, **pipes)  # type: ignore[call-overload]
            if run.stopping:
                run.process.terminate()
            try:
                output = run.process.communicate(timeout=REAL_LIMIT_SECONDS)[0]
            except subprocess.TimeoutExpired:
                run.process.kill()
                output, took = run.process.communicate()[0], float("inf")
            self._judge(run, run.process.returncode, output)
        if took > longest and run.end[0] != "Failed":
            run.end, took = ("Stopped", "MaxRuntimeExceeded", ""), longest
        self.clock.call_later(min(STARTING_SECONDS, took / 2), lambda: self._train(run), name="training starts")
        self._end_after(run, took)

    def _prepare(self, run: Run) -> tuple[list[str], dict[str, str], Path]:
        """Fill the folder; gives the command, its whole environment and the code folder. LookupError: data missing."""
        p, ml, name = run.shown, run.folder / "opt/ml", run.shown["TrainingJobName"]
        for needed in ("input/config", "input/data", "model", "output/data", "code"):
            (ml / needed).mkdir(parents=True)
        channels = {channel["ChannelName"]: ml / "input/data" / channel["ChannelName"] for channel in p["InputDataConfig"]}
        for channel in p["InputDataConfig"]:
            self._download(channel["DataSource"]["S3DataSource"]["S3Uri"], channels[channel["ChannelName"]])
        values = {key: _decoded(value) for key, value in p["HyperParameters"].items()}
        source = self._download(str(values["sagemaker_submit_directory"]), run.folder / "source")
        with tarfile.open(source) as tar:
            tar.extractall(ml / "code", filter="data")
        own = {key: value for key, value in values.items() if not key.startswith("sagemaker_")}
        arguments = [part for key in sorted(own) for part in (f"--{key}", str(own[key]))]
        host = {"current_host": "algo-1", "hosts": ["algo-1"]}
        configs = {"hyperparameters": p["HyperParameters"], "inputdataconfig": p["InputDataConfig"], "resourceconfig": host}
        for file, content in configs.items():
            (ml / f"input/config/{file}.json").write_text(json.dumps(content))
        environment = {
            "PATH": os.defpath, "HOME": str(run.folder), "LANG": "C.UTF-8", "PYTHONPATH": str(ml / "code"),
            "TRAINING_JOB_NAME": name, "TRAINING_JOB_ARN": p["TrainingJobArn"], "AWS_REGION": self.cloud.region,
            "SM_MODEL_DIR": str(ml / "model"), "SM_INPUT_DIR": str(ml / "input"), "SM_OUTPUT_DIR": str(ml / "output"),
            "SM_OUTPUT_DATA_DIR": str(ml / "output/data"), "SM_CHANNELS": json.dumps(sorted(channels)),
            "SM_HOSTS": json.dumps(host["hosts"]), "SM_CURRENT_HOST": "algo-1", "SM_NUM_CPUS": str(os.cpu_count()),
            "SM_NUM_GPUS": "0", "SM_HPS": json.dumps(own), "SM_USER_ARGS": json.dumps(arguments), "SM_LOG_LEVEL": "20",
            **{f"SM_CHANNEL_{channel.upper()}": str(path) for channel, path in channels.items()},
            **{f"SM_HP_{key.upper()}": str(value) for key, value in own.items()}, **p.get("Environment", {}),
        }  # fmt: skip
        return [sys.executable, str(values["sagemaker_program"]), *arguments], environment, ml / "code"

    def _download(self, uri: str, folder: Path) -> Path:
        """Copy every object whose key starts with the prefix; gives the last path. LookupError when there is none."""
        (bucket, prefix), target = split_uri(uri), folder
        pages = self.cloud.client("s3").get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix)
        for entry in (entry for listed in pages for entry in listed.get("Contents", [])):
            target = folder / (entry["Key"][len(prefix) :].lstrip("/") or Path(entry["Key"]).name)
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(self.get(f"s3://{bucket}/{entry['Key']}"))
        if target == folder:
            raise LookupError(f"Data download failed: no S3 objects found under {uri}")
        return target

    def _judge(self, run: Run, code: int, output: str) -> None:
        """Log, scrape metrics, and name the end from the exit code and the failure file."""
        lines, at = output.splitlines(), int(self.clock.time() * 1000)
        logs, stream = logs_backends[self.cloud.account][self.cloud.region], f"{run.shown['TrainingJobName']}/algo-1-{at // 1000}"
        logs.ensure_log_group(LOG_GROUP)
        logs.ensure_log_stream(LOG_GROUP, stream)
        logs.groups[LOG_GROUP].put_log_events(stream, [{"timestamp": at, "message": line} for line in lines])
        for metric in run.shown["AlgorithmSpecification"].get("MetricDefinitions", []):
            for found in re.findall(metric["Regex"], output):
                run.metrics[metric["Name"]] = float(found)
        failure = run.folder / "opt/ml/output/failure"
        if code:
            said = failure.read_text() if failure.exists() else "\n".join(lines[-5:])
            run.end = ("Failed", "Failed", f"AlgorithmError: {said}, exit code: {code}"[:1024])

    def _train(self, run: Run) -> None:
        if run.shown["TrainingJobStatus"] == "InProgress":
            run.shown["TrainingStartTime"] = self.clock.now()
            self._enter(run, "Training")
            self._tell(run)

    def _end_after(self, run: Run, seconds: float) -> None:
        self.clock.call_later(seconds, lambda: self.clock.spawn(lambda: self._end(run)), name="training ends")

    def _end(self, run: Run) -> None:
        """Upload what is there, show the end and tell it."""
        with self._lock:
            shown, now = run.shown, self.clock.now()
            if shown["TrainingJobStatus"] in OVER:
                return
            status, secondary, reason = ("Stopped", "Stopped", "") if run.stopping else run.end
            model, target = run.folder / "opt/ml/model", shown["OutputDataConfig"]["S3OutputPath"].rstrip("/")
            uri = f"{target}/{shown['TrainingJobName']}/output/model.tar.gz"
            if status != "Failed" and model.is_dir() and any(model.iterdir()):
                self.put(uri, archive(model))
            seconds = int((now - shown.setdefault("TrainingStartTime", now)).total_seconds())
            metrics = [{"MetricName": k, "Value": v, "Timestamp": now} for k, v in run.metrics.items()]
            times = {"TrainingEndTime": now, "TrainingTimeInSeconds": seconds, "BillableTimeInSeconds": seconds}
            shown.update(times, ModelArtifacts={"S3ModelArtifacts": uri}, FinalMetricDataList=metrics)
            shown.update({"FailureReason": reason} if reason else {}, TrainingJobStatus=status)
            self._enter(run, secondary)
        for name, value in run.metrics.items():
            self.cloud.put_metric(LOG_GROUP, name, value, {"TrainingJobName": shown["TrainingJobName"]}, "None")
        self._tell(run)
        shutil.rmtree(run.folder, ignore_errors=True)

    def _enter(self, run: Run, secondary: str) -> None:
        now, passed = self.clock.now(), run.shown["SecondaryStatusTransitions"]
        for step in passed[-1:]:
            step["EndTime"] = now
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
            entry.size = path.stat().st_size
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
