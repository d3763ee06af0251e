"""The one table of what is changed in moto (and twice in botocore), each with the AWS behaviour it stands for.

A local cloud that patched blindly would flatter: start-up refuses another moto version or a symbol that moved, and every
row has a contract test under tests/local that names the behaviour.
"""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import moto

if TYPE_CHECKING:
    from .cloud import LocalCloud

MOTO_VERSION = "5.2.5"


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
        """The module or class that owns the symbol."""
        parts = self.owner.split(".")
        for cut in range(len(parts), 0, -1):
            try:
                found: Any = importlib.import_module(".".join(parts[:cut]))
            except ModuleNotFoundError:
                continue
            for name in parts[cut:]:
                found = getattr(found, name)
            return found
        raise MovedSymbolError(f"{self.owner} is not there any more")


def table() -> tuple[Patch, ...]:
    """Every patch of this package."""
    from . import (
        cloudwatch,
        deploy,
        dynamodb,
        endpoints,
        events,
        gateway,
        invoke,
        queues,
        sagemaker,
        stepfunctions,
        timeshift,
    )

    ours = (timeshift, gateway, deploy, invoke, events, queues, cloudwatch, dynamodb)
    modules = (*ours, sagemaker, endpoints, stepfunctions)
    return tuple(patch for module in modules for patch in module.PATCHES)


def check() -> None:
    """MovedSymbolError unless this is the pinned moto with every patched symbol in place."""
    if moto.__version__ != MOTO_VERSION:
        raise MovedSymbolError(f"the local cloud is written for moto {MOTO_VERSION}, this is {moto.__version__}")
    for patch in table():
        there = inspect.getattr_static(patch.target, patch.symbol, None) is not None
        if there == patch.added:
            raise MovedSymbolError(f"{patch.owner}.{patch.symbol} {'exists now' if there else 'is gone'}")


@contextmanager
def applied(cloud: LocalCloud) -> Iterator[None]:
    """The patches in force for one cloud; the originals are back afterwards."""
    check()
    undo: list[Callable[[], None]] = []
    try:
        for patch in table():
            target = patch.target
            own = vars(target).get(patch.symbol, undo)
            original = inspect.getattr_static(target, patch.symbol, None)
            setattr(target, patch.symbol, patch.make(original, cloud))
            undo.append(_restorer(target, patch.symbol, own, inherited=own is undo))
        yield
    finally:
        for restore in reversed(undo):
            restore()


def _restorer(target: Any, symbol: str, original: Any, *, inherited: bool) -> Callable[[], None]:
    return lambda: delattr(target, symbol) if inherited else setattr(target, symbol, original)
