"""cfn-lint finds nothing, in the templates as written and in the one that CloudFormation gets."""

from __future__ import annotations

import json

import pytest
from cfnlint.api import ManualArgs, lint

from tests.template.stack import REGION, ROOT, expanded


@pytest.mark.parametrize("name", ["template.yaml", "infra/observability.yaml"])
def test_the_template_is_clean(name: str) -> None:
    assert [str(match) for match in lint((ROOT / name).read_text(), config=ManualArgs(regions=[REGION]))] == []


def test_the_expanded_template_is_clean() -> None:
    found = lint(json.dumps(expanded(), default=str), config=ManualArgs(regions=[REGION]))

    assert [str(match) for match in found] == []
