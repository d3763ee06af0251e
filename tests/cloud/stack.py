"""The shipped template in a fresh local cloud, with people who label, and short ways to look at what it left."""

from __future__ import annotations

import gzip
import io
import json
import random
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from tests.template.audit import audit
from winnow import layout
from winnow.ports import Ports
from winnow.records import PoolObject
from winnow_local.annotators import Annotator, Crowd
from winnow_local.cloud import LocalCloud

ROOT = Path(__file__).resolve().parents[2]
CLASSES = ("negative", "positive")
WORDS = (
    "river",
    "stone",
    "window",
    "candle",
    "garden",
    "market",
    "letter",
    "bridge",
    "winter",
    "harbour",
    "pencil",
    "mirror",
    "basket",
    "ladder",
    "thunder",
    "meadow",
    "lantern",
    "carpet",
    "village",
    "bottle",
    "saddle",
    "copper",
    "orchard",
    "station",
    "curtain",
    "feather",
    "blanket",
    "engine",
    "whistle",
    "canyon",
)
MARKS = {"negative": ("broken", "awful", "late"), "positive": ("lovely", "perfect", "quick")}

LOOP: dict[str, Any] = {
    "batches": {"size": 60, "min_size": 10},
    "acquisition": {"arms": {"evaluation_target": 40, "control": 0.2}},
    "quality": {"workers_per_item": 3},
    "training": {"min_labels": 10, "min_new_labels": 0, "members": 2},
    "gate": {"min_records": 20, "planned_looks": 3, "alpha": 0.2},
    "rollout": {"canary_percent": 50, "bake_minutes": 30, "termination_minutes": 5, "min_feedback": 2},
}
"""A loop for small pools: the first batch is enough for a gate that can say yes."""

Truth = Callable[[Mapping[str, object]], str]


def sentences(count: int, *, seed: int = 0) -> list[str]:
    """Different texts of both classes in turn; the class can be read off two of the words."""
    rng = random.Random(seed)
    found: list[str] = []
    for number in range(count):
        mark = MARKS[CLASSES[number % 2]]
        words = [*rng.sample(WORDS, 5), *rng.sample(mark, 2)]
        rng.shuffle(words)
        found.append(" ".join(words))
    return found


def text_truth(task: Mapping[str, object]) -> str:
    """What an annotator who reads the text answers."""
    words = set(str(task["text"]).split())
    return next(label for label, marks in MARKS.items() if words & set(marks))


def jsonl(texts: Iterable[str], **fields: Any) -> bytes:
    """A pool object: one row a text, each with the same other fields."""
    return b"".join(json.dumps({"text": text, **fields}, ensure_ascii=False).encode() + b"\n" for text in texts)


