"""Measures two ways of doing the same thing, in turn, so that a busy machine slows both."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

HEAD = f"{'what':<52} {'ours':>12}  {'reference':>12}  {'ratio':>9}  {'limit':>6}        reference"

_SHORT_MS = 150.0


@dataclass(frozen=True)
class Result:
    """A figure beside its reference, both in `unit`, and the largest ratio that passes, where there is one.

    `ratio` is ours by the reference: below 1 is faster or smaller, and for a copy it says how many copies.
    """

    name: str
    reference: str
    ours: float
    theirs: float
    unit: str = "ms"
    limit: float | None = None
    note: str = ""

    @property
    def ratio(self) -> float:
        return self.ours / self.theirs

    @property
    def verdict(self) -> str:
        if self.limit is None:
            return ""
        return "PASS" if self.ratio <= self.limit else "over"

    def line(self) -> str:
        limit = "" if self.limit is None else f"{self.limit:g} x"
        return (
            f"{self.name:<52} {self.ours:9.1f} {self.unit}  {self.theirs:9.1f} {self.unit}  {self.ratio:7.3g} x  "
            f"{limit:>6}  {self.verdict:<4}  {self.reference}{f'; {self.note}' if self.note else ''}"
        )

    def body(self) -> dict[str, Any]:
        """For --json."""
        return {**asdict(self), "ratio": self.ratio, "verdict": self.verdict}


def against(
    name: str,
    ours: Callable[[], object],
    reference: Callable[[], object],
    *,
    called: str,
    note: str = "",
    limit: float | None = None,
    repeats: int = 9,
) -> Result:
    """Both run once to warm up (unless once is all), then `repeats` times in turn; the medians of CPU time count."""
    if repeats > 1:
        repeats = often(repeats, milliseconds(ours))
        reference()
    taken = [(milliseconds(ours), milliseconds(reference)) for _ in range(repeats)]
    median, theirs = (statistics.median(times) for times in zip(*taken, strict=True))
    return Result(name, called, median, theirs, limit=limit, note=note)


def often(repeats: int, once: float) -> int:
    """Ten times as often for what takes fewer than `_SHORT_MS` milliseconds: a busy moment covers all of few repeats."""
    return 10 * repeats if once < _SHORT_MS else repeats


def milliseconds(act: Callable[[], object]) -> float:
    """CPU time of one call: with one thread it is the time on a machine that does nothing else."""
    started = time.process_time()
    act()
    return 1000.0 * (time.process_time() - started)
