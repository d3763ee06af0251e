"""The fixture stack under the local cloud."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from winnow_local.cloud import LocalCloud

collect_ignore = ["fixture"]
FIXTURE = Path(__file__).parent / "fixture" / "template.yaml"
Launch = Callable[..., LocalCloud]


@pytest.fixture
def launch() -> Iterator[Launch]:
    """Start a cloud with the fixture's template, or another; it ends with the test."""
    with ExitStack() as stack:

        def start(template: Path = FIXTURE, **options: Any) -> LocalCloud:
            return stack.enter_context(LocalCloud(template, **{"stack": "fix", "layers": [], **options}))

        yield start


@pytest.fixture
def fixture_cloud(launch: Launch) -> LocalCloud:
    """The fixture's stack, just deployed."""
    return launch()


@pytest.fixture
def empty(launch: Launch, tmp_path: Path) -> LocalCloud:
    """A cloud with a stack of one parameter: what a test needs, it makes."""
    template = tmp_path / "template.yaml"
    template.write_text(
        "Resources: {One: {Type: AWS::SSM::Parameter, Properties: {Name: one, Type: String, Value: one}}}"
    )
    return launch(template)
