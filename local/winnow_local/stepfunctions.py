"""Step Functions: Standard state machines in JSONata, run on the virtual clock.

moto keeps the machines and the executions; its own interpreter waits in real time, so the states are run here: Task
(Lambda, SageMaker training `.sync`, SDK calls), Choice, Wait, Pass, distributed Map over a listing, Succeed, Fail.
Whatever else a definition holds is refused when the machine is created. Rules: aws-contracts 5.1 to 5.5.
"""

from __future__ import annotations

import json
import random
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC
from typing import TYPE_CHECKING, Any

import jsonata
from botocore import xform_name
from botocore.exceptions import ClientError, ParamValidationError
from jsonata.jexception import JException
from moto.stepfunctions.exceptions import AWSError
from moto.stepfunctions.models import Execution

from .patches import Patch

if TYPE_CHECKING:
    from .clock import Signal
    from .cloud import LocalCloud

MAX_PAYLOAD_BYTES = 262_144
_COMMON = {"Type", "Comment", "Output", "Assign", "Next", "End"}
_TRY = {"Retry", "Catch"}
_MAP = {"ItemReader", "ItemBatcher", "ItemProcessor", "MaxConcurrency", "ToleratedFailurePercentage"}
FIELDS = {
    "Task": _COMMON | _TRY | {"Resource", "Arguments", "TimeoutSeconds"},
    "Choice": _COMMON - {"Next", "End"} | {"Choices", "Default"},
    "Wait": _COMMON | {"Seconds"},
    "Pass": _COMMON,
    "Succeed": _COMMON - {"Next", "End", "Assign"},
    "Fail": {"Type", "Comment", "Error", "Cause"},
    "Map": _COMMON | _TRY | _MAP,
}
NEEDED = {"Task": {"Resource"}, "Choice": {"Choices"}, "Wait": {"Seconds"}, "Map": _MAP - {"ToleratedFailurePercentage"}}
_PATHS = {"InputPath", "Parameters", "ResultSelector", "ResultPath", "OutputPath", "ItemsPath"}
_TRAINING = "arn:aws:states:::sagemaker:createTrainingJob.sync"
_INVOKE, _SDK, _FUNCTION = "arn:aws:states:::lambda:invoke", "arn:aws:states:::aws-sdk:", "arn:aws:lambda:"
_LIST = "arn:aws:states:::s3:listObjectsV2"


class InvalidDefinition(AWSError):
    """The definition breaks a rule of the language, or needs what this interpreter lacks; the message says which."""

    TYPE, STATUS = "InvalidDefinition", 400


class StateError(Exception):
    """A state failed with a named error, which Retry and Catch match."""

    def __init__(self, error: str, cause: str) -> None:
        super().__init__(f"{error}: {cause}")
        self.error, self.cause = error[:256], cause[:32_768]


class AbortedError(Exception):
    """The execution was stopped from outside."""


@dataclass
class Scope:
    """What an expression can see: where in the execution it is, and the variables of this level."""

    context: dict[str, Any]
    variables: dict[str, Any] = field(default_factory=dict)


def check(definition: str) -> dict[str, Any]:
    """The parsed definition; InvalidDefinition when it is not a JSONata machine that AWS and this interpreter can run."""
    try:
        machine = json.loads(definition)
    except ValueError as error:
        raise InvalidDefinition(f"Invalid State Machine Definition: 'INVALID_JSON_DESCRIPTION: {error}'") from error
    found = _problems(machine, "") if machine.get("QueryLanguage") == "JSONata" else ["only JSONata runs in the local cloud"]
    if found:
        raise InvalidDefinition(f"Invalid State Machine Definition: 'SCHEMA_VALIDATION_FAILED: {'; '.join(found)}'")
    return dict(machine)


