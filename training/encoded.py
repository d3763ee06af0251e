"""Models on top of an encoder: a linear head over its vectors beside the kind's own features, or boosted trees over them.

The vectors know what words mean, the own features know which words stood there: together they are better than either,
and the fewer labels there are the more the vectors bring.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import scipy.sparse
from boosting import Forest, Nodes, Trees
from columns import Rows
from committee import (
    Committee,
    HeldOut,
    Joined,
    fit_committee,
    folds,
    judge,
    resample,
    spread_over,
    usable_folds,
)
from heads import Heads, add_heads, share_of_unseen

from winnow.models.calibration import softmax
from winnow.models.doubt import doubt
from winnow.onnx.bootstrap import VECTORS, add_embedding
from winnow.onnx.wire import FLOAT, GraphBuilder

WEIGHTS = (0.5, 1.5, 3.0)
"""Lengths that the encoder's vectors are given beside own features of length about 1, for encoders worth less and more."""

TREE_RECORDS, TREE_CLASSES, TREE_ROWS, TREE_COUNT = 200, 10, 4_000, 300
"""Trees are tried from so many records on, up to so many classes, on so many records at most and with so many trees."""

TREE_GAIN = 0.98
"""Trees have to bring the held-out loss below this share of the linear head's: they are dearer and less calibrated."""

Vectors = npt.NDArray[np.float32]
Own = npt.NDArray[np.float32] | scipy.sparse.csr_array


@dataclass(frozen=True)
class Choice:
    """What was chosen on held-out records: cost and weight of a linear head, or the settings of trees over the vectors."""

    cost: float
    weight: float
    trees: Trees | None = None


def joined(own: Own, vectors: Vectors, *, weight: float) -> Any:
    """Own features (n, D) and the encoder's vectors (n, E) at their weight, as one matrix (n, D + E)."""
    scaled = vectors * np.float32(weight)
    return Joined(own, scaled) if scipy.sparse.issparse(own) else np.hstack([own, scaled])


