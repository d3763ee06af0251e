"""How far what is seen now is from what was learned from: population stability index and Kolmogorov-Smirnov distance."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from winnow.errors import BadInput

_HALF = 0.5
"""Imaginary observations of the smaller side in every bin: an empty bin is unlikely, not impossible."""


def psi(expected: npt.ArrayLike, observed: npt.ArrayLike) -> float:
    """Population stability index between two sets of counts (bins,): 0 when their shares are equal, no upper end.

    By custom under 0.1 is stable and above 0.25 a real shift; with few observations it is large by chance (its mean is
    about (bins - 1) x (1 / n + 1 / m)), so ask for some hundreds.

    Raises BadInput for counts of different lengths, no observations, or negative ones.

    Source: Lewis, An Introduction to Credit Scoring, 1994; it is the symmetric Kullback-Leibler divergence.

    >>> round(psi([500, 500], [900, 100]), 3), psi([5, 5], [500, 500])
    (0.876, 0.0)
    """
    one, other = np.asarray(expected, dtype=np.float64), np.asarray(observed, dtype=np.float64)
    if one.shape != other.shape or one.ndim != 1 or not one.size:
        raise BadInput(f"counts of shapes {one.shape} and {other.shape} cannot be compared", code="drift-shape")
    if (one < 0).any() or (other < 0).any() or not np.isfinite(one).all() or not np.isfinite(other).all():
        raise BadInput("counts must be 0 or more", code="drift-counts")
    if not one.any() or not other.any():
        raise BadInput("drift needs at least one observation on either side", code="drift-empty")
    # The same share for both, whatever their sizes: equal shares stay equal, so the index stays 0.
    floor = _HALF / min(one.sum(), other.sum())
    p = (one / one.sum() + floor) / (1.0 + floor * one.size)
    q = (other / other.sum() + floor) / (1.0 + floor * one.size)
    return float(((p - q) * np.log(p / q)).sum())


def quantile_edges(reference: npt.NDArray[np.floating], *, bins: int = 10) -> npt.NDArray[np.float64]:
    """The inner edges, at most bins - 1, of bins of equal mass of reference (n,); repeated values have one edge.

    Raises BadInput for no values or fewer than 2 bins.

    >>> quantile_edges(np.arange(9.0), bins=4).tolist()
    [2.0, 4.0, 6.0]
    """
    if bins < 2:
        raise BadInput(f"{bins} bins cannot show a shift; use 2 or more", code="drift-bins")
    if not len(reference):
        raise BadInput("drift needs at least one observation on either side", code="drift-empty")
    return np.unique(np.quantile(reference.astype(np.float64), np.linspace(0.0, 1.0, bins + 1)[1:-1]))


def binned(values: npt.ArrayLike, edges: npt.ArrayLike) -> npt.NDArray[np.int64]:
    """Counts (edges + 1,) of values (n,) between inner edges in ascending order; a value on an edge counts above it.

    >>> binned([1.0, 2.0, 7.0], [2.0, 4.0]).tolist()
    [1, 1, 1]
    """
    inner = np.asarray(edges, dtype=np.float64)
    places = np.searchsorted(inner, np.asarray(values, dtype=np.float64), side="right")
    return np.bincount(places, minlength=len(inner) + 1).astype(np.int64, copy=False)


def psi_of_values(
    reference: npt.NDArray[np.floating], current: npt.NDArray[np.floating], *, bins: int = 10
) -> npt.NDArray[np.float64]:
    """PSI (columns,) of each column of current (m, columns) against reference (n, columns), in bins of equal reference mass.

    Raises BadInput for other shapes or fewer than 2 bins.

    >>> rng = np.random.default_rng(0)
    >>> steady, shifted = rng.normal(size=(2000, 1)), rng.normal(1.0, size=(2000, 1))
    >>> bool(psi_of_values(steady, steady)[0] == 0), bool(psi_of_values(steady, shifted)[0] > 0.5)
    (True, True)
    """
    _check_columns(reference, current)
    found = np.empty(reference.shape[1])
    for column in range(reference.shape[1]):
        edges = quantile_edges(reference[:, column], bins=bins)
        found[column] = psi(binned(reference[:, column], edges), binned(current[:, column], edges))
    return found


def ks_distance(reference: npt.NDArray[np.floating], current: npt.NDArray[np.floating]) -> npt.NDArray[np.float64]:
    """Two-sample Kolmogorov-Smirnov distance (columns,): the largest gap between the two distributions, 0..1.

    Columns of reference (n, columns) and current (m, columns) are compared one by one. Raises BadInput for other shapes.

    Source: Smirnov, Table for Estimating the Goodness of Fit of Empirical Distributions, 1948.

    >>> ks_distance(np.array([[1.0], [2.0], [3.0]]), np.array([[3.0], [4.0], [5.0]])).round(4).tolist()
    [0.6667]
    """
    _check_columns(reference, current)
    n, m = len(reference), len(current)
    found = np.empty(reference.shape[1])
    for column in range(reference.shape[1]):
        one, other = np.sort(reference[:, column]), np.sort(current[:, column])
        # The gap is widest at a value of either sample; ties need the share at or below, from both.
        at = np.concatenate([one, other])
        gap = np.searchsorted(one, at, side="right") / n - np.searchsorted(other, at, side="right") / m
        found[column] = np.abs(gap).max()
    return found


def _check_columns(reference: npt.NDArray[np.floating], current: npt.NDArray[np.floating]) -> None:
    if reference.ndim != 2 or current.ndim != 2 or reference.shape[1] != current.shape[1]:
        message = f"samples of shapes {reference.shape} and {current.shape} must be tables with the same columns"
        raise BadInput(message, code="drift-shape")
    if not len(reference) or not len(current):
        raise BadInput("drift needs at least one observation on either side", code="drift-empty")
