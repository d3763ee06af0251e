"""Encoders: what they give, computed by hand; what a folder of one is taken for; and what is refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tokenizers import Tokenizer

from tests import encoders
from tests.encoders import TABLE, WORDS, folder, image_graph, pets, text_graph, tokenizer
from winnow.errors import BadInput, BadModel
from winnow.models.encoder import EncoderCard
from winnow.onnx import encoder_folder
from winnow.onnx.encoder import Encoder, files_reader, load_tokenizer
from winnow.onnx.encoder_folder import check_encoder, read_encoder
from winnow.onnx.wire import FLOAT, INT64, GraphBuilder

HALF = float(np.sqrt(0.5))


def loaded(path: Path) -> Encoder:
    card, files = read_encoder(path)
    return Encoder(card, files_reader(files))


def test_a_text_is_the_mean_of_its_tokens_and_padding_is_none_of_them(tmp_path: Path) -> None:
    encoder = loaded(pets(tmp_path))

    vectors = encoder.encode(["dog dog dog dog dog", "cat dog", "Dog", "cat dog bird"])

    # (3+1)/2, (4+0)/2 = (2, 2); padding's row of nines would show. With a bird (4/3, 5/3).
    long = np.array([4.0, 5.0]) / np.hypot(4, 5)
    np.testing.assert_allclose(vectors, [[1, 0], [HALF, HALF], [1, 0], long], atol=1e-6)
    assert vectors.dtype == np.float32


def test_a_record_gives_the_same_alone_and_in_company(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    names = [f"w{number}" for number in range(50)]
    path = folder(tmp_path, {"model.onnx": text_graph(rng.normal(size=(52, 16))), "tokenizer.json": tokenizer(names)})
    encoder = loaded(path)
    texts = [" ".join(rng.choice(names, size=rng.integers(1, 40))) for _ in range(60)]

    together = encoder.encode(texts)

    assert not encoder.card.alone
    np.testing.assert_allclose(together, np.concatenate([encoder.encode([text]) for text in texts]), atol=1e-6)


def test_dynamic_quantisation_is_kept_apart_from_company(tmp_path: Path) -> None:
    encoder = loaded(pets(tmp_path, quantised=True))

    together = encoder.encode(["cat", "dog dog dog", "bird cat"])

    assert encoder.card.alone
    assert np.array_equal(together, np.concatenate([encoder.encode([t]) for t in ["cat", "dog dog dog", "bird cat"]]))


def test_company_that_disturbs_is_found_out_by_trying(tmp_path: Path) -> None:
    graph = GraphBuilder("largest of all")
    ids = graph.input("input_ids", INT64, ("n", "t"))
    states = graph.op("Gather", graph.constant(np.array(TABLE, np.float32)), ids)
    ratio = graph.op("Div", states, graph.op("ReduceMax", states, keepdims=1))
    graph.output("y", graph.op("Add", ratio, graph.constant(np.array([1, 0], np.float32))), FLOAT, ("n", "t", 2))
    names = ["where", "again"]
    table = folder(tmp_path, {"model.onnx": graph.to_bytes(), "tokenizer.json": tokenizer(names)})

    assert loaded(table).card.alone


@pytest.mark.parametrize(
    ("files", "wanted"),
    [
        ({}, 256),
        ({"tokenizer.json": tokenizer(WORDS, truncation=2, padding=128)}, 2),
        ({"config.json": {"max_position_embeddings": 100}}, 100),
        ({"sentence_bert_config.json": {"max_seq_length": 3}, "config.json": {"max_position_embeddings": 100}}, 3),
        ({"sentence_bert_config.json": {"max_seq_length": 3}, "encoder.json": {"max_tokens": 5}}, 5),
    ],
)
def test_texts_are_cut_where_the_files_say(tmp_path: Path, files: dict[str, Any], wanted: int) -> None:
    encoder = loaded(folder(pets(tmp_path), files))

    assert encoder.card.max_tokens == wanted
    assert encoder.tokens("dog " * 400) == [3] * wanted


@pytest.mark.parametrize(("direction", "kept"), [("Right", [2, 3]), ("Left", [3, 3])])
def test_tokens_are_those_of_the_library_cut_and_without_padding(direction: str, kept: list[int]) -> None:
    content = tokenizer(WORDS, truncation=2, padding=8, direction=direction)
    oracle = Tokenizer.from_str(content.decode())
    oracle.no_padding()

    found, pad = load_tokenizer(content, max_tokens=2)

    assert found.encode("cat dog dog").ids == oracle.encode("cat dog dog").ids == kept
    assert pad == 0


def test_a_text_without_tokens_is_padding(tmp_path: Path) -> None:
    encoder = loaded(pets(tmp_path))

    assert encoder.tokens("") == [0]
    np.testing.assert_allclose(encoder.encode([""]), [[HALF, HALF]], atol=1e-6)


@pytest.mark.parametrize(
    ("pooling", "vector"),
    [
        ({"pooling_mode_cls_token": True}, [0.6, 0.8]),
        ({"pooling_mode_max_tokens": True}, [0.6, 0.8]),
        ({"pooling_mode_mean_tokens": True}, [HALF, HALF]),
    ],
)
def test_pooling_is_that_of_the_published_files(tmp_path: Path, pooling: dict[str, bool], vector: list[float]) -> None:
    encoder = loaded(folder(pets(tmp_path), {"1_Pooling/config.json": pooling}))

    np.testing.assert_allclose(encoder.encode(["cat dog"]), [vector], atol=1e-6)


@pytest.mark.parametrize(
    "options",
    [
        {"inputs": ("input_ids",)},
        {"inputs": ("input_ids", "token_type_ids", "attention_mask")},
        {"shape": ("n", 6)},
        {"shape": (1, "t")},
        {"output": "token_embeddings"},
    ],
)
def test_exporters_spell_their_graphs_differently(tmp_path: Path, options: dict[str, Any]) -> None:
    vectors = loaded(pets(tmp_path, **options)).encode(["cat dog", "dog"])

    np.testing.assert_allclose(vectors, [[HALF, HALF], [1, 0]], atol=1e-6)


def test_an_output_that_is_a_vector_already_is_taken_before_the_tokens_states(tmp_path: Path) -> None:
    graph = GraphBuilder("both")
    ids, mask = graph.input("input_ids", INT64, ("n", "t")), graph.input("attention_mask", INT64, ("n", "t"))
    states = graph.op("Gather", graph.constant(np.array(TABLE, np.float32)), ids)
    graph.output("last_hidden_state", states, FLOAT, ("n", "t", 2))
    first = graph.op("Gather", states, graph.constant(np.array(0)), axis=1)
    graph.output("sentence_embedding", first, FLOAT, ("n", 2))
    path = folder(tmp_path, {"model.onnx": graph.to_bytes(), "tokenizer.json": tokenizer(WORDS)})

    encoder = loaded(path)

    assert (encoder.card.output, encoder.card.pooling, mask) == ("sentence_embedding", "none", "attention_mask")
    np.testing.assert_allclose(encoder.encode(["cat dog dog"]), [[0.6, 0.8]], atol=1e-6)


ORANGE = np.full((9, 7, 3), (255, 0, 51), np.uint8)
"""In 0..1: (1, 0, 0.2)."""


@pytest.mark.parametrize(
    ("shape", "axes", "found"),
    [
        (("n", 3, 8, 6), (2, 3), ("NCHW", (8, 6, 3))),
        (("n", 8, 6, 3), (1, 2), ("NHWC", (8, 6, 3))),
        (("n", "c", "h", "w"), (2, 3), ("NCHW", (224, 224, 3))),
        (("n", "h", "w", 3), (1, 2), ("NHWC", (224, 224, 3))),
    ],
)
@pytest.mark.parametrize("normalised", [False, True])
def test_images_come_in_the_graphs_layout_and_scale(
    tmp_path: Path, shape: Any, axes: Any, found: Any, normalised: bool
) -> None:
    said = {"image_mean": [0.5, 0.5, 0.5], "image_std": [0.25, 0.5, 0.5], "do_normalize": True} if normalised else {}
    path = folder(tmp_path, {"model.onnx": image_graph(shape, axes=axes), "preprocessor_config.json": said})
    encoder = loaded(path)

    (vector,) = encoder.encode([ORANGE])

    assert (encoder.card.layout, encoder.card.shape) == found
    plain = np.array([1.0, 0.0, 0.2]) if not normalised else np.array([2.0, -1.0, -0.6])
    np.testing.assert_allclose(vector, plain / np.linalg.norm(plain), atol=5e-4)


def test_images_may_be_wanted_in_0_to_255_and_in_another_size(tmp_path: Path) -> None:
    said = {
        "do_rescale": False,
        "do_normalize": True,
        "image_mean": [127.5],
        "image_std": [127.5],
        "size": {"height": 4, "width": 2},
    }
    path = folder(
        tmp_path, {"model.onnx": image_graph(("n", 3, "h", "w"), axes=(2, 3)), "preprocessor_config.json": said}
    )
    encoder = loaded(path)

    assert encoder.card.shape == (4, 2, 3)
    plain = np.array([1.0, -1.0, -0.6])  # (255, 0, 51) / 127.5 - 1
    np.testing.assert_allclose(encoder.encode([ORANGE])[0], plain / np.linalg.norm(plain), atol=5e-4)


def test_a_grey_encoder_gets_one_channel(tmp_path: Path) -> None:
    encoder = loaded(folder(tmp_path, {"encoder.onnx": image_graph(("n", 1, 4, 4), axes=(2, 3), width=1)}))

    assert encoder.card.shape == (4, 4, 1)
    assert encoder.encode([ORANGE]).tolist() == [[1.0]]


def test_a_card_is_read_as_it_was_written(tmp_path: Path) -> None:
    text, _ = read_encoder(pets(tmp_path / "text"))
    image, _ = read_encoder(folder(tmp_path / "image", {"model.onnx": image_graph(("n", 3, 4, 4), axes=(2, 3))}))

    for card in (text, image):
        assert EncoderCard.from_json(json.loads(json.dumps(card.to_json()))) == card
    assert text.digest != image.digest


def test_the_digest_names_files_and_settings(tmp_path: Path) -> None:
    plain, _ = read_encoder(pets(tmp_path))
    again, _ = read_encoder(pets(tmp_path))
    shorter, _ = read_encoder(folder(tmp_path, {"encoder.json": {"max_tokens": 9}}))

    assert plain.digest == again.digest != shorter.digest


def test_a_payload_of_another_kind_is_bad_input(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="needs text"):
        loaded(pets(tmp_path)).encode([{"image": "x"}])


def _graph(rank: int) -> bytes:
    graph = GraphBuilder("flat")
    ids = graph.input("input_ids", INT64, ("n", "t"))
    value = graph.op("Cast", graph.op("ReduceSum", ids, graph.constant(np.array([1])), keepdims=rank - 1), to=FLOAT)
    graph.output("y", graph.op("Div", value, graph.op("Sub", value, value)) if rank == 2 else value, FLOAT, ("n",))
    return graph.to_bytes()


REFUSED: dict[str, tuple[dict[str, bytes | dict[str, Any]], str]] = {
    "no graph": ({"tokenizer.json": tokenizer(WORDS)}, "holds no encoder.onnx, model.onnx"),
    "no tokenizer": ({"model.onnx": text_graph(TABLE)}, "needs tokenizer.json beside it"),
    "a tokenizer that is none": ({"model.onnx": text_graph(TABLE), "tokenizer.json": b"{}"}, "tokenizer.json cannot be read"),
    "a tokenizer that is a list": ({"model.onnx": text_graph(TABLE), "tokenizer.json": b"[]"}, "tokenizer.json cannot be"),
    "a graph that is none": ({"model.onnx": b"PK", "tokenizer.json": tokenizer(WORDS)}, "has no graph"),
    "one number a text": ({"model.onnx": _graph(1), "tokenizer.json": tokenizer(WORDS)}, r"becomes \(1,\) for one record"),
    "NaN": ({"model.onnx": _graph(2), "tokenizer.json": tokenizer(WORDS)}, "NaN or infinity"),
    "words the table lacks": (
        {"model.onnx": text_graph(TABLE[:1]), "tokenizer.json": tokenizer(WORDS)}, "fails on 1 plain records",
    ),
    "inputs of another network": (
        {"model.onnx": text_graph(TABLE, inputs=("input_ids", "pixel_values")), "tokenizer.json": tokenizer(WORDS)},
        "takes input_ids, pixel_values",
    ),
    "a setting nobody knows": (
        {"model.onnx": text_graph(TABLE), "tokenizer.json": tokenizer(WORDS), "encoder.json": {"poling": "cls"}},
        "'poling' is unknown",
    ),
    "no number of tokens": (
        {"model.onnx": text_graph(TABLE), "tokenizer.json": tokenizer(WORDS), "encoder.json": {"max_tokens": 0}},
        "encoder.max_tokens is 0",
    ),
    "a scale of zero": (
        {"model.onnx": image_graph(("n", 3, 4, 4), axes=(2, 3)), "preprocessor_config.json": {"image_std": [0, 1, 1]}},
        "it divides",
    ),
    "a network of wide images": (
        {"model.onnx": image_graph(("n", 3, 4096, 4096), axes=(2, 3))}, "sides up to 1024",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_a_folder_that_holds_no_encoder_is_refused_with_the_reason(tmp_path: Path, name: str) -> None:
    files, reason = REFUSED[name]

    with pytest.raises(BadModel, match=reason):
        read_encoder(folder(tmp_path, files))


def test_a_text_longer_than_the_network_can_read_is_found_out_at_once(tmp_path: Path) -> None:
    graph = GraphBuilder("sixteen places")
    ids = graph.input("input_ids", INT64, ("n", "t"))
    words = graph.op("Gather", graph.constant(np.array(TABLE, np.float32)), ids)
    length = graph.op("Gather", graph.op("Shape", ids), graph.constant(np.array(1)))
    places = graph.op("Range", graph.constant(np.array(0)), length, graph.constant(np.array(1)))
    graph.output(
        "y",
        graph.op("Add", words, graph.op("Gather", graph.constant(np.ones((16, 2), np.float32)), places)),
        FLOAT,
        ("n", "t", 2),
    )
    path = folder(tmp_path, {"model.onnx": graph.to_bytes(), "tokenizer.json": tokenizer(WORDS)})

    with pytest.raises(BadModel, match=r"max_tokens in encoder\.json shortens texts"):
        read_encoder(path)

    assert loaded(folder(path, {"encoder.json": {"max_tokens": 16}})).encode(["dog " * 99]).shape == (1, 2)


@pytest.mark.parametrize(
    ("limit", "file"), [("MAX_ENCODER_BYTES", "model.onnx"), ("MAX_TOKENIZER_BYTES", "tokenizer.json")]
)
def test_a_file_that_is_too_large_is_not_even_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, limit: str, file: str
) -> None:
    monkeypatch.setattr(encoder_folder, limit, 100)

    with pytest.raises(BadModel, match=rf"{file} has .* at most 100 are taken"):
        read_encoder(pets(tmp_path))


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda card: {**card, "dimensions": 3}, "gives .* its card says 3 dimensions"),
        (lambda card: {**card, "reads": "image"}, "encoder.files lists"),
        (lambda card: {**card, "pooling": "sum"}, "encoder.pooling is 'sum'"),
        (lambda card: {**card, "output": "nothing"}, "fails on 1 plain records"),
        (lambda card: {**card, "files": {**card["files"], "tokenizer.json": "0" * 64}}, "has another sha256"),
        (lambda card: {name: value for name, value in card.items() if name != "output"}, "encoder.output is missing"),
    ],
)
def test_a_card_that_does_not_fit_its_files_is_refused(
    tmp_path: Path, change: Callable[[Any], Any], reason: str
) -> None:
    card, files = read_encoder(pets(tmp_path))

    with pytest.raises(BadModel, match=reason):
        check_encoder(EncoderCard.from_json(change(card.to_json())), files)


def test_the_builders_tokenizer_is_what_the_library_writes() -> None:
    found = Tokenizer.from_str(encoders.tokenizer(WORDS).decode())

    assert found.get_vocab() == {"[PAD]": 0, "[UNK]": 1, "cat": 2, "dog": 3}
