"""Texts and images into vectors, by an encoder: the only implementation, for scorer, endpoint, gate and trainer.

Mean pooling over the tokens that are no padding, and vectors of length 1: Reimers and Gurevych, "Sentence-BERT", 2019.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
import onnxruntime

from winnow.errors import BadModel
from winnow.models.encoder import ENCODER_FILE, TOKENIZER_FILE, EncoderCard
from winnow.models.package import digest
from winnow.onnx.features import MAX_TEXT_CHARS, Payload, image_tensor, text_of

MASK = frozenset({"attention_mask", "input_mask", "mask"})
TYPES = frozenset({"token_type_ids", "segment_ids", "input_type_ids", "type_ids"})
IDS = frozenset({"input_ids", "ids", "tokens"})
"""Names under which exporters know a text graph's inputs."""

TEXT_ROWS, TEXT_TOKENS = 8, 2048
"""Texts and tokens of one pass, at most: more of them leave the processor's cache."""

IMAGE_ROWS = 16

Read = Callable[[str], bytes]
"""A file of the encoder by its name."""

Vectors = npt.NDArray[np.float32]
_INTEGERS = {"tensor(int64)": np.int64, "tensor(int32)": np.int32}


class Encoder:
    """An encoder that is loaded when it first has something to encode; safe to use from several threads."""

    def __init__(self, card: EncoderCard, read: Read, *, threads: int = 1) -> None:
        self.card = card
        self._read = read
        self._threads = threads

    def encode(self, payloads: Sequence[Payload]) -> Vectors:
        """Vectors (n, dimensions) of length 1, in the order of the payloads.

        Raises `BadInput` for a payload of another kind or one that does not decode, `BadModel` for files that are not
        those of the card.
        """
        if not payloads:
            return np.zeros((0, self.card.dimensions), np.float32)
        vectors = self.pooled(payloads)
        if vectors.shape != (len(payloads), self.card.dimensions):
            raise BadModel(
                f"{ENCODER_FILE} gives {vectors.shape} for {len(payloads)} records, its card says "
                f"{self.card.dimensions} dimensions"
            )
        return unit(vectors)

    def pooled(self, payloads: Sequence[Payload]) -> npt.NDArray[Any]:
        """What the graph gives after pooling, whatever its shape and length; at least one payload."""
        return self._texts(payloads) if self.card.reads == "text" else self._images(payloads)

    def _texts(self, payloads: Sequence[Payload]) -> npt.NDArray[Any]:
        tokens = [self.tokens(text_of(payload)) for payload in payloads]
        order = sorted(range(len(tokens)), key=lambda row: len(tokens[row]))
        passes = _passes(order, [len(tokens[row]) for row in order], alone=self.card.alone)
        joined = np.concatenate([self._pass([tokens[row] for row in rows]) for rows in passes])
        return joined[np.argsort(order)]

    def tokens(self, text: str) -> list[int]:
        """Token ids of a text, special ones included, at most `max_tokens`; one of padding for a text without any."""
        tokenizer, pad = self._tokenizer
        found: list[int] = tokenizer.encode(text[:MAX_TEXT_CHARS].encode("utf-8", "replace").decode()).ids
        return found or [pad]

    def _pass(self, tokens: Sequence[Sequence[int]]) -> npt.NDArray[Any]:
        _, pad = self._tokenizer
        ids, mask = padded(tokens, pad=pad, width=self._width)
        feed = {}
        for name, kind in self._inputs.items():
            values = mask if name in MASK else np.zeros_like(ids) if name in TYPES else ids
            feed[name] = values.astype(kind)
        (output,) = self._session.run([self.card.output], feed)
        return pooled(output, mask, how=self.card.pooling)

    def _images(self, payloads: Sequence[Payload]) -> npt.NDArray[Any]:
        card = self.card
        assert card.shape is not None  # an encoder of images
        name = next(iter(self._inputs))
        size = 1 if card.alone else IMAGE_ROWS
        parts = []
        for start in range(0, len(payloads), size):
            rows = np.stack([image_tensor(payload, shape=card.shape) for payload in payloads[start : start + size]])
            (output,) = self._session.run([card.output], {name: normalised(rows, card)})
            parts.append(pooled(output, None, how=card.pooling))
        return np.concatenate(parts)

    @cached_property
    def _session(self) -> Any:
        content = self._file(ENCODER_FILE)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = self._threads
        options.inter_op_num_threads = 1
        options.log_severity_level = 3
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        options.add_session_config_entry("session.load_model_format", "ONNX")
        try:
            return onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
        # onnxruntime derives its exceptions from Exception one by one, without a base of their own.
        except Exception as error:
            line = (str(error).strip().splitlines() or [type(error).__name__])[0]
            raise BadModel(f"{ENCODER_FILE} does not load: {line[:300]}; export it again") from error

    @cached_property
    def _inputs(self) -> dict[str, Any]:
        """The graph's inputs with their numpy types."""
        inputs = self._session.get_inputs()
        if self.card.reads == "image":
            return {item.name: np.float32 for item in inputs}
        return {item.name: _INTEGERS.get(item.type, np.int64) for item in inputs}

    @cached_property
    def _width(self) -> int | None:
        """The number of tokens that the graph insists on, if it does."""
        fixed = [item.shape[1] for item in self._session.get_inputs() if len(item.shape) == 2]
        return next((size for size in fixed if isinstance(size, int)), None)

    @cached_property
    def _tokenizer(self) -> tuple[Any, int]:
        assert self.card.max_tokens is not None  # an encoder of text
        return load_tokenizer(self._file(TOKENIZER_FILE), max_tokens=self.card.max_tokens)

    def _file(self, name: str) -> bytes:
        content = self._read(name)
        if digest(content) != self.card.files[name]:
            raise BadModel(f"{name} has another sha256 than the encoder's card says; import the encoder again")
        return content


