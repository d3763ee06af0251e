"""Boosted trees by scikit-learn, and what an ONNX tree ensemble needs of them.

Histogram gradient boosting: Ke et al., "LightGBM: A Highly Efficient Gradient Boosting Decision Tree", 2017. Thresholds
become the next lower float32, so that every float32 number stays on its side.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

import numpy as np
import numpy.typing as npt
from columns import Rows
from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor

PATIENCE = 40
"""Rounds without a gain on held-out rows after which no gain is expected."""

_LARGEST = float(np.finfo(np.float32).max)


@dataclass(frozen=True)
class Trees:
    """Settings of one boosting: `rounds` trees (a class each, when there are more than two) of up to `leaves` leaves."""

    rounds: int
    rate: float
    leaves: int
    least: int
    """Rows a leaf holds at least."""
    ridge: float
    share: float
    """Share of the columns that a split may choose from."""

    def smaller(self) -> Trees:
        """A third of the rounds at three times the rate, as a committee's member is made."""
        return Trees(max(self.rounds // 3, 5), min(self.rate * 3, 0.3), self.leaves, self.least, self.ridge, self.share)


@dataclass
class Nodes:
    """Attributes of an ONNX TreeEnsembleRegressor over numbers (p) followed by codes (q), filled tree by tree."""

    tree: list[int] = field(default_factory=list)
    node: list[int] = field(default_factory=list)
    feature: list[int] = field(default_factory=list)
    mode: list[str] = field(default_factory=list)
    value: list[float] = field(default_factory=list)
    true: list[int] = field(default_factory=list)
    false: list[int] = field(default_factory=list)
    missing_true: list[int] = field(default_factory=list)
    leaf_tree: list[int] = field(default_factory=list)
    leaf_node: list[int] = field(default_factory=list)
    leaf_target: list[int] = field(default_factory=list)
    leaf_weight: list[float] = field(default_factory=list)
    _trees: int = 0

    def begin(self) -> int:
        """The number of a new tree."""
        self._trees += 1
        return self._trees - 1

    def branch(
        self,
        tree: int,
        node: int,
        *,
        feature: int,
        mode: str,
        value: float,
        true: int,
        false: int,
        missing: bool = False,
    ) -> None:
        self._node(tree, node, feature, mode, value, true, false, int(missing))

    def leaf(self, tree: int, node: int, *, target: int, weight: float) -> None:
        self._node(tree, node, 0, "LEAF", 0.0, 0, 0, 0)
        self.leaf_tree.append(tree)
        self.leaf_node.append(node)
        self.leaf_target.append(target)
        self.leaf_weight.append(weight)

    def _node(self, *values: Any) -> None:
        columns = (
            self.tree, self.node, self.feature, self.mode, self.value, self.true, self.false, self.missing_true,
        )  # fmt: skip
        for column, value in zip(columns, values, strict=True):
            column.append(value)  # type: ignore[attr-defined]

    def attributes(self) -> dict[str, Any]:
        """By the operator's own names."""
        return {
            "nodes_treeids": self.tree, "nodes_nodeids": self.node, "nodes_featureids": self.feature,
            "nodes_modes": self.mode, "nodes_values": self.value, "nodes_truenodeids": self.true,
            "nodes_falsenodeids": self.false, "nodes_missing_value_tracks_true": self.missing_true,
            "target_treeids": self.leaf_tree, "target_nodeids": self.leaf_node, "target_ids": self.leaf_target,
            "target_weights": self.leaf_weight,
        }  # fmt: skip


class Forest:
    """A fitted boosting. Raw predictions: logits (n, k) of k = 1 (two classes) or more columns, or numbers (n, 1)."""

    def __init__(self, model: Any, known: Sequence[npt.NDArray[np.int64]]) -> None:
        self.model = model
        self._known = known

    @classmethod
    def fit(
        cls,
        rows: Rows,
        targets: npt.NDArray[Any],
        *,
        trees: Trees,
        classify: bool,
        seed: int,
        held_out: tuple[Rows, npt.NDArray[Any]] | None = None,
    ) -> Forest:
        """Fit on rows and their class numbers, or numbers, (n,).

        With `held_out` rows and targets, `trees.rounds` is the most: it ends `PATIENCE` rounds after the loss on them
        stopped falling. Their classes must be among those of `targets`.
        """
        # A category that these rows lack is unknown to the trees; the encoder inside scikit-learn must not see gaps.
        known = [np.unique(column[column > 0]) for column in rows.codes.T]
        # Nor does its binning take a column without any number, so one number stands in that no split can use.
        empty = np.isnan(rows.numbers).all(axis=0)
        rows = Rows(np.where(empty, np.float32(0), rows.numbers), rows.codes, rows.features)
        options = {
            "learning_rate": trees.rate, "max_iter": trees.rounds, "max_leaf_nodes": trees.leaves,
            "min_samples_leaf": trees.least, "l2_regularization": trees.ridge, "max_features": trees.share,
            "categorical_features": [k < len(known) for k in range(len(known) + rows.numbers.shape[1])],
            "early_stopping": held_out is not None, "scoring": "loss", "n_iter_no_change": PATIENCE, "random_state": seed,
        }  # fmt: skip
        model = (HistGradientBoostingClassifier if classify else HistGradientBoostingRegressor)(**options)
        if held_out is None:
            model.fit(_joined(rows, known), targets)
        else:
            model.fit(_joined(rows, known), targets, X_val=_joined(held_out[0], known), y_val=held_out[1])
        return cls(model, known)

    def best_rounds(self) -> int:
        """Rounds after which the loss on the held-out rows was lowest."""
        return max(int(np.argmax(self.model.validation_score_)), 1)

    def predict(self, rows: Rows, *, rounds: int | None = None) -> npt.NDArray[np.float64]:
        """Raw predictions (n, k) after so many rounds, or as many as there are."""
        staged = getattr(self.model, "staged_decision_function", None) or self.model.staged_predict
        last = min(rounds or self.model.n_iter_, self.model.n_iter_)
        raw = np.asarray(next(islice(staged(_joined(rows, self._known)), last - 1, None)), dtype=np.float64)
        return raw.reshape(len(rows), -1)

    @property
    def baseline(self) -> npt.NDArray[np.float64]:
        """What every raw prediction (k,) begins with."""
        return np.asarray(self.model._baseline_prediction, dtype=np.float64).ravel()

    def write(self, nodes: Nodes, *, targets: Sequence[int], sizes: Sequence[int]) -> None:
        """Add every tree to `nodes`; tree k of a round adds to target `targets[k]`. `sizes` (q) are the highest codes."""
        for one_round in self.model._predictors:
            for target, tree in zip(targets, one_round, strict=True):
                self._write_tree(nodes, tree, target=target, sizes=sizes)

    def _write_tree(self, nodes: Nodes, tree: Any, *, target: int, sizes: Sequence[int]) -> None:
        number, categories, numbers = nodes.begin(), len(self._known), self.model.n_features_in_ - len(self._known)
        free = len(tree.nodes)  # node ids from here on are the links of chains
        for place, node in enumerate(tree.nodes):
            feature, left, right = int(node["feature_idx"]), int(node["left"]), int(node["right"])
            if node["is_leaf"]:
                nodes.leaf(number, place, target=target, weight=float(np.float32(node["value"])))
            elif not node["is_categorical"]:
                nodes.branch(
                    number, place, feature=feature - categories, mode="BRANCH_LEQ",
                    value=_next_lower(float(node["num_threshold"])), true=left, false=right,
                    missing=bool(node["missing_go_to_left"]),
                )  # fmt: skip
            else:
                bits = tree.raw_left_cat_bitsets[int(node["bitset_idx"])]
                inside = self._left(feature, bits, missing=bool(node["missing_go_to_left"]), size=sizes[feature])
                other = sorted(set(range(sizes[feature] + 1)) - set(inside))
                # The codes on one side as a chain of equalities; onnxruntime makes a bit mask of those up to 32.
                chain, yes, no = (inside, left, right) if len(inside) <= len(other) else (other, right, left)
                at = place
                for link, code in enumerate(chain):
                    following = no if link == len(chain) - 1 else free
                    nodes.branch(
                        number,
                        at,
                        feature=numbers + feature,
                        mode="BRANCH_EQ",
                        value=float(code),
                        true=yes,
                        false=following,
                    )
                    if following == free:
                        at, free = free, free + 1

    def _left(self, feature: int, bits: npt.NDArray[np.uint32], *, missing: bool, size: int) -> list[int]:
        """Codes 0..size that go left; what the trees do not know goes where missing values go."""
        place = {int(code): k for k, code in enumerate(self._known[feature])}
        return [
            code for code in range(size + 1)
            if (int(bits[place[code] // 32]) >> (place[code] % 32) & 1 if code in place else missing)
        ]  # fmt: skip


def _joined(rows: Rows, known: Sequence[npt.NDArray[np.int64]]) -> npt.NDArray[np.float64]:
    """Rows as scikit-learn wants them: known categories counted from 0, then numbers; NaN = unknown or missing."""
    out = np.full((len(rows), len(known) + rows.numbers.shape[1]), np.nan)
    for k, (column, values) in enumerate(zip(rows.codes.T, known, strict=True)):
        place = np.searchsorted(values, column)
        hit = place < len(values)
        hit[hit] = values[place[hit]] == column[hit]
        out[hit, k] = place[hit]
    out[:, len(known) :] = rows.numbers
    return out


def _next_lower(threshold: float) -> float:
    """The largest float32 that is not above a threshold."""
    value = np.float32(min(max(threshold, -_LARGEST), _LARGEST))
    with np.errstate(over="ignore"):
        return float(value if float(value) <= threshold else np.nextafter(value, np.float32(-np.inf)))
