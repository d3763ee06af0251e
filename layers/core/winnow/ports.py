"""What the steps need from the world, as Protocols. `winnow.aws` implements them on AWS; tests use fakes that record.

Every call here may be repeated: adapters make repeats harmless (a name that exists with the same content is success,
a lost reply is read back), and steps rely on it.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal, Protocol

import numpy as np
import numpy.typing as npt

from winnow.loop import Loop
from winnow.models.package import ModelCard
from winnow.models.predictions import Predictions
from winnow.records import PoolObject
from winnow.tables import Sheet

QueueName = Literal["ingest", "score", "candidates", "collect", "capture"]
MachineName = Literal["improve", "rescore"]
JsonDict = dict[str, Any]


class Clock(Protocol):
    """Where time comes from."""

    def now(self) -> datetime:
        """The current time, with its zone (UTC)."""


class ObjectStore(Protocol):
    """Our own data bucket: immutable artifacts, plus the two pointers that change by compare-and-set."""

    def get(self, key: str) -> bytes:
        """The object's bytes. Raises NotFound."""

    def get_tagged(self, key: str) -> tuple[bytes, str]:
        """The object's bytes and its version tag, for `replace`. Raises NotFound."""

    def put(self, key: str, body: bytes) -> None:
        """Write; overwriting is harmless because the name derives from the content."""

    def put_new(self, key: str, body: bytes) -> bool:
        """Write unless the key exists. True when the key now holds `body` (also by an earlier try), else False."""

    def replace(self, key: str, body: bytes, *, tag: str | None) -> str:
        """Compare-and-set against `tag` (None: must not exist); returns the new tag. Raises Conflict."""

    def exists(self, key: str) -> bool: ...

    def list(self, prefix: str) -> Iterator[str]:
        """Keys under `prefix`, in UTF-8 order."""

    def delete(self, keys: Sequence[str]) -> None: ...

    def uri(self, key: str) -> str:
        """`s3://bucket/key`."""

    def key_of(self, uri: str) -> str:
        """The key of one of our own URIs. Raises BadInput for another bucket's."""


class Pool(Protocol):
    """The bucket users drop objects into; we only read."""

    def read(self, item: PoolObject, *, limit: int) -> bytes:
        """The bytes of exactly this version. Raises NotFound, or BadInput(code="oversized") beyond `limit` bytes."""

    def current(self, key: str) -> PoolObject | None:
        """The newest version of a key (its `sequencer` is empty: only events carry it), or None."""

    def list(self) -> Iterator[PoolObject]:
        """The newest version of every key (`sequencer` empty)."""


class Table(Protocol):
    """Small facts with one owner each, under (partition, sort) keys. Values are JSON-like; numbers come back as int or float."""

    def get(self, pk: str, sk: str) -> JsonDict | None: ...

    def query(self, pk: str, *, prefix: str = "") -> list[JsonDict]:
        """Items of a partition whose sort key begins with `prefix`, in sort order (consistent read)."""

    def put(self, pk: str, sk: str, item: Mapping[str, Any]) -> None: ...

    def put_new(self, pk: str, sk: str, item: Mapping[str, Any]) -> JsonDict | None:
        """Write unless present. None when the stored item now equals `item` (also by an earlier try), else what is there."""

    def put_new_many(self, pk_sk_items: Sequence[tuple[str, str, Mapping[str, Any]]]) -> list[JsonDict | None]:
        """`put_new` for many, in parallel; answers in order."""

    def replace(self, pk: str, sk: str, item: Mapping[str, Any], *, expected: Mapping[str, Any] | None) -> None:
        """Write when the stored attributes named in `expected` equal it (None: must not exist). Raises Conflict."""

    def delete(self, pk: str, sk: str, *, expected: Mapping[str, Any] | None = None) -> bool:
        """Delete (only while `expected` holds). False when the condition failed."""

    def acquire_lease(self, name: str, owner: str, *, now: datetime, seconds: int) -> bool:
        """Take or renew the lease `name`; False while another owner's has not expired."""

    def release_lease(self, name: str, owner: str) -> None: ...


@dataclass(frozen=True)
class QueueState:
    """Depth of a queue and of its dead-letter queue."""

    visible: int
    in_flight: int
    dead: int


