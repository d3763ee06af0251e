"""Models on an encoder: hybrid heads and trees, their graphs, and jobs that encode only what is not known."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import encoded
import numpy as np
import onnx
import onnx.numpy_helper
import pytest
import scipy.sparse
import train
from committee import Joined, fit_committee
from examples import Example
from fit import Fitted, card_of, fit

from tests.encoders import folder, image_graph, text_graph, tokenizer
from tests.training.test_job import pictures, run_job, texts
from winnow.errors import BadModel
from winnow.models.encoder import EncoderCard
from winnow.models.package import MODEL_FILE, UNMASKED, ModelCard, digest
from winnow.onnx.bootstrap import encoded_bootstrap
from winnow.onnx.check import check_package, validate_package
from winnow.onnx.encoder import Encoder, files_reader
from winnow.onnx.encoder_folder import read_encoder
from winnow.onnx.runtime import OnnxModel
from winnow.steps import vectors

WORDS = ("card", "plastic", "chip", "contactless", "pin", "loan", "mortgage", "interest", "repay", "credit")
"""Words whose vectors say which of two classes they stand for; the rest of the texts' words are unknown."""


def intents(root: Path, *, width: int = 6) -> Path:
    """An encoder in which words of one class lie close to one another."""
    rng = np.random.default_rng(0)
    table = rng.normal(scale=0.2, size=(2 + len(WORDS), width))
    table[2:7, 0] += 1.0
    table[7:, 1] += 1.0
    return folder(root, {"model.onnx": text_graph(table), "tokenizer.json": tokenizer(WORDS)})


def given(root: Path, rows: list[dict[str, Any]], **options: Any) -> tuple[Encoder, dict[str, bytes], list[Example]]:
    """The encoder, its files, and the rows as examples that carry its vectors."""
    card, files = read_encoder(intents(root, **options))
    encoder = Encoder(card, files_reader(files))
    vectors = encoder.encode([row["text"] for row in rows])
    examples = [
        Example(id=f"c{n:03d}", payload=row["text"], label=row["label"], cluster=str(n), encoded=vector)
        for n, (row, vector) in enumerate(zip(rows, vectors, strict=True))
    ]
    return encoder, files, examples


def package(root: Path, fitted: Fitted, files: dict[str, bytes], *, kind: str, classes: list[str]) -> Path:
    root.mkdir()
    card = card_of(fitted, model="m-1", kind=kind, classes=classes, masker=UNMASKED, dataset=None)
    return folder(root, {MODEL_FILE: fitted.graph, "model.json": card.to_bytes(), **files})


def test_sparse_and_dense_features_side_by_side_are_one_matrix() -> None:
    rng = np.random.default_rng(0)
    own = scipy.sparse.random_array((30, 50), density=0.1, rng=rng, dtype=np.float32).tocsr()
    dense = rng.normal(size=(30, 4)).astype(np.float32)
    labels = np.arange(30) % 3
    options = {"classes": 3, "groups": [str(n) for n in range(30)], "members": 2, "dimensions": 2}

    both = fit_committee(Joined(own, dense), labels, rng=np.random.default_rng(1), **options)
    plain = fit_committee(np.hstack([own.toarray(), dense]), labels, rng=np.random.default_rng(1), **options)

    assert both.cost == plain.cost
    np.testing.assert_allclose(both.main.weights, plain.main.weights, atol=2e-3)
    np.testing.assert_allclose((Joined(own, dense) @ Joined(own, dense).T), plain_gram(own, dense), atol=1e-5)


def plain_gram(own: Any, dense: Any) -> Any:
    whole = np.hstack([own.toarray(), dense])
    return whole @ whole.T


