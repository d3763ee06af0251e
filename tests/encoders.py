"""Encoders that tests build themselves: small enough to compute by hand what they give."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from winnow.onnx.wire import FLOAT, INT64, GraphBuilder

PAD, UNKNOWN = "[PAD]", "[UNK]"


def tokenizer(
    words: Sequence[str], *, truncation: int | None = None, padding: int | None = None, direction: str = "Right"
) -> bytes:
    """tokenizer.json of whole words, as Hugging Face's library writes it: ids 0 padding, 1 unknown, then the words."""
    vocabulary = {name: number for number, name in enumerate([PAD, UNKNOWN, *words])}
    body = {
        "version": "1.0", "added_tokens": [], "normalizer": {"type": "Lowercase"},
        "pre_tokenizer": {"type": "Whitespace"}, "post_processor": None, "decoder": None,
        "model": {"type": "WordLevel", "vocab": vocabulary, "unk_token": UNKNOWN},
        "truncation": truncation and {
            "direction": direction, "max_length": truncation, "strategy": "LongestFirst", "stride": 0,
        },
        "padding": padding and {
            "strategy": {"Fixed": padding}, "direction": "Right", "pad_to_multiple_of": None, "pad_id": 0,
            "pad_type_id": 0, "pad_token": PAD,
        },
    }  # fmt: skip
    return json.dumps(body).encode()


def text_graph(
    table: Any, *, inputs: Sequence[str] = ("input_ids", "attention_mask"), shape: Sequence[Any] = ("n", "t"),
    quantised: bool = False, output: str = "last_hidden_state",
) -> bytes:  # fmt: skip
    """Every token's row of a table (words, d), padding's too: (n, t, d)."""
    rows = np.asarray(table, np.float32)
    graph = GraphBuilder("words")
    ids, *_ = [graph.input(name, INT64, shape) for name in inputs]
    states = graph.op("Gather", graph.constant(rows), ids)
    if quantised:
        states = graph.op("DequantizeLinear", *graph.ops("DynamicQuantizeLinear", states, outputs=3))
    graph.output(output, states, FLOAT, (*shape, rows.shape[1]))
    return graph.to_bytes()


def image_graph(shape: Sequence[Any], *, axes: Sequence[int], width: int = 3) -> bytes:
    """The mean of every channel, (n, c)."""
    graph = GraphBuilder("colours")
    mean = graph.op("ReduceMean", graph.input("pixels", FLOAT, shape), graph.constant(np.array(axes)), keepdims=0)
    graph.output("image_embeds", mean, FLOAT, ("n", width))
    return graph.to_bytes()


def folder(root: Path, files: Mapping[str, bytes | dict[str, Any]]) -> Path:
    """A folder with these files; what is no bytes is written as JSON."""
    for name, content in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else json.dumps(content).encode())
    return root


WORDS = ("cat", "dog")
TABLE = ((9.0, 9.0), (0.0, 1.0), (3.0, 4.0), (1.0, 0.0))
"""Rows of padding, unknown, cat and dog."""


def pets(root: Path, **options: Any) -> Path:
    """An encoder of text that knows cats and dogs."""
    return folder(root, {"model.onnx": text_graph(TABLE, **options), "tokenizer.json": tokenizer(WORDS)})
