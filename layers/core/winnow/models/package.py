"""The model package's record, `model.json`: what a model expects, what it gives, and which files it consists of.

Scorer, endpoint, gate and publisher all read this one record; none of them looks into the graph to find out.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal, cast, get_args

from winnow.errors import BadModel
from winnow.models.encoder import EncoderCard

FORMAT = 1
"""Version of model.json that this code writes and reads."""

MODEL_FILE = "model.onnx"
CARD_FILE = "model.json"
UNMASKED, ANY_MASKER = "none", "any"
"""Maskers of a model trained on unmasked text (by a person), and of one that learned from no text at all."""

MAX_EMBEDDING = 512
"""Dimensions of an embedding; more would not fit the score files' budget."""

HASHED_ROW = "hashed-1"
"""The form of a whole row as one vector (`winnow.onnx.features.hashed_rows`); the bootstrap table model reads it."""

HASHED_WIDTH = 256

DECLARED = "declared-1"
"""The form of a number column whose kind the loop file declares: numbers are read out of texts as well, as at ingest."""

Task = Literal["classification", "regression"]
ModelKind = Literal["text", "image", "table"]
InputKind = Literal["text", "image", "number", "category", "row", "embedding", "class_count"]

_MODEL_ID = re.compile(r"[A-Za-z0-9](-*[A-Za-z0-9]){0,62}\Z")
_FILE_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}\Z")
_SHA256 = re.compile(r"[0-9a-f]{64}\Z")


@dataclass(frozen=True)
class ModelInput:
    """One input tensor: its name in the graph, what it is, and which field of a record feeds it.

    `text`: strings (n,), passed through the text form named by `form`, or as they are when it is None.
    `image`: float32 (n, H, W, C) in 0..1, `shape` = (H, W, C) with C 1 (grey) or 3 (RGB).
    `number`: float32 (n, 1), the column `source` of a table; NaN = missing or no number. The endpoint reads numbers out
    of texts for it when `form` is `declared-1`.
    `category`: strings (n, 1), the column `source` of a table; "" = missing, numbers as text (`39`, `3.5`).
    `row`: float32 (n, 256), a table's whole row in the form named by `form`.
    `embedding`: float32 (n, D), what the package's encoder makes of the text or image.
    `class_count`: an int64 scalar, the number of classes (only the bootstrap model needs it).
    """

    name: str
    kind: InputKind
    source: str | None = None
    shape: tuple[int, int, int] | None = None
    form: str | None = None

    def __post_init__(self) -> None:
        if not self.name:
            raise BadModel("inputs[].name is empty; give the graph input's name")
        if self.kind not in get_args(InputKind):
            raise BadModel(f"inputs[{self.name}].kind is {self.kind!r}; use one of {', '.join(get_args(InputKind))}")
        if self.kind in ("number", "category") and not self.source:
            raise BadModel(f"inputs[{self.name}].source is {self.source!r}; name the table's column that feeds it")
        if self.kind == "row" and not self.form:
            raise BadModel(f"inputs[{self.name}].form is {self.form!r}; name how a row becomes numbers: {HASHED_ROW!r}")
        if self.kind == "image" and (
            self.shape is None
            or len(self.shape) != 3
            or not all(1 <= size <= 4096 for size in self.shape[:2])
            or self.shape[2] not in (1, 3)
        ):
            raise BadModel(
                f"inputs[{self.name}].shape is {self.shape!r}; give [height, width, channels] with 1 or 3 channels"
            )

    def to_json(self) -> dict[str, Any]:
        body: dict[str, Any] = {"name": self.name, "kind": self.kind}
        if self.source is not None:
            body["source"] = self.source
        if self.shape is not None:
            body["shape"] = list(self.shape)
        if self.form is not None:
            body["form"] = self.form
        return body

    @classmethod
    def from_json(cls, body: Mapping[str, Any]) -> ModelInput:
        shape = body.get("shape")
        if shape is not None and not (
            isinstance(shape, list) and all(isinstance(size, int) and not isinstance(size, bool) for size in shape)
        ):
            raise BadModel(f"inputs[].shape is {shape!r}; give three whole numbers")
        return cls(
            name=_text(body, "name", "inputs[].name"),
            kind=cast(InputKind, _text(body, "kind", "inputs[].kind")),
            source=_optional_text(body, "source", "inputs[].source"),
            shape=cast("tuple[int, int, int] | None", None if shape is None else tuple(shape)),
            form=_optional_text(body, "form", "inputs[].form"),
        )


