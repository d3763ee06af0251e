"""`winnow import model`: a champion made elsewhere, checked here, uploaded, and crowned by the machine that crowns others."""

from __future__ import annotations

import argparse
import getpass
import gzip
import io
import json
import tarfile
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from winnow import layout
from winnow.aws import wiring
from winnow.errors import BadModel, NotFound, WinnowError
from winnow.loop import Loop
from winnow.models.package import ANY_MASKER, CARD_FILE, UNMASKED, ModelCard
from winnow.onnx.check import validate_package
from winnow.privacy.masking import MASKER_VERSION
from winnow_cli.errors import UsageError
from winnow_cli.stack import Stack, connect, explained

CHECK_SECONDS, CHECK_MEGABYTES = 120.0, 2048
LONGEST_NAME = 63
"""Characters of a name in SageMaker, the stack's name included."""

ATTEMPTS = 3
"""Executions an import gets, as reconcile gives a dataset."""

JsonDict = dict[str, Any]


def run(given: argparse.Namespace) -> int:
    """Check the package and that it fits the stack's task, upload it and start `improve`. Raises UsageError naming the field."""
    try:
        card = validate_package(given.folder, seconds=CHECK_SECONDS, megabytes=CHECK_MEGABYTES)
    except (BadModel, OSError) as error:
        raise UsageError(f"{given.folder}: {error}") from error
    stack = connect(given)
    try:
        with explained(f"stack {stack.settings.stack!r}"):
            loop = wiring.loop(stack.data)
            fits(card, loop, stack=stack.settings.stack)
            crowned = _champion(stack)
    except WinnowError as error:
        raise UsageError(f"{given.folder}: {error}") from error
    trained = crowned is not None and not crowned.startswith(layout.BOOTSTRAP)
    if trained and crowned != card.model and not given.replace:
        raise UsageError(f"{crowned} is the champion; to replace it say why: --replace REASON")
    told: JsonDict = {
        "model": card.model, "kind": card.kind, "classes": list(card.classes), "replaces": crowned, "execution": None,
        "note": None if card.masker not in (UNMASKED,) or not loop.privacy.mask else "it was trained on unmasked data",
    }  # fmt: skip
    if not given.dry_run:
        told["execution"] = _start(card, given, stack)
    print(json.dumps(told, indent=1, ensure_ascii=False) if given.json else _text(told))
    return 0


def fits(card: ModelCard, loop: Loop, *, stack: str) -> None:
    """Raises BadModel naming the field of model.json that is not what the loop asks for."""
    task = loop.task
    for name, found, wanted in (
        ("task", card.task, task.type),
        ("kind", card.kind, task.kind),
        ("classes", list(card.classes), list(task.classes)),
    ):
        if found != wanted:
            where = "task.type" if name == "task" else f"task.{name}"
            raise BadModel(
                f"{name} of model.json is {found!r}, {where} of loop.yaml is {wanted!r}; they must be the same"
            )
    masker = MASKER_VERSION if loop.privacy.mask else UNMASKED
    if card.masker not in (masker, UNMASKED, ANY_MASKER):
        raise BadModel(
            f"masker of model.json is {card.masker!r}, this version masks by {masker!r}; train again behind it"
        )
    if card.model.startswith(layout.BOOTSTRAP):
        raise BadModel(
            f"model of model.json is {card.model!r}; names with {layout.BOOTSTRAP!r} are of models that ship"
        )
    if len(stack) + 1 + len(card.model) > LONGEST_NAME:
        raise BadModel(
            f"model of model.json is {card.model!r}; with the stack's name it has more than {LONGEST_NAME} characters: "
            "choose a shorter one"
        )


def _champion(stack: Stack) -> str | None:
    try:
        return str(json.loads(stack.data.get(layout.CHAMPION))["model"])
    except NotFound:
        return None


def _start(card: ModelCard, given: argparse.Namespace, stack: Stack) -> str:
    data, settings = stack.data, stack.settings
    key = layout.training_artifact(settings.stack, card.model)
    body = archive(given.folder, card)
    with explained(f"model {card.model}"):
        if not data.put_new(key, body):
            raise UsageError(
                f"a model {card.model!r} was trained or imported here before; give yours another id (model in {CARD_FILE})"
            )
    dataset = f"{layout.IMPORTED_MODEL}{card.model}"
    request = {
        "dataset": dataset, "cause": "import", "by": given.by or getpass.getuser(),
        "at": datetime.now(UTC).isoformat(timespec="seconds"), "reason": given.replace, "masker": card.masker,
        "trained_on": card.dataset,
    }  # fmt: skip
    states = stack.client("stepfunctions")
    for name in (dataset, *(f"{dataset}-{number}" for number in range(1, ATTEMPTS + 1))):
        with explained(f"state machine {settings.state_machine('improve')}"):
            try:
                states.start_execution(
                    stateMachineArn=settings.state_machine("improve"), name=name, input=json.dumps(request)
                )
                return name
            except states.exceptions.ExecutionAlreadyExists:
                arn = settings.execution("improve", name)
                if states.describe_execution(executionArn=arn)["status"] == "RUNNING":
                    return name
    raise UsageError(
        f"model {card.model!r} was imported {ATTEMPTS + 1} times; see the executions of improve named {dataset}"
    )


def archive(folder: Path, card: ModelCard) -> bytes:
    """model.tar.gz as a training job leaves it: the package, and the code that serves it unless it brings its own.

    The same folder gives the same bytes.
    """
    files = {name: (folder / name).read_bytes() for name in (CARD_FILE, *card.files)}
    own = folder / "code"
    if own.is_dir():
        files |= {str(path.relative_to(folder)): path.read_bytes() for path in own.rglob("*") if path.is_file()}
    else:
        from winnow_training.source import serving_files

        files |= {f"code/{name}": content for name, content in serving_files().items()}
    out = io.BytesIO()
    with gzip.GzipFile(fileobj=out, mode="wb", mtime=0) as packed, tarfile.open(fileobj=packed, mode="w") as tar:
        for name, content in sorted(files.items()):
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return out.getvalue()


def _text(told: JsonDict) -> str:
    before = "there is no champion yet" if told["replaces"] is None else f"the champion is {told['replaces']}"
    answers = f"{len(told['classes'])} classes" if told["classes"] else "a number"
    lines = [f"{told['model']} is a good package: {told['kind']}, {answers}; {before}"]
    if told["note"]:
        lines.append(f"{told['note']}; the pool is masked, so it never saw words such as [EMAIL]")
    lines.append(
        "nothing was uploaded (--dry-run)" if told["execution"] is None
        else f"improve publishes and crowns it, then the pool is scored again: execution {told['execution']}"
    )  # fmt: skip
    return "\n".join(lines)