def test_a_hybrid_head_knows_words_of_no_training_text(tmp_path: Path) -> None:
    """Only the encoder has met `plastic` and `mortgage`: a model of words alone has nothing to go by."""
    rows = [
        row for row in texts(60, classes=("card", "loan")) if not {"plastic", "mortgage"} & set(row["text"].split())
    ]
    encoder, files, examples = given(tmp_path / "encoder", rows)

    fitted = fit(examples, kind="text", classes=["card", "loan"], seed=0, members=2, encoder=encoder.card)
    root = package(tmp_path / "model", fitted, files, kind="text", classes=["card", "loan"])
    model = OnnxModel.load(root)
    found = model.predict([{"text": "plastic"}, {"text": "mortgage"}])

    assert fitted.metrics["model"] == "linear"
    assert [item.kind for item in model.card.payloads] == ["text", "embedding"]
    assert found.probabilities.argmax(axis=1).tolist() == [0, 1]
    assert found.members.shape == (2, 2, 2)
    # The embedding is the encoder's vector, and vectors that are known give the very same answer.
    np.testing.assert_array_equal(found.embedding, model.encode(["plastic", "mortgage"]))
    again = model.predict(["plastic", "mortgage"], embeddings=found.embedding)
    np.testing.assert_array_equal(again.probabilities, found.probabilities)
    assert validate_package(root, seconds=60, megabytes=1024).encoder == encoder.card


def test_the_graph_adds_both_halves(tmp_path: Path) -> None:
    encoder, files, examples = given(tmp_path / "encoder", texts(40, classes=("card", "loan")))
    committees = []
    original = encoded.fit_committee

    def keep(*arguments: Any, **options: Any) -> Any:
        committees.append(original(*arguments, **options))
        return committees[-1]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(encoded, "fit_committee", keep)
        fitted = fit(examples, kind="text", classes=["card", "loan"], seed=0, members=0, encoder=encoder.card)
    model = OnnxModel.load(package(tmp_path / "model", fitted, files, kind="text", classes=["card", "loan"]))

    # What no word of the vocabulary is in has only the encoder's half: logits = vector @ weights + bias.
    vector = np.array([[0.6, -0.8, 0, 0, 0, 0]], np.float32)
    (committee,) = committees
    logits = (vector @ committee.main.weights[-6:] + committee.main.bias) / committee.temperature
    wanted = np.exp(logits) / np.exp(logits).sum()
    np.testing.assert_allclose(model.predict(["zebra"], embeddings=vector).probabilities, wanted, atol=1e-5)


