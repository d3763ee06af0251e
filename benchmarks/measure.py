"""Times two ways of doing the same thing, in turn, so that a busy machine slows both."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Result:
    """Medians in milliseconds. `ratio` is ours by reference: below 1 is faster, and for a copy it says how many copies."""

    name: str
    reference: str
    ours_ms: float
    reference_ms: float
    note: str = ""

    @property
    def ratio(self) -> float:
        return self.ours_ms / self.reference_ms

    def line(self) -> str:
        return (
            f"{self.name:<44} {self.ours_ms:9.2f} ms  {self.reference_ms:9.2f} ms  {self.ratio:7.2f} x  "
            f"{self.reference}{f'; {self.note}' if self.note else ''}"
        )


def against(
    name: str,
    ours: Callable[[], object],
    reference: Callable[[], object],
    *,
    called: str,
    note: str = "",
    repeats: int = 9,
) -> Result:
    """Both run once to warm up, then `repeats` times in turn; the medians count."""
    ours(), reference()
    taken: dict[str, list[float]] = {"ours": [], "reference": []}
    for _ in range(repeats):
        for who, act in (("ours", ours), ("reference", reference)):
            started = time.perf_counter()
            act()
            taken[who].append(1000.0 * (time.perf_counter() - started))
    return Result(name, called, statistics.median(taken["ours"]), statistics.median(taken["reference"]), note)
