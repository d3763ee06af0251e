"""The virtual clock: time moves only when nobody works, so weeks of waiting cost nothing and no wait is guessed.

Three kinds of actors share it. *Tasks* (`spawn`) run in pool threads; while one runs, or anybody holds `busy()`, virtual
time stands still. *Timers* (`call_at`, `call_later`) run one after the other in the thread that drives (`run`), each once
everything before it has settled: a timer's action is short, and spawns what takes longer. *Sleepers* (`sleep`, or `wait`
on a `Signal`) are idle until their time or their signal comes, and are busy again before time can move past it.

With `speed` the clock follows the real one instead, that many virtual seconds for each real second.
"""

from __future__ import annotations

import heapq
import itertools
import queue
import threading
import time as real_time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime


class Timer:
    """One appointment; `cancel()` is safe at any time, also after it ran."""

    __slots__ = ("_clock", "action", "background", "live", "name", "when")

    def __init__(self, clock: VirtualClock, when: float, action: Callable[[], object], *, name: str, background: bool):
        self._clock, self.when, self.action, self.name, self.background = clock, when, action, name, background
        self.live = True

    def cancel(self) -> None:
        """Take the appointment back."""
        self._clock._retire(self)


class Signal:
    """A flag to wait for: waiters are idle, and `set()` makes them busy again before time can move on."""

    def __init__(self, clock: VirtualClock) -> None:
        self._clock, self._on, self._wakes = clock, False, list[Callable[[], None]]()

    def set(self) -> None:
        """Wake every waiter, now and later."""
        with self._clock._changed:
            self._on, wakes, self._wakes = True, self._wakes, []
            for wake in wakes:
                wake()

    def is_set(self) -> bool:
        """Whether `set()` was called."""
        return self._on

    def wait(self, timeout: float | None = None) -> bool:
        """Block until `set()`, or until `timeout` virtual seconds have passed; True when it was set."""
        timers: list[Timer] = []

        def arm(wake: Callable[[], None]) -> None:
            if self._on:
                wake()
                return
            self._wakes.append(wake)
            if timeout is not None:
                timers.append(self._clock.call_later(timeout, wake, name="signal timeout"))

        self._clock._park(arm)
        for timer in timers:
            timer.cancel()
        return self._on


