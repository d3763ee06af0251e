"""The build and the bare environment, made once a session of each test process."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.shipped import bare
from tests.shipped.built import built

collect_ignore = ["container_app.py"]  # it runs in the container's environment


@pytest.fixture(scope="session")
def build() -> Path:
    return built()


@pytest.fixture(scope="session")
def python(build: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return bare.make(tmp_path_factory.mktemp("bare") / "environment")
