"""What `winnow status` says of the batch to come."""

from __future__ import annotations

from tests.steps.test_course import PRICED, RIVALS, A, B, asking, gated, rival_reward
from winnow.steps.course import chart
from winnow.steps.pointers import champion
from winnow_cli.status import coming, status


def test_the_competitors_stand_with_weights_and_regret() -> None:
    ports = asking(RIVALS)
    for number in range(3):
        rival_reward(ports, number, (A, B)[number % 2], (0.05, 0.01)[number % 2])

    course = status(ports)["next"]
    lines = coming(course)

    first, second = (line for line in lines if line.startswith("strategy"))
    assert first.startswith(f"strategy  {A} weight {course['competition']['weights'][A]:.2f}, +")
    assert first.endswith("points per 100 labels in 2 rounds")
    assert second.endswith("points per 100 labels in 1 round")
    assert any(f"after 3 rounds {A} leads by" in line and "; regret " in line for line in lines)


def test_a_stop_is_shown_with_its_remedy() -> None:
    ports = asking(PRICED)
    gated(ports, [0.9] * 10)

    lines = coming(chart(champion(ports)[0], ports).to_json())

    (worth,) = (line for line in lines if line.startswith("worth"))
    assert worth.startswith("worth     STOPPED: 12 further labels cost $3.60")
    assert any("winnow select --anyway" in line for line in lines)


def test_a_fixed_size_stands_beside_the_advised_one() -> None:
    ports = asking(PRICED.replace("total_usd: 100", "total_usd: 9"))

    lines = coming(status(ports)["next"])

    assert lines[0] == "next      12 records by margin+margin_kmeans, phase uncertainty"
    assert lines[1] == "          12 records: batches.size, since batches.adaptive is off"
    assert "          batches.adaptive would ask 10: 10 by budget: what is left pays for 30 items" in "\n".join(lines)
