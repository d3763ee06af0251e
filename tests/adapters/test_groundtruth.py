"""Answers in the shapes of Ground Truth: chosen classes nested under `label`, typed numbers not."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.fakes import MemoryStore
from winnow.aws.groundtruth import GroundTruth, answered, consolidated, consolidation_payload
from winnow.aws.settings import Settings
from winnow.errors import BadInput
from winnow.ports import LabelingJob
from winnow.records import to_jsonl

SETTINGS = Settings(
    "winnow", "123456789012", "eu-west-1", workteam="arn:aws:sagemaker:eu-west-1:123456789012:workteam/w"
)


@pytest.mark.parametrize(
    ("content", "answer"),
    [
        ({"answer": {"label": "cat"}}, "cat"),
        ({"answer": "123.4"}, "123.4"),
        ({"answer": " 1,234 "}, " 1,234 "),
        ({"answer": 12.5}, "12.5"),
        ({"answer": ""}, ""),
        ({"answer": {}}, None),
        ({"answer": None}, None),
        ({}, None),
    ],
)
def test_an_answer_is_read_in_either_shape(content: dict[str, Any], answer: str | None) -> None:
    assert answered(content) == answer


def test_a_payload_gives_every_answer_as_it_was_written() -> None:
    annotations = [
        {"workerId": "a", "annotationData": {"content": json.dumps({"answer": "12"})}},
        {"workerId": "b", "annotationData": {"content": json.dumps({"answer": {"label": "13"}})}},
    ]
    body = json.dumps([{"datasetObjectId": "0", "dataObject": {"content": "{}"}, "annotations": annotations}]).encode()

    assert consolidation_payload(body) == [
        {"object": "0", "answers": [{"worker": "a", "label": "12"}, {"worker": "b", "label": "13"}]}
    ]
    with pytest.raises(BadInput, match="not as Ground Truth writes it"):
        consolidation_payload(b'[{"datasetObjectId": "0"}]')


class Jobs:
    """What SageMaker says about one completed job."""

    def __init__(self, data: MemoryStore) -> None:
        self.data = data
        self.created: dict[str, Any] = {}

    def create_labeling_job(self, **request: Any) -> None:
        self.created = request

    def get_paginator(self, _: str) -> Jobs:
        return self

    def paginate(self, **_: Any) -> list[dict[str, Any]]:
        return [{"LabelingJobSummaryList": [{"LabelingJobName": "winnow-b1"}]}]

    def describe_labeling_job(self, **_: Any) -> dict[str, Any]:
        return {
            "LabelingJobStatus": "Completed",
            "LabelCounters": {"TotalLabeled": 2, "Unlabeled": 1, "FailedNonRetryableError": 0},
            "InputConfig": {"DataSource": {"S3DataSource": {"ManifestS3Uri": self.data.uri("m.jsonl")}}},
            "LabelingJobOutput": {"OutputDatasetS3Uri": self.data.uri("out.manifest")},
        }


def job(kind: str) -> LabelingJob:
    classes = () if kind == "number" else ("cheap", "dear")
    return LabelingJob("b1", "m.jsonl", kind, "crowd", 3, "Title", "How", classes, 600, 3600)


def world() -> tuple[GroundTruth, MemoryStore, Jobs]:
    data = MemoryStore()
    client = Jobs(data)
    return GroundTruth(client, SETTINGS, data), data, client  # type: ignore[arg-type]


def test_numbers_come_back_as_numbers_with_every_answer() -> None:
    backend, data, _ = world()
    data.put("m.jsonl", to_jsonl([{"source": "{}", "candidate_id": f"c{n}"} for n in range(3)]))
    labels = consolidated(
        [{"object": "0", "label": 120.0, "confidence": 2 / 3}, {"object": "1", "label": -0.5, "confidence": 1.0}],
        attribute="label",
    )
    lines = [
        {"source": "{}", "candidate_id": f"c{place}", **one["consolidatedAnnotation"]["content"]}
        for place, one in enumerate(labels)
    ]
    data.put("out.manifest", to_jsonl([*lines, {"source": "{}", "candidate_id": "c2"}]))
    given = {"a": "120", "b": "1,200"}
    answers = [
        {
            "workerId": name, "answerContent": {"answer": typed}, "timeSpentInSeconds": 3.5,
            "submissionTime": "2026-01-05T10:00:00.000Z",
        }
        for name, typed in given.items()
    ]  # fmt: skip
    data.put(
        "jobs/winnow-b1/annotations/worker-response/iteration-1/0/t.json", json.dumps({"answers": answers}).encode()
    )

    outcome = backend.outcome("b1")

    assert outcome.results == {
        "c0": {"label": 120.0, "confidence": pytest.approx(2 / 3)}, "c1": {"label": -0.5, "confidence": 1.0},
    }  # fmt: skip
    assert [type(one["label"]) for one in outcome.results.values()] == [float, float]
    assert sorted(str(answer.label) for answer in outcome.answers["c0"]) == ["1,200", "120"]


def test_a_class_that_looks_like_a_number_stays_a_class() -> None:
    (one,) = consolidated([{"object": "0", "label": "7", "confidence": 1.0}], attribute="label")

    content = one["consolidatedAnnotation"]["content"]

    assert content["label"] == {"label": "7"}
    assert content["label-metadata"]["class-name"] == "7"
    assert "number" not in content["label-metadata"]


@pytest.mark.parametrize(("kind", "keyword"), [("table", "classification"), ("number", "estimation")])
def test_every_kind_of_task_has_a_form_of_its_own(kind: str, keyword: str) -> None:
    backend, data, client = world()

    backend.submit(job(kind))

    human = client.created["HumanTaskConfig"]
    form = data.get(data.key_of(human["UiConfig"]["UiTemplateS3Uri"])).decode()
    assert human["TaskKeywords"] == [keyword]
    assert ("<crowd-input" in form) == (kind == "number")
    assert "task.input.row" in form
