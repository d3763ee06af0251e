"""The loop's own model family, quick enough to be fitted hundreds of times: features once, then a head on some rows.

Features and what learns from them are the trainer's (`training/`): words and word beginnings, the image extractor, a
table's columns, an encoder's vectors; linear heads, or boosted trees for tables. For speed's sake features are learned
from all records (without their labels) rather than from the labeled ones, those of texts and images are seen through
their leading principal directions, an encoder's vectors stand alone, and what a trainer searches for every time (cost,
trees, temperature) is searched again only when there are half as many labels more.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

import winnow_training
from winnow.models.calibration import softmax
from winnow.models.doubt import Doubt
from winnow.models.evaluation import average_precision
from winnow.models.predictions import Predictions
from winnow.onnx.features import clean_text

# The trainer's modules lie side by side in their container and import one another by plain names.
sys.path.insert(0, str(Path(next(iter(winnow_training.__path__)))))

import scipy.sparse
from boosting import Forest, Trees
from columns import Columns, Rows
from committee import HeldOut, folds, principal, resample, signed
from examples import Example
from fit import image_features
from heads import share_of_unseen
from logistic import Head, fit_logistic
from ridge import fit_ridge
from search import TREES_FROM, Classes, Numbers, Recipe, Search, final
from text_model import Vocabulary

Indices = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float32]
Measure = Literal["accuracy", "average precision", "R2"]

ENCODER_WEIGHT = 1.5
"""Length that an encoder's vectors are given: the middle of what the trainer tries."""

FEATURE_DIRECTIONS = 512
"""Principal directions that stand for the features of texts and images, at most."""

DIRECTIONS, IMAGE_EMBEDDING = 64, 128
"""Principal directions in the embedding of texts and tables, and of images, as in the trainer."""

SEARCH_AGAIN = 1.5
"""Times as many labels as at the last search make another search worth its time."""

ROUNDS, MEMBER_ROUNDS = 100, 20
MEMBER_START = 0.25


@dataclass(frozen=True, eq=False)
class Problem:
    """n labeled records as features, with what a learner must know of the task."""

    task: Literal["classification", "regression"]
    classes: tuple[str, ...]
    labels: npt.NDArray[Any]
    """(n,) class numbers (int64) or numbers (float64)."""
    features: Any
    """(n, D) float32, dense or sparse, rows of length about 1; of a table what its linear head reads."""
    embedding: Floats
    """(n, dim): what selection sees."""
    rows: Rows | None = None
    """Of a table: what trees read."""
    positive: int | None = None
    """The class whose average precision is the measure, if any."""
    copies: Indices | None = None
    """(n,) the same number for records with the same content; None when all differ."""

    @property
    def contents(self) -> Indices:
        """(n,) which content each record has."""
        return np.arange(self.size) if self.copies is None else self.copies

    @property
    def size(self) -> int:
        return len(self.labels)

    @property
    def measure(self) -> Measure:
        if self.task == "regression":
            return "R2"
        return "accuracy" if self.positive is None else "average precision"

    def split(self, seed: int, *, holdout: float, pool: int, test: int) -> tuple[Indices, Indices]:
        """Pool and test rows of one seed, about so many of each at most; of classes, each has its share of both.

        Copies of one content are on one side.
        """
        rng = np.random.default_rng([seed, 1])
        _, first, which = np.unique(self.contents, return_index=True, return_inverse=True)
        order = rng.permutation(len(first))
        if self.task == "classification":
            # Each class is spread evenly over the order, so that every prefix of it has the classes' shares.
            place = np.empty(len(first))
            classes = self.labels[first]
            for number in range(len(self.classes)):
                inside = order[classes[order] == number]
                place[inside] = (np.arange(len(inside)) + rng.random()) / max(len(inside), 1)
            order = np.argsort(place, kind="stable")
        reached = np.cumsum(np.bincount(which)[order])
        judged = np.searchsorted(reached, min(max(round(holdout * self.size), 1), test)) + 1
        asked = np.searchsorted(reached, min(int(reached[judged - 1]) + pool, self.size)) + 1
        side = np.zeros(len(first), dtype=np.int8)
        side[order[:judged]], side[order[judged:asked]] = 1, 2
        return np.flatnonzero(side[which] == 2), np.flatnonzero(side[which] == 1)


