"""SageMaker's scikit-learn container without containers: its toolkits and its pins under Python 3.12, without a network.

`train` is the training toolkit's command, `serve` the serving toolkit's with gunicorn behind it; both see a folder shaped
like `/opt/ml`. pip, which both may call, finds no index, as in a container with network isolation.
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import signal
import socket
import subprocess
import time
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any
from urllib.error import HTTPError, URLError

import pytest

from tests.shipped.built import ROOT

HERE = Path(__file__).parent
REQUIREMENTS = HERE / "container-requirements.txt"
FOLDER = ROOT / ".cache" / "container"
PYTHON = "3.12"


def environment() -> Path:
    """`bin` of an environment with the image's packages, made once; skips where there is no Python 3.12, or no index."""
    stamp = FOLDER / "requirements.txt"
    FOLDER.parent.mkdir(exist_ok=True)
    with FOLDER.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not stamp.is_file() or stamp.read_bytes() != REQUIREMENTS.read_bytes():
            shutil.rmtree(FOLDER, ignore_errors=True)
            subprocess.run([_interpreter(), "-m", "venv", FOLDER], check=True)
            python, uv = FOLDER / "bin/python", ROOT / ".cache/uv/bin/uv"
            ways: list[list[Path | str]] = [[python, "-m", "pip", "install"]]
            if uv.is_file():  # much faster, but it does not read pip's configuration
                ways.insert(0, [uv, "pip", "install", "--compile-bytecode", "--python", python])
            for way in ways:
                command = [*way, "--quiet", "--no-deps", "-r", REQUIREMENTS]
                done = subprocess.run(command, capture_output=True, text=True, check=False)
                if not done.returncode:
                    break
            else:
                pytest.skip(f"the container's packages cannot be had here: {done.stderr.strip()[-300:]}")
            _as_the_image_does(FOLDER / f"lib/python{PYTHON}/site-packages")
            stamp.write_bytes(REQUIREMENTS.read_bytes())
    return FOLDER / "bin"


def _interpreter() -> str:
    """A Python 3.12 that really runs: one on PATH can be a shim that does not."""
    for name in (f"python{PYTHON}", *map(str, Path.home().glob(f".pyenv/versions/{PYTHON}*/bin/python3"))):
        found = shutil.which(name)
        if found and not subprocess.run([found, "-c", "import venv"], capture_output=True, check=False).returncode:
            return found
    pytest.skip(f"the container runs Python {PYTHON}, which is not installed here")


def _as_the_image_does(site: Path) -> None:
    """The image's own patch: `collections.Mapping` went away in Python 3.10."""
    mapping = site / "sagemaker_containers" / "_mapping.py"
    mapping.write_text(mapping.read_text().replace("collections.Mapping", "collections.abc.Mapping"))


def _variables(programs: Path, root: Path) -> dict[str, str]:
    (root / "tmp").mkdir(exist_ok=True)
    return {
        "PATH": os.pathsep.join([str(programs), os.defpath]), "HOME": str(root), "TMPDIR": str(root / "tmp"),
        "LANG": "C.UTF-8", "LC_ALL": "C.UTF-8", "PYTHONUNBUFFERED": "1", "PYTHONDONTWRITEBYTECODE": "1",
        "PIP_NO_INDEX": "1", "PIP_DISABLE_PIP_VERSION_CHECK": "1", "SAGEMAKER_BASE_DIR": str(root / "opt/ml"),
    }  # fmt: skip


def train(programs: Path, root: Path, request: Mapping[str, Any]) -> tuple[int, str]:
    """Run the job of a CreateTrainingJob request whose channels lie under `<root>/opt/ml/input/data`: status and output."""
    ml, config = root / "opt/ml", root / "opt/ml/input/config"
    config.mkdir(parents=True)
    given = {name: value.replace("/opt/ml", str(ml)) for name, value in request["HyperParameters"].items()}
    channels = {
        channel["ChannelName"]: {
            "TrainingInputMode": channel["InputMode"], "RecordWrapperType": "None",
            "S3DistributionType": channel["DataSource"]["S3DataSource"]["S3DataDistributionType"],
        }
        for channel in request["InputDataConfig"]
    }  # fmt: skip
    # With the host names that SageMaker gives the toolkit would wait until they resolve.
    hosts = {"current_host": "localhost", "hosts": ["localhost"], "network_interface_name": "lo"}
    for name, body in (("hyperparameters", given), ("inputdataconfig", channels), ("resourceconfig", hosts)):
        (config / f"{name}.json").write_text(json.dumps(body))
    (ml / "model").mkdir()
    done = subprocess.run(
        [programs / "train"], env={**_variables(programs, root), "TRAINING_JOB_NAME": request["TrainingJobName"]},
        cwd=root, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False,
    )  # fmt: skip
    return done.returncode, done.stdout


