"""Step Functions: Standard state machines in JSONata, run on the virtual clock.

moto keeps the machines and the executions; its own interpreter waits in real time, so the states are run here: those
that KNOWN names. What else a definition holds is refused when it is started. Rules: aws-contracts 5.1 to 5.5.
"""

import json
import math
import random
from collections import Counter
from collections.abc import Generator
from typing import Any

from botocore.exceptions import ClientError
from jsonata import Jsonata
from jsonata.jexception import JException
from moto.stepfunctions.models import Execution, StateMachine

from .patches import Cloud, patched, refused
from .sagemaker import only

Json = dict[str, Any]
Steps = Generator[float, None, Any]
MAX_PAYLOAD_BYTES = 262_144
_TRAINING, _INVOKE = "arn:aws:states:::sagemaker:createTrainingJob.sync", "arn:aws:states:::lambda:invoke"
KNOWN = {
    "Type": "Task Choice Wait Map Succeed Fail",
    "Resource": f"{_TRAINING} {_INVOKE} arn:aws:states:::s3:listObjectsV2",
    "fields": """Type Comment Next End Output Assign Retry Catch Resource Arguments TimeoutSeconds Choices Default Seconds
        Error Cause ItemReader ItemBatcher ItemProcessor MaxConcurrency ToleratedFailurePercentage""",
}


class StateError(Exception):
    """A state failed: the error's name, which Retry and Catch match, and the cause."""


def check(machine: Json) -> None:
    """NotImplementedError for what this interpreter lacks."""
    for state in machine["States"].values():
        only({state["Type"]: state}, KNOWN["Type"])
        only(state, KNOWN["fields"])
        only({state.get("ItemReader", state).get("Resource", _INVOKE): state}, KNOWN["Resource"])
        check(state.get("ItemProcessor", {"States": {}}))


def evaluate(template: Any, variables: Json) -> Any:
    """A template with its `{% … %}` strings evaluated; StateError States.QueryEvaluationError when one yields nothing."""
    if isinstance(template, dict):
        return {key: evaluate(value, variables) for key, value in template.items()}
    if isinstance(template, list):
        return [evaluate(value, variables) for value in template]
    if not (isinstance(template, str) and template.startswith("{%") and template.endswith("%}")):
        return template
    try:  # as an object's member: nothing leaves it out, and null is a value
        found = Jsonata(f'{{"value": ({template[2:-2]})}}').evaluate(None, variables)
        return json.loads(json.dumps(found["value"]))
    except (JException, KeyError) as error:
        raise StateError("States.QueryEvaluationError", f"'{template}' gives no value: {error}") from error


