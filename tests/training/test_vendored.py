"""Packages that the container lacks: unpacked from wheels that travelled along, once for all processes."""

from __future__ import annotations

import importlib.util
import sys
import tempfile
import zipfile
from pathlib import Path

import pytest
import vendored


@pytest.fixture
def bare(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A container without the packages, whose archive brings a wheel with a module `made_up_package`."""
    monkeypatch.setattr(vendored, "_NEEDED", ("made_up_package",))
    monkeypatch.setattr(vendored, "WHEELS", tmp_path / "wheels")
    monkeypatch.setattr(vendored, "LOCK", tmp_path / "wheels.lock")
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setattr(sys, "path", list(sys.path))
    (tmp_path / "wheels").mkdir()
    return tmp_path


def test_wheels_that_travel_along_are_unpacked_once(bare: Path) -> None:
    with zipfile.ZipFile(bare / "wheels" / "made_up_package-1-py3-none-any.whl", "w") as wheel:
        wheel.writestr("made_up_package.py", "answer = 42\n")

    vendored.provide()

    assert importlib.util.find_spec("made_up_package") is not None
    folder = Path(sys.path[0])
    assert folder.parent == bare
    before = folder.stat().st_ino
    sys.path.remove(str(folder))
    vendored.provide()
    assert Path(sys.path[0]).stat().st_ino == before
    assert len(list(bare.glob("winnow-*"))) == 1


def test_nothing_happens_where_the_packages_are_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    before = list(sys.path)

    vendored.provide()

    assert sys.path == before


def test_without_wheels_and_lock_the_remedy_is_named(bare: Path) -> None:
    with pytest.raises(RuntimeError, match=r"wheels\.lock is not beside"):
        vendored.provide()


def test_a_download_that_fails_names_the_remedy(bare: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (bare / "wheels.lock").write_text("made-up-package==1 --hash=sha256:" + "0" * 64 + "\n")
    monkeypatch.setenv("PIP_NO_INDEX", "1")

    with pytest.raises(RuntimeError, match="with network isolation put their wheels into training/wheels"):
        vendored.provide()
