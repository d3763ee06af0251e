"""The runbook for rolling back by hand, followed to the letter: its own snippet makes the pointer."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.cloud.stack import LOOP, Stack, deployed, jsonl, sentences
from winnow import layout
from winnow.steps.accounting import check_invariants

pytestmark = pytest.mark.cloud

PAGE = Path(__file__).resolve().parents[2] / "docs" / "operate" / "rollback.md"
EASY = {
    **LOOP,
    "gate": {**LOOP["gate"], "min_gain": -0.2, "planned_looks": 20},
    "batches": {"size": 40, "min_size": 10},
}
"""Any challenger that is not much worse is promoted, so that there are two champions to go between."""


def serving(stack: Stack) -> str:
    """The model that answers a request."""
    answer = stack.cloud.client("sagemaker-runtime").invoke_endpoint(
        EndpointName="winnow",
        ContentType="application/json",
        Body=json.dumps({"instances": [{"text": "a lovely river"}]}),
    )
    return str(json.loads(answer["Body"].read())["model"])


def roll_back(stack: Stack, folder: Path) -> str:
    """What rollback.md tells an operator to do; gives the model it goes back to."""
    script = re.search(r"<<'PY' >back.json\n(.*?)\n *PY\n", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    assert script is not None
    (folder / "champion.json").write_bytes(stack.get(layout.CHAMPION))
    previous = str(stack.json(layout.CHAMPION)["previous"])
    stack.cloud.client("sagemaker").update_endpoint(EndpointName="winnow", EndpointConfigName=f"winnow-{previous}")
    stack.cloud.advance(hours=1)
    (folder / "previous.json").write_bytes(stack.get(layout.model(previous)))
    lines = "\n".join(line.removeprefix("   ") for line in script[1].splitlines())
    pointer = subprocess.run(
        [sys.executable, "-c", lines, stack.data_bucket], cwd=folder, check=True, capture_output=True
    ).stdout  # fmt: skip
    stack.put(layout.CHAMPION, pointer)
    return previous


def test_the_last_known_good_model_serves_and_the_loop_goes_on(tmp_path: Path) -> None:
    with deployed(loop=EASY, parameters={"ReconcileSchedule": "rate(1 hour)"}) as stack:
        stack.employ(accuracy=0.95)
        stack.drop("reviews/january.jsonl", jsonl(sentences(300)))
        assert stack.cloud.run(condition=lambda: number(stack) >= 2, limit_days=20)
        stack.cloud.run_until_idle()
        bad = str(stack.champion())
        assert serving(stack) == bad

        good = roll_back(stack, tmp_path)
        stack.drop("reviews/february.jsonl", jsonl(sentences(40, seed=5)))
        stack.cloud.advance(hours=2.5)  # two runs of reconcile, and the next batch is not in yet

        assert (serving(stack), stack.champion()) == (good, good)
        assert len(stack.scored(good)) == len({row["id"] for row in stack.lines(layout.RECORDS)})
        after = number(stack)
        stack.cloud.advance(days=1)
        assert number(stack) > after
        assert stack.champion() not in (good, bad)
        assert serving(stack) == stack.champion()
        assert [name for name, check in check_invariants(stack.ports()).items() if not check.ok] == []
        assert stack.dead_letters() == {}


def number(stack: Stack) -> int:
    """How many promotions there have been."""
    return int(stack.json(layout.CHAMPION)["number"]) if stack.keys(layout.CHAMPION) else 0
