"""Virtual time inside moto: what asks for the time of day gets the cloud's clock."""

from __future__ import annotations

import datetime as real
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from .patches import Patch

if TYPE_CHECKING:
    from .cloud import LocalCloud


def _class(_: Any, cloud: LocalCloud) -> Any:
    class Kind(type):
        def __instancecheck__(cls, instance: object) -> bool:
            return isinstance(instance, real.datetime)

    class Virtual(real.datetime, metaclass=Kind):
        @classmethod
        def now(cls, tz: real.tzinfo | None = None) -> real.datetime:  # type: ignore[override]
            return real.datetime.fromtimestamp(cloud.clock.time(), tz)

    return Virtual


def _module(original: Any, cloud: LocalCloud) -> Any:
    return SimpleNamespace(**{**vars(original), "datetime": _class(None, cloud)})


PATCHES = tuple(
    Patch(owner, "datetime", "Every timestamp a service writes comes from the same clock.", make)
    for owner, make in (("moto.core.utils", _module), ("moto.s3.models", _module), ("moto.cloudwatch.models", _class))
)
