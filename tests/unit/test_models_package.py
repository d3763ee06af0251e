"""model.json: what is accepted, and that every refusal names the field and the remedy."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from winnow.errors import BadModel
from winnow.models.bootstrap import FORM, bootstrap_files
from winnow.models.package import (
    CARD_FILE,
    HASHED_ROW,
    MODEL_FILE,
    ModelCard,
    ModelInput,
    ModelOutputs,
    check_files,
    digest,
)
from winnow.onnx.features import WORDS

NUMBER = {"name": "c0", "kind": "number", "source": "age"}


def card_json(**changes: Any) -> dict[str, Any]:
    body: dict[str, Any] = {
        "format": 1,
        "model": "m-1",
        "task": "classification",
        "kind": "text",
        "classes": ["no", "yes"],
        "inputs": [{"name": "text", "kind": "text", "source": "text"}],
        "outputs": {"probabilities": "probabilities", "members": None, "embedding": "embedding"},
        "masker": "1",
        "temperature": 1.5,
        "dataset": "d-1",
        "metrics": {"cv_accuracy": 0.9},
        "files": {"model.onnx": "0" * 64},
    }
    return {name: value for name, value in {**body, **changes}.items() if value != "absent"}


def table_json(**changes: Any) -> dict[str, Any]:
    """The fields of a regression over two columns that differ from `card_json`."""
    columns = [NUMBER, {"name": "c1", "kind": "category", "source": "city"}]
    outputs = {"prediction": "y", "members": None, "embedding": "e"}
    body = {"task": "regression", "kind": "table", "classes": [], "temperature": 1.0, "inputs": columns}
    return {**body, "outputs": outputs, **changes}


def test_a_regression_survives_its_bytes() -> None:
    card = ModelCard.from_json(card_json(**table_json()))

    assert ModelCard.from_bytes(card.to_bytes()) == card
    assert json.loads(card.to_bytes())["outputs"] == {"prediction": "y", "members": None, "embedding": "e"}
    assert card.outputs.names() == ["y", "e"]
    assert [(item.kind, item.source) for item in card.payloads] == [("number", "age"), ("category", "city")]


def test_a_regressions_output_has_a_default_name() -> None:
    card = ModelCard.from_json(card_json(**table_json(outputs="absent")))

    assert card.outputs == ModelOutputs(members=None, prediction="prediction")


def test_a_classification_has_no_prediction() -> None:
    with pytest.raises(BadModel, match=r"outputs\.prediction belongs to a regression"):
        replace(ModelCard.from_json(card_json()), outputs=ModelOutputs(prediction="y"))


def test_a_card_survives_its_bytes() -> None:
    card = ModelCard.from_json(card_json())

    again = ModelCard.from_bytes(card.to_bytes())

    assert again == card
    assert again.to_bytes() == card.to_bytes()
    assert again.outputs.names() == ["probabilities", "embedding"]
    assert again.payload == ModelInput(name="text", kind="text", source="text")


def test_optional_fields_have_defaults() -> None:
    card = ModelCard.from_json(
        card_json(task="absent", outputs="absent", temperature="absent", dataset="absent", metrics="absent")
    )

    assert card.outputs == ModelOutputs(members=None)
    assert (card.task, card.temperature, card.dataset, card.metrics) == ("classification", 1.0, None, {})


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"format": 2}, "format is 2"),
        ({"model": "has space"}, "model is"),
        ({"model": "ends-with-hyphen-"}, "model is"),
        ({"model": None}, "model is None"),
        ({"task": "ranking"}, "task is"),
        ({"task": "regression"}, "predicts numbers for tables only"),
        (table_json(classes=["a", "b"]), "classes has 2 entries"),
        (table_json(temperature=2.0), "temperature is 2.0"),
        (table_json(outputs={"prediction": 1}), "outputs.prediction is 1"),
        (table_json(inputs=[]), "a table model has inputs of kind"),
        (table_json(inputs=[{"name": "r", "kind": "row", "form": "hashed-1"}, NUMBER]), "a table model has inputs"),
        (table_json(inputs=[{"name": "t", "kind": "text"}]), "a table model has inputs of kind"),
        (table_json(inputs=[{"name": "r", "kind": "row"}]), "inputs[r].form is None"),
        (table_json(inputs=[{"name": "n", "kind": "number"}]), "inputs[n].source is None"),
        (table_json(inputs=[{"name": "n", "kind": "category", "source": ""}]), "inputs[n].source is ''"),
        ({"kind": "video", "inputs": []}, "kind is"),
        ({"classes": ["only"]}, "classes has 1 entries"),
        ({"classes": ["a", "a"]}, "classes"),
        ({"classes": ["a", ""]}, "classes"),
        ({"classes": [1, 2]}, "classes is no list"),
        ({"inputs": {}}, "inputs is no list"),
        ({"inputs": []}, "exactly one input"),
        ({"inputs": [{"name": "t", "kind": "text"}, {"name": "t", "kind": "class_count"}]}, "inputs repeat"),
        ({"inputs": [{"name": "", "kind": "text"}]}, "inputs[].name is empty"),
        ({"inputs": [{"name": "t", "kind": "sound"}]}, "inputs[t].kind"),
        ({"kind": "image", "inputs": [{"name": "i", "kind": "image"}]}, "inputs[i].shape"),
        ({"kind": "image", "inputs": [{"name": "i", "kind": "image", "shape": [2, 2, 4]}]}, "inputs[i].shape"),
        ({"kind": "image", "inputs": [{"name": "i", "kind": "image", "shape": [2, True, 1]}]}, "inputs[].shape"),
        ({"outputs": []}, "outputs is no object"),
        ({"outputs": {"members": "embedding"}}, "outputs are"),
        ({"masker": ""}, "masker is empty"),
        ({"temperature": 0}, "temperature is 0"),
        ({"temperature": True}, "temperature is True"),
        ({"temperature": float("nan")}, "temperature is nan"),
        ({"metrics": 3}, "metrics is no object"),
        ({"files": None}, "files is no object"),
        ({"files": {}}, "files lacks model.onnx"),
        ({"files": {"model.onnx": "A" * 64}}, "files['model.onnx']"),
        ({"files": {"model.onnx": "0" * 64, "../secret": "0" * 64}}, "no plain file name"),
        ({"files": {"model.onnx": "0" * 64, "model.json": "0" * 64}}, "no plain file name"),
    ],
)
def test_a_wrong_field_is_named(changes: dict[str, Any], field: str) -> None:
    with pytest.raises(BadModel) as refused:
        ModelCard.from_json(card_json(**changes))

    assert field in str(refused.value)
    assert refused.value.code == "bad-model"


@pytest.mark.parametrize("data", [b"", b"{", b"[]", b"\xff\xfe", b"[" * 100_000])
def test_bytes_that_are_no_card_are_refused(data: bytes) -> None:
    with pytest.raises(BadModel, match=CARD_FILE):
        ModelCard.from_bytes(data)


def test_files_must_be_there_and_unchanged() -> None:
    card = ModelCard.from_json(card_json(files={MODEL_FILE: digest(b"graph")}))

    check_files(card, {MODEL_FILE: b"graph"})
    with pytest.raises(BadModel, match="missing from the package"):
        check_files(card, {})
    with pytest.raises(BadModel, match="another sha256"):
        check_files(card, {MODEL_FILE: b"other"})


def test_a_card_can_be_renamed() -> None:
    card = ModelCard.from_json(card_json())

    assert json.loads(card.renamed("m-2").to_bytes()) == card_json(model="m-2")


def test_the_bootstrap_card_names_the_text_form_that_features_make() -> None:
    card = ModelCard.from_bytes(bootstrap_files("text", classes=["a", "b", "c"])[CARD_FILE])

    assert FORM == WORDS
    assert card.model == "bootstrap-text"
    assert [item.kind for item in card.inputs] == ["text", "class_count"]
    with pytest.raises(ValueError, match="use one of text, image, table"):
        bootstrap_files("sound", classes=["a", "b"])


def test_the_bootstrap_table_package_is_a_regression_without_classes() -> None:
    cards = [ModelCard.from_bytes(bootstrap_files("table", classes=names)[CARD_FILE]) for names in (["a", "b"], [])]

    assert [card.model for card in cards] == ["bootstrap-table"] * 2
    assert [card.task for card in cards] == ["classification", "regression"]
    assert [card.outputs.names() for card in cards] == [["probabilities", "embedding"], ["prediction", "embedding"]]
    assert cards[0].payload.form == HASHED_ROW
