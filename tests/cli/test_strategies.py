from __future__ import annotations

import json

import pytest

from winnow.acquisition import STRATEGIES
from winnow.selection import SELECTORS
from winnow_cli import strategies
from winnow_cli.main import main


def test_every_strategy_and_selector_is_listed_with_all_that_is_known(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["strategies", "--json"]) == 0

    body = json.loads(capsys.readouterr().out)
    assert [one["name"] for one in body["strategies"]] == list(STRATEGIES)
    assert [one["name"] for one in body["selectors"]] == list(SELECTORS)
    margin = next(one for one in body["strategies"] if one["name"] == "margin")
    assert margin == {
        "name": "margin", "needs": ["probabilities"], "scope": "record", "cost": "n x classes",
        "source": "Scheffer, Decomain and Wrobel, 2001", "sentence": STRATEGIES["margin"].sentence,
    }  # fmt: skip


@pytest.mark.parametrize("columns", [80, 100, 200])
def test_the_table_fits_the_terminal_and_loses_nothing(
    columns: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))

    assert main(["strategies"]) == 0

    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= min(columns, 100)
    said = " ".join(" ".join(lines).split())
    for one in (*STRATEGIES.values(), *SELECTORS.values()):
        assert f"{one.sentence} [{one.source}]" in said


def test_what_a_cell_cannot_hold_goes_on_below_it() -> None:
    long = {"name": "a", "needs": ["scores"], "scope": "batch", "cost": "word " * 30, "source": "b", "sentence": "c."}

    shown = strategies.text({"strategies": [], "selectors": [long]}).splitlines()

    row = next(number for number, line in enumerate(shown) if line.startswith("a "))
    assert shown[row + 1].split() == ["word"] * len(shown[row + 1].split())
    assert shown[row + 1].index("word") == shown[row].index("word")
