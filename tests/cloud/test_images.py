"""The walk of images: PNG and JPEG, colour and grey, to a champion that serves; what is no picture is refused by name."""

from __future__ import annotations

import base64
import io
import json
from collections import Counter
from collections.abc import Iterator, Mapping

import numpy as np
import pytest
from PIL import Image

from tests.cloud.stack import LOOP, Stack, deployed
from tests.cloud.test_bad_input import png_header
from winnow import layout
from winnow.steps.accounting import account, check_invariants

pytestmark = pytest.mark.cloud

CLASSES = ("across", "down")
POLICY = {
    **LOOP,
    "task": {"kind": "image", "classes": list(CLASSES), "title": "Which way do the stripes run?"},
    "budget": {"total_usd": 15},
    "limits": {"max_object_mb": 2, "image_side": 24},
}


def stripes(number: int) -> Image.Image:
    """A noisy picture of stripes, across for even numbers and down for odd ones; every third one in grey."""
    rng = np.random.default_rng(number)
    wave = 90 * np.sign(np.sin(np.arange(24) / rng.uniform(1.0, 2.0) + rng.uniform(0, 6)))
    plane = np.broadcast_to(wave[:, None] if number % 2 == 0 else wave[None, :], (24, 24))
    if number % 3 == 0:
        return Image.fromarray(np.clip(128 + plane + rng.normal(0, 20, (24, 24)), 0, 255).astype(np.uint8), "L")
    tint = rng.uniform(0.4, 1.0, 3)
    coloured = 128 + plane[..., None] * tint + rng.normal(0, 20, (24, 24, 3))
    return Image.fromarray(np.clip(coloured, 0, 255).astype(np.uint8), "RGB")


def encoded(number: int) -> tuple[str, bytes]:
    """Key and bytes: PNG and JPEG in turn, by pairs so that neither tells the class."""
    kind, suffix = (("PNG", "png"), ("JPEG", "jpg"))[number // 2 % 2]
    out = io.BytesIO()
    stripes(number).save(out, kind, **({"quality": 90} if kind == "JPEG" else {}))
    return f"camera/{number:03d}.{suffix}", out.getvalue()


PICTURES = dict(encoded(number) for number in range(130))
HOSTILE = {
    "empty.png": (b"", "empty: empty.png is empty"),
    "cut.png": (PICTURES["camera/000.png"][:300], "truncated: the image cannot be decoded"),
    "cut.jpg": (PICTURES["camera/002.jpg"][:200], "truncated: the image cannot be decoded"),
    "bomb.png": (png_header(100_000, 100_000), "oversized: the image is too large to be decoded"),
    "wide.png": (png_header(8_000, 8_000), "oversized: the image has 8000 x 8000 pixels"),
    "notes.txt": (b"no picture\n", "wrong-kind: notes.txt is text"),
    "movie.gif": (b"GIF89a" + bytes(40), "unknown-format: movie.gif"),
    "rows.jsonl": (b'{"image": "not base64!"}\n', "wrong-type: row 1: 'image' is not base64"),
    "text.jsonl": (b'{"text": "hello"}\n', "missing-payload: row 1 needs a base64 string under 'image'"),
    "liar.png": (b"\x89PNG\r\n\x1a\n" + b"lies" * 20, "truncated: the image cannot be decoded"),
}


def direction(png: bytes) -> str:
    """What an annotator sees: the stripes vary from row to row, or from column to column."""
    with Image.open(io.BytesIO(png)) as image:
        pixels = np.asarray(image.convert("L"), dtype=float)
    return CLASSES[int(pixels.mean(axis=1).std() < pixels.mean(axis=0).std())]


@pytest.fixture(scope="module")
def stack() -> Iterator[Stack]:
    with deployed(loop=POLICY) as running:

        def truth(task: Mapping[str, object]) -> str:
            bucket, key = str(task["image"]).removeprefix("s3://").split("/", 1)
            return direction(running.cloud.client("s3").get_object(Bucket=bucket, Key=key)["Body"].read())

        running.employ(truth, classes=CLASSES)
        for key, body in PICTURES.items():
            running.drop(key, body)
        for key, (body, _) in HOSTILE.items():
            running.drop(key, body)
        rows = [{"id": "row-1", "image": base64.b64encode(encoded(131)[1]).decode()}]
        running.drop("more.jsonl", b"".join(json.dumps(row).encode() + b"\n" for row in rows))
        running.run_improve()
        running.cloud.advance(hours=1)
        yield running


def test_every_picture_becomes_a_record_and_every_other_file_a_reason(stack: Stack) -> None:
    records = stack.lines(layout.RECORDS)
    refused = {row["key"]: row["reason"] for row in stack.lines("quarantine/")}

    assert len(records) == len(PICTURES) + 1
    assert refused.keys() == HOSTILE.keys()
    for key, (_, reason) in HOSTILE.items():
        assert refused[key].startswith(reason)
    for record in records:
        with Image.open(io.BytesIO(stack.get(record["image"]["ref"]))) as canonical:
            assert (canonical.format, canonical.size, len(canonical.info)) == ("PNG", (24, 24), 0)
    assert Counter(record["kind"] for record in records) == {"image": len(records)}


def test_all_are_scored_and_the_ledger_balances(stack: Stack) -> None:
    ledger = account(stack.ports())
    known = len(PICTURES) + 1

    assert ledger.to_json() == {
        "in": known + len(HOSTILE), "scored": known, "duplicate": 0, "superseded": 0, "quarantined": len(HOSTILE),
        "waiting": 0, "dead_lettered": 0,
    }  # fmt: skip
    assert len(stack.scored("bootstrap-image")) == known
    assert {name: verdict.detail for name, verdict in check_invariants(stack.ports()).items() if not verdict.ok} == {}
    assert stack.errors() == []
    assert stack.dead_letters() == {}


def test_a_model_of_the_pictures_is_promoted_and_serves_both_formats(stack: Stack) -> None:
    model, runtime = stack.champion(), stack.cloud.client("sagemaker-runtime")
    report = stack.json(layout.gate_report(str(model)))

    answers = []
    for number in range(200, 212):
        key, body = encoded(number)
        kind = "image/png" if key.endswith("png") else "image/jpeg"
        said = json.loads(runtime.invoke_endpoint(EndpointName="winnow", ContentType=kind, Body=body)["Body"].read())
        answers.append((said["model"], said["predictions"][0]["label"] == CLASSES[number % 2]))

    assert (report["verdict"], report["champion"]) == ("promote", "bootstrap-image")
    assert stack.json(layout.model(str(model)))["kind"] == "image"
    assert {name for name, _ in answers} == {model}
    assert sum(right for _, right in answers) >= 10


def test_what_the_endpoint_cannot_read_is_an_error_of_the_caller(stack: Stack) -> None:
    runtime = stack.cloud.client("sagemaker-runtime")

    with pytest.raises(runtime.exceptions.ModelError) as raised:
        runtime.invoke_endpoint(EndpointName="winnow", ContentType="image/png", Body=b"no picture")

    assert raised.value.response["OriginalStatusCode"] == 400
