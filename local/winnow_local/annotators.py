"""Simulated annotators: who answers which task, when, and how wrongly. The only module that ever sees the truth.

An annotator is a confusion matrix (rows = true class, columns = answered class) and a pace; a spammer is a matrix too.
Answers come from a digest of crowd seed, worker and task, so they do not depend on the order of anything.
"""

from __future__ import annotations

import hashlib
import io
import json
import threading
import unicodedata
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image

Task = Mapping[str, object]
Truth = Callable[[Task], str]


@dataclass(frozen=True)
class Annotator:
    """One worker. `seconds_per_item` is the median of a lognormal with sigma `spread`; `availability` the share of
    offered tasks the worker takes. Shifts are not modelled: a worker works around the clock."""

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

    def answer(self, true_class: int, *, rng: np.random.Generator) -> int:
        """The index of the class this worker gives to a task whose true class is `true_class`."""
        return int(rng.choice(len(self.confusion), p=self.confusion[true_class]))


@dataclass(frozen=True)
class Answer:
    """One worker's label; times are virtual seconds since the epoch."""

    worker_id: str
    label: str
    accepted_at: float
    submitted_at: float


class Crowd:
    """The people of one work team. `truth` gets what the worker sees (the task input) and gives the true class."""

    def __init__(self, people: Sequence[Annotator], truth: Truth, *, classes: Sequence[str], seed: int = 0) -> None:
        self.people, self.classes, self._truth, self._seed = people, tuple(classes), truth, seed
        self._lock, self._free_at = threading.Lock(), dict[str, float]()

    def replace(self, people: Sequence[Annotator]) -> None:
        """From the next job on these people answer: how a drill brings spammers in, and gets rid of them."""
        self.people = people

    def work(self, task: Task, *, workers: int, start: float, time_limit: float) -> list[Answer]:
        """The answers of the first `workers` people who get free and take the task, in order of submission.

        An answer that takes longer than `time_limit` seconds is lost, as a task is when its time runs out.
        """
        content = json.dumps(task, sort_keys=True)
        true_class, answers = self.classes.index(self._truth(task)), list[Answer]()
        with self._lock:
            free = {person.worker_id: max(start, self._free_at.get(person.worker_id, start)) for person in self.people}
            for person in sorted(self.people, key=lambda one: (free[one.worker_id], _digest(one.worker_id, content))):
                rng = np.random.default_rng(int(_digest(str(self._seed), person.worker_id, content)[:16], 16))
                if len(answers) == workers or rng.random() >= person.availability:
                    continue
                label = self.classes[person.answer(true_class, rng=rng)]
                seconds = float(person.seconds_per_item * np.exp(person.spread * rng.standard_normal()))
                begun = free[person.worker_id]
                self._free_at[person.worker_id] = begun + min(seconds, time_limit)
                if seconds <= time_limit:
                    answers.append(Answer(person.worker_id, label, begun, begun + seconds))
        return sorted(answers, key=lambda answer: answer.submitted_at)


class TruthOracle:
    """Finds the true class by content: by the normalised text, or by the pixels of an image, in what the worker sees.
    `pairs` are (text or encoded image as people see it, class); `read` fetches an `s3://` URI, as their browser would."""

    def __init__(self, pairs: Iterable[tuple[str | bytes, str]], *, read: Callable[[str], bytes] | None = None) -> None:
        self._truth, self._read = {_key(payload): label for payload, label in pairs}, read

    def __call__(self, task: Task) -> str:
        """The true class of the task; LookupError when nothing the worker sees is known."""
        for seen in (value for value in task.values() if isinstance(value, str)):
            key = _key(self._read(seen) if self._read and seen.startswith("s3://") else seen)
            if key in self._truth:
                return self._truth[key]
        raise LookupError(f"no truth is known for the task {json.dumps(task)[:200]}")


def _key(payload: str | bytes) -> str:
    """Digest of a text whatever its case and white space, or of an image's pixels whatever its encoding."""
    if isinstance(payload, str):
        return _digest(" ".join(unicodedata.normalize("NFC", payload).casefold().split()))
    with Image.open(io.BytesIO(payload)) as image:
        pixels = image.convert("RGB")
        return hashlib.sha256(repr(pixels.size).encode() + pixels.tobytes()).hexdigest()


def _digest(*parts: str) -> str:
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()
