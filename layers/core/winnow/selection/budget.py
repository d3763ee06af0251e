"""How large the next batch is: what the labelers can take, and never more than the money covers."""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal
from typing import Literal

from winnow.errors import ConfigError

Reason = Literal["full", "throughput", "backlog", "queue-age", "budget", "pool"]
"""What decided the size: nothing held it back, or what did."""


@dataclass(frozen=True)
class BatchRules:
    """Bounds of one batch, with their reasons."""

    minimum: int = 10
    """A smaller batch is not worth a labeling job."""
    maximum: int = 100
    """A larger one is chosen by a model that would have learned better from half of it."""
    hours_ahead: float = 24.0
    """Work that may lie before the labelers: enough that they never wait, little enough that it is not stale."""
    oldest_hours: float = 48.0
    """When the oldest open item has waited longer, more items only make the wait longer."""

    def __post_init__(self) -> None:
        if not 1 <= self.minimum <= self.maximum:
            raise ConfigError(f"batch sizes {self.minimum}..{self.maximum} must be 1 or more, the minimum not above")
        if self.hours_ahead <= 0.0 or self.oldest_hours <= 0.0:
            raise ConfigError("hours_ahead and oldest_hours must be above 0")


@dataclass(frozen=True)
class BatchSize:
    """Items to ask, 0 to wait, and what decided it."""

    size: int
    reason: Reason


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


def batch_size(
    rules: BatchRules,
    *,
    budget_left: Decimal,
    price: Decimal,
    available: int,
    open_items: int = 0,
    labels_per_hour: float | None = None,
    oldest_hours: float = 0.0,
) -> BatchSize:
    """Size of the next batch, between the minimum and the maximum, or 0 when it should wait.

    With a measured throughput the items before the labelers (open ones included) last at most `hours_ahead`; without
    one the batch is as large as allowed. `available` is what the pool can offer. The size times the price never exceeds
    the money left: when not even the minimum is covered, nothing is asked.

    >>> rules, money = BatchRules(minimum=10, maximum=100, hours_ahead=24), Decimal(100)
    >>> batch_size(rules, budget_left=money, price=Decimal("0.24"), available=900, open_items=20, labels_per_hour=3)
    BatchSize(size=52, reason='throughput')
    >>> batch_size(rules, budget_left=Decimal(2), price=Decimal("0.24"), available=900)
    BatchSize(size=0, reason='budget')
    """
    if open_items > 0 and oldest_hours > rules.oldest_hours:
        return BatchSize(0, "queue-age")
    size = rules.maximum
    reason: Reason = "full"
    if labels_per_hour is not None:
        room = int(labels_per_hour * rules.hours_ahead) - open_items
        if room < rules.minimum and open_items > 0:
            return BatchSize(0, "backlog")
        if room < size:
            size, reason = max(room, rules.minimum), "throughput"
    if available < size:
        size, reason = available, "pool"
    covered = affordable(size, left=budget_left, price=price)
    if covered < size:
        size, reason = covered, "budget"
    return BatchSize(size if size >= rules.minimum else 0, reason)
