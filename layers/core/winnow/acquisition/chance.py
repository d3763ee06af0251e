"""No opinion at all: what every strategy has to beat."""

from __future__ import annotations

import numpy as np

from winnow.acquisition.strategy import Scores, Strategy


def random(n: int, *, rng: np.random.Generator) -> Scores:
    """n uniform scores in [0, 1).

    >>> print(random(2, rng=np.random.default_rng(0)).round(3))
    [0.851 0.637]
    """
    return rng.random(n, dtype=np.float32)


RANDOM = Strategy(
    name="random",
    score=lambda outputs, rng: random(len(outputs.probabilities), rng=rng),
    needs=frozenset(),
    source="simple random sampling",
    sentence="Asks for records by chance; the baseline that shows what the others buy.",
    cost="n",
)
