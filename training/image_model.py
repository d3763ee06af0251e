"""Images: gradients, a dictionary of patches and coarse pixels, computed inside the ONNX graph itself.

Training runs the feature half of the graph in onnxruntime and fits on its output, so that training and serving cannot
differ. Gradient histograms follow Dalal and Triggs (CVPR 2005); the patch dictionary, learned from the training images
without their labels, follows Coates, Ng and Lee (AISTATS 2011).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import onnxruntime
from committee import Committee
from encoded import add_input
from heads import add_heads

from winnow.onnx.bootstrap import add_embedding
from winnow.onnx.wire import FLOAT, GraphBuilder

DIMENSIONS = 128
"""Principal directions in the embedding."""

SMALL, LARGE = 32, 64
"""Sides a model works at: small for pictures up to `SMALL_UP_TO` pixels, large for all others."""
SMALL_UP_TO = 40

ORIENTATIONS = 8
CELLS = 8
PATCH, STRIDE, FILTERS, GRID = 6, 2, 96, 4
COLOUR_GRID, COLOUR_LEVELS = 16, 4
_COLOUR_WEIGHT = 0.15  # a third costs as much where colour means nothing as it brings where it means much
_THRESHOLD = 0.5
_CONTRAST_FLOOR = 1e-3
_WHITENING_FLOOR = 0.1
_PATCHES, _PATCH_IMAGES = 40_000, 2_000
_ROUNDS = 8
_LUMINANCE = (0.299, 0.587, 0.114)
_COLOUR_STEP, _COLOUR_SHARE = 8, 0.01
_BATCH = 64

Images = npt.NDArray[np.float32]
Reader = Callable[[int, int], Images]
"""Images start to end - 1 as (n, S, S, C) in 0..1; all at once would not fit into memory."""


def working_side(sizes: Sequence[tuple[int, int]]) -> int:
    """The side for pictures of these (width, height): by the median of their longer sides.

    >>> working_side([(28, 28), (30, 20), (500, 400)])
    32
    """
    return SMALL if float(np.median([max(size) for size in sizes])) <= SMALL_UP_TO else LARGE


def is_colour(pixels: npt.NDArray[np.uint8]) -> bool:
    """True when more than a hundredth of the pixels of an (H, W, 3) picture differ between channels by over 8."""
    spread = pixels.max(axis=2).astype(np.int16) - pixels.min(axis=2)
    return bool((spread > _COLOUR_STEP).mean() > _COLOUR_SHARE)


@dataclass(frozen=True)
class Extractor:
    """The fixed half of the model: patch filters (K, C, P, P), and per feature a shift and a scale."""

    side: int
    channels: int
    filters: npt.NDArray[np.float32]
    shift: npt.NDArray[np.float32]
    scale: npt.NDArray[np.float32]

    @classmethod
    def learn(
        cls, read: Reader, count: int, *, shape: tuple[int, int, int], rng: np.random.Generator
    ) -> tuple[Extractor, npt.NDArray[np.float32]]:
        """Learn from `count` images that `read` makes; returns the extractor and the images' features (n, D).

        Features are centred and have mean square length 1, shared between gradients with pixels, colours and patches.
        """
        side, _, channels = shape
        chosen = np.sort(rng.permutation(count)[:_PATCH_IMAGES])
        filters = learn_filters(np.concatenate([read(row, row + 1) for row in chosen.tolist()]), rng=rng)
        raw = cls(side, channels, filters, np.zeros(0, np.float32), np.zeros(0, np.float32))._run(read, count)
        shift = raw.mean(axis=0)
        raw -= shift
        energy = np.einsum("ij,ij->j", raw, raw, dtype=np.float64) / len(raw)
        scale = np.empty(raw.shape[1], np.float32)
        for group, share in _shares(raw.shape[1], channels=channels):
            scale[group] = np.sqrt(share / max(float(energy[group].sum()), 1e-6))
        raw *= scale
        return cls(side, channels, filters, shift, scale), raw

    def _run(self, read: Reader, count: int) -> npt.NDArray[np.float32]:
        graph = GraphBuilder("winnow-image-features")
        rows = add_features(graph, graph.input("image", FLOAT, ("n", self.side, self.side, self.channels)), self)
        graph.output("features", rows, FLOAT, ("n", "features"))
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        session = onnxruntime.InferenceSession(graph.to_bytes(), options, providers=["CPUExecutionProvider"])
        starts = range(0, count, _BATCH)
        return np.concatenate(
            [session.run(None, {"image": read(start, min(start + _BATCH, count))})[0] for start in starts]
        )


def _shares(width: int, *, channels: int) -> list[tuple[slice, float]]:
    """Columns of gradients with pixels, of colours (when there are any) and of patches, and each group's share."""
    patches = width - 2 * FILTERS * GRID * GRID
    colours = patches - (4 * COLOUR_LEVELS**3 if channels == 3 else 0)
    colour_share = _COLOUR_WEIGHT if channels == 3 else 0.0
    rest = (1.0 - colour_share) / 2.0
    return [(slice(0, colours), rest), (slice(colours, patches), colour_share), (slice(patches, width), rest)]


