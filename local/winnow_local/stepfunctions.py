"""Step Functions: Standard state machines in JSONata, run on the virtual clock.

moto keeps the machines and the executions; its own interpreter waits in real time, so the states are run here: those
that KNOWN names. What else a definition holds is refused when it is started. Rules: aws-contracts 5.1 to 5.5.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from typing import Any

import jsonata
from botocore import xform_name
from botocore.exceptions import ClientError
from jsonata.jexception import JException

from .patches import Patch
from .sagemaker import only

Json = dict[str, Any]
MAX_PAYLOAD_BYTES = 262_144
_TRAINING, _INVOKE = "arn:aws:states:::sagemaker:createTrainingJob.sync", "arn:aws:states:::lambda:invoke"
KNOWN = {
    "Type": "Task Choice Wait Map Succeed Fail",
    "Resource": f"{_TRAINING} {_INVOKE} arn:aws:states:::s3:listObjectsV2",
    "fields": """Type Comment Next End Output Assign Retry Catch Resource Arguments TimeoutSeconds Choices Default Seconds
        Error Cause ItemReader ItemBatcher ItemProcessor MaxConcurrency ToleratedFailurePercentage""",
}


class StateError(Exception):
    """A state failed with a named error, which Retry and Catch match."""

    def __init__(self, error: str, cause: str) -> None:
        super().__init__(f"{error}: {cause}")
        self.error, self.cause = error[:256], cause[:32_768]


class AbortedError(Exception):
    """The execution was stopped from outside."""


def check(machine: Json) -> None:
    """NotImplementedError for what this interpreter lacks."""
    for state in machine["States"].values():
        only({state["Type"]: state}, KNOWN["Type"])
        only(state, KNOWN["fields"])
        only({state.get("ItemReader", state).get("Resource", _INVOKE): state}, KNOWN["Resource"])
        check(state.get("ItemProcessor", {"States": {}}))


def evaluate(template: Any, states: Json, variables: Json) -> Any:
    """A template with its `{% … %}` strings evaluated; StateError States.QueryEvaluationError when one yields nothing."""
    if isinstance(template, dict):
        return {key: evaluate(value, states, variables) for key, value in template.items()}
    if isinstance(template, list):
        return [evaluate(value, states, variables) for value in template]
    if not (isinstance(template, str) and template.startswith("{%") and template.endswith("%}")):
        return template
    source = template[2:-2].strip()
    try:
        value = _query(source, states, variables)
        if value is None and not _query(f"$exists({source})", states, variables):
            raise StateError("States.QueryEvaluationError", f"The JSONata expression '{source}' returned nothing")
    except JException as error:
        raise StateError("States.QueryEvaluationError", f"'{source}': {error}") from error
    return json.loads(json.dumps(value))


class Runner:
    """Runs one execution. States run in a task of the clock; waiting, for time or for a job, is idle."""

    def __init__(self, cloud: Any, execution: Any, machine: Json) -> None:
        self.cloud, self.clock, self.execution, self.machine = cloud, cloud.clock, execution, machine
        self._waits_for, self._stopped = self.clock.signal(), False
        self._deadline = self.clock.time() + machine.get("TimeoutSeconds", 31_536_000)
        self._context = {"Execution": {"Id": execution.execution_arn, "Name": execution.name}}
        execution.start_date = self.clock.now()

    def run(self) -> None:
        """Run to the end and show how it went."""
        shown = self.execution
        try:
            shown.output = json.dumps(self._states(self.machine, json.loads(shown.execution_input), {}))
            self._close("SUCCEEDED")
        except AbortedError:
            return
        except StateError as failed:
            shown.error, shown.cause = failed.error, failed.cause
            self._close("TIMED_OUT" if self.clock.time() >= self._deadline else "FAILED")

    def stop(self) -> None:
        """Abort: no further state starts, and what waits wakes up to end."""
        self._stopped = True
        self._waits_for.set()
        self._close("ABORTED")

    def _close(self, status: str) -> None:
        self.execution.status, self.execution.stop_date = status, self.clock.now()

    def _states(self, machine: Json, data: Any, variables: Json) -> Any:
        """Run one level of states, which has variables of its own, from its start to its end."""
        name: str | None = machine["StartAt"]
        while name:
            data, name = self._attempts(machine["States"][name], data, variables)
        return data

    def _attempts(self, state: Json, data: Any, variables: Json) -> tuple[Any, str | None]:
        """Run one state with its Retry and Catch; gives its output and the next state's name, None at the end."""
        rules, tried = state.get("Retry", []), [0] * len(state.get("Retry", []))
        while not self._stopped:
            try:
                return self._state(state, data, variables)
            except StateError as failed:
                if self.clock.time() >= self._deadline:
                    raise
                rule = next((i for i, rule in enumerate(rules) if _matches(rule, failed)), None)
                if rule is not None and tried[rule] < rules[rule].get("MaxAttempts", 3):
                    self._rest(_back_off(rules[rule], tried[rule], f"{self.execution.name}{data}{tried}"))
                    tried[rule] += 1
                    continue
                error = {"Error": failed.error, "Cause": failed.cause}
                for catcher in (catcher for catcher in state.get("Catch", []) if _matches(catcher, failed)):
                    return self._leave(catcher, {"input": data, "errorOutput": error}, error, variables), catcher[
                        "Next"
                    ]
                raise
        raise AbortedError

    def _state(self, state: Json, data: Any, variables: Json) -> tuple[Any, str | None]:
        kind, states = state["Type"], {"input": data}
        if kind == "Choice":
            rules = (rule for rule in state["Choices"] if self._value(rule["Condition"], states, variables) is True)
            state = {**state, **next(rules, {"Next": state["Default"]})}
        if kind == "Fail":
            raise StateError(*(str(self._value(state[key], states, variables)) for key in ("Error", "Cause")))
        if kind == "Wait":
            self._rest(float(self._value(state["Seconds"], states, variables)))
        elif kind == "Map":
            states["result"] = data = self._map(state, states, variables)
        elif kind == "Task":
            given = self._value(state["Arguments"], states, variables)
            training = state["Resource"] == _TRAINING
            states["result"] = data = self._train(given, state["TimeoutSeconds"]) if training else self._invoke(given)
        return self._leave(state, states, data, variables), state.get("Next")

    def _leave(self, state: Json, states: Json, result: Any, variables: Json) -> Any:
        """Output and Assign, both from the same snapshot."""
        output = self._value(state["Output"], states, variables) if "Output" in state else result
        variables.update(self._value(state.get("Assign", {}), states, variables))
        return output

    def _value(self, template: Any, states: Json, variables: Json) -> Any:
        value = evaluate(template, {**states, "context": self._context}, variables)
        if len(json.dumps(value)) > MAX_PAYLOAD_BYTES:
            raise StateError("States.DataLimitExceeded", f"a value exceeds {MAX_PAYLOAD_BYTES} bytes")
        return value

    def _invoke(self, given: Json) -> Json:
        result, error = self.cloud.invoke(given["FunctionName"], given["Payload"], invoker="states")
        if error:
            raise StateError(error.get("errorType") or "Lambda.Unknown", json.dumps(error))
        return {"Payload": result, "StatusCode": 200}

    def _train(self, given: Json, timeout: float) -> Json:
        """Create the training job and wait for the *event* that says it is over: a lost event means waiting on."""
        name = given["TrainingJobName"]
        self._sagemaker("CreateTrainingJob", given)
        signal = self.cloud.training_waits[name] = self.clock.signal()
        try:
            if not self._rest(timeout, signal):
                raise StateError("States.Timeout", f"training job {name} did not end in time")
        finally:
            shown = self._sagemaker("DescribeTrainingJob", {"TrainingJobName": name})
            if self._stopped and shown["TrainingJobStatus"] == "InProgress":
                raise NotImplementedError(f"the local cloud cannot stop training job {name} with its execution")
        if shown["TrainingJobStatus"] != "Completed":
            raise StateError("States.TaskFailed", json.dumps(shown))
        return shown

    def _sagemaker(self, action: str, given: Json) -> Json:
        try:
            answer = getattr(self.cloud.client("sagemaker"), xform_name(action))(**given)
        except ClientError as error:
            code = error.response["Error"]["Code"].removesuffix("Exception")
            raise StateError(f"SageMaker.{code}Exception", error.response["Error"]["Message"]) from error
        answer.pop("ResponseMetadata")
        return dict(json.loads(json.dumps(answer, default=str)))

    def _map(self, state: Json, states: Json, variables: Json) -> list[Any]:
        """A child for each batch of the listing, one after the other; a child sees none of its parent's variables."""
        given = self._value(state["ItemReader"]["Arguments"], states, variables)
        pages = self.cloud.client("s3").get_paginator("list_objects_v2").paginate(**given)
        items = [{"Key": row["Key"], "Size": row["Size"]} for page in pages for row in page.get("Contents", [])]
        batcher, results, failures = self._value(state["ItemBatcher"], states, variables), [], []
        for first in range(0, len(items), batcher["MaxItemsPerBatch"]):
            batch = {"BatchInput": batcher["BatchInput"], "Items": items[first : first + batcher["MaxItemsPerBatch"]]}
            try:
                results.append(self._states(state["ItemProcessor"], batch, {}))
            except StateError as failed:
                failures.append(str(failed))
        if len(failures) * 100 > state.get("ToleratedFailurePercentage", 0) * (len(results) + len(failures)):
            raise StateError("States.ExceedToleratedFailureThreshold", "; ".join(failures))
        return results

    def _rest(self, seconds: float, signal: Any = None) -> bool:
        """Wait for so long, or until the signal (True), unless the execution is stopped or runs out of time."""
        self._waits_for = signal = signal or self.clock.signal()
        on = not self._stopped and signal.wait(max(0.0, min(seconds, self._deadline - self.clock.time())))
        if self._stopped:
            raise AbortedError
        if self.clock.time() >= self._deadline:
            raise StateError("States.Timeout", "the execution ran out of time")
        return on


