from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from winnow.datasets.clusters import image_cluster, normalise, text_cluster
from winnow.datasets.leaks import Leak, Member, leaks
from winnow.datasets.roles import RoleShares, role, uniform_key
from winnow.datasets.versions import counts, evaluation_identity, manifest_digest, next_version, ordered
from winnow.errors import BadInput, ConfigError

CLUSTERS = [f"cluster-{number}" for number in range(4000)]


class TestRoles:
    def test_shares_are_met_and_nothing_depends_on_order(self) -> None:
        found = Counter(role(cluster, salt="s", shares=RoleShares(0.3, 0.1)) for cluster in CLUSTERS)

        assert found["evaluation"] == pytest.approx(1200, abs=120)
        assert found["reward"] == pytest.approx(400, abs=80)
        assert found["train"] == 4000 - found["evaluation"] - found["reward"]

    def test_keys_are_uniform_overall_and_within_every_role(self) -> None:
        keys = {cluster: uniform_key(cluster, salt="s") for cluster in CLUSTERS}

        for name in ("train", "evaluation", "reward"):
            within = [key for cluster, key in keys.items() if role(cluster, salt="s") == name]
            assert stats.kstest(within, "uniform").pvalue > 1e-4
        assert all(0.0 <= key < 1.0 for key in keys.values())

    def test_they_stay_for_ever(self) -> None:
        # These values are stored with every record of every stack: changing them would mix training with evaluation.
        assert uniform_key("c0ffee", salt="winnow") == 0.37244411983873504
        assert [role(f"c{number}", salt="winnow") for number in range(3)] == ["train", "evaluation", "train"]

    def test_another_salt_is_another_draw(self) -> None:
        one = [role(cluster, salt="a") for cluster in CLUSTERS]
        other = [role(cluster, salt="b") for cluster in CLUSTERS]

        assert one != other
        assert uniform_key("c", salt="a") != uniform_key("c", salt="b")

    def test_raising_the_evaluation_share_takes_only_from_training(self) -> None:
        for cluster in CLUSTERS:
            before = role(cluster, salt="s", shares=RoleShares(0.2, 0.05))
            after = role(cluster, salt="s", shares=RoleShares(0.3, 0.05))
            assert after == before or (before, after) == ("train", "evaluation")

    @pytest.mark.parametrize("shares", [(-0.1, 0.0), (0.0, -0.1), (0.6, 0.4)])
    def test_shares_that_leave_nothing_to_train_are_refused(self, shares: tuple[float, float]) -> None:
        with pytest.raises(ConfigError, match="leave room to train"):
            RoleShares(*shares)


class TestTextClusters:
    @pytest.mark.parametrize(
        ("one", "other"),
        [
            ("Where is my order?", "where is  my ORDER"),
            ("order #123 is late", "order #9 is late!!!"),
            ("call 0490 75 40 81", "call 12"),
            ("ｆｕｌｌ ｗｉｄｔｈ", "full width"),
            ("STRASSE", "straße"),
            ("e\u0301te\u0301", "été"),
            ("a\u200bb", "a b"),
            ("I was [EMAIL] charged", "i was email charged"),
        ],
    )
    def test_near_duplicates_share_a_cluster(self, one: str, other: str) -> None:
        assert text_cluster(one) == text_cluster(other)

    @pytest.mark.parametrize(
        ("one", "other"),
        [
            ("refund my order", "cancel my order"),
            ("great 👍", "great 👎"),
            ("👍", "👎"),
            ("12:30", "14:00"),
            ("?!", "..."),
            ("की", "कि"),  # vowel signs are marks, and they are what differs
            ("", "0"),
        ],
    )
    def test_different_things_do_not(self, one: str, other: str) -> None:
        assert text_cluster(one) != text_cluster(other)

    @given(st.text(max_size=40))
    def test_normalising_is_a_fixed_point(self, text: str) -> None:
        assert normalise(normalise(text)) == normalise(text)
        assert len(text_cluster(text)) == 32


Grey = npt.NDArray[np.uint8]


