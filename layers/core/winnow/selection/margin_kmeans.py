"""Uncertain and diverse: the best-scored records, clustered with their scores as weights, one of each cluster."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from winnow.selection.distances import Floats
from winnow.selection.kmeans import kmeans, representatives
from winnow.selection.selector import Indices, Pool, Selector
from winnow.selection.top_k import top_k

_SHORTLIST = 10
"""Records considered for each one taken: with fewer the batch repeats itself, with many more it is not uncertain."""
_SMALL = 0.01
"""Weight of the least uncertain record beside the most uncertain one's 1: everything shortlisted counts a little."""


def margin_kmeans(scores: npt.NDArray[np.floating], embedding: Floats, k: int, *, rng: np.random.Generator) -> Indices:
    """Up to k rows, best score first: of the 10 k best scores, the record nearest each center of a weighted k-means.

    Meant for margin scores (n,) >= 0; any score that is higher for more worth works, since weights only scale it to 1.

    Source: Zhdanov, Diverse Mini-Batch Active Learning, 2019.

    >>> scores = np.float32([0.9, 0.8, 0.7, 0.1])
    >>> embedding = np.float32([[0, 0], [0.1, 0], [5, 5], [9, 9]])
    >>> margin_kmeans(scores, embedding, 2, rng=np.random.default_rng(0)).tolist()
    [0, 2]
    """
    shortlist = top_k(scores, _SHORTLIST * k)
    if not len(shortlist):
        return shortlist
    worth = np.maximum(scores[shortlist].astype(np.float64), 0.0)
    weights = worth / worth.max() + _SMALL if worth.max() > 0.0 else np.ones(len(worth))
    chosen = representatives(kmeans(embedding[shortlist], k, rng=rng, weights=weights))
    return shortlist[np.sort(chosen)]


def _select(pool: Pool, k: int, rng: np.random.Generator) -> Indices:
    assert pool.scores is not None  # `winnow.selection.select` checks the needs first
    assert pool.embedding is not None
    return margin_kmeans(pool.scores, pool.embedding, k, rng=rng)


MARGIN_KMEANS = Selector(
    name="margin_kmeans",
    select=_select,
    needs=frozenset({"scores", "embedding"}),
    cost="n + k x k",
    source="Zhdanov, 2019",
    sentence="Clusters the best-scored records and takes one of each cluster: uncertain, and each different.",
)
