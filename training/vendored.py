"""Makes onnxruntime, Pillow and tokenizers importable in a container that lacks them, without touching what it has."""

from __future__ import annotations

import hashlib
import importlib.util
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

HERE = Path(__file__).resolve().parent
WHEELS = HERE / "wheels"
LOCK = HERE / "wheels.lock"
_NEEDED = ("onnxruntime", "PIL", "tokenizers")


def provide() -> None:
    """Do nothing where the packages are installed; else unpack the archive's wheels, or download those of the lock.

    Raises `RuntimeError` naming the remedy when neither is possible.
    """
    if all(importlib.util.find_spec(name) is not None for name in _NEEDED):
        return
    wheels = packed() or _downloaded()
    folder = _unpacked(wheels)
    sys.path.insert(0, str(folder))
    importlib.invalidate_caches()


def packed() -> list[Path]:
    """The wheels that travelled along, sorted by name."""
    return sorted(WHEELS.glob("*.whl"))


def _downloaded() -> list[Path]:
    if not LOCK.is_file():
        raise RuntimeError(f"{' and '.join(_NEEDED)} are missing and {LOCK.name} is not beside {__file__}")
    target = Path(tempfile.mkdtemp(prefix="winnow-wheels-"))
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary", ":all:"]
    result = subprocess.run(  # noqa: S603 - the command is this file's own
        [*command, "--require-hashes", "-r", str(LOCK), "-d", str(target)], capture_output=True, text=True, check=False
    )
    wheels = sorted(target.glob("*.whl"))
    if result.returncode or not wheels:
        raise RuntimeError(
            "onnxruntime, Pillow or tokenizers are missing and could not be downloaded; with network isolation put their wheels "
            f"into training/wheels before deploying (see training/requirements.txt): {result.stderr.strip()[-400:]}"
        )
    if os.access(HERE, os.W_OK):  # so that the model's own code folder takes them along
        WHEELS.mkdir(exist_ok=True)
        for wheel in wheels:
            shutil.copy2(wheel, WHEELS / wheel.name)
    return wheels


def _unpacked(wheels: list[Path]) -> Path:
    """A folder with the wheels' content, named by their names; several processes may come here at once."""
    name = hashlib.sha256("\n".join(wheel.name for wheel in wheels).encode()).hexdigest()[:16]
    target = Path(tempfile.gettempdir()) / f"winnow-packages-{os.getuid()}-{name}"
    if target.is_dir():
        return target
    scratch = Path(tempfile.mkdtemp(prefix="winnow-unpack-"))
    for wheel in wheels:
        with zipfile.ZipFile(wheel) as archive:
            archive.extractall(scratch)
    try:
        scratch.rename(target)
    except OSError:  # another process was faster
        shutil.rmtree(scratch)
    return target
