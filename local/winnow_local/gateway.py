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
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from botocore import xform_name
from botocore.awsrequest import AWSResponse
from moto import backend_index, backends
from moto.core.base_backend import BackendDict
from moto.core.botocore_stubber import MockRawResponse
from moto.core.request import normalize_request
from moto.core.utils import get_equivalent_url_in_aws_domain
from moto.iam.access_control import PermissionResult
from werkzeug.exceptions import HTTPException

from .patches import Patch

if TYPE_CHECKING:
    from .cloud import LocalCloud

Picks = Callable[[Any], bool]
_SIGNED = "AWS4-HMAC-SHA256 Credential=FOOBARKEY/20260302/{}/local/aws4_request, SignedHeaders=, Signature="
_BUSY = b'{"__type":"ServiceUnavailable","message":"Please try again."}'


@dataclass
class _Fault:
    """What happens to the next `times` requests or events that a predicate picks; `effect` is the kind's own."""

    picks: Picks
    times: int
    effect: Any


class Faults:
    """Faults on order, for tests: requests that fail, events that are lost, doubled or late."""

    def __init__(self) -> None:
        self._requests, self._events = list[_Fault](), list[_Fault]()

    def fail_next(self, service: str, operation: str, times: int = 1, *, reply_lost: bool = False) -> None:
        """The next attempts at `s3`, `put_object` answer 503, before they act or (reply_lost) after."""
        wanted = (service, xform_name(operation))
        self._requests.append(_Fault(lambda asked: asked == wanted, times, reply_lost))

    def drop(self, picks: Picks = lambda _: True, *, times: int = 1) -> None:
        """The next events that `picks` picks never arrive."""
        self._events.append(_Fault(picks, times, (0, 0.0)))

    def duplicate(self, copies: int = 2, picks: Picks = lambda _: True, *, times: int = 1) -> None:
        """The next events that `picks` picks arrive `copies` times."""
        self._events.append(_Fault(picks, times, (copies, 0.0)))

    def delay(self, seconds: float, picks: Picks = lambda _: True, *, times: int = 1) -> None:
        """The next events that `picks` picks arrive late, and so out of order."""
        self._events.append(_Fault(picks, times, (1, seconds)))

    def request(self, service: str, operation: str, *, use: int = 1) -> bool | None:
        """Whether the reply of this attempt is lost after it acted, or before (False); None when nothing is ordered."""
        found: bool | None = _next(self._requests, (service, xform_name(operation)), use, None)
        return found

    def event(self, event: dict[str, Any]) -> tuple[int, float]:
        """How many copies of the event arrive, and how many seconds late."""
        found: tuple[int, float] = _next(self._events, event, 1, (1, 0.0))
        return found


def _next(faults: list[_Fault], what: Any, use: int, otherwise: Any) -> Any:
    fault = next((fault for fault in faults if fault.times > 0 and fault.picks(what)), None)
    if fault is None:
        return otherwise
    fault.times -= use
    return fault.effect


class Gateway:
    """Answers botocore's requests from moto's backends."""

    def __init__(self, faults: Faults, *, region: str) -> None:
        self._signed, self._faults = _SIGNED.format(region), faults
        self.lock, self._routes = threading.RLock(), dict[str, list[tuple[re.Pattern[str], Callable[..., Any]]]]()

    def __call__(self, event_name: str, request: Any) -> AWSResponse:
        """The response to one prepared request; `event_name` is botocore's `before-send.<service>.<operation>`."""
        _, service, operation = event_name.split(".", 2)
        lost = self._faults.request(service, operation)
        request.headers.setdefault("Authorization", self._signed)
        status, headers, body = (HTTPStatus.SERVICE_UNAVAILABLE, {}, _BUSY) if lost is False else self.process(request)
        if lost:
            status, headers, body = HTTPStatus.SERVICE_UNAVAILABLE, {}, _BUSY
        return AWSResponse(request.url, status, headers, MockRawResponse(body))

    def process(self, request: Any) -> tuple[int, Any, Any]:
        """Status, headers and body. Invocations do not hold the lock while they run."""
        parsed, _ = get_equivalent_url_in_aws_domain(request.url)
        url = f"{parsed.scheme}://{parsed.netloc}{parsed.path}"
        if parsed.netloc not in self._routes:
            self._routes[parsed.netloc] = _routes_for(url)
        for pattern, act in self._routes[parsed.netloc]:
            if pattern.match(url):
                normal = normalize_request(request)
                if parsed.path.rstrip("/").endswith("/invocations"):
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


def _routes_for(url: str) -> list[tuple[re.Pattern[str], Callable[..., Any]]]:
    service = next((service for service, pattern in backend_index.backend_url_patterns if pattern.match(url)), None)
    if service is None:
        return []
    found = backends.get_backend(service)  # type: ignore[call-overload]
    regions = found["123456789012"] if isinstance(found, BackendDict) else found
    backend = next(regions[name] for name in ("us-east-1", "aws", "global") if name in regions)
    return [(re.compile(path), act) for path, act in backend.urls.items()]


def _stubber(_: Any, cloud: LocalCloud) -> Any:
    def call(self: Any, event_name: str, request: Any, **_: Any) -> AWSResponse | None:
        outside = request.url.startswith("http://127.0.0.1:")  # the cloud's own door, and through it the cloud
        return cloud.gateway(event_name, request) if self.enabled and not outside else None

    return call


def _quick_retries(original: Any, _: LocalCloud) -> Any:
    return SimpleNamespace(time=original.time, sleep=lambda seconds: None)


def _conditional_deny(original: Any, _: LocalCloud) -> Any:
    def permitted(self: Any, *args: Any, **kwargs: Any) -> Any:
        conditional = self._statement.get("Effect") == "Deny" and self._statement.get("Condition")
        return PermissionResult.NEUTRAL if conditional else original(self, *args, **kwargs)

    return permitted


_STUB, _AGENT = "moto.core.botocore_stubber.BotocoreStubber", "botocore.useragent.UserAgentString"
_POLICY = "moto.iam.access_control.IAMPolicyStatement"
PATCHES = (
    Patch(_STUB, "__call__", "Unknown actions and hosts are errors.", _stubber),
    Patch(_AGENT, "to_string", "Nobody reads the user agent.", lambda *_: lambda self: "winnow"),
    Patch("botocore.endpoint", "time", "A retry's back-off is real time; here nobody waits for it.", _quick_retries),
    Patch(_POLICY, "is_action_permitted", "Nobody meets the Condition of a TLS-only Deny.", _conditional_deny),
)
