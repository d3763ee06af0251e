"""State machines in the local cloud: the states we ship, their errors and waits, on virtual time."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from typing import Any

import pytest

from tests.local.small_cloud import Event, SmallCloud, small_cloud
from winnow_local.stepfunctions import StateError, evaluate

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


def tell(output: Any) -> dict[str, Any]:
    return {"Type": "Succeed", "Output": output}


def call(function: str, **more: Any) -> dict[str, Any]:
    """A task that passes its input on to a function."""
    arguments = {"FunctionName": function, "Payload": "{% $states.input %}"}
    return {
        "Type": "Task",
        "Resource": INVOKE,
        "Arguments": arguments,
        **({} if "Next" in more else {"End": True}),
        **more,
    }


def test_variables_choices_and_context_follow_the_snapshot_rule(cloud: SmallCloud) -> None:
    states = {
        "double": call(
            "double", Assign={"k": "{% $states.result.Payload.y %}"},
            Output={"k_before": "{% $exists($k) %}", "x": "{% $states.input.x %}"}, Next="big",
        ),
        "big": {"Type": "Choice", "Choices": [{"Condition": "{% $k > 5 %}", "Next": "yes"}], "Default": "no"},
        "yes": tell({"in": "{% $states.input %}", "k": "{% $k %}", "name": "{% $states.context.Execution.Name %}"}),
        "no": {"Type": "Fail", "Error": "Small", "Cause": "{% 'k is ' & $k %}"},
    }  # fmt: skip

    big, small = run(cloud, states, {"x": 3}), run(cloud, states, {"x": 1})

    assert big["output"] == {"in": {"k_before": False, "x": 3}, "k": 6, "name": big["name"]}
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

    found = run(cloud, {"call": call("flaky", Retry=retry)})

    assert found["output"]["Payload"] == {"calls": 3}
    assert (found["stopDate"] - found["startDate"]).total_seconds() == 100 + 250


@pytest.mark.parametrize("caught", [["RuntimeError"], ["States.TaskFailed"], ["States.ALL"]])
def test_an_error_is_caught_by_name_or_by_kind(cloud: SmallCloud, caught: list[str]) -> None:
    cloud.functions["broken"] = failing(9, RuntimeError("no"))
    catch = [{"ErrorEquals": caught, "Assign": {"why": "{% $states.errorOutput %}"}, "Next": "after"}]
    states = {"call": call("broken", Catch=catch), "after": tell("{% $why %}")}

    output = run(cloud, states)["output"]

    assert (output["Error"], json.loads(output["Cause"])["errorMessage"]) == ("RuntimeError", "no")


def test_timeouts_are_virtual_and_end_the_execution_or_the_state(cloud: SmallCloud) -> None:
    waiting = {"rest": {"Type": "Wait", "Seconds": "{% $states.input.s %}", "End": True}}

    short, long = (
        run(cloud, waiting, {"s": 99}, TimeoutSeconds=100),
        run(cloud, waiting, {"s": 9_999}, TimeoutSeconds=100),
    )

    assert (short["status"], long["status"], long["error"]) == ("SUCCEEDED", "TIMED_OUT", "States.Timeout")


def test_a_query_that_yields_nothing_is_an_error_but_null_is_a_value(cloud: SmallCloud) -> None:
    nothing, null = (run(cloud, {"ask": tell({"v": "{% $states.input.v %}"})}, given) for given in ({}, {"v": None}))

    assert (nothing["status"], nothing["error"]) == ("FAILED", "States.QueryEvaluationError")
    assert null["output"] == {"v": None}


def test_expressions_read_arrays_functions_and_quotes() -> None:
    given = {"states": {"input": {"items": [1, 2, 3], "text": 'a "b"'}}}

    assert evaluate("{% $sum($states.input.items[$ > 1]) * $k %}", {"k": 2, **given}) == 10
    assert evaluate({"t": ["{% $uppercase($states.input.text) %}", "{%", 5]}, given) == {"t": ['A "B"', "{%", 5]}
    for wrong in ("{% $states.input.text - 1 %}", "{% $states.input. %}", "{% $states.output %}"):
        with pytest.raises(StateError, match=r"States\.QueryEvaluationError"):
            evaluate(wrong, given)


def test_payloads_are_limited(cloud: SmallCloud) -> None:
    found = run(cloud, {"grow": tell({"v": "{% $join([1..60000].('abcde')) %}"})})

    assert found["error"] == "States.DataLimitExceeded"


def rescore(**more: Any) -> dict[str, Any]:
    reader = {"Resource": "arn:aws:states:::s3:listObjectsV2", "Arguments": {"Bucket": "data", "Prefix": "records/"}}
    return {"all": {
        "Type": "Map", "ItemReader": reader,
        "ItemBatcher": {"MaxItemsPerBatch": 3, "BatchInput": {"model": "{% $states.input.model %}"}},
        "ItemProcessor": {
            "ProcessorConfig": {"Mode": "DISTRIBUTED", "ExecutionType": "STANDARD"},
            "StartAt": "score", "States": {"score": call("score", Output="{% $states.result.Payload %}")},
        }, "MaxConcurrency": 2, "End": True, **more,
    }}  # fmt: skip


def test_a_distributed_map_batches_the_listing(cloud: SmallCloud) -> None:
    for n in range(7):
        cloud.put(f"records/{n}", "x")
    cloud.functions["score"] = lambda event: [item["Key"] for item in event["Items"]]

    found = run(cloud, rescore(), {"model": "m1"})

    assert found["output"] == [
        ["records/0", "records/1", "records/2"],
        ["records/3", "records/4", "records/5"],
        ["records/6"],
    ]
    assert {event["BatchInput"]["model"] for _, event, _ in cloud.calls} == {"m1"}
    assert set(cloud.calls[0][1]["Items"][0]) == {"Key", "Size"}


@pytest.mark.parametrize(("tolerated", "status"), [(33, "FAILED"), (34, "SUCCEEDED")])
def test_a_distributed_map_tolerates_its_share_of_failures(cloud: SmallCloud, tolerated: int, status: str) -> None:
    for n in range(9):
        cloud.put(f"records/{n}", "x")
    cloud.functions["score"] = failing(1, RuntimeError("no"))

    found = run(cloud, rescore(ToleratedFailurePercentage=tolerated), {"model": "m1"})

    assert found["status"] == status
    assert found.get("error") in (None, "States.ExceedToleratedFailureThreshold")


def job(cloud: SmallCloud, name: str) -> dict[str, Any]:
    arguments = {"TrainingJobName": name, "RoleArn": ROLE, "OutputDataConfig": {"S3OutputPath": "s3://data/out"}}
    task = {"Type": "Task", "Resource": "arn:aws:states:::sagemaker:createTrainingJob.sync", "Arguments": arguments}
    return {"train": {**task, "TimeoutSeconds": 4000, "End": True}}


def simulate(cloud: SmallCloud, monkeypatch: pytest.MonkeyPatch, status: str = "Completed") -> None:
    """Stand in for the training service: the job ends after 600 virtual seconds and says so."""
    jobs: dict[str, str] = {}

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


@pytest.mark.parametrize("over", [True, False])
def test_a_stopped_execution_runs_no_further_state_and_none_is_stopped_whose_job_would_run_on(
    cloud: SmallCloud, monkeypatch: pytest.MonkeyPatch, over: bool
) -> None:
    simulate(cloud, monkeypatch)
    cloud.drop = lambda event: True
    states = job(cloud, "j1")
    del states["train"]["End"]
    states |= {"train": {**states["train"], "Next": "never"}, "never": call("double")}
    execution = start(cloud, machine(cloud, states))
    cloud.clock.run(until=cloud.clock.time() + (1000 if over else 10))

    with nullcontext() if over else pytest.raises(NotImplementedError, match="cannot stop training job j1"):
        cloud.client("stepfunctions").stop_execution(executionArn=execution)
    status = shown(cloud, execution)["status"]
    cloud.clock.run(until=cloud.clock.time() + 1000)

    assert status == ("ABORTED" if over else "RUNNING")
    assert cloud.calls == []


def test_a_stopped_wait_ends_at_once(cloud: SmallCloud) -> None:
    states = {"rest": {"Type": "Wait", "Seconds": 9_999, "Next": "never"}, "never": call("double")}
    execution = start(cloud, machine(cloud, states))
    cloud.clock.run(until=cloud.clock.time() + 10)

    cloud.client("stepfunctions").stop_execution(executionArn=execution)
    cloud.clock.run()

    found = shown(cloud, execution)
    assert (found["status"], (found["stopDate"] - found["startDate"]).total_seconds()) == ("ABORTED", 10)
    assert cloud.calls == []


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


def test_unnamed_executions_do_not_collide(cloud: SmallCloud) -> None:
    arn = machine(cloud, {"rest": {"Type": "Wait", "Seconds": 100, "End": True}})

    executions = {start(cloud, arn) for _ in range(3)}
    cloud.clock.run()

    listed = cloud.client("stepfunctions").list_executions(stateMachineArn=arn, statusFilter="SUCCEEDED")["executions"]
    assert {row["executionArn"] for row in listed} == executions
    assert len(executions) == 3


@pytest.mark.parametrize("last", [True, False])
def test_what_a_stopped_execution_is_about_runs_to_its_end_and_changes_nothing(cloud: SmallCloud, last: bool) -> None:
    states = {"first": call("halt", **({} if last else {"Next": "never"})), "never": call("double")}
    execution = start(cloud, machine(cloud, states))
    cloud.functions["halt"] = lambda _: bool(cloud.client("stepfunctions").stop_execution(executionArn=execution))

    cloud.clock.run()

    found = shown(cloud, execution)
    assert (found["status"], "output" in found) == ("ABORTED", False)
    assert [function for function, _, _ in cloud.calls] == ["halt"]


def test_no_history_is_made_up(cloud: SmallCloud) -> None:
    execution = start(cloud, machine(cloud, {"ask": tell(1)}))

    with pytest.raises(NotImplementedError, match="histories"):
        cloud.client("stepfunctions").get_execution_history(executionArn=execution)


@pytest.mark.parametrize(
    ("states", "complaint"),
    [
        ({"a": {"Type": "Wait", "Seconds": 1, "ResultPath": "$.x", "End": True}}, "ResultPath"),
        ({"a": {"Type": "Succeed", "QueryLanguage": "JSONPath"}}, "QueryLanguage"),
        ({"a": {"Type": "Task", "Resource": "arn:aws:states:::sqs:sendMessage.waitForTaskToken", "End": True}}, "sqs"),
        (rescore(ItemProcessor={"StartAt": "a", "States": {"a": {"Type": "Pass", "End": True}}}), "Pass"),
        ({"a": {"Type": "Parallel"}}, "Parallel"),
    ],
)
def test_what_the_local_cloud_cannot_run_is_refused_before_it_starts(
    cloud: SmallCloud, states: dict[str, Any], complaint: str
) -> None:
    with pytest.raises(NotImplementedError, match=complaint):
        run(cloud, states)


def test_only_jsonata_runs(cloud: SmallCloud) -> None:
    with pytest.raises(NotImplementedError, match="JSONPath"):
        run(cloud, {"a": tell(1)}, QueryLanguage="JSONPath")
