"""An encoder as people keep it: a folder with a graph, a tokenizer and the small files that say how they are used.

    model.onnx | encoder.onnx | onnx/model.onnx   the graph, in one file
    tokenizer.json                                for text: Hugging Face's tokenizers format
    encoder.json                                  optional: pooling, max_tokens, output, shape, layout, mean, std
    sentence_bert_config.json, 1_Pooling/config.json, config.json, preprocessor_config.json     optional, as published

What no file says is found out: from the graph's declarations, and from what it gives for a few records.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from winnow.errors import BadModel
from winnow.models.encoder import (
    DEFAULT_SIDE,
    DEFAULT_TOKENS,
    ENCODER_CARD,
    ENCODER_FILE,
    MAX_ENCODER_BYTES,
    MAX_TOKENIZER_BYTES,
    MAX_TOKENS,
    TOKENIZER_FILE,
    EncoderCard,
)
from winnow.models.package import digest
from winnow.onnx.encoder import IDS, MASK, TYPES, Encoder, files_reader
from winnow.onnx.wire import FLOAT, INT32, INT64, Facts, Value, read_facts

GRAPHS = ("encoder.onnx", "model.onnx", "onnx/model.onnx")
VECTORS = (
    "sentence_embedding",
    "sentence_embeddings",
    "image_embeds",
    "text_embeds",
    "pooled",
    "embedding",
    "embeddings",
)
"""Outputs that are vectors already, by the names exporters give them."""

STATES = ("last_hidden_state", "token_embeddings")
DOMAINS = frozenset({"", "ai.onnx", "ai.onnx.ml", "com.microsoft"})
"""Operator domains that onnxruntime itself brings; any other needs code from outside."""

SETTINGS = ("pooling", "max_tokens", "output", "shape", "layout", "mean", "std", "alone")
COMPANY_TOLERANCE = 1e-5
"""Numbers of a vector may differ by this between a record by itself and one among others; else it is encoded alone."""

_SMALL = 1 << 20
_TEXTS = ("Where is my card?", "Où est ma carte? 我的卡在哪里", "x")
_LONGEST = 512
"""Words of the longest text that is tried, where so many are let through."""


def read_encoder(folder: str | Path) -> tuple[EncoderCard, dict[str, bytes]]:
    """The card of the encoder in a folder, and its files by their names in a package.

    Raises `BadModel` naming the file or field and the remedy.
    """
    root = Path(folder)
    graph = next((root / name for name in GRAPHS if (root / name).is_file()), None)
    if graph is None:
        raise BadModel(f"{root} holds no {', '.join(GRAPHS[:2])}; give the folder of an encoder's ONNX file")
    content = _content(graph, limit=MAX_ENCODER_BYTES)
    facts = read_facts(content)
    check_operators(facts, file=graph.name)
    if (root / TOKENIZER_FILE).is_file():
        files = {ENCODER_FILE: content, TOKENIZER_FILE: _content(root / TOKENIZER_FILE, limit=MAX_TOKENIZER_BYTES)}
        settings = _text_settings(root, facts, files[TOKENIZER_FILE])
    else:
        files = {ENCODER_FILE: content}
        settings = _image_settings(root, facts)
    settings = {**settings, **_own_settings(root)}
    names = {name: digest(body) for name, body in files.items()}
    return _settled({**settings, "files": names}, files), files


def check_operators(facts: Facts, *, file: str) -> None:
    """Raise `BadModel` for a graph that needs other files or code than onnxruntime's own."""
    if facts.external_tensors:
        named = ", ".join(facts.external_tensors[:3])
        raise BadModel(f"{file} keeps weights outside of itself ({named}); save it as one file")
    foreign = sorted(f"{domain}:{kind}" for domain, kind in facts.operators if domain not in DOMAINS)
    if foreign or facts.local_functions:
        raise BadModel(
            f"{file} uses operators onnxruntime does not bring ({', '.join(foreign[:3]) or 'local functions'}); "
            "export it with standard operators and inlined functions"
        )


def check_encoder(card: EncoderCard, files: Mapping[str, bytes]) -> Encoder:
    """The encoder, after it encoded a few records as it has to; raises `BadModel` with the first thing that is wrong."""
    facts = read_facts(files[ENCODER_FILE])
    check_operators(facts, file=ENCODER_FILE)
    _check_inputs(card.reads, facts.inputs)
    encoder = Encoder(card, files_reader(files))
    alone, together = _probed(encoder)
    apart = float(np.abs(alone - together).max())
    if not card.alone and apart > 100 * COMPANY_TOLERANCE:
        raise BadModel(f"{ENCODER_FILE} gives other vectors in company, by {apart:.2g}; import it again, to run alone")
    return encoder


