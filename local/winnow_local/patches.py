"""What is changed in moto (and twice in botocore): one table, each row with the AWS behaviour it stands for.

A local cloud that patched blindly would flatter: start-up refuses another moto version or a symbol that moved, and every
row has a contract test under tests/local that names the behaviour. A replacement is called with the cloud, with what it
replaces, and with what the symbol is called with.
"""

from __future__ import annotations

import inspect
import pkgutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NoReturn
from unittest.mock import patch

import moto

if TYPE_CHECKING:
    from .cloud import LocalCloud as Cloud
else:
    Cloud = Any

MOTO_VERSION = "5.2.5"
TABLE: list[Row] = []
"""Every patch of the modules that are imported; importing `cloud` imports them all."""


@dataclass(frozen=True)
class Row:
    """One symbol: where it is, how AWS behaves, and what makes its replacement; an `added` symbol is absent from moto."""

    owner: str
    symbol: str
    behaviour: str
    make: Callable[[Cloud, Any], Any]
    added: bool = False

    @property
    def original(self) -> Any:
        """What is there now, as it was defined; None where nothing is."""
        return inspect.getattr_static(pkgutil.resolve_name(self.owner), self.symbol, None)


def patched(
    owner: str, symbol: str, behaviour: str, *, kind: Any = None, value: bool = False, added: bool = False
) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Enter in the table what replaces a symbol, set as `kind` (`property`): the decorated function, or its `value`."""

    def enter(new: Callable[..., Any]) -> Callable[..., Any]:
        def make(cloud: Cloud, original: Any) -> Any:
            replaced = new(cloud, original) if value else lambda *args, **named: new(cloud, original, *args, **named)
            return kind(replaced) if kind else replaced

        TABLE.append(Row(owner, symbol, behaviour, make, added))
        return new

    return enter


def refused(owner: str, symbol: str, behaviour: str, *, what: str) -> None:
    """Let the symbol say that the local cloud does not do `what`."""

    @patched(owner, symbol, behaviour)
    def refuse(*_: Any, **__: Any) -> NoReturn:
        raise NotImplementedError(f"the local cloud does not {what}")


def check() -> None:
    """RuntimeError unless this is the pinned moto with every patched symbol in place."""
    if moto.__version__ != MOTO_VERSION:
        raise RuntimeError(f"the local cloud is written for moto {MOTO_VERSION}, this is {moto.__version__}")
    if moved := [f"{row.owner}.{row.symbol}" for row in TABLE if (row.original is None) is not row.added]:
        raise RuntimeError(f"gone from moto, or in it now: {', '.join(moved)}; these patches have to be written anew")


@contextmanager
def applied(cloud: Cloud, rows: Sequence[Row] = ()) -> Iterator[None]:
    """The patches in force for one cloud, all unless told which; the originals are back afterwards."""
    check()
    with ExitStack() as undo:
        for row in rows or TABLE:
            undo.enter_context(patch(f"{row.owner}.{row.symbol}", row.make(cloud, row.original), create=row.added))
        yield
