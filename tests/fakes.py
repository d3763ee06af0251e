"""In-memory ports that record every call, honour conditional writes, and fail where a test tells them to.

    ports = make_ports(loop=loop)
    ports.data.put("k", b"v")              # the port's own methods are journalled and can fail
    ports.data.objects["k"]                # everything else reaches the fake underneath
    ports.journal.fail(3, "after")         # the fourth call commits, then the process dies

`every_fault` runs an action once for every port call and every way that call can go wrong, each time in a fresh world.
"""

from __future__ import annotations

import copy
import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any, Literal

from winnow import ports as protocols
from winnow.errors import BadInput, Conflict, NotFound, Retryable
from winnow.formats.images import PillowImages
from winnow.formats.parquet import ParquetFiles
from winnow.layout import BOOTSTRAP
from winnow.loop import Loop, parse
from winnow.models.predictions import Predictions
from winnow.ports import (
    Answer,
    DeploymentAlarm,
    EndpointState,
    LabelingJob,
    LabelingOutcome,
    Ports,
    QueueState,
    Rollout,
    TrainingState,
)
from winnow.records import PoolObject

EPOCH = datetime(2026, 1, 5, 9, 0, tzinfo=UTC)
"""Where every fake clock starts: a Monday morning."""

Fault = Literal["before", "after", "lost", "busy"]
FAULTS: tuple[Fault, ...] = ("before", "after", "lost", "busy")


class CrashError(Exception):
    """The process died at this call; nothing after it ran."""


@dataclass(frozen=True)
class Call:
    """One port call, e.g. `Call("data", "put", ("k", b"v"), {})`."""

    port: str
    method: str
    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]

    def __str__(self) -> str:
        return f"{self.port}.{self.method}"


@dataclass
class Journal:
    """Every port call in order, and which of them fail.

    `before`: the process dies and nothing happened. `after`: the call commits, then the process dies. `lost`: the call
    commits, its reply is lost and the adapter's client sends it again. `busy`: the service throttles (Retryable).
    """

    calls: list[Call] = field(default_factory=list)
    faults: dict[int, Fault] = field(default_factory=dict)

    def fail(self, number: int, fault: Fault) -> None:
        """Call `number` (0 is the next one recorded from now on) goes wrong, once."""
        self.faults[len(self.calls) + number] = fault

    def of(self, port: str, method: str | None = None) -> list[Call]:
        return [call for call in self.calls if call.port == port and method in (None, call.method)]

    def perform(self, call: Call, action: Callable[[], Any]) -> Any:
        fault = self.faults.pop(len(self.calls), None)
        self.calls.append(call)
        if fault == "before":
            raise CrashError(f"{call} before")
        if fault == "busy":
            raise Retryable(f"{call}: throttled")
        answer = action()
        if fault == "after":
            raise CrashError(f"{call} after")
        return action() if fault == "lost" else answer


class Recorded:
    """A fake whose port methods go through the journal; its other attributes are reached directly."""

    def __init__(self, fake: Any, port: str, protocol: type, journal: Journal) -> None:
        self._fake, self._port, self._journal = fake, port, journal
        self._methods = {name for name in vars(protocol) if not name.startswith("_")}

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):  # a copy in the making asks before it has a fake
            raise AttributeError(name)
        attribute = getattr(self._fake, name)
        if name not in self._methods or not callable(attribute):
            return attribute

        def recorded(*args: Any, **kwargs: Any) -> Any:
            call = Call(self._port, name, copy.deepcopy(args), copy.deepcopy(kwargs))
            return self._journal.perform(call, lambda: attribute(*args, **kwargs))

        return recorded


class FakeClock:
    def __init__(self, at: datetime = EPOCH) -> None:
        self.at = at

    def now(self) -> datetime:
        return self.at

    def advance(self, *, seconds: float = 0, minutes: float = 0, hours: float = 0, days: float = 0) -> None:
        self.at += timedelta(seconds=seconds, minutes=minutes, hours=hours, days=days)


