"""What the figures say, in words: which strategy and batch size pays and how sure that is, or that none does."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from winnow_cli.simulate.statistics import LEVEL, Interval, Summary, compared, needed, ratio
from winnow_cli.simulate.strategies import DEFAULT, RANDOM
from winnow_cli.simulate.trial import Outcome

Verdict = Literal["use", "do not use", "not separated"]

WORTH = 0.9
"""A strategy that cannot save a tenth of the labels is not worth its loop: a ratio whose whole interval lies above."""
LEAST_SEEDS = 3
"""With fewer an interval over seeds is a matter of luck."""
MOST_OF_POOL = 0.5
"""Share of the pool above which so much is labeled that there is little left to choose from."""


@dataclass(frozen=True)
class Comparison:
    """All strategies at one batch size."""

    batch: int
    initial: int
    pool: int
    targets: tuple[float, ...]
    """The level to reach, for each seed."""
    outcomes: Mapping[str, Sequence[Outcome]]
    """By strategy, one a seed, in the order of the seeds."""
    summaries: Mapping[str, Summary]

    @property
    def random(self) -> Summary:
        return self.summaries[RANDOM]

    @property
    def others(self) -> list[Summary]:
        return [one for name, one in self.summaries.items() if name != RANDOM]

    def proven(self) -> list[Summary]:
        """Strategies that save labels even at the level that comparing so many asks for, the thriftiest first.

        Source: Holm, A Simple Sequentially Rejective Multiple Test Procedure, 1979.
        """
        found: list[Summary] = []
        while left := [one for one in self.others if one not in found]:
            level = 1.0 - (1.0 - LEVEL) / len(left)
            highest = {one.name: self.compared(one.name, level=level).high for one in left}
            more = [one for one in left if (high := highest[one.name]) is not None and high < 1.0]
            if not more:
                break
            found += more
        return sorted(found, key=lambda one: one.labels_to_target or 0.0)

    def compared(self, name: str, *, level: float) -> Interval:
        """Labels to the target divided by random's, at a level of confidence."""
        return compared(self.outcomes[name], self.outcomes[RANDOM], targets=self.targets, level=level)

    def best(self) -> Summary | None:
        """The proven strategy to take: `default`, unless another one needs clearly fewer labels."""
        found = self.proven()
        default = next((one for one in found if one.name == DEFAULT), None)
        if not found or default is None or found[0] is default:
            return found[0] if found else None
        against = ratio(self.labels(found[0].name), self.labels(DEFAULT))
        return found[0] if against.high is not None and against.high < 1.0 else default

    def labels(self, name: str) -> list[float]:
        """Labels to the target for each seed."""
        return needed(self.outcomes[name], targets=self.targets)[0]


@dataclass(frozen=True)
class Advice:
    """The verdict, its sentences, and which strategy and batch size it is about."""

    verdict: Verdict
    text: str
    strategy: str | None = None
    batch: int | None = None
    saved: Interval | None = None
    """Labels saved until the target."""

    def to_json(self) -> dict[str, Any]:
        return {
            "verdict": self.verdict, "strategy": self.strategy, "batch": self.batch,
            "labels_saved": None if self.saved is None else self.saved.to_json(),
        }  # fmt: skip


def advise(comparisons: Sequence[Comparison], *, shown: str, price: float | None) -> Advice:
    """Advice from comparisons, one a batch size; `shown` is the target in words, `price` what a label costs."""
    first = comparisons[0]
    seeds = first.random.seeds
    at_once = [one for one in comparisons if max(one.labels(RANDOM)) <= one.initial]
    if at_once and all(one.random.reached == one.random.seeds for one in at_once):
        return Advice(
            "do not use",
            f"Do not use active learning here: {first.initial} random labels already reach {shown}. Label a random sample, or "
            "ask for more with --target.",
        )
    if seeds < LEAST_SEEDS:
        return Advice(
            "not separated",
            f"Not separated: fewer than {LEAST_SEEDS} seeds say nothing about chance. Run more (--seeds 5).",
        )
    best = [(one, found) for one in comparisons if (found := one.best()) is not None]
    if not best:
        return _none(comparisons, shown=shown)
    chosen, found = _batch(best)
    saved = _saved(found.ratio, of=float(np.mean(chosen.labels(RANDOM))))
    text = [
        f"Use {found.name} with batches of {chosen.batch}: {shown} takes {found.labels_to_target:.0f} labels instead of "
        f"{chosen.random.labels_to_target:.0f} chosen at random, {_share(found.ratio)}."
        if chosen.random.labels_to_target is not None
        else f"Use {found.name} with batches of {chosen.batch}: {shown} takes {found.labels_to_target:.0f} labels, and random "
        f"choice does not get there with {chosen.outcomes[RANDOM][0].labels[-1]}."
    ]
    at_least = " at least" if chosen.random.reached < seeds else ""
    text.append(f"That saves{at_least} {_labels(saved, price)}.")
    if chosen.random.reached < seeds:
        text.append(
            f"Random choice reaches it in {chosen.random.reached} of {seeds} seeds; the others count with the whole budget, "
            "which makes the saving look smaller than it is."
        )
    if (found.labels_to_target or 0.0) > MOST_OF_POOL * chosen.pool:
        text.append(
            f"But that is more than half of the {chosen.pool} records it could choose from: with so little choice the figure "
            "says little about a large pool. Simulate on a larger labeled sample."
        )
    level = [one.name for one in chosen.proven() if one is not found and _level(chosen, one.name, found.name)]
    if level:
        text.append(f"{_listed(level)} {'is' if len(level) == 1 else 'are'} level with it.")
    if len(comparisons) > 1:
        text.append(_batches(best, chosen))
    return Advice("use", " ".join(text), found.name, chosen.batch, saved)


