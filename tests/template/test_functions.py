"""One folder, one function, one role, one log, one alarm, and a way home for every event that fails."""

from __future__ import annotations

import pytest

from tests.template.stack import HOPS, ROOT, STACK, functions, machine, observed, raw, stack, states

SCHEDULED = {"select_batch", "reconcile", "report_health"}
ANSWERING = {
    "prepare_task": "Ground Truth waits for the answer and retries the task",
    "consolidate_annotations": "Ground Truth waits for the answer and retries the batch",
    "receive_feedback": "the caller gets the error",
}


def queue_of(hop: str) -> str | None:
    """Logical id of the queue that feeds a hop."""
    for mapping in stack().resources("AWS::Lambda::EventSourceMapping").values():
        if mapping["FunctionName"] == f"{STACK}-{hop}":
            return next(
                name for name in stack().resources("AWS::SQS::Queue") if stack().arn(name) == mapping["EventSourceArn"]
            )
    return None


def in_machines() -> set[str]:
    return {name for kind in ("improve", "rescore") for name, _ in states(machine(kind))}


def test_the_functions_are_the_hops() -> None:
    assert sorted(functions()) == sorted(HOPS)


@pytest.mark.parametrize("hop", HOPS)
def test_a_function_runs_its_own_folder(hop: str) -> None:
    properties = functions()[hop]

    assert (ROOT / f"functions/{hop}/app.py").is_file()
    assert properties["Code"]["S3Key"] == f"functions/{hop}"
    assert (properties["Handler"], properties["Runtime"]) == ("app.handler", "python3.13")
    assert properties["TracingConfig"] == {"Mode": "Active"}
    assert properties["Description"].endswith(".") or properties["Description"].endswith(").")


def test_every_function_has_a_role_of_its_own() -> None:
    roles = [properties["Role"] for properties in functions().values()]

    assert len(set(roles)) == len(HOPS)


@pytest.mark.parametrize("hop", HOPS)
def test_a_function_logs_json_to_a_group_that_expires(hop: str) -> None:
    logging = functions()[hop]["LoggingConfig"]

    groups = {p["LogGroupName"]: p for p in stack().resources("AWS::Logs::LogGroup").values()}
    assert logging["LogFormat"] == "JSON"
    assert logging["LogGroup"] == f"/aws/lambda/{STACK}-{hop}"
    assert groups[logging["LogGroup"]]["RetentionInDays"] == 30


@pytest.mark.parametrize("hop", HOPS)
def test_a_function_has_an_alarm(hop: str) -> None:
    watched = [
        alarm
        for alarm in observed().resources("AWS::CloudWatch::Alarm").values()
        if alarm["MetricName"] == "Errors"
        and alarm["Dimensions"] == [{"Name": "FunctionName", "Value": f"{STACK}-{hop}"}]
    ]

    assert len(watched) == 1
    assert watched[0]["AlarmActions"]


@pytest.mark.parametrize("hop", HOPS)
def test_what_a_function_fails_on_is_tried_again_or_kept(hop: str) -> None:
    ways = [
        queue_of(hop) is not None,
        hop in SCHEDULED,
        hop in in_machines(),
        hop in ANSWERING,
    ]

    assert any(ways)


@pytest.mark.parametrize("hop", sorted(SCHEDULED))
def test_a_scheduled_function_leaves_its_failures_in_a_queue(hop: str) -> None:
    schedules = stack().resources("AWS::Scheduler::Schedule").values()
    failures = stack().resources("AWS::Lambda::EventInvokeConfig").values()

    target = next(s for s in schedules if s["Name"] == f"{STACK}-{hop}")["Target"]
    config = next(c for c in failures if c["FunctionName"] == f"{STACK}-{hop}")
    dead_letters = stack().arn("AsyncDeadLetters")

    assert target["DeadLetterConfig"] == {"Arn": dead_letters}
    assert target["RoleArn"] == stack().arn("ScheduleRole")
    assert target["Input"] == f'{{"schedule": "{hop}"}}'
    assert config["DestinationConfig"] == {"OnFailure": {"Destination": dead_letters}}


def test_queues_are_read_in_batches_with_partial_failures() -> None:
    mappings = stack().resources("AWS::Lambda::EventSourceMapping").values()

    found = {
        m["EventSourceArn"].rsplit("-", 1)[1]: (
            m["FunctionName"],
            m["BatchSize"],
            m.get("MaximumBatchingWindowInSeconds", 0),
        )
        for m in mappings
    }

    assert found == {
        "ingest": (f"{STACK}-ingest_object", 50, 5),
        "score": (f"{STACK}-score_records", 100, 10),
        "candidates": (f"{STACK}-index_candidates", 500, 20),
        "collect": (f"{STACK}-collect_labels", 1, 0),
        "capture": (f"{STACK}-watch_production", 20, 10),
    }
    for mapping in mappings:
        assert mapping["FunctionResponseTypes"] == ["ReportBatchItemFailures"]
        assert mapping["ScalingConfig"]["MaximumConcurrency"] >= 2
        assert mapping["BatchSize"] <= 10 or mapping["MaximumBatchingWindowInSeconds"] >= 1


def test_a_message_stays_hidden_six_timeouts_and_its_window() -> None:
    queues = stack().resources("AWS::SQS::Queue")

    for mapping in stack().resources("AWS::Lambda::EventSourceMapping").values():
        timeout = functions()[mapping["FunctionName"].removeprefix(f"{STACK}-")]["Timeout"]
        queue = next(q for name, q in queues.items() if stack().arn(name) == mapping["EventSourceArn"])
        assert queue["VisibilityTimeout"] >= 6 * timeout + mapping.get("MaximumBatchingWindowInSeconds", 0)


def test_a_task_waits_longer_than_its_function_may_run() -> None:
    for name in ("improve", "rescore"):
        for hop, state in states(machine(name)):
            if state["Type"] == "Task" and state["Resource"].endswith("lambda:invoke"):
                assert state["TimeoutSeconds"] > functions()[hop]["Timeout"]


def test_feedback_needs_iam_unless_an_issuer_is_named() -> None:
    urls = stack().resources("AWS::Lambda::Url")

    assert [url["AuthType"] for url in urls.values()] == ["AWS_IAM"]
    assert not stack().resources("AWS::ApiGatewayV2::Api")
    authorizer = raw()["Resources"]["FeedbackRoute"]["Properties"]
    assert authorizer["AuthorizationType"] == "JWT"
