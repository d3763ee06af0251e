"""The methods that weigh a whole batch: each against its definition, worked out by hand or by enumeration."""

from __future__ import annotations

from collections.abc import Callable
from itertools import product

import numpy as np
import numpy.typing as npt
import pytest

from winnow.selection import Pool, select
from winnow.selection.badge import badge
from winnow.selection.batch_bald import batch_bald
from winnow.selection.cluster_margin import cluster_margin
from winnow.selection.power import power
from winnow.selection.spread import spread
from winnow.selection.typiclust import typiclust

Array = npt.NDArray[np.float32]
RUNS = 3000


def shares(draw: Callable[[np.random.Generator], npt.NDArray[np.int64]], n: int) -> npt.NDArray[np.float64]:
    """(places, n): how often each of n rows stands in a place of the batch, over many seeds."""
    batches = np.array([draw(np.random.default_rng(seed)) for seed in range(RUNS)])
    return np.array([np.bincount(place, minlength=n) / RUNS for place in batches.T])


def surprise(observed: npt.NDArray[np.float64], expected: npt.NDArray[np.float64]) -> float:
    """Chi-square per degree of freedom: about 1 when both are the same distribution."""
    possible = expected > 0
    assert not observed[~possible].any()
    gaps = (observed - expected)[possible] ** 2 / expected[possible]
    return float(RUNS * gaps.sum() / (possible.sum() - 1))


def gradients(n: int, seed: int = 0) -> tuple[Array, Array, npt.NDArray[np.float64]]:
    """Probabilities, embedding, and squared distances (n, n) between the gradients written out."""
    rng = np.random.default_rng(seed)
    embedding = (rng.standard_normal((n, 5)) * rng.uniform(0.2, 2.0, (n, 1))).astype(np.float32)
    probabilities = rng.dirichlet(np.ones(4), size=n).astype(np.float32)
    gaps = probabilities.copy()
    gaps[np.arange(n), probabilities.argmax(axis=1)] -= 1
    whole = (gaps[:, :, None] * embedding[:, None, :]).reshape(n, -1).astype(np.float64)
    return probabilities, embedding, ((whole[:, None] - whole[None]) ** 2).sum(axis=-1)


class TestBadge:
    def test_the_second_and_third_row_have_the_textbooks_distribution(self) -> None:
        n = 9
        probabilities, embedding, distances = gradients(n)
        probabilities[5], embedding[5] = probabilities[7], embedding[7]
        distances[5], distances[:, 5] = distances[7], distances[:, 7]
        distances[5, 5] = 0.0
        gaps = probabilities.copy()
        gaps[np.arange(n), probabilities.argmax(axis=1)] -= 1
        first = int(np.argmax((gaps**2).sum(axis=1) * (embedding**2).sum(axis=1)))
        second = distances[first] / distances[first].sum()
        third = np.zeros(n)
        for row in np.flatnonzero(second):
            closest = np.minimum(distances[first], distances[row])
            third += second[row] * closest / closest.sum()

        observed = shares(lambda rng: badge(probabilities, embedding, 3, rng=rng), n)

        assert observed[0, first] == 1.0
        assert surprise(observed[1], second) < 2.5
        assert surprise(observed[2], third) < 2.5

    def test_starting_at_the_origin_draws_the_first_by_its_length(self) -> None:
        probabilities, embedding, _ = gradients(9)
        gaps = probabilities.copy()
        gaps[np.arange(9), probabilities.argmax(axis=1)] -= 1
        lengths = ((gaps**2).sum(axis=1) * (embedding**2).sum(axis=1)).astype(np.float64)

        observed = shares(lambda rng: badge(probabilities, embedding, 1, rng=rng, origin=True), 9)[0]

        assert surprise(observed, lengths / lengths.sum()) < 2.5

    def test_of_copies_one_is_taken(self) -> None:
        probabilities, embedding, _ = gradients(20)
        three_times = np.tile(np.arange(20), 3)

        rows = badge(probabilities[three_times], embedding[three_times], 60, rng=np.random.default_rng(0))

        assert sorted(rows % 20) == list(range(20))

    def test_a_sure_model_leaves_nothing_to_choose(self) -> None:
        sure = np.eye(3, dtype=np.float32)

        assert len(badge(sure, np.ones((3, 2), dtype=np.float32), 3, rng=np.random.default_rng(0))) == 1


