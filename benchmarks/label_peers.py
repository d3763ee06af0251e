"""Strategies of other libraries as contenders of a simulation: they see embeddings, our model's outputs and the labels
bought so far, and choose.

Where a library asks a model for its opinion of a row it gets what our model said of that record. Rows that are no record
(DropQuery blanks out coordinates) are answered by a linear head fitted to what the model said of the pool: exact where the
model is a linear head on the embedding, as on an encoder, else the nearest there is.
"""
# ruff: noqa: N803, N806  # X is what these libraries call rows

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from winnow.models.calibration import softmax
from winnow_cli.errors import UsageError
from winnow_cli.simulate.trial import Contender, Indices, State

LIBRARIES = {"scikit-activeml": "skactiveml", "modAL-python": "modAL"}
"""Distribution → what is imported."""

Array = npt.NDArray[Any]


@dataclass(frozen=True, eq=False)
class Model:
    """Our fitted model as a function of rows of the embedding."""

    state: State

    @cached_property
    def _place(self) -> dict[bytes, int]:
        return {row.tobytes(): number for number, row in reversed(list(enumerate(self.state.embedding)))}

    @cached_property
    def _head(self) -> npt.NDArray[np.float64]:
        """Weights (dim + 1, C) that give the centred log-probabilities of the pool in the least squares."""
        said = np.log(np.maximum(self.state.predictions.probabilities, 1e-9)).astype(np.float64)  # type: ignore[union-attr]
        given = _with_one(self.state.embedding)
        ridge = 1e-6 * len(given) * np.eye(given.shape[1])
        weights: npt.NDArray[np.float64] = np.linalg.solve(
            given.T @ given + ridge, given.T @ (said - said.mean(axis=1, keepdims=True))
        )
        return weights

    def places(self, rows: Array) -> Indices:
        """(n,) numbers of the records whose embedding the rows are, -1 for those that are none."""
        same = np.ascontiguousarray(rows, dtype=self.state.embedding.dtype)
        return np.array([self._place.get(row.tobytes(), -1) for row in same], dtype=np.int64)

    def probabilities(self, rows: Array) -> Array:
        """(n, C) float64, rows sum to 1."""
        places = self.places(rows)
        said = self.state.predictions.probabilities[places].astype(np.float64)  # type: ignore[union-attr]
        strange = places < 0
        if strange.any():
            said[strange] = softmax(_with_one(rows[strange]) @ self._head)
        return said / said.sum(axis=1, keepdims=True)

    def numbers(self, rows: Array) -> tuple[Array, Array]:
        """A regression's prediction (n,) and its members' (n, M)."""
        said = self.state.predictions
        places = self.places(rows)
        assert said is not None
        assert said.prediction is not None
        assert said.members is not None  # asked for
        return said.prediction[places].astype(np.float64), said.members[places].astype(np.float64)


def _with_one(rows: Array) -> Array:
    return np.hstack([rows, np.ones((len(rows), 1))]).astype(np.float64)


@dataclass(frozen=True, eq=False)
class Offer:
    """What a peer chooses from: labeled rows and candidates of the pool, and the model."""

    state: State
    candidates: Indices
    model: Model = field(repr=False)

    @property
    def k(self) -> int:
        return self.state.k

    @property
    def seed(self) -> int:
        return int(self.state.rng.integers(1 << 30))

    @cached_property
    def rows(self) -> Indices:
        """Labeled first."""
        return np.concatenate([self.state.labeled, self.candidates])

    def scikit(
        self, strategy: str, *, role: str | None, model: Any = None, fit: bool = False, **settings: Any
    ) -> Indices:
        """Ask a strategy of scikit-activeml, whose model goes by the name `role`; it is fitted already unless it is its own."""
        import skactiveml.pool

        X = self.state.embedding[self.rows]
        y = np.full(len(X), np.nan)
        y[: len(self.state.labels)] = self.state.labels
        asked = getattr(skactiveml.pool, strategy)(random_state=self.seed, missing_label=np.nan, **settings)
        given = {} if role is None else {role: model, f"fit_{role}": fit}
        return self.rows[np.asarray(asked.query(X, y, batch_size=self.k, **given)).ravel()]


