"""Step Functions: Standard state machines in JSONata, run on the virtual clock.

moto keeps the machines and the executions; its own interpreter waits in real time, so the states are run here: Task
(Lambda, SageMaker training `.sync`, SDK calls), Choice, Wait, Pass, Parallel, Map (inline and distributed), Succeed, Fail.
Whatever else a definition holds is refused when the machine is created. Rules: aws-contracts 5.1 to 5.5.
"""

from __future__ import annotations

import hashlib
import json
import random
import threading
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
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
_COMMON = {"Type", "Comment", "QueryLanguage", "Output", "Assign", "Next", "End"}
_TRY = {"Retry", "Catch"}
FIELDS = {
    "Task": _COMMON | _TRY | {"Resource", "Arguments", "TimeoutSeconds"},
    "Choice": _COMMON - {"Next", "End"} | {"Choices", "Default"},
    "Wait": _COMMON | {"Seconds", "Timestamp"},
    "Pass": _COMMON,
    "Succeed": _COMMON - {"Next", "End", "Assign"},
    "Fail": {"Type", "Comment", "QueryLanguage", "Error", "Cause"},
    "Parallel": _COMMON | _TRY | {"Branches", "Arguments"},
    "Map": _COMMON | _TRY | {"Items", "ItemReader", "ItemSelector", "ItemBatcher", "ItemProcessor", "ResultWriter", "Label",
                             "MaxConcurrency", "ToleratedFailurePercentage", "ToleratedFailureCount"},
}  # fmt: skip
_PATHS = {"InputPath", "Parameters", "ResultSelector", "ResultPath", "OutputPath", "ItemsPath"}
_TRAINING = "arn:aws:states:::sagemaker:createTrainingJob.sync"
_INVOKE, _LIST, _SDK = "arn:aws:states:::lambda:invoke", "arn:aws:states:::s3:listObjectsV2", "arn:aws:states:::aws-sdk:"


class InvalidDefinition(AWSError):
    """The definition breaks a rule of the language, or needs what this interpreter lacks; the message says which."""

    TYPE, STATUS = "InvalidDefinition", 400


class StateError(Exception):
    """A state failed with a named error, which Retry and Catch match."""

    def __init__(self, error: str, cause: str) -> None:
        super().__init__(f"{error}: {cause}")
        self.error, self.cause = error[:256], cause[:32_768]


class Aborted(Exception):
    """The execution was stopped from outside."""


@dataclass
class Scope:
    """What an expression can see: the variables of this level, and where in the execution it is."""

    context: dict[str, Any]
    variables: dict[str, Any] = field(default_factory=dict)