class MemoryStore:
    """The data bucket. Tags are digests of the content, as S3's are."""

    def __init__(self, bucket: str = "winnow-data-000000000000-eu-west-1") -> None:
        self.bucket = bucket
        self.objects: dict[str, bytes] = {}

    def get(self, key: str) -> bytes:
        return self.get_tagged(key)[0]

    def get_tagged(self, key: str) -> tuple[bytes, str]:
        if key not in self.objects:
            raise NotFound(f"s3://{self.bucket}/{key} does not exist")
        return self.objects[key], self._tag(self.objects[key])

    def put(self, key: str, body: bytes) -> None:
        assert isinstance(body, bytes), f"{key}: a body is bytes, not {type(body)}"
        self.objects[key] = body

    def put_new(self, key: str, body: bytes) -> bool:
        assert isinstance(body, bytes), f"{key}: a body is bytes, not {type(body)}"
        return self.objects.setdefault(key, body) == body

    def replace(self, key: str, body: bytes, *, tag: str | None) -> str:
        stored = self.objects.get(key)
        if stored != body and (None if stored is None else self._tag(stored)) != tag:
            raise Conflict(f"s3://{self.bucket}/{key} changed since it was read")
        self.objects[key] = body
        return self._tag(body)

    def exists(self, key: str) -> bool:
        return key in self.objects

    def list(self, prefix: str) -> Iterator[str]:
        return iter(sorted((key for key in self.objects if key.startswith(prefix)), key=lambda key: key.encode()))

    def delete(self, keys: Sequence[str]) -> None:
        for key in keys:
            self.objects.pop(key, None)

    def uri(self, key: str) -> str:
        return f"s3://{self.bucket}/{key}"

    def key_of(self, uri: str) -> str:
        prefix = f"s3://{self.bucket}/"
        if not uri.startswith(prefix):
            raise BadInput(f"{uri} is not in s3://{self.bucket}", code="foreign-uri")
        return uri.removeprefix(prefix)

    def json(self, key: str) -> Any:
        """Test aid: the parsed artifact."""
        return json.loads(self.objects[key])

    @staticmethod
    def _tag(body: bytes) -> str:
        return f'"{hashlib.md5(body, usedforsecurity=False).hexdigest()}"'


class MemoryPool:
    """The pool bucket, versioned. `drop` is the user; it returns the object as its event would name it."""

    def __init__(self, bucket: str = "winnow-pool-000000000000-eu-west-1") -> None:
        self.bucket = bucket
        self.versions: dict[tuple[str, str], bytes] = {}
        self.newest: dict[str, PoolObject] = {}

    def drop(self, key: str, body: bytes) -> PoolObject:
        number = len(self.versions) + 1
        item = PoolObject(self.bucket, key, version=f"v{number}", sequencer=f"{number:016X}", size=len(body))
        self.versions[key, item.version] = body
        self.newest[key] = item
        return item

    def read(self, item: PoolObject, *, limit: int) -> bytes:
        if (item.key, item.version) not in self.versions:
            raise NotFound(f"s3://{item.bucket}/{item.key} has no version {item.version}")
        body = self.versions[item.key, item.version]
        if len(body) > limit:
            raise BadInput(f"{item.key} has {len(body)} bytes, more than {limit}", code="oversized")
        return body

    def current(self, key: str) -> PoolObject | None:
        found = self.newest.get(key)
        return found and replace(found, sequencer="")

    def list(self) -> Iterator[PoolObject]:
        return iter([replace(self.newest[key], sequencer="") for key in sorted(self.newest)])


