"""A serving container: a process that loads a model archive's own code and answers requests over a pipe.

Run as a script it is the inside: `model_fn`, `input_fn`, `predict_fn` and `output_fn` of `code/`, called as SageMaker's
framework containers call them. `Container` is the outside. An answer is (status, content type, body).
"""

from __future__ import annotations

import importlib
import io
import os
import subprocess
import sys
import tarfile
import tempfile
import threading
from contextlib import suppress
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

Answered = tuple[int, str, bytes]


class DeploymentError(Exception):
    """Why a container, or what is to be deployed in it, cannot go into service."""


class Container:
    """One running container; DeploymentError when it does not come up. Safe to use from many threads."""

    def __init__(self, model_archive: bytes, environment: dict[str, str]) -> None:
        self._lock, self._folder = threading.Lock(), tempfile.TemporaryDirectory()
        model = Path(self._folder.name, "model")
        with tarfile.open(fileobj=io.BytesIO(model_archive)) as tar:
            tar.extractall(model, filter="data")
        own = {"PATH": os.defpath, "LANG": "C.UTF-8", "PYTHONPATH": str(model / "code"), "OMP_NUM_THREADS": "1"}
        self._pipe, inside = Pipe()
        with inside:
            command = [sys.executable, "-P", __file__, str(model), str(inside.fileno())]
            self._process = subprocess.Popen(command, env={**own, **environment}, pass_fds=[inside.fileno()], cwd=model)
        status, _, said = self.invoke(None)
        if status != 200:
            self.close()
            raise DeploymentError(f"The primary container did not pass the ping health check. {said.decode()}")

    def invoke(self, *request: bytes | str | None) -> Answered:
        """The container's answer to (body, content type, accept), or to a ping; a dead container answers 500."""
        with self._lock:
            try:
                self._pipe.send(request)
                answered: Answered = self._pipe.recv()
            except (EOFError, OSError):
                return 500, "text/plain", b"the container has died"
            return answered

    def close(self) -> None:
        """End the process and drop its files."""
        self._process.kill()
        self._process.wait()
        self._pipe.close()
        self._folder.cleanup()


def answer(module: Any, model: Any, body: bytes, content_type: str, accept: str) -> Answered:
    """What the toolkit makes of one request: its answer, a response object as it is, and 500 for every exception.

    The toolkit wraps whatever these functions raise, the HTTP exceptions too: only a response object sets a status.
    """
    try:
        result = module.output_fn(module.predict_fn(module.input_fn(body, content_type), model), accept)
    except Exception as error:  # noqa: BLE001 - the server in front of user code answers for whatever it raises
        return 500, "text/plain", f"{type(error).__name__}: {error}".encode()
    if hasattr(result, "get_data"):
        return result.status_code, result.mimetype, result.get_data()
    content, kind = result
    return 200, kind, content.encode() if isinstance(content, str) else content


def main(model_folder: str, pipe: Connection) -> None:
    """Load the model, answer the ping, then every request until the pipe closes."""
    try:
        module = importlib.import_module(os.environ.get("SAGEMAKER_PROGRAM", "inference.py").removesuffix(".py"))
        model, health = module.model_fn(model_folder), (200, "text/plain", b"")
    except Exception as error:  # noqa: BLE001 - a container that cannot load says why
        health = (503, "text/plain", f"{type(error).__name__}: {error}".encode())
    with suppress(EOFError):
        while request := pipe.recv():
            pipe.send(health if request == (None,) else answer(module, model, *request))


if __name__ == "__main__":
    main(sys.argv[1], Connection(int(sys.argv[2])))
