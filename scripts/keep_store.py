"""Keeps a small store as this version of the code writes it, for the tests of later versions.

    .venv/bin/python scripts/keep_store.py v2

Run it with the code that is about to be released, or in a worktree of an older commit (`git worktree add ../old TAG`, copy
this script there). It runs the shipped template in the local cloud until a store has some of everything: a champion of the
first round, labels of a second one whose challenger is trained and not yet published, and a third batch that people are
working on. What lies in the data bucket then goes to tests/stores/NAME/data.tar.xz, the table's items and the versions of
every format to NAME/store.json. tests/steps/test_stores.py drives every store on. Nothing is kept that no hop reads again.
"""

from __future__ import annotations

import argparse
import base64
import gzip
import io
import json
import subprocess
import sys
import tarfile
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from winnow import layout
from winnow_local.annotators import Annotator, Crowd
from winnow_local.cloud import LocalCloud

ROOT = Path(__file__).resolve().parents[1]
STORES = ROOT / "tests" / "stores"
TEAM = "arn:aws:sagemaker:us-east-1:123456789012:workteam/private-crowd/"
CLASSES = ("across", "down")
SIDE = 12
LOOP = {
    "task": {"kind": "image", "classes": list(CLASSES)},  # a model of texts has a megabyte, one of small images little
    "batches": {"size": 24, "min_size": 4},
    "acquisition": {"arms": {"evaluation_target": 20, "evaluation_share": 0.5, "control": 0.25}},
    "quality": {"workers_per_item": 3},
    "training": {"min_labels": 4, "min_new_labels": 0, "members": 2},
    "gate": {"min_records": 10, "planned_looks": 3, "alpha": 0.4},
    "rollout": {"bake_minutes": 30, "termination_minutes": 5},
}
PARAMETERS = {
    "WorkteamArn": TEAM + "crowd", "ExpertWorkteamArn": TEAM + "experts", "EndpointEnabled": "false",
    "SelectSchedule": "rate(6 hours)", "ReconcileSchedule": "rate(5 days)", "HealthSchedule": "rate(5 days)",
}  # fmt: skip
LEFT_OUT = ("code/", "jobs/", "templates/", "training-output/")
"""What only containers and labeling jobs read; of trainings, the artifact that waits to be published stays."""


def pictures(count: int, *, seed: int) -> bytes:
    """A pool object: noisy stripes, across for even numbers and down for odd ones, and a row that is refused."""
    rng, rows = np.random.default_rng(seed), []
    for number in range(count):
        wave = 60 * np.sign(np.sin(np.arange(SIDE) / rng.uniform(0.6, 1.6) + rng.uniform(0, 6)))
        plane = np.broadcast_to(wave[:, None] if number % 2 == 0 else wave, (SIDE, SIDE))
        out = io.BytesIO()
        Image.fromarray((128 + plane + rng.integers(-20, 20, (SIDE, SIDE))).astype(np.uint8)).save(out, "PNG")
        image = base64.b64encode(out.getvalue()).decode()
        rows.append({"id": f"r{seed}-{number}", "image": image, "slices": {"camera": f"c{number % 3}"}})
    return "".join(json.dumps(row) + "\n" for row in rows).encode() + b'{"image": 7}\n'


def direction(png: bytes) -> str:
    """What a person who looks at it answers."""
    with Image.open(io.BytesIO(png)) as image:
        pixels = np.asarray(image.convert("L"), dtype=float)
    return CLASSES[int(pixels.mean(axis=1).std() < pixels.mean(axis=0).std())]


class Store:
    """The buckets and the table of a running stack."""

    def __init__(self, cloud: LocalCloud) -> None:
        self.cloud = cloud
        self.s3, self.bucket = cloud.client("s3"), cloud.outputs["DataBucket"]

    def keys(self, prefix: str = "") -> list[str]:
        pages = self.s3.get_paginator("list_objects_v2").paginate(Bucket=self.bucket, Prefix=prefix)
        return [entry["Key"] for page in pages for entry in page.get("Contents", [])]

    def get(self, key: str) -> bytes:
        body: bytes = self.s3.get_object(Bucket=self.bucket, Key=key)["Body"].read()
        return body

    def drop(self, key: str, body: bytes) -> None:
        self.s3.put_object(Bucket=self.cloud.outputs["PoolBucket"], Key=key, Body=body)

    def items(self) -> list[dict[str, Any]]:
        """The table as the adapter shows it, every item with its keys."""
        from winnow.aws.dynamodb import DynamoTable

        table = DynamoTable(self.cloud.client("dynamodb"), self.cloud.stack)
        pages = self.cloud.client("dynamodb").get_paginator("scan").paginate(TableName=self.cloud.stack)
        partitions = sorted({item["pk"]["S"] for page in pages for item in page["Items"]})
        return [{**item, "pk": pk} for pk in partitions for item in table.query(pk)]


def live(store: Store) -> None:
    """Two rounds and a half."""
    cloud = store.cloud

    def truth(task: Mapping[str, object]) -> str:
        bucket, key = str(task["image"]).removeprefix("s3://").split("/", 1)
        return direction(store.s3.get_object(Bucket=bucket, Key=key)["Body"].read())

    for team in ("crowd", "experts"):
        # Slow enough that people are still at work when a training has ended.
        people = [
            Annotator.skilled(f"{team}-{number}", accuracy=0.95, classes=len(CLASSES), seconds_per_item=600.0)
            for number in range(4)
        ]
        cloud.labeling.employ(team, Crowd(people, truth, classes=list(CLASSES)))
    store.s3.put_object(Bucket=store.bucket, Key=layout.LOOP, Body=json.dumps(LOOP).encode())
    store.drop("camera/one.jsonl", pictures(60, seed=1))
    _until(store, lambda: bool(store.keys(layout.CHAMPION)), "a first champion")
    store.drop("camera/two.jsonl", pictures(60, seed=2))
    specs = len(store.keys("training/"))
    _until(store, lambda: len(store.keys("training/")) > specs, "a second training")
    _, error = cloud.invoke(f"{cloud.stack}-select_batch", {"cause": "manual"})
    if error is not None:
        raise SystemExit(f"select_batch failed: {error}")
    artifacts = len(store.keys("training-output/"))
    _until(store, lambda: len(store.keys("training-output/")) > artifacts, "what the second training left")


