"""Which candidates belong to the groups that loop.yaml gives quotas."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from winnow.loop import Loop
from winnow.selection.quotas import PREDICTED, Mask, split
from winnow.steps.candidates import Candidates, unpacked


def groups(rows: Candidates, loop: Loop) -> dict[str, Mask]:
    """Quota of loop.yaml → (n,) True for the candidates that count towards it."""
    found: dict[str, Mask] = {}
    slices = _Slices(rows)
    for quota in loop.acquisition.quotas:
        name, value = split(quota)
        if name == PREDICTED:
            found[quota] = rows.prediction == loop.task.classes.index(value)
        else:
            found[quota] = slices.having(name, value)
    return found


def unknown_slices(rows: Candidates, loop: Loop) -> dict[str, str]:
    """Quota → why no candidate counts towards it, where none has a slice of that name."""
    known = _Slices(rows).names()
    names = {quota: split(quota)[0] for quota in loop.acquisition.quotas}
    told = f"known are {', '.join(sorted(known)[:20])}" if known else "no record has any"
    return {
        quota: f"no candidate has a slice named {name}; {told}"
        for quota, name in names.items()
        if name != PREDICTED and name not in known
    }


class _Slices:
    """The slices of candidates, each combination read once."""

    def __init__(self, rows: Candidates) -> None:
        texts = np.full(len(rows), "") if rows.slices is None else rows.slices
        combinations, self._of_row = np.unique(texts, return_inverse=True)
        self._combinations = [unpacked(str(text)) for text in combinations]

    def having(self, name: str, value: str) -> Mask:
        has = np.array([one.get(name) == value for one in self._combinations], dtype=np.bool_)
        mask: npt.NDArray[np.bool_] = has[self._of_row] if len(self._of_row) else np.zeros(0, dtype=np.bool_)
        return mask

    def names(self) -> set[str]:
        return {name for one in self._combinations for name in one}
