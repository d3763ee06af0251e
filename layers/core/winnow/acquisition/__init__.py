"""How much a record would teach: a table of strategies, each from model outputs to one score a record.

A new strategy is one module (or one function in its family's module) and one line in `STRATEGIES`.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

import numpy as np
import numpy.typing as npt

from winnow.acquisition.chance import RANDOM
from winnow.acquisition.committee import BALD, CONSENSUS_KL, VARIANCE, VOTE_ENTROPY
from winnow.acquisition.cost import per_minute
from winnow.acquisition.density import DENSITY_WEIGHTED, TYPICALITY
from winnow.acquisition.error_reduction import EXPECTED_ERROR_REDUCTION
from winnow.acquisition.expected_change import EXPECTED_GRADIENT_LENGTH
from winnow.acquisition.strategy import Labeled, Need, Outputs, Scores, Strategy
from winnow.acquisition.uncertainty import ENTROPY, LEAST_CONFIDENCE, MARGIN
from winnow.errors import BadInput, ConfigError

STRATEGIES: Mapping[str, Strategy] = {
    strategy.name: strategy
    for strategy in (
        LEAST_CONFIDENCE,
        MARGIN,
        ENTROPY,
        VOTE_ENTROPY,
        CONSENSUS_KL,
        BALD,
        VARIANCE,
        EXPECTED_GRADIENT_LENGTH,
        EXPECTED_ERROR_REDUCTION,
        DENSITY_WEIGHTED,
        TYPICALITY,
        RANDOM,
    )
}

OUTPUTS: Mapping[str, frozenset[Need]] = {
    "classification": frozenset({"probabilities", "members", "embedding", "labeled"}),
    "regression": frozenset({"prediction", "members", "embedding", "labeled"}),
}
"""What a model of a task, and the labels it was trained on, can give at most."""

_SHARES: frozenset[Need] = frozenset({"probabilities", "members"})
_LOOKED_AT = 1000
_SUM_TOLERANCE = 0.01
"""What float16 makes of a thousand classes stays far below it; logits do not."""

DEFAULTS: Mapping[str, str] = {"classification": "margin", "regression": "variance"}
"""The strategy of a task for which none was chosen."""


def able(given: Collection[Need]) -> list[str]:
    """Names of the strategies that work with these outputs, in alphabetical order.

    >>> able(OUTPUTS["regression"]), able({"probabilities"})
    (['random', 'typicality', 'variance'], ['entropy', 'least_confidence', 'margin', 'random'])
    """
    return sorted(name for name, strategy in STRATEGIES.items() if strategy.needs <= set(given))


def gives(predictions: Outputs) -> frozenset[Need]:
    """The outputs that a model gave; a regression's probabilities of no class at all are none.

    >>> from winnow.models.predictions import Predictions
    >>> numbers = Predictions(np.zeros((2, 0), np.float32), np.zeros((2, 3), np.float32), prediction=np.float32([1, 2]))
    >>> sorted(gives(numbers))
    ['embedding', 'prediction']
    """
    given: set[Need] = {"embedding"}
    if predictions.probabilities.shape[1]:
        given.add("probabilities")
    if predictions.prediction is not None:
        given.add("prediction")
    if predictions.members is not None:
        given.add("members")
    if predictions.labeled is not None:
        given.add("labeled")
    return frozenset(given)


def check_choice(strategy: str, *, task: str, members: int) -> None:
    """Raise ConfigError unless a model of this task, with a committee of so many members, can serve the strategy.

    >>> check_choice("bald", task="classification", members=4)
    >>> check_choice("margin", task="regression", members=4)  # doctest: +ELLIPSIS
    Traceback (most recent call last):
    ...
    winnow.errors.ConfigError: margin needs probabilities, which a regression does not give; choose one of random, ...
    """
    lacking = STRATEGIES[strategy].needs - OUTPUTS[task]
    if lacking:
        choices = ", ".join(able(OUTPUTS[task]))
        raise ConfigError(f"{strategy} needs {min(lacking)}, which a {task} does not give; choose one of {choices}")
    if "members" in STRATEGIES[strategy].needs and not members:
        choices = ", ".join(able(OUTPUTS[task] - {"members"}))
        raise ConfigError(
            f"{strategy} asks a committee, but training.members is 0; raise it or choose one of {choices}"
        )


def score(strategy: str, predictions: Outputs, *, rng: np.random.Generator, model: str = "the champion") -> Scores:
    """Scores (n,) float32 of one table entry, higher = more worth labeling; `model` only names the model in errors.

    An entry whose scope is the pool compares the records it is given with one another: give it the whole pool. The
    probabilities must be calibrated, as a published model's are. Without labels that cannot be seen; that rows sum to 1
    can, and is looked at in about a thousand of them.

    Raises ConfigError for an unknown strategy or one whose needs the model does not give, BadInput when rows do not sum
    to 1 or scores come out NaN or infinite (a model that should not have passed publication).

    >>> from winnow.models.predictions import Predictions
    >>> sure_and_torn = Predictions(np.float32([[0.9, 0.1], [0.5, 0.5]]), embedding=np.zeros((2, 1), np.float32))
    >>> print(score("margin", sure_and_torn, rng=np.random.default_rng(0)).round(2))
    [0.2 1. ]
    """
    entry = STRATEGIES.get(strategy)
    if entry is None:
        raise ConfigError(f"strategy {strategy!r} is unknown; choose one of {', '.join(sorted(STRATEGIES))}")
    given = gives(predictions)
    lacking = entry.needs - given
    if lacking == {"labeled"}:
        raise ConfigError(
            f"strategy {strategy} compares with labeled records, of which none are given; label some first or choose one of "
            f"{', '.join(able(given))}"
        )
    if lacking:
        remedy = "train with members or choose" if "members" in lacking else "choose"
        raise ConfigError(
            f"strategy {strategy} needs {min(lacking)}, which model {model} does not give; "
            f"{remedy} one of {', '.join(able(given))}"
        )
    for name in sorted(entry.needs & _SHARES):
        _check_rows(name, getattr(predictions, name), model=model)
    scores = entry.score(predictions, rng)
    unusable = np.flatnonzero(~np.isfinite(scores))
    if unusable.size:
        raise BadInput(
            f"model {model} gives outputs that {strategy} cannot score for {unusable.size} of {scores.size} records, "
            f"the first in row {unusable[0]}; publish a model without NaN",
            code="unusable-scores",
        )
    return scores


def _check_rows(name: str, values: npt.NDArray[np.floating], *, model: str) -> None:
    if not len(values) or (name == "members" and values.ndim == 2):  # a regression's members are numbers
        return
    step = max(1, len(values) // _LOOKED_AT)
    off = np.abs(values[::step].sum(axis=-1, dtype=np.float64) - 1.0) > _SUM_TOLERANCE
    wrong = np.flatnonzero(off.reshape(len(off), -1).any(axis=1))
    if wrong.size:
        raise BadInput(
            f"{name} of row {step * wrong[0]} that model {model} gives do not sum to 1; end the model with a softmax and "
            "calibrate it",
            code="unusable-scores",
        )


__all__ = [
    "DEFAULTS", "OUTPUTS", "STRATEGIES", "Labeled", "Outputs", "Strategy",
    "able", "check_choice", "gives", "per_minute", "score",
]  # fmt: skip
