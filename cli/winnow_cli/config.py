"""`winnow config`: loop.yaml checked, explained and pushed."""

from __future__ import annotations

import argparse
import textwrap
from pathlib import Path

from winnow import layout
from winnow.errors import ConfigError
from winnow.loop import Loop, describe, parse
from winnow_cli.errors import UsageError


def read(file: Path) -> tuple[bytes, Loop]:
    """The file's bytes and the valid loop in them. Raises UsageError with one line a problem."""
    try:
        body = file.read_bytes()
    except OSError as error:
        raise UsageError(f"{file}: {error.strerror}") from error
    try:
        return body, parse(body)
    except (ConfigError, UnicodeDecodeError) as error:
        raise UsageError(f"{file} is refused:\n{textwrap.indent(str(error), '  ')}") from error


def check(file: Path) -> int:
    """Say that a loop file is valid, and what it decides."""
    _, loop = read(file)
    print(
        f"{file} is valid: {loop.task.kind}, {len(loop.task.classes)} classes, batches of {loop.batches.size}, "
        f"budget ${loop.budget.total_usd}"
    )
    return 0


def explain(field: str) -> int:
    """Print every field at or under a path with its default and its sentence."""
    rows = [row for row in describe() if not field or row[0] == field or row[0].startswith(f"{field}.")]
    if not rows:
        sections = ", ".join(sorted({path.split(".")[0] for path, _, _ in describe()}))
        raise UsageError(f"loop.yaml has no field {field!r}; its sections are {sections}")
    for path, default, sentence in rows:
        print(f"{path} = {default}")
        print(textwrap.fill(sentence, width=100, initial_indent="    ", subsequent_indent="    "))
    return 0


def push(given: argparse.Namespace) -> int:
    """Check a loop file and write it where every function reads it."""
    from winnow_cli.stack import connect, explained

    body, loop = read(given.file)
    stack = connect(given)
    encoder = loop.training.encoder
    with explained(f"pushing {given.file}"):
        if encoder is not None and not stack.data.exists(layout.encoder(encoder)):
            raise UsageError(
                f"{given.file}: training.encoder is {encoder!r}, which this stack does not have; run winnow import encoder "
                f"DIR --name {encoder} first"
            )
        stack.client("s3").put_object(Bucket=stack.settings.data_bucket, Key=layout.LOOP, Body=body)
    print(f"{given.file} is the loop of {stack.settings.stack}: s3://{stack.settings.data_bucket}/{layout.LOOP}")
    return 0