def of_vectors(vectors: Floats, labels: Any, *, classes: Sequence[str]) -> Problem:
    """Texts or images as an encoder's vectors (n, E) of length 1."""
    return Problem("classification", tuple(classes), labels, vectors * np.float32(ENCODER_WEIGHT), vectors)


def of_texts(texts: Sequence[str], labels: Any, *, classes: Sequence[str]) -> Problem:
    """Texts as weighted words and word beginnings, seen through their leading principal directions."""
    cleaned = [clean_text(text) for text in texts]
    own = Vocabulary.learn(cleaned, columns=max(len(classes), 1)).features(cleaned)
    features = _through_directions(own)
    return Problem("classification", tuple(classes), labels, features, features[:, :DIRECTIONS])


def of_images(images: Sequence[bytes | npt.NDArray[np.uint8]], labels: Any, *, classes: Sequence[str]) -> Problem:
    """Encoded or decoded images as their extractor's features, seen through their leading principal directions."""
    examples = [Example(str(number), image, "", str(number)) for number, image in enumerate(images)]
    _, raw, _ = image_features(examples, rng=np.random.default_rng(0))
    features = _through_directions(raw)
    return Problem("classification", tuple(classes), labels, features, features[:, :IMAGE_EMBEDDING])


def _through_directions(features: Any) -> Floats:
    """Features (n, D) as principal components (n, k), the leading one first."""
    axes = principal(features, dimensions=FEATURE_DIRECTIONS, rng=np.random.default_rng(0)).astype(np.float32)
    return np.ascontiguousarray(features @ axes, dtype=np.float32)


def of_rows(rows: Sequence[Any], labels: Any, *, classes: Sequence[str], positive: int | None = None) -> Problem:
    """Rows of a table (cells by column); `labels` are class numbers, or numbers when there are no classes."""
    columns = Columns.learn(rows, declared={})
    read = columns.read(rows)
    return Problem(
        "classification" if classes else "regression", tuple(classes), labels, read.features,
        np.asarray(read.features @ _axes(read.features).astype(np.float32)), rows=read, positive=positive,
    )  # fmt: skip


def _axes(features: Any) -> npt.NDArray[np.float64]:
    if features.shape[1] > 1_500:
        return np.asarray(principal(features, dimensions=DIRECTIONS, rng=np.random.default_rng(0)))
    product = features.T @ features
    gram = product.toarray() if scipy.sparse.issparse(product) else product
    _, vectors = np.linalg.eigh(np.asarray(gram, dtype=np.float64))
    return np.asarray(signed(vectors[:, ::-1][:, :DIRECTIONS]))


@dataclass(frozen=True, eq=False)
class Fit:
    """A model fitted on some rows: its measure on the test rows, what it says of the pool, and what phases need."""

    value: float
    predictions: Predictions
    doubt: Doubt | None


