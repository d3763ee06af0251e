"""Hops 8, 10 and 11 as functions: real event bodies in, answers and embedded metrics out."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from typing import Any

import pytest

from tests.builders import commit, gate_report, knowing, line, lines, uniform, write
from tests.fakes import MemoryStore, make_ports
from tests.functions.worker import EVENTS, Worker, event, load, metrics
from winnow import layout
from winnow.errors import BadModel
from winnow.steps.plan_training import model_id

MODEL, DATASET = "m0123456789ab", "d0123456789ab"
BUCKET = "winnow-data-123456789012-us-east-1"
LOOP = "training: {min_labels: 2, min_new_labels: 0}"
MAIL = "task: {kind: text, classes: [billing, delivery]}"

Load = Callable[[str, Any], Worker]


@pytest.fixture
def worker(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Load:
    return lambda hop, ports: load(hop, ports, monkeypatch, capsys)


def world(loop: str = LOOP) -> Any:
    ports = make_ports(loop=loop, data=MemoryStore(BUCKET))
    labels = ["negative", "positive"] * 60
    truth = {f"e{number}": label for number, label in enumerate(labels)}
    commit(ports, DATASET, train=lines("t", labels[:2]), evaluation=[line(each, truth[each]) for each in truth])
    ports.models.add("bootstrap-text", uniform("bootstrap-text"))
    ports.models.add(MODEL, knowing(MODEL, truth, dataset=DATASET))
    return ports


def test_plan_training_answers_the_state_machine(worker: Load) -> None:
    plan = worker("plan_training", world())

    answer = plan.invoke(event("states_plan_training.json"))

    assert (answer["decision"], answer["dataset"]) == ("train", DATASET)
    assert answer["request"]["TrainingJobName"] == f"winnow-{model_id(DATASET, seed=0, members=4)}"
    log = plan.log()
    assert metrics(log) == {("TrainingPlanned", "train"): 1}
    (called,) = [each for each in log if each.get("message") == "invoked"]
    assert called["invoker"] == f"execution winnow-improve:{DATASET}"


def test_publish_model_names_its_error_for_the_state_machine(worker: Load) -> None:
    ports = world()
    request = event("states_publish_model.json")
    spec = {
        "model": MODEL, "task": "classification", "kind": "text", "classes": ["negative", "positive"], "masker": "1",
        "dataset": DATASET,
    }  # fmt: skip
    write(ports, layout.training_spec(MODEL), spec)
    ports.models.offer(request["artifact"], BadModel("model.onnx is missing"))

    with pytest.raises(BadModel):
        worker("publish_model", ports).invoke(request)

    ports.models.offer(request["artifact"], ports.models.models[MODEL])
    publish = worker("publish_model", ports)
    assert publish.invoke(request) == {"model": MODEL}
    assert metrics(publish.log()) == {("ModelsPublished",): 1}


def test_evaluate_deploy_and_settle_lead_to_a_champion(worker: Load) -> None:
    ports = world()
    ports.registry._fake.register(MODEL, artifact="s3://x", report_key="r", properties={})

    evaluate = worker("evaluate_challenger", ports)
    assert evaluate.invoke(event("states_evaluate_challenger.json"))["verdict"] == "promote"
    assert metrics(evaluate.log()) == {
        ("GateVerdict", "promote"): 1, ("ChallengerAccuracy",): 100.0, ("ChampionAccuracy",): 50.0,
        ("ChallengerMetric", "accuracy"): 1.0, ("ChampionMetric", "accuracy"): 0.5,
    }  # fmt: skip

    deploy = worker("deploy_challenger", ports)
    assert deploy.invoke(event("states_deploy_challenger.json")) == {
        "model": MODEL, "status": "STARTED", "wait_seconds": 60,
    }  # fmt: skip
    assert metrics(deploy.log()) == {("DeploymentsStarted",): 1}

    settle = worker("settle_deployment", ports)
    assert settle.invoke(event("states_settle_deployment.json"))["status"] == "IN_PROGRESS"
    ports.serving.finish()
    assert settle.invoke(event("states_settle_deployment.json"))["status"] == "PROMOTED"
    assert metrics(settle.log()) == {("DeploymentsSettled", "PROMOTED"): 1}
    assert ports.data.json(layout.CHAMPION)["model"] == MODEL


def test_watch_production_reads_captures_from_its_queue(worker: Load) -> None:
    delivered = event("sqs_capture_object_created.json")
    key = json.loads(delivered["Records"][0]["body"])["detail"]["object"]["key"]
    ports = make_ports(loop=MAIL, data=MemoryStore(BUCKET))
    write(ports, key, (EVENTS / "capture_text.jsonl").read_bytes())
    watch = worker("watch_production", ports)

    assert watch.invoke(delivered) == {"batchItemFailures": []}

    found = metrics(watch.log())
    assert found["ServedRecords",] == 3
    assert set(found) == {("ServedRecords",), ("ServedConfidence", MODEL)}
    assert len([each for each in ports.data.objects if each.startswith(layout.PRODUCTION)]) == 1


def test_a_capture_that_is_gone_goes_back_to_the_queue_alone(worker: Load) -> None:
    delivered = event("sqs_capture_object_created.json")

    answer = worker("watch_production", make_ports(loop=MAIL)).invoke(delivered)

    assert answer == {"batchItemFailures": [{"itemIdentifier": delivered["Records"][0]["messageId"]}]}


@pytest.mark.parametrize(
    "name", ["function_url_feedback.json", "function_url_feedback_base64.json", "http_api_feedback_jwt.json"]
)
def test_receive_feedback_answers_over_https(worker: Load, name: str) -> None:
    ports = make_ports(loop=MAIL)
    feedback = worker("receive_feedback", ports)

    answer = feedback.invoke(event(name))

    assert (answer["statusCode"], answer["headers"]) == (200, {"content-type": "application/json"})
    assert json.loads(answer["body"])["status"] == "stored"
    assert metrics(feedback.log()) == {("FeedbackReceived",): 1, ("ServedCorrect", MODEL): 0.0}


@pytest.mark.parametrize(
    ("body", "code"),
    [
        ("", "bad-inference-id"),
        ("{", "bad-request"),
        ("[]", "bad-request"),
        ('{"inference_id": "i1", "model": "m1", "label": "maybe", "prediction": "billing"}', "unknown-label"),
    ],
)
def test_receive_feedback_says_what_is_wrong(worker: Load, body: str, code: str) -> None:
    delivered = {**event("function_url_feedback.json"), "body": body}

    answer = worker("receive_feedback", make_ports(loop=MAIL)).invoke(delivered)

    assert answer["statusCode"] == 400
    assert json.loads(answer["body"])["error"] == code


def test_receive_feedback_refuses_what_is_not_text(worker: Load) -> None:
    body = base64.b64encode(b"\xff\xfe").decode()

    answer = worker("receive_feedback", make_ports(loop=MAIL)).invoke(
        {**event("function_url_feedback_base64.json"), "body": body}
    )

    assert answer["statusCode"] == 400


def test_reconcile_runs_on_its_schedule(worker: Load) -> None:
    ports = world()
    reconcile = worker("reconcile", ports)
    assert reconcile.invoke(event("schedule_reconcile.json")) == {"repairs": [], "attention": []}
    ports.clock.advance(minutes=16)

    answer = reconcile.invoke(event("schedule_reconcile.json"))

    assert answer["repairs"] == [{"kind": "improve", "name": DATASET, "repair": "started improve"}]
    log = reconcile.log()
    assert metrics(log) == {("Repairs", "improve"): 1}
    assert log[0]["invoker"] == "schedule reconcile"


def test_report_health_emits_only_gauges_of_the_catalogue(worker: Load) -> None:
    health = worker("report_health", world())

    answer = health.invoke(event("schedule_report_health.json"))

    assert {name: value for (name,), value in metrics(health.log()).items()} == answer
    assert answer["Heartbeat"] == 1.0


def test_a_function_cannot_be_imported_outside_a_worker(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("AWS_LAMBDA_FUNCTION_NAME", raising=False)

    with pytest.raises(ImportError, match="Lambda worker only"):
        from winnow.aws import edge  # noqa: F401

    load("reconcile", make_ports(), monkeypatch, capsys)


def test_a_stale_rollout_is_an_answer_not_an_error(worker: Load) -> None:
    ports = world()
    ports.registry._fake.register(MODEL, artifact="s3://x", report_key="r", properties={})
    write(ports, layout.gate_report(MODEL), gate_report(MODEL, dataset=DATASET))
    write(ports, layout.CHAMPION, {"format": 1, "model": "m7", "number": 3})

    answer = worker("deploy_challenger", ports).invoke(event("states_deploy_challenger.json"))

    assert answer["status"] == "STALE"
