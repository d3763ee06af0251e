"""Inline SVG for the report: no script, no font, no address outside the page; colours come from the page's CSS."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from html import escape

from winnow_cli.demo.story import Confusion, Deployment, Happening, Measure, Round, shares, short


@dataclass(frozen=True)
class Point:
    """A measured value with its interval: x in labels, y in 0..1; `hint` is shown under the pointer."""

    x: float
    y: float
    low: float
    high: float
    hint: str


@dataclass(frozen=True)
class Line:
    """A named series; `style` is a class of the page's CSS."""

    name: str
    style: str
    points: tuple[Point, ...]


WIDTH, HEIGHT = 460.0, 290.0
LEFT, RIGHT, TOP, BOTTOM = 44.0, 16.0, 14.0, 42.0
LEAST_BAR = 20.0
"""Pixels; a batch of labels takes hours, of days that are wide."""
GATE_MARKS = {"promote": ("good", "\u2713"), "reject": ("bad", "\u2715"), "inconclusive": ("plain", "?")}
NUDGE = 3.0
"""Pixels by which series stand apart, so that intervals at one x do not cover each other."""


def curves(
    lines: Sequence[Line], *, measure: Measure, x_title: str, label: str, bands: bool = False, goal: float | None = None
) -> str:
    """Series with intervals over a number of labels, as whiskers or as `bands`, and a level to reach. `label` describes the
    picture to those who cannot see it. What lies below 0 (an R2 can) is drawn at 0; the hint under the pointer has the
    number."""
    points = [point for line in lines for point in line.points]
    if not points:
        return '<p class="none">Nothing was measured.</p>'
    right = max(point.x for point in points) * 1.04 or 1.0
    floor = max(0.0, min(0.9, 0.1 * int(10 * min(point.low for point in points))))

    def x(value: float) -> float:
        return LEFT + (WIDTH - LEFT - RIGHT) * value / right

    def y(value: float) -> float:
        return TOP + (HEIGHT - TOP - BOTTOM) * (1 - (max(value, floor) - floor) / (1 - floor))

    parts = [_open(WIDTH, HEIGHT, label)]
    step = 0.1 if floor >= 0.4 else 0.2
    for tick in _ticks(floor, 1.0, step):
        parts.append(f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y(tick):.1f}" y2="{y(tick):.1f}"/>')
        parts.append(_text(LEFT - 8, y(tick) + 4, measure.tick(tick), "tick end"))
    for tick in _ticks(0.0, right, _nice(right / 5)):
        parts.append(_text(x(tick), HEIGHT - BOTTOM + 18, f"{tick:.0f}", "tick middle"))
    parts.append(f'<line class="axis" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y(floor):.1f}" y2="{y(floor):.1f}"/>')
    parts.append(_text((LEFT + WIDTH - RIGHT) / 2, HEIGHT - 6, x_title, "tick middle"))
    if goal is not None and floor <= goal <= 1.0:
        parts.append(
            f'<line class="goal" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y(goal):.1f}" y2="{y(goal):.1f}"/>'
            + _text(LEFT + 4, y(goal) - 5, measure.text(goal), "tick")
        )
    for line in lines if bands else ():
        edge = [f"{x(point.x):.1f},{y(min(point.high, 1.0)):.1f}" for point in line.points]
        edge += [f"{x(point.x):.1f},{y(point.low):.1f}" for point in reversed(line.points)]
        parts.append(f'<polygon class="band {line.style}" points="{" ".join(edge)}"/>')
    for index, line in enumerate(lines):
        shift = 0.0 if bands else (index - (len(lines) - 1) / 2) * NUDGE
        if len(line.points) > 1:
            path = " ".join(f"{x(point.x) + shift:.1f},{y(point.y):.1f}" for point in line.points)
            parts.append(f'<polyline class="line {line.style}" points="{path}"/>')
        for point in line.points:
            at = x(point.x) + shift
            whisker = (
                f'<line class="whisker" x1="{at:.1f}" x2="{at:.1f}" y1="{y(point.low):.1f}" y2="{y(point.high):.1f}"/>'
            )
            parts.append(
                f'<g class="{line.style}"><title>{escape(point.hint)}</title>{"" if bands else whisker}'
                f'<circle class="dot" cx="{at:.1f}" cy="{y(point.y):.1f}" r="{3 if bands else 4.5}"/></g>'
            )
    return "".join(parts) + "</svg>"


def legend(lines: Sequence[Line]) -> str:
    """Names beside the colours of the series."""
    keys = (f'<span class="key"><i class="{line.style}"></i>{escape(line.name)}</span>' for line in lines)
    return f'<p class="legend">{"".join(keys)}</p>'


