"""The table a demo ends with, in plain text."""

from __future__ import annotations

from winnow_cli.demo import engine
from winnow_cli.demo.story import Estimate, Measure, Story, balance, short

INVARIANTS = {
    "I1": "every accepted annotation ends in one label, or in quarantine with a reason",
    "I2": "a content is in at most one open labeling job",
    "I3": "occurrences in = scored + duplicate + superseded + quarantined + waiting + dead-lettered",
    "I4": "dataset versions are complete, linear, and have one head",
    "I5": "no evaluation or reward content is in a training manifest",
    "I6": "nothing is promoted that the gate's test does not support",
    "I7": "after an alarm the last good configuration serves",
    "I8": "money committed to labels stays within the budget",
    "I9": "queues drain",
}


def estimate(one: Estimate, measure: Measure) -> str:
    """What was measured, with its interval.

    >>> from winnow_cli.demo.story import ACCURACY
    >>> estimate(Estimate(0.8125, 0.74, 0.871), ACCURACY), estimate(Estimate(None), ACCURACY)
    ('81.2 [74.0, 87.1]', '-')
    """
    if one.value is None:
        return "-"
    value = measure.bare(one.value)
    return (
        value if one.low is None or one.high is None else f"{value} [{measure.bare(one.low)}, {measure.bare(one.high)}]"
    )


def table(story: Story) -> str:
    """The rounds, the ledger and the invariants, as lines of text."""
    unit = " %" if story.measure.percent else ""
    figures = (f"{name}{unit}" for name in (story.measure.title, "active arm", "control arm"))
    head = ("round", "labels", "spend $", *figures, "champion", "verdict")
    body = [
        (
            str(one.number), str(one.labels), f"{one.spend_usd:.2f}",
            *(estimate(figure, story.measure) for figure in (one.metric, one.active, one.control)),
            short(one.champion), one.verdict + (f" ({one.drill} drill)" if one.drill else ""),
        )
        for one in story.rounds
    ]  # fmt: skip
    widths = [max(len(row[column]) for row in (head, *body)) for column in range(len(head))]
    lines = [_line(row, widths) for row in (head, tuple("-" * width for width in widths), *body)]
    labels, spend = sum(one.labels for one in story.rounds), sum(one.spend_usd for one in story.rounds)
    lines += [
        "",
        f"{labels} labels for ${spend:.2f} in {story.days:.1f} virtual days ({story.real_seconds:.0f} s of yours)",
        f"occurrences: {balance(story.totals)}",
        "",
        *engine.lines(story.rounds),
    ]
    for name, holds in sorted(story.invariants.items()):
        lines.append(f"{name} {'holds ' if holds else 'BROKEN'}  {INVARIANTS.get(name, '')}")
    lines += [f"  {violation}" for violation in story.violations]
    return "\n".join(lines)


def _line(cells: tuple[str, ...], widths: list[int]) -> str:
    """Cells padded to their columns; the first three are numbers and stand to the right."""
    pads = [str.rjust] * 3 + [str.ljust] * (len(cells) - 3)
    return "  ".join(pad(cell, width) for pad, cell, width in zip(pads, cells, widths, strict=True)).rstrip()
