from __future__ import annotations

from itertools import combinations

import numpy as np
import numpy.typing as npt
import pytest
from scipy.spatial.distance import cdist

from winnow.errors import BadInput, ConfigError
from winnow.selection import SELECTORS, Pool, select
from winnow.selection.duplicates import suppress_near_duplicates
from winnow.selection.k_center import k_center
from winnow.selection.kmeans import kmeans, representatives
from winnow.selection.margin_kmeans import margin_kmeans
from winnow.selection.top_k import top_k

Array = npt.NDArray[np.float32]
EVERY = sorted(SELECTORS)


def make_pool(n: int, *, dim: int = 3, seed: int = 0, labeled: int = 0) -> Pool:
    rng = np.random.default_rng(seed)
    return Pool(
        size=n,
        scores=rng.random(n, dtype=np.float32),
        embedding=rng.standard_normal((n, dim), dtype=np.float32),
        labeled=rng.standard_normal((labeled, dim), dtype=np.float32) if labeled else None,
    )


@pytest.mark.parametrize("name", EVERY)
class TestContract:
    """What every selector of the table promises."""

    @pytest.mark.parametrize(("n", "k"), [(0, 3), (1, 1), (1, 5), (2, 0), (5, 5), (5, 9), (40, 7), (3000, 20), (5, -1)])
    def test_gives_the_right_number_of_different_rows_in_range(self, name: str, n: int, k: int) -> None:
        rows = select(name, make_pool(n), k, rng=np.random.default_rng(0))

        assert rows.dtype == np.int64
        assert len(rows) == len(set(rows.tolist())) == max(0, min(n, k))
        assert all(0 <= row < n for row in rows)

    def test_the_same_seed_gives_the_same_rows(self, name: str) -> None:
        first = select(name, make_pool(400), 12, rng=np.random.default_rng(5))
        second = select(name, make_pool(400), 12, rng=np.random.default_rng(5))

        assert first.tolist() == second.tolist()

    def test_leaves_its_input_alone(self, name: str) -> None:
        pool, untouched = make_pool(100), make_pool(100)
        assert pool.scores is not None
        assert pool.embedding is not None

        select(name, pool, 10, rng=np.random.default_rng(0))

        assert np.array_equal(pool.scores, untouched.scores)  # type: ignore[arg-type]
        assert np.array_equal(pool.embedding, untouched.embedding)  # type: ignore[arg-type]

    @pytest.mark.parametrize("n", [4, 3000])
    def test_a_pool_of_identical_records_still_fills_the_batch(self, name: str, n: int) -> None:
        pool = Pool(n, scores=np.ones(n, dtype=np.float32), embedding=np.ones((n, 2), dtype=np.float32))

        rows = select(name, pool, 3, rng=np.random.default_rng(0))

        assert len(set(rows.tolist())) == 3

    def test_scores_of_zero_are_no_obstacle(self, name: str) -> None:
        pool = Pool(9, scores=np.zeros(9, dtype=np.float32), embedding=np.eye(9, dtype=np.float32))

        assert len(set(select(name, pool, 4, rng=np.random.default_rng(0)).tolist())) == 4

    def test_what_is_needed_and_missing_is_refused(self, name: str) -> None:
        for need in SELECTORS[name].needs:
            pool = Pool(**{**make_pool(5).__dict__, need: None})
            with pytest.raises(ConfigError, match=f"selector {name} needs {need}"):
                select(name, pool, 2, rng=np.random.default_rng(0))

    def test_says_where_it_comes_from(self, name: str) -> None:
        selector = SELECTORS[name]

        assert selector.name == name
        assert selector.source
        assert selector.sentence.endswith(".")


@pytest.mark.parametrize("name", ["top_k", "k_center"])
def test_selectors_without_chance_choose_the_same_records_in_any_order(name: str) -> None:
    pool = make_pool(300)
    assert pool.scores is not None
    assert pool.embedding is not None
    order = np.random.default_rng(1).permutation(300)
    shuffled = Pool(300, scores=pool.scores[order], embedding=pool.embedding[order])

    rows = select(name, pool, 15, rng=np.random.default_rng(0))
    again = select(name, shuffled, 15, rng=np.random.default_rng(0))

    assert order[again].tolist() == rows.tolist()


@pytest.mark.parametrize("name", ["kmeans", "margin_kmeans"])
def test_clustering_selectors_find_well_separated_groups_in_any_order(name: str) -> None:
    rng = np.random.default_rng(0)
    corners = np.array([[0, 0], [0, 50], [50, 0], [50, 50]], dtype=np.float32)
    embedding = np.repeat(corners, 10, axis=0) + rng.standard_normal((40, 2)).astype(np.float32)
    group = np.repeat(np.arange(4), 10)
    for seed in range(5):
        order = np.random.default_rng(seed).permutation(40)
        pool = Pool(40, scores=np.ones(40, dtype=np.float32), embedding=embedding[order])

        rows = select(name, pool, 4, rng=np.random.default_rng(seed))

        assert sorted(group[order][rows].tolist()) == [0, 1, 2, 3]


