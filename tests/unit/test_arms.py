from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from winnow.errors import BadInput, ConfigError
from winnow.selection import SELECTORS
from winnow.selection.arms import ArmPolicy, Choice, ScoredPool, divide, plan_arms

POLICY = ArmPolicy("margin", "margin_kmeans", control=0.2, evaluation_target=30, evaluation_share=0.4)


def make_pool(n: int, *, seed: int = 0, dim: int = 4, copies: int = 1, **columns: Any) -> ScoredPool:
    rng = np.random.default_rng(seed)
    given: dict[str, Any] = {
        "ids": [f"r{row:04d}" for row in range(n)],
        "roles": rng.choice(["train", "evaluation", "reward"], n, p=[0.7, 0.2, 0.1]).tolist(),
        "keys": rng.random(n),
        "clusters": [f"c{row // copies}" for row in range(n)],
        "scores": rng.random(n, dtype=np.float32),
        "embedding": rng.standard_normal((n, dim)).astype(np.float16),
        "predicted": rng.choice(["common", "rare", "rarer"], n, p=[0.8, 0.15, 0.05]).tolist(),
        "probabilities": rng.dirichlet(np.ones(3), n).astype(np.float32),
        "members": rng.dirichlet(np.ones(3), (n, 2)).astype(np.float32),
    }
    return ScoredPool(**{**given, **columns})


def plan(pool: ScoredPool, k: int, policy: ArmPolicy = POLICY, *, seed: int = 0, **state: Any) -> list[Choice]:
    return plan_arms(pool, k, policy=policy, rng=np.random.default_rng(seed), **state)


def ids(choices: list[Choice], arm: str) -> list[str]:
    return [choice.id for choice in choices if choice.arm == arm]


def lowest(pool: ScoredPool, role: str, n: int) -> list[str]:
    rows = [row for row in np.argsort(pool.keys) if pool.roles[row] == role]
    return [pool.ids[row] for row in rows[:n]]


class TestDivide:
    @pytest.mark.parametrize(
        ("k", "labeled", "expected"),
        [
            (0, 0, [0, 0, 0, 0, 0]),
            (1, 0, [1, 0, 0, 0, 0]),
            (10, 0, [4, 1, 2, 1, 2]),
            (10, 28, [2, 1, 2, 1, 4]),
            (10, 30, [0, 1, 2, 1, 6]),
            (100, 0, [30, 10, 20, 10, 30]),
        ],
    )
    def test_shares_are_rounded_and_evaluation_stops_at_its_target(
        self, k: int, labeled: int, expected: list[int]
    ) -> None:
        policy = replace(POLICY, reward=0.1, rare=0.1, rare_classes=("rare",))

        places = divide(k, policy, evaluation_labeled=labeled)

        assert list(places) == ["evaluation", "reward", "control", "rare", "active"]
        assert list(places.values()) == expected

    def test_shares_beyond_the_whole_are_scaled_down(self) -> None:
        policy = replace(POLICY, control=0.6, evaluation_share=0.6, evaluation_target=1000)

        places = divide(10, policy, evaluation_labeled=0)

        assert places == {"evaluation": 5, "reward": 0, "control": 5, "rare": 0, "active": 0}

    def test_numbers_are_of_no_rare_class(self) -> None:
        policy = replace(POLICY, rare=0.2, rare_classes=("rare",))

        choices = plan(make_pool(200, predicted=None), 20, policy)

        assert len(choices) == 20
        assert ids(choices, "rare") == []

    def test_a_rare_share_without_rare_classes_is_the_active_arms(self) -> None:
        assert divide(10, replace(POLICY, rare=0.5, control=0.0), evaluation_labeled=99)["active"] == 10

    def test_a_small_share_still_gets_a_place(self) -> None:
        assert divide(10, replace(POLICY, control=0.01), evaluation_labeled=99)["control"] == 1

    @given(
        k=st.integers(0, 60),
        labeled=st.integers(0, 40),
        shares=st.tuples(*[st.floats(0, 1)] * 4),
    )
    def test_places_always_sum_to_the_batch(
        self, k: int, labeled: int, shares: tuple[float, float, float, float]
    ) -> None:
        control, rare, evaluation, reward = shares
        policy = replace(
            POLICY, control=control, rare=rare, rare_classes=("rare",), evaluation_share=evaluation, reward=reward
        )

        places = divide(k, policy, evaluation_labeled=labeled)

        assert sum(places.values()) == k
        assert min(places.values()) >= 0
        assert places["evaluation"] <= max(0, 30 - labeled)


