"""`winnow put`: files into the pool bucket, after a look at what ingest will make of them."""

from __future__ import annotations

import argparse
import textwrap
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from winnow.aws import wiring
from winnow.errors import BadInput, WinnowError
from winnow.formats.parquet import ParquetFiles
from winnow.loop import Loop
from winnow.steps.reading import rows
from winnow_cli.errors import UsageError
from winnow_cli.stack import Stack, connect, explained

PARALLEL = 8
LOOKED_AT = 100
"""Rows of a file that are looked at: when none of them can be used, neither can the rest."""


@dataclass(frozen=True)
class Item:
    """A file to drop and the key that its name, or its place in the given folder, makes."""

    path: Path
    key: str
    named: bool
    """Whether the file itself was named, and not a folder it lies in."""


def put(given: argparse.Namespace) -> int:
    """Check every file, then upload all of them, or none when one could not be read."""
    items = list(_items(given.files))
    if not items:
        raise UsageError("no file to drop: the folders are empty")
    stack = connect(given)
    s3, bucket = stack.client("s3"), stack.settings.pool_bucket
    if given.check:
        items = _checked(items, _loop(stack))

    def drop(item: Item) -> None:
        s3.put_object(Bucket=bucket, Key=f"{given.prefix}{item.key}", Body=item.path.read_bytes())

    with explained(f"bucket {bucket}"), ThreadPoolExecutor(PARALLEL) as threads:
        list(threads.map(drop, items))
    print(f"{len(items)} object{'s' if len(items) != 1 else ''} dropped into s3://{bucket}/{given.prefix}")
    return 0


def _items(paths: list[Path]) -> Iterator[Item]:
    for path in paths:
        if path.is_dir():
            for file in sorted(path.rglob("*")):
                if file.is_file():
                    yield Item(file, file.relative_to(path).as_posix(), named=False)
        elif path.is_file():
            yield Item(path, path.name, named=True)
        else:
            raise UsageError(f"{path}: there is no such file or folder")


def _loop(stack: Stack) -> Loop:
    try:
        return wiring.loop(stack.data)
    except WinnowError as error:
        raise UsageError(f"what the stack reads cannot be known: {error}; --no-check drops the files unseen") from error


def _checked(items: list[Item], loop: Loop) -> list[Item]:
    """The items that ingest will read. Raises UsageError naming every file that would end in quarantine."""
    kept: list[Item] = []
    refused: list[str] = []
    for item in items:
        try:
            notes = _look(item, loop)
        except BadInput as problem:
            if problem.code == "unknown-format" and not item.named:
                print(f"{item.key} is left out: its format is not read")
            else:
                refused.append(str(problem))
            continue
        kept.append(item)
        for note in notes:
            print(f"{item.key}: {note}")
    if refused:
        raise UsageError(
            "nothing was dropped, because these would end in quarantine (--no-check drops them all the same):\n"
            + textwrap.indent("\n".join(refused), "  ")
        )
    if not kept:
        raise UsageError("no file to drop: no format in the folders is read")
    return kept


def _look(item: Item, loop: Loop) -> list[str]:
    """What ingest will decide about a file. Raises BadInput with the reason when none of its first rows can be used."""
    limit = loop.limits.max_object_mb * 1_000_000
    if item.path.stat().st_size > limit:
        raise BadInput(
            f"{item.key} has more bytes than limits.max_object_mb allows ({limit}); split it into smaller objects",
            code="oversized",
        )
    notes: list[str] = []
    found = rows(
        item.path.read_bytes(),
        key=item.key,
        task=loop.task,
        limits=loop.limits,
        parquet=ParquetFiles(),
        say=notes.append,
    )
    problems = [row.problem for row in islice(found, LOOKED_AT)]
    first = next((problem for problem in problems if problem is not None), None)
    if first is not None and None not in problems:
        raise BadInput(f"{item.key}: {first}", code=first.code)
    if first is not None:
        refused = sum(problem is not None for problem in problems)
        notes.append(f"of the first {len(problems)} rows {refused} will be refused; {first}")
    return notes
