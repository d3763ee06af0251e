"""Training and serving under the container's own toolkits and pins, from what plan_training uploads to a prediction."""

from __future__ import annotations

import base64
import csv
import gzip
import io
import json
import shutil
import tarfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests import encoders
from tests.shipped import container, examples
from tests.shipped.examples import Example
from winnow.aws.packages import unpack
from winnow.onnx.check import check_package
from winnow.onnx.encoder_folder import read_encoder
from winnow.onnx.runtime import OnnxModel
from winnow.privacy.masking import MASKER_VERSION
from winnow_local.training import archive

pytestmark = [pytest.mark.container, pytest.mark.timeout(900)]

JSON, JSON_LINES, CSV = "application/json", "application/x-jsonlines", "text/csv"


@dataclass(frozen=True)
class Case:
    """What a dataset holds, and what the endpoint is asked afterwards."""

    kind: str
    train: Sequence[Example]
    asked: Sequence[Example]
    task: str = "classification"
    encoded: bool = False

    @property
    def classes(self) -> list[str]:
        return [] if self.task == "regression" else sorted({str(label) for _, label in self.train})


CASES = {
    "texts": Case("text", examples.texts(60), examples.texts(6, seed=1)),
    "texts with an encoder": Case("text", examples.texts(60), examples.texts(6, seed=1), encoded=True),
    "images": Case("image", examples.pictures(40), examples.pictures(4, first=40)),
    "rows with classes": Case("table", examples.homes(60), examples.homes(6, seed=1)),
    "rows with numbers": Case(
        "table", examples.homes(60, regression=True), examples.homes(6, seed=1, regression=True), task="regression"
    ),
}


@dataclass(frozen=True)
class Served:
    """A trained and served case: the package here, the container there."""

    case: Case
    model: OnnxModel
    endpoint: container.Endpoint
    log: str

    @property
    def payloads(self) -> list[Any]:
        return [payload for payload, _ in self.case.asked]

    def expected(self, payloads: Sequence[Any]) -> np.ndarray:
        """What the scorer says."""
        said = self.model.predict(payloads)
        return said.probabilities if said.prediction is None else said.prediction[:, None]

    def agrees(self, body: bytes, content_type: str, *, payloads: Sequence[Any] | None = None) -> None:
        status, answer = self.endpoint.invoke(body, content_type)
        assert (status, answer.get("model")) == (200, "m-7"), answer
        rows = [row.get("probabilities", [row.get("prediction")]) for row in answer["predictions"]]
        expected = self.expected(self.payloads if payloads is None else payloads)
        np.testing.assert_allclose(rows, expected, rtol=1e-5 if self.case.task == "regression" else 0, atol=1e-5)


@pytest.fixture(scope="session")
def programs() -> Path:
    return container.environment()


