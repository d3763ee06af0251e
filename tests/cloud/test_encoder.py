"""One loop on an encoder in the local cloud: imported, scored with, trained on, gated, served, and never run twice."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.cloud.stack import CLASSES, LOOP, MARKS, WORDS, Stack, deployed, jsonl, sentences
from tests.encoders import folder, text_graph, tokenizer
from winnow import layout
from winnow.models.encoder import EncoderCard
from winnow.onnx.encoder import Encoder
from winnow.onnx.encoder_folder import read_encoder
from winnow.steps import vectors
from winnow.steps.accounting import account, check_invariants
from winnow_cli.errors import UsageError
from winnow_cli.importing_encoder import store

pytestmark = pytest.mark.cloud

POLICY = {
    **LOOP, "task": {"kind": "text", "classes": list(CLASSES), "title": "Is the customer content?"},
    "training": {**LOOP["training"], "encoder": "moods"},
}  # fmt: skip


def moods(root: Path) -> Path:
    """An encoder that was told which words are good and which are bad, and little about the others."""
    rng = np.random.default_rng(0)
    words = [*MARKS["negative"], *MARKS["positive"], *WORDS]
    table = rng.normal(scale=0.3, size=(2 + len(words), 8))
    table[2:5, 0] -= 3.0
    table[5:8, 0] += 3.0
    return folder(root, {"model.onnx": text_graph(table), "tokenizer.json": tokenizer(words)})


@pytest.fixture(scope="module")
def encoded() -> list[Any]:
    """Every payload that the functions encoded, in order."""
    return []


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory, encoded: list[Any]) -> Iterator[Stack]:
    card, files = read_encoder(moods(tmp_path_factory.mktemp("moods")))
    original = Encoder.encode

    def counting(self: Encoder, payloads: Any) -> Any:
        encoded.extend(payloads)
        return original(self, payloads)

    with pytest.MonkeyPatch.context() as patch, deployed(loop=POLICY) as running:
        patch.setattr(Encoder, "encode", counting)
        running.employ()
        store(card, files, name="moods", data=running.ports().data)
        running.drop("reviews.jsonl", jsonl(sentences(160)))
        running.run_improve()
        assert running.cloud.run(condition=lambda: running.champion() is not None, limit_days=3)
        assert running.cloud.run(condition=lambda: running.ended("rescore"), limit_days=3)
        yield running


def test_the_loop_ends_in_a_champion_on_the_encoder(stack: Stack) -> None:
    model = stack.champion()

    card = stack.json(layout.model(str(model)))
    assert card["encoder"] == {k: v for k, v in stack.json(layout.encoder("moods")).items() if k != "format"}
    assert stack.errors() == []
    assert stack.dead_letters() == {}
    assert {name for name, found in check_invariants(stack.ports()).items() if not found.ok} == set()
    assert account(stack.ports()).lost == 0


def test_before_any_label_the_pool_is_covered_in_the_encoders_space(stack: Stack) -> None:
    assert sorted(stack.scored("bootstrap-text-moods")) == sorted(row["id"] for row in stack.lines(layout.RECORDS))


def test_every_record_was_encoded_once_by_scorers_and_gate_together(stack: Stack, encoded: list[Any]) -> None:
    assert len(stack.scored(str(stack.champion()))) == 160
    assert len(encoded) == 160


def test_the_training_was_given_the_vectors_it_needed(stack: Stack) -> None:
    model = str(stack.champion())
    train = stack.lines(f"datasets/{stack.json(layout.model(model))['dataset']}/train/")

    given = vectors.unpack(stack.get(layout.training_vectors(model)))

    assert sorted(given) == sorted(row["id"] for row in train)


def test_comparison_fits_share_their_models_encoder(stack: Stack) -> None:
    keys = stack.keys(f"models/{stack.champion()}/")

    assert [key for key in keys if key.endswith("encoder.onnx")] == [
        layout.model(str(stack.champion()), "encoder.onnx")
    ]
    assert any("/arms/active/model.onnx" in key for key in keys)


def test_the_endpoint_says_what_the_scorer_says(stack: Stack) -> None:
    texts = ["river stone lovely", "late bridge winter awful", "nothing known"]
    body = json.dumps({"instances": [{"text": text} for text in texts]})

    answer = stack.cloud.client("sagemaker-runtime").invoke_endpoint(
        EndpointName=stack.cloud.stack, ContentType="application/json", Body=body
    )

    served = [row["probabilities"] for row in json.loads(answer["Body"].read())["predictions"]]
    scored = stack.ports().models.load(str(stack.champion())).predict([{"text": text} for text in texts])
    np.testing.assert_allclose(served, scored.probabilities, atol=1e-5)
    assert [row.argmax() for row in scored.probabilities[:2]] == [1, 0]


def test_a_name_keeps_its_meaning(stack: Stack, tmp_path: Path) -> None:
    card, files = read_encoder(folder(moods(tmp_path), {"encoder.json": {"max_tokens": 3}}))

    with pytest.raises(UsageError, match="moods is another encoder already"):
        store(card, files, name="moods", data=stack.ports().data)

    assert EncoderCard.from_json(stack.json(layout.encoder("moods"))).max_tokens == 256
