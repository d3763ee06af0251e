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
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from moto.awslambda.models import LambdaFunction
from werkzeug.serving import make_server
from werkzeug.wrappers import Request, Response

from .gateway import door
from .invoke import environment_of
from .patches import Cloud

START_SECONDS = 30
TRACE = "Root=1-00000000-000000000000000000000000;Parent=0000000000000000;Sampled=0"


@contextmanager
def workers(cloud: Cloud) -> Iterator[Callable[[LambdaFunction, str], tuple[str, str | None, str]]]:
    """What runs a function: payload, error type and log of one call, in a worker that is free or new."""
    idle, here = defaultdict[str, list[Worker]](list), Path(__file__).parent
    with door(cloud) as url, tempfile.NamedTemporaryFile(prefix="winnow-clock-") as clock, ExitStack() as opened:

        def run(function: LambdaFunction, body: str) -> tuple[str, str | None, str]:
            os.pwrite(clock.fileno(), struct.pack("d", cloud.clock.time()), 0)  # what a call sees until it ends
            try:
                worker = idle[function.function_name].pop()
            except IndexError:
                worker = new(function)
            answer = worker.call(body)
            if worker.alive:
                idle[function.function_name].append(worker)
            return answer

        def new(function: LambdaFunction) -> Worker:
            code = Path(function.code["S3Key"])
            worker = Worker(function, code, {
                **environment_of(function), "PATH": os.environ.get("PATH", ""), "AWS_ENDPOINT_URL": url,
                "PYTHONPATH": os.pathsep.join(map(str, [here / "worker", here.parent, *cloud.layers])),
                "AWS_ACCESS_KEY_ID": "FOOBARKEY", "AWS_SECRET_ACCESS_KEY": "FOOBARSECRET",
                "WINNOW_LOCAL_CLOCK": clock.name, "POWERTOOLS_TRACE_DISABLED": "true", "LAMBDA_TASK_ROOT": str(code),
            })  # fmt: skip
            opened.callback(worker.close)
            return worker

        yield run


class Worker:
    """One process and its Runtime API, which answers only while a call is under way: until then the process waits."""

    def __init__(
        self, function: LambdaFunction, code: Path, environment: dict[str, str], *, python: str = sys.executable
    ) -> None:  # fmt: skip
        self._function, self._read, self._deadline, self._body = function, 0, 0.0, ""
        self._reply: tuple[str, str | None] | None = None
        self._output = tempfile.TemporaryFile()  # noqa: SIM115 - closed with the worker
        self._api = make_server("127.0.0.1", 0, Request.application(self._answer))
        self._api.timeout = 0.2
        self._process = subprocess.Popen(
            [python, "-m", "awslambdaric", str(function.handler)], cwd=code, stdout=self._output,
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
