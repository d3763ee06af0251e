"""Lambda: the one place where a function runs, whoever asked, and the asynchronous queue in front of it.

In process a function's `app.py` is loaded as its own module and called; its standard output goes line by line to its log
group and, where it is embedded metric format, to CloudWatch, both at virtual time. With workers it runs under the real
runtime interface client (`workers`), timeouts included.
"""

from __future__ import annotations

import base64
import importlib.util
import io
import json
import os
import sys
import threading
import time as real_time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from moto.awslambda.models import LambdaFunction, lambda_backends
from moto.core.exceptions import JsonRESTError
from moto.logs.models import logs_backends

from .patches import Patch

if TYPE_CHECKING:
    from .cloud import LocalCloud

SYNC_LIMIT = 6 * 1024 * 1024
ASYNC_LIMIT = 1024 * 1024
STATES_LIMIT = 256 * 1024
ASYNC_RETRIES = (60.0, 120.0)
ASYNC_LATENCY = 0.05


class TooLargeError(JsonRESTError):
    """Lambda's RequestTooLargeException."""

    code = 413

    def __init__(self, size: int, limit: int) -> None:
        message = f"Request must be smaller than {limit} bytes for the InvokeFunction operation, it has {size}"
        super().__init__("RequestTooLargeException", message)


@dataclass(frozen=True)
class Invocation:
    """One call of a function: when (virtual), which, on whose behalf, how it ended, how many real seconds it took."""

    at: datetime
    function: str
    invoker: str
    error: str | None
    seconds: float

    @property
    def ok(self) -> bool:
        """Whether the function returned."""
        return self.error is None


class Lambdas:
    """The functions of one cloud."""

    def __init__(self, cloud: LocalCloud) -> None:
        self._cloud, self.invocations = cloud, list[Invocation]()
        self._handlers: dict[str, Callable[[Any, Any], Any]] = {}
        self._running: Counter[str] = Counter()
        self._lock = threading.RLock()

    def find(self, name_or_arn: str, qualifier: str | None = None) -> LambdaFunction:
        """The function behind a name, ARN or alias; Lambda's ResourceNotFoundException when there is none."""
        return lambda_backends[self._cloud.account][self._cloud.region].get_function(name_or_arn, qualifier)

    def invoke(
        self, function: LambdaFunction, event: Any, *, invoker: str | None = None
    ) -> tuple[str, str | None, str]:
        """The response payload, the error's type (None when it returned) and the log of one synchronous call."""
        body = json.dumps(event)
        limit = STATES_LIMIT if invoker == "states" else SYNC_LIMIT
        if len(body) > limit:
            raise TooLargeError(len(body), limit)
        name, started, at = function.function_name, real_time.perf_counter(), self._cloud.clock.now()
        reserved = function.reserved_concurrency
        with self._lock:
            throttled = reserved is not None and self._running[name] >= int(reserved)
            self._running[name] += not throttled
        payload, log = _failure("TooManyRequestsException", "Rate Exceeded."), ""
        error: str | None = "TooManyRequestsException"
        if not throttled:
            try:
                payload, error, log = self._cloud.runner(function, body)
            finally:
                with self._lock:
                    self._running[name] -= 1
        seconds = real_time.perf_counter() - started
        self.invocations.append(Invocation(at, name, invoker or invoker_of(event), error, seconds))
        self._keep(function, log, seconds, error=error, throttled=throttled)
        return payload, error, log

    def start(self, function: LambdaFunction, event: Any, *, invoker: str | None = None) -> None:
        """Invoke asynchronously: two more attempts after one and two minutes, then the failure destination."""
        body = json.dumps(event)
        if len(body) > ASYNC_LIMIT:
            raise TooLargeError(len(body), ASYNC_LIMIT)
        config = function.event_invoke_config[0].config if function.event_invoke_config else {}
        delays = ASYNC_RETRIES[: int(config.get("MaximumRetryAttempts", len(ASYNC_RETRIES)))]

        def attempt(number: int) -> None:
            payload, error, _ = self.invoke(function, json.loads(body), invoker=invoker)
            if error is not None and number < len(delays):
                self._after(delays[number], lambda: attempt(number + 1))
            else:
                self._report(function, config, event=json.loads(body), payload=payload, error=error)

        self._after(ASYNC_LATENCY, lambda: attempt(0))

    def run_in_process(self, function: LambdaFunction, body: str) -> tuple[str, str | None, str]:
        """Payload, error type and log of calling the handler right here."""
        with captured() as output:
            try:
                payload = json.dumps(self._handler(function)(json.loads(body), _context(function)))
                error = None
                if len(payload) > SYNC_LIMIT:
                    error = "Function.ResponseSizeTooLarge"
                    payload = _failure(error, f"Response payload size exceeded maximum ({SYNC_LIMIT} bytes).")
            except Exception as raised:  # noqa: BLE001 - as the runtime does: it is the function's answer
                error = type(raised).__name__
                payload = _failure(error, str(raised), traceback.format_tb(raised.__traceback__))
                print(f"[ERROR] {error}: {raised}\n{traceback.format_exc()}")
        return payload, error, output.getvalue()

    def _after(self, delay: float, work: Callable[[], None]) -> None:
        clock = self._cloud.clock
        clock.call_later(delay, lambda: clock.spawn(work, name="asynchronous invoke"), name="asynchronous invoke")

    def _report(
        self, function: LambdaFunction, config: dict[str, Any], *, event: Any, payload: str, error: str | None
    ) -> None:
        side = "OnSuccess" if error is None else "OnFailure"
        target = config.get("DestinationConfig", {}).get(side, {}).get("Destination")
        dead = getattr(function, "dead_letter_arn", None)
        if target:
            about = {"condition": "Success" if error is None else "RetriesExhausted"}
            told = {"version": "1.0", "timestamp": self._cloud.clock.now().isoformat(), "requestPayload": event}
            self._cloud.events.send(target, {**told, "requestContext": about, "responsePayload": json.loads(payload)})
        if error is not None and dead:
            self._cloud.events.send(dead, event)

    def _keep(self, function: LambdaFunction, log: str, seconds: float, *, error: str | None, throttled: bool) -> None:
        cloudwatch, dims = self._cloud.cloudwatch, {"FunctionName": function.function_name}
        counted = {"Throttles": 1.0} if throttled else {"Invocations": 1.0, "Duration": seconds * 1e3, "Throttles": 0.0}
        if not throttled:
            counted["Errors"] = float(error is not None)
        for name, value in counted.items():
            cloudwatch.record("AWS/Lambda", name, dims, value)
        lines = [line for line in log.splitlines() if line]
        for line in lines:
            if line.startswith("{") and '"_aws"' in line:
                cloudwatch.embedded(json.loads(line))
        if lines:
            write_log(self._cloud, function.logs_group_name, lines)

    def _handler(self, function: LambdaFunction) -> Callable[[Any, Any], Any]:
        key = f"{function.function_name}:{function.code_sha_256}:{function.handler}"
        with self._lock:
            if key not in self._handlers:
                self._handlers[key] = self._load(function)
            return self._handlers[key]

    def _load(self, function: LambdaFunction) -> Callable[[Any, Any], Any]:
        folder = self._cloud.deployment.code[function.code["S3Key"]]
        module_name, _, attribute = str(function.handler).rpartition(".")
        path = Path(folder, f"{module_name}.py")
        name = f"winnow_function_{function.function_name.replace('-', '_')}"
        spec = importlib.util.spec_from_file_location(name, path)
        if spec is None or spec.loader is None:
            raise FileNotFoundError(f"the handler {function.handler} of {function.function_name} is not at {path}")
        module = importlib.util.module_from_spec(spec)
        sys.modules[name] = module
        with environment(environment_of(function)):
            spec.loader.exec_module(module)
        handler: Callable[[Any, Any], Any] = getattr(module, attribute)
        return handler


