"""The demo's course: what the team, the crowd and the application do. What the stack does, it does by itself."""

from __future__ import annotations

import base64
import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from winnow import layout
from winnow.aws.s3 import DataBucket
from winnow.loop import Loop, to_yaml
from winnow_cli.demo import people
from winnow_cli.demo.loopfile import ENCODER, Encoder, loop_file
from winnow_cli.demo.story import Happening, days
from winnow_cli.demo.traffic import Application
from winnow_cli.demo.watcher import Watcher
from winnow_cli.errors import InvariantError
from winnow_cli.importing_encoder import store
from winnow_cli.labeled import LabeledData, Payload, Sample
from winnow_local.cloud import LocalCloud

CROWD, EXPERTS = "winnow-crowd", "winnow-experts"
LEAST_DAYS = 14
SLACK_DAYS = 8
"""Beyond two selections; a batch whose items nobody answers expires after five days."""
LIVE_SHARE, MOST_LIVE = 0.15, 240
"""Share of the data, and number at most, that is not dropped but sent to the endpoint by the application."""
FIRST_WAVE = 0.8
"""Share of the pool that is dropped on the first day; the rest arrives in the days after."""
LATER_WAVES_DAYS = (3.0, 6.0, 9.0)
ROWS_PER_OBJECT = 1000
SKEW_ROUND, POISON_ROUND = 3, 4
"""Right after the evaluation set is complete: these rounds bring the most new labels, so an honest challenger passes."""
REGION, ACCOUNT = "us-east-1", LocalCloud.account

Tell = Callable[[Happening], None]


@dataclass(frozen=True)
class Drills:
    """What is meant to go wrong, and in which rounds."""

    poison: int | None = None
    skew: int | None = None


@dataclass
class Run:
    """What a scenario knows of itself; everything else is read from the stack."""

    loop: Loop
    start: float
    dropped: int = 0
    poisoned: list[str] = field(default_factory=list)
    """Batches that spammers answered."""
    skewed: list[str] = field(default_factory=list)
    """Models whose containers mangled what they were sent."""
    log: list[Happening] = field(default_factory=list)
    failed_requests: list[str] = field(default_factory=list)


def drills_for(rounds: int, *, poison: bool, skew: bool) -> Drills:
    """In which rounds the drills take place: late enough for a champion to be there, early enough to recover."""
    return Drills(
        skew=min(SKEW_ROUND, max(2, rounds - 1)) if skew else None,
        poison=min(POISON_ROUND, rounds) if poison else None,
    )


def select_every(rounds: int) -> int:
    """Days between selections, so that the rounds take two weeks at least.

    >>> select_every(7), select_every(5), select_every(20)
    (2, 3, 1)
    """
    return max(1, math.ceil(LEAST_DAYS / rounds))


def parameters(*, rounds: int) -> dict[str, str]:
    """What the template is deployed with."""
    every = select_every(rounds)
    team = f"arn:aws:sagemaker:{REGION}:{ACCOUNT}:workteam/private-crowd/"
    return {
        "WorkteamArn": team + CROWD,
        "ExpertWorkteamArn": team + EXPERTS,
        "SelectSchedule": f"rate({every} day{'s' if every > 1 else ''})",
        "ReconcileSchedule": "rate(12 hours)",
        "HealthSchedule": "rate(2 hours)",
    }


def template() -> Path:
    """The template of this repository."""
    return Path(__file__).resolve().parents[3] / "template.yaml"


