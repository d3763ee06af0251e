"""Functions in processes of their own, under the runtime interface client that Lambda itself uses.

Each worker speaks to a small Runtime API made for it alone, and reaches the local cloud by `AWS_ENDPOINT_URL`. Code and
layers that were deployed as archives are unpacked once; a worker of what a function was before takes no further call.
"""

from __future__ import annotations

import io
import json
import os
import struct
import subprocess
import sys
import tempfile
import time
import uuid
import zipfile
from collections import defaultdict
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from moto.awslambda.models import LambdaFunction
from werkzeug.serving import make_server
from werkzeug.wrappers import Request, Response

from winnow_local.deploy import ARTIFACTS
from winnow_local.gateway import door
from winnow_local.patches import Cloud

START_SECONDS = 30
TRACE = "Root=1-00000000-000000000000000000000000;Parent=0000000000000000;Sampled=0"


class Workers:
    """The workers of one cloud, and what they share: its door, its clock and the folder of unpacked archives."""

    def __init__(self, cloud: Cloud, environment_of: Callable[[LambdaFunction], dict[str, str]]) -> None:
        self._environment_of = environment_of
        self._cloud, self._idle, opened = cloud, defaultdict[str, list[_Worker]](list), ExitStack()
        self._url, self._open, self.close = opened.enter_context(door(cloud)), opened, opened.close
        self._folder = Path(opened.enter_context(tempfile.TemporaryDirectory(prefix="winnow-lambda-")))
        self._clock = opened.enter_context(Path(self._folder, "clock").open("wb"))  # noqa: SIM115 - closed with the workers

    def run(self, function: LambdaFunction, body: str) -> tuple[str, str | None, str]:
        """Payload, error type and log of one call, in a worker that is free or new."""
        os.pwrite(self._clock.fileno(), struct.pack("d", self._cloud.clock.time()), 0)  # what a call sees until it ends
        with self._cloud.gateway.lock:
            code, environment = self._place(function)
        idle = self._idle[function.function_name]
        while idle and idle[-1].environment != environment:
            idle.pop().close()
        if idle:
            worker = idle.pop()
        else:
            worker = _Worker(function, code, environment)
            self._open.callback(worker.close)
        answer = worker.call(body)
        if worker.alive:
            idle.append(worker)
        return answer

    def _place(self, function: LambdaFunction) -> tuple[Path, dict[str, str]]:
        """Where a function's code lies, and its environment, which tells what it was deployed as."""
        here, layers, code = Path(__file__).parent, self._cloud.layers, Path(function.code["S3Key"])
        if function.code.get("S3Bucket") != ARTIFACTS:
            found = [self._cloud.lambda_backend.layers_versions_by_arn(each["Arn"]) for each in function.layers]
            layers, code = [self._unpacked(layer) / "python" for layer in found], self._unpacked(function)
        return code, {
            **self._environment_of(function), "_HANDLER": str(function.handler), "LAMBDA_TASK_ROOT": str(code),
            "PATH": os.environ.get("PATH", ""), "PYTHONPATH": os.pathsep.join(map(str, [here, here.parents[1], *layers])),
            "AWS_ACCESS_KEY_ID": "FOOBARKEY", "AWS_SECRET_ACCESS_KEY": "FOOBARSECRET", "AWS_ENDPOINT_URL": self._url,
            "WINNOW_LOCAL_CLOCK": self._clock.name, "POWERTOOLS_TRACE_DISABLED": "true",
        }  # fmt: skip

    def _unpacked(self, made: Any) -> Path:
        folder = self._folder / made.code_digest
        if not folder.exists():
            zipfile.ZipFile(io.BytesIO(made.code_bytes)).extractall(folder)
        return folder


class _Worker:
    """One process and its Runtime API, which answers only while a call is under way: until then the process waits."""

    def __init__(self, function: LambdaFunction, code: Path, environment: dict[str, str]) -> None:
        self._function, self._read, self._deadline, self._body = function, 0, 0.0, ""
        self.environment, self._reply = environment, None  # type: dict[str, str], tuple[str, str | None] | None
        self._output = tempfile.TemporaryFile()  # noqa: SIM115 - closed with the worker
        self._api = make_server("127.0.0.1", 0, Request.application(self._answer))
        self._api.timeout = 0.2
        self._process = subprocess.Popen(
            [sys.executable, "-m", "awslambdaric", environment["_HANDLER"]], cwd=code, stdout=self._output,
            env={**environment, "AWS_LAMBDA_RUNTIME_API": f"127.0.0.1:{self._api.port}"}, stderr=subprocess.STDOUT,
        )  # fmt: skip

    @property
    def alive(self) -> bool:
        """Whether it can take another call."""
        return self._process.poll() is None

    def call(self, body: str) -> tuple[str, str | None, str]:
        """Payload, error type and log; a call that outlasts the timeout costs the worker its life, as in Lambda."""
        start = 0 if self._deadline else START_SECONDS
        self._body, self._reply, self._deadline = body, None, time.time() + int(self._function.timeout) + start
        while self._reply is None and self.alive and time.time() < self._deadline:
            self._api.handle_request()
        if self._reply is None:
            error, told = "Runtime.ExitError", f"the runtime exited with status {self._process.poll()}"
            if self.alive:
                error, told = "Sandbox.Timedout", f"Task timed out after {self._function.timeout}.00 seconds"
                self._process.kill()
                self._process.wait()
            self._reply = json.dumps({"errorType": error, "errorMessage": told}), error
        printed = os.pread(self._output.fileno(), 1 << 24, self._read)
        self._read += len(printed)
        return *self._reply, printed.decode(errors="replace")

    def close(self) -> None:
        """End the process and its API."""
        self._process.kill()
        self._process.wait()
        self._api.server_close()
        self._output.close()

    def _answer(self, request: Request) -> Response:
        if request.method == "POST":
            body, failed = request.get_data(as_text=True), request.path.endswith("/error")
            self._reply = body, json.loads(body).get("errorType", "Unhandled") if failed else None
            return Response("{}", status=202)
        about = {"Aws-Request-Id": str(uuid.uuid4()), "Invoked-Function-Arn": self._function.function_arn}
        about |= {"Deadline-Ms": str(int(self._deadline * 1000)), "Trace-Id": TRACE}
        headers = {f"Lambda-Runtime-{name}": value for name, value in about.items()}
        return Response(self._body, headers=headers, content_type="application/json")
