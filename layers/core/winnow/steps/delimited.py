"""CSV in whatever dialect it comes: its encoding, delimiter, quotes and decimal sign are found from its first lines.

The dialect is that under which most of the first records have as many cells as the header. A record that has not, or
whose quotes do not close, is refused alone; the lines that an open quote swallowed are read again without it.
"""

from __future__ import annotations

import csv
import re
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from io import TextIOWrapper
from itertools import islice, product

from winnow.errors import BadInput
from winnow.steps.streams import UNREADABLE, Content, characters, encoding, too_many_lines
from winnow.tables import Records, Sheet

DELIMITERS = (",", ";", "\t", "|")
"""In the order that decides between equals."""

SAMPLE_CHARS = 1 << 18
SAMPLE_RECORDS = 1000
REWINDS = 100
"""Open quotes after which the rest is refused: each costs a second reading of what it swallowed."""

_NAMES = {",": "commas", ";": "semicolons", "\t": "tabs", "|": "bars"}
_EXCEL_HINT = re.compile(r"\ufeff?sep=([,;\t|])\r?\n?", re.IGNORECASE)
_POINT = re.compile(r"[+-]?\d+\.\d+")
_GROUPED = re.compile(r"[+-]?\d{1,3}(\.\d{3})+")
_COMMA = re.compile(r"([+-]?)(\d{1,3}(?:\.\d{3})+|\d*)(?:,(\d+))?")


@dataclass(frozen=True)
class Dialect:
    """How cells are told apart and numbers are written."""

    delimiter: str = ","
    quote: str = '"'
    backslash: bool = False
    """Whether a backslash takes a quote its meaning; else it is doubled."""
    decimal_comma: bool = False

    def reader(self, lines: Iterator[str]) -> Iterator[list[str]]:
        return csv.reader(
            lines, delimiter=self.delimiter, quotechar=self.quote, escapechar="\\" if self.backslash else None,
            doublequote=not self.backslash, skipinitialspace=self.delimiter != "\t", strict=True,
        )  # fmt: skip

    def plain(self, cell: str) -> str:
        """A cell with its number, if it is one, written with a decimal point.

        >>> [Dialect(decimal_comma=True).plain(cell) for cell in ("-1.234,5", ",5", "a,b")]
        ['-1234.5', '.5', 'a,b']
        """
        if not self.decimal_comma or not cell[-1:].isdigit():
            return cell
        match = _COMMA.fullmatch(cell)
        if match is None:
            return cell
        sign, whole, fraction = match.groups()
        return sign + whole.replace(".", "") + (f".{fraction}" if fraction else "")


def sheet(content: Content, *, key: str, longest: int, most: int, say: Callable[[str], None]) -> tuple[Sheet, Dialect]:
    """A CSV object's header and records, and its dialect; `say` hears what was decided about it that its reader should know.

    `longest` is the most characters of a record, `most` the most lines that are read. Raises BadInput when there is no
    header that can be used.

    >>> found, dialect = sheet(Content(b"a;b\\n1,5;x\\n", limit=100), key="a.csv", longest=100, most=9, say=print)
    >>> found.header, list(found.records), dialect.decimal_comma
    (('a', 'b'), [(2, ['1,5', 'x'])], True)
    """
    codec, fact = encoding(content)
    if fact is not None:
        say(fact)
    sample = _sample(characters(content, codec), key=key, longest=longest)
    hint = _EXCEL_HINT.fullmatch(sample[0]) if sample else None
    dialect = sniff(sample[1:], (hint[1],)) if hint else sniff(sample)
    if dialect.backslash:
        say("quotes inside cells are escaped with a backslash")
    csv.field_size_limit(longest)
    records = _records(characters(content, codec), dialect, longest=longest, most=most, skip=1 if hint else 0)
    header = next(records, None)
    if header is None:
        raise content.damage or BadInput(f"{key} holds no rows", code="empty")
    if isinstance(header[1], BadInput):
        raise BadInput(f"{key}: the header cannot be read: {header[1]}", code=header[1].code)
    names = _without_trailing_blanks(header[1])
    return Sheet(tuple(names), _with_damage(_body(records, width=len(names)), content)), dialect


