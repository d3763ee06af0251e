"""A training job as the container runs it: the unpacked source archive alone on the path, an /opt/ml-shaped folder."""

from __future__ import annotations

import base64
import gzip
import io
import json
import os
import subprocess
import sys
import tarfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from source import build_source_archive, serving_files

from winnow.models.package import ModelCard
from winnow.onnx.check import check_package
from winnow.onnx.runtime import OnnxModel
from winnow.privacy.masking import MASKER_VERSION

SITE = [path for path in sys.path if path.endswith("site-packages")]
WORDS = {
    "card": ("card", "plastic", "chip", "contactless", "pin"),
    "loan": ("loan", "mortgage", "interest", "repay", "credit"),
    "transfer": ("transfer", "send", "recipient", "iban", "wire"),
}
FILLER = ("please", "help", "me", "with", "the", "my", "today", "now", "why")


def texts(count: int, *, classes: tuple[str, ...] = ("card", "loan", "transfer")) -> list[dict[str, Any]]:
    rng = np.random.default_rng(0)
    rows = []
    for number in range(count):
        label = classes[number % len(classes)]
        chosen = [*rng.choice(WORDS[label], 2), *rng.choice(FILLER, 5)]
        rows.append({"text": " ".join(rng.permutation(chosen)), "label": label})
    return rows


def pictures(count: int) -> list[dict[str, Any]]:
    """Red, green and blue stripes, across for one class and down for the other."""
    rng = np.random.default_rng(0)
    rows = []
    for number in range(count):
        stripes = np.zeros((24, 30, 3), np.uint8)
        stripes[::4, :, number % 3] = stripes[1::4, :, number % 3] = 220
        pixels = stripes if number % 2 else stripes.transpose(1, 0, 2)
        noisy = (pixels + rng.integers(0, 30, pixels.shape)).astype(np.uint8)
        out = io.BytesIO()
        Image.fromarray(noisy).save(out, format="PNG")
        image = {"ref": "", "width": 30, "height": 24, "png": base64.b64encode(out.getvalue()).decode()}
        rows.append({"image": image, "label": ("down", "across")[number % 2]})
    return rows


def houses(count: int, *, regression: bool = False) -> list[dict[str, Any]]:
    """Rows of a table: rooms and a quarter decide about the price, a letter and an id do not."""
    rng = np.random.default_rng(0)
    rows = []
    for number in range(count):
        rooms, quarter = float(rng.integers(1, 8)), str(rng.choice(["harbour", "hill", "centre"]))
        price = 50.0 * rooms + {"harbour": 100.0, "hill": 0.0, "centre": 40.0}[quarter]
        row = {
            "rooms": rooms if number % 9 else None,
            "quarter": quarter,
            "letter": "ab"[number % 2],
            "ID": 7.0 * number,
        }
        rows.append({"row": row, "label": price if regression else "dear" if price > 220 else "cheap"})
    return rows


@dataclass
class Job:
    """One run of train.py: its folder, exit status and output."""

    root: Path
    status: int
    out: str
    err: str

    @property
    def model(self) -> Path:
        return self.root / "model"

    def json(self, name: str) -> Any:
        return json.loads((self.model / name).read_bytes())


