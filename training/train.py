"""Trains the next model: run by SageMaker's container as a job, or by a person from a shell.

A job finds its channels and folders in `SM_*` variables (script mode). A person says where things are:

    python training/train.py --kind text --train train.jsonl.gz --test test.jsonl.gz --model-dir out
    python training/train.py --kind image --train photos/train --test photos/test --model-dir out
    python training/train.py --kind image --train images.npz --test images.npz --model-dir out
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from pathlib import Path
from typing import Any

import vendored

_CHECKOUT = Path(__file__).resolve().parent.parent / "layers" / "core"
if _CHECKOUT.is_dir():
    sys.path.insert(0, str(_CHECKOUT))
vendored.provide()

import numpy as np  # noqa: E402
from examples import Example, read_channel, read_people  # noqa: E402
from fit import Fitted, card_of, equal_arms, fit  # noqa: E402
from source import serving_files  # noqa: E402

from winnow.errors import WinnowError  # noqa: E402
from winnow.models.evaluation import evaluate  # noqa: E402
from winnow.models.package import CARD_FILE, MODEL_FILE, UNMASKED, ModelCard, digest  # noqa: E402
from winnow.onnx.runtime import OnnxModel  # noqa: E402

_FAILURE_LENGTH = 1024
_ARM_MINIMUM = 4


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
    """One training job: channels `train` and `spec` in, the model folder out."""
    started = time.monotonic()
    spec = _read_spec(Path(_environment("SM_CHANNEL_SPEC")) / "spec.json")
    model_dir = Path(_environment("SM_MODEL_DIR"))
    seed = int(spec["seed"]) if seed is None else seed
    examples = read_channel(Path(_environment("SM_CHANNEL_TRAIN")), kind=spec["kind"])
    print(f"train_n={len(examples)} classes={len(spec['classes'])} kind={spec['kind']} seed={seed}", flush=True)
    options = {"kind": spec["kind"], "classes": spec["classes"], "seed": seed}
    fitted = fit(examples, members=int(spec["members"]), **options)
    _save(fitted, _card(fitted, spec, model=spec["model"]), folder=model_dir)
    metrics: dict[str, Any] = {**fitted.metrics, "dataset": spec["dataset"], "seed": seed}
    _print_metrics("", fitted.metrics)
    active, control = equal_arms(examples)
    if _can_compare(active, control):
        metrics["arms"] = {}
        for name, arm in (("active", active), ("control", control)):
            # The cost was chosen once, on all labels: the arms differ in their labels and in nothing else.
            one = fit(arm, members=0, cost=fitted.cost, **options)
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
    kind = arguments.kind
    options = {"kind": kind, "label": arguments.label, "text": arguments.text}
    examples = read_people(arguments.train, part="train", **options)
    classes = sorted({example.label for example in examples})
    print(f"train_n={len(examples)} classes={len(classes)} kind={kind}", flush=True)
    seed = 0 if arguments.seed is None else arguments.seed
    fitted = fit(examples, kind=kind, classes=classes, seed=seed, members=arguments.members)
    _print_metrics("", fitted.metrics)
    model = f"local-{digest(fitted.graph)[:12]}"
    folder = arguments.model_dir
    _save(
        fitted, card_of(fitted, model=model, kind=kind, classes=classes, masker=UNMASKED, dataset=None), folder=folder
    )
    _write_json(folder / "metrics.json", {**fitted.metrics, "seed": seed})
    print(
        f"train_seconds={time.monotonic() - started:.1f} model_bytes={len(fitted.graph)} model_dir={folder}", flush=True
    )
    if arguments.test is not None:
        _print_test(OnnxModel.load(folder), read_people(arguments.test, part="test", **options))


def _print_test(model: OnnxModel, examples: list[Example]) -> None:
    place = {name: number for number, name in enumerate(model.card.classes)}
    known = [example for example in examples if example.label in place]
    if not known:
        raise ValueError("no test label is among the training labels; check --label and --test")
    started = time.monotonic()
    predictions = model.predict([example.payload for example in known])
    seconds = time.monotonic() - started
    labels = np.array([place[example.label] for example in known])
    report = evaluate(predictions.probabilities, labels, classes=model.card.classes)
    # A record of a class that training never saw can only be wrong.
    accuracy = report.accuracy * len(known) / len(examples)
    print(
        f"test_n={len(examples)} test_unknown_class={len(examples) - len(known)} rows_per_s={len(known) / seconds:.0f}"
    )
    print(f"test_macro_f1={report.macro_f1:.4f} test_log_loss={report.log_loss:.4f} test_ece={report.ece:.4f}")
    print(f"test_accuracy={accuracy:.4f}", flush=True)


def _can_compare(*arms: list[Example]) -> bool:
    return all(len(arm) >= _ARM_MINIMUM and len({example.label for example in arm}) > 1 for arm in arms)


def _read_spec(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise ValueError(f"channel spec holds no {path.name}; plan_training writes it")
    spec = json.loads(path.read_bytes())
    missing = [name for name in ("model", "kind", "classes", "masker", "dataset", "seed") if name not in spec]
    if missing or spec.get("format") != 1:
        raise ValueError(f"spec.json has format {spec.get('format')!r} (this code reads 1) and lacks {missing}")
    if spec.get("task", "classification") != "classification" or spec["kind"] not in ("text", "image"):
        raise ValueError(
            f"spec.json asks for {spec.get('task')!r} of {spec['kind']!r}; text or image classification only"
        )
    return {"members": 4, **spec}


def _card(fitted: Fitted, spec: dict[str, Any], *, model: str) -> ModelCard:
    return card_of(
        fitted, model=model, kind=spec["kind"], classes=spec["classes"], masker=spec["masker"], dataset=spec["dataset"]
    )


def _save(fitted: Fitted, card: ModelCard, *, folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / MODEL_FILE).write_bytes(fitted.graph)
    (folder / CARD_FILE).write_bytes(card.to_bytes())


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
    parser.add_argument("--train", type=Path, help="training examples: .jsonl, .jsonl.gz, .npz or a folder")
    parser.add_argument("--test", type=Path, help="examples to judge the model on, in the same forms")
    parser.add_argument("--kind", choices=("text", "image"), help="what an example is")
    parser.add_argument("--label", help="the field that holds the label (default: label)")
    parser.add_argument("--text", default="text", help="the field that holds the text (default: text)")
    parser.add_argument("--model-dir", type=Path, help="where the model package goes")
    parser.add_argument("--seed", type=int, help="the seed of everything random (default: 0, or spec.json's)")
    parser.add_argument("--members", type=int, default=4, help="members of the committee (default: 4)")
    arguments, other = parser.parse_known_args(argv)
    if arguments.train is not None and (other or arguments.kind is None or arguments.model_dir is None):
        parser.error(f"--train needs --kind and --model-dir{f', and {other[0]!r} is unknown' if other else ''}")
    return arguments


if __name__ == "__main__":
    sys.exit(main())
