"""What earlier versions of the code stored is read, and driven on by this one: one small store a release, in tests/stores.

scripts/keep_store.py makes a store; docs/upgrades.md lists the formats.
"""

from __future__ import annotations

import base64
import gzip
import io
import json
import sys
import tarfile
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.fakes import FakeClock, MemoryPool, MemoryStore, MemoryTable, make_ports
from winnow import layout
from winnow.aws.packages import PublishedModels
from winnow.errors import BadInput, ConfigError
from winnow.loop import parse
from winnow.ports import Answer
from winnow.records import Label, Occurrence, Record, from_jsonl
from winnow.steps import documents, labeled, pointers
from winnow.steps.accounting import account, check_invariants
from winnow.steps.batches import read_plan
from winnow.steps.candidates import Candidates
from winnow.steps.collect_labels import collect_labels
from winnow.steps.deploy_challenger import deploy_challenger
from winnow.steps.evaluate_challenger import evaluate_challenger
from winnow.steps.index_candidates import index_candidates
from winnow.steps.ingest_object import ingest_object
from winnow.steps.plan_training import plan_training
from winnow.steps.publish_model import publish_model
from winnow.steps.reconcile import reconcile
from winnow.steps.report_health import report_health
from winnow.steps.score_records import ScoreRequest, score_records
from winnow.steps.select_batch import SelectRequest, select_batch
from winnow.steps.settle_deployment import settle_deployment
from winnow_cli.export import export

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "scripts"))

import keep_store

STORES = Path(__file__).resolve().parents[1] / "stores"
RELEASES = sorted((path.name for path in STORES.iterdir()), key=lambda name: int(name.removeprefix("v")))


@dataclass
class Driven:
    """A store and what the present code made of it; `old` is as it was kept."""

    ports: Any
    old: dict[str, bytes]
    about: dict[str, Any]
    said: dict[str, Any] = field(default_factory=dict)

    def old_json(self, key: str) -> Any:
        return json.loads(self.old[key])

    def under(self, prefix: str) -> list[str]:
        return sorted(key for key in self.old if key.startswith(prefix))

    def items(self, pk: str) -> list[dict[str, Any]]:
        """The table's items as they were kept."""
        return [item for item in self.about["items"] if item["pk"] == pk]


def kept(release: str) -> Driven:
    """The store of a release as ports, with the stack's own models and without an endpoint."""
    about = json.loads((STORES / release / "store.json").read_text())
    data, table = MemoryStore("winnow-data-123456789012-us-east-1"), MemoryTable()
    with tarfile.open(STORES / release / "data.tar.xz") as tar:
        for member in tar:
            data.objects[member.name] = tar.extractfile(member).read()  # type: ignore[union-attr]
    for item in about["items"]:
        table.put(item["pk"], item["sk"], item)
    ports = make_ports(
        loop=parse(data.objects[layout.LOOP].decode()), data=data, table=table, pool=MemoryPool(),
        clock=FakeClock(datetime.fromisoformat(about["at"])), models=PublishedModels(data),  # type: ignore[arg-type]
    )  # fmt: skip
    ports.serving.is_enabled = False
    here = Driven(ports, dict(data.objects), about)
    for item in here.items("BATCH"):  # what the labeling backend still knows of jobs that ended
        if item["status"] == "collected":
            found = [Label.from_json(body) for body in from_jsonl(here.old[layout.labels(item["sk"])])]
            answers = {
                label.id: [
                    Answer(raw["worker"], raw["label"], raw["seconds"], label.labeled_at) for raw in label.answers
                ]
                for label in found
                if label.answers
            }
            ports.labeling.finish(str(item["job"]), results={}, answers=answers, total=len(found))
    return here


