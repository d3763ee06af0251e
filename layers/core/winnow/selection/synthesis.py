"""New records made of two others: a row between two rows, a text of two halves.

A record that lies between two that the model tells apart is near its boundary, where a label moves it most. Whether what
comes out makes sense is for people to say, who label it like any other.

Sources: Zhang, Cisse, Dauphin and Lopez-Paz, mixup, 2018 (a convex mix of two examples); Wang, Hu, Yuan and Lu, Active
Learning via Query Synthesis and Nearest Neighbour Search, 2015 (between neighbours of opposite classes).
"""

from __future__ import annotations

import re

import numpy as np
import numpy.typing as npt

from winnow.selection.distances import squared_norms
from winnow.selection.selector import Indices
from winnow.selection.top_k import top_k
from winnow.tables import Cell, Row

LOOKED_AT = 1000
"""Best-scored records that pairs are made of."""

_JOINT = re.compile(r"(?<=[,;:.!?])\s+|\s+(?=(?:and|but|or|because|und|aber|et|mais|y|pero)\b)", re.IGNORECASE)
_SPACE = re.compile(r"\s+")


def pairs(
    scores: npt.NDArray[np.float32],
    embedding: npt.NDArray[np.float32],
    predicted: npt.NDArray[np.int64] | None,
    *,
    most: int,
) -> list[tuple[int, int]]:
    """At most `most` pairs of rows: each of the best scores (n,) with its nearest neighbour of another predicted class.

    `embedding` is (n, dim); without `predicted` (n,) the nearest neighbour of any kind is taken.

    >>> pairs(np.float32([0.9, 0.5, 0.1]), np.float32([[0], [1], [3]]), np.array([0, 0, 1]), most=1)
    [(0, 2)]
    """
    rows: Indices = top_k(scores, min(len(scores), LOOKED_AT))
    first = rows[: max(most, 0)]
    near = embedding[rows]
    distances = squared_norms(embedding[first])[:, None] + squared_norms(near) - 2.0 * (embedding[first] @ near.T)
    same = first[:, None] == rows
    if predicted is not None:
        same |= predicted[first][:, None] == predicted[rows]
    distances[same] = np.inf
    nearest = distances.argmin(axis=1) if len(rows) else np.zeros(0, dtype=np.int64)
    return [
        (int(row), int(rows[other]))
        for place, (row, other) in enumerate(zip(first, nearest, strict=True))
        if np.isfinite(distances[place, other])
    ]


def mixed(first: Row, second: Row, *, share: float) -> dict[str, Cell]:
    """A row between two: numbers in proportion, each text from the row whose share is larger, a gap filled by the other.

    `share` in 0..1 is the first row's. Whole numbers of both stay whole. Columns are the first row's.

    >>> mixed({"age": 40.0, "city": "Ulm", "m2": None}, {"age": 31.0, "city": "Bonn", "m2": 8.5}, share=0.6)
    {'age': 36.0, 'city': 'Ulm', 'm2': 8.5}
    """
    found: dict[str, Cell] = {}
    for name, one in first.items():
        other = second.get(name)
        if isinstance(one, float) and isinstance(other, float):
            value = share * one + (1.0 - share) * other
            found[name] = float(round(value)) if one.is_integer() and other.is_integer() else value
        elif one is None or other is None:
            found[name] = other if one is None else one
        else:
            found[name] = one if share >= 0.5 else other
    return found


def recombined(first: str, second: str) -> str | None:
    """The first half of one text and the second half of another, parted at a joint of the sentence or else between words.

    None where a text has no two halves of two words each.

    >>> recombined("The card was lost, please block it", "I moved house, where do I say so")
    'The card was lost, where do I say so'
    >>> recombined("refund my order", "cancel it now please") is None
    True
    """
    begin, end = _parted(first), _parted(second)
    return None if begin is None or end is None else f"{begin[0]} {end[1]}"


def _parted(text: str) -> tuple[str, str] | None:
    """The halves of a text, parted as near to its middle as a joint allows."""
    for joint in (_JOINT, _SPACE):
        found = [
            (match.start(), match.end())
            for match in joint.finditer(text)
            if len(text[: match.start()].split()) >= 2 and len(text[match.end() :].split()) >= 2
        ]
        if found:
            start, end = min(found, key=lambda place: abs(place[0] + place[1] - len(text)))
            return text[:start], text[end:]
    return None