def test_an_unknown_selector_is_refused_with_the_names() -> None:
    with pytest.raises(ConfigError, match=r"'badge' is unknown; choose one of k_center, kmeans, .*top_k"):
        select("badge", make_pool(2), 1, rng=np.random.default_rng(0))


def test_a_pool_whose_columns_disagree_is_refused() -> None:
    with pytest.raises(BadInput, match="3 records but 2 rows of scores"):
        select("top_k", Pool(3, scores=np.zeros(2, dtype=np.float32)), 1, rng=np.random.default_rng(0))


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_values_that_are_not_numbers_are_refused_with_the_row(bad: float) -> None:
    pool = make_pool(4)
    assert pool.embedding is not None
    pool.embedding[2, 1] = bad

    with pytest.raises(BadInput, match="embedding of row 2"):
        select("k_center", pool, 1, rng=np.random.default_rng(0))


class TestTopK:
    def test_ties_go_to_the_first_rows(self) -> None:
        assert top_k(np.array([1.0, 2.0, 2.0, 2.0, 3.0]), 3).tolist() == [4, 1, 2]

    def test_agrees_with_a_stable_sort(self) -> None:
        scores = np.random.default_rng(0).integers(0, 20, 500).astype(np.float32)

        assert top_k(scores, 60).tolist() == np.argsort(-scores, kind="stable")[:60].tolist()


def textbook_k_center(embedding: Array, k: int, start: list[int]) -> list[int]:
    taken = list(start)
    while len(taken) < k:
        closest = cdist(embedding, embedding[taken]).min(axis=1)
        closest[taken] = -1
        taken.append(int(closest.argmax()))
    return taken


