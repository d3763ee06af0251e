"""`winnow put`: files into the pool bucket; everything else happens by itself."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from winnow_cli.errors import UsageError
from winnow_cli.stack import connect, explained

PARALLEL = 8


def put(given: argparse.Namespace) -> int:
    """Upload every file under the key that its name, or its place in the given folder, makes."""
    items = list(_items(given.files))
    if not items:
        raise UsageError("no file to drop: the folders are empty")
    stack = connect(given)
    s3, bucket = stack.client("s3"), stack.settings.pool_bucket

    def drop(item: tuple[Path, str]) -> None:
        s3.put_object(Bucket=bucket, Key=f"{given.prefix}{item[1]}", Body=item[0].read_bytes())

    with explained(f"bucket {bucket}"), ThreadPoolExecutor(PARALLEL) as threads:
        list(threads.map(drop, items))
    print(f"{len(items)} object{'s' if len(items) != 1 else ''} dropped into s3://{bucket}/{given.prefix}")
    return 0


def _items(paths: list[Path]) -> Iterator[tuple[Path, str]]:
    for path in paths:
        if path.is_dir():
            yield from ((item, item.relative_to(path).as_posix()) for item in sorted(path.rglob("*")) if item.is_file())
        elif path.is_file():
            yield path, path.name
        else:
            raise UsageError(f"{path}: there is no such file or folder")
