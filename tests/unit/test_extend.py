"""docs/extend.md is followed to the letter: its eight steps, done to a copy, add a strategy that keeps the contract."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "extend.md").read_text(encoding="utf-8")
SECTION = PAGE[PAGE.index("## Add a strategy, in eight steps") : PAGE.index("<!-- generated: strategies -->")]
BLOCK = re.compile(r"^   ```(?P<language>\w+)\n(?P<body>.*?)^   ```$", re.MULTILINE | re.DOTALL)


def steps() -> list[str]:
    return re.split(r"^\d\. ", SECTION, flags=re.MULTILINE)[1:]


def block(step: int, language: str) -> str:
    """The one code block of a language in a step, without its indentation."""
    (body,) = [found["body"] for found in BLOCK.finditer(steps()[step - 1]) if found["language"] == language]
    return re.sub(r"^   ", "", body, flags=re.MULTILINE)


def named(step: int) -> str:
    """The first file that a step names."""
    found = re.search(r"`((?:layers|tests)/[\w./]+\.py)`", steps()[step - 1])
    assert found is not None
    return found[1]


def patched(text: str, diff: str) -> str:
    for hunk in diff.split("@@\n"):
        lines = hunk.splitlines(keepends=True)
        old = "".join(line[1:] for line in lines if line[0] in " -")
        new = "".join(line[1:] for line in lines if line[0] in " +")
        assert text.count(old) == 1, f"docs/extend.md expects this once:\n{old}"
        text = text.replace(old, new)
    return text


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The parts of the repository that the steps touch, with steps 2, 3, 4 and 6 done."""
    folder = tmp_path_factory.mktemp("extended")
    leave = shutil.ignore_patterns("__pycache__", "*.onnx")
    for part in ("layers/core/winnow", "benchmarks", "docs", "infra", "scripts"):
        shutil.copytree(ROOT / part, folder / part, ignore=leave)
    (folder / "tests" / "unit").mkdir(parents=True)
    for part in (
        "pyproject.toml",
        "template.yaml",
        "README.md",
        "CHANGELOG.md",
        named(6),
        "tests/unit/test_acquisition.py",
    ):
        shutil.copy(ROOT / part, folder / part)
    module, table, tests = folder / named(2), folder / named(4), folder / named(6)
    module.write_text(f"{module.read_text(encoding='utf-8')}\n\n{block(2, 'python')}\n\n{block(3, 'python')}")
    table.write_text(patched(table.read_text(encoding="utf-8"), block(4, "diff")))
    tests.write_text(f"{tests.read_text(encoding='utf-8')}\n\n{block(6, 'python')}")
    return folder


def run(command: str, folder: Path) -> str:
    """What a command of the page prints; it must succeed."""
    name, *arguments = command.split()
    assert name == "python"
    places = [str(folder / part) for part in ("layers/core", "scripts", ".")]
    done = subprocess.run(
        [sys.executable, *arguments], cwd=folder, capture_output=True, text=True, check=False,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([*places, *sys.path]), "PYTEST_ADDOPTS": "-x -n 0 -p no:cov"},
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_there_are_eight_steps() -> None:
    assert len(steps()) == 8


def test_the_new_entry_keeps_the_contract_and_its_own_examples(copy: Path) -> None:
    own = f"{named(6)} {named(2)}"  # its test and its doctest

    passed = run(f"{block(5, 'sh').rstrip()} {own}", copy)

    assert "skipped" not in passed
    assert int(passed.split(" passed")[0].split()[-1]) >= 2 + 20


def test_an_entry_that_breaks_the_contract_is_found(copy: Path) -> None:
    module = copy / named(2)
    kept = module.read_text(encoding="utf-8")
    module.write_text(kept.replace("ranked[:, -2] / ranked[:, -1])", "ranked[:, -1] / ranked[:, -2])"))

    with pytest.raises(AssertionError, match="failed"):
        run(block(5, "sh"), copy)
    module.write_text(kept)


def test_the_new_entry_is_measured_listed_and_documented(copy: Path) -> None:
    assert block(7, "sh") == "python -m benchmarks scoring\n"
    (copy / "measure.py").write_text(
        "from benchmarks import __main__, scoring\n"
        "scoring.SHAPES, scoring.CANDIDATES, scoring.LINES = ((50, 3),), 20, 20\n"
        "__main__.main(['scoring'])\n"
    )

    assert "ratio, 50 x 3" in run("python measure.py", copy)
    run(block(8, "sh"), copy)
    row = "| `ratio` | probabilities | record | n x classes x log classes | "
    assert row in (copy / "docs" / "extend.md").read_text(encoding="utf-8")
