"""Personal data in text: found by pattern and checksum, replaced by a placeholder that says what stood there.

Three properties hold for every text, and tests hold them:

- linear time: a pattern looks at a run of characters once, or gives up within a fixed number of them, so no text can
  make a hop or the endpoint hang;
- idempotent: masking a masked text changes nothing. No pattern can match a placeholder or span one, and a placeholder
  directly before or after forbids a match, because its neighbour may have owed its safety to what is now masked;
- deterministic: one version gives one answer everywhere. The version is part of a model's input contract.

Names and street addresses have no pattern and stay.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal, get_args

from winnow.tables import Cell, Row

MASKER_VERSION = "1"
"""Changes whenever any text would be masked differently."""

FindingKind = Literal["URL", "EMAIL", "IBAN", "CARD", "SSN", "IP", "PHONE"]
"""Where findings overlap, the whole stretch is masked as the kind that stands first here."""

Span = tuple[int, int]


@dataclass(frozen=True)
class Finding:
    """Personal data in the original text: `text[start:end]`, offsets in Unicode code points."""

    kind: FindingKind
    start: int
    end: int


_KINDS: tuple[FindingKind, ...] = get_args(FindingKind)
_AFTER = "".join(rf"(?<!\[{kind}\])(?<!\[{kind}\][.,-])" for kind in _KINDS)
_BEFORE = rf"(?![.,-]?\[(?:{'|'.join(_KINDS)})\])"
_SPACE = " \u00a0\u202f"
_GAP = rf"[{_SPACE}.-]"


def _pattern(body: str, *, before: str = "", after: str = "") -> re.Pattern[str]:
    """`body` between two conditions and away from placeholders; re.ASCII would miss digits of other scripts."""
    return re.compile(f"{before}{_AFTER}(?:{body}){after}{_BEFORE}")


_EMAIL = _pattern(r"[\w.+%-]++@(?:[^\W_][\w-]{0,62}+\.){1,8}[^\W\d_]{2,24}+", before=r"(?<![\w.+%-])")
_URL = _pattern(r"[A-Za-z][A-Za-z0-9+.-]{1,19}+://[^\s<>\"\[\]]++", before=r"(?<![A-Za-z0-9+.-])")
_URL_SECRET = re.compile(
    r"://[^/?#\s]*@|[?&;#](?:(?:access_|id_|refresh_)?token|api_?key|client_secret|passw(?:or)?d|pwd|secret|sig|signature|"
    r"x-amz-(?:signature|credential|security-token))=[^&\s]",
    re.IGNORECASE,
)
_DIGITS = _pattern(rf"\d++(?:[{_SPACE}-]\d++)*+", before=r"(?<![\w+])(?<!\d[.,])")
_IBAN = _pattern(rf"(?=([A-Za-z]{{2}}\d{{2}}(?:[{_SPACE}-]?[A-Za-z0-9]){{10,30}}+))", before=r"(?<!\w)")
_SSN = _pattern(
    r"(?!000|666|9\d\d)\d{3}([- ])(?!00)\d{2}\1(?!0000)\d{4}", before=r"(?<!\w)(?<!\d-)", after=r"(?!\w)(?!-\d)"
)
_OCTET = r"(?:25[0-5]|2[0-4]\d|1?\d?\d)"
_IPV4 = _pattern(rf"{_OCTET}(?:\.{_OCTET}){{3}}", before=r"(?<!\w)(?<!\d[.,])", after=r"(?!\w)(?!\.\d)")
_IPV6 = _pattern(r"[0-9A-Fa-f:.]++", before=r"(?<![0-9A-Fa-f:.])")
_PHONE_FORMS = (
    rf"(?:\+|00)(?!0)\d(?:[{_SPACE}.()-]{{0,2}}\d){{7,14}}",  # international: +46 (0)8 928 571 38
    rf"(?:1{_GAP}?)?(?:\([2-9]\d\d\){_GAP}?|[2-9]\d\d{_GAP}?)\d{{3}}{_GAP}?\d{{4}}",  # North America
    rf"\(\d{{2,5}}\){_GAP}?\d{{2,4}}(?:{_GAP}\d{{2,4}}){{1,3}}",  # area code in brackets: (37) 788-063
    r"0\d{8,11}",  # national with its leading 0, in one piece
    rf"0(?!0)\d{{1,4}}({_GAP})\d{{2,8}}(?:\2\d{{2,4}}){{0,4}}",  # the same in groups: 0490 75 40 81
    r"\d\d(?:-\d\d){3,4}",  # groups of two: 60-56-85-91
)
_EXTENSION = r"(?: ?(?:x|ext\.?) ?\d{1,6})?"
_PHONE = _pattern(rf"({'|'.join(_PHONE_FORMS)}){_EXTENSION}", before=r"(?<!\w)(?<!\d[.,-])", after=r"(?!\d)")
_CARD_GROUPS = {(4, 4, 4, 4), (4, 4, 4, 4, 3), (4, 6, 5), (4, 6, 4), (4, 4, 5), (4, 5, 6)}
"""How issuers print numbers; other groupings of digits are only numbers beside each other."""


def _emails(text: str) -> Iterator[Span]:
    return (match.span() for match in _EMAIL.finditer(text))


def _urls(text: str) -> Iterator[Span]:
    for match in _URL.finditer(text):
        if _URL_SECRET.search(match.group()):
            yield match.start(), match.start() + len(match.group().rstrip(".,;:!?)'"))


def _passes_luhn(digits: str) -> bool:
    """Luhn's check digit (ISO/IEC 7812-1)."""
    values = [int(digit) for digit in reversed(digits)]
    return (sum(values[::2]) + sum(sum(divmod(2 * value, 10)) for value in values[1::2])) % 10 == 0


