"""Keep near-duplicates out of one batch: two copies cost twice and teach once."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from winnow.selection.distances import Floats, Vectors, as_floats, squared_norms
from winnow.selection.selector import Indices

_BLOCK = 512


def suppress_near_duplicates(
    embedding: Vectors, order: Indices, *, threshold: float, limit: int | None = None, against: Vectors | None = None
) -> Indices:
    """Rows of `order`, in that order, without those nearer than `threshold` to one kept before (or to `against`).

    The distance is the cosine distance, 0 for the same direction to 2; 0 as threshold keeps everything. Rows of length
    zero have no direction and are near nothing. Stops once `limit` rows are kept.

    >>> embedding = np.float32([[1, 0], [1, 0.01], [0, 1]])
    >>> suppress_near_duplicates(embedding, np.array([0, 1, 2]), threshold=0.02).tolist()
    [0, 2]
    """
    limit = len(order) if limit is None else min(limit, len(order))
    if threshold <= 0.0 or limit <= 0:
        return order[:limit]
    ceiling = np.float32(1.0 - threshold)
    kept: list[Indices] = []
    left = limit
    directions = [] if against is None or not len(against) else [_directions(against)[0]]
    for start in range(0, len(order), _BLOCK):
        rows = order[start : start + _BLOCK]
        units, nowhere = _directions(embedding[rows])
        free = np.ones(len(rows), dtype=bool)
        for earlier in directions:
            free &= (units @ earlier.T).max(axis=1) <= ceiling
        close = units @ units.T > ceiling
        np.fill_diagonal(close, False)
        close[nowhere] = close[:, nowhere] = False
        free |= nowhere
        for row in np.flatnonzero(free & close.any(axis=1)):
            if free[row]:  # else one before it has taken its place
                free[row + 1 :] &= ~close[row, row + 1 :]
        chosen = np.flatnonzero(free)[:left]
        kept.append(rows[chosen])
        left -= len(chosen)
        if left <= 0:
            break
        chosen = chosen[~nowhere[chosen]]
        if len(chosen):
            directions.append(units[chosen])
    return np.concatenate(kept)


def _directions(points: Vectors) -> tuple[Floats, npt.NDArray[np.bool_]]:
    """The points at length one, and which of them have no direction."""
    floats = as_floats(points)
    lengths = np.sqrt(squared_norms(floats))
    nowhere = lengths == 0.0
    return (floats / np.where(nowhere, 1.0, lengths)[:, None]).astype(np.float32, copy=False), nowhere
