"""A whole small demo on a freshly deployed stack, twice: with the labels as they are, and scrambled for all but people."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from winnow_cli import labeled as data
from winnow_cli.demo.command import play
from winnow_cli.demo.report import report
from winnow_cli.demo.story import Happening, Story

WORDS = {"fruit": "apple pear plum grape cherry", "metal": "iron copper zinc silver lead"}

pytestmark = pytest.mark.cloud


def written(path: Path, labels: list[str], texts: list[str]) -> data.LabeledData:
    path.write_text(
        "".join(json.dumps({"text": t, "y": y}) + "\n" for t, y in zip(texts, labels, strict=True)), encoding="utf-8"
    )
    return data.load(path, label="y")


def told(given: data.LabeledData) -> tuple[Story, list[Happening]]:
    log: list[Happening] = []
    return play(given, rounds=1, batch=40, seed=0, poison=False, skew=False, tell=log.append), log


@pytest.mark.timeout(600)
def test_only_people_can_read_the_truth(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    labels = [("fruit", "metal")[n % 2] for n in range(160)]
    texts = [f"{' '.join(rng.choice(WORDS[label].split(), 3))} number {n}" for n, label in enumerate(labels)]
    honest = written(tmp_path / "texts.jsonl", labels, texts)
    scrambled = written(tmp_path / "texts.jsonl", [str(name) for name in rng.permutation(labels)], texts)
    assert scrambled.truth != honest.truth

    story, log = told(honest)
    again, _ = told(replace(scrambled, truth=honest.truth))

    assert again.to_json() == story.to_json()
    assert story.broken() == []
    assert [one.labels for one in story.rounds] == [40]
    assert story.rounds[0].metric.value is not None
    assert {"drop", "batch", "labels", "gate"} <= {happening.kind for happening in log}
    assert "The records that were asked" in report(story)


@pytest.mark.timeout(600)
def test_numbers_are_asked_typed_and_learned(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    sizes, cities = rng.uniform(20, 200, 160).round(1), rng.choice(["Ulm", "Bonn"], 160)
    rows = [
        f"{size};{city};{10 * size + (500 if city == 'Ulm' else 0):.2f}"
        for size, city in zip(sizes, cities, strict=True)
    ]
    path = tmp_path / "flats.csv"
    path.write_text("\n".join(["size;city;price", *rows]).replace(".", ","), encoding="utf-16")

    story, _ = told(data.load(path, label="price"))

    assert story.broken() == []
    assert story.measure.name == "r2"
    assert [one.labels for one in story.rounds] == [40]
    assert story.rounds[0].metric.value is not None
    assert story.rounds[0].metric.value > 0.5
    asked = [(str(one.payload), float(one.label)) for one in story.asked if one.label is not None]
    truth = {
        f"size {size:g}, city {city}": 10 * size + (500 if city == "Ulm" else 0)
        for size, city in zip(sizes, cities, strict=True)
    }
    assert len(asked) == 40
    assert all(abs(label / truth[seen] - 1) < 0.35 for seen, label in asked)
    assert "size 1" in report(story)
