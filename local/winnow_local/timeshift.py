"""Virtual time inside moto: what asks for the time of day gets the cloud's clock."""

from __future__ import annotations

import datetime as real
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from .patches import Patch

if TYPE_CHECKING:
    from .clock import VirtualClock
    from .cloud import LocalCloud


def virtual_datetime(clock: VirtualClock) -> type[real.datetime]:
    """The datetime class with `now` read from the clock; real datetimes count as its instances."""

    class Kind(type):
        def __instancecheck__(cls, instance: object) -> bool:
            return isinstance(instance, real.datetime)

    class Virtual(real.datetime, metaclass=Kind):
        @classmethod
        def now(cls, tz: real.tzinfo | None = None) -> real.datetime:  # type: ignore[override]
            return real.datetime.fromtimestamp(clock.time(), tz)

    return Virtual


def _class(_: Any, cloud: LocalCloud) -> Any:
    return virtual_datetime(cloud.clock)


def _module(original: Any, cloud: LocalCloud) -> Any:
    return SimpleNamespace(**{**vars(original), "datetime": virtual_datetime(cloud.clock)})


_WHY = "Every timestamp a service writes comes from the same clock."
PATCHES = (
    Patch("moto.core.utils", "datetime", _WHY, _module),
    Patch("moto.s3.models", "datetime", _WHY, _module),
    Patch("moto.cloudwatch.models", "datetime", _WHY, _class),
)
