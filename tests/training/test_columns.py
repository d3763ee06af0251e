"""Which columns a model reads, and the features it makes of them."""

from __future__ import annotations

from typing import Any

import columns
import numpy as np
import pytest
import scipy.sparse
from columns import Columns, Number


def learn(table: dict[str, list[Any]], **declared: str) -> Columns:
    return Columns.learn(
        [dict(zip(table, cells, strict=True)) for cells in zip(*table.values(), strict=True)], declared=declared
    )


def test_kinds_are_found_in_the_data() -> None:
    twenty = [float(number % 7) for number in range(19)]

    found = learn({
        "number": [*twenty, "typo"],
        "codes": [*twenty[:18], "A1", "A2"],
        "city": ["Ulm", "Bonn"] * 10,
        "gaps": [1.0, 2.0] + [None] * 18,
    })  # fmt: skip

    assert [column.name for column in found.numbers] == ["gaps", "number"]
    assert [column.name for column in found.categories] == ["city", "codes"]
    assert found.left_out == {}


@pytest.mark.parametrize(
    ("name", "cells", "reason"),
    [
        ("x", [3.0] * 6, "every value is the same"),
        ("x", ["a"] * 6, "every value is the same"),
        ("x", [None] * 6, "it holds no value"),
        ("name", list("abcdef"), "no value occurs twice"),
        ("customerId", [7.0, 3.0, 90.0, 12.0, 5.0, 6.0], "an id by its name"),
        ("ROW INDEX", [7.0, 3.0, 90.0, 12.0, 5.0, 6.0], "an id by its name"),
        ("label", [1.0, 2.0, 1.0, 2.0, 1.0, 2.0], "the name is reserved"),
        ("x", [1e300, 2e300, 3e300, 1e300, 2e300, 3e300], "every value is the same"),
    ],
)
def test_columns_that_carry_nothing_are_left_out(name: str, cells: list[Any], reason: str) -> None:
    found = learn({name: cells, "y": [1.0, 2.0, 3.0] * 2})

    assert reason in found.left_out[name]
    assert [column.name for column in found.numbers] == ["y"]


@pytest.mark.parametrize(
    ("name", "cells"),
    [
        ("income", [7.0, 3.0, 90.0, 12.0, 5.0, 6.0]),
        ("id_score", [7.5, 3.0, 90.0, 12.0, 5.0, 6.0]),
        ("key", [7.0, 7.0, 90.0, 12.0, 5.0, 6.0]),
        ("humidity", [7.0, 3.0, 90.0, 12.0, 5.0, 6.0]),
        ("x", [3.0] * 5 + [None]),
        ("x", ["a"] * 5 + [None] * 1 + ["a"]),
    ],
)
def test_columns_that_may_carry_something_stay(name: str, cells: list[Any]) -> None:
    assert learn({name: cells}).left_out == {}


def test_a_running_number_is_left_out_whatever_its_name() -> None:
    shuffled = np.random.default_rng(0).permutation(300).astype(float).tolist()

    found = learn({"position": shuffled, "y": [1.0, 2.0, 3.0] * 100})

    assert found.left_out == {"position": "it numbers the rows"}


def test_declared_columns_are_taken_as_they_are_declared() -> None:
    table = {"id_code": [7.0, 3.0, 90.0, 3.0], "city": ["Ulm"] * 2 + ["Bonn"] * 2, "nr": [4.0, 3.0, 2.0, 1.0]}

    found = learn(table, id_code="category", nr="number")

    assert [column.values for column in found.categories] == [("3",)]
    assert [column.name for column in found.numbers] == ["nr"]


def test_nothing_to_learn_from_says_so() -> None:
    with pytest.raises(ValueError, match="no column tells one row from another \\(x: every value is the same\\)"):
        learn({"x": [1.0, 1.0]})
    with pytest.raises(ValueError, match="the rows are empty"):
        Columns.learn([{}, {}], declared={})


def test_features_by_hand() -> None:
    table = {"x": [1.0, 3.0, None, 5.0, 3.0], "c": ["a", "b", "a", "b", None]}
    found = learn({"x": [*table["x"], 3.0], "c": [*table["c"], "a"]})

    rows = found.read([{"x": 9.0, "c": "b"}, {"x": None, "c": "z"}, {"c": "a", "x": 3.0}])

    # x: mean 3, deviation sqrt(8 / 5), brought into 1..5; then whether it is missing, then a and b.
    assert found.categories[0].values == ("a", "b")
    assert rows.codes.tolist() == [[2], [0], [1]]
    expected = np.array([[2 / np.sqrt(1.6), 0, 0, 1], [0, 1, 0, 0], [0, 0, 1, 0]]) * found.scale
    assert rows.features == pytest.approx(expected, abs=1e-6)


def test_heavy_tails_are_seen_through_a_logarithm() -> None:
    column = np.float32([1, 2, 3, 4, 5, 6, 7, 8, 1000])

    found = Number.learn("x", column)

    assert (found.heavy, found.centre, found.spread) == (True, 5.0, 4.0)
    t = np.sign(column - 5) * np.log1p(np.abs(column - 5) / 4)
    assert columns.scaled(column[:, None], [found])[:, 0] == pytest.approx((t - t.mean()) / t.std(), abs=1e-5)


def test_rows_of_features_have_length_one_on_average() -> None:
    rng = np.random.default_rng(0)
    table = {"x": rng.normal(5, 100, 200).tolist(), "c": rng.choice(list("abc"), 200).tolist()}
    rows = [dict(zip(table, cells, strict=True)) for cells in zip(*table.values(), strict=True)]

    features = Columns.learn(rows, declared={}).read(rows).features

    assert np.square(features).sum(axis=1).mean() == pytest.approx(1.0, abs=1e-4)


def test_wide_features_are_sparse_and_the_rarest_categories_do_without(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(columns, "MAX_ONE_HOT", 300)
    cells = [f"v{number // 2:03d}" for number in range(800)] + ["often"] * 3

    found = learn({"c": cells, "d": ["x", "y"] * 401 + ["x"]})

    rows = found.read([{"c": "often", "d": "y"}])
    assert scipy.sparse.issparse(rows.features) == (found.width > columns.SPARSE_WIDTH)
    assert found.categories[0].values[0] == "often"
    assert len(found.categories[0].values) == 401
    assert found.categories[0].shown == 1  # the others are all equally rare, and 400 would be too many
    assert rows.codes.tolist() == [[1, 2]]


def test_many_rows_of_few_features_are_sparse_too(monkeypatch: pytest.MonkeyPatch) -> None:
    table = {"x": [1.0, 2.0] * 10, "c": ["a", "b"] * 10}
    found = learn(table)
    rows = [dict(zip(table, cells, strict=True)) for cells in zip(*table.values(), strict=True)]
    dense = found.read(rows).features

    monkeypatch.setattr(columns, "SPARSE_CELLS", 59)  # 20 rows of 3 features have 60
    sparse = found.read(rows).features

    assert scipy.sparse.issparse(sparse)
    assert (sparse.toarray() == dense).all()


def test_trees_see_the_commonest_categories_only() -> None:
    cells = [f"v{number // 2:03d}" for number in range(800)]

    found = learn({"c": cells})

    codes = found.read([{"c": "v000"}, {"c": "v253"}, {"c": "v254"}, {"c": "never"}]).codes
    assert codes.ravel().tolist() == [1, 254, 0, 0]
    assert found.categories[0].shown == 400
