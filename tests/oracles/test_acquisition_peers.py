"""Acquisition functions against scikit-activeml, modAL and small-text, where those have them.

The peers are no dependency: install one beside Winnow and its tests run. What they lack (and all of it, always) is held by
exact enumeration in tests/unit/test_acquisition_oracles.py.
"""

from __future__ import annotations

from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from winnow.acquisition.committee import bald, consensus_kl, vote_entropy
from winnow.acquisition.density import density_weighted, typicality
from winnow.acquisition.error_reduction import expected_error_reduction
from winnow.acquisition.uncertainty import entropy, least_confidence, margin

Floats = npt.NDArray[np.floating[Any]]
WITHOUT = "a peer, not a dependency: install it to compare with it"

pytestmark = pytest.mark.filterwarnings("ignore")


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def rows(name: str, *, classes: int = 7) -> Floats:
    """Random rows and degenerate ones."""
    made = {
        "random": lambda: rng(classes).dirichlet(np.ones(classes), 200),
        "uniform": lambda: np.full((5, classes), 1.0 / classes),
        "one-hot": lambda: np.eye(classes),
        "tied": lambda: np.tile(np.array([0.5, 0.5] + [0.0] * (classes - 2)), (4, 1)),
        "single": lambda: rng(1).dirichlet(np.ones(classes), 1),
        "many": lambda: rng(2).dirichlet(np.ones(800), 20),
    }
    return made[name]()


ROWS = ("random", "uniform", "one-hot", "tied", "single", "many")


def committee(votes: Floats) -> Any:
    """What modAL takes for a committee: members (n, members, classes)."""

    class Committee:
        classes_ = np.arange(votes.shape[2])

        def __len__(self) -> int:
            return votes.shape[1]

        def __iter__(self) -> Iterator[int]:
            return iter(range(votes.shape[1]))

        def vote(self, _: object) -> npt.NDArray[np.int64]:
            return votes.argmax(axis=2)

        def vote_proba(self, _: object) -> Floats:
            return votes

    return Committee()