def check(definition: str) -> dict[str, Any]:
    """The parsed definition; InvalidDefinition when it is not a JSONata machine that AWS and this interpreter can run."""
    try:
        machine = json.loads(definition)
    except ValueError as error:
        raise InvalidDefinition(f"Invalid State Machine Definition: 'INVALID_JSON_DESCRIPTION: {error}'") from error
    found = _problems(machine, "JSONPath", "")
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
        self._lock, self._waits, self._jobs = threading.Lock(), list["Signal"](), list[str]()
        self._stop: tuple[str, str] | None = None
        self._deadline = self.clock.time() + machine.get("TimeoutSeconds", float("inf"))
        execution.start_date = self._now()
        self._note("ExecutionStarted", input=execution.execution_input, roleArn="")
        self._tell()

    def run(self) -> None:
        """Run to the end and show how it went."""
        given = json.loads(self.execution.execution_input)
        about = {"Id": self.execution.execution_arn, "Name": self.execution.name, "Input": given,
                 "StartTime": self._iso(), "RoleArn": ""}  # fmt: skip
        machine = {"Id": self.execution.state_machine_arn, "Name": self.execution.state_machine_arn.rsplit(":", 1)[-1]}
        try:
            output = self._states(self.machine, given, Scope({"Execution": about, "StateMachine": machine}))
        except Aborted:
            error, cause = self._stop or ("", "")
            return self._close("ABORTED", error=error, cause=cause)
        except StateError as failed:
            timed_out = failed.error == "States.Timeout" and self.clock.time() >= self._deadline
            return self._close("TIMED_OUT" if timed_out else "FAILED", error=failed.error, cause=failed.cause)
        return self._close("SUCCEEDED", output=json.dumps(output))

    def stop(self, error: str = "", cause: str = "") -> None:
        """Abort: what waits wakes up, a training job that is waited for is stopped."""
        with self._lock:
            self._stop = (error, cause)
            for signal in self._waits:
                signal.set()
        for job in self._jobs:
            self.cloud.client("sagemaker").stop_training_job(TrainingJobName=job)

    def _states(self, machine: dict[str, Any], data: Any, scope: Scope) -> Any:
        name: str | None = machine["StartAt"]
        while name:
            state = machine["States"][name]
            if self._stop:
                raise Aborted
            scope.context["State"] = {"Name": name, "EnteredTime": self._iso()}
            self._note(f"{state['Type']}StateEntered", "stateEnteredEventDetails", name=name, input=json.dumps(data))
            data, name_next = self._attempts(name, state, data, scope)
            if len(json.dumps(data)) > MAX_PAYLOAD_BYTES:
                raise StateError("States.DataLimitExceeded", f"the output of {name} exceeds {MAX_PAYLOAD_BYTES} bytes")
            self._note(f"{state['Type']}StateExited", "stateExitedEventDetails", name=name, output=json.dumps(data))
            name = name_next
        return data

    def _attempts(self, name: str, state: dict[str, Any], data: Any, scope: Scope) -> tuple[Any, str | None]:
        """Run one state with its Retry and Catch; gives its output and the next state's name, None at the end."""
        tried = [0] * len(state.get("Retry", []))
        while True:
            scope.context["State"]["RetryCount"] = sum(tried)
            try:
                return self._state(state, data, scope)
            except StateError as failed:
                self._note("TaskFailed", "taskFailedEventDetails", error=failed.error, cause=failed.cause)
                if self.clock.time() >= self._deadline:
                    raise
                rule = next((i for i, r in enumerate(state.get("Retry", [])) if _matches(r, failed)), None)
                if rule is not None and tried[rule] < state["Retry"][rule].get("MaxAttempts", 3):
                    self._sleep(_back_off(state["Retry"][rule], tried[rule], f"{self.execution.name}/{name}/{tried}"))
                    tried[rule] += 1
                    continue
                catcher = next((c for c in state.get("Catch", []) if _matches(c, failed)), None)
                if catcher is None:
                    raise
                error = {"Error": failed.error, "Cause": failed.cause}
                return self._leave(catcher, {"input": data, "errorOutput": error}, error, scope), catcher["Next"]

    def _state(self, state: dict[str, Any], data: Any, scope: Scope) -> tuple[Any, str | None]:
        kind, states = state["Type"], {"input": data}
        if kind == "Choice":
            for rule in state["Choices"]:
                if self._value(rule["Condition"], states, scope) is True:
                    return self._leave({**state, **rule}, states, data, scope), rule["Next"]
            if "Default" not in state:
                raise StateError("States.NoChoiceMatched", f"no rule of {scope.context['State']['Name']} holds")
            return self._leave(state, states, data, scope), state["Default"]
        if kind == "Fail":
            raise StateError(*(str(self._value(state.get(key, ""), states, scope)) for key in ("Error", "Cause")))
        if kind == "Wait":
            if "Seconds" in state:
                self._sleep(float(self._value(state["Seconds"], states, scope)))
            else:
                until = datetime.fromisoformat(self._value(state["Timestamp"], states, scope))
                self._sleep(until.timestamp() - self.clock.time())
        elif kind in ("Task", "Parallel", "Map"):
            act = {"Task": self._task, "Parallel": self._parallel, "Map": self._map}[kind]
            states["result"] = data = act(state, states, scope)
        return self._leave(state, states, data, scope), state.get("Next")

    def _leave(self, state: dict[str, Any], states: dict[str, Any], result: Any, scope: Scope) -> Any:
        """Output and Assign, both from the same snapshot."""
        output = self._value(state["Output"], states, scope) if "Output" in state else result
        scope.variables.update(self._value(state.get("Assign", {}), states, scope))
        return output

    def _value(self, template: Any, states: dict[str, Any], scope: Scope) -> Any:
        return evaluate(template, {**states, "context": scope.context}, scope.variables)

    def _task(self, state: dict[str, Any], states: dict[str, Any], scope: Scope) -> Any:
        resource, given = state["Resource"], self._value(state.get("Arguments", states["input"]), states, scope)
        timeout = float(self._value(state.get("TimeoutSeconds", 99_999_999), states, scope))
        if len(json.dumps(given)) > MAX_PAYLOAD_BYTES:
            raise StateError("States.DataLimitExceeded", f"the arguments exceed {MAX_PAYLOAD_BYTES} bytes")
        self._note("TaskScheduled", "taskScheduledEventDetails", resource=resource, resourceType="task",
                   region=self.cloud.region, parameters=json.dumps(given))  # fmt: skip
        if resource == _TRAINING:
            return self._train(given, timeout)
        if resource == _INVOKE:
            payload = self._invoke(given["FunctionName"], given.get("Payload", {}))
            return {"ExecutedVersion": "$LATEST", "Payload": payload, "StatusCode": 200}
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
        except ClientError as error:
            code, family = error.response["Error"]["Code"], client.meta.service_model.service_id.replace(" ", "")
            modelled = code in {shape.name for shape in client.meta.service_model.error_shapes}
            name = code.removesuffix("Exception") if modelled else family
            raise StateError(f"{family}.{name}Exception", error.response["Error"]["Message"]) from error
        except ParamValidationError as error:
            raise StateError("States.Runtime", f"{service}:{action}: {error}") from error
        answer.pop("ResponseMetadata", None)
        return json.loads(json.dumps(answer, default=lambda value: value.isoformat()))

    def _train(self, given: dict[str, Any], timeout: float) -> Any:
        """Create the training job and wait for the *event* that says it is over: a lost event means waiting on."""
        signal, name = self.clock.signal(), given.get("TrainingJobName", "")
        self._sdk("sagemaker", "createTrainingJob", given)
        self.cloud.training_waits[name] = signal
        self._jobs.append(name)
        self._await(signal, timeout)
        self._jobs.remove(name)
        shown = self._sdk("sagemaker", "describeTrainingJob", {"TrainingJobName": name})
        if shown["TrainingJobStatus"] != "Completed":
            raise StateError("States.TaskFailed", json.dumps(shown))
        return shown

    def _parallel(self, state: dict[str, Any], states: dict[str, Any], scope: Scope) -> list[Any]:
        given = self._value(state.get("Arguments", states["input"]), states, scope)
        branches = [(branch, given, Scope(dict(scope.context), dict(scope.variables))) for branch in state["Branches"]]
        results = self._side_by_side(branches, limit=len(branches))
        for failed in results:
            if isinstance(failed, StateError):
                raise failed
        return results

    def _map(self, state: dict[str, Any], states: dict[str, Any], scope: Scope) -> Any:
        items, processor = self._items(state, states, scope), state["ItemProcessor"]
        distributed = processor.get("ProcessorConfig", {}).get("Mode") == "DISTRIBUTED"
        children = []
        for index, item in enumerate(items):
            context = {**scope.context, "Map": {"Item": {"Index": index, "Value": item}}}
            inner = Scope(context, {} if distributed else dict(scope.variables))
            chosen = self._value(state["ItemSelector"], states, Scope(context, scope.variables)) if "ItemSelector" in state else item
            children.append((processor, chosen, inner))
        if batcher := self._value(state.get("ItemBatcher", {}), states, scope):
            size, extra = batcher["MaxItemsPerBatch"], {"BatchInput": batcher["BatchInput"]} if "BatchInput" in batcher else {}
            chosen = [child[1] for child in children]
            children = [
                (processor, {**extra, "Items": chosen[i : i + size]}, Scope(dict(scope.context))) for i in range(0, len(chosen), size)
            ]  # fmt: skip
        limit = int(self._value(state.get("MaxConcurrency", 0), states, scope)) or (1000 if distributed else 40)
        results = self._side_by_side(children, limit=limit)
        failures = [result for result in results if isinstance(result, StateError)]
        tolerated = self._tolerated(state, states, scope, len(results)) if distributed else 0
        if failures and not distributed:
            raise failures[0]
        if len(failures) > tolerated:
            raise StateError("States.ExceedToleratedFailureThreshold", f"{len(failures)} of {len(results)}: {failures[0]}")
        good = [result for result in results if not isinstance(result, StateError)]
        if "ResultWriter" not in state:
            return good
        return self._write(self._value(state["ResultWriter"]["Arguments"], states, scope), good, failures)

    def _items(self, state: dict[str, Any], states: dict[str, Any], scope: Scope) -> list[Any]:
        if "ItemReader" not in state:
            found = self._value(state["Items"], states, scope) if "Items" in state else states["input"]
            if not isinstance(found, list):
                raise StateError("States.QueryEvaluationError", "the Items of a Map must be an array")
            return found
        given = self._value(state["ItemReader"]["Arguments"], states, scope)
        pages = self.cloud.client("s3").get_paginator("list_objects_v2").paginate(**given)
        try:
            rows = [row for listed in pages for row in listed.get("Contents", [])]
        except ClientError as error:
            raise StateError("States.ItemReaderFailed", str(error)) from error
        kept = ("Etag", "Key", "LastModified", "Size", "StorageClass")
        shown = [{**row, "Etag": row["ETag"], "LastModified": int(row["LastModified"].timestamp())} for row in rows]
        top = state["ItemReader"].get("ReaderConfig", {}).get("MaxItems", len(rows))
        return [{key: row[key] for key in kept if key in row} for row in shown][:top]

    def _tolerated(self, state: dict[str, Any], states: dict[str, Any], scope: Scope, total: int) -> float:
        share = float(self._value(state.get("ToleratedFailurePercentage", 0), states, scope)) * total / 100
        return max(share, float(self._value(state.get("ToleratedFailureCount", 0), states, scope)))

    def _write(self, where: dict[str, Any], good: list[Any], failures: list[StateError]) -> Any:
        """The ResultWriter's files; gives what the Map then outputs."""
        run = hashlib.sha256(f"{self.execution.execution_arn}/{len(self.history)}".encode()).hexdigest()[:32]
        arn = f"{self.execution.state_machine_arn.replace(':stateMachine:', ':mapRun:')}/Map:{run}"
        folder = f"{where.get('Prefix', '').strip('/')}/{run}".lstrip("/")
        sides = {"SUCCEEDED": [{"Output": json.dumps(one), "Status": "SUCCEEDED"} for one in good],
                 "FAILED": [{"Error": one.error, "Cause": one.cause, "Status": "FAILED"} for one in failures], "PENDING": []}  # fmt: skip
        files: dict[str, list[dict[str, Any]]] = {}
        for side, rows in sides.items():
            files[side] = [{"Key": f"{folder}/{side}_0.json"}] if rows else []
            for file in files[side]:
                self.cloud.client("s3").put_object(Bucket=where["Bucket"], Body=json.dumps(rows).encode(), **file)
        manifest = {"DestinationBucket": where["Bucket"], "MapRunArn": arn, "ResultFiles": files}
        key = f"{folder}/manifest.json"
        self.cloud.client("s3").put_object(Bucket=where["Bucket"], Key=key, Body=json.dumps(manifest).encode())
        return {"MapRunArn": arn, "ResultWriterDetails": {"Bucket": where["Bucket"], "Key": key}}

    def _side_by_side(self, work: Sequence[tuple[dict[str, Any], Any, Scope]], *, limit: int) -> list[Any]:
        """Run sub-machines next to each other, at most `limit` at once; a failure is a result, in its place."""
        results: list[Any] = [None] * len(work)
        todo, left, done = iter(range(len(work))), [len(work)], self.clock.signal()

        def labour() -> None:
            while not self._stop:
                with self._lock:
                    index = next(todo, None)
                if index is None:
                    return
                try:
                    results[index] = self._states(*work[index])
                except StateError as failed:
                    results[index] = failed
                except Aborted:
                    return
                with self._lock:
                    left[0] -= 1
                    if not left[0]:
                        done.set()

        for _ in range(min(limit, len(work))):
            self.clock.spawn(labour, name=self.execution.name)
        if work:
            self._await(done, float("inf"))
        return results

    def _sleep(self, seconds: float) -> None:
        try:
            self._await(self.clock.signal(), max(seconds, 0.0))
        except StateError:
            if self.clock.time() >= self._deadline:
                raise

    def _await(self, signal: Signal, timeout: float) -> None:
        """Rest until the signal; StateError States.Timeout after `timeout` or at the execution's deadline; or Aborted."""
        with self._lock:
            if self._stop:
                raise Aborted
            self._waits.append(signal)
        left = min(timeout, self._deadline - self.clock.time())
        on = signal.wait(None if left == float("inf") else max(left, 0.0))
        with self._lock:
            self._waits.remove(signal)
        if self._stop:
            raise Aborted
        if not on:
            raise StateError("States.Timeout", f"nothing came within {left:g} seconds")

    def _close(self, status: str, *, output: str | None = None, error: str = "", cause: str = "") -> None:
        shown = self.execution
        shown.output, shown.error, shown.cause = output, error or None, cause or None
        shown.output_details = {"included": True} if output is not None else None  # type: ignore[assignment]
        shown.status, shown.stop_date = status, self._now()
        told = {"output": output} if output is not None else {"error": error, "cause": cause}
        what = {"TIMED_OUT": "ExecutionTimedOut", "SUCCEEDED": "ExecutionSucceeded", "ABORTED": "ExecutionAborted"}
        self._note(what.get(status, "ExecutionFailed"), **told)
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
            number = len(self.history) + 1
            member = details or f"{kind[0].lower()}{kind[1:]}EventDetails"
            event = {"id": number, "previousEventId": number - 1, "timestamp": self._now(), "type": kind, member: values}
            self.history.append(event)

    def _now(self) -> datetime:
        return datetime.fromtimestamp(self.clock.time(), UTC)

    def _iso(self) -> str:
        return f"{self._now():%Y-%m-%dT%H:%M:%S.%f}"[:-3] + "Z"


