"""Selectors against scikit-activeml and small-text.

The peers are no dependency: `make bench PEERS=1` installs them, and with PYTHONPATH=.cache/peers these tests run. What they
hold is held without them by enumeration in tests/unit/test_selection_batches.py and by the textbook's loops in
tests/unit/test_selection.py.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from winnow.selection.badge import badge
from winnow.selection.batch_bald import batch_bald
from winnow.selection.k_center import k_center
from winnow.selection.typiclust import typiclust

Array = npt.NDArray[np.float32]
WITHOUT = "a peer, not a dependency: install it to compare with it"

pytestmark = pytest.mark.filterwarnings("ignore")


def cloud(n: int, dim: int, seed: int = 0) -> Array:
    return np.random.default_rng(seed).standard_normal((n, dim)).astype(np.float32)


def unlabeled(n: int, labeled: int = 0) -> npt.NDArray[np.float64]:
    labels = np.full(n, np.nan)
    labels[:labeled] = 0
    return labels


@pytest.mark.parametrize("seed", range(3))
def test_k_center_is_scikit_activemls_core_set(seed: int) -> None:
    peer = pytest.importorskip("skactiveml.pool", reason=WITHOUT)
    points = cloud(600, 16, seed)

    theirs = peer.CoreSet(random_state=0).query(points, unlabeled(600, labeled=5), batch_size=40)

    assert (k_center(points[5:], 40, labeled=points[:5]) + 5).tolist() == theirs.tolist()


def test_k_center_is_small_texts_greedy_core_set() -> None:
    peer = pytest.importorskip("small_text.query_strategies.coresets", reason=WITHOUT)
    points = cloud(500, 8)

    # What is labeled stands last: it takes its rows of the unlabeled ones for rows of all.
    theirs = peer.greedy_coreset(points, np.arange(496), np.arange(496, 500), 30, distance_metric="euclidean")

    assert k_center(points[:496], 30, labeled=points[496:]).tolist() == np.asarray(theirs).tolist()


def test_badge_draws_the_second_record_as_scikit_activeml_does() -> None:
    pool = pytest.importorskip("skactiveml.pool", reason=WITHOUT)
    base = pytest.importorskip("skactiveml.base", reason=WITHOUT)
    n, runs = 8, 4000
    rng = np.random.default_rng(0)
    points, said = cloud(n, 5), rng.dirichlet(np.ones(3), size=n).astype(np.float32)

    class Said(base.SkactivemlClassifier):  # type: ignore[misc, name-defined]
        def fit(self, X: Any, y: Any, sample_weight: Any = None) -> Said:  # noqa: N803
            return self

        def predict_proba(self, X: Any) -> Any:  # noqa: N803
            return said[-len(X) :]

    # One labeled record, since it wants to know a class; it is not among those it is asked about.
    all_points = np.vstack([points[:1], points])
    taken, chances = pool.Badge(random_state=0).query(
        all_points, unlabeled(n + 1, labeled=1), Said(classes=[0, 1, 2]), fit_clf=False, batch_size=2,
        return_utilities=True,
    )  # fmt: skip
    first, expected = int(taken[0]) - 1, np.nan_to_num(chances[1][1:])

    ours = np.array([badge(said, points, 2, rng=np.random.default_rng(seed), origin=True) for seed in range(runs)])
    second = ours[ours[:, 0] == first, 1]
    observed = np.bincount(second, minlength=n)

    possible = expected > 0
    gaps = (observed - len(second) * expected)[possible] ** 2 / (len(second) * expected[possible])
    assert len(second) > 300
    assert gaps.sum() / (possible.sum() - 1) < 2.5


@pytest.mark.parametrize("seed", range(3))
def test_batch_bald_is_scikit_activemls_while_all_labelings_are_counted(seed: int) -> None:
    peer = pytest.importorskip("skactiveml.pool", reason=WITHOUT)
    members = np.random.default_rng(seed).dirichlet(np.full(3, 0.5), size=(30, 5)).astype(np.float32)

    utilities = peer.batch_bald(members.swapaxes(0, 1).astype(np.float64), 3, n_MC_samples=1000, random_state=0)

    assert batch_bald(members, 3, rng=np.random.default_rng(0)).tolist() == np.nanargmax(utilities, axis=1).tolist()


def test_typiclust_takes_scikit_activemls_records_of_clear_clusters() -> None:
    peer = pytest.importorskip("skactiveml.pool", reason=WITHOUT)
    sizes = (70, 60, 50, 45)
    points = np.vstack([cloud(size, 3, seed=size) + 100 * place for place, size in enumerate(sizes)])

    theirs = peer.TypiClust(random_state=0, k=20).query(points, unlabeled(len(points), labeled=1), batch_size=3)
    ours = typiclust(points[1:], 3, rng=np.random.default_rng(0), labeled=points[:1])

    assert (ours + 1).tolist() == theirs.tolist()