@pytest.fixture
def modal(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    monkeypatch.setattr(np, "float", float, raising=False)  # modAL 0.4 names it in its signatures
    pytest.importorskip("modAL", reason=WITHOUT)
    from modAL import density, disagreement, expected_error, uncertainty

    return SimpleNamespace(
        density=density, disagreement=disagreement, expected_error=expected_error, uncertainty=uncertainty
    )


@pytest.mark.parametrize("name", ROWS)
def test_uncertainty_agrees_with_scikit_activeml(name: str) -> None:
    pool = pytest.importorskip("skactiveml.pool", reason=WITHOUT)
    p = rows(name)

    assert np.allclose(entropy(p), pool.uncertainty_scores(p, method="entropy"), atol=1e-5)
    assert np.allclose(margin(p), pool.uncertainty_scores(p, method="margin_sampling"), atol=1e-6)
    assert np.allclose(least_confidence(p), pool.uncertainty_scores(p, method="least_confident"), atol=1e-6)


@pytest.mark.parametrize("name", ROWS)
def test_uncertainty_agrees_with_modal(name: str, modal: SimpleNamespace) -> None:
    p = rows(name)

    assert np.allclose(entropy(p), modal.uncertainty._proba_entropy(p), atol=1e-5)
    assert np.allclose(margin(p), 1.0 - modal.uncertainty._proba_margin(p), atol=1e-6)
    assert np.allclose(least_confidence(p), modal.uncertainty._proba_uncertainty(p), atol=1e-6)


@pytest.mark.parametrize("name", ROWS)
def test_uncertainty_agrees_with_small_text(name: str) -> None:
    small_text = pytest.importorskip("small_text", reason=WITHOUT)
    p = rows(name)
    classifier = SimpleNamespace(predict_proba=lambda _: p)

    def confidence(strategy: Any) -> Floats:
        return np.asarray(strategy.get_confidence(classifier, p, np.arange(len(p)), np.empty(0), np.empty(0)))

    assert np.allclose(entropy(p), np.abs(confidence(small_text.PredictionEntropy())), atol=1e-5)
    assert np.allclose(1.0 - margin(p), np.abs(confidence(small_text.BreakingTies())), atol=1e-6)
    assert np.allclose(1.0 - least_confidence(p), np.abs(confidence(small_text.LeastConfidence())), atol=1e-6)


@pytest.mark.parametrize("members", [1, 2, 5])
def test_committees_agree_with_scikit_activeml(members: int) -> None:
    pool = pytest.importorskip("skactiveml.pool", reason=WITHOUT)
    votes = rng(members).dirichlet(np.ones(4), (60, members))

    asked = pool.vote_entropy(votes.argmax(axis=2), np.arange(4))
    divergence = pool.average_kl_divergence(votes.transpose(1, 0, 2).copy())
    assert np.allclose(vote_entropy(votes), asked, atol=1e-6)
    assert np.allclose(consensus_kl(votes), divergence, atol=1e-5)
    assert np.allclose(bald(votes), divergence, atol=1e-5)


@pytest.mark.parametrize("members", [1, 2, 5])
def test_committees_agree_with_modal_and_small_text(members: int, modal: SimpleNamespace) -> None:
    bayesian = pytest.importorskip("small_text.query_strategies.bayesian", reason=WITHOUT)
    votes = rng(members).dirichlet(np.ones(4), (60, members))
    x = np.zeros((60, 1))

    assert np.allclose(vote_entropy(votes), modal.disagreement.vote_entropy(committee(votes), x), atol=1e-6)
    most = modal.disagreement.KL_max_disagreement(committee(votes), x)  # of a member, where ours is the mean of all
    assert (consensus_kl(votes) <= most + 1e-6).all()
    assert (consensus_kl(votes) >= most / members - 1e-6).all()
    assert np.allclose(bald(votes) / np.log(2.0), bayesian._bald(votes), atol=1e-5)  # theirs is in bits


def test_density_agrees_with_modal_given_the_same_similarity(modal: SimpleNamespace) -> None:
    p, x = rng(3).dirichlet(np.ones(3), 40), rng(4).standard_normal((40, 5))

    def distance(one: Floats, other: Floats) -> float:  # which modAL turns into 1 / (1 + distance)
        cosine = float(one @ other) / float(np.linalg.norm(one) * np.linalg.norm(other))
        return 1.0 / max(cosine, 1e-9) - 1.0

    with_itself = modal.density.information_density(x, metric=distance)
    without = (40.0 * with_itself - 1.0) / 39.0
    assert np.allclose(density_weighted(p, x, rng=rng()), entropy(p) * without, atol=1e-6)


@pytest.mark.parametrize(("n", "neighbours"), [(60, 20), (60, 1), (8, 20), (2, 20)])
def test_typicality_agrees_with_scikit_activeml(n: int, neighbours: int) -> None:
    module = pytest.importorskip("skactiveml.pool._typi_clust", reason=WITHOUT)
    x = rng(n).standard_normal((n, 6))

    theirs = module._typicality(x, np.arange(n), neighbours)
    assert np.allclose(typicality(x, neighbours=neighbours, rng=rng()), theirs, rtol=1e-4)


def test_error_reduction_ranks_as_modal_does_by_refitting(modal: SimpleNamespace) -> None:
    base = pytest.importorskip("sklearn.base", reason=WITHOUT)
    classes, n = 3, 16
    pool, labeled = rng(5).standard_normal((n, 3)), rng(6).standard_normal((10, 3))
    labels = np.concatenate([np.arange(classes), rng(7).integers(0, classes, 7)])
    strength = float((labeled**2).sum(axis=1).mean() + 1.0)

    class Ridge(base.ClassifierMixin, base.BaseEstimator):  # type: ignore[misc]
        def fit(self, x: Floats, y: npt.NDArray[np.int64]) -> Ridge:
            inputs = np.column_stack([x, np.ones(len(x))])
            targets = np.eye(classes)[y] - 1.0 / classes
            self.classes_ = np.arange(classes)
            self.weights_ = np.linalg.solve(inputs.T @ inputs + strength * np.eye(4), inputs.T @ targets)
            return self

        def predict_proba(self, x: Floats) -> Floats:
            return 1.0 / classes + np.column_stack([x, np.ones(len(x))]) @ self.weights_

    learner = SimpleNamespace(
        estimator=Ridge().fit(labeled, labels), X_training=labeled, y_training=labels, predict_proba=None
    )
    learner.predict_proba = learner.estimator.predict_proba
    order, _ = modal.expected_error.expected_error_reduction(learner, pool, loss="binary", n_instances=n)

    p = learner.predict_proba(pool)
    gains = expected_error_reduction(p, pool, labeled, rng=rng())
    mistakes = 1.0 - p.max(axis=1)
    # modAL sums the mistakes that remain on the other records; a gain is a mean over them.
    remaining = mistakes.sum() - mistakes - (n - 1) * gains
    assert np.allclose(np.sort(remaining), remaining[order], atol=1e-6)
    assert gains.max() > 1e-3
