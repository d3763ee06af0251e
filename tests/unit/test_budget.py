from __future__ import annotations

from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from winnow.errors import ConfigError
from winnow.selection.budget import affordable

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
