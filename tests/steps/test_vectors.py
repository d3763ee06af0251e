"""An encoder's vectors are made once: for scoring, for the models that follow, for trainings and for the gate."""

from __future__ import annotations

import gzip
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest

from tests.builders import CLASSES, commit, lines
from tests.fakes import every_fault, make_ports
from tests.steps.walk import LOOP, animals, ingest
from winnow import layout
from winnow.errors import BadModel, ConfigError
from winnow.models.encoder import EncoderCard
from winnow.models.package import ModelCard, ModelInput, ModelOutputs
from winnow.models.predictions import Predictions
from winnow.records import to_jsonl
from winnow.steps import vectors
from winnow.steps.batches import Choice, Plan
from winnow.steps.evaluate_challenger import evaluate_challenger
from winnow.steps.plan_training import plan_training
from winnow.steps.publish_model import publish_model
from winnow.steps.score_records import ScoreRequest, score_records

ENCODER = EncoderCard(
    reads="text", dimensions=2, output="y", pooling="mean", max_tokens=8,
    files={"encoder.onnx": "1" * 64, "tokenizer.json": "2" * 64},
)  # fmt: skip
ENCODED = LOOP + "training: {encoder: words, min_labels: 2, min_new_labels: 0}\n"


@dataclass
class Standing:
    """A model on an encoder: its vector of a text is (length, 1). It says yes to long texts."""

    model: str
    classes: tuple[str, ...]
    encoder: EncoderCard | None = ENCODER
    dataset: str | None = None
    encoded: list[str] = field(default_factory=list)
    """Every text that was encoded, in order."""

    @property
    def card(self) -> ModelCard:
        files = {"model.onnx": "0" * 64, **(self.encoder.files if self.encoder else {})}
        read = ModelInput(name="encoded", kind="embedding") if self.encoder else ModelInput(name="text", kind="text")
        return ModelCard(
            model=self.model, kind="text", classes=self.classes, masker="1", files=files, inputs=(read,),
            outputs=ModelOutputs(members=None), encoder=self.encoder, dataset=self.dataset,
        )  # fmt: skip

    def encode(self, payloads: Sequence[Mapping[str, Any]]) -> np.ndarray[Any, np.dtype[np.float32]]:
        self.encoded += [payload["text"] for payload in payloads]
        return np.array([[len(payload["text"]), 1] for payload in payloads], np.float32)

    def predict(self, payloads: Sequence[Mapping[str, Any]], *, embeddings: Any = None) -> Predictions:
        assert embeddings is not None
        assert embeddings[:, 0].tolist() == [len(payload["text"]) for payload in payloads]
        yes = embeddings[:, 0] / (embeddings[:, 0] + 10)
        return Predictions(np.column_stack([1 - yes, yes]), embeddings)


def world(count: int = 30) -> tuple[Any, Standing]:
    ports = make_ports(loop=ENCODED)
    ports.data.objects[layout.encoder("words")] = json.dumps(ENCODER.to_json()).encode()
    first = Standing("bootstrap-text-words", ("cat", "dog"))
    ports.models.add(first.model, first)
    ingest(ports, ports.pool.drop("animals.jsonl", animals(count)))
    return ports, first


def score(ports: Any) -> None:
    score_records(ScoreRequest(tuple(ports.data.list(layout.RECORDS))), ports)


def crown(ports: Any, model: str) -> None:
    ports.data.objects[layout.CHAMPION] = json.dumps({"format": 1, "model": model, "number": 1}).encode()


def test_a_new_champion_on_the_same_encoder_encodes_nothing_again() -> None:
    ports, first = world()
    second, third = Standing("m-2", ("cat", "dog")), Standing("m-3", ("cat", "dog"))

    score(ports)
    for model in (second, third):
        ports.models.add(model.model, model)
        crown(ports, model.model)
        score(ports)

    assert len(first.encoded) == 30
    assert second.encoded == third.encoded == []
    assert len(list(ports.data.list("scores/m-3/"))) == 1
    (kept,) = ports.data.list(layout.EMBEDDINGS)
    assert kept.startswith(f"embeddings/{ENCODER.digest}/records/o")


def test_another_encoder_has_vectors_of_its_own() -> None:
    ports, _ = world()
    other = Standing("m-2", ("cat", "dog"), encoder=EncoderCard(**{**ENCODER.__dict__, "max_tokens": 9}))
    ports.models.add("m-2", other)

    score(ports)
    crown(ports, "m-2")
    score(ports)

    assert len(other.encoded) == 30
    assert len(list(ports.data.list(layout.EMBEDDINGS))) == 2


