"""The table at a table's speed: moto sorts all of it for each query, and looks for every attribute under many names."""

from __future__ import annotations

import copy
from typing import Any

from .patches import Patch


def _query(original: Any, _: object) -> Any:
    def query(self: Any, hash_key: Any, *rest: Any, index_name: str | None = None, **named: Any) -> Any:
        if index_name is None and hash_key is not None:
            self = copy.copy(self)
            self.items = {hash_key: self.items[hash_key]} if hash_key in self.items else {}
        else:
            named["index_name"] = index_name
        return original(self, hash_key, *rest, **named)

    return query


def _get_value(original: Any, _: object) -> Any:
    def get_value(self: Any, value: Any, key: str, shape: Any) -> Any:
        # What is spelled as in the API already is not looked for under other names; all the table answers is.
        plain = type(value) is dict and not self._value_picker.response_transformers
        if plain and (key in value or self.operation_model.service_model.service_name == "dynamodb"):
            return value.get(key)
        return original(self, value, key, shape)

    return get_value


PATCHES = (
    Patch("moto.dynamodb.models.table.Table", "query", "A query's cost does not grow with other partitions.", _query),
    Patch("moto.core.serialize.ResponseSerializer", "get_value", "An item costs what its attributes cost.", _get_value),
)