def _settled(settings: dict[str, Any], files: Mapping[str, bytes]) -> EncoderCard:
    """The card, with what only a run can tell: the width of the vectors, and whether records disturb each other."""
    facts = read_facts(files[ENCODER_FILE])
    _check_inputs(settings["reads"], facts.inputs)
    width = _width(settings, files)
    card = EncoderCard.from_json({**settings, "dimensions": width})
    alone, together = _probed(Encoder(card, files_reader(files)))
    if float(np.abs(alone - together).max()) > COMPANY_TOLERANCE:
        return EncoderCard.from_json({**card.to_json(), "alone": True})
    return card


def _width(settings: Mapping[str, Any], files: Mapping[str, bytes]) -> int:
    """The number of columns that the output has for one record."""
    probe = Encoder(EncoderCard.from_json({**settings, "dimensions": 1}), files_reader(files))
    vectors = _run(probe.pooled, _probes(probe.card)[:1])
    if vectors.ndim != 2 or len(vectors) != 1:
        raise BadModel(
            f"output {probe.card.output!r} of {ENCODER_FILE} becomes {vectors.shape} for one record; it must become one "
            "vector: name another output, or the pooling, in encoder.json"
        )
    return int(vectors.shape[1])


def _probed(encoder: Encoder) -> tuple[Any, Any]:
    """Vectors of a few records, one at a time and all at once."""
    records = _probes(encoder.card)
    alone = np.concatenate([_run(encoder.encode, [record]) for record in records])
    return alone, alone if encoder.card.alone else _run(encoder.encode, records)


def _run(encode: Callable[[Sequence[Any]], Any], records: Sequence[Any]) -> Any:
    try:
        vectors = encode(records)
    except (BadModel, MemoryError):
        raise
    # onnxruntime derives its exceptions from Exception one by one, without a base of their own.
    except Exception as error:
        line = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise BadModel(
            f"{ENCODER_FILE} fails on {len(records)} plain records: {line[:300]}; try it on such data (max_tokens in "
            f"{ENCODER_CARD} shortens texts)"
        ) from error
    if not np.isfinite(vectors).all():
        raise BadModel(f"{ENCODER_FILE} gives NaN or infinity for plain records; export it again")
    return vectors


def _probes(card: EncoderCard) -> list[Any]:
    if card.reads == "text":
        return [*_TEXTS, "again " * min(card.max_tokens or 1, _LONGEST)]
    noise = np.random.default_rng(0).integers(0, 256, (40, 30, 3), dtype=np.uint8)
    return [noise, *(np.full((8, 8, 3), level, np.uint8) for level in (0, 255))]


def _check_inputs(reads: str, inputs: Sequence[Value]) -> None:
    if reads == "image":
        if len(inputs) != 1 or inputs[0].element != FLOAT or inputs[0].shape is None or len(inputs[0].shape) != 4:
            named = ", ".join(item.name for item in inputs)
            raise BadModel(
                f"{ENCODER_FILE} takes {named or 'nothing'}; an encoder of images takes one float32 input of four dimensions"
                f" (and one of text needs {TOKENIZER_FILE} beside it)"
            )
        return
    names = {item.name for item in inputs}
    if len(names & IDS) != 1 or names - IDS - MASK - TYPES:
        raise BadModel(
            f"{ENCODER_FILE} takes {', '.join(sorted(names))}; an encoder of text takes input_ids, and perhaps "
            "attention_mask and token_type_ids"
        )
    wrong = [item.name for item in inputs if item.element not in (INT64, INT32)]
    if wrong:
        raise BadModel(f"input {wrong[0]!r} of {ENCODER_FILE} takes no whole numbers; export it for int64")


def _text_settings(root: Path, facts: Facts, tokenizer: bytes) -> dict[str, Any]:
    output, ranked = _output(facts)
    pooling = "none" if ranked == 2 else _pooling(root)
    fixed = [item.shape for item in facts.inputs if item.shape is not None and len(item.shape) == 2]
    length = next((shape[1] for shape in fixed if shape[1] is not None), None)
    asked = _json(root / "sentence_bert_config.json").get("max_seq_length") or _truncation(tokenizer)
    most = asked or min(DEFAULT_TOKENS, _json(root / "config.json").get("max_position_embeddings") or DEFAULT_TOKENS)
    return {
        "reads": "text", "output": output, "pooling": pooling, "max_tokens": min(most, length or most, MAX_TOKENS),
        "alone": _is_dynamic(facts) or any(shape[0] == 1 for shape in fixed),
    }  # fmt: skip


