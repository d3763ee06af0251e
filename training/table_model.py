"""Tables: from rows to one ONNX graph with a linear head or boosted trees, a committee and an embedding.

The embedding is the principal directions of scaled numbers and one-hot categories, whatever the head.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import scipy.sparse
from boosting import Forest, Nodes, Trees
from columns import MAX_TREE_CODE, Columns, Rows, constants
from committee import fit_committee, principal, resample, signed, span
from heads import Heads, add_heads, share_of_unseen
from ridge import fit_ridge
from search import Classes, Numbers, Recipe, Search, final

from winnow.onnx.wire import FLOAT, STRING, GraphBuilder

DIMENSIONS = 64
"""Principal directions in the embedding, at most."""

_EXACT_WIDTH = 1_500
_LARGEST_NUMBER = 1e30


@dataclass(frozen=True)
class TableFit:
    """A fitted table model; `figures` are of held-out rows."""

    graph: bytes
    recipe: Recipe
    temperature: float
    figures: dict[str, float]


def fit_classifier(
    columns: Columns,
    rows: Rows,
    labels: npt.NDArray[np.int64],
    *,
    classes: int,
    positive: int | None,
    groups: Sequence[str],
    members: int,
    rng: np.random.Generator,
    recipe: Recipe | None = None,
) -> TableFit:
    """Fit on rows and labels (n,) in 0..classes-1; the average precision of `positive`, if any, decides what is fitted.

    Raises `ValueError` when the labels hold fewer than two classes.
    """
    seen = np.bincount(labels, minlength=classes) > 0
    present = np.flatnonzero(seen)
    if len(present) < 2:
        raise ValueError("a classifier needs labels of at least two classes")
    targets = np.searchsorted(present, labels)
    wanted = int(np.searchsorted(present, positive)) if positive is not None and seen[positive] else None
    seed = int(rng.integers(2**31))
    search = Search(rows, Classes.of(targets, positive=wanted), groups=groups, seed=seed, rng=rng)
    recipe = recipe or final(search.best())
    temperature, figures = search.figures(recipe)
    if recipe.trees is None:
        committee = fit_committee(
            rows.features, labels, classes=classes, groups=groups, members=members, dimensions=DIMENSIONS, rng=rng,
            cost=recipe.cost,
        )  # fmt: skip
        heads = Heads(committee.heads.bias, temperature, seen, committee.unseen_share)
        weights = np.hstack([head.weights for head in (committee.main, *committee.members)])
        graph = _Graph(columns, axes=_axes(rows, rng=rng), weights=weights)
    else:
        draws = [_repeated(resample(targets, rng=rng)) for _ in range(members)]
        forests = _forests(rows, targets, recipe.trees, draws=draws, classify=True, seed=seed)
        scoring = present[1:] if len(present) == 2 else present  # of two classes only the second has trees
        bias = np.zeros((len(forests), classes))
        bias[:, scoring] = [forest.baseline for forest in forests]
        heads = Heads(bias, temperature, seen, share_of_unseen(len(labels), seen))
        places = [[place * classes + int(k) for k in scoring] for place in range(len(forests))]
        graph = _Graph(columns, axes=_axes(rows, rng=rng), forests=forests, places=places, width=bias.size)
    return TableFit(
        graph.finish(lambda inner, products: add_heads(inner, products, heads)), recipe, temperature, figures
    )


def fit_regression(
    columns: Columns,
    rows: Rows,
    numbers: npt.NDArray[np.float64],
    *,
    groups: Sequence[str],
    members: int,
    rng: np.random.Generator,
    recipe: Recipe | None = None,
) -> TableFit:
    """Fit on rows and their numbers (n,). Raises `ValueError` for numbers that are not finite or too large."""
    if not (np.abs(numbers) < _LARGEST_NUMBER).all():
        raise ValueError(f"a label is not finite or beyond {_LARGEST_NUMBER:g}; predict it in another unit")
    problem = Numbers.of(numbers)
    targets = problem.targets
    seed = int(rng.integers(2**31))
    search = Search(rows, problem, groups=groups, seed=seed, rng=rng)
    recipe = recipe or final(search.best())
    _, figures = search.figures(recipe)
    draws = [rng.integers(0, len(targets), len(targets)) for _ in range(members)]
    if recipe.trees is None:
        assert recipe.cost is not None  # one of the two
        space, _ = span(rows.features, dimensions=DIMENSIONS, rng=rng)
        counts = [np.ones(len(targets)), *(np.bincount(drawn, minlength=len(targets)) for drawn in draws)]
        heads = [
            space.back(fit_ridge(space.rows, targets, costs=[recipe.cost], weights=count.astype(np.float64))[0])
            for count in counts
        ]
        bias = np.concatenate([head.bias for head in heads])
        graph = _Graph(columns, axes=_axes(rows, rng=rng), weights=np.hstack([head.weights for head in heads]))
    else:
        forests = _forests(rows, targets, recipe.trees, draws=draws, classify=False, seed=seed)
        bias = np.concatenate([forest.baseline for forest in forests])
        places = [[place] for place in range(len(forests))]
        graph = _Graph(columns, axes=_axes(rows, rng=rng), forests=forests, places=places, width=len(forests))
    content = graph.finish(lambda inner, products: _add_numbers(inner, products, bias, problem))
    return TableFit(content, recipe, 1.0, figures)


def _forests(
    rows: Rows,
    targets: npt.NDArray[Any],
    trees: Trees,
    *,
    draws: Sequence[npt.NDArray[np.int64]],
    classify: bool,
    seed: int,
) -> list[Forest]:
    """The main forest, and a smaller one for every bootstrap sample (Breiman 1996)."""
    main = Forest.fit(rows, targets, trees=trees, classify=classify, seed=seed)
    return [
        main,
        *(
            Forest.fit(rows.take(drawn), targets[drawn], trees=trees.smaller(), classify=classify, seed=seed + number)
            for number, drawn in enumerate(draws, start=1)
        ),
    ]


def _repeated(weights: npt.NDArray[np.float64]) -> npt.NDArray[np.int64]:
    return np.repeat(np.arange(len(weights)), weights.astype(np.int64))


def _axes(rows: Rows, *, rng: np.random.Generator) -> npt.NDArray[np.float64]:
    """Principal directions (D, k) of the features, all of them when there are few features."""
    width = rows.features.shape[1]
    if width > _EXACT_WIDTH:
        return principal(rows.features, dimensions=DIMENSIONS, rng=rng)
    product = rows.features.T @ rows.features
    gram = product.toarray() if scipy.sparse.issparse(product) else product
    _, vectors = np.linalg.eigh(np.asarray(gram, dtype=np.float64))
    return signed(vectors[:, ::-1][:, :DIMENSIONS])


def _add_numbers(graph: GraphBuilder, products: str, bias: npt.NDArray[np.float64], problem: Numbers) -> None:
    """From products (n, 1 + M) to outputs `prediction` and `members` in the label's own unit."""
    shift = (bias * problem.unit + problem.middle).astype(np.float32)
    scaled = graph.op("Mul", products, graph.constant(np.float32(problem.unit)))
    rows = graph.op("Add", scaled, graph.constant(shift))
    graph.output("prediction", graph.op("Gather", rows, graph.constant(np.array(0)), axis=1), FLOAT, ("n",))
    if len(bias) > 1:
        axis = graph.constant(np.array([1]))
        others = graph.op("Slice", rows, axis, graph.constant(np.array([len(bias)])), axis)
        graph.output("members", others, FLOAT, ("n", len(bias) - 1))


