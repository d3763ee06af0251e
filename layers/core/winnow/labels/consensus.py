"""One label out of several answers: majority vote, and Dawid and Skene's model of who errs how."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from winnow.errors import ConfigError
from winnow.labels.answers import Answers, Codes

Shares = npt.NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Consensus:
    """One label a task: `labels` (tasks,) index the classes, `confidence` (tasks,) in 0..1, higher = surer."""

    labels: Codes
    confidence: Shares


def majority_vote(answers: Answers) -> Consensus:
    """The commonest answer to each task; the confidence is its share of the answers.

    A tie goes to the side whose workers agree more with others over all tasks, then to the class listed first. A task
    without answers gets class 0 with confidence 0.

    >>> rows = [("t1", "a", "cat"), ("t1", "b", "dog"), ("t2", "a", "cat"), ("t2", "b", "dog"), ("t2", "c", "dog")]
    >>> vote = majority_vote(Answers.of(rows, classes=["cat", "dog"]))
    >>> vote.labels.tolist(), vote.confidence.round(2).tolist()
    ([1, 1], [0.5, 0.67])
    """
    counts = answers.counts()
    given = counts.sum(axis=1)
    cell = answers.task * len(answers.classes) + answers.label
    standing = peer_agreement(answers)
    weights = np.bincount(cell, weights=np.nan_to_num(standing)[answers.worker], minlength=counts.size)
    # A worker's standing is at most 1, so that divided by more than the answers it decides nothing but ties.
    ranking = counts + weights.reshape(counts.shape) / (np.max(given, initial=0) + 1.0)
    labels = ranking.argmax(axis=1).astype(np.int64, copy=False)
    return Consensus(labels, counts[np.arange(len(counts)), labels] / np.maximum(given, 1))


def peer_agreement(answers: Answers) -> Shares:
    """(workers,) mean share of the *other* answers to the same task that were equal; NaN for who never had company.

    >>> rows = [("t1", "a", "cat"), ("t1", "b", "cat"), ("t1", "c", "dog"), ("t2", "d", "dog")]
    >>> peer_agreement(Answers.of(rows, classes=["cat", "dog"])).tolist()
    [0.5, 0.5, 0.0, nan]
    """
    counts = answers.counts()
    others = counts.sum(axis=1)[answers.task] - 1
    same = counts[answers.task, answers.label] - 1
    workers = len(answers.workers)
    accompanied = others > 0
    tasks = np.bincount(answers.worker[accompanied], minlength=workers)
    shares = np.bincount(
        answers.worker[accompanied], weights=same[accompanied] / others[accompanied], minlength=workers
    )
    found: Shares = np.full(workers, np.nan)
    np.divide(shares, tasks, out=found, where=tasks > 0)
    return found


@dataclass(frozen=True, eq=False)
class DawidSkene:
    """What the model makes of the answers."""

    posteriors: Shares
    """(tasks, classes), rows sum to 1."""
    confusion: Shares
    """(workers, true class, given class), last axis sums to 1."""
    prior: Shares
    """(classes,), how common each true class is."""
    rounds: int
    """EM rounds run."""
    converged: bool
    """False when the last round still moved a posterior by more than the tolerance."""

    def consensus(self) -> Consensus:
        """The most probable class of each task with its probability."""
        labels = self.posteriors.argmax(axis=1).astype(np.int64, copy=False)
        return Consensus(labels, self.posteriors[np.arange(len(labels)), labels])


def dawid_skene(
    answers: Answers, *, smoothing: float = 0.01, max_rounds: int = 100, tolerance: float = 1e-4
) -> DawidSkene:
    """True classes, each worker's confusion matrix and the class prior, by expectation maximisation from vote shares.

    `smoothing` is added to every cell of every confusion matrix and to every class of the prior (a Dirichlet prior), so
    that nothing anybody could answer is impossible. Stops when no posterior moved by more than `tolerance`. Best with
    ten answers or more a worker; with fewer a full matrix overfits and majority vote is the better choice.

    Raises ConfigError for a smoothing that is not above 0 or no rounds at all.

    Source: Dawid and Skene, Maximum Likelihood Estimation of Observer Error-Rates Using the EM Algorithm, 1979.

    >>> rows = [(t, w, label) for w in "ab" for t, label in zip("1234", ["x", "y", "x", "y"])]
    >>> rows += [(t, "spammer", "x") for t in "1234"]
    >>> fitted = dawid_skene(Answers.of(rows, classes=["x", "y"]))
    >>> fitted.consensus().labels.tolist(), fitted.confusion[2].round(1).tolist()
    ([0, 1, 0, 1], [[1.0, 0.0], [1.0, 0.0]])
    """
    if smoothing <= 0.0 or max_rounds < 1:
        raise ConfigError(f"smoothing {smoothing} must be above 0 and max_rounds {max_rounds} at least 1")
    tasks, workers, classes = len(answers.tasks), len(answers.workers), len(answers.classes)
    by_task = np.argsort(answers.task, kind="stable")
    task = answers.task[by_task]
    cell = (answers.worker * classes + answers.label)[by_task]
    task_starts = _starts(task)
    by_cell = np.argsort(cell, kind="stable")
    cell_starts = _starts(cell[by_cell])
    answered, cells = task[task_starts], cell[by_cell][cell_starts]
    task_by_cell = task[by_cell]

    # float32: an EM round only moves memory, and half of it takes a third of the time for the same labels.
    posteriors = (answers.counts() + 1e-12).astype(np.float32)
    posteriors /= posteriors.sum(axis=1, keepdims=True)
    given_by_true = np.empty((workers * classes, classes), dtype=np.float32)
    converged, rounds = False, 0
    while rounds < max_rounds and not converged:
        rounds += 1
        # Rows are (worker, given class): every answer adds its task's posterior, summed by one sorted reduction.
        given_by_true[:] = smoothing
        if len(cells):
            given_by_true[cells] += np.add.reduceat(np.take(posteriors, task_by_cell, axis=0), cell_starts, axis=0)
        by_worker = given_by_true.reshape(workers, classes, classes)
        by_worker /= by_worker.sum(axis=1, keepdims=True)
        prior = posteriors.sum(axis=0, dtype=np.float64) + smoothing
        prior /= prior.sum()
        evidence = np.tile(np.log(prior).astype(np.float32), (tasks, 1))
        if len(cells):
            evidence[answered] += np.add.reduceat(np.take(np.log(given_by_true), cell, axis=0), task_starts, axis=0)
        evidence -= evidence.max(axis=1, keepdims=True)
        np.exp(evidence, out=evidence)
        evidence /= evidence.sum(axis=1, keepdims=True)
        converged = not tasks or float(np.abs(evidence - posteriors).max()) <= tolerance
        posteriors = evidence
    confusion = by_worker.transpose(0, 2, 1).astype(np.float64)
    return DawidSkene(posteriors.astype(np.float64), confusion, prior, rounds, converged)


def _starts(ordered: Codes) -> Codes:
    """Where each run of equal values in a sorted array begins."""
    return np.flatnonzero(np.diff(ordered, prepend=-1)).astype(np.int64, copy=False)
