"""A few records through a stack that is deployed on AWS: do they become records, scores and a labeling job?

NOT RUN ON AWS YET. Its logic is tested against the local cloud only (tests/cloud/test_smoke_aws.py).

    .venv/bin/python scripts/smoke_aws.py --stack winnow-dev --account 111122223333

It deploys nothing. It does nothing at all unless your credentials belong to the account you name. It drops one object
(or, in a stack for images, a few) under `smoke/`, asks select_batch for one small batch, which commits money of the
label budget and creates a labeling job, and prints a table. Exit status 0 when everything passed, 1 when something
failed, 2 when it was asked wrongly. Stop the job afterwards with the command it prints, or let it be labeled.
"""

from __future__ import annotations

import argparse
import gzip
import io
import json
import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar, get_args

import numpy as np
from PIL import Image

from winnow import layout
from winnow.digests import short_id
from winnow.errors import WinnowError
from winnow.ports import Ports, QueueName
from winnow.records import PoolObject, from_jsonl
from winnow.steps import pointers
from winnow_cli.errors import UsageError
from winnow_cli.stack import Stack, connect, explained

HEADING = "NOT RUN ON AWS YET: this script was only ever tested against the local cloud. Read what it prints with care."
WORDS = ("parcel", "invoice", "late", "refund", "broken", "lovely", "voucher", "password", "courier", "order")
POLL_SECONDS = 10.0
SIDE = 16

Answer = TypeVar("Answer")


@dataclass(frozen=True)
class Finding:
    """One line of the table. `passed` is None for what could not be tried because something before it failed."""

    name: str
    passed: bool | None
    detail: str


@dataclass(frozen=True)
class Patience:
    """Asks again and again until there is an answer, for at most `minutes`."""

    minutes: float
    now: Callable[[], float] = time.monotonic
    sleep: Callable[[float], None] = time.sleep

    def until(self, ask: Callable[[], Answer | None]) -> Answer | None:
        """The first answer that is not None, or None when patience is at its end."""
        end = self.now() + 60 * self.minutes
        while True:
            answer = ask()
            if answer is not None or self.now() >= end:
                return answer
            self.sleep(POLL_SECONDS)


def smoke(stack: Stack, ports: Ports, *, records: int, batch: int, seed: int, patience: Patience) -> list[Finding]:
    """Drop `records` new contents, follow them to a labeling job of at most `batch`, and say what was seen."""
    findings: list[Finding] = []
    names = iter(("dropped", "records", "scores", "candidates", "batch", "labeling job"))
    for name, step in zip(names, _steps(stack, ports, records=records, batch=batch, seed=seed, patience=patience)):  # noqa: B905 - steps end early
        findings.append(Finding(name, *step))
        if not step[0]:
            break
    findings += [Finding(name, None, "not tried") for name in names]
    return [*findings, _dead_letters(ports)]


def _steps(
    stack: Stack, ports: Ports, *, records: int, batch: int, seed: int, patience: Patience
) -> Iterator[tuple[bool, str]]:
    dropped = _drop(stack, ports, records=records, seed=seed)
    oids = [layout.object_id(item) for item in dropped]
    yield True, f"{len(dropped)} objects in s3://{stack.settings.pool_bucket}/smoke/"

    def ingested() -> list[str] | None:
        return oids if all(ports.data.exists(layout.occurrences(oid)) for oid in oids) else None

    if patience.until(ingested) is None:
        missing = sum(not ports.data.exists(layout.occurrences(oid)) for oid in oids)
        yield False, f"{missing} of {len(oids)} objects were not ingested; look at ingest_object's log"
        return
    rows = [row for oid in oids for row in from_jsonl(gzip.decompress(ports.data.get(layout.occurrences(oid))))]
    accepted = sum(row["status"] == "accepted" for row in rows)
    yield accepted == records, f"{accepted} of {records} rows accepted"

    champion = pointers.champion(ports)[0].model
    keys = [key for oid in oids for key in ports.data.list(f"{layout.RECORDS}{oid}/")]

    def scored() -> bool | None:
        return True if all(ports.data.exists(layout.scores(champion, key)) for key in keys) else None

    if patience.until(scored) is None:
        yield False, f"no scores of {champion} for every file; look at score_records' log"
        return
    yield True, f"{len(keys)} files scored by {champion}"

    shards = patience.until(lambda: ports.table.query(f"SHARD#{champion}") or None)
    yield bool(shards), f"{len(shards or ())} shards of candidates"

    name = f"{stack.settings.stack}-select_batch"
    answer = stack.client("lambda").invoke(FunctionName=name, Payload=json.dumps({"cause": "smoke", "size": batch}))
    body = json.loads(answer["Payload"].read())
    if "FunctionError" in answer:
        yield False, f"{body.get('errorType')}: {body.get('errorMessage')}"
        return
    chosen = body["batch"]
    if chosen is None:
        yield False, f"select_batch made no batch: {body['reason']}"
        return
    yield True, f"{chosen}: {body['size']} records, ${body['usd']}"

    job = patience.until(lambda: ports.labeling.describe(chosen))
    told = "did not appear" if job is None else f"{job.status}, {job.total} items"
    yield (
        job is not None and job.status != "failed",
        (
            f"{stack.settings.named(chosen)} {told}; "
            f"stop it: aws sagemaker stop-labeling-job --labeling-job-name {stack.settings.named(chosen)}"
        ),
    )


