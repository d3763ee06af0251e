"""A made-up story with every kind of round in it, for the tests of the table and the report."""

from __future__ import annotations

import io
from collections.abc import Callable

import pytest
from PIL import Image

from winnow_cli.demo.engine import Decided
from winnow_cli.demo.story import TOTALS, Asked, Confusion, Deployment, Estimate, Happening, Round, Served, Story


def sample_png() -> bytes:
    out = io.BytesIO()
    Image.new("L", (4, 4), 120).save(out, format="PNG")
    return out.getvalue()


def rounds() -> tuple[Round, ...]:
    made = []
    levels = (0.62, 0.78, 0.51, 0.86, 0.9, 0.93)
    verdicts = ("promoted", "promoted", "rejected", "promoted", "rolled back", "promoted")
    champion = "bootstrap-image"
    for index, (level, verdict) in enumerate(zip(levels, verdicts, strict=True)):
        model, phase = f"m{index}abcdef0123456789ab", "coverage" if index == 0 else "uncertainty"
        champion = model if verdict == "promoted" else champion
        made.append(
            Round(
                number=index + 1, batch=f"b{index}", labels=80, spend_usd=19.2,
                metric=Estimate(level, level - 0.06, level + 0.05),
                active=Estimate(level - 0.1, level - 0.16, level - 0.05, 15 * (index + 1)),
                control=Estimate(level - 0.15, level - 0.22, level - 0.1, 15 * (index + 1)),
                champion=champion, verdict=verdict, challenger=model,
                reasons=("accuracy is 27.0 points below the champion's",) if verdict == "rejected" else (),
                difference=Estimate(level - 0.7, level - 0.75, level - 0.65), started_day=2.5 * index,
                ended_day=2.5 * index + 1.1, by_arm={"active": 40, "control": 20, "evaluation": 20},
                drill="poison" if index == 2 else "skew" if index == 4 else None,
                entropy_before=1.2 - 0.1 * index, entropy_after=1.1 - 0.1 * index, total_labels=80 * (index + 1),
                decided=Decided(
                    phase, "margin+margin_kmeans", 80,
                    (f"80 records: reason <{index}>", f"{phase}: phase <{index}>"),
                    {"active": 40, "control": 20, "evaluation": 20},
                    gain_per_label=0.042 if index == 5 else None, prospect="40 further labels should gain 1.7 points",
                ),
            )
        )  # fmt: skip
    return tuple(made)


def story(*, kind: str = "image", classes: tuple[str, ...] = ("0", "1", "2")) -> Story:
    counts = tuple(tuple(18 if i == j else 1 for j in range(len(classes))) for i in range(len(classes)))
    payload = sample_png() if kind == "image" else "I am still <waiting> on my card"
    asked = tuple(
        Asked(one.number, arm, "margin", 0.25 + rank / 100, rank, classes[rank % len(classes)], 0.9, "labeled", payload)
        for one in rounds() for rank, arm in enumerate(("active", "control", "evaluation") * 5)
    )  # fmt: skip
    log = tuple(
        Happening(one.ended_day + 0.2, "gate", f"the gate says {one.verdict}", one.challenger) for one in rounds()
    )
    deployments = tuple(
        Deployment(
            one.challenger or "", one.number, one.ended_day + 0.25, one.ended_day + 0.3,
            "rolled back" if one.verdict == "rolled back" else "promoted",
            serving_until=one.ended_day + 2.6, cause="alarm" if one.verdict == "rolled back" else "",
        )
        for one in rounds() if one.verdict != "rejected"
    )  # fmt: skip
    totals = dict(zip(TOTALS, (1310, 1300, 6, 1, 3, 0, 0), strict=True))
    return Story(
        title="handwritten <digits>", kind=kind, classes=classes, seed=0, days=15.2, rounds=rounds(), totals=totals,
        invariants={f"I{n}": True for n in range(1, 10)}, asked=asked, log=log, deployments=deployments,
        before=Confusion("m0abcdef0123456789ab", classes, counts, 0.62),
        after=Confusion("m5abcdef0123456789ab", classes, counts, 0.93),
        served=(Served("m4abcdef0123456789ab", 40, 9),), real_seconds=74.0, budget_usd=1000.0,
    )  # type: ignore[arg-type]  # fmt: skip


@pytest.fixture
def story_of() -> Callable[..., Story]:
    """A finished story: `story_of(kind=, classes=)`."""
    return story
