"""What a loop file may say about tables, numbers and the metric of the gate."""

from __future__ import annotations

import pytest

from winnow.errors import ConfigError
from winnow.loop import Loop, parse, to_yaml

REGRESSION = "task: {kind: table, type: regression, columns: {rooms: number}, unit: USD, minimum: 0, tolerance: 0.2}"


def test_a_regression_has_no_classes_and_texts_of_its_own() -> None:
    loop = parse(REGRESSION)

    assert (loop.task.classes, loop.task.columns, loop.task.minimum) == ((), {"rooms": "number"}, 0.0)
    assert loop.task.title == "Give the number"
    assert loop.metric == "r2"
    assert parse(to_yaml(loop)) == loop


def test_what_a_regression_leaves_out_fits_numbers_and_what_it_says_counts() -> None:
    left_out = parse(REGRESSION + "\nacquisition: {selector: top_k}\nquality: {workers_per_item: 5}")
    chosen = parse(REGRESSION + "\nacquisition: {strategy: random}\nquality: {consensus: weighted_mean}")

    assert (left_out.acquisition.strategy, left_out.acquisition.selector) == ("variance", "top_k")
    assert (left_out.quality.consensus, left_out.quality.workers_per_item) == ("median", 5)
    assert (chosen.acquisition.strategy, chosen.quality.consensus) == ("random", "weighted_mean")
    assert parse(to_yaml(left_out)) == left_out
    assert (parse("").acquisition.strategy, parse("").quality.consensus) == ("margin", "majority")


def test_the_positive_class_is_the_first_rare_one() -> None:
    loop = parse("task: {kind: table, classes: [a, b, c], rare_classes: [c, b]}\ngate: {metric: average_precision}")

    assert loop.task.positive_class == "c"
    assert loop.metric == "average_precision"
    assert parse(to_yaml(loop)) == loop


def test_what_said_nothing_of_it_means_what_it_meant() -> None:
    loop = parse("task: {kind: text, classes: [a, b]}")

    assert (loop.task.type, loop.task.columns, loop.task.positive_class, loop.metric) == (
        "classification", {}, None, "accuracy"
    )  # fmt: skip


@pytest.mark.parametrize(
    ("document", "message"),
    [
        ("task: {type: regression}", "task: type: regression needs kind: table in this version, not text"),
        ("task: {kind: table, type: regression, classes: [a, b]}", "task: classes: a number has no classes"),
        ("task: {kind: table, type: regression, positive_class: a}", "task: positive_class: a number has no classes"),
        ("task: {kind: table, type: regression, minimum: 2, maximum: 1}", "task: minimum is not below maximum"),
        ("task: {kind: table, type: regression, minimum: .inf}", "task.minimum: Input should be a finite number"),
        ("task: {minimum: 1}", "task: minimum: only for regression; remove it or set type: regression"),
        ("task: {unit: USD}", "task: unit: only for regression"),
        ("task: {classes: [a]}", "task: classes: there is nothing to choose from; list at least two"),
        ("task: {positive_class: maybe}", "task: positive_class: 'maybe' is not among classes"),
        ("task: {columns: {a: number}}", "task: columns: only for kind: table, not text"),
        ("task: {kind: table, columns: {label: number}}", r"task: columns: \['label'\] say something about a row"),
        ("task: {kind: table, columns: {a: digit}}", "task.columns.a: Input should be 'number' or 'category'"),
        (
            "gate: {metric: r2}",
            "gate.metric: r2 does not fit classification; choose auto, accuracy or average_precision",
        ),
        (
            "task: {kind: table, type: regression}\ngate: {metric: accuracy}",
            "gate.metric: accuracy does not fit regression",
        ),
        (
            "gate: {metric: average_precision}",
            "gate.metric: average_precision is about one class; name it in task.posi",
        ),
        (
            "task: {kind: table, type: regression}\nquality: {consensus: dawid_skene}",
            "quality.consensus: dawid_skene does not fit regression; choose median or weighted_mean",
        ),
        ("quality: {consensus: median}", "median does not fit classification; choose majority or dawid_skene"),
        (
            "task: {kind: table, type: regression}\nacquisition: {strategy: margin}",
            "acquisition.strategy: margin needs probabilities, which a regression does not give; choose one of random, typ",
        ),
        ("acquisition: {strategy: variance}", "variance needs prediction, which a classification does not give"),
        (
            "task: {kind: table, type: regression}\ntraining: {members: 0}",
            "variance asks a committee, but training.members is 0; raise it or choose one of random",
        ),
        ("task: {kind: table, type: regression}\nquality: 3", "quality: Input should be a valid dictionary"),
        ("limits: {max_rows: 0}", "limits.max_rows"),
    ],
)
def test_what_does_not_fit_together_is_named_with_the_remedy(document: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        parse(document)


@pytest.mark.parametrize(
    ("task", "expected"),
    [
        ({}, ("margin", "margin_kmeans", "kmeans", 0.02)),
        ({"kind": "table"}, ("margin", "margin_kmeans", "kmeans", 0.0)),
        ({"kind": "table", "type": "regression"}, ("variance", "stratified", "stratified", 0.0)),
    ],
)
def test_what_is_left_out_of_acquisition_fits_the_task(task: dict[str, str], expected: tuple[str, ...]) -> None:
    said = Loop.model_validate({"task": task}).acquisition

    assert (said.strategy, said.selector, said.cold_start, said.near_duplicate_distance) == expected


def test_what_is_said_of_acquisition_stands() -> None:
    said = Loop.model_validate(
        {
            "task": {"kind": "table", "type": "regression"},
            "acquisition": {"selector": "top_k", "near_duplicate_distance": 0.1},
        }
    ).acquisition

    assert (said.selector, said.cold_start, said.near_duplicate_distance) == ("top_k", "stratified", 0.1)
