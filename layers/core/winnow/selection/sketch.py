"""What a stream of scores looked like, in a few kilobytes: how many, and which score only so many are above.

A sketch holds the records whose chance key is lowest (a uniform sample) and those whose score is highest, each at most
once. That makes merging a union of sets: doubled, late and parallel deliveries change nothing, which a sketch that counts
what it is shown (KLL, GK, t-digest) cannot promise. Ranks from the top, where budgets lie, are exact as far as the
highest scores reach.

Sources: Bar-Yossef et al. (2002), counting distinct elements by their lowest hashes; Cohen & Kaplan (2007), summarizing
data using bottom-k sketches; compared with Karnin, Lang & Liberty (2016), optimal quantile approximation in streams.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import blake2b

import numpy as np
import numpy.typing as npt

from winnow.errors import BadInput

Keys = npt.NDArray[np.float64]
Scores = npt.NDArray[np.float32]

FORMAT = 1
_HEADER = struct.Struct("<BdfI")
_BITS = 53
"""Bits a float64 in [0, 1) holds exactly."""


def chance(names: Sequence[str]) -> Keys:
    """A number in [0, 1) a name, by its digest: (n,) keys that know nothing of scores, roles or time.

    >>> chance(["a", "b"]).round(3)
    array([0.254, 0.517])
    """
    words = (blake2b(name.encode(), digest_size=8).digest() for name in names)
    whole = np.frombuffer(b"".join(words), dtype=">u8")
    return (whole >> np.uint64(64 - _BITS)).astype(np.float64) / float(1 << _BITS)


@dataclass(frozen=True)
class Cut:
    """Where a share of the mass begins: every score above `score`, and of those equal to it the `tied` lowest keys."""

    score: float
    tied: float

    def passes(self, scores: Scores, keys: Keys) -> npt.NDArray[np.bool_]:
        """(n,) which records are on the upper side."""
        passed: npt.NDArray[np.bool_] = (scores > self.score) | ((scores == self.score) & (keys < self.tied))
        return passed


@dataclass(frozen=True, eq=False)
class Sketch:
    """At most `sample + top` of the records shown, each under its key.

    Rank error: a rank from the top of at most `top` is exact; below, the share of records above a score has a standard
    error of sqrt(q (1 - q) / sample) at share q, so at most 0.5 / sqrt(sample): 1.6 % of the records at 1024. Merging
    keeps both. Keys must be uniform and say nothing of the scores (`chance`); order and ties of the scores do not matter.

    >>> day = Sketch.of(chance([str(n) for n in range(5000)]), np.arange(5000, dtype=np.float32))
    >>> day.cut(0.01).score, bool(abs(day.count / 5000 - 1) < 0.1), len(day.to_bytes())
    (4950.0, True, 22133)
    """

    keys: Keys
    """(s,) ascending, no two alike."""
    scores: Scores
    """(s,) higher = more worth labeling."""
    below: float
    """Every record whose key is below this is held."""
    above: float
    """Every record whose score is above this is held."""

    @classmethod
    def of(cls, keys: Keys, scores: Scores, *, sample: int = 1024, top: int = 1024) -> Sketch:
        """The sketch of n records; of those with one key the best counts. Raises BadInput for NaN."""
        if len(keys) != len(scores):
            raise BadInput(f"{len(keys)} keys but {len(scores)} scores", code="sketch-shape")
        unknown = np.flatnonzero(np.isnan(scores))
        if len(unknown):
            raise BadInput(f"score of row {unknown[0]} is NaN; score it again", code="nan-score")
        return _held(keys.astype(np.float64), scores.astype(np.float32), 1.0, -np.inf, sample, top)

    @property
    def count(self) -> float:
        """How many different records were shown: exact while they are few, else within 1 / sqrt(sample) (one standard error)."""
        return float(self._weights().sum())

    def cut(self, share: float) -> Cut:
        """Where the best `share` of the records begins. Raises BadInput when there are none."""
        return self.cut_at(share * self.count)

    def cut_at(self, records: float) -> Cut:
        """Where the best so many records begin. Raises BadInput when there are none."""
        if not len(self.keys):
            raise BadInput("an empty sketch has no quantiles; score records first", code="empty-sketch")
        order = np.argsort(-self.scores, kind="stable")
        mass = np.cumsum(self._weights()[order])
        score = self.scores[order[min(int(np.searchsorted(mass, records * (1.0 - 1e-9))), len(order) - 1)]]
        more = self._mass(self.scores > score)
        return Cut(float(score), float(np.clip((records - more) / self._mass(self.scores == score), 0.0, 1.0)))

    def share_above(self, score: float) -> float:
        """Share of the records whose score is higher."""
        return self._mass(self.scores > score) / self.count if len(self.keys) else 0.0

    def to_bytes(self) -> bytes:
        """Twelve bytes a record held, and a header."""
        header = _HEADER.pack(FORMAT, self.below, self.above, len(self.keys))
        return header + self.keys.astype("<f8").tobytes() + self.scores.astype("<f4").tobytes()

    @classmethod
    def from_bytes(cls, data: bytes) -> Sketch:
        """Raises BadInput for bytes that `to_bytes` did not write."""
        if len(data) < _HEADER.size or data[0] != FORMAT:
            raise BadInput(f"this is no sketch of format {FORMAT}: {data[:1]!r}", code="malformed-sketch")
        _, below, above, held = _HEADER.unpack_from(data)
        if len(data) != _HEADER.size + 12 * held:
            raise BadInput(f"a sketch of {held} records has {len(data)} bytes", code="malformed-sketch")
        keys = np.frombuffer(data, "<f8", held, _HEADER.size).astype(np.float64)
        scores = np.frombuffer(data, "<f4", held, _HEADER.size + 8 * held).astype(np.float32)
        return cls(keys, scores, below, above)

    def _weights(self) -> Keys:
        """How many records each one held stands for."""
        return np.where(self.scores > self.above, 1.0, 1.0 / self.below)

    def _mass(self, rows: npt.NDArray[np.bool_]) -> float:
        return float(self._weights()[rows].sum())


EMPTY = Sketch(np.empty(0), np.empty(0, dtype=np.float32), 1.0, -np.inf)


def merge(sketches: Sequence[Sketch], *, sample: int = 1024, top: int = 1024) -> Sketch:
    """The sketch of all records that any of them was shown; one shown to several counts once."""
    parts = [sketch for sketch in sketches if len(sketch.keys)]
    if not parts:
        return EMPTY
    return _held(
        np.concatenate([part.keys for part in parts]), np.concatenate([part.scores for part in parts]),
        min(part.below for part in parts), max(part.above for part in parts), sample, top,
    )  # fmt: skip


def _held(keys: Keys, scores: Scores, below: float, above: float, sample: int, top: int) -> Sketch:
    order = np.lexsort((-scores, keys))
    keys, scores = keys[order], scores[order]
    first = np.ones(len(keys), dtype=bool)
    first[1:] = keys[1:] != keys[:-1]
    keys, scores = keys[first], scores[first]
    low = keys[keys < below]
    if len(low) > sample:
        below = float(low[sample])
    high = scores[scores > above]
    if len(high) > top:
        above = float(np.partition(high, len(high) - top - 1)[len(high) - top - 1])
    held = (keys < below) | (scores > above)
    return Sketch(keys[held], scores[held], below, above)
