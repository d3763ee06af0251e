"""How far a long command is, on standard error, where a person looks at it."""

from __future__ import annotations

import sys
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