class Queues(Protocol):
    def send(self, queue: QueueName, bodies: Sequence[Mapping[str, Any]]) -> None:
        """One message a body, each at most 256 KB of JSON. At least once."""

    def state(self, queue: QueueName) -> QueueState: ...


@dataclass(frozen=True)
class Answer:
    """One annotator's answer to one item. `worker` is a pseudonym (keyed hash), never the backend's own id.

    `label` is a class, or what was written where a number was asked for.
    """

    worker: str
    label: str | None
    seconds: float
    submitted_at: str


@dataclass(frozen=True)
class LabelingJob:
    """What a labeling backend is asked to do. Lines of the manifest carry `candidate_id`.

    `kind` names the form that annotators see: `text`, `image` or `table` to choose a class of, `number` for a row whose
    answer is a number.
    """

    name: str
    manifest_key: str
    kind: str
    team: Literal["crowd", "expert"]
    workers_per_item: int
    title: str
    guideline: str
    classes: tuple[str, ...]
    task_seconds: int
    lifetime_seconds: int


@dataclass(frozen=True)
class LabelingOutcome:
    """How a job stands. `results` and `answers` are keyed by candidate id and empty until it ended."""

    status: Literal["running", "completed", "failed", "stopped"]
    labeled: int
    total: int
    failure: str | None = None
    results: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """candidate id → {"label", "confidence"}, the label a class or a number; an item nobody answered is absent."""
    answers: Mapping[str, Sequence[Answer]] = field(default_factory=dict)


class LabelingBackend(Protocol):
    """Ground Truth, or any other that leaves the same artifacts."""

    def has_team(self, team: Literal["crowd", "expert"]) -> bool:
        """Whether such a work team is configured."""

    def submit(self, job: LabelingJob) -> None:
        """Create the job; a job of this name that exists already is success. Raises ConfigError, Retryable."""

    def describe(self, name: str) -> LabelingOutcome | None:
        """Status and counters only; None when there is no such job."""

    def outcome(self, name: str) -> LabelingOutcome:
        """Status with results and every answer. Raises NotFound."""

    def stop(self, name: str) -> None: ...


@dataclass(frozen=True)
class TrainingState:
    status: Literal["running", "completed", "failed", "stopped"]
    artifact: str | None
    """s3 URI of model.tar.gz once completed."""
    failure: str | None = None
    billable_seconds: int = 0


class Training(Protocol):
    def request(self, model: str, *, dataset: str, seed: int) -> JsonDict:
        """The complete CreateTrainingJob request for this model: names, role, image, channels, limits.

        Uploads the training source archive when its digest is not in the bucket yet. Raises ConfigError.
        """

    def describe(self, model: str) -> TrainingState | None: ...


@dataclass(frozen=True)
class EndpointState:
    status: str
    """As the API spells it: Creating, Updating, InService, RollingBack, Failed, ..."""
    model: str | None
    """Id of the model whose config serves (during an update still the old one)."""
    failure: str | None = None
    pending: str | None = None
    """Id of the model that an update under way moves to."""


@dataclass(frozen=True)
class Rollout:
    """How traffic moves to the challenger, from loop.yaml's rollout policy."""

    canary_percent: int
    wait_seconds: int
    termination_wait_seconds: int
    alarms: tuple[str, ...]


class Serving(Protocol):
    def enabled(self) -> bool:
        """False when the stack was deployed without an endpoint."""

    def state(self) -> EndpointState | None:
        """None before the first deployment."""

    def prepare(self, model: str, *, artifact: str) -> None:
        """Create the SageMaker model and endpoint config of this id; existing ones are success."""

    def create(self, model: str) -> None: ...

    def update(self, model: str, *, rollout: Rollout) -> None:
        """Start the blue/green update. Raises Retryable while another update runs."""

    def retire(self, model: str) -> None:
        """Delete the config and model of an id that no longer serves; absent ones are success."""


class Registry(Protocol):
    def register(self, model: str, *, artifact: str, report_key: str, properties: Mapping[str, str]) -> str:
        """Register in the model package group (pending approval); returns the package ARN; repeats return the same."""

    def decide(self, model: str, *, approved: bool, reason: str) -> None: ...


