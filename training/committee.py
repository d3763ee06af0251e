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
from heads import Heads, share_of_unseen
from logistic import Head, fit_logistic

from winnow.models.calibration import fit_temperature, nll, softmax
from winnow.models.doubt import Doubt, doubt


class Joined:
    """Sparse and dense float32 features of the same records side by side, (n, s + d), each multiplied in its own way."""

    dtype = np.dtype(np.float32)

    def __init__(self, sparse: scipy.sparse.csr_array, dense: npt.NDArray[np.float32]) -> None:
        self.sparse, self.dense = sparse, dense
        self.shape = (len(dense), sparse.shape[1] + dense.shape[1])

    def __matmul__(self, other: Any) -> Any:
        """Times weights (s + d, k), or times the transpose of such features: (n, k) or (n, n)."""
        if isinstance(other, _Transposed):
            return (self.sparse @ other.sparse).toarray() + self.dense @ other.dense
        split = self.sparse.shape[1]
        return self.sparse @ other[:split] + self.dense @ other[split:]

    def __getitem__(self, rows: Any) -> Joined:
        return Joined(self.sparse[rows], self.dense[rows])

    @property
    def T(self) -> _Transposed:  # noqa: N802 - numpy's name
        return _Transposed(self.sparse.T, self.dense.T)


class _Transposed:
    """The transpose (s + d, n) of `Joined`."""

    def __init__(self, sparse: Any, dense: npt.NDArray[np.float32]) -> None:
        self.sparse, self.dense = sparse, dense

    def __matmul__(self, other: Any) -> Any:
        return np.vstack([self.sparse @ other, self.dense @ other])


Features = npt.NDArray[np.float32] | scipy.sparse.csr_array | Joined

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
    doubt: Doubt | None
    """How well doubt told wrong from right out of fold; None when no fold could be fitted."""

    @property
    def heads(self) -> Heads:
        """What the graph's end needs."""
        bias = np.stack([head.bias for head in (self.main, *self.members)])
        return Heads(bias=bias, temperature=self.temperature, seen=self.seen, unseen_share=self.unseen_share)


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
    space, axes = span(features, dimensions=dimensions, rng=rng)
    held_out = HeldOut(space.rows, targets, fold=folds(targets, groups=groups, rng=rng), classes=len(present))
    cost = held_out.best_cost() if cost is None else cost
    temperature, accuracy, loss = held_out.calibrate(cost)
    main = fit_logistic(space.rows, targets, classes=len(present), cost=cost, rounds=ROUNDS)
    # From the whole of the main head's weights the solver sees next to no slope and stops at once.
    start = Head(weights=main.weights * _MEMBER_START, bias=main.bias * _MEMBER_START)
    committee = []
    for _ in range(members):
        weights = resample(targets, rng=rng)
        drawn = np.flatnonzero(weights)
        head = fit_logistic(
            space.rows[drawn], targets[drawn], classes=len(present), cost=cost, rounds=MEMBER_ROUNDS, start=start,
            weights=weights[drawn],
        )  # fmt: skip
        committee.append(_widened(space.back(head), present, classes=classes))
    return Committee(
        main=_widened(space.back(main), present, classes=classes),
        members=tuple(committee),
        temperature=temperature,
        axes=axes,
        seen=seen,
        unseen_share=share_of_unseen(len(labels), seen),
        cost=cost,
        out_of_fold_accuracy=accuracy,
        out_of_fold_log_loss=loss,
        doubt=held_out.doubt(cost, temperature=temperature),
    )


@dataclass(frozen=True)
class Space:
    """Rows (n, r) to fit on, and the basis (D, r) that carries weights fitted on them back; None = the features."""

    rows: Any
    basis: npt.NDArray[np.float64] | None

    def back(self, head: Head) -> Head:
        return head if self.basis is None else Head(weights=self.basis @ head.weights, bias=head.bias)


def span(features: Features, *, dimensions: int, rng: np.random.Generator) -> tuple[Space, npt.NDArray[np.float64]]:
    """A cheaper, equivalent space (ridge solutions lie in the span of the rows), and the principal directions."""
    count, width = features.shape
    sparse = scipy.sparse.issparse(features) or isinstance(features, Joined)
    if count > (ROTATE_SPARSE if sparse else ROTATE_DENSE) or count >= width:
        return Space(rows=features, basis=None), principal(features, dimensions=dimensions, rng=rng)
    product = features @ features.T
    gram = product.toarray() if scipy.sparse.issparse(product) else product
    values, vectors = np.linalg.eigh(np.asarray(gram, dtype=np.float64))
    keep = values > max(values[-1], 1e-12) * 1e-7
    values, vectors = values[keep][::-1], vectors[:, keep][:, ::-1]
    vectors = signed(vectors)
    rows = vectors * np.sqrt(values)
    basis = np.asarray(features.T @ (vectors / np.sqrt(values)), dtype=np.float64)
    return Space(rows=rows, basis=basis), basis[:, :dimensions]


def folds(targets: npt.NDArray[np.int64], *, groups: Sequence[str], rng: np.random.Generator) -> npt.NDArray[np.int64]:
    """A fold 0..FOLDS-1 for every record: whole groups, dealt out class by class."""
    names, group = np.unique(np.asarray(groups, dtype=str), return_inverse=True)
    first = np.full(len(names), -1, dtype=np.int64)
    first[group[::-1]] = targets[::-1]
    order = np.lexsort((rng.permutation(len(names)), first))
    dealt = np.empty(len(names), dtype=np.int64)
    dealt[order] = np.arange(len(names)) % FOLDS
    return dealt[group]


