"""The command line against the local cloud: what one stack exports makes the same in another; a model from elsewhere reigns."""

from __future__ import annotations

import gzip
import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.cloud.stack import LOOP, ROOT, Stack, deployed, jsonl, sentences, text_truth
from winnow import layout
from winnow.steps.accounting import check_invariants
from winnow_cli.main import main

pytestmark = pytest.mark.cloud

TEXTS = sentences(160)
NO_ENDPOINT = {"EndpointEnabled": "false"}


@pytest.fixture(autouse=True)
def _environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """What commands set for the length of a process."""
    for name in ("WINNOW_STACK", "WINNOW_ACCOUNT", "AWS_REGION"):
        monkeypatch.setenv(name, "winnow" if name == "WINNOW_STACK" else "us-east-1")
    monkeypatch.delenv("AWS_ENDPOINT_URL", raising=False)


def broken(stack: Stack) -> dict[str, str]:
    return {name: check.detail for name, check in check_invariants(stack.ports()).items() if not check.ok}


def test_export_and_import_into_an_empty_stack_make_the_same_datasets(tmp_path: Path) -> None:
    seeds = tmp_path / "seeds.csv"
    seeds.write_text("note;sentiment\n" + "".join(f"{text};{text_truth({'text': text})}\n" for text in TEXTS[:40]))
    untrained = {**LOOP, "training": {"min_labels": 1000}}
    with deployed(loop=untrained, parameters=NO_ENDPOINT) as stack:
        stack.employ()
        stack.drop("reviews.jsonl", jsonl(TEXTS[40:]))
        stack.cloud.advance(hours=1)
        assert main(["import", "labels", str(seeds), "--label", "sentiment", "--text", "note", "--by", "ada"]) == 0
        assert stack.cloud.run(condition=lambda: stack.ended("improve", 2), limit_days=20)
        assert main(["export", "datasets", str(tmp_path / "out"), "--format", "parquet"]) == 0
        version = json.loads((tmp_path / "out" / "dataset.json").read_bytes())["version"]
        description = stack.json(layout.dataset(version))
        assert broken(stack) == {}
    assert len(description["batches"]) > 1
    assert set(description["by_arm"]) >= {"imported", "active", "control"}

    with deployed(parameters=NO_ENDPOINT) as stack:
        assert main(["import", "labels", str(tmp_path / "out")]) == 0
        stack.run_improve()

        assert stack.json(layout.HEAD)["version"] == version
        assert stack.json(layout.dataset(version)) == description
        assert stack.champion() is not None
        assert stack.table("BUDGET") == []
        imported = [one for one in stack.lines("labels/i") if one["arm"] == "imported"]
        assert {one["source"]["first"]["by"] for one in imported} == {"ada"}
        assert broken(stack) == {}
        assert stack.errors() == []


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A package as `training/train.py` leaves it for a person."""
    folder = tmp_path_factory.mktemp("trained")
    data = folder / "data.jsonl.gz"
    rows = [json.dumps({"text": text, "label": text_truth({"text": text})}) for text in sentences(120, seed=7)]
    data.write_bytes(gzip.compress("\n".join(rows).encode()))
    command = ["--train", str(data), "--kind", "text", "--model-dir", str(folder / "model"), "--members", "2"]
    subprocess.run(
        [sys.executable, str(ROOT / "training" / "train.py"), *command], check=True, capture_output=True,
        env={"PYTHONPATH": f"{ROOT / 'layers' / 'core'}:{ROOT / 'training'}"},
    )  # fmt: skip
    return folder / "model"


def changed(package: Path, folder: Path, **fields: object) -> Path:
    """A copy of a package whose card says something else."""
    folder.mkdir()
    (folder / "model.onnx").write_bytes((package / "model.onnx").read_bytes())
    card = json.loads((package / "model.json").read_bytes())
    (folder / "model.json").write_text(json.dumps({**card, **fields}))
    return folder


def test_an_imported_champion_serves_and_scores_the_pool(
    package: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = json.loads((package / "model.json").read_bytes())["model"]
    with deployed() as stack:
        stack.drop("reviews.jsonl", jsonl(TEXTS))
        stack.cloud.advance(hours=1)

        assert main(["import", "model", str(package), "--by", "ada"]) == 0
        stack.run_improve()
        stack.cloud.advance(hours=2)

        champion = stack.json(layout.CHAMPION)
        assert (champion["model"], champion["previous"], champion["dataset"]) == (model, "bootstrap-text", None)
        assert set(stack.scored(model)) == {record["id"] for record in stack.lines(layout.RECORDS)}
        assert (
            stack.cloud.client("sagemaker")
            .describe_endpoint(EndpointName="winnow")["EndpointConfigName"]
            .endswith(model)
        )
        answer = stack.cloud.client("sagemaker-runtime").invoke_endpoint(
            EndpointName="winnow", ContentType="application/json", Body=json.dumps({"instances": [{"text": TEXTS[1]}]})
        )
        assert json.loads(answer["Body"].read())["predictions"][0]["label"] == text_truth({"text": TEXTS[1]})
        assert stack.json(layout.gate_report(model))["reasons"][0]["message"].startswith("imported by ada at ")
        assert broken(stack) == {}
        assert stack.errors() == []

        # It is the model to beat, and no other import takes its place without a reason.
        another = changed(package, tmp_path / "another", model="another")
        assert main(["import", "model", str(another)]) == 2
        assert f"{model} is the champion; to replace it say why: --replace REASON" in capsys.readouterr().err
        assert main(["import", "model", str(another), "--replace", "knows the new products"]) == 0
        stack.run_improve(2)
        assert stack.json(layout.CHAMPION)["model"] == "another"
        stack.cloud.advance(hours=2)
        assert broken(stack) == {}


MALFORMED = {
    "classes of model.json is ['positive', 'negative'], task.classes of loop.yaml": {
        "classes": ["positive", "negative"]
    },
    "masker of model.json is '99'": {"masker": "99"},
    "kind is 'video'; use one of text, image, table": {"kind": "video"},
    "files['model.onnx'] has another sha256": {"files": {"model.onnx": "0" * 64}},
    "temperature is -1": {"temperature": -1},
    "outputs": {"outputs": {"probabilities": "nothing"}},
    "model of model.json is 'bootstrap-mine'": {"model": "bootstrap-mine"},
}


def test_a_malformed_model_is_refused_with_the_field_named(
    package: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with deployed(loop=LOOP, parameters=NO_ENDPOINT) as stack:
        for number, (said, change) in enumerate(MALFORMED.items()):
            assert main(["import", "model", str(changed(package, tmp_path / str(number), **change))]) == 2
            assert said in capsys.readouterr().err

        assert stack.keys("training-output/") == []
        assert stack.executions("improve") == {}