def build_graph(extractor: Extractor, committee: Committee, *, encoded: int = 0) -> bytes:
    """The ONNX file: input `image`, float32 (n, S, S, C) in 0..1.

    With `encoded` the committee's last so many weights are for the input `encoded`, an encoder's vectors (n, encoded),
    which are the embedding then.
    """
    graph = GraphBuilder("winnow-image")
    image = graph.input("image", FLOAT, ("n", extractor.side, extractor.side, extractor.channels))
    rows = add_features(graph, image, extractor)
    rows = graph.op("Mul", graph.op("Sub", rows, graph.constant(extractor.shift)), graph.constant(extractor.scale))
    heads = [committee.main, *committee.members]
    weights = np.hstack([head.weights for head in heads]).astype(np.float32)
    if encoded:
        vectors = add_input(graph, width=encoded)
        both = graph.op("Concat", rows, vectors, axis=1)
        add_heads(graph, graph.op("MatMul", both, graph.constant(weights)), committee.heads)
        add_embedding(graph, vectors, width=encoded)
        return graph.to_bytes()
    add_heads(graph, graph.op("MatMul", rows, graph.constant(weights)), committee.heads)
    embedding = graph.op("MatMul", rows, graph.constant(committee.axes.astype(np.float32)))
    graph.output("embedding", embedding, FLOAT, ("n", committee.axes.shape[1]))
    return graph.to_bytes()


def add_features(graph: GraphBuilder, image: str, extractor: Extractor) -> str:
    """Features (n, D) of images (n, S, S, C): gradients by cell, their energy, coarse pixels, patch responses."""
    planes = graph.op("Transpose", image, perm=[0, 3, 1, 2])
    grey = add_grey(graph, planes) if extractor.channels == 3 else planes
    cells, energy = add_gradients(graph, grey, side=extractor.side, cells=CELLS)
    # Colour needs three numbers a place, so its places are fewer.
    window = extractor.side // (8 if extractor.channels == 3 else 16)
    pixels = graph.op("AveragePool", planes, kernel_shape=[window, window], strides=[window, window])
    colours = [_colours(graph, planes, side=extractor.side)] if extractor.channels == 3 else []
    parts = [cells, energy, pixels, *colours, *_patches(graph, planes, extractor)]
    return graph.op("Concat", *(graph.op("Flatten", part, axis=1) for part in parts), axis=1)


def add_grey(graph: GraphBuilder, planes: str) -> str:
    """Luminance (n, 1, S, S) of RGB planes (n, 3, S, S), ITU-R BT.601."""
    return graph.op("Conv", planes, graph.constant(np.array(_LUMINANCE, np.float32).reshape(1, 3, 1, 1)))


