"""The trainer's modules import one another by plain names, as they lie side by side in the container."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from threadpoolctl import threadpool_limits

TRAINING = Path(__file__).resolve().parents[2] / "training"

sys.path.insert(0, str(TRAINING))


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """As the trainer runs: several threads wait for each other longer than they compute on small data."""
    with threadpool_limits(limits=1):
        yield
