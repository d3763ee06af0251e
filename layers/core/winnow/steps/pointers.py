"""The two artifacts that change in place: `models/champion.json` and `datasets/head.json`."""

from __future__ import annotations

import json
from dataclasses import dataclass

from winnow import layout
from winnow.errors import NotFound
from winnow.ports import ObjectStore, Ports
from winnow.steps.documents import parsed


@dataclass(frozen=True)
class Champion:
    """The model that scores the pool and serves. `number` counts promotions; the bootstrap model is number 0."""

    model: str
    number: int = 0
    dataset: str | None = None
    artifact: str | None = None
    previous: str | None = None
    promoted_at: str | None = None

    @property
    def is_bootstrap(self) -> bool:
        return self.model.startswith(layout.BOOTSTRAP)

    def to_bytes(self) -> bytes:
        return json.dumps({"format": 1, **self.__dict__}, indent=1).encode()


def champion(ports: Ports) -> tuple[Champion, str | None]:
    """The champion and the tag to replace it under; before the first promotion the bootstrap model and None."""
    try:
        body, tag = ports.data.get_tagged(layout.CHAMPION)
    except NotFound:
        encoder = ports.loop.training.encoder
        return Champion(f"{layout.BOOTSTRAP}-{ports.loop.task.kind}{f'-{encoder}' if encoder else ''}"), None
    fields = parsed(layout.CHAMPION, body)
    fields.pop("format", None)
    return Champion(**fields), tag


def head(data: ObjectStore) -> tuple[str | None, str | None]:
    """The newest dataset version and the tag to replace it under; (None, None) before the first label."""
    try:
        body, tag = data.get_tagged(layout.HEAD)
    except NotFound:
        return None, None
    return str(parsed(layout.HEAD, body)["version"]), tag