def invoker_of(event: Any) -> str:
    """Who called, read off the event: a queue, an event source, the labeling service, or `direct`."""
    if isinstance(event, dict):
        records = event.get("Records")
        if isinstance(records, list) and records and isinstance(records[0], dict):
            arn = records[0].get("eventSourceARN") or records[0].get("eventSource") or records[0].get("EventSource", "")
            return str(arn).split(":", 2)[-1] if not str(arn).startswith("arn:") else "sqs:" + arn.rsplit(":", 1)[-1]
        if isinstance(event.get("source"), str):
            return str(event["source"])
        if "labelingJobArn" in event:
            return "groundtruth"
    return "direct"


def environment_of(function: LambdaFunction) -> dict[str, str]:
    """The environment Lambda gives a function."""
    return {
        "AWS_LAMBDA_FUNCTION_NAME": function.function_name,
        "AWS_LAMBDA_FUNCTION_VERSION": str(function.version),
        "AWS_LAMBDA_FUNCTION_MEMORY_SIZE": str(function.memory_size),
        "AWS_LAMBDA_LOG_GROUP_NAME": function.logs_group_name,
        "AWS_EXECUTION_ENV": f"AWS_Lambda_{function.run_time}",
        "AWS_REGION": function.region,
        "AWS_DEFAULT_REGION": function.region,
        **{key: str(value) for key, value in (function.environment_vars or {}).items()},
    }


