"""Simulated annotators: skill, spam, pace."""

from __future__ import annotations

from collections import Counter

from winnow_local.annotators import Annotator, Crowd

TASKS = [{"text": f"item {n}"} for n in range(400)]
PAIRS = [(f"item {n}", "cat" if n % 2 else "dog") for n in range(400)]


def crowd(*people: Annotator, seed: int = 1) -> Crowd:
    return Crowd(people, lambda task: dict(PAIRS)[str(task["text"])], classes=["cat", "dog"], seed=seed)


def answers(of: Crowd, *, workers: int = 1) -> list[list[tuple[str, str]]]:
    planned = [of.work(task, workers=workers, start=0.0, time_limit=1e9) for task in TASKS]
    return [sorted((answer.worker_id, answer.label) for answer in row) for row in planned]


def test_a_skilled_worker_is_right_as_often_as_promised() -> None:
    found = answers(crowd(Annotator.skilled("ann", accuracy=0.8, classes=2)))

    right = sum(row[0][1] == label for row, (_, label) in zip(found, PAIRS, strict=True))
    assert 290 < right < 350  # 320 expected, standard deviation 8


def test_errors_follow_the_confusion_matrix() -> None:
    biased = Annotator("ann", ((1.0, 0.0), (1.0, 0.0)))

    assert Counter(row[0][1] for row in answers(crowd(biased))) == {"cat": 400}


def test_answers_do_not_depend_on_the_order_of_the_tasks() -> None:
    one, other = (crowd(Annotator.skilled("ann", accuracy=0.5, classes=2)) for _ in range(2))

    forth = {task["text"]: one.work(task, workers=1, start=0.0, time_limit=1e9)[0].label for task in TASKS}
    back = {task["text"]: other.work(task, workers=1, start=0.0, time_limit=1e9)[0].label for task in reversed(TASKS)}

    assert forth == back


def test_a_task_goes_to_distinct_workers_who_share_the_work() -> None:
    people = [Annotator.skilled(f"w{n}", accuracy=0.9, classes=2) for n in range(5)]

    found = answers(crowd(*people), workers=3)

    assert all(len({worker for worker, _ in row}) == 3 for row in found)
    load = Counter(worker for row in found for worker, _ in row)
    assert min(load.values()) > 180  # 240 each when the work is shared alike


def test_spammers_ignore_the_truth_until_they_are_replaced() -> None:
    honest = Annotator.skilled("ann", accuracy=1.0, classes=2)
    people = crowd(honest)
    people.people = [Annotator("bot", ((1.0, 0.0), (1.0, 0.0)))]

    spam = answers(people)
    people.people = [honest]

    assert {row[0][1] for row in spam} == {"cat"}
    assert [row[0][1] for row in answers(people)] == [label for _, label in PAIRS]


def test_a_worker_does_one_thing_after_the_other() -> None:
    people = crowd(Annotator.skilled("ann", accuracy=1.0, classes=2, seconds_per_item=10.0, spread=0.0))

    times = [people.work(task, workers=1, start=100.0, time_limit=60.0)[0].submitted_at for task in TASKS[:3]]

    assert times == [110.0, 120.0, 130.0]


def test_an_answer_beyond_the_time_limit_is_lost_and_so_is_an_absent_worker() -> None:
    slow = Annotator.skilled("slow", accuracy=1.0, classes=2, seconds_per_item=100.0, spread=0.0)
    seldom = Annotator.skilled("seldom", accuracy=1.0, classes=2, availability=0.25)

    assert crowd(slow).work(TASKS[0], workers=1, start=0.0, time_limit=60.0) == []
    assert 60 < sum(bool(row) for row in answers(crowd(seldom))) < 140  # 100 expected