class MemoryTable:
    """The table. What is stored is JSON (floats and ints stay apart); items come back with their `pk` and `sk`."""

    def __init__(self) -> None:
        self.items: dict[tuple[str, str], dict[str, Any]] = {}

    def get(self, pk: str, sk: str) -> dict[str, Any] | None:
        stored = self.items.get((pk, sk))
        return None if stored is None else self._out(pk, sk, stored)

    def query(self, pk: str, *, prefix: str = "") -> list[dict[str, Any]]:
        keys = sorted(key for key in self.items if key[0] == pk and key[1].startswith(prefix))
        return [self._out(*key, self.items[key]) for key in keys]

    def put(self, pk: str, sk: str, item: Mapping[str, Any]) -> None:
        self.items[pk, sk] = self._in(pk, sk, item)

    def put_new(self, pk: str, sk: str, item: Mapping[str, Any]) -> dict[str, Any] | None:
        wanted = self._in(pk, sk, item)
        stored = self.items.setdefault((pk, sk), wanted)
        return None if stored == wanted else self._out(pk, sk, stored)

    def put_new_many(self, pk_sk_items: Sequence[tuple[str, str, Mapping[str, Any]]]) -> list[dict[str, Any] | None]:
        return [self.put_new(*each) for each in pk_sk_items]

    def replace(self, pk: str, sk: str, item: Mapping[str, Any], *, expected: Mapping[str, Any] | None) -> None:
        wanted, stored = self._in(pk, sk, item), self.items.get((pk, sk))
        if stored != wanted and not self._holds(stored, expected):
            raise Conflict(f"{pk}/{sk} is {stored}, not {expected}")
        self.items[pk, sk] = wanted

    def delete(self, pk: str, sk: str, *, expected: Mapping[str, Any] | None = None) -> bool:
        stored = self.items.get((pk, sk))
        if stored is not None and expected is not None and not self._holds(stored, expected):
            return False
        self.items.pop((pk, sk), None)
        return True

    def acquire_lease(self, name: str, owner: str, *, now: datetime, seconds: int) -> bool:
        held = self.items.get(("LEASE", name))
        if held is not None and held["owner"] != owner and held["until"] > now.timestamp():
            return False
        self.items["LEASE", name] = {"owner": owner, "until": now.timestamp() + seconds}
        return True

    def release_lease(self, name: str, owner: str) -> None:
        if self.items.get(("LEASE", name), {}).get("owner") == owner:
            del self.items["LEASE", name]

    @staticmethod
    def _in(pk: str, sk: str, item: Mapping[str, Any]) -> dict[str, Any]:
        assert "" not in (pk, sk), "both key parts must be non-empty strings"
        stored: dict[str, Any] = json.loads(json.dumps({k: v for k, v in item.items() if k not in ("pk", "sk")}))
        assert len(json.dumps(stored)) < 400_000, f"{pk}/{sk} is above DynamoDB's 400 KB"
        return stored

    @staticmethod
    def _out(pk: str, sk: str, stored: Mapping[str, Any]) -> dict[str, Any]:
        return {"pk": pk, "sk": sk, **copy.deepcopy(dict(stored))}

    @staticmethod
    def _holds(stored: Mapping[str, Any] | None, expected: Mapping[str, Any] | None) -> bool:
        if stored is None or expected is None:
            return stored is None and expected is None
        return all(name in stored and stored[name] == value for name, value in expected.items())


class MemoryQueues:
    """`sent[queue]` holds every body; set `depth[queue]` to say what `state` answers."""

    def __init__(self) -> None:
        self.sent: dict[str, list[dict[str, Any]]] = {name: [] for name in _QUEUES}
        self.depth: dict[str, QueueState] = {}

    def send(self, queue: str, bodies: Sequence[Mapping[str, Any]]) -> None:
        for body in bodies:
            text = json.dumps(body)
            assert len(text.encode()) <= 256 * 1024, f"a message of {len(text)} bytes does not fit"
            self.sent[queue].append(json.loads(text))

    def state(self, queue: str) -> QueueState:
        assert queue in self.sent, f"there is no queue {queue}"
        return self.depth.get(queue, QueueState(0, 0, 0))


_QUEUES = ("ingest", "score", "candidates", "collect", "capture")


