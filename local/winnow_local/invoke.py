"""Lambda: the one place where a function runs, whoever asked, and the asynchronous queue in front of it.

In process a function's `app.py` is loaded as its own module and called; in a worker it runs under the real runtime interface
client (`worker.pool`), timeouts included. Its standard output goes line by line to its log group and, where it is embedded
metric format, to CloudWatch, both at virtual time.
"""

from __future__ import annotations

import base64
import importlib.util
import io
import json
import os
import sys
import threading
import traceback
from collections.abc import Callable
from contextlib import ExitStack, closing, redirect_stderr, redirect_stdout
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast
from unittest.mock import patch

from moto.awslambda.models import LambdaFunction
from moto.core.exceptions import JsonRESTError
from moto.logs.models import logs_backends

from .deploy import ARTIFACTS
from .patches import Cloud, patched, refused

SYNC_LIMIT, ASYNC_LIMIT, STATES_LIMIT = 6 * 1024 * 1024, 1024 * 1024, 256 * 1024
ASYNC_DELAYS = (0.05, 60.0, 120.0)
_LAMBDA, _API = "moto.awslambda.models", "moto.awslambda.responses.LambdaResponse"
Answered = tuple[str, str | None, str]
_output = io.StringIO()  # what functions print: loggers made in one call keep it for the next


@dataclass(frozen=True)
class Invocation:
    """One call of a function: when (virtual), which, on whose behalf, and the type of its error if it failed."""

    at: datetime
    function: str
    invoker: str
    error: str | None


class Lambdas:
    """The functions of one cloud, by name or ARN; Lambda's ResourceNotFoundException when there is none."""

    def __init__(self, cloud: Cloud) -> None:
        self._cloud, self.invocations, self._lock = cloud, list[Invocation](), threading.RLock()
        self._handlers: dict[str, Callable[[Any, Any], Any]] = {}
        self._workers, self.opened = None, ExitStack()  # type: Any, ExitStack

    def invoke(self, name: str, event: Any, *, invoker: str = "direct") -> Answered:
        """The response payload, the error's type (None when it returned) and the log of one synchronous call."""
        function, at = self._cloud.lambda_backend.get_function(name), self._cloud.clock.now()
        body = _limited(event, STATES_LIMIT if invoker == "states" else SYNC_LIMIT)
        payload, error, log = self._cloud.runner(function, body)
        self.invocations.append(Invocation(at, function.function_name, invoker, error))
        self._keep(function, log, {"Invocations": 1.0, "Errors": float(error is not None)})
        return payload, error, log

    def start(self, name: str, event: Any, *, invoker: str = "direct", attempt: int = 0) -> None:
        """Invoke asynchronously: two more attempts after one and two minutes, then the failure destination."""
        function, clock = self._cloud.lambda_backend.get_function(name), self._cloud.clock
        config = function.event_invoke_config[0].config if function.event_invoke_config else {}
        target = config.get("DestinationConfig", {}).get("OnFailure", {}).get("Destination")
        _limited(event, ASYNC_LIMIT)

        def run() -> None:
            payload, error, _ = self.invoke(name, event, invoker=invoker)
            if error is not None and attempt < config.get("MaximumRetryAttempts", len(ASYNC_DELAYS) - 1):
                self.start(name, event, invoker=invoker, attempt=attempt + 1)
            elif error is not None and target:
                told = {"version": "1.0", "timestamp": clock.now().isoformat(), "requestPayload": event}
                told |= {"requestContext": {"condition": "RetriesExhausted"}, "responsePayload": json.loads(payload)}
                self._cloud.events.send(target, told, invoker="lambda")

        clock.call_later(ASYNC_DELAYS[attempt], run)

    def run(self, function: LambdaFunction, body: str) -> Answered:
        """Payload, error type and log of one call; in a worker what was deployed as an archive, or changed since."""
        local: Any = function.code.get("S3Bucket") == ARTIFACTS and function
        if local and not local.changed and self._cloud.workers == "inprocess":
            return self._run_here(function, body)
        if self._workers is None:
            from .worker.pool import Workers

            self._workers = self.opened.enter_context(closing(Workers(self._cloud, environment_of)))
        return cast(Answered, self._workers.run(function, body))

    def _run_here(self, function: LambdaFunction, body: str) -> Answered:
        with self._lock, redirect_stdout(_output), redirect_stderr(_output):
            before = _output.tell()
            try:
                payload, error = json.dumps(self._handler(function)(json.loads(body), _context(function))), None
            except Exception as raised:  # noqa: BLE001 - as the runtime does: it is the function's answer
                error, trace = type(raised).__name__, traceback.format_tb(raised.__traceback__)
                payload = json.dumps({"errorMessage": str(raised), "errorType": error, "stackTrace": trace})
                print(f"[ERROR] {error}: {raised}\n{traceback.format_exc()}")
            log = _output.getvalue()[before:]
            _output.truncate(_output.seek(before))
        return payload, error, log

    def _keep(self, function: LambdaFunction, log: str, counted: dict[str, float]) -> None:
        cloud, group, dims = self._cloud, function.logs_group_name, {"FunctionName": function.function_name}
        for name, value in counted.items():
            cloud.cloudwatch.record("AWS/Lambda", name, dims, value)
        lines = [line for line in log.splitlines() if line]
        for line in lines:
            if line.startswith("{") and '"_aws"' in line:
                cloud.cloudwatch.embedded(json.loads(line))
        if lines:
            logs = logs_backends[cloud.account][cloud.region]
            stream, at = cloud.clock.now().strftime("%Y/%m/%d/[$LATEST]local"), int(cloud.clock.time() * 1000)
            logs.ensure_log_group(group)
            logs.ensure_log_stream(group, stream)
            logs.groups[group].put_log_events(stream, [{"timestamp": at, "message": line} for line in lines])

    def _handler(self, function: LambdaFunction) -> Callable[[Any, Any], Any]:
        name = f"winnow_function_{function.function_name.replace('-', '_')}"
        if name not in self._handlers:
            module_name, _, attribute = str(function.handler).rpartition(".")
            path = Path(function.code["S3Key"], f"{module_name}.py")
            spec = importlib.util.spec_from_file_location(name, path)
            module = sys.modules[name] = importlib.util.module_from_spec(spec)  # type: ignore[arg-type]
            with patch.dict(os.environ, environment_of(function)):
                spec.loader.exec_module(module)  # type: ignore[union-attr]
            self._handlers[name] = getattr(module, attribute)
        return self._handlers[name]


