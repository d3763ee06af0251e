from __future__ import annotations

import csv
import gzip
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from winnow.errors import BadInput, ConfigError
from winnow.labels.agreement import cohen_kappa, fleiss_kappa, krippendorff_alpha, percent_agreement
from winnow.labels.annotators import AnnotatorStatistics, Suspect, SuspectRules, statistics, suspects
from winnow.labels.answers import Answers
from winnow.labels.consensus import dawid_skene, majority_vote

CROWD = Path(__file__).parents[3] / "shared" / "data" / "crowd"


def simulated(
    accuracies: list[float], *, tasks: int = 200, classes: int = 3, seed: int = 0
) -> tuple[Answers, npt.NDArray[np.int64]]:
    """Every worker answers every task; accuracy 0 stands for a spammer who always says class 0."""
    rng = np.random.default_rng(seed)
    truth = rng.integers(0, classes, tasks)
    rows = []
    for worker, accuracy in enumerate(accuracies):
        right = rng.random(tasks) < accuracy
        wrong = (truth + rng.integers(1, classes, tasks)) % classes
        given = np.where(right, truth, wrong) if accuracy > 0 else np.zeros(tasks, dtype=np.int64)
        rows += [(f"t{task:04d}", f"w{worker}", f"c{label}") for task, label in enumerate(given)]
    return Answers.of(rows, classes=[f"c{code}" for code in range(classes)]), truth


class TestAnswers:
    def test_numbering_does_not_depend_on_the_order_of_arrival(self) -> None:
        rows = [("t2", "b", "x"), ("t1", "a", "y"), ("t1", "b", "x")]

        one, other = Answers.of(rows, classes=["x", "y"]), Answers.of(rows[::-1], classes=["x", "y"])

        assert one.tasks == other.tasks == ("t1", "t2")
        assert one.counts().tolist() == other.counts().tolist() == [[1, 1], [1, 0]]

    def test_a_label_that_is_no_class_is_refused(self) -> None:
        with pytest.raises(BadInput, match="worker a gave task t the label 'z'"):
            Answers.of([("t", "a", "z")], classes=["x"])

    def test_no_answers_are_no_tasks(self) -> None:
        assert Answers.of([], classes=["x", "y"]).counts().shape == (0, 2)


class TestMajorityVote:
    def test_a_tie_goes_to_the_side_that_agrees_more_elsewhere(self) -> None:
        rows = [("t1", "odd", "x"), ("t1", "even", "y"), ("t2", "odd", "x"), ("t2", "even", "y"), ("t2", "third", "y")]

        vote = majority_vote(Answers.of(rows, classes=["x", "y"]))

        assert vote.labels.tolist() == [1, 1]
        assert vote.confidence.tolist() == pytest.approx([0.5, 2 / 3])

    def test_a_tie_nothing_decides_goes_to_the_class_listed_first(self) -> None:
        vote = majority_vote(Answers.of([("t1", "a", "z"), ("t1", "b", "y")], classes=["x", "y", "z"]))

        assert vote.labels.tolist() == [1]

    def test_standing_never_outvotes_a_majority(self) -> None:
        rows = [("t1", "odd", "x"), ("t1", "odder", "x"), ("t1", "star", "y")]
        rows += [(f"s{i}", worker, "y") for i in range(9) for worker in ("star", "moon")]
        rows += [(f"o{i}", worker, label) for i in range(9) for worker, label in (("odd", "x"), ("odder", "y"))]

        vote = majority_vote(Answers.of(rows, classes=["x", "y"]))

        assert vote.labels[-1] == 0

    def test_a_task_nobody_answered_has_no_confidence(self) -> None:
        answers = replace(Answers.of([("t1", "a", "y")], classes=["x", "y"]), tasks=("t1", "t2"))

        vote = majority_vote(answers)

        assert vote.labels.tolist() == [1, 0]
        assert vote.confidence.tolist() == [1.0, 0.0]


