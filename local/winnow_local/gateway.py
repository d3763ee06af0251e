"""How requests get to moto: one at a time, from this process or over HTTP, at the cloud's time, and never to silence."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from types import SimpleNamespace
from typing import Any

from moto.iam.access_control import PermissionResult
from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
from werkzeug.serving import make_server

from .patches import Cloud, patched
from .strict import StrictValidator


class Gateway:
    """What requests share: moto's backends answer one at a time."""

    def __init__(self) -> None:
        self.lock = threading.RLock()

    def held(self, path: str) -> AbstractContextManager[object]:
        """The lock, but not for an invocation: what runs in it makes requests of its own."""
        return nullcontext() if path.rstrip("/").endswith("/invocations") else self.lock


@contextmanager
def door(cloud: Cloud, *, port: int = 0) -> Iterator[str]:
    """The cloud over HTTP, on the loopback interface: the URL that any AWS client takes as AWS_ENDPOINT_URL."""
    app = DomainDispatcherApplication(create_backend_app)
    logging.getLogger("werkzeug").setLevel(logging.ERROR)

    def serve(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        with cloud.clock.busy(), cloud.gateway.held(environ["PATH_INFO"]):
            return list(app(environ, start_response))

    server = make_server("127.0.0.1", port, serve, threaded=True)
    threading.Thread(target=server.serve_forever, name="door", daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.port}"
    finally:
        server.shutdown()  # which closes it too


@patched("moto.core.botocore_stubber.BotocoreStubber", "process_request", "Unknown actions and hosts are errors.")
def _process(cloud: Cloud, original: Any, self: Any, request: Any) -> Any:
    if request.url.startswith("http://127.0.0.1:"):  # the cloud's own door, and through it the cloud
        return None
    with cloud.gateway.held(request.url):
        answer = original(self, request)
    if answer == (404, {}, "Not yet implemented"):
        raise NotImplementedError(f"the local cloud has nothing at {request.method} {request.url}")
    return answer


patched("botocore.validate", "ParamValidator", "A request that breaks the service model is refused.", value=True)(
    lambda *_: StrictValidator
)


@patched("moto.iam.access_control.IAMPolicyStatement", "is_action_permitted", "TLS-only denials deny nobody here.")
def _permitted(cloud: Cloud, original: Any, self: Any, *args: Any, **kwargs: Any) -> PermissionResult:
    conditional = self._statement.get("Effect") == "Deny" and self._statement.get("Condition")
    return PermissionResult.NEUTRAL if conditional else original(self, *args, **kwargs)


@patched("moto.cloudwatch.models", "datetime", "Every timestamp comes from one clock.", value=True)
@patched("moto.core.utils", "datetime", "Every timestamp comes from one clock.", value=True)
@patched("moto.s3.models", "datetime", "Every timestamp comes from one clock.", value=True)
def _datetime(cloud: Cloud, original: Any) -> Any:
    if isinstance(original, type):
        return type("Virtual", (original,), {"now": lambda tz=None: original.fromtimestamp(cloud.clock.time(), tz)})
    return SimpleNamespace(**{**vars(original), "datetime": _datetime(cloud, original.datetime)})
