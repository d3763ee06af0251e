"""The inside of a serving container, run as a script: a model archive's own code answers requests over a pipe.

`model_fn`, `input_fn`, `predict_fn` and `output_fn` of `code/` are called as SageMaker's framework containers call them.
"""

import importlib
import os
import sys
from contextlib import suppress
from multiprocessing.connection import Connection
from typing import Any


def answer(module: Any, model: Any, body: bytes, content_type: str, accept: str) -> tuple[int, str, bytes]:
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
    """Load the model, then answer pings and requests until the pipe closes."""
    module = importlib.import_module(os.environ.get("SAGEMAKER_PROGRAM", "inference.py").removesuffix(".py"))
    model = module.model_fn(model_folder)
    with suppress(EOFError):
        while True:
            request = pipe.recv()
            pipe.send(answer(module, model, *request) if request else (200, "text/plain", b""))


if __name__ == "__main__":
    main(sys.argv[1], Connection(int(sys.argv[2])))
