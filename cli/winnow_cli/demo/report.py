"""The HTML report of a demo: one file, no script, nothing fetched."""

from __future__ import annotations

import base64
from collections import Counter
from collections.abc import Sequence
from html import escape

from winnow_cli.demo import charts, engine
from winnow_cli.demo.story import ACCURACY, Asked, Confusion, Estimate, Measure, Round, Story, balance, short
from winnow_cli.demo.style import CSS
from winnow_cli.demo.table import INVARIANTS

SHOWN_PER_ROUND = 24
"""Asked records shown of each round; more would make the page slow on a phone."""
LONGEST_SHOWN = 300
"""Characters of a text or a row."""
MATRIX_CLASSES = 16
"""With more classes than this, the pairs confused most are listed instead of a matrix."""
CHIPS = {"promoted": "good", "rejected": "bad", "rolled back": "bad", "not trained": "plain", "not decided": "plain"}
ARMS = {
    "active": "chosen by the strategy",
    "control": "chosen at random",
    "rare": "quota of a rare class",
    "quota": "quota of a slice or predicted class",
    "recheck": "a label that looked wrong, asked again",
    "synthetic": "made of two other records",
    "evaluation": "a uniform sample, never trained on",
    "reward": "compares strategies",
    "dispute": "experts were asked",
}


def report(story: Story) -> str:
    """The whole page."""
    body = "".join((
        _top(story), _tiles(story), _curves(story), _rounds(story), engine.section(story), _timeline(story), _drills(story),
        _bought(story), _confusions(story), _asked(story), _ledger(story),
    ))  # fmt: skip
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>Winnow: {escape(story.title)}</title><style>{CSS}</style></head>"
        f"<body><main>{body}</main></body></html>\n"
    )


def _top(story: Story) -> str:
    labels, spend = sum(one.labels for one in story.rounds), sum(one.spend_usd for one in story.rounds)
    return (
        f"<header><h1>Winnow on {escape(story.title)}</h1>"
        f'<p class="soft">{len(story.rounds)} rounds in {story.days:.1f} virtual days, run in {story.real_seconds:.0f} '
        f"s on a freshly deployed local stack, seed {story.seed}. {labels} labels were bought for ${spend:,.2f}. "
        "Every number below was read from what the stack wrote.</p></header>"
    )


def _tiles(story: Story) -> str:
    verdicts = Counter(one.verdict for one in story.rounds)
    measured = [one for one in story.rounds if one.metric.value is not None]
    tiles = []
    measure = story.measure
    if story.champion.value is not None:
        first = measured[0] if measured else None
        since = f"; {measure.text(first.metric.value)} after round {first.number}" if first else ""
        tiles.append((measure.text(story.champion.value), f"champion's {measure.title}{since}"))
    tiles += [
        (f"{sum(one.labels for one in story.rounds):,}", f"labels, of {story.totals['in']:,} records that came in"),
        (f"${sum(one.spend_usd for one in story.rounds):,.2f}", f"spent, of a budget of ${story.budget_usd:,.0f}"),
        (str(verdicts["promoted"]), "challengers promoted"),
        (
            str(verdicts["rejected"] + verdicts["rolled back"]),
            f"stopped: {verdicts['rejected']} by the gate, {verdicts['rolled back']} by an alarm",
        ),
    ]
    cells = (f'<div class="tile"><b>{escape(value)}</b><span>{escape(text)}</span></div>' for value, text in tiles)
    return f'<div class="tiles">{"".join(cells)}</div>'


def _curves(story: Story) -> str:
    measure = story.measure
    arms = [
        charts.Line(name, style, tuple(_arm_points(story, style)))
        for name, style in (("chosen by Winnow", "active"), ("chosen at random", "control"))
    ]
    whole = [charts.Line("challenger", "active", tuple(_metric_points(story)))]
    return (
        "<section><h2>What labels teach</h2>"
        f'<p class="soft">{_headed(measure)} on the evaluation set, a uniform sample of the pool that no model chose and none is '
        "trained on. Bars are intervals.</p><div class='pair'><div><h3>The same number of labels from each arm</h3>"
        f"{charts.legend(arms)}"
        f"{charts.curves(arms, measure=measure, x_title='labels of the arm', label='Learning curves of both arms')}"
        '<p class="note">At every round, the trainer also fits the first n labels of each arm alone, n being what the '
        "smaller arm has. The distance between the curves is what choosing was worth.</p></div>"
        "<div><h3>Every challenger, on all train labels so far</h3>"
        f"{charts.legend(whole)}"
        f"{charts.curves(whole, measure=measure, x_title='labels bought in all', label='Every challenger')}"
        '<p class="note">A fall here is what the gate is for: the drills below explain it.</p></div></div></section>'
    )