def sniff(sample: Sequence[str], delimiters: Sequence[str] = DELIMITERS) -> Dialect:
    r"""The dialect of a text whose first lines these are, the header before all.

    >>> sniff(["a;b\n", "1,5;'x;y'\n"])
    Dialect(delimiter=';', quote="'", backslash=False, decimal_comma=True)
    >>> sniff(["text\n", "one, two\n"]).delimiter
    '\t'
    """
    whole = "".join(sample)
    quotes = ('"', "'") if "'" in whole else ('"',)
    best, found, highest = Dialect(), [[""]], (0.0, 0.0, 1)
    # Among equals the first wins: doubled quotes before backslashes, " before ', commas before all.
    for backslash, quote, delimiter in product((False, True), quotes, delimiters):
        if backslash and f"\\{quote}" not in whole:
            continue
        dialect = Dialect(delimiter, quote, backslash)
        header, *rest = _tried(dialect, sample) or [[""]]
        fitting = sum(len(record) == len(header) for record in rest) / max(len(rest), 1)
        score = (fitting, _quoted(rest, quote), len(header))
        if len(header) > 1 and (highest[2] == 1 or score > highest):
            best, found, highest = dialect, [header, *rest], score
    if highest[2] == 1:
        best, found = _single_column(sample)
    return replace(best, decimal_comma=_has_decimal_comma(best.delimiter, found))


def _tried(dialect: Dialect, sample: Sequence[str]) -> list[list[str]]:
    """Records of the sample under a dialect; one that it cannot read has no cells."""
    records: list[list[str]] = []
    lines = iter(sample)
    reader = dialect.reader(lines)
    while len(records) < SAMPLE_RECORDS:
        try:
            record = next(reader)
        except StopIteration:
            break
        except csv.Error:
            records.append([])
            continue
        if record:
            records.append(record)
    return records


def _quoted(records: list[list[str]], quote: str) -> float:
    """Less for every cell that still stands between quotes, which a dialect should have taken off; a cell that holds the
    dialect's own quote was quoted by it."""
    other = "'" if quote == '"' else '"'
    cells = (cell for record in records for cell in record)
    return -float(sum(len(cell) > 1 and cell[0] == cell[-1] == other and quote not in cell for cell in cells))


def _single_column(sample: Sequence[str]) -> tuple[Dialect, list[list[str]]]:
    """One cell a record: any delimiter does that stands in none, and where each stands in some, the rarest."""
    whole = "".join(sample)
    delimiter = min((*DELIMITERS[2:], *DELIMITERS[:2], "\x1f"), key=whole.count)
    dialect = Dialect(delimiter)
    return dialect, _tried(dialect, sample)


def _has_decimal_comma(delimiter: str, records: list[list[str]]) -> bool:
    """Whether numbers such as 1,5 or 1.234,5 are meant as numbers: never beside 1.5, and never in a file of commas."""
    if delimiter == ",":
        return False
    cells = [cell.strip() for record in records[1:] for cell in record if cell[-1:].isdigit()]
    if any(_POINT.fullmatch(cell) and not _GROUPED.fullmatch(cell) for cell in cells):
        return False
    fractions = [match[3] for match in map(_COMMA.fullmatch, cells) if match and match[3]]
    # 1,234 alone may be a thousand written in English: semicolons say that it is not.
    return any(len(fraction) != 3 for fraction in fractions) or (delimiter == ";" and bool(fractions))


def _sample(text: TextIOWrapper, *, key: str, longest: int) -> list[str]:
    found: list[str] = []
    room = SAMPLE_CHARS
    while room > 0 and len(found) < SAMPLE_RECORDS:
        line = text.readline(longest + 1)
        if len(line) > longest and not found:
            raise BadInput(
                f"{key}: the first line has more than {longest} characters; a table needs a header, and no table has so "
                "many columns that its header is longer",
                code="bad-header",
            )
        if not line or (found and len(line) > room):
            break
        found.append(line)
        room -= len(line)
    return found


class _TooLongError(Exception):
    """A record grew beyond its limit."""


