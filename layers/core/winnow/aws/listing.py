"""Whether a SageMaker resource of exactly this name exists.

SageMaker answers Describe for an absent name, and Create for a present one, with a ValidationException like any other;
only its text would tell them apart. A listing is unambiguous.
"""

from __future__ import annotations

from typing import Any

from winnow.aws.errors import translated


def exists(client: Any, operation: str, listing: str, field: str, name: str) -> bool:
    """Whether `operation` lists a resource whose `field` is `name`, among those under `listing`."""
    with translated(f"{operation} {name}"):
        pages = client.get_paginator(operation).paginate(NameContains=name)
        return any(item[field] == name for page in pages for item in page[listing])
