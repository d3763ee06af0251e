"""How each annotator works: agreement, speed, and whether the answers depend on the task at all."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from winnow.labels.answers import Answers, Codes
from winnow.labels.consensus import Consensus, peer_agreement
from winnow.labels.numbers import NumericAnswers, Values, agree
from winnow.labels.numeric_consensus import NumericConsensus


@dataclass(frozen=True)
class AnnotatorStatistics:
    """One annotator's answers in figures."""

    worker: str
    answers: int
    agreement: float
    """Share of answers equal to the consensus, 0..1; of numbers, those within the task's tolerance."""
    peer_agreement: float | None
    """Mean share of the *other* answers to the same task that were equal: own answers cannot raise it. None if alone."""
    spam: float | None
    """0 = answers follow the task perfectly, 1 = they have nothing to do with it. None where the tasks did not differ."""
    median_seconds: float | None
    """Time an answer took, None when unknown."""


@dataclass(frozen=True)
class NumericStatistics(AnnotatorStatistics):
    """The same of an annotator whose answers are numbers, with how far they lie from the consensus."""

    bias: float
    """Mean of answer minus consensus, in the target's unit: above 0 = answers too high."""
    spread: float
    """Standard deviation of the same around the bias, in the target's unit."""


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
    bias: float = 1.0
    """Numbers: a bias of this many times the median annotator's spread; who is off by more than people scatter has
    understood something else (another unit, another quantity)."""
    spread: float = 3.0
    """Numbers: a spread of this many times the median annotator's weighs a ninth of theirs in the consensus."""
    harmless_agreement: float = 0.9
    """Numbers: with this share within the tolerance a bias or a spread does no harm, however precise the others are."""


@dataclass(frozen=True)
class Suspect:
    """An annotator and why: any of `spam`, `agreement`, `speed`, of numbers also `bias` and `spread`."""

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
    times = _median_seconds(answers.worker, workers, seconds)
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


def numeric_statistics(
    answers: NumericAnswers,
    consensus: NumericConsensus,
    *,
    tolerance: float,
    seconds: npt.NDArray[np.floating] | None = None,
) -> tuple[NumericStatistics, ...]:
    """One record for each worker of `answers`, in their order; answers agree within `tolerance` (`numbers.agree`).

    `seconds` (answers,) is the time of each answer, NaN where unknown. The spam score is 1 minus the square of the rank
    correlation (Spearman's) between the worker's answers and the mean of the others' answers to the same tasks, 1 where
    it is negative: the share of what the others tell apart that these answers say nothing about.

    Source of the rank correlation: Spearman, The Proof and Measurement of Association between Two Things, 1904.

    >>> rows = [(t, w, 10.0 * n + (2.0 if w == "b" else 0.0)) for w in "ab" for n, t in enumerate("1234")]
    >>> rows += [(t, "s", 7.0) for t in "1234"]
    >>> answers = NumericAnswers.of(rows)
    >>> from winnow.labels.numeric_consensus import median
    >>> for one in numeric_statistics(answers, median(answers, tolerance=0.1), tolerance=0.1):
    ...     print(one.worker, one.agreement, round(one.peer_agreement, 2), round(one.spam, 2), one.bias, round(one.spread, 1))
    a 0.75 0.25 0.0 -0.5 0.9
    b 0.75 0.25 0.0 1.5 0.9
    s 0.0 0.0 1.0 -8.5 10.5
    """
    workers = len(answers.workers)
    n = np.bincount(answers.worker, minlength=workers)
    target = consensus.values[answers.task]
    off = answers.value - target
    near = agree(answers.value, target, tolerance=tolerance)
    agreed = np.bincount(answers.worker, weights=near, minlength=workers)
    bias = np.bincount(answers.worker, weights=off, minlength=workers) / n
    spread = np.sqrt(np.bincount(answers.worker, weights=(off - bias[answers.worker]) ** 2, minlength=workers) / n)
    peers = _near_peers(answers, tolerance)
    spam = _unrelated(answers)
    times = _median_seconds(answers.worker, workers, seconds)
    return tuple(
        NumericStatistics(
            worker=name,
            answers=int(n[code]),
            agreement=float(agreed[code] / n[code]),
            peer_agreement=peers[code],
            spam=spam[code],
            median_seconds=times[code],
            bias=float(bias[code]),
            spread=float(spread[code]),
        )
        for code, name in enumerate(answers.workers)
    )


