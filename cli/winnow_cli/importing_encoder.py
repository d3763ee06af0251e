"""`winnow import encoder`: an encoder into the stack, under a name that loop.yaml can give."""

from __future__ import annotations

import argparse
import json
import re
from typing import Any

from winnow import layout
from winnow.errors import BadModel, NotFound
from winnow.models.encoder import ENCODER_CARD, EncoderCard
from winnow.onnx.encoder_folder import read_encoder
from winnow_cli.errors import UsageError
from winnow_cli.stack import connect, explained

_NAME = re.compile(r"[a-z][a-z0-9-]{0,31}\Z")


def run(given: argparse.Namespace) -> int:
    """Try the encoder here, upload its files, its card last. Raises UsageError for one that is none, or a taken name."""
    name = given.name or given.folder.resolve().name.lower()
    if not _NAME.match(name):
        raise UsageError(
            f"{name!r} is no name: a-z, 0-9 and hyphens, a letter first, at most 32; say another with --name"
        )
    try:
        card, files = read_encoder(given.folder)
    except (BadModel, OSError) as error:
        raise UsageError(f"{given.folder}: {error}") from error
    stack = connect(given)
    with explained(f"importing {given.folder}"):
        store(card, files, name=name, data=stack.data)
    print(
        f"{name} reads {card.reads} and gives {card.dimensions} numbers a record: "
        f"s3://{stack.settings.data_bucket}/{layout.encoder(name)}"
    )
    print(f"say `training: {{encoder: {name}}}` in loop.yaml and push it")
    return 0


def store(card: EncoderCard, files: dict[str, bytes], *, name: str, data: Any) -> None:
    """Write an encoder into a stack's bucket. Raises UsageError when the name stands for another one.

    Models are named by the encoder's name among other things, so a name keeps its meaning for ever.
    """
    try:
        present = EncoderCard.from_json(json.loads(data.get(layout.encoder(name))))
    except NotFound:
        present = None
    if present is not None and present.digest != card.digest:
        raise UsageError(f"{name} is another encoder already ({present.digest}); import this one under another --name")
    for file, content in files.items():
        data.put(layout.encoder(name, file), content)
    data.put(layout.encoder(name, ENCODER_CARD), json.dumps({"format": 1, **card.to_json()}, indent=1).encode())
