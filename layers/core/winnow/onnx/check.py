"""Decides whether a model package that nobody trusts yet keeps the contract, without believing or hurting anything.

A graph can loop for ever, ask for all memory, crash the runtime or name other files on the machine. So it is read as
plain bytes first, then run in a child process that has a budget, no secrets in its environment and an empty folder.

    python -m winnow.onnx.check FOLDER     prints one JSON line; exit status 0 when the package is good
"""

from __future__ import annotations

import argparse
import io
import json
import math
import os
import resource
import signal
import stat
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image as PillowImage

from winnow.errors import BadInput, BadModel
from winnow.models.encoder import ENCODER_FILE, MAX_ENCODER_BYTES, MAX_TOKENIZER_BYTES, TOKENIZER_FILE
from winnow.models.package import CARD_FILE, HASHED_WIDTH, MAX_EMBEDDING, MODEL_FILE, ModelCard, check_files
from winnow.models.predictions import Predictions
from winnow.onnx.encoder_folder import check_encoder, check_operators
from winnow.onnx.features import Payload
from winnow.onnx.runtime import OnnxModel
from winnow.onnx.wire import FLOAT, INT64, STRING, Facts, read_facts
from winnow.tables import Cell

MAX_CARD_BYTES = 4 << 20
MAX_FILE_BYTES = 1 << 30
_LIMITS = {ENCODER_FILE: MAX_ENCODER_BYTES, TOKENIZER_FILE: MAX_TOKENIZER_BYTES}

SUM_TOLERANCE = 1e-3
"""How far a row of float32 probabilities may be from 1."""

_ELEMENTS = {
    "text": STRING, "image": FLOAT, "number": FLOAT, "category": STRING, "row": FLOAT, "embedding": FLOAT,
    "class_count": INT64,
}  # fmt: skip
_ELEMENT_NAMES = {STRING: "string", FLOAT: "float32", INT64: "int64"}
_RANKS = {"text": 1, "image": 4, "number": 2, "category": 2, "row": 2, "embedding": 2, "class_count": 0}
_CELLS: tuple[Cell, ...] = (
    0.0, 1.0, -1e-300, 1e-30, 3.4e38, -1e300, 7.0, "a category nobody has seen", "Zürich 我", "again " * 150, None,
)  # fmt: skip
_TEXTS = ("Where is my card?", "Où est ma carte? 我的卡在哪里", "again " * 300, "x", "?!")
_OUT_OF_MEMORY = ("bad_alloc", "bad allocation", "Failed to allocate memory", "MemoryError")


def validate_package(folder: str | Path, *, seconds: float, megabytes: int) -> ModelCard:
    """The card of a good package; raises `BadModel` naming the field and the remedy for any other.

    `seconds` limits the child's processor time and the wait for it; `megabytes` what it may allocate beyond the
    libraries themselves. Codes: `model-timeout`, `model-memory`, `model-crash`, else `bad-model`.
    """
    root = Path(folder).resolve()
    environment = {
        "PATH": os.defpath,
        "LANG": "C.UTF-8",
        "PYTHONPATH": os.pathsep.join(path for path in sys.path if path),
        "OPENBLAS_NUM_THREADS": "1",
        "OMP_NUM_THREADS": "1",
    }
    if "LD_LIBRARY_PATH" in os.environ:  # Lambda's Python finds its own library through it
        environment["LD_LIBRARY_PATH"] = os.environ["LD_LIBRARY_PATH"]
    command = [
        sys.executable,
        "-P",
        "-m",
        __name__,
        str(root),
        "--seconds",
        str(seconds),
        "--megabytes",
        str(megabytes),
    ]
    with tempfile.TemporaryDirectory(prefix="winnow-check-") as scratch:
        try:
            child = subprocess.run(  # noqa: S603 - the command is this module's own
                command, cwd=scratch, env=environment, capture_output=True, timeout=seconds, check=False
            )
        except subprocess.TimeoutExpired as error:
            raise _too_slow(seconds) from error
    if child.returncode == -signal.SIGXCPU:
        raise _too_slow(seconds)
    try:
        verdict = json.loads(child.stdout.splitlines()[-1])
    except (IndexError, ValueError) as error:
        if child.returncode == -signal.SIGKILL or any(word.encode() in child.stderr for word in _OUT_OF_MEMORY):
            raise _too_large(megabytes) from error
        raise BadModel(
            f"{MODEL_FILE} (or what is beside it) crashed the runtime (exit status {child.returncode}); "
            "export it again with another opset",
            code="model-crash",
        ) from error
    if verdict["ok"]:
        # From the verdict, not from the folder: what was checked is what is returned.
        return ModelCard.from_json(verdict["card"])
    if verdict["code"] == "model-memory":
        raise _too_large(megabytes)
    raise BadModel(verdict["message"], code=verdict["code"])