def picture(seed: int, *, side: int = 64) -> Grey:
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 256, (6, 6))
    return np.kron(coarse, np.ones((side // 6 + 1, side // 6 + 1)))[:side, :side].astype(np.uint8)


class TestImageClusters:
    def test_different_pictures_do_not_share_a_cluster(self) -> None:
        assert len({image_cluster(picture(seed)) for seed in range(200)}) == 200

    def test_size_brightness_contrast_and_noise_seldom_matter(self) -> None:
        rng = np.random.default_rng(0)
        same = 0
        for seed in range(60):
            original = picture(seed)
            changed = original * 0.8 + 20 + rng.normal(0, 2, original.shape)
            larger = np.repeat(np.repeat(changed, 2, axis=0), 2, axis=1).clip(0, 255).astype(np.uint8)
            same += image_cluster(larger) == image_cluster(original)

        assert same >= 40

    def test_grey_levels_may_be_fractions(self) -> None:
        original = picture(1)

        assert image_cluster(original / 255.0) == image_cluster(original)

    def test_blank_images_are_alike_whatever_their_shade(self) -> None:
        dark, light = np.full((9, 30), 3, dtype=np.uint8), np.full((40, 20), 250, dtype=np.uint8)

        assert image_cluster(dark) == image_cluster(light)

    def test_a_single_pixel_is_an_image(self) -> None:
        assert len(image_cluster(np.zeros((1, 1), dtype=np.uint8))) == 32


class TestLeaks:
    def test_the_same_content_and_the_same_cluster_are_found(self) -> None:
        train = [Member("a", "x"), Member("b", "y"), Member("c", ""), Member("d", "z")]
        held_out = [Member("a", "other"), Member("e", "y"), Member("f", "y"), Member("g", "")]

        assert leaks(train, held_out) == [Leak("a", "a", "id"), Leak("b", "e", "cluster")]

    def test_without_overlap_there_are_none(self) -> None:
        assert leaks([Member("a", "x")], [Member("b", "y")]) == []
        assert leaks([], []) == []


class TestVersions:
    def test_a_version_is_named_by_its_parent_and_batches(self) -> None:
        first = next_version(None, ["b2", "b1", "b2"])

        assert first == next_version(None, ["b1", "b2"])
        assert (
            len({first, next_version(None, ["b1"]), next_version("d1", ["b1", "b2"]), next_version("d2", ["b1"])}) == 4
        )
        assert first.startswith("d")

    def test_a_version_without_a_batch_is_none(self) -> None:
        with pytest.raises(BadInput, match="at least one batch"):
            next_version("d1", [])

    def test_entries_have_one_order_and_one_digest(self) -> None:
        entries: list[dict[str, Any]] = [{"id": "b", "label": "x"}, {"id": "a", "label": "y"}]

        assert [entry["id"] for entry in ordered(entries)] == ["a", "b"]
        assert manifest_digest(entries) == manifest_digest(entries[::-1])
        assert manifest_digest(entries) != manifest_digest([{"id": "b", "label": "y"}, {"id": "a", "label": "y"}])

    def test_a_content_labeled_twice_is_refused(self) -> None:
        with pytest.raises(BadInput, match="content a stands twice"):
            ordered([{"id": "a", "label": "x"}, {"id": "a", "label": "y"}])

    def test_an_evaluation_set_is_known_by_its_labels(self) -> None:
        assert evaluation_identity({"a": "x", "b": "y"}) == evaluation_identity({"b": "y", "a": "x"})
        assert evaluation_identity({"a": "x"}) != evaluation_identity({"a": "x", "b": "y"})

    def test_counts_are_of_every_value_in_order(self) -> None:
        entries = [{"label": "b", "arm": None}, {"label": "a", "arm": "active"}, {"label": "b"}]

        assert counts(entries) == {"total": 3, "label": {"a": 1, "b": 2}, "arm": {"active": 1, "none": 2}}
        assert counts([], by=("role",)) == {"total": 0, "role": {}}
