"""The one table of what is changed in moto (and twice in botocore), each with the AWS behaviour it stands for.

A local cloud that patched blindly would flatter: start-up refuses another moto version or a symbol that moved, and every
row has a contract test under tests/local that names the behaviour.
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
    from .cloud import LocalCloud

MOTO_VERSION = "5.2.5"
_ROWS = ("timeshift", "gateway", "deploy", "invoke", "events", "queues", "cloudwatch", "dynamodb", "sagemaker", "labeling",
         "training", "endpoints", "stepfunctions")  # fmt: skip


class MovedSymbolError(RuntimeError):
    """moto is not the one the patches were written for: install the pinned version, or write the patch anew."""


@dataclass(frozen=True)
class Patch:
    """One symbol: where it is, how AWS behaves, and what makes the replacement of the original for a cloud."""

    owner: str
    symbol: str
    behaviour: str
    make: Callable[[Any, LocalCloud], Any]
    added: bool = False
    """The symbol is absent from moto, and stays absent without the patch."""

    @property
    def target(self) -> Any:
        """The module or class that owns the symbol; MovedSymbolError when there is none."""
        try:
            return pkgutil.resolve_name(self.owner)
        except (AttributeError, ImportError) as error:
            raise MovedSymbolError(f"{self.owner} is not there any more") from error


def refusal(what: str) -> Callable[[Any, LocalCloud], Any]:
    """A replacement that says what the local cloud does not do."""

    def refuse(*_: Any, **__: Any) -> NoReturn:
        raise NotImplementedError(f"the local cloud does not {what}")

    return lambda *_: refuse


def table() -> tuple[Patch, ...]:
    """Every patch of this package."""
    modules = [importlib.import_module(f"{__package__}.{name}") for name in _ROWS]
    return tuple(patch for module in modules for patch in getattr(module, "PATCHES", ()))


def check() -> None:
    """MovedSymbolError unless this is the pinned moto with every patched symbol in place."""
    if moto.__version__ != MOTO_VERSION:
        raise MovedSymbolError(f"the local cloud is written for moto {MOTO_VERSION}, this is {moto.__version__}")
    for patch in table():
        there = inspect.getattr_static(patch.target, patch.symbol, None) is not None
        if there == patch.added:
            raise MovedSymbolError(f"{patch.owner}.{patch.symbol} {'exists now' if there else 'is gone'}")


@contextmanager
def applied(cloud: LocalCloud, rows: Iterable[Patch] | None = None) -> Iterator[None]:
    """The patches in force for one cloud, all unless told which; the originals are back afterwards."""
    check()
    with ExitStack() as undo:
        for patch in table() if rows is None else rows:
            target, symbol = patch.target, patch.symbol
            if symbol in vars(target):
                undo.callback(setattr, target, symbol, vars(target)[symbol])
            else:
                undo.callback(delattr, target, symbol)
            setattr(target, symbol, patch.make(inspect.getattr_static(target, symbol, None), cloud))
        yield
