"""How far a long command is, on standard error, where a person looks at it."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Iterator
from typing import TypeVar

EVERY = 500

Item = TypeVar("Item")


def counted(items: Iterable[Item], what: str) -> Iterator[Item]:
    """`items`, counted on one line that keeps changing; nothing is printed where standard error is no terminal."""
    shown = sys.stderr.isatty()
    count = 0
    for count, item in enumerate(items, start=1):
        if shown and count % EVERY == 0:
            print(f"\r{what}: {count}", end="", file=sys.stderr, flush=True)
        yield item
    if shown and count >= EVERY:
        print(f"\r{what}: {count}", file=sys.stderr)


class Bar:
    """How far a long command is and how long it takes yet: one changing line on a terminal, plain lines elsewhere.

    `total` counts steps; elsewhere than on a terminal a line is printed every tenth of them. Nothing is printed for a
    total of 0.
    """

    WIDTH = 28

    def __init__(self, what: str, *, total: int, unit: str) -> None:
        self._what, self._total, self._unit = what, total, unit
        self._done = 0
        self._started = time.monotonic()
        self._live = sys.stderr.isatty()
        self._show()

    def step(self) -> None:
        """One more is done."""
        self._done += 1
        if self._live or 10 * self._done // self._total > 10 * (self._done - 1) // self._total:
            self._show()

    def close(self) -> None:
        """Leave the line as it is."""
        if self._live and self._total:
            print(file=sys.stderr)

    def _show(self) -> None:
        if not self._total:
            return
        share = self._done / self._total
        spent = time.monotonic() - self._started
        left = f", {spoken(spent * (1 - share) / share)} left" if 0 < share < 1 else ""
        text = f"{100 * share:3.0f} %  {self._done} of {self._total} {self._unit}{left}"
        if self._live:
            full = round(self.WIDTH * share)
            print(
                f"\r{self._what} [{'#' * full}{'.' * (self.WIDTH - full)}] {text}\033[K",
                end="",
                file=sys.stderr,
                flush=True,
            )
        else:
            print(f"{self._what} {text}", file=sys.stderr, flush=True)


def spoken(seconds: float) -> str:
    """A duration as people say it.

    >>> spoken(8.4), spoken(135), spoken(7320)
    ('8 s', '2 min 15 s', '2 h 2 min')
    """
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    return f"{whole // 60} min {whole % 60} s" if whole < 3600 else f"{whole // 3600} h {whole % 3600 // 60} min"
