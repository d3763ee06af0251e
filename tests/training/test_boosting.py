"""Boosted trees: onnxruntime answers as scikit-learn does, on rows of every kind."""

from __future__ import annotations

import numpy as np
import onnxruntime
import pytest
from boosting import Forest, Nodes, Trees, _next_lower
from columns import Rows
from hypothesis import given
from hypothesis import strategies as st

from winnow.onnx.wire import FLOAT, GraphBuilder

SMALL = Trees(rounds=25, rate=0.2, leaves=15, least=3, ridge=1.0, share=1.0)
LARGEST = np.finfo(np.float32).max


def rows_of(numbers: np.ndarray, codes: np.ndarray) -> Rows:
    return Rows(numbers.astype(np.float32), codes.astype(np.int64), np.zeros((len(numbers), 1), np.float32))


def graph_of(forest: Forest, *, columns: int, sizes: list[int]) -> bytes:
    nodes, outputs = Nodes(), len(forest.baseline)
    forest.write(nodes, targets=list(range(outputs)), sizes=sizes)
    graph = GraphBuilder("trees")
    sums = graph.op(
        "TreeEnsembleRegressor", graph.input("x", FLOAT, ("n", columns)), domain="ai.onnx.ml", n_targets=outputs,
        aggregate_function="SUM", post_transform="NONE", **nodes.attributes(),
    )  # fmt: skip
    graph.output("y", graph.op("Add", sums, graph.constant(forest.baseline.astype(np.float32))), FLOAT, ("n", outputs))
    return graph.to_bytes()


def answer(graph: bytes, rows: Rows) -> np.ndarray:
    session = onnxruntime.InferenceSession(graph, providers=["CPUExecutionProvider"])
    return session.run(None, {"x": np.hstack([rows.numbers, rows.codes.astype(np.float32)])})[0]


def random_rows(rng: np.random.Generator, count: int, *, sizes: list[int], lowest: int) -> Rows:
    """Plain, rounded, huge and tiny numbers with gaps, and codes from `lowest` up."""
    numbers = rng.normal(size=(count, 4)) * [1.0, 1e30, 1e-30, 3.0]
    numbers[:, 3] = np.round(numbers[:, 3])
    numbers[rng.random(numbers.shape) < 0.1] = np.nan
    return rows_of(numbers, np.stack([rng.integers(lowest, size + 1, count) for size in sizes], axis=1))


@pytest.mark.parametrize("task", ["numbers", "two classes", "four classes"])
@pytest.mark.parametrize("lowest", [0, 1], ids=["unknown seen", "unknown never seen"])
def test_every_row_gets_scikit_learns_answer(task: str, lowest: int) -> None:
    sizes = [3, 32, 33, 254]
    rng = np.random.default_rng(lowest)
    rows = random_rows(rng, 900, sizes=sizes, lowest=lowest)
    effects = [rng.normal(size=size + 1) for size in sizes]
    signal = np.nan_to_num(rows.numbers[:, 0]) + sum(e[c] for e, c in zip(effects, rows.codes.T, strict=True))
    cuts = {"numbers": None, "two classes": [0.5], "four classes": [0.2, 0.5, 0.9]}[task]
    targets = signal if cuts is None else np.digitize(signal, np.quantile(signal, cuts))
    forest = Forest.fit(rows, targets, trees=SMALL, classify=cuts is not None, seed=0)
    graph = graph_of(forest, columns=8, sizes=sizes)

    strange = random_rows(rng, 500, sizes=sizes, lowest=0)
    strange.numbers[:50] = np.nan
    strange.numbers[50:100] = LARGEST * np.sign(rng.normal(size=(50, 4)))
    for part in (rows, strange):
        assert answer(graph, part) == pytest.approx(forest.predict(part), abs=1e-5)
    alone = np.vstack([answer(graph, strange.take(np.array([row]))) for row in range(60)])
    assert alone == pytest.approx(forest.predict(strange)[:60], abs=1e-5)


def test_categories_that_a_sample_lacks_are_unknown_to_its_trees() -> None:
    codes = np.array([[1], [3], [5]] * 20)
    forest = Forest.fit(
        rows_of(np.zeros((60, 0)), codes), np.array([0.0, 5.0, 9.0] * 20), trees=SMALL, classify=False, seed=0
    )

    every = rows_of(np.zeros((8, 0)), np.arange(8)[:, None])
    known = forest.predict(every)[:, 0]
    assert known[[1, 3, 5]] == pytest.approx([0.0, 5.0, 9.0], abs=0.1)
    assert len(set(known[[0, 2, 4, 6, 7]].tolist())) == 1
    assert answer(graph_of(forest, columns=1, sizes=[7]), every)[:, 0] == pytest.approx(known, abs=1e-5)


@pytest.mark.parametrize("numbers", [np.zeros((40, 1)), np.full((40, 1), np.nan)], ids=["constant", "missing"])
def test_columns_without_content_give_trees_without_branches(numbers: np.ndarray) -> None:
    rows = rows_of(numbers, np.zeros((40, 1)))
    forest = Forest.fit(rows, np.arange(40) % 2, trees=SMALL, classify=True, seed=0)

    assert answer(graph_of(forest, columns=2, sizes=[0]), rows) == pytest.approx(forest.predict(rows), abs=1e-6)


def test_the_loss_on_held_out_rows_ends_the_boosting() -> None:
    rng = np.random.default_rng(0)
    numbers = rng.normal(size=(600, 3))
    targets = (numbers[:, 0] + rng.normal(size=600) > 0).astype(int)
    rows = rows_of(numbers, np.zeros((600, 0)))
    first, rest = np.arange(400), np.arange(400, 600)

    forest = Forest.fit(
        rows.take(first), targets[first], trees=Trees(500, 0.2, 15, 5, 1.0, 1.0), classify=True, seed=0,
        held_out=(rows.take(rest), targets[rest]),
    )  # fmt: skip

    best = forest.best_rounds()
    raw = [forest.predict(rows.take(rest), rounds=count)[:, 0] for count in (1, best, 60)]
    losses = [np.log1p(np.exp(-np.where(targets[rest] == 1, value, -value))).mean() for value in raw]
    assert losses[1] < min(losses[0], losses[2])
    assert best < forest.model.n_iter_ < 500


@given(st.floats(min_value=-1e300, max_value=1e300), st.floats(width=32, allow_nan=False, allow_infinity=False))
def test_no_float32_changes_sides(threshold: float, number: float) -> None:
    kept = _next_lower(threshold)

    assert float(np.float32(kept)) == kept
    assert (number <= threshold) == (number <= kept) or abs(threshold) > LARGEST
