"""How much the trainer gets out of real labels. The data lies beside the checkout, not in it."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from examples import Example, read_rows
from fit import card_of, fit

from winnow.models.evaluation import average_precision, evaluate, evaluate_regression
from winnow.models.predictions import Predictions
from winnow.onnx.runtime import OnnxModel

DATA = Path(__file__).resolve().parents[3] / "shared" / "data"

pytestmark = [
    pytest.mark.shared,
    pytest.mark.skipif(not DATA.is_dir(), reason="the real data sets are not beside the checkout"),
]


def accuracy(train: list[Example], test: list[Example], *, kind: str) -> float:
    classes = sorted({example.label for example in train})
    fitted = fit(train, kind=kind, classes=classes, seed=0, members=0)
    card = card_of(fitted, model="m", kind=kind, classes=classes, masker="none", dataset=None)
    model = OnnxModel(card, fitted.graph)
    known = [example for example in test if example.label in classes]
    labels = [classes.index(example.label) for example in known]
    report = evaluate(model.predict([example.payload for example in known]).probabilities, labels, classes=classes)
    return report.accuracy * len(known) / len(test)


def banking(name: str) -> list[Example]:
    lines = gzip.decompress((DATA / "banking77" / f"{name}.jsonl.gz").read_bytes()).splitlines()
    rows = [json.loads(line) for line in lines]
    return [Example(id=row["id"], payload=row["text"], label=row["label"], cluster=row["id"]) for row in rows]


def test_intents_from_a_thousand_texts() -> None:
    """TF-IDF of words and pairs with logistic regression reaches 0.675 (data/README.md)."""
    train = banking("train")
    chosen = np.random.default_rng(0).permutation(len(train))[:1_000]

    assert accuracy([train[row] for row in chosen], banking("test"), kind="text") > 0.71


def test_clothes_from_a_thousand_pictures() -> None:
    """Logistic regression on pixels reaches 0.79 here, and 0.834 with fourteen times the labels."""
    with np.load(DATA / "fashion_mnist" / "fashion_mnist_20k.npz") as arrays:
        parts = [(arrays[f"x_{part}"][:n], arrays[f"y_{part}"][:n]) for part, n in (("train", 1_000), ("test", 2_000))]
    train, test = (
        [
            Example(id=str(k), payload=x, label=str(y), cluster=str(k))
            for k, (x, y) in enumerate(zip(*part, strict=True))
        ]
        for part in parts
    )

    assert accuracy(train, test, kind="image") > 0.83


def from_table(
    name: str, *, label: str, train: int, test: int, task: str = "classification"
) -> tuple[Predictions, list[Any]]:
    """Predictions of a model that learned from some random rows for others, and their labels."""
    every = read_rows(DATA / name, label=label, task=task, say=print)
    order = np.random.default_rng(0).permutation(len(every)).tolist()
    chosen, judged = ([every[row] for row in part] for part in (order[:train], order[train : train + test]))
    classes = [] if task == "regression" else sorted({str(example.label) for example in chosen})
    fitted = fit(chosen, kind="table", classes=classes, seed=0, members=0, task=task)
    card = card_of(fitted, model="m", kind="table", classes=classes, masker="none", dataset=None)
    predictions = OnnxModel(card, fitted.graph).predict([example.request for example in judged])
    return predictions, [example.label for example in judged]


def test_incomes_from_four_thousand_rows() -> None:
    """Logistic regression reaches 0.853 with eight times the labels (data/README.md)."""
    predictions, labels = from_table("adult/train.csv.gz", label="income", train=4_000, test=10_000)

    right = predictions.probabilities.argmax(axis=1) == [label == ">50K" for label in labels]
    assert right.mean() > 0.855


def test_defaults_from_four_thousand_rows() -> None:
    """Average precision: logistic regression reaches 0.501, boosting 0.556, both with five times the labels."""
    predictions, labels = from_table(
        "credit_default/credit_default.csv.gz", label="default_next_month", train=4_000, test=10_000
    )

    found = average_precision(predictions.probabilities[:, 1], [label == "1" for label in labels])
    assert found is not None
    assert found > 0.52


def test_houses_from_four_thousand_rows() -> None:
    """R2: ridge reaches 0.641, boosting 0.825, both with more than three times the labels."""
    predictions, labels = from_table(
        "california_housing/california_housing.csv.gz", label="median_house_value", train=4_000, test=10_000,
        task="regression",
    )  # fmt: skip

    assert predictions.prediction is not None
    found = evaluate_regression(predictions.prediction, labels)
    assert found.r2 is not None
    assert found.r2 > 0.78
