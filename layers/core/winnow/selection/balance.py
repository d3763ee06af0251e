"""What a class with few labels is worth beside one with many."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

_MOST = 4.0
"""A record of the rarest class is worth so many of an average one, and so many of the commonest class make one."""


def class_worth(counts: npt.NDArray[np.integer]) -> npt.NDArray[np.float32]:
    """(C,) factors of the scores of records predicted to be of each class, from its labels so far (C,).

    The square root of the mean count by the class's own (and one more), within 1/4 and 4: a frequency's error falls with
    the square root of its count, so a label teaches most where there are few. It only shifts which doubtful records come
    first: where no class is rare all factors are near 1.

    Source: our own; after the square-root sampling of rare words in Mikolov et al., Distributed Representations of Words
    and Phrases, 2013.

    >>> print(class_worth(np.array([99, 99, 3])).round(2))
    [0.82 0.82 4.  ]
    """
    worth: npt.NDArray[np.float64] = np.clip(np.sqrt(counts.mean() / (counts + 1.0)), 1.0 / _MOST, _MOST)
    return worth.astype(np.float32)
