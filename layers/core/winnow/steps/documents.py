"""Reading the JSON documents that hops leave for each other. Each states its format; docs/upgrades.md lists them."""

from __future__ import annotations

import json
from typing import Any

from winnow.errors import ConfigError
from winnow.ports import ObjectStore

FORMAT = 1
"""The format of every document of the data bucket. Fields that are added do not change it; a reader gives them defaults."""


def document(data: ObjectStore, key: str) -> dict[str, Any]:
    """The document under a key. Raises NotFound, or ConfigError for a format that only later versions know."""
    return parsed(key, data.get(key))


def parsed(key: str, body: bytes) -> dict[str, Any]:
    """The document that `body` holds; `key` is for the message.

    >>> parsed("datasets/head.json", b'{"format": 1, "version": "d1"}')
    {'format': 1, 'version': 'd1'}
    >>> parsed("datasets/head.json", b'{"format": 2}')
    Traceback (most recent call last):
    winnow.errors.ConfigError: datasets/head.json has format 2, this code reads 1; deploy the version that wrote it
    """
    found: dict[str, Any] = json.loads(body)
    if found.get("format", 1) != FORMAT:
        raise ConfigError(
            f"{key} has format {found['format']!r}, this code reads {FORMAT}; deploy the version that wrote it"
        )
    return found
