"""The table, the JSON document and the report of a made-up story."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import replace
from html.parser import HTMLParser

import pytest

from winnow_cli.demo.engine import decided
from winnow_cli.demo.report import report
from winnow_cli.demo.story import R2, Estimate, Story
from winnow_cli.demo.table import table

VOID = {"meta", "img", "br", "circle", "line", "rect", "polyline"}


class Balanced(HTMLParser):
    """Fails on a tag that is closed out of order, and gathers what a page would fetch."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.fetched: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.fetched += [value or "" for name, value in attrs if name in ("src", "href", "data", "action")]
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag not in VOID:
            assert self.open.pop() == tag


def test_json_is_the_agreed_document(story_of: Callable[..., Story]) -> None:
    document = json.loads(json.dumps(story_of().to_json()))

    assert set(document) == {"metric", "rounds", "totals", "invariants"}
    assert document["metric"] == "accuracy"
    assert set(document["rounds"][0]) == {
        "round", "labels", "spend_usd", "metric", "active", "control", "champion", "verdict",
    }  # fmt: skip
    assert document["rounds"][0]["active"] == {"value": 0.52, "low": 0.46, "high": 0.57}
    assert set(document["totals"]) == {
        "in", "scored", "duplicate", "superseded", "quarantined", "waiting", "dead_lettered",
    }  # fmt: skip
    assert document["invariants"]["I1"] is True


def test_the_table_names_every_round_and_the_balance(story_of: Callable[..., Story]) -> None:
    lines = table(story_of()).splitlines()

    assert lines[2].split()[:3] == ["1", "80", "19.20"]
    assert lines[4].endswith("rejected (poison drill)")
    assert lines[6].endswith("rolled back (skew drill)")
    assert (
        "1310 in = 1300 scored + 6 duplicate + 1 superseded + 3 quarantined + 0 waiting + 0 dead-lettered" in lines[10]
    )


def test_a_broken_invariant_is_said_and_told_apart(story_of: Callable[..., Story]) -> None:
    story = replace(
        story_of(), invariants={**story_of().invariants, "I3": False, "I9": False}, violations=("I3: 1 lost",)
    )

    assert story.broken() == ["I3"]  # I9 is reported, but a demo may end with work under way
    assert "I3 BROKEN" in table(story)
    assert "I3: 1 lost" in table(story)
    assert "I3 BROKEN" in report(story)


@pytest.mark.parametrize("kind", ["image", "text"])
@pytest.mark.parametrize("classes", [("a", "b"), tuple(f"class {n}" for n in range(40))])
def test_the_report_is_one_closed_page(story_of: Callable[..., Story], kind: str, classes: tuple[str, ...]) -> None:
    page = report(story_of(kind=kind, classes=classes))

    parser = Balanced()
    parser.feed(page)
    assert parser.open == []
    assert all(address.startswith("data:image/png;base64,") for address in parser.fetched)
    assert not re.search(r"https?://|@import|url\(|<script", page)


def test_the_report_escapes_what_users_wrote(story_of: Callable[..., Story]) -> None:
    page = report(story_of(kind="text"))

    assert "handwritten &lt;digits&gt;" in page
    assert "handwritten <digits>" not in page
    assert "&lt;waiting&gt;" in page
    assert "<waiting>" not in page


def test_the_report_tells_the_drills_and_only_those_that_were(story_of: Callable[..., Story]) -> None:
    story = story_of()

    quiet = replace(story, rounds=tuple(replace(one, drill=None) for one in story.rounds))

    assert "spammers answer" in report(story)
    assert "The users found 9 of its 40 judged answers right" in report(story)
    assert "Drills" not in report(quiet)


def test_a_story_without_measurements_still_makes_a_page(story_of: Callable[..., Story]) -> None:
    story = replace(story_of(), rounds=(), asked=(), log=(), deployments=(), before=None, after=None)

    assert "Nothing was measured." in report(story)
    assert "0 labels for $0.00" in table(story)


def test_what_is_no_share_is_not_told_in_percent(story_of: Callable[..., Story]) -> None:
    story = replace(story_of(kind="table"), measure=R2, champion=Estimate(0.8125, 0.7, 0.9), before=None, after=None)

    assert table(story).splitlines()[0].split()[4:7] == ["R\u00b2", "active", "arm"]
    assert "0.620 [0.560, 0.670]" in table(story)
    page = report(story)
    assert "<b>0.812</b><span>champion&#x27;s R\u00b2; 0.620 after round 1</span>" in page
    assert "R\u00b2 on the evaluation set" in page
    assert "80 labels, $19.20: +0.160, $1.20 a hundredth" in page


def test_the_engine_is_told_with_its_reasons(story_of: Callable[..., Story]) -> None:
    story = story_of()

    page, text = report(story), table(story)

    assert page.count(">The phase changed. uncertainty: phase &lt;1&gt;; 80 records: reason &lt;1&gt;<") == 1
    assert page.count("The phase changed.") == 1
    assert "0.042 points" in page
    assert "40 further labels should gain 1.7 points" in page
    assert page.count('<span class="none">not measured</span></td></tr>') == 5
    assert "regret" not in page
    assert "round 1: coverage by margin+margin_kmeans, 80 records: active 40, control 20, evaluation 20" in text
    assert "  -> uncertainty: phase <1>\n  80 records: reason <1>\n" in text
    assert "one label more was expected to gain 0.042 points" in text


def test_records_stand_with_why_they_were_asked(story_of: Callable[..., Story]) -> None:
    page = report(story_of(kind="text"))

    table_of_examples = page.split("examples of round 6")[1].split("</table>")[0]
    assert table_of_examples.count("<tr>") == 1 + 9  # a head, and three of each of three arms
    assert "<td>active</td><td>margin</td>" in table_of_examples
    assert '<td class="n">0.25</td><td class="n">0</td>' in table_of_examples


def test_competitors_are_told_with_weights_regret_and_what_each_would_have_asked(
    story_of: Callable[..., Story],
) -> None:
    story = story_of()
    course = {
        "recipe": "margin+badge", "reasons": ["margin+badge was drawn with weight 0.71"],
        "prospect": {"gain_per_label": None, "reason": "2 sizes were measured"},
        "competition": {
            "weights": {"margin+badge": 0.71, "entropy+top_k": 0.29}, "regret": 1.25, "sentence": "not separated",
            "picks": {"margin+badge": {"ids": ["a"], "overlap": 1.0}, "entropy+top_k": {"ids": ["b"], "overlap": 0.25}},
        },
    }  # fmt: skip
    rivals = decided(course, phase="uncertainty", size=80, asked={"active": 60, "control": 20})
    story = replace(story, rounds=(*story.rounds[:-1], replace(story.rounds[-1], decided=rivals)))

    page, text = report(story), table(story)

    assert "<td>margin+badge 0.71, entropy+top_k 0.29</td><td>1.2 points</td>" in page
    assert "entropy+top_k would have asked 25 % of the same" in page
    assert "  weights margin+badge 0.71, entropy+top_k 0.29; regret 1.2 points" in text


def test_plans_of_earlier_versions_make_no_engine_section(story_of: Callable[..., Story]) -> None:
    story = story_of()
    old = decided(None, phase="coverage", size=80, asked={"active": 80})

    page = report(replace(story, rounds=tuple(replace(one, decided=old) for one in story.rounds)))

    assert "The engine" not in page
