"""The scores that selection goes by: a record's own, as hop 2 computed them, or those that depend on the whole pool."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from winnow.acquisition import DEFAULTS, STRATEGIES, score
from winnow.acquisition.cost import per_minute
from winnow.acquisition.strategy import Labeled
from winnow.loop import Acquisition
from winnow.models.predictions import Predictions
from winnow.ports import Ports
from winnow.selection import SELECTORS
from winnow.selection.minutes import expected
from winnow.selection.quotas import Mask
from winnow.steps import labeled
from winnow.steps.candidates import Candidates
from winnow.steps.pointers import head

Floats = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Recipe:
    """The strategy and selector that these candidates can serve, and why one is not what loop.yaml says."""

    strategy: str
    selector: str
    told: tuple[str, ...] = ()


def able(rows: Candidates, ports: Ports) -> Recipe:
    """The configured strategy and selector, or defaults where candidates lack what these read.

    That is so from a change of loop.yaml until the champion's records are scored again; to wait would stop the loop so long.
    """
    policy = ports.loop.acquisition
    strategy, selector = policy.strategy, policy.selector
    told = []
    if not _serves(strategy, rows, ports):
        plain = DEFAULTS[ports.loop.task.type]
        strategy = plain if _serves(plain, rows, ports) else "random"
        told.append(_TOLD.format("strategy", policy.strategy, strategy))
    if SELECTORS[selector].needs - {"scores"} - _carried(rows):
        selector = Acquisition().selector
        told.append(_TOLD.format("selector", policy.selector, selector))
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


def ranking(strategy: str, rows: Candidates, among: Mask, ports: Ports, *, rng: np.random.Generator) -> Floats:
    """(n,) scores of the candidates, higher = more worth labeling; of a pool-scope strategy 0 for those not `among` its pool.

    With `acquisition.per_minute` it is the value of each minute that the record needs.
    """
    if strategy in rows.scores:
        scores = rows.scores[strategy]
    else:
        scores = np.zeros(len(rows), dtype=np.float32)
        scores[among] = score(strategy, _outputs(rows.take(among), rows, ports), rng=rng)
    if not ports.loop.acquisition.per_minute or rows.minutes is None:
        return scores
    return per_minute(scores, expected(rows.minutes))


def _outputs(pool: Candidates, rows: Candidates, ports: Ports) -> Predictions:
    """What the champion said of the pool, with the labeled records among all rows."""
    regression = ports.loop.task.type == "regression"
    probabilities = widened(pool.probabilities)
    return Predictions(
        np.zeros((len(pool), 0), np.float32) if probabilities is None else probabilities,
        pool.embedding.astype(np.float32),
        members=widened(pool.members),
        prediction=pool.prediction.astype(np.float32) if regression else None,
        labeled=_labeled(rows, ports),
    )


def widened(values: npt.NDArray[np.floating] | None) -> Floats | None:
    """Shares (…, classes) that sum to 1 again, which float16 rounded; a regression's numbers are float32 and stay as they are."""
    if values is None or values.dtype != np.float16:
        return None if values is None else values.astype(np.float32, copy=False)
    wide = values.astype(np.float32)
    rounded: Floats = wide / wide.sum(axis=-1, keepdims=True)
    return rounded


def _labeled(rows: Candidates, ports: Ports) -> Labeled:
    """The train records of the newest dataset that are among the rows."""
    version, _ = head(ports.data)
    if version is None:
        return Labeled(np.zeros((0, rows.embedding.shape[1]), np.float32))
    dataset = labeled.load(ports.data, version)
    known = labeled.labels(ports.data, dataset, "train")
    places = [row for row, identity in enumerate(rows.id.tolist()) if identity in known]
    labels = None
    if not dataset.is_regression:
        number = {name: place for place, name in enumerate(dataset.classes)}
        labels = np.array([number[str(known[str(rows.id[row])])] for row in places], dtype=np.int64)
    return Labeled(rows.embedding[places].astype(np.float32), labels)
