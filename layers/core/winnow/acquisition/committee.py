"""How much a committee of models disagrees: vote entropy, divergence and BALD about classes, variance about numbers.

The first three take members (n, members, classes), each calibrated and each row of classes summing to 1, variance takes
members (n, members). All give (n,) float32, higher = more worth labeling. A record for which any member gives NaN gets
NaN. One member cannot disagree: it scores 0.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from winnow.acquisition.strategy import Scores, Strategy
from winnow.acquisition.uncertainty import entropy

_BLOCK = 4096


def vote_entropy(members: npt.NDArray[np.floating]) -> Scores:
    """Entropy in nats of the members' votes (each votes for its best class, the first one when tied).

    Source: Dagan and Engelson, Committee-Based Sampling for Training Probabilistic Classifiers, 1995.

    >>> print(vote_entropy(np.array([[[0.9, 0.1], [0.2, 0.8]], [[0.9, 0.1], [0.6, 0.4]]])).round(4))
    [0.6931 0.    ]
    """
    n, size, classes = members.shape
    out = np.empty(n, dtype=np.float32)
    for start in range(0, n, _BLOCK):
        block = members[start : start + _BLOCK]
        ballots = block.argmax(axis=2) + classes * np.arange(len(block))[:, None]
        votes = np.bincount(ballots.ravel(), minlength=len(block) * classes).reshape(len(block), classes)
        scores = entropy(votes / np.float32(size))
        scores[np.isnan(block.sum(axis=(1, 2)))] = np.nan  # argmax would count a NaN as a vote
        out[start : start + _BLOCK] = scores
    return out


def consensus_kl(members: npt.NDArray[np.floating]) -> Scores:
    """Mean over the members of the Kullback-Leibler divergence in nats of each from their mean.

    Written out it is the entropy of the mean minus the mean entropy, which is `bald`: two literatures found one figure.
    Taken as it is defined, no two entropies cancel, and agreement scores 0 and not a rounding.

    Source: McCallum and Nigam, Employing EM and Pool-Based Active Learning for Text Classification, 1998.

    >>> print(consensus_kl(np.array([[[1.0, 0.0], [0.0, 1.0]], [[0.7, 0.3], [0.7, 0.3]]])).round(4))
    [0.6931 0.    ]
    """
    n, size, _ = members.shape
    out = np.empty(n, dtype=np.float32)
    tiny = np.finfo(np.float32).tiny
    for start in range(0, n, _BLOCK):
        block = members[start : start + _BLOCK].astype(np.float32, copy=False)
        mean = np.maximum(block.mean(axis=1, keepdims=True), tiny)
        parts = np.maximum(block, tiny)  # 0 ln 0 = 0: the product with p = 0 below makes it so
        parts /= mean
        np.log(parts, out=parts)
        parts *= block
        out[start : start + _BLOCK] = parts.sum(axis=(1, 2)) / np.float32(size)
    return np.maximum(out, np.float32(0.0), out=out)


def bald(members: npt.NDArray[np.floating]) -> Scores:
    """Mutual information in nats between the label and the choice of member: entropy of the mean minus mean entropy.

    High only where members are each sure and contradict each other; noise that all members see cancels out.

    Source: Houlsby et al., Bayesian Active Learning for Classification and Preference Learning, 2011.

    >>> print(bald(np.array([[[1.0, 0.0], [0.0, 1.0]], [[0.5, 0.5], [0.5, 0.5]]])).round(4))
    [0.6931 0.    ]
    """
    n, size, classes = members.shape
    out = np.empty(n, dtype=np.float32)
    for start in range(0, n, _BLOCK):
        block = members[start : start + _BLOCK].astype(np.float32, copy=False)
        each = entropy(block.reshape(-1, classes)).reshape(-1, size).mean(axis=1)
        out[start : start + _BLOCK] = entropy(block.mean(axis=1)) - each
    return np.maximum(out, np.float32(0.0), out=out)


def variance(members: npt.NDArray[np.floating]) -> Scores:
    """Variance of the members' numbers, in the square of the target's unit; at most the largest float32.

    A committee's squared error is its members' mean squared error minus this, so where it is large a label moves most.

    Source: Krogh and Vedelsby, Neural Network Ensembles, Cross Validation, and Active Learning, 1995; as a query strategy
    Burbidge, Rowland and King, Active Learning for Regression Based on Query by Committee, 2007.

    >>> variance(np.array([[1.0, 3.0], [5.0, 5.0]])).tolist()
    [1.0, 0.0]
    """
    spread = members.astype(np.float64).var(axis=1)  # the square of a float32 need not be one
    return np.minimum(spread, np.finfo(np.float32).max).astype(np.float32)


def _members(members: npt.NDArray[np.float32] | None) -> npt.NDArray[np.float32]:
    assert members is not None  # `winnow.acquisition.score` checks the needs first
    return members


VOTE_ENTROPY = Strategy(
    name="vote_entropy",
    score=lambda outputs, _rng: vote_entropy(_members(outputs.members)),
    needs=frozenset({"members", "probabilities"}),
    source="Dagan and Engelson, 1995",
    sentence="Asks for records on which the members of the committee vote for different classes.",
    cost="n x members x classes",
)
CONSENSUS_KL = Strategy(
    name="consensus_kl",
    score=lambda outputs, _rng: consensus_kl(_members(outputs.members)),
    needs=frozenset({"members", "probabilities"}),
    source="McCallum and Nigam, 1998",
    sentence="Asks for records on which members are far from their consensus; the same figure as bald.",
    cost="n x members x classes",
)
BALD = Strategy(
    name="bald",
    score=lambda outputs, _rng: bald(_members(outputs.members)),
    needs=frozenset({"members", "probabilities"}),
    source="Houlsby et al., 2011",
    sentence="Asks for records on which members are sure of different classes, and ignores plain noise.",
    cost="n x members x classes",
)
VARIANCE = Strategy(
    name="variance",
    score=lambda outputs, _rng: variance(_members(outputs.members)),
    needs=frozenset({"members", "prediction"}),
    source="Krogh and Vedelsby, 1995; Burbidge, Rowland and King, 2007",
    sentence="Asks for records for which the members of the committee predict different numbers; for regression.",
    cost="n x members",
)
