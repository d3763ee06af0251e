"""Whether a model's doubt tells where it is wrong: what asking about doubtful records stands on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

NORMAL_90 = 1.2816
"""Ninety per cent of a normal distribution lie below so many standard deviations."""


@dataclass(frozen=True)
class Doubt:
    """How well doubt told right from wrong on held-out labeled records.

    `auroc` is the probability that a wrong prediction was in more doubt than a right one: 0.5 says nothing, 1 all.
    """

    wrong: int
    right: int
    auroc: float | None

    @property
    def low(self) -> float | None:
        """Lower end of the one-sided 90 % interval of `auroc`; None when nothing was wrong, or nothing right.

        Source: Hanley and McNeil, The Meaning and Use of the Area under a ROC Curve, 1982.

        >>> round(Doubt(wrong=20, right=80, auroc=0.8).low, 3)
        0.72
        """
        if self.auroc is None:
            return None
        area, wrong, right = self.auroc, self.wrong, self.right
        first, second = area / (2 - area), 2 * area * area / (1 + area)
        variance = area * (1 - area) + (wrong - 1) * (first - area * area) + (right - 1) * (second - area * area)
        # Two perfect samples of one record each are no proof: an interval cannot be narrower than its size allows.
        variance = max(variance / (wrong * right), 0.25 / (wrong * right))
        return float(area - NORMAL_90 * variance**0.5)

    def figures(self) -> dict[str, float]:
        """As they stand among a model's metrics."""
        counts: dict[str, float] = {"cv_wrong": self.wrong, "cv_right": self.right}
        return counts if self.auroc is None else {**counts, "cv_doubt_auroc": round(self.auroc, 6)}

    @classmethod
    def of(cls, metrics: Mapping[str, Any]) -> Doubt | None:
        """What a model's metrics say; None when they say nothing of it (an imported model, or a regression)."""
        if "cv_wrong" not in metrics:
            return None
        return cls(int(metrics["cv_wrong"]), int(metrics["cv_right"]), metrics.get("cv_doubt_auroc"))


def doubt(probabilities: npt.NDArray[np.floating], labels: npt.NDArray[np.integer]) -> Doubt:
    """From calibrated probabilities (n, C) of records that the model had not learned from, and their labels (n,).

    >>> doubt(np.array([[0.9, 0.1], [0.55, 0.45], [0.2, 0.8]]), np.array([0, 1, 1]))
    Doubt(wrong=1, right=2, auroc=1.0)
    """
    wrong = probabilities.argmax(axis=1) != labels
    best = np.partition(probabilities, -2, axis=1)
    unsure = best[:, -2] - best[:, -1]
    return Doubt(int(wrong.sum()), int((~wrong).sum()), auroc(unsure[wrong], unsure[~wrong]))


def auroc(higher: npt.NDArray[np.floating], lower: npt.NDArray[np.floating]) -> float | None:
    """Probability that one of `higher` (n,) is above one of `lower` (m,), ties counted half; None where one is empty.

    Source: Mann and Whitney, On a Test of Whether one of Two Random Variables is Stochastically Larger than the Other, 1947.

    >>> auroc(np.array([0.9, 0.5]), np.array([0.5, 0.1]))
    0.875
    """
    if not len(higher) or not len(lower):
        return None
    ordered = np.sort(lower)
    below, upto = np.searchsorted(ordered, higher, "left"), np.searchsorted(ordered, higher, "right")
    return float((below + upto).mean() / (2 * len(lower)))