class Learner:
    """Fits the task's model on growing sets of rows of one split. Rows are numbers of the problem's records."""

    def __init__(self, problem: Problem, pool: Indices, test: Indices, *, seed: int, members: int = 0) -> None:
        self.problem, self.pool, self.test = problem, pool, test
        self._seed, self._members = seed, members
        self._everyone = np.concatenate([pool, test])
        self._searched = 0
        self._found: Any = None
        self._head: tuple[npt.NDArray[np.int64], Head] | None = None
        self._doubt: Doubt | None = None

    def fit(self, rows: Indices) -> Fit:
        """Fit on `rows` (m,). With labels of one class only, or a single number, the model knows that and nothing else."""
        rng = np.random.default_rng([self._seed, len(rows), 7])
        if self.problem.task == "regression":
            return self._fit_numbers(rows, rng)
        present, targets = np.unique(self.problem.labels[rows], return_inverse=True)
        if len(present) < 2:
            logits = np.zeros((len(self._everyone), 1))
            return self._judged(logits, present, temperature=1.0, members=None, labels=len(rows))
        if self.problem.rows is not None:
            return self._fit_table(rows, present, targets, rng)
        return self._fit_linear(rows, present, targets, rng)

    def _groups(self, rows: Indices) -> list[str]:
        """Names of contents: copies are not held out of one another."""
        return [str(content) for content in self.problem.contents[rows]]

    def _due(self, labels: int) -> bool:
        if labels < SEARCH_AGAIN * self._searched and self._found is not None:
            return False
        self._searched = labels
        return True

    def _fit_linear(self, rows: Indices, present: Indices, targets: Indices, rng: np.random.Generator) -> Fit:
        features = self.problem.features[rows]
        if self._due(len(rows)):
            fold = folds(targets, groups=self._groups(rows), rng=rng)
            held_out = HeldOut(features, targets, fold=fold, classes=len(present))
            cost = held_out.best_cost()
            temperature, _, _ = held_out.calibrate(cost)
            self._found = cost, temperature
            self._doubt = held_out.doubt(cost, temperature=temperature)
        cost, temperature = self._found
        start = self._start(present, width=features.shape[1])
        head = fit_logistic(features, targets, classes=len(present), cost=cost, rounds=ROUNDS, start=start)
        self._head = present, head
        everyone = self.problem.features[self._everyone]
        members = None
        if self._members:
            begin = Head(head.weights * MEMBER_START, head.bias * MEMBER_START)
            found = []
            for _ in range(self._members):
                weights = resample(targets, rng=rng)
                drawn = np.flatnonzero(weights)
                one = fit_logistic(
                    features[drawn], targets[drawn], classes=len(present), cost=cost, rounds=MEMBER_ROUNDS, start=begin,
                    weights=weights[drawn],
                )  # fmt: skip
                found.append(self.problem.features[self.pool] @ one.weights.astype(np.float32) + one.bias)
            members = np.stack(found, axis=1)
        logits = everyone @ head.weights.astype(np.float32) + head.bias
        return self._judged(logits, present, temperature=temperature, members=members, labels=len(rows))

    def _start(self, present: Indices, *, width: int) -> Head | None:
        """The last head's weights, for the classes it knew."""
        if self._head is None:
            return None
        known, head = self._head
        weights, bias = np.zeros((width, len(present))), np.full(len(present), float(head.bias.min()))
        place = np.searchsorted(present, known)
        weights[:, place], bias[place] = head.weights, head.bias
        return Head(weights, bias)

    def _fit_table(self, rows: Indices, present: Indices, targets: Indices, rng: np.random.Generator) -> Fit:
        assert self.problem.rows is not None  # a table
        read = self.problem.rows.take(rows)
        if self._due(len(rows)):
            positive = self.problem.positive
            wanted = int(np.searchsorted(present, positive)) if positive is not None and positive in present else None
            kind = Classes.of(targets, positive=wanted)
            search = Search(read, kind, groups=self._groups(rows), seed=self._seed, rng=rng)
            recipe = search.best(None if len(present) == 2 else _few_trees(len(rows), classes=len(present)))
            temperature, figures = search.figures(recipe)
            self._found, self._doubt = (final(recipe), temperature), Doubt.of(figures)
        recipe, temperature = self._found
        if recipe.trees is None:
            head = fit_logistic(read.features, targets, classes=len(present), cost=recipe.cost, rounds=ROUNDS)
            logits = self.problem.features[self._everyone] @ head.weights.astype(np.float32) + head.bias
        else:
            forest = Forest.fit(read, targets, trees=recipe.trees, classify=True, seed=self._seed)
            logits = _both(forest.predict(self.problem.rows.take(self._everyone)))
        members = None
        if self._members:
            found = []
            for number in range(self._members):
                drawn = np.repeat(np.arange(len(rows)), resample(targets, rng=rng).astype(np.int64))
                if recipe.trees is None:
                    one = fit_logistic(
                        read.features[drawn],
                        targets[drawn],
                        classes=len(present),
                        cost=recipe.cost,
                        rounds=MEMBER_ROUNDS,
                    )
                    found.append(self.problem.features[self.pool] @ one.weights.astype(np.float32) + one.bias)
                else:
                    small = Forest.fit(
                        read.take(drawn), targets[drawn], trees=recipe.trees.smaller(), classify=True,
                        seed=self._seed + 1 + number,
                    )  # fmt: skip
                    found.append(_both(small.predict(self.problem.rows.take(self.pool))))
            members = np.stack(found, axis=1)
        return self._judged(logits, present, temperature=temperature, members=members, labels=len(rows))

    def _judged(self, logits: Any, present: Indices, *, temperature: float, members: Any, labels: int) -> Fit:
        probabilities = self._spread(softmax(logits, temperature=temperature), present, labels=labels)
        pool = probabilities[: len(self.pool)]
        said = probabilities[len(self.pool) :]
        truth = self.problem.labels[self.test]
        if self.problem.positive is None:
            value = float((said.argmax(axis=1) == truth).mean())
        else:
            value = average_precision(said[:, self.problem.positive], truth == self.problem.positive) or 0.0
        committee = None
        if members is not None:
            committee = self._spread(softmax(members, temperature=temperature), present, labels=labels)
        predictions = Predictions(pool, self.problem.embedding[self.pool], committee)
        return Fit(value, predictions, self._doubt)

    def _spread(self, probabilities: Any, present: Indices, *, labels: int) -> Floats:
        """Probabilities (…, P) of the classes `present` over all classes, as the trained graph gives them."""
        seen = np.zeros(len(self.problem.classes), dtype=bool)
        seen[present] = True
        share = share_of_unseen(labels, seen)
        out = np.full((*probabilities.shape[:-1], len(seen)), share, dtype=np.float32)
        out[..., present] = probabilities * (1.0 - share * (~seen).sum())
        return out

    def _fit_numbers(self, rows: Indices, rng: np.random.Generator) -> Fit:
        assert self.problem.rows is not None  # a table
        problem, read = Numbers.of(self.problem.labels[rows]), self.problem.rows.take(rows)
        if self._due(len(rows)):
            search = Search(read, problem, groups=self._groups(rows), seed=self._seed, rng=rng)
            recipe = search.best()
            self._found = final(recipe)
        recipe = self._found
        raw = _numbers_by(recipe, read, problem.targets, self.problem, seed=self._seed)(self._everyone)
        members = None
        if self._members:
            found = []
            for number in range(self._members):
                drawn = rng.integers(0, len(rows), len(rows))
                one = _numbers_by(
                    recipe,
                    read.take(drawn),
                    problem.targets[drawn],
                    self.problem,
                    seed=self._seed + 1 + number,
                    small=True,
                )
                found.append(one(self.pool))
            members = (np.stack(found, axis=1) * problem.unit + problem.middle).astype(np.float32)
        said = raw * problem.unit + problem.middle
        truth = self.problem.labels[self.test]
        residual = float(np.square(said[len(self.pool) :] - truth).sum())
        value = 1.0 - residual / float(np.square(truth - truth.mean()).sum())
        predictions = Predictions(
            np.zeros((len(self.pool), 0), np.float32), self.problem.embedding[self.pool], members,
            said[: len(self.pool)].astype(np.float32),
        )  # fmt: skip
        return Fit(value, predictions, self._doubt)