def evaluate(template: Any, states: dict[str, Any], variables: dict[str, Any]) -> Any:
    """A template with its `{% … %}` strings evaluated; StateError States.QueryEvaluationError when one yields nothing."""
    if isinstance(template, dict):
        return {key: evaluate(value, states, variables) for key, value in template.items()}
    if isinstance(template, list):
        return [evaluate(value, states, variables) for value in template]
    if not _is_query(template):
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

    def __init__(self, cloud: LocalCloud, execution: Execution, machine: dict[str, Any]) -> None:
        self.cloud, self.clock, self.execution, self.machine = cloud, cloud.clock, execution, machine
        self.history: list[dict[str, Any]] = []
        self._lock, self._waits, self._stopped = threading.Lock(), list["Signal"](), False
        self._deadline = self.clock.time() + machine.get("TimeoutSeconds", float("inf"))
        execution.start_date = self.clock.now()
        self._note("ExecutionStarted", input=execution.execution_input)
        self._tell()

    def run(self) -> None:
        """Run to the end and show how it went."""
        given, arn = json.loads(self.execution.execution_input), self.execution.state_machine_arn
        about = {"Id": self.execution.execution_arn, "Name": self.execution.name, "Input": given, "StartTime": self._iso()}
        scope = Scope({"Execution": about, "StateMachine": {"Id": arn, "Name": arn.rsplit(":", 1)[-1]}})
        try:
            self._close("SUCCEEDED", output=json.dumps(self._states(self.machine, given, scope)))
        except AbortedError:
            return
        except StateError as failed:
            timed_out = failed.error == "States.Timeout" and self.clock.time() >= self._deadline
            self._close("TIMED_OUT" if timed_out else "FAILED", error=failed.error, cause=failed.cause)

    def stop(self) -> None:
        """Abort: no further state starts, and what waits wakes up to end."""
        with self._lock:
            self._stopped = True
            for signal in self._waits:
                signal.set()
        self._close("ABORTED")

    def _states(self, machine: dict[str, Any], data: Any, scope: Scope) -> Any:
        name: str | None = machine["StartAt"]
        while name:
            state = machine["States"][name]
            if self._stopped:
                raise AbortedError
            scope.context["State"] = {"Name": name, "EnteredTime": self._iso(), "RetryCount": 0}
            self._note(f"{state['Type']}StateEntered", "stateEntered", name=name, input=json.dumps(data))
            data, following = self._attempts(name, state, data, scope)
            if len(json.dumps(data)) > MAX_PAYLOAD_BYTES:
                raise StateError("States.DataLimitExceeded", f"the output of {name} exceeds {MAX_PAYLOAD_BYTES} bytes")
            self._note(f"{state['Type']}StateExited", "stateExited", name=name, output=json.dumps(data))
            name = following
        return data

    def _attempts(self, name: str, state: dict[str, Any], data: Any, scope: Scope) -> tuple[Any, str | None]:
        """Run one state with its Retry and Catch; gives its output and the next state's name, None at the end."""
        rules, tried = state.get("Retry", []), [0] * len(state.get("Retry", []))
        while True:
            try:
                return self._state(state, data, scope)
            except StateError as failed:
                self._note("TaskFailed", error=failed.error, cause=failed.cause, resource=name, resourceType="task")
                if self.clock.time() >= self._deadline:
                    raise
                rule = next((i for i, rule in enumerate(rules) if _matches(rule, failed)), None)
                if rule is not None and tried[rule] < rules[rule].get("MaxAttempts", 3):
                    self._rest(_back_off(rules[rule], tried[rule], f"{self.execution.name}/{name}/{tried}"))
                    tried[rule] += 1
                    scope.context["State"]["RetryCount"] = sum(tried)
                    continue
                catcher = next((catcher for catcher in state.get("Catch", []) if _matches(catcher, failed)), None)
                if catcher is None:
                    raise
                error = {"Error": failed.error, "Cause": failed.cause}
                return self._leave(catcher, {"input": data, "errorOutput": error}, error, scope), catcher["Next"]

    def _state(self, state: dict[str, Any], data: Any, scope: Scope) -> tuple[Any, str | None]:
        kind, states = state["Type"], {"input": data}
        if kind == "Choice":
            rules = (rule for rule in state["Choices"] if self._value(rule["Condition"], states, scope) is True)
            chosen = next(rules, {"Next": state.get("Default")})
            if chosen["Next"] is None:
                raise StateError("States.NoChoiceMatched", f"no rule of {scope.context['State']['Name']} holds")
            return self._leave({**state, **chosen}, states, data, scope), chosen["Next"]
        if kind == "Fail":
            raise StateError(*(str(self._value(state.get(key, ""), states, scope)) for key in ("Error", "Cause")))
        if kind == "Wait":
            self._rest(float(self._value(state["Seconds"], states, scope)))
        elif kind in ("Task", "Map"):
            states["result"] = data = (self._task if kind == "Task" else self._map)(state, states, scope)
        return self._leave(state, states, data, scope), state.get("Next")

    def _leave(self, state: dict[str, Any], states: dict[str, Any], result: Any, scope: Scope) -> Any:
        """Output and Assign, both from the same snapshot."""
        output = self._value(state.get("Output", result), states, scope) if "Output" in state else result
        scope.variables.update(self._value(state.get("Assign", {}), states, scope))
        return output

    def _value(self, template: Any, states: dict[str, Any], scope: Scope) -> Any:
        return evaluate(template, {**states, "context": scope.context}, scope.variables)

    def _task(self, state: dict[str, Any], states: dict[str, Any], scope: Scope) -> Any:
        resource, given = state["Resource"], states["input"]
        given = self._value(state["Arguments"], states, scope) if "Arguments" in state else given
        timeout = float(self._value(state.get("TimeoutSeconds", 99_999_999), states, scope))
        if len(json.dumps(given)) > MAX_PAYLOAD_BYTES:
            raise StateError("States.DataLimitExceeded", f"the arguments exceed {MAX_PAYLOAD_BYTES} bytes")
        if resource == _TRAINING:
            return self._train(given, timeout)
        if resource == _INVOKE:
            return {"Payload": self._invoke(given["FunctionName"], given.get("Payload", {})), "StatusCode": 200}
        if resource.startswith(_SDK):
            return self._sdk(*resource[len(_SDK) :].split(":"), given)
        return self._invoke(resource, given)

    def _invoke(self, function: str, event: Any) -> Any:
        result, error = self.cloud.invoke(function, event, invoker="states")
        if error:
            raise StateError(error.get("errorType") or "Lambda.Unknown", json.dumps(error))
        return result

    def _sdk(self, service: str, action: str, given: dict[str, Any]) -> Any:
        client = self.cloud.client({"sfn": "stepfunctions"}.get(service, service))
        try:
            answer = getattr(client, xform_name(action))(**given)
        except ParamValidationError as error:
            raise StateError("States.Runtime", f"{service}:{action}: {error}") from error
        except ClientError as error:
            code, model = error.response["Error"]["Code"], client.meta.service_model
            family = model.service_id.replace(" ", "")
            name = code.removesuffix("Exception") if code in {shape.name for shape in model.error_shapes} else family
            raise StateError(f"{family}.{name}Exception", error.response["Error"]["Message"]) from error
        answer.pop("ResponseMetadata", None)
        return json.loads(json.dumps(answer, default=lambda value: value.isoformat()))

    def _train(self, given: dict[str, Any], timeout: float) -> Any:
        """Create the training job and wait for the *event* that says it is over: a lost event means waiting on."""
        name = given.get("TrainingJobName", "")
        self._sdk("sagemaker", "createTrainingJob", given)
        signal = self.cloud.training_waits[name] = self.clock.signal()
        try:
            if not self._await(signal, timeout):
                raise StateError("States.Timeout", f"training job {name} did not end in time")
        except AbortedError:
            self._sdk("sagemaker", "stopTrainingJob", {"TrainingJobName": name})
            raise
        shown = self._sdk("sagemaker", "describeTrainingJob", {"TrainingJobName": name})
        if shown["TrainingJobStatus"] != "Completed":
            raise StateError("States.TaskFailed", json.dumps(shown))
        return shown

    def _map(self, state: dict[str, Any], states: dict[str, Any], scope: Scope) -> Any:
        given = self._value(state["ItemReader"]["Arguments"], states, scope)
        try:
            pages = self.cloud.client("s3").get_paginator("list_objects_v2").paginate(**given)
            rows = [row for listed in pages for row in listed.get("Contents", [])]
        except ClientError as error:
            raise StateError("States.ItemReaderFailed", str(error)) from error
        shown = [{"Key": row["Key"], "Size": row["Size"], "Etag": row["ETag"],
                  "LastModified": int(row["LastModified"].timestamp())} for row in rows]  # fmt: skip
        batcher = self._value(state["ItemBatcher"], states, scope)
        size, extra = batcher["MaxItemsPerBatch"], {key: batcher[key] for key in ("BatchInput",) if key in batcher}
        batches = [{**extra, "Items": shown[at : at + size]} for at in range(0, len(shown), size)]
        limit = int(self._value(state["MaxConcurrency"], states, scope)) or 1000
        results = self._side_by_side(state["ItemProcessor"], batches, scope, limit=limit)
        failures = [result for result in results if isinstance(result, StateError)]
        tolerated = float(self._value(state.get("ToleratedFailurePercentage", 0), states, scope))
        if len(failures) * 100 > tolerated * len(results):
            cause = f"{len(failures)} of {len(results)} failed, the first with {failures[0]}"
            raise StateError("States.ExceedToleratedFailureThreshold", cause)
        return [result for result in results if not isinstance(result, StateError)]

    def _side_by_side(self, machine: dict[str, Any], given: Sequence[Any], scope: Scope, *, limit: int) -> list[Any]:
        """Run children next to each other, at most `limit` at once; a failure is a result, in its place.

        A distributed child sees none of its parent's variables.
        """
        results: list[Any] = [None] * len(given)
        todo, left, done = iter(range(len(given))), [len(given)], self.clock.signal()

        def labour() -> None:
            while not self._stopped:
                with self._lock:
                    index = next(todo, None)
                if index is None:
                    return
                try:
                    results[index] = self._states(machine, given[index], Scope(dict(scope.context)))
                except StateError as failed:
                    results[index] = failed
                except AbortedError:
                    return
                with self._lock:
                    left[0] -= 1
                    if not left[0]:
                        done.set()

        for _ in range(min(limit, len(given))):
            self.clock.spawn(labour, name=self.execution.name)
        if given and not self._await(done, float("inf")):
            raise StateError("States.Timeout", "the execution ran out of time in its Map")
        return results

    def _rest(self, seconds: float) -> None:
        self._await(self.clock.signal(), max(seconds, 0.0))
        if self.clock.time() >= self._deadline:
            raise StateError("States.Timeout", "the execution ran out of time")

    def _await(self, signal: Signal, timeout: float) -> bool:
        """Rest until the signal (True), `timeout` or the execution's deadline (False); AbortedError when stopped."""
        with self._lock:
            self._waits.append(signal)
            if self._stopped:
                raise AbortedError
        left = min(timeout, self._deadline - self.clock.time())
        on = signal.wait(None if left == float("inf") else max(left, 0.0))
        with self._lock:
            self._waits.remove(signal)
            if self._stopped:
                raise AbortedError
        return on

    def _close(self, status: str, *, output: str | None = None, error: str = "", cause: str = "") -> None:
        shown = self.execution
        shown.output, shown.error, shown.cause = output, error or None, cause or None
        shown.status, shown.stop_date = status, self.clock.now()
        kind = {"TIMED_OUT": "TimedOut"}.get(status, status.capitalize())
        self._note(f"Execution{kind}", **({"output": output} if output is not None else {"error": error, "cause": cause}))
        self._tell()

    def _tell(self) -> None:
        e = self.execution
        detail = {
            "executionArn": e.execution_arn, "stateMachineArn": e.state_machine_arn, "name": e.name, "status": e.status,
            "startDate": int(e.start_date.timestamp() * 1000), "input": e.execution_input, "output": e.output,
            "stopDate": int(e.stop_date.timestamp() * 1000) if e.stop_date else None, "error": e.error, "cause": e.cause,
        }  # fmt: skip
        self.cloud.emit_event("aws.states", "Step Functions Execution Status Change", detail, [e.execution_arn])

    def _note(self, kind: str, details: str = "", **values: Any) -> None:
        with self._lock:
            number, member = len(self.history) + 1, f"{details or kind[0].lower() + kind[1:]}EventDetails"
            event = {"id": number, "previousEventId": number - 1, "timestamp": self.clock.now(), "type": kind}
            self.history.append({**event, member: values})

    def _iso(self) -> str:
        return f"{self.clock.now().astimezone(UTC):%Y-%m-%dT%H:%M:%S.%f}"[:-3] + "Z"


