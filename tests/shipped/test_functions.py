"""Every function as built starts where there is nothing but Lambda's own packages, and compiles nothing."""

from __future__ import annotations

import importlib.util
import json
import subprocess
from pathlib import Path

import pytest

from tests.shipped import bare
from tests.shipped.built import ROOT
from tests.template.stack import HOPS, functions

pytestmark = [pytest.mark.cloud, pytest.mark.timeout(900)]
CHECKED_NEVER = b"\x01\x00\x00\x00"
"""A .pyc's second word: by the digest of its source, and not even that is compared."""

LOOK = """
import json, runpy, sys
for hop in sys.argv[1:]:
    assert callable(runpy.run_path(hop + "/app.py")["handler"])
print(json.dumps({m.__file__: m.__cached__ for m in list(sys.modules.values()) if getattr(m, "__cached__", None)}))
"""
CARRIED = {hop: tuple(layer[:-10] for layer in functions()[hop]["Layers"]) for hop in HOPS}
"""Hop → its layers, without the digests that SAM adds to their names."""


@pytest.mark.parametrize("carried", sorted(set(CARRIED.values())), ids="+".join)
def test_functions_start_with_what_they_bring_and_compile_nothing(
    carried: tuple[str, ...], build: Path, python: Path
) -> None:
    hops = [hop for hop in HOPS if CARRIED[hop] == carried]
    layers = bare.shipped(build)[hops[0]][1]
    environment = {
        **bare.environment(layers, build), "AWS_LAMBDA_FUNCTION_NAME": f"winnow-{hops[0]}", "AWS_REGION": "us-east-1",
        "WINNOW_STACK": "winnow", "WINNOW_ACCOUNT": "123456789012",
    }  # fmt: skip

    done = subprocess.run(
        [python, "-P", "-c", LOOK, *(str(bare.shipped(build)[hop][0]) for hop in hops)],
        cwd="/", env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip

    assert done.returncode == 0, done.stderr[-2000:]
    loaded = {Path(file): Path(compiled) for file, compiled in json.loads(done.stdout).items()}
    ours = {file: compiled for file, compiled in loaded.items() if ROOT in file.parents}
    assert len(ours) > 100
    assert [file for file in ours if not any(layer in file.parents for layer in layers)] == []
    assert [file for file, compiled in ours.items() if not compiled.is_file()] == []


def test_everything_is_compiled_by_the_functions_python_and_never_checked(build: Path) -> None:
    for name in ("CoreLayer", "InferenceLayer", "FormatsLayer"):
        sources = set((build / name).rglob("*.py"))
        compiled = set((build / name).rglob("*.pyc"))
        heads = {path.read_bytes()[:8] for path in compiled}

        assert {Path(importlib.util.source_from_cache(str(path))) for path in compiled} == sources
        assert heads == {importlib.util.MAGIC_NUMBER + CHECKED_NEVER}
