"""How unsure one model is: least confidence, margin, entropy.

All take probabilities (n, classes) whose rows sum to 1 and give (n,) float32, higher = more worth labeling. A row that
holds a NaN gets NaN. They walk the rows in blocks that stay in the processor's cache, because a pass over main memory
costs more than the arithmetic.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from winnow.acquisition.strategy import Scores, Strategy

_BLOCK_BYTES = 1 << 20
"""Small enough for a second-level cache, large enough that a column of a many-class block outweighs a call to numpy."""


def _block_rows(classes: int) -> int:
    return max(256, _BLOCK_BYTES // (4 * max(classes, 1)))


def least_confidence(probabilities: npt.NDArray[np.floating]) -> Scores:
    """One minus the largest probability: 0 when sure, at most 1 - 1/classes.

    Source: Lewis and Gale, A Sequential Algorithm for Training Text Classifiers, 1994.

    >>> least_confidence(np.array([[0.5, 0.25, 0.25], [1.0, 0.0, 0.0]])).tolist()
    [0.5, 0.0]
    """
    n, classes = probabilities.shape
    out = np.empty(n, dtype=np.float32)
    rows = _block_rows(classes)
    for start in range(0, n, rows):
        # Transposed, the maximum runs over whole columns at once instead of reducing one short row at a time.
        columns = np.ascontiguousarray(probabilities[start : start + rows].T, dtype=np.float32)
        columns.max(axis=0, out=out[start : start + rows])
    return np.subtract(np.float32(1.0), out, out=out)


def margin(probabilities: npt.NDArray[np.floating]) -> Scores:
    """One minus the gap between the two largest probabilities: 0 when sure, 1 when the top two tie.

    Source: Scheffer, Decomain and Wrobel, Active Hidden Markov Models for Information Extraction, 2001.

    >>> margin(np.array([[0.5, 0.25, 0.25], [0.5, 0.5, 0.0]])).tolist()
    [0.75, 1.0]
    """
    n, classes = probabilities.shape
    out = np.empty(n, dtype=np.float32)
    rows = _block_rows(classes)
    for start in range(0, n, rows):
        columns = np.ascontiguousarray(probabilities[start : start + rows].T, dtype=np.float32)
        first = columns[0].copy()
        second = np.zeros_like(first)
        loser = np.empty_like(first)
        for column in columns[1:]:
            np.minimum(first, column, out=loser)
            np.maximum(second, loser, out=second)
            np.maximum(first, column, out=first)
        np.subtract(second, first, out=out[start : start + rows])
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
    rows = _block_rows(classes)
    scratch = np.empty((min(rows, n), classes), dtype=np.float32)
    tiny = np.finfo(np.float32).tiny
    for start in range(0, n, rows):
        block = probabilities[start : start + rows].astype(np.float32, copy=False)
        logs = scratch[: len(block)]
        np.maximum(block, tiny, out=logs)  # 0 ln 0 = 0: the product with p = 0 below makes it so
        np.log(logs, out=logs)
        np.einsum("ij,ij->i", block, logs, out=out[start : start + rows])
    np.negative(out, out=out)
    return np.maximum(out, np.float32(0.0), out=out)  # no -0.0 and no rounding below zero


LEAST_CONFIDENCE = Strategy(
    name="least_confidence",
    score=lambda predictions, _rng: least_confidence(predictions.probabilities),
    needs=frozenset({"probabilities"}),
    source="Lewis and Gale, 1994",
    sentence="Asks for records whose best class has the lowest probability.",
)
MARGIN = Strategy(
    name="margin",
    score=lambda predictions, _rng: margin(predictions.probabilities),
    needs=frozenset({"probabilities"}),
    source="Scheffer, Decomain and Wrobel, 2001",
    sentence="Asks for records whose two best classes are nearly tied; the soundest default with many classes.",
)
ENTROPY = Strategy(
    name="entropy",
    score=lambda predictions, _rng: entropy(predictions.probabilities),
    needs=frozenset({"probabilities"}),
    source="Shannon, 1948; Dagan and Engelson, 1995",
    sentence="Asks for records whose probabilities are spread over many classes.",
)
