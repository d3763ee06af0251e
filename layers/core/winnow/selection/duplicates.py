"""Keep near-duplicates out of one batch: two copies cost twice and teach once."""

from __future__ import annotations

import numpy as np

from winnow.selection.distances import Floats, squared_norms
from winnow.selection.selector import Indices

_BLOCK = 512


def suppress_near_duplicates(
    embedding: Floats, order: Indices, *, threshold: float, limit: int | None = None, against: Floats | None = None
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
    kept: list[int] = []
    directions = [] if against is None or not len(against) else [_directions(against)]
    for start in range(0, len(order), _BLOCK):
        rows = order[start : start + _BLOCK]
        units = _directions(embedding[rows])
        free = np.ones(len(rows), dtype=bool)
        for earlier in directions:
            free &= (units @ earlier.T).max(axis=1) <= ceiling
        within = units @ units.T
        chosen: list[int] = []
        for row in np.flatnonzero(free):
            if len(kept) + len(chosen) < limit and not (within[row, chosen] > ceiling).any():
                chosen.append(int(row))
        kept.extend(int(rows[row]) for row in chosen)
        if len(kept) >= limit:
            break
        if chosen:
            directions.append(units[chosen])
    return np.array(kept, dtype=np.int64)


def _directions(points: Floats) -> Floats:
    lengths = np.sqrt(squared_norms(points))
    lengths[lengths == 0.0] = 1.0
    return (points / lengths[:, None]).astype(np.float32, copy=False)