@dataclass(frozen=True)
class ModelOutputs:
    """The graph outputs' names: probabilities (n, C), members (n, M, C) or None, embedding (n, D <= 512).

    With a `prediction` (n,) the model is a regression: it has no probabilities, and members are (n, M).
    """

    probabilities: str = "probabilities"
    members: str | None = "members"
    embedding: str = "embedding"
    prediction: str | None = None

    def __post_init__(self) -> None:
        names = self.names()
        if not all(names) or len(set(names)) != len(names):
            raise BadModel(f"outputs are {names!r}; name three different graph outputs (members may be null)")

    @property
    def answer(self) -> str:
        """The output that says what a record is: the prediction of a regression, else the probabilities."""
        return self.probabilities if self.prediction is None else self.prediction

    def names(self) -> list[str]:
        """The names to ask of the graph, in the order answer, embedding, members."""
        return [self.answer, self.embedding, *([] if self.members is None else [self.members])]

    def to_json(self) -> dict[str, Any]:
        answer = "probabilities" if self.prediction is None else "prediction"
        return {answer: self.answer, "members": self.members, "embedding": self.embedding}

    @classmethod
    def from_json(cls, body: Mapping[str, Any], *, task: str) -> ModelOutputs:
        answer = "prediction" if task == "regression" else "probabilities"
        return cls(
            **{answer: _text({answer: answer, **body}, answer, f"outputs.{answer}")},
            members=_optional_text(body, "members", "outputs.members"),
            embedding=_text({"embedding": "embedding", **body}, "embedding", "outputs.embedding"),
        )