def choose(
    own: Own,
    vectors: Vectors,
    labels: npt.NDArray[np.int64],
    *,
    groups: Sequence[str],
    rng: np.random.Generator,
) -> Choice:
    """What predicts held-out records best; `labels` (n,) hold two classes at least, `groups` (n) name near-duplicates."""
    present, targets = np.unique(labels, return_inverse=True)
    fold = folds(targets, groups=groups, rng=rng)
    tried = {}
    for weight in WEIGHTS:
        held_out = HeldOut(joined(own, vectors, weight=weight), targets, fold=fold, classes=len(present))
        cost, loss = held_out.best()
        tried[Choice(cost, weight)] = loss
    linear = min(tried, key=lambda choice: tried[choice])
    if len(targets) < TREE_RECORDS or len(present) > TREE_CLASSES:
        return linear
    kept = np.sort(rng.permutation(len(targets))[:TREE_ROWS])
    trees = Trees(rounds=max(TREE_COUNT // len(present), 30), rate=0.15, leaves=7, least=20, ridge=1.0, share=0.3)
    found = _held_out(_rows(vectors[kept]), targets[kept], trees, fold=fold[kept], classes=len(present))
    if found is None:
        return linear
    number, logits, inside, known = found
    rows = joined(own[kept], vectors[kept], weight=linear.weight)
    same = HeldOut(rows, targets[kept], fold=fold[kept], classes=len(present))
    bound = TREE_GAIN * judge(same.raw(linear.cost, [number]), inside, known)[2]
    return replace(linear, trees=trees) if judge(logits, inside, known)[2] < bound else linear


def _held_out(
    rows: Rows, targets: npt.NDArray[np.int64], trees: Trees, *, fold: npt.NDArray[np.int64], classes: int
) -> tuple[int, npt.NDArray[np.float64], npt.NDArray[np.int64], npt.NDArray[np.bool_]] | None:
    """The first fold that can be judged: its number, the logits trees fitted without it give, its targets, and which of
    them were met outside."""
    met, usable = usable_folds(targets, fold)
    if not usable:
        return None
    number = usable[0]
    outside, inside = np.flatnonzero(fold != number), np.flatnonzero(fold == number)
    learned = np.searchsorted(met[number], targets[outside])
    raw = Forest.fit(rows.take(outside), learned, trees=trees, classify=True, seed=0).predict(rows.take(inside))
    scores = np.hstack([np.zeros_like(raw), raw]) if raw.shape[1] == 1 else raw
    logits = spread_over(scores, met[number], classes=classes)
    return number, logits, targets[inside], np.isin(targets[inside], met[number])


@dataclass(frozen=True)
class Boosted:
    """Forests over the encoder's vectors, main one first, and what makes probabilities of them."""

    forests: tuple[Forest, ...]
    places: tuple[tuple[int, ...], ...]
    heads: Heads
    figures: dict[str, float]


def fit_boosted(
    vectors: Vectors,
    labels: npt.NDArray[np.int64],
    trees: Trees,
    *,
    classes: int,
    groups: Sequence[str],
    members: int,
    rng: np.random.Generator,
) -> Boosted:
    """Fit on vectors (n, E) and labels (n,) in 0..classes-1; the temperature is that of one held-out fold."""
    seen = np.bincount(labels, minlength=classes) > 0
    present, targets = np.unique(labels, return_inverse=True)
    rows, seed = _rows(vectors), int(rng.integers(2**31))
    temperature, figures = 1.0, {}
    fold = folds(targets, groups=groups, rng=rng)
    found = _held_out(rows, targets, trees, fold=fold, classes=len(present))
    if found is not None:
        temperature, accuracy, loss = judge(*found[1:])
        said = softmax(found[1], temperature=temperature)
        figures = {"cv_accuracy": accuracy, "cv_log_loss": loss, **doubt(said, found[2]).figures()}
    draws = [np.repeat(np.arange(len(targets)), resample(targets, rng=rng).astype(np.int64)) for _ in range(members)]
    forests = [Forest.fit(rows, targets, trees=trees, classify=True, seed=seed)]
    forests += [
        Forest.fit(rows.take(drawn), targets[drawn], trees=trees.smaller(), classify=True, seed=seed + number)
        for number, drawn in enumerate(draws, start=1)
    ]
    scoring = present[1:] if len(present) == 2 else present  # of two classes only the second has trees
    bias = np.zeros((len(forests), classes))
    bias[:, scoring] = [forest.baseline for forest in forests]
    places = tuple(tuple(place * classes + int(k) for k in scoring) for place in range(len(forests)))
    return Boosted(tuple(forests), places, Heads(bias, temperature, seen, share_of_unseen(len(labels), seen)), figures)


def boosted_graph(found: Boosted, *, width: int) -> bytes:
    """The ONNX file: input `encoded`, float32 (n, width)."""
    graph = GraphBuilder("winnow-encoded")
    vectors = add_input(graph, width=width)
    nodes = Nodes()
    for forest, targets in zip(found.forests, found.places, strict=True):
        forest.write(nodes, targets=targets, sizes=())
    products = graph.op(
        "TreeEnsembleRegressor", vectors, domain="ai.onnx.ml", n_targets=found.heads.bias.size,
        aggregate_function="SUM", post_transform="NONE", **nodes.attributes(),
    )  # fmt: skip
    add_heads(graph, products, found.heads)
    add_embedding(graph, vectors, width=width)
    return graph.to_bytes()


def fit_linear(
    own: Own,
    vectors: Vectors,
    labels: npt.NDArray[np.int64],
    choice: Choice,
    *,
    classes: int,
    groups: Sequence[str],
    members: int,
    rng: np.random.Generator,
) -> Committee:
    """A committee over both; its weights (D + E, classes) are for the vectors as they are, without the weight."""
    committee = fit_committee(
        joined(own, vectors, weight=choice.weight), labels, classes=classes, groups=groups, members=members, dimensions=1,
        rng=rng, cost=choice.cost,
    )  # fmt: skip
    for head in (committee.main, *committee.members):
        head.weights[own.shape[1] :] *= choice.weight
    return committee


def add_input(graph: GraphBuilder, *, width: int) -> str:
    """Declare the input that takes the encoder's vectors."""
    return graph.input(VECTORS, FLOAT, ("n", width))


def _rows(vectors: Vectors) -> Rows:
    return Rows(vectors, np.zeros((len(vectors), 0), np.int64), vectors)