@pytest.fixture(scope="module", params=RELEASES)
def driven(request: pytest.FixtureRequest) -> Driven:
    """Everything is scored again, the open batch collected and another one asked; the waiting challenger is published, judged
    and perhaps promoted, the next one planned, and a newer version of an object dropped."""
    here = kept(request.param)
    ports, said = here.ports, here.said
    said["reserved"] = {item["sk"]: item["state"] for item in ports.table.query("RESERVATION")}
    said["champion"] = here.old_json(layout.CHAMPION)["model"]
    ports.data.delete(list(ports.data.list(layout.SCORES)))
    said["scored"] = score_records(ScoreRequest(tuple(here.under(layout.RECORDS))), ports).body
    said["scores"] = {key: ports.data.objects[key] for key in ports.data.list(layout.SCORES)}
    index_candidates(ports.queues.sent["candidates"], ports)

    (batch,) = [item["sk"] for item in here.items("BATCH") if item["status"] == "submitted"]
    labels = {choice.id: ports.loop.task.classes[n % 2] for n, choice in enumerate(read_plan(batch, ports).choices)}
    answers = {
        item: [Answer(f"w{n}", label, 8.0, about_now(ports)) for n in range(3)] for item, label in labels.items()
    }
    results = {item: {"label": label, "confidence": 0.99} for item, label in labels.items()}
    ports.labeling.finish(batch, results=results, answers=answers)
    said["batch"], said["collected"] = batch, collect_labels(batch, ports).body
    said["selected"] = select_batch(SelectRequest("manual"), ports).body

    (artifact,) = here.under("training-output/")
    said["waiting"] = model = artifact.split("/")[1].removeprefix(f"{ports.stack}-")
    publish_model({"model": model, "artifact": ports.data.uri(artifact)}, ports)
    dataset = here.old_json(layout.training_spec(model))["dataset"]
    said["verdict"] = evaluate_challenger({"model": model, "dataset": dataset}, ports).body["verdict"]
    if said["verdict"] == "promote":
        deploy_challenger({"model": model, "dataset": dataset}, ports)
        settle_deployment({"model": model}, ports)
    said["planned"] = plan_training({"dataset": said["collected"]["dataset"], "cause": "labels"}, ports).body

    said["superseding"] = newer(here)
    ingest_object(said["superseding"], ports)
    score_records(ScoreRequest(tuple(ports.data.list(layout.RECORDS))), ports)
    index_candidates(ports.queues.sent["candidates"], ports)
    reconcile({}, ports)
    report_health({}, ports)
    return here


def about_now(ports: Any) -> str:
    return str(ports.clock.now().isoformat())


def newer(here: Driven) -> Any:
    """A newer version of the first object: three of its contents, and a new one."""
    (key, oid) = next((item["key"], item["oid"]) for item in here.about["items"] if item["pk"].startswith("OBJECT#"))
    records = [
        body for name in here.under(f"{layout.RECORDS}{oid}/") for body in from_jsonl(gzip.decompress(here.old[name]))
    ]
    images = [here.old[layout.content(body["id"])] for body in records[:3]]
    out = io.BytesIO()
    Image.fromarray(np.arange(144, dtype=np.uint8).reshape(12, 12)).save(out, "PNG")
    rows = [{"image": base64.b64encode(image).decode()} for image in (*images, out.getvalue())]
    item = here.ports.pool.drop(key, "".join(f"{json.dumps(row)}\n" for row in rows).encode())
    return replace(item, bucket="winnow-pool-123456789012-us-east-1", sequencer="F" * 16)


def test_every_artifact_of_an_earlier_version_is_read(driven: Driven) -> None:
    data = MemoryStore()
    data.objects.update(driven.old)
    for key in driven.under(layout.RECORDS):
        assert [Record.from_json(body) for body in from_jsonl(gzip.decompress(driven.old[key]))]
    for key in driven.under(layout.OCCURRENCES):
        assert [Occurrence.from_json(body) for body in from_jsonl(gzip.decompress(driven.old[key]))]
    for key in driven.under(layout.LABELS):
        assert [Label.from_json(body) for body in from_jsonl(driven.old[key])]
    for key in (*driven.under(layout.SCORES), *driven.under(layout.CANDIDATES)):
        assert len(Candidates.from_bytes(driven.old[key])) > 0
    for key in driven.under("datasets/"):
        if key.endswith("/dataset.json"):
            dataset = labeled.load(data, key.split("/")[1])
            assert dataset.task == "classification"
            assert sum(len(labeled.part(data, dataset, role)) for role in ("train", "evaluation")) > 0


def test_labels_of_a_batch_that_was_open_become_the_next_dataset_version(driven: Driven) -> None:
    before = driven.old_json(layout.dataset(driven.old_json(layout.HEAD)["version"]))
    after = driven.ports.data.json(layout.dataset(pointers.head(driven.ports.data)[0]))

    assert after["parent"] == before["version"]
    assert after["batches"] == [*before["batches"], driven.said["batch"]]
    assert driven.said["collected"]["labeled"] == len(read_plan(driven.said["batch"], driven.ports).choices)
    held = {entry["batch"] for entry in after["held_out"]}
    assert held or sum(after["counts"].values()) == sum(before["counts"].values()) + driven.said["collected"]["labeled"]


