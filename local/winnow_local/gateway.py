"""The door every in-process request passes: one lock, no signature, no user agent, failures on order, and no silence.

moto builds its routing table anew for each request; here it is kept per host. An action or a host moto does not know
raises NotImplementedError instead of a canned 404.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Callable
from dataclasses import dataclass
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

from botocore import xform_name
from botocore.awsrequest import AWSResponse
from moto import backend_index, backends
from moto.core.base_backend import BackendDict
from moto.core.botocore_stubber import MockRawResponse
from moto.core.request import normalize_request
from moto.core.utils import get_equivalent_url_in_aws_domain
from werkzeug.exceptions import HTTPException

from .patches import Patch

if TYPE_CHECKING:
    from .cloud import LocalCloud

Route = tuple[re.Pattern[str], Callable[..., Any]]
_LONG = ("/invocations", "/invocations/")
_SIGNED = "AWS4-HMAC-SHA256 Credential=FOOBARKEY/20260302/{}/local/aws4_request, SignedHeaders=, Signature="
_BUSY = b'{"__type":"ServiceUnavailable","message":"Please try again."}'


@dataclass
class _Failure:
    service: str
    operation: str
    times: int
    reply_lost: bool


@dataclass
class _Twist:
    """What happens to the events a predicate picks: how many copies arrive, and how late."""

    picks: Callable[[dict[str, Any]], bool]
    times: int
    copies: int
    delay: float


class Faults:
    """Faults on order, for tests: requests that fail, events that are lost, doubled or late."""

    def __init__(self) -> None:
        self._failures: list[_Failure] = []
        self._twists: list[_Twist] = []

    def fail_next(self, service: str, operation: str, times: int = 1, *, reply_lost: bool = False) -> None:
        """The next attempts at `s3`, `put_object` answer 503, before they act or (reply_lost) after they acted.

        botocore retries: more than its four attempts have to fail before the caller sees one.
        """
        self._failures.append(_Failure(service, xform_name(operation), times, reply_lost))

    def drop(self, picks: Callable[[dict[str, Any]], bool] = lambda _: True, *, times: int = 1) -> None:
        """The next events that `picks` picks never arrive."""
        self._twists.append(_Twist(picks, times, 0, 0.0))

    def duplicate(
        self, copies: int = 2, picks: Callable[[dict[str, Any]], bool] = lambda _: True, *, times: int = 1
    ) -> None:
        """The next events that `picks` picks arrive `copies` times."""
        self._twists.append(_Twist(picks, times, copies, 0.0))

    def delay(
        self, seconds: float, picks: Callable[[dict[str, Any]], bool] = lambda _: True, *, times: int = 1
    ) -> None:
        """The next events that `picks` picks arrive late, and so out of order."""
        self._twists.append(_Twist(picks, times, 1, seconds))

    def ordered(self, service: str, operation: str) -> bool:
        """Whether a failure is ordered for the next attempt."""
        wanted = (service, xform_name(operation))
        return any(failure.times > 0 and (failure.service, failure.operation) == wanted for failure in self._failures)

    def request(self, service: str, operation: str) -> _Failure | None:
        """The failure ordered for this attempt, used up by asking."""
        wanted = (service, xform_name(operation))
        for failure in self._failures:
            if (failure.service, failure.operation) == wanted and failure.times > 0:
                failure.times -= 1
                return failure
        return None

    def event(self, event: dict[str, Any]) -> tuple[int, float]:
        """How many copies of the event arrive, and how many seconds late."""
        for twist in self._twists:
            if twist.times > 0 and twist.picks(event):
                twist.times -= 1
                return twist.copies, twist.delay
        return 1, 0.0


class Gateway:
    """Answers botocore's requests from moto's backends."""

    def __init__(self, faults: Faults, *, region: str) -> None:
        self._signed = _SIGNED.format(region)
        self.lock, self._faults, self._routes = threading.RLock(), faults, dict[str, list[Route]]()

    def __call__(self, event_name: str, request: Any) -> AWSResponse:
        """The response to one prepared request; `event_name` is botocore's `before-send.<service>.<operation>`."""
        _, service, operation = event_name.split(".", 2)
        failure = self._faults.request(service, operation)
        answer: tuple[int, Any, Any] = (HTTPStatus.SERVICE_UNAVAILABLE, {}, _BUSY)
        request.headers.setdefault("Authorization", self._signed)
        if failure is None or failure.reply_lost:
            reply = self.process(request)
            answer = reply if failure is None else answer
        status, headers, body = answer
        return AWSResponse(request.url, status, headers, MockRawResponse(body))

    def process(self, request: Any) -> tuple[int, Any, Any]:
        """Status, headers and body. Long-running actions do not hold the lock while they run."""
        parsed, _ = get_equivalent_url_in_aws_domain(request.url)
        url = f"{parsed.scheme}://{parsed.netloc}{parsed.path}"
        routes = self._routes.get(parsed.netloc)
        if routes is None:
            routes = self._routes[parsed.netloc] = _routes_for(url)
        for pattern, act in routes:
            if pattern.match(url):
                normal = normalize_request(request)
                if parsed.path.endswith(_LONG):
                    return _act(act, normal)
                with self.lock:
                    return _act(act, normal)
        raise NotImplementedError(f"the local cloud has nothing at {request.method} {url}")


def _act(act: Callable[..., Any], request: Any) -> tuple[int, Any, Any]:
    try:
        status, headers, body = act(request, request.raw_url, request.headers)
    except HTTPException as error:
        return error.code or HTTPStatus.INTERNAL_SERVER_ERROR, error.get_headers(), error.get_body()
    return status, headers, body


def _routes_for(url: str) -> list[Route]:
    for service, pattern in backend_index.backend_url_patterns:
        if pattern.match(url):
            found = backends.get_backend(service)  # type: ignore[call-overload]
            regions = found["123456789012"] if isinstance(found, BackendDict) else found
            backend = next(regions[name] for name in ("us-east-1", "aws", "global") if name in regions)
            return [(re.compile(path), act) for path, act in backend.urls.items()]
    return []


def _stubber(_: Any, cloud: LocalCloud) -> Any:
    def call(self: Any, event_name: str, request: Any, **_: Any) -> AWSResponse | None:
        outside = request.url.startswith("http://127.0.0.1:")  # the cloud's own door, and through it the cloud
        return cloud.gateway(event_name, request) if self.enabled and not outside else None

    return call


def _quick_retries(original: Any, cloud: LocalCloud) -> Any:
    class Time:
        time = staticmethod(original.time)
        sleep = staticmethod(lambda seconds: None)

    return Time


def _conditional_deny(original: Any, _: LocalCloud) -> Any:
    from moto.iam.access_control import PermissionResult

    def permitted(self: Any, *args: Any, **kwargs: Any) -> Any:
        if self._statement.get("Effect") == "Deny" and self._statement.get("Condition"):
            return PermissionResult.NEUTRAL
        return original(self, *args, **kwargs)

    return permitted


PATCHES = (
    Patch("moto.core.botocore_stubber.BotocoreStubber", "__call__", "Unknown actions and hosts are errors.", _stubber),
    Patch(
        "botocore.useragent.UserAgentString",
        "to_string",
        "Nobody reads the user agent.",
        lambda *_: lambda self: "winnow",
    ),
    Patch("botocore.endpoint", "time", "A retry's back-off is real time; here nobody waits for it.", _quick_retries),
    Patch(
        "moto.iam.access_control.IAMPolicyStatement",
        "is_action_permitted",
        "A TLS-only Deny has a Condition, which TLS requests do not meet.",
        _conditional_deny,
    ),
)
