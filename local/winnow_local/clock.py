"""The virtual clock: time moves only when nothing is left to do, so weeks of waiting cost nothing and no wait is guessed.

Who drives (`run`) does everything in the driving thread, one after the other: *tasks* first, in their order, then the
next *timer*, when it is due. Work with waits in it is a *process* (`start`). Other threads, such as those of the HTTP
door, may appoint both at any time, and hold `busy()` while time has to stand still.
"""

from __future__ import annotations

import heapq
import itertools
import math
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime

Action = Callable[[], object]
PATIENCE_SECONDS = 1.0


@dataclass(eq=False, slots=True)
class Timer:
    """One appointment; it is not `live` once it ran or was cancelled."""

    clock: VirtualClock
    when: float
    action: Action
    background: bool
    live: bool = True

    def by(self, when: float) -> Timer:
        """The same appointment, or one at `when` in its stead where it would come later or is over."""
        if self.live and self.when <= when:
            return self
        self.cancel()
        return self.clock.call_at(when, self.action, background=self.background)

    def cancel(self) -> None:
        self.live = False


class VirtualClock:
    """Virtual time since `start`."""

    def __init__(self, start: datetime) -> None:
        self._now = start.timestamp()
        self._heap, self._order = list[tuple[float, int, Timer]](), itertools.count()
        self._changed, self._busy, self._driven = threading.Condition(), 0, False

    def time(self) -> float:
        """Virtual seconds since the epoch."""
        return self._now

    def now(self) -> datetime:
        """The same as an aware datetime in UTC."""
        return datetime.fromtimestamp(self._now, UTC)

    def call_at(self, when: float, action: Action, *, background: bool = False) -> Timer:
        """Run `action` at `when`; a background timer does not keep `run` going by itself."""
        timer = Timer(self, when, action, background)
        with self._changed:
            heapq.heappush(self._heap, (when, next(self._order), timer))
        return timer

    def call_later(self, delay: float, action: Action, *, background: bool = False) -> Timer:
        return self.call_at(self._now + delay, action, background=background)

    def spawn(self, work: Action) -> None:
        """Run `work` as a task: after what is under way, before time moves and before any timer."""
        self.call_at(-math.inf, work)

    def start(self, process: Iterator[float]) -> Action:
        """Run a generator in stretches, each a task: it yields how many seconds it waits. Gives what ends a wait early."""
        rest: Timer | None = None

        def stretch() -> None:
            nonlocal rest
            if (seconds := next(process, None)) is not None:
                rest = self.call_later(seconds, stretch)

        def wake() -> None:
            if rest and rest.live:
                rest.cancel()
                self.spawn(stretch)

        self.spawn(stretch)
        return wake

    @contextmanager
    def busy(self) -> Iterator[None]:
        """Another thread works: virtual time stands still, but not for ever when others follow without a break."""
        with self._changed:
            self._busy += 1
        try:
            yield
        finally:
            with self._changed:
                self._busy -= 1
                self._changed.notify_all()

    def run(self, until: float | None = None, condition: Callable[[], bool] | None = None) -> bool:
        """Drive until the moment `until`, until `condition` (asked whenever time is about to move) holds, or without `until`
        until only background is left. Returns whether the condition held (without one: True)."""
        if self._driven:
            raise RuntimeError("somebody drives this clock already")
        self._driven, limit, asked = True, math.inf if until is None else until, -math.inf
        try:
            while True:
                with self._changed:
                    self._changed.wait_for(lambda: not self._busy, timeout=PATIENCE_SECONDS)
                    while self._heap and not self._heap[0][2].live:
                        heapq.heappop(self._heap)
                    due, _, timer = self._heap[0] if self._heap else (math.inf, 0, None)
                    idle = until is None and all(one.background or not one.live for _, _, one in self._heap)
                if condition and due > self._now and due != asked:
                    asked = due
                    if condition():
                        return True
                elif timer is None or due > limit or idle:
                    self._now = max(self._now, until or 0.0)
                    return condition is None
                else:
                    timer.cancel()
                    self._now = max(self._now, due)
                    timer.action()
        finally:
            self._driven = False
