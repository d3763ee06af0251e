"""The people of a demo: annotators, experts, spammers and the application's users. Only they may look up the truth."""

from __future__ import annotations

import hashlib
import io
import json
import unicodedata
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image, UnidentifiedImageError

from winnow.errors import BadInput
from winnow.formats.images import PillowImages
from winnow.loop import Loop
from winnow.privacy.masking import mask_row, mask_text
from winnow.steps.prepare_task import shown as cell_shown
from winnow_cli.labeled import LabeledData, Payload
from winnow_local.annotators import Annotator, Crowd, Task

CROWD_SIZE = 9
SPAMMERS = 9
EXPERTS = 2
ACCURACY = (0.88, 0.98)
"""Of the annotators, the worst and the best; experts are at EXPERT_ACCURACY."""
EXPERT_ACCURACY = 0.99
NOISE = (0.10, 0.02)
"""Of the annotators who give numbers, the worst and the best: standard deviation of the error, as a share of the truth."""
EXPERT_NOISE = 0.01


@dataclass(frozen=True)
class Estimator(Annotator):
    """Somebody who gives numbers, off by a share of the truth that is normally distributed."""

    confusion: tuple[tuple[float, ...], ...] = ()
    noise: float = 0.05

    def answer(self, truth: str, classes: Sequence[str], rng: np.random.Generator) -> str:
        return f"{float(truth) * (1 + self.noise * rng.standard_normal()):.6g}"


@dataclass(frozen=True)
class Clicker(Annotator):
    """Somebody who says one and the same, whatever is shown."""

    confusion: tuple[tuple[float, ...], ...] = ()
    says: str = "0"

    def answer(self, truth: str, classes: Sequence[str], rng: np.random.Generator) -> str:
        return self.says


class TruthOracle:
    """Finds the right answer by content: by the normalised text, the cells of a row or the pixels of an image, in what the
    worker sees. `pairs` are (text, row or encoded image as people see it, answer); `read` fetches an `s3://` URI."""

    def __init__(self, pairs: Iterable[tuple[Payload, str]], *, read: Callable[[str], bytes] | None = None) -> None:
        self._truth, self._read = {_key(payload): label for payload, label in pairs}, read

    def __call__(self, task: Task) -> str:
        """The right answer to the task; LookupError when nothing the worker sees is known."""
        row = task.get("row")
        if isinstance(row, list):
            task = {"row": tuple((str(cell["name"]), str(cell["value"])) for cell in row)}
        for seen in (value for value in task.values() if isinstance(value, str | tuple)):
            key = _key(self._read(seen) if self._read and isinstance(seen, str) and seen.startswith("s3://") else seen)
            if key in self._truth:
                return self._truth[key]
        raise LookupError(f"no truth is known for the task {json.dumps(task)[:200]}")


def annotators(classes: int, *, rng: np.random.Generator) -> list[Annotator]:
    """People with confusion matrices of their own: most errors of each fall on a few classes they mix up, some are slow.
    Without classes they give numbers, some of them better than others."""
    people: list[Annotator] = []
    if not classes:
        return [
            Estimator(
                f"annotator-{number + 1}", noise=float(noise), seconds_per_item=float(rng.uniform(120, 900)),
                availability=0.95,
            )
            for number, noise in enumerate(np.linspace(*NOISE, CROWD_SIZE))
        ]  # fmt: skip
    for number, accuracy in enumerate(np.linspace(*ACCURACY, CROWD_SIZE)):
        rows = []
        for true in range(classes):
            slips = rng.dirichlet(np.full(classes, 0.3)) if classes > 2 else np.ones(classes)
            slips[true] = 0.0
            slips = slips / slips.sum() if slips.sum() > 0 else _others(classes, true)
            row = (1 - accuracy) * slips
            row[true] = accuracy
            rows.append(tuple(float(share) for share in row / row.sum()))
        pace = float(rng.uniform(120, 900))
        people.append(Annotator(f"annotator-{number + 1}", tuple(rows), seconds_per_item=pace, availability=0.95))
    return people


