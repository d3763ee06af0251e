"""The shipped graphs are what their script writes."""

from __future__ import annotations

from pathlib import Path

import pytest
from bootstrap import SEED, build_image_graph, build_row_graph
from text_model import build_hash_graph

SHIPPED = Path(__file__).resolve().parents[2] / "layers" / "core" / "winnow" / "models" / "bootstrap"


@pytest.mark.parametrize(
    ("name", "build"), [("text", build_hash_graph), ("image", build_image_graph), ("table", build_row_graph)]
)
def test_the_shipped_graph_is_the_built_one(name: str, build: object) -> None:
    assert build(seed=SEED) == (SHIPPED / f"{name}.onnx").read_bytes()  # type: ignore[operator]
