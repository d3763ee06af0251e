"""The comparison of label efficiency: its figures by hand, its adapters where the peers are installed."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import numpy as np
import pytest

from benchmarks import label_peers, labels
from winnow.acquisition import score
from winnow.models.predictions import Predictions
from winnow.selection.top_k import top_k
from winnow_cli.simulate.statistics import Interval
from winnow_cli.simulate.trial import Outcome, State


def state(task: str = "classification", *, size: int = 400, k: int = 12) -> State:
    """A linear model on an embedding of six directions; the first twenty rows are labeled."""
    rng = np.random.default_rng(4)
    embedding = rng.normal(size=(size, 6)).astype(np.float32)
    logits = embedding @ rng.normal(size=(6, 3))
    probabilities = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    numbers = logits[:, 0] + rng.normal(size=(size, 1)).T[0] * 0.1
    regression = task == "regression"
    return State(
        k=k, embedding=embedding, contents=np.arange(size), labeled=np.arange(20), task=task,
        classes=() if regression else ("a", "b", "c"),
        labels=numbers[:20] if regression else logits[:20].argmax(axis=1),
        predictions=Predictions(
            probabilities.astype(np.float32) if not regression else np.zeros((size, 0), np.float32), embedding,
            (numbers[:, None] + rng.normal(size=(size, 4))).astype(np.float32) if regression else None,
            prediction=numbers.astype(np.float32) if regression else None,
        ),
        doubt=None, memory={}, rng=np.random.default_rng(1),
    )  # fmt: skip


def outcome(name: str, seed: int, *values: float) -> Outcome:
    return Outcome(name, seed, (10, 20, 40), values, (0.5, 1.5), ())


def test_the_figures_by_hand() -> None:
    # Areas: (0.2 + 0.4) / 2 over 10 labels and (0.4 + 0.6) / 2 over 20 give 13 / 30.
    outcomes = {
        "ours": [outcome("ours", seed, 0.2, 0.4, 0.6 + seed / 100) for seed in range(3)],
        "random": [outcome("random", seed, 0.1, 0.2, 0.3) for seed in range(3)],
        "sk-badge": [outcome("sk-badge", seed, 0.2, 0.4, 0.6) for seed in range(3)],
    }

    rows = {row.name: row for row in labels.compare(outcomes, ours="ours")}

    assert list(rows) == ["ours", "sk-badge", "random"]
    assert rows["sk-badge"].area.value == pytest.approx(13 / 30)
    assert rows["random"].loss_to_random.value == 0.0
    # Random's area is 6.5 / 30; ours are 13, 13.1 and 13.2 of 30.
    assert rows["ours"].loss_to_random.value == pytest.approx(1 - 13.1 / 6.5)
    assert rows["sk-badge"].lost_by_ours.value == pytest.approx(-0.1 / 13)
    assert labels.is_level(rows["sk-badge"].lost_by_ours)
    assert rows["ours"].select_seconds == 1.0
    assert (best := labels.best_peer(list(rows.values()))) is not None
    assert best.name == "sk-badge"


@pytest.mark.parametrize(("high", "level"), [(0.0199, True), (0.0201, False), (None, None)])
def test_level_is_at_most_two_percent_by_the_upper_end(high: float | None, level: bool | None) -> None:
    assert labels.is_level(Interval(0.01, 0.0, high)) is level


def test_the_model_answers_for_records_and_for_rows_that_are_none() -> None:
    here = state()
    model = label_peers.Model(here)
    rows = here.embedding[[7, 3]].astype(np.float64)
    blanked = rows.copy()
    blanked[:, 2] = 0.0

    said = model.probabilities(np.vstack([rows, blanked]))

    assert model.places(blanked).tolist() == [-1, -1]
    whole = here.predictions
    assert whole is not None
    assert said[:2] == pytest.approx(whole.probabilities[[7, 3]], abs=1e-6)
    # The model is linear in the embedding, so the fitted head is the model.
    logits = np.random.default_rng(4)
    logits.normal(size=(400, 6))
    exact = np.exp(blanked @ logits.normal(size=(6, 3)))
    assert said[2:] == pytest.approx(exact / exact.sum(axis=1, keepdims=True), abs=1e-3)


def test_sets_without_files_are_left_out_with_the_reason(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert labels.main(["--sets", "banking77,adult", "--cache", str(tmp_path), "--json"]) == 0

    printed = capsys.readouterr()
    assert json.loads(printed.out)["skipped"] == {
        "banking77": "needs --encoder: a folder with a text encoder",
        "adult": "needs --data: a folder with adult/train.csv.gz and adult/test.csv.gz",
    }
    assert "adult: left out" in printed.err


def test_a_set_is_run_and_printed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = np.random.default_rng(6).normal(size=(90, 2))
    np.savez(tmp_path / "tiny.npz", x_train=rows, y_train=(rows[:, 0] > 0).astype(np.int64))
    monkeypatch.setattr(labels, "SETS", {"tiny": labels.Set(("tiny.npz",), {})})
    options = ["--sets", "tiny", "--ours", "margin", "--peers", "", "--seeds", "2", "--rounds", "1", "--jobs", "1"]

    assert labels.main([*options, "--data", str(tmp_path), "--cache", str(tmp_path)]) == 0

    printed = capsys.readouterr().out
    assert "tiny: accuracy over 5 to 10 labels, 5 at a time, of 63" in printed
    assert "no peer was run" in printed


@pytest.mark.parametrize("name", sorted(label_peers.PEERS))
def test_a_peer_chooses_different_free_records(name: str) -> None:
    peer = label_peers.PEERS[name]
    if importlib.util.find_spec(label_peers.LIBRARIES[peer.library]) is None:
        pytest.skip(f"{peer.library} is not installed")
    here = state(peer.task)

    rows = label_peers.Choosing(name)(here)

    assert len(set(rows.tolist())) == len(rows) == here.k
    assert set(rows.tolist()) <= set(here.free.tolist())


def test_a_peers_margin_is_ours() -> None:
    pytest.importorskip("modAL", reason="modAL is the peer")
    here = state()
    whole = here.predictions
    assert whole is not None
    ours = here.free[top_k(score("margin", whole, rng=here.rng)[here.free], here.k)]

    assert sorted(label_peers.Choosing("modal-margin")(here).tolist()) == sorted(ours.tolist())