def check_package(folder: Path) -> ModelCard:
    """Check in this process, without a budget; raises `BadModel` with the first thing that is wrong."""
    files = _read(folder)
    card = ModelCard.from_bytes(files[CARD_FILE])
    for name in card.files:
        files[name] = _read_file(folder / name, limit=_LIMITS.get(name, MAX_FILE_BYTES))
    check_files(card, files)
    check_declarations(card, read_facts(files[MODEL_FILE]))
    # Encoder first: what is wrong with it would otherwise be said of the graph that reads its vectors.
    encoder = None if card.encoder is None else check_encoder(card.encoder, files)
    model = OnnxModel(card, files[MODEL_FILE], encoder=encoder)
    for payload in _probes(card):
        _check_run(model, [payload])
    _check_run(model, _probes(card))
    return card


def check_declarations(card: ModelCard, facts: Facts) -> None:
    """Compare what the graph declares with what the card says; raises `BadModel`."""
    check_operators(facts, file=MODEL_FILE)
    declared = {value.name: value for value in facts.inputs}
    listed = {item.name: item for item in card.inputs}
    if set(declared) != set(listed):
        raise BadModel(
            f"inputs lists {sorted(listed)}, the graph takes {sorted(declared)}; list exactly the graph's inputs"
        )
    for name, item in listed.items():
        value = declared[name]
        if value.element != _ELEMENTS[item.kind]:
            raise BadModel(
                f"inputs[{name}] is of kind {item.kind}, so the graph must take {_ELEMENT_NAMES[_ELEMENTS[item.kind]]} "
                "tensors; cast inside it"
            )
        if value.shape is not None and len(value.shape) != _RANKS[item.kind]:
            raise BadModel(
                f"inputs[{name}] has {len(value.shape)} dimensions in the graph; {_RANKS[item.kind]} are given to it"
            )
        if item.kind != "class_count" and value.shape and value.shape[0] is not None:
            raise BadModel(f"inputs[{name}] takes exactly {value.shape[0]} records; leave the first dimension free")
        width = card.encoder.dimensions if card.encoder is not None else 1
        columns = {"row": HASHED_WIDTH, "embedding": width}.get(item.kind, 1)
        if _RANKS[item.kind] == 2 and value.shape is not None and value.shape[1] not in (None, columns):
            raise BadModel(f"inputs[{name}] takes {value.shape[1]} columns; (n, {columns}) is given to it")
    outputs = {value.name for value in facts.outputs}
    missing = [name for name in card.outputs.names() if name not in outputs]
    if missing:
        raise BadModel(f"outputs names {missing[0]!r}, the graph gives {sorted(outputs)}; rename one of the two")


def check_predictions(card: ModelCard, predictions: Predictions, *, rows: int) -> None:
    """Compare what the graph gave for `rows` records with the contract; raises `BadModel`."""
    outputs, classes = card.outputs, len(card.classes)
    regression = card.task == "regression"
    if predictions.prediction is not None:
        _check_tensor(outputs.answer, predictions.prediction, rank=1, rows=rows)
    else:
        _check_tensor(outputs.answer, predictions.probabilities, rank=2, rows=rows)
    _check_tensor(outputs.embedding, predictions.embedding, rank=2, rows=rows)
    if not regression:
        _check_rows(outputs.answer, predictions.probabilities, classes=classes)
    if predictions.members is not None and outputs.members is not None:
        _check_tensor(outputs.members, predictions.members, rank=2 if regression else 3, rows=rows)
        if not regression:
            _check_rows(outputs.members, predictions.members, classes=classes)
    if not 1 <= predictions.embedding.shape[1] <= MAX_EMBEDDING:
        raise BadModel(
            f"outputs.embedding {outputs.embedding!r} has {predictions.embedding.shape[1]} dimensions; "
            f"project it to at most {MAX_EMBEDDING}"
        )


def _check_tensor(name: str, value: npt.NDArray[Any], *, rank: int, rows: int) -> None:
    if value.dtype != np.float32:
        raise BadModel(f"output {name!r} is {value.dtype}; cast it to float32 inside the graph")
    if value.ndim != rank or value.shape[0] != rows or 0 in value.shape:
        raise BadModel(
            f"output {name!r} has shape {value.shape} for {rows} records; it needs {rank} dimensions, records first"
        )
    if not np.isfinite(value).all():
        raise BadModel(f"output {name!r} holds NaN or infinity; check the training data and the graph's divisions")