def test_trees_are_taken_where_a_line_cannot_part_the_classes(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    vectors = rng.uniform(-1, 1, size=(600, 4)).astype(np.float32)
    labels = np.where(vectors[:, 0] * vectors[:, 1] > 0, "same", "other")
    card, files = read_encoder(intents(tmp_path / "encoder", width=4))
    examples = [
        Example(id=str(n), payload="word", label=str(label), cluster=str(n), encoded=vector)
        for n, (label, vector) in enumerate(zip(labels, vectors, strict=True))
    ]

    fitted = fit(examples[:500], kind="text", classes=["other", "same"], seed=0, members=2, encoder=card)
    model = OnnxModel.load(package(tmp_path / "model", fitted, files, kind="text", classes=["other", "same"]))
    found = model.predict(["word"] * 100, embeddings=vectors[500:])

    assert fitted.metrics["model"] == "boosting"
    assert [item.kind for item in model.card.payloads] == ["embedding"]
    right = np.array(model.card.classes)[found.probabilities.argmax(axis=1)] == labels[500:]
    assert right.mean() > 0.9
    assert found.members.shape == (100, 2, 2)
    assert check_package(tmp_path / "model").metrics["model"] == "boosting"


def test_many_numbers_are_projected_and_distances_stay(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(40, 768)).astype(np.float32)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    card = EncoderCard(
        reads="text", dimensions=768, output="y", pooling="mean", max_tokens=8,
        files={"encoder.onnx": "1" * 64, "tokenizer.json": "2" * 64},
    )  # fmt: skip

    model = OnnxModel(*encoded_bootstrap("bootstrap-text-wide", card, classes=["a", "b", "c"]))
    found = model.predict([""] * 40, embeddings=rows)

    assert found.embedding.shape == (40, 512)
    assert found.probabilities.tolist() == [[pytest.approx(1 / 3)] * 3] * 40
    before, after = (
        np.linalg.norm(x[:, None] - x[None], axis=2)[np.triu_indices(40, 1)] for x in (rows, found.embedding)
    )
    assert np.abs(after / before - 1).max() < 0.12


def test_a_person_trains_with_an_encoder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = texts(80, classes=("card", "loan"))
    files = {}
    for name, part in (("train", rows[:60]), ("test", rows[60:])):
        files[name] = tmp_path / f"{name}.jsonl"
        files[name].write_text("".join(json.dumps(row) + "\n" for row in part))
    arguments = ["--kind", "text", "--train", str(files["train"]), "--test", str(files["test"])]

    status = train.main([*arguments, "--encoder", str(intents(tmp_path / "e")), "--model-dir", str(tmp_path / "m")])

    out = capsys.readouterr().out
    assert (status, "test_accuracy=1.0000" in out, "encoded_n=60" in out) == (0, True, True)
    assert sorted(path.name for path in (tmp_path / "m").iterdir()) == [
        "encoder.onnx", "metrics.json", "model.json", "model.onnx", "tokenizer.json",
    ]  # fmt: skip
    assert OnnxModel.load(tmp_path / "m").predict(["my plastic"]).probabilities.argmax() == 0


def test_a_person_trains_with_an_encoder_of_images(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = folder(
        tmp_path / "e",
        {"model.onnx": image_graph(("n", 3, "h", "w"), axes=(2, 3)), "encoder.json": {"shape": [8, 8, 3]}},
    )
    rows = tmp_path / "train.jsonl"
    rows.write_text("".join(json.dumps({**row, "image": row["image"]["png"]}) + "\n" for row in pictures(60)))

    status = train.main(
        ["--kind", "image", "--train", str(rows), "--encoder", str(path), "--model-dir", str(tmp_path / "m")]
    )

    assert status == 0, capsys.readouterr().err
    card = check_package(tmp_path / "m")
    assert [item.kind for item in card.payloads] == ["image", "embedding"]
    assert card.encoder is not None
    assert card.encoder.reads == "image"


def ordered(root: Path) -> tuple[dict[str, bytes], EncoderCard]:
    """What the channel `encoder` of a job holds."""
    card, files = read_encoder(intents(root))
    return {**files, "encoder.json": json.dumps({"format": 1, **card.to_json()}).encode()}, card


def test_a_job_encodes_only_what_is_not_known(tmp_path: Path) -> None:
    rows = texts(60)
    files, card = ordered(tmp_path / "source")
    _, _, examples = given(tmp_path / "same", rows)
    known = {f"c{n:04d}": example.encoded for n, example in enumerate(examples[:59]) if example.encoded is not None}
    spec = {"classes": ["card", "loan", "transfer"], "encoder": card.digest}

    some = run_job(
        tmp_path / "1", rows, channels={"encoder": files, "spec": {"vectors.npz": vectors.pack(known)}}, **spec
    )
    none = run_job(tmp_path / "2", rows, channels={"encoder": files}, **spec)

    assert (some.status, some.err) == (0, "")
    assert "encoded_n=1 " in some.out
    assert "encoded_n=60 " in none.out
    assert check_package(some.model).encoder == card
    arm = ModelCard.from_bytes((some.model / "arms" / "active" / "model.json").read_bytes())
    assert arm.encoder == card
    assert not (some.model / "arms" / "active" / "encoder.onnx").exists()


def test_a_job_refuses_another_encoder_than_the_ordered_one(tmp_path: Path) -> None:
    files, _ = ordered(tmp_path / "source")
    rows = texts(12, classes=("card", "loan"))

    job = run_job(tmp_path, rows, channels={"encoder": files}, classes=["card", "loan"], encoder="e-other")

    assert job.status == 1
    assert "the training was ordered with e-other" in job.err


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda root: (root / "tokenizer.json").unlink(), "tokenizer.json is missing from the package"),
        (lambda root: (root / "encoder.onnx").write_bytes(b"PK"), "'encoder.onnx'] has another sha256"),
    ],
)
def test_a_package_whose_encoder_was_touched_is_refused(tmp_path: Path, change: Any, reason: str) -> None:
    encoder, files, examples = given(tmp_path / "encoder", texts(30, classes=("card", "loan")))
    fitted = fit(examples, kind="text", classes=["card", "loan"], seed=0, members=0, encoder=encoder.card)
    root = package(tmp_path / "model", fitted, files, kind="text", classes=["card", "loan"])

    change(root)

    with pytest.raises(BadModel, match=reason):
        validate_package(root, seconds=60, megabytes=1024)