def timeline(
    rounds: Sequence[Round], deployments: Sequence[Deployment], log: Sequence[Happening], *, days: float
) -> str:
    """Lanes over virtual days: labeling batches, gate verdicts, and which model served."""
    width, left, lane = 900.0, 96.0, 46.0
    lanes = ("labeling", "gate", "rollout", "serving")
    height = lane * len(lanes) + 40

    def x(day: float) -> float:
        return left + (width - left - 20) * min(max(day, 0.0), days) / max(days, 1e-9)

    def top(name: str) -> float:
        return 8 + lane * lanes.index(name)

    parts = [_open(width, height, f"What happened on which of {days:.0f} virtual days")]
    for name in lanes:
        parts.append(_text(0, top(name) + 24, name, "lane"))
        under = top(name) + lane - 4
        parts.append(f'<line class="grid" x1="{left}" x2="{width - 20}" y1="{under}" y2="{under}"/>')
    step = max(1.0, _nice(days / 8))
    for tick in _ticks(0.0, days, step):
        parts.append(f'<line class="grid" x1="{x(tick):.1f}" x2="{x(tick):.1f}" y1="8" y2="{height - 32}"/>')
        parts.append(_text(x(tick), height - 12, f"day {tick:.0f}", "tick middle"))
    for one in rounds:
        hint = f"round {one.number}: {one.labels} labels, day {one.started_day:.2f} to {one.ended_day:.2f}"
        style = "bad" if one.drill == "poison" else "active"
        parts.append(_bar(x(one.started_day), x(one.ended_day), top("labeling") + 8, style, str(one.number), hint))
    for happening in log:
        if happening.kind == "gate" and happening.model:
            style, mark = GATE_MARKS.get(happening.verdict or "", ("plain", "?"))
            parts.append(_mark(x(happening.day), top("gate") + 19, style, mark, happening.text))
    for one in deployments:
        style = "bad" if one.outcome == "rolled back" else "good"
        end = one.settled_day if one.settled_day is not None else days
        hint = f"{short(one.model)}: {one.outcome}, day {one.day:.2f} to {end:.2f}. {one.cause}"
        mark = "\u21b6" if one.outcome == "rolled back" else "\u2191"
        parts.append(_mark((x(one.day) + x(end)) / 2, top("rollout") + 19, style, mark, hint))
        if one.outcome == "promoted":
            until = one.serving_until if one.serving_until is not None else days
            parts.append(
                _bar(x(end), x(until), top("serving") + 8, "active", short(one.model), f"{short(one.model)} serves")
            )
    return "".join(parts) + "</svg>"


def confusion(matrix: Confusion) -> str:
    """A confusion matrix as a table whose cells are shaded by the share of their row."""
    head = "".join(f'<th scope="col"><span>{escape(name)}</span></th>' for name in matrix.classes)
    rows = []
    for name, counts in zip(matrix.classes, matrix.counts, strict=True):
        cells = "".join(
            f'<td class="{"hit" if name == other else "miss"}" style="--share:{share:.3f}" '
            f'title="{count} of true {escape(name)} predicted {escape(other)}">{count or ""}</td>'
            for other, count, share in zip(matrix.classes, counts, shares(counts), strict=True)
        )
        rows.append(f'<tr><th scope="row">{escape(name)}</th>{cells}</tr>')
    wide = " many" if max(map(len, matrix.classes)) > 3 else ""
    return (
        f'<table class="confusion{wide}"><thead><tr><th></th>{head}</tr></thead><tbody>{"".join(rows)}</tbody></table>'
    )


def _open(width: float, height: float, label: str) -> str:
    return f'<svg viewBox="0 0 {width:g} {height:g}" role="img" aria-label="{escape(label)}">'


def _text(x: float, y: float, text: str, style: str) -> str:
    return f'<text class="{style}" x="{x:.1f}" y="{y:.1f}">{escape(text)}</text>'


def _bar(start: float, end: float, top: float, style: str, text: str, hint: str) -> str:
    wide = max(end - start, LEAST_BAR)
    inside = _text(start + 6, top + 15, text, "on") if wide > 7.5 * len(text) + 10 else ""
    return (
        f'<g class="{style}"><title>{escape(hint)}</title>'
        f'<rect class="bar" x="{start:.1f}" y="{top:.1f}" width="{wide:.1f}" height="22" rx="4"/>{inside}</g>'
    )


def _mark(x: float, y: float, style: str, sign: str, hint: str) -> str:
    return (
        f'<g class="{style}"><title>{escape(hint)}</title><circle class="mark" cx="{x:.1f}" cy="{y:.1f}" r="10"/>'
        f"{_text(x, y + 5, sign, 'on middle')}</g>"
    )


def _ticks(start: float, end: float, step: float) -> Iterable[float]:
    count = int((end - start) / step + 1e-6)
    return (start + step * index for index in range(count + 1))


def _nice(step: float) -> float:
    """The next of 1, 2, 5, 10, 20, 50 ... that is not below `step`.

    >>> _nice(33.0), _nice(7.0)
    (50.0, 10.0)
    """
    size = 1.0
    while True:
        for factor in (1.0, 2.0, 5.0):
            if size * factor >= step:
                return size * factor
        size *= 10
