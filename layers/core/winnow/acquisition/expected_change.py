"""How far a label would move the model: the expected length of the gradient of its last layer."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from winnow.acquisition.strategy import Scores, Strategy

_BLOCK = 4096


def expected_gradient_length(probabilities: npt.NDArray[np.floating], embedding: npt.NDArray[np.floating]) -> Scores:
    """Expectation over the label of the length of the log loss' gradient by the weights of the last linear layer.

    For probabilities p (n, classes) = softmax of a linear layer over embedding x (n, dim), label c makes the gradient
    (p - e_c) x', so the expectation is |x| times the sum over c of p_c |p - e_c|: no label is tried, nothing is
    differentiated. 0 when sure; grows with the length of the embedding. Any NaN in a row makes its score NaN. The
    gradients are those that BADGE spreads over; their lengths alone ask for much the same many times.

    Source: Settles, Craven and Ray, Multiple-Instance Active Learning, 2008.

    >>> p, x = np.array([[0.5, 0.5], [1.0, 0.0]]), np.array([[1.0, 1.0], [1.0, 1.0]])
    >>> print(expected_gradient_length(p, x).round(4))
    [1. 0.]
    """
    n = len(probabilities)
    out = np.empty(n, dtype=np.float32)
    largest = float(np.finfo(np.float32).max)
    for start in range(0, n, _BLOCK):
        p = probabilities[start : start + _BLOCK].astype(np.float32, copy=False)
        x = embedding[start : start + _BLOCK].astype(np.float64)  # the square of a float32 need not be one
        others = np.einsum("ij,ij->i", p, p)[:, None] - p * p
        missing = np.float32(1.0) - p
        steps = np.sqrt(np.maximum(others, np.float32(0.0)) + missing * missing)
        lengths = np.sqrt(np.einsum("ij,ij->i", x, x))
        out[start : start + _BLOCK] = np.clip(lengths * np.einsum("ij,ij->i", p, steps), 0.0, largest)
    return out


EXPECTED_GRADIENT_LENGTH = Strategy(
    name="expected_gradient_length",
    score=lambda outputs, _rng: expected_gradient_length(outputs.probabilities, outputs.embedding),
    needs=frozenset({"probabilities", "embedding"}),
    source="Settles, Craven and Ray, 2008",
    sentence="Asks for records whose label, whichever it is, would move the model's last layer most.",
    cost="n x (classes + dim)",
)
