"""Ranks within the stated error on every stream, whatever its order; merging is a union of sets."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest

from winnow.errors import BadInput
from winnow.selection.sketch import EMPTY, Sketch, chance, merge

Array = npt.NDArray[np.float32]
SIZE = 20_000
ERROR = 4 * 0.5 / np.sqrt(1024)
"""Four standard errors of a share, at its widest: 6.25 % of the records."""


def keys(count: int, *, seed: int = 0) -> npt.NDArray[np.float64]:
    return np.random.default_rng([7, seed]).random(count)


def stream(name: str) -> Array:
    rng = np.random.default_rng(3)
    noise = rng.normal(size=SIZE)
    streams = {
        "random": noise,
        "sorted": np.sort(noise),
        "reversed": -np.sort(noise),
        "zoom": np.where(np.arange(SIZE) % 2, 1.0, -1.0) * (SIZE - np.arange(SIZE)),  # extremes first, from both sides
        "ties": rng.integers(0, 5, size=SIZE),
        "burst": np.where(np.arange(SIZE) < 15_000, 1e6 + noise, noise),
        "heavy": rng.pareto(0.5, size=SIZE),
    }
    return streams[name].astype(np.float32)


NASTY = ("random", "sorted", "reversed", "zoom", "ties", "burst", "heavy")


@pytest.mark.parametrize("name", NASTY)
def test_a_cut_is_where_numpys_quantile_is_within_the_stated_error(name: str) -> None:
    scores = stream(name)
    sketch = merge([Sketch.of(keys(SIZE)[start::9], scores[start::9]) for start in range(9)])

    assert len(sketch.keys) <= 2048
    for share in (0.001, 0.01, 0.1, 0.3, 0.5, 0.9):
        cut = sketch.cut(share)
        passed = cut.passes(scores, keys(SIZE)).mean()
        assert passed == pytest.approx(share, abs=4 * np.sqrt(share * (1 - share) / 1024)), share
        low, high = np.quantile(scores, np.clip([1 - share - ERROR, 1 - share + ERROR], 0, 1))
        assert low <= cut.score <= high, share


@pytest.mark.parametrize("name", ["random", "sorted", "heavy"])
def test_ranks_from_the_top_are_exact(name: str) -> None:
    scores = stream(name)
    parts = [Sketch.of(keys(SIZE)[part], scores[part]) for part in np.array_split(np.arange(SIZE), 50)]

    for rank in (1, 7, 1000):
        assert merge(parts).cut_at(rank).score == np.sort(scores)[-rank]


def test_equal_scores_are_divided_by_key() -> None:
    constant = np.ones(SIZE, dtype=np.float32)

    passed = Sketch.of(keys(SIZE), constant).cut(0.25).passes(constant, keys(SIZE))

    assert passed.mean() == pytest.approx(0.25, abs=0.02)


def test_merging_is_a_union() -> None:
    scores, names = stream("random"), keys(SIZE)
    a, b, c = (Sketch.of(names[start : start + 9000], scores[start : start + 9000]) for start in (0, 5500, 11_000))
    whole = Sketch.of(names, scores)

    once = merge([a, b, c])

    assert merge([c, merge([b, a]), a, b, EMPTY]).to_bytes() == once.to_bytes()
    assert once.to_bytes() == whole.to_bytes()


def test_the_count_is_of_different_records_and_exact_while_they_are_few() -> None:
    few = Sketch.of(keys(900), np.zeros(900, dtype=np.float32))
    many = [Sketch.of(keys(SIZE, seed=seed), stream("random")) for seed in range(4)]

    assert merge([few, few]).count == 900
    assert merge([*many, *many]).count == pytest.approx(4 * SIZE, rel=4 / np.sqrt(1024))


def test_of_records_with_one_key_the_best_counts() -> None:
    sketch = merge(
        [
            Sketch.of(np.array([0.5, 0.5]), np.array([1, 3], np.float32)),
            Sketch.of(np.array([0.5]), np.array([2], np.float32)),
        ]
    )

    assert (sketch.count, sketch.scores.tolist()) == (1.0, [3.0])


def test_the_share_above_a_score() -> None:
    sketch = Sketch.of(keys(1000), np.arange(1000, dtype=np.float32))

    assert sketch.share_above(899.0) == pytest.approx(0.1)
    assert EMPTY.share_above(0.0) == 0.0


def test_bytes_come_back_and_others_are_refused() -> None:
    sketch = Sketch.of(keys(SIZE), stream("heavy"))
    again = Sketch.from_bytes(sketch.to_bytes())

    assert again.to_bytes() == sketch.to_bytes()
    assert again.cut(0.2) == sketch.cut(0.2)
    for wrong in (b"", b"\x02" + sketch.to_bytes()[1:], sketch.to_bytes()[:-1]):
        with pytest.raises(BadInput, match="sketch"):
            Sketch.from_bytes(wrong)


def test_what_has_no_quantiles_is_refused() -> None:
    with pytest.raises(BadInput, match="row 1 is NaN"):
        Sketch.of(keys(2), np.array([0.0, np.nan], np.float32))
    with pytest.raises(BadInput, match="2 keys but 1 scores"):
        Sketch.of(keys(2), np.zeros(1, np.float32))
    with pytest.raises(BadInput, match="empty"):
        EMPTY.cut(0.5)


def test_keys_of_names_are_uniform() -> None:
    found = np.sort(chance([f"record {n}" for n in range(4000)]))

    assert np.abs(found - (np.arange(4000) + 0.5) / 4000).max() < 1.63 / np.sqrt(4000)  # Kolmogorov-Smirnov, 1 %