def _arm_points(story: Story, arm: str) -> list[charts.Point]:
    points = []
    for one in story.rounds:
        estimate: Estimate = one.active if arm == "active" else one.control
        if estimate.value is not None and estimate.labels is not None and one.drill != "poison":
            hint = f"round {one.number}, {arm} arm, {estimate.labels} labels"
            points.append(_point(estimate, estimate.labels, hint, story.measure))
    return points


def _metric_points(story: Story) -> list[charts.Point]:
    return [
        _point(one.metric, one.total_labels, f"round {one.number}, {one.verdict}", story.measure)
        for one in story.rounds if one.metric.value is not None
    ]  # fmt: skip


def _point(estimate: Estimate, x: float, hint: str, measure: Measure) -> charts.Point:
    value = estimate.value if estimate.value is not None else 0.0
    low = estimate.low if estimate.low is not None else value
    high = estimate.high if estimate.high is not None else value
    return charts.Point(x, value, low, high, f"{hint}: {measure.interval(estimate)}")


def _rounds(story: Story) -> str:
    rows = []
    for one in story.rounds:
        why = f"<small>{escape('; '.join(one.reasons))}</small>" if one.reasons else ""
        rows.append(
            f'<tr><td class="n">{one.number}</td><td class="n">{one.labels}</td>'
            f'<td class="n">${one.spend_usd:,.2f}</td>'
            f"{''.join(f'<td>{_cell(figure, story.measure)}</td>' for figure in (one.metric, one.active, one.control))}"
            f"<td>{escape(short(one.champion))}</td><td>{_chip(one)}</td></tr>"
            + (
                f'<tr><td></td><td colspan="7" class="note">{why}</td></tr>'
                if why and one.verdict != "promoted"
                else ""
            )
        )
    heads = ("round", "labels", "spend", story.measure.title, "active arm", "control arm", "champion", "verdict")
    head = "".join(f'<th scope="col"{" class=n" if i < 3 else ""}>{name}</th>' for i, name in enumerate(heads))
    return (
        '<section><h2>Rounds</h2><div class="scroll"><table class="grid-table">'
        f"<thead><tr>{head}</tr></thead><tbody>{''.join(rows)}</tbody></table></div></section>"
    )


def _chip(one: Round) -> str:
    drill = f' <small>{one.drill} drill</small>' if one.drill else ""  # fmt: skip
    return f'<span class="chip {CHIPS[one.verdict]}">{escape(one.verdict)}</span>{drill}'


def _timeline(story: Story) -> str:
    lines = "".join(f"<li><time>day {one.day:.2f}</time><span>{escape(one.text)}</span></li>" for one in story.log)
    return (
        "<section><h2>Deployments and verdicts</h2>"
        '<p class="soft">Each batch of labels, what the gate said of its challenger, and which model served.</p>'
        f'<div class="scroll">{charts.timeline(story.rounds, story.deployments, story.log, days=story.days)}</div>'
        f'<details><summary>The whole log</summary><ul class="log">{lines}</ul></details></section>'
    )