@contextmanager
def environment(values: dict[str, str]) -> Iterator[None]:
    """The process environment with these values; the old ones come back."""
    before = {key: os.environ.get(key) for key in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for key, value in before.items():
            if value is None:
                os.environ.pop(key, None)
            else:
                os.environ[key] = value


def write_log(cloud: LocalCloud, group: str, lines: list[str]) -> None:
    """Append lines to today's stream of a log group."""
    logs = logs_backends[cloud.account][cloud.region]
    stream = cloud.clock.now().strftime("%Y/%m/%d/[$LATEST]local")
    logs.ensure_log_group(group)
    logs.ensure_log_stream(group, stream)
    at = int(cloud.clock.time() * 1000)
    logs.groups[group].put_log_events(stream, [{"timestamp": at, "message": line} for line in lines])


class _Output(io.TextIOBase):
    """Standard output that goes to the invocation running in this thread, or else where it went before."""

    def __init__(self) -> None:
        self.here, self.before = threading.local(), sys.stdout

    def write(self, text: str) -> int:
        return int((getattr(self.here, "sink", None) or self.before).write(text))

    def flush(self) -> None:
        if not self.before.closed:
            self.before.flush()


_stdout, _stderr = _Output(), _Output()


@contextmanager
def redirected() -> Iterator[None]:
    """sys.stdout and sys.stderr are given back when the cloud ends."""
    try:
        yield
    finally:
        if sys.stdout is _stdout:
            sys.stdout, sys.stderr = _stdout.before, _stderr.before


@contextmanager
def captured() -> Iterator[io.StringIO]:
    """What this thread prints meanwhile."""
    if sys.stdout is not _stdout:  # at first, and whenever a test runner has put its own there
        _stdout.before, _stderr.before = sys.stdout, sys.stderr
        sys.stdout, sys.stderr = _stdout, _stderr
    outer, sink = getattr(_stdout.here, "sink", None), io.StringIO()
    _stdout.here.sink = _stderr.here.sink = sink
    try:
        yield sink
    finally:
        _stdout.here.sink = _stderr.here.sink = outer


def _context(function: LambdaFunction) -> SimpleNamespace:
    return SimpleNamespace(
        function_name=function.function_name,
        function_version=str(function.version),
        invoked_function_arn=function.function_arn,
        memory_limit_in_mb=int(function.memory_size),
        aws_request_id=os.urandom(16).hex(),
        log_group_name=function.logs_group_name,
        log_stream_name="local",
        identity=None,
        client_context=None,
        get_remaining_time_in_millis=lambda: int(function.timeout) * 1000,
    )


def _failure(kind: str, message: str, trace: list[str] | None = None) -> str:
    return json.dumps({"errorMessage": message, "errorType": kind, "stackTrace": trace or []})


def _run(_: Any, cloud: LocalCloud) -> Any:
    def run(self: LambdaFunction, event: Any = None) -> tuple[str, bool, str]:
        payload, error, log = cloud.lambdas.invoke(self, {} if event in (None, "{}") else event)
        return payload, error is not None, log

    return run


def _invoke(_: Any, cloud: LocalCloud) -> Any:
    def invoke(self: LambdaFunction, body: Any, headers: Any, response_headers: dict[str, str]) -> bytes:
        event = json.loads(body) if body else {}
        kind = headers.get("x-amz-invocation-type", "RequestResponse")
        if kind == "Event":
            cloud.lambdas.start(self, event)
        if kind != "RequestResponse":
            return b""
        payload, error, log = cloud.lambdas.invoke(self, event)
        if error == "TooManyRequestsException":
            raise JsonRESTError(error, "Rate Exceeded.")
        if error is not None:
            response_headers["x-amz-function-error"] = "Unhandled"
        response_headers["x-amz-log-result"] = base64.b64encode(log.encode()[-4096:]).decode()
        return payload.encode()

    return invoke


def _sns(_: Any, cloud: LocalCloud) -> Any:
    def send(
        self: Any, function_name: str, message: str, subject: str | None = None, qualifier: str | None = None
    ) -> None:
        at = datetime.fromtimestamp(cloud.clock.time(), UTC).strftime("%Y-%m-%dT%H:%M:%S.000Z")
        sns = {"Type": "Notification", "MessageId": os.urandom(16).hex(), "Subject": subject, "Message": message}
        record = {
            "EventVersion": "1.0",
            "EventSource": "aws:sns",
            "Sns": {**sns, "Timestamp": at, "MessageAttributes": {}},
        }
        cloud.lambdas.start(self.get_function(function_name, qualifier), {"Records": [record]})

    return send


def _qualifier(original: Any, _: LocalCloud) -> Any:
    def get(self: Any, name: str, *args: Any, **kwargs: Any) -> Any:
        return original(self, "Qualifier" if name == "qualifier" else name, *args, **kwargs)

    return get


PATCHES = (
    Patch("moto.awslambda.models.LambdaFunction", "_invoke_lambda", "A function runs its code.", _run),
    Patch("moto.awslambda.models.LambdaFunction", "invoke", "`Event` queues the call, twice retried.", _invoke),
    Patch("moto.awslambda.models.LambdaBackend", "send_sns_message", "SNS invokes asynchronously.", _sns),
    Patch("moto.awslambda.responses.LambdaResponse", "_get_param", "`Qualifier` picks version or alias.", _qualifier),
)
