"""How large the next batch is to be: what annotators can answer in time, what the budget lasts for, and what a gain needs to be
seen. Every factor that was looked at gives its reason."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

RECENT = 5
"""Batches and gains that count: older ones tell of another crowd and another model."""
ROUNDS_AHEAD = 3
"""Rounds that the remaining budget should last for: labels that one model chose all at once are worth less than labels that
three chose, each knowing the answers to the one before."""
TIRED = 0.5
"""Share of the labeling objective from which on a queue's age makes batches smaller."""
VISIBLE = 2.0
"""Standard errors a gain should have, so that a round shows whether it helped."""
SMALLEST_STEP = 0.5
"""Share of the configured size below which clear gains do not push: a training for every few labels costs more than it saves."""


@dataclass(frozen=True)
class Gain:
    """What one challenger gained, in points of the metric, with its standard error, by how many new train labels."""

    points: float
    error: float
    labels: int


@dataclass(frozen=True)
class Signs:
    """What is known when a batch is sized. None and empty mean that nothing was measured yet."""

    labels_per_hour: Sequence[float] = ()
    """Of collected batches, oldest first."""
    open_items: int = 0
    """Items that wait for an annotator."""
    oldest_hours: float = 0.0
    """Age of the oldest batch that has some."""
    affordable: int | None = None
    """Items the remaining budget pays for."""
    gains: Sequence[Gain] = ()
    """Of challengers, oldest first."""
    train_share: float = 1.0
    """Share of a batch's items that is trained on; the rest judges."""


@dataclass(frozen=True)
class Pace:
    """The size and the reasons, the one that decided first."""

    size: int
    reasons: tuple[str, ...]


def next_size(signs: Signs, *, least: int, most: int, objective_hours: float) -> Pace:
    """Records the next batch should ask, from `least` to `most`: the smallest that a factor allows.

    Throughput: no more than is answered within `objective_hours` at the median pace of the last batches, less what is open
    already. Age: from half of the objective on, the older the oldest open item, the smaller. Budget: what is left should last
    for three rounds. Gains: as many labels as make the expected gain two standard errors large; with clear gains that is
    few, with noisy ones all of `most`.

    Raises ValueError unless 1 <= least <= most and the objective is above 0.

    >>> next_size(Signs(), least=10, most=100, objective_hours=48.0)
    Pace(size=100, reasons=('100 at most: nothing measured asks for less',))
    >>> slow = Signs(labels_per_hour=[2.0, 1.0, 1.5], open_items=12)
    >>> next_size(slow, least=10, most=100, objective_hours=48.0).reasons[0]
    '60 by throughput: 1.5 labels an hour make 72 in 48 hours, and 12 items are open already'
    """
    if not 1 <= least <= most or objective_hours <= 0.0:
        raise ValueError(f"sizes from {least} to {most} in {objective_hours} hours make no sense")
    found = [
        factor
        for factor in (
            _throughput(signs, objective_hours), _age(signs, most, objective_hours), _budget(signs), _visibility(signs, most)
        )
        if factor is not None
    ]  # fmt: skip
    smallest = sorted((*found, (most, f"{most} at most: nothing measured asks for less")), key=lambda factor: factor[0])
    wanted = smallest[0][0]
    size = min(max(wanted, least), most)
    reasons = [reason for wanted, reason in smallest if wanted < most] or [smallest[0][1]]
    if wanted < least:
        reasons.insert(0, f"{least} at least: a smaller batch is not worth a job")
    reasons += [
        reason for asked, reason in smallest if asked >= most and reason not in reasons and (asked, reason) in found
    ]
    return Pace(size, tuple(reasons))


Factor = tuple[int, str]
"""A size and why it."""


def _throughput(signs: Signs, objective: float) -> Factor | None:
    if not signs.labels_per_hour:
        return None
    rate = median(signs.labels_per_hour[-RECENT:])
    within = math.floor(rate * objective)
    size = max(0, within - signs.open_items)
    waiting = f", and {signs.open_items} items are open already" if signs.open_items else ""
    return size, f"{size} by throughput: {rate:.3g} labels an hour make {within} in {objective:g} hours{waiting}"


def _age(signs: Signs, most: int, objective: float) -> Factor | None:
    if not signs.open_items:
        return None
    age = signs.oldest_hours / objective
    share = min(1.0, max(0.0, (1.0 - age) / (1.0 - TIRED)))
    size = round(most * share)
    return size, f"{size} by queue age: the oldest open item has waited {signs.oldest_hours:.0f} of {objective:g} hours"


def _budget(signs: Signs) -> Factor | None:
    if signs.affordable is None:
        return None
    size = signs.affordable // ROUNDS_AHEAD
    return (
        size,
        f"{size} by budget: what is left pays for {signs.affordable} items, which should last {ROUNDS_AHEAD} rounds",
    )


def _visibility(signs: Signs, most: int) -> Factor | None:
    gains = [gain for gain in signs.gains if gain.labels > 0 and gain.error > 0.0][-RECENT:]
    if not gains:
        return None
    weights = [(gain.labels / gain.error) ** 2 for gain in gains]
    rate = sum(
        weight * gain.points / gain.labels for weight, gain in zip(weights, gains, strict=True)
    ) / sum(weights)  # fmt: skip
    error = median(gain.error for gain in gains)
    told = f"gains of {100 * rate:.2f} points for 100 labels, measured to {error:.1f}"
    if rate <= 0.0:
        return most, f"{most} by gains: {told}, show nothing yet in smaller batches"
    needed = math.ceil(VISIBLE * error / rate / max(signs.train_share, 0.01))
    size = min(most, max(needed, math.ceil(SMALLEST_STEP * most)))
    seen = "are seen" if needed < most else "need as many to be seen"
    return size, f"{size} by gains: {told}, {seen}"