def install(cloud: LocalCloud) -> None:
    """Let training-job events wake the executions that wait for them, as the service's managed rule does."""
    cloud.training_waits = {}

    def woken(event: dict[str, Any]) -> None:
        waiting = cloud.training_waits.get(event["detail"]["TrainingJobName"])
        if waiting and event["detail"]["TrainingJobStatus"] in ("Completed", "Failed", "Stopped"):
            waiting.set()

    cloud.subscribe("SageMaker Training Job State Change", woken)


def _problems(machine: dict[str, Any], path: str) -> list[str]:
    states, start = machine.get("States", {}), machine.get("StartAt")
    found, reached = ([] if start in states else [f"{path}/StartAt {start} is not a state"]), {start}
    for name, state in states.items():
        here, kind = f"{path}/States/{name}", state.get("Type")
        rules = [*state.get("Choices", []), *state.get("Catch", [])]
        reached |= {rule.get("Next") for rule in [state, *rules]} | {state.get("Default")}
        if kind not in FIELDS:
            found.append(f"{here} has the Type {kind}, unknown here")
            continue
        found += [f"{here}: {one} is not a field of a JSONata state" for one in sorted(_PATHS & set(state))]
        found += [f"{here}: {one} is not a field of {kind} here" for one in sorted(set(state) - FIELDS[kind] - _PATHS)]
        found += [f"{here} needs {one}" for one in sorted(NEEDED.get(kind, set()) - set(state))]
        if "Next" in FIELDS[kind] and ("Next" in state) == (state.get("End") is True):
            found.append(f"{here} needs either Next or End")
        if kind == "Task" and not _integrated(str(state.get("Resource"))):
            found.append(f"{here}: the local cloud has no integration {state.get('Resource')}")
        for tries in (state.get("Retry", []), state.get("Catch", [])):
            everything = [rule for rule in tries if "States.ALL" in rule["ErrorEquals"]]
            if any(rule is not tries[-1] or len(rule["ErrorEquals"]) > 1 for rule in everything):
                found.append(f"{here}: States.ALL stands alone and last")
        found += [f"{here}: {problem}" for problem in _syntax({**state, "ItemProcessor": None})]
        if kind == "Map" and not found:
            config = state["ItemProcessor"].get("ProcessorConfig", {})
            if state["ItemReader"].get("Resource") != _LIST or config.get("Mode") != "DISTRIBUTED":
                found.append(f"{here}: the local cloud maps only DISTRIBUTED and over listObjectsV2")
            found += _problems(state["ItemProcessor"], here)
    found += [f"{path}/States/{name} is not there" for name in sorted(reached - set(states) - {None, start})]
    return found + [f"{path}/States/{name} is never reached" for name in sorted(set(states) - reached)]