def install(cloud: Any) -> None:
    """Let training-job events wake the executions that wait for them, as the service's managed rule does."""
    cloud.training_waits = {}

    def woken(event: Json) -> None:
        cloud.training_waits.pop(event["detail"]["TrainingJobName"], cloud.clock.signal()).set()

    cloud.subscribe("SageMaker Training Job State Change", woken)


def _query(source: str, states: Json, variables: Json) -> Any:
    expression = jsonata.Jsonata(source)
    frame = expression.create_frame()
    for name, value in {**variables, "states": states}.items():
        frame.bind(name, value)
    return expression.evaluate(None, frame)


def _matches(rule: Json, failed: StateError) -> bool:
    wanted = rule["ErrorEquals"]
    anything = "States.ALL" in wanted and failed.error != "States.DataLimitExceeded"
    return anything or failed.error in wanted or ("States.TaskFailed" in wanted and failed.error != "States.Timeout")


def _back_off(rule: Json, tried: int, draw: str) -> float:
    delay = min(rule["IntervalSeconds"] * rule["BackoffRate"] ** tried, rule.get("MaxDelaySeconds", 1e9))
    return random.Random(draw).uniform(0, delay) if rule.get("JitterStrategy") == "FULL" else float(delay)


def _started(original: Callable[..., Any], cloud: Any) -> Callable[..., Any]:
    def start_execution(self: Any, *args: Any, **kwargs: Any) -> Any:
        machine = json.loads(self.definition)
        only({machine.get("QueryLanguage", "JSONPath"): machine}, "JSONata")
        check(machine)
        execution = original(self, *args, **kwargs)
        if not hasattr(execution, "runner"):
            execution.runner = Runner(cloud, execution, machine)
            cloud.clock.spawn(execution.runner.run, name=execution.name)
        return execution

    return start_execution


def _stop(execution: Any, **_: Any) -> None:
    if execution.status == "RUNNING":
        execution.runner.stop()


def _tell(*_: Any) -> None:
    raise NotImplementedError("the local cloud does not simulate GetExecutionHistory")


_MODELS = "moto.stepfunctions.models"
PATCHES = (
    Patch(f"{_MODELS}.StateMachine", "start_execution", "An execution runs its states.", _started),
    Patch(f"{_MODELS}.Execution", "stop", "A stopped execution runs no further state.", lambda *_: _stop),
    Patch(f"{_MODELS}.Execution", "get_execution_history", "No history is made up.", lambda *_: _tell),
)
