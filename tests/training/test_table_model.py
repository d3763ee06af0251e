"""Table models: the graph gives what Python computes, and learns what there is to learn."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
import table_model
from boosting import Forest, Trees
from columns import Columns
from examples import Example
from fit import Fitted, card_of, fit
from search import Recipe

from winnow.models.calibration import softmax
from winnow.models.package import DECLARED
from winnow.onnx.check import check_declarations
from winnow.onnx.runtime import OnnxModel
from winnow.onnx.wire import read_facts

TREES = Recipe(trees=Trees(rounds=12, rate=0.2, leaves=7, least=5, ridge=1.0, share=1.0))
LINEAR = Recipe(cost=30.0)
CLASSES = ["high", "low", "never", "middle"]


def table(count: int, *, seed: int = 0) -> list[dict[str, Any]]:
    """Rows with gaps, heavy tails and more categories of a place than trees take."""
    rng = np.random.default_rng(seed)
    return [
        {
            "size": float(rng.normal(50, 9)) if rng.random() < 0.9 else None,
            "income": float(np.exp(rng.normal(8, 3))),
            "city": str(rng.choice(["Ulm", "Bonn", "Köln"])) if rng.random() < 0.9 else None,
            "place": f"p{rng.integers(0, 400)}",
        }
        for _ in range(count)
    ]


def signal(row: dict[str, Any]) -> float:
    bonus = {"Ulm": 1.0, "Bonn": -1.0, "Köln": 0.0, None: 3.0}[row["city"]]
    return ((row["size"] or 30.0) - 50) / 9 + bonus + 0.1 * float(np.log(row["income"]))


def examples(rows: list[dict[str, Any]], *, task: str = "classification") -> list[Example]:
    values = np.array([signal(row) for row in rows])
    labels: list[Any] = (1_000 + 50 * values).tolist()
    if task == "classification":
        cuts = np.quantile(values, [0.3, 0.7])
        labels = [("low", "middle", "high")[place] for place in np.digitize(values, cuts)]
    return labeled(rows, labels)


def labeled(rows: list[dict[str, Any]], labels: list[Any]) -> list[Example]:
    return [
        Example(id=str(n), payload=row, label=label, cluster=str(n))
        for n, (row, label) in enumerate(zip(rows, labels, strict=True))
    ]


def fitted(rows: list[dict[str, Any]], *, task: str = "classification", **options: Any) -> Fitted:
    return fit(
        examples(rows, task=task), kind="table", classes=[] if task == "regression" else CLASSES, seed=3, task=task,
        **{"members": 2, **options},
    )  # fmt: skip


def loaded(found: Fitted) -> OnnxModel:
    card = card_of(
        found,
        model="m",
        kind="table",
        classes=[] if found.task == "regression" else CLASSES,
        masker="none",
        dataset=None,
    )
    onnx.checker.check_model(onnx.load_from_string(found.graph))
    check_declarations(card, read_facts(found.graph))
    return OnnxModel(card, found.graph)


STRANGE: list[dict[str, Any]] = [
    {}, {"size": "text", "city": "Rome", "place": None}, {"size": 1e300, "income": -1e300, "city": 3.0},
    {"size": 1e-300, "income": 3.4e38, "city": "ulm", "place": "p1"}, {"city": "Ulm", "extra": "x"},
]  # fmt: skip


def test_a_linear_graph_computes_what_python_does(monkeypatch: pytest.MonkeyPatch) -> None:
    committees: list[Any] = []
    original = table_model.fit_committee
    monkeypatch.setattr(
        table_model, "fit_committee", lambda *a, **k: committees.append(original(*a, **k)) or committees[0]
    )
    rows = table(400)

    found = fitted(rows, chosen=LINEAR)

    learned = Columns.learn(rows, declared={})
    features = learned.read([*rows, *STRANGE]).features
    predictions = loaded(found).predict([{"row": row} for row in (*rows, *STRANGE)])
    seen, share = [0, 1, 3], 1 / 404
    for head, given in [
        (committees[0].main, predictions.probabilities),
        (committees[0].members[1], predictions.members[:, 1]),
    ]:  # fmt: skip
        logits = (features @ head.weights + head.bias)[:, seen]
        expected = softmax(logits, temperature=found.temperature) * (1 - share)
        assert given[:, seen] == pytest.approx(expected, abs=1e-5)
        assert given[:, 2] == pytest.approx(share)


def test_a_graph_of_trees_computes_what_scikit_learn_does(monkeypatch: pytest.MonkeyPatch) -> None:
    forests: list[Forest] = []
    original = table_model._forests
    monkeypatch.setattr(table_model, "_forests", lambda *a, **k: forests.extend(original(*a, **k)) or forests)
    rows = table(500)

    found = fitted(rows, chosen=TREES)

    read = Columns.learn(rows, declared={}).read([*rows, *STRANGE])
    predictions = loaded(found).predict([{"row": row} for row in (*rows, *STRANGE)])
    share = 1 / 504
    for forest, given in [(forests[0], predictions.probabilities), (forests[2], predictions.members[:, 1])]:
        expected = softmax(forest.predict(read), temperature=found.temperature) * (1 - share)
        assert given[:, [0, 1, 3]] == pytest.approx(expected, abs=1e-5)
    assert (found.metrics["model"], found.metrics["rounds"]) == ("boosting", 12)


def test_two_classes_have_one_tree_a_round(monkeypatch: pytest.MonkeyPatch) -> None:
    forests: list[Forest] = []
    original = table_model._forests
    monkeypatch.setattr(table_model, "_forests", lambda *a, **k: forests.extend(original(*a, **k)) or forests)
    rows = table(300)
    labels = [("low", "high")[signal(row) > 1.0] for row in rows]
    several = labeled(rows, labels)

    found = fit(several, kind="table", classes=["high", "low"], seed=0, members=1, chosen=TREES)

    card = card_of(found, model="m", kind="table", classes=["high", "low"], masker="none", dataset=None)
    predictions = OnnxModel(card, found.graph).predict([{"row": row} for row in rows])
    read = Columns.learn(rows, declared={}).read(rows)
    for forest, given in [(forests[0], predictions.probabilities), (forests[1], predictions.members[:, 0])]:
        raw = forest.predict(read)[:, 0] / found.temperature
        assert given[:, 1] == pytest.approx(1 / (1 + np.exp(-raw)), abs=1e-5)
    truth = [["high", "low"].index(label) for label in labels]
    assert (predictions.probabilities.argmax(axis=1) == truth).mean() > 0.95


@pytest.mark.parametrize("recipe", [LINEAR, TREES], ids=["linear", "trees"])
def test_numbers_come_out_in_their_own_unit(recipe: Recipe) -> None:
    rows = table(600)
    truth = np.array([example.label for example in examples(rows, task="regression")])

    found = fitted(rows, task="regression", chosen=Recipe(cost=300.0) if recipe is LINEAR else recipe)

    predictions = loaded(found).predict([{"row": row} for row in rows])
    assert predictions.prediction.shape == (600,)
    assert predictions.members.shape == (600, 2)
    assert np.corrcoef(predictions.prediction, truth)[0, 1] > 0.9
    assert abs(predictions.prediction.mean() - truth.mean()) < 2
    assert np.abs(predictions.members - predictions.prediction[:, None]).mean() > 0.5
    strange = loaded(found).predict([{"row": row} for row in STRANGE])
    assert np.isfinite(strange.prediction).all()
    assert found.metrics["cv_mae"] < 40


@pytest.mark.parametrize("task", ["classification", "regression"])
def test_the_same_seed_gives_the_same_bytes_whatever_the_order_of_columns(task: str) -> None:
    rows = table(200)
    turned = [dict(reversed(row.items())) for row in rows]

    one, same = fitted(rows, task=task), fitted(turned, task=task)

    assert one.graph == same.graph
    assert one.metrics == same.metrics


def test_the_embedding_is_the_features_turned() -> None:
    rows = table(900)
    found = fitted(rows, chosen=TREES)
    features = Columns.learn(rows, declared={}).read(rows).features.toarray()  # 400 places are wide

    embedding = loaded(found).predict([{"row": row} for row in rows]).embedding

    assert embedding.shape == (900, 64)
    # 64 directions keep nearly all of what the numbers and the common categories say.
    assert np.square(embedding).sum() > 0.6 * np.square(features).sum()
    _, vectors = np.linalg.eigh(features.T.astype(float) @ features)
    leading = features @ vectors[:, ::-1][:, :3]
    for k in range(3):
        assert abs(np.corrcoef(embedding[:, k], leading[:, k])[0, 1]) == pytest.approx(1.0, abs=1e-4)


def test_few_features_are_all_in_the_embedding() -> None:
    rows = [{"x": float(n), "y": float(n % 3)} for n in range(40)]
    labels = ["high" if n % 3 else "low" for n in range(40)]
    found = fit(labeled(rows, labels), kind="table", classes=["high", "low"], seed=0, members=0)
    card = card_of(found, model="m", kind="table", classes=["high", "low"], masker="none", dataset=None)

    embedding = OnnxModel(card, found.graph).predict([{"row": row} for row in rows]).embedding

    features = Columns.learn(rows, declared={}).read(rows).features
    gaps = np.linalg.norm(features[:, None] - features[None], axis=2)
    assert np.linalg.norm(embedding[:, None] - embedding[None], axis=2) == pytest.approx(gaps, abs=1e-4)


def test_declared_columns_are_the_inputs_and_say_so() -> None:
    rows = table(100)

    found = fitted(rows, columns={"size": "number", "city": "category"})

    assert [(item.name, item.kind, item.source, item.form) for item in found.inputs] == [
        ("c0", "number", "size", DECLARED), ("c1", "category", "city", None),
    ]  # fmt: skip
    assert [item.form for item in fitted(rows).inputs] == [None] * 4


def test_notes_name_the_columns_that_are_left_out() -> None:
    rows = [{**row, "ID": float(3 * n), "all": "same"} for n, row in enumerate(table(60))]

    found = fitted(rows)

    assert found.notes == (
        "column 'ID' is left out: it is another whole number in every row, an id by its name",
        "column 'all' is left out: every value is the same",
    )
    assert found.metrics["columns_left_out"] == 2


def test_a_rare_class_is_found() -> None:
    rng = np.random.default_rng(0)
    rows = [{"x": float(a), "y": float(b)} for a, b in rng.normal(size=(3_000, 2))]
    labels = ["yes" if row["x"] * row["y"] > 2.2 + 0.2 * rng.normal() else "no" for row in rows]
    share = labels.count("yes") / len(labels)
    several = labeled(rows, labels)

    found = fit(several, kind="table", classes=["no", "yes"], seed=0, members=0, positive="yes")

    assert share < 0.03
    assert found.metrics["model"] == "boosting"
    assert found.metrics["cv_average_precision"] > 0.6


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"classes": ["a", "b"], "positive": "c"}, "the positive class 'c' is none of the classes"),
        ({"classes": ["a"]}, "labels ['b'] are none of the 1 classes"),
    ],
)
def test_what_cannot_be_trained_says_why(options: dict[str, Any], message: str) -> None:
    several = [Example(id=str(n), payload={"x": float(n)}, label="ab"[n % 2], cluster=str(n)) for n in range(10)]

    with pytest.raises(ValueError) as refused:
        fit(several, kind="table", seed=0, members=0, **options)

    assert message in str(refused.value)


def test_numbers_beyond_the_type_are_refused() -> None:
    several = [Example(id=str(n), payload={"x": float(n)}, label=1e31 * n, cluster=str(n)) for n in range(10)]

    with pytest.raises(ValueError, match="predict it in another unit"):
        fit(several, kind="table", classes=[], seed=0, members=0, task="regression")
    with pytest.raises(ValueError, match="at least two labeled rows; there are 1"):
        fit(several[:1], kind="table", classes=[], seed=0, members=0, task="regression")


@pytest.mark.parametrize("count", [2, 3, 5, 20])
def test_tiny_tables_train(count: int) -> None:
    rows = [{"x": float(n), "c": "ab"[n % 2], "same": 1.0, "none": None} for n in range(count)]
    several = labeled(rows, ["ab"[n % 2] for n in range(count)])

    found = fit(several, kind="table", classes=["a", "b", "c"], seed=0, members=2)

    card = card_of(found, model="m", kind="table", classes=["a", "b", "c"], masker="none", dataset=None)
    predictions = OnnxModel(card, found.graph).predict([{"row": row} for row in (*rows, *STRANGE)])
    assert np.isfinite(predictions.members).all()
    assert predictions.probabilities.sum(axis=1) == pytest.approx(1.0, abs=1e-5)
