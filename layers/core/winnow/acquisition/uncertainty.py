"""How unsure one model is: least confidence, margin, entropy.

All take calibrated probabilities (n, classes) whose rows sum to 1 and give (n,) float32, higher = more worth labeling. A
row that holds a NaN gets NaN. They walk the rows in blocks that stay in the processor's cache, because a pass over main
memory costs more than the arithmetic.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from winnow.acquisition.strategy import Scores, Strategy

_BLOCK_BYTES = 512 << 10
"""Small enough for a second-level cache beside its scratch, large enough to outweigh the calls to numpy."""
_LINE = 16
"""float32 in a line of the cache: columns that begin with one are read a line at a time, others two."""
_PIECES = {1: np.float32, 2: np.complex64, 4: np.complex128}
"""The type that carries so many neighbouring float32 in one piece."""


def _block_rows(classes: int) -> int:
    return max(256, _BLOCK_BYTES // (4 * max(classes, 1)))


class _Turned:
    """Blocks of rows turned into columns, so that arithmetic runs along the rows instead of over one short row at a time.

    Turning costs by the piece moved, so `lanes` neighbouring classes travel in one; a column then holds that many numbers
    for each row in turn, and classes that fill no piece are left as they lie. Lanes are united by what lies `steps` ahead,
    which leaves every row's answer in its first lane, and nothing of use in the others. All that is worked with
    is these columns and two spare ones before them: what is not touched need not be in the cache.
    """

    def __init__(self, rows: int, classes: int) -> None:
        self.lanes = 4 if classes >= 16 else 2 if classes >= 4 else 1
        self.steps = (1, 2)[: self.lanes // 2]
        self.whole = classes - classes % self.lanes
        columns, length = 2 + self.whole // self.lanes, -(-rows // _LINE) * _LINE * self.lanes
        room = np.empty(columns * length + _LINE, dtype=np.float32)
        first = -room.ctypes.data // room.itemsize % _LINE
        self._room = room[first : first + columns * length].reshape(columns, length)

    def columns(self, block: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """(2 + classes // lanes, rows x lanes) of a C-contiguous block (rows, classes), to be written over."""
        room = self._room[:, : len(block) * self.lanes]
        piece = _PIECES[self.lanes]
        np.copyto(room[2:].view(piece), block[:, : self.whole].view(piece).T)
        return room


def least_confidence(probabilities: npt.NDArray[np.floating]) -> Scores:
    """One minus the largest probability: 0 when sure, at most 1 - 1/classes.

    Source: Lewis and Gale, A Sequential Algorithm for Training Text Classifiers, 1994.

    >>> least_confidence(np.array([[0.5, 0.25, 0.25], [1.0, 0.0, 0.0]])).tolist()
    [0.5, 0.0]
    """
    n, classes = probabilities.shape
    out = np.empty(n, dtype=np.float32)
    rows = min(n, _block_rows(classes))
    turned = _Turned(rows, classes)
    for start in range(0, n, rows or 1):
        block = np.ascontiguousarray(probabilities[start : start + rows], dtype=np.float32)
        largest, spare = (columns := turned.columns(block))[:2]
        columns[2:].max(axis=0, out=largest)
        for step in turned.steps:
            np.maximum(largest[:-step], largest[step:], out=spare[:-step])
            largest, spare = spare, largest
        best = out[start : start + rows]
        np.copyto(best, largest[:: turned.lanes])
        for column in block[:, turned.whole :].T:
            np.maximum(best, column, out=best)
    return np.subtract(np.float32(1.0), out, out=out)


def margin(probabilities: npt.NDArray[np.floating]) -> Scores:
    """One minus the gap between the two largest probabilities: 0 when sure, 1 when the top two tie.

    Source: Scheffer, Decomain and Wrobel, Active Hidden Markov Models for Information Extraction, 2001.

    >>> margin(np.array([[0.5, 0.25, 0.25], [0.5, 0.5, 0.0]])).tolist()
    [0.75, 1.0]
    """
    n, classes = probabilities.shape
    if classes == 1:
        return least_confidence(probabilities)  # there is no other to be torn between
    out = np.empty(n, dtype=np.float32)
    rows = min(n, _block_rows(classes))
    turned = _Turned(rows, classes)
    for start in range(0, n, rows or 1):
        block = np.ascontiguousarray(probabilities[start : start + rows], dtype=np.float32)
        first, spare, second, *others, loser = turned.columns(block)
        np.maximum(second, loser, out=first)
        np.minimum(second, loser, out=second)
        for column in others:
            np.minimum(first, column, out=loser)
            np.maximum(second, loser, out=second)
            np.maximum(first, column, out=first)
        for step in turned.steps:
            np.minimum(first[:-step], first[step:], out=loser[:-step])
            np.maximum(second[:-step], second[step:], out=spare[:-step])
            np.maximum(spare, loser, out=spare)
            np.maximum(first[:-step], first[step:], out=loser[:-step])
            first, second, loser, spare = loser, spare, first, second
        best, runner_up = first[:: turned.lanes], second[:: turned.lanes]
        for column in block[:, turned.whole :].T:
            np.maximum(runner_up, np.minimum(best, column), out=runner_up)
            np.maximum(best, column, out=best)
        np.subtract(runner_up, best, out=out[start : start + rows])
    out += np.float32(1.0)
    return out


def entropy(probabilities: npt.NDArray[np.floating]) -> Scores:
    """Shannon entropy in nats: 0 when sure, at most ln(classes).

    Source: Shannon, A Mathematical Theory of Communication, 1948; as a query strategy Dagan and Engelson, 1995.

    >>> print(entropy(np.array([[0.5, 0.5], [1.0, 0.0]])).round(4))
    [0.6931 0.    ]
    """
    n, classes = probabilities.shape
    out = np.empty(n, dtype=np.float32)
    rows = min(n, _block_rows(classes))
    scratch = np.empty((rows, classes), dtype=np.float32)
    tiny = np.finfo(np.float32).tiny
    with np.errstate(divide="ignore", invalid="ignore"):
        for start in range(0, n, rows or 1):
            block = probabilities[start : start + rows].astype(np.float32, copy=False)
            logs, negative = scratch[: len(block)], out[start : start + rows]
            np.add(block, tiny, out=logs)  # 0 ln 0 = 0: the product with p = 0 below makes it so
            np.log(logs, out=logs)
            np.einsum("ij,ij->i", block, logs, out=negative)
            if not np.isfinite(negative).all():  # a number rounded to below zero counts as 0, a NaN stays one
                np.log(np.maximum(block, tiny, out=logs), out=logs)
                np.einsum("ij,ij->i", block, logs, out=negative)
    np.negative(out, out=out)
    return np.maximum(out, np.float32(0.0), out=out)  # no -0.0 and no rounding below zero


LEAST_CONFIDENCE = Strategy(
    name="least_confidence",
    score=lambda outputs, _rng: least_confidence(outputs.probabilities),
    needs=frozenset({"probabilities"}),
    source="Lewis and Gale, 1994",
    sentence="Asks for records whose best class has the lowest probability.",
    cost="n x classes",
)
MARGIN = Strategy(
    name="margin",
    score=lambda outputs, _rng: margin(outputs.probabilities),
    needs=frozenset({"probabilities"}),
    source="Scheffer, Decomain and Wrobel, 2001",
    sentence="Asks for records whose two best classes are nearly tied; the soundest default with many classes.",
    cost="n x classes",
)
ENTROPY = Strategy(
    name="entropy",
    score=lambda outputs, _rng: entropy(outputs.probabilities),
    needs=frozenset({"probabilities"}),
    source="Shannon, 1948; Dagan and Engelson, 1995",
    sentence="Asks for records whose probabilities are spread over many classes.",
    cost="n x classes",
)
