"""Uncertain and diverse: the records most likely to be wrong, clustered with their scores as weights, one of each."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from winnow.selection.distances import Vectors
from winnow.selection.kmeans import kmeans, representatives
from winnow.selection.selector import Indices, Pool, Selector
from winnow.selection.top_k import top_k

_LEAST, _USUAL = 5, 10
"""Records considered for each one taken: at least, so that the batch does not repeat itself; and without confidences."""
_ERRORS = 1.5
"""Records considered for each expected error: the errors are not all at the top of the ranking."""
_SMALL = 0.01
"""Weight of the least uncertain record beside the most uncertain one's 1: everything shortlisted counts a little."""


def margin_kmeans(
    scores: npt.NDArray[np.floating],
    embedding: Vectors,
    k: int,
    *,
    rng: np.random.Generator,
    confidence: npt.NDArray[np.floating] | None = None,
) -> Indices:
    """Up to k rows, best score first: of the shortlist, the record nearest each center of a weighted k-means.

    The shortlist holds the best scores: half as many again as the model is expected to get wrong, which is the sum of
    1 - `confidence` (n,), its calibrated probability to be right; 10 k without confidences, never fewer than 5 k. A
    model that knows little is wrong all over the pool, and its doubt says little: then the batch covers; one that is
    nearly always right is asked about its few likely errors. Meant for margin scores (n,) >= 0; any score that is higher
    for more worth works, since weights only scale it to 1.

    Source: Zhdanov, Diverse Mini-Batch Active Learning, 2019; the shortlist by expected errors is our own.

    >>> scores = np.float32([0.9, 0.8, 0.7, 0.1])
    >>> embedding = np.float32([[0, 0], [0.1, 0], [5, 5], [9, 9]])
    >>> margin_kmeans(scores, embedding, 2, rng=np.random.default_rng(0)).tolist()
    [0, 2]
    """
    wanted = _USUAL * k if confidence is None else max(_LEAST * k, round(_ERRORS * float((1.0 - confidence).sum())))
    shortlist = top_k(scores, wanted)
    if not len(shortlist):
        return shortlist
    worth = np.maximum(scores[shortlist].astype(np.float64), 0.0)
    weights = worth / worth.max() + _SMALL if worth.max() > 0.0 else np.ones(len(worth))
    chosen = representatives(kmeans(embedding[shortlist], k, rng=rng, weights=weights))
    return shortlist[np.sort(chosen)]


def _select(pool: Pool, k: int, rng: np.random.Generator) -> Indices:
    assert pool.scores is not None  # `winnow.selection.select` checks the needs first
    assert pool.embedding is not None
    return margin_kmeans(pool.scores, pool.embedding, k, rng=rng, confidence=pool.confidence)


MARGIN_KMEANS = Selector(
    name="margin_kmeans",
    select=_select,
    needs=frozenset({"scores", "embedding"}),
    cost="n + expected errors x k",
    source="Zhdanov, 2019; the shortlist by expected errors is our own",
    sentence="Clusters the records the model is likely to get wrong and takes one of each cluster: uncertain, all different.",
)
