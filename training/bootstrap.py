"""Writes the three models that score before any label exists; run it again only to change them.

    python training/bootstrap.py layers/core/winnow/models/bootstrap

They are fixed random projections: probabilities are equal for every class, and the embedding alone tells records apart,
which is all that coverage selection needs. The same script gives the same bytes.
"""

from __future__ import annotations

import sys
from pathlib import Path

_CHECKOUT = Path(__file__).resolve().parent.parent / "layers" / "core"
if _CHECKOUT.is_dir():
    sys.path.insert(0, str(_CHECKOUT))

import numpy as np  # noqa: E402
from image_model import CELLS, ORIENTATIONS, add_gradients, add_grey  # noqa: E402
from text_model import add_unit, build_hash_graph  # noqa: E402

from winnow.models.package import HASHED_WIDTH  # noqa: E402
from winnow.onnx.bootstrap import add_uniform  # noqa: E402
from winnow.onnx.wire import FLOAT, INT64, GraphBuilder  # noqa: E402

SEED = 20_260_101
SIDE, PIXELS, COLOUR = 32, 16, 4
DIMENSIONS = 64


def build_image_graph(*, seed: int) -> bytes:
    """Input `image`, float32 (n, 32, 32, 3): gradients, 16 x 16 grey and 4 x 4 colour, projected to 64 dimensions."""
    graph = GraphBuilder("winnow-image-bootstrap")
    image = graph.input("image", FLOAT, ("n", SIDE, SIDE, 3))
    count = graph.input("class_count", INT64, ())
    planes = graph.op("Transpose", image, perm=[0, 3, 1, 2])
    grey = add_grey(graph, planes)
    cells, _ = add_gradients(graph, grey, side=SIDE, cells=CELLS)
    windows = {"pixels": (grey, SIDE // PIXELS), "colour": (planes, SIDE // COLOUR)}
    parts = [cells, *(_pooled(graph, source, window=window) for source, window in windows.values())]
    sizes = [ORIENTATIONS * CELLS * CELLS, PIXELS * PIXELS, 3 * COLOUR * COLOUR]
    # Pixels are centred, and every group weighs the same whatever its number of features.
    centre = np.concatenate(
        [np.full(size, value, np.float32) for size, value in zip(sizes, (0.3, 0.5, 0.5), strict=True)]
    )
    scale = np.concatenate([np.full(size, size**-0.5, np.float32) for size in sizes])
    rows = graph.op("Concat", *(graph.op("Flatten", part, axis=1) for part in parts), axis=1)
    rows = graph.op("Sub", rows, graph.constant(centre))
    directions = np.random.default_rng(seed).standard_normal((sum(sizes), DIMENSIONS)).astype(np.float32)
    projected = graph.op("MatMul", rows, graph.constant(directions * scale[:, None]))
    embedding = add_unit(graph, projected)
    add_uniform(graph, embedding, count)
    graph.output("embedding", embedding, FLOAT, ("n", DIMENSIONS))
    return graph.to_bytes()


def build_row_graph(*, seed: int) -> bytes:
    """Input `row`, float32 (n, 256) of form `hashed-1`, projected to 64 dimensions; `prediction` is 0."""
    graph = GraphBuilder("winnow-table-bootstrap")
    row = graph.input("row", FLOAT, ("n", HASHED_WIDTH))
    count = graph.input("class_count", INT64, ())
    directions = np.random.default_rng(seed).standard_normal((HASHED_WIDTH, DIMENSIONS)) / np.sqrt(DIMENSIONS)
    embedding = graph.op("MatMul", row, graph.constant(directions.astype(np.float32)))
    add_uniform(graph, embedding, count)
    nothing = graph.op("Mul", embedding, graph.constant(np.float32(0)))
    axis = graph.constant(np.array([1]))
    graph.output("prediction", graph.op("ReduceSum", nothing, axis, keepdims=0), FLOAT, ("n",))
    graph.output("embedding", embedding, FLOAT, ("n", DIMENSIONS))
    return graph.to_bytes()


def _pooled(graph: GraphBuilder, source: str, *, window: int) -> str:
    return graph.op("AveragePool", source, kernel_shape=[window, window], strides=[window, window])


def main(folder: Path) -> None:
    """Write text.onnx, image.onnx and table.onnx into `folder`."""
    graphs = {"text": build_hash_graph, "image": build_image_graph, "table": build_row_graph}
    for name, build in graphs.items():
        content = build(seed=SEED)
        (folder / f"{name}.onnx").write_bytes(content)
        print(f"{name}.onnx {len(content)} bytes")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
