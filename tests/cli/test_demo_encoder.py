"""What `winnow demo --encoder` takes, and what it makes of it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.encoders import folder, image_graph, pets
from winnow_cli import labeled
from winnow_cli.demo import command
from winnow_cli.demo.loopfile import loop_file
from winnow_cli.errors import UsageError


@pytest.fixture
def texts(tmp_path: Path) -> labeled.LabeledData:
    path = tmp_path / "texts.jsonl"
    path.write_text("".join(json.dumps({"text": f"cat {n}", "y": "ab"[n % 2]}) + "\n" for n in range(80)))
    return labeled.load(path, label="y")


def test_the_demos_loop_names_the_encoder(texts: labeled.LabeledData) -> None:
    assert loop_file(texts, batch=20, rounds=5, seed=0).training.encoder is None
    assert loop_file(texts, batch=20, rounds=5, seed=0, encoded=True).training.encoder == "demo"


def test_an_encoder_of_the_datas_kind_is_taken(texts: labeled.LabeledData, tmp_path: Path) -> None:
    card, files = command._encoder(pets(tmp_path / "pets"), texts)

    assert (card.reads, sorted(files)) == ("text", ["encoder.onnx", "tokenizer.json"])


def test_any_other_is_refused_with_the_reason(texts: labeled.LabeledData, tmp_path: Path) -> None:
    images = folder(tmp_path / "images", {"model.onnx": image_graph(("n", 3, 4, 4), axes=(2, 3))})

    with pytest.raises(UsageError, match="reads image; the records are of kind text"):
        command._encoder(images, texts)
    with pytest.raises(UsageError, match=r"holds no encoder\.onnx, model\.onnx"):
        command._encoder(tmp_path, texts)
