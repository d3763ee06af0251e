"""An environment like a function's: Python with awslambdaric and boto3, and what the function brings.

The local cloud calls functions in it as Lambda would: the code as built on the current folder, its layers' `python/` on
the path, tracing on, nothing of this checkout.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from functools import cache
from importlib.metadata import distribution
from pathlib import Path

import numpy as np
from moto.awslambda.models import LambdaFunction

from tests.cloud.stack import Stack
from tests.shipped.built import ROOT
from tests.shipped.runtime import Worker
from winnow import layout
from winnow.onnx.runtime import OnnxModel
from winnow.records import Record
from winnow.steps.candidates import Candidates
from winnow_local.cloud import LocalCloud
from winnow_local.gateway import door
from winnow_local.invoke import environment_of

sys.path.insert(0, str(ROOT / "scripts"))

from sizes import read

RUNTIME = ("awslambdaric", "boto3")


def make(folder: Path) -> Path:
    """The interpreter of a new environment that has the runtime's packages, as they are installed here, and no others."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(folder)], check=True)
    site = folder / "lib" / f"python{sys.version_info[0]}.{sys.version_info[1]}" / "site-packages"
    for name in _closure(RUNTIME):
        for file in distribution(name).files or ():
            first = Path(str(file)).parts[0]
            if first not in ("..", "__pycache__") and not (site / first).exists():
                (site / first).symlink_to(Path(str(distribution(name).locate_file(first))))
    return folder / "bin" / "python"


def _closure(names: tuple[str, ...]) -> set[str]:
    found: set[str] = set()
    waiting = list(names)
    while waiting:
        name = waiting.pop()
        if name not in found:
            found.add(name)
            wanted = [line for line in distribution(name).requires or () if "extra ==" not in line]
            waiting += [re.split(r"[^A-Za-z0-9._-]", line, maxsplit=1)[0] for line in wanted]
    return found


@cache
def shipped(build: Path) -> Mapping[str, tuple[Path, tuple[Path, ...]]]:
    """Hop → its code as built, and what its layers put on the path."""
    resources = read(build / "template.yaml")["Resources"]
    return {
        resource["Properties"]["FunctionName"]["Fn::Sub"].removeprefix("${AWS::StackName}-"): (
            build / resource["Properties"]["CodeUri"],
            tuple(
                build / resources[layer["Ref"]]["Properties"]["ContentUri"] / "python"
                for layer in resource["Properties"]["Layers"]
            ),
        )
        for resource in resources.values()
        if resource["Type"] == "AWS::Serverless::Function"
    }


def environment(layers: tuple[Path, ...], code: Path) -> dict[str, str]:
    """What Lambda sets for every function."""
    return {
        "PATH": os.defpath, "LANG": "C.UTF-8", "PYTHONPATH": os.pathsep.join(map(str, layers)),
        "LAMBDA_TASK_ROOT": str(code), "PYTHONDONTWRITEBYTECODE": "1", "AWS_EXECUTION_ENV": "AWS_Lambda_python3.13",
        "AWS_ACCESS_KEY_ID": "FOOBARKEY", "AWS_SECRET_ACCESS_KEY": "FOOBARSECRET",
        "AWS_XRAY_DAEMON_ADDRESS": "127.0.0.1:2000",
    }  # fmt: skip


@contextmanager
def bare(cloud: LocalCloud, *, build: Path, python: Path) -> Iterator[None]:
    """Functions of this cloud run as built, in the given environment, as long as the block lasts."""
    idle: dict[str, list[Worker]] = defaultdict(list)
    with door(cloud) as url, ExitStack() as opened:

        def run(function: LambdaFunction, body: str) -> tuple[str, str | None, str]:
            name = function.function_name
            worker = idle[name].pop() if idle[name] else new(function)
            answer = worker.call(body, seconds=int(function.timeout))
            if worker.alive:
                idle[name].append(worker)
            return answer

        def new(function: LambdaFunction) -> Worker:
            code, layers = shipped(build)[function.function_name.removeprefix(f"{cloud.stack}-")]
            given = {**environment_of(function), **environment(layers, code), "AWS_ENDPOINT_URL": url}
            worker = Worker(python, code=code, handler=str(function.handler), environment=given)
            opened.callback(worker.close)
            return worker

        before, cloud.runner = cloud.runner, run
        try:
            yield
        finally:
            cloud.runner = before


def compare(stack: Stack, champion: str, model: OnnxModel, *, count: int) -> None:
    """Every record's scores against what the model says in this process; the entropies and variances by hand."""
    parts = [Candidates.from_bytes(stack.get(key)) for key in stack.keys(f"{layout.SCORES}{champion}/")]
    records = {body["id"]: Record.from_json(body) for body in stack.lines(layout.RECORDS)}
    scored = Candidates.concat(parts)
    expected = model.predict([records[identity].payload() for identity in scored.id.tolist()])

    assert len(scored) == count
    np.testing.assert_allclose(scored.embedding, expected.embedding.astype(np.float16), atol=1e-3)
    if expected.prediction is not None:
        assert expected.members is not None
        np.testing.assert_allclose(scored.prediction, expected.prediction, rtol=1e-6)
        np.testing.assert_allclose(
            scored.scores["variance"], expected.members.astype(float).var(axis=1), rtol=1e-4, atol=1e-9
        )
        return
    shares = expected.probabilities.astype(float)
    assert scored.prediction.tolist() == shares.argmax(axis=1).tolist()
    np.testing.assert_allclose(scored.confidence, shares.max(axis=1), atol=1e-6)
    np.testing.assert_allclose(scored.scores["entropy"], -(shares * np.log(shares)).sum(axis=1), atol=1e-5)
    assert "vote_entropy" in scored.scores or champion.startswith(layout.BOOTSTRAP)
