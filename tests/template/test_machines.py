"""The two state machines: every task retries, catches and times out; their states are called as the functions are."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.template.permissions import allows
from tests.template.stack import HOPS, STACK, expanded, machine, stack, states

MACHINES = ("improve", "rescore")
JSONPATH = {
    "InputPath", "Parameters", "ResultSelector", "ResultPath", "OutputPath", "ItemsPath", "SecondsPath", "ErrorPath", "CausePath",
}  # fmt: skip
TRAINING = "arn:${Partition}:states:::sagemaker:createTrainingJob.sync"
INVOKE = "arn:${Partition}:states:::lambda:invoke"


def tasks(name: str) -> dict[str, dict[str, Any]]:
    return {state: body for state, body in states(machine(name)) if body["Type"] == "Task"}


@pytest.mark.parametrize("name", MACHINES)
def test_the_language_is_jsonata_throughout(name: str) -> None:
    assert machine(name)["QueryLanguage"] == "JSONata"
    for state, body in states(machine(name)):
        assert not JSONPATH & body.keys(), state
        assert "$." not in json.dumps(body), state


@pytest.mark.parametrize("name", MACHINES)
def test_every_task_retries_catches_and_times_out(name: str) -> None:
    for state, body in tasks(name).items():
        assert body["TimeoutSeconds"] > 0, state
        assert body["Catch"][-1]["ErrorEquals"] == ["States.ALL"], state
        for rule in body["Retry"]:
            assert rule["MaxAttempts"] >= 3, state
            assert rule["BackoffRate"] > 1, state
            assert "States.ALL" not in rule["ErrorEquals"], state


@pytest.mark.parametrize("name", MACHINES)
def test_a_machine_ends_one_day(name: str) -> None:
    assert 0 < machine(name)["TimeoutSeconds"] <= 14 * 86_400


@pytest.mark.parametrize("name", MACHINES)
def test_states_that_call_functions_bear_their_names(name: str) -> None:
    for state, body in tasks(name).items():
        if body["Resource"] == TRAINING:
            assert state == "train_model"
        else:
            assert body["Resource"] == INVOKE
            assert state in HOPS
            assert body["Arguments"]["FunctionName"] == "${" + "".join(word.title() for word in state.split("_")) + "}"


@pytest.mark.parametrize("name", MACHINES)
def test_every_function_error_of_the_service_is_retried(name: str) -> None:
    service = {"ServiceException", "AWSLambdaException", "SdkClientException", "TooManyRequestsException"}
    wanted = {f"Lambda.{error}" for error in service} | {"Retryable"}

    for state, body in tasks(name).items():
        if body["Resource"] == INVOKE:
            retried = {error for rule in body["Retry"] for error in rule["ErrorEquals"]}
            assert wanted <= retried, state


@pytest.mark.parametrize("name", MACHINES)
def test_every_next_state_exists_and_every_state_is_reached(name: str) -> None:
    def check(level: dict[str, Any]) -> None:
        named = {level["StartAt"]}
        for body in level["States"].values():
            named |= {body.get("Next"), body.get("Default")}
            named |= {rule["Next"] for rule in [*body.get("Choices", []), *body.get("Catch", [])]}
            if "ItemProcessor" in body:
                check(body["ItemProcessor"])
        assert named - {None} == set(level["States"])

    check(machine(name))


@pytest.mark.parametrize("name", MACHINES)
def test_substitutions_are_all_given_and_all_used(name: str) -> None:
    properties = expanded()["Resources"][name.title()]["Properties"]
    text = json.dumps(machine(name))

    given = set(properties["DefinitionSubstitutions"])
    used = {part.split("}")[0] for part in text.split("${")[1:]}

    assert used == given


@pytest.mark.parametrize("name", MACHINES)
def test_a_machine_may_call_exactly_its_functions(name: str) -> None:
    arn = f"arn:aws:lambda:us-east-1:123456789012:function:{STACK}-{{}}"

    may = {hop for hop in HOPS if allows(f"{name.title()}Role", "lambda:InvokeFunction", arn.format(hop))}

    assert may == set(tasks(name)) & set(HOPS)


@pytest.mark.parametrize("name", MACHINES)
def test_a_machine_is_traced_and_logs_to_a_group_that_expires(name: str) -> None:
    properties = stack().resources("AWS::StepFunctions::StateMachine")[name.title()]
    groups = {p["LogGroupName"]: p["RetentionInDays"] for p in stack().resources("AWS::Logs::LogGroup").values()}

    assert properties["TracingConfiguration"] == {"Enabled": True}
    assert properties["LoggingConfiguration"]["Level"] == "ERROR"
    assert groups[f"/aws/vendedlogs/states/{STACK}-{name}"] == 30


def test_improve_walks_from_plan_to_settled() -> None:
    found = machine("improve")["States"]

    order, name = [], machine("improve")["StartAt"]
    while name:
        order.append(name)
        body = found[name]
        choices = body.get("Choices", [])
        onward = [
            c["Next"] for c in choices if any(f"'{word}'" in c["Condition"] for word in ("train", "promote", "STARTED"))
        ]
        name = onward[0] if onward else None if choices else body.get("Next")

    assert [state for state in order if found[state]["Type"] == "Task"] == [
        "plan_training", "train_model", "publish_model", "evaluate_challenger", "deploy_challenger", "settle_deployment",
    ]  # fmt: skip


def test_a_busy_lease_is_waited_for_hours() -> None:
    retry = machine("improve")["States"]["deploy_challenger"]["Retry"]
    (busy,) = [rule for rule in retry if rule["ErrorEquals"] == ["Retryable"]]

    steps = (busy["IntervalSeconds"] * busy["BackoffRate"] ** n for n in range(busy["MaxAttempts"]))
    delays = [min(busy["MaxDelaySeconds"], step) for step in steps]

    assert busy["IntervalSeconds"] == 60
    assert sum(delays) > 12 * 3600


def test_the_rollout_is_looked_at_when_the_hop_says() -> None:
    found = machine("improve")["States"]

    wait = found["watch_the_rollout"]

    assert (wait["Seconds"], wait["Next"]) == ("{% $states.input.wait_seconds %}", "settle_deployment")
    assert found["has_the_rollout_settled"]["Choices"][0]["Next"] == "watch_the_rollout"


def test_failures_end_in_a_fail_state_that_says_why() -> None:
    for name in MACHINES:
        fails = [body for _, body in states(machine(name)) if body["Type"] == "Fail"]
        assert fails
        for body in fails:
            assert (body["Error"], body["Cause"]) == ("{% $failure.Error %}", "{% $failure.Cause %}")


def test_rescore_batches_the_listing_and_tolerates_few_failures() -> None:
    everything = machine("rescore")["States"]["every_records_artifact"]

    assert everything["ItemReader"] == {
        "Resource": "arn:${Partition}:states:::s3:listObjectsV2",
        "Arguments": {"Bucket": "${DataBucket}", "Prefix": "records/"},
    }
    assert everything["ItemBatcher"]["MaxItemsPerBatch"] == 100
    assert everything["ItemProcessor"]["ProcessorConfig"] == {"Mode": "DISTRIBUTED", "ExecutionType": "STANDARD"}
    assert 0 < everything["ToleratedFailurePercentage"] <= 10
    assert everything["MaxConcurrency"] > 1
