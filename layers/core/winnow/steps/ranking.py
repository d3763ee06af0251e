"""The scores that selection goes by: a record's own, as hop 2 computed them, or those that depend on the whole pool."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from winnow.acquisition import DEFAULTS, STRATEGIES, Labeled, per_minute, score
from winnow.loop import Acquisition
from winnow.models.predictions import Predictions
from winnow.ports import Ports
from winnow.selection import SELECTORS
from winnow.selection.quotas import Mask
from winnow.steps.candidates import Candidates

Floats = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Recipe:
    """The strategy and selector that these candidates can serve, and why one is not what loop.yaml says."""

    strategy: str
    selector: str
    told: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        return f"{self.strategy}+{self.selector}"

    @classmethod
    def of(cls, name: str) -> Recipe:
        """The recipe of a `strategy+selector`.

        >>> Recipe.of("margin+margin_kmeans").selector
        'margin_kmeans'
        """
        strategy, _, selector = name.partition("+")
        return cls(strategy, selector)


def able(wanted: Recipe, rows: Candidates, ports: Ports) -> Recipe:
    """The strategy and selector that are wanted, or defaults where candidates lack what these read.

    That is so from a change of loop.yaml until the champion's records are scored again; to wait would stop the loop so long.
    """
    strategy, selector = wanted.strategy, wanted.selector
    told = []
    if not _serves(strategy, rows, ports):
        plain = DEFAULTS[ports.loop.task.type]
        strategy = plain if _serves(plain, rows, ports) else "random"
        told.append(_TOLD.format("strategy", wanted.strategy, strategy))
    if SELECTORS[selector].needs - {"scores"} - _carried(rows):
        selector = Acquisition().selector
        told.append(_TOLD.format("selector", wanted.selector, selector))
    return Recipe(strategy, selector, tuple(told))


_TOLD = "{} {} reads what the candidates were scored without; until a new champion scores them, {} chooses"


def _serves(strategy: str, rows: Candidates, ports: Ports) -> bool:
    entry = STRATEGIES[strategy]
    if entry.scope == "record":
        return not entry.needs or strategy in rows.scores
    given = {*_carried(rows), "labeled", *(("prediction",) if ports.loop.task.type == "regression" else ())}
    return entry.needs <= given


def _carried(rows: Candidates) -> set[str]:
    return {name for name in ("probabilities", "members", "embedding") if getattr(rows, name) is not None}


def forwarded_by(scored: Candidates, strategy: str, policy: Acquisition) -> Floats | None:
    """(n,) what hop 2 forwards records to selection by: the strategy's scores, or where it compares records the default's,
    which finds what is worth comparing; None where there is nothing to go by.
    """
    if strategy not in scored.scores and "probabilities" in STRATEGIES[strategy].needs:
        strategy = DEFAULTS["classification"] if STRATEGIES[strategy].scope == "pool" else strategy
    scores = scored.scores.get(strategy)
    if scores is None or not policy.per_minute or scored.minutes is None:
        return scores
    return per_minute(scores, scored.minutes)


def ranking(
    strategy: str, rows: Candidates, *, among: Mask, covered: Mask, ports: Ports, rng: np.random.Generator
) -> Floats:
    """(n,) scores of the candidates, higher = more worth labeling; of a pool-scope strategy 0 for those not `among` its pool.

    `covered` are the train records that were asked before, with which such a strategy may compare.

    With `acquisition.per_minute` it is the value of each minute that the record needs.
    """
    if strategy in rows.scores:
        scores = rows.scores[strategy]
    else:
        scores = np.zeros(len(rows), dtype=np.float32)
        labeled = Labeled(rows.embedding[covered].astype(np.float32))
        scores[among] = score(strategy, _outputs(rows.take(among), labeled, ports), rng=rng)
    if not ports.loop.acquisition.per_minute or rows.minutes is None:
        return scores
    return per_minute(scores, rows.minutes)


def _outputs(pool: Candidates, labeled: Labeled, ports: Ports) -> Predictions:
    """What the champion said of the pool, in the form that strategies take."""
    regression = ports.loop.task.type == "regression"
    probabilities = widened(pool.probabilities)
    return Predictions(
        np.zeros((len(pool), 0), np.float32) if probabilities is None else probabilities,
        pool.embedding.astype(np.float32),
        members=widened(pool.members),
        prediction=pool.prediction.astype(np.float32) if regression else None,
        labeled=labeled,
    )


def widened(values: npt.NDArray[np.floating] | None) -> Floats | None:
    """Shares (…, classes) that sum to 1 again, which float16 rounded; a regression's numbers are float32 and stay as they are."""
    if values is None or values.dtype != np.float16:
        return None if values is None else values.astype(np.float32, copy=False)
    wide = values.astype(np.float32)
    rounded: Floats = wide / wide.sum(axis=-1, keepdims=True)
    return rounded
