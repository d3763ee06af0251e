"""Answers in columns: who said what about which task."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from winnow.errors import BadInput

Codes = npt.NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Answers:
    """N answers; row i says that `workers[worker[i]]` gave `tasks[task[i]]` the class `classes[label[i]]`."""

    task: Codes
    worker: Codes
    label: Codes
    tasks: tuple[str, ...]
    workers: tuple[str, ...]
    classes: tuple[str, ...]

    @classmethod
    def of(cls, rows: Iterable[tuple[str, str, str]], *, classes: Sequence[str]) -> Answers:
        """From (task, worker, label) triples; tasks and workers are numbered in sorted order.

        A worker who answers a task twice counts twice (backends do repeat). Raises BadInput for a label that is no class.

        >>> answers = Answers.of([("t1", "w2", "cat"), ("t1", "w1", "dog")], classes=["cat", "dog"])
        >>> answers.workers, answers.label.tolist()
        (('w1', 'w2'), [0, 1])
        """
        triples = list(rows)
        codes = {name: code for code, name in enumerate(classes)}
        tasks = sorted({task for task, _, _ in triples})
        workers = sorted({worker for _, worker, _ in triples})
        task_codes = {name: code for code, name in enumerate(tasks)}
        worker_codes = {name: code for code, name in enumerate(workers)}
        for task, worker, label in triples:
            if label not in codes:
                message = f"worker {worker} gave task {task} the label {label!r}, which is none of the classes"
                raise BadInput(message, code="unknown-label")
        return cls(
            task=np.array([task_codes[task] for task, _, _ in triples], dtype=np.int64),
            worker=np.array([worker_codes[worker] for _, worker, _ in triples], dtype=np.int64),
            label=np.array([codes[label] for _, _, label in triples], dtype=np.int64),
            tasks=tuple(tasks),
            workers=tuple(workers),
            classes=tuple(classes),
        )

    def counts(self) -> npt.NDArray[np.int64]:
        """Answers for each task and class, (tasks, classes)."""
        classes = len(self.classes)
        flat = np.bincount(self.task * classes + self.label, minlength=len(self.tasks) * classes)
        return flat.reshape(len(self.tasks), classes).astype(np.int64, copy=False)
