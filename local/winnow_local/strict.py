"""Requests held against the service model, as AWS does and botocore mostly does not: enums, patterns, lengths, ranges.

It is a botocore handler that costs nothing until `enabled`; subprocess workers switch it on by importing `enable`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from functools import lru_cache
from typing import Any

import botocore
from botocore.exceptions import ClientError
from botocore.handlers import BUILTIN_HANDLERS, REGISTER_FIRST
from botocore.model import ListShape, MapShape, OperationModel, Shape, StructureShape

Check = Callable[[Any, str], Iterator[str]]
_enabled, _signing = False, True


def enable(on: bool, *, sign: bool = False) -> None:
    """Validate every request of every client from now on, or stop doing it; in process requests are not signed."""
    global _enabled, _signing  # botocore's handlers are as global
    _enabled, _signing = on, sign or not on


def problems(operation: OperationModel, params: dict[str, Any]) -> list[str]:
    """What AWS would refuse, one sentence a member, in its words; the member is named by its path."""
    check = _checks(operation)
    return [] if check is None else list(check(params, ""))


def _validate(params: Any, model: OperationModel, **_: Any) -> None:
    if not _enabled:
        return
    found = problems(model, params)
    if found:
        many = "errors" if len(found) > 1 else "error"
        error = {
            "Code": "ValidationException",
            "Message": f"{len(found)} validation {many} detected: {'; '.join(found)}",
        }
        raise ClientError({"Error": error, "ResponseMetadata": {"HTTPStatusCode": 400}}, model.name)


def _unsigned(signature_version: Any = "", **_: Any) -> Any:
    """Nobody checks signatures in process, so requests go without; presigned URLs keep theirs."""
    presigned = str(signature_version).endswith(("-query", "-presign-post"))
    return None if _signing or presigned else botocore.UNSIGNED


_known: dict[tuple[str, str], Check | None] = {}


def _checks(operation: OperationModel) -> Check | None:
    key = (operation.service_model.service_name, operation.name)
    if key not in _known:
        shape = operation.input_shape
        _known[key] = None if shape is None else _compile(shape, {})
    return _known[key]


def _compile(shape: Shape, above: dict[str, list[Check]]) -> Check | None:
    """The check of a shape; None when nothing in it is constrained. `above` ends the recursion of recursive shapes."""
    if shape.name in above and shape.type_name in ("structure", "list", "map"):
        later = above[shape.name]
        return lambda value, path: later[0](value, path) if later else iter(())
    above = {**above, shape.name: []}
    check = _container(shape, above) if shape.type_name in ("structure", "list", "map") else _scalar(shape)
    if check is not None:
        above[shape.name].append(check)
    return check


def _container(shape: Shape, above: dict[str, list[Check]]) -> Check | None:
    sized = _sized(shape, "length")
    if isinstance(shape, StructureShape):
        members = {name: check for name, member in shape.members.items() if (check := _compile(member, above))}
        if not members:
            return None

        def structure(value: Any, path: str) -> Iterator[str]:
            for name, check in members.items():
                if name in value and value[name] is not None:
                    yield from check(value[name], f"{path}.{name}" if path else name)

        return structure
    inner = shape.member if isinstance(shape, ListShape) else shape.value if isinstance(shape, MapShape) else None
    key = _compile(shape.key, above) if isinstance(shape, MapShape) else None
    item = _compile(inner, above) if inner is not None else None
    if sized is None and item is None and key is None:
        return None

    def collection(value: Any, path: str) -> Iterator[str]:
        if sized is not None:
            yield from sized(value, path)
        pairs = value.items() if isinstance(value, dict) else enumerate(value, 1)
        for name, each in pairs:
            if key is not None:
                yield from key(name, f"{path}.key")
            if item is not None:
                yield from item(each, f"{path}.{name}" if isinstance(value, dict) else f"{path}.{name}.member")

    return collection


def _scalar(shape: Shape) -> Check | None:
    checks: list[Check] = []
    if sized := _sized(shape, "value" if shape.type_name in ("integer", "long", "float", "double") else "length"):
        checks.append(sized)
    if enum := getattr(shape, "enum", None):
        allowed = ", ".join(enum)
        checks.append(_complain(lambda value: value in enum, f"Member must satisfy enum value set: [{allowed}]"))
    if (pattern := shape.metadata.get("pattern")) and (regex := _regex(pattern)):
        text = f"Member must satisfy regular expression pattern: {pattern}"
        checks.append(_complain(lambda value: not isinstance(value, str) or bool(regex.fullmatch(value)), text))
    if not checks:
        return None

    def scalar(value: Any, path: str) -> Iterator[str]:
        for check in checks:
            yield from check(value, path)

    return scalar


def _sized(shape: Shape, what: str) -> Check | None:
    low, high = shape.metadata.get("min"), shape.metadata.get("max")
    if low is None and high is None:
        return None
    has = f"{what} "

    def sized(value: Any, path: str) -> Iterator[str]:
        if what == "length" and not hasattr(value, "__len__"):
            return
        size = len(value) if what == "length" else value
        if low is not None and size < low:
            yield _sentence(value, path, f"Member must have {has}greater than or equal to {low}")
        if high is not None and size > high:
            yield _sentence(value, path, f"Member must have {has}less than or equal to {high}")

    return sized


def _complain(holds: Callable[[Any], bool], rule: str) -> Check:
    def check(value: Any, path: str) -> Iterator[str]:
        if not holds(value):
            yield _sentence(value, path, rule)

    return check


def _sentence(value: Any, path: str, rule: str) -> str:
    return f"Value '{str(value)[:200]}' at '{path}' failed to satisfy constraint: {rule}"


@lru_cache(maxsize=2048)
def _regex(pattern: str) -> re.Pattern[str] | None:
    """The Java expression as Python's; None for one of the few that say what Python cannot."""
    if any(java in pattern for java in (r"\p{", r"\P{", "&&", r"\u")):
        return None
    try:
        return re.compile(pattern)
    except re.error:
        return None


BUILTIN_HANDLERS.append(("before-parameter-build", _validate))
BUILTIN_HANDLERS.append(("choose-signer", _unsigned, REGISTER_FIRST))
