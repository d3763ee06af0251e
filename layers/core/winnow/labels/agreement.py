"""How far annotators agree, raw and beyond what chance would give.

Those about classes take counts (tasks, classes): how many annotators gave each task each class (`Answers.counts`). 1 is
full agreement; for the coefficients 0 is what chance gives. None where the answers say nothing about it: no task with two
answers, or nobody ever used a second class or another number.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from winnow.errors import BadInput
from winnow.labels.numbers import NumericAnswers

Counts = npt.NDArray[np.int64]


def percent_agreement(counts: Counts) -> float | None:
    """Share of agreeing pairs of answers, averaged over tasks with two answers or more.

    >>> percent_agreement(np.array([[3, 0], [2, 1]])).__round__(4)
    0.6667
    """
    n = counts.sum(axis=1).astype(np.float64)
    pairs = n * (n - 1)
    judged = pairs > 0
    if not judged.any():
        return None
    agreeing = (counts * (counts - 1)).sum(axis=1)
    return float((agreeing[judged] / pairs[judged]).mean())


def cohen_kappa(one: npt.NDArray[np.integer], other: npt.NDArray[np.integer], *, classes: int) -> float | None:
    """Agreement of two annotators' labels (n,) of the same tasks beyond chance.

    Source: Cohen, A Coefficient of Agreement for Nominal Scales, 1960.

    >>> cohen_kappa(np.array([0, 0, 1, 1]), np.array([0, 1, 1, 1]), classes=2)
    0.5
    """
    if len(one) != len(other):
        raise BadInput(f"two annotators must label the same tasks, not {len(one)} and {len(other)}", code="pairing")
    if not len(one):
        return None
    observed = float((one == other).mean())
    shares = [np.bincount(labels, minlength=classes) / len(one) for labels in (one, other)]
    expected = float(shares[0] @ shares[1])
    return None if expected == 1.0 else (observed - expected) / (1.0 - expected)


def fleiss_kappa(counts: Counts) -> float | None:
    """Agreement beyond chance where every task has the same number of answers; raises BadInput where it has not.

    Source: Fleiss, Measuring Nominal Scale Agreement Among Many Raters, 1971.

    >>> fleiss_kappa(np.array([[3, 0], [0, 3], [3, 0]]))
    1.0
    """
    n = counts.sum(axis=1)
    if not len(n):
        return None
    if (n != n[0]).any():
        raise BadInput("Fleiss' kappa needs equally many answers a task; use krippendorff_alpha", code="ragged-answers")
    observed = percent_agreement(counts)
    expected = float(((counts.sum(axis=0) / counts.sum()) ** 2).sum()) if counts.sum() else 1.0
    if observed is None or expected == 1.0:
        return None
    return (observed - expected) / (1.0 - expected)


def krippendorff_alpha(counts: Counts) -> float | None:
    """Agreement beyond chance for nominal labels, whatever number of answers each task has.

    Source: Krippendorff, Computing Krippendorff's Alpha-Reliability, 2011.

    >>> round(krippendorff_alpha(np.array([[2, 0], [0, 2], [1, 1]])), 4)
    0.4444
    """
    paired = counts[counts.sum(axis=1) >= 2].astype(np.float64)
    if not len(paired):
        return None
    n = paired.sum(axis=1)
    totals = paired.sum(axis=0)
    observed = float(((n**2 - (paired**2).sum(axis=1)) / (n - 1)).sum())
    expected = float((n.sum() ** 2 - (totals**2).sum()) / (n.sum() - 1))
    return None if expected == 0.0 else 1.0 - observed / expected


def interval_alpha(answers: NumericAnswers) -> float | None:
    """Krippendorff's alpha for numbers: differences count by their square, whatever number of answers each task has.

    Source: Krippendorff, Computing Krippendorff's Alpha-Reliability, 2011, the interval metric.

    >>> rows = [("t1", "a", 1.0), ("t1", "b", 1.0), ("t2", "a", 3.0), ("t2", "b", 3.0), ("t3", "a", 1.0), ("t3", "b", 3.0)]
    >>> round(interval_alpha(NumericAnswers.of(rows)), 4)
    0.4444
    """
    given = answers.given()
    paired = given[answers.task] >= 2
    n = int(paired.sum())
    if not n:
        return None
    task, value = answers.task[paired], answers.value[paired] - answers.value[paired].mean()
    sums = np.bincount(task, weights=value, minlength=len(given))
    squares = np.bincount(task, weights=value**2, minlength=len(given))
    judged = given >= 2
    # The sum over pairs of (a - b)^2 is n x the sum of squares - the square of the sum: no loop over pairs.
    pairs = given * squares - sums**2
    observed = float((pairs[judged] / (given[judged] - 1)).sum()) / n
    expected = float(n * squares[judged].sum() - sums[judged].sum() ** 2) / (n * (n - 1))
    return None if expected == 0.0 else 1.0 - observed / expected
