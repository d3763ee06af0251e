"""Learning curves whose truth is known: what further labels add, and when to stop paying for them."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import numpy as np
import pytest

from winnow.selection.stopping import Point, assess, expected_gain

SIZES = range(100, 1100, 100)
CURVES: dict[str, Callable[[float], float]] = {
    "power": lambda n: 0.92 - 1.5 * n**-0.5,
    "exponential": lambda n: 0.9 - 0.5 * float(np.exp(-n / 250)),
}


def measured(truth: Callable[[float], float], *, error: float, seed: int = 0, sizes: range = SIZES) -> list[Point]:
    rng = np.random.default_rng(seed)
    return [Point(n, truth(n) + float(rng.normal(0.0, error)), error) for n in sizes]


@pytest.mark.parametrize("name", sorted(CURVES))
@pytest.mark.parametrize("error", [0.005, 0.02])
def test_the_interval_holds_the_true_gain_about_as_often_as_it_says(name: str, error: float) -> None:
    truth = CURVES[name]
    added = truth(1100) - truth(1000)
    found = [expected_gain(measured(truth, error=error, seed=seed), further=100) for seed in range(30)]

    held = sum(one is not None and one.low <= added <= one.high for one in found)

    assert held >= 18  # 24 of 30 by the name of an 80 % interval
    assert np.mean([one.value for one in found if one is not None]) == pytest.approx(added, abs=0.004)


def test_without_noise_the_gain_is_the_curves() -> None:
    truth = CURVES["power"]

    found = expected_gain(measured(truth, error=0.0), further=500)

    assert found is not None
    assert found.value == pytest.approx(truth(1500) - truth(1000), rel=0.05)


def test_a_steep_curve_is_worth_its_price_and_a_flat_one_is_not() -> None:
    steep = measured(lambda n: 0.95 - 0.6 * float(np.exp(-n / 1500)), error=0.01)
    flat = measured(lambda _: 0.9, error=0.01)

    going, over = (assess(points, further=100, now=1000, usd=24.0, worth_usd=30.0) for points in (steep, flat))

    # 0.6 (exp(-1000/1500) - exp(-1100/1500)) is 2.0 points, against 0.8 points that $24 would have to buy.
    assert not going.stop
    assert going.gain == pytest.approx(2.0, abs=0.5)
    assert over.stop
    assert over.gain is not None
    assert over.gain < 0.4
    assert over.chance is not None
    assert over.chance < 0.2
    assert "chance of being worth it" in over.reason
    assert "--anyway" in over.remedy
    assert over.gain_per_label == pytest.approx(over.gain / 100)


def test_a_line_that_rises_straight_goes_on() -> None:
    found = expected_gain(measured(lambda n: 0.3 + 0.0005 * n, error=0.005), further=100)

    assert found is not None
    # 0.05 to come; that curves bend makes it less, never nothing.
    assert 0.025 < found.value < 0.055


def test_the_remedy_names_the_worth_that_would_change_it() -> None:
    flat = measured(lambda _: 0.9, error=0.01)
    told = assess(flat, further=100, now=1000, usd=24.0, worth_usd=1.0)
    named = float(told.remedy.split("a point worth $")[1].split(" ")[0].replace(",", ""))

    assert told.stop
    assert assess(flat, further=100, now=1000, usd=24.0, worth_usd=0.9 * named).stop
    assert not assess(flat, further=100, now=1000, usd=24.0, worth_usd=1.1 * named).stop


@pytest.mark.parametrize("count", [0, 1, 4])
def test_too_few_points_never_stop(count: int) -> None:
    found = assess(measured(lambda _: 0.9, error=0.0)[:count], further=100, now=500, usd=1e6, worth_usd=0.01)

    assert (found.stop, found.gain, found.chance) == (False, None, None)
    assert found.reason == f"{count} sizes were measured, a learning curve needs 5"


def test_measuring_one_size_again_makes_no_curve() -> None:
    again = [Point(100 + 100 * (n % 4), 0.9, 0.01) for n in range(20)]

    assert not assess(again, further=100, now=400, usd=1e6, worth_usd=0.01).stop


def test_without_a_price_nothing_stops_and_the_figures_are_there() -> None:
    found = assess(measured(lambda _: 0.9, error=0.005), further=100, now=1000, usd=24.0, worth_usd=None)

    assert not found.stop
    assert found.gain is not None
    assert "gain_worth_usd is not set" in found.reason


def test_noise_that_hides_the_slope_does_not_stop_what_may_be_worth_it() -> None:
    truth = CURVES["power"]  # 0.22 points for the next 100 labels
    noisy = measured(truth, error=0.05, seed=3)

    found = assess(noisy, further=100, now=1000, usd=24.0, worth_usd=110.0)

    assert found.high is not None
    assert found.low is not None
    assert found.high - found.low > 0.3
    assert not found.stop


def test_gains_that_go_up_and_down_are_read_through() -> None:
    truth = CURVES["power"]
    zigzag = [Point(n, truth(n) + (0.02 if place % 2 else -0.02), 0.02) for place, n in enumerate(SIZES)]

    found = expected_gain(zigzag, further=100)

    assert found is not None
    assert found.low <= truth(1100) - truth(1000) <= found.high


def test_falling_curves_promise_nothing() -> None:
    falling = assess(measured(lambda n: 0.9 - 0.0002 * n, error=0.002), further=100, now=1000, usd=24.0, worth_usd=10.0)

    assert falling.stop
    assert falling.gain == pytest.approx(0.0, abs=0.01)


def test_the_order_of_the_points_changes_nothing() -> None:
    points = measured(CURVES["power"], error=0.01)[:5]
    wanted = expected_gain(points, further=100)
    assert wanted is not None

    for order in itertools.islice(itertools.permutations(points), 0, 120, 17):
        found = expected_gain(list(order), further=100)
        assert found is not None
        assert (found.value, found.low, found.high) == (wanted.value, wanted.low, wanted.high)