def install(cloud: LocalCloud) -> None:
    """Let training-job events wake the executions that wait for them, as the service's managed rule does."""
    cloud.training_waits = {}

    def woken(event: dict[str, Any]) -> None:
        waits = cloud.training_waits.get(event["detail"]["TrainingJobName"])
        if waits and event["detail"]["TrainingJobStatus"] in ("Completed", "Failed", "Stopped"):
            waits.set()

    cloud.events.subscribe("SageMaker Training Job State Change", woken)


def _problems(machine: Any, language: str, path: str) -> list[str]:
    if not isinstance(machine, dict) or not isinstance(machine.get("States"), dict):
        return [f"{path or '/'} has no States"]
    language, found, states = machine.get("QueryLanguage", language), [], machine["States"]
    if machine.get("StartAt") not in states:
        found.append(f"{path}/StartAt {machine.get('StartAt')} is not a state")
    reached = {machine.get("StartAt")}
    for name, state in states.items():
        here, kind = f"{path}/States/{name}", state.get("Type")
        reached |= {rule.get("Next") for rule in [state, *state.get("Choices", []), *state.get("Catch", [])]} | {state.get("Default")}
        if kind not in FIELDS:
            found.append(f"{here} has the unknown Type {kind}")
            continue
        if state.get("QueryLanguage", language) != "JSONata":
            found.append(f"{here} is in JSONPath; the local cloud runs JSONata: set QueryLanguage")
        found += [f"{here}: {f} is not a field of a JSONata state" for f in sorted(_PATHS & set(state))]
        found += [f"{here}: {f} is not a field of {kind} here" for f in sorted(set(state) - FIELDS[kind] - _PATHS)]
        if kind not in ("Choice", "Succeed", "Fail") and ("Next" in state) == (state.get("End") is True):
            found.append(f"{here} needs either Next or End")
        found += _field_problems(kind, state, here)
        inner = [*state.get("Branches", []), *([state["ItemProcessor"]] if "ItemProcessor" in state else [])]
        found += [problem for n, branch in enumerate(inner) for problem in _problems(branch, language, f"{here}/{n}")]
        found += [f"{here}: {problem}" for problem in _syntax({k: v for k, v in state.items() if k not in ("Branches", "ItemProcessor")})]
    found += [f"{path}/States/{name} is not there" for name in sorted(reached - set(states) - {None})]
    return found + [f"{path}/States/{name} is never reached" for name in sorted(set(states) - reached)]