class Scenario:
    """One demo on one cloud that was just deployed."""

    def __init__(
        self,
        cloud: LocalCloud,
        data: LabeledData,
        *,
        rounds: int,
        batch: int,
        seed: int,
        drills: Drills,
        tell: Tell,
        encoder: Encoder | None = None,
    ) -> None:
        self._cloud, self._data, self._rounds, self._drills, self._seed = cloud, data, rounds, drills, seed
        self._rng = np.random.default_rng(seed)
        self._skew_over = False
        self._encoder = encoder
        loop = loop_file(
            data, batch=batch, rounds=rounds, seed=seed, drilled=drills != Drills(), encoded=encoder is not None
        )
        self.run = Run(loop, cloud.clock.time())
        self._said = tell
        self._watcher = Watcher(cloud, self._tell)
        oracle = people.oracle(data, loop, read=self._read)
        classes = len(loop.task.classes)
        self._honest = people.annotators(classes, rng=np.random.default_rng([seed, 1]))
        self._crowd = people.crowd(self._honest, oracle, classes=loop.task.classes, seed=seed)
        self._experts = people.crowd(people.experts(classes), oracle, classes=loop.task.classes, seed=seed + 1)
        pool, live = _split(data.samples, rng=self._rng)
        self._pool = pool
        self._application = Application(cloud, live, people.users(data), rng=np.random.default_rng([seed, 2]))

    def play(self) -> Run:
        """Live through all rounds, and on until nothing is under way."""
        cloud = self._cloud
        cloud.labeling.employ(CROWD, self._crowd)
        cloud.labeling.employ(EXPERTS, self._experts)
        if self._encoder is not None:
            card, files = self._encoder
            store(card, files, name=ENCODER, data=DataBucket(cloud.client("s3"), self._data_bucket))
        cloud.client("s3").put_object(
            Bucket=self._data_bucket, Key=layout.LOOP, Body=to_yaml(self.run.loop).encode()
        )  # fmt: skip
        self._drop_in_waves()
        self._application.open()
        limit = 2 * select_every(self._rounds) + SLACK_DAYS
        for number in range(1, self._rounds + 1):
            self._prepare(number)
            if not cloud.run(condition=lambda number=number: self._round_ended(number), limit_days=limit):
                raise InvariantError(
                    f"round {number} did not end within {limit} virtual days: {self._watcher.standing()}"
                )
        self._settle()
        self.run.failed_requests = self._application.failed
        return self.run

    def _prepare(self, number: int) -> None:
        """Let what shall go wrong in this round go wrong."""
        if number == self._drills.poison:
            self._crowd.people = people.spammers(self.run.loop.task.classes)
            self._tell(Happening(self._day(), "drill", "spammers take the place of the crowd"))
        if number == self._drills.skew:
            self._tell(Happening(self._day(), "drill", "from now on new containers mangle what they are sent"))
        elif self.run.skewed and not self._skew_over and self._watcher.rolled_back(self.run.skewed):
            self._skew_over = True
            self._tell(Happening(self._day(), "drill", "the containers are repaired"))

    def _round_ended(self, number: int) -> bool:
        news = self._watcher.look()
        if not news:
            return False
        self._poison(number)
        self._skew(number)
        return self._watcher.rounds_ended >= number

    def _poison(self, number: int) -> None:
        """The honest crowd comes back once the spammers' batch is in."""
        if number != self._drills.poison or self.run.poisoned:
            return
        batch = self._watcher.batch_of_round(number)
        if batch is not None and batch["status"] == "collected":
            self.run.poisoned.append(str(batch["sk"]))
            self._crowd.people = self._honest
            self._tell(Happening(self._day(), "drill", "the spammers are gone, the honest crowd is back"))

    def _skew(self, number: int) -> None:
        """Mangle the requests of every challenger from the drill's round on, until a round ended in a rollback."""
        if self._drills.skew is None or number < self._drills.skew or self._skew_over:
            return
        for model in self._watcher.challengers(since_round=number):
            name = f"{self._cloud.stack}-{model}"
            if name not in self._cloud.endpoints.skew:
                self._cloud.endpoints.skew[name] = mangled_request
                self.run.skewed.append(model)

    def _settle(self) -> None:
        """Until nothing is under way."""
        cloud = self._cloud
        if not cloud.run(
            condition=lambda: self._watcher.look() is not None and self._watcher.at_rest(), limit_days=3.0
        ):
            raise InvariantError(f"the stack does not come to rest: {self._watcher.standing()}")
        self._tell(Happening(self._day(), "skip", "the demo ends; nothing is under way"))

    def _drop_in_waves(self) -> None:
        first = round(FIRST_WAVE * len(self._pool))
        parts = [self._pool[:first], *_parts(self._pool[first:], len(LATER_WAVES_DAYS))]
        self._drop(parts[0], wave=0)
        for wave, (day, part) in enumerate(zip(LATER_WAVES_DAYS, parts[1:], strict=True), start=1):
            self._cloud.clock.call_later(
                day * 86_400, lambda part=part, wave=wave: self._drop(part, wave=wave), background=True
            )
        if self._data.name == "handwritten digits":
            self._drop_trouble()

    def _drop(self, samples: Sequence[Sample], *, wave: int) -> None:
        if not samples:
            return
        objects = list(pool_objects(samples, kind=self._data.kind, wave=wave))
        for key, payload in objects:
            self._put(key, payload)
        what = (
            f"{len(samples)} images"
            if self._data.kind == "image"
            else f"{len(samples)} records in {len(objects)} objects"
        )
        self._tell(Happening(self._day(), "drop", f"{what} dropped into the pool"))

    def _drop_trouble(self) -> None:
        """What real pools hold too: copies, broken files, a file of another kind, an object that is replaced."""
        images = [bytes(sample.payload) for sample in self._pool[:7] if isinstance(sample.payload, bytes)]
        for number, image in enumerate(images[:5]):
            self._put(f"copies/copy-{number}.png", image)
        self._put("broken/truncated.png", images[5][: len(images[5]) // 2])
        self._put("broken/empty.png", b"")
        self._put("broken/notes.txt", b"not a picture\n")
        fresh = people.mangle(images[6])
        assert isinstance(fresh, bytes)
        self._put("replaced/picture.png", fresh)
        self._put("replaced/picture.png", images[6])
        self._tell(Happening(self._day(), "drop", "5 copies, 3 unusable files and a replaced object dropped"))

    def _put(self, key: str, payload: bytes) -> None:
        self._cloud.client("s3").put_object(Bucket=self._pool_bucket, Key=key, Body=payload)
        self.run.dropped += 1

    def _read(self, uri: str) -> bytes:
        """What an annotator's browser loads."""
        bucket, _, key = uri.removeprefix("s3://").partition("/")
        body: bytes = self._cloud.client("s3").get_object(Bucket=bucket, Key=key)["Body"].read()
        return body

    def _tell(self, happening: Happening) -> None:
        self.run.log.append(happening)
        self._said(happening)

    def _day(self) -> float:
        return days(self._cloud.clock.time() - self.run.start)

    @property
    def _pool_bucket(self) -> str:
        return f"{self._cloud.stack}-pool-{ACCOUNT}-{REGION}"

    @property
    def _data_bucket(self) -> str:
        return f"{self._cloud.stack}-data-{ACCOUNT}-{REGION}"


def pool_objects(samples: Sequence[Sample], *, kind: str, wave: int) -> list[tuple[str, bytes]]:
    """(key, bytes) of the objects that are dropped. Names are numbers: a user's file names may give the class away."""
    if kind == "image":
        named = [(f"wave-{wave}/image-{number:05d}", sample.payload) for number, sample in enumerate(samples)]
        return [(f"{name}.{_suffix(payload)}", payload) for name, payload in named if isinstance(payload, bytes)]
    rows = [
        json.dumps({"id": f"w{wave}-{number:06d}", **_fields(sample.payload)}, ensure_ascii=False)
        for number, sample in enumerate(samples)
    ]
    return [
        (
            f"wave-{wave}/{'texts' if kind == 'text' else 'rows'}-{start // ROWS_PER_OBJECT:04d}.jsonl",
            ("\n".join(rows[start : start + ROWS_PER_OBJECT]) + "\n").encode(),
        )
        for start in range(0, len(rows), ROWS_PER_OBJECT)
    ]


def _fields(payload: Payload) -> dict[str, Any]:
    return {"row": dict(payload)} if isinstance(payload, tuple) else {"text": payload}


def mangled_request(request: bytes, content_type: str) -> bytes:
    """A JSON request whose instances went through a broken preprocessing; others are left as they are."""
    if not content_type.startswith("application/json"):
        return request
    body: dict[str, Any] = json.loads(request)
    return json.dumps({"instances": [_mangled(instance) for instance in body["instances"]]}).encode()


def _mangled(instance: dict[str, Any]) -> dict[str, Any]:
    if "text" in instance:
        return {"text": people.mangle(instance["text"])}
    if "row" in instance:
        return {"row": dict(people.mangle(tuple(instance["row"].items())))}  # type: ignore[arg-type]
    broken = people.mangle(base64.b64decode(instance["image"]))
    assert isinstance(broken, bytes)
    return {"image": base64.b64encode(broken).decode("ascii")}


def _split(samples: Sequence[Sample], *, rng: np.random.Generator) -> tuple[list[Sample], list[Sample]]:
    """Shuffled: what is dropped, and what the application sends. A payload that occurs twice stays on one side."""
    order = rng.permutation(len(samples))
    wanted = min(MOST_LIVE, round(LIVE_SHARE * len(samples)))
    live_payloads: set[Payload] = {samples[index].payload for index in order[:wanted]}
    live = [samples[index] for index in order[:wanted]]
    return [samples[index] for index in order if samples[index].payload not in live_payloads], live


def _parts(items: Sequence[Sample], count: int) -> list[Sequence[Sample]]:
    bounds = [round(len(items) * part / count) for part in range(count + 1)]
    return [items[start:end] for start, end in pairwise(bounds)]


def _suffix(payload: bytes) -> str:
    return "jpg" if payload.startswith(b"\xff\xd8") else "png"
