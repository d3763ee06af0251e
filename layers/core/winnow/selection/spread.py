"""Rows by chance, each in proportion to its squared distance to the ones before: what k-means++ starts with."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from winnow.selection.distances import Floats, Vectors, as_floats, blocks
from winnow.selection.selector import Indices

_PROPOSALS = 64
_PROPOSAL, _CENTER = 32, 1 / 16
"""What proposing a row costs, in rows brought up to date with one drawn row, and what each drawn row adds to that."""
_NOISE = np.float32(4e-6)
"""Of a row's squared length: a squared distance below it is rounding, and the two rows are one."""


def spread(
    factors: Sequence[Vectors],
    k: int,
    *,
    norms: Floats,
    rng: np.random.Generator,
    first: int | None = None,
    weights: npt.NDArray[np.float64] | None = None,
    origin: bool = False,
) -> Indices:
    """At most k different rows in the order drawn; fewer where every row coincides with a drawn one.

    Row i stands for the outer product of its rows in the factors, each (n, any), whose inner products are the products
    of theirs; with one factor that is the factor itself. `norms` (n,) are the squared lengths of these products. The
    next row is drawn with probability weight x squared distance to the nearest one drawn; the first is `first`, or drawn
    by weight. `origin` counts the zero vector as drawn before all.

    Exact without a pass over the pool a row: distances only shrink, so a row proposed by an old distance and accepted
    with probability new / old has the right distribution, and only proposed rows need their new distance.

    Source: Arthur and Vassilvitskii, k-means++: The Advantages of Careful Seeding, 2007; rejection as in Devroye,
    Non-Uniform Random Variate Generation, 1986.

    >>> points = np.float32([[0, 0], [0, 0], [3, 4]])
    >>> spread([points], 3, norms=np.float32([0, 0, 25]), first=0, rng=np.random.default_rng(0)).tolist()
    [0, 2]
    """
    n = len(norms)
    drawn = _Drawn(factors, norms, min(k, n), weights=weights)
    if drawn.capacity <= 0:
        return np.empty(0, dtype=np.int64)
    if origin:
        np.minimum(drawn.bound, norms, out=drawn.bound)
    elif first is None:
        mass = np.cumsum(np.ones(n) if weights is None else weights)
        first = int(rng.integers(n)) if mass[-1] <= 0.0 else _by_mass(mass, rng.random(1))[0]
    if first is not None:
        drawn.add(int(first))
    mass = drawn.refresh()
    vain = 0
    while drawn.count < drawn.capacity and mass[-1] > 0.0:
        accepted = _propose(drawn, mass, rng)
        vain += _PROPOSALS - accepted
        if _PROPOSAL * vain > n * (1.0 + _CENTER * drawn.pending):  # as much was spent in vain as a refresh costs
            mass, vain = drawn.refresh(), 0
    return drawn.rows[: drawn.count]


def _by_mass(mass: npt.NDArray[np.float64], uniform: npt.NDArray[np.float64]) -> Indices:
    rows: Indices = np.searchsorted(mass, uniform * mass[-1], side="right")
    return np.minimum(rows, len(mass) - 1, out=rows)


def _propose(drawn: _Drawn, mass: npt.NDArray[np.float64], rng: np.random.Generator) -> int:
    """Propose a handful of rows and draw those that are accepted; how many that were."""
    rows = _by_mass(mass, rng.random(_PROPOSALS))
    luck = rng.random(_PROPOSALS) * drawn.bound[rows]
    vectors = [as_floats(factor[rows]) for factor in drawn.factors]
    now = drawn.distances(rows, vectors)
    norms = drawn.norms[rows]
    between = norms + norms[:, None] - 2 * _product([part @ part.T for part in vectors])
    between[(between < _NOISE * norms) | (rows == rows[:, None])] = 0.0
    before = drawn.count
    for proposal, row in enumerate(rows):
        if drawn.count < drawn.capacity and luck[proposal] < now[proposal]:
            drawn.add(int(row))
            np.minimum(now, between[proposal], out=now)
    return drawn.count - before


def _product(parts: list[Floats]) -> Floats:
    whole = parts[0]
    for part in parts[1:]:
        whole *= part
    return whole


class _Drawn:
    """What is drawn so far, and for every row an upper bound of its squared distance to the nearest of it."""

    def __init__(
        self, factors: Sequence[Vectors], norms: Floats, capacity: int, *, weights: npt.NDArray[np.float64] | None
    ) -> None:
        self.factors, self.norms, self.capacity = factors, norms, capacity
        self.weights = weights
        self.count = 0
        self.rows = np.empty(max(capacity, 0), dtype=np.int64)
        self.bound = np.full(len(norms), np.inf, dtype=np.float32)
        self._centers = [np.empty((max(capacity, 0), factor.shape[1]), dtype=np.float32) for factor in factors]
        self._seen = 0

    @property
    def pending(self) -> int:
        """How many of the drawn rows the bounds do not know of."""
        return self.count - self._seen

    def add(self, row: int) -> None:
        for centers, factor in zip(self._centers, self.factors, strict=True):
            centers[self.count] = factor[row]
        self.rows[self.count] = row
        self.count += 1

    def distances(self, rows: Indices | slice, vectors: list[Floats]) -> Floats:
        """Squared distance of these rows to the nearest one drawn, up to date."""
        bound, norms = self.bound[rows], self.norms[rows]
        if not self.pending:
            return bound.copy()
        new = slice(self._seen, self.count)
        centers = [-2 * self._centers[0][new], *(some[new] for some in self._centers[1:])]
        products = _product([some @ part.T for some, part in zip(centers, vectors, strict=True)])
        products += self.norms[self.rows[new], None]
        closest: Floats = products.min(axis=0)
        closest += norms
        closest[closest < _NOISE * norms] = 0.0
        return np.minimum(closest, bound)

    def refresh(self) -> npt.NDArray[np.float64]:
        """Bring every bound up to date; the running sum of weight x distance."""
        for block in blocks(len(self.bound), columns=max(self.pending, 256)):
            self.bound[block] = self.distances(block, [as_floats(factor[block]) for factor in self.factors])
        self.bound[self.rows[: self.count]] = 0.0
        self._seen = self.count
        if self.weights is None:
            return np.cumsum(self.bound, dtype=np.float64)
        return np.cumsum(self.weights * self.bound)