def run_job(
    root: Path,
    rows: list[dict[str, Any]],
    *,
    reverse: bool = False,
    channels: dict[str, dict[str, bytes]] | None = None,
    **spec: Any,
) -> Job:
    """Run one job; `channels` are further files, by channel and name."""
    arms = ("active", "active", "control", "rare")
    lines = [
        {"id": f"c{number:04d}", "cluster": f"k{number}", "arm": arms[number % 4], "batch": number // 8, **row}
        for number, row in enumerate(rows)
    ]
    body = {
        "format": 1, "model": "m-7", "task": "classification", "masker": MASKER_VERSION, "dataset": "d-7", "seed": 1,
        "members": 2, "kind": next((kind for kind in ("image", "row") if kind in rows[0]), "text").replace("row", "table"),
        "classes": sorted({str(row["label"]) for row in rows}), **spec,
    }  # fmt: skip
    for name in ("train", "spec"):
        (root / "input" / "data" / name).mkdir(parents=True)
    for channel, files in (channels or {}).items():
        for name, content in files.items():
            path = root / "input" / "data" / channel / name
            path.parent.mkdir(exist_ok=True)
            path.write_bytes(content)
    (root / "model").mkdir()
    encoded = "".join(json.dumps(line) + "\n" for line in (lines[::-1] if reverse else lines)).encode()
    (root / "input/data/train/train.jsonl.gz").write_bytes(gzip.compress(encoded))
    (root / "input/data/spec/spec.json").write_text(json.dumps(body))
    with tarfile.open(fileobj=io.BytesIO(build_source_archive())) as archive:
        archive.extractall(root / "code", filter="data")
    environment = {
        "PATH": os.defpath, "LANG": "C", "PYTHONPATH": os.pathsep.join([str(root / "code"), *SITE]),
        "SM_MODEL_DIR": str(root / "model"), "SM_OUTPUT_DIR": str(root / "output"),
        "SM_CHANNEL_TRAIN": str(root / "input/data/train"), "SM_CHANNEL_SPEC": str(root / "input/data/spec"),
        **{f"SM_CHANNEL_{channel.upper()}": str(root / "input/data" / channel) for channel in channels or {}},
    }  # fmt: skip
    done = subprocess.run(
        [sys.executable, "-P", "-W", "error::DeprecationWarning:__main__", "train.py", "--seed", "1"],
        cwd=root / "code", env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    return Job(root=root, status=done.returncode, out=done.stdout, err=done.stderr)


@pytest.fixture(scope="module")
def text_job(tmp_path_factory: pytest.TempPathFactory) -> Job:
    return run_job(tmp_path_factory.mktemp("text"), texts(96), classes=["card", "loan", "never", "transfer"])


@pytest.fixture(scope="module")
def image_job(tmp_path_factory: pytest.TempPathFactory) -> Job:
    return run_job(tmp_path_factory.mktemp("image"), pictures(48))


def test_a_text_job_leaves_a_package_that_passes_the_check(text_job: Job) -> None:
    assert (text_job.status, text_job.err) == (0, "")
    card = check_package(text_job.model)

    assert (card.model, card.dataset, card.masker) == ("m-7", "d-7", MASKER_VERSION)
    assert card.classes == ("card", "loan", "never", "transfer")
    assert card.outputs.members == "members"
    model = OnnxModel.load(text_job.model)
    predictions = model.predict(["the chip of my card", "repay a loan with interest"])
    assert predictions.probabilities.argmax(axis=1).tolist() == [0, 1]
    assert predictions.probabilities[:, 2] == pytest.approx(1 / 100)
    assert predictions.members is not None
    assert predictions.members.shape == (2, 2, 4)
    assert predictions.embedding.shape[1] <= 128


def test_the_figures_are_printed_and_written(text_job: Job) -> None:
    metrics = text_job.json("metrics.json")

    assert metrics["n"] == 96
    assert metrics["classes"] == {"card": 32, "loan": 32, "never": 0, "transfer": 32}
    assert metrics["classes_without_label"] == 1
    assert metrics["cv_accuracy"] > 0.9
    assert f"cv_accuracy={metrics['cv_accuracy']}\n" in text_job.out
    assert "seconds" not in json.dumps(metrics)
    assert ModelCard.from_bytes((text_job.model / "model.json").read_bytes()).temperature == metrics["temperature"]


def test_the_arms_are_fitted_on_equally_many_labels(text_job: Job) -> None:
    for arm in ("active", "control"):
        card = check_package(text_job.model / "arms" / arm)

        assert card.metrics["n"] == 24  # of 48 and 24
        assert card.outputs.members is None
        assert card.classes == ("card", "loan", "never", "transfer")
    assert text_job.json("arms/active/model.json")["files"] != text_job.json("arms/control/model.json")["files"]


def test_the_same_labels_in_another_order_give_the_same_bytes(text_job: Job, tmp_path: Path) -> None:
    again = run_job(tmp_path, texts(96), classes=["card", "loan", "never", "transfer"], reverse=True)

    for name in ("model.onnx", "model.json", "metrics.json", "arms/active/model.onnx", "arms/control/model.onnx"):
        assert (again.model / name).read_bytes() == (text_job.model / name).read_bytes()


def test_a_colour_image_job(image_job: Job) -> None:
    assert (image_job.status, image_job.err) == (0, "")
    card = check_package(image_job.model)

    assert card.payload.shape == (32, 32, 3)
    assert card.metrics["cv_accuracy"] > 0.9
    payloads = [{"image": row["image"]} for row in pictures(6)]
    assert OnnxModel.load(image_job.model).predict(payloads).probabilities.argmax(axis=1).tolist() == [1, 0] * 3


@pytest.fixture(scope="module")
def table_job(tmp_path_factory: pytest.TempPathFactory) -> Job:
    return run_job(tmp_path_factory.mktemp("table"), houses(120), positive_class="dear", columns={})


@pytest.fixture(scope="module")
def number_job(tmp_path_factory: pytest.TempPathFactory) -> Job:
    columns = {"rooms": "number", "quarter": "category"}
    rows = houses(120, regression=True)
    return run_job(tmp_path_factory.mktemp("number"), rows, task="regression", classes=[], columns=columns)


def test_a_table_job(table_job: Job) -> None:
    assert (table_job.status, table_job.err) == (0, "")
    card = check_package(table_job.model)

    assert [(item.kind, item.source) for item in card.payloads] == [
        ("number", "rooms"), ("category", "letter"), ("category", "quarter"),
    ]  # fmt: skip
    assert "column 'ID' is left out" in table_job.out
    assert card.metrics["cv_accuracy"] > 0.85
    assert card.metrics["cv_average_precision"] > 0.85
    predictions = OnnxModel.load(table_job.model).predict([
        {"row": {"rooms": 7.0, "quarter": "harbour"}}, {"row": {"rooms": 1.0, "quarter": "hill", "letter": None}},
    ])  # fmt: skip
    assert predictions.probabilities.argmax(axis=1).tolist() == [1, 0]
    for arm in ("active", "control"):
        arm_card = check_package(table_job.model / "arms" / arm)
        assert arm_card.metrics["n"] == 30
        assert arm_card.metrics["model"] == card.metrics["model"]


def test_a_regression_job(number_job: Job) -> None:
    assert (number_job.status, number_job.err) == (0, "")
    card = check_package(number_job.model)

    assert (card.task, card.classes, card.temperature) == ("regression", (), 1.0)
    assert [item.source for item in card.payloads] == ["rooms", "quarter"]
    assert f"cv_r2={card.metrics['cv_r2']}\n" in number_job.out
    assert card.metrics["cv_r2"] > 0.7  # a ninth of the rooms is missing
    predictions = OnnxModel.load(number_job.model).predict([{"row": {"rooms": 4.0, "quarter": "harbour"}}])
    assert predictions.prediction == pytest.approx([300.0], abs=30.0)
    assert predictions.members.shape == (1, 2)
    assert check_package(number_job.model / "arms" / "active").task == "regression"


@pytest.mark.parametrize("regression", [False, True])
def test_the_same_rows_in_another_order_give_the_same_bytes(regression: bool, tmp_path: Path) -> None:
    spec = {"task": "regression", "classes": []} if regression else {}
    one, same = (
        run_job(tmp_path / str(reverse), houses(60, regression=regression), reverse=reverse, **spec)
        for reverse in (False, True)
    )

    for name in ("model.onnx", "model.json", "metrics.json", "arms/control/model.onnx"):
        assert (one.model / name).read_bytes() == (same.model / name).read_bytes()


@pytest.mark.parametrize("kind", ["text", "image", "table"])
def test_the_model_serves_from_its_own_code_folder(kind: str, request: pytest.FixtureRequest) -> None:
    job: Job = request.getfixturevalue(f"{kind}_job")
    instance, label = {
        "text": ({"text": "send a wire transfer"}, "transfer"),
        "image": ({"image": pictures(1)[0]["image"]["png"]}, "down"),
        "table": ({"row": {"rooms": 7, "quarter": "harbour"}}, "dear"),
    }[kind]
    code = (
        "import inference as i, json, sys\nmodel = i.model_fn(sys.argv[1])\n"
        "data = i.input_fn(sys.argv[2].encode(), 'application/json')\n"
        "print(i.output_fn(i.predict_fn(data, model), 'application/json')[0])"
    )
    done = subprocess.run(
        [sys.executable, "-P", "-c", code, str(job.model), json.dumps({"instances": [instance]})],
        env={"PATH": os.defpath, "PYTHONPATH": os.pathsep.join([str(job.model / "code"), *SITE])},
        cwd=job.model, capture_output=True, text=True, check=True,
    )  # fmt: skip
    answer = json.loads(done.stdout)

    assert answer["model"] == "m-7"
    assert answer["predictions"][0]["label"] == label


@pytest.mark.parametrize(
    ("rows", "spec", "reason"),
    [
        (texts(6, classes=("card",)), {"classes": ["card", "loan"]}, "at least two classes; there are: card (6)"),
        (texts(6), {"classes": ["card", "loan"]}, "labels ['transfer'] are none of the 2 classes"),
        ([{"label": "a"}, {"text": "x", "label": "b"}], {"kind": "text"}, "train.jsonl.gz line 1"),
        ([{"image": {"png": "AAAA"}, "label": label} for label in "ab"], {}, "example c000"),
        (houses(6), {"task": "regression", "classes": []}, "is no number; a regression learns from numbers"),
        ([{"row": [1], "label": "a"}], {}, "field 'row' holds no row"),
        ([{"row": {"x": 1.0}, "label": label} for label in "abab"], {}, "no column tells one row from another"),
        (texts(6), {"format": 2}, "spec.json has format 2"),
        (texts(6), {"task": "regression"}, "spec.json asks for 'regression'"),
    ],
)
def test_a_job_that_cannot_train_says_why(
    tmp_path: Path, rows: list[dict[str, Any]], spec: dict[str, Any], reason: str
) -> None:
    job = run_job(tmp_path, rows, **spec)

    failure = (tmp_path / "output" / "failure").read_text()
    assert job.status == 1
    assert reason in failure
    assert reason in job.err
    assert len(failure) <= 1024


def test_four_labels_train_without_a_comparison_of_arms(tmp_path: Path) -> None:
    job = run_job(tmp_path, texts(4, classes=("card", "loan")))

    assert (job.status, job.err) == (0, "")
    assert check_package(job.model).metrics["n"] == 4
    assert not (job.model / "arms").exists()


def test_the_archive_holds_what_the_scripts_import_and_nothing_that_the_container_lacks() -> None:
    archive = build_source_archive()

    assert build_source_archive() == archive
    with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
        entries = tar.getmembers()
        names = [entry.name for entry in entries]
        sources = {
            entry.name: tar.extractfile(entry).read().decode() for entry in entries if entry.name.endswith(".py")
        }  # type: ignore[union-attr]
    assert names == sorted(names)
    assert {entry.mtime for entry in entries} == {0}
    assert {"train.py", "inference.py", "wheels.lock", "winnow/__init__.py", "winnow/onnx/runtime.py"} <= set(names)
    assert "requirements.txt" not in names  # the toolkit would install it, and a newer protobuf with it
    assert not any(name.startswith("winnow/aws") for name in names)
    # The one thing that ingest shares with training and serving is how it reads CSV.
    assert {name for name in names if name.startswith("winnow/steps")} == {
        "winnow/steps/__init__.py", "winnow/steps/delimited.py", "winnow/steps/streams.py",
    }  # fmt: skip
    for source in sources.values():
        for package in ("boto3", "pydantic", "yaml", "onnx", "skl2onnx"):
            assert f"\nimport {package}\n" not in source
            assert f"\nfrom {package} import" not in source


def test_serving_needs_no_training_code() -> None:
    files = serving_files()

    assert {"inference.py", "vendored.py", "winnow/privacy/masking.py", "winnow/onnx/runtime.py"} <= set(files)
    assert {"table_files.py", "winnow/tables.py"} <= set(files)
    assert not {"train.py", "committee.py", "winnow/onnx/check.py"} & set(files)