def add_gradients(graph: GraphBuilder, grey: str, *, side: int, cells: int) -> tuple[str, str]:
    """Gradient histograms (n, 8, cells, cells), normalised by their surroundings, and the cells' plain energy.

    Each of eight directions takes the positive part of the gradient along it, squared over the gradient's length, so
    that a slanted edge falls into two neighbouring directions. Windows overlap by half.
    """
    channel = graph.constant(np.array([1]))
    padded = graph.op("Pad", grey, graph.constant(np.array([0, 0, 1, 1, 0, 0, 1, 1])), mode="edge")
    across = np.array([[-1, 0, 1], [-2, 0, 2], [-1, 0, 1]]) / 8.0
    angles = np.arange(ORIENTATIONS) * (2.0 * np.pi / ORIENTATIONS)
    kernels = np.cos(angles)[:, None, None] * across + np.sin(angles)[:, None, None] * across.T
    along = graph.op("Relu", graph.op("Conv", padded, graph.constant(kernels[:, None].astype(np.float32))))
    squares = graph.op("Mul", along, along)
    length = graph.op("Sqrt", _plus(graph, graph.op("ReduceSum", squares, channel, keepdims=1), 1e-6))
    votes = graph.op("Div", squares, length)
    step = side // cells
    cell = graph.op(
        "AveragePool", votes, kernel_shape=[2 * step, 2 * step], strides=[step, step], pads=[step // 2] * 4,
        count_include_pad=1,
    )  # fmt: skip
    energy = graph.op("ReduceSum", graph.op("Mul", cell, cell), channel, keepdims=1)
    around = graph.op("AveragePool", energy, kernel_shape=[3, 3], strides=[1, 1], pads=[1] * 4)
    normal = graph.op("Sqrt", graph.op("Div", cell, graph.op("Sqrt", _plus(graph, around, 1e-4))))
    strength = graph.op("Mul", graph.op("Sqrt", _plus(graph, energy, 1e-8)), graph.constant(np.float32(4)))
    return normal, strength


def _colours(graph: GraphBuilder, planes: str, *, side: int) -> str:
    """How much of each quarter has each of 64 colours (n, 64, 2, 2): square roots of shares, whatever the place.

    A pixel is split between the two nearest of four levels in every channel, so that no light change crosses an edge.
    """
    window = side // COLOUR_GRID
    small = graph.op("AveragePool", planes, kernel_shape=[window, window], strides=[window, window])
    pixels = COLOUR_GRID * COLOUR_GRID
    scaled = graph.op("Mul", small, graph.constant(np.float32(COLOUR_LEVELS - 1)))
    columns = graph.op("Reshape", scaled, graph.constant(np.array([-1, 3, 1, pixels])))
    levels = graph.constant(np.arange(COLOUR_LEVELS, dtype=np.float32).reshape(1, 1, COLOUR_LEVELS, 1))
    one = graph.constant(np.float32(1))
    near = graph.op("Relu", graph.op("Sub", one, graph.op("Abs", graph.op("Sub", columns, levels))))
    channels = graph.ops("Split", near, outputs=3, axis=1, num_outputs=3)
    shapes = [(-1, COLOUR_LEVELS, 1, 1, pixels), (-1, 1, COLOUR_LEVELS, 1, pixels), (-1, 1, 1, COLOUR_LEVELS, pixels)]
    red, green, blue = (
        graph.op("Reshape", channel, graph.constant(np.array(shape)))
        for channel, shape in zip(channels, shapes, strict=True)
    )
    bins = graph.op("Mul", graph.op("Mul", red, green), blue)
    maps = graph.op("Reshape", bins, graph.constant(np.array([-1, COLOUR_LEVELS**3, COLOUR_GRID, COLOUR_GRID])))
    half = COLOUR_GRID // 2
    return graph.op("Sqrt", graph.op("AveragePool", maps, kernel_shape=[half, half], strides=[half, half]))


def _patches(graph: GraphBuilder, planes: str, extractor: Extractor) -> list[str]:
    """Both signs of each filter's response beyond a threshold, at equal local contrast, averaged over a 4 x 4 grid."""
    channels = extractor.channels
    box = graph.constant(np.full((1, channels, PATCH, PATCH), 1.0 / (channels * PATCH * PATCH), np.float32))
    stride = [STRIDE, STRIDE]
    mean = graph.op("Conv", planes, box, strides=stride)
    squares = graph.op("Conv", graph.op("Mul", planes, planes), box, strides=stride)
    variance = graph.op("Relu", graph.op("Sub", squares, graph.op("Mul", mean, mean)))
    contrast = graph.op("Sqrt", _plus(graph, variance, _CONTRAST_FLOOR))
    response = graph.op("Div", graph.op("Conv", planes, graph.constant(extractor.filters), strides=stride), contrast)
    threshold = graph.constant(np.float32(_THRESHOLD))
    window = -(-((extractor.side - PATCH) // STRIDE + 1) // GRID)
    out = []
    for signed in (response, graph.op("Neg", response)):
        beyond = graph.op("Relu", graph.op("Sub", signed, threshold))
        pooled = graph.op("AveragePool", beyond, kernel_shape=[window] * 2, strides=[window] * 2, ceil_mode=1)
        out.append(graph.op("Sqrt", pooled))
    return out


def learn_filters(images: Images, *, rng: np.random.Generator) -> npt.NDArray[np.float32]:
    """K x C x P x P filters: spherical k-means over whitened patches of equal contrast, folded with the whitening."""
    rows = _sample_patches(images, rng=rng)
    rows -= rows.mean(axis=1, keepdims=True)
    contrast = np.sqrt(rows.var(axis=1, keepdims=True) + _CONTRAST_FLOOR)
    textured = contrast[:, 0] > 1.3 * np.sqrt(_CONTRAST_FLOOR)
    rows = (rows / contrast)[textured]
    if len(rows) < 4 * FILTERS:  # next to nothing to learn from: random filters serve (Jarrett et al. 2009)
        rows = rng.standard_normal((4 * FILTERS, rows.shape[1]))
    values, vectors = np.linalg.eigh(rows.T @ rows / len(rows))
    whiten = (vectors / np.sqrt(np.maximum(values, 0.0) + _WHITENING_FLOOR)) @ vectors.T
    rows = rows @ whiten
    rows /= np.linalg.norm(rows, axis=1, keepdims=True) + 1e-6
    centres = rows[rng.permutation(len(rows))[:FILTERS]]
    for _ in range(_ROUNDS):
        similarity = rows @ centres.T
        nearest = similarity.argmax(axis=1)
        weight = np.zeros((len(rows), FILTERS))
        weight[np.arange(len(rows)), nearest] = similarity.max(axis=1)
        moved = weight.T @ rows
        length = np.linalg.norm(moved, axis=1, keepdims=True)
        centres = np.where(length > 1e-6, moved / np.maximum(length, 1e-6), centres)
    filters = centres @ whiten
    filters -= filters.mean(axis=1, keepdims=True)
    return filters.reshape(FILTERS, PATCH, PATCH, -1).transpose(0, 3, 1, 2).astype(np.float32)


def _sample_patches(images: Images, *, rng: np.random.Generator) -> npt.NDArray[np.float64]:
    count, side = images.shape[0], images.shape[1]
    chosen = np.resize(np.arange(count), _PATCHES)
    top, left = rng.integers(0, side - PATCH + 1, (2, _PATCHES))
    windows = np.lib.stride_tricks.sliding_window_view(images, (PATCH, PATCH), axis=(1, 2))
    patches = windows[chosen, top, left]  # (_PATCHES, C, P, P)
    return patches.transpose(0, 2, 3, 1).reshape(_PATCHES, -1).astype(np.float64)


def _plus(graph: GraphBuilder, value: str, floor: float) -> str:
    return graph.op("Add", value, graph.constant(np.float32(floor)))