def _field_problems(kind: str, state: dict[str, Any], here: str) -> list[str]:
    needed = {"Task": "Resource", "Choice": "Choices", "Parallel": "Branches", "Map": "ItemProcessor"}.get(kind, "Type")
    if needed not in state:
        return [f"{here} needs {needed}"]
    found = [f"{here}: a choice needs Condition and Next" for c in state.get("Choices", []) if not {"Condition", "Next"} <= set(c)]
    if kind == "Wait" and ("Seconds" in state) == ("Timestamp" in state):
        found.append(f"{here} needs Seconds or Timestamp")
    if kind == "Task" and not (state["Resource"] in (_TRAINING, _INVOKE) or state["Resource"].startswith(("arn:aws:lambda:", _SDK))):
        found.append(f"{here}: the local cloud has no integration {state['Resource']}")
    if state.get("ItemReader", {}).get("Resource", _LIST) != _LIST:
        found.append(f"{here}: the local cloud reads items with listObjectsV2 only")
    config = state.get("ItemProcessor", {}).get("ProcessorConfig", {})
    if config.get("Mode") == "DISTRIBUTED" and config.get("ExecutionType") not in ("STANDARD", "EXPRESS"):
        found.append(f"{here}: a DISTRIBUTED processor needs an ExecutionType")
    if config.get("Mode") != "DISTRIBUTED" and {"ItemReader", "ItemBatcher", "ResultWriter"} & set(state):
        found.append(f"{here}: ItemReader, ItemBatcher and ResultWriter need Mode DISTRIBUTED")
    for rules in (state.get("Retry", []), state.get("Catch", [])):
        for number, rule in enumerate(rules):
            if "States.ALL" in rule["ErrorEquals"] and (len(rule["ErrorEquals"]) > 1 or number + 1 < len(rules)):
                found.append(f"{here}: States.ALL stands alone and last")
    return found


