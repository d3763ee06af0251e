"""Trains the next model: run by SageMaker's container as a job, or by a person from a shell.

A job finds its channels and folders in `SM_*` variables (script mode). A person says where things are:

    python training/train.py --kind text --train train.jsonl.gz --test test.jsonl.gz --model-dir out
    python training/train.py --kind text --train train.jsonl.gz --test test.jsonl.gz --encoder minilm --model-dir out
    python training/train.py --kind image --train photos/train --test photos/test --model-dir out
    python training/train.py --kind image --train images.npz --test images.npz --model-dir out
    python training/train.py --kind table --train train.csv --test test.csv --label income --model-dir out
    python training/train.py --kind table --train houses.parquet --holdout 0.3 --label price --task regression --model-dir out
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import vendored

_CHECKOUT = Path(__file__).resolve().parent.parent / "layers" / "core"
if _CHECKOUT.is_dir():
    sys.path.insert(0, str(_CHECKOUT))
vendored.provide()

import numpy as np  # noqa: E402
from examples import Example, read_channel, read_people, read_rows  # noqa: E402
from fit import Fitted, card_of, equal_arms, fit  # noqa: E402
from source import serving_files  # noqa: E402

from winnow.errors import WinnowError  # noqa: E402
from winnow.models.encoder import ENCODER_CARD, EncoderCard  # noqa: E402
from winnow.models.evaluation import evaluate, evaluate_regression  # noqa: E402
from winnow.models.package import CARD_FILE, MODEL_FILE, UNMASKED, ModelCard, digest  # noqa: E402
from winnow.models.predictions import Predictions  # noqa: E402
from winnow.onnx.encoder import Encoder, files_reader  # noqa: E402
from winnow.onnx.encoder_folder import read_encoder  # noqa: E402
from winnow.onnx.runtime import OnnxModel  # noqa: E402

_FAILURE_LENGTH = 1024
_ARM_MINIMUM = 4
_MANY_CLASSES = 50
_TASKS = (
    ("text", "classification"), ("image", "classification"), ("table", "classification"), ("table", "regression"),
)  # fmt: skip


def main(argv: list[str] | None = None) -> int:
    """Train; returns the exit status. A failure's reason goes to stderr and, in a job, to output/failure."""
    arguments = _arguments(argv)
    try:
        if arguments.train is None:
            run_job(arguments.seed)
        else:
            run_for_people(arguments)
    except (ValueError, OSError, RuntimeError, WinnowError) as error:
        message = f"{type(error).__name__}: {error}"
        print(message, file=sys.stderr, flush=True)
        _write_failure(message)
        return 1
    except Exception as error:
        _write_failure(f"{type(error).__name__}: {error}")
        raise
    return 0


def run_job(seed: int | None) -> None:
    """One training job: channels `train`, `spec` and perhaps `encoder` in, the model folder out."""
    started = time.monotonic()
    spec = _read_spec(Path(_environment("SM_CHANNEL_SPEC")) / "spec.json")
    model_dir = Path(_environment("SM_MODEL_DIR"))
    seed = int(spec["seed"]) if seed is None else seed
    examples = read_channel(Path(_environment("SM_CHANNEL_TRAIN")), kind=spec["kind"], task=spec["task"])
    print(f"train_n={len(examples)} classes={len(spec['classes'])} kind={spec['kind']} seed={seed}", flush=True)
    encoder, files = _encoder_of(spec)
    if encoder is not None:
        examples = _encoded(examples, encoder, known=_known_vectors(Path(_environment("SM_CHANNEL_SPEC"))))
    options = {
        "kind": spec["kind"], "classes": spec["classes"], "seed": seed, "task": spec["task"], "columns": spec["columns"],
        "positive": spec["positive_class"], "encoder": None if encoder is None else encoder.card,
    }  # fmt: skip
    fitted = fit(examples, members=int(spec["members"]), **options)
    _print_notes(fitted)
    _save(fitted, _card(fitted, spec, model=spec["model"]), folder=model_dir)
    _write_files(model_dir, files)
    metrics: dict[str, Any] = {**fitted.metrics, "dataset": spec["dataset"], "seed": seed}
    _print_metrics("", fitted.metrics)
    active, control = equal_arms(examples)
    if _can_compare(active, control, task=spec["task"]):
        metrics["arms"] = {}
        for name, arm in (("active", active), ("control", control)):
            # Cost or recipe were chosen once, on all labels: the arms differ in their labels and in nothing else.
            one = fit(arm, members=0, chosen=fitted.chosen, **options)
            _save(one, _card(one, spec, model=spec["model"]), folder=model_dir / "arms" / name)
            metrics["arms"][name] = one.metrics
            _print_metrics(f"arm_{name}_", one.metrics)
    _write_json(model_dir / "metrics.json", metrics)
    for name, content in serving_files().items():
        path = model_dir / "code" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    print(f"train_seconds={time.monotonic() - started:.1f}", flush=True)