class FakeLabeling:
    """A labeling backend; `finish` ends a job with results and answers."""

    def __init__(self, *, teams: Sequence[str] = ("crowd", "expert")) -> None:
        self.teams = set(teams)
        self.jobs: dict[str, LabelingJob] = {}
        self.outcomes: dict[str, LabelingOutcome] = {}

    def has_team(self, team: str) -> bool:
        return team in self.teams

    def submit(self, job: LabelingJob) -> None:
        assert self.jobs.setdefault(job.name, job) == job, f"job {job.name} exists with other content"
        self.outcomes.setdefault(job.name, LabelingOutcome("running", 0, 0))

    def describe(self, name: str) -> LabelingOutcome | None:
        found = self.outcomes.get(name)
        return found and replace(found, results={}, answers={})

    def outcome(self, name: str) -> LabelingOutcome:
        if name not in self.outcomes:
            raise NotFound(f"labeling job {name} does not exist")
        return self.outcomes[name]

    def stop(self, name: str) -> None:
        if name in self.outcomes and self.outcomes[name].status == "running":
            self.outcomes[name] = replace(self.outcomes[name], status="stopped")

    def finish(
        self,
        name: str,
        *,
        results: Mapping[str, Mapping[str, Any]],
        answers: Mapping[str, Sequence[Answer]],
        status: Literal["completed", "failed", "stopped"] = "completed",
        total: int | None = None,
    ) -> None:
        total = len(results) if total is None else total
        self.outcomes[name] = LabelingOutcome(status, len(results), total, results=results, answers=answers)


class FakeTraining:
    """Training jobs by model id; put a `TrainingState` into `jobs` to say how one stands."""

    def __init__(self, bucket: str = "winnow-data-000000000000-eu-west-1") -> None:
        self.bucket = bucket
        self.jobs: dict[str, TrainingState] = {}

    def request(self, model: str, *, dataset: str, seed: int) -> dict[str, Any]:
        return {
            "TrainingJobName": f"winnow-{model}",
            "HyperParameters": {"seed": str(seed)},
            "InputDataConfig": [
                {"ChannelName": "train", "S3Uri": f"s3://{self.bucket}/datasets/{dataset}/train/"},
                {"ChannelName": "spec", "S3Uri": f"s3://{self.bucket}/training/{model}/spec/"},
            ],
        }

    def describe(self, model: str) -> TrainingState | None:
        return self.jobs.get(model)

    def artifact(self, model: str) -> str:
        return f"s3://{self.bucket}/training-output/winnow-{model}/output/model.tar.gz"

    def complete(self, model: str) -> str:
        """The job ran; returns its artifact's URI."""
        self.jobs[model] = TrainingState("completed", self.artifact(model), billable_seconds=60)
        return self.artifact(model)


class FakeServing:
    """An endpoint. `finish`, `roll_back` and `fail` end the operation under way, as SageMaker would."""

    def __init__(self, *, enabled: bool = True) -> None:
        self.is_enabled = enabled
        self.endpoint: EndpointState | None = None
        self.target: str | None = None
        self.configs: dict[str, str] = {}
        self.rollouts: list[tuple[str, Rollout | None]] = []

    def enabled(self) -> bool:
        return self.is_enabled

    def state(self) -> EndpointState | None:
        return self.endpoint

    def prepare(self, model: str, *, artifact: str) -> None:
        self.configs.setdefault(model, artifact)

    def create(self, model: str) -> None:
        assert model in self.configs, "create before prepare"
        if self.endpoint is None:
            self.endpoint, self.target = EndpointState("Creating", model), model
            self.rollouts.append((model, None))

    def update(self, model: str, *, rollout: Rollout) -> None:
        assert model in self.configs, "update before prepare"
        assert self.endpoint is not None, "update before create"
        if self.endpoint.status != "InService":
            if self.target == model:
                return
            raise Retryable("the endpoint is being updated; wait for InService")
        if self.endpoint.model != model:
            self.endpoint, self.target = replace(self.endpoint, status="Updating", failure=None), model
            self.rollouts.append((model, rollout))

    def retire(self, model: str) -> None:
        assert self.endpoint is None or self.endpoint.model != model, f"{model} still serves"
        self.configs.pop(model, None)

    def finish(self) -> None:
        self.endpoint, self.target = EndpointState("InService", self.target), None

    def roll_back(self, failure: str) -> None:
        assert self.endpoint is not None
        self.endpoint, self.target = EndpointState("InService", self.endpoint.model, failure), None

    def fail(self, failure: str, status: str = "Failed") -> None:
        assert self.endpoint is not None
        self.endpoint, self.target = EndpointState(status, self.endpoint.model, failure), None


