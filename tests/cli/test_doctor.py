"""The doctor's findings by hand, and its verdict on data that fits and data that does not."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from tests import simulated
from winnow_cli.doctor import findings
from winnow_cli.doctor.command import examine
from winnow_cli.doctor.findings import Finding
from winnow_cli.labeled import LabeledData, Sample, Truth
from winnow_cli.main import main
from winnow_cli.simulate.records import Records
from winnow_cli.simulate.statistics import Interval


@pytest.mark.parametrize(
    ("pool", "labels", "sign"),
    [(100_000, 1000, "good"), (5000, 1000, "open"), (900, 1000, "bad"), (None, 1000, "open")],
)
def test_the_pool_has_to_be_many_times_the_labels(pool: int | None, labels: int, sign: str) -> None:
    assert findings.pool_ratio(pool, labels, known="in the file").sign == sign


@pytest.mark.parametrize(
    ("price", "budget", "pool", "sign"),
    [(None, None, None, "open"), (0.0, None, None, "bad"), (0.5, 100.0, 1000, "good"), (0.5, 500.0, 1000, "bad")],
)
def test_labels_that_cost_nothing_or_are_all_paid_for_need_no_choosing(
    price: float | None, budget: float | None, pool: int | None, sign: str
) -> None:
    assert findings.label_price(price, budget, pool=pool).sign == sign


def test_a_rare_class_is_counted_in_random_labels() -> None:
    found = findings.balance(["rare"] + ["common"] * 99)

    assert found.sign == "good"
    assert dict(found.values)["random_labels_until_ten"] == 1000
    assert "--positive rare" in found.remedy


def test_copies_and_contradictions_are_told_apart() -> None:
    texts = ["a", "a", "b", "c"]
    embedding = np.float32([[1, 0], [1, 0], [0, 1], [-1, 0]])

    copies, contradictions = findings.copies(texts, ["yes", "no", "yes", "yes"], embedding)

    assert dict(copies.values) == {"exact": 0.25, "near": 0.5}
    assert dict(contradictions.values) == {"contradictions": 1}


@pytest.mark.parametrize(("auroc", "sign"), [(0.8, "good"), (0.6, "open"), (0.5, "open"), (None, "bad")])
def test_doubt_has_to_point_at_errors(auroc: float | None, sign: str) -> None:
    assert findings.doubt(auroc, labels=100, what="a small margin").sign == sign


@pytest.mark.parametrize(
    ("values", "sign"), [((0.5, 0.6, 0.7), "good"), ((0.5, 0.6, 0.602), "open"), ((0.6, 0.603, 0.604), "bad")]
)
def test_a_flat_curve_says_that_labels_bring_nothing(values: tuple[float, ...], sign: str) -> None:
    gain = Interval(values[2] - values[1], 0.0, 1.0)

    assert findings.slope([10, 20, 40], values, gain, measure="accuracy").sign == sign


def test_one_bad_finding_outweighs_an_open_one() -> None:
    signs = ("good", "open", "bad", "note")

    made = [Finding("x", sign, "", "") for sign in signs]  # type: ignore[arg-type]

    assert findings.verdict(made) == "does not fit"
    assert findings.verdict(made[:2]) == "unsure"
    assert findings.verdict([made[0], made[3]]) == "fits"


def table(path: Path) -> Path:
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(80, 2))
    said = np.where(rows[:, 0] + rng.normal(size=80) * 0.5 > 0, "yes", "no")
    lines = [f"{a:.4f},{b:.4f},{label}" for (a, b), label in zip(rows, said, strict=True)]
    path.write_text("\n".join(["a,b,label", *lines]) + "\n")
    return path


def test_the_command_gives_every_finding_and_a_verdict(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = table(tmp_path / "x.csv")

    status = main(
        [
            "doctor",
            "--data",
            str(path),
            "--label",
            "label",
            "--pool",
            "300",
            "--price",
            "1",
            "--budget",
            "300",
            "--json",
        ]
    )

    body = json.loads(capsys.readouterr().out)
    assert status == 0
    assert body["verdict"] == "does not fit"
    assert body["summary"].startswith("Active learning does not fit.")
    names = [one["finding"] for one in body["findings"]]
    assert names == ["pool", "price", "balance", "duplicates", "calibration", "doubt", "slope"]
    assert all(one["figure"] and one["meaning"] for one in body["findings"])


@pytest.mark.parametrize(("unlabeled", "figure"), [(12_000, "20.0 unlabeled records for each of 600"), (5, "unknown")])
def test_records_without_a_label_are_the_pool_unless_they_are_few(unlabeled: int, figure: str) -> None:
    made = simulated.grouped()
    pairs = tuple((str(row), made.classes[label]) for row, label in enumerate(made.labels))
    samples = tuple(Sample(text, text) for text, _ in pairs)
    records = Records(LabeledData("x", "text", made.classes, samples, Truth(pairs), unlabeled=unlabeled))

    found = examine(records, made, simulated.Nearest, pool=None, price=None, budget=None)

    assert found[0].figure.startswith(figure)
    assert [one.name for one in found[-3:]] == ["calibration", "doubt", "slope"]
