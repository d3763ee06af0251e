"""A calibrated linear classifier with a bootstrapped committee, over features of any kind.

The main head learns from every label; the committee's members learn from bootstrap samples of them (Breiman 1996), so
that their disagreement says where the labels leave the boundary open (Seung, Opper, Sompolinsky 1992). Regularisation
and temperature are chosen on out-of-fold logits, with near-duplicates kept in one fold.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import scipy.sparse
from logistic import Head, fit_logistic

from winnow.models.calibration import fit_temperature, nll

Features = npt.NDArray[np.float32] | scipy.sparse.csr_array

COSTS = (1.0, 8.0, 32.0, 128.0)
"""Inverse regularisation strengths tried, weakest fit first. Rows of features have length about 1."""

FOLDS = 3
ROUNDS = 120
MEMBER_ROUNDS = 20
"""Solver rounds of the main head and of a member, which starts from a share of the main head's weights."""

_MEMBER_START = 0.25

ROTATE_SPARSE, ROTATE_DENSE = 800, 3_000
"""Up to so many records, and fewer than features, the problem is solved in the space the records span: far fewer
weights. Sparse features stop paying earlier, because the rotated rows are dense."""

SEARCH_ALL_FOLDS = 1_000
"""Above this many records the cost is chosen on one fold; the others are fitted with the chosen one only."""


@dataclass(frozen=True)
class Committee:
    """Everything a graph needs behind its features. Columns of classes without a label carry weight 0."""

    main: Head
    members: tuple[Head, ...]
    temperature: float
    axes: npt.NDArray[np.float64]
    """(D, k) orthonormal directions that keep most of the features' variance."""
    seen: npt.NDArray[np.bool_]
    """(C,) which classes have a label."""
    unseen_share: float
    """Probability given to every class without a label, by Laplace's rule; at most half over all of them."""
    cost: float
    out_of_fold_accuracy: float | None
    """Share of records that a head fitted without their fold gets right; None when no fold could be fitted."""
    out_of_fold_log_loss: float | None


def fit_committee(
    features: Features,
    labels: npt.NDArray[np.int64],
    *,
    classes: int,
    groups: Sequence[str],
    members: int,
    dimensions: int,
    rng: np.random.Generator,
    cost: float | None = None,
) -> Committee:
    """Fit on features (n, D) and labels (n,) in 0..classes-1; `groups` (n) names near-duplicates.

    Without a `cost` the one with the lowest out-of-fold loss is taken.

    Raises `ValueError` when the labels hold fewer than two classes.
    """
    seen = np.bincount(labels, minlength=classes) > 0
    if seen.sum() < 2:
        raise ValueError("a classifier needs labels of at least two classes")
    present = np.flatnonzero(seen)
    targets = np.searchsorted(present, labels)
    space, axes = _span(features, dimensions=dimensions, rng=rng)
    held_out = _HeldOut(space.rows, targets, fold=_folds(targets, groups=groups, rng=rng), classes=len(present))
    cost = held_out.best_cost() if cost is None else cost
    temperature, accuracy, loss = held_out.calibrate(cost)
    main = fit_logistic(space.rows, targets, classes=len(present), cost=cost, rounds=ROUNDS)
    # From the whole of the main head's weights the solver sees next to no slope and stops at once.
    start = Head(weights=main.weights * _MEMBER_START, bias=main.bias * _MEMBER_START)
    committee = []
    for _ in range(members):
        weights = _resample(targets, rng=rng)
        drawn = np.flatnonzero(weights)
        head = fit_logistic(
            space.rows[drawn], targets[drawn], classes=len(present), cost=cost, rounds=MEMBER_ROUNDS, start=start,
            weights=weights[drawn],
        )  # fmt: skip
        committee.append(_widened(space.back(head), present, classes=classes))
    missing = classes - len(present)
    share = min(1.0 / (len(labels) + classes), 0.5 / missing) if missing else 0.0
    return Committee(
        main=_widened(space.back(main), present, classes=classes),
        members=tuple(committee),
        temperature=temperature,
        axes=axes,
        seen=seen,
        unseen_share=share,
        cost=cost,
        out_of_fold_accuracy=accuracy,
        out_of_fold_log_loss=loss,
    )


@dataclass(frozen=True)
class _Space:
    """Rows (n, r) to fit on, and the basis (D, r) that carries weights fitted on them back; None = the features."""

    rows: Any
    basis: npt.NDArray[np.float64] | None

    def back(self, head: Head) -> Head:
        return head if self.basis is None else Head(weights=self.basis @ head.weights, bias=head.bias)


def _span(features: Features, *, dimensions: int, rng: np.random.Generator) -> tuple[_Space, npt.NDArray[np.float64]]:
    """A cheaper, equivalent space (ridge solutions lie in the span of the rows), and the principal directions."""
    count, width = features.shape
    sparse = scipy.sparse.issparse(features)
    if count > (ROTATE_SPARSE if sparse else ROTATE_DENSE) or count >= width:
        return _Space(rows=features, basis=None), _principal(features, dimensions=dimensions, rng=rng)
    product = features @ features.T
    gram = product.toarray() if sparse else product
    values, vectors = np.linalg.eigh(np.asarray(gram, dtype=np.float64))
    keep = values > max(values[-1], 1e-12) * 1e-7
    values, vectors = values[keep][::-1], vectors[:, keep][:, ::-1]
    vectors = _signed(vectors)
    rows = vectors * np.sqrt(values)
    basis = np.asarray(features.T @ (vectors / np.sqrt(values)), dtype=np.float64)
    return _Space(rows=rows, basis=basis), basis[:, :dimensions]