class FakeRegistry:
    def __init__(self) -> None:
        self.packages: dict[str, dict[str, Any]] = {}

    def register(self, model: str, *, artifact: str, report_key: str, properties: Mapping[str, str]) -> str:
        package = {
            "arn": f"arn:aws:sagemaker:eu-west-1:000000000000:model-package/winnow/{len(self.packages) + 1}",
            "artifact": artifact, "report_key": report_key, "properties": dict(properties),
            "status": "PendingManualApproval", "reason": "",
        }  # fmt: skip
        return str(self.packages.setdefault(model, package)["arn"])

    def decide(self, model: str, *, approved: bool, reason: str) -> None:
        if model not in self.packages:
            raise NotFound(f"model package of {model} is not registered")
        self.packages[model].update(status="Approved" if approved else "Rejected", reason=reason)


class FakeAlarms:
    """Alarms of deployments. `trip` is what CloudWatch does when a metric breaches."""

    def __init__(self) -> None:
        self.alarms: dict[str, DeploymentAlarm] = {}
        self.current: dict[str, str] = {}

    def put(self, model: str, alarms: Sequence[DeploymentAlarm]) -> tuple[str, ...]:
        names = tuple(f"winnow-{model}-{alarm.suffix}" for alarm in alarms)
        for name, alarm in zip(names, alarms, strict=True):
            self.alarms[name] = alarm
            self.current.setdefault(name, "OK")
        return names

    def states(self, names: Sequence[str]) -> Mapping[str, str]:
        return {name: self.current[name] for name in names if name in self.current}

    def remove(self, model: str) -> None:
        for name in [name for name in self.alarms if name.startswith(f"winnow-{model}-")]:
            del self.alarms[name], self.current[name]

    def trip(self, name: str) -> None:
        assert name in self.alarms, f"there is no alarm {name}"
        self.current[name] = "ALARM"


class FakeExecutions:
    """State machines that never run by themselves; `end` says how an execution ended."""

    def __init__(self) -> None:
        self.started: dict[tuple[str, str], dict[str, Any]] = {}
        self.statuses: dict[tuple[str, str], str] = {}

    def start(self, machine: str, name: str, body: Mapping[str, Any]) -> bool:
        assert machine in ("improve", "rescore"), f"there is no state machine {machine}"
        assert 0 < len(name) <= 80, f"{name!r} is no execution name"
        if (machine, name) in self.started:
            return False
        self.started[machine, name] = json.loads(json.dumps(dict(body)))
        self.statuses[machine, name] = "RUNNING"
        return True

    def status(self, machine: str, name: str) -> str | None:
        return self.statuses.get((machine, name))

    def running(self, machine: str) -> list[str]:
        return [name for (kind, name), status in self.statuses.items() if kind == machine and status == "RUNNING"]

    def stop(self, machine: str, name: str, *, cause: str) -> None:
        if self.statuses.get((machine, name)) == "RUNNING":
            self.statuses[machine, name] = "ABORTED"

    def end(self, machine: str, name: str, status: str = "SUCCEEDED") -> None:
        assert (machine, name) in self.started, f"{machine} {name} was never started"
        self.statuses[machine, name] = status


Predict = Callable[[Sequence[Mapping[str, Any]]], Predictions]


@dataclass(frozen=True)
class FakeModel:
    """A model that is a function of payloads."""

    card: Any
    predict: Predict


