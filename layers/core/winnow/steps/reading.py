"""What a dropped object holds: a row a record, whatever the format, with a reason for every row that cannot be used.

Formats: JSON Lines (.jsonl, .ndjson, .json; gzip or not), plain text (.txt, one record a line), PNG and JPEG (one record
a file). The bytes decide where they can (gzip, PNG and JPEG begin with a signature); the name decides the rest.
"""

from __future__ import annotations

import base64
import binascii
import json
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal

from winnow.errors import BadInput

Kind = Literal["text", "image"]

_PNG, _JPEG, _GZIP = b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"\x1f\x8b"
_JSON_LINES = (".jsonl", ".ndjson", ".json")
_EXPANSION = 8
"""A gzip may grow to this many times the object limit: text compresses well, bombs better."""


@dataclass(frozen=True)
class Row:
    """One row: its payload and what came beside it, or why it cannot be used."""

    number: int
    text: str | None = None
    image: bytes | None = None
    fields: Mapping[str, Any] = field(default_factory=dict)
    problem: BadInput | None = None


def rows(data: bytes, *, key: str, kind: Kind, limit: int) -> Iterator[Row]:
    """The rows of an object of at most `limit` bytes; what follows a damaged place becomes one row with the reason.

    Raises BadInput when the object as a whole cannot be read: empty, unknown, or of the other kind.

    >>> [row.text for row in rows(b"one\\n\\ntwo", key="a.txt", kind="text", limit=100)]
    ['one', 'two']
    """
    if not data:
        raise BadInput(f"{key} is empty", code="empty")
    if data.startswith((_PNG, _JPEG)):
        if kind != "image":
            raise BadInput(
                f"{key} is an image but task.kind is {kind}; drop it into a stack for images", code="wrong-kind"
            )
        yield Row(1, image=data)
        return
    name = key.lower()
    damage: BadInput | None = None
    if data.startswith(_GZIP):
        data, damage = _gunzip(data, limit=limit * _EXPANSION)
        name = name.removesuffix(".gz")
    number = 0
    if name.endswith(_JSON_LINES):
        for number, line in _lines(data):
            yield _json_row(number, line, kind=kind)
    elif name.endswith(".txt"):
        if kind != "text":
            raise BadInput(f"{key} is text but task.kind is {kind}; drop it into a stack for text", code="wrong-kind")
        for number, line in _lines(data):
            yield _text_row(number, line)
    else:
        raise BadInput(
            f"{key} has a format that is not read; use .jsonl, .jsonl.gz, .txt, .png or .jpg", code="unknown-format"
        )
    if damage is not None:
        yield Row(number + 1, problem=damage)
    elif number == 0:
        raise BadInput(f"{key} holds no rows", code="empty")


def _gunzip(data: bytes, *, limit: int) -> tuple[bytes, BadInput | None]:
    """What can be decompressed, and why the rest cannot."""
    parts: list[bytes] = []
    room = limit
    while data:
        stream = zlib.decompressobj(wbits=31)
        try:
            part = stream.decompress(data, room)
        except zlib.error as error:
            return b"".join(parts), BadInput(f"the gzip stream is damaged: {error}", code="truncated")
        parts.append(part)
        room -= len(part)
        if stream.unconsumed_tail or room <= 0:
            return b"".join(parts), BadInput(
                f"the gzip stream expands beyond {limit} bytes; split it", code="oversized"
            )
        if not stream.eof:
            return b"".join(parts), BadInput("the gzip stream ends early; upload it again", code="truncated")
        data = stream.unused_data.lstrip(b"\0")
    return b"".join(parts), None