class TestDawidSkene:
    def test_beats_the_majority_where_spammers_are_many(self) -> None:
        answers, truth = simulated([0.9, 0.85, 0.8, 0.0, 0.0, 0.0])

        fitted = dawid_skene(answers)
        voted = majority_vote(answers)

        assert (voted.labels == truth).mean() < 0.75
        assert (fitted.consensus().labels == truth).mean() > 0.93
        assert fitted.converged

    def test_recovers_confusions_and_prior(self) -> None:
        answers, truth = simulated([0.9, 0.8, 0.7, 0.6, 0.5], tasks=3000)

        fitted = dawid_skene(answers)

        assert np.allclose(fitted.confusion.sum(axis=2), 1.0, atol=1e-5)
        assert np.allclose(fitted.posteriors.sum(axis=1), 1.0, atol=1e-5)
        diagonals = fitted.confusion.diagonal(axis1=1, axis2=2).mean(axis=1)
        assert np.allclose(diagonals, [0.9, 0.8, 0.7, 0.6, 0.5], atol=0.03)
        assert np.allclose(fitted.prior, np.bincount(truth) / 3000, atol=0.02)

    def test_one_round_is_what_a_loop_over_the_answers_gives(self) -> None:
        answers, _ = simulated([0.9, 0.6, 0.7], tasks=20)
        counts = answers.counts()
        shares = counts / counts.sum(axis=1, keepdims=True)
        confusion = np.full((3, 3, 3), 0.01)
        for task, worker, label in zip(answers.task, answers.worker, answers.label, strict=True):
            confusion[worker, :, label] += shares[task]
        confusion /= confusion.sum(axis=2, keepdims=True)
        prior = (shares.sum(axis=0) + 0.01) / (shares.sum() + 0.03)
        expected = np.tile(prior, (20, 1))
        for task, worker, label in zip(answers.task, answers.worker, answers.label, strict=True):
            expected[task] *= confusion[worker, :, label]
        expected /= expected.sum(axis=1, keepdims=True)

        fitted = dawid_skene(answers, max_rounds=1)

        assert np.allclose(fitted.posteriors, expected, atol=1e-5)
        assert np.allclose(fitted.confusion, confusion, atol=1e-5)
        assert not fitted.converged

    def test_rows_may_come_in_any_order(self) -> None:
        answers, _ = simulated([0.9, 0.6, 0.7])
        order = np.random.default_rng(0).permutation(len(answers.task))
        shuffled = replace(answers, task=answers.task[order], worker=answers.worker[order], label=answers.label[order])

        assert np.allclose(dawid_skene(shuffled).posteriors, dawid_skene(answers).posteriors, atol=1e-4)

    def test_no_answers_and_unanswered_tasks_are_no_obstacle(self) -> None:
        nothing = Answers.of([], classes=["x", "y"])
        unanswered = replace(Answers.of([("t1", "a", "y")], classes=["x", "y"]), tasks=("t1", "t2"))

        assert dawid_skene(nothing).posteriors.shape == (0, 2)
        assert np.allclose(dawid_skene(unanswered).posteriors[1], dawid_skene(unanswered).prior, atol=1e-3)

    @pytest.mark.parametrize("wrong", [{"smoothing": 0.0}, {"max_rounds": 0}])
    def test_settings_that_cannot_work_are_refused(self, wrong: dict[str, float]) -> None:
        with pytest.raises(ConfigError, match="must be above 0"):
            dawid_skene(Answers.of([], classes=["x"]), **wrong)  # type: ignore[arg-type]


class TestAgreement:
    # Krippendorff's published example of nominal data (4 observers, 12 units, 5 values): alpha = 0.743.
    PUBLISHED = np.array(
        [[3, 0, 0, 0, 0], [0, 3, 1, 0, 0], [0, 0, 4, 0, 0], [0, 0, 4, 0, 0], [0, 4, 0, 0, 0], [1, 1, 1, 1, 0],
         [0, 0, 0, 4, 0], [3, 1, 0, 0, 0], [0, 4, 0, 0, 0], [0, 0, 0, 0, 3], [2, 0, 0, 0, 0], [0, 0, 1, 0, 0]]
    )  # fmt: skip

    # Fleiss' published example is the one every textbook prints (14 raters, 10 subjects, 5 categories): kappa = 0.210.
    FLEISS = np.array(
        [[0, 0, 0, 0, 14], [0, 2, 6, 4, 2], [0, 0, 3, 5, 6], [0, 3, 9, 2, 0], [2, 2, 8, 1, 1],
         [7, 7, 0, 0, 0], [3, 2, 6, 3, 0], [2, 5, 3, 2, 2], [6, 5, 2, 1, 0], [0, 2, 2, 3, 7]]
    )  # fmt: skip

    def test_published_examples(self) -> None:
        assert krippendorff_alpha(self.PUBLISHED) == pytest.approx(0.743, abs=5e-4)
        assert fleiss_kappa(self.FLEISS) == pytest.approx(0.210, abs=5e-4)

    def test_cohens_kappa_is_scikit_learns(self) -> None:
        metrics = pytest.importorskip("sklearn.metrics")
        rng = np.random.default_rng(0)
        one = rng.integers(0, 4, 300)
        other = np.where(rng.random(300) < 0.6, one, rng.integers(0, 4, 300))

        assert cohen_kappa(one, other, classes=4) == pytest.approx(metrics.cohen_kappa_score(one, other))

    def test_percent_agreement_counts_pairs(self) -> None:
        # Task 1: 3 of 3 pairs agree; task 2: 1 of 3; task 3 has one answer and says nothing.
        assert percent_agreement(np.array([[3, 0], [2, 1], [1, 0]])) == pytest.approx((1 + 1 / 3) / 2)

    def test_full_agreement_on_two_classes_is_one(self) -> None:
        counts = np.array([[2, 0], [0, 2]])

        assert krippendorff_alpha(counts) == fleiss_kappa(counts) == percent_agreement(counts) == 1.0

    @pytest.mark.parametrize("counts", [np.zeros((0, 2), dtype=np.int64), np.array([[1, 0], [0, 1]])])
    def test_without_pairs_nothing_can_be_said(self, counts: npt.NDArray[np.int64]) -> None:
        assert percent_agreement(counts) is None
        assert krippendorff_alpha(counts) is None
        assert fleiss_kappa(counts) is None

    def test_one_class_only_leaves_chance_undefined(self) -> None:
        counts = np.array([[3, 0], [3, 0]])

        assert krippendorff_alpha(counts) is None
        assert fleiss_kappa(counts) is None
        assert cohen_kappa(np.array([1, 1]), np.array([1, 1]), classes=2) is None
        assert cohen_kappa(np.array([], dtype=int), np.array([], dtype=int), classes=2) is None

    def test_what_does_not_pair_is_refused(self) -> None:
        with pytest.raises(BadInput, match="not 2 and 1"):
            cohen_kappa(np.array([0, 1]), np.array([0]), classes=2)
        with pytest.raises(BadInput, match="use krippendorff_alpha"):
            fleiss_kappa(np.array([[2, 0], [3, 0]]))


