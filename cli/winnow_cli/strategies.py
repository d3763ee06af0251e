"""`winnow strategies`: what loop.yaml and `winnow simulate` can name, with what it needs, costs and comes from."""

from __future__ import annotations

import argparse
import json
import shutil
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from winnow.acquisition import STRATEGIES
from winnow.selection import SELECTORS

WIDTH = 100
"""Columns of the text where the terminal does not say; a wider terminal is not filled."""
TITLES = {
    "strategies": "Strategies: how much a record would teach",
    "selectors": "Selectors: which set of records makes a batch",
}
HEAD = {"name": "NAME", "needs": "NEEDS", "scope": "SCOPE", "cost": "COST"}


def run(given: argparse.Namespace) -> int:
    """Print every strategy and every selector."""
    body = listing()
    print(json.dumps(body, indent=1) if given.json else text(body, width=shutil.get_terminal_size((WIDTH, 24)).columns))
    return 0


def listing() -> dict[str, list[dict[str, Any]]]:
    """Both tables as one JSON-like document; a selector's scope is always the batch it makes."""
    return {
        "strategies": [_entry(strategy, scope=strategy.scope) for strategy in STRATEGIES.values()],
        "selectors": [_entry(selector, scope="batch") for selector in SELECTORS.values()],
    }


def _entry(one: Any, *, scope: str) -> dict[str, Any]:
    return {
        "name": one.name, "needs": sorted(one.needs), "scope": scope, "cost": one.cost,
        "source": one.source, "sentence": one.sentence,
    }  # fmt: skip


def text(body: Mapping[str, Sequence[Mapping[str, Any]]], *, width: int = WIDTH) -> str:
    """A table whose columns line up in both parts, an entry's sentence and source under its row."""
    width = max(60, min(width, WIDTH))
    rows = {part: [{**one, "needs": ", ".join(one["needs"]) or "nothing"} for one in body[part]] for part in TITLES}
    every = [HEAD, *(one for part in rows.values() for one in part)]
    widths = {column: max(len(one[column]) for one in every) for column in HEAD if column != "cost"}
    left = sum(widths.values()) + 2 * len(widths)
    if width - left < len("2,048 x 512 x classes"):  # a narrow terminal: what a strategy needs goes into two lines
        widths["needs"] = max(13, widths["needs"] - left - 21 + width)
    widths["cost"] = width - sum(widths.values()) - 2 * len(widths)
    parts = []
    for part, title in TITLES.items():
        lines = [title, "", *_cells(HEAD, widths)]
        for one in rows[part]:
            lines += _cells(one, widths)
            about = f"{one['sentence']} [{one['source']}]"
            lines += textwrap.wrap(about, width, initial_indent="    ", subsequent_indent="    ")
        parts.append("\n".join(lines))
    return "\n\n".join(parts)


def _cells(one: Mapping[str, str], widths: Mapping[str, int]) -> Iterable[str]:
    """The lines of a row; what does not fit into its column goes on below."""
    columns = [textwrap.wrap(one[column], width) or [""] for column, width in widths.items()]
    for line in range(max(map(len, columns))):
        cells = (column[line] if line < len(column) else "" for column in columns)
        yield "  ".join(cell.ljust(width) for cell, width in zip(cells, widths.values(), strict=True)).rstrip()
