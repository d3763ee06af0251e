"""Published model packages: unpacked from training artifacts that nobody trusts yet, loaded by id."""

from __future__ import annotations

import io
import json
import tarfile
import tempfile
from collections.abc import Callable
from pathlib import Path, PurePosixPath
from typing import Literal

from winnow import layout
from winnow.aws.s3 import DataBucket
from winnow.errors import BadModel, NotFound
from winnow.models.bootstrap import bootstrap_files
from winnow.models.encoder import EncoderCard
from winnow.models.package import CARD_FILE, MODEL_FILE, ModelCard, check_files
from winnow.onnx.bootstrap import encoded_bootstrap
from winnow.onnx.check import validate_package
from winnow.onnx.encoder import Encoder, Read
from winnow.onnx.runtime import OnnxModel

ARMS: tuple[Literal["active", "control"], ...] = ("active", "control")
CHECK_SECONDS = 120
CHECK_MEGABYTES = 2048
UNPACKED_BYTES = 1_000_000_000
KEPT = 4
"""Loaded models a worker keeps: champion, challenger and the two comparison fits."""
KEPT_ENCODERS = 2


class PublishedModels:
    def __init__(self, data: DataBucket) -> None:
        self._data = data
        self._loaded: dict[str, OnnxModel] = {}
        self._encoders: dict[str, Encoder] = {}

    def load(self, model: str, *, classes: tuple[str, ...] = ()) -> OnnxModel:
        if model.startswith(layout.BOOTSTRAP):
            return self._cached(f"{model}/{classes}", lambda: self._bootstrap(model, classes))
        return self._cached(model, lambda: self._published(model, ""))

    def load_arm(self, model: str, arm: Literal["active", "control"]) -> OnnxModel | None:
        try:
            return self._cached(f"{model}/{arm}", lambda: self._published(model, f"arms/{arm}/"))
        except NotFound:
            return None

    def _cached(self, name: str, load: Callable[[], OnnxModel]) -> OnnxModel:
        if name not in self._loaded:
            while len(self._loaded) >= KEPT:
                self._loaded.pop(next(iter(self._loaded)))
            self._loaded[name] = load()
        return self._loaded[name]

    def _bootstrap(self, model: str, classes: tuple[str, ...]) -> OnnxModel:
        kind, _, name = model.removeprefix(f"{layout.BOOTSTRAP}-").partition("-")
        if not name:
            return OnnxModel.from_files(bootstrap_files(kind, classes=classes))
        encoder = EncoderCard.from_json(json.loads(self._data.get(layout.encoder(name))))
        card, graph = encoded_bootstrap(model, encoder, classes=classes)
        return OnnxModel(
            card, graph, encoder=self._encoder(encoder, lambda file: self._data.get(layout.encoder(name, file)))
        )

    def _published(self, model: str, folder: str) -> OnnxModel:
        """The encoder's files are read when it has something to encode; the comparison fits share those of their model."""
        body = self._data.get(layout.model(model, folder + CARD_FILE))
        card = ModelCard.from_bytes(body)
        graph = self._data.get(layout.model(model, folder + MODEL_FILE))
        later = card.encoder.files if card.encoder else {}
        others = {name for name in card.files if name not in (MODEL_FILE, *later)}
        files = {MODEL_FILE: graph, **{name: self._data.get(layout.model(model, folder + name)) for name in others}}
        check_files(card, files, later=later)
        encoder = None
        if card.encoder is not None:
            encoder = self._encoder(card.encoder, lambda file: self._data.get(layout.model(model, file)))
        return OnnxModel(card, graph, encoder=encoder)

    def _encoder(self, card: EncoderCard, read: Read) -> Encoder:
        """One for every card of the same digest: an encoder takes more memory than all heads on it."""
        if card.digest not in self._encoders:
            while len(self._encoders) >= KEPT_ENCODERS:
                self._encoders.pop(next(iter(self._encoders)))
            self._encoders[card.digest] = Encoder(card, read)
        return self._encoders[card.digest]

    def publish(self, model: str, *, artifact: str) -> ModelCard:
        try:
            return ModelCard.from_bytes(self._data.get(layout.model(model)))
        except NotFound:
            pass
        with tempfile.TemporaryDirectory(prefix="winnow-package-") as scratch:
            root = Path(scratch)
            unpack(self._data.get(self._data.key_of(artifact)), root)
            card = validate_package(root, seconds=CHECK_SECONDS, megabytes=CHECK_MEGABYTES)
            if card.model != model:
                raise BadModel(f"{CARD_FILE} says model {card.model!r}, the training job was for {model!r}")
            for arm in ARMS:
                folder = root / "arms" / arm
                if folder.is_dir():
                    for name in card.encoder.files if card.encoder else ():
                        (folder / name).unlink(missing_ok=True)
                        (folder / name).hardlink_to(root / name)
                    self._upload(model, folder, f"arms/{arm}/", validate_package(
                        folder, seconds=CHECK_SECONDS, megabytes=CHECK_MEGABYTES
                    ))  # fmt: skip
            self._upload(model, root, "", card)
        return card

    def _upload(self, model: str, folder: Path, prefix: str, card: ModelCard) -> None:
        """Files first, the card last: a package is complete or absent. Comparison fits share their model's encoder."""
        shared = card.encoder.files if card.encoder and prefix else {}
        for name in (*(name for name in card.files if name not in shared), CARD_FILE):
            self._data.put(layout.model(model, prefix + name), (folder / name).read_bytes())


def unpack(archive: bytes, root: Path) -> None:
    """Regular files of a model.tar.gz into `root`; names that leave it, links and devices are refused."""
    room = UNPACKED_BYTES
    try:
        with tarfile.open(fileobj=io.BytesIO(archive), mode="r:gz") as tar:
            for member in tar:
                path = PurePosixPath(member.name)
                if path.is_absolute() or ".." in path.parts:
                    raise BadModel(f"model.tar.gz names {member.name!r}, which leaves its folder")
                if member.isdir():
                    continue
                if not member.isfile():
                    raise BadModel(f"model.tar.gz holds {member.name!r}, which is no regular file")
                room -= member.size
                if room < 0:
                    raise BadModel(f"model.tar.gz unpacks to more than {UNPACKED_BYTES} bytes")
                source = tar.extractfile(member)
                assert source is not None  # a regular file has a body
                target = root / path
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_bytes(source.read())
    except (tarfile.TarError, EOFError, OSError) as error:
        raise BadModel(f"model.tar.gz cannot be read: {error}; train again") from error