@pytest.mark.parametrize("selector", sorted(SELECTORS))
@pytest.mark.parametrize("bootstrap", [False, True])
class TestEveryBatch:
    """What holds whatever the selector and the phase."""

    def policy(self, selector: str, *, bootstrap: bool) -> ArmPolicy:
        policy = replace(POLICY, reward=0.1, rare=0.1, rare_classes=("rare", "rarer"))
        if bootstrap:
            cold = "kmeans" if SELECTORS[selector].needs - {"embedding"} else selector
            return replace(policy, cold_selector=cold)
        return replace(policy, selector=selector)

    @pytest.mark.parametrize(("n", "k"), [(0, 5), (1, 5), (3, 5), (40, 0), (40, 60), (300, 25), (300, -1)])
    def test_never_more_than_k_never_one_twice_never_two_of_a_cluster(
        self, selector: str, bootstrap: bool, n: int, k: int
    ) -> None:
        pool = make_pool(n, copies=2)

        choices = plan(pool, k, self.policy(selector, bootstrap=bootstrap), bootstrap=bootstrap)

        names = [choice.id for choice in choices]
        clusters = [pool.clusters[pool.ids.index(name)] for name in names]
        assert len(names) <= max(k, 0)
        assert len(set(names)) == len(names)
        assert len(set(clusters)) == len(clusters)
        for choice in choices:
            role = pool.roles[pool.ids.index(choice.id)]
            assert role == (choice.arm if choice.arm in ("evaluation", "reward") else "train")

    def test_the_same_seed_gives_the_same_batch_in_any_order_of_the_pool(self, selector: str, bootstrap: bool) -> None:
        pool = make_pool(200)
        order = np.random.default_rng(9).permutation(200)
        shuffled = ScoredPool(
            ids=[pool.ids[row] for row in order],
            roles=[pool.roles[row] for row in order],
            keys=pool.keys[order],
            clusters=[pool.clusters[row] for row in order],
            scores=pool.scores[order],
            embedding=pool.embedding[order],
            predicted=[pool.predicted[row] for row in order],
            probabilities=pool.probabilities[order],
            members=pool.members[order],
        )
        policy = self.policy(selector, bootstrap=bootstrap)

        first = plan(pool, 20, policy, bootstrap=bootstrap, seed=4)
        second = plan(shuffled, 20, policy, bootstrap=bootstrap, seed=4)

        assert first == second
        assert len(first) == 20

    def test_what_is_excluded_is_never_asked(self, selector: str, bootstrap: bool) -> None:
        excluded = np.arange(200) % 3 != 0
        pool = make_pool(200, excluded=excluded)

        choices = plan(pool, 30, self.policy(selector, bootstrap=bootstrap), bootstrap=bootstrap)

        assert len(choices) == 30
        assert not any(excluded[pool.ids.index(choice.id)] for choice in choices)


def test_judging_arms_are_the_lowest_keys_of_their_role() -> None:
    pool = make_pool(300)

    choices = plan(pool, 20, replace(POLICY, reward=0.1))

    assert ids(choices, "evaluation") == lowest(pool, "evaluation", 8)
    assert ids(choices, "reward") == lowest(pool, "reward", 2)
    assert ids(choices, "control") == lowest(pool, "train", 4)
    first = next(choice for choice in choices if choice.arm == "control")
    assert (first.strategy, first.rank) == ("uniform", 1)
    assert first.score == pool.keys[pool.ids.index(first.id)]


def test_the_active_arm_names_its_strategy_and_score() -> None:
    pool = make_pool(300)

    choices = plan(pool, 20, replace(POLICY, selector="top_k", near_duplicate_distance=0.0))

    active = [choice for choice in choices if choice.arm == "active"]
    control = set(ids(choices, "control"))
    expected = [
        pool.ids[row]
        for row in np.argsort(-pool.scores, kind="stable")
        if pool.roles[row] == "train" and pool.ids[row] not in control
    ]
    assert [choice.id for choice in active] == expected[: len(active)]
    assert [choice.rank for choice in active] == list(range(1, len(active) + 1))
    assert {choice.strategy for choice in active} == {"margin"}
    assert active[0].score == pytest.approx(float(pool.scores[pool.ids.index(active[0].id)]))


def test_the_cold_phase_covers_and_trusts_no_score_or_prediction() -> None:
    policy = replace(POLICY, rare=0.2, rare_classes=("rare",), cold_selector="k_center")

    choices = plan(make_pool(300), 20, policy, bootstrap=True)

    active = [choice for choice in choices if choice.arm == "active"]
    assert {(choice.strategy, choice.score) for choice in active} == {("coverage:k_center", None)}
    assert ids(choices, "rare") == []
    assert len(active) == 8


def test_coverage_does_not_repeat_what_is_labeled() -> None:
    embedding = np.array([[0, 9], [9, 0], [5, 5]], dtype=np.float32)
    pool = make_pool(3, roles=["train"] * 3, embedding=embedding, labeled=embedding[:1])
    policy = replace(POLICY, control=0.0, cold_selector="k_center")

    choices = plan(pool, 1, policy, bootstrap=True, evaluation_labeled=30)

    assert [choice.id for choice in choices] == ["r0001"]


