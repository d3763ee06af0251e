"""A model package loaded into onnxruntime: records in, probabilities (or predicted numbers) and embedding out.

Load only packages that `winnow.onnx.check` has passed: a hostile graph can loop, and a file can name other files.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnxruntime

from winnow.errors import BadModel
from winnow.models.package import CARD_FILE, HASHED_ROW, MODEL_FILE, ModelCard, check_files
from winnow.models.predictions import Predictions
from winnow.onnx.encoder import Encoder, Vectors, files_reader
from winnow.onnx.features import (
    WORDS,
    Payload,
    category_column,
    clean_text,
    hashed_rows,
    image_tensor,
    number_column,
    row_of,
    text_of,
)
from winnow.tables import Cell

BATCH = 64
"""Rows of one pass: measured best for text graphs; larger batches leave the processor's cache."""

TABLE_BATCH = 1024
"""The same for a table's rows, which are short: trees are quicker the more rows come at once."""

MAX_BATCH_CHARS = 32_768
"""Characters of one pass, counting every row as long as its longest: string graphs pad to the longest row."""


class OnnxModel:
    """A loaded model package; safe to use from several threads."""

    def __init__(self, card: ModelCard, model: bytes, *, threads: int = 1, encoder: Encoder | None = None) -> None:
        """`encoder` is that of the card; only a model that never encodes does without."""
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.log_severity_level = 3
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        # Without this a file that starts like onnxruntime's own format would be taken for one.
        options.add_session_config_entry("session.load_model_format", "ONNX")
        options.use_deterministic_compute = True
        self.card = card
        self._encoder = encoder
        try:
            self._session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
        # onnxruntime derives its exceptions from Exception one by one, without a base of their own.
        except Exception as error:
            raise BadModel(
                f"{MODEL_FILE} does not load: {_first_line(error)}; export it for opset 20 or lower"
            ) from error
        self._outputs = card.outputs.names()
        self._extra = {
            item.name: np.array(len(card.classes), dtype=np.int64) for item in card.inputs if item.kind == "class_count"
        }

    @classmethod
    def from_files(cls, files: Mapping[str, bytes], *, threads: int = 1) -> OnnxModel:
        """Load from the package's files by name; raises `BadModel` for a wrong card, digest or graph."""
        if CARD_FILE not in files:
            raise BadModel(f"the package has no {CARD_FILE}; put it beside {MODEL_FILE}")
        card = ModelCard.from_bytes(files[CARD_FILE])
        check_files(card, files)
        encoder = None if card.encoder is None else Encoder(card.encoder, files_reader(files), threads=threads)
        return cls(card, files[MODEL_FILE], threads=threads, encoder=encoder)

    @classmethod
    def load(cls, folder: str | Path, *, threads: int = 1) -> OnnxModel:
        """Load from a folder; raises `BadModel` for a wrong card, digest or graph."""
        return cls.from_files(read_folder(folder), threads=threads)

    def predict(
        self, payloads: Sequence[Payload], *, batch: int | None = None, embeddings: Vectors | None = None
    ) -> Predictions:
        """Run every payload once; row i of the result belongs to payload i.

        `batch` is the number of rows in one pass, `BATCH` or `TABLE_BATCH` unless said; `embeddings` (n, D) are what
        `encode` gave for these payloads before. Raises `BadInput` for a payload that is not of the model's kind or does
        not decode.
        """
        if self.card.kind == "table":
            return self._predict_table([row_of(payload) for payload in payloads], batch=batch or TABLE_BATCH)
        if self.card.encoder is not None and embeddings is None:
            embeddings = self.encode(payloads)
        if self.card.reading(self.card.kind) is None:
            assert embeddings is not None  # by ModelCard: the only input is the encoder's
            return self._predict_embeddings(embeddings, batch=batch or TABLE_BATCH)
        if self.card.kind == "text":
            return self._predict_text([text_of(payload) for payload in payloads], embeddings, batch=batch or BATCH)
        return self._predict_images(payloads, embeddings, batch=batch or BATCH)

    def encode(self, payloads: Sequence[Payload]) -> Vectors:
        """What the package's encoder makes of the payloads, (n, D); the costly part of `predict`. Of a model with one."""
        assert self._encoder is not None
        return self._encoder.encode(payloads)

    def _predict_embeddings(self, embeddings: Vectors, *, batch: int) -> Predictions:
        cuts = range(0, len(embeddings), batch)
        return _joined([self.run(self._with({}, embeddings[k : k + batch])) for k in cuts], card=self.card)

    def _predict_images(self, payloads: Sequence[Payload], embeddings: Vectors | None, *, batch: int) -> Predictions:
        item = self.card.reading("image")
        assert item is not None  # by ModelCard
        assert item.shape is not None  # by ModelInput
        parts = []
        for start in range(0, len(payloads), batch):
            rows = np.stack([image_tensor(payload, shape=item.shape) for payload in payloads[start : start + batch]])
            vectors = None if embeddings is None else embeddings[start : start + batch]
            parts.append(self.run(self._with({item.name: rows}, vectors)))
        return _joined(parts, card=self.card)

    def _with(self, tensors: dict[str, npt.NDArray[Any]], embeddings: Vectors | None) -> Mapping[str, npt.NDArray[Any]]:
        """The tensors, and the embeddings where the graph wants them."""
        item = self.card.reading("embedding")
        return tensors if item is None or embeddings is None else {**tensors, item.name: embeddings}

    def _predict_text(self, texts: Sequence[str], embeddings: Vectors | None, *, batch: int) -> Predictions:
        item = self.card.reading("text")
        assert item is not None  # by ModelCard
        if item.form not in (None, WORDS):
            raise BadModel(
                f"inputs[].form is {item.form!r}; this version knows {WORDS!r}: update Winnow or train again"
            )
        cleaned = [clean_text(text) for text in texts] if item.form == WORDS else list(texts)
        # Texts of like length share a batch, because every row is padded to the longest.
        order = sorted(range(len(cleaned)), key=lambda row: len(cleaned[row]))
        ordered = [cleaned[row] for row in order]
        vectors = None if embeddings is None else embeddings[order]
        parts = [
            self.run(
                self._with({item.name: np.array(ordered[cut], dtype=object)}, None if vectors is None else vectors[cut])
            )
            for cut in _cuts([len(text) for text in ordered], batch)
        ]
        joined = _joined(parts, card=self.card)
        back = np.empty(len(order), dtype=np.int64)
        back[order] = np.arange(len(order))
        return Predictions(
            probabilities=joined.probabilities[back],
            embedding=joined.embedding[back],
            members=None if joined.members is None else joined.members[back],
        )

    def _predict_table(self, rows: Sequence[Mapping[str, Cell]], *, batch: int) -> Predictions:
        cuts = range(0, len(rows), batch)
        parts = [self.run(table_tensors(self.card, rows[start : start + batch])) for start in cuts]
        return _joined(parts, card=self.card)

    def run(self, tensor: npt.NDArray[Any] | Mapping[str, npt.NDArray[Any]]) -> Predictions:
        """One pass over tensors that are ready: strings (n,) or float32 (n, H, W, C), or a table's columns by input."""
        tensors = tensor if isinstance(tensor, Mapping) else {self.card.payload.name: tensor}
        answer, embedding, *others = self._session.run(self._outputs, {**tensors, **self._extra})
        members = others[0] if others else None
        if self.card.task == "regression":
            none = np.zeros((len(embedding), 0), np.float32)
            return Predictions(probabilities=none, embedding=embedding, members=members, prediction=answer)
        return Predictions(probabilities=answer, embedding=embedding, members=members)