def _is_card(digits: str) -> bool:
    return (digits[0] in "23456" or digits.startswith("1800")) and len(set(digits)) > 1 and _passes_luhn(digits)


def _cards(text: str) -> Iterator[Span]:
    for match in _DIGITS.finditer(text):
        offset = match.start()
        groups = [(offset + group.start(), offset + group.end()) for group in re.finditer(r"\d+", match.group())]
        if text[match.end() : match.end() + 1].isalnum():  # 4 of "4kg" belongs to a word
            groups.pop()
        first = 0
        while first < len(groups):
            for last in range(min(first + 5, len(groups)), first, -1):
                window = groups[first:last]
                sizes = tuple(end - start for start, end in window)
                if sizes not in _CARD_GROUPS and not (last == first + 1 and 12 <= sizes[0] <= 19):
                    continue
                if _is_card("".join(text[start:end] for start, end in window)):
                    yield window[0][0], window[-1][1]
                    first = last - 1
                    break
            first += 1


def _is_iban(account: str) -> bool:
    """ISO 13616's check digits: the number read from its fifth character leaves 1 when divided by 97."""
    turned = account[4:] + account[:4]
    return int("".join(str(int(character, 36)) for character in turned)) % 97 == 1


def _ibans(text: str) -> Iterator[Span]:
    for match in _IBAN.finditer(text):
        start, end = match.span(1)
        while end - start >= 14:  # the run may have swallowed the words after the number: give them back one by one
            ends_here = not text[end : end + 1].isalnum()
            if ends_here and _is_iban("".join(filter(str.isalnum, text[start:end]))):
                yield start, end
                break
            end -= 1


def _ssns(text: str) -> Iterator[Span]:
    return (match.span() for match in _SSN.finditer(text))


