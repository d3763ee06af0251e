"""The people of a demo: annotators, experts, spammers and the application's users. Only they may look up the truth."""

from __future__ import annotations

import hashlib
import io
import json
import unicodedata
from collections.abc import Callable, Iterable, Mapping, Sequence

import numpy as np
from PIL import Image, UnidentifiedImageError

from winnow.errors import BadInput
from winnow.formats.images import PillowImages
from winnow.loop import Loop
from winnow.privacy.masking import mask_text
from winnow_cli.demo.data import DemoData, Payload
from winnow_local.annotators import Annotator, Crowd, Task

CROWD_SIZE = 9
SPAMMERS = 9
EXPERTS = 2
ACCURACY = (0.88, 0.98)
"""Of the annotators, the worst and the best; experts are at EXPERT_ACCURACY."""
EXPERT_ACCURACY = 0.99


class TruthOracle:
    """Finds the true class by content: by the normalised text, or by the pixels of an image, in what the worker sees.
    `pairs` are (text or encoded image as people see it, class); `read` fetches an `s3://` URI, as their browser would."""

    def __init__(self, pairs: Iterable[tuple[str | bytes, str]], *, read: Callable[[str], bytes] | None = None) -> None:
        self._truth, self._read = {_key(payload): label for payload, label in pairs}, read

    def __call__(self, task: Task) -> str:
        """The true class of the task; LookupError when nothing the worker sees is known."""
        for seen in (value for value in task.values() if isinstance(value, str)):
            key = _key(self._read(seen) if self._read and seen.startswith("s3://") else seen)
            if key in self._truth:
                return self._truth[key]
        raise LookupError(f"no truth is known for the task {json.dumps(task)[:200]}")


def annotators(classes: int, *, rng: np.random.Generator) -> list[Annotator]:
    """People with confusion matrices of their own: most errors of each fall on a few classes they mix up, some are slow."""
    people = []
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
    return [
        Annotator.skilled(
            f"expert-{number + 1}", accuracy=EXPERT_ACCURACY, classes=classes, seconds_per_item=7200.0, spread=0.2
        )
        for number in range(EXPERTS)
    ]


def spammers(classes: int) -> list[Annotator]:
    """A farm that clicks the first answer, whatever it is shown; agreement among them looks perfect."""
    first = tuple(tuple(float(column == 0) for column in range(classes)) for _ in range(classes))
    return [Annotator(f"clicker-{number + 1}", first, seconds_per_item=2.0) for number in range(SPAMMERS)]


def crowd(people: Sequence[Annotator], oracle: TruthOracle, *, classes: Sequence[str], seed: int) -> Crowd:
    """A work team."""
    return Crowd(people, oracle, classes=classes, seed=seed)


def oracle(data: DemoData, loop: Loop, *, read: Callable[[str], bytes]) -> TruthOracle:
    """What annotators know: the class of what they are shown, which is masked text or a canonical image."""
    images = PillowImages()

    def shown(payload: Payload) -> Payload | None:
        if isinstance(payload, str):
            return mask_text(payload)[0] if loop.privacy.mask else payload
        try:
            limits = loop.limits
            return images.canonical(payload, side=limits.image_side, megapixels=limits.max_image_megapixels).png
        except BadInput:
            return None  # goes to quarantine: nobody will be asked

    seen = ((shown(payload), label) for payload, label in data.truth.pairs)
    return TruthOracle([(payload, label) for payload, label in seen if payload is not None], read=read)


def users(data: DemoData) -> Mapping[Payload, str]:
    """What the application's users know: the class of what they sent."""
    return data.truth.lookup()


def mangle(payload: Payload) -> Payload:
    """What a broken preprocessing makes of a request: letters in reverse, or an inverted image upside down."""
    if isinstance(payload, str):
        return payload[::-1]
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


def _key(payload: str | bytes) -> str:
    """Digest of a text whatever its case and white space, or of an image's pixels whatever its encoding."""
    if isinstance(payload, str):
        plain = " ".join(unicodedata.normalize("NFC", payload).casefold().split())
        return hashlib.sha256(plain.encode()).hexdigest()
    with Image.open(io.BytesIO(payload)) as image:
        pixels = image.convert("RGB")
        return hashlib.sha256(repr(pixels.size).encode() + pixels.tobytes()).hexdigest()
