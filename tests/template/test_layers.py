"""Layers hold the versions that the tests ran with, and every function starts with exactly the layers it carries."""

from __future__ import annotations

import os
import re
import subprocess
import sys

import pytest

from tests.template.stack import HOPS, ROOT, functions, raw

LAYERS = ("core", "inference", "formats")
PROVIDES = {
    "CoreLayer": {"winnow", "numpy", "pydantic", "yaml", "aws_lambda_powertools"},
    "InferenceLayer": {"onnxruntime", "PIL", "tokenizers"},
    "FormatsLayer": {"PIL", "arro3"},
    "TrainingLayer": {"winnow_training"},
}
HEAVY = {
    "onnxruntime",
    "tokenizers",
    "PIL",
    "arro3",
    "winnow_training",
    "onnx",
    "sklearn",
    "scipy",
    "moto",
    "jsonata",
    "samtranslator",
    "cfnlint",
}
"""What is installed here and must not be needed by a function whose layers lack it."""


def pins(text: str) -> dict[str, str]:
    """Name → version, for Python 3.13 on Linux."""
    found = {}
    for line in text.splitlines():
        match = re.match(r"([a-z0-9-]+)==([^ \\;]+)\s*(?:;\s*(.*?))?\s*\\?$", line)
        if match and "python_full_version < '3.12'" not in (match[3] or ""):
            found[match[1]] = match[2]
    return found


def carried(hop: str) -> set[str]:
    return {re.sub(r"[0-9a-f]{10}$", "", layer) for layer in functions()[hop]["Layers"]}


@pytest.mark.parametrize("layer", LAYERS)
def test_a_layer_pins_what_the_lock_pins(layer: str) -> None:
    wanted = pins((ROOT / f"layers/{layer}/requirements.txt").read_text())
    locked = pins((ROOT / "requirements.lock").read_text())

    assert wanted
    assert wanted == {name: locked[name] for name in wanted}


@pytest.mark.parametrize("layer", LAYERS)
def test_a_layer_leaves_the_runtimes_sdk_alone(layer: str) -> None:
    pinned = pins((ROOT / f"layers/{layer}/requirements.txt").read_text())

    assert not {"boto3", "botocore", "s3transfer", "urllib3"} & pinned.keys()


def test_layers_are_built_without_dependency_resolution() -> None:
    for name, resource in raw()["Resources"].items():
        if resource["Type"] == "AWS::Serverless::LayerVersion":
            recipe = (ROOT / resource["Properties"]["ContentUri"] / "Makefile").read_text()
            assert resource["Metadata"] == {"BuildMethod": "makefile"}
            assert f"build-{name}:" in recipe
            assert "pip install" not in recipe or "--no-deps" in recipe


@pytest.mark.parametrize(("architecture", "machine"), [("x86_64", "x86_64"), ("arm64", "aarch64")])
@pytest.mark.parametrize("layer", LAYERS)
def test_a_layers_wheels_are_for_the_functions_architecture(layer: str, architecture: str, machine: str) -> None:
    target = f"build-{layer.capitalize()}Layer"
    handed_down = {"MAKEFLAGS": f" -- ARCH={architecture}"}  # as `make build ARCH=...` does to every make below it
    environment = {**os.environ, **handed_down, "WINNOW_ARCHITECTURE": architecture, "ARTIFACTS_DIR": "/artifacts"}

    said = subprocess.run(
        ["make", "-n", target], cwd=ROOT / "layers" / layer, env=environment, capture_output=True, text=True, check=True
    ).stdout

    assert set(re.findall(r"--platform \w*?_(x86_64|aarch64)\b", said)) == {machine}
    assert "--only-binary :all:" in said


def test_sam_would_drop_no_folder_of_a_layer() -> None:
    for root in ("layers/core", "layers/inference", "layers/formats", "training"):
        named = {path.name for path in (ROOT / root).rglob("*") if path.is_dir()}
        assert not named & {"env", "venv", ".env", ".venv", "node_modules"}


def test_layers_are_attached_where_they_are_needed() -> None:
    assert {hop for hop in HOPS if "InferenceLayer" in carried(hop)} == {
        "score_records",
        "publish_model",
        "evaluate_challenger",
    }
    assert {hop for hop in HOPS if "FormatsLayer" in carried(hop)} == {"ingest_object"}
    assert {hop for hop in HOPS if "TrainingLayer" in carried(hop)} == {"plan_training"}
    assert all("CoreLayer" in carried(hop) for hop in HOPS)


@pytest.mark.parametrize("layers", sorted({tuple(sorted(carried(hop))) for hop in HOPS}), ids="+".join)
def test_functions_start_with_their_layers_alone(layers: tuple[str, ...]) -> None:
    hops = [hop for hop in HOPS if tuple(sorted(carried(hop))) == layers]
    absent = sorted(HEAVY - set().union(*(PROVIDES[layer] for layer in layers)))
    program = f"""
import runpy, sys
class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {absent!r}:
            raise ModuleNotFoundError(f"No module named {{name!r}} in {layers}", name=name)
sys.meta_path.insert(0, Absent())
for hop in {hops!r}:
    assert callable(runpy.run_path(f"functions/{{hop}}/app.py")["handler"])
"""
    environment = {
        "PATH": os.environ["PATH"], "AWS_LAMBDA_FUNCTION_NAME": f"winnow-{hops[0]}", "AWS_REGION": "us-east-1",
        "AWS_DEFAULT_REGION": "us-east-1", "POWERTOOLS_TRACE_DISABLED": "1", "PYTHONPATH": str(ROOT / "layers/core"),
        **functions()[hops[0]]["Environment"]["Variables"],
    }  # fmt: skip

    done = subprocess.run(
        [sys.executable, "-c", program], env=environment, cwd=ROOT, capture_output=True, text=True, check=False
    )

    assert done.returncode == 0, done.stderr[-2000:]
