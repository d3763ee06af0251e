"""A wrong loop.yaml or a wrong model package is refused before anything is spent, with field and remedy."""

from __future__ import annotations

import io
import tarfile

import pytest

from tests.cloud.stack import LOOP, Stack, deployed, events, jsonl, sentences
from winnow import layout
from winnow.steps.accounting import account, check_invariants

pytestmark = pytest.mark.cloud

WRONG_LOOPS = {
    "batches: {sise: 3}": ("batches.sise: unknown field", "known here: adaptive, max_open, min_size, minutes, size"),
    "acquisition: {strategy: magic}": (
        "acquisition.strategy: strategy 'magic' is unknown",
        "choose one of bald, consensus_kl, density_weighted, entropy",
    ),
    "acquisition: {strategy: bald}\ntraining: {members: 0}": (
        "acquisition.strategy: bald asks a committee",
        "choose one of",
    ),
    "budget: {total_usd: -1}": ("budget.total_usd: ", "greater than or equal to 0"),
    "gate: {min_records: 400}": ("gate.min_records is above", "evaluation_target"),
    "task: [": ("loop.yaml: not YAML", "line 1"),
    "- task": ("the top level must be a mapping", "task:"),
}


def test_a_wrong_loop_file_is_refused_before_anything_is_spent() -> None:
    with deployed(parameters={"SelectSchedule": "rate(1 hour)"}) as stack:
        stack.employ()
        stack.drop("reviews.jsonl", jsonl(sentences(80)))
        stack.cloud.advance(hours=0.25)
        assert len(stack.scored("bootstrap-text")) == 80

        for document, (field, remedy) in WRONG_LOOPS.items():
            stack.configure(document.encode())
            for hop, event in (
                ("select_batch", "schedule_select_batch.json"),
                ("ingest_object", "sqs_ingest_object_created.json"),
            ):
                _, error = stack.cloud.invoke(f"winnow-{hop}", events(event))
                assert error is not None
                assert error["errorType"] == "ConfigError"
                assert field in error["errorMessage"]
                assert remedy in error["errorMessage"]
        stack.drop("more.jsonl", jsonl(sentences(10, seed=1)))
        stack.cloud.advance(hours=8)

        assert stack.table("BATCH") == stack.table("BUDGET") == stack.table("RESERVATION") == []
        assert stack.cloud.client("sagemaker").list_labeling_jobs()["LabelingJobSummaryList"] == []
        assert account_of(stack) == {"scored": 80, "dead_lettered": 1}
        assert stack.dead_letters().keys() == {"winnow-ingest-dlq", "winnow-async-dlq"}

        stack.configure({**LOOP, "budget": {"total_usd": 15}})
        stack.cloud.advance(hours=14)

        assert account_of(stack) == {"scored": 90}
        assert [batch["status"] for batch in stack.table("BATCH")] == ["collected"]


def account_of(stack: Stack) -> dict[str, int]:
    """The ledger without zeros and its sum, made with the adapters: it needs no valid loop.yaml of its own."""
    before = stack.get(layout.LOOP)
    stack.configure(LOOP)
    totals = account(stack.ports()).to_json()
    stack.configure(before)
    return {name: count for name, count in totals.items() if count and name != "in"}


def tampered(archive: bytes) -> bytes:
    """The same archive with one byte of its graph changed."""
    out = io.BytesIO()
    with tarfile.open(fileobj=io.BytesIO(archive)) as old, tarfile.open(fileobj=out, mode="w:gz") as new:
        for entry in old.getmembers():
            file = old.extractfile(entry)
            body = file.read() if file else b""
            if entry.name.removeprefix("./") == "model.onnx":
                body = body[:-1] + bytes([body[-1] ^ 1])
            new.addfile(entry, io.BytesIO(body))
    return out.getvalue()


def test_a_tampered_model_is_refused_and_the_champion_stays() -> None:
    with deployed(loop={**LOOP, "budget": {"total_usd": 15}}) as stack:
        stack.employ()
        stack.drop("reviews.jsonl", jsonl(sentences(120)))
        artifacts = "training-output/"
        assert stack.cloud.run(condition=lambda: bool(stack.keys(artifacts)), limit_days=5)
        (key,) = stack.keys(artifacts)
        stack.put(key, tampered(stack.get(key)))

        stack.run_improve()

        (execution,) = stack.executions("improve").values()
        (report,) = [stack.json(each) for each in stack.keys("reports/") if each.endswith("/publish.json")]
        assert (execution["status"], execution["error"]) == ("FAILED", "BadModel")
        assert "model.onnx" in execution["cause"]
        assert "model.onnx" in report["reason"]
        assert stack.champion() is None
        assert stack.keys(layout.MODELS) == []
        sagemaker = stack.cloud.client("sagemaker")
        assert sagemaker.list_model_packages(ModelPackageGroupName="winnow")["ModelPackageSummaryList"] == []
        assert sagemaker.list_endpoints()["Endpoints"] == []

        stack.cloud.advance(days=1)  # reconcile tries the dataset again, and it ends as it must

        ends = {name: each["status"] for name, each in stack.executions("improve").items()}
        assert list(ends.values()) == ["FAILED", "SUCCEEDED"]
        assert len(sagemaker.list_training_jobs()["TrainingJobSummaries"]) == 1
        assert stack.champion() is None
        assert {name for name, verdict in check_invariants(stack.ports()).items() if not verdict.ok} == set()