class _Graph:
    """One table model's graph: inputs `c0`, `c1`, … for the numbers, then the categories."""

    def __init__(
        self,
        columns: Columns,
        *,
        axes: npt.NDArray[np.float64],
        weights: npt.NDArray[np.float64] | None = None,
        forests: Sequence[Forest] = (),
        places: Sequence[Sequence[int]] = (),
        width: int = 0,
    ) -> None:
        """With linear `weights` (features, width), or with `forests`, whose trees add to these `places` of `width`."""
        self._columns, self._graph = columns, GraphBuilder("winnow-table")
        names = [f"c{number}" for number in range(len(columns.numbers) + len(columns.categories))]
        split = len(columns.numbers)
        self._numbers = self._joined([self._graph.input(name, FLOAT, ("n", 1)) for name in names[:split]])
        self._codes = self._joined([
            self._coded(self._graph.input(name, STRING, ("n", 1)), column.values)
            for name, column in zip(names[split:], columns.categories, strict=True)
        ])  # fmt: skip
        self._dimensions = axes.shape[1]
        if weights is None:
            self._products = self._trees(forests, places, width=width)
            self._embedding = self._linear(axes)
        else:
            both = self._linear(np.hstack([weights, axes]))
            sizes = self._graph.constant(np.array([weights.shape[1], axes.shape[1]]))
            self._products, self._embedding = self._graph.ops("Split", both, sizes, outputs=2, axis=1)

    def finish(self, end: Callable[[GraphBuilder, str], None]) -> bytes:
        """The ONNX file, after `end` has turned the products into outputs."""
        end(self._graph, self._products)
        self._graph.output("embedding", self._embedding, FLOAT, ("n", self._dimensions))
        return self._graph.to_bytes()

    def _joined(self, names: Sequence[str]) -> str:
        """Columns (n, 1) side by side; "" for none."""
        return self._graph.op("Concat", *names, axis=1) if names else ""

    def _coded(self, texts: str, values: Sequence[str]) -> str:
        return self._graph.op(
            "LabelEncoder", texts, domain="ai.onnx.ml",
            keys_strings=list(values), values_int64s=list(range(1, len(values) + 1)), default_int64=0,
        )  # fmt: skip

    def _trees(self, forests: Sequence[Forest], places: Sequence[Sequence[int]], *, width: int) -> str:
        nodes = Nodes()
        sizes = [min(len(column.values), MAX_TREE_CODE) for column in self._columns.categories]
        for forest, targets in zip(forests, places, strict=True):
            forest.write(nodes, targets=targets, sizes=sizes)
        codes = self._codes
        if any(len(column.values) > MAX_TREE_CODE for column in self._columns.categories):
            seen = self._graph.op("LessOrEqual", codes, self._graph.constant(np.array(MAX_TREE_CODE)))
            codes = self._graph.op("Where", seen, codes, self._graph.constant(np.array(0)))
        codes = codes and self._graph.op("Cast", codes, to=FLOAT)
        return self._graph.op(
            "TreeEnsembleRegressor", self._joined([name for name in (self._numbers, codes) if name]),
            domain="ai.onnx.ml", n_targets=width, aggregate_function="SUM", post_transform="NONE", **nodes.attributes(),
        )  # fmt: skip

    def _linear(self, weights: npt.NDArray[np.float64]) -> str:
        """Features (n, D) times weights (D, k), without ever writing the zeros of one-hot columns down."""
        graph, columns = self._graph, self._columns
        scaled = (weights * columns.scale).astype(np.float32)
        missing = np.flatnonzero([column.missing for column in columns.numbers])
        split = len(columns.numbers) + len(missing)
        parts = []
        if columns.numbers:
            absent = graph.op("IsNaN", self._numbers)
            features = [self._scaled(absent)]
            if len(missing):
                chosen = graph.op("Gather", absent, graph.constant(missing), axis=1)
                features.append(graph.op("Cast", chosen, to=FLOAT))
            parts.append(graph.op("MatMul", self._joined(features), graph.constant(scaled[:split])))
        if columns.categories:
            parts.append(self._looked_up(scaled[split:]))
        return parts[0] if len(parts) == 1 else graph.op("Add", *parts)

    def _scaled(self, absent: str) -> str:
        """The numbers as `columns.scaled` makes them."""
        graph = self._graph
        low, high, centre, spread, shift, gain = (graph.constant(row) for row in constants(self._columns.numbers))
        x = graph.op("Where", absent, centre, self._numbers)
        x = graph.op("Max", graph.op("Min", x, high), low)
        u = graph.op("Div", graph.op("Sub", x, centre), spread)
        one = graph.constant(np.float32(1))
        logarithm = graph.op("Mul", graph.op("Sign", u), graph.op("Log", graph.op("Add", graph.op("Abs", u), one)))
        heavy = graph.constant(np.array([column.heavy for column in self._columns.numbers]))
        t = graph.op("Where", heavy, logarithm, u)
        z = graph.op("Mul", graph.op("Sub", t, shift), gain)
        return graph.op("Where", absent, graph.constant(np.float32(0)), z)

    def _looked_up(self, weights: npt.NDArray[np.float32]) -> str:
        """The sum (n, k) of the rows of weights that the codes name; unknown and hidden codes add nothing."""
        graph = self._graph
        blocks, offsets, start, height = [], [], 0, 0
        for column in self._columns.categories:
            block = np.zeros((len(column.values) + 1, weights.shape[1]), np.float32)
            block[1 : column.shown + 1] = weights[start : start + column.shown]
            blocks.append(block)
            offsets.append(height)
            start, height = start + column.shown, height + len(block)
        index = graph.op("Add", self._codes, graph.constant(np.array(offsets)))
        rows = graph.op("Gather", graph.constant(np.vstack(blocks)), index)
        return graph.op("ReduceSum", rows, graph.constant(np.array([1])), keepdims=0)
