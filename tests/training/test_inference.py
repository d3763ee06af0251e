"""The serving functions: every content type, every refusal with its status, and masking before scoring."""

from __future__ import annotations

import base64
import io
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import inference
import numpy as np
import pytest
from PIL import Image
from werkzeug.wrappers import Response

from winnow.errors import BadModel
from winnow.models.bootstrap import bootstrap_files
from winnow.models.package import CARD_FILE, DECLARED, ModelInput
from winnow.onnx.runtime import OnnxModel


def model_of(kind: str) -> OnnxModel:
    return OnnxModel.from_files(bootstrap_files(kind, classes=["no", "yes"]))


def answer(body: bytes | str, content_type: str, *, accept: str = "application/json", kind: str = "text") -> Any:
    data = inference.input_fn(body, content_type)
    return inference.output_fn(inference.predict_fn(data, model_of(kind)), accept)


def png() -> bytes:
    out = io.BytesIO()
    Image.fromarray(np.zeros((5, 5, 3), np.uint8)).save(out, format="PNG")
    return out.getvalue()


@pytest.mark.parametrize(
    ("body", "content_type", "count"),
    [
        (b'{"instances": [{"text": "a"}, {"text": "b"}]}', "application/json; charset=utf-8", 2),
        ('{"instances": [{"text": "a"}]}', "", 1),
        (b'{"text": "a"}\n{"text": "b\\u2028c"}\n', "application/x-jsonlines", 2),
        ("é\n".encode(), "text/plain", 1),
        (b"", "text/plain", 1),
    ],
)
def test_texts_in_every_form(body: bytes | str, content_type: str, count: int) -> None:
    content, kind = answer(body, content_type)

    rows = json.loads(content)["predictions"]
    assert kind == "application/json"
    assert json.loads(content)["model"] == "bootstrap-text"
    assert rows == [{"label": "no", "confidence": 0.5, "probabilities": [0.5, 0.5]}] * count


def test_images_as_bytes_and_as_base64() -> None:
    encoded = json.dumps({"instances": [{"image": base64.b64encode(png()).decode()}]})

    raw, wrapped = answer(png(), "image/png", kind="image"), answer(encoded, "application/json", kind="image")

    assert raw == wrapped


def test_texts_as_csv() -> None:
    content, _ = answer('id;text\n7;"one; two"\n8;three\n', "text/csv")

    assert len(json.loads(content)["predictions"]) == 2


