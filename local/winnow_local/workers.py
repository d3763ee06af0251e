"""Functions in processes of their own, under the runtime interface client that Lambda itself uses.

Each worker speaks to a small Runtime API made for it alone, and reaches the local cloud by `AWS_ENDPOINT_URL`.
"""

from __future__ import annotations

import json
import mmap
import os
import queue
import shutil
import struct
import subprocess
import sys
import tempfile
import threading
import time
import uuid
from contextlib import ExitStack
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from .invoke import environment_of
from .server import Door

if TYPE_CHECKING:
    from moto.awslambda.models import LambdaFunction

    from .cloud import LocalCloud

START_SECONDS = 30
TRACE = "Root=1-00000000-000000000000000000000000;Parent=0000000000000000;Sampled=0"
Reply = tuple[str, str | None]


class Workers:
    """Warm workers by function; as a context they end together."""

    def __init__(self, cloud: LocalCloud) -> None:
        self._cloud, self._idle, self._all = cloud, dict[str, list[_Worker]](), list[_Worker]()
        self._lock, self._open = threading.Lock(), ExitStack()

    def __enter__(self) -> Self:
        self._folder = Path(tempfile.mkdtemp(prefix="winnow-workers-"))
        self._open.callback(shutil.rmtree, self._folder, ignore_errors=True)
        self._url = self._open.enter_context(Door(self._cloud))
        (self._folder / "clock").write_bytes(struct.pack("d", self._cloud.clock.time()))
        with (self._folder / "clock").open("r+b") as file:
            self._now = mmap.mmap(file.fileno(), 8)
        self._cloud.clock.on_move.append(self._tell_time)
        return self

    def __exit__(self, *_: object) -> None:
        for worker in self._all:
            worker.close()
        self._open.close()

    def run(self, function: LambdaFunction, body: str) -> tuple[str, str | None, str]:
        """Payload, error type and log of one call, in a worker that is free or new."""
        key = f"{function.function_name}:{function.code_sha_256}:{function.version}"
        with self._lock:
            idle = self._idle.setdefault(key, [])
            worker = idle.pop() if idle else None
        if worker is None:
            worker = _Worker(
                function, self._environment(function), self._cloud.deployment.code[function.code["S3Key"]], self._folder
            )
            self._all.append(worker)
        (payload, error), log = worker.call(body, timeout=int(function.timeout)), worker.log()
        if worker.alive:
            with self._lock:
                idle.append(worker)
        return payload, error, log

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
            "WINNOW_LOCAL_CLOCK": str(self._folder / "clock"),
            "POWERTOOLS_TRACE_DISABLED": "true",
            "PYTHONFAULTHANDLER": "1",
        }

    def _tell_time(self, now: float) -> None:
        self._now[:8] = struct.pack("d", now)


class _Worker:
    """One process and its Runtime API."""

    def __init__(self, function: LambdaFunction, environment: dict[str, str], code: Path, folder: Path) -> None:
        self._function, self._calls, self._replies = (
            function,
            queue.Queue[dict[str, Any] | None](),
            queue.Queue[Reply](),
        )
        self._read = 0
        self._api = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        threading.Thread(target=self._api.serve_forever, name="runtime API", daemon=True).start()
        self._output = folder / f"{uuid.uuid4().hex}.log"
        with self._output.open("wb") as output:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "awslambdaric", str(function.handler)],
                cwd=code,
                env={
                    **environment,
                    "AWS_LAMBDA_RUNTIME_API": f"127.0.0.1:{self._api.server_port}",
                    "LAMBDA_TASK_ROOT": str(code),
                },
                stdout=output,
                stderr=subprocess.STDOUT,
            )

    @property
    def alive(self) -> bool:
        """Whether it can take another call."""
        return self._process.poll() is None

    def call(self, body: str, *, timeout: int) -> Reply:
        """Payload and error type; a call that outlasts the timeout costs the worker its life, as in Lambda."""
        deadline = time.time() + timeout
        fresh = START_SECONDS if not self._read else 0
        self._calls.put({"id": str(uuid.uuid4()), "body": body.encode(), "deadline": deadline + fresh})
        while True:
            try:
                return self._replies.get(timeout=0.2)
            except queue.Empty:
                if not self.alive:
                    return _error("Runtime.ExitError", f"the runtime exited with status {self._process.returncode}")
                if time.time() > deadline + fresh:
                    self.close()
                    return _error("Sandbox.Timedout", f"Task timed out after {timeout}.00 seconds")

    def log(self) -> str:
        """What it printed since the last time it was asked."""
        text = self._output.read_bytes()
        new, self._read = text[self._read :].decode(errors="replace"), max(len(text), 1)
        return new

    def close(self) -> None:
        """End the process and its API."""
        self._calls.put(None)
        if self.alive:
            self._process.kill()
        self._process.wait()
        self._api.shutdown()
        self._api.server_close()

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        worker = self

        class Api(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            wbufsize = -1
            disable_nagle_algorithm = True

            def log_message(self, *_: Any) -> None:
                """The Runtime API keeps no log."""

            def do_GET(self) -> None:
                call = worker._calls.get()
                if call is None:
                    return
                about = {"Aws-Request-Id": call["id"], "Deadline-Ms": str(int(call["deadline"] * 1000))}
                about["Invoked-Function-Arn"] = worker._function.function_arn
                about["Trace-Id"] = TRACE
                headers = {f"Lambda-Runtime-{name}": value for name, value in about.items()}
                self._answer(200, call["body"], {**headers, "Content-Type": "application/json"})

            def do_POST(self) -> None:
                body = self._body().decode()
                failed = self.path.endswith("/error")
                kind = json.loads(body).get("errorType", "Unhandled") if failed else None
                worker._replies.put((body, kind))
                self._answer(202, b"{}", {})

            def _answer(self, status: int, body: bytes, headers: dict[str, str]) -> None:
                self.send_response(status)
                for name, value in {**headers, "Content-Length": str(len(body))}.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(body)

            def _body(self) -> bytes:
                if self.headers.get("Transfer-Encoding") != "chunked":
                    return self.rfile.read(int(self.headers.get("Content-Length", 0)))
                body = b""
                while size := int(self.rfile.readline().strip() or b"0", 16):
                    body += self.rfile.read(size)
                    self.rfile.readline()
                self.rfile.readline()
                return body

        return Api


def _error(kind: str, message: str) -> Reply:
    return json.dumps({"errorType": kind, "errorMessage": message}), kind
