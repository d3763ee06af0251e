"""How many mistakes one more label would spare: a look ahead of one step, on the model's linear head."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from winnow.acquisition.strategy import Labeled, Scores, Strategy

Floats = npt.NDArray[np.float32]

CANDIDATES = 2048
"""Records of a large pool that are looked at; enough that the best of them is among the best 0.2 % of the pool."""
JUDGED = 512
"""Records whose mistakes are counted; a mean over them is right within 4 % of their spread."""
_BLOCK_BYTES = 128 << 10


def expected_error_reduction(
    probabilities: npt.NDArray[np.floating],
    embedding: npt.NDArray[np.floating],
    labeled: npt.NDArray[np.floating],
    *,
    rng: np.random.Generator,
) -> Scores:
    """By how much a label is expected to lower the mean probability of a mistake on other records of the pool.

    `probabilities` (n, classes) and `embedding` (n, dim) are the pool's, `labeled` (m, dim) the embeddings of what the
    model has learned from. The look ahead takes the model for a ridge regression on class indicators, whose refit with
    one more record is exact in closed form: label c of record i moves record j by k_ij (e_c - p_i), where k_ij = x_j'
    A^-1 x_i / (1 + x_i' A^-1 x_i), x has a 1 appended for the bias, and A is the sum of x x' over the labeled records
    plus their mean squared length times the identity. The score is the mean over j of E_c[max p_j'] - max p_j, where c
    follows p_i: how often a label may be expected to overturn what is predicted, and for the better. It is never
    negative.

    Looked at are all records, or CANDIDATES drawn by `rng`; the others score 0. Judged are all, or JUDGED drawn. No
    record judges itself. Any NaN in a row makes its score NaN, and it is neither looked at nor judged.

    Source: Roy and McCallum, Toward Optimal Active Learning through Sampling Estimation of Error Reduction, 2001; the
    update in closed form as in Sherman and Morrison, 1950.

    >>> p = np.array([[0.5, 0.5], [0.6, 0.4], [1.0, 0.0]])
    >>> x = np.array([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
    >>> print(expected_error_reduction(p, x, np.array([[0.0, 1.0]]), rng=np.random.default_rng(0)).round(4))
    [0.0667 0.112  0.    ]
    """
    p, x = probabilities.astype(np.float32, copy=False), embedding.astype(np.float32, copy=False)
    finite = np.isfinite(p.sum(axis=1)) & np.isfinite(np.einsum("ij,ij->i", x, x))
    out = np.where(finite, np.float32(0.0), np.float32(np.nan))
    usable = np.flatnonzero(finite)
    looked, judged = _some(usable, CANDIDATES, rng), _some(usable, JUDGED, rng)
    if len(judged) < 2:
        return out
    moves = _moves(_with_bias(x[looked]), _with_bias(x[judged]), _with_bias(labeled))
    moves[looked[:, None] == judged] = 0.0
    others = len(judged) - np.isin(looked, judged)
    rows = max(1, _BLOCK_BYTES // (4 * len(judged)))
    for start in range(0, len(looked), rows):
        some = slice(start, start + rows)
        gains = _gains(p[looked[some]], p[judged], moves[some])
        out[looked[some]] = gains.sum(axis=1) / others[some]
    return np.maximum(out, np.float32(0.0), out=out)


def _with_bias(embedding: npt.NDArray[np.floating]) -> Floats:
    return np.column_stack([embedding, np.ones(len(embedding), dtype=np.float32)]).astype(np.float32)


def _some(rows: npt.NDArray[np.int64], most: int, rng: np.random.Generator) -> npt.NDArray[np.int64]:
    return rows if len(rows) <= most else np.sort(rng.choice(rows, most, replace=False))


def _moves(looked: Floats, judged: Floats, labeled: Floats) -> Floats:
    """(looked, judged): the share of a record's surprise by which its label moves another one."""
    known = labeled if len(labeled) else judged
    ridge = float(np.einsum("ij,ij->", known, known, dtype=np.float64)) / len(known)
    gram = (labeled.T @ labeled).astype(np.float64) + ridge * np.eye(looked.shape[1])
    solved = np.linalg.solve(gram, looked.T.astype(np.float64))
    leverage = np.einsum("ij,ji->i", looked, solved)
    moves: Floats = ((judged @ solved) / (1.0 + leverage)).T.astype(np.float32)
    return moves


def _gains(looked: Floats, judged: Floats, moves: Floats) -> Floats:
    """(rows, judged): E_c[max over classes after label c] - max before, for p of rows (rows, classes) and of judged.

    Label c moves every class to `stay` and then its own by the move. Upwards that leaves the larger of its own and the
    best of `stay`; downwards only the best class itself can lose, to the second. One class after the other, so that
    arithmetic runs along the records.
    """
    first = np.full_like(moves, -np.inf)
    second = first.copy()
    classes = range(looked.shape[1])
    for label in classes:
        stay = judged[:, label] - moves * looked[:, [label]]
        np.maximum(second, np.minimum(first, stay), out=second)
        np.maximum(first, stay, out=first)
    raised, best = np.zeros_like(moves), np.zeros_like(moves)
    for label in classes:
        share = looked[:, [label]]
        stay = judged[:, label] - moves * share
        best += share * (stay == first)
        stay += moves
        raised += share * np.maximum(stay, first, out=stay)
    lowered = first * (looked.sum(axis=1, keepdims=True) - best) + best * np.maximum(first + moves, second)
    gains: Floats = np.where(moves >= 0.0, raised, lowered) - judged.max(axis=1)
    return gains


def _embedding(labeled: Labeled | None) -> npt.NDArray[np.float32]:
    assert labeled is not None  # `winnow.acquisition.score` checks the needs first
    return labeled.embedding


EXPECTED_ERROR_REDUCTION = Strategy(
    name="expected_error_reduction",
    score=lambda outputs, rng: expected_error_reduction(
        outputs.probabilities, outputs.embedding, _embedding(outputs.labeled), rng=rng
    ),
    needs=frozenset({"probabilities", "embedding", "labeled"}),
    source="Roy and McCallum, 2001",
    sentence="Asks for records whose label should spare the most mistakes on others; looks at a part of a large pool.",
    cost="2,048 x 512 x classes",
    scope="pool",
)