def _check_rows(name: str, value: npt.NDArray[Any], *, classes: int) -> None:
    if value.shape[-1] != classes:
        raise BadModel(f"output {name!r} has {value.shape[-1]} columns, classes has {classes} entries; make them equal")
    if (value < -SUM_TOLERANCE).any() or (np.abs(value.sum(axis=-1) - 1.0) > SUM_TOLERANCE).any():
        raise BadModel(f"output {name!r} has rows that do not sum to 1; end the graph with a softmax over the classes")


def _check_run(model: OnnxModel, payloads: list[Payload]) -> None:
    try:
        predictions = model.predict(payloads)
    except BadInput:
        raise
    except MemoryError:
        raise
    # onnxruntime derives its exceptions from Exception one by one, without a base of their own.
    except Exception as error:
        if any(word in str(error) for word in _OUT_OF_MEMORY):
            raise MemoryError(str(error)) from error
        line = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise BadModel(
            f"{MODEL_FILE} fails on {len(payloads)} plain records: {line[:300]}; try it on such data"
        ) from error
    check_predictions(model.card, predictions, rows=len(payloads))


def _probes(card: ModelCard) -> list[Payload]:
    """Records any model of this kind must take.

    Long, foreign, short and plain texts; black, white and noisy images; rows of huge and tiny numbers, of categories
    nobody has seen, of text where numbers are expected and the reverse, and of nothing at all.
    """
    if card.kind == "text":
        return list(_TEXTS)
    if card.kind == "table":
        names = [item.source or f"c{number}" for number, item in enumerate(card.payloads)]
        same = [dict.fromkeys(names, cell) for cell in _CELLS]
        mixed = [{name: _CELLS[(number + k) % len(_CELLS)] for k, name in enumerate(names)} for number in range(4)]
        return [{"row": row} for row in ({}, *same, *mixed)]
    noise = np.random.default_rng(0).integers(0, 256, (40, 30, 3), dtype=np.uint8)
    flat = [np.full((8, 8, 3), level, np.uint8) for level in (0, 255)]
    return [_png(pixels) for pixels in (noise, *flat)]


def _png(pixels: npt.NDArray[np.uint8]) -> bytes:
    out = io.BytesIO()
    PillowImage.fromarray(pixels).save(out, format="PNG")
    return out.getvalue()


def _read(folder: Path) -> dict[str, bytes]:
    return {CARD_FILE: _read_file(folder / CARD_FILE, limit=MAX_CARD_BYTES)}


def _read_file(path: Path, *, limit: int) -> bytes:
    try:
        status = path.lstat()
    except OSError as error:
        raise BadModel(f"files: {path.name} is missing from the package; add it") from error
    if not stat.S_ISREG(status.st_mode) or status.st_size > limit:
        raise BadModel(f"files: {path.name} is no regular file of at most {limit:,} bytes; replace it by one")
    return path.read_bytes()


def _too_slow(seconds: float) -> BadModel:
    return BadModel(
        f"{MODEL_FILE} did not finish a few records in {seconds:g} seconds; make the model smaller or remove its loop",
        code="model-timeout",
    )


def _too_large(megabytes: int) -> BadModel:
    return BadModel(
        f"{MODEL_FILE} needs more than {megabytes} MB for a few records; make the model smaller", code="model-memory"
    )


def _limit(*, seconds: float, megabytes: int) -> None:
    """Budget this process, counted from what it uses now: the libraries are loaded already."""
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    space = pages * resource.getpagesize() + (megabytes << 20)
    budget = {
        resource.RLIMIT_AS: space,
        resource.RLIMIT_CPU: math.ceil(seconds),
        resource.RLIMIT_FSIZE: 0,
        resource.RLIMIT_CORE: 0,
    }
    for which, limit in budget.items():
        _, hard = resource.getrlimit(which)
        value = limit if hard == resource.RLIM_INFINITY else min(limit, hard)
        resource.setrlimit(which, (value, value))


def _verdict(folder: Path) -> Mapping[str, Any]:
    try:
        return {"ok": True, "card": check_package(folder).to_json()}
    except BadInput as error:
        if any(word in str(error) for word in _OUT_OF_MEMORY):
            return {"ok": False, "code": "model-memory", "message": str(error)}
        return {"ok": False, "code": "bad-model", "message": str(error)}
    except MemoryError as error:
        return {"ok": False, "code": "model-memory", "message": f"{MODEL_FILE} asks for too much memory: {error}"}


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Check a model package.")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--seconds", type=float, default=60.0, help="processor time (default: 60)")
    parser.add_argument("--megabytes", type=int, default=2048, help="memory beyond the libraries (default: 2048)")
    arguments = parser.parse_args(argv)
    _limit(seconds=arguments.seconds, megabytes=arguments.megabytes)
    verdict = _verdict(arguments.folder)
    print(json.dumps(verdict))
    return 0 if verdict["ok"] else 1


if __name__ == "__main__":
    sys.exit(main())
