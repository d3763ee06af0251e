"""Requests held against the service model, as AWS does and botocore mostly does not: enums, patterns, lengths, ranges.

It is a botocore handler that costs nothing until `enabled`; subprocess workers switch it on by importing `enable`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import lru_cache
from typing import Any

import botocore
from botocore.exceptions import ClientError
from botocore.handlers import BUILTIN_HANDLERS, REGISTER_FIRST
from botocore.model import ListShape, MapShape, OperationModel, Shape, StructureShape

_enabled, _signing = False, True


def enable(on: bool, *, sign: bool = False) -> None:
    """Validate every request of every client from now on, or stop doing it; in process requests are not signed."""
    global _enabled, _signing  # botocore's handlers are as global
    _enabled, _signing = on, sign or not on


def problems(shape: Shape, value: Any, path: str) -> Iterator[str]:
    """What AWS would refuse, one sentence a member, in its words; the member is named by its path."""
    rules, number = shape.metadata, isinstance(value, (int, float))
    size = value if number else len(value) if hasattr(value, "__len__") else None
    broken = []
    for bound, word, sign in (("min", "greater", -1), ("max", "less", 1)):
        if size is not None and bound in rules and (size - rules[bound]) * sign > 0:
            what = "value" if number else "length"
            broken.append(f"Member must have {what} {word} than or equal to {rules[bound]}")
    if rules.get("enum") and value not in rules["enum"]:
        broken.append(f"Member must satisfy enum value set: [{', '.join(rules['enum'])}]")
    pattern = _regex(rules["pattern"]) if "pattern" in rules and isinstance(value, str) else None
    if pattern and not pattern.fullmatch(value):
        broken.append(f"Member must satisfy regular expression pattern: {rules['pattern']}")
    for rule in broken:
        yield f"Value '{str(value)[:200]}' at '{path}' failed to satisfy constraint: {rule}"
    if isinstance(value, dict) and isinstance(shape, StructureShape):
        for name, each in value.items():
            if name in shape.members and each is not None:
                yield from problems(shape.members[name], each, f"{path}.{name}".lstrip("."))
    elif isinstance(value, dict) and isinstance(shape, MapShape):
        for name, each in value.items():
            yield from problems(shape.key, name, f"{path}.key")
            yield from problems(shape.value, each, f"{path}.{name}")
    elif isinstance(value, (list, tuple)) and isinstance(shape, ListShape):
        for place, each in enumerate(value, 1):
            yield from problems(shape.member, each, f"{path}.{place}.member")


@lru_cache(maxsize=2048)
def _regex(pattern: str) -> re.Pattern[str] | None:
    """The Java expression as Python's; None for one of the few that say what Python cannot."""
    try:
        return None if re.search(r"\\[pPu]|&&", pattern) else re.compile(pattern)
    except re.error:
        return None


def _validate(params: Any, model: OperationModel, **_: Any) -> None:
    found = list(problems(model.input_shape, params, "")) if _enabled and model.input_shape else []
    if found:
        text = f"{len(found)} validation error{'s' * (len(found) > 1)} detected: {'; '.join(found)}"
        error = {"Code": "ValidationException", "Message": text}
        raise ClientError({"Error": error, "ResponseMetadata": {"HTTPStatusCode": 400}}, model.name)


def _unsigned(signature_version: Any = "", **_: Any) -> Any:
    """Nobody checks signatures in process, so requests go without; presigned URLs keep theirs."""
    presigned = str(signature_version).endswith(("-query", "-presign-post"))
    return None if _signing or presigned else botocore.UNSIGNED


BUILTIN_HANDLERS.append(("before-parameter-build", _validate))
BUILTIN_HANDLERS.append(("choose-signer", _unsigned, REGISTER_FIRST))
