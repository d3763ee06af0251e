"""One worker as Lambda has them: the runtime interface client in a process, and the Runtime API it asks for calls."""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
import threading
import uuid
from collections.abc import Mapping
from pathlib import Path
from queue import SimpleQueue

from werkzeug.serving import make_server
from werkzeug.wrappers import Request, Response

START_SECONDS = 60


class Worker:
    """Calls one handler, one call at a time, in the given interpreter and environment."""

    def __init__(self, python: Path, *, code: Path, handler: str, environment: Mapping[str, str]) -> None:
        self._asked, self._answered = SimpleQueue[str](), SimpleQueue[tuple[str, str | None]]()
        self._arn = f"arn:aws:lambda:us-east-1:123456789012:function:{environment['AWS_LAMBDA_FUNCTION_NAME']}"
        self._output, self._read = tempfile.TemporaryFile(), 0  # noqa: SIM115 - closed with the worker
        self._api = make_server("127.0.0.1", 0, Request.application(self._answer), threaded=True)
        threading.Thread(target=self._api.serve_forever, daemon=True).start()
        address = {"AWS_LAMBDA_RUNTIME_API": f"127.0.0.1:{self._api.port}"}
        self._process = subprocess.Popen(
            [python, "-m", "awslambdaric", handler], cwd=code, env={**environment, **address}, stdout=self._output,
            stderr=subprocess.STDOUT,
        )  # fmt: skip

    @property
    def alive(self) -> bool:
        return self._process.poll() is None

    def call(self, body: str, *, seconds: int) -> tuple[str, str | None, str]:
        """Payload, the error's type if it failed, and the log of one call. `queue.Empty` when none comes in time."""
        self._asked.put(body)
        payload, error = self._answered.get(timeout=seconds + START_SECONDS)
        printed = os.pread(self._output.fileno(), 1 << 24, self._read)
        self._read += len(printed)
        return payload, error, printed.decode(errors="replace")

    def close(self) -> None:
        self._process.kill()
        self._process.wait()
        self._api.shutdown()
        self._api.server_close()
        self._output.close()

    def _answer(self, request: Request) -> Response:
        if request.method == "POST":  # a response, or an error of a call or of the start
            body, failed = request.get_data(as_text=True), request.path.endswith("/error")
            self._answered.put((body, json.loads(body).get("errorType", "Unhandled") if failed else None))
            return Response("{}", status=202)
        about = {
            "Aws-Request-Id": str(uuid.uuid4()), "Invoked-Function-Arn": self._arn, "Deadline-Ms": "4102444800000",
            "Trace-Id": "Root=1-00000000-000000000000000000000000;Parent=0000000000000000;Sampled=0",
        }  # fmt: skip
        headers = {f"Lambda-Runtime-{name}": value for name, value in about.items()}
        return Response(self._asked.get(), headers=headers, content_type="application/json")
