"""`winnow import labels`: a seed set of labeled records, looked at row by row and dropped into the pool.

What becomes of it is ingest's and `collect_labels`' work: the same as of labeled records that anybody drops.
"""

from __future__ import annotations

import argparse
import getpass
import gzip
import json
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from winnow.aws import wiring
from winnow.digests import digest
from winnow.errors import WinnowError
from winnow.loop import Loop
from winnow.records import to_jsonl
from winnow.steps.import_labels import salt_digest
from winnow_cli.errors import UsageError
from winnow_cli.progress import counted
from winnow_cli.seeds import Names, Seed, Source
from winnow_cli.stack import Stack, connect, explained

SHOWN = 20
"""Problems printed; `--json` has them all."""

FULL = 0.8
"""Share of an object's limits that is used."""

JsonDict = dict[str, Any]


@dataclass
class Look:
    """What was found in the files."""

    seeds: list[Seed] = field(default_factory=list)
    problems: list[JsonDict] = field(default_factory=list)
    unlabeled: int = 0
    other_roles: int = 0
    """Labels that another stack exported whose salt, and so whose roles, are not this one's."""

    def to_json(self, loop: Loop) -> JsonDict:
        labels = [seed.row.fields["label"] for seed in self.seeds]
        told: JsonDict = {
            "rows": len(self.seeds) + self.unlabeled + len(self.problems), "labeled": len(labels),
            "unlabeled": self.unlabeled, "problems": self.problems, "other_roles": self.other_roles,
        }  # fmt: skip
        if loop.task.type == "regression":
            return {**told, "lowest": min(labels, default=None), "highest": max(labels, default=None)}
        counts = Counter(labels)
        return {**told, "classes": {name: counts[name] for name in loop.task.classes}}


def run(given: argparse.Namespace) -> int:
    """Read everything, say what was found, and upload it unless nothing can be used or `--dry-run` is given."""
    stack = connect(given)
    loop = _loop(stack)
    source = Source(loop, Names(label=given.label, text=given.text))
    look = _look((seed for path in given.files for seed in source.seeds(path)), loop)
    told = look.to_json(loop)
    if not given.json:
        print("\n".join(_lines(told, loop)))
    if not look.seeds:
        if given.json:
            print(json.dumps(told, indent=1, ensure_ascii=False))
        raise UsageError(_why_nothing(told, given))
    origin = {"by": given.by or _user(), "at": datetime.now(UTC).isoformat(timespec="seconds")}
    objects = list(_objects(look.seeds, loop, origin, name=given.files[0].name))
    known = set(_listed(stack, objects[0][0].rsplit("/", 1)[0]))
    told["objects"] = [
        {"key": key, "status": "known" if key in known else "dry run" if given.dry_run else "imported"}
        for key, _ in objects
    ]
    if not given.dry_run:
        bucket, s3 = stack.settings.pool_bucket, stack.client("s3")
        with explained(f"bucket {bucket}"):
            for key, body in counted(objects, "objects"):
                if key not in known:
                    s3.put_object(Bucket=bucket, Key=key, Body=body)
    print(json.dumps(told, indent=1, ensure_ascii=False) if given.json else _outcome(told, stack))
    return 0


def _loop(stack: Stack) -> Loop:
    try:
        with explained(f"stack {stack.settings.stack!r}"):
            return wiring.loop(stack.data)
    except WinnowError as error:
        raise UsageError(f"what the stack learns cannot be known: {error}") from error


def _look(seeds: Iterator[Seed], loop: Loop) -> Look:
    look, salt = Look(), salt_digest(loop.privacy.salt)
    for seed in counted(seeds, "rows"):
        problem = seed.row.problem
        if problem is not None:
            reason = str(problem).removeprefix(f"row {seed.row.number}: ")
            look.problems.append({"file": seed.file, "line": seed.row.number, "code": problem.code, "reason": reason})
        elif "label" in seed.row.fields:
            look.seeds.append(seed)
            look.other_roles += seed.row.fields.get("winnow", {}).get("salt", salt) != salt
        else:
            look.unlabeled += 1
    return look


