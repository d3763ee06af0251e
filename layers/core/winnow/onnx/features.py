"""From a record's payload to the tensors a model reads; training, serving and scoring all come through here.

Text is lower-cased and cut into words here, in Python, because onnxruntime's own lower-casing asks the machine for a
locale. Images are decoded by Pillow under limits, since a few kilobytes can claim to be a billion pixels. A table's
columns become tensors one by one, never cell by cell.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import io
import math
import re
import unicodedata
import warnings
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image as PillowImage

from winnow.errors import BadInput
from winnow.models.package import HASHED_WIDTH
from winnow.records import Record
from winnow.tables import Cell, as_text

WORDS = "words-1"
"""The text form of this module's `clean_text`; a changed rule gets a new name, and model.json says which it needs."""

MAX_TEXT_CHARS = 20_000
"""Characters of a text that a model sees; the rest is cut off (a page holds about 3,000)."""

MAX_PIXELS = 40_000_000
"""Pixels of an image before it is refused (a 40-megapixel photo takes 120 MB decoded)."""

FORMATS = ("PNG", "JPEG")

# Scripts written without spaces: every character is a token of its own.
_UNSPACED = (
    "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
)
# Vowel signs and accents that Python's \w leaves out, by block.
_MARKS = "\u0300-\u036f\u0591-\u05c7\u0610-\u061a\u064b-\u065f\u0670\u0900-\u0dff\u0f00-\u0fff"
_TOKENS = re.compile(f"[{_UNSPACED}]|(?:(?![{_UNSPACED}])[\\w{_MARKS}])+|[^\\w\\s\\x00-\\x1f\\x7f-\\x9f]")
_EMPTY = "\u2205"

Payload = str | bytes | Record | Mapping[str, Any] | npt.NDArray[Any]
"""Text, an encoded image, a canonical record as object or as JSON (`{"text"}`, `{"image"}` or `{"row"}`), or a decoded
uint8 image (H, W) or (H, W, C)."""

_LARGEST = float(np.finfo(np.float32).max)


def clean_text(text: str) -> str:
    r"""Normalise, case-fold and cut into words: every token behind one space, one at least.

    The leading space is what tells the graph a word's beginning.

    >>> clean_text("Where's my CARD?\n")
    " where ' s my card ?"
    >>> clean_text("ÉCOLE 学校")
    ' école 学 校'
    >>> clean_text("  ")
    ' ∅'
    """
    folded = unicodedata.normalize("NFKC", text[:MAX_TEXT_CHARS]).casefold()
    tokens = _TOKENS.findall(folded.encode("utf-8", "ignore").decode())
    return " " + " ".join(tokens) if tokens else " " + _EMPTY


def text_of(payload: Payload) -> str:
    """The text of a payload; `BadInput` when it has none."""
    if isinstance(payload, str):
        return payload
    if isinstance(payload, Record):
        payload = payload.payload()
    text = payload.get("text") if isinstance(payload, Mapping) else None
    if not isinstance(text, str):
        raise BadInput('a text model needs text: give a string or {"text": "..."}', code="no-text")
    return text


def image_bytes_of(payload: Payload) -> bytes:
    """The encoded image of a payload; `BadInput` when it has none or only a reference to one."""
    if isinstance(payload, bytes):
        return payload
    if isinstance(payload, Record):
        payload = payload.payload()
    image = payload.get("image") if isinstance(payload, Mapping) else None
    if isinstance(image, Mapping):
        image = image.get("png")
        if image is None:
            raise BadInput("an image record carries only a reference: read contents/<id>.png first", code="no-image")
    if isinstance(image, bytes):
        return image
    if not isinstance(image, str):
        raise BadInput('an image model needs an image: give PNG or JPEG bytes or {"image": base64}', code="no-image")
    try:
        return base64.b64decode(image, validate=True)
    except (binascii.Error, ValueError) as error:
        raise BadInput(f"the image is not base64: {error}", code="bad-base64") from error


