"""The HTML page of a simulation: one file, no script, nothing fetched."""

from __future__ import annotations

from html import escape

from winnow_cli.demo import charts
from winnow_cli.demo.story import ACCURACY, AVERAGE_PRECISION, R2, Measure
from winnow_cli.demo.style import CSS
from winnow_cli.progress import spoken
from winnow_cli.simulate.advice import Comparison
from winnow_cli.simulate.command import METHOD, Simulation
from winnow_cli.simulate.statistics import Interval, Summary
from winnow_cli.simulate.strategies import DEFAULT, RANDOM

MEASURES = {"accuracy": ACCURACY, "average precision": AVERAGE_PRECISION, "R2": R2}
VERDICTS = {
    "use": ("good", "use it"),
    "do not use": ("bad", "do not use it"),
    "not separated": ("plain", "not separated"),
}

PALETTE = (
    ("#1f8a5b", "#46c491"), ("#8a4fc9", "#b58ae8"), ("#b8860b", "#e0b04a"), ("#c2377f", "#ef79b0"), ("#0f8a97", "#45c3cf"),
    ("#6b7f1e", "#a9c04c"), ("#7a5c45", "#b9977b"), ("#55606e", "#9aa7b8"),
)  # fmt: skip
"""Colours of the strategies beside `default` and `random`, on light and on dark ground; used again after the last."""

OWN_CSS = (
    "".join(f".s{place} {{ --c: {light}; }}\n" for place, (light, _) in enumerate(PALETTE))
    + "@media (prefers-color-scheme: dark) {\n"
    + "".join(f".s{place} {{ --c: {dark}; }}\n" for place, (_, dark) in enumerate(PALETTE))
    + "}\n.wide { max-width: 700px; }\n.verdict { font-size: 1.08rem; }\n.swatch { display: inline-block; width: 10px; "
    "height: 10px; border-radius: 3px; background: var(--c); margin-right: 7px; }\n.grid-table td { white-space: nowrap; }\n"
)


def page(found: Simulation) -> str:
    """The whole page."""
    body = "".join(
        (_top(found), _tiles(found), *(_comparison(found, one) for one in found.comparisons), _method(found))
    )
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>Winnow simulate: {escape(found.name)}</title><style>{CSS}{OWN_CSS}</style></head>"
        f"<body><main>{body}</main></body></html>\n"
    )


def _top(found: Simulation) -> str:
    style, word = VERDICTS[found.advice.verdict]
    return (
        f"<header><h1>Active learning on {escape(found.name)}</h1>"
        f'<p class="verdict"><span class="chip {style}">{word}</span> {escape(found.advice.text)}</p></header>'
    )


def _tiles(found: Simulation) -> str:
    shown = found.shown
    measure = MEASURES[found.measure]
    tiles = [
        (
            measure.text(found.target),
            f"target {measure.title}{'' if found.target_given else ', random with the whole budget'}",
        ),
        (f"{shown.pool:,}", f"records to choose from; {found.test:,} judge"),
        (f"{found.settings[0].budget:,}", f"labels bought in all, the first {shown.initial} before any choice"),
        (str(shown.random.seeds), "seeds, paired: the same split and first sample for all"),
    ]
    saved = found.advice.saved
    if saved is not None and saved.value is not None:
        price = found.facts.get("price")
        money = f", {saved.value * price:,.2f} in money" if price is not None else ""
        tiles.insert(0, (f"{saved.value:,.0f}", f"labels saved until the target{money}"))
    cells = (f'<div class="tile"><b>{escape(value)}</b><span>{escape(text)}</span></div>' for value, text in tiles)
    return f'<div class="tiles">{"".join(cells)}</div>'


