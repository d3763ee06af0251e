"""The nouns: frozen records, validated when built, with their JSON form.

A *content* is what is scored and labeled once, identified by the digest of its canonical masked payload. An
*occurrence* is one place it was found: object version and row. Only this module decides how either looks on disk.
"""

from __future__ import annotations

import base64
import binascii
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, cast, get_args

from winnow.errors import BadInput
from winnow.tables import RESERVED, Cell

Role = Literal["train", "evaluation", "reward"]
Kind = Literal["text", "image", "table"]
Arm = Literal[
    "active", "control", "rare", "quota", "recheck", "synthetic", "evaluation", "reward", "dispute", "imported",
]  # fmt: skip
Origin = Literal["pool", "production", "feedback", "incident", "synthetic"]

SYNTHETIC: Literal["synthetic"] = "synthetic"
"""Origin, and arm, of records that were made of others: people label them, and they are in training alone."""

FORMAT = 1
"""Version written into every canonical record."""


@dataclass(frozen=True)
class Image:
    """A canonical image: where its PNG lies, and its bytes when they are small enough to travel along."""

    ref: str
    width: int
    height: int
    png: bytes | None = None

    def to_json(self) -> dict[str, Any]:
        body: dict[str, Any] = {"ref": self.ref, "width": self.width, "height": self.height}
        if self.png is not None:
            body["png"] = base64.b64encode(self.png).decode("ascii")
        return body

    @classmethod
    def from_json(cls, body: Mapping[str, Any]) -> Image:
        try:
            png = base64.b64decode(body["png"], validate=True) if body.get("png") else None
            return cls(ref=str(body.get("ref", "")), width=int(body["width"]), height=int(body["height"]), png=png)
        except (KeyError, TypeError, ValueError, binascii.Error) as error:
            raise BadInput(f"image of a canonical record is malformed: {error}", code="malformed-record") from error


@dataclass(frozen=True)
class Record:
    """One content as every hop after ingest sees it: canonical, masked, with its role for ever."""

    id: str
    oid: str
    kind: Kind
    cluster: str
    role: Role
    key: float
    text: str | None = None
    image: Image | None = None
    row: Mapping[str, Cell] | None = None
    origin: Origin = "pool"
    slices: Mapping[str, str] = field(default_factory=dict)
    cost: float | None = None
    label: str | float | None = None
    """A label that came with the record: a class, or a number for regression. Models never see it."""
    captured_at: str | None = None
    external_id: str | None = None
    subject: str | None = None

    def __post_init__(self) -> None:
        if not self.id or not self.oid or not self.cluster:
            raise BadInput("a record needs id, oid and cluster", code="malformed-record")
        if self.origin == SYNTHETIC and self.role != "train":
            raise BadInput(f"a synthetic record judges nothing; its role is {self.role!r}", code="malformed-record")
        if self.role not in get_args(Role):
            raise BadInput(f"role {self.role!r} is none of {get_args(Role)}", code="malformed-record")
        if not 0.0 <= self.key < 1.0:
            raise BadInput(f"uniform key {self.key!r} is outside [0, 1)", code="malformed-record")
        payloads = {"text": self.text, "image": self.image, "table": self.row}
        if self.kind not in payloads or any((kind == self.kind) != (one is not None) for kind, one in payloads.items()):
            raise BadInput(f"a record of kind {self.kind!r} carries exactly that payload", code="malformed-record")
        if self.row is not None:
            _check_row(self.row)
        if isinstance(self.label, float) and not math.isfinite(self.label):
            raise BadInput(f"label {self.label!r} is not a finite number", code="bad-label")
        if self.cost is not None and not 0.0 < self.cost < 10_000.0:
            raise BadInput(f"cost {self.cost!r} is not a number of minutes above 0", code="bad-cost")

    def to_json(self) -> dict[str, Any]:
        body: dict[str, Any] = {
            "v": FORMAT, "id": self.id, "oid": self.oid, "kind": self.kind, "cluster": self.cluster,
            "role": self.role, "key": self.key, "origin": self.origin,
        }  # fmt: skip
        if self.text is not None:
            body["text"] = self.text
        if self.image is not None:
            body["image"] = self.image.to_json()
        if self.row is not None:
            body["row"] = dict(self.row)
        for name in ("cost", "label", "captured_at", "external_id", "subject"):
            value = getattr(self, name)
            if value is not None:
                body[name] = value
        if self.slices:
            body["slices"] = dict(self.slices)
        return body

    @classmethod
    def from_json(cls, body: Mapping[str, Any]) -> Record:
        _check_format("record", body.get("v"))
        try:
            return cls(
                id=body["id"], oid=body["oid"], kind=body["kind"], cluster=body["cluster"], role=body["role"],
                key=float(body["key"]), text=body.get("text"),
                image=Image.from_json(body["image"]) if body.get("image") is not None else None,
                row=_floats(body["row"]) if body.get("row") is not None else None,
                origin=cast(Origin, body.get("origin", "pool")), slices=body.get("slices") or {},
                cost=body.get("cost"), label=_float(body.get("label")), captured_at=body.get("captured_at"),
                external_id=body.get("external_id"), subject=body.get("subject"),
            )  # fmt: skip
        except (KeyError, TypeError, AttributeError) as error:
            raise BadInput(f"canonical record is malformed: {error!r}", code="malformed-record") from error

    def payload(self) -> dict[str, Any]:
        """The part that training and serving see: `{"text": ...}`, `{"image": {"png": base64, ...}}` or `{"row": {...}}`."""
        if self.text is not None:
            return {"text": self.text}
        if self.row is not None:
            return {"row": dict(self.row)}
        assert self.image is not None  # by __post_init__
        return {"image": self.image.to_json()}


