"""The same methods in other libraries, at sizes they finish: those that are installed (`make bench PEERS=1` sees to it)."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from importlib.util import find_spec

import numpy as np
import numpy.typing as npt

from benchmarks import pools
from benchmarks.measure import Result, against
from benchmarks.pools import Floats
from winnow.selection import Pool, select

ROWS, DIMENSIONS, CLASSES, TAKEN = 5_000, 384, 10, 50
Indices = npt.NDArray[np.int64]
Peer = Callable[[Floats, Floats, int], object]


def results(*, seed: int = 0) -> Iterator[Result]:
    """A ratio for every peer that is installed."""
    rng = np.random.default_rng(seed)
    points = pools.clustered(ROWS, DIMENSIONS, rng=rng)
    said = pools.probabilities(points, CLASSES, rng=rng)
    for called, module, selector, peer in PEERS:
        if find_spec(module) is None:
            continue
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what their own dependencies have deprecated is not ours to fix
            peer(points[:300], said[:300], 5)  # imports and compiles
            yield against(
                f"{selector}, {TAKEN} of {ROWS} x {DIMENSIONS}",
                lambda selector=selector: _ours(selector, points, said),
                lambda peer=peer: peer(points, said, TAKEN),
                called=called,
                limit=1.0,
                repeats=1,
            )


def _ours(selector: str, points: Floats, said: Floats) -> Indices:
    best_two = np.sort(said, axis=1)[:, -2:]
    pool = Pool(len(points), scores=1 - (best_two[:, 1] - best_two[:, 0]), embedding=points, probabilities=said)
    return select(selector, pool, TAKEN, rng=np.random.default_rng(0))


def _skactiveml_core_set(points: Floats, said: Floats, k: int) -> object:
    from skactiveml.pool import CoreSet

    return CoreSet(random_state=0).query(points, _unlabeled(points), batch_size=k)


def _skactiveml_badge(points: Floats, said: Floats, k: int) -> object:
    from skactiveml.base import SkactivemlClassifier
    from skactiveml.pool import Badge

    class Said(SkactivemlClassifier):  # type: ignore[misc]
        """Answers what was said of the last records of the pool, which are those it is asked about."""

        def fit(self, X: Floats, y: Floats, sample_weight: Floats | None = None) -> Said:  # noqa: N803
            return self

        def predict_proba(self, X: Floats) -> Floats:  # noqa: N803
            return said[-len(X) :]

    model = Said(classes=list(range(said.shape[1])))
    return Badge(random_state=0).query(points, _unlabeled(points), model, fit_clf=False, batch_size=k)


def _skactiveml_typiclust(points: Floats, said: Floats, k: int) -> object:
    from skactiveml.pool import TypiClust

    return TypiClust(random_state=0).query(points, _unlabeled(points), batch_size=k)


def _small_text_core_set(points: Floats, said: Floats, k: int) -> object:
    from small_text.query_strategies.coresets import greedy_coreset

    last = len(points) - 1
    return greedy_coreset(points, np.arange(last), np.array([last]), k, distance_metric="euclidean")


def _modal_batch(points: Floats, said: Floats, k: int) -> object:
    from modAL.batch import ranked_batch

    class Committee:
        """The labeled records, which this method wants to be far from."""

        X_training = points[:1]
        on_transformed = False

    torn = 1 - said.max(axis=1)
    return ranked_batch(Committee(), points[1:], torn[1:], k, "euclidean", 1)


def _unlabeled(points: Floats) -> npt.NDArray[np.float64]:
    """No labels but one, since these libraries want to know a class."""
    labels = np.full(len(points), np.nan)
    labels[0] = 0
    return labels


PEERS: tuple[tuple[str, str, str, Peer], ...] = (
    ("scikit-activeml's CoreSet", "skactiveml", "k_center", _skactiveml_core_set),
    ("scikit-activeml's Badge", "skactiveml", "badge", _skactiveml_badge),
    ("scikit-activeml's TypiClust", "skactiveml", "typiclust", _skactiveml_typiclust),
    ("small-text's greedy_coreset", "small_text", "k_center", _small_text_core_set),
    ("modAL's ranked batch", "modAL", "margin_kmeans", _modal_batch),
)
"""What it is called, the module, our selector, and the call."""

QUICK = {"ROWS": 1_000, "TAKEN": 20}
"""What --quick sets instead."""
