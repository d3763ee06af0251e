from __future__ import annotations

from dataclasses import replace
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
from winnow.selection.stratified import stratified
from winnow.selection.top_k import top_k

Array = npt.NDArray[np.float32]
EVERY = sorted(SELECTORS)


COLUMNS = ("scores", "embedding", "probabilities", "members", "confidence", "labeled")


def make_pool(n: int, *, dim: int = 3, seed: int = 0, labeled: int = 0) -> Pool:
    """A pool with every column that any selector of the table may need."""
    rng = np.random.default_rng(seed)
    members = rng.dirichlet(np.ones(4), size=(n, 3)).astype(np.float32)
    return Pool(
        size=n,
        scores=rng.random(n, dtype=np.float32),
        embedding=rng.standard_normal((n, dim), dtype=np.float32),
        labeled=rng.standard_normal((labeled, dim), dtype=np.float32) if labeled else None,
        probabilities=members.mean(axis=1),
        members=members,
        confidence=members.mean(axis=1).max(axis=1, initial=0.0),
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
        pool, untouched = make_pool(100, labeled=5), make_pool(100, labeled=5)
        for column in COLUMNS:
            getattr(pool, column).flags.writeable = False

        select(name, pool, 10, rng=np.random.default_rng(0))

        assert all(np.array_equal(getattr(pool, column), getattr(untouched, column)) for column in COLUMNS)

    @pytest.mark.parametrize("n", [4, 3000])
    def test_a_pool_of_identical_records_still_fills_the_batch(self, name: str, n: int) -> None:
        pool = make_pool(1, labeled=2).take(np.zeros(n, dtype=np.int64))

        rows = select(name, pool, 3, rng=np.random.default_rng(0))

        assert len(set(rows.tolist())) == 3

    def test_scores_of_zero_are_no_obstacle(self, name: str) -> None:
        pool = replace(make_pool(9), scores=np.zeros(9, dtype=np.float32))

        assert len(set(select(name, pool, 4, rng=np.random.default_rng(0)).tolist())) == 4

    def test_a_model_that_is_sure_of_everything_still_fills_the_batch(self, name: str) -> None:
        sure = np.eye(4, dtype=np.float32)[np.zeros(9, dtype=np.int64)]
        pool = replace(make_pool(9), probabilities=sure, members=np.repeat(sure[:, None], 3, axis=1))

        assert len(set(select(name, pool, 4, rng=np.random.default_rng(0)).tolist())) == 4

    def test_records_stored_in_half_precision_are_taken_as_they_are(self, name: str) -> None:
        pool = make_pool(200, dim=8, labeled=4)
        halves = {column: getattr(pool, column).astype(np.float16) for column in COLUMNS if column != "scores"}
        floats = {column: half.astype(np.float32) for column, half in halves.items()}

        rows = select(name, replace(pool, **halves), 9, rng=np.random.default_rng(0))

        assert rows.tolist() == select(name, replace(pool, **floats), 9, rng=np.random.default_rng(0)).tolist()

    def test_what_is_needed_and_missing_is_refused(self, name: str) -> None:
        for need in SELECTORS[name].needs:
            pool = Pool(**{**make_pool(5).__dict__, need: None})
            with pytest.raises(ConfigError, match=f"selector {name} needs {need}"):
                select(name, pool, 2, rng=np.random.default_rng(0))

    def test_says_where_it_comes_from(self, name: str) -> None:
        selector = SELECTORS[name]

        assert selector.name == name
        assert selector.source
        assert selector.cost
        assert selector.sentence.endswith(".")


@pytest.mark.parametrize(("name", "k"), [("top_k", 15), ("k_center", 15), ("batch_bald", 3)])
def test_selectors_without_chance_choose_the_same_records_in_any_order(name: str, k: int) -> None:
    pool = make_pool(300)
    order = np.random.default_rng(1).permutation(300)

    rows = select(name, pool, k, rng=np.random.default_rng(0))
    again = select(name, pool.take(order), k, rng=np.random.default_rng(0))

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
    with pytest.raises(ConfigError, match=r"'guess' is unknown; choose one of badge, .*k_center, kmeans, .*top_k"):
        select("guess", make_pool(2), 1, rng=np.random.default_rng(0))


def test_a_pool_whose_columns_disagree_is_refused() -> None:
    with pytest.raises(BadInput, match="3 records but 2 rows of scores"):
        select("top_k", Pool(3, scores=np.zeros(2, dtype=np.float32)), 1, rng=np.random.default_rng(0))


@pytest.mark.parametrize("bad", [np.nan, np.inf])
@pytest.mark.parametrize("column", COLUMNS)
def test_values_that_are_not_numbers_are_refused_with_the_row(column: str, bad: float) -> None:
    pool = make_pool(4, labeled=4)
    getattr(pool, column)[2] = bad

    with pytest.raises(BadInput, match=f"{column} of row 2 is NaN or infinite"):
        select("random", pool, 1, rng=np.random.default_rng(0))


def test_columns_of_another_shape_are_refused() -> None:
    pool = make_pool(4, labeled=3)
    assert pool.labeled is not None
    assert pool.members is not None

    with pytest.raises(BadInput, match=r"labeled embeddings have shape \(3, 2\), those of the pool \(4, 3\)"):
        select("k_center", replace(pool, labeled=pool.labeled[:, :2]), 1, rng=np.random.default_rng(0))
    with pytest.raises(BadInput, match="members of a pool have 3 axes, not 2"):
        select("batch_bald", replace(pool, members=pool.members[:, :, 0]), 1, rng=np.random.default_rng(0))


class TestTopK:
    def test_ties_go_to_the_first_rows(self) -> None:
        assert top_k(np.array([1.0, 2.0, 2.0, 2.0, 3.0]), 3).tolist() == [4, 1, 2]

    def test_agrees_with_a_stable_sort(self) -> None:
        scores = np.random.default_rng(0).integers(0, 20, 500).astype(np.float32)

        assert top_k(scores, 60).tolist() == np.argsort(-scores, kind="stable")[:60].tolist()


def textbook_in_float32(embedding: Array, k: int, first: int) -> list[int]:
    """One pass over the pool a center, in single precision and with its rounding."""
    norms = np.einsum("ij,ij->i", embedding, embedding)
    nearest = np.full(len(embedding), np.inf, dtype=np.float32)
    taken = [first]
    while True:
        distances = embedding @ embedding[taken[-1]]
        distances *= -2
        distances += norms
        distances += norms[taken[-1]]
        np.minimum(nearest, distances, out=nearest)
        nearest[taken[-1]] = -np.inf
        if len(taken) == k:
            return taken
        taken.append(int(nearest.argmax()))


def hard_pools() -> dict[str, Array]:
    """Where distances tie, nearly tie or lose digits."""
    rng = np.random.default_rng(0)
    cloud = rng.standard_normal((700, 64))
    pools = {
        "a grid": rng.integers(0, 4, (700, 6)),
        "a few corners": np.eye(40)[rng.integers(0, 40, 700)],
        "every record three times": np.repeat(cloud[:400], 3, axis=0)[rng.permutation(1200)],
        "unit vectors": cloud / np.linalg.norm(cloud, axis=1, keepdims=True),
        "one giant": np.vstack([cloud, np.full((1, 64), 1e6)]),
        "far from zero": cloud + 100,
        "one dimension": cloud[:, :1],
    }
    return {name: np.ascontiguousarray(points, dtype=np.float32) for name, points in pools.items()}


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
        monkeypatch.setattr("winnow.selection.k_center._REACH", 32)  # makes the lazy part work on a small pool
        monkeypatch.setattr("winnow.selection.k_center._WIDTH", 16)
        embedding = np.random.default_rng(n).standard_normal((n, 6)).astype(np.float32)

        rows = k_center(embedding, 40).tolist()

        assert rows == textbook_k_center(embedding, 40, rows[:1])

    @pytest.mark.parametrize(("reach", "width"), [(2048, 512), (32, 16)])
    @pytest.mark.parametrize("name", hard_pools())
    def test_ties_and_rounding_go_as_in_the_textbook(
        self, name: str, reach: int, width: int, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("winnow.selection.k_center._REACH", reach)
        monkeypatch.setattr("winnow.selection.k_center._WIDTH", width)
        embedding = hard_pools()[name]
        k = 35 if name == "a few corners" else 150

        rows = k_center(embedding, k).tolist()

        assert rows == textbook_in_float32(embedding, k, rows[0])

    def test_when_everything_is_covered_the_rest_goes_in_order(self) -> None:
        embedding = np.array([[0.1, 0.7], [0.3, 0.1], [0.1, 0.7], [0.3, 0.1], [0.1, 0.7]], dtype=np.float32)

        assert k_center(embedding, 5).tolist() == [0, 1, 2, 3, 4]

    def test_starts_at_the_record_nearest_the_mean(self) -> None:
        embedding = np.array([[0, 0], [4, 0], [2, 1], [2, 9]], dtype=np.float32)  # mean (2, 2.5)

        assert k_center(embedding, 1).tolist() == [2]

    def test_what_is_labeled_counts_as_covered(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("winnow.selection.k_center._REACH", 32)
        monkeypatch.setattr("winnow.selection.k_center._WIDTH", 16)
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

    @pytest.mark.parametrize("name", ["cloud", "blobs", "line", "weighted", "far from zero"])
    def test_is_as_good_as_scikit_learn(self, name: str) -> None:
        cluster = pytest.importorskip("sklearn.cluster")
        rng = np.random.default_rng(0)
        cloud = rng.standard_normal((300, 8))
        points = {
            "blobs": cloud + 6 * rng.integers(0, 4, (300, 1)),
            "line": cloud[:, :1],
            "far from zero": cloud + 3000,
        }.get(name, cloud)
        weights = rng.random(300) if name == "weighted" else None
        seeds = range(8)

        theirs = [
            cluster.KMeans(10, n_init=1, random_state=seed).fit(points, sample_weight=weights).inertia_
            for seed in seeds
        ]
        ours = [
            kmeans(points.astype(np.float32), 10, rng=np.random.default_rng(seed), weights=weights).inertia
            for seed in seeds
        ]

        assert np.mean(ours) <= 1.02 * np.mean(theirs)

    def test_many_clusters_fitted_by_their_neighbors_are_nearly_as_good(self, monkeypatch: pytest.MonkeyPatch) -> None:
        points = np.random.default_rng(0).standard_normal((3000, 8)).astype(np.float32)
        whole = kmeans(points, 150, rng=np.random.default_rng(0))

        monkeypatch.setattr("winnow.selection.kmeans._MANY", 100)
        monkeypatch.setattr("winnow.selection.kmeans._NEIGHBORS", 30)
        found = kmeans(points, 150, rng=np.random.default_rng(0))

        assert whole.inertia != found.inertia  # or nothing was tried
        assert found.inertia <= 1.01 * whole.inertia
        assert found.distances == pytest.approx(((points - found.centers[found.assignment]) ** 2).sum(axis=1), rel=1e-3)

    def test_far_from_zero_distances_keep_their_digits(self) -> None:
        points = np.array([[0, 0], [0, 2], [9, 0], [9, 2]], dtype=np.float32) + 30_000

        found = kmeans(points, 2, rng=np.random.default_rng(0))

        assert found.inertia == 4.0
        assert sorted(found.centers.tolist()) == [[30_000, 30_001], [30_009, 30_001]]

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

    def test_is_the_rule_applied_one_by_one(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("winnow.selection.duplicates._BLOCK", 16)
        embedding = np.random.default_rng(0).standard_normal((300, 3)).astype(np.float32)
        embedding[::50] = 0.0
        order = np.random.default_rng(1).permutation(300)
        near = 1 - cosine(embedding) < 0.05
        expected: list[int] = []
        for row in order.tolist():
            if not near[row, expected].any():
                expected.append(row)

        kept = suppress_near_duplicates(embedding, order, threshold=0.05)

        assert kept.tolist() == expected

    def test_rows_without_direction_are_near_nothing_at_any_threshold(self) -> None:
        embedding = np.array([[0, 0], [1, 0], [0, 0], [-1, 0]], dtype=np.float32)

        assert suppress_near_duplicates(embedding, np.arange(4), threshold=1.5).tolist() == [0, 1, 2, 3]
        assert suppress_near_duplicates(embedding, np.arange(4), threshold=2.5).tolist() == [0, 1, 2]


def cosine(embedding: Array) -> Array:
    """Cosine of each pair; 0 with a row of length zero."""
    lengths = np.linalg.norm(embedding, axis=1, keepdims=True)
    units = np.divide(embedding, lengths, out=np.zeros_like(embedding), where=lengths > 0)
    return units @ units.T


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


def test_coverage_goes_where_no_label_is() -> None:
    # Three heaps of fifty at the corners of a triangle. The labeled one needs no more of two places.
    rng = np.random.default_rng(1)
    corners = np.float32([[0, 0], [20, 0], [10, 17]])
    heaps = np.repeat(corners, 50, axis=0) + rng.normal(0, 0.5, (150, 2)).astype(np.float32)

    for labeled in range(3):
        pool = Pool(150, embedding=heaps, labeled=corners[labeled : labeled + 1])
        rows = select("kmeans", pool, 2, rng=np.random.default_rng(0))
        assert sorted(rows // 50) == [heap for heap in range(3) if heap != labeled]


def test_a_stratified_sample_is_as_dense_as_the_error_is_large() -> None:
    # Half of a line has variance 9, the other 1: three quarters of the expected error, so of 40 records about 30.
    line = np.linspace(0, 1, 400, dtype=np.float32)[:, None]
    scores = np.where(np.arange(400) < 200, 9.0, 1.0).astype(np.float32)

    rows = np.array([stratified(line, 40, rng=np.random.default_rng(seed), scores=scores) for seed in range(20)])

    assert 29 <= (rows < 200).sum(axis=1).mean() <= 31
    assert all(len(set(one.tolist())) == 40 for one in rows)


def test_strata_spread_a_sample_more_evenly_than_chance() -> None:
    cloud = np.random.default_rng(2).random((1000, 2)).astype(np.float32)

    def gap(rows: np.ndarray) -> float:
        """Mean distance of the cloud to the nearest of some rows."""
        return float(np.sqrt(((cloud[:, None] - cloud[rows]) ** 2).sum(axis=2)).min(axis=1).mean())

    strata = [gap(stratified(cloud, 25, rng=np.random.default_rng(seed))) for seed in range(10)]
    chance = [gap(np.random.default_rng(seed).permutation(1000)[:25]) for seed in range(10)]

    assert np.mean(strata) < 0.95 * np.mean(chance)


def test_a_stratified_sample_of_copies_and_zero_scores() -> None:
    same = np.ones((7, 3), np.float32)

    rows = stratified(same, 7, rng=np.random.default_rng(0), scores=np.zeros(7, np.float32))

    assert sorted(rows.tolist()) == list(range(7))


def test_strata_that_have_their_share_of_labels_are_asked_nothing() -> None:
    # Five of a line's eight parts hold the 20 labeled records, four each: with 12 more each part gets its four.
    line = np.linspace(0, 1, 800, endpoint=False, dtype=np.float32)[:, None]
    full = np.repeat([0, 2, 3, 5, 7], 4)
    labeled = ((full + np.tile([0.1, 0.35, 0.6, 0.85], 5)) / 8).astype(np.float32)[:, None]

    for seed in range(5):
        rows = stratified(line, 12, rng=np.random.default_rng(seed), labeled=labeled)
        assert np.bincount(rows // 100, minlength=8).tolist() == [0, 4, 0, 0, 4, 0, 4, 0]


def test_a_stratified_sample_is_whole_whatever_is_labeled() -> None:
    rng = np.random.default_rng(3)
    for _ in range(200):
        n, labeled, dim, places = (int(most) for most in rng.integers((1, 0, 1, 0), (60, 80, 4, 70)))
        points, known = (rng.integers(0, 5, (rows, dim)).astype(np.float32) for rows in (n, labeled))
        scores = (rng.random(n) * rng.integers(0, 2)).astype(np.float32)

        rows = stratified(points, places, rng=rng, scores=scores, labeled=known)

        assert len(rows) == len(set(rows.tolist())) == min(places, n)
        assert set(rows.tolist()) <= set(range(n))