def _comparison(found: Simulation, one: Comparison) -> str:
    measure = MEASURES[found.measure]
    styles = _styles(one)
    lines = [charts.Line(name, styles[name], tuple(_points(row, measure))) for name, row in one.summaries.items()]
    picture = charts.curves(
        lines, measure=measure, x_title="labels bought", label=f"Learning curves of {', '.join(one.summaries)}", bands=True,
        goal=found.target,
    )  # fmt: skip
    return (
        f"<section><h2>Learning curves, batches of {one.batch}</h2>"
        f'<p class="soft">{escape(measure.title.capitalize())} on held-out records, mean over the seeds; bands are 95 % '
        f"intervals, the dashed line is the target.</p>{charts.legend(lines)}<div class='wide'>{picture}</div>"
        f'<div class="scroll">{_table(one, measure, styles)}</div></section>'
    )


def _styles(one: Comparison) -> dict[str, str]:
    others = [name for name in one.summaries if name not in (DEFAULT, RANDOM)]
    return {DEFAULT: "active", RANDOM: "control"} | {
        name: f"s{place % len(PALETTE)}" for place, name in enumerate(others)
    }


def _points(row: Summary, measure: Measure) -> list[charts.Point]:
    points = []
    for labels, value, low, high in row.curve:
        bounds = "" if low is None or high is None else f" ({measure.text(low)} to {measure.text(high)})"
        hint = f"{row.name}, {labels} labels: {measure.text(value)}{bounds}"
        points.append(charts.Point(labels, value, value if low is None else low, value if high is None else high, hint))
    return points


def _table(one: Comparison, measure: Measure, styles: dict[str, str]) -> str:
    rows = []
    for name, row in one.summaries.items():
        labels = "never" if row.labels_to_target is None else f"{row.labels_to_target:,.0f}"
        reached = "" if row.reached == row.seeds else f" <small>{row.reached} of {row.seeds} seeds</small>"
        final = row.curve[-1][1]
        rows.append(
            f'<tr><td><i class="swatch {styles[name]}"></i>{escape(name)}</td><td class="n">{labels}{reached}</td>'
            f"<td>{_interval(row.ratio)}</td><td>{measure.text(final)}</td>"
            f"<td>{_interval(row.area_loss, percent=True)}</td>"
            f'<td class="n">{row.select_seconds_per_round:.3f}</td>{_rare(row)}</tr>'
        )
    heads = (
        "strategy",
        "labels to target",
        "times random's",
        "at the end",
        "area lost against random",
        "s a round choosing",
        *([] if one.random.rare is None else [f"until ten of {escape(one.random.rare.name)}"]),
    )
    head = "".join(
        f'<th scope="col"{" class=n" if place in (1, 5) else ""}>{text}</th>' for place, text in enumerate(heads)
    )
    return f'<table class="grid-table"><thead><tr>{head}</tr></thead><tbody>{"".join(rows)}</tbody></table>'


def _rare(row: Summary) -> str:
    if row.rare is None:
        return ""
    labels = "never" if row.rare.labels is None else f"{row.rare.labels:,.0f}"
    return f"<td>{labels} <small>{_interval(row.rare.ratio)} times</small></td>"


def _interval(one: Interval, *, percent: bool = False) -> str:
    def text(value: float | None) -> str:
        return "unknown" if value is None else f"{100 * value:+.1f} %" if percent else f"{value:.2f}"

    if one.value is None:
        return "-"
    return f"{text(one.value)} <small>({text(one.low)} to {text(one.high)})</small>"


def _method(found: Simulation) -> str:
    facts = found.facts
    encoder = f", with the encoder {escape(str(facts['encoder']))}" if facts.get("encoder") else ""
    judge = (
        "a test part of their own"
        if facts.get("holdout") is None
        else f"{100 * facts['holdout']:.0f} % held out a seed"
    )
    return (
        f'<section><h2>How to read this</h2><p class="soft">{escape(METHOD)}</p><p class="soft">The records are of kind '
        f"{escape(found.kind)}{encoder}, judged on {judge}. A simulation knows the answers of one labeled sample: it cannot tell "
        "what a pool holds that the sample does not, what a mistaken annotator costs, or how a larger pool would widen the "
        f'choice.</p><p class="note">Ran {spoken(found.seconds)}, {found.memory:.0f} MB at most over all processes.</p></section>'
    )