def _classifier(offer: Offer) -> Any:
    from skactiveml.base import SkactivemlClassifier

    class Ours(SkactivemlClassifier):  # type: ignore[misc]  # untyped library
        def fit(self, X: Any, y: Any, sample_weight: Any = None) -> Any:
            self.classes_ = np.arange(len(offer.state.classes))
            return self

        def predict_proba(self, X: Any) -> Array:
            return offer.model.probabilities(np.asarray(X))

        def predict(self, X: Any) -> Array:
            return self.predict_proba(X).argmax(axis=1)

    return Ours(classes=list(range(len(offer.state.classes)))).fit(None, None)


def _regressor(offer: Offer, member: int | None = None, *, spread: bool = False) -> Any:
    from skactiveml.base import SkactivemlRegressor

    class Ours(SkactivemlRegressor):  # type: ignore[misc]  # untyped library
        def fit(self, X: Any, y: Any, sample_weight: Any = None) -> Any:
            self.fitted_ = True
            return self

        def predict(self, X: Any) -> Any:
            prediction, members = offer.model.numbers(np.asarray(X))
            if member is not None:
                return members[:, member]
            return (prediction, members.std(axis=1)) if spread else prediction

    return Ours().fit(None, None)


def _clue(offer: Offer, method: str) -> Indices:
    return offer.scikit(
        "Clue", role="estimator", model=_classifier(offer), method=method, cluster_algo_dict={"n_init": 1}
    )


def _clue_numbers(offer: Offer) -> Indices:
    model = _regressor(offer, spread=True)
    return offer.scikit("Clue", role="estimator", model=model, cluster_algo_dict={"n_init": 1})


def _committee(offer: Offer) -> Indices:
    members = offer.state.predictions.members  # type: ignore[union-attr]
    assert members is not None  # asked for
    return offer.scikit(
        "QueryByCommittee", role="ensemble", model=[_regressor(offer, number) for number in range(members.shape[1])]
    )


def _tree(offer: Offer, method: str) -> Indices:
    """With a tree of its own on the labels, as the method is defined; our model learns from what it chooses."""
    from skactiveml.regressor import SklearnRegressor
    from sklearn.tree import DecisionTreeRegressor

    tree = SklearnRegressor(DecisionTreeRegressor(min_samples_leaf=5, random_state=offer.seed), missing_label=np.nan)
    return offer.scikit("RegressionTreeBasedAL", role="reg", model=tree, fit=True, method=method)


@dataclass(frozen=True)
class _Learner:
    """What modAL asks of a fitted learner."""

    offer: Offer
    on_transformed: bool = False

    @property
    def X_training(self) -> Array:  # noqa: N802
        return self.offer.state.embedding[self.offer.state.labeled]

    def predict_proba(self, X: Any, **_: Any) -> Array:
        return self.offer.model.probabilities(np.asarray(X))

    def predict(self, X: Any, return_std: bool = False, **_: Any) -> Any:
        prediction, members = self.offer.model.numbers(np.asarray(X))
        return (prediction, members.std(axis=1)) if return_std else prediction


def _modal(offer: Offer, module: str, query: str) -> Indices:
    from importlib import import_module

    ask = getattr(import_module(f"modAL.{module}"), query)
    found = ask(_Learner(offer), offer.state.embedding[offer.candidates], n_instances=offer.k)
    return offer.candidates[np.asarray(found[0] if isinstance(found, tuple) else found)]


def _ranked_batch(offer: Offer) -> Indices:
    from modAL.batch import ranked_batch

    rows = offer.state.embedding[offer.candidates]
    doubt = 1.0 - offer.model.probabilities(rows).max(axis=1)
    found = ranked_batch(_Learner(offer), rows, doubt, n_instances=offer.k, metric="euclidean", n_jobs=None)
    return offer.candidates[np.asarray(found[0] if isinstance(found, tuple) else found)]


CELLS = 5e7
"""Numbers a peer may handle at once, 400 MB of them: with more candidates it chooses among a uniform part of them."""


@dataclass(frozen=True)
class Peer:
    """One strategy of another library."""

    library: str
    task: str
    ask: Callable[[Offer], Indices]
    members: bool = False
    cells: Callable[[State], float] = lambda state: 1.0
    """Numbers it handles for each candidate, by which the candidates are limited."""


