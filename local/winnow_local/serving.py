"""A serving container: a process that loads a model archive's own code and answers requests over its pipes.

Run as a script it is the inside: `model_fn`, `input_fn`, `predict_fn` and `output_fn` of `code/`, called as SageMaker's
framework containers call them. `Container` is the outside. A message is a JSON line with the body's length, then the body.
"""

from __future__ import annotations

import importlib
import io
import json
import os
import subprocess
import sys
import tarfile
import tempfile
import threading
from pathlib import Path
from typing import IO, Any


class Container:
    """One running container; RuntimeError when it does not come up. Safe to use from many threads."""

    def __init__(self, model_archive: bytes, environment: dict[str, str]) -> None:
        self._lock, self._folder = threading.Lock(), tempfile.TemporaryDirectory()
        model = Path(self._folder.name, "model")
        with tarfile.open(fileobj=io.BytesIO(model_archive)) as tar:
            tar.extractall(model, filter="data")
        own = {"PATH": os.defpath, "LANG": "C.UTF-8", "PYTHONPATH": str(model / "code"), "SM_MODEL_DIR": str(model)}
        self._process = subprocess.Popen(
            [sys.executable, "-P", __file__, str(model)], env={**own, "OMP_NUM_THREADS": "1", **environment},
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=model,
        )  # fmt: skip
        health = receive(self._process.stdout)
        if not health or health[0]["status"] != 200:
            self.close()
            raise RuntimeError(health[1].decode() if health else "the container ended before its first ping")

    def invoke(self, body: bytes, *, content_type: str, accept: str) -> tuple[int, str, bytes]:
        """Status, content type and body of the container's answer; a dead container answers 500."""
        with self._lock:
            try:
                send(self._process.stdin, body, content_type=content_type, accept=accept)
                answer = receive(self._process.stdout)
            except BrokenPipeError:
                answer = None
        if answer is None:
            return 500, "text/plain", b"the container has died"
        return answer[0]["status"], answer[0]["content_type"], answer[1]

    def close(self) -> None:
        """End the process and drop its files."""
        self._process.kill()
        self._process.communicate()
        self._folder.cleanup()


def send(pipe: IO[bytes] | None, body: bytes, **head: object) -> None:
    """Write one message."""
    assert pipe is not None
    pipe.write(json.dumps({**head, "length": len(body)}).encode() + b"\n" + body)
    pipe.flush()


def receive(pipe: IO[bytes] | None) -> tuple[dict[str, Any], bytes] | None:
    """Read one message; None at the end of the pipe."""
    assert pipe is not None
    line = pipe.readline()
    if not line:
        return None
    head = json.loads(line)
    return head, pipe.read(head["length"])


def answer(module: Any, model: Any, body: bytes, *, content_type: str, accept: str) -> tuple[int, str, bytes]:
    """What the toolkit makes of one request: its answer, a response object as it is, and 500 for every exception.

    The toolkit wraps whatever these functions raise, the HTTP exceptions too: only a response object sets a status.
    """
    try:
        result = module.output_fn(module.predict_fn(module.input_fn(body, content_type), model), accept)
    except Exception as error:  # noqa: BLE001 - the server in front of user code answers for whatever it raises
        return 500, "text/plain", f"{type(error).__name__}: {error}".encode()
    if hasattr(result, "get_data"):
        return result.status_code, result.mimetype, result.get_data()
    content, kind = result if isinstance(result, tuple) else (result, accept)
    return 200, kind, content.encode() if isinstance(content, str) else bytes(content)


def main(model_folder: str) -> None:
    """Load the model, report health, then answer until the pipe closes. User code's prints go to stderr."""
    replies, sys.stdout = os.fdopen(os.dup(1), "wb"), sys.stderr
    os.dup2(2, 1)
    try:
        module = importlib.import_module(os.environ.get("SAGEMAKER_PROGRAM", "inference.py").removesuffix(".py"))
        model = module.model_fn(model_folder)
    except Exception as error:  # noqa: BLE001 - a container that cannot load reports why and ends
        send(replies, f"{type(error).__name__}: {error}".encode(), status=503, content_type="text/plain")
        return
    send(replies, b"", status=200, content_type="text/plain")
    while message := receive(sys.stdin.buffer):
        head, body = message
        status, kind, content = answer(module, model, body, content_type=head["content_type"], accept=head["accept"])
        send(replies, content, status=status, content_type=kind)


if __name__ == "__main__":
    main(sys.argv[1])
