"""BatchBALD: the batch whose labels together would tell most about which member of the committee is right."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from winnow.selection.distances import Floats, Vectors, as_floats
from winnow.selection.selector import Indices, Pool, Selector
from winnow.selection.top_k import top_k

_CONFIGURATIONS = 512
"""Ways the batch so far may be labeled that are kept apart: all of them while there are no more, then a sample."""
_CELLS = 1 << 20
_FIRST_BLOCK = 256
_SAME = 1e-4
"""Configurations after which every member is as likely as after another, to this much, count as one."""
_NOTHING = 1e-5
"""Nats; a gain below it is rounding."""


def batch_bald(members: Vectors, k: int, *, rng: np.random.Generator) -> Indices:
    """min(k, n) rows, each the one whose label tells most, in nats, about the member, given the labels before it.

    `members` (n, members, classes) are probabilities; every member is as likely as another at first. What labels the
    batch so far may get, and how likely that makes each member, is enumerated up to 512 ways and sampled beyond; a gain is
    the BALD score under these. Gains only shrink, so only rows whose last gain beats the best are worked out again. All
    labels together cannot tell more than ln(members): rows that add nothing go by their BALD score.

    Source: Kirsch, van Amersfoort and Gal, BatchBALD: Efficient and Diverse Batch Acquisition, 2019.

    >>> torn, odd = [[1.0, 0.0], [0.0, 1.0], [0.0, 1.0]], [[0.4, 0.6], [0.4, 0.6], [0.9, 0.1]]
    >>> batch_bald(np.float32([torn, torn, odd]), 2, rng=np.random.default_rng(0)).tolist()
    [0, 2]
    """
    n, size, _ = members.shape
    k = min(k, n)
    if k <= 0:
        return np.empty(0, dtype=np.int64)
    belief = _Belief(size)
    alone = belief.gains(members, np.arange(n))
    gains = alone.copy()
    taken: list[int] = []
    while len(taken) < k:
        fresh = np.full(n, bool(not taken))
        fresh[taken] = True
        block = _FIRST_BLOCK
        while True:
            best = int(np.argmax(gains))
            if fresh[best]:
                break
            ahead = top_k(gains, block)
            rows = np.sort(ahead[~fresh[ahead]])
            gains[rows] = np.minimum(gains[rows], belief.gains(members, rows))
            fresh[rows] = True
            block *= 2
        if gains[best] <= _NOTHING:
            break
        taken.append(best)
        gains[best] = alone[best] = -np.inf
        belief.learn(as_floats(members[best]), rng)
    return np.concatenate([np.array(taken, dtype=np.int64), top_k(alone, k - len(taken))])


class _Belief:
    """Configurations of the labels so far: how likely each is, and how likely each member then."""

    def __init__(self, members: int) -> None:
        self._likely: npt.NDArray[np.float64] = np.ones(1)
        self._members: npt.NDArray[np.float64] = np.full((1, members), 1.0 / members)

    def gains(self, members: Vectors, rows: Indices) -> npt.NDArray[np.float64]:
        """What the labels of these rows would tell, each alone, in nats (len(rows),)."""
        gains = np.empty(len(rows))
        believed = self._members.astype(np.float32)
        likely = self._likely.astype(np.float32)
        step = max(16, _CELLS // (max(len(likely), members.shape[1]) * max(members.shape[2], 1)))
        for start in range(0, len(rows), step):
            block = as_floats(members[rows[start : start + step]])
            count, size, classes = block.shape
            by_member = np.ascontiguousarray(block.transpose(1, 0, 2)).reshape(size, count * classes)
            predicted = (believed @ by_member).reshape(-1, count, classes)
            each = _entropy(by_member.reshape(size, count, classes))
            gains[start : start + step] = likely @ (_entropy(predicted) - believed @ each)
        return np.maximum(gains, 0.0)

    def learn(self, probabilities: Floats, rng: np.random.Generator) -> None:
        """Take in that one more record, with these probabilities (members, classes), will have a label."""
        joint = self._members[:, None, :] * probabilities.T.astype(np.float64)  # (configurations, classes, members)
        label = joint.sum(axis=2)
        likely = (self._likely[:, None] * label).ravel()
        possible = np.flatnonzero(likely > 0.0)
        believed = joint.reshape(-1, joint.shape[2])[possible] / label.ravel()[possible, None]
        likely = likely[possible] / likely[possible].sum()
        if len(likely) > _CONFIGURATIONS:
            even = (np.arange(_CONFIGURATIONS) + rng.random()) / _CONFIGURATIONS
            drawn = np.minimum(np.searchsorted(np.cumsum(likely), even, side="right"), len(likely) - 1)
            _, first, same = np.unique(
                np.round(believed[drawn] / _SAME), axis=0, return_index=True, return_inverse=True
            )
            believed = believed[drawn[first]]
            likely = np.bincount(same.ravel(), minlength=len(first)) / _CONFIGURATIONS
        self._likely, self._members = likely, believed


def _entropy(probabilities: Floats) -> Floats:
    logs = np.log(np.maximum(probabilities, np.finfo(np.float32).tiny))
    entropy: Floats = -np.einsum("...c,...c->...", probabilities, logs)
    return entropy


def _select(pool: Pool, k: int, rng: np.random.Generator) -> Indices:
    assert pool.members is not None  # `winnow.selection.select` checks the needs first
    return batch_bald(pool.members, k, rng=rng)


BATCH_BALD = Selector(
    name="batch_bald",
    select=_select,
    needs=frozenset({"members"}),
    cost="n x k x members x classes at most",
    source="Kirsch, van Amersfoort and Gal, 2019",
    sentence="Takes records whose labels together tell most about which member of the committee is right.",
)