@pytest.fixture(scope="module")
def requests(programs: Path, build: Path, python: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("asked")
    return {**container.asked(build, python, folder), "source": folder / "sourcedir.tar.gz"}


@pytest.fixture(scope="module", params=CASES)
def served(
    request: pytest.FixtureRequest,
    programs: Path,
    requests: Mapping[str, Any],
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Served]:
    """One container trains, another one serves what it left."""
    case, root = CASES[request.param], tmp_path_factory.mktemp("container")
    status, log = trained(case, root / "training", programs, requests)
    assert status == 0, log[-3000:]
    left = archive(root / "training/opt/ml/model")

    with tarfile.open(fileobj=io.BytesIO(left)) as tar:
        tar.extractall(root / "serving/opt/ml/model", filter="data")
    unpack(left, root / "published")
    check_package(root / "published")
    given = requests["model"]["PrimaryContainer"]["Environment"]
    with container.serve(programs, root / "serving", given) as endpoint:
        yield Served(case, OnnxModel.load(root / "published"), endpoint, log)


def trained(case: Case, root: Path, programs: Path, requests: Mapping[str, Any]) -> tuple[int, str]:
    """The channels as SageMaker downloads them, and the job that plan_training orders."""
    channels = root / "opt/ml/input/data"
    for name in ("train", "spec", "code"):
        (channels / name).mkdir(parents=True)
    lines = [
        {
            "id": f"c{number:04d}", "cluster": f"k{number}", "arm": ("active", "control")[number % 2], "batch": 1,
            "label": label, "confidence": 1.0, "role": "train", **payload,
        }
        for number, (payload, label) in enumerate(case.train)
    ]  # fmt: skip
    spec = {
        "format": 1, "model": "m-7", "task": case.task, "kind": case.kind, "classes": case.classes, "columns": {},
        "positive_class": None, "masker": MASKER_VERSION, "dataset": "d-7", "seed": 1, "members": 2,
    }  # fmt: skip
    (channels / "train/train.jsonl.gz").write_bytes(
        gzip.compress("".join(f"{json.dumps(line)}\n" for line in lines).encode())
    )
    (channels / "spec/spec.json").write_text(json.dumps(spec))
    shutil.copy(requests["source"], channels / "code")
    order = requests["training"]
    if case.encoded:
        order = {
            **order,
            "InputDataConfig": [*order["InputDataConfig"], {**order["InputDataConfig"][0], "ChannelName": "encoder"}],
        }
        spec["encoder"] = encoder(channels / "encoder", root / "encoder")
        (channels / "spec/spec.json").write_text(json.dumps(spec))
    return container.train(programs, root, order)


def encoder(channel: Path, source: Path) -> str:
    """Fill a channel with an encoder that knows the words of `examples.texts`; gives its digest."""
    words = [word for group in examples.WORDS.values() for word in group]
    table = np.random.default_rng(0).normal(size=(len(words) + 2, 8))
    encoders.folder(source, {"model.onnx": encoders.text_graph(table), "tokenizer.json": encoders.tokenizer(words)})
    card, files = read_encoder(source)
    encoders.folder(channel, {**files, "encoder.json": {"format": 1, **card.to_json()}})
    return card.digest


def flat(payload: Mapping[str, Any]) -> dict[str, Any]:
    """An instance as applications write it."""
    if "image" in payload:
        return {"image": payload["image"]["png"]}
    return dict(payload.get("row", payload))


def test_the_toolkit_trains_what_plan_training_orders_and_gunicorn_serves_it(served: Served) -> None:
    assert "Reporting training SUCCESS" in served.log
    assert served.endpoint.ping() == 200
    assert (served.model.card.encoder is not None) == served.case.encoded
    assert (served.model.card.task, served.model.card.kind) == (served.case.task, served.case.kind)
    said = served.expected(served.payloads)
    if served.case.task == "classification":
        labels = [served.model.card.classes[place] for place in said.argmax(axis=1)]
        right = [said == label for said, (_, label) in zip(labels, served.case.asked, strict=True)]
        assert sum(right) / len(right) > 0.6


def test_every_form_of_a_request_gets_the_scorers_figures(served: Served) -> None:
    instances = [flat(payload) for payload in served.payloads]

    served.agrees(json.dumps({"instances": instances}).encode(), JSON)
    served.agrees("".join(f"{json.dumps(one)}\n" for one in instances).encode(), JSON_LINES)
    if served.case.kind == "image":
        for form in ("PNG", "JPEG"):
            image = examples.picture(41, form=form)
            encoded = {"image": {"ref": "", "width": 16, "height": 16, "png": base64.b64encode(image).decode()}}
            served.agrees(image, f"image/{form.lower()}", payloads=[encoded])
    else:
        out = io.StringIO()
        writer = csv.DictWriter(out, fieldnames=list(instances[0]))
        writer.writeheader()
        writer.writerows(instances)
        served.agrees(out.getvalue().encode(), CSV)


def test_the_toolkit_hands_refusals_on(served: Served) -> None:
    assert served.endpoint.invoke(b"{", JSON)[0] == 400
    assert served.endpoint.invoke(b"\x00", "application/octet-stream")[0] == 415
    status, answer = served.endpoint.invoke(b'{"instances": [7]}', JSON)
    assert (status, "instance 0 is no object" in answer["error"]) == (400, True)
