"""How much a record would teach: a table of strategies, each from model outputs to one score a record.

A new strategy is one module (or one function in its family's module) and one line in `STRATEGIES`.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from winnow.acquisition.chance import RANDOM
from winnow.acquisition.committee import BALD, VOTE_ENTROPY
from winnow.acquisition.strategy import Outputs, Scores, Strategy
from winnow.acquisition.uncertainty import ENTROPY, LEAST_CONFIDENCE, MARGIN
from winnow.errors import BadInput, ConfigError

STRATEGIES: Mapping[str, Strategy] = {
    strategy.name: strategy
    for strategy in (
        LEAST_CONFIDENCE,
        MARGIN,
        ENTROPY,
        VOTE_ENTROPY,
        BALD,
        RANDOM,
    )
}


def score(strategy: str, predictions: Outputs, *, rng: np.random.Generator, model: str = "the champion") -> Scores:
    """Scores (n,) float32 of one table entry, higher = more worth labeling; `model` only names the model in errors.

    Raises ConfigError for an unknown strategy or one whose needs the model does not give, BadInput when scores come out
    NaN or infinite (a model that should not have passed publication).

    >>> from winnow.models.predictions import Predictions
    >>> sure_and_torn = Predictions(np.float32([[0.9, 0.1], [0.5, 0.5]]), embedding=np.zeros((2, 1), np.float32))
    >>> print(score("margin", sure_and_torn, rng=np.random.default_rng(0)).round(2))
    [0.2 1. ]
    """
    entry = STRATEGIES.get(strategy)
    if entry is None:
        raise ConfigError(f"strategy {strategy!r} is unknown; choose one of {', '.join(sorted(STRATEGIES))}")
    for need in sorted(entry.needs):
        if getattr(predictions, need) is None:
            able = sorted(
                name
                for name, other in STRATEGIES.items()
                if all(getattr(predictions, n) is not None for n in other.needs)
            )
            raise ConfigError(
                f"strategy {strategy} needs {need}, which model {model} does not give; "
                f"train with {need} or choose one of {', '.join(able)}"
            )
    scores = entry.score(predictions, rng)
    unusable = np.flatnonzero(~np.isfinite(scores))
    if unusable.size:
        raise BadInput(
            f"model {model} gives outputs that {strategy} cannot score for {unusable.size} of {scores.size} records, "
            f"the first in row {unusable[0]}; publish a model without NaN",
            code="unusable-scores",
        )
    return scores


__all__ = ["STRATEGIES", "Outputs", "Strategy", "score"]