def test_rare_classes_take_turns_by_score() -> None:
    pool = make_pool(
        6,
        roles=["train"] * 6,
        scores=np.array([0.9, 0.8, 0.7, 0.1, 0.2, 0.99], dtype=np.float32),
        predicted=["rare", "rare", "rare", "rarer", "rarer", "common"],
    )
    policy = replace(POLICY, control=0.0, rare=0.8, rare_classes=("rare", "rarer", "never"))

    choices = plan(pool, 5, policy, evaluation_labeled=30)

    assert ids(choices, "rare") == ["r0000", "r0004", "r0001", "r0003"]
    assert ids(choices, "active") == ["r0005"]


def test_places_no_rare_record_can_fill_go_to_the_active_arm() -> None:
    pool = make_pool(50, roles=["train"] * 50, predicted=["common"] * 50)

    choices = plan(pool, 10, replace(POLICY, rare=0.5, rare_classes=("rare",)), evaluation_labeled=30)

    assert len(ids(choices, "active")) == 8
    assert len(ids(choices, "control")) == 2


@pytest.mark.parametrize(("selector", "bootstrap"), [("top_k", False), ("margin_kmeans", False), ("kmeans", True)])
def test_the_active_arm_holds_no_near_duplicates_while_others_are_left(selector: str, bootstrap: bool) -> None:
    rng = np.random.default_rng(0)
    themes = np.repeat(rng.standard_normal((12, 16)), 10, axis=0)
    embedding = (themes + 0.001 * rng.standard_normal(themes.shape)).astype(np.float32)
    pool = make_pool(120, roles=["train"] * 120, embedding=embedding)
    policy = replace(POLICY, selector=selector, control=0.0)

    choices = plan(pool, 12, policy, evaluation_labeled=30, bootstrap=bootstrap)

    assert sorted(int(name[1:]) // 10 for name in ids(choices, "active")) == list(range(12))


def test_near_duplicates_fill_only_as_control_when_nothing_else_is_left() -> None:
    pool = make_pool(9, roles=["train"] * 9, embedding=np.ones((9, 3), dtype=np.float32))

    choices = plan(pool, 4, replace(POLICY, control=0.0), evaluation_labeled=30)

    assert len(ids(choices, "active")) == 1
    assert len(ids(choices, "control")) == 3


def test_the_search_for_distinct_records_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("winnow.selection.active._ROUNDS", 1)
    embedding = np.vstack([np.ones((8, 2)), np.eye(2)]).astype(np.float32)
    pool = make_pool(10, roles=["train"] * 10, embedding=embedding)

    choices = plan(pool, 9, replace(POLICY, control=0.0), bootstrap=True, evaluation_labeled=30)

    assert len(choices) == 9
    assert len(ids(choices, "active")) == 3


def test_of_a_cluster_the_active_arm_takes_the_best_score() -> None:
    pool = make_pool(4, roles=["train"] * 4, copies=2, scores=np.array([0.1, 0.9, 0.8, 0.2], dtype=np.float32))

    choices = plan(pool, 4, replace(POLICY, control=0.0, selector="top_k"), evaluation_labeled=30)

    assert ids(choices, "active") == ["r0001", "r0002"]


@settings(max_examples=40, deadline=None)
@given(n=st.integers(0, 60), k=st.integers(0, 40), seed=st.integers(0, 99), labeled=st.integers(0, 40))
def test_evaluation_never_outgrows_its_target(n: int, k: int, seed: int, labeled: int) -> None:
    choices = plan(make_pool(n, seed=seed), k, evaluation_labeled=labeled, seed=seed)

    assert len(ids(choices, "evaluation")) <= max(0, 30 - labeled)
    assert len(choices) <= k


def test_columns_that_disagree_are_refused() -> None:
    with pytest.raises(BadInput, match="3 candidate ids but 2 keys"):
        make_pool(3, keys=np.zeros(2))


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"control": 1.2}, "control is 1.2"),
        ({"selector": "guess"}, "selector 'guess' is unknown"),
        ({"cold_selector": "top_k"}, "needs scores, which a bootstrap model cannot give"),
    ],
)
def test_a_policy_that_cannot_work_is_refused(wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        replace(POLICY, **wrong)


def test_a_class_with_few_labels_is_worth_more_and_the_score_is_told_as_it_was() -> None:
    # Scores of 0.5 each but for the last, 0.3: with twice its worth it comes first, and its score stays 0.3.
    scores = np.array([0.5, 0.5, 0.5, 0.3], dtype=np.float32)
    pool = make_pool(4, roles=["train"] * 4, scores=scores, worth=np.array([1, 1, 1, 2], dtype=np.float32))
    policy = replace(POLICY, selector="top_k", control=0.0)

    (choice,) = plan(pool, 1, policy, evaluation_labeled=30)

    assert (choice.id, choice.score) == (pool.ids[3], pytest.approx(0.3))
