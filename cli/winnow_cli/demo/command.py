"""`winnow demo`: deploy, live through the rounds, and say what came of it."""

from __future__ import annotations

import argparse
import json
import os
import sys
import time as real_time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from winnow_cli.demo.loopfile import Encoder
from winnow_cli.demo.story import Happening, Story
from winnow_cli.errors import InvariantError, UsageError
from winnow_cli.labeled import LabeledData, digits, load

DIGITS_ROUNDS, OWN_ROUNDS = 7, 5
DIGITS = 1200
"""Of 1,640: enough for seven rounds and an evaluation set, and a demo that takes less than two minutes."""
LEAST_SAMPLES = 60
"""With fewer there is nothing left to select from once every role has its share."""


def run(given: argparse.Namespace) -> int:
    """The whole demo. Raises UsageError for what was asked wrongly, InvariantError when a promise was broken."""
    data = _data(given)
    _quiet_libraries()
    story = play(
        data, rounds=given.rounds or (OWN_ROUNDS if given.data else DIGITS_ROUNDS), batch=given.batch, seed=given.seed,
        poison=given.poison if given.poison is not None else given.data is None,
        skew=given.skew if given.skew is not None else given.data is None,
        tell=_silent if given.quiet else progress, encoder=None if given.encoder is None else _encoder(given.encoder, data),
    )  # fmt: skip
    from winnow_cli.demo.report import report
    from winnow_cli.demo.table import table

    given.report.parent.mkdir(parents=True, exist_ok=True)
    given.report.write_text(report(story), encoding="utf-8")
    print(json.dumps(story.to_json(), ensure_ascii=False) if given.json else table(story))
    print(f"report: {given.report.resolve().as_uri()}", file=sys.stderr if given.json else sys.stdout)
    if story.broken():
        raise InvariantError(f"{', '.join(story.broken())} did not hold:\n" + "\n".join(story.violations))
    return 0


def play(
    data: LabeledData, *, rounds: int, batch: int | None, seed: int, poison: bool, skew: bool,
    tell: Callable[[Happening], None], encoder: Encoder | None = None,
) -> Story:  # fmt: skip
    """Live through a demo on a cloud of its own; the story is read from the stack before the cloud is gone."""
    from winnow.aws import wiring
    from winnow_cli.demo import artifacts
    from winnow_cli.demo.loopfile import batch_size
    from winnow_cli.demo.scenario import Scenario, drills_for, parameters, template
    from winnow_local.cloud import LocalCloud

    started = real_time.monotonic()
    with LocalCloud(template(), parameters=parameters(rounds=rounds), seed=seed) as cloud:
        scenario = Scenario(
            cloud, data, rounds=rounds, batch=batch_size(data, asked=batch), seed=seed,
            drills=drills_for(rounds, poison=poison, skew=skew), tell=tell, encoder=encoder,
        )  # fmt: skip
        run = scenario.play()
        return artifacts.story(
            wiring.ports(), run, title=data.name, seed=seed, now=cloud.clock.time(),
            real_seconds=real_time.monotonic() - started,
        )  # fmt: skip


def progress(happening: Happening) -> None:
    """One line on standard error."""
    print(f"day {happening.day:5.2f}  {happening.text}", file=sys.stderr, flush=True)


def _silent(_: Happening) -> None:
    return


def _data(given: argparse.Namespace) -> LabeledData:
    if given.data is None:
        for option in ("label", "kind", "text", "task", "positive"):
            if getattr(given, option) is not None:
                raise UsageError(f"--{option} goes with --data: name the file or folder with your own data")
        return digits(rng=np.random.default_rng(given.seed), size=DIGITS)
    if given.label is None:
        raise UsageError(
            "--data needs --label: the field or labels.csv column with the class or number, or 'folder' for sub-folders"
        )
    data = load(
        given.data, label=given.label, kind=given.kind, text=given.text, task=given.task, positive=given.positive
    )
    if len(data.samples) < LEAST_SAMPLES:
        raise UsageError(
            f"--data {given.data}: {len(data.samples)} labeled records; at least {LEAST_SAMPLES} are needed"
        )
    if data.unlabeled:
        print(f"{data.unlabeled} records without a label are left out", file=sys.stderr)
    if data.kind == "table" and given.task is None:
        found = f"{len(data.classes)} classes" if data.classes else "numbers"
        print(f"the labels are {found}, so this is a {data.task} (--task says otherwise)", file=sys.stderr)
    return data


def _encoder(folder: Path, data: LabeledData) -> Encoder:
    """The encoder of `--encoder`. Raises UsageError for a folder that holds none, or one of something else."""
    from winnow.errors import BadModel
    from winnow.onnx.encoder_folder import read_encoder

    try:
        card, files = read_encoder(folder)
    except (BadModel, OSError) as error:
        raise UsageError(f"--encoder {folder}: {error}") from error
    if card.reads != data.kind:
        raise UsageError(f"--encoder {folder} reads {card.reads}; the records are of kind {data.kind}")
    return card, files


def _quiet_libraries() -> None:
    """Native libraries share two cores with the functions; idle threads of theirs only get in the way."""
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
        os.environ.setdefault(name, "1")
