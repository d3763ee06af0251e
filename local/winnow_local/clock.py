"""The virtual clock: time moves only when nobody works, so weeks of waiting cost nothing and no wait is guessed.

*Tasks* (`spawn`) run in threads; while one runs, or anybody holds `busy()`, time stands still. *Timers* run one after
the other in the thread that drives (`run`), each once all before it has settled. Whoever sleeps or waits for a `Signal`
is idle, and busy again before time can move past it. With `speed` the clock follows the real one, that much faster.
"""

from __future__ import annotations

import heapq
import itertools
import math
import threading
import time as real_time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime

Action = Callable[[], object]


@dataclass(eq=False, slots=True)
class Timer:
    """One appointment; `cancel()` is safe at any time, also after it ran."""

    clock: VirtualClock
    when: float
    action: Action
    name: str
    background: bool
    live: bool = True

    def cancel(self) -> None:
        """Take the appointment back."""
        with self.clock.changed:
            self.clock.foreground -= self.live and not self.background
            self.live = False

    def by(self, when: float) -> Timer:
        """The same appointment, or one at `when` in its stead where it would come later or is over."""
        if self.live and self.when <= when:
            return self
        self.cancel()
        return self.clock.call_at(when, self.action, name=self.name, background=self.background)


class Signal:
    """A flag to wait for: waiters are idle, and `set()` makes them busy again before time can move on."""

    def __init__(self, clock: VirtualClock) -> None:
        self._clock, self._on, self._wakes = clock, False, list[Action]()

    def set(self) -> None:
        """Wake every waiter, now and later."""
        with self._clock.changed:
            self._on = True
            for wake in self._wakes:
                wake()

    def wait(self, timeout: float | None = None) -> bool:
        """Block until `set()`, or until `timeout` virtual seconds have passed; True when it was set."""
        clock, awake, held = self._clock, threading.Event(), self._clock.held()

        def wake() -> None:
            with clock.changed:
                if not awake.is_set():
                    clock.shift(*held)
                    awake.set()

        with clock.changed:
            if self._on:
                return True
            self._wakes.append(wake)
            timer = clock.call_later(math.inf if timeout is None else timeout, wake, background=timeout is None)
            clock.shift(*(-share for share in held))
        awake.wait()
        timer.cancel()
        return self._on


class VirtualClock:
    """Virtual time; `parallelism` tasks may run at one moment, sleepers not counted: 1 makes a run repeatable."""

    def __init__(self, start: datetime, *, parallelism: int = 1, speed: float | None = None) -> None:
        self._now, self._speed, self._anchor = start.timestamp(), speed, real_time.monotonic()
        self.changed = threading.Condition(threading.RLock())
        self.foreground = 0
        self._parallelism, self._busy, self._running = parallelism, 0, 0
        self._heap: list[tuple[float, int, Timer]] = []
        self._order, self._here = itertools.count(), threading.local()
        self._ready, self._failures = deque[threading.Thread](), deque[BaseException]()
        self._driver: int | None = None
        self._closed = False

    def time(self) -> float:
        """Virtual seconds since the epoch."""
        return self._now + (real_time.monotonic() - self._anchor) * self._speed if self._speed else self._now

    def now(self) -> datetime:
        """The same as an aware datetime in UTC."""
        return datetime.fromtimestamp(self.time(), UTC)

    def call_at(self, when: float, action: Action, *, name: str = "", background: bool = False) -> Timer:
        """Run `action` in the driving thread at `when`; a background timer does not keep `run` going by itself."""
        timer = Timer(self, when, action, name, background)
        with self.changed:
            heapq.heappush(self._heap, (when, next(self._order), timer))
            self.foreground += not background
            if self._speed:
                self.changed.notify_all()
        return timer

    def call_later(self, delay: float, action: Action, *, name: str = "", background: bool = False) -> Timer:
        """Run `action` in the driving thread `delay` virtual seconds from now."""
        return self.call_at(self.time() + delay, action, name=name, background=background)

    def spawn(self, work: Action, *, name: str = "", apart: bool = False) -> None:
        """Run `work` in another thread, busy from now on; `apart` of `parallelism`. `run` raises what it raises."""
        thread = threading.Thread(target=self._labour, args=(work, int(not apart)), name=name, daemon=True)
        with self.changed:
            if apart:
                thread.start()
            else:
                self._ready.append(thread)
            self.shift(1, 0)

    @contextmanager
    def busy(self) -> Iterator[None]:
        """Work is under way in this thread: virtual time stands still."""
        before = self.held()
        self._here.held = before[0] + 1, before[1]
        self.shift(1, 0)
        try:
            yield
        finally:
            self._here.held = before
            self.shift(-1, 0)

    def sleep(self, seconds: float) -> None:
        """Block the calling thread for virtual seconds; whoever sleeps is idle."""
        if self._driver == threading.get_ident():
            raise RuntimeError("a timer's action must not sleep: spawn what takes time")
        self.signal().wait(seconds)

    def signal(self) -> Signal:
        """A flag whose waiters count as idle."""
        return Signal(self)

    def run(self, until: float | None = None, condition: Callable[[], bool] | None = None) -> bool:
        """Drive: settle, move to the next timer, run it; again until `until`, `condition` or only background is left.

        `condition` is asked whenever time is about to move. Returns whether it held (without one: True).
        """
        with self.changed:
            if self._driver is not None:
                raise RuntimeError("somebody drives this clock already")
            self._driver = threading.get_ident()
        try:
            return self._drive(math.inf if until is None else until, condition, idle=until is None)
        finally:
            self._driver = None

    def close(self) -> None:
        """Drop every timer and stop driving."""
        with self.changed:
            self._closed = True
            self._heap.clear()
            self.changed.notify_all()

    def held(self) -> tuple[int, int]:
        """How busy the calling thread is, and its share of `parallelism`."""
        return getattr(self._here, "held", (0, 0))

    def shift(self, busy: int, running: int) -> None:
        """Count somebody as busy and running, or no longer; what is ready starts as places become free."""
        with self.changed:
            self._busy += busy
            self._running += running
            while self._ready and self._running < self._parallelism:
                self._running += 1
                self._ready.popleft().start()
            if not self._busy:
                self.changed.notify_all()

    def _drive(self, until: float, condition: Callable[[], bool] | None, *, idle: bool) -> bool:
        asked = None
        while not self._closed:
            with self.changed:
                self.changed.wait_for(lambda: not self._busy or bool(self._speed))
                while self._heap and not self._heap[0][2].live:
                    heapq.heappop(self._heap)
                due, _, timer = self._heap[0] if self._heap else (math.inf, 0, None)
            if self._failures:
                raise self._failures.popleft()
            if condition and due != asked:
                asked = due
                if condition():
                    return True
            elif self._speed and self.time() < min(due, until):
                with self.changed:
                    self.changed.wait(min((min(due, until) - self.time()) / self._speed, 1.0))
            elif timer is None or due > until or (idle and not self.foreground):
                if not idle:
                    self._move(until)
                break
            else:
                timer.cancel()
                self._move(due)
                timer.action()
        return condition is None

    def _move(self, when: float) -> None:
        if not self._speed and when > self._now:
            self._now = when

    def _labour(self, work: Action, share: int) -> None:
        self._here.held = 1, share
        try:
            work()
        except BaseException as error:  # noqa: BLE001 - the driver raises it
            self._failures.append(error)
        self.shift(-1, -share)
