"""The model that scores before any label exists: equal probabilities and a fixed embedding. It ships with the code.

`training/bootstrap.py` writes the three graphs beside this file.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import cast

from winnow.models.package import (
    ANY_MASKER,
    CARD_FILE,
    HASHED_ROW,
    MODEL_FILE,
    ModelCard,
    ModelInput,
    ModelKind,
    ModelOutputs,
    digest,
)

FORM = "words-1"
"""The text form that the text graph's hashes are made for."""

IMAGE_SHAPE = (32, 32, 3)

_HERE = Path(__file__).resolve().parent
_PAYLOADS = {
    "text": ModelInput(name="text", kind="text", source="text", form=FORM),
    "image": ModelInput(name="image", kind="image", source="image", shape=IMAGE_SHAPE),
    "table": ModelInput(name="row", kind="row", source="row", form=HASHED_ROW),
}


def bootstrap_files(kind: str, *, classes: Sequence[str]) -> dict[str, bytes]:
    """The bootstrap package for a task's kind and classes: model.json and model.onnx by name.

    A table's task without classes is a regression, and its model predicts 0.

    >>> sorted(bootstrap_files("text", classes=["no", "yes"]))
    ['model.json', 'model.onnx']
    """
    if kind not in _PAYLOADS:
        raise ValueError(f"kind is {kind!r}; use one of {', '.join(_PAYLOADS)}")
    regression = kind == "table" and not classes
    graph = (_HERE / f"{kind}.onnx").read_bytes()
    card = ModelCard(
        model=f"bootstrap-{kind}",
        kind=cast(ModelKind, kind),
        classes=tuple(classes),
        inputs=(_PAYLOADS[kind], ModelInput(name="class_count", kind="class_count")),
        masker=ANY_MASKER,
        files={MODEL_FILE: digest(graph)},
        outputs=ModelOutputs(members=None, prediction="prediction" if regression else None),
        task="regression" if regression else "classification",
    )
    return {CARD_FILE: card.to_bytes(), MODEL_FILE: graph}
