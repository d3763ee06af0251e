"""From labeled examples to the bytes of one model and the figures about it."""

from __future__ import annotations

import io
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import encoded
import image_model
import numpy as np
import numpy.typing as npt
import text_model
from columns import Columns
from committee import Committee, fit_committee
from examples import Example
from PIL import Image as PillowImage
from search import Recipe
from table_model import TableFit, fit_classifier, fit_regression
from threadpoolctl import threadpool_limits

from winnow.errors import BadInput
from winnow.models.encoder import EncoderCard
from winnow.models.package import (
    DECLARED,
    MODEL_FILE,
    InputKind,
    ModelCard,
    ModelInput,
    ModelKind,
    ModelOutputs,
    Task,
    digest,
)
from winnow.onnx.features import WORDS, clean_text, image_tensor, open_image

_COLOUR_SAMPLE = 200


@dataclass(frozen=True)
class Fitted:
    """A fitted model: its graph, the inputs it wants, and figures that depend on data and seed alone."""

    graph: bytes
    inputs: tuple[ModelInput, ...]
    temperature: float
    chosen: float | Recipe | encoded.Choice
    """What was chosen on held-out records: the linear head's cost, a table's recipe, or what stands on an encoder."""
    members: int
    metrics: dict[str, Any]
    task: str = "classification"
    notes: tuple[str, ...] = ()
    """What a person should know about the data, a sentence each."""
    encoder: EncoderCard | None = None


def fit(
    examples: Sequence[Example],
    *,
    kind: str,
    classes: Sequence[str],
    seed: int,
    members: int,
    task: str = "classification",
    columns: Mapping[str, str] | None = None,
    positive: str | None = None,
    chosen: float | Recipe | encoded.Choice | None = None,
    encoder: EncoderCard | None = None,
) -> Fitted:
    """Fit on every example; with `chosen` nothing is searched for. With an `encoder` the examples carry its vectors.

    Of tables, `columns` names the columns to use with their kinds (none: all of them, kinds found out), and `positive`
    the class whose average precision decides between models. Raises `ValueError` when a label is unknown, or fewer than
    two classes have one.
    """
    # One thread, whatever the machine: sums in another order would be another model.
    with threadpool_limits(limits=1):
        if task == "regression":
            return _fit_numbers(examples, seed=seed, members=members, declared=columns or {}, chosen=chosen)
        labels = _class_numbers(examples, classes)
        if kind == "table":
            return _fit_table(
                examples, labels, classes=classes, seed=seed, members=members, declared=columns or {},
                positive=positive, chosen=chosen,
            )  # fmt: skip
        if encoder is not None:
            return _fit_encoded(
                examples, labels, encoder, kind=kind, classes=classes, seed=seed, members=members, chosen=chosen
            )
        return _fit(examples, labels, kind=kind, classes=classes, seed=seed, members=members, cost=chosen)


def _class_numbers(examples: Sequence[Example], classes: Sequence[str]) -> npt.NDArray[np.int64]:
    place = {name: number for number, name in enumerate(classes)}
    unknown = sorted({str(example.label) for example in examples} - set(place))
    if unknown:
        raise ValueError(f"labels {unknown[:5]} are none of the {len(classes)} classes; add them to the loop's classes")
    counts = Counter(example.label for example in examples)
    if len(counts) < 2:
        have = ", ".join(f"{name} ({count})" for name, count in counts.items()) or "none"
        raise ValueError(f"training needs labels of at least two classes; there are: {have}. Label more records first")
    return np.array([place[str(example.label)] for example in examples], dtype=np.int64)


