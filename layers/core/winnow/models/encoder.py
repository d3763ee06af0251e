"""What an encoder is: a fixed network that turns a text or an image into a vector, whatever is learned on top of it."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, cast, get_args

from winnow.digests import short_id
from winnow.errors import BadModel

ENCODER_FILE, TOKENIZER_FILE, ENCODER_CARD = "encoder.onnx", "tokenizer.json", "encoder.json"
"""Names in a package and in a stack; `encoder.json` is the card of an encoder that lies by itself."""

MAX_ENCODER_BYTES, MAX_TOKENIZER_BYTES = 512 << 20, 32 << 20
"""A function holds the encoder in memory beside everything else; the largest multilingual vocabularies take 17 MB."""

MAX_DIMENSIONS = 4096
DEFAULT_TOKENS, MAX_TOKENS = 256, 8192
DEFAULT_SIDE = 224

Reads = Literal["text", "image"]
Pooling = Literal["mean", "cls", "max", "none"]

_SHA256 = re.compile(r"[0-9a-f]{64}\Z")


@dataclass(frozen=True)
class EncoderCard:
    """An encoder's files and how they are used. Vectors are float32 (n, dimensions) of length 1.

    `output` is the graph output that is read. `pooling` makes one vector of an output with one a token (n, t, d) or one
    a place (n, d, h, w): `mean` over the tokens that are no padding, the first one (`cls`) or the largest values (`max`);
    `none` of an output (n, d). Texts are cut to `max_tokens`. Images are resized to `shape` (height, width, channels),
    values in 0..1 become (value - mean) / std a channel, and `layout` says where the graph wants its channels. An encoder
    that is `alone` gets one record at a time, because it gives others in company (dynamic quantisation does).
    """

    reads: Reads
    dimensions: int
    output: str
    pooling: Pooling
    files: Mapping[str, str]
    max_tokens: int | None = None
    shape: tuple[int, int, int] | None = None
    layout: Literal["NCHW", "NHWC"] | None = None
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()
    alone: bool = False

    def __post_init__(self) -> None:
        if self.reads not in get_args(Reads):
            raise BadModel(f"encoder.reads is {self.reads!r}; use text or image")
        if self.pooling not in get_args(Pooling):
            raise BadModel(f"encoder.pooling is {self.pooling!r}; use one of {', '.join(get_args(Pooling))}")
        if not _is_whole(self.dimensions) or not 1 <= self.dimensions <= MAX_DIMENSIONS:
            raise BadModel(f"encoder.dimensions is {self.dimensions!r}; vectors have 1 to {MAX_DIMENSIONS} numbers")
        if not isinstance(self.output, str) or not self.output:
            raise BadModel("encoder.output is empty; name the graph output that holds the vectors")
        if not isinstance(self.alone, bool):
            raise BadModel(f"encoder.alone is {self.alone!r}; say true or false")
        self._check_files()
        if self.reads == "text":
            self._check_text()
        else:
            self._check_image()

    def _check_files(self) -> None:
        wanted = {ENCODER_FILE, TOKENIZER_FILE} if self.reads == "text" else {ENCODER_FILE}
        if set(self.files) != wanted:
            raise BadModel(
                f"encoder.files lists {sorted(self.files)}; an encoder of {self.reads} is {' and '.join(sorted(wanted))}"
            )
        for name, found in self.files.items():
            if not isinstance(found, str) or not _SHA256.match(found):
                raise BadModel(
                    f"encoder.files[{name!r}] is {found!r}; give the file's sha256 as 64 lower-case hex digits"
                )

    def _check_text(self) -> None:
        if not _is_whole(self.max_tokens) or not 1 <= cast(int, self.max_tokens) <= MAX_TOKENS:
            raise BadModel(f"encoder.max_tokens is {self.max_tokens!r}; texts are cut to 1 to {MAX_TOKENS} tokens")
        if self.shape is not None or self.layout is not None or self.mean or self.std:
            raise BadModel("encoder.shape, layout, mean and std are of images; an encoder of text has none")

    def _check_image(self) -> None:
        if self.max_tokens is not None:
            raise BadModel("encoder.max_tokens is of texts; an encoder of images has none")
        shape = self.shape
        if (
            shape is None or len(shape) != 3 or not all(map(_is_whole, shape))
            or not all(1 <= side <= 1024 for side in shape[:2]) or shape[2] not in (1, 3)
        ):  # fmt: skip
            raise BadModel(
                f"encoder.shape is {shape!r}; give [height, width, channels]: sides up to 1024, 1 or 3 channels"
            )
        if self.layout not in ("NCHW", "NHWC"):
            raise BadModel(f"encoder.layout is {self.layout!r}; use NCHW or NHWC")
        for name, values in (("mean", self.mean), ("std", self.std)):
            if len(values) != shape[2] or not all(map(_is_finite, values)):
                raise BadModel(f"encoder.{name} is {list(values)!r}; give {shape[2]} numbers, one a channel")
        if not all(value > 0 for value in self.std):
            raise BadModel(f"encoder.std is {list(self.std)!r}; it divides, so give numbers above 0")

    @property
    def digest(self) -> str:
        """Name of this encoder: the same files used in the same way have the same name, and give the same vectors.

        >>> EncoderCard(reads="text", dimensions=8, output="y", pooling="mean", max_tokens=16,
        ...             files={"encoder.onnx": "0" * 64, "tokenizer.json": "1" * 64}).digest
        'ef7de6c1bb77f062b35c'
        """
        return short_id("e", self.to_json())

    def to_json(self) -> dict[str, Any]:
        body: dict[str, Any] = {
            "reads": self.reads, "dimensions": self.dimensions, "output": self.output, "pooling": self.pooling,
            "alone": self.alone, "files": dict(self.files),
        }  # fmt: skip
        if self.reads == "text":
            return {**body, "max_tokens": self.max_tokens}
        assert self.shape is not None  # by __post_init__
        return {
            **body, "shape": list(self.shape), "layout": self.layout, "mean": list(self.mean), "std": list(self.std),
        }  # fmt: skip

    @classmethod
    def from_json(cls, body: Any) -> EncoderCard:
        """Raises `BadModel` naming the field and the remedy."""
        if not isinstance(body, Mapping):
            raise BadModel(f"encoder is {type(body).__name__}; give an object as `to_json` writes it")
        known = {item: body[item] for item in cls.__dataclass_fields__ if item in body}
        missing = [name for name in ("reads", "dimensions", "output", "pooling", "files") if name not in known]
        if missing:
            raise BadModel(f"encoder.{missing[0]} is missing; import the encoder again")
        if not isinstance(known["files"], Mapping):
            raise BadModel("encoder.files is no object; map every file name to its sha256")
        for name in ("shape", "mean", "std"):
            if name in known:
                if not isinstance(known[name], list):
                    raise BadModel(f"encoder.{name} is {known[name]!r}; give a list of numbers")
                known[name] = tuple(known[name])
        return cls(**known)


def _is_whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_finite(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
