"""How much a record stands for others: typicality, and uncertainty weighted by density.

Both compare embeddings (n, dim) with the pool itself: exactly with every other record where there are at most REFERENCE,
else with that many drawn by `rng`, so that time stays in proportion to n and memory to the pool. No record is compared
with itself. All give (n,) float32, higher = more worth labeling; a row that holds a NaN gets NaN and is compared with
no other.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from winnow.acquisition.strategy import Scores, Strategy
from winnow.acquisition.uncertainty import entropy

Floats = npt.NDArray[np.float32]

REFERENCE = 2048
"""Records that a large pool is compared with: a mean over them is right within 2 % of the similarities' spread."""
NEIGHBOURS = 20
"""As in the paper; with fewer, two copies of an outlier count as typical."""
_BLOCK = 1024
_SAME = np.float32(1e-6)
"""Squared distances below this share of the lengths are float32's rounding and count as 0."""
_NEAREST = 1e-7
"""Least mean distance, so that copies score finitely; what scikit-activeml adds."""


def density_weighted(
    probabilities: npt.NDArray[np.floating],
    embedding: npt.NDArray[np.floating],
    *,
    rng: np.random.Generator,
    beta: float = 1.0,
) -> Scores:
    """Entropy of probabilities (n, classes) times the mean similarity to the other records to the power of beta.

    Similarity is the cosine, and 0 where it is negative. Records of length zero have no direction: they are like one
    another and unlike all else. Of a single record only the entropy is known.

    Source: Settles and Craven, An Analysis of Active Learning Strategies for Sequence Labeling Tasks, 2008.

    >>> torn, embedding = np.full((3, 2), 0.5), np.array([[1.0, 0.0], [2.0, 0.0], [0.0, 3.0]])
    >>> print(density_weighted(torn, embedding, rng=np.random.default_rng(0)).round(4))
    [0.3466 0.3466 0.    ]
    """
    doubt = entropy(probabilities)
    points = _directions(embedding)
    reference = _reference(points, rng)
    likeness = np.empty(len(points), dtype=np.float32)
    for rows, products, own, itself in _products(points, reference):
        np.maximum(products, np.float32(0.0), out=products)
        products[own, itself] = 0.0
        likeness[rows] = products.sum(axis=1)
    if len(points) == 1:
        likeness[0] = 1.0
    likeness /= np.maximum(len(reference) - np.isin(np.arange(len(points)), reference), 1).astype(np.float32)
    likeness[~_usable(points)] = np.nan
    return doubt * likeness ** np.float32(beta)


def typicality(
    embedding: npt.NDArray[np.floating], *, rng: np.random.Generator, neighbours: int = NEIGHBOURS
) -> Scores:
    """Inverse of the mean Euclidean distance of each row to its nearest neighbours, of which there are at most n - 1.

    Needs no label and no trained model, only an embedding. The highest scores lie close together, so let a selector
    that spreads choose by them. A record without neighbours scores 0.

    Source: Hacohen, Dekel and Weinshall, Active Learning on a Budget: Opposite Strategies Suit High and Low Budgets, 2022.

    >>> points = np.array([[0.0], [1.0], [2.0], [10.0]])
    >>> print(typicality(points, neighbours=2, rng=np.random.default_rng(0)).round(4))
    [0.6667 1.     0.6667 0.1176]
    """
    points = embedding.astype(np.float32)
    reference = _reference(points, rng)
    out = np.zeros(len(points), dtype=np.float32)
    if len(reference) > 1:
        points -= points[reference].mean(axis=0)  # rounding grows with the lengths
        lengths = _lengths(points)
        count = min(neighbours, len(reference) - 1)
        for rows, products, own, itself in _products(points, reference):
            most = lengths[rows, None] + lengths[reference]
            products *= -2
            products += most
            products[products < _SAME * most] = 0.0
            products[own, itself] = np.inf
            nearest = np.partition(products, count - 1, axis=1)[:, :count]
            out[rows] = 1.0 / (np.sqrt(nearest).mean(axis=1) + _NEAREST)
    out[~_usable(points)] = np.nan
    return out


def _lengths(points: Floats) -> Floats:
    lengths: Floats = np.einsum("ij,ij->i", points, points)
    return lengths


def _usable(points: Floats) -> npt.NDArray[np.bool_]:
    usable: npt.NDArray[np.bool_] = np.isfinite(_lengths(points))
    return usable


def _directions(embedding: npt.NDArray[np.floating]) -> Floats:
    """Rows (n, dim + 1) of length 1; the last column is 1 where there is no direction, so that such rows are alike."""
    points = np.empty((len(embedding), embedding.shape[1] + 1), dtype=np.float32)
    points[:, :-1] = embedding
    lengths = np.sqrt(_lengths(points[:, :-1]))
    points[:, -1] = lengths == 0.0
    points[:, :-1] /= np.where(lengths == 0.0, np.float32(1.0), lengths)[:, None]
    return points


def _reference(points: Floats, rng: np.random.Generator) -> npt.NDArray[np.int64]:
    """Rows to compare with, ascending: all that are finite, or REFERENCE of them by chance."""
    usable = np.flatnonzero(_usable(points))
    return usable if len(usable) <= REFERENCE else np.sort(rng.choice(usable, REFERENCE, replace=False))


def _products(
    points: Floats, reference: npt.NDArray[np.int64]
) -> Iterator[tuple[slice, Floats, npt.NDArray[np.int64], npt.NDArray[np.int64]]]:
    """Inner products (rows, references) block by block, and where in them a row meets itself."""
    columns = np.ascontiguousarray(points[reference].T)
    for start in range(0, len(points), _BLOCK):
        rows = slice(start, min(start + _BLOCK, len(points)))
        itself = np.arange(*np.searchsorted(reference, [rows.start, rows.stop]))
        yield rows, points[rows] @ columns, reference[itself] - start, itself


DENSITY_WEIGHTED = Strategy(
    name="density_weighted",
    score=lambda outputs, rng: density_weighted(outputs.probabilities, outputs.embedding, rng=rng),
    needs=frozenset({"probabilities", "embedding"}),
    source="Settles and Craven, 2008",
    sentence="Asks for uncertain records that are like many others, so that outliers are left alone.",
    cost="n x 2,048 x dim",
    scope="pool",
)
TYPICALITY = Strategy(
    name="typicality",
    score=lambda outputs, rng: typicality(outputs.embedding, rng=rng),
    needs=frozenset({"embedding"}),
    source="Hacohen, Dekel and Weinshall, 2022",
    sentence="Asks for records whose neighbours are near: what a first batch without any labels should hold.",
    cost="n x 2,048 x dim",
    scope="pool",
)
