"""The documentation says what the code says: tables are generated, links lead somewhere, names exist."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "scripts"))

import document  # noqa: E402

PAGES = document.pages()
LINK = re.compile(r"\]\((?!https?://|mailto:|#)([^)#\s]+)(?:#[^)]*)?\)")


def names(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


@pytest.mark.parametrize("page", PAGES, ids=names)
def test_generated_tables_are_up_to_date(page: Path) -> None:
    text = page.read_text(encoding="utf-8")

    assert document.rewritten(text) == text, f"{names(page)} is out of date; run `make docs`"


@pytest.mark.parametrize("page", PAGES, ids=names)
def test_links_lead_somewhere(page: Path) -> None:
    missing = [
        target for target in LINK.findall(page.read_text(encoding="utf-8")) if not (page.parent / target).exists()
    ]

    assert missing == []


def mentioned() -> Iterator[tuple[str, str]]:
    """(page, path) of every file of this repository that a page names in backticks."""
    rooms = "functions|layers|training|infra|local|cli|benchmarks|tests|docs|scripts"
    for page in PAGES:
        for path in re.findall(rf"`((?:{rooms})/[\w./-]+)`", page.read_text(encoding="utf-8")):
            yield names(page), path


def test_files_that_pages_name_exist() -> None:
    missing = [(page, path) for page, path in mentioned() if not (ROOT / path).exists()]

    assert missing == []


def test_every_generated_table_is_used() -> None:
    text = "\n".join(page.read_text(encoding="utf-8") for page in PAGES)

    assert {name for name in document.TABLES if f"<!-- generated: {name} -->" not in text} == set()


def test_configuration_names_every_field_of_the_loop() -> None:
    table = document.configuration()

    assert "| `total_usd` | `1000` | All money for labels. |" in table
    assert table.count("\n| `") == len(document.describe())


def test_an_alarm_without_an_answer_is_an_error(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    answers = ROOT / "docs" / "operate" / "answers.yaml"
    few = tmp_path / "docs" / "answers.yaml"
    few.parent.mkdir()
    few.write_text(answers.read_text(encoding="utf-8").replace("heartbeat-missing:", "heartbeat:"), encoding="utf-8")
    monkeypatch.setattr(document, "ANSWERS", few)
    monkeypatch.setattr(document, "ROOT", tmp_path)

    with pytest.raises(LookupError, match="alarm heartbeat-missing has no answer"):
        document.alarms()


def test_the_readme_stays_short() -> None:
    assert len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) < 150