def _gradients(state: State) -> float:
    return float(len(state.classes) * state.embedding.shape[1])


def _labeled_pairs(state: State) -> float:
    """Distances of every candidate to everything labeled, again for every record of the batch: minutes with the whole pool."""
    return CELLS / 1000.0


def _all_pairs(state: State) -> float:
    """Distances of every candidate to every other: 2000 of them take seconds, 14,000 take minutes and gigabytes."""
    return CELLS / 2000.0


_CLASSES, _NUMBERS = "classification", "regression"
_SK, _MODAL = LIBRARIES

PEERS: Mapping[str, Peer] = {
    "sk-clue-entropy": Peer(_SK, _CLASSES, lambda offer: _clue(offer, "entropy")),
    "sk-clue-margin": Peer(_SK, _CLASSES, lambda offer: _clue(offer, "margin_sampling")),
    "sk-falcun": Peer(_SK, _CLASSES, lambda offer: offer.scikit("Falcun", role="clf", model=_classifier(offer))),
    "sk-dropquery": Peer(
        _SK, _CLASSES,
        lambda offer: offer.scikit("DropQuery", role="clf", model=_classifier(offer), cluster_algo_dict={"n_init": 1}),
    ),
    "sk-badge": Peer(
        _SK, _CLASSES, lambda offer: offer.scikit("Badge", role="clf", model=_classifier(offer)), cells=_gradients
    ),
    "modal-margin": Peer(_MODAL, _CLASSES, lambda offer: _modal(offer, "uncertainty", "margin_sampling")),
    "modal-ranked-batch": Peer(_MODAL, _CLASSES, _ranked_batch, cells=_labeled_pairs),
    "sk-gsx": Peer(_SK, _NUMBERS, lambda offer: offer.scikit("GreedySamplingX", role=None), cells=_all_pairs),
    "sk-gsi": Peer(
        _SK, _NUMBERS,
        lambda offer: offer.scikit("GreedySamplingTarget", role="reg", model=_regressor(offer), method="GSi"),
        members=True, cells=_all_pairs,
    ),
    "sk-gsy": Peer(
        _SK, _NUMBERS,
        lambda offer: offer.scikit("GreedySamplingTarget", role="reg", model=_regressor(offer), method="GSy"),
        members=True, cells=_all_pairs,
    ),
    "sk-committee": Peer(_SK, _NUMBERS, _committee, members=True),
    "sk-tree-random": Peer(_SK, _NUMBERS, lambda offer: _tree(offer, "random")),
    "sk-tree-diversity": Peer(_SK, _NUMBERS, lambda offer: _tree(offer, "diversity")),
    "sk-clue-spread": Peer(_SK, _NUMBERS, _clue_numbers, members=True),
    "modal-max-std": Peer(
        _MODAL, _NUMBERS, lambda offer: _modal(offer, "disagreement", "max_std_sampling"), members=True
    ),
}  # fmt: skip


@dataclass(frozen=True)
class Choosing:
    """A peer as a strategy of the simulation."""

    name: str

    def __call__(self, state: State) -> Indices:
        peer = PEERS[self.name]
        candidates = state.free
        most = max(int(CELLS / peer.cells(state)), 2 * state.k)
        if len(candidates) > most:
            candidates = np.sort(state.rng.choice(candidates, most, replace=False))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                return peer.ask(Offer(state, candidates, Model(state)))
            except Exception as error:  # whatever another library raises is its result on this set
                raise UsageError(f"{self.name}: {type(error).__name__}: {error}") from error


def contender(name: str) -> Contender:
    """The peer of a name."""
    peer = PEERS[name]
    here = hashlib.sha256(Path(__file__).read_bytes()).hexdigest()
    version = f"{peer.library} {metadata.version(peer.library)} {here}"
    return Contender(name, Choosing(name), members=peer.members, version=version)


def missing() -> list[str]:
    """Distributions that are not installed here."""
    lacking = []
    for library in LIBRARIES:
        try:
            metadata.version(library)
        except metadata.PackageNotFoundError:
            lacking.append(library)
    return lacking