def open_image(data: bytes) -> PillowImage.Image:
    """Decode a PNG or JPEG, under `MAX_PIXELS`; raises `BadInput` with the reason.

    Transparency is laid over white. The result's mode is `L` for grey images and `RGB` for all others.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow warns of what the limit below refuses
            image = PillowImage.open(io.BytesIO(data), formats=FORMATS)
            if image.width * image.height > MAX_PIXELS:
                raise BadInput(
                    f"the image has {image.width} x {image.height} pixels; the limit is {MAX_PIXELS:,}: scale it down",
                    code="image-too-large",
                )
            image.load()
            return _flatten(image)
    # Pillow's decoders raise any of these for damaged files; struct.error and EOFError come as OSError or ValueError.
    except (OSError, ValueError, SyntaxError, KeyError, IndexError, PillowImage.DecompressionBombError) as error:
        raise BadInput(f"the image cannot be decoded as PNG or JPEG: {error}", code="bad-image") from error


def _flatten(image: PillowImage.Image) -> PillowImage.Image:
    if image.mode.startswith("I"):  # 16-bit grey
        return PillowImage.fromarray((np.asarray(image, dtype=np.float64) / 257.0).clip(0.0, 255.0).astype(np.uint8))
    if image.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in image.info:
        grey = image.mode in ("LA", "La")
        layer = image.convert("RGBA")
        image = PillowImage.alpha_composite(PillowImage.new("RGBA", layer.size, "white"), layer)
        return image.convert("L" if grey else "RGB")
    return image.convert("L" if image.mode in ("1", "L") else "RGB")


def image_tensor(payload: Payload, *, shape: Sequence[int]) -> npt.NDArray[np.float32]:
    """The (H, W, C) float32 tensor in 0..1 of an image payload: decoded, made grey (C = 1) or RGB (C = 3), resized.

    The whole picture is squeezed into H x W, so that nothing at its border is lost.

    >>> image_tensor(np.full((4, 6), 255, np.uint8), shape=(2, 2, 1)).ravel().tolist()
    [1.0, 1.0, 1.0, 1.0]
    """
    height, width, channels = shape
    image = _from_array(payload) if isinstance(payload, np.ndarray) else open_image(image_bytes_of(payload))
    image = image.convert("L" if channels == 1 else "RGB")
    if image.size != (width, height):
        # Reducing by whole factors first makes a photo's resize several times cheaper.
        image = image.resize((width, height), PillowImage.Resampling.BILINEAR, reducing_gap=3.0)
    return np.asarray(image, dtype=np.float32).reshape(height, width, channels) / np.float32(255.0)


def _from_array(array: npt.NDArray[Any]) -> PillowImage.Image:
    if array.dtype != np.uint8 or array.ndim not in (2, 3) or (array.ndim == 3 and array.shape[2] not in (1, 3)):
        raise BadInput(
            f"an image array must be uint8 (H, W) or (H, W, 1 or 3), not {array.dtype} {array.shape}", code="bad-image"
        )
    flat = array[..., 0] if array.shape[2:] == (1,) else array
    return PillowImage.fromarray(np.ascontiguousarray(flat))


def row_of(payload: Payload) -> Mapping[str, Cell]:
    """The canonical row of a payload; `BadInput` when it has none."""
    if isinstance(payload, Record):
        payload = payload.payload()
    row = payload.get("row") if isinstance(payload, Mapping) else None
    if not isinstance(row, Mapping):
        raise BadInput('a table model needs a row: give {"row": {column: value}}', code="no-row")
    return row


def number_column(cells: Sequence[Any]) -> npt.NDArray[np.float32]:
    """The tensor (n, 1) of a number column's cells; what is no finite number becomes NaN, missing.

    Numbers beyond float32 become the largest it has, so that they stay on their side of every threshold.

    >>> number_column([39.0, None, "old", 1e300]).ravel().tolist()
    [39.0, nan, nan, 3.4028234663852886e+38]
    """
    if set(map(type, cells)) <= {float, type(None)}:
        values = np.array(cells, dtype=np.float64)
    else:
        values = np.array([_number(cell) for cell in cells], dtype=np.float64)
    values[~np.isfinite(values)] = np.nan
    return np.clip(values, -_LARGEST, _LARGEST).astype(np.float32)[:, None]


def category_column(cells: Sequence[Any]) -> npt.NDArray[Any]:
    """The tensor (n, 1) of a category column's cells: texts, "" where one is missing, numbers without a trailing `.0`.

    >>> category_column(["Ulm", None, 39.0, 3.5]).ravel().tolist()
    ['Ulm', '', '39', '3.5']
    """
    texts = {cell: _category(cell) for cell in set(cells)}
    column = np.empty((len(cells), 1), dtype=object)
    column[:, 0] = [texts[cell] for cell in cells]
    return column


def hashed_rows(rows: Sequence[Mapping[str, Cell]]) -> npt.NDArray[np.float32]:
    """Rows of any columns as vectors (n, 256) of length 1: the form `hashed-1`.

    Signed feature hashing (Weinberger et al. 2009) of "column=text" for texts and, because nothing is known yet of how a
    column's numbers are spread, of a number's first digit and first two digits with their power of ten. Every cell has
    the same weight, so the product of two rows is about the share of cells that they have in common; numbers that begin
    alike count half. Rows that say nothing are zeros.

    >>> vectors = hashed_rows([{"city": "Ulm", "age": 41.0}, {"city": "Ulm", "age": 44.0}, {"city": "Bonn", "age": None}])
    >>> (vectors @ vectors.T).round(2).tolist()
    [[1.0, 0.75, 0.0], [0.75, 1.0, 0.0], [0.0, 0.0, 1.0]]
    """
    out = np.zeros((len(rows), HASHED_WIDTH))
    for name in sorted(set().union(*rows)):
        cells = [row.get(name) for row in rows]
        numbers = number_column(cells)[:, 0].astype(np.float64)
        known = np.flatnonzero(np.isfinite(numbers))
        for digits in (1, 2):
            found, which = np.unique(_leading(numbers[known], digits), return_inverse=True)
            _add_terms(out, known, [f"{name}~{value:.{digits - 1}e}" for value in found], which, weight=math.sqrt(0.5))
        said = [number for number, cell in enumerate(cells) if isinstance(cell, str)]
        texts, which = np.unique(np.array([cells[number] for number in said], dtype=object), return_inverse=True)
        _add_terms(out, said, [f"{name}={text}" for text in texts], which, weight=1.0)
    length = np.sqrt(np.square(out).sum(axis=1, keepdims=True))
    return (out / np.maximum(length, 1e-12)).astype(np.float32)


def _leading(numbers: npt.NDArray[np.float64], digits: int) -> npt.NDArray[np.float64]:
    """Numbers cut off behind their first digits: 1234.5 becomes 1200 with two of them."""
    size = np.abs(numbers)
    unit = 10.0 ** (np.floor(np.log10(np.where(size > 0, size, 1.0))) - (digits - 1))
    # A little is added, or 0.3 / 0.1 would be cut to 2.
    return np.copysign(np.floor(size / unit + 1e-9) * unit, numbers)


def _add_terms(
    out: npt.NDArray[np.float64], rows: Sequence[int] | npt.NDArray[np.int64], terms: Sequence[str],
    which: npt.NDArray[np.int64], *, weight: float,
) -> None:  # fmt: skip
    """Add `weight` at the hash of each row's term, terms[which[i]] of rows[i]."""
    if terms:
        places, signs = np.array([_bucket(term) for term in terms]).T
        out[rows, places[which].astype(np.intp)] += weight * signs[which]


def _number(cell: Any) -> float:
    if isinstance(cell, bool) or not isinstance(cell, float | int):
        return math.nan
    try:
        return float(cell)
    except OverflowError:  # a whole number of 400 digits
        return math.nan


def _category(cell: Any) -> str:
    if isinstance(cell, str):
        return cell.encode("utf-8", "replace").decode()  # half a surrogate pair is no text that a graph could hold
    number = _number(cell)
    return as_text(number) if math.isfinite(number) else ""


@lru_cache(maxsize=1 << 16)
def _bucket(term: str) -> tuple[int, float]:
    """Column and sign of a hashed term; the hash is the same on every machine, unlike Python's own."""
    value = int.from_bytes(hashlib.blake2b(term.encode("utf-8", "replace"), digest_size=8).digest(), "little")
    return value % HASHED_WIDTH, 1.0 if value >> 63 else -1.0
