"""Rollouts under real traffic: a canary that does well is promoted, one that mangles its input is rolled back by its alarm."""

from __future__ import annotations

import itertools
import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest

from tests.cloud.stack import LOOP, MARKS, Stack, deployed, events, jsonl, sentences, text_truth
from winnow import layout
from winnow.steps.accounting import check_invariants

pytestmark = pytest.mark.cloud

ROUND_USD = 14.40
POLICY = {
    **LOOP,
    "budget": {"total_usd": 3 * ROUND_USD},
    "gate": {"min_records": 20, "planned_looks": 3, "alpha": 0.2, "min_gain": -0.2, "class_floor": 1, "max_ece_increase": 1},
    "rollout": {"canary_percent": 50, "bake_minutes": 20, "termination_minutes": 5, "min_feedback": 2, "max_quality_drop": 0.2},
}  # fmt: skip
"""Three rounds; a challenger that is about as good is let through, so that the rollout has to decide."""


@dataclass
class Application:
    """Asks the endpoint every virtual minute and judges each answer; `answers` counts them by model."""

    stack: Stack
    answers: Counter[str] = field(default_factory=Counter)
    numbers: Iterator[int] = field(default_factory=itertools.count)

    def open(self) -> None:
        clock = self.stack.cloud.clock
        clock.call_later(60, lambda: clock.spawn(self.minute), background=True)

    def minute(self) -> None:
        self.open()
        sagemaker = self.stack.cloud.client("sagemaker")
        found = sagemaker.list_endpoints()["Endpoints"]
        if found and found[0]["EndpointStatus"] == "Updating":
            for number in itertools.islice(self.numbers, 2):
                self.ask(f"request-{number}", sentences(number + 1, seed=77)[number])

    def ask(self, inference: str, text: str) -> None:
        answer = self.stack.cloud.client("sagemaker-runtime").invoke_endpoint(
            EndpointName="winnow", ContentType="application/json", InferenceId=inference,
            Body=json.dumps({"instances": [{"text": text}]}),
        )  # fmt: skip
        said = json.loads(answer["Body"].read())
        self.answers[said["model"]] += 1
        judgement = {
            "inference_id": inference, "model": said["model"], "label": text_truth({"text": text}),
            "prediction": said["predictions"][0]["label"],
        }  # fmt: skip
        event = {**events("function_url_feedback.json"), "body": json.dumps(judgement), "isBase64Encoded": False}
        self.stack.cloud.client("lambda").invoke(FunctionName="winnow-receive_feedback", Payload=json.dumps(event))


def opposite(body: bytes, _: str) -> bytes:
    """A preprocessing fault: every word that tells the class arrives as one of the other class."""
    swapped = dict(zip((*MARKS["negative"], *MARKS["positive"]), (*MARKS["positive"], *MARKS["negative"]), strict=True))
    instances = json.loads(body)["instances"]
    texts = [" ".join(swapped.get(word, word) for word in instance["text"].split()) for instance in instances]
    return json.dumps({"instances": [{"text": text} for text in texts]}).encode()


@dataclass
class Story:
    """The stack after three rounds, and the champion after each."""

    stack: Stack
    application: Application
    champions: list[str | None]
    skewed: str

    def report(self, model: str | None) -> Any:
        return self.stack.json(layout.deployment_report(str(model)))

    def outcome(self, place: int) -> str:
        executions = list(self.stack.executions("improve").values())
        return str(json.loads(executions[place]["output"])["status"])


@pytest.fixture(scope="module")
def story() -> Iterator[Story]:
    with deployed(loop=POLICY) as stack:
        stack.employ()
        application = Application(stack)
        application.open()
        stack.drop("reviews.jsonl", jsonl(sentences(260)))
        champions: list[str | None] = []
        for number in (1, 2):
            stack.run_improve(number)
            champions.append(stack.champion())
        stack.cloud.run(condition=lambda: len(trained(stack)) == 3, limit_days=5)
        (skewed,) = set(trained(stack)) - set(champions)
        stack.cloud.endpoints.skew[f"winnow-{skewed}"] = opposite
        stack.run_improve(3)
        champions.append(stack.champion())
        stack.cloud.advance(days=1)
        yield Story(stack, application, champions, skewed)