@dataclass(frozen=True)
class ModelCard:
    """model.json as a record; building one checks every field.

    >>> card = ModelCard(model="m-1", kind="text", classes=("no", "yes"), masker="1", files={"model.onnx": "0" * 64},
    ...                  inputs=(ModelInput(name="text", kind="text", source="text"),))
    >>> ModelCard.from_json(card.to_json()) == card
    True
    """

    model: str
    kind: ModelKind
    classes: tuple[str, ...]
    inputs: tuple[ModelInput, ...]
    masker: str
    files: Mapping[str, str]
    outputs: ModelOutputs = field(default_factory=ModelOutputs)
    task: Task = "classification"
    temperature: float = 1.0
    dataset: str | None = None
    metrics: Mapping[str, Any] = field(default_factory=dict)
    encoder: EncoderCard | None = None
    """What makes the input of kind `embedding`; its files are among the package's."""

    def __post_init__(self) -> None:
        if not _MODEL_ID.match(self.model):
            raise BadModel(f"model is {self.model!r}; use 1 to 63 letters, digits and inner hyphens")
        if self.task not in get_args(Task):
            raise BadModel(f"task is {self.task!r}; use one of {', '.join(get_args(Task))}")
        if self.kind not in get_args(ModelKind):
            raise BadModel(f"kind is {self.kind!r}; use one of {', '.join(get_args(ModelKind))}")
        if self.task == "regression":
            self._check_regression()
        elif self.outputs.prediction is not None:
            raise BadModel("outputs.prediction belongs to a regression; a classification names its probabilities")
        elif len(self.classes) < 2 or len(set(self.classes)) != len(self.classes) or not all(self.classes):
            raise BadModel(f"classes has {len(self.classes)} entries; give at least two different, non-empty names")
        if not 0.0 < self.temperature < math.inf:
            raise BadModel(f"temperature is {self.temperature!r}; it divides logits, so give a number above 0")
        if not self.masker:
            raise BadModel("masker is empty; name the version of the masker the training data went through")
        self._check_inputs()
        self._check_files()

    def _check_regression(self) -> None:
        if self.kind != "table":
            raise BadModel(f"task is 'regression' of kind {self.kind!r}; this version predicts numbers for tables only")
        if self.classes:
            raise BadModel(f"classes has {len(self.classes)} entries; a regression has none: give an empty list")
        if self.temperature != 1.0:
            raise BadModel(f"temperature is {self.temperature!r}; a regression has no logits to divide: give 1")
        if self.outputs.prediction is None:
            raise BadModel("outputs.prediction is missing; name the graph output that holds the predicted numbers")

    def _check_inputs(self) -> None:
        names = [item.name for item in self.inputs]
        if len(set(names)) != len(names):
            raise BadModel(f"inputs repeat a name: {names}; every graph input is listed once")
        payloads = [item.kind for item in self.payloads]
        if self.kind == "table":
            if not payloads or not (payloads == ["row"] or set(payloads) <= {"number", "category"}):
                raise BadModel(
                    f"inputs hold {payloads[:5]}; a table model has inputs of kind 'number' and 'category', one a column, "
                    "or exactly one of kind 'row'"
                )
        elif self.encoder is not None:
            self._check_encoder(payloads, self.encoder)
        elif payloads != [self.kind]:
            raise BadModel(f"inputs hold {payloads}; a {self.kind} model has exactly one input of kind {self.kind!r}")
        if self.encoder is not None and self.kind == "table":
            raise BadModel("encoder is of texts and images; a table model has none")

    def _check_encoder(self, payloads: Sequence[str], encoder: EncoderCard) -> None:
        if sorted(payloads) not in (["embedding"], sorted(["embedding", self.kind])):
            raise BadModel(
                f"inputs hold {list(payloads)}; a {self.kind} model with an encoder has one of kind 'embedding', and perhaps "
                f"one of kind {self.kind!r}"
            )
        if encoder.reads != self.kind:
            raise BadModel(f"encoder.reads is {encoder.reads!r}; an encoder of a {self.kind} model reads {self.kind}")

    def _check_files(self) -> None:
        if MODEL_FILE not in self.files:
            raise BadModel(f"files lacks {MODEL_FILE}; list every file of the package with its sha256")
        for name, digest in self.files.items():
            if not _FILE_NAME.match(name) or name == CARD_FILE:
                raise BadModel(f"files[{name!r}] is no plain file name beside {CARD_FILE}; remove its folder")
            if not isinstance(digest, str) or not _SHA256.match(digest):
                raise BadModel(f"files[{name!r}] is {digest!r}; give the file's sha256 as 64 lower-case hex digits")
        for name, digest in (self.encoder.files if self.encoder else {}).items():
            if self.files.get(name) != digest:
                raise BadModel(
                    f"files[{name!r}] is {self.files.get(name)!r}, encoder.files says {digest!r}; list both alike"
                )

    @property
    def payloads(self) -> tuple[ModelInput, ...]:
        """The inputs that a record feeds: those of a text or image model, one a column of a table model."""
        return tuple(item for item in self.inputs if item.kind != "class_count")

    @property
    def payload(self) -> ModelInput:
        """The first of `payloads`: all of them when the model reads texts, images or rows of form `hashed-1`."""
        return self.payloads[0]

    def reading(self, kind: InputKind) -> ModelInput | None:
        """The first input of a kind, None without any."""
        return next((item for item in self.inputs if item.kind == kind), None)

    def to_json(self) -> dict[str, Any]:
        return {
            "format": FORMAT,
            "model": self.model,
            "task": self.task,
            "kind": self.kind,
            "classes": list(self.classes),
            "inputs": [item.to_json() for item in self.inputs],
            "outputs": self.outputs.to_json(),
            "masker": self.masker,
            "temperature": self.temperature,
            "dataset": self.dataset,
            "metrics": dict(self.metrics),
            "files": dict(self.files),
            **({} if self.encoder is None else {"encoder": self.encoder.to_json()}),
        }

    def to_bytes(self) -> bytes:
        """model.json, the same bytes for the same card."""
        return (json.dumps(self.to_json(), ensure_ascii=False, indent=1, sort_keys=True) + "\n").encode()

    @classmethod
    def from_json(cls, body: Mapping[str, Any]) -> ModelCard:
        if body.get("format") != FORMAT:
            raise BadModel(f"format is {body.get('format')!r}; this version reads {FORMAT}")
        inputs, outputs, files = body.get("inputs"), body.get("outputs", {}), body.get("files")
        metrics, classes, temperature = body.get("metrics", {}), body.get("classes"), body.get("temperature", 1.0)
        task = _text({"task": "classification", **body}, "task", "task")
        if not isinstance(inputs, list) or not all(isinstance(item, dict) for item in inputs):
            raise BadModel("inputs is no list of objects; list every graph input with name and kind")
        if not isinstance(outputs, dict):
            raise BadModel(
                "outputs is no object; name the graph's probabilities (or prediction), members and embedding"
            )
        if not isinstance(files, dict):
            raise BadModel("files is no object; map every file name to its sha256")
        if not isinstance(metrics, dict):
            raise BadModel("metrics is no object; leave it out or map names to figures")
        if not isinstance(classes, list) or not all(isinstance(name, str) for name in classes):
            raise BadModel("classes is no list of texts; give the class names in the order of the columns")
        if isinstance(temperature, bool) or not isinstance(temperature, int | float):
            raise BadModel(f"temperature is {temperature!r}; it divides logits, so give a number above 0")
        return cls(
            model=_text(body, "model", "model"),
            kind=cast(ModelKind, _text(body, "kind", "kind")),
            classes=tuple(classes),
            inputs=tuple(ModelInput.from_json(item) for item in inputs),
            masker=_text(body, "masker", "masker"),
            files=files,
            outputs=ModelOutputs.from_json(outputs, task=task),
            task=cast(Task, task),
            temperature=float(temperature),
            dataset=_optional_text(body, "dataset", "dataset"),
            metrics=metrics,
            encoder=None if body.get("encoder") is None else EncoderCard.from_json(body["encoder"]),
        )

    @classmethod
    def from_bytes(cls, data: bytes) -> ModelCard:
        """Read model.json; raises `BadModel` naming the field and the remedy."""
        try:
            body = json.loads(data)
        except (ValueError, RecursionError) as error:
            raise BadModel(f"{CARD_FILE} is not JSON: {error}; write it again") from error
        if not isinstance(body, dict):
            raise BadModel(f"{CARD_FILE} is no JSON object; see DESIGN section 4, the model package")
        return cls.from_json(body)

    def renamed(self, model: str) -> ModelCard:
        """The same card under another model id."""
        return replace(self, model=model)


def digest(data: bytes) -> str:
    """sha256 as `files` has it.

    >>> digest(b"")[:8]
    'e3b0c442'
    """
    return hashlib.sha256(data).hexdigest()


def check_files(card: ModelCard, files: Mapping[str, bytes], *, later: Collection[str] = ()) -> None:
    """Raise `BadModel` unless every file the card lists, but those read `later`, is there with the digest it names."""
    for name, expected in card.files.items():
        if name in later:
            continue
        if name not in files:
            raise BadModel(f"files[{name!r}] is listed in {CARD_FILE} but missing from the package; add the file")
        if digest(files[name]) != expected:
            raise BadModel(f"files[{name!r}] has another sha256 than {CARD_FILE} says; publish the package again")


def _text(body: Mapping[str, Any], key: str, label: str) -> str:
    value = body.get(key)
    if not isinstance(value, str):
        raise BadModel(f"{label} is {value!r}; give a text")
    return value


def _optional_text(body: Mapping[str, Any], key: str, label: str) -> str | None:
    return None if body.get(key) is None else _text(body, key, label)