def test_a_head_for_other_vectors_is_refused(tmp_path: Path) -> None:
    encoder, files, examples = given(tmp_path / "encoder", texts(30, classes=("card", "loan")))
    narrow = [replace(example, encoded=example.encoded[:4]) for example in examples]
    short = EncoderCard.from_json({**encoder.card.to_json(), "dimensions": 4})
    fitted = replace(
        fit(narrow, kind="text", classes=["card", "loan"], seed=0, members=0, encoder=short), encoder=encoder.card
    )
    root = package(tmp_path / "model", fitted, files, kind="text", classes=["card", "loan"])

    with pytest.raises(BadModel, match=r"inputs\[encoded\] takes 4 columns; \(n, 6\) is given to it"):
        check_package(root)


def _bomb(kind: str) -> bytes:
    """A graph that asks for 40 GB, or counts to 10^15, before it says anything."""
    graph = onnx.helper.make_graph(
        {
            "memory": [
                onnx.helper.make_node("ConstantOfShape", ["large"], ["filled"]),
                onnx.helper.make_node("ReduceSum", ["filled"], ["sum"], keepdims=0),
            ],
            "time": [onnx.helper.make_node("Loop", ["trips", "", "zero"], ["sum"], body=_body())],
        }[kind]
        + [
            onnx.helper.make_node("Cast", ["input_ids"], ["floats"], to=onnx.TensorProto.FLOAT),
            onnx.helper.make_node("Add", ["floats", "sum"], ["y"]),
        ],
        "bomb",
        [onnx.helper.make_tensor_value_info("input_ids", onnx.TensorProto.INT64, ["n", 2])],
        [onnx.helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, ["n", 2])],
        [
            onnx.numpy_helper.from_array(np.array([10_000_000_000]), "large"),
            onnx.numpy_helper.from_array(np.array(10**15), "trips"),
            onnx.numpy_helper.from_array(np.array(0, np.float32), "zero"),
        ],
    )
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=9)
    return bytes(model.SerializeToString())


def _body() -> onnx.GraphProto:
    value = onnx.helper.make_tensor_value_info
    return onnx.helper.make_graph(
        [
            onnx.helper.make_node("Identity", ["go"], ["on"]),
            onnx.helper.make_node("Cos", ["before"], ["after"]),
        ],
        "body",
        [
            value("i", onnx.TensorProto.INT64, []),
            value("go", onnx.TensorProto.BOOL, []),
            value("before", onnx.TensorProto.FLOAT, []),
        ],
        [value("on", onnx.TensorProto.BOOL, []), value("after", onnx.TensorProto.FLOAT, [])],
    )


@pytest.mark.parametrize(("kind", "code"), [("memory", "model-memory"), ("time", "model-timeout")])
def test_an_encoder_that_is_a_bomb_ends_the_child_and_nothing_else(tmp_path: Path, kind: str, code: str) -> None:
    files = {"encoder.onnx": _bomb(kind), "tokenizer.json": tokenizer(WORDS)}
    encoder = EncoderCard(
        reads="text", dimensions=2, output="y", pooling="none", max_tokens=2,
        files={name: digest(content) for name, content in files.items()},
    )  # fmt: skip
    card, graph = encoded_bootstrap("m-1", encoder, classes=["a", "b"])
    root = folder(tmp_path, {**files, MODEL_FILE: graph, "model.json": card.to_bytes()})

    with pytest.raises(BadModel) as refused:
        validate_package(root, seconds=10, megabytes=1024)

    assert refused.value.code == code
