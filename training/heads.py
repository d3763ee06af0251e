"""The end of every graph: logits of the main head and the committee become calibrated probabilities."""

from __future__ import annotations

import numpy as np
from committee import Committee

from winnow.onnx.wire import FLOAT, GraphBuilder

_NEVER = np.float32(-1e9)


def add_heads(graph: GraphBuilder, products: str, committee: Committee) -> None:
    """From products (n, (1 + M) x C) of features and weights to outputs `probabilities` and `members`.

    Classes without a label get `unseen_share` each, whatever the record; the others share the rest.
    """
    classes, heads = len(committee.seen), 1 + len(committee.members)
    bias = np.concatenate([head.bias for head in (committee.main, *committee.members)]).astype(np.float32)
    unseen = ~committee.seen
    bias = np.where(np.tile(unseen, heads), _NEVER, bias / np.float32(committee.temperature)).astype(np.float32)
    scale = graph.constant(np.float32(1.0 / committee.temperature))
    logits = graph.op("Add", graph.op("Mul", products, scale), graph.constant(bias))
    cube = graph.op("Reshape", logits, graph.constant(np.array([-1, heads, classes])))
    rows = graph.op("Softmax", cube, axis=-1)
    if unseen.any():
        rest = graph.constant(np.float32(1.0 - committee.unseen_share * unseen.sum()))
        floor = graph.constant((unseen * committee.unseen_share).astype(np.float32))
        rows = graph.op("Add", graph.op("Mul", rows, rest), floor)
    first = graph.op("Gather", rows, graph.constant(np.array(0)), axis=1)
    graph.output("probabilities", first, FLOAT, ("n", classes))
    if committee.members:
        axis = graph.constant(np.array([1]))
        others = graph.op("Slice", rows, axis, graph.constant(np.array([heads])), axis)
        graph.output("members", others, FLOAT, ("n", heads - 1, classes))
