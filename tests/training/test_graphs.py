"""The graphs: onnxruntime gives what Python computes from the same weights, row by row."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime
import pytest
from committee import Committee
from hypothesis import given, settings
from hypothesis import strategies as st
from image_model import Extractor, is_colour, learn_filters, working_side
from image_model import build_graph as image_graph
from logistic import Head
from text_model import Vocabulary, beginnings, words
from text_model import build_graph as text_graph

from winnow.models.calibration import softmax
from winnow.onnx.features import clean_text

TEXTS = [
    "my card has not arrived, where is my card",
    "Top up failed! top-up FAILED again",
    "",
    "école ÉCOLE straße",
    "card",
    "unknown words only: zebra xylophone",
    "学校 card 学校",
    "top " * 200,
]


def committee(
    width: int, *, classes: int, members: int = 2, seen: np.ndarray | None = None, seed: int = 0
) -> Committee:
    rng = np.random.default_rng(seed)
    heads = [Head(rng.normal(size=(width, classes)), rng.normal(size=classes)) for _ in range(1 + members)]
    seen = np.ones(classes, bool) if seen is None else seen
    return Committee(
        main=heads[0], members=tuple(heads[1:]), temperature=0.7, axes=rng.normal(size=(width, 5)), seen=seen,
        unseen_share=0.01 if not seen.all() else 0.0, cost=1.0, out_of_fold_accuracy=None, out_of_fold_log_loss=None,
        doubt=None,
    )  # fmt: skip


def run(graph: bytes, tensor: np.ndarray) -> dict[str, np.ndarray]:
    onnx.checker.check_model(onnx.load_from_string(graph))
    session = onnxruntime.InferenceSession(graph, providers=["CPUExecutionProvider"])
    values = session.run(None, {session.get_inputs()[0].name: tensor})
    return {output.name: value for output, value in zip(session.get_outputs(), values, strict=True)}


def run_text(graph: bytes, texts: list[str]) -> dict[str, np.ndarray]:
    return run(graph, np.array([clean_text(text) for text in texts], dtype=object))


def test_terms_of_a_text() -> None:
    cleaned = clean_text("Lost my cards")

    assert words(cleaned) == ["lost", "my", "cards", "lost my", "my cards"]
    assert beginnings(cleaned) == [" los", " car", " lost", " card", " cards"]


def test_features_by_hand() -> None:
    vocabulary = Vocabulary.learn([" a b", " a"], columns=10)

    row = vocabulary.features([" a a b"]).toarray()[0]

    rare = np.log(3 / 2) + 1
    value = {"a": 1 + np.log(2), "b": rare, "a b": rare}
    length = np.sqrt(sum(v * v for v in value.values()))
    assert vocabulary.terms == ("a", "a b", "b")
    assert row == pytest.approx([value[term] / length * np.sqrt(0.5) for term in vocabulary.terms])


def test_the_commonest_terms_stay_when_weights_would_be_too_many() -> None:
    texts = [f" common w{number:05d}" for number in range(6_000)]

    vocabulary = Vocabulary.learn(texts, columns=10_000_000)

    assert len(vocabulary.terms) == 4_000
    assert "common" in vocabulary.terms
    assert list(vocabulary.terms) == sorted(vocabulary.terms)


def test_the_text_graph_computes_the_same_features_as_python() -> None:
    cleaned = [clean_text(text) for text in TEXTS if "zebra" not in text]
    vocabulary = Vocabulary.learn(cleaned, columns=30)
    fit = committee(len(vocabulary.terms), classes=4)

    out = run_text(text_graph(vocabulary, fit, seed=0), TEXTS)

    rows = vocabulary.features([clean_text(text) for text in TEXTS])
    expected = softmax(rows @ fit.main.weights + fit.main.bias, temperature=0.7)
    assert out["probabilities"] == pytest.approx(expected, abs=1e-5)
    assert out["members"].shape == (8, 2, 4)
    for number, head in enumerate(fit.members):
        assert out["members"][:, number] == pytest.approx(
            softmax(rows @ head.weights + head.bias, temperature=0.7), abs=1e-5
        )
    position = rows @ fit.axes
    length = np.maximum(np.linalg.norm(position, axis=1, keepdims=True), 1e-9)
    assert out["embedding"][:, :5] == pytest.approx(position / length, abs=1e-5)
    assert out["embedding"].shape == (8, 5 + 64)


@settings(deadline=None)
@given(st.lists(st.text(max_size=60), min_size=1, max_size=6))
def test_the_graph_cuts_any_text_as_python_does(texts: list[str]) -> None:
    cleaned = [clean_text(text) for text in texts]
    vocabulary = Vocabulary.learn(cleaned, columns=30)
    fit = committee(len(vocabulary.terms), classes=3, members=0)

    out = run_text(text_graph(vocabulary, fit, seed=0), texts)

    expected = softmax(vocabulary.features(cleaned) @ fit.main.weights + fit.main.bias, temperature=0.7)
    assert out["probabilities"] == pytest.approx(expected, abs=1e-4)


def test_a_text_alone_gives_the_same_row_as_in_company() -> None:
    vocabulary = Vocabulary.learn([clean_text(text) for text in TEXTS], columns=30)
    graph = text_graph(vocabulary, committee(len(vocabulary.terms), classes=3), seed=0)

    together = run_text(graph, TEXTS)

    for row, text in enumerate(TEXTS):
        alone = run_text(graph, [text])
        for name, value in alone.items():
            assert value[0] == pytest.approx(together[name][row], abs=1e-5)


def test_unknown_words_still_have_a_place() -> None:
    vocabulary = Vocabulary.learn([clean_text("card")], columns=30)
    graph = text_graph(vocabulary, committee(len(vocabulary.terms), classes=3), seed=0)

    zebra, zebras, moon = run_text(graph, ["zebra", "zebras", "moonlight"])["embedding"]

    assert zebra @ zebras > zebra @ moon


def test_classes_without_labels_share_what_is_theirs() -> None:
    vocabulary = Vocabulary.learn([clean_text("card")], columns=30)
    fit = committee(len(vocabulary.terms), classes=4, seen=np.array([True, False, True, False]))

    out = run_text(text_graph(vocabulary, fit, seed=0), ["card", "x"])

    assert out["probabilities"][:, [1, 3]] == pytest.approx(0.01)
    assert out["members"][:, :, [1, 3]] == pytest.approx(0.01)
    assert out["probabilities"].sum(axis=1) == pytest.approx(1.0)


def test_a_model_without_members_has_no_such_output() -> None:
    vocabulary = Vocabulary.learn([clean_text("card")], columns=30)

    out = run_text(text_graph(vocabulary, committee(len(vocabulary.terms), classes=2, members=0), seed=0), ["card"])

    assert sorted(out) == ["embedding", "probabilities"]


@pytest.mark.parametrize("shape", [(32, 32, 1), (32, 32, 3), (64, 64, 3)])
def test_the_image_graph_serves_the_features_it_was_trained_on(shape: tuple[int, int, int]) -> None:
    images = np.random.default_rng(0).random((6, *shape), dtype=np.float32)
    images[4:] = 0.5
    extractor, rows = Extractor.learn(
        lambda start, end: images[start:end], len(images), shape=shape, rng=np.random.default_rng(0)
    )
    fit = committee(rows.shape[1], classes=3)

    out = run(image_graph(extractor, fit), images)

    assert np.square(rows).sum(axis=1).mean() == pytest.approx(1.0, abs=1e-3)
    assert out["probabilities"] == pytest.approx(
        softmax(rows @ fit.main.weights + fit.main.bias, temperature=0.7), abs=1e-3
    )
    assert out["embedding"] == pytest.approx(rows @ fit.axes, abs=1e-3)
    assert out["members"].shape == (6, 2, 3)


@pytest.mark.parametrize("level", [0.0, 1.0])
def test_pictures_without_any_texture_give_finite_features(level: float) -> None:
    images = np.full((3, 32, 32, 3), level, np.float32)

    _, rows = Extractor.learn(lambda start, end: images[start:end], 3, shape=(32, 32, 3), rng=np.random.default_rng(0))

    assert np.isfinite(rows).all()


def test_filters_are_the_same_for_the_same_seed_and_ignore_brightness() -> None:
    images = np.random.default_rng(1).random((20, 32, 32, 1), dtype=np.float32)

    one, same = (learn_filters(images, rng=np.random.default_rng(3)) for _ in range(2))

    assert (one == same).all()
    assert one.shape == (96, 1, 6, 6)
    assert one.sum(axis=(1, 2, 3)) == pytest.approx(0.0, abs=1e-3)


def test_the_working_side_follows_the_pictures() -> None:
    assert working_side([(28, 28)] * 3) == 32
    assert working_side([(640, 480), (28, 28), (300, 300)]) == 64


def test_colour_is_seen_beyond_compression_noise() -> None:
    grey = np.full((10, 10, 3), 120, np.uint8)
    noisy = grey + np.array([0, 5, 0], np.uint8)
    spot = grey.copy()
    spot[:2, :2] = (200, 10, 10)

    assert [is_colour(pixels) for pixels in (grey, noisy, spot)] == [False, False, True]
