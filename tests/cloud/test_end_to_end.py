"""One object is dropped with plain boto3; everything a first round leaves appears, by itself, through AWS's own means."""

from __future__ import annotations

import base64
import hashlib
import json
from collections import Counter, defaultdict
from collections.abc import Iterator
from typing import Any

import pytest

from tests.cloud.stack import CLASSES, LOOP, Stack, deployed, events, jsonl, sentences, text_truth
from winnow import layout
from winnow.steps.accounting import account, check_invariants

pytestmark = pytest.mark.cloud

TEXTS = sentences(160)
DROPPED = jsonl([*TEXTS, TEXTS[0], "call me at +1 202 555 0143, the lovely quick river bridge"]) + b'{"text": 7}\n'
"""160 texts, one of them twice, one with a telephone number, and a row without a text."""
SERVED = sentences(12, seed=99)


def application(stack: Stack) -> None:
    """Ask the endpoint for predictions, and judge each of them as a function URL delivers judgements."""
    runtime = stack.cloud.client("sagemaker-runtime")
    for number, text in enumerate(SERVED):
        answer = runtime.invoke_endpoint(
            EndpointName="winnow", ContentType="application/json", InferenceId=f"request-{number}",
            Body=json.dumps({"instances": [{"text": text}]}),
        )  # fmt: skip
        said = json.loads(answer["Body"].read())
        judgement = {
            "inference_id": f"request-{number}", "model": said["model"], "label": text_truth({"text": text}),
            "prediction": said["predictions"][0]["label"],
        }  # fmt: skip
        event = {**events("function_url_feedback.json"), "body": json.dumps(judgement), "isBase64Encoded": False}
        told = stack.cloud.client("lambda").invoke(FunctionName="winnow-receive_feedback", Payload=json.dumps(event))
        assert json.loads(told["Payload"].read())["statusCode"] == 200


@pytest.fixture(scope="module")
def stack() -> Iterator[Stack]:
    """The stack after a first round, and after its endpoint has served for a while."""
    with deployed(loop={**LOOP, "budget": {"total_usd": 15}}) as running:  # one batch costs 14.40
        running.employ(accuracy=0.98)
        running.drop("reviews/january.jsonl", DROPPED)
        running.run_improve()
        running.cloud.clock.call_later(60, lambda: running.cloud.clock.spawn(lambda: application(running)))
        running.cloud.advance(days=1)
        yield running


@pytest.fixture(scope="module")
def champion(stack: Stack) -> dict[str, Any]:
    body: dict[str, Any] = stack.json(layout.CHAMPION)
    return body


def test_nothing_raised_and_nothing_was_dead_lettered(stack: Stack) -> None:
    assert stack.errors() == []
    assert stack.dead_letters() == {}


def test_the_object_becomes_canonical_records(stack: Stack) -> None:
    records = [record for record in stack.lines(layout.RECORDS) if record["origin"] == "pool"]

    assert len({record["id"] for record in records}) == len(records) == 161
    assert {record["kind"] for record in records} == {"text"}
    assert set(Counter(record["role"] for record in records)) == {"train", "evaluation", "reward"}
    assert {record["text"] for record in records} >= set(TEXTS)
    assert not any("555 0143" in record["text"] for record in records)
    (refused,) = stack.lines("quarantine/")
    assert refused["key"] == "reviews/january.jsonl"
    assert refused["row"] == 163
    assert refused["reason"].startswith("wrong-type: row 163")


def test_every_record_is_scored_once_by_bootstrap_and_by_the_champion(stack: Stack, champion: dict[str, Any]) -> None:
    ids = {record["id"] for record in stack.lines(layout.RECORDS)}
    pool = {record["id"] for record in stack.lines(layout.RECORDS) if record["origin"] == "pool"}
    for model, expected in (("bootstrap-text", pool), (champion["model"], ids)):
        scored = stack.scored(model)
        assert len(scored) == len(set(scored))
        assert set(scored) == expected
        assert {item["key"] for item in stack.table(f"SHARD#{model}")} == set(
            stack.keys(f"{layout.CANDIDATES}{model}/")
        )
        assert stack.keys(f"{layout.CANDIDATES}{model}/")


