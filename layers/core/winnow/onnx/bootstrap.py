"""Ends of graphs that need no training, and the model they make on top of an encoder before any label exists."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from winnow.models.encoder import EncoderCard
from winnow.models.package import ANY_MASKER, MAX_EMBEDDING, ModelCard, ModelInput, ModelOutputs, digest
from winnow.onnx.wire import FLOAT, INT64, GraphBuilder

VECTORS = "encoded"
"""The graph input that takes an encoder's vectors; `embedding` is an output's name."""

_SEED = 20_260_101


def encoded_bootstrap(model: str, encoder: EncoderCard, *, classes: Sequence[str]) -> tuple[ModelCard, bytes]:
    """Card and graph of a model that knows nothing: equal probabilities, and the encoder's vectors as embedding."""
    graph = GraphBuilder("winnow-encoded-bootstrap")
    vectors = graph.input(VECTORS, FLOAT, ("n", encoder.dimensions))
    count = graph.input("class_count", INT64, ())
    add_uniform(graph, vectors, count)
    add_embedding(graph, vectors, width=encoder.dimensions)
    content = graph.to_bytes()
    card = ModelCard(
        model=model, kind=encoder.reads, classes=tuple(classes), masker=ANY_MASKER,
        inputs=(ModelInput(name=VECTORS, kind="embedding"), ModelInput(name="class_count", kind="class_count")),
        outputs=ModelOutputs(members=None), files={"model.onnx": digest(content), **encoder.files}, encoder=encoder,
    )  # fmt: skip
    return card, content


def add_uniform(graph: GraphBuilder, rows: str, count: str) -> None:
    """Output `probabilities`: 1 / count for each of `count` classes, one row a row of `rows`."""
    first = graph.constant(np.array([0]))
    height = graph.op("Slice", graph.op("Shape", rows), first, graph.constant(np.array([1])))
    width = graph.op("Unsqueeze", count, first)
    even = graph.op("Reciprocal", graph.op("Cast", width, to=FLOAT))
    shape = graph.op("Concat", height, width, axis=0)
    graph.output("probabilities", graph.op("Expand", even, shape), FLOAT, ("n", "classes"))


def add_embedding(graph: GraphBuilder, vectors: str, *, width: int) -> None:
    """Output `embedding`: an encoder's vectors (n, width), brought to `MAX_EMBEDDING` numbers where they have more.

    Fixed orthonormal random directions keep distances as they are, up to a few percent (Johnson and Lindenstrauss 1984),
    and, unlike learned ones, are the same under every head.
    """
    if width > MAX_EMBEDDING:
        draws = np.random.default_rng(_SEED).standard_normal((width, MAX_EMBEDDING))
        basis, _ = np.linalg.qr(draws)
        scaled = basis * np.sqrt(width / MAX_EMBEDDING)
        vectors = graph.op("MatMul", vectors, graph.constant(scaled.astype(np.float32)))
    graph.output("embedding", vectors, FLOAT, ("n", min(width, MAX_EMBEDDING)))
