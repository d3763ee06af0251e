"""The learner of simulations: splits, copies, and what it says of a pool."""

from __future__ import annotations

import numpy as np

from winnow_cli.simulate import learner, strategies
from winnow_cli.simulate.trial import Settings, run_trial

TEXTS = [
    f"{verb} my {noun} {place}"
    for verb in ("block", "find", "send")
    for noun in ("card", "pin")
    for place in "abcdefghij"
]
LABELS = np.repeat(np.arange(3), 20)


def problem(*, times: int = 1) -> learner.Problem:
    made = learner.of_texts(TEXTS * times, np.tile(LABELS, times), classes=("block", "find", "send"))
    return learner.Problem(
        made.task, made.classes, made.labels, made.features, made.embedding, copies=np.tile(np.arange(60), times)
    )


def test_a_split_keeps_copies_on_one_side_and_gives_each_class_its_share() -> None:
    made = problem(times=3)

    pool, test = made.split(0, holdout=0.3, pool=1000, test=1000)

    assert len(pool) + len(test) == 180
    assert not set(made.contents[pool]) & set(made.contents[test])
    assert np.bincount(made.labels[test]).tolist() == [18, 18, 18]


def test_a_split_can_be_limited() -> None:
    pool, test = problem().split(1, holdout=0.5, pool=12, test=9)

    assert (len(pool), len(test)) == (12, 9)
    assert not set(pool) & set(test)


def test_the_model_learns_and_is_calibrated_over_all_classes() -> None:
    made = problem()
    pool, test = made.split(0, holdout=0.3, pool=1000, test=1000)
    one = learner.Learner(made, pool, test, seed=0, members=3)

    few = one.fit(pool[:2])
    many = one.fit(pool)

    assert many.value == 1.0
    assert many.value > few.value
    np.testing.assert_allclose(many.predictions.probabilities.sum(axis=1), 1.0, atol=1e-5)
    assert many.predictions.members is not None
    assert many.predictions.members.shape == (len(pool), 3, 3)
    assert many.doubt is not None
    assert many.doubt.wrong + many.doubt.right == len(pool)


def test_default_asks_no_content_twice_while_others_are_left() -> None:
    made = problem(times=3)
    contender = strategies.contender("default", task="classification", kind="text", members=0)

    outcome = run_trial(made, learner.Learner, contender, 0, settings=Settings(initial=6, batch=6, budget=36))

    assert len(set(made.contents[list(outcome.asked)].tolist())) == 36