def _limited(event: Any, limit: int) -> str:
    body = json.dumps(event)
    if len(body) > limit:
        message = f"Request must be smaller than {limit} bytes for the InvokeFunction operation, it has {len(body)}"
        raise JsonRESTError("RequestTooLargeException", message)
    return body


def environment_of(function: LambdaFunction) -> dict[str, str]:
    """The environment Lambda gives a function."""
    about = {"FUNCTION_NAME": function.function_name, "LOG_GROUP_NAME": function.logs_group_name}
    about |= {"FUNCTION_VERSION": str(function.version), "FUNCTION_MEMORY_SIZE": str(function.memory_size)}
    given = {key: str(value) for key, value in (function.environment_vars or {}).items()}
    region = {"AWS_REGION": function.region, "AWS_DEFAULT_REGION": function.region}
    return {**{f"AWS_LAMBDA_{name}": value for name, value in about.items()}, **region, **given}


def _context(function: LambdaFunction) -> SimpleNamespace:
    return SimpleNamespace(
        function_name=function.function_name, function_version=str(function.version),
        invoked_function_arn=function.function_arn, memory_limit_in_mb=int(function.memory_size),
        aws_request_id=os.urandom(16).hex(), log_group_name=function.logs_group_name, log_stream_name="local",
        identity=None, client_context=None, get_remaining_time_in_millis=lambda: int(function.timeout) * 1000,
    )  # fmt: skip


@patched(f"{_LAMBDA}.LambdaFunction", "invoke", "A function runs its code; `Event` queues the call, twice retried.")
def _invoke(cloud: Cloud, _: Any, self: LambdaFunction, body: Any, asked: Any, answered: dict[str, str]) -> bytes:
    event = json.loads(body) if body else {}
    if asked.get("x-amz-invocation-type", "RequestResponse") == "Event":
        cloud.lambdas.start(self.function_arn, event)
        return b""
    payload, error, log = cloud.lambdas.invoke(self.function_arn, event)
    answered |= {"x-amz-function-error": "Unhandled"} if error else {}
    answered["x-amz-log-result"] = base64.b64encode(log.encode()[-4096:]).decode()
    return payload.encode()


refused(f"{_LAMBDA}.LambdaBackend", "send_sns_message", "Topics invoke later.", what="let topics call functions")
refused(_API, "publish_version", "Versions are immutable copies.", what="publish versions of functions")
refused(_API, "create_alias", "An alias names a version.", what="make aliases of functions")
refused(_API, "put_function_concurrency", "Reserved concurrency throttles.", what="reserve concurrency")
