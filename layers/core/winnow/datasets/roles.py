"""A record's role and its uniform key: fixed at ingest, by digest, for ever.

Both come from the near-duplicate cluster, so that copies share a role and nothing judged on has a twin in training. The
salt is the stack's own (`privacy.salt`): without it nobody outside can aim a record at the evaluation set.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass

from winnow.errors import ConfigError
from winnow.records import Role

_BITS = 53
"""Bits a float64 in [0, 1) holds exactly."""


@dataclass(frozen=True)
class RoleShares:
    """What share of clusters may only be judged on. The rest is for training.

    Evaluation records are labeled first and by chance, so a fifth of the pool lasts through many gates; reward records
    are what selection strategies are compared on.
    """

    evaluation: float = 0.2
    reward: float = 0.05

    def __post_init__(self) -> None:
        if not (self.evaluation >= 0.0 and self.reward >= 0.0 and self.evaluation + self.reward < 1.0):
            given = f"evaluation={self.evaluation} and reward={self.reward}"
            raise ConfigError(f"role shares {given} must be 0 or more and leave room to train")


def _uniform(purpose: str, cluster: str, salt: str) -> float:
    key = hashlib.sha256(salt.encode("utf-8")).digest()
    value = hashlib.sha256(key + f"{purpose}:{cluster}".encode()).digest()
    return (int.from_bytes(value[:8], "big") >> (64 - _BITS)) / float(1 << _BITS)


def uniform_key(cluster: str, *, salt: str) -> float:
    """The number in [0, 1) that stands for a cluster (or any content digest) in every uniform choice.

    Taking the n lowest keys of a set is a uniform sample of it that grows by appending, whoever takes it and when.

    >>> uniform_key("c0ffee", salt="winnow")
    0.37244411983873504
    """
    return _uniform("key", cluster, salt)


def role(cluster: str, *, salt: str, shares: RoleShares = RoleShares()) -> Role:
    """The role of every record of a cluster; independent of its uniform key, so keys stay uniform within a role.

    >>> role("c0ffee", salt="winnow")
    'evaluation'
    """
    place = _uniform("role", cluster, salt)
    # Evaluation grows from below and reward from above, so raising one share takes only from training.
    if place < shares.evaluation:
        return "evaluation"
    if place >= 1.0 - shares.reward:
        return "reward"
    return "train"


def lowest(keys: Iterable[float], n: int) -> float:
    """The n-th lowest uniform key: up to it keys make a uniform sample of n. 1.0 when there are no more than n.

    >>> lowest([0.4, 0.1, 0.9], 2), lowest([0.4], 2)
    (0.4, 1.0)
    """
    found = sorted(keys)
    return found[n - 1] if len(found) > n else 1.0