class TestAnnotators:
    def test_figures_tell_the_careful_from_the_spammer(self) -> None:
        answers, _ = simulated([0.95, 0.9, 0.9, 0.0], tasks=300)
        seconds = np.where(answers.worker == 3, 0.4, 8.0)
        seconds[0] = np.nan

        figures = statistics(answers, majority_vote(answers), seconds=seconds)

        assert [one.worker for one in figures] == ["w0", "w1", "w2", "w3"]
        assert [one.answers for one in figures] == [300] * 4
        assert [one.median_seconds for one in figures] == [8.0, 8.0, 8.0, 0.4]
        assert figures[3].spam is not None
        assert figures[3].spam > 0.99
        assert all(one.spam is not None and one.spam < 0.4 for one in figures[:3])
        assert suspects(figures) == (Suspect("w3", ("spam", "agreement", "speed")),)

    def test_peer_agreement_leaves_the_own_answer_out(self) -> None:
        rows = [("t1", "a", "x"), ("t1", "b", "x"), ("t1", "c", "y"), ("t2", "a", "y")]
        answers = Answers.of(rows, classes=["x", "y"])

        figures = statistics(answers, majority_vote(answers))

        assert [one.peer_agreement for one in figures] == [0.5, 0.5, 0.0]
        assert [one.agreement for one in figures] == [1.0, 1.0, 0.0]
        assert figures[0].median_seconds is None

    def test_alone_and_with_one_class_there_is_nothing_to_compare(self) -> None:
        answers = Answers.of([("t1", "a", "x")], classes=["x", "y"])

        (figure,) = statistics(answers, majority_vote(answers), seconds=np.array([np.nan]))

        assert figure == AnnotatorStatistics("a", 1, 1.0, None, None, None)
        assert suspects([figure], rules=SuspectRules(minimum_answers=1)) == ()

    def test_many_classes_and_few_answers_do_not_look_like_spam(self) -> None:
        answers, _ = simulated([0.9, 0.9, 0.9], tasks=40, classes=30)

        figures = statistics(answers, majority_vote(answers))

        assert suspects(figures) == ()

    def test_few_answers_are_not_judged(self) -> None:
        hasty = AnnotatorStatistics("h", 19, 0.1, 0.1, 1.0, 0.1)

        assert suspects([hasty]) == ()
        assert suspects([replace(hasty, answers=20)]) == (Suspect("h", ("spam", "speed")),)


def crowd(name: str) -> Iterator[tuple[Answers, npt.NDArray[np.int64]]]:
    with gzip.open(CROWD / f"{name}_labels.csv.gz", "rt", encoding="utf-8") as lines:
        rows = [(row["task"], row["worker"], row["label"]) for row in csv.DictReader(lines)]
    with gzip.open(CROWD / f"{name}_truth.csv.gz", "rt", encoding="utf-8") as lines:
        truth = {row["task"]: row["truth"] for row in csv.DictReader(lines)}
    answers = Answers.of(rows, classes=sorted({row[2] for row in rows}))
    yield answers, np.array([answers.classes.index(truth[task]) for task in answers.tasks])


@pytest.mark.shared
@pytest.mark.parametrize(
    ("name", "majority", "modelled"),
    [("bluebird", 0.759, 0.898), ("rte", 0.895, 0.928), ("twitter_sentiment", 0.931, 0.960)],
)
def test_consensus_on_real_crowds_is_as_right_as_the_literature(name: str, majority: float, modelled: float) -> None:
    if not CROWD.exists():
        pytest.skip(f"the real data beside the checkout is absent: {CROWD}")
    ((answers, truth),) = crowd(name)

    voted = (majority_vote(answers).labels == truth).mean()
    fitted = (dawid_skene(answers).consensus().labels == truth).mean()

    assert voted >= majority - 0.002
    assert fitted == pytest.approx(modelled, abs=0.002)