@dataclass(frozen=True)
class DeploymentAlarm:
    """An alarm of one deployment, on a metric carrying the new config's dimension."""

    suffix: str
    namespace: str
    metric: str
    dimensions: Mapping[str, str]
    statistic: str
    threshold: float
    comparison: Literal["GreaterThanThreshold", "LessThanThreshold"]
    period: int
    evaluation_periods: int
    datapoints_to_alarm: int
    description: str
    min_samples: int = 1
    """A period with fewer values than this does not count as breaching."""


class Alarms(Protocol):
    def put(self, model: str, alarms: Sequence[DeploymentAlarm]) -> tuple[str, ...]:
        """Create or update; returns their names `{stack}-{model}-{suffix}`."""

    def states(self, names: Sequence[str]) -> Mapping[str, str]: ...

    def remove(self, model: str) -> None:
        """Delete every alarm of this deployment."""


class Executions(Protocol):
    def start(self, machine: MachineName, name: str, body: Mapping[str, Any]) -> bool:
        """Start under a derived name; False when an execution of that name exists (running or ended)."""

    def status(self, machine: MachineName, name: str) -> str | None:
        """RUNNING, SUCCEEDED, FAILED, TIMED_OUT, ABORTED; None when there is none of that name."""

    def running(self, machine: MachineName) -> list[str]: ...

    def stop(self, machine: MachineName, name: str, *, cause: str) -> None: ...


class Model(Protocol):
    @property
    def card(self) -> ModelCard: ...

    def predict(
        self, payloads: Sequence[Mapping[str, Any]], *, embeddings: npt.NDArray[np.float32] | None = None
    ) -> Predictions:
        """Payloads as `Record.payload()` gives them. Raises BadInput for one that cannot be read.

        `embeddings` (n, E) are what `encode` gave for them before, of a model with an encoder.
        """

    def encode(self, payloads: Sequence[Mapping[str, Any]]) -> npt.NDArray[np.float32]:
        """What the encoder of the model's card makes of the payloads, (n, E): the costly part of `predict`."""


class Models(Protocol):
    """Published model packages, by id; loading verifies every digest of `model.json`."""

    def load(self, model: str, *, classes: tuple[str, ...] = ()) -> Model:
        """A published model, a shipped bootstrap model, or one on an imported encoder. Raises NotFound, BadModel.

        `classes` are what a bootstrap model is uniform over; a published package brings its own.
        """

    def load_arm(self, model: str, arm: Literal["active", "control"]) -> Model | None:
        """The comparison fit published beside a model, or None."""

    def publish(self, model: str, *, artifact: str) -> ModelCard:
        """Unpack the training artifact (untrusted: child process, time and memory budget), validate and publish it.

        Files first, `model.json` last, so a package is complete or absent. Raises BadModel.
        """


@dataclass(frozen=True, eq=False)
class CanonicalImage:
    """A decoded image in the form every hop sees."""

    png: bytes
    width: int
    height: int
    pixels: npt.NDArray[np.uint8]
    """(height, width) grey or (height, width, 3) RGB; content is identified by these."""
    grey: npt.NDArray[np.uint8]
    """(height, width)."""


class Images(Protocol):
    def canonical(self, data: bytes, *, side: int, megapixels: int) -> CanonicalImage:
        """Decode PNG or JPEG, upright, longest side at most `side`, metadata gone. Raises BadInput."""


class Parquet(Protocol):
    def sheet(self, data: bytes, *, key: str, wanted: Collection[str] | None, most: int, limit: int) -> Sheet:
        """Header and records of a Parquet file that nobody trusts: its `wanted` columns, or all.

        `most` is how many columns it may have, `limit` how many bytes its records may make. Cells are JSON's values; the
        column `image` gives bytes. Raises BadInput.
        """


@dataclass(frozen=True)
class Ports:
    """Everything a step may touch, handed to it whole."""

    stack: str
    clock: Clock
    data: ObjectStore
    pool: Pool
    table: Table
    queues: Queues
    labeling: LabelingBackend
    training: Training
    serving: Serving
    registry: Registry
    alarms: Alarms
    executions: Executions
    models: Models
    images: Images
    parquet: Parquet
    loop: Loop