def _near_peers(answers: NumericAnswers, tolerance: float) -> list[float | None]:
    """For each worker the mean share of the other answers to the same task that agree; None for who never had company."""
    order = np.argsort(answers.task, kind="stable")
    task, value = answers.task[order], answers.value[order]
    agreeing = np.zeros(len(order))
    given = answers.given()
    for apart in range(1, int(np.max(given, initial=1))):
        pairs = np.flatnonzero(task[apart:] == task[:-apart])
        near = agree(value[pairs], value[pairs + apart], tolerance=tolerance)
        agreeing[pairs] += near
        agreeing[pairs + apart] += near
    others = given[task] - 1
    accompanied = others > 0
    worker = answers.worker[order][accompanied]
    tasks = np.bincount(worker, minlength=len(answers.workers))
    shares = np.bincount(worker, weights=agreeing[accompanied] / others[accompanied], minlength=len(answers.workers))
    return [float(share / count) if count else None for share, count in zip(shares, tasks, strict=True)]


def _unrelated(answers: NumericAnswers) -> list[float | None]:
    """The spam score of each worker; None with fewer than three accompanied answers, or others who always said the same."""
    given = answers.given()
    sums = np.bincount(answers.task, weights=answers.value, minlength=len(given))
    accompanied = np.flatnonzero(given[answers.task] > 1)
    task = answers.task[accompanied]
    others = (sums[task] - answers.value[accompanied]) / (given[task] - 1)
    found: list[float | None] = []
    for code in range(len(answers.workers)):
        own = answers.worker[accompanied] == code
        one, other = _ranks(answers.value[accompanied][own]), _ranks(others[own])
        if len(one) < 3 or not other.any():
            found.append(None)
        elif not one.any():
            found.append(1.0)
        else:
            correlation = float(one @ other) / float(np.sqrt((one @ one) * (other @ other)))
            found.append(1.0 - max(0.0, correlation) ** 2)
    return found


def _ranks(values: Values) -> Values:
    """Ranks of values (n,) around 0; equal values share the mean of their ranks."""
    _, place, counts = np.unique(values, return_inverse=True, return_counts=True)
    ranks: Values = (np.cumsum(counts) - (counts + 1) / 2.0)[place] - (len(values) - 1) / 2.0
    return ranks


def _median_seconds(worker: Codes, workers: int, seconds: npt.NDArray[np.floating] | None) -> list[float | None]:
    found: list[float | None] = [None] * workers
    if seconds is None:
        return found
    order = np.argsort(worker, kind="stable")
    bounds = np.searchsorted(worker[order], np.arange(workers + 1))
    for code in range(workers):
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
    usual = _usual_spread(judged)
    found = []
    for one in judged:
        reasons = []
        if one.spam is not None and one.spam > rules.spam:
            reasons.append("spam")
        if floor is not None and one.peer_agreement is not None and one.peer_agreement < floor:
            reasons.append("agreement")
        if one.median_seconds is not None and one.median_seconds < rules.seconds:
            reasons.append("speed")
        if isinstance(one, NumericStatistics) and usual and one.agreement < rules.harmless_agreement:
            reasons += ["bias"] if abs(one.bias) > rules.bias * usual else []
            reasons += ["spread"] if one.spread > rules.spread * usual else []
        if reasons:
            found.append(Suspect(one.worker, tuple(reasons)))
    return tuple(found)


def _usual_spread(judged: Sequence[AnnotatorStatistics]) -> float | None:
    """The median annotator's spread; None where answers are no numbers."""
    spreads = [one.spread for one in judged if isinstance(one, NumericStatistics)]
    return float(np.median(spreads)) if spreads else None
