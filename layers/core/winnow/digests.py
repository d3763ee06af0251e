"""Names that derive from content: canonical JSON, SHA-256 digests and short ids.

Everything Winnow names (contents, batches, jobs, datasets, models, executions) is named by a digest of what it is for,
so a hop that runs twice finds its work done. The bytes below are therefore a contract: changing them renames the world.
"""

from __future__ import annotations

import hashlib
import json
import re
from typing import Any

SHORT_ID_LENGTH = 20
"""Characters of a short id. SageMaker names allow 63 and carry the stack name in front; 20 leaves room for it."""

_PREFIX = re.compile(r"^[a-z][a-z0-9]{0,3}$")


def canonical_json(obj: Any) -> bytes:
    """Serialise `obj` to the one byte string that stands for its content.

    Keys sorted by code point, no spaces, UTF-8 (no escapes beyond JSON's own), floats as Python's shortest `repr`.

    Raises ValueError for NaN and infinities and TypeError for what JSON cannot hold: neither has one agreed spelling.

    >>> canonical_json({"b": 0.1, "a": ["é", None]})
    b'{"a":["\\xc3\\xa9",null],"b":0.1}'
    """
    text = json.dumps(obj, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    return text.encode("utf-8")


def digest(obj: Any, *, length: int = 32) -> str:
    """The first `length` lowercase hex characters of the SHA-256 of bytes, or of the canonical JSON of anything else.

    32 characters are 128 bits: two of 10^15 contents collide with a probability of 10^-9.

    Raises ValueError when `length` is not in 1..64.

    >>> digest(b"abc", length=16)
    'ba7816bf8f01cfea'
    >>> digest({"b": 1, "a": 2}) == digest({"a": 2, "b": 1})
    True
    """
    if not 1 <= length <= 64:
        raise ValueError(f"a SHA-256 digest has 1 to 64 hex characters, not {length}")
    data = bytes(obj) if isinstance(obj, bytes | bytearray | memoryview) else canonical_json(obj)
    return hashlib.sha256(data).hexdigest()[:length]


def short_id(prefix: str, obj: Any) -> str:
    """A name of exactly 20 characters (`[a-z0-9]`, a letter first) that every AWS name pattern accepts.

    `prefix` says what is named: one to four of `[a-z0-9]`, a letter first (`b` batch, `m` model, `d` dataset), so that
    at least 64 bits of digest remain.

    Raises ValueError for any other prefix.

    >>> short_id("b", b"abc")
    'bba7816bf8f01cfea414'
    """
    if not _PREFIX.match(prefix):
        raise ValueError(f"prefix {prefix!r} must be one to four of a-z0-9 and begin with a letter")
    return prefix + digest(obj, length=SHORT_ID_LENGTH - len(prefix))
