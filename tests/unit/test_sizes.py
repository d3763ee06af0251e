"""What `make build` prints about the size of functions, and when it stops."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "scripts"))

import sizes

TEMPLATE = """
Resources:
  CoreLayer: {Type: AWS::Serverless::LayerVersion, Properties: {ContentUri: CoreLayer}}
  ModelLayer: {Type: AWS::Serverless::LayerVersion, Properties: {ContentUri: ModelLayer}}
  Score:
    Type: AWS::Serverless::Function
    Properties: {CodeUri: Score, Layers: [!Ref CoreLayer, !Ref ModelLayer]}
  Select:
    Type: AWS::Serverless::Function
    Properties: {CodeUri: Select, Layers: [{Ref: CoreLayer}]}
"""


@pytest.fixture
def build(tmp_path: Path) -> Path:
    (tmp_path / "template.yaml").write_text(TEMPLATE)
    for name, size in {"CoreLayer": 500, "ModelLayer": 7000, "Score": 10, "Select": 20}.items():
        (tmp_path / name / "python").mkdir(parents=True)
        (tmp_path / name / "python" / "module.py").write_bytes(b"#" * size)
    return tmp_path


def test_a_function_weighs_its_code_and_its_layers(build: Path) -> None:
    assert sizes.sizes(build) == {"Score": 7510, "Select": 520}


def test_a_function_that_is_too_large_fails_the_build(
    build: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sizes, "LIMIT_BYTES", 7000)

    assert sizes.main([str(build)]) == 1
    assert capsys.readouterr().out.splitlines()[0].endswith("Score  TOO LARGE")


def test_functions_within_the_limit_pass(build: Path) -> None:
    assert sizes.main([str(build)]) == 0


def test_without_a_build_it_says_what_to_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert sizes.main([str(tmp_path)]) == 1
    assert "run `make build` first" in capsys.readouterr().err