class Runner:
    """Runs one execution, as a process of the clock."""

    def __init__(self, cloud: Cloud, execution: Execution, machine: Json) -> None:
        self.cloud, self.clock, self.execution, self.job = cloud, cloud.clock, execution, ""
        self._rng = random.Random(execution.name)
        self._deadline = self.clock.time() + machine.get("TimeoutSeconds", 31_536_000)
        self._context = {"Execution": {"Id": execution.execution_arn, "Name": execution.name}}
        cloud.subscribe("SageMaker Training Job State Change", self._ended)
        self.wake = self.clock.start(self._run(machine))

    def _run(self, machine: Json) -> Steps:
        try:
            output = yield from self._states(machine, json.loads(self.execution.execution_input), {})
            end = {"status": "SUCCEEDED", "output": json.dumps(output)}
        except StateError as failed:
            end = {"status": "TIMED_OUT" if self.clock.time() >= self._deadline else "FAILED"}
            end["error"], end["cause"] = failed.args
        if self.execution.status == "RUNNING":
            vars(self.execution).update(end, stop_date=self.clock.now())

    def _states(self, machine: Json, data: Any, variables: Json) -> Steps:
        """Run one level of states, which has variables of its own, with their Retry and Catch; gives its output."""
        name, tried = machine["StartAt"], Counter[int]()
        while name and self.execution.status == "RUNNING":
            state = machine["States"][name]
            try:
                data, name = yield from self._state(state, data, variables)
                tried.clear()
            except StateError as failed:
                told = dict(zip(("Error", "Cause"), failed.args, strict=True))
                retrier, catcher = (_matching(state.get(kind, []), told["Error"]) for kind in ("Retry", "Catch"))
                if self.clock.time() >= self._deadline:
                    raise
                if retrier and tried[id(retrier)] < retrier.get("MaxAttempts", 3):
                    delay = retrier["IntervalSeconds"] * retrier["BackoffRate"] ** tried[id(retrier)]
                    share = self._rng.random() if retrier.get("JitterStrategy") == "FULL" else 1.0
                    yield from self._rest(min(delay, retrier.get("MaxDelaySeconds", math.inf)) * share)
                    tried[id(retrier)] += 1
                elif catcher:
                    data, name = self._leave(catcher, {"input": data, "errorOutput": told}, told, variables)
                    tried.clear()
                else:
                    raise
        return data

    def _state(self, state: Json, data: Any, variables: Json) -> Steps:
        """Run one state once; gives its output and the next state's name, None at the end."""
        kind, states = state["Type"], {"input": data}
        if kind == "Choice":
            rules = (rule for rule in state["Choices"] if self._value(rule["Condition"], states, variables) is True)
            state = {**state, **next(rules, {"Next": state["Default"]})}
        elif kind == "Fail":
            raise StateError(*(str(self._value(state[key], states, variables)) for key in ("Error", "Cause")))
        elif kind == "Wait":
            yield from self._rest(float(self._value(state["Seconds"], states, variables)))
        elif kind == "Map":
            states["result"] = data = yield from self._map(state, states, variables)
        elif kind == "Task":
            given = self._value(state["Arguments"], states, variables)
            states["result"] = data = yield from self._task(state, given)
        return self._leave(state, states, data, variables)

    def _leave(self, state: Json, states: Json, result: Any, variables: Json) -> tuple[Any, str | None]:
        """Output and Assign, both from the same snapshot, and where to go."""
        output = self._value(state["Output"], states, variables) if "Output" in state else result
        variables.update(self._value(state.get("Assign", {}), states, variables))
        return output, state.get("Next")

    def _value(self, template: Any, states: Json, variables: Json) -> Any:
        value = evaluate(template, {**variables, "states": {**states, "context": self._context}})
        if len(json.dumps(value)) > MAX_PAYLOAD_BYTES:
            raise StateError("States.DataLimitExceeded", f"a value exceeds {MAX_PAYLOAD_BYTES} bytes")
        return value

    def _task(self, state: Json, given: Json) -> Steps:
        """Invoke; or create the training job and wait for the *event* of its end: a lost event means waiting on."""
        if state["Resource"] == _INVOKE:
            result, error = self.cloud.invoke(given["FunctionName"], given["Payload"], invoker="states")
            if error:
                raise StateError(error.get("errorType") or "Lambda.Unknown", json.dumps(error)[:32_768])
            return {"Payload": result, "StatusCode": 200}
        try:
            self.cloud.client("sagemaker").create_training_job(**given)
        except ClientError as error:
            code, message = (error.response["Error"][name] for name in ("Code", "Message"))
            raise StateError(f"SageMaker.{code.removesuffix('Exception')}Exception", message) from error
        self.job = given["TrainingJobName"]
        try:
            yield from self._rest(state["TimeoutSeconds"])
        finally:
            late, self.job = self.job, ""
        if late:
            raise StateError("States.Timeout", f"training job {late} did not end in time")
        shown: Json = json.loads(json.dumps(self.cloud.training.describe_training_job(given), default=str))
        if shown["TrainingJobStatus"] != "Completed":
            raise StateError("States.TaskFailed", json.dumps(shown))
        return shown

    def _ended(self, event: Json) -> None:
        if event["detail"]["TrainingJobName"] == self.job:
            self.job = ""
            self.wake()

    def _map(self, state: Json, states: Json, variables: Json) -> Steps:
        """A child for each batch of the listing, one after the other; a child sees none of its parent's variables."""
        given = self._value(state["ItemReader"]["Arguments"], states, variables)
        pages = self.cloud.client("s3").get_paginator("list_objects_v2").paginate(**given)
        items = [{"Key": row["Key"], "Size": row["Size"]} for page in pages for row in page.get("Contents", [])]
        batcher, results, failures = self._value(state["ItemBatcher"], states, variables), [], []
        for first in range(0, len(items), size := batcher["MaxItemsPerBatch"]):
            child = {"BatchInput": batcher["BatchInput"], "Items": items[first : first + size]}
            try:
                results.append((yield from self._states(state["ItemProcessor"], child, {})))
            except StateError as failed:
                failures.append(": ".join(failed.args))
        if len(failures) * 100 > state.get("ToleratedFailurePercentage", 0) * (len(results) + len(failures)):
            raise StateError("States.ExceedToleratedFailureThreshold", "; ".join(failures)[:32_768])
        return results

    def _rest(self, seconds: float) -> Steps:
        """Wait for so long, or until somebody wakes the execution, unless it runs out of time."""
        yield max(0.0, min(seconds, self._deadline - self.clock.time()))
        if self.clock.time() >= self._deadline:
            raise StateError("States.Timeout", "the execution ran out of time")


def _matching(rules: list[Json], error: str) -> Json | None:
    """The first of the retriers or catchers that an error concerns."""
    names = {error, "States.ALL" if error != "States.DataLimitExceeded" else error}
    names.add("States.TaskFailed" if error != "States.Timeout" else error)
    return next((rule for rule in rules if names & {*rule["ErrorEquals"]}), None)


@patched("moto.stepfunctions.models.StateMachine", "start_execution", "An execution runs its states.")
def _start(cloud: Cloud, original: Any, self: StateMachine, *args: Any, **kwargs: Any) -> Execution:
    machine = json.loads(self.definition)
    only({machine.get("QueryLanguage", "JSONPath"): machine}, "JSONata")
    check(machine)
    execution = original(self, *args, **kwargs)
    if not hasattr(execution, "runner"):
        execution.runner = Runner(cloud, execution, machine)
    return execution


@patched("moto.stepfunctions.models.Execution", "stop", "A stopped execution runs no further state.")
def _stop(cloud: Cloud, original: Any, self: Any, **_: Any) -> None:
    job = self.runner.job
    if job and cloud.training.describe_training_job({"TrainingJobName": job})["TrainingJobStatus"] == "InProgress":
        raise NotImplementedError(f"the local cloud cannot stop training job {job} with its execution")
    if self.status == "RUNNING":
        original(self)
        self.runner.wake()


refused("moto.stepfunctions.models.Execution", "get_execution_history", "No history is made up.", what="tell histories")
