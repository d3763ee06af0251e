"""What `sam build` makes of this checkout, built once for all tests that need it.

The build stays in `.aws-sam/build` from one run to the next: only a changed source, or a build that somebody made for
another architecture, makes it anew.
"""

from __future__ import annotations

import fcntl
import hashlib
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
BUILD = ROOT / ".aws-sam" / "build"
STAMP = ROOT / ".cache" / "built"
SOURCES = ("layers", "functions", "training", "infra", "template.yaml", "samconfig.toml", "scripts/build.sh")
PYTHON = (3, 13)
"""Of the functions, and so of everything compiled in the layers."""


def built() -> Path:
    """The folder of the build. One process builds, others wait; skips where layers cannot be built at all."""
    if sys.version_info[:2] != PYTHON:
        pytest.skip(f"layers are for Python {PYTHON[0]}.{PYTHON[1]}, this is {sys.version.split()[0]}")
    STAMP.parent.mkdir(exist_ok=True)
    with STAMP.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not STAMP.is_file() or STAMP.read_text() != _state():
            done = subprocess.run(
                ["sh", "scripts/build.sh", "x86_64"], cwd=ROOT, capture_output=True, text=True, check=False
            )
            if done.returncode and not _can_download():
                pytest.skip("the layers' packages cannot be had here: no package index answers")
            assert done.returncode == 0, (done.stdout + done.stderr)[-3000:]
            STAMP.write_text(_state())
    return BUILD


def _state() -> str:
    """Digest of every source, and when the build was made."""
    found = hashlib.sha256()
    for name in SOURCES:
        path = ROOT / name
        for file in sorted([path] if path.is_file() else path.rglob("*")):
            if file.is_file() and "__pycache__" not in file.parts:
                found.update(f"{file.relative_to(ROOT)}\0{file.stat().st_mode}\0".encode() + file.read_bytes())
    template = BUILD / "template.yaml"
    return f"{found.hexdigest()} {template.stat().st_mtime_ns if template.is_file() else None}"


def _can_download() -> bool:
    """Whether the smallest of the layers' packages can be had."""
    pin = next(
        line for line in (ROOT / "layers/inference/requirements.txt").read_text().splitlines() if "flatbuffers" in line
    )
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", folder, pin]
        return subprocess.run(command, capture_output=True, check=False).returncode == 0
