"""Invented pools: embeddings as sentences have them, a plain cloud, and copies; probabilities that go with them."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]

_CHUNK = 65_536
_TOPICS, _SHARED = 300, 20


def clustered(rows: int, dim: int, *, rng: np.random.Generator) -> Floats:
    """Unit vectors of 300 topics, few of them common, that vary in 20 directions they share: like a text encoder's."""
    topics = rng.standard_normal((_TOPICS, dim), dtype=np.float32)
    common = 1.0 / np.arange(1, _TOPICS + 1)
    topic = rng.choice(_TOPICS, rows, p=common / common.sum())
    directions = rng.standard_normal((_SHARED, dim), dtype=np.float32)
    points = np.empty((rows, dim), dtype=np.float32)
    for start in range(0, rows, _CHUNK):
        some = topic[start : start + _CHUNK]
        block = 0.3 * rng.standard_normal((len(some), dim), dtype=np.float32)
        block += topics[some]
        block += 0.5 * rng.standard_normal((len(some), _SHARED), dtype=np.float32) @ directions
        block /= np.linalg.norm(block, axis=1, keepdims=True)
        points[start : start + _CHUNK] = block
    return points


def cloud(rows: int, dim: int, *, rng: np.random.Generator) -> Floats:
    """One Gaussian cloud: no structure to profit from."""
    return rng.standard_normal((rows, dim), dtype=np.float32)


def copies(rows: int, dim: int, *, rng: np.random.Generator) -> Floats:
    """Every record three times, in random order."""
    once = clustered(-(-rows // 3), dim, rng=rng)
    return once[rng.permutation(3 * len(once))[:rows] % len(once)]


def probabilities(points: Floats, classes: int, *, rng: np.random.Generator) -> Floats:
    """(n, classes) of a linear head: some records sure, some torn."""
    sharpness = 4 / np.sqrt((points[:1000] ** 2).sum(axis=1).mean())
    weights = (sharpness * rng.standard_normal((points.shape[1], classes))).astype(np.float32)
    said = np.empty((len(points), classes), dtype=np.float32)
    for start in range(0, len(points), _CHUNK):
        logits = points[start : start + _CHUNK] @ weights
        logits -= logits.max(axis=1, keepdims=True)
        np.exp(logits, out=logits)
        said[start : start + _CHUNK] = logits / logits.sum(axis=1, keepdims=True)
    return said
