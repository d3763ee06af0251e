"""Hop 11: what should have happened, compared with what did, and brought home by running the hop again.

Each check is a row of `CHECKS`: what it finds wrong, how long to wait for a late event, and how it repairs. A repair is a
message to the hop's own queue or an execution of its state machine, never the hop's work done here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from winnow import layout
from winnow.metrics import Metric
from winnow.ports import JsonDict, Ports, QueueName
from winnow.records import PoolObject
from winnow.steps import Outcome, deployment, pointers
from winnow.steps.accounting import pending_objects
from winnow.steps.import_labels import PARTITION
from winnow.steps.plan_training import ATTEMPTS, model_of
from winnow.steps.pointers import Champion
from winnow.steps.suspects import Suspects

MAX_A_RUN = 500
"""Repairs of a kind in one run, so that the run ends within its function's time; the next run goes on."""

REPAIR_EXECUTIONS = 3
"""Executions of `improve` that a dataset version gets on top of the first."""

OVERDUE = timedelta(hours=24)
"""How long after the end of its lifetime a labeling job may still be settling."""

ENDED_WELL = "SUCCEEDED"


@dataclass(frozen=True)
class World:
    """What every check looks at, read once a run."""

    ports: Ports
    champion: Champion
    head: str | None
    batches: Sequence[JsonDict]


@dataclass(frozen=True)
class Finding:
    """One thing that is wrong: its name within its kind, and what the repair needs; None when only a person can help."""

    name: str
    subject: Any


@dataclass(frozen=True)
class Check:
    """One way for the loop to be stuck. `repair` gets what has been wrong for `grace`."""

    find: Callable[[World], Iterable[Finding]]
    repair: Callable[[Sequence[Finding], World], None]
    says: str
    """The repair, for people."""
    grace: timedelta = timedelta(minutes=15)


def reconcile(request: Mapping[str, Any], ports: Ports) -> Outcome:
    """One look at everything: the body lists the `repairs` made and what needs `attention`. Nothing in the request matters.

    What a run repairs was already wrong in an earlier one, so a late event is not mistaken for a lost one.
    """
    champion, _ = pointers.champion(ports)
    head, _ = pointers.head(ports.data)
    world = World(ports, champion, head, ports.table.query("BATCH"))
    suspects = Suspects(ports)
    repairs: list[JsonDict] = []
    attention: list[JsonDict] = []
    metrics: list[Metric] = []
    for kind, check in CHECKS.items():
        due = [finding for finding in check.find(world) if suspects.due(kind, finding.name, grace=check.grace)]
        repairable = [finding for finding in due if finding.subject is not None][:MAX_A_RUN]
        if repairable:
            check.repair(repairable, world)
            metrics.append(Metric("Repairs", len(repairable), {"Kind": kind}))
        for finding in repairable:
            suspects.repaired(kind, finding.name)
            repairs.append({"kind": kind, "name": finding.name, "repair": check.says})
        helpless = {finding.name for finding in due if finding.subject is None} | set(suspects.hopeless(kind))
        attention += [{"kind": kind, "name": name} for name in sorted(helpless)]
    suspects.close()
    return Outcome({"repairs": repairs, "attention": attention}, tuple(metrics))


# Objects that were dropped and never ingested


def _not_ingested(world: World) -> Iterator[Finding]:
    for item in pending_objects(world.ports):
        yield Finding(layout.object_id(item), item)


def _ingest(findings: Sequence[Finding], world: World) -> None:
    world.ports.queues.send("ingest", [created(finding.subject) for finding in findings])


def created(item: PoolObject) -> JsonDict:
    """The event S3 would have sent, without a sequencer: only S3 knows that."""
    thing: JsonDict = {"key": item.key, "size": item.size}
    if item.version:
        thing["version-id"] = item.version
    return {
        "version": "0", "source": "winnow.reconcile", "detail-type": "Object Created",
        "resources": [f"arn:aws:s3:::{item.bucket}"],
        "detail": {"version": "0", "bucket": {"name": item.bucket}, "object": thing, "reason": "Reconcile"},
    }  # fmt: skip


# Captured requests that nobody read