def _check_format(what: str, found: Any) -> None:
    """Occurrences and labels say none while theirs is 1: the versions before this one take no field they do not know."""
    if found != FORMAT:
        raise BadInput(f"{what} format {found!r} is unknown; this code reads {FORMAT}", code="format")


def _float(value: Any) -> Any:
    """JSON writers other than ours spell 39.0 as 39."""
    return float(value) if type(value) is int else value


def _floats(row: Mapping[str, Any]) -> dict[str, Any]:
    return {name: _float(value) for name, value in row.items()}


def _check_row(row: Mapping[str, Cell]) -> None:
    if not row:
        raise BadInput("a row needs at least one column", code="malformed-record")
    for name, value in row.items():
        if not isinstance(name, str) or not name.strip() or name in RESERVED:
            raise BadInput(f"{name!r} is no name of a feature", code="malformed-record")
        if not (value is None or isinstance(value, str) or (isinstance(value, float) and math.isfinite(value))):
            raise BadInput(
                f"column {name!r} holds {value!r}; a cell is a finite number, a text or null", code="malformed-record"
            )


OccurrenceStatus = Literal["accepted", "duplicate", "superseded", "quarantined"]


@dataclass(frozen=True)
class Occurrence:
    """One row of one object version and what became of it at ingest. `content` is None when it has none."""

    oid: str
    row: int
    status: OccurrenceStatus
    content: str | None = None
    reason: str | None = None
    external_id: str | None = None
    subject: str | None = None

    def to_json(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if value is not None}

    @classmethod
    def from_json(cls, body: Mapping[str, Any]) -> Occurrence:
        _check_format("occurrence", body.get("v", 1))
        return cls(**{name: value for name, value in body.items() if name != "v"})


@dataclass(frozen=True)
class PoolObject:
    """A version of an object in the pool bucket, as its event named it.

    `sequencer` orders versions of the same key: right-pad the shorter with zeros and compare as text.
    """

    bucket: str
    key: str
    version: str
    sequencer: str
    size: int = 0

    def is_newer_than(self, sequencer: str) -> bool:
        """True when this version was written after the one with `sequencer`.

        >>> PoolObject("b", "k", "v", "0A").is_newer_than("09FF")
        True
        """
        width = max(len(self.sequencer), len(sequencer))
        return self.sequencer.upper().ljust(width, "0") > sequencer.upper().ljust(width, "0")

    def to_json(self) -> dict[str, Any]:
        return dict(self.__dict__)

    @classmethod
    def from_json(cls, body: Mapping[str, Any]) -> PoolObject:
        return cls(**body)


@dataclass(frozen=True)
class Label:
    """One line of `labels/<batch>.jsonl`: a consolidated label with where it came from.

    `label` is a class, or a number for regression.
    `status` is `labeled`, `disputed` (experts were asked), `expired` (nobody answered) or `quarantined`.
    """

    id: str
    batch: str
    status: Literal["labeled", "disputed", "expired", "quarantined"]
    label: str | float | None
    confidence: float
    arm: Arm
    strategy: str
    score: float | None
    rank: int
    model: str
    job: str
    guideline: str
    cluster: str
    role: Role
    labeled_at: str
    answers: tuple[Mapping[str, Any], ...] = ()
    reason: str | None = None
    source: Mapping[str, Any] | None = None
    """Where an imported label came from: `object` and `row`, and as far as it is known `file`, `line`, `by` and `at`."""

    def to_json(self) -> dict[str, Any]:
        body = {**self.__dict__, "answers": [dict(answer) for answer in self.answers]}
        return {name: value for name, value in body.items() if value is not None}

    @classmethod
    def from_json(cls, body: Mapping[str, Any]) -> Label:
        _check_format("label", body.get("v", 1))
        body = {name: value for name, value in body.items() if name != "v"}
        body["label"] = _float(body.get("label"))
        body.setdefault("score", None)
        return cls(**{**body, "answers": tuple(body.get("answers", ()))})


_encode = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode
"""Made once: `json.dumps` makes an encoder for every call that does not use its defaults."""


def to_jsonl(bodies: list[Mapping[str, Any]] | list[dict[str, Any]]) -> bytes:
    """JSON Lines, UTF-8, one compact object a line, with a last newline (empty input gives empty bytes)."""
    return "".join(_encode(body) + "\n" for body in bodies).encode()


def from_jsonl(data: bytes) -> list[dict[str, Any]]:
    """The objects of our own JSON Lines; a line that does not parse is `BadInput` naming it."""
    rows: list[dict[str, Any]] = []
    for number, line in enumerate(data.decode("utf-8").split("\n"), start=1):
        if line:
            try:
                rows.append(json.loads(line))
            except ValueError as error:
                raise BadInput(f"line {number} is not JSON: {error}", code="malformed-line") from error
    return rows
