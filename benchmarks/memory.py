"""The most memory a process ever held that makes a pool of a million records and selects from it, beside the pool's own.

`python -m benchmarks.memory SELECTOR ROWS K DTYPE` is such a process; it prints both in megabytes.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from benchmarks import pools
from benchmarks.measure import Result, milliseconds
from winnow.selection import Pool, select

ROWS, DIMENSIONS, CLASSES, TAKEN = 1_000_000, 384, 10, 1000
LIMIT = 1.4
CASES = (("k_center", "float32"), ("badge", "float32"), ("k_center", "float16"))
_ROOT = Path(__file__).resolve().parent.parent
_STATUS = Path("/proc/self/status")


def results(*, seed: int = 0) -> Iterator[Result]:
    """Every ratio of this module; none where the system does not say how much memory a process has held."""
    for selector, dtype in CASES if _STATUS.exists() else ():
        command = [sys.executable, "-m", "benchmarks.memory", selector, str(ROWS), str(TAKEN), dtype, str(seed)]
        said = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, cwd=_ROOT).stdout
        data, peak, seconds = json.loads(said)
        yield Result(
            f"{selector}, {TAKEN} of {ROWS} x {DIMENSIONS}, {dtype}", "the pool itself", peak, data, unit="MB",
            limit=LIMIT if ROWS >= 1_000_000 else None, note=f"{seconds:.1f} s",
        )  # fmt: skip


def main(selector: str, rows: int, k: int, dtype: str, seed: int) -> None:
    rng = np.random.default_rng(seed)
    points = pools.clustered(rows, DIMENSIONS, rng=rng)
    pool = Pool(rows, embedding=points, probabilities=pools.probabilities(points, CLASSES, rng=rng))
    if dtype == "float16":
        pool = Pool(rows, embedding=points.astype(np.float16), probabilities=pool.probabilities)
        del points
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")  # forgets the peak so far
    taken = milliseconds(lambda: select(selector, pool, k, rng=rng))
    assert pool.embedding is not None
    assert pool.probabilities is not None
    line = next(one for one in _STATUS.read_text(encoding="ascii").splitlines() if one.startswith("VmHWM"))
    data = pool.embedding.nbytes + pool.probabilities.nbytes
    print(json.dumps([data / 1e6, int(line.split()[1]) * 1024 / 1e6, taken / 1000]))


QUICK = {"ROWS": 100_000, "TAKEN": 100}
"""What --quick sets instead."""

if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), sys.argv[4], int(sys.argv[5]))