def _none(comparisons: Sequence[Comparison], *, shown: str) -> Advice:
    """No strategy is proven to save labels: either none can save much, or the seeds are too few to tell."""
    first = comparisons[0]
    open_still = [
        (one, found) for one in comparisons for found in one.others
        if found.ratio.low is None or found.ratio.low < WORTH
    ]  # fmt: skip
    hopeful = [(one, found) for one, found in open_still if (found.ratio.value or 2.0) < 1.0]
    if hopeful:
        one, found = min(hopeful, key=lambda pair: pair[1].ratio.value or 2.0)
        high = one.compared(found.name, level=1.0 - (1.0 - LEVEL) / len(one.others)).high
        bound = "no upper bound" if high is None else f"{high:.2f} possible"
        reached = (
            "" if found.reached == found.seeds else f", which it reaches in {found.reached} of {found.seeds} seeds,"
        )
        return Advice(
            "not separated",
            f"Not separated: {found.name} needs {found.ratio.value:.2f} times random's labels to {shown}{reached} but the "
            f"seeds leave {bound} with {len(one.others)} compared. Run more seeds (--seeds {2 * found.seeds}), or take it "
            "that active learning saves nothing here.",
        )
    pool, most = first.pool, first.random.labels_to_target
    if most is not None and most > MOST_OF_POOL * pool:
        why = (
            f"random choice needs {most:.0f} of the {pool} records that there are, so there is little to choose from; "
            "with a larger pool that may be otherwise"
        )
    else:
        why = "; ".join(f"{one.name} {_times(one)}" for one in first.others) or "only random choice was tried"
        why = f"of random's labels to {shown}, {why}"
    return Advice("do not use", f"Do not use active learning here: {why}. Label a random sample.")


def _times(one: Summary) -> str:
    if one.ratio.value is None:
        return "never reaches it"
    bounds = "" if one.ratio.low is None else f" ({one.ratio.low:.2f} to {_upper(one.ratio)})"
    return f"needs {one.ratio.value:.2f} times as many{bounds}"


def _upper(found: Interval) -> str:
    return "unknown" if found.high is None else f"{found.high:.2f}"


def _share(found: Interval) -> str:
    assert found.value is not None  # a proven strategy
    assert found.low is not None
    assert found.high is not None
    return f"{found.value:.2f} times as many (95 % interval {found.low:.2f} to {found.high:.2f})"


def _labels(saved: Interval, price: float | None) -> str:
    assert saved.value is not None
    bounds = "" if saved.low is None or saved.high is None else f" ({saved.low:.0f} to {saved.high:.0f})"
    money = "" if price is None else f", {saved.value * price:,.2f} in money at {price:g} a label"
    return f"{saved.value:.0f} labels{bounds}{money}"


def _saved(found: Interval, *, of: float) -> Interval:
    """Labels saved of so many, from the ratio of a proven strategy."""
    value, low, high = (None if bound is None else (1.0 - bound) * of for bound in (found.value, found.high, found.low))
    return Interval(value, low, high)


def _level(comparison: Comparison, name: str, other: str) -> bool:
    found = ratio(comparison.labels(name), comparison.labels(other))
    return found.low is None or found.low <= 1.0


def _batch(best: Sequence[tuple[Comparison, Summary]]) -> tuple[Comparison, Summary]:
    """The largest batch that is not clearly dearer than the cheapest: fewer rounds mean less waiting."""
    thrifty, summary = min(best, key=lambda pair: pair[1].labels_to_target or 0.0)
    level = []
    for one, found in best:
        against = ratio(one.labels(found.name), thrifty.labels(summary.name))
        if one is thrifty or against.low is None or against.low <= 1.0:
            level.append((one, found))
    return max(level, key=lambda pair: pair[0].batch)


def _batches(best: Sequence[tuple[Comparison, Summary]], chosen: Comparison) -> str:
    said = ", ".join(f"{one.batch}: {found.labels_to_target:.0f} labels with {found.name}" for one, found in best)
    cheapest = min(float(np.mean(one.labels(found.name))) for one, found in best)
    ours = next(found for one, found in best if one is chosen)
    why = (
        "the thriftiest is also the largest one tried that is not clearly dearer"
        if float(np.mean(chosen.labels(ours.name))) <= cheapest
        else f"{chosen.batch} is the largest that is not clearly dearer than the thriftiest, and means fewer rounds"
    )
    return f"By batch size ({said}): {why}."


def _listed(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