class TestKCenter:
    @pytest.mark.parametrize("n", [50, 700])
    def test_is_the_textbook_greedy(self, n: int, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("winnow.selection.k_center._FIRST_BLOCK", 16)  # makes the lazy part work on a small pool
        embedding = np.random.default_rng(n).standard_normal((n, 6)).astype(np.float32)

        rows = k_center(embedding, 40).tolist()

        assert rows == textbook_k_center(embedding, 40, rows[:1])

    def test_starts_at_the_record_nearest_the_mean(self) -> None:
        embedding = np.array([[0, 0], [4, 0], [2, 1], [2, 9]], dtype=np.float32)  # mean (2, 2.5)

        assert k_center(embedding, 1).tolist() == [2]

    def test_what_is_labeled_counts_as_covered(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("winnow.selection.k_center._FIRST_BLOCK", 16)
        rng = np.random.default_rng(0)
        embedding = rng.standard_normal((300, 4)).astype(np.float32)
        both = np.vstack([embedding, embedding[:20]])

        rows = k_center(embedding, 15, labeled=embedding[:20])

        assert rows.tolist() == textbook_k_center(both[:300], 35, list(range(20)))[20:]

    def test_no_places_take_nothing(self) -> None:
        assert k_center(np.ones((3, 2), dtype=np.float32), 0).tolist() == []

    def test_an_empty_set_of_labels_is_none(self) -> None:
        embedding = np.random.default_rng(0).standard_normal((30, 4)).astype(np.float32)

        assert k_center(embedding, 5, labeled=embedding[:0]).tolist() == k_center(embedding, 5).tolist()

    def test_covers_within_twice_the_best_radius(self) -> None:
        embedding = np.random.default_rng(2).standard_normal((12, 2)).astype(np.float32)
        distances = cdist(embedding, embedding)
        best = min(distances[list(centers)].min(axis=0).max() for centers in combinations(range(12), 3))

        radius = distances[k_center(embedding, 3)].min(axis=0).max()

        assert radius <= 2 * best


class TestKMeans:
    def test_two_clear_clusters_have_their_means_as_centers(self) -> None:
        points = np.array([[0, 0], [2, 0], [10, 0], [12, 0]], dtype=np.float32)

        found = kmeans(points, 2, rng=np.random.default_rng(0))

        assert sorted(found.centers[:, 0].tolist()) == [1.0, 11.0]
        assert found.inertia == 4.0

    def test_weights_move_the_means(self) -> None:
        points = np.array([[0, 0], [4, 0]], dtype=np.float32)

        found = kmeans(points, 1, rng=np.random.default_rng(0), weights=np.array([3.0, 1.0]))

        assert found.centers.tolist() == [[1.0, 0.0]]
        assert found.inertia == 3 * 1 + 1 * 9

    def test_points_of_no_weight_neither_move_nor_break_anything(self) -> None:
        points = np.array([[0, 0], [1, 0], [7, 0], [9, 9]], dtype=np.float32)

        found = kmeans(points, 3, rng=np.random.default_rng(0), weights=np.array([1.0, 0.0, 0.0, 0.0]))

        assert found.inertia == 0.0
        assert np.isfinite(found.centers).all()

    def test_weights_of_zero_throughout_still_give_clusters(self) -> None:
        points = np.array([[0, 0], [9, 9]], dtype=np.float32)

        found = kmeans(points, 2, rng=np.random.default_rng(0), weights=np.zeros(2))

        assert found.inertia == 0.0
        assert np.isfinite(found.centers).all()

    def test_is_as_good_as_scikit_learn(self) -> None:
        cluster = pytest.importorskip("sklearn.cluster")
        rng = np.random.default_rng(0)
        points = (rng.standard_normal((600, 5)) + 6 * rng.integers(0, 4, (600, 1))).astype(np.float32)
        theirs = cluster.KMeans(8, n_init=10, random_state=0).fit(points).inertia_

        ours = min(kmeans(points, 8, rng=np.random.default_rng(seed), max_iter=100).inertia for seed in range(10))

        assert ours <= 1.02 * theirs

    def test_a_large_input_is_fitted_on_a_sample_and_assigned_whole(self) -> None:
        rng = np.random.default_rng(0)
        points = (rng.standard_normal((1000, 2)) + 40 * rng.integers(0, 2, (1000, 1))).astype(np.float32)

        found = kmeans(points, 2, rng=np.random.default_rng(0))

        assert found.assignment.shape == (1000,)
        assert len(set(found.assignment[points[:, 0] > 20].tolist())) == 1

    def test_no_points_and_no_clusters_give_nothing(self) -> None:
        found = kmeans(np.zeros((0, 2), dtype=np.float32), 3, rng=np.random.default_rng(0))

        assert found.inertia == 0.0
        assert representatives(found).tolist() == []


class TestMarginKMeans:
    def test_takes_only_from_the_ten_best_scores_a_place(self) -> None:
        pool = make_pool(500)
        assert pool.scores is not None
        assert pool.embedding is not None

        rows = margin_kmeans(pool.scores, pool.embedding, 5, rng=np.random.default_rng(0))

        assert set(rows.tolist()) <= set(top_k(pool.scores, 50).tolist())
        assert np.all(np.diff(pool.scores[rows]) <= 0)

    def test_an_empty_pool_gives_nothing(self) -> None:
        nothing = np.zeros((0, 2), dtype=np.float32)

        assert margin_kmeans(nothing[:, 0], nothing, 3, rng=np.random.default_rng(0)).tolist() == []


class TestNearDuplicates:
    EMBEDDING = np.array([[1, 0], [2, 0.001], [0, 1], [0, 0], [0, 0], [1, 1]], dtype=np.float32)

    def test_keeps_the_first_of_each_direction(self) -> None:
        order = np.array([1, 0, 2, 3, 4, 5])

        kept = suppress_near_duplicates(self.EMBEDDING, order, threshold=0.02)

        assert kept.tolist() == [1, 2, 3, 4, 5]

    def test_a_wide_threshold_keeps_less_and_zero_keeps_all(self) -> None:
        order = np.arange(6)

        assert suppress_near_duplicates(self.EMBEDDING, order, threshold=0.5).tolist() == [0, 2, 3, 4]
        assert suppress_near_duplicates(self.EMBEDDING, order, threshold=0.0).tolist() == order.tolist()

    def test_stops_at_the_limit(self) -> None:
        assert suppress_near_duplicates(self.EMBEDDING, np.arange(6), threshold=0.02, limit=2).tolist() == [0, 2]
        assert suppress_near_duplicates(self.EMBEDDING, np.arange(6), threshold=0.02, limit=0).tolist() == []

    def test_what_was_taken_before_counts(self) -> None:
        against = np.array([[0, 3]], dtype=np.float32)

        kept = suppress_near_duplicates(self.EMBEDDING, np.array([0, 2, 5]), threshold=0.02, against=against)

        assert kept.tolist() == [0, 5]

    def test_blocks_see_each_other(self, monkeypatch: pytest.MonkeyPatch) -> None:
        rng = np.random.default_rng(0)
        embedding = np.repeat(rng.standard_normal((40, 8)).astype(np.float32), 3, axis=0)
        order = rng.permutation(120)
        whole = suppress_near_duplicates(embedding, order, threshold=0.001)

        monkeypatch.setattr("winnow.selection.duplicates._BLOCK", 7)
        blocked = suppress_near_duplicates(embedding, order, threshold=0.001)

        assert len(whole) == 40
        assert blocked.tolist() == whole.tolist()


def test_the_shortlist_holds_as_many_records_as_are_expected_to_be_wrong() -> None:
    # Forty records on a line, the doubtful ones at one end: ten of them share the expected errors.
    line = np.linspace(0, 1, 40, dtype=np.float32)[:, None]
    scores = np.linspace(0, 1, 40, dtype=np.float32)
    nearly_sure = np.full(40, 0.99, np.float32)
    lost = np.zeros(40, np.float32)

    few = margin_kmeans(scores, line, 2, rng=np.random.default_rng(0), confidence=nearly_sure)
    many = margin_kmeans(scores, line, 2, rng=np.random.default_rng(0), confidence=lost)

    assert few.min() >= 30  # 0.4 errors are expected: the floor of five records a place decides
    assert many.min() < 20  # all are expected to be wrong: the batch covers the line
