"""From labeled examples to the bytes of one model and the figures about it."""

from __future__ import annotations

import io
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import image_model
import numpy as np
import numpy.typing as npt
import text_model
from committee import Committee, fit_committee
from examples import Example
from PIL import Image as PillowImage
from threadpoolctl import threadpool_limits

from winnow.errors import BadInput
from winnow.models.package import MODEL_FILE, ModelCard, ModelInput, ModelOutputs, digest
from winnow.onnx.features import WORDS, clean_text, image_tensor, open_image

_COLOUR_SAMPLE = 200


@dataclass(frozen=True)
class Fitted:
    """A fitted model: its graph, the input it wants, and figures that depend on data and seed alone."""

    graph: bytes
    input: ModelInput
    temperature: float
    cost: float
    members: int
    metrics: dict[str, Any]


def fit(
    examples: Sequence[Example],
    *,
    kind: str,
    classes: Sequence[str],
    seed: int,
    members: int,
    cost: float | None = None,
) -> Fitted:
    """Fit on every example. Raises `ValueError` when a label is unknown or fewer than two classes have one."""
    place = {name: number for number, name in enumerate(classes)}
    unknown = sorted({example.label for example in examples} - set(place))
    if unknown:
        raise ValueError(f"labels {unknown[:5]} are none of the {len(classes)} classes; add them to the loop's classes")
    counts = Counter(example.label for example in examples)
    if len(counts) < 2:
        have = ", ".join(f"{name} ({count})" for name, count in counts.items()) or "none"
        raise ValueError(f"training needs labels of at least two classes; there are: {have}. Label more records first")
    labels = np.array([place[example.label] for example in examples], dtype=np.int64)
    # One thread, whatever the machine: sums in another order would be another model.
    with threadpool_limits(limits=1):
        return _fit(examples, labels, kind=kind, classes=classes, seed=seed, members=members, cost=cost)


def _fit(
    examples: Sequence[Example],
    labels: npt.NDArray[np.int64],
    *,
    kind: str,
    classes: Sequence[str],
    seed: int,
    members: int,
    cost: float | None,
) -> Fitted:
    groups = [example.cluster for example in examples]
    rng = np.random.default_rng(seed)
    if kind == "text":
        cleaned = [clean_text(str(example.payload)) for example in examples]
        columns = (1 + members) * len(classes) + text_model.DIMENSIONS
        vocabulary = text_model.Vocabulary.learn(cleaned, columns=columns)
        features = vocabulary.features(cleaned)
        committee = fit_committee(
            features, labels, classes=len(classes), groups=groups, members=members,
            dimensions=text_model.DIMENSIONS, rng=rng, cost=cost,
        )  # fmt: skip
        graph = text_model.build_graph(vocabulary, committee, seed=seed)
        wanted = ModelInput(name="text", kind="text", source="text", form=WORDS)
        width = len(vocabulary.terms)
    else:
        shape = _image_shape(examples)

        def read(start: int, end: int) -> image_model.Images:
            return np.stack([_tensor(example, shape=shape) for example in examples[start:end]])

        extractor, rows = image_model.Extractor.learn(read, len(examples), shape=shape, rng=rng)
        committee = fit_committee(
            rows, labels, classes=len(classes), groups=groups, members=members,
            dimensions=image_model.DIMENSIONS, rng=rng, cost=cost,
        )  # fmt: skip
        graph = image_model.build_graph(extractor, committee)
        wanted = ModelInput(name="image", kind="image", source="image", shape=shape)
        width = rows.shape[1]
    return Fitted(
        graph=graph,
        input=wanted,
        temperature=committee.temperature,
        cost=committee.cost,
        members=members,
        metrics=_metrics(
            committee, counts=np.bincount(labels, minlength=len(classes)).tolist(), classes=classes, width=width
        ),
    )


def card_of(
    fitted: Fitted, *, model: str, kind: str, classes: Sequence[str], masker: str, dataset: str | None
) -> ModelCard:
    """model.json of a fitted model whose graph is saved as model.onnx."""
    return ModelCard(
        model=model,
        kind="text" if kind == "text" else "image",
        classes=tuple(classes),
        inputs=(fitted.input,),
        masker=masker,
        files={MODEL_FILE: digest(fitted.graph)},
        outputs=ModelOutputs(members="members" if fitted.members else None),
        temperature=fitted.temperature,
        dataset=dataset,
        metrics={name: value for name, value in fitted.metrics.items() if name != "classes"},
    )


def equal_arms(examples: Sequence[Example]) -> tuple[list[Example], list[Example]]:
    """The first n examples of arm `active` and of arm `control`, n = the smaller count, by batch, then id."""
    arms = [
        sorted((item for item in examples if item.arm == arm), key=lambda item: (item.batch, item.id))
        for arm in ("active", "control")
    ]
    size = min(map(len, arms))
    return arms[0][:size], arms[1][:size]


def _metrics(committee: Committee, *, counts: Sequence[int], classes: Sequence[str], width: int) -> dict[str, Any]:
    figures: dict[str, Any] = {
        "n": sum(counts),
        "classes": dict(zip(classes, counts, strict=True)),
        "classes_without_label": int((~committee.seen).sum()),
        "features": width,
        "cost": committee.cost,
        "temperature": committee.temperature,
        "members": len(committee.members),
    }
    if committee.out_of_fold_accuracy is not None:
        figures["cv_accuracy"] = round(committee.out_of_fold_accuracy, 6)
    if committee.out_of_fold_log_loss is not None and np.isfinite(committee.out_of_fold_log_loss):
        figures["cv_log_loss"] = round(committee.out_of_fold_log_loss, 6)
    return figures


def _image_shape(examples: Sequence[Example]) -> tuple[int, int, int]:
    """The tensor's (side, side, channels): grey unless a sample of the pictures shows colour."""
    step = max(1, len(examples) // _COLOUR_SAMPLE)
    colour = any(_shows_colour(example) for example in examples[::step])
    side = image_model.working_side([_size(example) for example in examples])
    return side, side, 3 if colour else 1


def _size(example: Example) -> tuple[int, int]:
    if isinstance(example.payload, np.ndarray):
        return example.payload.shape[1], example.payload.shape[0]
    assert isinstance(example.payload, bytes)  # the kind is image
    try:
        return PillowImage.open(io.BytesIO(example.payload)).size
    except OSError as error:
        raise ValueError(f"example {example.id}: the image cannot be read: {error}") from error


def _shows_colour(example: Example) -> bool:
    if isinstance(example.payload, np.ndarray):
        return example.payload.ndim == 3 and example.payload.shape[2] == 3 and image_model.is_colour(example.payload)
    assert isinstance(example.payload, bytes)  # the kind is image
    try:
        image = open_image(example.payload)
    except BadInput as error:
        raise ValueError(f"example {example.id}: {error}") from error
    return image.mode == "RGB" and image_model.is_colour(np.asarray(image))


def _tensor(example: Example, *, shape: tuple[int, int, int]) -> Any:
    try:
        return image_tensor(example.payload, shape=shape)
    except BadInput as error:
        raise ValueError(f"example {example.id}: {error}") from error