def _drills(story: Story) -> str:
    told = []
    for one in story.rounds:
        if one.drill == "poison":
            told.append(
                f"<h3>Round {one.number}: spammers answer</h3><p>The whole crowd was replaced by people who give one "
                "and the same answer to everything. The challenger trained on their labels reached "
                f"{story.measure.interval(one.metric)} on the evaluation set{_against(one, story.measure)}. "
                f"The verdict: <strong>{escape(one.verdict)}</strong>. {escape(_sentence(one.reasons))}</p>"
            )
        if one.drill == "skew":
            served = next((item for item in story.served if item.model == one.challenger), None)
            seen = f" The users found {served.right} of its {served.judged} judged answers right." if served else ""
            end = f"{escape(short(one.champion))} serves."
            if one.verdict == "rolled back":
                end = (
                    f"The canary's alarm, on metrics of the predictions that were served, ended the rollout, and {end}"
                )
            told.append(
                f"<h3>Round {one.number}: serving differs from training</h3><p>The challenger reached "
                f"{story.measure.interval(one.metric)} offline, but its serving container mangled what it was sent.{seen} {end} "
                f"The verdict: <strong>{escape(one.verdict)}</strong>.</p>"
            )
    return f"<section><h2>Drills</h2>{''.join(told)}</section>" if told else ""


def _against(one: Round, measure: Measure) -> str:
    if one.difference is None or one.difference.value is None:
        return ""
    gap = one.difference.value
    return f", {measure.change(abs(gap)).removeprefix('+')} {'below' if gap < 0 else 'above'} the champion"


def _bought(story: Story) -> str:
    rows, best, measure = [], None, story.measure
    for one in story.rounds:
        if one.metric.value is None:
            continue
        if best is None:
            text = f"{one.labels} labels, ${one.spend_usd:,.2f}: the first model, {measure.text(one.metric.value)}"
            gain = one.metric.value
        else:
            gain = one.metric.value - best
            unit = "a point" if measure.percent else "a hundredth"
            price = f", ${one.spend_usd / (100 * gain):,.2f} {unit}" if gain > 0.0005 else ""
            text = f"{one.labels} labels, ${one.spend_usd:,.2f}: {measure.change(gain)}{price}"
        wide = 100 * min(1.0, abs(gain))
        style = "good" if gain >= 0 else "bad"
        rows.append(
            f'<span>round {one.number}</span><i class="{style}" style="width:{wide:.1f}%"></i><em>{escape(text)}</em>'
        )
        if one.verdict == "promoted":
            best = one.metric.value
    unsure = [one for one in story.rounds if one.entropy_before is not None and one.entropy_after is not None]
    fell = ""
    if unsure:
        fell = (
            f'<p class="note">The model\'s own doubt about the evaluation records (mean entropy) went from '
            f"{unsure[0].entropy_before:.2f} to {unsure[-1].entropy_after:.2f} nats.</p>"
        )
    return (
        "<section><h2>What each label bought</h2>"
        f'<p class="soft">{_headed(measure)} gained over the best champion before the round.</p>'
        f'<div class="bars">{"".join(rows)}</div>{fell}</section>'
    )  # fmt: skip


def _confusions(story: Story) -> str:
    if story.before is None or story.after is None:
        return ""
    title = "<section><h2>Confusion, before and after</h2>"
    if len(story.classes) > MATRIX_CLASSES:
        return f"{title}{_pairs(story.before, story.after)}</section>"
    both = "".join(
        f"<div><h3>{name}: {escape(short(one.model))}, {ACCURACY.text(one.accuracy)}</h3>{charts.confusion(one)}</div>"
        for name, one in (("First champion", story.before), ("Last champion", story.after))
    )
    return (
        f'{title}<p class="soft">Rows: the true class. Columns: the predicted one. Cells count evaluation records.</p>'
        f'<div class="pair">{both}</div></section>'
    )


def _pairs(before: Confusion, after: Confusion) -> str:
    found: Counter[tuple[str, str]] = Counter()
    for matrix in (before, after):
        for name, counts in zip(matrix.classes, matrix.counts, strict=True):
            for other, count in zip(matrix.classes, counts, strict=True):
                if name != other and count:
                    found[name, other] += count
    rows = "".join(
        f'<tr><td>{escape(name)}</td><td>{escape(other)}</td><td class="n">{_count(before, name, other)}</td>'
        f'<td class="n">{_count(after, name, other)}</td></tr>'
        for (name, other), _ in found.most_common(20)
    )
    return (
        f'<p class="soft">The pairs confused most, of {len(after.classes)} classes. Accuracy went from '
        f"{ACCURACY.text(before.accuracy)} to {ACCURACY.text(after.accuracy)}.</p><div class='scroll'><table class='grid-table'>"
        "<thead><tr><th>true</th><th>predicted</th><th class='n'>first champion</th><th class='n'>last champion</th>"
        f"</tr></thead><tbody>{rows}</tbody></table></div>"
    )


