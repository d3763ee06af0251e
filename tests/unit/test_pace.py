"""Batch sizes by hand: which factor decides, and that every factor that was looked at is told."""

from __future__ import annotations

import pytest

from winnow.selection.pace import Gain, Pace, Signs, next_size


def size(signs: Signs, *, least: int = 10, most: int = 100, objective: float = 48.0) -> Pace:
    return next_size(signs, least=least, most=most, objective_hours=objective)


def test_throughput_is_the_median_of_the_last_five_batches() -> None:
    # 1.5 an hour in 48 hours is 72, of which 22 are open already; the sixth batch from the end is forgotten.
    found = size(Signs(labels_per_hour=[90.0, 1.0, 1.5, 1.5, 9.0, 1.2], open_items=22))

    assert found.size == 50
    assert found.reasons[0] == "50 by throughput: 1.5 labels an hour make 72 in 48 hours, and 22 items are open already"


@pytest.mark.parametrize(("hours", "wanted"), [(12.0, 100), (24.0, 100), (36.0, 50), (46.0, 10), (60.0, 10)])
def test_an_ageing_queue_presses_back(hours: float, wanted: int) -> None:
    assert size(Signs(open_items=5, oldest_hours=hours)).size == wanted


def test_what_is_left_of_the_budget_lasts_three_rounds() -> None:
    found = size(Signs(affordable=90))

    assert (found.size, found.reasons) == (
        30, ("30 by budget: what is left pays for 90 items, which should last 3 rounds",),
    )  # fmt: skip


@pytest.mark.parametrize(
    ("points", "error", "share", "wanted"),
    [
        (4.0, 1.25, 1.0, 63),  # 4 points for 100 labels, 2 x 1.25 points need 62.5
        (4.0, 1.25, 0.75, 84),  # of which only 75 % are trained on
        (4.0, 0.1, 1.0, 50),  # clear gains: not below half
        (4.0, 5.0, 1.0, 100),  # noisy gains: as large as may be
        (-1.0, 0.1, 1.0, 100),  # no gain at all shows less in smaller batches
    ],
)
def test_gains_decide_how_many_labels_show_one(points: float, error: float, share: float, wanted: int) -> None:
    signs = Signs(gains=[Gain(points, error, 100)] * 3, train_share=share)

    assert size(signs).size == wanted


def test_the_smallest_factor_decides_and_all_are_told() -> None:
    signs = Signs(
        labels_per_hour=[1.0], open_items=8, oldest_hours=30.0, affordable=900, gains=[Gain(4.0, 5.0, 100)]
    )  # fmt: skip

    found = size(signs)

    assert found.size == 40  # 48 - 8 by throughput, 75 by age
    assert [reason.split(":")[0] for reason in found.reasons] == [
        "40 by throughput", "75 by queue age", "100 by gains", "300 by budget",
    ]  # fmt: skip


def test_never_below_what_is_worth_a_job() -> None:
    found = size(Signs(labels_per_hour=[0.05]))

    assert found.size == 10
    assert found.reasons[0] == "10 at least: a smaller batch is not worth a job"


def test_sizes_that_make_no_sense_are_refused() -> None:
    with pytest.raises(ValueError, match="make no sense"):
        size(Signs(), least=20, most=10)
