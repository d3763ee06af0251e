"""The committee: calibration, disagreement, classes without labels, tiny data."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.sparse
from committee import COSTS, FOLDS, Committee, fit_committee, folds, resample


def blobs(n: int, *, classes: int = 3, spread: float = 0.4, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Points around one corner a class, and the class of each."""
    rng = np.random.default_rng(seed)
    labels = np.arange(n) % classes
    return (np.eye(classes)[labels] + rng.normal(0, spread, (n, classes))).astype(np.float32), labels


def fitted(rows: object, labels: np.ndarray, *, classes: int = 3, members: int = 3, seed: int = 0) -> Committee:
    return fit_committee(
        rows,  # type: ignore[arg-type]
        labels,
        classes=classes,
        groups=[str(number) for number in range(len(labels))],
        members=members,
        dimensions=2,
        rng=np.random.default_rng(seed),
    )


def test_it_learns_and_says_how_well() -> None:
    rows, labels = blobs(300, spread=0.3)

    committee = fitted(rows, labels)

    again, truth = blobs(300, spread=0.3, seed=1)
    predicted = (again @ committee.main.weights + committee.main.bias).argmax(axis=1)
    accuracy = (predicted == truth).mean()
    assert accuracy > 0.9
    assert committee.out_of_fold_accuracy == pytest.approx(accuracy, abs=0.05)
    assert committee.cost in COSTS
    assert len(committee.members) == 3
    assert committee.unseen_share == 0.0


def test_the_same_seed_gives_the_same_weights_and_another_seed_other_members() -> None:
    rows, labels = blobs(60)

    one, same, other = (fitted(rows, labels, seed=seed) for seed in (5, 5, 6))

    assert (one.main.weights == same.main.weights).all()
    assert (one.members[0].weights == same.members[0].weights).all()
    assert (one.members[0].weights != other.members[0].weights).any()


def test_members_disagree_where_labels_leave_room() -> None:
    rows, labels = blobs(90, spread=0.6)
    committee = fitted(rows, labels, members=8)

    sure, unsure = np.array([[3.0, 0, 0]]), np.array([[1.0, 0.95, 1.0]])
    spread = [
        np.std([point @ head.weights + head.bias for head in committee.members], axis=0).mean()
        for point in (sure, unsure)
    ]
    votes = {int((unsure @ head.weights + head.bias).argmax()) for head in committee.members}
    assert {int((sure @ head.weights + head.bias).argmax()) for head in committee.members} == {0}
    assert len(votes) > 1
    assert min(spread) > 0


@pytest.mark.parametrize("sparse", [False, True])
def test_more_features_than_records_give_the_same_as_more_records_than_features(sparse: bool) -> None:
    rows, labels = blobs(60)
    wide = np.hstack([rows, np.zeros((60, 90), np.float32)])  # solved in the records' span, for the same optimum

    narrow, rotated = fitted(rows, labels), fitted(scipy.sparse.csr_array(wide) if sparse else wide, labels)

    assert rotated.main.weights.shape == (93, 3)
    assert rotated.main.weights[:3] == pytest.approx(narrow.main.weights, abs=0.05)
    assert rotated.main.weights[3:] == pytest.approx(0.0, abs=1e-6)


def test_a_class_without_a_label_keeps_its_column() -> None:
    rows, labels = blobs(40, classes=2)

    committee = fitted(rows, labels * 2, classes=4)

    assert committee.seen.tolist() == [True, False, True, False]
    assert committee.main.weights[:, [1, 3]].any() == np.False_
    assert committee.unseen_share == pytest.approx(1 / 44)


def test_many_classes_without_labels_get_half_at_most() -> None:
    rows, labels = blobs(4, classes=2)

    committee = fitted(rows, labels, classes=102)

    assert committee.unseen_share == pytest.approx(0.5 / 100)


def test_two_records_of_two_classes_are_enough() -> None:
    committee = fitted(np.array([[1.0, 0], [0, 1.0]], np.float32), np.array([0, 1]), classes=2)

    assert committee.temperature == 1.0
    assert committee.out_of_fold_accuracy is None
    assert (np.eye(2) @ committee.main.weights + committee.main.bias).argmax(axis=1).tolist() == [0, 1]


def test_one_class_is_not_enough() -> None:
    with pytest.raises(ValueError, match="at least two classes"):
        fitted(np.eye(3, dtype=np.float32), np.array([1, 1, 1]))


def test_near_duplicates_share_a_fold_and_every_class_is_spread() -> None:
    targets = np.repeat([0, 1], 30)
    groups = [f"g{number // 2}" for number in range(60)]

    fold = folds(targets, groups=groups, rng=np.random.default_rng(0))

    assert (fold[0::2] == fold[1::2]).all()
    for target in (0, 1):
        assert np.bincount(fold[targets == target], minlength=FOLDS).tolist() == [10, 10, 10]


def test_a_bootstrap_sample_keeps_the_number_of_every_class() -> None:
    targets = np.array([0] * 50 + [1])

    weights = resample(targets, rng=np.random.default_rng(0))

    assert weights[:50].sum() == 50
    assert weights[50] == 1
    assert (weights[:50] == 0).any()
