"""Parquet files, read by a child process: a file made to hurt takes the child's memory and time, never ours."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Collection, Generator
from contextlib import closing
from pathlib import Path
from typing import IO, Any

from winnow.errors import BadInput
from winnow.tables import Records, Sheet

SECONDS = 120
MEGABYTES = 256
"""What the child may allocate beyond its libraries. Files that tools write have row groups and pages far below it."""

MARK, ENCRYPTED = b"PAR1", b"PARE"
EXPANSION = 8
"""How many times the object limit the rows may make: repeated values compress without bounds."""

_LONGEST_LINE = 64 << 20
_CHILD = "winnow.formats.parquet_rows"
_OUT_OF_MEMORY = (b"memory allocation", b"MemoryError", b"bad_alloc", b"capacity overflow")


Lines = Generator[list[Any] | BadInput, None, None]


class ParquetFiles:
    """The child's lines as a sheet; what it does not say (a crash, a limit) becomes the reason for the rest of the file."""

    def __init__(self, *, seconds: int = SECONDS, megabytes: int = MEGABYTES) -> None:
        self._seconds = seconds
        self._megabytes = megabytes

    def sheet(self, data: bytes, *, key: str, wanted: Collection[str] | None, most: int, limit: int) -> Sheet:
        if data.startswith(ENCRYPTED) or data.endswith(ENCRYPTED):
            raise BadInput(f"{key} is encrypted; write it without a key", code="encrypted")
        if len(data) < 12 or not data.endswith(MARK):
            raise BadInput(f"{key} does not end as Parquet does; it is truncated, upload it again", code="truncated")
        lines = self._lines(data, key=key, wanted=wanted, most=most, limit=limit)
        header = next(lines)  # now the child runs, and closing the iterator ends it
        if isinstance(header, BadInput):
            lines.close()
            raise header
        return Sheet(tuple(header), _numbered(lines))

    def _lines(self, data: bytes, *, key: str, wanted: Collection[str] | None, most: int, limit: int) -> Lines:
        with tempfile.TemporaryDirectory(prefix="winnow-parquet-") as scratch, tempfile.TemporaryFile() as said:
            file = Path(scratch) / "object.parquet"
            file.write_bytes(data)
            child = subprocess.Popen(  # noqa: S603 - the command is our own module
                self._command(file, wanted=wanted, most=most), cwd=scratch, env=_environment(), stdout=subprocess.PIPE,
                stderr=said,
            )  # fmt: skip
            try:
                assert child.stdout is not None  # a pipe was asked for
                ended = yield from _parsed(child.stdout, key=key, room=limit * EXPANSION)
                if not ended:
                    yield self._fate(child.wait(), said, key=key)
            finally:
                child.kill()
                child.wait()
                if child.stdout is not None:
                    child.stdout.close()

    def _command(self, file: Path, *, wanted: Collection[str] | None, most: int) -> list[str]:
        command = [sys.executable, "-P", "-m", _CHILD, str(file), "--most", str(most)]
        command += ["--seconds", str(self._seconds), "--megabytes", str(self._megabytes)]
        return command if wanted is None else [*command, "--wanted", json.dumps(sorted(wanted))]

    def _fate(self, status: int, said: IO[bytes], *, key: str) -> BadInput:
        """Why a child ended without a last line."""
        said.seek(0)
        words = said.read(1 << 20)
        if status in (3, -signal.SIGKILL) or any(word in words for word in _OUT_OF_MEMORY):
            return BadInput(
                f"{key} needs more than {self._megabytes} MB to be read; write it with smaller row groups and pages",
                code="oversized",
            )
        if status == -signal.SIGXCPU:
            return BadInput(f"{key} takes more than {self._seconds} seconds to be read; split it", code="oversized")
        return BadInput(
            f"{key} is damaged: it crashed its reader (exit status {status}); write it again", code="truncated"
        )


def _numbered(lines: Lines) -> Records:
    with closing(lines):
        yield from enumerate(lines, start=1)


def _parsed(lines: IO[bytes], *, key: str, room: int) -> Generator[list[Any] | BadInput, None, bool]:
    """The child's header and rows, images put back into them; returns whether its last word was heard."""
    image: int | None = None
    while (line := lines.readline(_LONGEST_LINE)).endswith(b"\n"):
        body = json.loads(line)
        if isinstance(body, list):
            if image is not None and body[image] is not None:
                size = body[image]["bytes"]
                room -= size
                body[image] = lines.read(size) if room >= 0 else None
            yield body
        elif "header" in body:
            image = body["header"].index("image") if body.get("pictures") else None
            yield body["header"]
        elif "problem" in body:
            yield BadInput(f"{key}: {body['problem']}", code=body["code"])
        else:
            return True
        room -= len(line)
        if room < 0:
            yield BadInput(f"{key} expands beyond what limits.max_object_mb allows; split it", code="oversized")
            return True
    lines.close()  # or a child that still writes would never end
    return False


def _environment() -> dict[str, str]:
    environment = {
        "PATH": os.defpath, "LANG": "C.UTF-8", "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)
    }  # fmt: skip
    if "LD_LIBRARY_PATH" in os.environ:  # Lambda's Python finds its own library through it
        environment["LD_LIBRARY_PATH"] = os.environ["LD_LIBRARY_PATH"]
    return environment