def _integrated(resource: str) -> bool:
    return resource in (_TRAINING, _INVOKE) or resource.startswith((_FUNCTION, _SDK))


def _syntax(value: Any) -> list[str]:
    if isinstance(value, dict | list):
        inside = value.values() if isinstance(value, dict) else value
        return [problem for item in inside for problem in _syntax(item)]
    try:
        if _is_query(value):
            jsonata.Jsonata(value[2:-2])
    except JException as error:
        return [f"{value} is not JSONata: {error}"]
    return []


def _is_query(value: Any) -> bool:
    return isinstance(value, str) and value.startswith("{%") and value.endswith("%}")


def _query(source: str, states: dict[str, Any], variables: dict[str, Any]) -> Any:
    expression = jsonata.Jsonata(source)
    frame = expression.create_frame()
    for name, value in {**variables, "states": states}.items():
        frame.bind(name, value)
    expression.register_lambda("parse", json.loads)
    return expression.evaluate(None, frame)


def _matches(rule: dict[str, Any], failed: StateError) -> bool:
    wanted = rule["ErrorEquals"]
    anything = "States.ALL" in wanted and failed.error not in ("States.DataLimitExceeded", "States.Runtime")
    return anything or failed.error in wanted or ("States.TaskFailed" in wanted and failed.error != "States.Timeout")


