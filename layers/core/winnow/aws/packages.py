"""Published model packages: unpacked from training artifacts that nobody trusts yet, loaded by id."""

from __future__ import annotations

import io
import tarfile
import tempfile
from collections.abc import Callable
from pathlib import Path, PurePosixPath
from typing import Literal

from winnow import layout
from winnow.aws.s3 import DataBucket
from winnow.errors import BadModel, NotFound
from winnow.models.bootstrap import bootstrap_files
from winnow.models.package import CARD_FILE, ModelCard
from winnow.onnx.check import validate_package
from winnow.onnx.runtime import OnnxModel

ARMS: tuple[Literal["active", "control"], ...] = ("active", "control")
CHECK_SECONDS = 120
CHECK_MEGABYTES = 2048
UNPACKED_BYTES = 1_000_000_000
KEPT = 4
"""Loaded models a worker keeps: champion, challenger and the two comparison fits."""


class PublishedModels:
    def __init__(self, data: DataBucket) -> None:
        self._data = data
        self._loaded: dict[str, OnnxModel] = {}

    def load(self, model: str, *, classes: tuple[str, ...] = ()) -> OnnxModel:
        if model.startswith(layout.BOOTSTRAP):
            kind = model.removeprefix(f"{layout.BOOTSTRAP}-")
            return self._cached(f"{model}/{classes}", lambda: bootstrap_files(kind, classes=classes))
        return self._cached(model, lambda: self._files(model, ""))

    def load_arm(self, model: str, arm: Literal["active", "control"]) -> OnnxModel | None:
        try:
            return self._cached(f"{model}/{arm}", lambda: self._files(model, f"arms/{arm}/"))
        except NotFound:
            return None

    def _cached(self, name: str, read: Callable[[], dict[str, bytes]]) -> OnnxModel:
        if name not in self._loaded:
            while len(self._loaded) >= KEPT:
                self._loaded.pop(next(iter(self._loaded)))
            self._loaded[name] = OnnxModel.from_files(read())
        return self._loaded[name]

    def _files(self, model: str, folder: str) -> dict[str, bytes]:
        card = self._data.get(layout.model(model, folder + CARD_FILE))
        names = ModelCard.from_bytes(card).files
        return {CARD_FILE: card} | {name: self._data.get(layout.model(model, folder + name)) for name in names}

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
                    self._upload(model, folder, f"arms/{arm}/", validate_package(
                        folder, seconds=CHECK_SECONDS, megabytes=CHECK_MEGABYTES
                    ))  # fmt: skip
            self._upload(model, root, "", card)
        return card

    def _upload(self, model: str, folder: Path, prefix: str, card: ModelCard) -> None:
        """Files first, the card last: a package is complete or absent."""
        for name in (*card.files, CARD_FILE):
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