def test_what_a_function_out_of_time_encoded_is_not_encoded_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vectors, "ROWS_KEPT_AT_ONCE", 10)
    ports, first = world()

    encode = first.encode

    def dying(payloads: Any) -> Any:
        if len(first.encoded) == 20:
            raise MemoryError
        return encode(payloads)

    monkeypatch.setattr(first, "encode", dying)
    with pytest.raises(MemoryError):
        score(ports)
    monkeypatch.setattr(first, "encode", encode)
    score(ports)

    assert len(first.encoded) == len(set(first.encoded)) == 30


def test_vectors_that_cannot_be_read_are_made_again() -> None:
    ports, first = world()
    score(ports)
    (kept,) = ports.data.list(layout.EMBEDDINGS)
    ports.data.objects[kept] = b"cut"

    crown(ports, "m-2")
    ports.models.add("m-2", first)
    score(ports)

    assert len(first.encoded) == 60
    assert len(vectors.unpack(ports.data.objects[kept])) == 30


def test_vectors_of_a_superseded_object_go_with_its_scores() -> None:
    ports, _ = world()
    score(ports)
    before = set(ports.data.list(layout.EMBEDDINGS))

    ingest(ports, ports.pool.drop("animals.jsonl", animals(40)))
    score(ports)

    assert before.isdisjoint(ports.data.list(layout.EMBEDDINGS))


# Trainings


def planned(ports: Any, batch: str, ids: Sequence[str], records: str) -> None:
    """A batch of these records of one artifact."""
    choices = tuple(
        Choice(id=name, oid="o1", cluster=name, role="train", records=records, arm="active", strategy="margin",
               score=None, rank=rank) for rank, name in enumerate(ids)
    )  # fmt: skip
    plan = Plan(batch, "select", "crowd", 3, "m", "schedule", "cold", "1", "2026-01-05T09:00:00Z", choices)
    ports.data.objects[layout.plan(batch)] = plan.to_bytes()


def labeled_world(*, cached: int = 4) -> Any:
    """Four labeled records of batch b1, the vectors of the first `cached` known."""
    ports = make_ports(loop="training: {encoder: words, min_labels: 2, min_new_labels: 0}")
    ports.data.objects[layout.encoder("words")] = json.dumps(ENCODER.to_json()).encode()
    commit(ports, "d1", train=lines("t", [*CLASSES, *CLASSES]), evaluation=lines("e", [*CLASSES] * 30))
    names = [f"t{n}" for n in range(4)] + [f"e{n}" for n in range(60)]
    records = layout.records("o1")
    planned(ports, "b1", names, records)
    some = {name: np.array([len(f"text of {name}"), 1], np.float32) for name in names[:cached]}
    ports.data.objects[layout.embeddings(ENCODER.digest, records)] = vectors.pack(some)
    return ports


def test_a_training_is_given_the_vectors_that_are_known() -> None:
    ports = labeled_world(cached=3)

    outcome = plan_training({"dataset": "d1", "cause": "labels"}, ports)

    model = outcome.body["model"]
    given = vectors.unpack(ports.data.objects[layout.training_vectors(model)])
    assert {name: vector.tolist() for name, vector in given.items()} == {f"t{n}": [10.0, 1.0] for n in range(3)}
    assert ports.data.json(layout.training_spec(model))["encoder"] == ENCODER.digest
    assert not ports.data.exists(layout.batch_embeddings(ENCODER.digest, "b1"))  # the batch is not complete


def test_a_complete_batch_is_read_from_its_own_artifact_ever_after() -> None:
    ports = labeled_world(cached=64)
    plan_training({"dataset": "d1", "cause": "labels"}, ports)
    del ports.data.objects[layout.embeddings(ENCODER.digest, layout.records("o1"))]
    commit(ports, "d2", train=lines("t", [*CLASSES, *CLASSES]), parent="d1", batches=("b1", "imported-1"))

    outcome = plan_training({"dataset": "d2", "cause": "labels"}, ports)

    given = vectors.unpack(ports.data.objects[layout.training_vectors(outcome.body["model"])])
    assert sorted(given) == ["t0", "t1", "t2", "t3"]


