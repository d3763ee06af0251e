"""Simulated annotators: who answers which task, when, and how wrongly. The truth is theirs alone: a crowd is given it.

An annotator is a confusion matrix (rows = true class, columns = answered class) and a pace; a spammer is a matrix too.
Where answers are no classes, a kind of Annotator with an `answer` of its own gives them.
Answers come from a digest of crowd seed, worker and task, so they do not depend on the order of anything.
"""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

Task = Mapping[str, object]
Truth = Callable[[Task], str]


@dataclass(frozen=True)
class Annotator:
    """One worker, around the clock: lognormal seconds (their median, sigma `spread`), and the share of offered tasks taken."""

    worker_id: str
    confusion: tuple[tuple[float, ...], ...]
    seconds_per_item: float = 20.0
    spread: float = 0.4
    availability: float = 1.0

    @classmethod
    def skilled(cls, worker_id: str, *, accuracy: float, classes: int, **traits: float) -> Annotator:
        """A worker right with probability `accuracy` whose errors fall on the other classes alike."""
        slip = (1 - accuracy) / (classes - 1)
        rows = tuple(tuple(accuracy if i == j else slip for j in range(classes)) for i in range(classes))
        return cls(worker_id, rows, **traits)

    def answer(self, truth: str, classes: Sequence[str], rng: np.random.Generator) -> str:
        """What the worker says where `truth` would be right."""
        return classes[rng.choice(len(classes), p=self.confusion[classes.index(truth)])]


@dataclass(frozen=True)
class Answer:
    """One worker's label; times are virtual seconds since the epoch."""

    worker_id: str
    label: str
    accepted_at: float
    submitted_at: float


class Crowd:
    """The people of one work team, who may be exchanged: from the next job on the new `people` answer, in a drill spammers.

    `truth` gets what the worker sees (the task input) and gives the right answer.
    """

    def __init__(self, people: Sequence[Annotator], truth: Truth, *, classes: Sequence[str], seed: int = 0) -> None:
        self.people, self.classes, self._truth, self._seed = people, tuple(classes), truth, seed
        self._lock, self._free_at = threading.Lock(), dict[str, float]()

    def work(self, task: Task, *, workers: int, start: float, time_limit: float) -> list[Answer]:
        """The answers of the first `workers` people who get free and take the task, in order of submission.
        One that takes longer than `time_limit` seconds is lost, as a task is when its time runs out."""
        content = json.dumps(task, sort_keys=True)
        truth, answers = self._truth(task), list[Answer]()
        with self._lock:
            free = {person.worker_id: max(start, self._free_at.get(person.worker_id, start)) for person in self.people}
            for person in sorted(self.people, key=lambda one: (free[one.worker_id], _digest(one.worker_id, content))):
                rng = np.random.default_rng(int(_digest(str(self._seed), person.worker_id, content)[:16], 16))
                if len(answers) == workers or rng.random() >= person.availability:
                    continue
                label = person.answer(truth, self.classes, rng)
                seconds = float(person.seconds_per_item * np.exp(person.spread * rng.standard_normal()))
                begun = free[person.worker_id]
                self._free_at[person.worker_id] = begun + min(seconds, time_limit)
                if seconds <= time_limit:
                    answers.append(Answer(person.worker_id, label, begun, begun + seconds))
        return sorted(answers, key=lambda answer: answer.submitted_at)


def _digest(*parts: str) -> str:
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()
