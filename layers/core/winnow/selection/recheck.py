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

from collections.abc import Iterator

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
"""Labels by which the penalty, the sharpness and the share of wrong labels are found."""
_BLOCK = 1 << 20
"""Numbers worked on at once."""

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
    places = np.searchsorted(used, labels)
    scores = _LeftOut(rows, places, classes=len(used))
    sharpness, share = _fitted(scores, np.flatnonzero(judged))
    right = np.concatenate([_of_label(scores[some], places[some], sharpness) for some in scores.blocks()])
    found = _blame(right, share, classes=len(used))
    return np.where(judged, found, 0.0).astype(np.float32)


class _LeftOut:
    """What a ridge regression to one-hot labels predicts of each record when it is fitted without it.

    `self[rows]` gives (rows, classes); all of them at once would not fit into memory where there are many classes.
    """

    def __init__(self, rows: Floats, labels: npt.NDArray[np.int64], *, classes: int) -> None:
        self.labels, self.classes = labels, classes
        self._mean = np.bincount(labels, minlength=classes) / len(labels)
        centred = rows - rows.mean(axis=0)
        values, axes = np.linalg.eigh(centred.T @ centred)
        self._turned = centred @ axes
        self._products = np.zeros((rows.shape[1], classes))
        for some in self.blocks():
            self._products += self._turned[some].T @ self._targets(some)
        values = np.maximum(values, 0.0)
        penalties = [ridge * max(float(values.mean()), 1e-12) for ridge in _RIDGES]
        shrinkages = [1.0 / (values + penalty) for penalty in penalties]
        self._shrunk = min(shrinkages, key=self._error)

    def __getitem__(self, rows: slice | npt.NDArray[np.int64]) -> Floats:
        found: Floats = self._mean + self._targets(rows) - self._residual(rows, self._shrunk)
        return found

    def blocks(self) -> Iterator[slice]:
        step = max(1, _BLOCK // self.classes)
        return (slice(start, start + step) for start in range(0, len(self.labels), step))

    def _targets(self, rows: slice | npt.NDArray[np.int64]) -> Floats:
        labels = self.labels[rows]
        targets = np.tile(-self._mean, (len(labels), 1))
        targets[np.arange(len(labels)), labels] += 1.0
        return targets

    def _residual(self, rows: slice | npt.NDArray[np.int64], shrunk: Floats) -> Floats:
        """Of the prediction without the record, from the prediction with it (PRESS)."""
        turned = self._turned[rows]
        leverage = np.minimum((turned**2) @ shrunk + 1.0 / len(self.labels), 1.0 - 1e-9)
        found: Floats = self._targets(rows) - turned @ (shrunk[:, None] * self._products)
        return found / (1.0 - leverage)[:, None]

    def sampled(self, rows: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        """At most about _SAMPLE of the rows, spread evenly, fewer where there are many classes."""
        return rows[:: max(1, len(rows) // min(_SAMPLE, max(1, 16 * _BLOCK // self.classes)))]

    def _error(self, shrunk: Floats) -> float:
        return float((self._residual(self.sampled(np.arange(len(self.labels))), shrunk) ** 2).sum())


def _fitted(scores: _LeftOut, judged: npt.NDArray[np.int64]) -> tuple[float, float]:
    """Sharpness of the predictions and share of wrong labels that are likeliest together."""
    some = scores.sampled(judged)
    sample, labels = scores[some], scores.labels[some]
    best, chosen = -np.inf, (1.0, 0.02)
    for sharpness in _SHARPNESS:
        right = _of_label(sample, labels, sharpness)
        share = 0.02
        for _ in range(_ROUNDS):
            blamed = _blame(right, share, classes=scores.classes)
            share = (blamed.sum() + _PRIOR_WRONG) / (len(some) + _PRIOR_WRONG + _PRIOR_RIGHT)
        wrong = (1.0 - right) / (scores.classes - 1)
        likelihood = float(np.log(share * wrong + (1.0 - share) * right).sum())
        likelihood += _PRIOR_WRONG * np.log(share) + _PRIOR_RIGHT * np.log(1.0 - share)
        if likelihood > best:
            best, chosen = likelihood, (float(sharpness), float(share))
    return chosen


def _blame(right: Floats, share: float, *, classes: int) -> Floats:
    """(n,) posterior probability that a label is wrong, a wrong one being any other class alike."""
    wrong = share * (1.0 - right) / (classes - 1)
    found: Floats = wrong / (wrong + (1.0 - share) * right)
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