def _syntax(value: Any) -> list[str]:
    if isinstance(value, dict | list):
        return [problem for item in (value.values() if isinstance(value, dict) else value) for problem in _syntax(item)]
    if not _is_query(value):
        return []
    try:
        jsonata.Jsonata(value[2:-2])
    except JException as error:
        return [f"{value} is not JSONata: {error}"]
    return []


def _is_query(value: Any) -> bool:
    return isinstance(value, str) and value.startswith("{%") and value.endswith("%}")


def _query(source: str, states: dict[str, Any], variables: dict[str, Any]) -> Any:
    expression = jsonata.Jsonata(source)
    frame = expression.create_frame()
    for name, value in ({**variables, "states": states}).items():
        frame.bind(name, value)
    expression.register_lambda("uuid", lambda: str(uuid.uuid4()))
    expression.register_lambda("parse", json.loads)
    return expression.evaluate(None, frame)


def _matches(rule: dict[str, Any], failed: StateError) -> bool:
    wanted = rule["ErrorEquals"]
    anything = "States.ALL" in wanted and failed.error not in ("States.DataLimitExceeded", "States.Runtime")
    return anything or failed.error in wanted or ("States.TaskFailed" in wanted and failed.error != "States.Timeout")


def _back_off(rule: dict[str, Any], tried: int, draw: str) -> float:
    delay = min(rule.get("IntervalSeconds", 1) * rule.get("BackoffRate", 2.0) ** tried, rule.get("MaxDelaySeconds", 1e9))
    return random.Random(draw).uniform(0, delay) if rule.get("JitterStrategy") == "FULL" else delay


