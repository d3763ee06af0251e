"""SageMaker training jobs: the shipped training source run as script mode runs it, under a folder shaped like /opt/ml.

The subprocess runs at once, in real time, while the virtual clock stands; its result is shown `virtual_seconds` after
creation, when the artifact is uploaded and the event sent. Shapes: aws-contracts 1.11 and 2.1 to 2.4.
"""

from __future__ import annotations

import gzip
import io
import json
import os
import sys
import tarfile
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from subprocess import PIPE, STDOUT, run
from typing import ClassVar

from .sagemaker import Request, Service, only, split_uri

_KNOWN = """TrainingJobName AlgorithmSpecification RoleArn HyperParameters Environment InputDataConfig OutputDataConfig
    ResourceConfig StoppingCondition EnableNetworkIsolation EnableManagedSpotTraining Tags"""


class Training(Service):
    """Training jobs on one instance. `virtual_seconds` is how long each takes; spot capacity is never taken back."""

    virtual_seconds = 600.0
    plain: ClassVar = {"describe_training_job": "TrainingJob", "list_training_jobs": "TrainingJob TrainingJobSummaries"}

    def create_training_job(self, p: Request) -> Request:
        only(p, _KNOWN)
        only(p["AlgorithmSpecification"], "TrainingImage TrainingInputMode")
        job = self.keep("TrainingJob", p, TrainingJobStatus="InProgress", SecondaryStatus="Starting")
        self.clock.start(self._run(job))
        return job

    def _run(self, job: Request) -> Iterator[float]:
        """Do the container's work, live until it is seen to end, upload what is there, show the end and tell it."""
        end, model = {"TrainingJobStatus": "Completed", "SecondaryStatus": "Completed"}, b""
        with tempfile.TemporaryDirectory() as folder:
            try:
                model = self._container(job, Path(folder))
            except (ChildProcessError, FileNotFoundError) as error:
                end = {"TrainingJobStatus": "Failed", "SecondaryStatus": "Failed", "FailureReason": str(error)[:1024]}
        seconds = min(self.virtual_seconds, job["StoppingCondition"]["MaxRuntimeInSeconds"])
        if seconds < self.virtual_seconds:
            end = {"TrainingJobStatus": "Stopped", "SecondaryStatus": "MaxRuntimeExceeded"}
        yield seconds
        arn, name = job["TrainingJobArn"], job["TrainingJobName"]
        uri = f"{job['OutputDataConfig']['S3OutputPath'].rstrip('/')}/{name}/output/model.tar.gz"
        if model:
            self.put(uri, model)
        job.update(end, ModelArtifacts={"S3ModelArtifacts": uri}, BillableTimeInSeconds=int(seconds))
        job["TrainingEndTime"] = self.clock.now()
        self.tell("Training Job", arn, TrainingJobName=name, TrainingJobStatus=job["TrainingJobStatus"])

    def _container(self, job: Request, root: Path) -> bytes:
        """Run the script; gives the archive of the model it left. ChildProcessError when it fails."""
        ml, given = root / "opt/ml", dict(job["HyperParameters"])
        for name, value in job["HyperParameters"].items():
            with suppress(ValueError):  # the toolkit reads JSON, and what is none as it is
                given[name] = str(json.loads(value))
        environment = {
            "PATH": os.defpath, "HOME": str(root), "LANG": "C.UTF-8", "PYTHONPATH": str(ml / "code"),
            "AWS_REGION": self.cloud.region, "TRAINING_JOB_NAME": job["TrainingJobName"], "SM_MODEL_DIR": str(ml / "model"),
            "SM_OUTPUT_DIR": str(ml / "output"), **job.get("Environment", {}),
        }  # fmt: skip
        (ml / "model").mkdir(parents=True)
        (ml / "output").mkdir()
        for channel in job["InputDataConfig"]:
            folder = ml / "input/data" / channel["ChannelName"]
            environment[f"SM_CHANNEL_{channel['ChannelName'].upper()}"] = str(folder)
            self._download(channel["DataSource"]["S3DataSource"]["S3Uri"], folder)
        address = given["sagemaker_submit_directory"]
        if address.startswith("s3://") and job.get("EnableNetworkIsolation"):  # the toolkit would fetch it from inside
            raise ChildProcessError(f"AlgorithmError: Could not connect to the endpoint URL of {address}")
        source = self._download(address, root / "source") if "s3://" in address else root / address.lstrip("/")
        with tarfile.open(source) as tar:
            tar.extractall(ml / "code", filter="data")
        own = [f"--{name}={given[name]}" for name in sorted(given) if not name.startswith("sagemaker_")]
        command, pipes = [sys.executable, given["sagemaker_program"], *own], {"stdout": PIPE, "stderr": STDOUT}
        ended, failure = run(command, cwd=ml / "code", env=environment, **pipes), ml / "output/failure"
        if ended.returncode:
            said = failure.read_text() if failure.exists() else ended.stdout.decode(errors="replace")[-1000:]
            raise ChildProcessError(f"AlgorithmError: {said}, exit code: {ended.returncode}")
        return archive(ml / "model")

    def _download(self, uri: str, folder: Path) -> Path:
        """Copy every object whose key starts with the prefix; gives the last path. FileNotFoundError without any."""
        (bucket, prefix), target = split_uri(uri), folder
        pages = self.cloud.client("s3").get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix)
        for key in (entry["Key"] for page in pages for entry in page.get("Contents", [])):
            target = folder / (key[len(prefix) :].lstrip("/") or Path(key).name)
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(self.get(f"s3://{bucket}/{key}"))
        if target == folder:
            raise FileNotFoundError(f"ClientError: Data download failed: no S3 objects found under {uri}")
        return target


def archive(folder: Path) -> bytes:
    """A tar.gz of the folder's content with the same bytes for the same files: sorted, without times or owners."""
    plain = io.BytesIO()
    with tarfile.open(fileobj=plain, mode="w") as tar:
        for path in sorted(path for path in folder.rglob("*") if path.is_file()):
            entry = tarfile.TarInfo(str(path.relative_to(folder)))
            entry.size = path.stat().st_size
            tar.addfile(entry, io.BytesIO(path.read_bytes()))
    return gzip.compress(plain.getvalue(), compresslevel=1, mtime=0)