def _lines(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Non-empty lines with their numbers. Splits at line feeds only: U+2028 and its like may stand inside a text."""
    for number, line in enumerate(data.removeprefix(b"\xef\xbb\xbf").split(b"\n"), start=1):
        if line.strip():
            yield number, line


def _decode(number: int, line: bytes) -> str | Row:
    if b"\0" in line:
        problem = BadInput(f"row {number} is not UTF-8 (NUL bytes, as UTF-16 has them); re-encode it", code="encoding")
        return Row(number, problem=problem)
    try:
        return line.decode("utf-8")
    except UnicodeDecodeError as error:
        return Row(
            number, problem=BadInput(f"row {number} is not UTF-8 (byte {error.start}); re-encode it", code="encoding")
        )


def _text_row(number: int, line: bytes) -> Row:
    text = _decode(number, line)
    return text if isinstance(text, Row) else Row(number, text=text.rstrip("\r"))


def _json_row(number: int, line: bytes, *, kind: Kind) -> Row:
    text = _decode(number, line)
    if isinstance(text, Row):
        return text
    try:
        body = json.loads(text, object_pairs_hook=_unambiguous)
        if "\\ud" in text.lower():
            json.dumps(body, ensure_ascii=False).encode()  # half of an escaped pair could not be stored
        if not isinstance(body, dict):
            raise BadInput(f"row {number} is not a JSON object", code="wrong-type")
        fields = _fields(number, body)
        if kind == "text":
            value = body.get("text")
            if not isinstance(value, str):
                code = "missing-payload" if value is None else "wrong-type"
                raise BadInput(f"row {number} needs a string under 'text'", code=code)
            return Row(number, text=value, fields=fields)
        encoded = body.get("image")
        if not isinstance(encoded, str):
            code = "missing-payload" if encoded is None else "wrong-type"
            raise BadInput(f"row {number} needs a base64 string under 'image'", code=code)
        return Row(number, image=base64.b64decode(encoded, validate=True), fields=fields)
    except BadInput as problem:
        return Row(number, problem=problem)
    except binascii.Error as error:
        return Row(number, problem=BadInput(f"row {number}: 'image' is not base64: {error}", code="wrong-type"))
    except UnicodeEncodeError:
        half = BadInput(f"row {number} holds half of a surrogate pair; escape the whole character", code="encoding")
        return Row(number, problem=half)
    except (ValueError, RecursionError) as error:
        return Row(number, problem=BadInput(f"row {number} is not JSON: {error}", code="malformed-row"))


def _unambiguous(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """A JSON object whose names are unique: readers do not agree on which of two values counts."""
    body = dict(pairs)
    if len(body) < len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"{next(name for name in names if names.count(name) > 1)!r} stands in one object twice")
    return body


def _fields(number: int, body: Mapping[str, Any]) -> dict[str, Any]:
    """What came beside the payload, checked. Fields nobody asked for are left behind: the pool keeps the original."""
    fields: dict[str, Any] = {}
    for name, target in (("id", "external_id"), ("subject", "subject")):
        value = body.get(name)
        if value is not None:
            if isinstance(value, bool) or not isinstance(value, str | int) or len(str(value)) > 256:
                raise BadInput(f"row {number}: {name!r} must be a string of at most 256 characters", code="wrong-type")
            fields[target] = str(value)
    slices = body.get("slices")
    if slices is not None:
        if not isinstance(slices, dict) or not all(isinstance(value, str) for value in slices.values()):
            raise BadInput(f"row {number}: 'slices' must map names to strings", code="wrong-type")
        fields["slices"] = slices
    cost = body.get("cost")
    if cost is not None:
        if isinstance(cost, bool) or not isinstance(cost, int | float) or not 0 < cost < 10_000:
            raise BadInput(f"row {number}: 'cost' must be minutes above 0", code="wrong-type")
        fields["cost"] = float(cost)
    captured = body.get("captured_at")
    if captured is not None:
        try:
            datetime.fromisoformat(captured)
        except (TypeError, ValueError) as error:
            raise BadInput(f"row {number}: 'captured_at' must be an ISO 8601 time", code="wrong-type") from error
        fields["captured_at"] = captured
    return fields
