"""The benchmarks still run and compare like with like; how fast anything is, is not a test's business."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks import __main__ as command
from benchmarks import scoring, selection
from benchmarks.measure import Result, against
from winnow.selection.k_center import k_center
from winnow.steps.candidates import Candidates


def test_both_ways_run_equally_often() -> None:
    calls: list[str] = []

    against("a", lambda: calls.append("ours"), lambda: calls.append("reference"), called="b", repeats=3)

    assert calls == ["ours", "reference"] * 4


def test_the_ratio_is_ours_by_the_reference() -> None:
    assert Result("a", "b", ours_ms=3.0, reference_ms=2.0).ratio == 1.5


def test_the_textbook_loop_takes_the_rows_that_k_center_takes() -> None:
    embedding = np.random.default_rng(3).standard_normal((400, 8), dtype=np.float32)

    assert selection.textbook(embedding, 20).tolist() == k_center(embedding, 20).tolist()


def test_the_candidates_of_the_codec_survive_it() -> None:
    rows = scoring.candidates(50, rng=np.random.default_rng(0))

    assert Candidates.from_bytes(rows.to_bytes()).id.tolist() == rows.id.tolist()


def test_every_benchmark_prints_a_line(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(scoring, "SHAPES", ((50, 3),))
    monkeypatch.setattr(scoring, "CANDIDATES", 20)
    monkeypatch.setattr(scoring, "LINES", 20)
    monkeypatch.setattr(selection, "ROWS", 300)
    monkeypatch.setattr(selection, "TAKEN", 12)

    assert command.main([]) == 0
    printed = capsys.readouterr().out
    assert len(printed.splitlines()) == 1 + 3 + 2 + 2 + 3
    assert "OTHER ROWS" not in printed