def load_tokenizer(content: bytes, *, max_tokens: int) -> tuple[Any, int]:
    """The tokenizer of a tokenizer.json, which cuts and does not pad, and the id that padding has in it.

    Raises `BadModel` for a file that is none. Padding and truncation lengths of the file itself are not used.
    """
    from tokenizers import Tokenizer

    try:
        tokenizer = Tokenizer.from_str(content.decode("utf-8"))
    # The library raises plain Exception for whatever it cannot read.
    except Exception as error:
        raise BadModel(
            f"{TOKENIZER_FILE} cannot be read: {str(error)[:300]}; give one that Hugging Face's tokenizers wrote"
        ) from error
    padding, truncation = tokenizer.padding, tokenizer.truncation
    known = (tokenizer.token_to_id(name) for name in ("[PAD]", "<pad>", "<|padding|>"))
    pad = padding["pad_id"] if padding else next((found for found in known if found is not None), 0)
    tokenizer.no_padding()
    tokenizer.enable_truncation(max_tokens, direction=truncation["direction"] if truncation else "right")
    return tokenizer, int(pad)


def padded(
    tokens: Sequence[Sequence[int]], *, pad: int, width: int | None = None
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Ids (n, t) filled up on the right, and a mask with 1 where they are real; t = the longest, or `width`.

    >>> ids, mask = padded([[5, 6, 7], [8]], pad=0)
    >>> ids.tolist(), mask.tolist()
    ([[5, 6, 7], [8, 0, 0]], [[1, 1, 1], [1, 0, 0]])
    """
    longest = max(map(len, tokens)) if width is None else width
    ids = np.full((len(tokens), longest), pad, np.int64)
    mask = np.zeros_like(ids)
    for row, found in enumerate(tokens):
        ids[row, : len(found)] = found
        mask[row, : len(found)] = 1
    return ids, mask


def pooled(output: npt.NDArray[Any], mask: npt.NDArray[np.int64] | None, *, how: str) -> npt.NDArray[Any]:
    """One vector a record of an output (n, d), (n, t, d) or (n, d, h, w); `mask` (n, t) has 0 where padding is.

    >>> rows = np.array([[[1.0, 3.0], [3.0, 5.0], [9.0, 9.0]]])
    >>> pooled(rows, np.array([[1, 1, 0]]), how="mean").tolist()
    [[2.0, 4.0]]
    >>> pooled(rows, np.array([[1, 1, 0]]), how="max").tolist(), pooled(rows, None, how="cls").tolist()
    ([[3.0, 5.0]], [[1.0, 3.0]])
    """
    if output.ndim == 4:
        output = output.reshape(*output.shape[:2], -1).transpose(0, 2, 1)
    if output.ndim != 3 or how == "none":
        return output
    if how == "cls":
        return output[:, 0]
    real = np.ones(output.shape[:2]) if mask is None else mask
    kept = real.astype(output.dtype)[:, :, None]
    if how == "max":
        return np.where(kept > 0, output, -np.inf).max(axis=1)
    return np.asarray((output * kept).sum(axis=1) / np.maximum(kept.sum(axis=1), 1))


def unit(rows: npt.NDArray[Any]) -> Vectors:
    """Rows brought to length 1; a row of zeros stays one.

    >>> unit(np.array([[3.0, 4.0], [0.0, 0.0]], np.float32)).round(3).tolist()
    [[0.6000000238418579, 0.800000011920929], [0.0, 0.0]]
    """
    length = np.sqrt(np.square(rows, dtype=np.float64).sum(axis=1, keepdims=True))
    return (rows / np.maximum(length, 1e-12)).astype(np.float32)


def normalised(images: Vectors, card: EncoderCard) -> Vectors:
    """Images (n, H, W, C) in 0..1 as the graph wants them: (value - mean) / std a channel, in its layout."""
    mean, std = np.array(card.mean, np.float32), np.array(card.std, np.float32)
    scaled = (images - mean) / std
    return np.ascontiguousarray(scaled.transpose(0, 3, 1, 2) if card.layout == "NCHW" else scaled)


def files_reader(files: Mapping[str, bytes]) -> Read:
    """Reads from files that are in memory; `BadModel` for one that is not there."""

    def read(name: str) -> bytes:
        if name not in files:
            raise BadModel(f"files[{name!r}] belongs to the encoder but is missing from the package; add the file")
        return files[name]

    return read


def _passes(order: Sequence[int], lengths: Sequence[int], *, alone: bool) -> Iterator[list[int]]:
    """Rows of each pass, shortest texts first."""
    most = 1 if alone else TEXT_ROWS
    start = 0
    for end in range(1, len(order) + 1):
        if end == len(order) or end - start == most or (end - start + 1) * lengths[end] > TEXT_TOKENS:
            yield list(order[start:end])
            start = end
