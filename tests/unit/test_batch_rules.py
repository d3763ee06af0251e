"""Rules a batch keeps whatever its arms chose: quotas, minutes, and which labels are asked again."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.unit.test_arms import POLICY, make_pool, plan
from winnow.errors import BadInput, ConfigError
from winnow.loop import parse
from winnow.selection import recheck
from winnow.selection.arms import Choice
from winnow.selection.fair import fitting, meet_quotas, within_minutes
from winnow.selection.quotas import dispensable, exchanges, least
from winnow.selection.recheck import suspicion, worthwhile
from winnow.selection.synthesis import pairs


@settings(max_examples=60, deadline=None)
@given(n=st.integers(0, 80), k=st.integers(0, 30), seed=st.integers(0, 99), share=st.floats(0.0, 0.6))
def test_quotas_are_met_or_told_and_take_only_what_the_active_arm_can_spare(
    n: int, k: int, seed: int, share: float
) -> None:
    rng = np.random.default_rng(seed)
    pool = make_pool(n, seed=seed, copies=2, excluded=rng.random(n) < 0.2)
    groups = {"a": rng.random(n) < 0.15, "b": rng.random(n) < 0.3}
    shares = {"a": share, "b": 0.3}
    place = {name: row for row, name in enumerate(pool.ids)}
    before = plan(pool, k, seed=seed)

    after, unmet = meet_quotas(pool, before, groups=groups, shares=shares, strategy="margin")

    rows = [place[choice.id] for choice in after]
    clusters = [pool.clusters[row] for row in rows]
    assert len(after) == len(before) == len(set(rows)) == len(set(clusters))
    assert pool.excluded is not None
    assert not pool.excluded[rows].any()
    assert {c.id for c in before if c.arm != "active"} <= {c.id for c in after}
    for name in shares:
        wanted, got = least(shares[name], len(after)), int(groups[name][rows].sum())
        assert got >= min(wanted, sum(groups[name][place[c.id]] for c in before))
        assert (got < wanted) == (name in {one.quota for one in unmet})
    for one in unmet:  # told only where nothing could be exchanged: no record is left, or nobody can give a place up
        free = [
            row
            for row in np.flatnonzero(groups[one.quota] & ~pool.excluded)
            if pool.roles[row] == "train" and pool.clusters[row] not in clusters
        ]
        wanted_of = {name: least(shares[name], len(after)) for name in shares}
        active = np.array([place[c.id] for c in after if c.arm == "active"][::-1], dtype=np.int64)
        spare = dispensable(groups, wanted_of, batch=np.array(rows, dtype=np.int64), order=active)
        assert not free or not [row for row in spare if not groups[one.quota][row]]


def test_the_best_scores_of_a_group_come_for_the_last_picks_that_nobody_needs() -> None:
    german = np.array([0, 0, 0, 1, 1, 1, 1], dtype=bool)
    long = np.array([0, 0, 1, 0, 0, 0, 0], dtype=bool)

    swaps, unmet = exchanges(
        {"de": german, "long": long}, {"de": 2, "long": 1}, batch=np.array([0, 1, 2]), givable=np.array([0, 1, 2]),
        free=np.array([6, 5, 4, 3]), clusters=np.array([0, 1, 2, 3, 4, 6, 6]),
    )  # fmt: skip

    assert swaps == [(1, 6, "de"), (0, 4, "de")]  # 2 is the only long one; 5 is a copy of 6
    assert unmet == []


def test_a_quota_of_what_is_not_there_says_so() -> None:
    nobody = np.zeros(2, dtype=bool)

    _, (one,) = exchanges(
        {"lang=fr": nobody}, {"lang=fr": 1}, batch=np.array([0]), givable=np.array([0]), free=np.array([1]),
        clusters=np.arange(2),
    )  # fmt: skip

    assert str(one) == "quota lang=fr: 0 of 1 records; no scored record is of this group"


@given(minutes=st.lists(st.floats(0.01, 500.0), max_size=40), limit=st.floats(0.1, 1000.0))
def test_a_batch_is_filled_best_first_and_never_beyond_its_minutes(minutes: list[float], limit: float) -> None:
    places = fitting(minutes, limit)

    assert sum(minutes[place] for place in places) <= limit
    for place in set(range(len(minutes))) - set(places):
        assert sum(minutes[one] for one in places if one < place) + minutes[place] > limit


def test_arms_shrink_together_when_minutes_are_short() -> None:
    choices = [Choice(f"{arm}{n}", arm, "x", None, n) for arm in ("evaluation", "control", "active") for n in (1, 2, 3)]
    minutes = np.full(9, 2.0, dtype=np.float32)
    minutes[1] = 5.0  # evaluation's second is passed over

    kept = within_minutes(choices, minutes, 10.0)

    assert [choice.id for choice in kept] == ["evaluation1", "control1", "control2", "active1", "active2"]
    assert [choice.rank for choice in kept] == [1, 1, 2, 1, 2]


def test_predictions_without_a_record_are_those_of_a_fit_without_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recheck, "_RIDGES", (0.1,))
    monkeypatch.setattr(recheck, "_BLOCK", 21)  # seven rows at once
    rng = np.random.default_rng(0)
    rows, labels = rng.normal(size=(30, 4)), rng.integers(0, 3, 30)

    leaving_out = recheck._LeftOut(rows, labels, classes=3)
    found = np.concatenate([leaving_out[some] for some in leaving_out.blocks()])

    centred = rows - rows.mean(axis=0)
    penalty = 0.1 * np.trace(centred.T @ centred) / 4
    targets = np.eye(3)[labels]
    for left in range(0, 30, 7):
        stay = np.arange(30) != left
        # The bias is fitted with the weights and not penalised; rows stay centred on all of them.
        design = np.column_stack([centred[stay], np.ones(29)])
        weights = np.linalg.solve(design.T @ design + np.diag([penalty] * 4 + [0.0]), design.T @ targets[stay])
        np.testing.assert_allclose(found[left], np.append(centred[left], 1.0) @ weights, atol=1e-9)


@pytest.mark.parametrize(("noise", "classes"), [(0.0, 3), (0.05, 3), (0.15, 10), (0.15, 2)])
def test_suspicion_is_the_share_of_wrong_labels_among_labels_so_suspected(noise: float, classes: int) -> None:
    rng = np.random.default_rng(1)
    truth = rng.integers(0, classes, 1500)
    rows = 3.0 * np.eye(16)[truth] + rng.normal(size=(1500, 16))
    wrong = rng.random(1500) < noise
    labels = np.where(wrong, (truth + rng.integers(1, classes, 1500)) % classes, truth)

    found = suspicion(rows, labels, classes=classes)

    assert found.dtype == np.float32
    assert abs(float(found.sum()) - wrong.sum()) <= 0.25 * wrong.sum() + 5
    blamed = found > 0.5
    if noise:
        assert wrong[blamed].mean() > 0.8
        assert blamed[wrong].mean() > 0.6
    else:
        assert blamed.sum() <= 3  # of 1,500, where the classes overlap


def test_nothing_is_said_of_classes_with_few_labels_or_without_another_class() -> None:
    rng = np.random.default_rng(0)
    labels = np.array([0] * 20 + [1] * 20 + [2] * 4)
    rows = 4.0 * np.eye(5)[labels] + rng.normal(size=(44, 5))

    assert suspicion(rows, labels, classes=4)[40:].tolist() == [0.0] * 4
    assert suspicion(rows[:20], labels[:20], classes=4).tolist() == [0.0] * 20
    assert suspicion(np.zeros((0, 3)), np.zeros(0, dtype=np.int64), classes=2).tolist() == []
    assert np.isfinite(suspicion(np.zeros((40, 3)), labels[:40], classes=2)).all()  # an embedding that tells nothing
    with pytest.raises(BadInput, match="3 labels but 2 embeddings"):
        suspicion(np.zeros((2, 1)), np.array([0, 1, 1]), classes=2)
    with pytest.raises(BadInput, match="labels must be classes"):
        suspicion(np.zeros((2, 1)), np.array([0, 2]), classes=2)


@pytest.mark.parametrize(
    ("suspects", "fresh", "most", "expected"),
    [([0.9, 0.8], [0.1, 0.1], 1, 1), ([0.4], [0.4], 9, 0), ([], [0.1], 9, 0), ([0.9, 0.2], [0.1, 0.3], 9, 1)],
)
def test_a_suspect_takes_a_place_only_where_it_is_worth_more(
    suspects: list[float], fresh: list[float], most: int, expected: int
) -> None:
    assert worthwhile(np.array(suspects), np.array(fresh), most=most) == expected


@pytest.mark.parametrize(
    ("document", "message"),
    [
        ("acquisition: {quotas: {lang: 0.1}}", "acquisition.quotas: quota 'lang' names no group; write slice=value"),
        ("acquisition: {quotas: {lang=de: 0.7, lang=en: 0.4}}", "the shares of lang add up to 1.1"),
        ("acquisition: {quotas: {predicted=bird: 0.1}}", "acquisition.quotas: 'bird' is not among task.classes"),
        (
            "acquisition: {cold_start: top_k}",
            "acquisition.cold_start: top_k needs scores, which a bootstrap model cannot",
        ),
        ("acquisition: {arms: {control: 0.8, recheck: 0.2}}", r"control \+ rare \+ reward_share \+ recheck"),
        (
            "{acquisition: {selector: batch_bald}, training: {members: 0}}",
            "acquisition.selector: batch_bald needs a committee, but training.members is 0; raise it or choose one of",
        ),
        (
            "{task: {kind: table, type: regression}, acquisition: {selector: badge}}",
            "acquisition.selector: badge needs probabilities of classes, which a regression does not give; choose one of",
        ),
        ("batches: {minutes: 0}", "batches.minutes: Input should be greater than 0"),
    ],
)
def test_rules_that_cannot_work_are_refused_by_name(document: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        parse(document)


def test_every_arm_of_a_policy_keeps_its_name() -> None:
    pool = make_pool(100)
    groups = {"x": np.arange(100) % 2 == 0}

    after, _ = meet_quotas(pool, plan(pool, 20, POLICY), groups=groups, shares={"x": 0.9}, strategy="margin")

    assert Counter(choice.arm for choice in after)["quota"] > 0


@pytest.mark.parametrize(
    ("document", "message"),
    [
        ("{task: {kind: image}, acquisition: {arms: {synthesis: 0.1}}}", "synthesis: images are not made of others"),
        (
            "{training: {synthetic: false}, acquisition: {arms: {synthesis: 0.1}}}",
            "training.synthetic: false leaves out",
        ),
    ],
)
def test_synthesis_that_cannot_be_used_is_refused(document: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        parse(document)


def test_a_pair_is_of_two_predicted_classes_and_the_nearest_such() -> None:
    scores = np.float32([0.9, 0.8, 0.1, 0.7])
    embedding = np.float32([[0.0], [1.0], [2.0], [9.0]])

    assert pairs(scores, embedding, np.array([0, 0, 1, 1]), most=2) == [(0, 2), (1, 2)]
    assert pairs(scores, embedding, None, most=2) == [(0, 1), (1, 0)]
    assert pairs(scores, embedding, np.zeros(4, dtype=np.int64), most=2) == []
    assert pairs(scores[:0], embedding[:0], None, most=2) == []