def _count(matrix: Confusion, name: str, other: str) -> int:
    return matrix.counts[matrix.classes.index(name)][matrix.classes.index(other)]


def _asked(story: Story) -> str:
    if not story.asked:
        return ""
    parts = []
    for one in story.rounds:
        mine = [item for item in story.asked if item.round == one.number]
        arms = ", ".join(f"{count} {arm}" for arm, count in Counter(item.arm for item in mine).most_common())
        cards = "".join(_card(item) for item in _spread(mine))
        wide = "" if story.kind == "image" else " texts"
        opened = " open" if one.number == len(story.rounds) else ""
        parts.append(
            f"<details{opened}><summary>Round {one.number}: {arms}</summary>"
            f'<div class="cards{wide}">{cards}</div></details>'
        )
    known = ", ".join(f"{arm}: {text}" for arm, text in ARMS.items() if any(item.arm == arm for item in story.asked))
    return (
        "<section><h2>The records that were asked</h2>"
        f'<p class="soft">Up to {SHOWN_PER_ROUND} of each round, best ranked of each arm first. {escape(known)}.</p>'
        f"{''.join(parts)}</section>"
    )


def _spread(items: Sequence[Asked]) -> list[Asked]:
    """The best ranked of every arm, the active arm getting half of the places."""
    ordered = sorted(items, key=lambda item: item.rank)
    active = [item for item in ordered if item.arm == "active"]
    others = [item for item in ordered if item.arm != "active"]
    mixed = [item for rank in range(SHOWN_PER_ROUND) for arm in ARMS for item in _nth(others, arm, rank)]
    shown = active[: max(SHOWN_PER_ROUND // 2, SHOWN_PER_ROUND - len(others))]
    return shown + mixed[: SHOWN_PER_ROUND - len(shown)]


def _nth(items: Sequence[Asked], arm: str, rank: int) -> list[Asked]:
    return [item for item in items if item.arm == arm][rank : rank + 1]


def _card(item: Asked) -> str:
    if isinstance(item.payload, bytes):
        source = base64.b64encode(item.payload).decode("ascii")
        seen = f'<img alt="" loading="lazy" src="data:image/png;base64,{source}">' if source else ""
    else:
        seen = f"<q>{escape(item.payload[:LONGEST_SHOWN])}</q>"
    score = "" if item.score is None else f", score {item.score:.4g}"
    answer = item.label if item.label is not None else item.status
    style = item.arm if item.arm in ("active", "control") else "plain"
    return (
        f'<div class="card {style}">{seen}<b>{escape(answer)}</b>'
        f"<span>{escape(item.arm)}, rank {item.rank}{score}<br>{escape(item.strategy)}"
        f"{'' if item.label is None else f', agreed {100 * item.confidence:.0f} %'}</span></div>"
    )


def _ledger(story: Story) -> str:
    checks = "".join(
        f'<li><b class="chip {"good" if holds else "bad"}">{name} {"holds" if holds else "BROKEN"}</b> '
        f"{escape(INVARIANTS.get(name, ''))}</li>"
        for name, holds in sorted(story.invariants.items())
    )
    broken = "".join(f"<li>{escape(text)}</li>" for text in story.violations)
    return (
        f"<section><h2>Nothing was lost</h2><p>{escape(balance(story.totals))}</p>"
        f'<ul class="checks">{checks}</ul>{f"<ul>{broken}</ul>" if broken else ""}</section>'
    )


def _cell(one: Estimate, measure: Measure) -> str:
    if one.value is None:
        return '<span class="none">not measured</span>'
    small = (
        ""
        if one.low is None or one.high is None
        else f" <small>{measure.bare(one.low)} to {measure.bare(one.high)}</small>"
    )
    return f"{measure.text(one.value)}{small}"


def _headed(measure: Measure) -> str:
    """The measure's name where a sentence begins."""
    return measure.title[0].upper() + measure.title[1:]


def _sentence(reasons: Sequence[str]) -> str:
    return (". ".join(reason.rstrip(".") for reason in reasons) + ".") if reasons else ""
