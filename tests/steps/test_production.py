"""watch_production and receive_feedback: what was served is counted, returned to the pool, and judged once."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest

from tests.builders import gate_report, write
from tests.fakes import every_fault, make_ports
from winnow import layout
from winnow.errors import BadInput
from winnow.loop import Task
from winnow.records import from_jsonl
from winnow.steps.captured import Refused, Served, served
from winnow.steps.receive_feedback import receive_feedback
from winnow.steps.watch_production import watch_production

NUMBERS = "task: {kind: table, type: regression, maximum: 1000}"
KEY = "capture/winnow/AllTraffic/2026/01/05/09/f.jsonl"


def encoded(body: str | bytes, media: str, encoding: str) -> dict[str, str]:
    raw = body.encode() if isinstance(body, str) else body
    data = base64.b64encode(raw).decode() if encoding == "BASE64" else raw.decode()
    return {"observedContentType": media, "data": data, "encoding": encoding}


def answer(*labels: str, model: str = "m1", confidence: float = 0.8) -> str:
    predictions = [{"label": label, "confidence": confidence, "probabilities": [0.8, 0.2]} for label in labels]
    return json.dumps({"model": model, "predictions": predictions})


def request(
    body: str | bytes,
    reply: str,
    *,
    media: str = "application/json",
    encoding: str = "JSON",
    name: str = "i1",
    reply_encoding: str = "JSON",
) -> dict[str, Any]:
    return {
        "captureData": {
            "endpointInput": {**encoded(body, media, encoding), "mode": "INPUT"},
            "endpointOutput": {**encoded(reply, "application/json", reply_encoding), "mode": "OUTPUT"},
        },
        "eventMetadata": {"eventId": "e1", "inferenceId": name, "inferenceTime": "2026-01-05T09:00:00Z"},
        "eventVersion": "0",
    }


def file(*events: dict[str, Any] | bytes) -> bytes:
    return b"".join((event if isinstance(event, bytes) else json.dumps(event).encode()) + b"\n" for event in events)


def instances(*texts: str) -> str:
    return json.dumps({"instances": [{"text": text} for text in texts]})


def read(*events: dict[str, Any] | bytes, kind: Any = "text", **task: Any) -> list[Served | Refused]:
    return list(served(file(*events), task=Task(kind=kind, **task)))


@pytest.mark.parametrize("encoding", ["JSON", "BASE64", "CSV"])
@pytest.mark.parametrize(
    ("body", "media"),
    [
        (instances("good"), "application/json"),
        ('{"text": "good"}\n', "application/x-jsonlines"),
        ("good", "text/plain; charset=utf-8"),
        ("text\ngood\n", "text/csv"),
    ],
)
def test_every_encoding_of_every_text_format_is_read(body: str, media: str, encoding: str) -> None:
    (one,) = read(request(body, answer("positive"), media=media, encoding=encoding, reply_encoding="BASE64"))

    assert one == Served("i1", "m1", "positive", 0.8, {"text": "good"}, "2026-01-05T09:00:00Z")


@pytest.mark.parametrize(
    ("body", "media", "encoding"),
    [
        (b"\x89PNG", "image/png", "BASE64"),
        (json.dumps({"instances": [{"image": base64.b64encode(b"\x89PNG").decode()}]}), "application/json", "JSON"),
    ],
)
def test_images_are_read_however_they_were_sent(body: str | bytes, media: str, encoding: str) -> None:
    (one,) = read(request(body, answer("positive"), media=media, encoding=encoding), kind="image")

    assert isinstance(one, Served)
    assert base64.b64decode(one.payload["image"]) == b"\x89PNG"


def test_every_instance_of_a_request_gets_a_name() -> None:
    found = read(request(instances("a", "b"), answer("positive", "negative")))

    assert [(one.id, one.payload["text"], one.label) for one in found if isinstance(one, Served)] == [
        ("i1.0", "a", "positive"), ("i1.1", "b", "negative"),
    ]  # fmt: skip


def test_an_answer_in_json_lines_is_read() -> None:
    event = request(instances("a", "b"), "")
    rows = [{"model": "m1", "label": label, "confidence": 0.7} for label in ("positive", "negative")]
    reply = "".join(json.dumps(row) + "\n" for row in rows)
    event["captureData"]["endpointOutput"] = encoded(reply, "application/x-jsonlines", "BASE64")

    assert [(one.model, one.label) for one in read(event) if isinstance(one, Served)] == [
        ("m1", "positive"), ("m1", "negative"),
    ]  # fmt: skip


def test_a_request_without_inference_id_goes_by_its_event() -> None:
    event = request(instances("a"), answer("positive"))
    del event["eventMetadata"]["inferenceId"]

    (one,) = read(event)

    assert isinstance(one, Served)
    assert one.id == "e1"


@pytest.mark.parametrize(
    ("event", "code"),
    [
        (b"{", "malformed-capture"),
        (b"[]", "malformed-capture"),
        ({"captureData": {}, "eventMetadata": {}}, "malformed-capture"),
        (request("{", answer("positive")), "malformed-capture"),
        (request(instances("a"), "{"), "malformed-capture"),
        (request(instances("a"), answer()), "malformed-answer"),
        (request(instances("a"), answer("maybe")), "unknown-class"),
        (request(instances("a"), answer("positive", confidence=1.5)), "malformed-answer"),
        (request(instances("a"), json.dumps({"model": "m1", "predictions": [{}]})), "malformed-answer"),
        (request('{"instances": [{"image": "x"}]}', answer("positive")), "missing-payload"),
        (request("a", answer("positive"), media="application/xml"), "unknown-format"),
        (request(b"\xff", answer("positive"), media="text/plain", encoding="BASE64"), "encoding"),
        (request("a", answer("positive"), encoding="ZIP"), "malformed-capture"),
    ],
)
def test_what_cannot_be_read_is_refused_and_the_rest_is_not(event: dict[str, Any] | bytes, code: str) -> None:
    good = request(instances("a"), answer("positive"), name="i2")

    refused, one = read(event, good)

    assert isinstance(refused, Refused)
    assert (refused.line, refused.problem.code) == (1, code)
    assert isinstance(one, Served)
    assert one.id == "i2"


def test_bad_base64_is_refused() -> None:
    event = request("a", answer("positive"), media="text/plain", encoding="BASE64")
    event["captureData"]["endpointInput"]["data"] = "%%%"

    (refused,) = read(event)

    assert isinstance(refused, Refused)
    assert refused.problem.code == "malformed-capture"


def captured(*events: dict[str, Any] | bytes) -> Any:
    ports = make_ports()
    write(ports, KEY, file(*events))
    return ports


def test_requests_go_back_into_the_pool_masked_with_their_inference_id() -> None:
    ports = captured(request(instances("write to ada@example.com"), answer("positive")))

    watch_production({"key": KEY}, ports)

    (key,) = [key for key in ports.data.objects if key.startswith(layout.PRODUCTION)]
    assert from_jsonl(ports.data.objects[key]) == [
        {"id": "i1", "text": "write to [EMAIL]", "captured_at": "2026-01-05T09:00:00Z"}
    ]


def test_bad_lines_are_counted_with_their_reason() -> None:
    ports = captured(b"{", request(instances("a"), answer("positive")))

    outcome = watch_production({"key": KEY}, ports)

    assert outcome.body == {"key": KEY, "served": 1, "refused": 1, "repeated": False}
    (key,) = [key for key in ports.data.objects if key.startswith("quarantine/")]
    (row,) = from_jsonl(ports.data.objects[key])
    assert (row["key"], row["row"]) == (KEY, 1)
    assert row["reason"].startswith("malformed-capture: ")


def test_what_was_served_is_measured_by_model() -> None:
    ports = captured(
        request(instances("a", "b"), answer("positive", "negative", confidence=0.5)),
        request(instances("c"), answer("positive", model="m2", confidence=0.9)),
    )

    metrics = watch_production({"key": KEY}, ports).metrics

    assert [(metric.name, dict(metric.dimensions), metric.value) for metric in metrics] == [
        ("ServedRecords", {}, 3),
        ("ServedConfidence", {"Model": "m1"}, pytest.approx(50.0)),
        ("ServedConfidence", {"Model": "m2"}, pytest.approx(90.0)),
    ]


def test_drift_compares_served_classes_with_those_of_the_evaluation_set() -> None:
    labels = ["positive"] * 24 + ["negative"] * 8
    ports = captured(request(instances(*(f"t{n}" for n in range(32))), answer(*labels)))
    report = gate_report("m1")
    report["challenger"]["confusion"] = [[10, 0], [0, 10]]
    write(ports, layout.gate_report("m1"), report)

    (drift,) = [
        metric.value for metric in watch_production({"key": KEY}, ports).metrics if metric.name == "PredictionDrift"
    ]

    # (0.25 - 0.5) ln(0.25 / 0.5) + (0.75 - 0.5) ln(0.75 / 0.5), up to the smoothing of empty classes
    assert drift == pytest.approx(0.2747, abs=0.05)


def test_too_few_predictions_say_nothing_about_drift() -> None:
    ports = captured(request(instances("a"), answer("positive")))
    write(ports, layout.gate_report("m1"), gate_report("m1"))

    assert "PredictionDrift" not in {metric.name for metric in watch_production({"key": KEY}, ports).metrics}


def test_a_capture_file_counts_once() -> None:
    ports = captured(request(instances("a"), answer("positive")))
    watch_production({"key": KEY}, ports)
    before = dict(ports.data.objects)

    again = watch_production({"key": KEY}, ports)

    assert again.body["repeated"]
    assert not again.metrics
    assert ports.data.objects == before


def test_every_fault_returns_the_requests_to_the_pool_once() -> None:
    def build() -> Any:
        return captured(b"{", request(instances("a"), answer("positive")))

    expected = build()
    watch_production({"key": KEY}, expected)
    for what, ports in every_fault(build, lambda ports: watch_production({"key": KEY}, ports)):
        assert ports.data.objects == expected.data.objects, what


JUDGEMENT = {"inference_id": "i1", "label": "positive", "prediction": "negative", "model": "m1"}


def test_a_judgement_is_kept_and_measured() -> None:
    ports = make_ports()

    outcome = receive_feedback({**JUDGEMENT, "input": {"text": "call +1 202-555-0143"}}, ports)

    assert outcome.body == {"status": "stored", "inference_id": "i1", "correct": False}
    stored = ports.data.json("feedback/i1.json")
    assert (stored["label"], stored["prediction"], stored["model"], stored["correct"]) == (
        "positive",
        "negative",
        "m1",
        False,
    )
    assert "555" not in stored["input"]["text"]
    assert [(metric.name, metric.value, dict(metric.dimensions)) for metric in outcome.metrics] == [
        ("FeedbackReceived", 1, {}),
        ("ServedCorrect", 0.0, {"Model": "m1"}),
    ]


def test_a_right_prediction_counts_a_hundred_percent() -> None:
    outcome = receive_feedback({**JUDGEMENT, "prediction": "positive"}, make_ports())

    assert outcome.metrics[1].value == 100.0


def test_only_the_first_judgement_counts() -> None:
    ports = make_ports()
    receive_feedback(JUDGEMENT, ports)
    ports.clock.advance(minutes=1)

    again = receive_feedback({**JUDGEMENT, "label": "negative"}, ports)

    assert again.body == {"status": "duplicate", "inference_id": "i1", "label": "positive"}
    assert not again.metrics
    assert ports.data.json("feedback/i1.json")["label"] == "positive"


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"inference_id": ""}, "bad-inference-id"),
        ({"inference_id": "../x"}, "bad-inference-id"),
        ({"inference_id": 7}, "bad-inference-id"),
        ({"model": None}, "bad-model"),
        ({"label": "maybe"}, "unknown-label"),
        ({"label": ["positive"]}, "unknown-label"),
        ({"prediction": "maybe"}, "unknown-prediction"),
        ({"extra": 1}, "unknown-field"),
        ({"input": "text"}, "bad-input"),
        ({"input": {"text": "a", "id": "b"}}, "bad-input"),
        ({"input": {"text": "a" * 20_001}}, "oversized"),
    ],
)
def test_a_judgement_that_says_nothing_usable_is_refused(change: dict[str, Any], code: str) -> None:
    ports = make_ports()

    with pytest.raises(BadInput) as refusal:
        receive_feedback({**JUDGEMENT, **change}, ports)

    assert refusal.value.code == code
    assert not ports.data.objects


def test_every_fault_keeps_one_judgement() -> None:
    for what, ports in every_fault(make_ports, lambda ports: receive_feedback(JUDGEMENT, ports)):
        assert list(ports.data.objects) == ["feedback/i1.json"], what


def rows(*values: dict[str, Any]) -> str:
    return json.dumps({"instances": [{"row": value} for value in values]})


def numbers(*values: Any, model: str = "m1") -> str:
    return json.dumps({"model": model, "predictions": [{"prediction": value} for value in values]})


@pytest.mark.parametrize("encoding", ["JSON", "BASE64"])
@pytest.mark.parametrize(
    ("body", "media"),
    [
        (rows({"city": " Ulm ", "rooms": 3, "heating": None}), "application/json"),
        ('{"instances": [{"city": "Ulm", "rooms": 3.0, "heating": "n/a", "id": 7}]}', "application/json"),
        ('{"row": {"city": "Ulm", "rooms": 3, "heating": ""}}\n', "application/x-jsonlines"),
        ("city,rooms,heating\nUlm,3,?\n", "text/csv"),
        ("city;rooms;heating\r\nUlm;3;\r\n", "text/csv; charset=utf-8"),
    ],
)
def test_every_form_of_a_row_is_read_as_ingest_would_read_it(body: str, media: str, encoding: str) -> None:
    event = request(body, numbers(812.5), media=media, encoding=encoding)

    (one,) = read(event, kind="table", type="regression")

    row = {"city": "Ulm", "rooms": 3.0, "heating": None}
    assert one == Served("i1", "m1", 812.5, None, {"row": row}, "2026-01-05T09:00:00Z")


def test_a_row_may_be_answered_with_a_class_and_keeps_to_the_tasks_columns() -> None:
    event = request(rows({"rooms": 3, "secret": "x"}), answer("positive"))

    (one,) = read(event, kind="table", columns={"rooms": "category"})

    assert isinstance(one, Served)
    assert (one.label, one.confidence, one.payload) == ("positive", 0.8, {"row": {"rooms": 3.0}})


@pytest.mark.parametrize(
    ("body", "reply", "code"),
    [
        (rows({}), numbers(1.0), "missing-payload"),
        ('{"instances": ["a"]}', numbers(1.0), "missing-payload"),
        (rows({"rooms": [1]}), numbers(1.0), "wrong-type"),
        (rows({"rooms": 1}), numbers(), "malformed-answer"),
        (rows({"rooms": 1}), numbers("1.0"), "malformed-answer"),
        (rows({"rooms": 1}), numbers(True), "malformed-answer"),
        (rows({"rooms": 1}), numbers(None), "malformed-answer"),
        (rows({"rooms": 1}), numbers(float("nan")), "no-number"),
        (rows({"rooms": 1}), answer("positive"), "malformed-answer"),
    ],
)
def test_rows_and_numbers_that_are_none_are_refused(body: str, reply: str, code: str) -> None:
    (refused,) = read(request(body, reply), kind="table", type="regression")

    assert isinstance(refused, Refused)
    assert refused.problem.code == code


def served_numbers(
    *values: float, edges: tuple[float, ...] = (10.0, 20.0), counts: tuple[int, ...] = (50, 50, 50)
) -> Any:
    ports = make_ports(loop=NUMBERS)
    event = request(
        rows(*({"note": f"ask jo@example.com about {n}", "n": n} for n in range(len(values)))), numbers(*values)
    )
    write(ports, KEY, file(event))
    report = gate_report("m1")
    report["challenger"] = {"bins": {"edges": list(edges), "counts": list(counts)}}
    write(ports, layout.gate_report("m1"), report)
    return ports


def test_rows_go_back_into_the_pool_masked() -> None:
    ports = served_numbers(5.0)

    watch_production({"key": KEY}, ports)

    (key,) = [key for key in ports.data.objects if key.startswith(layout.PRODUCTION)]
    assert from_jsonl(ports.data.objects[key]) == [
        {"id": "i1", "row": {"note": "ask [EMAIL] about 0", "n": 0.0}, "captured_at": "2026-01-05T09:00:00Z"}
    ]


def test_numbers_drift_between_the_bins_of_the_evaluation_set() -> None:
    steady = watch_production({"key": KEY}, served_numbers(*([5.0, 15.0, 25.0] * 20))).metrics
    shifted = watch_production({"key": KEY}, served_numbers(*([15.0] * 15 + [25.0] * 45))).metrics

    found = [{metric.name: metric.value for metric in metrics} for metrics in (steady, shifted)]
    assert found[0] == {
        "ServedRecords": 60,
        "ServedPrediction": pytest.approx(15.0),
        "PredictionDrift": pytest.approx(0.0),
    }
    # the sum of (p - q) ln(p / q) over thirds against 0, a quarter and three quarters, half a record in sixty added to each
    assert found[1]["PredictionDrift"] == pytest.approx(1.5545, abs=1e-4)
    assert found[1]["ServedPrediction"] == pytest.approx(22.5)
    assert [dict(metric.dimensions) for metric in steady if metric.name == "ServedPrediction"] == [{"Model": "m1"}]


def test_a_gate_that_could_not_measure_a_model_says_nothing_about_its_drift() -> None:
    ports = served_numbers(*([5.0] * 60))
    write(ports, layout.gate_report("m1"), {**gate_report("m1"), "challenger": None})

    assert "PredictionDrift" not in {metric.name for metric in watch_production({"key": KEY}, ports).metrics}


NUMERIC = {"inference_id": "i1", "label": 100, "prediction": 91.5, "model": "m1"}


@pytest.mark.parametrize(("prediction", "correct"), [(91.5, True), (89.0, False), (1200.0, False), (100, True)])
def test_a_predicted_number_is_right_within_the_tolerance(prediction: float, correct: bool) -> None:
    ports = make_ports(loop=NUMBERS)

    outcome = receive_feedback(
        {**NUMERIC, "prediction": prediction, "input": {"row": {"to": "jo@example.com", "n": 1}}}, ports
    )

    assert outcome.body["correct"] is correct
    assert outcome.metrics[1].value == 100.0 * correct
    stored = ports.data.json("feedback/i1.json")
    assert (stored["label"], stored["input"]) == (100.0, {"row": {"to": "[EMAIL]", "n": 1.0}})


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"label": "100"}, "no-number"),
        ({"label": True}, "no-number"),
        ({"label": None}, "no-number"),
        ({"label": float("nan")}, "no-number"),
        ({"label": 1000.5}, "out-of-range"),
        ({"prediction": "positive"}, "no-number"),
        ({"input": {"text": "a"}}, "bad-input"),
        ({"input": {"row": {}}}, "bad-input"),
        ({"input": {"row": {"n": {}}}}, "wrong-type"),
        ({"input": {"row": {"n": "x" * 1001}}}, "oversized"),
        ({"input": {"row": {f"c{n}": n for n in range(1001)}}}, "oversized"),
    ],
)
def test_a_judgement_about_a_number_that_says_nothing_usable_is_refused(change: dict[str, Any], code: str) -> None:
    ports = make_ports(loop=NUMBERS)

    with pytest.raises(BadInput) as refusal:
        receive_feedback({**NUMERIC, **change}, ports)

    assert refusal.value.code == code
    assert not ports.data.objects
