"""The virtual clock: order, idleness, and who may move it."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from winnow_local.clock import VirtualClock

START = datetime(2026, 3, 1, tzinfo=UTC)


@pytest.fixture
def clock():
    clock = VirtualClock(START)
    yield clock
    clock.close()


def test_timers_run_in_order_of_time_then_of_booking(clock: VirtualClock) -> None:
    seen: list[tuple[str, float]] = []
    for name, delay in [("b", 60), ("a", 5), ("c", 60)]:
        clock.call_later(delay, lambda name=name: seen.append((name, clock.time() - START.timestamp())))

    assert clock.run()

    assert seen == [("a", 5.0), ("b", 60.0), ("c", 60.0)]


def test_time_stands_still_while_a_task_runs_and_moves_while_it_sleeps(clock: VirtualClock) -> None:
    seen: list[tuple[str, float]] = []

    def task(name: str, seconds: float) -> None:
        seen.append((f"{name} starts", clock.time() - START.timestamp()))
        clock.sleep(seconds)
        seen.append((f"{name} ends", clock.time() - START.timestamp()))

    clock.spawn(lambda: task("slow", 3600))
    clock.spawn(lambda: task("quick", 60))
    clock.run()

    assert seen == [("slow starts", 0.0), ("quick starts", 0.0), ("quick ends", 60.0), ("slow ends", 3600.0)]


def test_a_signal_wakes_its_waiter_before_time_moves_on(clock: VirtualClock) -> None:
    flag, seen = clock.signal(), []

    def waiter() -> None:
        seen.append((flag.wait(timeout=7200), clock.time() - START.timestamp()))
        clock.sleep(1)
        seen.append(("after", clock.time() - START.timestamp()))

    clock.spawn(waiter)
    clock.call_later(600, flag.set)
    clock.call_later(900, lambda: seen.append(("later", clock.time() - START.timestamp())))
    clock.run()

    assert seen == [(True, 600.0), ("after", 601.0), ("later", 900.0)]


def test_a_signal_that_never_comes_times_out(clock: VirtualClock) -> None:
    flag, seen = clock.signal(), []
    clock.spawn(lambda: seen.append(flag.wait(timeout=30)))

    clock.run()

    assert seen == [False]
    assert clock.time() - START.timestamp() == 30


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


def test_an_action_must_not_sleep(clock: VirtualClock) -> None:
    clock.call_later(1, lambda: clock.sleep(1))

    with pytest.raises(RuntimeError, match="spawn"):
        clock.run()
