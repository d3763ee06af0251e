"""What the engine decided in each round and why, as the table and the report show it."""

from __future__ import annotations

import base64
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from html import escape
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from winnow_cli.demo.story import Asked, Round, Story

EXAMPLES_PER_ARM = 3
LONGEST_EXAMPLE = 120
"""Characters of a text or a row in the table of examples."""


@dataclass(frozen=True)
class Decided:
    """What was decided for a round before its records were chosen; figures are None where nothing could be measured."""

    phase: str
    recipe: str
    size: int
    reasons: tuple[str, ...]
    asked: Mapping[str, int] = field(default_factory=dict)
    """Arm → records."""
    gain_per_label: float | None = None
    """Points of the metric one further train label was expected to add."""
    prospect: str = ""
    """What the labels were expected to gain, in words."""
    weights: Mapping[str, float] = field(default_factory=dict)
    """Competitor → probability of being drawn; empty where none compete."""
    regret: float | None = None
    """Points that the leading competitor would have gained more so far."""
    standing: str = ""
    """What the rounds say about the competitors, in words."""
    overlap: Mapping[str, float] = field(default_factory=dict)
    """Competitor → share of what it would have asked that was asked."""


def decided(course: Mapping[str, Any] | None, *, phase: str, size: int, asked: Mapping[str, int]) -> Decided:
    """From the `course` of a plan; a plan without one says its phase and size."""
    if course is None:
        return Decided(phase, "", size, (), dict(asked))
    competition, prospect = course.get("competition") or {}, course["prospect"]
    picks = competition.get("picks") or {}
    return Decided(
        phase, str(course["recipe"]), size, tuple(course["reasons"]), dict(asked),
        gain_per_label=prospect["gain_per_label"], prospect=str(prospect["reason"]),
        weights=dict(competition.get("weights") or {}), regret=competition.get("regret"),
        standing=str(competition.get("sentence") or ""),
        overlap={name: one["overlap"] for name, one in picks.items() if one["overlap"] is not None},
    )  # fmt: skip


def lines(rounds: Sequence[Round]) -> list[str]:
    """The engine's part of the table that a demo ends with."""
    told = []
    for one, switched in _with_switches(rounds):
        made = one.decided
        assert made is not None  # by _with_switches
        told.append(f"round {one.number}: {_headline(made)}")
        told += [f"  {'-> ' if switched and _of_phase(made, reason) else ''}{reason}" for reason in _ordered(made)]
        if made.gain_per_label is not None:
            told.append(f"  {_per_label(made.gain_per_label)}")
        if made.weights:
            told.append(f"  weights {_weights(made)}; regret {made.regret or 0.0:.1f} points")
    return ["the engine", *told, ""] if told else []


def section(story: Story) -> str:
    """The engine's part of the report; empty for a story whose plans say nothing of it."""
    rows = []
    competing = any(one.decided is not None and one.decided.weights for one in story.rounds)
    for one, switched in _with_switches(story.rounds):
        made = one.decided
        assert made is not None  # by _with_switches
        style = "good" if switched else "plain"
        gain = '<span class="none">not measured</span>' if made.gain_per_label is None else _gain(made.gain_per_label)
        rows.append(
            f'<tr><td class="n">{one.number}</td><td><span class="chip {style}">{escape(made.phase)}</span></td>'
            f"<td>{escape(made.recipe)}</td><td>{escape(_arms(made.asked))}</td>"
            f'<td class="n">{made.size}</td><td>{gain}</td>{_rivals(made) if competing else ""}</tr>'
            f'<tr><td></td><td colspan="{7 if competing else 5}" class="note"><small>{escape(_why(made, switched))}'
            "</small></td></tr>"
        )
    if not rows:
        return ""
    titles = ["round", "phase", "active arm by", "arms", "size", "expected gain per label"]
    head = "".join(f"<th>{title}</th>" for title in (*titles, *(("weights", "regret") if competing else ())))
    return (
        "<section><h2>The engine</h2>"
        '<p class="soft">What was decided before each round, and why. A new phase is marked. The expected gain is read from '
        "a learning curve of the challengers so far; with fewer than five there is none.</p>"
        f'<div class="scroll"><table class="grid-table"><thead><tr>{head}</tr></thead><tbody>{"".join(rows)}</tbody></table>'
        f"</div>{_examples(story)}</section>"
    )