def _not_watched(world: World) -> Iterator[Finding]:
    data = world.ports.data
    done = {*data.list(layout.PRODUCTION), *data.list(layout.QUARANTINE)}
    for key in data.list(layout.CAPTURE):
        name = layout.captured(key)
        if done.isdisjoint((layout.production(name), layout.quarantine(name))):
            yield Finding(name, key)


def _watch(findings: Sequence[Finding], world: World) -> None:
    _resend("capture", findings, world)


# Labels that came with records and did not become a dataset version


def _not_imported(world: World) -> Iterator[Finding]:
    done = {item["sk"] for item in world.ports.table.query(PARTITION)}
    for key in world.ports.data.list(layout.IMPORTS):
        oid = layout.oid_of_import(key)
        if layout.import_batch(oid) not in done:
            yield Finding(oid, key)


def _import(findings: Sequence[Finding], world: World) -> None:
    _resend("collect", findings, world)


# Records the champion has not scored


def unscored(champion: str, ports: Ports) -> Iterator[str]:
    """Keys of records artifacts of living objects that lack the champion's scores."""
    superseded = {item["sk"] for item in ports.table.query("SUPERSEDED")}
    scored = set(ports.data.list(f"{layout.SCORES}{champion}/"))
    for key in ports.data.list(layout.RECORDS):
        if layout.oid_of(key) not in superseded and layout.scores(champion, key) not in scored:
            yield key


def _not_scored(world: World) -> Iterator[Finding]:
    if world.champion.model in world.ports.executions.running("rescore"):
        return
    for key in unscored(world.champion.model, world.ports):
        yield Finding(key.removeprefix(layout.RECORDS), key)


def _score(findings: Sequence[Finding], world: World) -> None:
    _resend("score", findings, world)


def _resend(queue: QueueName, findings: Sequence[Finding], world: World) -> None:
    """Send the events of objects in the data bucket, whose keys are the subjects, once more."""
    bucket = world.ports.data.uri("").removeprefix("s3://").rstrip("/")
    world.ports.queues.send(queue, [created(PoolObject(bucket, finding.subject, "", "")) for finding in findings])


def _not_rescored(world: World) -> Iterator[Finding]:
    champion = world.champion
    if not champion.is_bootstrap and world.ports.executions.status("rescore", champion.model) is None:
        yield Finding(champion.model, {"model": champion.model})


def _rescore(findings: Sequence[Finding], world: World) -> None:
    for finding in findings:
        world.ports.executions.start("rescore", finding.name, finding.subject)


# Labeling jobs


def _open(world: World) -> Iterator[JsonDict]:
    return (item for item in world.batches if item["status"] == "submitted")


def _not_collected(world: World) -> Iterator[Finding]:
    for item in _open(world):
        job = world.ports.labeling.describe(item["job"])
        if job is not None and job.status != "running":
            yield Finding(item["sk"], job.status)


def _collect(findings: Sequence[Finding], world: World) -> None:
    world.ports.queues.send(
        "collect", [ended(world.ports.stack, finding.name, finding.subject) for finding in findings]
    )


def ended(stack: str, batch: str, status: str) -> JsonDict:
    """The event SageMaker would have sent about the end of a batch's job."""
    return {
        "version": "0", "source": "winnow.reconcile", "detail-type": "SageMaker Ground Truth Labeling Job State Change",
        "resources": [f"arn:aws:sagemaker:::labeling-job/{stack}-{batch}"],
        "detail": {"LabelingJobStatus": status.capitalize()},
    }  # fmt: skip


def _not_submitted(world: World) -> Iterator[Finding]:
    """Planned batches without a job. `select_batch` completes them whenever it runs, so one that stays needs a person."""
    return (Finding(item["sk"], None) for item in world.batches if item["status"] == "planned")


def _past_lifetime(world: World) -> Iterator[Finding]:
    lifetime = timedelta(hours=world.ports.loop.labeling.lifetime_hours) + OVERDUE
    for item in _open(world):
        age = world.ports.clock.now() - datetime.fromisoformat(item["created_at"])
        if age > lifetime:
            job = world.ports.labeling.describe(item["job"])
            if job is not None and job.status == "running":
                yield Finding(item["sk"], item["job"])


def _stop(findings: Sequence[Finding], world: World) -> None:
    for finding in findings:
        world.ports.labeling.stop(finding.subject)


