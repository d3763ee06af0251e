"""What is changed in moto (and twice in botocore): one table, each row with the AWS behaviour it stands for.

A local cloud that patched blindly would flatter: start-up refuses another moto version or a symbol that moved, and every
row has a contract test under tests/local that names the behaviour. A replacement is called with the cloud, with what it
replaces, and with what the symbol is called with.
"""

from __future__ import annotations

import importlib
import inspect
import pkgutil
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NoReturn

import moto

if TYPE_CHECKING:
    from .cloud import LocalCloud as Cloud
else:
    Cloud = Any

MOTO_VERSION = "5.2.5"
_ROWS = ("gateway", "speed", "deploy", "invoke", "events", "queues", "cloudwatch", "sagemaker", "labeling",
         "training", "endpoints", "stepfunctions")  # fmt: skip
_table: list[Row] = []


class MovedSymbolError(RuntimeError):
    """moto is not the one the patches were written for: install the pinned version, or write the patch anew."""


@dataclass(frozen=True)
class Row:
    """One symbol: where it is, how AWS behaves, the replacement, and as what (`property`, `staticmethod`) it is set.

    With `value` the replacement is what `new(cloud, original)` gives. An `added` symbol is absent from moto.
    """

    owner: str
    symbol: str
    behaviour: str
    new: Callable[..., Any]
    kind: Callable[[Any], Any] | None = None
    value: bool = False
    added: bool = False

    @property
    def target(self) -> Any:
        """The module or class that owns the symbol; MovedSymbolError when there is none."""
        try:
            return pkgutil.resolve_name(self.owner)
        except (AttributeError, ImportError) as error:
            raise MovedSymbolError(f"{self.owner} is not there any more") from error

    def replacement(self, cloud: Cloud) -> Any:
        """What takes the symbol's place in this cloud."""
        original = inspect.getattr_static(self.target, self.symbol, None)
        if self.value:
            return self.new(cloud, original)

        def replaced(*args: Any, **kwargs: Any) -> Any:
            return self.new(cloud, original, *args, **kwargs)

        return self.kind(replaced) if self.kind else replaced


def patched(owner: str, symbol: str, behaviour: str, **how: Any) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Enter the decorated function in the table as the replacement of `owner.symbol`."""

    def enter(new: Callable[..., Any]) -> Callable[..., Any]:
        _table.append(Row(owner, symbol, behaviour, new, **how))
        return new

    return enter


def Patch(owner: str, symbol: str, behaviour: str, make: Callable[..., Any], added: bool = False) -> Row:  # noqa: N802
    """TRANSITION ONLY: the old form of a row."""
    return Row(owner, symbol, behaviour, lambda cloud, original: make(original, cloud), value=True, added=added)


def refusal(what: str) -> Callable[..., Any]:
    """TRANSITION ONLY."""

    def refuse(*_: Any, **__: Any) -> NoReturn:
        raise NotImplementedError(f"the local cloud does not {what}")

    return lambda *_: refuse


def refused(owner: str, symbol: str, behaviour: str, *, what: str) -> None:
    """Let the symbol say that the local cloud does not do `what`."""

    @patched(owner, symbol, behaviour)
    def refuse(*_: Any, **__: Any) -> NoReturn:
        raise NotImplementedError(f"the local cloud does not {what}")


def table() -> tuple[Row, ...]:
    """Every patch of this package."""
    modules = [importlib.import_module(f"{__package__}.{name}") for name in _ROWS]
    return (*(row for module in modules for row in getattr(module, "PATCHES", ())), *_table)


def check() -> None:
    """MovedSymbolError unless this is the pinned moto with every patched symbol in place."""
    if moto.__version__ != MOTO_VERSION:
        raise MovedSymbolError(f"the local cloud is written for moto {MOTO_VERSION}, this is {moto.__version__}")
    for patch in table():
        there = inspect.getattr_static(patch.target, patch.symbol, None) is not None
        if there == patch.added:
            raise MovedSymbolError(f"{patch.owner}.{patch.symbol} {'exists now' if there else 'is gone'}")


@contextmanager
def applied(cloud: Cloud, rows: Iterable[Row] | None = None) -> Iterator[None]:
    """The patches in force for one cloud, all unless told which; the originals are back afterwards."""
    check()
    with ExitStack() as undo:
        for patch in table() if rows is None else rows:
            target, symbol = patch.target, patch.symbol
            if symbol in vars(target):
                undo.callback(setattr, target, symbol, vars(target)[symbol])
            else:
                undo.callback(delattr, target, symbol)
            setattr(target, symbol, patch.replacement(cloud))
        yield