def test_labels_that_came_with_their_records_have_their_vectors_too() -> None:
    ports = labeled_world()
    batch, rows = layout.import_batch("o7"), [f"t{n}" for n in range(4)]
    commit(ports, "d2", train=lines("t", [*CLASSES, *CLASSES]), batches=(batch,))
    entries = [{"id": name, "oid": "o8", "row": n, "label": "x"} for n, name in enumerate(rows)]
    ports.data.objects[layout.imported("o7")] = gzip.compress(to_jsonl(entries))
    known = {name: np.array([n, 1], np.float32) for n, name in enumerate([*rows, "another"])}
    ports.data.objects[layout.embeddings(ENCODER.digest, layout.records("o8"))] = vectors.pack(known)

    outcome = plan_training({"dataset": "d2", "cause": "labels"}, ports)

    given = vectors.unpack(ports.data.objects[layout.training_vectors(outcome.body["model"])])
    assert {name: vector[0] for name, vector in given.items()} == {"t0": 0, "t1": 1, "t2": 2, "t3": 3}
    assert sorted(vectors.kept(ENCODER.digest, "d2", ports)) == rows


def test_an_encoder_that_was_never_imported_is_named_before_money_is_spent() -> None:
    ports = labeled_world()
    del ports.data.objects[layout.encoder("words")]

    with pytest.raises(ConfigError, match=r"training.encoder is 'words', but .* run `winnow import encoder DIR"):
        plan_training({"dataset": "d1", "cause": "labels"}, ports)


def test_a_model_is_named_by_its_encoder_too() -> None:
    ports = labeled_world()
    plain = make_ports(loop="training: {min_labels: 2, min_new_labels: 0}")
    commit(plain, "d1", train=lines("t", [*CLASSES, *CLASSES]))

    names = {plan_training({"dataset": "d1", "cause": "labels"}, each).body["model"] for each in (ports, plain)}

    assert len(names) == 2


def test_planning_survives_every_fault() -> None:
    def act(ports: Any) -> Any:
        return plan_training({"dataset": "d1", "cause": "labels"}, ports).body["model"]

    wanted = act(labeled_world(cached=64))
    for fault, ports in every_fault(lambda: labeled_world(cached=64), act):
        assert len(vectors.unpack(ports.data.objects[layout.training_vectors(wanted)])) == 4, fault


@pytest.mark.parametrize("encoder", [None, EncoderCard(**{**ENCODER.__dict__, "max_tokens": 9})])
def test_a_model_on_another_encoder_than_the_ordered_one_is_refused(encoder: EncoderCard | None) -> None:
    ports = labeled_world()
    model = plan_training({"dataset": "d1", "cause": "labels"}, ports).body["model"]
    artifact = ports.training.complete(model)
    ports.models.offer(artifact, Standing(model, CLASSES, encoder=encoder, dataset="d1"))

    with pytest.raises(BadModel, match=r"carries encoder .*, the training was ordered with e"):
        publish_model({"model": model, "artifact": artifact}, ports)


# The gate


def test_the_gate_encodes_nothing_that_is_known_and_the_rest_once_for_all_models() -> None:
    ports = labeled_world(cached=64)
    plan_training({"dataset": "d1", "cause": "labels"}, ports)  # keeps the vectors of batch b1
    new, old, arm = (Standing(name, CLASSES) for name in ("m-new", "bootstrap-text-words", "m-new"))
    ports.models.add("m-new", new, arms={"active": arm})
    ports.models.add(old.model, old)

    evaluate_challenger({"model": "m-new", "dataset": "d1"}, ports)

    assert new.encoded == old.encoded == arm.encoded == []

    ports.data.delete([layout.batch_embeddings(ENCODER.digest, "b1"), layout.gate_report("m-new")])
    evaluate_challenger({"model": "m-new", "dataset": "d1"}, ports)

    assert (len(new.encoded), old.encoded, arm.encoded) == (60, [], [])


def test_an_imported_model_may_bring_an_encoder_of_its_own_and_is_judged_with_its_vectors() -> None:
    ports = labeled_world(cached=64)
    ports.models.add("bootstrap-text-words", Standing("bootstrap-text-words", CLASSES))
    theirs = Standing("theirs", CLASSES, encoder=EncoderCard(**{**ENCODER.__dict__, "max_tokens": 9}))
    ports.models.offer(ports.data.uri(layout.training_artifact(ports.stack, "theirs")), theirs)
    request = {"dataset": "import-theirs", "cause": "import", "by": "ada", "at": "now", "reason": None}

    plan = plan_training(request, ports).body
    publish_model({"model": "theirs", "artifact": plan["artifact"]}, ports)
    evaluate_challenger({"model": "theirs", "dataset": plan["dataset"]}, ports)

    assert ports.data.json(layout.gate_report("theirs"))["evaluation"]["records"] == 60
    assert len(theirs.encoded) == 60  # the vectors of another encoder are not taken for its own
