"""Cluster-Margin: the least sure records, taken in turn from the clusters of the pool they lie in."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from winnow.selection.distances import Vectors
from winnow.selection.kmeans import kmeans
from winnow.selection.selector import Indices, Pool, Selector
from winnow.selection.top_k import top_k

_SHORTLIST = 10
"""Records considered for each one taken, as in the paper."""


def cluster_margin(
    scores: npt.NDArray[np.floating], embedding: Vectors, k: int, *, rng: np.random.Generator
) -> Indices:
    """min(k, n) rows of the 10 k best scores: by turns one of each cluster, the smallest first, so that rare kinds come in.

    Within a cluster the best score goes first (the paper draws: its scores tie more often than calibrated ones). The
    paper's clusters are agglomerative, which costs n x n; these are k clusters of the pool by k-means.

    Source: Citovsky et al., Batch Active Learning at Scale, 2021.

    >>> scores = np.float32([0.9, 0.8, 0.7, 0.1])
    >>> embedding = np.float32([[0, 0], [0.1, 0], [5, 5], [0, 0.1]])
    >>> cluster_margin(scores, embedding, 2, rng=np.random.default_rng(0)).tolist()
    [2, 0]
    """
    if k <= 0 or not len(scores):
        return np.empty(0, dtype=np.int64)
    shortlist = top_k(scores, _SHORTLIST * k)  # best first
    cluster = kmeans(embedding, k, rng=rng).assignment[shortlist]
    sizes = np.bincount(cluster)
    order = np.lexsort((np.arange(len(shortlist)), cluster))
    _, starts = np.unique(cluster[order], return_index=True)
    turn = np.empty(len(shortlist), dtype=np.int64)
    turn[order] = np.arange(len(shortlist)) - np.repeat(starts, np.diff([*starts, len(shortlist)]))
    return shortlist[np.lexsort((cluster, sizes[cluster], turn))[:k]]


def _select(pool: Pool, k: int, rng: np.random.Generator) -> Indices:
    assert pool.scores is not None  # `winnow.selection.select` checks the needs first
    assert pool.embedding is not None
    return cluster_margin(pool.scores, pool.embedding, k, rng=rng)


CLUSTER_MARGIN = Selector(
    name="cluster_margin",
    select=_select,
    needs=frozenset({"scores", "embedding"}),
    cost="n x k",
    source="Citovsky et al., 2021",
    sentence="Takes the best-scored records by turns from clusters of the pool, the rarest clusters first.",
)
