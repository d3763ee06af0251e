"""An object's bytes and characters a piece at a time, so that what expands (gzip, endless lines) never lies in memory whole."""

from __future__ import annotations

import codecs
import io
import re
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field

from winnow.errors import BadInput

PIECE = 1 << 18
"""Bytes handled at once."""

EXPANSION = 8
"""A gzip may grow to this many times the object limit: text compresses well, bombs better."""

GZIP = b"\x1f\x8b"
UNREADABLE = "\udc80"
"""Stands in decoded text for bytes that are none: no well-formed input can hold half of a surrogate pair."""

_BOMS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),  # before UTF-16, whose mark it begins with
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
_ACCENTED = re.compile(r"[^\x00-\x7f\udc80]")


def _mark(error: UnicodeError) -> tuple[str, int]:
    assert isinstance(error, UnicodeDecodeError)  # nothing is encoded here
    return UNREADABLE, error.end


codecs.register_error("winnow-mark", _mark)


@dataclass
class Content:
    """What an object holds once it is decompressed. After a walk over `pieces`, `damage` says what cut it short, if anything."""

    data: bytes
    limit: int
    """Bytes an object may have; a gzip may grow to `EXPANSION` times as much."""
    damage: BadInput | None = field(default=None, init=False)

    @property
    def is_gzip(self) -> bool:
        return self.data.startswith(GZIP)

    def pieces(self) -> Iterator[bytes]:
        """The bytes in order, from the beginning at every call."""
        self.damage = None
        if not self.is_gzip:
            for start in range(0, len(self.data), PIECE):
                yield self.data[start : start + PIECE]
            return
        try:
            yield from self._gunzipped()
        except zlib.error as error:
            self.damage = BadInput(f"the gzip stream is damaged: {error}", code="truncated")
        except BadInput as problem:
            self.damage = problem

    def _gunzipped(self) -> Iterator[bytes]:
        most = room = self.limit * EXPANSION
        view, place = memoryview(self.data), 0
        while place < len(view):
            stream = zlib.decompressobj(wbits=31)
            while not stream.eof:
                source = stream.unconsumed_tail or view[place : (place := place + PIECE)]
                piece = stream.decompress(source, PIECE)
                if not source and not piece and not stream.eof:
                    raise BadInput("the gzip stream ends early; upload it again", code="truncated")
                room -= len(piece)
                if room < 0:
                    raise BadInput(f"the gzip stream expands beyond {most} bytes; split it", code="oversized")
                if piece:
                    yield piece
            place = min(place, len(view)) - len(stream.unused_data)
            while place < len(view) and view[place] == 0:  # padding between members
                place += 1

    def first(self, count: int) -> bytes:
        """The first `count` bytes, decompressed (fewer when there are fewer)."""
        found = b""
        for piece in self.pieces():
            found += piece
            if len(found) >= count:
                break
        return found[:count]


def lines(content: Content, *, longest: int, most: int) -> Iterator[tuple[int, bytes | BadInput]]:
    """Non-empty lines with their numbers; one with more than `longest` bytes comes as the reason why it is not read.

    Splits at line feeds only: U+2028 and its like may stand inside a text. A damaged end comes last, as its reason, and
    so does line `most`: empty lines are no rows, but they too take their time.

    >>> list(lines(Content(b"one\\n\\ntwo", limit=100), longest=10, most=5))
    [(1, b'one'), (3, b'two')]
    """
    number = 1
    held = bytearray()
    skipping = False
    begun = False
    for piece in content.pieces():
        if not begun:
            piece, begun = piece.removeprefix(codecs.BOM_UTF8), True
        start = 0
        while (end := piece.find(b"\n", start)) >= 0:
            if not skipping:
                held += piece[start:end]
                yield from _line(number, held, longest)
            held.clear()
            skipping = False
            number += 1
            start = end + 1
            if number > most:
                yield number, too_many_lines(most)
                return
        if not skipping:
            held += piece[start:]
            if len(held) > longest:
                yield number, _too_long(number, longest)
                held.clear()
                skipping = True
    if held:
        yield from _line(number, held, longest)
        number += 1
    elif skipping:
        number += 1
    if content.damage is not None:
        yield number, content.damage


def too_many_lines(most: int) -> BadInput:
    """Why an object is not read to its end."""
    return BadInput(
        f"the object has more than {most} lines, thirty for each of limits.max_rows; split it", code="oversized"
    )


def _line(number: int, held: bytearray, longest: int) -> Iterator[tuple[int, bytes | BadInput]]:
    if len(held) > longest:
        yield number, _too_long(number, longest)
    elif held.strip():
        yield number, bytes(held)


def _too_long(number: int, longest: int) -> BadInput:
    return BadInput(f"row {number} has more than {longest} bytes; shorten it", code="oversized")


def encoding(content: Content) -> tuple[str, str | None]:
    """The codec of a text, and what there is to say about the choice.

    A byte-order mark decides; else it is UTF-8 unless more is wrong with that than right, and then Windows-1252.

    >>> encoding(Content("naïve".encode(), limit=100))
    ('utf-8', None)
    >>> encoding(Content("naïve".encode("cp1252"), limit=100))
    ('cp1252', 'it is not UTF-8 and was read as Windows-1252')
    """
    begin = content.first(4)
    for mark, name in _BOMS:
        if begin.startswith(mark):
            return name, None
    decoder = codecs.getincrementaldecoder("utf-8")(errors="winnow-mark")
    wrong = right = 0
    for piece in content.pieces():
        if piece.isascii() and not decoder.getstate()[0]:
            continue
        text = decoder.decode(piece)
        wrong += text.count(UNREADABLE)
        right += len(_ACCENTED.findall(text))
    if wrong > right:
        return "cp1252", "it is not UTF-8 and was read as Windows-1252"
    return "utf-8", f"{wrong} places are not UTF-8" if wrong else None


class _Raw(io.RawIOBase):
    def __init__(self, content: Content) -> None:
        self._pieces = content.pieces()
        self._rest = memoryview(b"")

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]  # io passes a memoryview
        if not self._rest:
            self._rest = memoryview(next(self._pieces, b""))
        size = min(len(buffer), len(self._rest))
        buffer[:size] = self._rest[:size]
        self._rest = self._rest[size:]
        return size


def characters(content: Content, codec: str) -> io.TextIOWrapper:
    """The decoded text, line ends as they are; bytes that are no text stand in it as `UNREADABLE`."""
    return io.TextIOWrapper(io.BufferedReader(_Raw(content), PIECE), encoding=codec, errors="winnow-mark", newline="")