def _drop(stack: Stack, ports: Ports, *, records: int, seed: int) -> list[PoolObject]:
    s3, bucket = stack.client("s3"), stack.settings.pool_bucket
    run = short_id("s", {"smoke": seed})
    dropped = []
    for name, body in _objects(ports.loop.task.kind, records=records, seed=seed):
        key = f"smoke/{run}/{name}"
        version = s3.put_object(Bucket=bucket, Key=key, Body=body)["VersionId"]
        dropped.append(PoolObject(bucket, key, version, ""))
    return dropped


def _objects(kind: str, *, records: int, seed: int) -> Iterator[tuple[str, bytes]]:
    """New contents: none of them was ever dropped under another seed."""
    rng = np.random.default_rng(seed)
    if kind == "text":
        rows = [" ".join([*rng.choice(WORDS, 4), f"case {seed} {number}"]) for number in range(records)]
        yield "texts.jsonl", "".join(json.dumps({"text": row}) + "\n" for row in rows).encode()
        return
    for number in range(records):
        out = io.BytesIO()
        Image.fromarray(rng.integers(0, 256, (SIDE, SIDE, 3), dtype=np.uint8)).save(out, format="PNG")
        yield f"image-{number:03d}.png", out.getvalue()


def _dead_letters(ports: Ports) -> Finding:
    dead = {queue: ports.queues.state(queue).dead for queue in get_args(QueueName)}
    some = ", ".join(f"{count} in {queue}-dlq" for queue, count in dead.items() if count)
    return Finding("dead letters", not some, some or "none")


def table(findings: Sequence[Finding]) -> str:
    """The findings as lines.

    >>> print(table([Finding("records", True, "20 of 20 rows accepted"), Finding("scores", None, "not tried")]))
    pass  records       20 of 20 rows accepted
    --    scores        not tried
    """
    words = {True: "pass", False: "FAIL", None: "--"}
    return "\n".join(f"{words[one.passed]:<5} {one.name:<13} {one.detail}" for one in findings)


def _account_of(given: argparse.Namespace) -> Stack:
    """The stack, when the caller's account is the one that was named. Raises UsageError."""
    if not given.account:
        raise UsageError("--account: name the account this may be done in; it is compared with your credentials'")
    stack = connect(given)
    if stack.settings.account != given.account:
        raise UsageError(
            f"--account {given.account}: your credentials belong to {stack.settings.account}; nothing was done"
        )
    return stack


def main(arguments: Sequence[str] | None = None, *, patience: Patience | None = None) -> int:
    """Run the smoke test as the command line says."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--stack", required=True, help="name of the deployed stack")
    parser.add_argument("--account", required=True, help="twelve digits; must be your credentials' account")
    parser.add_argument("--region", help="region (default: as your AWS configuration says)")
    parser.add_argument("--records", type=int, default=40, help="new records to drop (default: %(default)s)")
    parser.add_argument("--batch", type=int, default=10, help="records to ask at most (default: %(default)s)")
    parser.add_argument("--minutes", type=float, default=15.0, help="patience for each wait (default: %(default)s)")
    parser.add_argument(
        "--seed", type=int, default=int(time.time()), help="of the invented records (default: the time)"
    )
    given = parser.parse_args(arguments)
    print(HEADING)
    try:
        findings = _run(given, patience or Patience(given.minutes))
    except UsageError as error:
        print(f"smoke_aws: {error}", file=sys.stderr)
        return 2
    print(table(findings))
    return 0 if all(one.passed for one in findings) else 1


def _run(given: argparse.Namespace, patience: Patience) -> list[Finding]:
    from winnow.aws import wiring

    stack: Any = _account_of(given)
    os.environ.update(stack.environment())
    with explained(f"stack {given.stack!r}"):
        try:
            return smoke(
                stack, wiring.ports(), records=given.records, batch=given.batch, seed=given.seed, patience=patience
            )
        except WinnowError as error:
            raise UsageError(f"stack {given.stack!r}: {error}") from error


if __name__ == "__main__":
    sys.exit(main())
