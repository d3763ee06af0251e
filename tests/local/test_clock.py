"""The virtual clock: order, idleness, and who may move it."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from datetime import UTC, datetime

import pytest

from winnow_local.clock import VirtualClock

START = datetime(2026, 3, 1, tzinfo=UTC)


@pytest.fixture
def clock() -> VirtualClock:
    return VirtualClock(START)


def test_timers_run_in_order_of_time_then_of_booking(clock: VirtualClock) -> None:
    seen: list[tuple[str, float]] = []
    for name, delay in [("b", 60), ("a", 5), ("c", 60)]:
        clock.call_later(delay, lambda name=name: seen.append((name, clock.time() - START.timestamp())))

    assert clock.run()

    assert seen == [("a", 5.0), ("b", 60.0), ("c", 60.0)]


def test_a_process_waits_while_time_moves_and_others_work(clock: VirtualClock) -> None:
    seen: list[tuple[str, float]] = []

    def process(name: str, seconds: float) -> Iterator[float]:
        seen.append((f"{name} starts", clock.time() - START.timestamp()))
        yield seconds
        seen.append((f"{name} ends", clock.time() - START.timestamp()))

    clock.start(process("slow", 3600))
    clock.start(process("quick", 60))
    clock.run()

    assert seen == [("slow starts", 0.0), ("quick starts", 0.0), ("quick ends", 60.0), ("slow ends", 3600.0)]


def test_a_process_that_is_woken_goes_on_before_time_does(clock: VirtualClock) -> None:
    seen: list[float] = []

    def process() -> Iterator[float]:
        for seconds in (7200, 1):
            yield seconds
            seen.append(clock.time() - START.timestamp())

    wake = clock.start(process())
    wake()  # nothing to wake from yet
    for moment in (600, 900):
        clock.call_later(moment, wake)
    clock.run()

    assert seen == [600.0, 601.0]
    assert clock.time() - START.timestamp() == 900


def test_tasks_run_in_their_order_before_any_timer(clock: VirtualClock) -> None:
    seen: list[str] = []

    def work() -> None:
        clock.spawn(lambda: seen.append("inner"))
        seen.append("outer")

    clock.call_later(0, lambda: seen.append("timer"))
    clock.spawn(work)
    clock.spawn(lambda: seen.append("next"))
    clock.run()

    assert seen == ["outer", "next", "inner", "timer"]


def test_time_stands_still_while_another_thread_is_busy(clock: VirtualClock) -> None:
    seen: list[float] = []
    entered = threading.Event()

    def request() -> None:
        with clock.busy():
            entered.set()
            threading.Event().wait(0.2)
            seen.append(clock.time() - START.timestamp())

    thread = threading.Thread(target=request)
    thread.start()
    entered.wait()
    clock.run(until=START.timestamp() + 60)
    thread.join()

    assert seen == [0.0]


def test_threads_that_are_always_busy_do_not_stop_time(clock: VirtualClock, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("winnow_local.clock.PATIENCE_SECONDS", 0.01)

    with clock.busy():
        clock.run(until=START.timestamp() + 60)

    assert clock.time() - START.timestamp() == 60


def test_background_timers_fire_on_the_way_but_keep_nothing_going(clock: VirtualClock) -> None:
    ticks: list[float] = []

    def tick() -> None:
        ticks.append(clock.time() - START.timestamp())
        clock.call_later(60, tick, background=True)

    clock.call_later(60, tick, background=True)
    clock.call_later(150, lambda: None)
    clock.run()

    assert ticks == [60.0, 120.0]


def test_until_is_reached_exactly_and_a_cancelled_timer_is_gone(clock: VirtualClock) -> None:
    seen: list[str] = []
    clock.call_later(10, lambda: seen.append("cancelled")).cancel()
    clock.call_later(3600, lambda: seen.append("too late"))

    clock.run(until=START.timestamp() + 100)

    assert (seen, clock.time() - START.timestamp()) == ([], 100.0)


def test_a_condition_ends_the_run(clock: VirtualClock) -> None:
    seen: list[int] = []
    for n in range(5):
        clock.call_later(n + 1, lambda n=n: seen.append(n))

    assert clock.run(condition=lambda: len(seen) == 2)

    assert seen == [0, 1]
    assert not clock.run(condition=lambda: False)


def test_what_a_task_raises_the_driver_raises(clock: VirtualClock) -> None:
    clock.spawn(lambda: 1 / 0)

    with pytest.raises(ZeroDivisionError):
        clock.run()


def test_what_the_clock_runs_must_not_drive_it(clock: VirtualClock) -> None:
    clock.call_later(1, clock.run)

    with pytest.raises(RuntimeError, match="drives this clock already"):
        clock.run()