class Endpoint:
    """A running container that serves."""

    def __init__(self, port: int) -> None:
        self._url = f"http://127.0.0.1:{port}"

    def ping(self) -> int:
        with urllib.request.urlopen(f"{self._url}/ping") as answer:
            return int(answer.status)

    def invoke(self, body: bytes, content_type: str, *, accept: str = "application/json") -> tuple[int, Any]:
        """Status and parsed JSON of one request."""
        headers = {"Content-Type": content_type, "Accept": accept}
        request = urllib.request.Request(f"{self._url}/invocations", data=body, headers=headers)
        try:
            with urllib.request.urlopen(request) as answer:
                return int(answer.status), json.loads(answer.read())
        except HTTPError as error:
            with error:
                return error.code, json.loads(error.read())


@contextmanager
def serve(programs: Path, root: Path, container: Mapping[str, str]) -> Iterator[Endpoint]:
    """The serving toolkit on the model archive unpacked in `<root>/opt/ml/model`, as long as the block lasts.

    `container` is the environment that CreateModel gives.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    given = {name: value.replace("/opt/ml", str(root / "opt/ml")) for name, value in container.items()}
    # pip installs the model's code at start: into a folder of this container, not into the environment.
    (root / "site").mkdir()
    variables = {
        **_variables(programs, root), **given, "PIP_TARGET": str(root / "site"),
        "PYTHONPATH": os.pathsep.join([str(HERE), str(root / "site")]), "SAGEMAKER_SERVING_MODULE": "container_app:main",
        "SAGEMAKER_USE_NGINX": "false", "SAGEMAKER_BIND_TO_PORT": str(port), "SAGEMAKER_MODEL_SERVER_WORKERS": "1",
    }  # fmt: skip
    with (root / "serve.log").open("w+") as log:
        process = subprocess.Popen(
            [programs / "serve"], env=variables, cwd=root, stdout=log, stderr=subprocess.STDOUT, start_new_session=True
        )
        try:
            endpoint, end = Endpoint(port), time.monotonic() + 60
            while True:
                try:
                    endpoint.ping()
                    break
                except (URLError, ConnectionError):
                    said = (root / "serve.log").read_text()[-3000:]
                    assert process.poll() is None, said
                    assert time.monotonic() < end, said
                    time.sleep(0.1)
            yield endpoint
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()


ASK = """
import json, sys
from pathlib import Path
from types import SimpleNamespace
from winnow.aws.sagemaker import Endpoint, TrainingJobs
from winnow.aws.settings import Settings
from winnow.loop import Loop

class Bucket:
    def exists(self, key): return False
    def put(self, key, body): Path(sys.argv[1], key.rsplit("/", 1)[1]).write_bytes(body)
    def uri(self, key): return f"s3://bucket/{key}"

class SageMaker:
    def create_model(self, **request): self.model = request
    def create_endpoint_config(self, **request): pass
    def get_paginator(self, operation): return SimpleNamespace(paginate=lambda **filters: [])

settings = Settings(stack="winnow", account="123456789012", region="us-east-1", training_image="image")
sagemaker = SageMaker()
Endpoint(sagemaker, settings, Bucket(), Loop()).prepare("m-7", artifact="s3://bucket/model.tar.gz")
job = TrainingJobs(None, settings, Bucket(), Loop()).request("m-7", dataset="d-7", seed=1)
print(json.dumps({"training": job, "model": sagemaker.model}))
"""


def asked(build: Path, python: Path, target: Path) -> dict[str, Any]:
    """The requests of the functions as built for a training job and a model; the source archive is left in `target`."""
    layers = [build / name / "python" for name in ("CoreLayer", "TrainingLayer")]
    done = subprocess.run(
        [python, "-c", ASK, target], env={"PATH": os.defpath, "PYTHONPATH": os.pathsep.join(map(str, layers))},
        cwd=target, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    requests: dict[str, Any] = json.loads(done.stdout)
    return requests
