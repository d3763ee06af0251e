"""Follows one record through every hop of the shipped template in the local cloud and prints what each leaves.

    .venv/bin/python scripts/follow_record.py

docs/tour.md quotes its output. Texts are invented; annotators are simulated.
"""

from __future__ import annotations

import gzip
import io
import json
import random
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from winnow import layout
from winnow.loop import Loop, to_yaml
from winnow_local.annotators import Annotator, Crowd
from winnow_local.cloud import LocalCloud

TEMPLATE = Path(__file__).resolve().parents[1] / "template.yaml"
TEAM = "arn:aws:sagemaker:us-east-1:123456789012:workteam/private-crowd/"
WORDS = {
    "billing": ("invoice", "charged twice", "refund", "wrong amount", "card declined"),
    "delivery": ("parcel late", "courier", "tracking number", "damaged box", "wrong address"),
    "other": ("password", "newsletter", "opening hours", "gift voucher", "app crashes"),
}
FILLER = (
    "hello",
    "please help",
    "since monday",
    "again",
    "thank you",
    "order",
    "still waiting",
    "my account",
    "urgent",
)
LOOP = {
    "task": {"kind": "text", "classes": list(WORDS), "guideline": "Choose what the writer wants solved first."},
    "batches": {"size": 80},
    "acquisition": {"arms": {"evaluation_target": 40, "control": 0.2}},
    "training": {"min_labels": 10, "members": 2},
    "gate": {"min_records": 20, "planned_looks": 5},
    "rollout": {"canary_percent": 50},
}


def tickets(count: int, *, rng: random.Random) -> list[dict[str, str]]:
    """Invented support tickets; every fourth names an e-mail address."""
    rows = []
    for number in range(count):
        topic = list(WORDS)[number % len(WORDS)]
        parts = [*rng.sample(WORDS[topic], 2), *rng.sample(FILLER, 3)]
        rng.shuffle(parts)
        if number % 4 == 0:
            parts.append(f"write to user{number}@example.com")
        rows.append({"id": f"ticket-{number:03d}", "text": ", ".join(parts)})
    return rows


def truth(task: Mapping[str, object]) -> str:
    """What a person who reads the text knows."""
    return next(topic for topic, words in WORDS.items() if any(word in str(task["text"]) for word in words))


class Follower:
    """Reads a stack's data bucket and prints what it finds."""

    def __init__(self, cloud: LocalCloud) -> None:
        self.cloud = cloud
        self._bucket = cloud.outputs["DataBucket"]

    def get(self, key: str) -> bytes:
        body: bytes = self.cloud.client("s3").get_object(Bucket=self._bucket, Key=key)["Body"].read()
        return gzip.decompress(body) if key.endswith(".gz") else body

    def keys(self, prefix: str) -> list[str]:
        found = self.cloud.client("s3").list_objects_v2(Bucket=self._bucket, Prefix=prefix).get("Contents", [])
        return [entry["Key"] for entry in found]

    def lines(self, key: str) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.get(key).decode().splitlines() if line]

    def say(self, title: str, key: str, body: Any) -> None:
        print(f"\n## {title}\n{key}\n{json.dumps(short(body), indent=1, ensure_ascii=False)}")


def short(value: Any, *, depth: int = 0) -> Any:
    """A value short enough to read: the first of long lists, rounded floats."""
    if isinstance(value, dict):
        return {name: short(item, depth=depth + 1) for name, item in value.items()}
    if isinstance(value, list):
        kept = [short(item, depth=depth + 1) for item in value[:3]]
        return kept if len(value) <= 3 else [*kept, f"... {len(value) - 3} more"]
    return round(value, 4) if isinstance(value, float) else value


def main() -> int:
    """Run one round and print the walk of one record of it."""
    parameters = {
        "WorkteamArn": TEAM + "crowd",
        "ExpertWorkteamArn": TEAM + "experts",
        "SelectSchedule": "rate(6 hours)",
    }
    with LocalCloud(TEMPLATE, parameters=parameters) as cloud:
        for team in ("crowd", "experts"):
            people = [
                Annotator.skilled(f"{team}-{number}", accuracy=0.97, classes=len(WORDS), seconds_per_item=60.0)
                for number in range(5)
            ]
            cloud.labeling.employ(team, Crowd(people, truth, classes=list(WORDS)))
        s3 = cloud.client("s3")
        s3.put_object(
            Bucket=cloud.outputs["DataBucket"], Key=layout.LOOP, Body=to_yaml(Loop.model_validate(LOOP)).encode()
        )  # fmt: skip
        rows = tickets(300, rng=random.Random(0))
        body = "".join(json.dumps(row) + "\n" for row in rows) + '{"id": "ticket-300", "text": ""}\n'
        s3.put_object(Bucket=cloud.outputs["PoolBucket"], Key="tickets/march.jsonl", Body=body.encode())
        follower = Follower(cloud)
        cloud.run(condition=lambda: bool(follower.keys(layout.CHAMPION)), limit_days=20)
        runtime = cloud.client("sagemaker-runtime")
        asked = json.dumps({"instances": [{"text": "wrong amount on my invoice, reach me at eve@example.com"}]})
        answer = runtime.invoke_endpoint(
            EndpointName="winnow", ContentType="application/json", InferenceId="request-1", Body=asked
        )["Body"].read()  # fmt: skip
        cloud.advance(days=1)
        walk(follower, asked=asked, answer=answer)
    return 0


