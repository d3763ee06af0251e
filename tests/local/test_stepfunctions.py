"""State machines in the local cloud: the states we ship, their errors and waits, on virtual time."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from botocore.exceptions import ClientError

from tests.local.small_cloud import Event, SmallCloud, small_cloud
from winnow_local.stepfunctions import StateError, evaluate

LAMBDA = "arn:aws:lambda:us-east-1:123456789012:function:"
INVOKE = "arn:aws:states:::lambda:invoke"
ROLE = "arn:aws:iam::123456789012:role/machine"


@pytest.fixture
def cloud() -> Iterator[SmallCloud]:
    with small_cloud() as cloud:
        cloud.functions["double"] = lambda event: {"y": event["x"] * 2}
        yield cloud


def machine(cloud: SmallCloud, states: dict[str, Any], **top: Any) -> str:
    definition = {"QueryLanguage": "JSONata", "StartAt": next(iter(states)), "States": states, **top}
    number = len(cloud.client("stepfunctions").list_state_machines()["stateMachines"])
    made = cloud.client("stepfunctions").create_state_machine(
        name=f"machine-{number}", definition=json.dumps(definition), roleArn=ROLE
    )
    return str(made["stateMachineArn"])


def start(cloud: SmallCloud, arn: str, given: Any = None, **more: str) -> str:
    text = json.dumps(given if given is not None else {})
    return str(cloud.client("stepfunctions").start_execution(stateMachineArn=arn, input=text, **more)["executionArn"])


def shown(cloud: SmallCloud, execution: str) -> dict[str, Any]:
    found: dict[str, Any] = cloud.client("stepfunctions").describe_execution(executionArn=execution)
    return found


def run(cloud: SmallCloud, states: dict[str, Any], given: Any = None, **top: Any) -> dict[str, Any]:
    execution = start(cloud, machine(cloud, states, **top), given)
    cloud.clock.run()
    found = shown(cloud, execution)
    found["output"] = json.loads(found["output"]) if "output" in found else None
    return found


def failing(times: int, error: Exception) -> Callable[[Event], dict[str, int]]:
    left = [times]

    def function(event: Event) -> dict[str, int]:
        if left[0]:
            left[0] -= 1
            raise error
        return {"calls": times + 1}

    return function


def pass_state(output: Any, **more: Any) -> dict[str, Any]:
    return {"Type": "Pass", "Output": output, "End": True, **more}


def test_variables_choices_and_context_follow_the_snapshot_rule(cloud: SmallCloud) -> None:
    states = {
        "double": {
            "Type": "Task", "Resource": f"{LAMBDA}double", "Assign": {"k": "{% $states.result.y %}"},
            "Output": {"k_before": "{% $exists($k) %}", "x": "{% $states.input.x %}"}, "Next": "big",
        },
        "big": {"Type": "Choice", "Choices": [{"Condition": "{% $k > 5 %}", "Next": "yes"}], "Default": "no"},
        "yes": pass_state({"in": "{% $states.input %}", "k": "{% $k %}", "machine": "{% $states.context.StateMachine.Name %}"}),
        "no": {"Type": "Fail", "Error": "Small", "Cause": "{% 'k is ' & $k %}"},
    }  # fmt: skip

    big, small = run(cloud, states, {"x": 3}), run(cloud, states, {"x": 1})

    assert big["output"] == {"in": {"k_before": False, "x": 3}, "k": 6, "machine": "machine-0"}
    assert (small["status"], small["error"], small["cause"]) == ("FAILED", "Small", "k is 2")


def test_the_lambda_integration_wraps_the_payload(cloud: SmallCloud) -> None:
    arguments = {"FunctionName": "double", "Payload": "{% $merge([$states.input, {'x': 4}]) %}"}
    states = {"call": {"Type": "Task", "Resource": INVOKE, "Arguments": arguments, "End": True}}

    found = run(cloud, states, {"a": 1})

    assert found["output"] == {"Payload": {"y": 8}, "StatusCode": 200}
    assert cloud.calls == [("double", {"a": 1, "x": 4}, "states")]


def test_retries_wait_in_virtual_time(cloud: SmallCloud) -> None:
    cloud.functions["flaky"] = failing(2, RuntimeError("busy"))
    retry = [{"ErrorEquals": ["RuntimeError"], "IntervalSeconds": 100, "BackoffRate": 3, "MaxDelaySeconds": 250}]
    states = {"call": {"Type": "Task", "Resource": f"{LAMBDA}flaky", "Retry": retry, "End": True}}

    found = run(cloud, states)

    assert found["output"] == {"calls": 3}
    assert (found["stopDate"] - found["startDate"]).total_seconds() == 100 + 250


@pytest.mark.parametrize("caught", [["RuntimeError"], ["States.TaskFailed"], ["States.ALL"]])
def test_an_error_is_caught_by_name_or_by_kind(cloud: SmallCloud, caught: list[str]) -> None:
    cloud.functions["broken"] = failing(9, RuntimeError("no"))
    catch = [{"ErrorEquals": caught, "Assign": {"why": "{% $states.errorOutput %}"}, "Next": "after"}]
    states = {
        "call": {"Type": "Task", "Resource": f"{LAMBDA}broken", "Catch": catch, "End": True},
        "after": pass_state({"error": "{% $why.Error %}", "cause": "{% $parse($why.Cause).errorMessage %}"}),
    }

    assert run(cloud, states)["output"] == {"error": "RuntimeError", "cause": "no"}


def test_timeouts_are_virtual_and_end_the_execution_or_the_state(cloud: SmallCloud) -> None:
    waiting = {"rest": {"Type": "Wait", "Seconds": "{% $states.input.s %}", "End": True}}

    short, long = run(cloud, waiting, {"s": 99}, TimeoutSeconds=100), run(cloud, waiting, {"s": 9_999}, TimeoutSeconds=100)

    assert (short["status"], long["status"], long["error"]) == ("SUCCEEDED", "TIMED_OUT", "States.Timeout")


def test_a_query_that_yields_nothing_is_an_error_but_null_is_a_value(cloud: SmallCloud) -> None:
    nothing, null = (run(cloud, {"ask": pass_state({"v": "{% $states.input.v %}"})}, given) for given in ({}, {"v": None}))

    assert (nothing["status"], nothing["error"]) == ("FAILED", "States.QueryEvaluationError")
    assert null["output"] == {"v": None}


def test_expressions_read_arrays_functions_and_quotes() -> None:
    states = {"input": {"items": [1, 2, 3], "text": 'a "b"'}}

    assert evaluate("{% $sum($states.input.items[$ > 1]) * $k %}", states, {"k": 2}) == 10
    assert evaluate({"t": ["{% $uppercase($states.input.text) %}", "{%", 5]}, states, {}) == {"t": ['A "B"', "{%", 5]}
    with pytest.raises(StateError, match=r"States\.QueryEvaluationError"):
        evaluate("{% $states.input.text - 1 %}", states, {})


def test_payloads_are_limited(cloud: SmallCloud) -> None:
    found = run(cloud, {"grow": pass_state({"v": "{% $join([1..60000].('abcde')) %}"})})

    assert found["error"] == "States.DataLimitExceeded"


def rescore(**more: Any) -> dict[str, Any]:
    reader = {"Resource": "arn:aws:states:::s3:listObjectsV2", "Arguments": {"Bucket": "data", "Prefix": "records/"}}
    score = {"Type": "Task", "Resource": f"{LAMBDA}score", "End": True}
    return {"all": {
        "Type": "Map", "ItemReader": reader,
        "ItemBatcher": {"MaxItemsPerBatch": 3, "BatchInput": {"model": "{% $states.input.model %}"}},
        "ItemProcessor": {
            "ProcessorConfig": {"Mode": "DISTRIBUTED", "ExecutionType": "STANDARD"},
            "StartAt": "score", "States": {"score": score},
        }, "MaxConcurrency": 2, "End": True, **more,
    }}  # fmt: skip


def test_a_distributed_map_batches_the_listing(cloud: SmallCloud) -> None:
    for n in range(7):
        cloud.put(f"records/{n}", "x")
    cloud.functions["score"] = lambda event: [item["Key"] for item in event["Items"]]

    found = run(cloud, rescore(), {"model": "m1"})

    assert found["output"] == [["records/0", "records/1", "records/2"], ["records/3", "records/4", "records/5"], ["records/6"]]
    assert {event["BatchInput"]["model"] for _, event, _ in cloud.calls} == {"m1"}
    assert set(cloud.calls[0][1]["Items"][0]) >= {"Etag", "Key", "LastModified", "Size"}


@pytest.mark.parametrize(("tolerated", "status"), [(33, "FAILED"), (34, "SUCCEEDED")])
def test_a_distributed_map_tolerates_its_share_of_failures(cloud: SmallCloud, tolerated: int, status: str) -> None:
    for n in range(9):
        cloud.put(f"records/{n}", "x")
    cloud.functions["score"] = failing(1, RuntimeError("no"))

    found = run(cloud, rescore(ToleratedFailurePercentage=tolerated), {"model": "m1"})

    assert found["status"] == status
    assert found.get("error") in (None, "States.ExceedToleratedFailureThreshold")


def test_a_call_the_sdk_refuses_fails_the_state(cloud: SmallCloud) -> None:
    call = {"Type": "Task", "Resource": "arn:aws:states:::aws-sdk:sagemaker:describeEndpoint", "Arguments": {}, "End": True}

    assert run(cloud, {"call": call})["error"] == "States.Runtime"


def test_a_listing_that_fails_is_a_reader_failure(cloud: SmallCloud) -> None:
    states = rescore()
    states["all"]["ItemReader"]["Arguments"]["Bucket"] = "absent"

    assert run(cloud, states, {"model": "m1"})["error"] == "States.ItemReaderFailed"


def test_an_sdk_call_answers_and_fails_by_the_services_names(cloud: SmallCloud) -> None:
    good = {"Type": "Task", "Resource": "arn:aws:states:::aws-sdk:sagemaker:listEndpoints", "Arguments": {}, "End": True}
    bad = {**good, "Resource": "arn:aws:states:::aws-sdk:sagemaker:describeEndpoint", "Arguments": {"EndpointName": "x"}}

    assert run(cloud, {"list": good})["output"] == {"Endpoints": []}
    assert run(cloud, {"describe": bad})["error"] == "SageMaker.SageMakerException"


def job(cloud: SmallCloud, name: str) -> dict[str, Any]:
    arguments = {"TrainingJobName": name, "RoleArn": ROLE, "OutputDataConfig": {"S3OutputPath": "s3://data/out"}}
    task = {"Type": "Task", "Resource": "arn:aws:states:::sagemaker:createTrainingJob.sync", "Arguments": arguments}
    return {"train": {**task, "TimeoutSeconds": 4000, "End": True}}


def simulate(cloud: SmallCloud, monkeypatch: pytest.MonkeyPatch, status: str = "Completed") -> list[str]:
    """Stand in for the training service: the job ends after 600 virtual seconds and says so."""
    jobs, stopped = dict[str, str](), list[str]()

    def end(name: str) -> None:
        jobs[name] = status
        detail = {"TrainingJobName": name, "TrainingJobStatus": status}
        cloud.emit_event("aws.sagemaker", "SageMaker Training Job State Change", detail, [])

    def create(p: dict[str, Any]) -> dict[str, str]:
        jobs[p["TrainingJobName"]] = "InProgress"
        cloud.clock.call_later(600, lambda: end(p["TrainingJobName"]))
        return {"TrainingJobArn": "arn"}

    def describe(p: dict[str, Any]) -> dict[str, Any]:
        return {"TrainingJobName": p["TrainingJobName"], "TrainingJobStatus": jobs[p["TrainingJobName"]]}

    service = cloud.training  # type: ignore[attr-defined]
    monkeypatch.setattr(service, "create_training_job", create)
    monkeypatch.setattr(service, "describe_training_job", describe)
    monkeypatch.setattr(service, "stop_training_job", lambda p: stopped.append(p["TrainingJobName"]) or {})
    return stopped


@pytest.mark.parametrize("end", ["Completed", "Failed", "Stopped"])
def test_sync_waits_for_the_training_jobs_event(cloud: SmallCloud, monkeypatch: pytest.MonkeyPatch, end: str) -> None:
    simulate(cloud, monkeypatch, end)

    found = run(cloud, job(cloud, "j1"))

    assert found.get("error") == (None if end == "Completed" else "States.TaskFailed")
    assert json.loads(found.get("cause") or json.dumps(found["output"]))["TrainingJobStatus"] == end
    assert (found["stopDate"] - found["startDate"]).total_seconds() == pytest.approx(600.5)


def test_a_lost_event_leaves_the_execution_waiting_until_its_timeout(
    cloud: SmallCloud, monkeypatch: pytest.MonkeyPatch
) -> None:
    simulate(cloud, monkeypatch)
    cloud.drop = lambda event: "Training" in event["detail-type"]
    execution = start(cloud, machine(cloud, job(cloud, "j1")))

    cloud.clock.run(until=cloud.clock.time() + 3990)
    before = shown(cloud, execution)["status"]
    cloud.clock.run()

    assert (before, shown(cloud, execution)["error"]) == ("RUNNING", "States.Timeout")


def test_a_stopped_execution_runs_no_further_state_and_stops_its_job(
    cloud: SmallCloud, monkeypatch: pytest.MonkeyPatch
) -> None:
    stopped = simulate(cloud, monkeypatch)
    states = job(cloud, "j1")
    states["train"] = {**states["train"], "Next": "never"}
    del states["train"]["End"]
    states["never"] = {"Type": "Task", "Resource": f"{LAMBDA}double", "End": True}
    execution = start(cloud, machine(cloud, states))
    cloud.clock.run(until=cloud.clock.time() + 10)

    cloud.client("stepfunctions").stop_execution(executionArn=execution)
    cloud.clock.run()

    assert shown(cloud, execution)["status"] == "ABORTED"
    assert stopped == ["j1"]
    assert cloud.calls == []
    assert cloud.told("Step Functions Execution Status Change", "status") == ["RUNNING", "ABORTED"]


def test_an_executions_name_is_its_idempotency_key(cloud: SmallCloud) -> None:
    arn = machine(cloud, {"rest": {"Type": "Wait", "Seconds": 100, "End": True}})
    first, again = start(cloud, arn, {"a": 1}, name="n"), start(cloud, arn, {"a": 1}, name="n")
    exists = cloud.client("stepfunctions").exceptions.ExecutionAlreadyExists

    with pytest.raises(exists):
        start(cloud, arn, {"a": 2}, name="n")
    cloud.clock.run()
    with pytest.raises(exists):
        start(cloud, arn, {"a": 1}, name="n")

    assert first == again
    assert cloud.told("Step Functions Execution Status Change", "status") == ["RUNNING", "SUCCEEDED"]


def test_unnamed_executions_do_not_collide(cloud: SmallCloud) -> None:
    arn = machine(cloud, {"rest": {"Type": "Wait", "Seconds": 100, "End": True}})

    executions = {start(cloud, arn) for _ in range(3)}
    cloud.clock.run()

    listed = cloud.client("stepfunctions").list_executions(stateMachineArn=arn, statusFilter="SUCCEEDED")["executions"]
    assert {row["executionArn"] for row in listed} == executions
    assert len(executions) == 3


def test_the_history_tells_what_happened(cloud: SmallCloud) -> None:
    execution = start(cloud, machine(cloud, {"ask": pass_state({"v": 1})}))
    cloud.clock.run()

    events = cloud.client("stepfunctions").get_execution_history(executionArn=execution)["events"]
    kinds = [event["type"] for event in events]
    assert kinds == ["ExecutionStarted", "PassStateEntered", "PassStateExited", "ExecutionSucceeded"]
    assert events[2]["stateExitedEventDetails"] == {"name": "ask", "output": '{"v": 1}'}


@pytest.mark.parametrize(
    ("states", "complaint"),
    [
        ({"a": {"Type": "Pass", "ResultPath": "$.x", "End": True}}, "ResultPath is not a field of a JSONata state"),
        ({"a": {"Type": "Pass", "Outputs": 1, "End": True}}, "Outputs is not a field of Pass"),
        ({"a": {"Type": "Pass", "QueryLanguage": "JSONPath", "End": True}}, "QueryLanguage is not a field"),
        ({"a": {"Type": "Pass", "Next": "b"}}, "b is not there"),
        ({"a": {"Type": "Pass"}}, "Next or End"),
        ({"a": {"Type": "Succeed"}, "b": {"Type": "Succeed"}}, "b is never reached"),
        ({"a": {"Type": "Wait", "End": True}}, "needs Seconds"),
        ({"a": {"Type": "Pass", "Output": "{% 1 + %}", "End": True}}, "is not JSONata"),
        ({"a": {"Type": "Task", "Resource": "arn:aws:states:::sqs:sendMessage.waitForTaskToken", "End": True}}, "no integration"),
        (rescore(ItemProcessor={"StartAt": "a", "States": {"a": {"Type": "Pass", "End": True}}}), "DISTRIBUTED"),
        ({"a": {"Type": "Sleep"}}, "Sleep, unknown here"),
    ],
)
def test_a_definition_aws_would_refuse_is_refused_and_harms_no_later_one(
    cloud: SmallCloud, states: dict[str, Any], complaint: str
) -> None:
    with pytest.raises(ClientError, match=complaint) as refused:
        machine(cloud, states)

    assert refused.value.response["Error"]["Code"] == "InvalidDefinition"
    assert run(cloud, {"ask": pass_state(1)})["output"] == 1


def test_an_update_is_checked_too(cloud: SmallCloud) -> None:
    arn = machine(cloud, {"ask": pass_state(1)})

    with pytest.raises(ClientError, match="InvalidDefinition"):
        cloud.client("stepfunctions").update_state_machine(stateMachineArn=arn, definition="{}")