def _few_trees(labels: int, *, classes: int) -> list[Trees]:
    """Settings of boosted trees for more than two classes, where every round grows a tree for each."""
    if 2 * labels < TREES_FROM * classes:
        return []
    return [Trees(rounds=50, rate=0.15, leaves=7, least=max(3, min(20, labels // 50)), ridge=1.0, share=0.5)]


def _numbers_by(
    recipe: Recipe, read: Rows, targets: Any, problem: Problem, *, seed: int, small: bool = False
) -> Callable[[Indices], npt.NDArray[np.float64]]:
    """Fit a recipe's regression; what comes back predicts the problem's rows, in the targets' unit."""
    assert problem.rows is not None  # a table
    whole = problem.rows
    if recipe.trees is None:
        assert recipe.cost is not None  # one of the two
        head = fit_ridge(read.features, targets, costs=[recipe.cost])[0]
        return lambda rows: np.asarray(problem.features[rows] @ head.weights + head.bias)[:, 0]
    trees = recipe.trees.smaller() if small else recipe.trees
    forest = Forest.fit(read, targets, trees=trees, classify=False, seed=seed)
    return lambda rows: forest.predict(whole.take(rows))[:, 0]


def _both(raw: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Logits of two classes where trees give one column."""
    return np.hstack([np.zeros_like(raw), raw]) if raw.shape[1] == 1 else raw
