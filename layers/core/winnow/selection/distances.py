"""Squared Euclidean distances by matrix products, in blocks that keep memory flat."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]

BLOCK = 8192


def squared_norms(points: Floats) -> Floats:
    """Row-wise squared lengths of points (n, dim).

    >>> print(squared_norms(np.float32([[3, 4], [0, 0]])))
    [25.  0.]
    """
    norms: Floats = np.einsum("ij,ij->i", points, points)
    return norms


def nearest(points: Floats, centers: Floats) -> tuple[npt.NDArray[np.int64], Floats]:
    """For each of points (n, dim) the row of its nearest center and the squared distance to it (0 at least).

    >>> rows, distances = nearest(np.float32([[0, 0], [3, 1]]), np.float32([[0, 1], [3, 3]]))
    >>> print(rows, distances)
    [0 1] [1. 4.]
    """
    rows = np.empty(len(points), dtype=np.int64)
    distances = np.empty(len(points), dtype=np.float32)
    center_norms = squared_norms(centers)
    transposed = np.ascontiguousarray(centers.T)
    for start in range(0, len(points), BLOCK):
        block = points[start : start + BLOCK]
        products = block @ transposed
        products *= -2
        products += center_norms
        best = products.argmin(axis=1)
        rows[start : start + BLOCK] = best
        distances[start : start + BLOCK] = products[np.arange(len(block)), best] + squared_norms(block)
    return rows, np.maximum(distances, np.float32(0.0), out=distances)
