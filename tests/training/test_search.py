"""The choice between a linear head and boosted trees."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import search
from columns import Rows
from search import Classes, Numbers, Recipe, Search, candidates, final


def rows_of(features: np.ndarray) -> Rows:
    numbers = features.astype(np.float32)
    return Rows(numbers, np.zeros((len(numbers), 0), np.int64), numbers / np.sqrt(features.shape[1]))


def best(features: np.ndarray, problem: Any) -> tuple[Recipe, Search]:
    found = Search(
        rows_of(features), problem, groups=[str(n) for n in range(len(features))], seed=0,
        rng=np.random.default_rng(0),
    )  # fmt: skip
    return found.best(), found


def test_straight_data_gets_a_straight_model_and_folded_data_trees() -> None:
    features = np.random.default_rng(0).normal(size=(300, 2))
    straight = features @ np.array([2.0, -1.0])
    folded = features[:, 0] * features[:, 1]

    families = [
        best(features, problem)[0].family
        for problem in (
            Classes.of((straight > 0).astype(int), positive=None), Classes.of((folded > 0).astype(int), positive=None),
            Numbers.of(straight), Numbers.of(folded),
        )
    ]  # fmt: skip

    assert families == ["linear", "boosting", "linear", "boosting"]


def test_figures_are_of_rows_that_the_fit_did_not_see() -> None:
    rng = np.random.default_rng(0)
    features, noise = rng.normal(size=(300, 3)), rng.normal(size=300)

    recipe, found = best(features, Numbers.of(noise * 7.0 + 100.0))
    _, figures = found.figures(recipe)

    assert figures["cv_r2"] < 0.02  # nothing can be learned, however well it could be remembered
    assert figures["cv_rmse"] == pytest.approx(7.0, abs=0.7)


def test_few_records_are_left_to_the_linear_head() -> None:
    assert candidates(29, outputs=1) == []
    assert [trees.least for trees in candidates(30, outputs=1)] == [3, 3, 3]
    assert [trees.rounds for trees in candidates(10_000, outputs=30)] == [100, 100]


@pytest.mark.parametrize("problem", [Classes.of(np.array([0, 1]), positive=None), Numbers.of(np.array([1.0, 2.0]))])
def test_two_records_have_no_figures(problem: Any) -> None:
    recipe, found = best(np.eye(2), problem)

    assert recipe.family == "linear"
    assert found.figures(recipe) == (1.0, {})


def test_the_rare_one_of_two_classes_is_what_the_model_is_for() -> None:
    rare, even, three = np.arange(100) < 4, np.arange(100) < 10, np.arange(100) // 2 == 0

    assert Classes.of(rare.astype(int), positive=None).positive == 1
    assert Classes.of(even.astype(int), positive=None).positive is None
    assert Classes.of(three + (np.arange(100) > 50), positive=None).positive is None
    assert Classes.of(even.astype(int), positive=0).positive == 0


def test_average_precision_decides_when_there_are_enough_positives() -> None:
    targets = np.array([1] * 10 + [0] * 90)
    everything = np.ones(100, dtype=bool)
    # First the positives in front but everything far too likely, then in no order but as likely as they are.
    ranked = np.stack([np.zeros(100), np.where(targets == 1, 9.0, 8.9)], axis=1)
    calm = np.stack([np.zeros(100), np.full(100, np.log(0.1 / 0.9))], axis=1)

    scores = [
        [Classes.of(targets, positive=positive).score(raw, targets, everything) for raw in (ranked, calm)]
        for positive in (1, None)
    ]
    few = Classes.of(targets, positive=1).score(calm[1:], targets[1:], everything[1:])

    assert scores[0] == [1.0, pytest.approx(0.1)]
    assert scores[1][0] < scores[1][1] == pytest.approx(-0.325, abs=0.001)  # the entropy of one in ten, in nats
    assert few < 0.0  # the loss


def test_a_class_that_a_fold_has_not_met_does_not_stop_the_search() -> None:
    rng = np.random.default_rng(0)
    targets = np.array([2] + [0, 1] * 40)
    features = rng.normal(size=(81, 2)) + targets[:, None]

    recipe, found = best(features, Classes.of(targets, positive=None))

    _, figures = found.figures(recipe)
    assert 0.5 < figures["cv_accuracy"] <= 80 / 81


def test_large_tables_are_searched_on_a_sample(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(search, "SEARCH_ROWS", 60)
    features = np.random.default_rng(0).normal(size=(200, 2))

    _, found = best(features, Numbers.of(features[:, 0]))

    assert len(found._rows) == 60


def test_the_final_fit_has_a_few_rounds_more() -> None:
    assert final(Recipe(cost=3.0)) == Recipe(cost=3.0)


def test_numbers_keep_their_unit() -> None:
    problem = Numbers.of(np.array([10.0, 20.0, 30.0]))

    assert problem.targets == pytest.approx([-np.sqrt(1.5), 0.0, np.sqrt(1.5)])
    assert (problem.middle, problem.unit) == (20.0, pytest.approx(np.sqrt(200 / 3)))
    assert Numbers.of(np.array([5.0, 5.0])).targets.tolist() == [0.0, 0.0]