def test_a_challenger_that_was_ordered_before_the_upgrade_is_published_and_judged(driven: Driven) -> None:
    report = documents.document(driven.ports.data, layout.gate_report(driven.said["waiting"]))

    assert driven.ports.data.json(layout.model(driven.said["waiting"]))["model"] == driven.said["waiting"]
    assert driven.said["verdict"] == report["verdict"] in ("promote", "reject", "inconclusive")
    assert report["champion"] == driven.said["champion"]
    assert 0.0 <= report["challenger"]["accuracy"] <= 1.0
    assert driven.said["planned"]["decision"] == "train"


def test_scoring_again_gives_the_scores_that_were_stored(driven: Driven) -> None:
    keys = driven.under(f"{layout.SCORES}{driven.said['champion']}/")

    assert driven.said["scored"]["failed"] == {}
    assert keys
    for key in keys:
        before, after = Candidates.from_bytes(driven.old[key]), Candidates.from_bytes(driven.said["scores"][key])
        assert after.id.tolist() == before.id.tolist()
        assert after.prediction.tolist() == before.prediction.tolist()
        np.testing.assert_allclose(after.confidence, before.confidence, atol=1e-5)
        np.testing.assert_allclose(after.embedding, before.embedding, atol=2e-3)
        for name, scores in before.scores.items():
            np.testing.assert_allclose(after.scores[name], scores, atol=1e-4)


def test_a_new_batch_asks_nothing_that_was_asked(driven: Driven) -> None:
    chosen = driven.said["selected"]["batch"]

    choices = read_plan(chosen, driven.ports).choices
    asked = {choice.id for choice in choices if choice.arm != "recheck"}
    assert len(asked) > 3
    # Only what nobody had answered may be asked again.
    assert {driven.said["reserved"].get(item, "free") for item in asked} <= {"free", "expired"}
    assert {driven.ports.table.get(layout.RESERVATION, item.id)["batch"] for item in choices} == {chosen}


def test_a_newer_version_of_an_old_object_supersedes_it(driven: Driven) -> None:
    oid = layout.object_id(driven.said["superseding"])
    rows = [
        Occurrence.from_json(body)
        for body in from_jsonl(gzip.decompress(driven.ports.data.objects[layout.occurrences(oid)]))
    ]

    assert len(rows) == 4
    assert {row.status for row in rows} <= {"accepted", "duplicate"}
    assert [item["by"] for item in driven.ports.table.query("SUPERSEDED")] == [oid]


def test_every_invariant_holds_afterwards(driven: Driven) -> None:
    ports = driven.ports
    verdicts = check_invariants(ports, ledger=account(ports))

    assert {name: verdict.detail for name, verdict in verdicts.items() if not verdict.ok} == {}


def test_the_newest_store_has_the_formats_that_this_code_writes(driven: Driven) -> None:
    newest = json.loads((STORES / RELEASES[-1] / "store.json").read_text())["formats"]
    written = {key: body for key, body in driven.ports.data.objects.items() if driven.old.get(key) != body}

    now = {name: version for name, version in keep_store.formats(written).items() if name in newest}

    assert len(now) >= 10
    assert now == {name: newest[name] for name in now}, (
        "a format has a new version: keep a store, scripts/keep_store.py"
    )


@pytest.mark.parametrize("release", RELEASES)
def test_an_old_store_is_exported(release: str, tmp_path: Path) -> None:
    here = kept(release)
    counts = here.old_json(layout.dataset(here.old_json(layout.HEAD)["version"]))["counts"]
    records = sum(len(gzip.decompress(here.old[key]).splitlines()) for key in here.under(layout.RECORDS))

    told = export("datasets", here.ports, tmp_path / "datasets", form="jsonl")
    pool = export("pool", here.ports, tmp_path / "pool.jsonl", form="jsonl")

    assert told["rows"] == {role: count for role, count in counts.items() if count}
    assert pool["rows"] == {"pool": records}


@pytest.mark.parametrize("key", [layout.HEAD, layout.CHAMPION])
def test_a_document_of_a_later_version_is_refused_by_name(key: str) -> None:
    with pytest.raises(ConfigError, match=rf"{key} has format 2, this code reads 1"):
        documents.parsed(key, b'{"format": 2}')


def test_columns_of_a_later_version_are_refused() -> None:
    here = kept(RELEASES[0])
    with np.load(io.BytesIO(here.old[here.under(layout.CANDIDATES)[0]]), allow_pickle=False) as columns:
        out = io.BytesIO()
        np.savez(out, format=np.array(2), **columns)

    with pytest.raises(BadInput, match="candidate columns have format 2, this code reads 1"):
        Candidates.from_bytes(out.getvalue())
