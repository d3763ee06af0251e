"""`winnow local up`: how virtual time follows the real one."""

from __future__ import annotations

import time
from types import SimpleNamespace
from typing import Any

import pytest

from winnow_cli import local


def test_virtual_time_follows_real_time_at_its_speed() -> None:
    passed: list[float] = []

    def advance(*, hours: float) -> None:
        passed.append(hours * 3600)
        if len(passed) == 3:
            raise KeyboardInterrupt

    cloud: Any = SimpleNamespace(advance=advance)
    started = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        local.follow(cloud, speed=3600)

    assert sum(passed) == pytest.approx((time.monotonic() - started) * 3600, rel=0.2)