def walk(follower: Follower, *, asked: str, answer: bytes) -> None:
    """Print the artifacts of one record that was asked in the first batch."""
    say, lines = follower.say, follower.lines
    plans = {key: json.loads(follower.get(key)) for key in follower.keys("batches/") if key.endswith("plan.json")}
    batch_key, plan = min(plans.items(), key=lambda item: item[1]["created_at"])
    records = {row["id"]: row for row in lines(plan["choices"][0]["records"])}
    choice = next(
        one for one in plan["choices"] if one["arm"] == "active" and "[EMAIL]" in records[one["id"]].get("text", "")
    )
    identity, batch = choice["id"], plan["batch"]
    oid = choice["oid"]
    say("1 ingest_object: canonical record", choice["records"], records[identity])
    row = next(one for one in lines(layout.occurrences(oid)) if one.get("content") == identity)
    say("1 ingest_object: occurrence", layout.occurrences(oid), row)
    say("1 ingest_object: quarantine", layout.quarantine(oid), lines(layout.quarantine(oid))[0])
    for model in ("bootstrap-text", json.loads(follower.get(layout.CHAMPION))["model"]):
        key = layout.scores(model, choice["records"])
        with np.load(io.BytesIO(follower.get(key)), allow_pickle=False) as columns:
            place = columns["id"].tolist().index(identity)
            shown = {
                name: values[place].tolist() if values.ndim == 1 else f"{values.shape[1]} x {values.dtype}"
                for name, values in columns.items()
            }
        say(f"2 score_records under {model}", key, shown)
    candidates = follower.keys(f"{layout.CANDIDATES}bootstrap-text/")
    print(f"\n## 3 index_candidates\n{candidates}")
    say("4 select_batch: plan", batch_key, {**plan, "choices": [choice, f"... {len(plan['choices']) - 1} more"]})
    line = next(one for one in lines(layout.manifest(batch)) if one["candidate_id"] == identity)
    say("4 select_batch: manifest", layout.manifest(batch), line)
    prepared = [call for call in follower.cloud.invocations if call.function.endswith("prepare_task")]
    print(f"\n## 5 prepare_task was called {len(prepared)} times, by {prepared[0].invoker}")
    label = next(one for one in lines(layout.labels(batch)) if one["id"] == identity)
    say("7 collect_labels: label", layout.labels(batch), label)
    champion = json.loads(follower.get(layout.CHAMPION))
    version, model = champion["dataset"], champion["model"]
    say("7 collect_labels: dataset", layout.dataset(version), json.loads(follower.get(layout.dataset(version))))
    say("7 collect_labels: head", layout.HEAD, json.loads(follower.get(layout.HEAD)))
    entry = [one for one in lines(layout.dataset_part(version, "train")) if one["id"] == identity]
    say("7 collect_labels: dataset line", layout.dataset_part(version, "train"), entry)
    say("8 plan_training: spec", layout.training_spec(model), json.loads(follower.get(layout.training_spec(model))))
    say("8 publish_model", layout.model(model), json.loads(follower.get(layout.model(model))))
    print(json.dumps(follower.keys(f"models/{model}/"), indent=1))
    say("8 evaluate_challenger", layout.gate_report(model), json.loads(follower.get(layout.gate_report(model))))
    key = layout.deployment_report(model)
    say("8 settle_deployment", key, json.loads(follower.get(key)))
    say("8 settle_deployment: champion", layout.CHAMPION, champion)
    print(f"\n## request and answer\n{asked}\n{json.dumps(short(json.loads(answer)))}")
    for key in follower.keys(layout.CAPTURE)[:1]:
        say("data capture", key, lines(key)[0])
    for key in follower.keys(layout.PRODUCTION)[:1]:
        say("10 watch_production", key, lines(key)[0])
    back = [row for key in follower.keys(layout.RECORDS) for row in lines(key) if row["origin"] == "production"]
    say("1 ingest_object again", f"{layout.RECORDS}...", back[:1])
    print("\n## who woked whom")
    for name in dict.fromkeys(call.function for call in follower.cloud.invocations):
        callers = [call.invoker for call in follower.cloud.invocations if call.function == name]
        print(f"{len(callers):5d}  {name}  <- {callers[0]}")


if __name__ == "__main__":
    sys.exit(main())
