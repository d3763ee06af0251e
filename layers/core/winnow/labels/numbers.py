"""Answers that are numbers: what a person may write, who said what about which task, and when two of them agree."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from winnow.errors import BadInput
from winnow.labels.answers import Codes

Values = npt.NDArray[np.float64]

LARGEST = 1e18
"""Models compute in single precision, which still holds the square of this."""

_PLAIN = re.compile(r"[+-]?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][+-]?[0-9]+)?")
_SHOWN = 40


def number(answer: Any, *, minimum: float | None = None, maximum: float | None = None) -> float:
    """The number that an answer gives, whole and plain: digits, and a point before the fraction.

    Nothing is guessed: `1,234` is a thousand to some and a little more than one to others. Raises BadInput with the
    reason (code `no-number` or `out-of-range`).

    >>> number(" 12 "), number("-1.5e3"), number(7)
    (12.0, -1500.0, 7.0)
    >>> number("1,234.5")
    Traceback (most recent call last):
    ...
    winnow.errors.BadInput: '1,234.5' is no plain number; write digits, with a point before the fraction, like 1234.5
    """
    if answer is None or (isinstance(answer, str) and not answer.strip()):
        raise BadInput("nothing was answered", code="no-number")
    if isinstance(answer, bool) or not isinstance(answer, str | int | float):
        raise BadInput(f"an answer of type {type(answer).__name__} is no number", code="no-number")
    if isinstance(answer, str) and not _PLAIN.fullmatch(answer.strip()):
        raise BadInput(
            f"{answer[:_SHOWN]!r} is no plain number; write digits, with a point before the fraction, like 1234.5",
            code="no-number",
        )
    try:
        value = float(answer) + 0.0  # there is one zero
    except OverflowError:
        value = math.inf
    if not abs(value) <= LARGEST:
        raise BadInput(
            f"{str(answer)[:_SHOWN]} is no number that can be learned; it must be within {LARGEST:g}", code="no-number"
        )
    if minimum is not None and value < minimum:
        raise BadInput(f"{value:g} is below task.minimum ({minimum:g})", code="out-of-range")
    if maximum is not None and value > maximum:
        raise BadInput(f"{value:g} is above task.maximum ({maximum:g})", code="out-of-range")
    return value


def agree(one: npt.ArrayLike, other: npt.ArrayLike, *, tolerance: float) -> npt.NDArray[np.bool_]:
    """True where two numbers differ by at most `tolerance` of the larger one's magnitude, so two zeros always agree.

    >>> agree([90.0, 89.0, 0.0, -5.0], [100.0, 100.0, 0.0, 5.0], tolerance=0.1).tolist()
    [True, False, True, False]
    """
    a, b = np.asarray(one, dtype=np.float64), np.asarray(other, dtype=np.float64)
    # The last digits of a sum must not decide what stands exactly on the border.
    found: npt.NDArray[np.bool_] = np.abs(a - b) <= tolerance * np.maximum(np.abs(a), np.abs(b)) * (1.0 + 1e-9)
    return found


@dataclass(frozen=True, eq=False)
class NumericAnswers:
    """N answers; row i says that `workers[worker[i]]` gave `tasks[task[i]]` the number `value[i]`."""

    task: Codes
    worker: Codes
    value: Values
    tasks: tuple[str, ...]
    workers: tuple[str, ...]

    @classmethod
    def of(cls, rows: Iterable[tuple[str, str, float]]) -> NumericAnswers:
        """From (task, worker, number) triples; tasks and workers are numbered in sorted order.

        A worker who answers a task twice counts twice (backends do repeat). Raises BadInput for a number that is not finite.

        >>> answers = NumericAnswers.of([("t1", "w2", 3.0), ("t1", "w1", 4.0)])
        >>> answers.workers, answers.value.tolist(), answers.worker.tolist()
        (('w1', 'w2'), [3.0, 4.0], [1, 0])
        """
        triples = list(rows)
        tasks = sorted({task for task, _, _ in triples})
        workers = sorted({worker for _, worker, _ in triples})
        task_codes = {name: code for code, name in enumerate(tasks)}
        worker_codes = {name: code for code, name in enumerate(workers)}
        for task, worker, value in triples:
            if not math.isfinite(value):
                raise BadInput(f"worker {worker} gave task {task} {value!r}, which is not finite", code="no-number")
        return cls(
            task=np.array([task_codes[task] for task, _, _ in triples], dtype=np.int64),
            worker=np.array([worker_codes[worker] for _, worker, _ in triples], dtype=np.int64),
            value=np.array([value for _, _, value in triples], dtype=np.float64),
            tasks=tuple(tasks),
            workers=tuple(workers),
        )

    def given(self) -> Codes:
        """Answers for each task, (tasks,)."""
        return np.bincount(self.task, minlength=len(self.tasks)).astype(np.int64, copy=False)