class FakeModels:
    """Published models. `add` publishes one; `offer` says what `publish` finds in an artifact (a model or an error)."""

    def __init__(self) -> None:
        self.models: dict[str, FakeModel] = {}
        self.arms: dict[tuple[str, str], FakeModel] = {}
        self.artifacts: dict[str, FakeModel | BadInput] = {}

    def load(self, model: str, *, classes: tuple[str, ...] = ()) -> FakeModel:
        if model not in self.models:
            raise NotFound(f"model {model} is not published")
        return self.models[model]

    def load_arm(self, model: str, arm: str) -> FakeModel | None:
        return self.arms.get((model, arm))

    def publish(self, model: str, *, artifact: str) -> Any:
        found = self.artifacts.get(artifact)
        if found is None:
            raise NotFound(f"{artifact} does not exist")
        if isinstance(found, BadInput):
            raise found
        self.models[model] = found
        return found.card

    def add(self, model: str, fake: FakeModel, *, arms: Mapping[str, FakeModel] | None = None) -> None:
        self.models[model] = fake
        for arm, fit in (arms or {}).items():
            self.arms[model, arm] = fit

    def offer(self, artifact: str, fake: FakeModel | BadInput) -> None:
        self.artifacts[artifact] = fake


def bootstrap_id(loop: Loop) -> str:
    """Id of the champion before the first promotion."""
    return f"{BOOTSTRAP}-{loop.task.kind}"


@dataclass(frozen=True)
class FakePorts(Ports):
    """Ports whose attributes are fakes, plus the journal of their calls."""

    journal: Journal = field(default_factory=Journal)


def make_ports(*, loop: Loop | str | None = None, stack: str = "winnow", **overrides: Any) -> Any:
    """A whole world in memory. `overrides` replaces single fakes by port name; `loop` is a Loop or its YAML.

    Typed Any so that tests reach the test aids of the fakes (`ports.data.objects`, `ports.serving.finish()`, ...).
    """
    journal = Journal()
    fakes: dict[str, Any] = {
        "clock": FakeClock(), "data": MemoryStore(), "pool": MemoryPool(), "table": MemoryTable(),
        "queues": MemoryQueues(),
        "labeling": FakeLabeling(), "training": FakeTraining(), "serving": FakeServing(), "registry": FakeRegistry(),
        "alarms": FakeAlarms(), "executions": FakeExecutions(), "models": FakeModels(),
        "images": PillowImages(), "parquet": ParquetFiles(),
    }  # fmt: skip
    unknown = sorted(set(overrides) - set(fakes))
    assert not unknown, f"no such ports: {unknown}"
    wrapped = {
        name: Recorded(overrides.get(name, fake), name, _PROTOCOLS[name], journal) for name, fake in fakes.items()
    }
    parsed = loop if isinstance(loop, Loop) else parse(loop or "")
    return FakePorts(stack=stack, loop=parsed, journal=journal, **wrapped)


_PROTOCOLS: Mapping[str, type] = {
    "clock": protocols.Clock, "data": protocols.ObjectStore, "pool": protocols.Pool, "table": protocols.Table,
    "queues": protocols.Queues, "labeling": protocols.LabelingBackend, "training": protocols.Training,
    "serving": protocols.Serving, "registry": protocols.Registry, "alarms": protocols.Alarms,
    "executions": protocols.Executions, "models": protocols.Models,
    "images": protocols.Images, "parquet": protocols.Parquet,
}  # fmt: skip


def every_fault(
    build: Callable[[], Any],
    act: Callable[[Any], Any],
    *,
    faults: Sequence[Fault] = FAULTS,
    skip: Sequence[str] = ("clock.now",),
) -> Iterator[tuple[str, Any]]:
    """(what went wrong, the world after the action was run again) for every port call of `act` and every fault.

    `build` makes a fresh world, `act(ports)` is the step. After the fault the whole action runs again, as its queue or
    state machine would do it; the caller asserts that the world is the one an undisturbed run leaves.
    """
    rehearsal = build()
    start = len(rehearsal.journal.calls)
    act(rehearsal)
    calls = rehearsal.journal.calls[start:]
    for number, call in enumerate(calls):
        if str(call) in skip:
            continue
        for fault in faults:
            ports = build()
            ports.journal.fail(number, fault)
            with suppress(CrashError, Retryable):
                act(ports)
            act(ports)
            assert not ports.journal.faults, f"{fault} at {call} was never reached"
            yield f"{fault} at call {number} {call}", ports
