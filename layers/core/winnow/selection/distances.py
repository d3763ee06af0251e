"""Squared Euclidean distances by matrix products, in blocks that keep memory flat."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]
Vectors = npt.NDArray[np.floating]
"""Rows as they are stored, float16 or float32; arithmetic is done on blocks of them as `Floats`."""

BLOCK = 8192
_CELLS = 1 << 20
"""Cells of a block of distances: they should still be in the processor's cache when they are compared."""


def as_floats(rows: Vectors) -> Floats:
    """The same rows as float32, copied only when they are something else."""
    return rows.astype(np.float32, copy=False)


def blocks(n: int, *, columns: int = 1) -> Iterator[slice]:
    """Slices of n rows, so short that a matrix of one of them by `columns` stays small.

    >>> [(block.start, block.stop) for block in blocks(3000, columns=1000)]
    [(0, 1048), (1048, 2096), (2096, 3144)]
    """
    step = min(BLOCK, max(256, _CELLS // max(columns, 1)))
    for start in range(0, n, step):
        yield slice(start, start + step)


def squared_norms(points: Vectors) -> Floats:
    """Row-wise squared lengths of points (n, dim).

    >>> print(squared_norms(np.float32([[3, 4], [0, 0]])))
    [25.  0.]
    """
    norms = np.empty(len(points), dtype=np.float32)
    for block in blocks(len(points)):
        rows = as_floats(points[block])
        np.einsum("ij,ij->i", rows, rows, out=norms[block])
    return norms


def nearest(points: Vectors, centers: Vectors) -> tuple[npt.NDArray[np.int64], Floats]:
    """For each of points (n, dim) the row of its nearest center and the squared distance to it (0 at least).

    >>> rows, distances = nearest(np.float32([[0, 0], [3, 1]]), np.float32([[0, 1], [3, 3]]))
    >>> print(rows, distances)
    [0 1] [1. 4.]
    """
    rows = np.empty(len(points), dtype=np.int64)
    distances = np.empty(len(points), dtype=np.float32)
    center_norms = squared_norms(centers)
    transposed = -2 * np.ascontiguousarray(as_floats(centers).T)
    for block in blocks(len(points), columns=len(centers)):
        some = as_floats(points[block])
        products = some @ transposed
        products += center_norms
        best = products.argmin(axis=1)
        rows[block] = best
        distances[block] = products[np.arange(len(some)), best] + squared_norms(some)
    return rows, np.maximum(distances, np.float32(0.0), out=distances)