def trained(stack: Stack) -> list[str]:
    jobs = stack.cloud.client("sagemaker").list_training_jobs()["TrainingJobSummaries"]
    return [job["TrainingJobName"].removeprefix("winnow-") for job in jobs]


def test_the_first_model_is_deployed_without_a_predecessor(story: Story) -> None:
    report = story.report(story.champions[0])

    assert (report["status"], report["champion"]) == ("PROMOTED", "bootstrap-text")


def test_a_canary_that_does_well_is_promoted(story: Story) -> None:
    first, second, _ = story.champions
    report = story.report(second)

    assert second != first
    assert (report["status"], report["champion"], report["endpoint"]["model"]) == ("PROMOTED", first, second)
    assert set(report["alarms"]) == {f"winnow-{second}-{guard}" for guard in ("errors", "latency", "quality")}
    assert "ALARM" not in report["alarms"].values()
    assert story.application.answers[str(second)] >= 10
    assert story.outcome(1) == "PROMOTED"


def test_a_canary_that_serves_badly_passes_offline_and_is_rolled_back(story: Story) -> None:
    report = story.report(story.skewed)
    gate = story.stack.json(layout.gate_report(story.skewed))
    judged = [story.stack.json(key) for key in story.stack.keys("feedback/")]
    right = [each["correct"] for each in judged if each["model"] == story.skewed]

    assert gate["verdict"] == "promote"
    assert len(right) >= 4
    assert sum(right) < len(right) / 2
    assert report["status"] == story.outcome(2) == "FAILED"
    assert report["alarms"][f"winnow-{story.skewed}-quality"] == "ALARM"
    assert f"winnow-{story.skewed}-quality" in report["reason"]


def test_the_last_known_good_serves_after_the_rollback(story: Story) -> None:
    endpoint = story.stack.cloud.client("sagemaker").describe_endpoint(EndpointName="winnow")

    assert story.champions[2] == story.champions[1]
    assert (endpoint["EndpointStatus"], endpoint["EndpointConfigName"]) == ("InService", f"winnow-{story.champions[1]}")
    assert {
        name: verdict.detail for name, verdict in check_invariants(story.stack.ports()).items() if not verdict.ok
    } == {}


def test_every_package_in_the_registry_carries_its_decision(story: Story) -> None:
    listed = story.stack.cloud.client("sagemaker").list_model_packages(ModelPackageGroupName="winnow")
    statuses = [each["ModelApprovalStatus"] for each in listed["ModelPackageSummaryList"]]

    assert sorted(statuses) == ["Approved", "Approved", "Rejected"]


def test_a_settled_rollout_leaves_no_alarm_no_lease_and_no_config_of_the_loser(story: Story) -> None:
    cloudwatch, sagemaker = story.stack.cloud.client("cloudwatch"), story.stack.cloud.client("sagemaker")
    alarms = [
        alarm["AlarmName"]
        for page in cloudwatch.get_paginator("describe_alarms").paginate()
        for alarm in page["MetricAlarms"]
    ]

    assert alarms
    assert not [name for name in alarms if any(f"-{model}-" in name for model in (*story.champions, story.skewed))]
    assert [item["sk"] for item in story.stack.table("LEASE")] == []
    configs = {each["EndpointConfigName"] for each in sagemaker.list_endpoint_configs()["EndpointConfigs"]}
    assert configs == {f"winnow-{story.champions[0]}", f"winnow-{story.champions[1]}"}
    assert story.stack.errors() == []
    assert story.stack.dead_letters() == {}
