"""A whole round of the loop by functions as built, under the runtime interface client, in the bare environment."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cloud.stack import LOOP, MARKS, Stack, deployed, events, jsonl, sentences, text_truth
from tests.shipped import bare
from tests.shipped.built import ROOT
from tests.template.stack import HOPS
from winnow import layout
from winnow.models.bootstrap import bootstrap_files
from winnow.onnx.runtime import OnnxModel

pytestmark = [pytest.mark.cloud, pytest.mark.timeout(900)]
SERVED = sentences(4, seed=99)


def served_and_judged(stack: Stack) -> None:
    """An application asks the endpoint, and its users say what was right."""
    runtime = stack.cloud.client("sagemaker-runtime")
    for number, text in enumerate(SERVED):
        answer = runtime.invoke_endpoint(
            EndpointName="winnow", ContentType="application/json", InferenceId=f"request-{number}",
            Body=json.dumps({"instances": [{"text": text}]}),
        )  # fmt: skip
        said = json.loads(answer["Body"].read())
        judgement = {
            "inference_id": f"request-{number}", "model": said["model"], "label": text_truth({"text": text}),
            "prediction": said["predictions"][0]["label"],
        }  # fmt: skip
        event = {**events("function_url_feedback.json"), "body": json.dumps(judgement), "isBase64Encoded": False}
        stack.cloud.client("lambda").invoke(FunctionName="winnow-receive_feedback", Payload=json.dumps(event))


@pytest.fixture(scope="module")
def stack(build: Path, python: Path) -> Iterator[Stack]:
    """After a first round and a day of serving, all of it done by functions as built."""
    loop = {**LOOP, "budget": {"total_usd": 15}}  # one batch costs 14.40
    options = {"template": build / "template.yaml", "layers": [ROOT / "layers" / "core"], "loop": loop}
    with deployed(**options) as running, bare.bare(running.cloud, build=build, python=python):
        running.employ()
        running.drop("reviews.jsonl", jsonl(sentences(120)))
        running.run_improve()
        running.cloud.clock.call_later(60, lambda: running.cloud.clock.spawn(lambda: served_and_judged(running)))
        running.cloud.advance(days=1)
        yield running


def test_every_function_as_built_did_its_part_of_a_round(stack: Stack) -> None:
    assert stack.errors() == []
    assert stack.dead_letters() == {}
    assert {call.function for call in stack.cloud.invocations} == {f"winnow-{hop}" for hop in HOPS}
    assert [each["status"] for each in stack.executions("improve").values()] == ["SUCCEEDED"]
    assert (stack.champion() or "bootstrap").startswith("m")


def test_texts_get_the_scores_that_the_scorer_gives_here(stack: Stack) -> None:
    champion = stack.champion()
    assert champion is not None
    files = {name: stack.get(layout.model(champion, name)) for name in ("model.json", "model.onnx")}

    bare.compare(stack, champion, OnnxModel.from_files(files), count=124)
    bare.compare(
        stack, "bootstrap-text", OnnxModel.from_files(bootstrap_files("text", classes=tuple(MARKS))), count=120
    )