def _back_off(rule: dict[str, Any], tried: int, draw: str) -> float:
    delay = min(rule.get("IntervalSeconds", 1) * rule.get("BackoffRate", 2.0) ** tried, rule.get("MaxDelaySeconds", 1e9))
    return random.Random(draw).uniform(0, delay) if rule.get("JitterStrategy") == "FULL" else float(delay)


def _checked(original: Callable[..., Any], _: LocalCloud) -> Callable[..., Any]:
    def create_or_update(self: Any, *args: Any, **kwargs: Any) -> Any:
        definition = kwargs.get("definition", args[1] if len(args) > 1 else None)
        if definition is not None:
            check(definition)
        return original(self, *args, **kwargs)

    return create_or_update


def _started(original: Callable[..., Execution], cloud: LocalCloud) -> Callable[..., Execution]:
    def start_execution(self: Any, *args: Any, **kwargs: Any) -> Execution:
        execution = original(self, *args, **kwargs)
        if not hasattr(execution, "runner"):
            runner = execution.runner = Runner(cloud, execution, check(self.definition))  # type: ignore[attr-defined]
            cloud.clock.spawn(runner.run, name=execution.name)
        return execution

    return start_execution


def _stopped(*_: Any) -> Callable[..., None]:
    def stop(self: Any, **_: Any) -> None:
        if self.status == "RUNNING":
            self.runner.stop()

    return stop


def _remembered(*_: Any) -> Callable[..., list[dict[str, Any]]]:
    return lambda self, role: self.runner.history


_MODELS = "moto.stepfunctions.models"
PATCHES = (
    Patch(f"{_MODELS}.StepFunctionBackend", "create_state_machine", "A broken definition is refused.", _checked),
    Patch(f"{_MODELS}.StepFunctionBackend", "update_state_machine", "A broken update is refused.", _checked),
    Patch(f"{_MODELS}.StateMachine", "start_execution", "An execution runs its states.", _started),
    Patch(f"{_MODELS}.Execution", "stop", "A stopped execution runs no further state.", _stopped),
    Patch(f"{_MODELS}.Execution", "get_execution_history", "The history holds what happened.", _remembered),
)
