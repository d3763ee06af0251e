"""No file can hurt ingest: each is read, or in quarantine with its reason, within the memory that a small function has."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.unit.hostile_files import CASES

MEMORY_MB = 512


@pytest.fixture(scope="module")
def fates(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """What became of every case, in order, in one process that did nothing else."""
    folder = tmp_path_factory.mktemp("hostile")
    for number, case in enumerate(CASES):
        (folder / str(number)).write_bytes(case.bytes())
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "OPENBLAS_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-m", "tests.unit.hostile_files", str(folder)],
        env=environment, cwd=Path(__file__).parents[2], capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    return [json.loads(line) for line in done.stdout.splitlines()]


def test_there_are_a_hundred_of_them() -> None:
    assert len(CASES) >= 100
    assert len({(case.key, case.loop) for case in CASES}) == len(CASES)


def test_no_file_takes_more_memory_than_a_small_function_has(fates: list[dict[str, Any]]) -> None:
    worst = max(zip(CASES, fates, strict=True), key=lambda pair: pair[1]["peak"])

    assert worst[1]["peak"] <= MEMORY_MB, f"{worst[0].key} took {worst[1]['peak']} MB"


@pytest.mark.parametrize("number", range(len(CASES)), ids=[f"{case.loop}-{case.key}" for case in CASES])
def test_every_row_is_read_or_has_a_reason(number: int, fates: list[dict[str, Any]]) -> None:
    case, fate = CASES[number], fates[number]

    reasons = fate["reasons"]
    assert fate["rows"] == fate["accepted"] + fate["duplicates"] + fate["quarantined"] > 0
    assert all(": " in reason and len(reason) > 20 for reason in reasons)
    if case.good is None:
        assert all(any(reason.startswith(begin) for reason in reasons) for begin in case.reasons), reasons
        return
    assert (fate["accepted"], fate["quarantined"]) == (case.good, len(case.reasons)), reasons
    for reason, begin in zip(reasons, case.reasons, strict=True):
        assert reason.startswith(begin)
