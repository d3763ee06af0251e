"""Labels that look wrong: how probably each one is, judged by a fit that never saw it.

The champion learned from these labels, so its own opinion of them is no evidence. A ridge regression over the champion's
embedding, which looks at no label, gives every record the prediction of a fit without it in closed form. How sure such a
prediction is, and how many labels are wrong at all, is found together: sharp predictions that are contradicted more often
than their sharpness allows are what wrong labels look like.

Sources: Northcutt, Jiang and Chuang, Confident Learning, 2021 (out-of-sample probabilities against given labels); Lin, Mausam
and Weld, Re-Active Learning, 2016 (a label asked again against a new one); the leave-one-out residual of a linear smoother is
Allen's PRESS, 1974.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from winnow.errors import BadInput

FEWEST = 5
"""Labels of a class without which nothing is said about any of them: a class that was just met looks wrong everywhere."""

_RIDGES = (1e-4, 1e-3, 1e-2, 1e-1, 1.0)
"""Tried penalties, as shares of the mean variance of a direction times the number of records."""
_SHARPNESS = np.geomspace(1.0, 100.0, 25)
_ROUNDS = 40
_PRIOR_WRONG, _PRIOR_RIGHT = 1.0, 49.0
"""What is believed before any evidence: one label in fifty is wrong, with the weight of fifty labels."""
_SAMPLE = 4000
"""Labels by which sharpness and the share of wrong labels are found."""

Floats = npt.NDArray[np.float64]


def suspicion(
    embedding: npt.NDArray[np.floating], labels: npt.NDArray[np.int64], *, classes: int
) -> npt.NDArray[np.float32]:
    """(n,) probability that each label is wrong: 0 where a class has too few labels to say anything.

    `embedding` is (n, dim) and knows nothing of the labels; `labels` (n,) are class numbers below `classes`. Takes
    n x dim^2 + n x dim x classes steps.

    Raises BadInput when the rows disagree in number, a label is no class or the embedding is not finite.

    >>> rng = np.random.default_rng(0)
    >>> labels = np.repeat([0, 1], 20)
    >>> embedding = np.eye(2)[labels] * 4.0 + rng.normal(size=(40, 2))
    >>> labels[3] = 1
    >>> found = suspicion(embedding, labels, classes=2)
    >>> int(found.argmax()), bool(found[3] > 0.5), bool(np.delete(found, 3).max() < 0.1)
    (3, True, True)
    """
    rows = np.asarray(embedding, dtype=np.float64)
    if len(rows) != len(labels):
        raise BadInput(f"{len(labels)} labels but {len(rows)} embeddings", code="suspicion-shape")
    if not np.isfinite(rows).all() or not ((labels >= 0) & (labels < classes)).all():
        raise BadInput("labels must be classes and embeddings finite", code="suspicion-values")
    counts = np.bincount(labels, minlength=classes)
    judged = counts[labels] >= FEWEST
    if (counts >= FEWEST).sum() < 2:
        return np.zeros(len(labels), dtype=np.float32)
    used = np.flatnonzero(counts)
    scores = _left_out(rows, np.searchsorted(used, labels), classes=len(used))
    share = _chance_of_label(scores, np.searchsorted(used, labels), sample=judged)
    return np.where(judged, share, 0.0).astype(np.float32)


def _left_out(rows: Floats, labels: npt.NDArray[np.int64], *, classes: int) -> Floats:
    """(n, classes) what a ridge regression to one-hot labels predicts of each record when it is fitted without it."""
    n = len(rows)
    targets = np.zeros((n, classes))
    targets[np.arange(n), labels] = 1.0
    targets -= targets.mean(axis=0)
    centred = rows - rows.mean(axis=0)
    values, axes = np.linalg.eigh(centred.T @ centred)
    values = np.maximum(values, 0.0)
    turned = centred @ axes
    products = turned.T @ targets
    best, least = targets, np.inf
    for ridge in _RIDGES:
        penalty = ridge * max(float(values.mean()), 1e-12)
        shrunk = 1.0 / (values + penalty)
        leverage = np.minimum((turned**2) @ shrunk + 1.0 / n, 1.0 - 1e-9)
        # The prediction without the record, from the prediction with it (PRESS).
        residual = (targets - turned @ (shrunk[:, None] * products)) / (1.0 - leverage)[:, None]
        error = float((residual**2).sum())
        if error < least:
            best, least = targets - residual, error
    mean = np.bincount(labels, minlength=classes) / n
    found: Floats = best + mean
    return found


def _chance_of_label(scores: Floats, labels: npt.NDArray[np.int64], *, sample: npt.NDArray[np.bool_]) -> Floats:
    """(n,) posterior probability that a label is wrong, sharpness and the share of wrong labels fitted by likelihood."""
    classes = scores.shape[1]
    judged = np.flatnonzero(sample)
    some = judged[:: max(1, len(judged) // _SAMPLE)]
    best, chosen = -np.inf, (1.0, 0.02)
    for sharpness in _SHARPNESS:
        right = _of_label(scores[some], labels[some], sharpness)
        wrong = (1.0 - right) / (classes - 1)
        share = 0.02
        for _ in range(_ROUNDS):
            blamed = share * wrong / (share * wrong + (1.0 - share) * right)
            share = (blamed.sum() + _PRIOR_WRONG) / (len(some) + _PRIOR_WRONG + _PRIOR_RIGHT)
        likelihood = float(np.log(share * wrong + (1.0 - share) * right).sum())
        likelihood += _PRIOR_WRONG * np.log(share) + _PRIOR_RIGHT * np.log(1.0 - share)
        if likelihood > best:
            best, chosen = likelihood, (float(sharpness), float(share))
    right = _of_label(scores, labels, chosen[0])
    wrong = (1.0 - right) / (classes - 1)
    found: Floats = chosen[1] * wrong / (chosen[1] * wrong + (1.0 - chosen[1]) * right)
    return found


def _of_label(scores: Floats, labels: npt.NDArray[np.int64], sharpness: float) -> Floats:
    """(n,) softmax of the sharpened scores at the label, kept off 0 and 1."""
    logits = scores * sharpness
    logits -= logits.max(axis=1, keepdims=True)
    np.exp(logits, out=logits)
    chance = logits[np.arange(len(labels)), labels] / logits.sum(axis=1)
    return np.clip(chance, 1e-9, 1.0 - 1e-9)


def worthwhile(suspects: npt.NDArray[np.floating], fresh: npt.NDArray[np.floating], *, most: int) -> int:
    """How many of the suspects are worth more than the new records whose places they would take, one for one.

    Both in one unit, the probability that people contradict what the loop holds: the label that stands, or the champion's
    prediction. `suspects` best first, `fresh` least first.

    >>> worthwhile(np.array([0.9, 0.6, 0.3]), np.array([0.2, 0.5, 0.55]), most=5)
    2
    """
    pairs = min(len(suspects), len(fresh), max(most, 0))
    better = np.asarray(suspects[:pairs]) > np.asarray(fresh[:pairs])
    return pairs if better.all() else int(np.argmin(better))
