"""Few questions at deployment, each explained, each refused when the answer cannot work."""

from __future__ import annotations

import re
import tomllib
from typing import Any

import pytest

from tests.template.stack import GIVEN, ROOT, expanded, observability, raw, stack

TEMPLATES = {"template.yaml": raw, "infra/observability.yaml": observability}


def test_at_most_three_parameters_must_be_given() -> None:
    required = [name for name, slot in raw()["Parameters"].items() if "Default" not in slot]

    assert required == ["WorkteamArn"]


@pytest.mark.parametrize("name", TEMPLATES)
def test_every_parameter_is_described_and_constrained(name: str) -> None:
    limits = {"AllowedValues", "AllowedPattern", "MinValue", "MaxValue", "MinLength", "MaxLength"}

    for parameter, slot in TEMPLATES[name]()["Parameters"].items():
        assert slot["Description"].endswith((".", ")", ").")), parameter
        assert limits & slot.keys(), parameter
        assert "AllowedPattern" not in slot or "ConstraintDescription" in slot or name != "template.yaml", parameter


def test_every_default_meets_its_own_constraint() -> None:
    for name, slot in raw()["Parameters"].items():
        default = slot.get("Default")
        if default is not None and "AllowedPattern" in slot:
            assert re.fullmatch(slot["AllowedPattern"], default), name
        if default is not None and "AllowedValues" in slot:
            assert default in slot["AllowedValues"], name


@pytest.mark.parametrize(
    ("parameter", "good", "bad"),
    [
        ("WorkteamArn", GIVEN["WorkteamArn"], "arn:aws:sagemaker:us-east-1:123456789012:workteam/public-crowd/default"),
        ("ExpertWorkteamArn", "", "experts"),
        ("TrainingImage", "123456789012.dkr.ecr.us-east-1.amazonaws.com/trainer:7", "docker.io/library/python:3.12"),
        ("SelectSchedule", "cron(0 8 * * ? *)", "hourly"),
        ("AlarmEmail", "on-call@example.org", "on-call"),
        ("JwtIssuer", "https://issuer.example.org/", "http://issuer.example.org/"),
    ],
)
def test_patterns_tell_good_from_bad(parameter: str, good: str, bad: str) -> None:
    pattern = raw()["Parameters"][parameter]["AllowedPattern"]

    assert re.fullmatch(pattern, good)
    assert not re.fullmatch(pattern, bad)


def test_every_parameter_is_asked_in_a_group() -> None:
    groups = raw()["Metadata"]["AWS::CloudFormation::Interface"]["ParameterGroups"]

    asked = [name for group in groups for name in group["Parameters"]]

    assert sorted(asked) == sorted(raw()["Parameters"])


def test_the_nested_stack_gets_exactly_its_parameters() -> None:
    passed = stack().resources("AWS::CloudFormation::Stack")["Observability"]["Parameters"]

    assert passed.keys() == observability()["Parameters"].keys()


def test_the_image_mapping_keeps_account_ids_as_text() -> None:
    owners = raw()["Mappings"]["ScikitLearnImage"]

    assert len(owners) == 37
    assert all(re.fullmatch("[0-9]{12}", row["Account"]) for row in owners.values())
    assert owners["us-east-1"]["Account"] == "683313688378"


def test_the_default_training_image_is_the_prebuilt_one() -> None:
    variables = next(iter(stack().resources("AWS::Lambda::Function").values()))["Environment"]["Variables"]

    assert variables["WINNOW_TRAINING_IMAGE"] == (
        "683313688378.dkr.ecr.us-east-1.amazonaws.com/sagemaker-scikit-learn:1.9-0-cpu-py3"
    )
    assert variables["WINNOW_EXPERT_WORKTEAM"] == GIVEN["WorkteamArn"]


def test_outputs_are_described_and_resolve() -> None:
    for name, output in expanded()["Outputs"].items():
        if stack().condition(output.get("Condition")):
            assert output["Description"].endswith("."), name
            assert stack()(output["Value"]), name


def test_every_parameter_of_samconfig_exists_and_may_have_that_value() -> None:
    config: dict[str, Any] = tomllib.loads((ROOT / "samconfig.toml").read_text())

    for environment in ("dev", "prod"):
        deploy = config[environment]["deploy"]["parameters"]
        assert {"CAPABILITY_NAMED_IAM", "CAPABILITY_AUTO_EXPAND"} <= set(deploy["capabilities"].split())
        for pair in deploy["parameter_overrides"].split():
            name, value = pair.split("=", 1)
            slot = raw()["Parameters"][name]
            assert value in map(str, slot.get("AllowedValues", [value])), pair