def _fit(
    examples: Sequence[Example],
    labels: npt.NDArray[np.int64],
    *,
    kind: str,
    classes: Sequence[str],
    seed: int,
    members: int,
    cost: Any,
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
        extractor, rows, shape = image_features(examples, rng=rng)
        committee = fit_committee(
            rows, labels, classes=len(classes), groups=groups, members=members,
            dimensions=image_model.DIMENSIONS, rng=rng, cost=cost,
        )  # fmt: skip
        graph = image_model.build_graph(extractor, committee)
        wanted = ModelInput(name="image", kind="image", source="image", shape=shape)
        width = rows.shape[1]
    return Fitted(
        graph=graph,
        inputs=(wanted,),
        temperature=committee.temperature,
        chosen=committee.cost,
        members=members,
        metrics=_metrics(
            committee, counts=np.bincount(labels, minlength=len(classes)).tolist(), classes=classes, width=width
        ),
    )


def image_features(
    examples: Sequence[Example], *, rng: np.random.Generator
) -> tuple[image_model.Extractor, npt.NDArray[np.float32], tuple[int, int, int]]:
    """An extractor that learned from the images, what it makes of them (n, D), and the shape it wants."""
    shape = _image_shape(examples)

    def read(start: int, end: int) -> image_model.Images:
        return np.stack([_tensor(example, shape=shape) for example in examples[start:end]])

    extractor, rows = image_model.Extractor.learn(read, len(examples), shape=shape, rng=rng)
    return extractor, rows, shape


def _fit_encoded(
    examples: Sequence[Example],
    labels: npt.NDArray[np.int64],
    encoder: EncoderCard,
    *,
    kind: str,
    classes: Sequence[str],
    seed: int,
    members: int,
    chosen: Any,
) -> Fitted:
    """A head over the encoder's vectors and the kind's own features, or trees over the vectors."""
    if encoder.reads != kind:
        raise ValueError(
            f"the encoder reads {encoder.reads}, the examples are of kind {kind}; give one that reads {kind}"
        )
    vectors = np.stack([example.encoded for example in examples if example.encoded is not None])
    groups = [example.cluster for example in examples]
    rng = np.random.default_rng(seed)
    own: encoded.Own
    if kind == "text":
        cleaned = [clean_text(str(example.payload)) for example in examples]
        vocabulary = text_model.Vocabulary.learn(cleaned, columns=(1 + members) * len(classes))
        own, wanted = vocabulary.features(cleaned), ModelInput(name="text", kind="text", source="text", form=WORDS)
    else:
        extractor, own, shape = image_features(examples, rng=rng)
        wanted = ModelInput(name="image", kind="image", source="image", shape=shape)
    choice = chosen or encoded.choose(own, vectors, labels, groups=groups, rng=rng)
    counts = np.bincount(labels, minlength=len(classes)).tolist()
    options = {"classes": len(classes), "groups": groups, "members": members, "rng": rng}
    inputs = [ModelInput(name=encoded.VECTORS, kind="embedding")]
    if choice.trees is None:
        committee = encoded.fit_linear(own, vectors, labels, choice, **options)
        figures = _metrics(committee, counts=counts, classes=classes, width=own.shape[1] + encoder.dimensions)
        figures |= {"model": "linear", "encoder_weight": choice.weight}
        temperature, width = committee.temperature, encoder.dimensions
        if kind == "text":
            graph = text_model.build_graph(vocabulary, committee, seed=seed, encoded=width)
        else:
            graph = image_model.build_graph(extractor, committee, encoded=width)
        inputs = [wanted, *inputs]
    else:
        found = encoded.fit_boosted(vectors, labels, choice.trees, **options)
        graph = encoded.boosted_graph(found, width=encoder.dimensions)
        temperature = found.heads.temperature
        figures = {
            "n": len(examples), "classes": dict(zip(classes, counts, strict=True)),
            "classes_without_label": counts.count(0), "features": encoder.dimensions, "temperature": temperature,
            "members": members, "model": "boosting", "rounds": choice.trees.rounds, "leaves": choice.trees.leaves,
            **{name: round(value, 6) for name, value in found.figures.items() if np.isfinite(value)},
        }  # fmt: skip
    return Fitted(
        graph=graph, inputs=tuple(inputs), temperature=temperature, chosen=choice, members=members, metrics=figures,
        encoder=encoder,
    )  # fmt: skip


def _fit_table(
    examples: Sequence[Example],
    labels: npt.NDArray[np.int64],
    *,
    classes: Sequence[str],
    seed: int,
    members: int,
    declared: Mapping[str, str],
    positive: str | None,
    chosen: Any,
) -> Fitted:
    if positive is not None and positive not in classes:
        raise ValueError(
            f"the positive class {positive!r} is none of the classes {list(classes)[:5]}; name one of them"
        )
    columns = Columns.learn([example.row for example in examples], declared=declared)
    table = fit_classifier(
        columns, columns.read([example.row for example in examples]), labels, classes=len(classes),
        positive=None if positive is None else list(classes).index(positive),
        groups=[example.cluster for example in examples], members=members, rng=np.random.default_rng(seed),
        recipe=chosen,
    )  # fmt: skip
    counts = np.bincount(labels, minlength=len(classes)).tolist()
    figures = {
        "classes": dict(zip(classes, counts, strict=True)), "classes_without_label": counts.count(0),
        "temperature": table.temperature,
    }  # fmt: skip
    return _table(table, columns, figures, count=len(examples), members=members, declared=declared)


def _fit_numbers(
    examples: Sequence[Example], *, seed: int, members: int, declared: Mapping[str, str], chosen: Any
) -> Fitted:
    if len(examples) < 2:
        raise ValueError(
            f"training needs at least two labeled rows; there are {len(examples)}. Label more records first"
        )
    columns = Columns.learn([example.row for example in examples], declared=declared)
    table = fit_regression(
        columns, columns.read([example.row for example in examples]), np.array([float(item.label) for item in examples]),
        groups=[example.cluster for example in examples], members=members, rng=np.random.default_rng(seed),
        recipe=chosen,
    )  # fmt: skip
    return _table(table, columns, {}, count=len(examples), members=members, declared=declared, task="regression")


def _table(
    table: TableFit,
    columns: Columns,
    figures: dict[str, Any],
    *,
    count: int,
    members: int,
    declared: Mapping[str, str],
    task: str = "classification",
) -> Fitted:
    trees = table.recipe.trees
    found = {
        "n": count, **figures, "features": columns.width, "columns": len(columns.numbers) + len(columns.categories),
        "columns_left_out": len(columns.left_out), "model": table.recipe.family, "members": members,
        **({"cost": table.recipe.cost} if trees is None else {"rounds": trees.rounds, "leaves": trees.leaves}),
        **{name: round(value, 6) for name, value in table.figures.items() if np.isfinite(value)},
    }  # fmt: skip
    sources = [("number", column.name) for column in columns.numbers]
    sources += [("category", column.name) for column in columns.categories]
    inputs = tuple(
        ModelInput(
            name=f"c{place}", kind=cast(InputKind, kind), source=name,
            form=DECLARED if declared and kind == "number" else None,
        )
        for place, (kind, name) in enumerate(sources)
    )  # fmt: skip
    notes = tuple(f"column {name!r} is left out: {reason}" for name, reason in columns.left_out.items())
    return Fitted(
        graph=table.graph, inputs=inputs, temperature=table.temperature, chosen=table.recipe, members=members,
        metrics=found, task=task, notes=notes,
    )  # fmt: skip


def card_of(
    fitted: Fitted, *, model: str, kind: str, classes: Sequence[str], masker: str, dataset: str | None
) -> ModelCard:
    """model.json of a fitted model whose graph is saved as model.onnx."""
    return ModelCard(
        model=model,
        kind=cast(ModelKind, kind),
        classes=tuple(classes),
        inputs=fitted.inputs,
        masker=masker,
        files={MODEL_FILE: digest(fitted.graph), **(fitted.encoder.files if fitted.encoder else {})},
        outputs=ModelOutputs(
            members="members" if fitted.members else None,
            prediction="prediction" if fitted.task == "regression" else None,
        ),
        task=cast(Task, fitted.task),
        temperature=fitted.temperature,
        dataset=dataset,
        metrics={name: value for name, value in fitted.metrics.items() if name != "classes"},
        encoder=fitted.encoder,
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
    return figures if committee.doubt is None else {**figures, **committee.doubt.figures()}


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
