"""The end of every classifier's graph: logits of the main head and the committee become calibrated probabilities."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from winnow.onnx.wire import FLOAT, GraphBuilder

_NEVER = np.float32(-1e9)


@dataclass(frozen=True)
class Heads:
    """What turns products of features and weights, or sums over trees, into probabilities."""

    bias: npt.NDArray[Any]
    """(1 + M, C): the main head's, then every member's."""
    temperature: float
    seen: npt.NDArray[np.bool_]
    """(C,) which classes have a label."""
    unseen_share: float
    """Probability given to every class without a label, by Laplace's rule; at most half over all of them."""


def share_of_unseen(records: int, seen: npt.NDArray[np.bool_]) -> float:
    """`Heads.unseen_share` after so many records.

    >>> share_of_unseen(18, np.array([True, False]))
    0.05
    """
    missing = int((~seen).sum())
    return min(1.0 / (records + len(seen)), 0.5 / missing) if missing else 0.0


def add_heads(graph: GraphBuilder, products: str, heads: Heads) -> None:
    """From products (n, (1 + M) x C) to outputs `probabilities` and `members`.

    Classes without a label get `unseen_share` each, whatever the record; the others share the rest.
    """
    count, classes = heads.bias.shape
    unseen = ~heads.seen
    bias = heads.bias.ravel().astype(np.float32)
    bias = np.where(np.tile(unseen, count), _NEVER, bias / np.float32(heads.temperature)).astype(np.float32)
    scale = graph.constant(np.float32(1.0 / heads.temperature))
    logits = graph.op("Add", graph.op("Mul", products, scale), graph.constant(bias))
    cube = graph.op("Reshape", logits, graph.constant(np.array([-1, count, classes])))
    rows = graph.op("Softmax", cube, axis=-1)
    if unseen.any():
        rest = graph.constant(np.float32(1.0 - heads.unseen_share * unseen.sum()))
        floor = graph.constant((unseen * heads.unseen_share).astype(np.float32))
        rows = graph.op("Add", graph.op("Mul", rows, rest), floor)
    first = graph.op("Gather", rows, graph.constant(np.array(0)), axis=1)
    graph.output("probabilities", first, FLOAT, ("n", classes))
    if count > 1:
        axis = graph.constant(np.array([1]))
        others = graph.op("Slice", rows, axis, graph.constant(np.array([count])), axis)
        graph.output("members", others, FLOAT, ("n", count - 1, classes))
