from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from winnow.errors import ConfigError
from winnow.selection.budget import BatchRules, BatchSize, affordable, batch_size

RULES = BatchRules(minimum=10, maximum=100, hours_ahead=24, oldest_hours=48)
MONEY = st.decimals(min_value=0, max_value=10_000, places=3)


@pytest.mark.parametrize(
    ("wanted", "left", "price", "expected"),
    [
        (100, "24.00", "0.24", 100),
        (100, "23.99", "0.24", 99),
        (3, "0.3", "0.1", 3),  # in binary floating point 3 x 0.1 > 0.3
        (100, "0", "0.24", 0),
        (100, "-5", "0.24", 0),
        (100, "0", "0", 100),
        (0, "10", "0.24", 0),
        (-3, "10", "0.24", 0),
    ],
)
def test_the_money_left_covers_what_is_asked(wanted: int, left: str, price: str, expected: int) -> None:
    assert affordable(wanted, left=Decimal(left), price=Decimal(price)) == expected


@given(wanted=st.integers(0, 5000), left=MONEY, price=MONEY)
def test_money_committed_never_exceeds_the_money_left_and_no_affordable_item_is_refused(
    wanted: int, left: Decimal, price: Decimal
) -> None:
    items = affordable(wanted, left=left, price=price)

    assert items * price <= left
    assert items == wanted or (items + 1) * price > left


@pytest.mark.parametrize(("left", "price"), [("1", "-0.1"), ("NaN", "1"), ("1", "Infinity")])
def test_money_that_is_no_amount_is_refused(left: str, price: str) -> None:
    with pytest.raises(ConfigError, match="must be finite"):
        affordable(1, left=Decimal(left), price=Decimal(price))


@pytest.mark.parametrize(
    ("state", "expected"),
    [
        ({}, BatchSize(100, "full")),
        ({"labels_per_hour": 10.0}, BatchSize(100, "full")),
        ({"labels_per_hour": 2.0}, BatchSize(48, "throughput")),
        ({"labels_per_hour": 2.0, "open_items": 20}, BatchSize(28, "throughput")),
        ({"labels_per_hour": 2.0, "open_items": 40}, BatchSize(0, "backlog")),
        ({"labels_per_hour": 0.1}, BatchSize(10, "throughput")),
        ({"open_items": 1, "oldest_hours": 49.0}, BatchSize(0, "queue-age")),
        ({"open_items": 0, "oldest_hours": 49.0}, BatchSize(100, "full")),
        ({"available": 30}, BatchSize(30, "pool")),
        ({"available": 9}, BatchSize(0, "pool")),
        ({"budget_left": Decimal(5)}, BatchSize(20, "budget")),
        ({"budget_left": Decimal(2)}, BatchSize(0, "budget")),
    ],
)
def test_what_decides_the_size_is_named(state: dict[str, Any], expected: BatchSize) -> None:
    given: dict[str, Any] = {"budget_left": Decimal(1000), "price": Decimal("0.25"), "available": 500, **state}

    assert batch_size(RULES, **given) == expected


@given(
    left=MONEY, price=MONEY, available=st.integers(0, 300), open_items=st.integers(0, 300),
    pace=st.none() | st.floats(0, 50), oldest=st.floats(0, 100),
)  # fmt: skip
def test_a_batch_is_within_its_bounds_and_its_money(
    left: Decimal, price: Decimal, available: int, open_items: int, pace: float | None, oldest: float
) -> None:
    size = batch_size(
        RULES,
        budget_left=left,
        price=price,
        available=available,
        open_items=open_items,
        labels_per_hour=pace,
        oldest_hours=oldest,
    ).size

    assert size == 0 or RULES.minimum <= size <= min(RULES.maximum, available)
    assert size * price <= left


@pytest.mark.parametrize("wrong", [{"minimum": 0}, {"minimum": 101}, {"hours_ahead": 0.0}, {"oldest_hours": -1.0}])
def test_rules_that_contradict_themselves_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ConfigError):
        BatchRules(**wrong)