def _addresses(text: str) -> Iterator[Span]:
    for match in _IPV4.finditer(text):
        yield match.span()
    if text.count(":") < 2:
        return
    for match in _IPV6.finditer(text):
        run = match.group().rstrip(".")
        run = run[:-1] if run.endswith(":") and not run.endswith("::") else run
        start = match.start() + (run.startswith(":") and not run.startswith("::"))
        end = match.start() + len(run)
        touching = text[end : end + 1].isalnum() or (start == match.start() and text[:start][-1:].isalnum())
        if end - start <= 45 and not touching and _is_ipv6(text[start:end]):
            yield start, end


def _is_ipv6(candidate: str) -> bool:
    if candidate.count(":") < 2 or not any(character.isdigit() for character in candidate):
        return False  # a::b is an address too, but far more often it is code
    try:
        ipaddress.IPv6Address(candidate)
    except ipaddress.AddressValueError:
        return False
    return True


def _phones(text: str) -> Iterator[Span]:
    for match in _PHONE.finditer(text):
        number = match.group(1)
        # With its leading 0 a number has nine digits at least; 01.02.2024 has eight.
        if number[0] != "0" or sum(map(str.isdigit, number)) >= 9:
            yield match.span()


_WITHOUT_DIGITS: tuple[tuple[FindingKind, str, Callable[[str], Iterator[Span]]], ...] = (
    ("URL", "://", _urls),
    ("EMAIL", "@", _emails),
)
_WITH_DIGITS: tuple[tuple[FindingKind, Callable[[str], Iterator[Span]]], ...] = (
    ("IBAN", _ibans),
    ("CARD", _cards),
    ("SSN", _ssns),
    ("IP", _addresses),
    ("PHONE", _phones),
)
_ANY_DIGIT = re.compile(r"\d")


def find(text: str) -> tuple[Finding, ...]:
    """Personal data in `text`, in order and without overlaps; what overlaps or touches its like is one finding.

    >>> find("call +1 541 714 1388")
    (Finding(kind='PHONE', start=5, end=20),)
    """
    spans: list[tuple[int, int, FindingKind]] = []
    for kind, trigger, search in _WITHOUT_DIGITS:
        if trigger in text:
            spans.extend((start, end, kind) for start, end in search(text))
    if _ANY_DIGIT.search(text):
        for kind, search in _WITH_DIGITS:
            spans.extend((start, end, kind) for start, end in search(text))
    found: list[Finding] = []
    for start, end, kind in sorted(spans, key=lambda span: (span[0], -span[1])):
        if found and start < found[-1].end:
            last = found.pop()
            stronger = min(last.kind, kind, key=_KINDS.index)
            found.append(Finding(stronger, last.start, max(last.end, end)))
        else:
            found.append(Finding(kind, start, end))
    return tuple(found)


def mask_text(text: str) -> tuple[str, tuple[Finding, ...]]:
    """`text` with every finding replaced by `[KIND]`, and the findings with their offsets in the original.

    >>> mask_text("Refund jo@example.com, card 4111 1111 1111 1111.")[0]
    'Refund [EMAIL], card [CARD].'
    """
    findings = find(text)
    if not findings:
        return text, ()
    pieces = []
    end = 0
    for finding in findings:
        pieces += [text[end : finding.start], f"[{finding.kind}]"]
        end = finding.end
    pieces.append(text[end:])
    return "".join(pieces), findings


def mask_row(row: Row) -> tuple[dict[str, Cell], int]:
    """`row` with its texts masked, and the number of findings. Numbers stay: a pattern needs more than digits to be sure.

    >>> mask_row({"age": 39.0, "contact": "jo@example.com"})
    ({'age': 39.0, 'contact': '[EMAIL]'}, 1)
    """
    masked: dict[str, Cell] = {}
    count = 0
    for name, cell in row.items():
        if isinstance(cell, str):
            cell, findings = _mask_cell(cell)
            count += findings
        masked[name] = cell
    return masked, count


@lru_cache(maxsize=1024)
def _mask_cell(text: str) -> tuple[str, int]:
    """Columns of categories repeat a few texts for ever."""
    masked, findings = mask_text(text)
    return masked, len(findings)
