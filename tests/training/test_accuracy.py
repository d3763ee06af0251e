"""How much the trainer gets out of real labels. The data lies beside the checkout, not in it."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import numpy as np
import pytest
from examples import Example
from fit import card_of, fit

from winnow.models.evaluation import evaluate
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
