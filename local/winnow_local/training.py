"""SageMaker training jobs: the shipped training source run as script mode runs it, under a folder shaped like /opt/ml.

The subprocess runs at once, in real time, while the virtual clock stands; its result is shown `virtual_seconds` after
creation, when the artifact is uploaded and the event sent. Shapes: aws-contracts 1.11 and 2.1 to 2.4.
"""

from __future__ import annotations

import gzip
import io
import json
import os
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path
from typing import Any, ClassVar

from .sagemaker import Request, Service, only, split_uri

_KNOWN = """TrainingJobName AlgorithmSpecification RoleArn HyperParameters Environment InputDataConfig OutputDataConfig
    ResourceConfig StoppingCondition EnableNetworkIsolation EnableManagedSpotTraining Tags"""


class TrainingError(Exception):
    """Why a job has failed, as its FailureReason says it."""


class Training(Service):
    """Training jobs on one instance. `virtual_seconds` is how long each takes; spot capacity is never taken back."""

    plain: ClassVar = {"describe_training_job": "TrainingJob", "list_training_jobs": "TrainingJob TrainingJobSummaries"}

    def __init__(self, cloud: Any) -> None:
        super().__init__(cloud)
        self.virtual_seconds, self._processes = 600.0, list[subprocess.Popen[bytes]]()

    def create_training_job(self, p: Request) -> Request:
        only(p, _KNOWN)
        only(p["AlgorithmSpecification"], "TrainingImage TrainingInputMode")
        made = self.keep("TrainingJob", p, TrainingJobStatus="InProgress", SecondaryStatus="Starting")
        job = self.find("TrainingJob", p)
        self.clock.spawn(lambda: self._run(job), name="training")
        return made

    def close(self) -> None:
        """End every process that still runs."""
        for process in self._processes:
            process.kill()

    def _run(self, job: Request) -> None:
        """Do the container's work, and appoint the virtual moment at which it is seen to end."""
        end, model = ("Completed", "Completed", ""), b""
        later = min(self.virtual_seconds, job["StoppingCondition"]["MaxRuntimeInSeconds"])
        with tempfile.TemporaryDirectory() as folder:
            try:
                model = self._container(job, Path(folder))
            except TrainingError as error:
                end = ("Failed", "Failed", str(error)[:1024])
        end = end if later == self.virtual_seconds else ("Stopped", "MaxRuntimeExceeded", "")
        self.clock.call_later(
            later, lambda: self.clock.spawn(lambda: self._end(job, model, *end)), name="training ends"
        )

    def _container(self, job: Request, root: Path) -> bytes:
        """Run the script; gives the archive of the model it left. TrainingError when it, or its data, is amiss."""
        ml, given = root / "opt/ml", {key: _decoded(value) for key, value in job["HyperParameters"].items()}
        environment = {
            "PATH": os.defpath, "HOME": str(root), "LANG": "C.UTF-8", "PYTHONPATH": str(ml / "code"),
            "AWS_REGION": self.cloud.region, "TRAINING_JOB_NAME": job["TrainingJobName"], "SM_MODEL_DIR": str(ml / "model"),
            "SM_OUTPUT_DIR": str(ml / "output"), **job.get("Environment", {}),
        }  # fmt: skip
        for needed in ("model", "output"):
            (ml / needed).mkdir(parents=True)
        with tarfile.open(self._download(given["sagemaker_submit_directory"], root / "source")) as tar:
            tar.extractall(ml / "code", filter="data")
        for channel in job["InputDataConfig"]:
            folder = ml / "input/data" / channel["ChannelName"]
            environment[f"SM_CHANNEL_{channel['ChannelName'].upper()}"] = str(folder)
            self._download(channel["DataSource"]["S3DataSource"]["S3Uri"], folder)
        own = [f"--{name}={given[name]}" for name in sorted(given) if not name.startswith("sagemaker_")]
        command, pipe = [sys.executable, given["sagemaker_program"], *own], subprocess.PIPE
        process = subprocess.Popen(command, cwd=ml / "code", env=environment, stdout=pipe, stderr=subprocess.STDOUT)
        self._processes.append(process)
        said, failure = process.communicate()[0].decode(errors="replace")[-1000:], ml / "output/failure"
        if process.returncode:
            said = failure.read_text() if failure.exists() else said
            raise TrainingError(f"AlgorithmError: {said}, exit code: {process.returncode}")
        return archive(ml / "model")

    def _download(self, uri: str, folder: Path) -> Path:
        """Copy every object whose key starts with the prefix; gives the last path. TrainingError when there is none."""
        (bucket, prefix), target = split_uri(uri), folder
        pages = self.cloud.client("s3").get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix)
        for key in (entry["Key"] for page in pages for entry in page.get("Contents", [])):
            target = folder / (key[len(prefix) :].lstrip("/") or Path(key).name)
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(self.get(f"s3://{bucket}/{key}"))
        if target == folder:
            raise TrainingError(f"ClientError: Data download failed: no S3 objects found under {uri}")
        return target

    def _end(self, job: Request, model: bytes, status: str, secondary: str, reason: str) -> None:
        """Upload what is there, show the end and tell it."""
        now, folder = self.clock.now(), job["OutputDataConfig"]["S3OutputPath"].rstrip("/")
        uri = f"{folder}/{job['TrainingJobName']}/output/model.tar.gz"
        if model:
            self.put(uri, model)
        seconds = int((now - job["CreationTime"]).total_seconds())
        job.update(
            TrainingJobStatus=status, SecondaryStatus=secondary, TrainingEndTime=now, BillableTimeInSeconds=seconds
        )
        job.update({"FailureReason": reason} if reason else {}, ModelArtifacts={"S3ModelArtifacts": uri})
        self.tell(
            "Training Job", job["TrainingJobArn"], TrainingJobName=job["TrainingJobName"], TrainingJobStatus=status
        )


def archive(folder: Path) -> bytes:
    """A tar.gz of the folder's content with the same bytes for the same files: sorted, without times or owners."""
    plain = io.BytesIO()
    with tarfile.open(fileobj=plain, mode="w") as tar:
        for path in sorted(path for path in folder.rglob("*") if path.is_file()):
            entry = tarfile.TarInfo(str(path.relative_to(folder)))
            entry.size = path.stat().st_size
            tar.addfile(entry, io.BytesIO(path.read_bytes()))
    return gzip.compress(plain.getvalue(), compresslevel=1, mtime=0)


def _decoded(value: str) -> str:
    """A hyperparameter as the toolkit reads it: JSON, else the raw text."""
    try:
        return str(json.loads(value))
    except ValueError:
        return value