def principal(features: Features, *, dimensions: int, rng: np.random.Generator) -> npt.NDArray[np.float64]:
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
    return signed(basis @ turned[:, ::-1][:, :size])


def signed(vectors: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Columns with their largest entry positive: the sign is free, and would hang on the linear-algebra library."""
    return vectors * np.sign(vectors[np.abs(vectors).argmax(axis=0), np.arange(vectors.shape[1])])


class HeldOut:
    """Logits of every record from a head fitted without its fold, by cost; each is fitted once."""

    def __init__(
        self,
        rows: Any,
        targets: npt.NDArray[np.int64],
        *,
        fold: npt.NDArray[np.int64],
        classes: int,
        costs: Sequence[float] = COSTS,
    ) -> None:
        self._rows, self._targets, self._fold, self._classes, self._costs = rows, targets, fold, classes, costs
        self._logits: dict[tuple[int, float], npt.NDArray[np.float64]] = {}
        self._met, self._usable = usable_folds(targets, fold)

    def best_cost(self) -> float:
        """The cost with the lowest calibrated loss; the second one when no fold can be fitted."""
        return self.best()[0]

    def best(self) -> tuple[float, float]:
        """`best_cost` and its loss, which is infinite when no fold can be fitted."""
        if not self._usable:
            return self._costs[1], float("inf")
        searched = self._usable if len(self._targets) <= SEARCH_ALL_FOLDS else self._usable[:1]
        for number in searched:
            self._fit(number, self._costs)
        losses = {cost: self._judge(cost, searched)[2] for cost in self._costs}
        cost = min(self._costs, key=losses.__getitem__)
        return cost, losses[cost]

    def calibrate(self, cost: float) -> tuple[float, float | None, float | None]:
        """Temperature, accuracy and loss over all folds; 1 and None when none can be fitted."""
        if not self._usable:
            return 1.0, None, None
        return self._judge(cost, self._usable)

    def doubt(self, cost: float, *, temperature: float) -> Doubt | None:
        """How well doubt tells wrong from right over all folds; None when none can be fitted."""
        if not self._usable:
            return None
        targets = np.concatenate([self._targets[self._fold == number] for number in self._usable])
        return doubt(softmax(self.raw(cost, self._usable), temperature=temperature), targets)

    def raw(self, cost: float, numbers: Sequence[int]) -> npt.NDArray[np.float64]:
        """Logits (m, C) of the records of these folds, fold after fold."""
        for number in numbers:
            if (number, cost) not in self._logits:
                self._fit(number, (cost,))
        return np.concatenate([self._logits[number, cost] for number in numbers])

    def _fit(self, number: int, costs: Sequence[float]) -> None:
        inside, outside, present = self._fold != number, self._fold == number, self._met[number]
        rows, targets = self._rows[np.flatnonzero(inside)], np.searchsorted(present, self._targets[inside])
        others = self._rows[np.flatnonzero(outside)]
        head = None
        for cost in costs:  # ascending: each starts from the last one's weights
            head = fit_logistic(rows, targets, classes=len(present), cost=cost, rounds=ROUNDS // 2, start=head)
            scores = others @ head.weights + head.bias
            self._logits[number, cost] = spread_over(scores, present, classes=self._classes)

    def _judge(self, cost: float, numbers: Sequence[int]) -> tuple[float, float, float]:
        targets = np.concatenate([self._targets[self._fold == number] for number in numbers])
        known = np.concatenate([np.isin(self._targets[self._fold == number], self._met[number]) for number in numbers])
        return judge(self.raw(cost, numbers), targets, known)


def judge(
    logits: npt.NDArray[np.float64], targets: npt.NDArray[np.int64], known: npt.NDArray[np.bool_]
) -> tuple[float, float, float]:
    """Temperature, accuracy and calibrated loss of held-out logits (m, C); what was not `known` counts as wrong."""
    accuracy = float(((logits.argmax(axis=1) == targets) & known).mean())
    if not known.any():
        return 1.0, accuracy, float("inf")
    temperature = fit_temperature(logits[known], targets[known])
    return temperature, accuracy, nll(logits[known], targets[known], temperature=temperature)


def usable_folds(
    targets: npt.NDArray[np.int64], fold: npt.NDArray[np.int64]
) -> tuple[list[npt.NDArray[np.int64]], list[int]]:
    """The classes met outside of each fold, and the folds that can be judged: two classes outside, a record inside."""
    met = [np.unique(targets[fold != number]) for number in range(FOLDS)]
    return met, [number for number in range(FOLDS) if len(met[number]) > 1 and (fold == number).any()]


def spread_over(scores: npt.NDArray[Any], present: npt.NDArray[np.int64], *, classes: int) -> npt.NDArray[np.float64]:
    """Scores (m, P) of the classes `present` as logits (m, C): an unmet class is as unlikely as the least likely one.

    >>> spread_over(np.array([[2.0, 1.0]]), np.array([0, 2]), classes=3).tolist()
    [[2.0, 1.0, 1.0]]
    """
    logits = np.repeat(scores.min(axis=1, keepdims=True), classes, axis=1).astype(np.float64)
    logits[:, present] = scores
    return logits


def resample(targets: npt.NDArray[np.int64], *, rng: np.random.Generator) -> npt.NDArray[np.float64]:
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
