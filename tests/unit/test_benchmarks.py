"""The benchmarks still run and compare like with like; how fast anything is, is not a test's business."""

from __future__ import annotations

import json

import numpy as np
import pytest

from benchmarks import __main__ as command
from benchmarks import growth, memory, peers, pools, scoring, selection
from benchmarks.measure import Result, against
from winnow.selection import SELECTORS
from winnow.selection.k_center import k_center
from winnow.steps.candidates import Candidates


def test_both_ways_run_equally_often() -> None:
    calls: list[str] = []

    against("a", lambda: calls.append("ours"), lambda: calls.append("reference"), called="b", repeats=3)

    assert calls == ["ours", "reference"] * (1 + 10 * 3)  # ten times as often, since they are short


def test_what_takes_long_runs_once() -> None:
    calls: list[str] = []

    against("a", lambda: calls.append("ours"), lambda: calls.append("reference"), called="b", repeats=1)

    assert calls == ["ours", "reference"]


@pytest.mark.parametrize(("limit", "verdict"), [(None, ""), (1.5, "PASS"), (1.4, "over")])
def test_the_ratio_is_ours_by_the_reference_and_is_held_against_its_limit(limit: float | None, verdict: str) -> None:
    result = Result("a", "b", ours=3.0, theirs=2.0, limit=limit)

    assert result.ratio == 1.5
    assert result.verdict == verdict
    assert verdict in result.line()


def test_the_textbook_loop_takes_the_rows_that_k_center_takes() -> None:
    embedding = np.random.default_rng(3).standard_normal((400, 8), dtype=np.float32)
    rows = k_center(embedding, 20)

    assert selection.textbook_k_center(embedding, 20, first=int(rows[0])).tolist() == rows.tolist()


def test_the_textbook_draws_different_records_the_longest_gradient_first() -> None:
    rng = np.random.default_rng(0)
    points = rng.standard_normal((50, 4), dtype=np.float32)
    points[7] *= 100
    said = np.full((50, 2), 0.5, dtype=np.float32)

    rows = selection.textbook_badge(said, points, 20, rng=rng)

    assert rows[0] == 7
    assert len(set(rows.tolist())) == 20


def test_copies_stand_in_the_pool_three_times() -> None:
    points = pools.copies(300, 8, rng=np.random.default_rng(0))

    assert np.unique(points, axis=0, return_counts=True)[1].tolist() == [3] * 100


def test_the_candidates_of_the_codec_survive_it() -> None:
    rows = scoring.candidates(50, rng=np.random.default_rng(0))

    assert Candidates.from_bytes(rows.to_bytes()).id.tolist() == rows.id.tolist()


def test_every_benchmark_prints_a_line(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    smaller = {
        scoring: {"SHAPES": ((50, 3),), "CANDIDATES": 20, "LINES": 20},
        selection: {"ROWS": 300, "BATCHES": (12,), "SHORTLISTS": ((60, 5),)},
        growth: {"ROWS": 200, "TAKEN": 5, "REPEATS": 1},
        memory: {"ROWS": 500, "TAKEN": 5, "CASES": memory.CASES[:1]},
        peers: {"PEERS": ()},
    }
    for module, constants in smaller.items():
        for name, value in constants.items():
            monkeypatch.setattr(module, name, value)

    assert command.main(["--json"]) == 0
    printed = capsys.readouterr()

    found = json.loads(printed.out)
    assert len(printed.err.splitlines()) == len(found) + 2  # a head, and how many keep their limit
    assert {one["module"] for one in found} == {"scoring", "selection", "growth", "memory"}
    assert "OTHER ROWS" not in printed.err
    for name in SELECTORS:
        assert len([one for one in found if one["module"] == "growth" and one["name"].startswith(f"{name}, ")]) == 2


def test_quick_makes_pools_smaller(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(peers, "PEERS", ())
    monkeypatch.setattr(peers, "ROWS", 5_000)
    monkeypatch.setattr(peers, "TAKEN", 50)

    command.main(["--quick", "peers"])

    assert (peers.ROWS, peers.TAKEN) == (1_000, 20)
