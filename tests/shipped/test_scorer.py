"""The scorer as built gives images and rows the figures that the model gives here."""

from __future__ import annotations

import base64
import csv
import io
import json
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.cloud.stack import LOOP, deployed
from tests.shipped import bare
from tests.shipped.built import ROOT
from winnow import layout
from winnow.onnx.runtime import OnnxModel
from winnow.steps.pointers import Champion

pytestmark = [pytest.mark.cloud, pytest.mark.timeout(900)]


@dataclass(frozen=True)
class Case:
    """A task, how train.py is asked for a model of it, and one object for the pool with so many records."""

    task: Mapping[str, Any]
    train: tuple[str, ...]
    examples: tuple[str, bytes]
    dropped: tuple[str, bytes]
    count: int


def homes(count: int, *, seed: int) -> list[dict[str, Any]]:
    rng = np.random.default_rng(seed)
    return [
        {
            "rooms": number % 6 + 1,
            "m2": round(float(rng.uniform(20, 150)), 1),
            "heating": ("gas", "wood", "")[number % 3],
        }
        for number in range(count)
    ]


def csv_of(rows: list[dict[str, Any]]) -> bytes:
    out = io.StringIO()
    writer = csv.DictWriter(out, fieldnames=list(rows[0]))
    writer.writeheader()
    writer.writerows(rows)
    return out.getvalue().encode()


def priced(*, regression: bool) -> bytes:
    rows = homes(60, seed=0)
    prices = [20 * row["m2"] + 150 * row["rooms"] for row in rows]
    labels = prices if regression else ["dear" if price > 2200 else "cheap" for price in prices]
    return csv_of([{**row, "label": label} for row, label in zip(rows, labels, strict=True)])


def stripes(number: int, *, side: int = 16) -> bytes:
    """A PNG with stripes, across for even numbers and down for odd ones."""
    plane = np.zeros((side, side), np.uint8)
    plane[::4] = plane[1::4] = 200
    noise = np.random.default_rng(number).integers(0, 40, (side, side), dtype=np.uint8)
    out = io.BytesIO()
    Image.fromarray((plane if number % 2 == 0 else plane.T) + noise).save(out, "PNG")
    return out.getvalue()


def pictures(numbers: range, *, labels: bool) -> bytes:
    lines = [
        {
            "image": base64.b64encode(stripes(number)).decode(),
            **({"label": ("across", "down")[number % 2]} if labels else {}),
        }
        for number in numbers
    ]
    return "".join(json.dumps(line) + "\n" for line in lines).encode()


CASES = {
    "images": Case(
        task={"kind": "image", "classes": ["across", "down"]},
        train=("--kind", "image"),
        examples=("train.jsonl", pictures(range(40), labels=True)),
        dropped=("camera.jsonl", pictures(range(40, 60), labels=False)),
        count=20,
    ),
    "rows with classes": Case(
        task={"kind": "table", "classes": ["cheap", "dear"]},
        train=("--kind", "table"),
        examples=("train.csv", priced(regression=False)),
        dropped=("homes.csv", csv_of(homes(25, seed=1))),
        count=25,
    ),
    "rows with numbers": Case(
        task={"kind": "table", "type": "regression"},
        train=("--kind", "table", "--task", "regression"),
        examples=("train.csv", priced(regression=True)),
        dropped=("homes.csv", csv_of(homes(25, seed=1))),
        count=25,
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_other_data_gets_the_scores_that_the_scorer_gives_here(
    name: str, build: Path, python: Path, tmp_path: Path
) -> None:
    case, folder = CASES[name], tmp_path / "model"
    (tmp_path / case.examples[0]).write_bytes(case.examples[1])
    command = [
        sys.executable,
        "training/train.py",
        *case.train,
        "--train",
        tmp_path / case.examples[0],
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
