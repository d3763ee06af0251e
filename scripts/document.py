"""Writes the tables of the documentation from the code they describe; `--check` only says whether they are up to date.

A page holds `<!-- generated: NAME -->` and `<!-- end -->`; what stands between them belongs to this script.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Callable, Iterable, Mapping
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import yaml
from sizes import read

from winnow.acquisition import STRATEGIES
from winnow.loop import Loop, describe
from winnow.metrics import CATALOGUE
from winnow.selection import SELECTORS

ROOT = Path(__file__).resolve().parent.parent
ANSWERS = ROOT / "docs" / "operate" / "answers.yaml"
OBSERVABILITY = ROOT / "infra" / "observability.yaml"
TEMPLATE = ROOT / "template.yaml"

_BLOCK = re.compile(r"(<!-- generated: (?P<name>[a-z-]+) -->\n).*?(<!-- end -->)", re.DOTALL)


def configuration() -> str:
    """One section of loop.yaml after the other, a row a field."""
    parts: list[str] = []
    section = None
    for path, default, sentence in describe():
        head, _, name = path.rpartition(".")
        if head != section:
            section = head
            about = [_about(head), ""] if head else []
            parts += ["", f"### {head or 'top level'}", "", *about, *_head("Field", "Default", "What it decides")]
        parts.append(_row(f"`{name}`", f"`{_shown(default)}`" if default else "", sentence))
    return "\n".join(parts).strip()


def _about(path: str) -> str:
    model: Any = Loop
    sentence = ""
    for part in filter(None, path.split(".")):
        field = model.model_fields[part]
        model, sentence = field.annotation, field.description or ""
    return sentence


def _shown(default: str) -> str:
    as_yaml = {"()": "[]", "('negative', 'positive')": "[negative, positive]", "True": "true", "False": "false"}
    return as_yaml.get(default, default)


def metrics() -> str:
    """The catalogue, a row a metric."""
    rows = [
        _row(f"`{one.name}`", one.unit, ", ".join(one.dimensions), f"`{one.emitter}`", one.question)
        for one in CATALOGUE.values()
    ]
    return "\n".join([*_head("Metric", "Unit", "Dimensions", "Emitted by", "Question it answers"), *rows])


def strategies() -> str:
    """The table of strategies."""
    rows = [
        _row(f"`{one.name}`", ", ".join(sorted(one.needs)) or "nothing", one.scope, one.cost, one.sentence, one.source)
        for one in STRATEGIES.values()
    ]
    return "\n".join([*_head("Strategy", "Needs", "Scope", "Cost", "What it does", "Source"), *rows])


def selectors() -> str:
    """The table of selectors."""
    rows = [
        _row(f"`{one.name}`", ", ".join(sorted(one.needs)) or "nothing", one.sentence, one.cost, one.source)
        for one in SELECTORS.values()
    ]
    return "\n".join([*_head("Selector", "Needs", "What it does", "Cost", "Source"), *rows])


def parameters() -> str:
    """The template's parameters; one without a default is required."""
    rows = [
        _row(f"`{name}`", _parameter_default(one), one["Description"])
        for name, one in read(TEMPLATE)["Parameters"].items()
    ]
    return "\n".join([*_head("Parameter", "Default", "What it is"), *rows])


def _parameter_default(parameter: Mapping[str, Any]) -> str:
    if "Default" not in parameter:
        return "**required**"
    return "empty" if parameter["Default"] == "" else f"`{parameter['Default']}`"


def alarms() -> str:
    """Every alarm of infra/observability.yaml with what to look at and what to do. Raises LookupError without an answer."""
    answers = yaml.safe_load(ANSWERS.read_text(encoding="utf-8"))
    used: set[str] = set()
    rows = []
    for alarm in _alarms():
        pattern = next((name for name in answers if fnmatch(alarm["name"], name)), None)
        if pattern is None:
            raise LookupError(f"alarm {alarm['name']} has no answer in {ANSWERS.relative_to(ROOT)}; say what to do")
        used.add(pattern)
        words = {"hop": alarm["name"].removesuffix("-errors"), "queue": alarm["name"].partition("-")[0]}
        answer = {field: str(text).format(**words) for field, text in answers[pattern].items()}
        rows.append(_row(f"`{alarm['name']}`", alarm["goes"], alarm["means"], answer["look"], answer["do"]))
    unused = sorted(set(answers) - used)
    if unused:
        raise LookupError(f"{ANSWERS.relative_to(ROOT)} answers alarms that do not exist: {', '.join(unused)}")
    return "\n".join([*_head("Alarm (after the stack's name)", "Goes to", "What it means", "Look at", "Do"), *rows])


def _alarms() -> Iterable[Mapping[str, str]]:
    topics = {"PageTopicArn": "page", "TicketTopicArn": "ticket"}
    for resource in read(OBSERVABILITY)["Resources"].values():
        if resource["Type"] in ("AWS::CloudWatch::Alarm", "AWS::CloudWatch::CompositeAlarm"):
            properties = resource["Properties"]
            actions = properties.get("AlarmActions", [])
            yield {
                "name": str(properties["AlarmName"]["Sub"]).removeprefix("${Stack}-"),
                "means": str(properties["AlarmDescription"]),
                "goes": ", ".join(topics[action["Ref"]] for action in actions) or "nobody (an input of another)",
            }


def _head(*names: str) -> list[str]:
    return [_row(*names), "|" + " --- |" * len(names)]


def _row(*cells: str) -> str:
    return "| " + " | ".join(" ".join(cell.split()).replace("|", "\\|") for cell in cells) + " |"


TABLES: Mapping[str, Callable[[], str]] = {
    "configuration": configuration,
    "metrics": metrics,
    "strategies": strategies,
    "selectors": selectors,
    "parameters": parameters,
    "alarms": alarms,
}


def rewritten(page: str) -> str:
    """The page with every generated block as the code says it now. Raises KeyError for a block nobody generates."""
    return _BLOCK.sub(lambda found: f"{found[1]}\n{TABLES[found['name']]()}\n\n{found[3]}", page)


def pages() -> list[Path]:
    """Every page that may hold a generated block."""
    return sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])


def main(arguments: list[str] | None = None) -> int:
    """Write the tables, or with `--check` name the pages that are out of date and exit 1."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="change nothing; exit 1 when a page is out of date")
    check = parser.parse_args(arguments).check
    stale = []
    for page in pages():
        text = page.read_text(encoding="utf-8")
        wanted = rewritten(text)
        if wanted != text:
            stale.append(page)
            if not check:
                page.write_text(wanted, encoding="utf-8")
    for page in stale:
        print(f"{page.relative_to(ROOT)} {'is out of date; run `make docs`' if check else 'written'}")
    return 1 if check and stale else 0


if __name__ == "__main__":
    sys.exit(main())