def _image_settings(root: Path, facts: Facts) -> dict[str, Any]:
    _check_inputs("image", facts.inputs)
    output, ranked = _output(facts)
    declared = facts.inputs[0].shape
    assert declared is not None  # by _check_inputs
    last = declared[3] in (1, 3) and declared[1] not in (1, 3)
    height, width, channels = declared[1:] if last else (*declared[2:], declared[1])
    said = _json(root / "preprocessor_config.json")
    side = _side(said)
    shape = [height or side[0], width or side[1], channels or 3]
    scale = 255.0 * float(said.get("rescale_factor", 1 / 255)) if said.get("do_rescale", True) else 255.0
    normalise = said.get("do_normalize", True)
    mean, std = (said.get(name) if normalise else None for name in ("image_mean", "image_std"))
    return {
        "reads": "image", "output": output, "pooling": "none" if ranked == 2 else "mean", "shape": shape,
        "layout": "NHWC" if last else "NCHW",
        "mean": _channels(mean, 0.0, shape[2], scale), "std": _channels(std, 1.0, shape[2], scale),
        "alone": _is_dynamic(facts) or declared[0] == 1,
    }  # fmt: skip


def _channels(values: Any, default: float, count: int, scale: float) -> list[float]:
    """One number a channel, for values in 0..1 that the graph wants multiplied by `scale`."""
    found = values if isinstance(values, list) else [default if values is None else values]
    found = [float(np.mean(found))] if count == 1 else list(found) * (count if len(found) == 1 else 1)
    return [float(value) / scale for value in found]


def _side(said: Mapping[str, Any]) -> tuple[int, int]:
    size = said.get("crop_size") if said.get("do_center_crop") and "crop_size" in said else said.get("size")
    if isinstance(size, int):
        return size, size
    if isinstance(size, Mapping):
        if "height" in size and "width" in size:
            return size["height"], size["width"]
        if "shortest_edge" in size:
            return size["shortest_edge"], size["shortest_edge"]
    return DEFAULT_SIDE, DEFAULT_SIDE


def _output(facts: Facts) -> tuple[str, int | None]:
    """The output to read and its number of dimensions: vectors before states of tokens, and any other after both."""
    declared = {value.name: value for value in facts.outputs}
    named = [name for name in (*VECTORS, *STATES) if name in declared]
    if not declared:
        raise BadModel(f"{ENCODER_FILE} has no output; export it again")
    value = declared[named[0]] if named else facts.outputs[0]
    ranked = len(value.shape) if value.shape is not None else 2 if value.name in VECTORS else None
    return value.name, ranked


def _pooling(root: Path) -> str:
    said = _json(root / "1_Pooling" / "config.json")
    if said.get("pooling_mode_cls_token"):
        return "cls"
    return "max" if said.get("pooling_mode_max_tokens") else "mean"


def _truncation(tokenizer: bytes) -> int | None:
    try:
        truncation = json.loads(tokenizer).get("truncation")
        return int(truncation["max_length"]) if truncation else None
    except (ValueError, RecursionError, AttributeError, TypeError, KeyError) as error:
        raise BadModel(
            f"{TOKENIZER_FILE} cannot be read: {error!r:.300}; give one that Hugging Face's tokenizers wrote"
        ) from error


def _own_settings(root: Path) -> dict[str, Any]:
    """What encoder.json decides. One that `winnow import encoder` wrote holds the whole card; facts are found anew."""
    said = _json(root / ENCODER_CARD)
    unknown = sorted(set(said) - set(SETTINGS) - set(EncoderCard.__dataclass_fields__) - {"format"})
    if unknown:
        raise BadModel(f"{ENCODER_CARD}: {unknown[0]!r} is unknown; it may say {', '.join(SETTINGS)}")
    return {name: said[name] for name in SETTINGS if name in said}


def _json(path: Path) -> dict[str, Any]:
    """A small JSON object, {} without the file."""
    if not path.is_file():
        return {}
    try:
        body = json.loads(_content(path, limit=_SMALL))
    except (ValueError, RecursionError) as error:
        raise BadModel(f"{path.name} is not JSON: {error}; repair or remove it") from error
    if not isinstance(body, dict):
        raise BadModel(f"{path.name} is no JSON object; repair or remove it")
    return body


def _content(path: Path, *, limit: int) -> bytes:
    size = path.stat().st_size
    if size > limit:
        raise BadModel(f"{path.name} has {size:,} bytes; at most {limit:,} are taken: use a smaller or quantised one")
    return path.read_bytes()


def _is_dynamic(facts: Facts) -> bool:
    """Whether some values are quantised by the range they have in one pass, whoever else is in it."""
    return any("DynamicQuantize" in kind for _, kind in facts.operators)