@pytest.mark.parametrize(
    ("body", "content_type"),
    [
        ('{"instances": [{"row": {"age": 39, "city": " Ulm ", "note": "n/a"}}]}', "application/json"),
        ('{"instances": [{"age": 39.0, "city": "Ulm", "id": "7"}]}', "application/json"),
        ('{"city": "Ulm", "age": 39}\n', "application/jsonlines"),
        ("age,city,note\n39,Ulm,\n", "text/csv; charset=utf-8"),
        ("city;age\nUlm;39,0\n", "text/csv"),
    ],
)
def test_rows_in_every_form_are_the_same_row(body: str, content_type: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model = model_of("table")
    seen: list[Any] = []
    predict = model.predict
    monkeypatch.setattr(model, "predict", lambda payloads: seen.extend(payloads) or predict(payloads))

    said = inference.predict_fn(inference.input_fn(body, content_type), model)

    known = {name: value for name, value in seen[0]["row"].items() if value is not None}
    assert known == {"age": 39.0, "city": "Ulm"}
    assert said["predictions"] == [{"label": "no", "confidence": 0.5, "probabilities": [0.5, 0.5]}]


def test_a_regression_answers_with_numbers() -> None:
    model = OnnxModel.from_files(bootstrap_files("table", classes=[]))

    said = inference.predict_fn(inference.input_fn(b"a\n1\n2\n", "text/csv"), model)

    assert said == {"model": "bootstrap-table", "predictions": [{"prediction": 0.0}] * 2}


def test_json_lines_on_request() -> None:
    content, kind = answer('{"instances": [{"text": "a"}, {"text": "b"}]}', "", accept="application/x-jsonlines")

    lines = [json.loads(line) for line in content.splitlines()]
    assert kind == "application/x-jsonlines"
    assert [line["model"] for line in lines] == ["bootstrap-text"] * 2


@pytest.mark.parametrize("accept", ["", "*/*", "text/html, application/json;q=0.5", "application/*"])
def test_json_unless_something_else_is_asked_for(accept: str) -> None:
    assert answer("a", "text/plain", accept=accept)[1] == "application/json"


@pytest.mark.parametrize(
    ("body", "content_type", "kind", "status", "reason"),
    [
        (b"{", "application/json", "text", 400, "not application/json"),
        (b"[1]", "application/json", "text", 400, "at least one instance"),
        (b'{"instances": []}', "application/json", "text", 400, "at least one instance"),
        (b'{"instances": ["a"]}', "application/json", "text", 400, "instance 0 is no object"),
        (b"\xff", "text/plain", "text", 400, "not text/plain"),
        (b'{"text": 1}\n', "application/jsonl", "text", 400, "needs text"),
        (b'{"instances": [{"image": "AAAA"}]}', "application/json", "text", 400, "needs text"),
        (b'{"instances": [{"text": "a"}]}', "application/json", "image", 400, "needs an image"),
        (b'{"instances": [{"image": "AAAA"}]}', "application/json", "image", 400, "cannot be decoded"),
        (b"no image", "image/jpeg", "image", 400, "cannot be decoded"),
        (b"<a/>", "application/xml", "text", 415, "'application/xml' is not served"),
        (b"a,b\n", "text/csv", "text", 400, "at least one instance"),
        (b"", "text/csv", "table", 400, "holds no rows"),
        (b"a,b\n1,2\n", "text/csv", "text", 400, "needs text"),
        (b"a,a\n1,2\n", "text/csv", "table", 400, "two columns named 'a'"),
        (b"plain", "text/plain", "table", 400, "needs rows"),
        (b"a,b\n1,2,3\n", "text/csv", "table", 400, "row 2: "),
        (b'{"instances": [{"row": {"a": 1}}, {"a": [1]}]}', "application/json", "table", 400, "instance 1: column 'a'"),
        (b"[" * 100_000, "application/json", "text", 400, "not application/json"),
        (json.dumps({"instances": [{"text": "a"}] * 10_001}), "application/json", "text", 400, "at most 10000"),
    ],
)
def test_what_cannot_be_answered_is_refused_with_a_reason(
    body: bytes | str, content_type: str, kind: str, status: int, reason: str
) -> None:
    refusal = answer(body, content_type, kind=kind)

    assert isinstance(refusal, Response)
    assert refusal.status_code == status
    assert reason in json.loads(refusal.get_data())["error"]


def test_another_accept_is_refused() -> None:
    assert answer("a", "text/plain", accept="text/csv").status_code == 406


def test_text_is_masked_before_it_is_scored(monkeypatch: pytest.MonkeyPatch) -> None:
    model = model_of("text")
    seen: list[Any] = []
    predict = model.predict
    monkeypatch.setattr(model, "predict", lambda payloads: seen.extend(payloads) or predict(payloads))

    inference.predict_fn(["write to jo@example.com"], model)

    assert seen == ["write to [EMAIL]"]


def test_cells_are_masked_before_they_are_scored(monkeypatch: pytest.MonkeyPatch) -> None:
    model = model_of("table")
    seen: list[Any] = []
    predict = model.predict
    monkeypatch.setattr(model, "predict", lambda payloads: seen.extend(payloads) or predict(payloads))

    inference.predict_fn([{"note": "write to jo@example.com", "age": 3}], model)

    assert seen == [{"row": {"note": "write to [EMAIL]", "age": 3.0}}]


def test_a_declared_number_column_reads_texts() -> None:
    columns = (ModelInput(name="c0", kind="number", source="age", form=DECLARED),)
    card = replace(model_of("table").card, inputs=columns)

    typed = inference._rows([{"age": "007", "city": "Ulm"}], card)
    plain = inference._rows([{"age": "007"}], replace(card, inputs=(replace(columns[0], form=None),)))

    assert typed == [{"age": 7.0}]
    assert plain == [{"age": "007"}]


def test_a_model_behind_another_masker_is_not_served(tmp_path: Path) -> None:
    for name, content in bootstrap_files("text", classes=["a", "b"]).items():
        (tmp_path / name).write_bytes(content)
    assert inference.model_fn(str(tmp_path)).card.model == "bootstrap-text"

    card = json.loads((tmp_path / CARD_FILE).read_bytes())
    (tmp_path / CARD_FILE).write_text(json.dumps({**card, "masker": "other"}))

    with pytest.raises(BadModel, match="masker is 'other'"):
        inference.model_fn(str(tmp_path))
