"""The system clock. The local cloud replaces `_time` to make days pass in seconds; nothing else reads the time."""

from __future__ import annotations

import time
from datetime import UTC, datetime

_time = time.time


class SystemClock:
    def now(self) -> datetime:
        return datetime.fromtimestamp(_time(), UTC)
