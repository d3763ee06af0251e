"""From records to what the loop's models see of them, once for all that is done with them."""

from __future__ import annotations

import argparse
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

from winnow_cli.errors import UsageError
from winnow_cli.simulate.records import Records
from winnow_cli.simulate.runner import one_thread
from winnow_cli.simulate.vectors import encoded, open_encoder


def problem_of(records: Records, encoder: Path | None, *, cache: Path, jobs: int) -> tuple[Any, str]:
    """The records as the loop's models see them, and a digest of everything that went in.

    Raises UsageError for an encoder that does not read them.
    """
    from winnow_cli.simulate import learner

    payloads, whole = records.digests()
    classes, labels = records.data.classes, records.labels
    if encoder is not None:
        if records.kind == "table":
            raise UsageError("--encoder is for texts and images; the records are rows of a table")
        opened = open_encoder(encoder, kind=records.kind, threads=jobs)
        vectors = encoded(records.payloads, opened, digest=payloads, cache=cache)
        made = learner.of_vectors(vectors, labels, classes=classes)
        whole = f"{whole}-{opened.card.digest}"
    else:
        # One thread, whatever the machine: sums in another order would be other features.
        with one_thread():
            if records.kind == "table":
                made = learner.of_rows([dict(row) for row in records.payloads], labels, classes=classes)
            elif records.kind == "text":
                made = learner.of_texts(records.payloads, labels, classes=classes)
            else:
                made = learner.of_images(records.payloads, labels, classes=classes)
    return replace(made, positive=records.positive, copies=records.contents()), whole


def cache_folder(asked: Path | None) -> Path:
    """Where vectors and finished trials are kept: as asked, or the user's cache folder."""
    return asked or Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "winnow"


def jobs_of(given: argparse.Namespace) -> int:
    """Processes to use: as asked, or one a core."""
    if given.jobs is not None:
        return int(given.jobs)
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