def table_tensors(card: ModelCard, rows: Sequence[Mapping[str, Cell]]) -> dict[str, npt.NDArray[Any]]:
    """The input tensors of a table model by name, first dimension = rows. Other columns of a row are ignored.

    Raises `BadModel` when the card asks for a form of rows that this version does not know.
    """
    tensors: dict[str, npt.NDArray[Any]] = {}
    for item in card.payloads:
        if item.kind == "row":
            if item.form != HASHED_ROW:
                raise BadModel(
                    f"inputs[].form is {item.form!r}; this version knows {HASHED_ROW!r}: update Winnow or train again"
                )
            tensors[item.name] = hashed_rows(rows)
        else:
            assert item.source is not None  # by ModelInput
            source = item.source
            cells = [row.get(source) for row in rows]
            tensors[item.name] = number_column(cells) if item.kind == "number" else category_column(cells)
    return tensors


def read_folder(folder: str | Path) -> dict[str, bytes]:
    """The files of a package folder by name; raises `BadModel` without a card."""
    root = Path(folder)
    if not (root / CARD_FILE).is_file():
        raise BadModel(f"{root} has no {CARD_FILE}; give the folder of a model package")
    card = ModelCard.from_bytes((root / CARD_FILE).read_bytes())
    names = [CARD_FILE, *card.files]
    return {name: (root / name).read_bytes() for name in names if (root / name).is_file()}


def _cuts(lengths: Sequence[int], batch: int) -> Iterator[slice]:
    """Slices of rows in ascending order of length: at most `batch` rows and `MAX_BATCH_CHARS` padded characters."""
    start = 0
    for end in range(1, len(lengths) + 1):
        full = end - start == batch
        if end == len(lengths) or full or (end - start + 1) * lengths[end] > MAX_BATCH_CHARS:
            yield slice(start, end)
            start = end


def _joined(parts: Sequence[Predictions], *, card: ModelCard) -> Predictions:
    regression = card.task == "regression"
    if not parts:
        shape = (0, 0) if regression else (0, 0, len(card.classes))
        return Predictions(
            probabilities=np.zeros((0, len(card.classes)), np.float32),
            embedding=np.zeros((0, 0), np.float32),
            members=None if card.outputs.members is None else np.zeros(shape, np.float32),
            prediction=np.zeros(0, np.float32) if regression else None,
        )
    members = [part.members for part in parts if part.members is not None]
    numbers = [part.prediction for part in parts if part.prediction is not None]
    return Predictions(
        probabilities=np.concatenate([part.probabilities for part in parts]),
        embedding=np.concatenate([part.embedding for part in parts]),
        members=np.concatenate(members) if members else None,
        prediction=np.concatenate(numbers) if numbers else None,
    )


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:300]
