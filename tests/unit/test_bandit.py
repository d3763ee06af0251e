"""Competing strategies in simulated rounds whose truth is known, and the arithmetic of their rewards."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping

import numpy as np
import pytest

from winnow.selection.bandit import Reward, Standing, counted, draw, standing

A, B = "margin+margin_kmeans", "entropy+top_k"
BATCH = 100


def reward(name: str, made_by: str | None, gain: float, *, start: int = 200, error: float = 1.0, labels: int = BATCH):
    return Reward(f"m-{name}", gain, error, start, {f"b-{name}": (made_by, labels)})


def play(rates: Mapping[str, float], *, rounds: int, seed: int, noise: float) -> tuple[list[str], Standing]:
    """Rounds whose gain is what a root law gives any labels, plus the competitor's own rate, plus noise."""
    rng, names = np.random.default_rng(seed), sorted(rates)
    made_by: list[str] = []
    found: list[Reward] = []
    for number in range(rounds):
        drawn = draw(standing(found, names).weights, rng=rng)
        labels = 200 + BATCH * number
        gain = 20.0 * (200 / (labels + BATCH / 2)) ** 1.5 + rates[drawn] + rng.normal(0.0, noise)
        found.append(reward(str(number), drawn, gain, start=labels, error=noise))
        made_by.append(drawn)
    return made_by, standing(found, names)


def test_a_clearly_better_strategy_makes_most_of_the_later_batches() -> None:
    late, named = [], []
    for seed in range(8):
        made_by, end = play({A: 3.0, B: 1.0}, rounds=30, seed=seed, noise=1.0)
        late.append(sum(name == A for name in made_by[15:]) / 15)
        named.append(end.competitors[0].name == A)

    assert np.mean(late) > 0.8
    assert all(named)


def test_equal_strategies_stay_near_equal_and_are_not_called_different() -> None:
    ends = [play({A: 2.0, B: 2.0}, rounds=15, seed=seed, noise=2.0) for seed in range(20)]

    shares = [sum(name == A for name in made_by) / 15 for made_by, _ in ends]
    assert 0.35 < np.mean(shares) < 0.65
    assert sum(end.separated for _, end in ends) <= 3
    unsure = [end for _, end in ends if not end.separated]
    assert all("not separated; " in end.sentence for end in unsure)
    assert max(abs(end.lead - 0.0) for end in unsure) < 3.0


def test_regret_grows_slower_than_the_rounds() -> None:
    def missed(rounds: int) -> float:
        """Points lost to the better strategy, the mean of some lives."""
        return float(
            np.mean(
                [2.0 * play({A: 3.0, B: 1.0}, rounds=rounds, seed=s, noise=2.0)[0].count(B) / rounds for s in range(3)]
            )
        )

    # A regret that grew with the rounds would keep its share of them.
    assert missed(200) < 0.5 * missed(50)


@pytest.mark.parametrize("count", [2, 3, 5])
def test_every_competitor_keeps_its_floor(count: int) -> None:
    names = [f"margin+s{number}" for number in range(count)]
    rounds = [reward(str(n), names[n % count], 9.0 if n % count == 0 else -9.0, start=200 + 100 * n) for n in range(15)]

    weights = standing(rounds, names).weights

    floor = 0.5 / (count * math.sqrt(1 + 15))
    assert min(weights.values()) >= floor - 1e-9
    assert sum(weights.values()) == pytest.approx(1.0)
    assert max(weights, key=lambda name: weights[name]) == names[0]


def test_without_a_reward_all_are_drawn_alike() -> None:
    found = standing([], [A, B, "random+random"])

    assert list(found.weights.values()) == pytest.approx([1 / 3] * 3)
    assert (found.rounds, found.separated, found.regret) == (0, False, 0.0)


def test_late_doubled_and_reordered_rewards_change_nothing() -> None:
    rounds = [reward(str(n), (A, B)[n % 2], 2.0 + 0.3 * n, start=200 + 100 * n) for n in range(4)]
    # Measured again together with the round after it, by a challenger that came late: both batches count already.
    again = Reward("m-late", 5.0, 0.1, 200, {"b-0": (A, 100), "b-1": (B, 100)})
    wanted = standing(rounds, [A, B])

    for order in itertools.permutations([*rounds, again]):
        assert standing([*order, order[0]], [A, B]) == wanted
    assert [one.model for one in counted([again, *rounds])] == ["m-0", "m-1", "m-2", "m-3"]


def test_a_lone_round_cannot_separate_whatever_it_says() -> None:
    found = standing([reward("0", A, 12.0, error=1.0)], [A, B])

    assert not found.separated
    assert found.sentence.startswith(f"after 1 round {A} leads by ")


def test_the_sentence_names_the_rounds_that_are_missing() -> None:
    # Four rounds of equal size, two each; without trend and common part the lead is the difference of the means.
    rounds = [
        reward(str(n), name, gain, start=100_000 + 100 * n, error=3.0)
        for n, (name, gain) in enumerate([(A, 3.0), (B, 1.0), (B, 1.0), (A, 3.0)])
    ]

    found = standing(rounds, [A, B])

    margin = 1.959964 * found.lead_error
    needed = math.ceil(4 * ((margin / found.lead) ** 2 - 1))
    assert 0.0 < found.lead < 2.0  # drawn towards no difference by the prior
    assert found.sentence == (
        f"after 4 rounds {A} leads by {found.lead:.1f} ± {margin:.1f} points per 100 labels: not separated; "
        f"needs about {needed} more rounds"
    )


def test_regret_is_what_the_leader_would_have_gained_in_the_others_rounds() -> None:
    rounds = [
        reward(str(n), (A, B)[n % 2], (4.0, 1.0)[n % 2], start=100_000 + 100 * n, error=0.1, labels=50)
        for n in range(12)
    ]

    found = standing(rounds, [A, B])

    # 300 labels were the second's, and the lead is told for 100.
    assert found.regret == pytest.approx(3.0 * found.lead)
    assert found.regret_error == pytest.approx(3.0 * found.lead_error)
    assert found.lead == pytest.approx(6.0, abs=0.2)  # 3 points for 50 labels
    assert found.separated


def test_a_round_of_two_competitors_is_divided_by_labels() -> None:
    alone = [reward(str(n), (A, B)[n % 2], (4.0, 1.0)[n % 2], start=100_000 + 100 * n, error=0.1) for n in range(8)]
    both = Reward("m-both", 5.0, 0.1, 101_000, {"b-x": (A, 100), "b-y": (B, 100), "b-i": (None, 0)})

    found = standing([*alone, both], [A, B])

    assert {one.name: (one.rounds, one.labels) for one in found.competitors} == {A: (5, 500), B: (5, 500)}
    assert found.lead == pytest.approx(3.0, abs=0.2)


def test_one_round_that_fell_far_out_widens_all_errors() -> None:
    calm = [reward(str(n), (A, B)[n % 2], (3.0, 2.0)[n % 2], start=100_000 + 100 * n, error=0.5) for n in range(10)]
    poisoned = [*calm[:-1], reward("9", B, -30.0, start=100_900, error=0.5)]

    assert standing(poisoned, [A, B]).lead_error > 4 * standing(calm, [A, B]).lead_error