class VirtualClock:
    """Virtual time for one local cloud; the module says who moves it.

    `parallelism` is how many tasks may run at one moment, sleepers not counted: 1 makes a run repeatable.
    """

    def __init__(self, start: datetime, *, parallelism: int = 1, speed: float | None = None) -> None:
        if start.tzinfo is None:
            raise ValueError("the clock's start needs a time zone")
        self._now, self._speed, self._anchor = start.timestamp(), speed, real_time.monotonic()
        self._parallelism = parallelism
        self._changed = threading.Condition(threading.RLock())
        self._heap: list[tuple[float, int, Timer]] = []
        self._order = itertools.count()
        self._foreground = 0
        self._busy = 0
        self._running = 0
        self._ready: deque[Callable[[], object]] = deque()
        self._resting: list[queue.SimpleQueue[Callable[[], object] | None]] = []
        self._failures: list[BaseException] = []
        self._here = threading.local()
        self._driver: int | None = None
        self._closed = False
        self.on_move: list[Callable[[float], None]] = []

    def time(self) -> float:
        """Virtual seconds since the epoch."""
        if self._speed is None:
            return self._now
        return self._now + (real_time.monotonic() - self._anchor) * self._speed

    def now(self) -> datetime:
        """The same as an aware datetime in UTC."""
        return datetime.fromtimestamp(self.time(), UTC)

    def call_at(self, when: float, action: Callable[[], object], *, name: str = "", background: bool = False) -> Timer:
        """Run `action` in the driving thread at `when`; a background timer does not keep `run` going by itself."""
        timer = Timer(self, when, action, name=name, background=background)
        with self._changed:
            heapq.heappush(self._heap, (when, next(self._order), timer))
            self._foreground += not background
            if self._speed is not None:
                self._changed.notify_all()
        return timer

    def call_later(
        self, delay: float, action: Callable[[], object], *, name: str = "", background: bool = False
    ) -> Timer:
        """Run `action` in the driving thread `delay` virtual seconds from now."""
        return self.call_at(self.time() + delay, action, name=name, background=background)

    def spawn(self, work: Callable[[], object], *, name: str = "", apart: bool = False) -> None:
        """Run `work` in another thread, busy from this moment on; `apart` takes no share of `parallelism`.

        What it raises, `run` raises.
        """
        with self._changed:
            self._busy += 1
            if apart:
                threading.Thread(target=self._labour, args=(work, True), name=name or "apart", daemon=True).start()
            else:
                self._ready.append(work)
                self._dispatch()

    @contextmanager
    def busy(self) -> Iterator[None]:
        """Work is under way in this thread: virtual time stands still."""
        self._here.depth = self._depth() + 1
        with self._changed:
            self._busy += 1
        try:
            yield
        finally:
            self._here.depth -= 1
            self._settle_one()

    def sleep(self, seconds: float) -> None:
        """Block the calling thread for virtual seconds; whoever sleeps is idle."""
        if self._speed is None and self._driver is None and not self._depth():
            self.run(until=self.time() + seconds)
            return
        if self._driver == threading.get_ident():
            raise RuntimeError("a timer's action must not sleep: spawn what takes time")
        self._park(lambda wake: self.call_later(seconds, wake, name="sleep"))

    def signal(self) -> Signal:
        """A flag whose waiters count as idle."""
        return Signal(self)

    def run(self, until: float | None = None, condition: Callable[[], bool] | None = None) -> bool:
        """Drive: settle, move to the next timer, run it; again until `until`, `condition` or nothing is left.

        Without `until` it ends when only background timers are left. `condition` is asked whenever time is about to
        move. Returns whether the condition held (without one: True). Raises what a task or a timer raised.
        """
        with self._changed:
            if self._driver is not None:
                raise RuntimeError("somebody drives this clock already")
            self._driver = threading.get_ident()
        try:
            return self._drive(until, condition)
        finally:
            self._driver = None

    def close(self) -> None:
        """Drop every timer and end the resting threads."""
        with self._changed:
            self._closed = True
            self._heap.clear()
            self._foreground = 0
            for rest in self._resting:
                rest.put(None)
            self._resting.clear()
            self._changed.notify_all()

    def _drive(self, until: float | None, condition: Callable[[], bool] | None) -> bool:
        if self._speed is not None:
            return self._follow(until, condition)
        asked_at = float("-inf")
        while not self._closed:
            with self._changed:
                self._changed.wait_for(lambda: not self._busy)
            timer = self._next()
            if condition and (timer is None or timer.when > asked_at):
                asked_at = timer.when if timer else asked_at
                if condition():
                    return True
                if self._busy or self._next() is not timer:
                    continue
            self._raise_failure()
            if timer is None or (not self._foreground if until is None else timer.when > until):
                if until is not None:
                    self._move(until)
                break
            self._perform(timer)
        return condition is None

    def _follow(self, until: float | None, condition: Callable[[], bool] | None) -> bool:
        """The same beside the real clock: wait for each timer's time to come, whoever is busy."""
        while not self._closed and (until is None or self.time() < until):
            self._raise_failure()
            if condition and condition():
                return True
            timer = self._next()
            if timer is not None and timer.when <= self.time():
                self._perform(timer)
                continue
            due = min(timer.when if timer else float("inf"), until or float("inf"))
            with self._changed:
                self._changed.wait(min((due - self.time()) / (self._speed or 1.0), 1.0))
        return condition is None

    def _perform(self, timer: Timer) -> None:
        self._retire(timer)
        self._move(timer.when)
        timer.action()

    def _raise_failure(self) -> None:
        with self._changed:
            if self._failures:
                raise self._failures.pop(0)

    def _next(self) -> Timer | None:
        with self._changed:
            while self._heap and not self._heap[0][2].live:
                heapq.heappop(self._heap)
            return self._heap[0][2] if self._heap else None

    def _retire(self, timer: Timer) -> None:
        with self._changed:
            if timer.live:
                timer.live = False
                self._foreground -= not timer.background

    def _move(self, when: float) -> None:
        if self._speed is None and when > self._now:
            self._now = when
            for tell in self.on_move:
                tell(when)

    def _dispatch(self) -> None:
        while self._ready and self._running < self._parallelism:
            self._running += 1
            work = self._ready.popleft()
            if self._resting:
                self._resting.pop().put(work)
            else:
                threading.Thread(target=self._labour, args=(work, False), name="task", daemon=True).start()

    def _labour(self, work: Callable[[], object] | None, apart: bool) -> None:
        self._here.pooled = not apart
        rest: queue.SimpleQueue[Callable[[], object] | None] = queue.SimpleQueue()
        while work is not None:
            self._here.depth = 1
            try:
                work()
            except BaseException as error:  # noqa: BLE001 - the driver raises it
                with self._changed:
                    self._failures.append(error)
            self._here.depth = 0
            if apart:
                self._settle_one()
                return
            with self._changed:
                if self._ready and self._running <= self._parallelism:
                    work = self._ready.popleft()
                    self._settle_one()
                    continue
                self._running -= 1
                if self._closed:
                    self._settle_one()
                    return
                self._resting.append(rest)
                self._settle_one()
            work = rest.get()

    def _settle_one(self) -> None:
        with self._changed:
            self._busy -= 1
            if not self._busy:
                self._changed.notify_all()

    def _depth(self) -> int:
        return getattr(self._here, "depth", 0)

    def _park(self, arm: Callable[[Callable[[], None]], object]) -> None:
        """Rest, counted as idle, until the `wake` that `arm` was given is called."""
        depth, slot = self._depth(), int(getattr(self._here, "pooled", False))
        awake = threading.Event()

        def wake() -> None:
            with self._changed:
                if not awake.is_set():
                    self._busy += depth
                    self._running += slot
                    awake.set()

        with self._changed:
            arm(wake)
            self._busy -= depth
            self._running -= slot
            self._dispatch()
            if not self._busy:
                self._changed.notify_all()
        awake.wait()
