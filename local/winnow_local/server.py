"""The local cloud over HTTP: any AWS client with `AWS_ENDPOINT_URL` reaches it."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
from werkzeug.serving import make_server

if TYPE_CHECKING:
    from .cloud import LocalCloud


class Door:
    """A server on the loopback interface in front of a cloud; as a context it is its URL."""

    def __init__(self, cloud: LocalCloud, *, port: int = 0) -> None:
        self._cloud, self._app = cloud, DomainDispatcherApplication(create_backend_app)
        logging.getLogger("werkzeug").setLevel(logging.ERROR)
        self._server = make_server("127.0.0.1", port, self._serve, threaded=True)

    def __enter__(self) -> str:
        threading.Thread(target=self._server.serve_forever, name="door", daemon=True).start()
        return f"http://127.0.0.1:{self._server.port}"

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    def _serve(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        with self._cloud.clock.busy():
            if environ["PATH_INFO"].rstrip("/").endswith("/invocations"):
                return list(self._app(environ, start_response))
            with self._cloud.gateway.lock:
                return list(self._app(environ, start_response))
