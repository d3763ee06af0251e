"""The scorer as built gives images and rows the figures that the model gives here."""

from __future__ import annotations

import csv
import io
import json
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.cloud.stack import LOOP, deployed
from tests.shipped import bare
from tests.shipped.built import ROOT
from tests.shipped.examples import Example, homes, pictures
from winnow import layout
from winnow.onnx.runtime import OnnxModel
from winnow.steps.pointers import Champion

pytestmark = [pytest.mark.cloud, pytest.mark.timeout(900)]


@dataclass(frozen=True)
class Case:
    """A task, how train.py is asked for a model of it and learns from what, and an object for the pool with so many records."""

    task: Mapping[str, Any]
    train: tuple[str, ...]
    examples: bytes
    dropped: tuple[str, bytes]
    count: int


def lines(found: list[Example], *, labels: bool) -> bytes:
    """JSON Lines as people write them: a base64 image, or a row's columns beside its label."""
    flat = [{"image": one["image"]["png"]} if "image" in one else one["row"] for one, _ in found]
    rows = [{**row, **({"label": label} if labels else {})} for row, (_, label) in zip(flat, found, strict=True)]
    return "".join(json.dumps(row) + "\n" for row in rows).encode()


def csv_of(found: list[Example]) -> bytes:
    out = io.StringIO()
    writer = csv.DictWriter(out, fieldnames=list(found[0][0]["row"]))
    writer.writeheader()
    writer.writerows(payload["row"] for payload, _ in found)
    return out.getvalue().encode()


CASES = {
    "images": Case(
        task={"kind": "image", "classes": ["across", "down"]},
        train=("--kind", "image"),
        examples=lines(pictures(40), labels=True),
        dropped=("camera.jsonl", lines(pictures(20, first=40), labels=False)),
        count=20,
    ),
    "rows with classes": Case(
        task={"kind": "table", "classes": ["cheap", "dear"]},
        train=("--kind", "table"),
        examples=lines(homes(60), labels=True),
        dropped=("homes.csv", csv_of(homes(25, seed=1))),
        count=25,
    ),
    "rows with numbers": Case(
        task={"kind": "table", "type": "regression"},
        train=("--kind", "table", "--task", "regression"),
        examples=lines(homes(60, regression=True), labels=True),
        dropped=("homes.csv", csv_of(homes(25, seed=1))),
        count=25,
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_other_data_gets_the_scores_that_the_scorer_gives_here(
    name: str, build: Path, python: Path, tmp_path: Path
) -> None:
    case, folder = CASES[name], tmp_path / "model"
    (tmp_path / "train.jsonl").write_bytes(case.examples)
    command = [
        sys.executable,
        "training/train.py",
        *case.train,
        "--train",
        tmp_path / "train.jsonl",
        "--members",
        "2",
    ]
    subprocess.run([*command, "--model-dir", folder], cwd=ROOT, check=True, capture_output=True)
    model = OnnxModel.load(folder)
    loop = {**LOOP, "task": case.task}
    if case.task.get("type") == "regression":
        loop["acquisition"] = {"strategy": "variance"}

    options = {"template": build / "template.yaml", "layers": [ROOT / "layers" / "core"], "loop": loop}
    with deployed(**options) as stack, bare.bare(stack.cloud, build=build, python=python):
        for file in (*model.card.files, "model.json"):
            stack.put(layout.model(model.card.model, file), (folder / file).read_bytes())
        stack.put(layout.CHAMPION, Champion(model.card.model, number=1).to_bytes())
        stack.drop(*case.dropped)
        stack.cloud.run_until_idle()

        assert stack.errors() == []
        bare.compare(stack, model.card.model, model, count=case.count)