def _folds(targets: npt.NDArray[np.int64], *, groups: Sequence[str], rng: np.random.Generator) -> npt.NDArray[np.int64]:
    """A fold 0..FOLDS-1 for every record: whole groups, dealt out class by class."""
    names, group = np.unique(np.asarray(groups, dtype=str), return_inverse=True)
    first = np.full(len(names), -1, dtype=np.int64)
    first[group[::-1]] = targets[::-1]
    order = np.lexsort((rng.permutation(len(names)), first))
    dealt = np.empty(len(names), dtype=np.int64)
    dealt[order] = np.arange(len(names)) % FOLDS
    return dealt[group]


def _principal(features: Features, *, dimensions: int, rng: np.random.Generator) -> npt.NDArray[np.float64]:
    """Leading right singular vectors (D, k) by a randomised range finder (Halko, Martinsson, Tropp 2011)."""
    count, width = features.shape
    size = max(min(dimensions, min(count, width) - 1), 1)
    sketch = features.T @ rng.standard_normal((count, min(size + 10, count))).astype(features.dtype)
    for _ in range(3):
        sketch, _ = np.linalg.qr(sketch)
        sketch = features.T @ (features @ sketch)
    basis, _ = np.linalg.qr(sketch.astype(np.float64))
    small = np.asarray(features @ basis.astype(features.dtype), dtype=np.float64)
    _, turned = np.linalg.eigh(small.T @ small)
    return _signed(basis @ turned[:, ::-1][:, :size])


def _signed(vectors: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Columns with their largest entry positive: the sign is free, and would hang on the linear-algebra library."""
    return vectors * np.sign(vectors[np.abs(vectors).argmax(axis=0), np.arange(vectors.shape[1])])


class _HeldOut:
    """Logits (n, C) of every record from a head fitted without its fold, by cost; each is fitted once."""

    def __init__(self, rows: Any, targets: npt.NDArray[np.int64], *, fold: npt.NDArray[np.int64], classes: int) -> None:
        self._rows, self._targets, self._fold, self._classes = rows, targets, fold, classes
        self._logits: dict[tuple[int, float], npt.NDArray[np.float64]] = {}
        met = [np.unique(targets[fold != number]) for number in range(FOLDS)]
        self._usable = [number for number in range(FOLDS) if len(met[number]) > 1 and (fold == number).any()]
        self._met = met

    def best_cost(self) -> float:
        """The cost with the lowest calibrated loss; the second of `COSTS` when no fold can be fitted."""
        if not self._usable:
            return COSTS[1]
        folds = self._usable if len(self._targets) <= SEARCH_ALL_FOLDS else self._usable[:1]
        for number in folds:
            self._fit(number, COSTS)
        return min(COSTS, key=lambda cost: self._judge(cost, folds)[2])

    def calibrate(self, cost: float) -> tuple[float, float | None, float | None]:
        """Temperature, accuracy and loss over all folds; 1 and None when none can be fitted."""
        if not self._usable:
            return 1.0, None, None
        for number in self._usable:
            if (number, cost) not in self._logits:
                self._fit(number, (cost,))
        return self._judge(cost, self._usable)

    def _fit(self, number: int, costs: Sequence[float]) -> None:
        inside, outside, present = self._fold != number, self._fold == number, self._met[number]
        rows, targets = self._rows[np.flatnonzero(inside)], np.searchsorted(present, self._targets[inside])
        others = self._rows[np.flatnonzero(outside)]
        head = None
        for cost in costs:  # ascending: each starts from the last one's weights
            head = fit_logistic(rows, targets, classes=len(present), cost=cost, rounds=ROUNDS // 2, start=head)
            scores = others @ head.weights + head.bias
            # A class the fold has not met scores as low as the least likely one it has.
            logits = np.repeat(scores.min(axis=1, keepdims=True), self._classes, axis=1)
            logits[:, present] = scores
            self._logits[number, cost] = logits

    def _judge(self, cost: float, folds: Sequence[int]) -> tuple[float, float, float]:
        logits = np.concatenate([self._logits[number, cost] for number in folds])
        targets = np.concatenate([self._targets[self._fold == number] for number in folds])
        known = np.concatenate([np.isin(self._targets[self._fold == number], self._met[number]) for number in folds])
        accuracy = float(((logits.argmax(axis=1) == targets) & known).mean())
        if not known.any():
            return 1.0, accuracy, float("inf")
        temperature = fit_temperature(logits[known], targets[known])
        return temperature, accuracy, nll(logits[known], targets[known], temperature=temperature)


def _resample(targets: npt.NDArray[np.int64], *, rng: np.random.Generator) -> npt.NDArray[np.float64]:
    """How often each record stands in a bootstrap sample that keeps every class's number of records."""
    weights = np.zeros(len(targets))
    for target in np.unique(targets):
        rows = np.flatnonzero(targets == target)
        weights += np.bincount(rng.choice(rows, size=len(rows)), minlength=len(targets))
    return weights


def _widened(head: Head, present: npt.NDArray[np.int64], *, classes: int) -> Head:
    weights, bias = np.zeros((head.weights.shape[0], classes)), np.zeros(classes)
    weights[:, present], bias[present] = head.weights, head.bias
    return Head(weights=weights, bias=bias)