class _Lines:
    """Feeds lines to a csv reader, counts them, and takes back those that a record should not have had."""

    def __init__(self, text: TextIOWrapper, longest: int) -> None:
        self._text = text
        self._longest = longest
        self._back: deque[str] = deque()
        self._length = 0
        self.number = 0
        self.taken: list[str] = []

    def __iter__(self) -> _Lines:
        return self

    def __next__(self) -> str:
        line = self._back.popleft() if self._back else self._text.readline(self._longest + 1)
        if not line:
            raise StopIteration
        self.number += 1
        self.taken.append(line)
        self._length += len(line)
        if len(line) > self._longest:
            while line and line[-1] not in "\r\n":
                line = self._text.readline(self._longest + 1)
        if self._length > self._longest:
            raise _TooLongError
        return line

    def begin(self) -> int:
        """A new record begins; the number of its first line."""
        self.taken = []
        self._length = 0
        return self.number + 1

    def rewind(self) -> None:
        """Give back all lines of this record but the first."""
        self._back.extendleft(reversed(self.taken[1:]))
        self.number -= len(self.taken) - 1
        del self.taken[1:]


def _records(text: TextIOWrapper, dialect: Dialect, *, longest: int, most: int, skip: int) -> Records:
    """Every record that has cells. The width of the first one is what tells a swallowed line from a long cell."""
    lines = _Lines(text, longest)
    for _ in islice(lines, skip):
        pass
    reader = dialect.reader(lines)
    width: int | None = None
    rewinds = 0
    while True:
        start = lines.begin()
        if start > most:
            yield start, too_many_lines(most)
            return
        try:
            cells = next(reader)
        except StopIteration:
            return
        except _TooLongError:
            problem = BadInput(f"row {start} has more than {longest} characters; shorten it", code="oversized")
        except csv.Error as error:
            problem = _badly_quoted(start, lines.number, width, error)
        else:
            if len(cells) < 2 and not "".join(cells).strip():
                continue
            if any(UNREADABLE in line or "\0" in line for line in lines.taken):
                yield start, _unreadable(start, lines.taken)
                continue
            width = len(cells) if width is None else width
            if len(lines.taken) == 1 or len(cells) == width:
                yield start, cells
                continue
            problem = _ragged(start, len(cells), width)
        if len(lines.taken) > 1 and width is not None and width > 1:
            rewinds += 1
            if rewinds > REWINDS:
                yield (
                    start,
                    BadInput(
                        f"more than {REWINDS} quotes are opened and not closed; rows from {start} on are not read",
                        code="malformed-row",
                    ),
                )
                return
            lines.rewind()
            reader = dialect.reader(lines)
        yield start, problem


def _badly_quoted(start: int, end: int, width: int | None, error: csv.Error) -> BadInput:
    # With one column nothing tells a swallowed line from the inside of a text, so all of them are refused.
    which = f"rows {start} to {end} are" if end > start and width == 1 else f"row {start} is"
    return BadInput(f"{which} not well quoted: {error}; double the quotes inside cells", code="malformed-row")


def _unreadable(start: int, taken: Sequence[str]) -> BadInput:
    if any("\0" in line for line in taken):
        return BadInput(
            f"row {start} holds NUL bytes, as UTF-16 without its mark has them; save the file as UTF-8", code="encoding"
        )
    return BadInput(f"row {start} holds bytes that are no text; save the file as UTF-8", code="encoding")


def _ragged(start: int, cells: int, width: int) -> BadInput:
    return BadInput(
        f"row {start} has {cells} cell{'s' if cells != 1 else ''}, the header {width}; quote cells that hold the delimiter",
        code="ragged",
    )


def _without_trailing_blanks(cells: Sequence[str]) -> Sequence[str]:
    """Lines that end in a delimiter have a cell too many."""
    while len(cells) > 1 and not cells[-1].strip():
        cells = cells[:-1]
    return cells


def _body(records: Records, *, width: int) -> Records:
    for number, cells in records:
        if isinstance(cells, BadInput):
            yield number, cells
            continue
        if len(cells) > width and not any(cell.strip() for cell in cells[width:]):
            cells = cells[:width]
        if len(cells) != width:
            yield number, _ragged(number, len(cells), width)
        else:
            yield number, cells


def _with_damage(records: Records, content: Content) -> Records:
    """The records of what could be decompressed, but not the last one, which was cut anywhere; then why it ends there."""
    held: tuple[int, Sequence[str] | BadInput] | None = None
    for item in records:
        if held is not None:
            yield held
        held = item
    if content.damage is not None:
        yield (held[0] if held else 2), content.damage
    elif held is not None:
        yield held
