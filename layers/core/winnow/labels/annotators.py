"""How each annotator works: agreement, speed, and whether the answers depend on the task at all."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from winnow.labels.answers import Answers
from winnow.labels.consensus import Consensus, peer_agreement


@dataclass(frozen=True)
class AnnotatorStatistics:
    """One annotator's answers in figures."""

    worker: str
    answers: int
    agreement: float
    """Share of answers equal to the consensus, 0..1."""
    peer_agreement: float | None
    """Mean share of the *other* answers to the same task that were equal: own answers cannot raise it. None if alone."""
    spam: float | None
    """0 = answers follow the task perfectly, 1 = answers are the same whatever the task. None with one true class met."""
    median_seconds: float | None
    """Time an answer took, None when unknown."""


@dataclass(frozen=True)
class SuspectRules:
    """When an annotator's work is held for a second look, with the reasons."""

    minimum_answers: int = 20
    """Fewer answers cannot tell bad luck from bad work."""
    spam: float = 0.95
    """On two classes an annotator who is right six times in ten scores 0.96, one who is right seven times 0.84."""
    agreement_below_median: float = 0.2
    """Peer agreement this far under the median annotator's: hard tasks lower everybody's."""
    seconds: float = 1.0
    """Nobody reads a task faster."""


@dataclass(frozen=True)
class Suspect:
    """An annotator and why: any of `spam`, `agreement`, `speed`."""

    worker: str
    reasons: tuple[str, ...]


def statistics(
    answers: Answers,
    consensus: Consensus,
    *,
    seconds: npt.NDArray[np.floating] | None = None,
    smoothing: float = 0.5,
) -> tuple[AnnotatorStatistics, ...]:
    """One record for each worker of `answers`, in their order.

    `seconds` (answers,) is the time of each answer, NaN where unknown. The spam score is 1 minus half the mean squared
    distance between rows of the worker's confusion matrix against the consensus, over the classes the worker met:
    rows are equal when the answer does not depend on the true class. `smoothing` imaginary answers spread over each
    row draw small samples towards 1.

    Source of the spam score: Raykar and Yu, Eliminating Spammers and Ranking Annotators for Crowdsourced Labeling
    Tasks, 2012.

    >>> rows = [(t, w, label) for w in "ab" for t, label in zip("1234", "xyxy")] + [(t, "s", "x") for t in "1234"]
    >>> answers = Answers.of(rows, classes=["x", "y"])
    >>> from winnow.labels.consensus import majority_vote
    >>> for one in statistics(answers, majority_vote(answers), smoothing=0.01):
    ...     print(one.worker, one.answers, one.agreement, one.peer_agreement, round(one.spam, 2))
    a 4 1.0 0.75 0.01
    b 4 1.0 0.75 0.01
    s 4 0.5 0.5 1.0
    """
    workers, classes = len(answers.workers), len(answers.classes)
    n = np.bincount(answers.worker, minlength=workers)
    agreed = np.bincount(answers.worker, weights=consensus.labels[answers.task] == answers.label, minlength=workers)
    peers = peer_agreement(answers)
    cell = (answers.worker * classes + consensus.labels[answers.task]) * classes + answers.label
    confusion = np.bincount(cell, minlength=workers * classes**2).reshape(workers, classes, classes)
    times = _median_seconds(answers, seconds)
    return tuple(
        AnnotatorStatistics(
            worker=name,
            answers=int(n[code]),
            agreement=float(agreed[code] / n[code]),
            peer_agreement=None if np.isnan(peers[code]) else float(peers[code]),
            spam=_spam(confusion[code], smoothing),
            median_seconds=times[code],
        )
        for code, name in enumerate(answers.workers)
    )


def _spam(confusion: npt.NDArray[np.integer], smoothing: float) -> float | None:
    met = confusion[confusion.sum(axis=1) > 0] + smoothing / max(len(confusion), 1)
    rows = len(met)
    if rows < 2:
        return None
    shares = met / met.sum(axis=1, keepdims=True)
    # The sum over pairs of |a - b|^2 is rows x the sum of |a|^2 - |the sum of a|^2: no loop over pairs.
    spread = rows * float((shares**2).sum()) - float((shares.sum(axis=0) ** 2).sum())
    return 1.0 - spread / (rows * (rows - 1))


def _median_seconds(answers: Answers, seconds: npt.NDArray[np.floating] | None) -> list[float | None]:
    found: list[float | None] = [None] * len(answers.workers)
    if seconds is None:
        return found
    order = np.argsort(answers.worker, kind="stable")
    bounds = np.searchsorted(answers.worker[order], np.arange(len(answers.workers) + 1))
    for code in range(len(answers.workers)):
        times = seconds[order[bounds[code] : bounds[code + 1]]]
        known = times[~np.isnan(times)]
        found[code] = float(np.median(known)) if len(known) else None
    return found


def suspects(figures: Sequence[AnnotatorStatistics], *, rules: SuspectRules = SuspectRules()) -> tuple[Suspect, ...]:
    """Annotators whose work deserves a second look, with every reason, in the given order.

    >>> careful = [AnnotatorStatistics(name, 50, 0.9, 0.85, 0.3, 9.0) for name in "abc"]
    >>> suspects([*careful, AnnotatorStatistics("s", 50, 0.5, 0.5, 0.97, 0.4)])
    (Suspect(worker='s', reasons=('spam', 'agreement', 'speed')),)
    """
    judged = [one for one in figures if one.answers >= rules.minimum_answers]
    peers = [one.peer_agreement for one in judged if one.peer_agreement is not None]
    floor = float(np.median(peers)) - rules.agreement_below_median if peers else None
    found = []
    for one in judged:
        reasons = []
        if one.spam is not None and one.spam > rules.spam:
            reasons.append("spam")
        if floor is not None and one.peer_agreement is not None and one.peer_agreement < floor:
            reasons.append("agreement")
        if one.median_seconds is not None and one.median_seconds < rules.seconds:
            reasons.append("speed")
        if reasons:
            found.append(Suspect(one.worker, tuple(reasons)))
    return tuple(found)
