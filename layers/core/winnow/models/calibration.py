"""Temperature scaling: one number that makes a classifier's confidence mean what it says.

Guo, Pleiss, Sun, Weinberger, "On Calibration of Modern Neural Networks", ICML 2017.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

LOWEST, HIGHEST = 0.05, 20.0
"""Temperatures searched; outside of them a model is unusable rather than badly calibrated."""

_GOLDEN = (5.0**0.5 - 1.0) / 2.0


def softmax(logits: npt.ArrayLike, *, temperature: float = 1.0) -> npt.NDArray[np.float64]:
    """Probabilities (..., C) of logits (..., C) divided by `temperature`; rows sum to 1.

    >>> softmax([[0.0, 0.0]]).tolist()
    [[0.5, 0.5]]
    """
    scaled = np.asarray(logits, dtype=np.float64) / temperature
    scaled = np.exp(scaled - scaled.max(axis=-1, keepdims=True))
    out: npt.NDArray[np.float64] = scaled / scaled.sum(axis=-1, keepdims=True)
    return out


def nll(logits: npt.ArrayLike, labels: npt.ArrayLike, *, temperature: float = 1.0) -> float:
    """Mean negative log-likelihood (nats) of labels (n,) under logits (n, C) at `temperature`.

    >>> round(nll([[0.0, 0.0]], [1]), 6)
    0.693147
    """
    scaled = np.asarray(logits, dtype=np.float64) / temperature
    index = np.asarray(labels, dtype=np.int64)
    top = scaled.max(axis=1, keepdims=True)
    total = np.log(np.exp(scaled - top).sum(axis=1)) + top[:, 0]
    return float(np.mean(total - scaled[np.arange(len(index)), index]))


def fit_temperature(logits: npt.ArrayLike, labels: npt.ArrayLike) -> float:
    """The temperature in 0.05..20 that minimises `nll` of held-out logits (n, C); 1.0 when there are none.

    The loss has one minimum in 1 / temperature, so a golden-section search over its logarithm finds it. When every
    held-out record is right, the best temperature would be 0; the search stops at the lower end, and one imaginary
    record that is wrong (Laplace's rule) keeps small samples from claiming certainty.

    >>> fit_temperature(np.zeros((0, 3)), [])
    1.0
    >>> fit_temperature([[4.0, 0.0], [4.0, 0.0], [0.0, 4.0]], [0, 1, 1]) > 1.0
    True
    """
    scores = np.asarray(logits, dtype=np.float64)
    index = np.asarray(labels, dtype=np.int64)
    if len(index) == 0:
        return 1.0
    imaginary = np.sort(scores, axis=1)[:, ::-1].mean(axis=0)
    scores = np.vstack([scores, imaginary])
    index = np.append(index, 1)
    low, high = float(np.log(LOWEST)), float(np.log(HIGHEST))
    left, right = high - _GOLDEN * (high - low), low + _GOLDEN * (high - low)
    left_loss = nll(scores, index, temperature=float(np.exp(left)))
    right_loss = nll(scores, index, temperature=float(np.exp(right)))
    while high - low > 1e-4:
        if left_loss <= right_loss:
            high, right, right_loss = right, left, left_loss
            left = high - _GOLDEN * (high - low)
            left_loss = nll(scores, index, temperature=float(np.exp(left)))
        else:
            low, left, left_loss = left, right, right_loss
            right = low + _GOLDEN * (high - low)
            right_loss = nll(scores, index, temperature=float(np.exp(right)))
    return round(float(np.exp((low + high) / 2.0)), 4)
