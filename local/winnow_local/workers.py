"""Functions in processes of their own, under the runtime interface client that Lambda itself uses.

Each worker speaks to a small Runtime API made for it alone, and reaches the local cloud by `AWS_ENDPOINT_URL`.
"""

from __future__ import annotations

import json
import mmap
import os
import queue
import struct
import subprocess
import sys
import tempfile
import threading
import time
import uuid
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Self

from werkzeug.serving import make_server
from werkzeug.wrappers import Request, Response

from .gateway import door
from .invoke import environment_of

if TYPE_CHECKING:
    from moto.awslambda.models import LambdaFunction

    from .cloud import LocalCloud

START_SECONDS = 30
TRACE = "Root=1-00000000-000000000000000000000000;Parent=0000000000000000;Sampled=0"


class Workers:
    """Warm workers by function; as a context they end together."""

    def __init__(self, cloud: LocalCloud) -> None:
        self._cloud, self._idle, self._open = cloud, dict[str, list[_Worker]](), ExitStack()

    def __enter__(self) -> Self:
        self._url = self._open.enter_context(door(self._cloud))
        self._clock = self._open.enter_context(tempfile.NamedTemporaryFile(prefix="winnow-clock-"))
        self._clock.write(struct.pack("d", self._cloud.clock.time()))
        self._clock.flush()
        now = mmap.mmap(self._clock.fileno(), 8)
        self._cloud.clock.on_move.append(lambda time: struct.pack_into("d", now, 0, time))
        return self

    def __exit__(self, *_: object) -> None:
        self._open.close()

    def run(self, function: LambdaFunction, body: str) -> tuple[str, str | None, str]:
        """Payload, error type and log of one call, in a worker that is free or new."""
        idle = self._idle.setdefault(function.function_name, [])
        try:
            worker = idle.pop()
        except IndexError:
            worker = _Worker(function, self._environment(function), self._cloud.deployment.code[function.code["S3Key"]])
            self._open.callback(worker.close)
        payload, error = worker.call(body)
        if worker.alive:
            idle.append(worker)
        return payload, error, worker.log()

    def _environment(self, function: LambdaFunction) -> dict[str, str]:
        here = Path(__file__).parent
        paths = [here / "worker", here.parent, *self._cloud.layers]
        return {
            **environment_of(function),
            "PATH": os.environ.get("PATH", ""),
            "PYTHONPATH": os.pathsep.join(map(str, paths)),
            "AWS_ENDPOINT_URL": self._url,
            "AWS_ACCESS_KEY_ID": "FOOBARKEY",
            "AWS_SECRET_ACCESS_KEY": "FOOBARSECRET",
            "WINNOW_LOCAL_CLOCK": self._clock.name,
            "POWERTOOLS_TRACE_DISABLED": "true",
        }


class _Worker:
    """One process and its Runtime API."""

    def __init__(self, function: LambdaFunction, environment: dict[str, str], code: Path) -> None:
        self._function, self._read = function, 0
        self._output = tempfile.TemporaryFile()  # noqa: SIM115 - closed with the worker
        self._calls, self._replies = queue.Queue[str | None](), queue.Queue[tuple[str, str | None]]()
        self._api = make_server("127.0.0.1", 0, Request.application(self._answer), threaded=True)
        threading.Thread(target=self._api.serve_forever, name="runtime API", daemon=True).start()
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
        self._deadline = time.time() + int(self._function.timeout) + (0 if self._read else START_SECONDS)
        self._calls.put(body)
        while self.alive and time.time() < self._deadline:
            try:
                return self._replies.get(timeout=0.2)
            except queue.Empty:
                continue
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
        self._calls.put(None)
        self._process.kill()
        self._process.wait()
        self._api.shutdown()
        self._api.server_close()
        self._output.close()

    def _answer(self, request: Request) -> Response:
        if request.method == "POST":
            body = request.get_data(as_text=True)
            failed = request.path.endswith("/error")
            self._replies.put((body, json.loads(body).get("errorType", "Unhandled") if failed else None))
            return Response("{}", status=202)
        call = self._calls.get()
        about = {"Aws-Request-Id": str(uuid.uuid4()), "Trace-Id": TRACE}
        about |= {"Deadline-Ms": str(int(self._deadline * 1000)), "Invoked-Function-Arn": self._function.function_arn}
        headers = {f"Lambda-Runtime-{name}": value for name, value in about.items()}
        return Response(call or "", headers=headers, content_type="application/json", status=200 if call else 503)