def run_for_people(arguments: argparse.Namespace) -> None:
    """Train on files, print the figures on other files, and leave a model package."""
    started = time.monotonic()
    kind, task = arguments.kind, arguments.task
    seed = 0 if arguments.seed is None else arguments.seed
    examples = _read(arguments, arguments.train, part="train")
    test = None if arguments.test is None else _read(arguments, arguments.test, part="test")
    if arguments.holdout is not None:
        examples, test = _divided(examples, share=arguments.holdout, seed=seed)
    classes = [] if task == "regression" else sorted({str(example.label) for example in examples})
    print(f"train_n={len(examples)} classes={len(classes)} kind={kind}", flush=True)
    if kind == "table" and len(classes) > max(_MANY_CLASSES, len(examples) // 2):
        raise ValueError(
            f"column {arguments.label or 'label'!r} has {len(classes)} different values in {len(examples)} rows; "
            "to predict a number add --task regression"
        )
    encoder, files = None, {}
    if arguments.encoder is not None:
        card, files = read_encoder(arguments.encoder)
        encoder = Encoder(card, files_reader(files))
        examples = _encoded(examples, encoder, known={})
    fitted = fit(
        examples,
        kind=kind,
        classes=classes,
        seed=seed,
        members=arguments.members,
        task=task,
        positive=arguments.positive,
        encoder=None if encoder is None else encoder.card,
    )
    _print_notes(fitted)
    _print_metrics("", fitted.metrics)
    model = f"local-{digest(fitted.graph)[:12]}"
    folder = arguments.model_dir
    _save(
        fitted, card_of(fitted, model=model, kind=kind, classes=classes, masker=UNMASKED, dataset=None), folder=folder
    )
    _write_files(folder, files)
    _write_json(folder / "metrics.json", {**fitted.metrics, "seed": seed})
    print(
        f"train_seconds={time.monotonic() - started:.1f} model_bytes={len(fitted.graph)} model_dir={folder}", flush=True
    )
    if test is not None:
        _print_test(OnnxModel.load(folder), test, positive=arguments.positive or _rarer(examples, classes))


def _read(arguments: argparse.Namespace, path: Path, *, part: str) -> list[Example]:
    if arguments.kind == "table":
        return read_rows(path, label=arguments.label or "label", task=arguments.task, say=print)
    return read_people(path, kind=arguments.kind, label=arguments.label, text=arguments.text, part=part)


def _divided(examples: list[Example], *, share: float, seed: int) -> tuple[list[Example], list[Example]]:
    """Examples to learn from, and a random share of them to be judged by."""
    order = np.random.default_rng(seed).permutation(len(examples))
    held_back = set(order[: round(share * len(examples))].tolist())
    if not 0 < len(held_back) < len(examples):
        raise ValueError(f"--holdout {share} of {len(examples)} examples leaves nothing to learn from or to judge by")
    parts: tuple[list[Example], list[Example]] = ([], [])
    for number, example in enumerate(examples):
        parts[number in held_back].append(example)
    return parts


def _rarer(examples: list[Example], classes: list[str]) -> str | None:
    """The rarer one of two classes, which average precision is about; the second one when they are as frequent."""
    if len(classes) != 2:
        return None
    first = sum(example.label == classes[0] for example in examples)
    return classes[0] if 2 * first < len(examples) else classes[1]


def _print_test(model: OnnxModel, examples: list[Example], *, positive: str | None) -> None:
    if model.card.task == "regression":
        predictions, speed = _predicted(model, examples)
        assert predictions.prediction is not None  # the task is regression
        numbers = evaluate_regression(predictions.prediction, [float(example.label) for example in examples])
        print(f"test_n={len(examples)} rows_per_s={speed:.0f}")
        print(f"test_mae={numbers.mae:.6g} test_rmse={numbers.rmse:.6g}")
        print("test_r2=undefined" if numbers.r2 is None else f"test_r2={numbers.r2:.4f}", flush=True)
        return
    place = {name: number for number, name in enumerate(model.card.classes)}
    known = [example for example in examples if example.label in place]
    if not known:
        raise ValueError("no test label is among the training labels; check --label and --test")
    predictions, speed = _predicted(model, known)
    labels = np.array([place[str(example.label)] for example in known])
    report = evaluate(predictions.probabilities, labels, classes=model.card.classes, positive=positive)
    # A record of a class that training never saw can only be wrong.
    accuracy = report.accuracy * len(known) / len(examples)
    print(f"test_n={len(examples)} test_unknown_class={len(examples) - len(known)} rows_per_s={speed:.0f}")
    if report.average_precision is not None:
        print(f"test_average_precision={report.average_precision:.4f} positive_class={positive}")
    print(f"test_macro_f1={report.macro_f1:.4f} test_log_loss={report.log_loss:.4f} test_ece={report.ece:.4f}")
    print(f"test_accuracy={accuracy:.4f}", flush=True)


def _predicted(model: OnnxModel, examples: list[Example]) -> tuple[Predictions, float]:
    """Predictions, and rows a second."""
    started = time.monotonic()
    predictions = model.predict([example.request for example in examples])
    return predictions, len(examples) / max(time.monotonic() - started, 1e-9)


def _encoder_of(spec: dict[str, Any]) -> tuple[Encoder | None, dict[str, bytes]]:
    """The encoder of channel `encoder` with its files, when the training was ordered with one."""
    if spec["encoder"] is None:
        return None, {}
    folder = Path(_environment("SM_CHANNEL_ENCODER"))
    card = EncoderCard.from_json(json.loads((folder / ENCODER_CARD).read_bytes()))
    if card.digest != spec["encoder"]:
        raise ValueError(f"channel encoder holds {card.digest}, the training was ordered with {spec['encoder']}")
    files = {name: (folder / name).read_bytes() for name in card.files}
    return Encoder(card, files_reader(files)), files


def _known_vectors(folder: Path) -> dict[str, Any]:
    """Vectors of labeled records that were encoded when they were scored, by id."""
    path = folder / "vectors.npz"
    if not path.is_file():
        return {}
    with np.load(path, allow_pickle=False) as arrays:
        return dict(zip(arrays["id"].tolist(), arrays["vectors"], strict=True))


def _encoded(examples: list[Example], encoder: Encoder, *, known: dict[str, Any]) -> list[Example]:
    """The examples with their vectors; those that are not known are encoded here."""
    started = time.monotonic()
    new = [example for example in examples if example.id not in known]
    vectors = {**known, **dict(zip([e.id for e in new], encoder.encode([e.payload for e in new]), strict=True))}
    print(
        f"encoder={encoder.card.digest} encoded_n={len(new)} encode_seconds={time.monotonic() - started:.1f}",
        flush=True,
    )
    return [replace(example, encoded=vectors[example.id]) for example in examples]


def _can_compare(*arms: list[Example], task: str) -> bool:
    return all(
        len(arm) >= _ARM_MINIMUM and (task == "regression" or len({example.label for example in arm}) > 1)
        for arm in arms
    )


def _read_spec(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise ValueError(f"channel spec holds no {path.name}; plan_training writes it")
    spec = json.loads(path.read_bytes())
    missing = [name for name in ("model", "kind", "classes", "masker", "dataset", "seed") if name not in spec]
    if missing or spec.get("format") != 1:
        raise ValueError(f"spec.json has format {spec.get('format')!r} (this code reads 1) and lacks {missing}")
    spec = {
        "members": 4,
        "task": "classification",
        "positive_class": None,
        "encoder": None,
        **spec,
        "columns": spec.get("columns") or {},
    }
    if (spec["kind"], spec["task"]) not in _TASKS:
        raise ValueError(
            f"spec.json asks for {spec['task']!r} of {spec['kind']!r}; text, image or table classification, or table "
            "regression only"
        )
    return spec


def _card(fitted: Fitted, spec: dict[str, Any], *, model: str) -> ModelCard:
    return card_of(
        fitted, model=model, kind=spec["kind"], classes=spec["classes"], masker=spec["masker"], dataset=spec["dataset"]
    )


def _save(fitted: Fitted, card: ModelCard, *, folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / MODEL_FILE).write_bytes(fitted.graph)
    (folder / CARD_FILE).write_bytes(card.to_bytes())


def _write_files(folder: Path, files: dict[str, bytes]) -> None:
    for name, content in files.items():
        (folder / name).write_bytes(content)


def _print_notes(fitted: Fitted) -> None:
    for note in fitted.notes:
        print(note, flush=True)


def _print_metrics(prefix: str, metrics: dict[str, Any]) -> None:
    """Lines `name=figure`, as a training job's metric definitions match them."""
    for name, value in metrics.items():
        if isinstance(value, int | float):
            print(f"{prefix}{name}={value}", flush=True)


def _write_json(path: Path, body: dict[str, Any]) -> None:
    path.write_text(json.dumps(body, ensure_ascii=False, indent=1, sort_keys=True) + "\n", encoding="utf-8")


def _write_failure(message: str) -> None:
    output = os.environ.get("SM_OUTPUT_DIR")
    if output is None and "SM_OUTPUT_DATA_DIR" in os.environ:
        output = str(Path(os.environ["SM_OUTPUT_DATA_DIR"]).parent)
    if output is not None:
        Path(output).mkdir(parents=True, exist_ok=True)
        # The toolkit keeps a file it finds and adds its own line behind.
        (Path(output) / "failure").write_text(message[: _FAILURE_LENGTH - 1] + "\n", encoding="utf-8")


def _environment(name: str) -> str:
    value = os.environ.get(name)
    if not value:
        raise ValueError(f"{name} is not set; outside of a training job give --train, --kind and --model-dir")
    return value


def _arguments(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--train", type=Path, help="training examples: .jsonl, .csv (or .gz), .parquet, .npz or a folder"
    )
    parser.add_argument("--test", type=Path, help="examples to judge the model on, in the same forms")
    parser.add_argument("--holdout", type=float, help="instead of --test: share of --train to judge the model on (0.3)")
    parser.add_argument("--kind", choices=("text", "image", "table"), help="what an example is")
    parser.add_argument(
        "--task", choices=("classification", "regression"), default="classification", help="what a table's label is"
    )
    parser.add_argument("--positive", help="of a table: the class whose average precision decides between models")
    parser.add_argument("--label", help="the field that holds the label (default: label)")
    parser.add_argument("--text", default="text", help="the field that holds the text (default: text)")
    parser.add_argument(
        "--encoder", type=Path, metavar="DIR", help="of texts or images: a folder with model.onnx (and tokenizer.json)"
    )
    parser.add_argument("--model-dir", type=Path, help="where the model package goes")
    parser.add_argument("--seed", type=int, help="the seed of everything random (default: 0, or spec.json's)")
    parser.add_argument("--members", type=int, default=4, help="members of the committee (default: 4)")
    arguments, other = parser.parse_known_args(argv)
    if arguments.train is not None and (other or arguments.kind is None or arguments.model_dir is None):
        parser.error(f"--train needs --kind and --model-dir{f', and {other[0]!r} is unknown' if other else ''}")
    if arguments.train is not None and arguments.kind != "table" and (arguments.task, arguments.positive) != (
        "classification", None,
    ):  # fmt: skip
        parser.error("--task regression and --positive need --kind table")
    if arguments.encoder is not None and arguments.kind == "table":
        parser.error("--encoder needs --kind text or image")
    if arguments.holdout is not None and arguments.test is not None:
        parser.error("give --test or --holdout, not both")
    return arguments


if __name__ == "__main__":
    sys.exit(main())