def _objects(seeds: Sequence[Seed], loop: Loop, origin: JsonDict, *, name: str) -> Iterator[tuple[str, bytes]]:
    """Key and body of the pool objects that hold the seeds; the same seeds give the same keys, whoever imports them when."""
    name = re.sub(r"[^A-Za-z0-9._-]+", "-", name).strip("-.")[:64] or "seeds"
    identity = digest(b"".join(to_jsonl([seed.body()]) for seed in seeds), length=20)
    room = int(loop.limits.max_object_mb * 1_000_000 * FULL)
    part: list[bytes] = []
    parts = 0

    def packed() -> tuple[str, bytes]:
        return f"imports/{identity}/{name}-{parts:03d}.jsonl.gz", gzip.compress(b"".join(part), 6, mtime=0)

    size = 0
    for seed in seeds:
        line = to_jsonl([seed.body(**origin)])
        if part and (size + len(line) > room or len(part) == loop.limits.max_rows):
            yield packed()
            part, size, parts = [], 0, parts + 1
        part.append(line)
        size += len(line)
    yield packed()


def _listed(stack: Stack, prefix: str) -> Iterator[str]:
    bucket = stack.settings.pool_bucket
    with explained(f"bucket {bucket}"):
        for page in stack.client("s3").get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=f"{prefix}/"):
            yield from (item["Key"] for item in page.get("Contents", ()))


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return "unknown"


def _lines(told: JsonDict, loop: Loop) -> Iterator[str]:
    yield f"{told['rows']} rows: {told['labeled']} with a usable label"
    if loop.task.type == "regression":
        if told["labeled"]:
            yield f"  from {told['lowest']:g} to {told['highest']:g} {loop.task.unit}".rstrip()
    else:
        yield from (f"  {count:>8} {name}" for name, count in told["classes"].items())
    if told["unlabeled"]:
        yield f"{told['unlabeled']} rows have no label and are left out (winnow put drops unlabeled data)"
    if told["other_roles"]:
        yield (
            f"{told['other_roles']} labels were exported under another privacy.salt: roles are drawn anew, so the datasets "
            "will not be those of the other stack"
        )
    if told["problems"]:
        yield f"{len(told['problems'])} rows cannot be used and are left out:"
        yield from (f"  {one['file']}, line {one['line']}: {one['reason']}" for one in told["problems"][:SHOWN])
        if len(told["problems"]) > SHOWN:
            yield f"  and {len(told['problems']) - SHOWN} more (--json lists them)"


_REMEDIES = {
    "unknown-class": "; is loop.yaml pushed (winnow config push), and --label the right field?",
    "missing-payload": "; say --text FIELD where it has another name",
    "wrong-type": "; say --text FIELD where it has another name",
}


def _why_nothing(told: JsonDict, given: argparse.Namespace) -> str:
    if told["problems"]:
        remedy = _REMEDIES.get(told["problems"][0]["code"], "")
        return f"no row can be used; the first: {told['problems'][0]['reason']}{remedy}"
    field = given.label or "label"
    return f"no row has a label under {field!r}; say --label FIELD, or drop unlabeled data with winnow put"


def _outcome(told: JsonDict, stack: Stack) -> str:
    states = Counter(one["status"] for one in told["objects"])
    where = f"s3://{stack.settings.pool_bucket}/{told['objects'][0]['key'].rsplit('/', 1)[0]}/"
    if states["dry run"]:
        return f"nothing was uploaded (--dry-run); {states['dry run']} objects would go to {where}"
    if not states["imported"]:
        return f"imported before, nothing changes: {where}"
    return f"imported to {where}; a dataset version and a training follow by themselves (winnow status)"