def test_a_batch_is_asked_and_labeled(stack: Stack) -> None:
    (batch,) = stack.table("BATCH")
    plan = stack.json(layout.plan(batch["sk"]))
    labels = stack.lines(layout.labels(batch["sk"]))
    job = stack.cloud.client("sagemaker").describe_labeling_job(LabelingJobName=f"winnow-{batch['job']}")

    assert batch["status"] == "collected"
    assert (job["LabelingJobStatus"], job["LabelCounters"]["TotalLabeled"]) == ("Completed", 60)
    assert {choice["id"] for choice in plan["choices"]} == {label["id"] for label in labels}
    assert {choice["arm"] for choice in plan["choices"]} >= {"active", "control", "evaluation"}
    assert {label["status"] for label in labels} == {"labeled"}
    texts = {record["id"]: record["text"] for record in stack.lines(layout.RECORDS)}
    right = [label["label"] == text_truth({"text": texts[label["id"]]}) for label in labels]
    assert sum(right) >= 58
    assert all(len(label["answers"]) == 3 for label in labels)


def test_a_dataset_version_is_complete_and_the_head(stack: Stack) -> None:
    version = stack.json(layout.HEAD)["version"]
    dataset = stack.json(layout.dataset(version))

    assert (dataset["parent"], sum(dataset["counts"].values())) == (None, 60)
    assert set(dataset["classes"]) == set(CLASSES)
    for key, digest in dataset["files"].items():
        assert hashlib.sha256(stack.get(key)).hexdigest() == digest


def test_a_training_job_leads_to_a_published_model(stack: Stack, champion: dict[str, Any]) -> None:
    model, sagemaker = champion["model"], stack.cloud.client("sagemaker")
    job = sagemaker.describe_training_job(TrainingJobName=f"winnow-{model}")
    card = stack.json(layout.model(model))
    (package,) = sagemaker.list_model_packages(ModelPackageGroupName="winnow")["ModelPackageSummaryList"]

    assert job["TrainingJobStatus"] == "Completed"
    assert job["ModelArtifacts"]["S3ModelArtifacts"] == champion["artifact"]
    assert (card["model"], card["dataset"], card["classes"]) == (model, champion["dataset"], list(CLASSES))
    for name, digest in card["files"].items():
        assert hashlib.sha256(stack.get(layout.model(model, name))).hexdigest() == digest
    assert package["ModelApprovalStatus"] == "Approved"


def test_the_gate_supports_the_new_champion(stack: Stack, champion: dict[str, Any]) -> None:
    report = stack.json(layout.gate_report(champion["model"]))

    assert (report["verdict"], report["champion"], report["look"]) == ("promote", "bootstrap-text", 1)
    assert report["difference"]["low"] > 0
    assert report["evaluation"]["records"] >= LOOP["gate"]["min_records"]
    assert (champion["previous"], champion["number"]) == ("bootstrap-text", 1)


def test_an_endpoint_serves_the_champion(stack: Stack, champion: dict[str, Any]) -> None:
    endpoint = stack.cloud.client("sagemaker").describe_endpoint(EndpointName="winnow")

    assert endpoint["EndpointStatus"] == "InService"
    assert endpoint["EndpointConfigName"] == f"winnow-{champion['model']}"


def test_both_state_machines_ran_under_derived_names(stack: Stack, champion: dict[str, Any]) -> None:
    improve, rescore = stack.executions("improve"), stack.executions("rescore")

    assert {name: each["status"] for name, each in improve.items()} == {champion["dataset"]: "SUCCEEDED"}
    assert json.loads(improve[champion["dataset"]]["output"])["status"] == "PROMOTED"
    assert {name: each["status"] for name, each in rescore.items()} == {champion["model"]: "SUCCEEDED"}


def test_what_was_served_comes_back_into_the_pool(stack: Stack, champion: dict[str, Any]) -> None:
    served = [record for record in stack.lines(layout.RECORDS) if record["origin"] == "production"]

    assert stack.keys(layout.CAPTURE)
    assert {record["text"] for record in served} == set(SERVED)
    assert {record["external_id"] for record in served} == {f"request-{number}" for number in range(len(SERVED))}
    feedback = [stack.json(key) for key in stack.keys("feedback/")]
    assert {each["model"] for each in feedback} == {champion["model"]}
    assert len(feedback) == len(SERVED)
    assert sum(each["correct"] for each in feedback) > len(SERVED) / 2


def test_metrics_of_the_round_are_in_cloudwatch(stack: Stack, champion: dict[str, Any]) -> None:
    listed = stack.cloud.client("cloudwatch").list_metrics(Namespace="Winnow")["Metrics"]
    names = {metric["MetricName"] for metric in listed}
    stacks = {dim["Value"] for metric in listed for dim in metric["Dimensions"] if dim["Name"] == "Stack"}

    assert stacks == {"winnow"}
    assert names >= {
        "OccurrencesIn",
        "ItemsSelected",
        "ChallengerAccuracy",
        "ServedCorrect",
        "ServedConfidence",
        "Heartbeat",
    }