def _expired(world: World) -> Iterator[Finding]:
    """Contents that a collected batch asked and nobody answered."""
    collected = {item["sk"] for item in world.batches if item["status"] == "collected"}
    for item in world.ports.table.query(layout.RESERVATION):
        if item["state"] == "expired" and item["batch"] in collected:
            yield Finding(f"{item['sk']}#{item['batch']}", (item["sk"], item["batch"]))


def _release(findings: Sequence[Finding], world: World) -> None:
    """Record the expiry first: a content may be asked again only after that (I2)."""
    at = world.ports.clock.now().isoformat()
    for finding in findings:
        content, batch = finding.subject
        world.ports.table.put_new(layout.EXPIRY, finding.name, {"at": at})
        world.ports.table.delete(layout.RESERVATION, content, expected={"batch": batch, "state": "expired"})


# Improvements


def executions_of(dataset: str) -> list[str]:
    """Names under which `improve` may run for a dataset version: the first, then the repairs.

    >>> executions_of("d1")
    ['d1', 'd1-1', 'd1-2', 'd1-3']
    """
    return [dataset, *(f"{dataset}-{number}" for number in range(1, REPAIR_EXECUTIONS + 1))]


def _not_improved(world: World) -> Iterator[Finding]:
    """The newest dataset, when no execution came to an end with it; and rollouts that nobody watches any more."""
    rollouts = world.ports.table.query(deployment.PARTITION)
    rolling = {str(item["dataset"]) for item in rollouts if item["status"] not in deployment.FINAL}
    for dataset in sorted(rolling | ({world.head} if world.head else set())):
        statuses = [world.ports.executions.status("improve", name) for name in executions_of(dataset)]
        if "RUNNING" not in statuses and (ENDED_WELL not in statuses or dataset in rolling):
            yield Finding(dataset, _next_execution(dataset, world.ports))


def _next_execution(dataset: str, ports: Ports) -> str | None:
    """The first name of this dataset's that was never used."""
    return next((name for name in executions_of(dataset) if ports.executions.status("improve", name) is None), None)


def _improve(findings: Sequence[Finding], world: World) -> None:
    for finding in findings:
        world.ports.executions.start("improve", finding.subject, {"dataset": finding.name, "cause": "repair"})


def _stalled(world: World) -> Iterator[Finding]:
    """Executions that wait for a training job which ended: the event that says so was lost."""
    if world.head is None or not _waits_for_nothing(world.head, world.ports):
        return
    running = set(world.ports.executions.running("improve"))
    for name in executions_of(world.head):
        if name in running:
            yield Finding(name, world.head)


def _waits_for_nothing(dataset: str, ports: Ports) -> bool:
    """Whether the dataset's newest training job ended and nobody took up what it left."""
    for attempt in reversed(range(ATTEMPTS)):
        model = model_of(dataset, ports, attempt=attempt)
        state = ports.training.describe(model)
        if state is not None:
            taken_up = (layout.model(model), layout.publish_report(model))
            return state.status != "running" and not any(ports.data.exists(key) for key in taken_up)
    return False


def _restart(findings: Sequence[Finding], world: World) -> None:
    executions = world.ports.executions
    for finding in findings:
        following = _next_execution(finding.subject, world.ports)
        executions.stop("improve", finding.name, cause="its training job ended; the event that says so was lost")
        if following is not None:
            executions.start("improve", following, {"dataset": finding.subject, "cause": "repair"})


CHECKS: Mapping[str, Check] = {
    "ingest": Check(_not_ingested, _ingest, "sent to the ingest queue"),
    "import": Check(_not_imported, _import, "sent to the collect queue"),
    "watch": Check(_not_watched, _watch, "sent to the capture queue"),
    "score": Check(_not_scored, _score, "sent to the score queue"),
    "rescore": Check(_not_rescored, _rescore, "started rescore"),
    "submit": Check(_not_submitted, _collect, "select_batch resumes it"),
    "stop": Check(_past_lifetime, _stop, "stopped the labeling job"),
    "collect": Check(_not_collected, _collect, "sent to the collect queue"),
    "release": Check(_expired, _release, "released for another batch", grace=timedelta(0)),
    "stalled": Check(_stalled, _restart, "stopped the execution and started the next", grace=timedelta(minutes=30)),
    "improve": Check(_not_improved, _improve, "started improve"),
}
"""Kind of repair → how it is found and made. Order matters only for reading."""
