"""What the money left covers."""

from __future__ import annotations

from decimal import Decimal

from winnow.errors import ConfigError


def affordable(wanted: int, *, left: Decimal, price: Decimal) -> int:
    """How many of the wanted items the money left covers; exact, because money is Decimal. 0 when nothing is left.

    Raises ConfigError for a negative price or a value that is not a number.

    >>> affordable(100, left=Decimal("7.23"), price=Decimal("0.24"))
    30
    >>> affordable(100, left=Decimal("-1"), price=Decimal("0.24"))
    0
    """
    if not left.is_finite() or not price.is_finite() or price < 0:
        raise ConfigError(f"price {price} and money left {left} must be finite, and the price not negative")
    if wanted <= 0 or left < 0:
        return 0
    if price == 0 or price * wanted <= left:
        return wanted
    return int(left // price)