def _with_switches(rounds: Sequence[Round]) -> list[tuple[Round, bool]]:
    """The rounds whose plans say what was decided, each with whether its phase is another than the one before's."""
    known = [one for one in rounds if one.decided is not None and one.decided.reasons]
    phases = [one.decided.phase if one.decided else "" for one in known]
    return [(one, n > 0 and phases[n] != phases[n - 1]) for n, one in enumerate(known)]


def _headline(made: Decided) -> str:
    by = f" by {made.recipe}" if made.recipe else ""
    return f"{made.phase}{by}, {made.size} records: {_arms(made.asked)}"


def _why(made: Decided, switched: bool) -> str:
    parts = [*_ordered(made), *([made.prospect] if made.gain_per_label is not None else ())]
    parts += [
        f"{name} would have asked {100 * share:.0f} % of the same" for name, share in made.overlap.items() if share < 1
    ]
    return ("The phase changed. " if switched else "") + "; ".join(parts)


def _of_phase(made: Decided, reason: str) -> bool:
    return reason.startswith(f"{made.phase}:")


def _ordered(made: Decided) -> list[str]:
    """The reasons, that of the phase first."""
    return sorted(made.reasons, key=lambda reason: not _of_phase(made, reason))


def _rivals(made: Decided) -> str:
    regret = '<span class="none">-</span>' if made.regret is None else f"{made.regret:.1f} points"
    return f"<td>{escape(_weights(made))}</td><td>{regret}</td>"


def _weights(made: Decided) -> str:
    return ", ".join(f"{name} {weight:.2f}" for name, weight in sorted(made.weights.items(), key=lambda one: -one[1]))


def _arms(asked: Mapping[str, int]) -> str:
    return ", ".join(f"{arm} {count}" for arm, count in Counter(asked).most_common())


def _gain(points: float) -> str:
    return f"{points:.3f} points"


def _per_label(points: float) -> str:
    return f"one label more was expected to gain {_gain(points)}"


def _examples(story: Story) -> str:
    """Some records of the last round of each arm, with why each was chosen."""
    if not story.asked:
        return ""
    last = max(item.round for item in story.asked)
    mine = sorted((item for item in story.asked if item.round == last), key=lambda item: (item.arm, item.rank))
    rows, shown = [], Counter[str]()
    for item in mine:
        if shown[item.arm] < EXAMPLES_PER_ARM:
            shown[item.arm] += 1
            score = "-" if item.score is None else f"{item.score:.4g}"
            rows.append(
                f"<tr><td>{_seen(item)}</td><td>{escape(item.arm)}</td><td>{escape(item.strategy)}</td>"
                f'<td class="n">{score}</td><td class="n">{item.rank}</td><td>{escape(item.label or item.status)}</td></tr>'
            )
    head = "".join(f"<th>{title}</th>" for title in ("record", "arm", "strategy", "score", "rank", "answer"))
    return (
        f"<h3>Why a record was asked: examples of round {last}</h3>"
        '<div class="scroll"><table class="grid-table examples">'
        f"<thead><tr>{head}</tr></thead><tbody>{''.join(rows)}</tbody></table></div>"
        '<p class="note">The score is the strategy\'s, higher is more worth a label; of an arm that draws by chance it is the '
        "record's uniform key, lowest first. The rank counts within the arm.</p>"
    )


def _seen(item: Asked) -> str:
    if isinstance(item.payload, bytes):
        source = base64.b64encode(item.payload).decode("ascii")
        return f'<img alt="" loading="lazy" src="data:image/png;base64,{source}">' if source else ""
    return escape(item.payload[:LONGEST_EXAMPLE])