def experts(classes: int) -> list[Annotator]:
    """People who settle disputes: nearly always right, and slow."""
    if not classes:
        return [
            Estimator(f"expert-{number + 1}", noise=EXPERT_NOISE, seconds_per_item=7200.0, spread=0.2)
            for number in range(EXPERTS)
        ]
    return [
        Annotator.skilled(
            f"expert-{number + 1}", accuracy=EXPERT_ACCURACY, classes=classes, seconds_per_item=7200.0, spread=0.2
        )
        for number in range(EXPERTS)
    ]


def spammers(classes: Sequence[str]) -> list[Annotator]:
    """A farm that gives the first answer, whatever it is shown; agreement among them looks perfect."""
    first = classes[0] if classes else "0"
    return [Clicker(f"clicker-{number + 1}", says=first, seconds_per_item=2.0) for number in range(SPAMMERS)]


def crowd(people: Sequence[Annotator], oracle: TruthOracle, *, classes: Sequence[str], seed: int) -> Crowd:
    """A work team."""
    return Crowd(people, oracle, classes=classes, seed=seed)


def oracle(data: LabeledData, loop: Loop, *, read: Callable[[str], bytes]) -> TruthOracle:
    """What annotators know: the answer to what they are shown, which is masked text, a masked row or a canonical image."""
    images = PillowImages()

    def shown(payload: Payload) -> Payload | None:
        if isinstance(payload, str):
            return mask_text(payload)[0] if loop.privacy.mask else payload
        if isinstance(payload, tuple):
            row = mask_row(dict(payload))[0] if loop.privacy.mask else dict(payload)
            return tuple((name, cell_shown(cell)) for name, cell in row.items())
        try:
            limits = loop.limits
            return images.canonical(payload, side=limits.image_side, megapixels=limits.max_image_megapixels).png
        except BadInput:
            return None  # goes to quarantine: nobody will be asked

    seen = ((shown(payload), label) for payload, label in data.truth.pairs)
    return TruthOracle([(payload, label) for payload, label in seen if payload is not None], read=read)


def users(data: LabeledData) -> Mapping[Payload, str]:
    """What the application's users know: the right answer to what they sent."""
    return data.truth.lookup()


def mangle(payload: Payload) -> Payload:
    """What a broken preprocessing makes of a request: letters in reverse, a row whose cells stand one column further, or an
    inverted image upside down."""
    if isinstance(payload, str):
        return payload[::-1]
    if isinstance(payload, tuple):
        names, cells = zip(*payload, strict=True)
        return tuple(zip(names, (*cells[1:], cells[0]), strict=True))
    try:
        with Image.open(io.BytesIO(payload)) as image:
            turned = image.convert("RGB").transpose(Image.Transpose.ROTATE_180).point(lambda value: 255 - value)
            mode = "L" if image.mode in ("L", "1") else "RGB"
    except (UnidentifiedImageError, OSError):
        return payload
    out = io.BytesIO()
    turned.convert(mode).save(out, format="PNG")
    return out.getvalue()


def _others(classes: int, true: int) -> np.ndarray:
    shares = np.ones(classes)
    shares[true] = 0.0
    return shares / shares.sum()


def _key(payload: Payload) -> str:
    """Digest of a text whatever its case and white space, of a row whatever the order of its columns, or of an image's
    pixels whatever its encoding."""
    if isinstance(payload, tuple):
        return hashlib.sha256(repr(sorted(payload)).encode()).hexdigest()
    if isinstance(payload, str):
        plain = " ".join(unicodedata.normalize("NFC", payload).casefold().split())
        return hashlib.sha256(plain.encode()).hexdigest()
    with Image.open(io.BytesIO(payload)) as image:
        pixels = image.convert("RGB")
        return hashlib.sha256(repr(pixels.size).encode() + pixels.tobytes()).hexdigest()