@dataclass
class Stack:
    """One deployed stack. Keys are keys of the data bucket unless they are said to be the pool's."""

    cloud: LocalCloud
    crowds: dict[str, Crowd] = field(default_factory=dict)

    @property
    def pool_bucket(self) -> str:
        return self.cloud.outputs["PoolBucket"]

    @property
    def data_bucket(self) -> str:
        return self.cloud.outputs["DataBucket"]

    def employ(self, truth: Truth = text_truth, *, classes: tuple[str, ...] = CLASSES, accuracy: float = 1.0) -> None:
        """Six annotators and six experts who know the truth."""
        for team in ("crowd", "experts"):
            people = [
                Annotator.skilled(f"{team}-{number}", accuracy=accuracy, classes=len(classes)) for number in range(6)
            ]
            self.crowds[team] = Crowd(people, truth, classes=classes)
            self.cloud.labeling.employ(team, self.crowds[team])

    def configure(self, loop: Mapping[str, Any] | bytes) -> None:
        """Push a loop.yaml (JSON is YAML)."""
        self.put(layout.LOOP, loop if isinstance(loop, bytes) else json.dumps(loop).encode())

    def drop(self, key: str, body: bytes) -> str:
        """Put an object into the pool with plain boto3; gives its version."""
        answer = self.cloud.client("s3").put_object(Bucket=self.pool_bucket, Key=key, Body=body)
        return str(answer["VersionId"])

    def put(self, key: str, body: bytes) -> None:
        self.cloud.client("s3").put_object(Bucket=self.data_bucket, Key=key, Body=body)

    def get(self, key: str) -> bytes:
        body: bytes = self.cloud.client("s3").get_object(Bucket=self.data_bucket, Key=key)["Body"].read()
        return body

    def keys(self, prefix: str = "") -> list[str]:
        pages = (
            self.cloud.client("s3").get_paginator("list_objects_v2").paginate(Bucket=self.data_bucket, Prefix=prefix)
        )
        return [entry["Key"] for page in pages for entry in page.get("Contents", [])]

    def json(self, key: str) -> Any:
        return json.loads(self.get(key))

    def lines(self, prefix: str) -> list[dict[str, Any]]:
        """Every row of every JSON Lines artifact under a prefix."""
        rows = []
        for key in self.keys(prefix):
            body = self.get(key)
            plain = gzip.decompress(body) if key.endswith(".gz") else body
            rows += [json.loads(line) for line in plain.decode().splitlines() if line]
        return rows

    def scored(self, model: str) -> list[str]:
        """The content id of every row in every score artifact of a model."""
        found: list[str] = []
        for key in self.keys(f"{layout.SCORES}{model}/"):
            with np.load(io.BytesIO(self.get(key)), allow_pickle=False) as columns:
                found += columns["id"].tolist()
        return found

    def table(self, pk: str) -> list[dict[str, Any]]:
        """The items of a partition of the table, in order."""
        from winnow.aws.dynamodb import DynamoTable

        return DynamoTable(self.cloud.client("dynamodb"), self.cloud.stack).query(pk)

    def oid(self, key: str) -> str:
        """Name of the newest version of a pool object."""
        version = self.cloud.client("s3").head_object(Bucket=self.pool_bucket, Key=key)["VersionId"]
        return layout.object_id(PoolObject(self.pool_bucket, key, version, ""))

    def ports(self) -> Ports:
        """What the hops themselves see: the adapters on the local cloud."""
        from winnow.aws import wiring

        return wiring.ports()

    def arn(self, machine: str) -> str:
        return f"arn:aws:states:{self.cloud.region}:{self.cloud.account}:stateMachine:{self.cloud.stack}-{machine}"

    def executions(self, machine: str) -> dict[str, dict[str, Any]]:
        """Every execution by name, as DescribeExecution shows it, oldest first."""
        states = self.cloud.client("stepfunctions")
        listed = states.list_executions(stateMachineArn=self.arn(machine))["executions"]
        return {
            each["name"]: states.describe_execution(executionArn=each["executionArn"])
            for each in sorted(listed, key=lambda one: one["startDate"])
        }

    def ended(self, machine: str, count: int = 1) -> bool:
        """Whether so many executions have come to an end."""
        listed = self.cloud.client("stepfunctions").list_executions(stateMachineArn=self.arn(machine))["executions"]
        return sum(each["status"] != "RUNNING" for each in listed) >= count

    def champion(self) -> str | None:
        return self.json(layout.CHAMPION)["model"] if self.keys(layout.CHAMPION) else None

    def logged(self) -> list[dict[str, Any]]:
        """The structured lines of every function's log group, each with its `function`."""
        logs, found = self.cloud.client("logs"), []
        for group in logs.describe_log_groups(logGroupNamePrefix=f"/aws/lambda/{self.cloud.stack}-")["logGroups"]:
            name = group["logGroupName"]
            for event in self._events(name):
                if event.startswith("{"):
                    found.append({**json.loads(event), "function": name.rsplit("/", 1)[1]})
        return found

    def _events(self, group: str) -> Iterator[str]:
        logs = self.cloud.client("logs")
        for stream in logs.describe_log_streams(logGroupName=group)["logStreams"]:
            asked = {"logGroupName": group, "logStreamName": stream["logStreamName"], "startFromHead": True}
            answer = logs.get_log_events(**asked)
            while answer["events"]:
                yield from (event["message"] for event in answer["events"])
                answer = logs.get_log_events(**asked, nextToken=answer["nextForwardToken"])

    def errors(self) -> list[str]:
        """Every call of a function that raised."""
        return [f"{call.function}: {call.error}" for call in self.cloud.invocations if call.error]

    def dead_letters(self) -> dict[str, int]:
        """Messages in each dead-letter queue that has any."""
        sqs, found = self.cloud.client("sqs"), {}
        for url in sqs.list_queues().get("QueueUrls", []):
            asked = {"QueueUrl": url, "AttributeNames": ["ApproximateNumberOfMessages"]}
            count = int(sqs.get_queue_attributes(**asked)["Attributes"]["ApproximateNumberOfMessages"])
            if url.endswith("-dlq") and count:
                found[url.rsplit("/", 1)[1]] = count
        return found

    def run_improve(self, count: int = 1, *, days: float = 20) -> None:
        """Live until so many executions of `improve` have ended."""
        assert self.cloud.run(condition=lambda: self.ended("improve", count), limit_days=days)


@contextmanager
def deployed(
    *, loop: Mapping[str, Any] | None = None, template: Path = ROOT / "template.yaml", **options: Any
) -> Iterator[Stack]:
    """A fresh stack with its loop.yaml pushed. Schedules are slow, so that weeks cost few calls.

    Whatever the test is about, every call of a hop must be one that its role allows: the cloud itself does not enforce it.
    """
    parameters = {
        "WorkteamArn": "arn:aws:sagemaker:us-east-1:123456789012:workteam/private-crowd/crowd",
        "ExpertWorkteamArn": "arn:aws:sagemaker:us-east-1:123456789012:workteam/private-crowd/experts",
        "SelectSchedule": "rate(6 hours)", "ReconcileSchedule": "rate(6 hours)", "HealthSchedule": "rate(12 hours)",
        **options.pop("parameters", {}),
    }  # fmt: skip
    start = datetime(2026, 1, 5, 9, tzinfo=UTC)
    with (
        LocalCloud(template, parameters=parameters, start=start, **options) as cloud,
        audit(cloud) as found,
    ):
        stack = Stack(cloud)
        stack.configure(LOOP if loop is None else loop)
        yield stack
        assert not found.denied, f"hops called what their roles in template.yaml do not allow: {sorted(found.denied)}"


def events(name: str) -> dict[str, Any]:
    """A real event body from tests/events."""
    body: dict[str, Any] = json.loads((ROOT / "tests" / "events" / name).read_text())
    return body