def _checked(original: Callable[..., Any], _: LocalCloud) -> Callable[..., Any]:
    def create_or_update(self: Any, *args: Any, **kwargs: Any) -> Any:
        definition = kwargs.get("definition", args[1] if len(args) > 1 else None)
        if definition is not None:
            check(definition)
        return original(self, *args, **kwargs)

    return create_or_update


def _started(original: Callable[..., Execution], cloud: LocalCloud) -> Callable[..., Execution]:
    def start_execution(self: Any, *args: Any, **kwargs: Any) -> Execution:
        known = {id(execution) for execution in self.executions}
        execution = original(self, *args, **kwargs)
        if id(execution) not in known:
            runner = execution.runner = Runner(cloud, execution, check(self.definition))  # type: ignore[attr-defined]
            cloud.clock.spawn(runner.run, name=execution.name)
        return execution

    return start_execution


def _stop(self: Any, *_: Any, error: str = "", cause: str = "", **__: Any) -> None:
    if self.status == "RUNNING":
        self.runner.stop(error, cause)
        self.status, self.stop_date = "ABORTED", self.runner._now()


_MODELS = "moto.stepfunctions.models"
PATCHES = (
    Patch(f"{_MODELS}.StepFunctionBackend", "create_state_machine", "A broken definition is refused.", _checked),
    Patch(f"{_MODELS}.StepFunctionBackend", "update_state_machine", "So is a broken update.", _checked),
    Patch(f"{_MODELS}.StateMachine", "start_execution", "An execution runs its states.", _started),
    Patch(f"{_MODELS}.Execution", "stop", "A stopped execution runs no further state.", lambda *_: _stop),
    Patch(
        f"{_MODELS}.Execution",
        "get_execution_history",
        "The history holds what happened.",
        lambda *_: lambda self, roleArn: self.runner.history,  # noqa: N803 - moto's parameter
    ),
)
