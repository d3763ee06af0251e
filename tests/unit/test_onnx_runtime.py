"""Loading packages and predicting: rows keep their order and do not depend on their neighbours."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from winnow.errors import BadInput, BadModel
from winnow.models.bootstrap import bootstrap_files
from winnow.models.package import CARD_FILE, MODEL_FILE, ModelCard, ModelInput, ModelOutputs, digest
from winnow.onnx import runtime
from winnow.onnx.runtime import OnnxModel, read_folder
from winnow.onnx.wire import FLOAT, STRING, GraphBuilder


def package(graph: bytes, **changes: object) -> dict[str, bytes]:
    fields: dict[str, object] = {
        "model": "m",
        "kind": "text",
        "classes": ("a", "b"),
        "inputs": (ModelInput(name="text", kind="text", source="text"),),
        "masker": "1",
        "files": {MODEL_FILE: digest(graph)},
        "outputs": ModelOutputs(members=None),
    }
    return {CARD_FILE: ModelCard(**{**fields, **changes}).to_bytes(), MODEL_FILE: graph}  # type: ignore[arg-type]


TEXTS = ["Where is my card?", "", "I lost my card", "我的卡", "Top-up failed " * 40, "where is my CARD ?"]


def test_text_rows_keep_their_order_and_ignore_their_neighbours() -> None:
    model = OnnxModel.from_files(bootstrap_files("text", classes=["a", "b", "c"]))

    together = model.predict(TEXTS)

    assert together.probabilities.shape == (6, 3)
    assert together.probabilities.dtype == np.float32
    assert together.probabilities == pytest.approx(1 / 3)
    assert together.members is None
    assert together.embedding[0] == pytest.approx(together.embedding[5])
    for row, text in enumerate(TEXTS):
        assert model.predict([{"text": text}]).embedding[0] == pytest.approx(together.embedding[row], abs=1e-5)
    by_two = model.predict(TEXTS, batch=2)
    assert by_two.embedding == pytest.approx(together.embedding, abs=1e-5)


def test_texts_that_share_words_lie_closer() -> None:
    model = OnnxModel.from_files(bootstrap_files("text", classes=["a", "b"]))

    lost, missing, weather = model.predict(["I lost my card", "my card is lost", "sunny weather today"]).embedding

    assert lost @ missing > 0.5 > lost @ weather
    assert np.linalg.norm(lost) == pytest.approx(1.0)


def test_images_of_any_size_have_a_place() -> None:
    model = OnnxModel.from_files(bootstrap_files("image", classes=["a", "b"]))
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 255, (40, 60, 3), dtype=np.uint8)

    predictions = model.predict([pixels, np.repeat(np.repeat(pixels, 2, 0), 2, 1), 255 - pixels])

    same, scaled, inverse = predictions.embedding
    assert same @ scaled > same @ inverse
    assert predictions.probabilities.tolist() == [[0.5, 0.5]] * 3


@pytest.mark.parametrize("kind", ["text", "image"])
def test_no_records_give_no_rows(kind: str) -> None:
    predictions = OnnxModel.from_files(bootstrap_files(kind, classes=["a", "b"])).predict([])

    assert predictions.probabilities.shape == (0, 2)
    assert len(predictions.embedding) == 0


def test_a_payload_of_another_kind_is_bad_input() -> None:
    with pytest.raises(BadInput, match="needs an image"):
        OnnxModel.from_files(bootstrap_files("image", classes=["a", "b"])).predict([{"text": "x"}])


def test_texts_of_unlike_length_do_not_share_a_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runtime, "MAX_BATCH_CHARS", 100)
    model = OnnxModel.from_files(bootstrap_files("text", classes=["a", "b"]))
    sizes = []
    run = model.run
    monkeypatch.setattr(model, "run", lambda tensor: sizes.append(len(tensor)) or run(tensor))

    model.predict(["w" * 99, "a", "b", "c", "d" * 60])

    assert sizes == [3, 1, 1]


def test_a_text_model_without_a_form_gets_the_text_as_it_is() -> None:
    graph = GraphBuilder("length")
    text = graph.input("text", STRING, ("n",))
    _, counts = graph.ops("StringSplit", text, outputs=2)
    column = graph.op("Unsqueeze", graph.op("Cast", counts, to=FLOAT), graph.constant(np.array([1])))
    graph.output("probabilities", graph.op("Softmax", graph.op("Concat", column, column, axis=1)), FLOAT, ("n", 2))
    graph.output("embedding", column, FLOAT, ("n", 1))

    model = OnnxModel.from_files(package(graph.to_bytes()))

    assert model.predict(["Don't stop!", "one"]).embedding.ravel().tolist() == [2.0, 1.0]


def test_an_unknown_text_form_is_refused() -> None:
    files = bootstrap_files("text", classes=["a", "b"])
    card = files[CARD_FILE].replace(b"words-1", b"words-9")

    with pytest.raises(BadModel, match="words-9"):
        OnnxModel.from_files({**files, CARD_FILE: card}).predict(["x"])


def test_a_folder_is_read_by_its_card(tmp_path: Path) -> None:
    for name, content in bootstrap_files("text", classes=["a", "b"]).items():
        (tmp_path / name).write_bytes(content)
    (tmp_path / "other.txt").write_text("not in the card")

    assert sorted(read_folder(tmp_path)) == [CARD_FILE, MODEL_FILE]
    assert OnnxModel.load(tmp_path).card.model == "bootstrap-text"


def test_what_does_not_load_says_why(tmp_path: Path) -> None:
    files = bootstrap_files("text", classes=["a", "b"])

    with pytest.raises(BadModel, match=r"no model\.json"):
        OnnxModel.load(tmp_path)
    with pytest.raises(BadModel, match=r"no model\.json"):
        OnnxModel.from_files({})
    with pytest.raises(BadModel, match="another sha256"):
        OnnxModel.from_files({**files, MODEL_FILE: b"changed"})
    with pytest.raises(BadModel, match="does not load"):
        OnnxModel.from_files(package(b"no graph at all"))


def test_the_locale_of_the_machine_does_not_matter() -> None:
    code = (
        "from winnow.onnx.runtime import OnnxModel\nfrom winnow.models.bootstrap import bootstrap_files\n"
        "m = OnnxModel.from_files(bootstrap_files('text', classes=['a', 'b']))\n"
        "print(m.predict(['ÉCOLE \\u0130x', 'école']).embedding.tobytes().hex())"
    )
    root = Path(__file__).resolve().parents[2] / "layers" / "core"

    outputs = {
        subprocess.run(
            [sys.executable, "-c", code],
            env={"PATH": "/usr/bin", "PYTHONPATH": str(root), "LC_ALL": locale, "PYTHONUTF8": "1"},
            capture_output=True, text=True, check=True,
        ).stdout
        for locale in ("C", "tr_TR.UTF-8")
    }  # fmt: skip

    assert len(outputs) == 1
