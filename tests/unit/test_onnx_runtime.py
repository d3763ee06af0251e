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


@pytest.mark.parametrize("kind", ["text", "image", "table"])
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
    monkeypatch.setattr(model, "run", lambda tensors: sizes.append(len(tensors["text"])) or run(tensors))

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


def table_package(*, task: str = "classification") -> dict[str, bytes]:
    """Columns age and city; the answer is the age (missing: -1), the embedding how often the city is Ulm."""
    graph = GraphBuilder("columns")
    age, city = graph.input("c0", FLOAT, ("n", 1)), graph.input("c1", STRING, ("n", 1))
    known = graph.op("Where", graph.op("IsNaN", age), graph.constant(np.float32(-1)), age)
    ulm = graph.op(
        "LabelEncoder", city, domain="ai.onnx.ml",
        keys_strings=["Ulm", "39", ""], values_floats=[1.0, 2.0, 3.0], default_float=0.0,
    )  # fmt: skip
    both = graph.op("Concat", known, ulm, axis=1)
    if task == "regression":
        graph.output("prediction", graph.op("Squeeze", known, graph.constant(np.array([1]))), FLOAT, ("n",))
        graph.output("members", both, FLOAT, ("n", 2))
    else:
        graph.output("probabilities", graph.op("Softmax", both), FLOAT, ("n", 2))
    graph.output("embedding", ulm, FLOAT, ("n", 1))
    columns = (
        ModelInput(name="c0", kind="number", source="age"), ModelInput(name="c1", kind="category", source="city"),
    )  # fmt: skip
    changes: dict[str, object] = {"kind": "table", "inputs": columns}
    if task == "regression":
        changes |= {"task": task, "classes": (), "outputs": ModelOutputs(prediction="prediction")}
    return package(graph.to_bytes(), **changes)


ROWS = [
    {"age": 39.0, "city": "Ulm"}, {"city": "Bonn", "age": "old"}, {"age": None}, {"age": 1.0, "city": 39.0, "x": "y"},
]  # fmt: skip


def test_rows_feed_their_columns_and_stay_in_order() -> None:
    model = OnnxModel.from_files(table_package(task="regression"))

    predictions = model.predict([{"row": row} for row in ROWS])

    assert predictions.prediction is not None
    assert predictions.prediction.tolist() == [39.0, -1.0, -1.0, 1.0]
    assert predictions.embedding.ravel().tolist() == [1.0, 0.0, 3.0, 2.0]
    assert predictions.members is not None
    assert predictions.members.shape == (4, 2)
    assert predictions.probabilities.shape == (4, 0)
    by_one = model.predict([{"row": row} for row in ROWS], batch=1)
    assert by_one.prediction is not None
    assert by_one.prediction.tolist() == predictions.prediction.tolist()


def test_rows_are_classified_too() -> None:
    predictions = OnnxModel.from_files(table_package()).predict([{"row": row} for row in ROWS])

    assert predictions.prediction is None
    assert predictions.probabilities[2].tolist() == pytest.approx([1 / (1 + np.exp(4)), 1 / (1 + np.exp(-4))])


def test_no_rows_of_a_regression_give_no_numbers() -> None:
    predictions = OnnxModel.from_files(table_package(task="regression")).predict([])

    assert predictions.prediction is not None
    assert predictions.prediction.shape == (0,)
    assert predictions.members is not None
    assert predictions.members.shape == (0, 0)


def test_rows_of_any_columns_have_a_place_before_any_label() -> None:
    model = OnnxModel.from_files(bootstrap_files("table", classes=[]))
    rows = [{"city": "Ulm", "age": 39.0}, {"age": 40.0, "city": "Ulm"}, {"city": "Bonn", "age": -3.0}, {}]

    predictions = model.predict([{"row": row} for row in rows])

    near, far = predictions.embedding[0] @ predictions.embedding[1], predictions.embedding[0] @ predictions.embedding[2]
    assert predictions.prediction is not None
    assert predictions.prediction.tolist() == [0.0] * 4
    assert near > 0.5 > far
    three = OnnxModel.from_files(bootstrap_files("table", classes=["a", "b", "c"])).predict([{"row": rows[0]}])
    assert three.probabilities == pytest.approx(1 / 3)
    assert three.embedding[0] == pytest.approx(predictions.embedding[0])


def test_an_unknown_form_of_rows_is_refused() -> None:
    files = bootstrap_files("table", classes=["a", "b"])
    card = files[CARD_FILE].replace(b"hashed-1", b"hashed-9")

    with pytest.raises(BadModel, match="hashed-9"):
        OnnxModel.from_files({**files, CARD_FILE: card}).predict([{"row": {"x": 1.0}}])
