"""Simulated annotators: who answers which task, when, and how wrongly. The only module that ever sees the truth.

An annotator is a confusion matrix (rows = true class, columns = answered class), a pace and, for a drill, a way of
spamming. Answers come from a digest of crowd seed, worker and task, so they do not depend on the order of anything.
"""

from __future__ import annotations

import hashlib
import io
import json
import threading
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from PIL import Image

Task = Mapping[str, object]


@dataclass(frozen=True)
class Annotator:
    """One worker. `seconds_per_item` is the median of a lognormal with sigma `spread`; `availability` the share of
    offered tasks the worker takes. Shifts are not modelled: a worker works around the clock."""

    worker_id: str
    confusion: tuple[tuple[float, ...], ...]
    seconds_per_item: float = 20.0
    spread: float = 0.4
    spam: Literal["none", "uniform", "constant"] = "none"
    availability: float = 1.0

    def __post_init__(self) -> None:
        if any(len(row) != len(self.confusion) or abs(sum(row) - 1) > 1e-6 or min(row) < 0 for row in self.confusion):
            raise ValueError(f"{self.worker_id}: a confusion matrix is square and its rows are distributions")
        if self.seconds_per_item <= 0 or not 0 < self.availability <= 1:
            raise ValueError(f"{self.worker_id}: seconds_per_item > 0 and 0 < availability <= 1 are needed")

    @classmethod
    def skilled(cls, worker_id: str, *, accuracy: float, classes: int, **traits: object) -> Annotator:
        """A worker right with probability `accuracy` whose errors fall on the other classes alike."""
        slip = (1 - accuracy) / max(1, classes - 1)
        rows = tuple(tuple(accuracy if i == j else slip for j in range(classes)) for i in range(classes))
        return cls(worker_id, rows if classes > 1 else ((1.0,),), **traits)  # type: ignore[arg-type]

    def answer(self, true_class: int, *, rng: np.random.Generator) -> int:
        """The index of the class this worker gives to a task whose true class is `true_class`."""
        if self.spam == "constant":
            return int(_digest(self.worker_id)[:8], 16) % len(self.confusion)
        if self.spam == "uniform":
            return int(rng.integers(len(self.confusion)))
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

    def __init__(
        self, annotators: Iterable[Annotator], truth: Callable[[Task], str], *, classes: Sequence[str], seed: int = 0
    ):
        self.classes, self._truth, self._seed = tuple(classes), truth, seed
        self._lock, self._free_at = threading.Lock(), dict[str, float]()
        self.replace(annotators)

    def replace(self, annotators: Iterable[Annotator]) -> None:
        """From the next job on these people answer: how a drill brings spammers in, and gets rid of them."""
        chosen = tuple(annotators)
        if len({person.worker_id for person in chosen}) != len(chosen):
            raise ValueError("worker ids repeat")
        if any(len(person.confusion) != len(self.classes) for person in chosen):
            raise ValueError(f"every confusion matrix must cover the {len(self.classes)} classes")
        self.annotators = chosen

    def work(self, task: Task, *, workers: int, start: float, time_limit: float) -> list[Answer]:
        """The answers of the first `workers` people who get free and take the task, in order of submission.

        An answer that takes longer than `time_limit` seconds is lost, as a task is when its time runs out.
        """
        content = json.dumps(task, sort_keys=True, default=str)
        true_class, answers = self.classes.index(self._truth(task)), list[Answer]()
        with self._lock:
            free = {person.worker_id: max(start, self._free_at.get(person.worker_id, start)) for person in self.annotators}
            for person in sorted(self.annotators, key=lambda one: (free[one.worker_id], _digest(one.worker_id, content))):
                rng = np.random.default_rng(int(_digest(str(self._seed), person.worker_id, content)[:16], 16))
                if len(answers) == workers:
                    break
                if rng.random() >= person.availability:
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

    `pairs` are (text or encoded image as people see it, class); `read` fetches an `s3://` URI, as their browser would.
    """

    def __init__(self, pairs: Iterable[tuple[str | bytes, str]], *, read: Callable[[str], bytes] | None = None) -> None:
        self._truth = {(text_key(p) if isinstance(p, str) else image_key(p)): label for p, label in pairs}
        self._read, self._by_uri = read, dict[str, str]()

    def __call__(self, task: Task) -> str:
        """The true class of the task; LookupError when nothing the worker sees is known."""
        for text in _strings(task):
            key = self._image(text) if text.startswith("s3://") and self._read else text_key(text)
            if key in self._truth:
                return self._truth[key]
        raise LookupError(f"no truth is known for the task {json.dumps(task, default=str)[:200]}")

    def _image(self, uri: str) -> str:
        if uri not in self._by_uri and self._read:
            self._by_uri[uri] = image_key(self._read(uri))
        return self._by_uri[uri]


def text_key(text: str) -> str:
    """Digest of a text, whatever its Unicode form, case and white space."""
    return _digest(" ".join(unicodedata.normalize("NFC", text).casefold().split()))


def image_key(encoded: bytes) -> str:
    """Digest of an image's size and RGB pixels, so that a re-encoded copy has the same key."""
    with Image.open(io.BytesIO(encoded)) as image:
        pixels = image.convert("RGB")
        return hashlib.sha256(repr(pixels.size).encode() + pixels.tobytes()).hexdigest()


def _strings(value: object) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for item in value.values():
            yield from _strings(item)
    elif isinstance(value, list | tuple):
        for item in value:
            yield from _strings(item)


def _digest(*parts: str) -> str:
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()