def test_the_ledger_balances_and_every_invariant_holds(stack: Stack) -> None:
    ledger = account(stack.ports())
    verdicts = check_invariants(stack.ports(), ledger=ledger)

    assert ledger.to_json() == {
        "in": 163 + len(SERVED), "scored": 161 + len(SERVED), "duplicate": 1, "superseded": 0, "quarantined": 1,
        "waiting": 0, "dead_lettered": 0,
    }  # fmt: skip
    assert {name: verdict.detail for name, verdict in verdicts.items() if not verdict.ok} == {}
    assert set(verdicts) == {"I1", "I2", "I3", "I4", "I5", "I6", "I7", "I8"}


def wired(stack: Stack) -> dict[str, set[str]]:
    """Function name → how an invoker's name may begin, read off what the template deployed."""
    found: dict[str, set[str]] = defaultdict(set)
    mappings = stack.cloud.client("lambda").list_event_source_mappings()["EventSourceMappings"]
    for mapping in mappings:
        function = mapping["FunctionArn"].split(":function:")[1].split(":")[0]
        found[function].add(f"queue {mapping['EventSourceArn'].rsplit(':', 1)[1]}")
    scheduler = stack.cloud.client("scheduler")
    for listed in scheduler.list_schedules()["Schedules"]:
        schedule = scheduler.get_schedule(Name=listed["Name"], GroupName=listed["GroupName"])
        function = schedule["Target"]["Arn"].rsplit(":", 1)[1]
        found[function].add(f"schedule {json.loads(schedule['Target']['Input'])['schedule']}")
    for machine in ("improve", "rescore"):
        definition = stack.cloud.client("stepfunctions").describe_state_machine(stateMachineArn=stack.arn(machine))
        for function in (call["FunctionName"] for call in stack.cloud.client("lambda").list_functions()["Functions"]):
            if f":{function}" in definition["definition"]:
                found[function].add(f"execution winnow-{machine}")
    for item in stack.table("BATCH"):
        human = stack.cloud.client("sagemaker").describe_labeling_job(LabelingJobName=f"winnow-{item['job']}")[
            "HumanTaskConfig"
        ]
        consolidation = human["AnnotationConsolidationConfig"]["AnnotationConsolidationLambdaArn"]
        for arn in (human["PreHumanTaskLambdaArn"], consolidation):
            found[arn.rsplit(":", 1)[1]].add(f"labeling job winnow-{item['job']}")
    found["winnow-receive_feedback"].add("function url")
    return found


def test_every_function_was_woken_by_what_the_template_wires(stack: Stack) -> None:
    expected = wired(stack)
    woken: dict[str, Counter[str]] = defaultdict(Counter)
    for line in stack.logged():
        if line.get("message") == "invoked":
            woken[line["function"]][line["invoker"]] += 1

    for function, invokers in sorted(woken.items()):
        print(f"{function}: " + ", ".join(f"{invoker} ({count})" for invoker, count in sorted(invokers.items())))
    deployed_functions = {each["FunctionName"] for each in stack.cloud.client("lambda").list_functions()["Functions"]}
    assert set(woken) == set(expected) == deployed_functions
    for function, invokers in woken.items():
        for invoker in invokers:
            assert any(invoker.startswith(allowed) for allowed in expected[function]), f"{function} by {invoker}"
            assert "direct invoke" not in invoker
    calls = Counter(call.function for call in stack.cloud.invocations)
    assert calls == {function: invokers.total() for function, invokers in woken.items()}
    aws = {call.invoker for call in stack.cloud.invocations if call.function != "winnow-receive_feedback"}
    assert "direct" not in aws


def test_an_inference_id_is_judged_once_and_a_wrong_class_is_refused(stack: Stack) -> None:
    def judge(**fields: str) -> dict[str, Any]:
        body = {"inference_id": "request-0", "model": "m1", "label": "positive", "prediction": "positive", **fields}
        encoded = base64.b64encode(json.dumps(body).encode()).decode()
        event = {**events("function_url_feedback_base64.json"), "body": encoded, "isBase64Encoded": True}
        answer, error = stack.cloud.invoke("winnow-receive_feedback", event)
        assert error is None
        return {"status": answer["statusCode"], **json.loads(answer["body"])}

    assert judge()["status"] == "duplicate"
    assert judge(label="maybe") | {"message": ""} == {"status": 400, "error": "unknown-label", "message": ""}
