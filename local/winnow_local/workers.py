"""Functions in processes of their own, under the runtime interface client that Lambda itself uses.

Each worker speaks to a small Runtime API made for it alone, and reaches the local cloud by `AWS_ENDPOINT_URL`.
"""

from __future__ import annotations

import json
import os
import struct
import subprocess
import sys
import tempfile
import time
import uuid
from collections import defaultdict
from contextlib import ExitStack
from pathlib import Path
from typing import Self

from moto.awslambda.models import LambdaFunction
from werkzeug.serving import make_server
from werkzeug.wrappers import Request, Response

from .invoke import environment_of
from .patches import Cloud
from .server import Door

START_SECONDS = 30
TRACE = "Root=1-00000000-000000000000000000000000;Parent=0000000000000000;Sampled=0"


class Workers:
    """Warm workers by function; as a context they end together."""

    def __init__(self, cloud: Cloud) -> None:
        self._cloud, self._idle, self._open = cloud, defaultdict[str, list[_Worker]](list), ExitStack()

    def __enter__(self) -> Self:
        self._url = self._open.enter_context(Door(self._cloud))
        self._clock = self._open.enter_context(tempfile.NamedTemporaryFile(prefix="winnow-clock-"))
        return self

    def __exit__(self, *_: object) -> None:
        self._open.close()

    def run(self, function: LambdaFunction, body: str) -> tuple[str, str | None, str]:
        """Payload, error type and log of one call, in a worker that is free or new."""
        os.pwrite(self._clock.fileno(), struct.pack("d", self._cloud.clock.time()), 0)  # as it is until the call ends
        idle = self._idle[function.function_name]
        worker = idle.pop() if idle else self._new(function)
        payload, error = worker.call(body)
        if worker.alive:
            idle.append(worker)
        return payload, error, worker.log()

    def _new(self, function: LambdaFunction) -> _Worker:
        here, code = Path(__file__).parent, self._cloud.deployment.code[function.code["S3Key"]]
        paths = map(str, [here / "worker", here.parent, *self._cloud.layers])
        worker = _Worker(function, code, {
            **environment_of(function), "PATH": os.environ.get("PATH", ""), "PYTHONPATH": os.pathsep.join(paths),
            "AWS_ACCESS_KEY_ID": "FOOBARKEY", "AWS_SECRET_ACCESS_KEY": "FOOBARSECRET", "AWS_ENDPOINT_URL": self._url,
            "WINNOW_LOCAL_CLOCK": self._clock.name, "POWERTOOLS_TRACE_DISABLED": "true",
        })  # fmt: skip
        self._open.callback(worker.close)
        return worker


class _Worker:
    """One process and its Runtime API, which answers only while a call is under way: until then a worker waits."""

    def __init__(self, function: LambdaFunction, code: Path, environment: dict[str, str]) -> None:
        self._function, self._read, self._deadline, self._body = function, 0, 0.0, ""
        self._reply: tuple[str, str | None] | None = None
        self._output = tempfile.TemporaryFile()  # noqa: SIM115 - closed with the worker
        self._api = make_server("127.0.0.1", 0, Request.application(self._answer))
        self._api.timeout = 0.2
        address = {"AWS_LAMBDA_RUNTIME_API": f"127.0.0.1:{self._api.port}", "LAMBDA_TASK_ROOT": str(code)}
        self._process = subprocess.Popen(
            [sys.executable, "-m", "awslambdaric", str(function.handler)],
            cwd=code, env={**environment, **address}, stdout=self._output, stderr=subprocess.STDOUT,
        )  # fmt: skip

    @property
    def alive(self) -> bool:
        """Whether it can take another call."""
        return self._process.poll() is None

    def call(self, body: str) -> tuple[str, str | None]:
        """Payload and error type; a call that outlasts the timeout costs the worker its life, as in Lambda."""
        start = 0 if self._deadline else START_SECONDS
        self._body, self._reply, self._deadline = body, None, time.time() + int(self._function.timeout) + start
        while self._reply is None and self.alive and time.time() < self._deadline:
            self._api.handle_request()
        if self._reply is not None:
            return self._reply
        error, told = "Runtime.ExitError", f"the runtime exited with status {self._process.poll()}"
        if self.alive:
            error, told = "Sandbox.Timedout", f"Task timed out after {self._function.timeout}.00 seconds"
            self._process.kill()
            self._process.wait()
        return json.dumps({"errorType": error, "errorMessage": told}), error

    def log(self) -> str:
        """What it printed since the last time it was asked."""
        new = os.pread(self._output.fileno(), 1 << 24, self._read)
        self._read += len(new)
        return new.decode(errors="replace")

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