class TestSpread:
    POINTS = np.random.default_rng(3).standard_normal((300, 4)).astype(np.float32)
    NORMS = (POINTS**2).sum(axis=1)

    def test_old_distances_are_renewed_before_much_is_proposed_in_vain(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Few heavy rows hold nearly all the mass, and lose it to the first of them: the worst case of rejection."""
        proposed: list[int] = []
        propose = spread.__globals__["_propose"]
        monkeypatch.setattr("winnow.selection.spread._propose", lambda *given: proposed.append(1) or propose(*given))
        points = np.vstack([self.POINTS, np.full((100, 4), 1e3, dtype=np.float32)])

        rows = spread([points], 60, norms=(points**2).sum(axis=1), first=0, rng=np.random.default_rng(0))

        assert len(set(rows.tolist())) == 60
        assert (rows >= 300).sum() == 1
        assert len(proposed) < 30

    def test_weights_draw_the_first_and_scale_the_rest(self) -> None:
        weights = np.zeros(300)
        weights[[4, 7, 9]] = [1.0, 2.0, 5.0]

        rows = spread([self.POINTS], 10, norms=self.NORMS, weights=weights, rng=np.random.default_rng(0))

        assert sorted(rows) == [4, 7, 9]


class TestPower:
    def test_the_first_place_is_proportional_to_the_score_to_the_power(self) -> None:
        scores = np.array([1.0, 2.0, 3.0, 0.0])

        observed = shares(lambda rng: power(scores, 2, rng=rng, beta=2.0), 4)[0]

        assert surprise(observed, np.array([1.0, 4.0, 9.0, 0.0]) / 14) < 3

    def test_the_second_place_is_drawn_from_the_rest(self) -> None:
        scores = np.array([1.0, 2.0, 3.0])
        expected = np.array(
            [2 / 6 * 1 / 4 + 3 / 6 * 1 / 3, 1 / 6 * 2 / 5 + 3 / 6 * 2 / 3, 1 / 6 * 3 / 5 + 2 / 6 * 3 / 4]
        )

        assert surprise(shares(lambda rng: power(scores, 2, rng=rng), 3)[1], expected) < 3

    def test_a_power_of_zero_is_chance(self) -> None:
        observed = shares(lambda rng: power(np.array([0.0, 1.0, 9.0]), 1, rng=rng, beta=0.0), 3)[0]

        assert surprise(observed, np.full(3, 1 / 3)) < 3


class TestClusterMargin:
    def test_takes_by_turns_the_smallest_cluster_first(self) -> None:
        embedding = np.array([[0, 0]] * 6 + [[50, 0]] * 3 + [[0, 50]] * 2, dtype=np.float32)
        embedding += np.arange(11, dtype=np.float32)[:, None] / 100
        scores = np.linspace(1.0, 0.5, 11).astype(np.float32)

        rows = cluster_margin(scores, embedding, 3, rng=np.random.default_rng(0))

        assert rows.tolist() == [9, 6, 0]

    def test_a_cluster_that_is_used_up_is_passed_over(self) -> None:
        embedding = np.array([[0, 0]] * 7 + [[50, 0]], dtype=np.float32)
        embedding[:7, 1] = np.linspace(0, 0.1, 7)
        scores = np.linspace(1.0, 0.5, 8).astype(np.float32)

        rows = select("cluster_margin", Pool(8, scores=scores, embedding=embedding), 8, rng=np.random.default_rng(0))

        assert sorted(rows.tolist()) == list(range(8))

    def test_takes_only_from_the_ten_best_scores_a_place(self) -> None:
        rng = np.random.default_rng(0)
        scores = rng.random(500)

        rows = cluster_margin(scores, rng.standard_normal((500, 3)).astype(np.float32), 4, rng=rng)

        assert set(rows.tolist()) <= set(np.argsort(-scores)[:40].tolist())


def joint_information(members: npt.NDArray[np.float64]) -> float:
    """I(all labels; member) of (rows, members, classes), by going through every way to label the rows."""
    rows, size, classes = members.shape
    total = 0.0
    for labels in product(range(classes), repeat=rows):
        by_member = np.prod([members[row, :, label] for row, label in enumerate(labels)], axis=0)
        mean = by_member.mean()
        if mean > 0:
            total -= mean * np.log(mean)
        total += float((by_member * np.log(np.maximum(by_member, 1e-300))).sum()) / size
    return total


class TestBatchBald:
    @pytest.mark.parametrize("seed", range(5))
    def test_each_row_adds_most_to_the_information_of_all_labels_together(self, seed: int) -> None:
        members = np.random.default_rng(seed).dirichlet(np.full(3, 0.5), size=(10, 4)).astype(np.float32)
        greedy: list[int] = []
        for _ in range(4):
            gains = [
                -1.0 if row in greedy else joint_information(members[[*greedy, row]].astype(np.float64))
                for row in range(10)
            ]
            greedy.append(int(np.argmax(gains)))

        rows = batch_bald(members, 4, rng=np.random.default_rng(0))

        assert rows.tolist() == greedy

    def test_a_sample_of_the_labelings_is_nearly_as_good_as_all(self, monkeypatch: pytest.MonkeyPatch) -> None:
        members = np.random.default_rng(1).dirichlet(np.full(3, 2.0), size=(40, 6)).astype(np.float32)
        exact = batch_bald(members, 5, rng=np.random.default_rng(0))

        monkeypatch.setattr("winnow.selection.batch_bald._CONFIGURATIONS", 60)  # of 3 to the 4th
        sampled = batch_bald(members, 5, rng=np.random.default_rng(0))

        told = joint_information(members[sampled].astype(np.float64))
        assert told > 0.98 * joint_information(members[exact].astype(np.float64))

    def test_copies_of_the_best_record_are_not_asked_again(self) -> None:
        torn, odd = [[1.0, 0.0], [0.0, 1.0], [0.0, 1.0]], [[0.4, 0.6], [0.4, 0.6], [0.9, 0.1]]
        members = np.array([torn] * 300 + [odd], dtype=np.float32)

        assert batch_bald(members, 2, rng=np.random.default_rng(0)).tolist() == [0, 300]

    def test_members_that_agree_leave_the_order_as_it_is(self) -> None:
        members = np.repeat(np.array([[[0.3, 0.7]]], dtype=np.float32), 5, axis=0).repeat(3, axis=1)

        assert batch_bald(members, 3, rng=np.random.default_rng(0)).tolist() == [0, 1, 2]


class TestTypiClust:
    def test_takes_the_densest_of_the_largest_clusters_without_a_label(self) -> None:
        """Piles of 8, 7 and 6 records: five around a middle, the rest aside. The middle is nearest to three others."""
        angles = 2 * np.pi * np.arange(5) / 5
        ring = np.column_stack([np.cos(angles), np.sin(angles)])
        pile = np.vstack([[[3, 0], [0, 3]], ring, [[0, 0]]])
        embedding = np.vstack([pile, pile[1:] + np.array([100, 0]), pile[2:] + np.array([0, 100])]).astype(np.float32)

        rows = typiclust(embedding, 2, rng=np.random.default_rng(0), labeled=np.array([[1, 1]], dtype=np.float32))

        assert rows.tolist() == [8 + 6, 8 + 7 + 5]

    def test_outliers_are_no_clusters(self) -> None:
        rng = np.random.default_rng(0)
        pile = rng.standard_normal((30, 2)).astype(np.float32)
        far = np.array([[1e3, 0], [0, 1e3], [-1e3, 0]], dtype=np.float32)

        rows = typiclust(np.vstack([far, pile]), 4, rng=rng)

        assert set(rows.tolist()).isdisjoint({0, 1, 2})
        assert len(set(rows.tolist())) == 4

    def test_a_cluster_too_large_to_compare_all_with_all_still_finds_its_densest_spot(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        rng = np.random.default_rng(0)
        dense = (0.01 * rng.standard_normal((60, 3)) + 1.0).astype(np.float32)
        embedding = np.vstack([rng.standard_normal((1500, 3)).astype(np.float32), dense])
        exact = typiclust(embedding, 1, rng=np.random.default_rng(0))

        monkeypatch.setattr("winnow.selection.typiclust._SAMPLE", 256)
        quick = typiclust(embedding, 1, rng=np.random.default_rng(0))

        assert exact[0] >= 1500
        assert quick.tolist() == exact.tolist()