def _until(store: Store, condition: Any, what: str) -> None:
    if not store.cloud.run(condition=condition, limit_days=20):
        failed = {f"{call.function}: {call.error}" for call in store.cloud.invocations if call.error}
        raise SystemExit(f"the loop did not come to {what}; calls that failed: {sorted(failed)}")


def kept(store: Store) -> dict[str, bytes]:
    """Every object of the data bucket that a hop may read again; of models that are not the champion only the card."""
    champion = json.loads(store.get(layout.CHAMPION))["model"]
    cards = {key.split("/")[1] for key in store.keys(layout.MODELS) if key.endswith("/model.json")}
    waiting = [key for key in store.keys("training-output/") if not any(f"-{model}/" in key for model in cards)]
    keys = [
        key
        for key in store.keys("")
        if not key.startswith(LEFT_OUT)
        and "/arms/" not in key
        and (not key.endswith("/model.onnx") or key == layout.model(champion, "model.onnx"))
    ]
    return {key: store.get(key) for key in keys} | {key: _bare(store.get(key)) for key in waiting}


def _bare(archive: bytes) -> bytes:
    """A model archive without the code for its endpoint, which publishing does not read, and without arms, as are allowed."""
    out = io.BytesIO()
    with tarfile.open(fileobj=io.BytesIO(archive)) as old, tarfile.open(fileobj=out, mode="w") as new:
        for member in old:
            if member.isfile() and not member.name.startswith(("code/", "arms/")):
                new.addfile(member, old.extractfile(member))
    return gzip.compress(out.getvalue(), compresslevel=0, mtime=0)  # it is compressed with everything else


def family(key: str) -> str:
    """The kind of artifact a key names.

    >>> family("batches/b1/plan.json"), family("records/o1/part-0000.jsonl.gz"), family("models/champion.json")
    ('batches/*/plan.json', 'records/*.jsonl.gz', 'models/champion.json')
    """
    folder, _, name = key.partition("/")
    if "/" not in name and name in ("champion.json", "head.json", "loop.yaml"):
        return key
    last = name.rpartition("/")[2]
    named = last in (
        "plan.json",
        "manifest.jsonl",
        "dataset.json",
        "spec.json",
        "gate.json",
        "deployment.json",
        "model.json",
    )
    return f"{folder}/*/{last}" if named else f"{folder}/*.{last.partition('.')[2]}"


def formats(objects: Mapping[str, bytes]) -> dict[str, int]:
    """The version every family of artifacts states: `format` of JSON and of columns, `v` of records; absent means 1.

    >>> formats({"models/champion.json": b'{"format": 1}', "labels/b1.jsonl": b'{"id": "a"}'})
    {'labels/*.jsonl': 1, 'models/champion.json': 1}
    """
    found: dict[str, set[int]] = {}
    for key, body in objects.items():
        versions = found.setdefault(family(key), set())
        if key.endswith(".npz"):
            with np.load(io.BytesIO(body), allow_pickle=False) as columns:
                versions.add(int(columns["format"]) if "format" in columns.files else 1)
        elif key.endswith(".json"):
            versions.add(int(json.loads(body).get("format", 1)))
        elif ".jsonl" in key:
            lines = (gzip.decompress(body) if key.endswith(".gz") else body).decode().splitlines()
            versions.update(int(row.get("v", row.get("format", 1))) for row in map(json.loads, filter(None, lines)))
    return {name: max(versions) for name, versions in sorted(found.items()) if versions}


def main() -> int:
    """Live, and keep what is there."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", help="of the store: the release, such as v2")
    target = STORES / parser.parse_args().name
    with LocalCloud(ROOT / "template.yaml", parameters=PARAMETERS, start=datetime(2026, 1, 5, 9, tzinfo=UTC)) as cloud:
        store = Store(cloud)
        live(store)
        objects, items, now = kept(store), store.items(), cloud.clock.now()
    target.mkdir(parents=True, exist_ok=True)
    (target / "data.tar.xz").write_bytes(packed(objects))
    about = {"code": _commit(), "at": now.isoformat(), "formats": formats(objects), "items": items}
    (target / "store.json").write_text(json.dumps(about, indent=1, ensure_ascii=False, sort_keys=True) + "\n")
    print(f"{target}: {len(objects)} objects in {(target / 'data.tar.xz').stat().st_size} bytes, {len(items)} items")
    return 0


def packed(objects: Mapping[str, bytes]) -> bytes:
    """Key → body as tar.xz: models of one stack share most of their bytes."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:xz", preset=9) as tar:
        for key, body in sorted(objects.items()):
            entry = tarfile.TarInfo(key)
            entry.size = len(body)
            tar.addfile(entry, io.BytesIO(body))
    return out.getvalue()


def _commit() -> str:
    said = subprocess.run(["git", "rev-parse", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=True)  # noqa: S607
    return said.stdout.strip()


if __name__ == "__main__":
    sys.exit(main())
