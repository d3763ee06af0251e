"""`winnow export`: the pool, the labels or a dataset version, out of the stack's own artifacts, in their masked form.

A row has the payload under its name (`text`, `image`, the columns of a table), what the user said of it, its `label`,
and under `winnow` what the loop knows. `winnow import labels` restores a label from that in another stack.
"""

from __future__ import annotations

import argparse
import base64
import gzip
import json
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from winnow import layout
from winnow.aws import wiring
from winnow.errors import NotFound, WinnowError
from winnow.ports import Ports
from winnow.records import Label, Record, from_jsonl
from winnow.steps import pointers
from winnow.steps.accounting import fetch
from winnow.steps.candidates import Candidates
from winnow.steps.dataset_versions import ROLES, lines
from winnow.steps.import_labels import salt_digest
from winnow_cli.errors import UsageError
from winnow_cli.export_formats import FILES, Shape, columns_of, write_hf
from winnow_cli.progress import counted
from winnow_cli.stack import connect, explained

JsonDict = dict[str, Any]
Rows = Callable[[], Iterator[JsonDict]]
"""Rows, from the first one at every call."""

_LABEL = (
    "batch", "arm", "strategy", "score", "rank", "model", "job", "guideline", "labeled_at", "confidence", "answers", "source",
)  # fmt: skip


def run(given: argparse.Namespace) -> int:
    """Write what was asked for, complete or not at all. Raises UsageError for an OUT that exists, and an unknown version."""
    if given.out.exists():
        raise UsageError(f"{given.out} exists; remove it or name another")
    if given.dataset is not None and given.what != "datasets":
        raise UsageError(f"--dataset belongs to `winnow export datasets`, not to {given.what}")
    stack = connect(given)
    os.environ.update(stack.environment())
    scratch = given.out.with_name(f".part-{given.out.name}")
    with explained(f"stack {given.stack!r}"):
        try:
            told = export(
                given.what, wiring.ports(), scratch, form=given.format, version=given.dataset, safe=given.excel_safe
            )
            scratch.rename(given.out)
        except WinnowError as error:
            raise UsageError(f"stack {given.stack!r}: {error}") from error
        except OSError as error:
            raise UsageError(f"{given.out} cannot be written: {error}; name another place") from error
        finally:
            _remove(scratch)
    told["out"] = str(given.out)
    print(json.dumps(told, indent=1) if given.json else _text(told))
    return 0


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _text(told: JsonDict) -> str:
    counts = ", ".join(f"{count} {name}" for name, count in told["rows"].items())
    text = (
        f"{counts or 'no rows'}{' of dataset ' + told['dataset'] if told['dataset'] else ''} written to {told['out']}"
    )
    if told["look_like_numbers"]:
        text += (
            f"\n{told['look_like_numbers']} texts are spelled like numbers or missing values, and will be read as such; "
            "jsonl and parquet keep them"
        )
    return text


def export(
    what: str, ports: Ports, out: Path, *, form: str, version: str | None = None, safe: bool = False
) -> JsonDict:
    """Write `what` as `form` to `out` (a file; a folder for datasets and hf) and tell the number of rows by part."""
    parts: dict[str, Rows]
    if what == "pool":
        parts = {"pool": lambda: _pool(ports)}
    else:
        version = version or pointers.head(ports.data)[0]
        if version is None:
            raise UsageError("there is no dataset version yet; a labeled batch or winnow import labels makes the first")
        rows = _labeled(version, ports)
        parts = {"labels": lambda: iter(rows)} if what == "labels" else _by_role(rows)
    task = ports.loop.task
    columns = columns_of(row["row"] for rows in parts.values() for row in rows()) if task.kind == "table" else {}
    shape = Shape(task.kind, task.type, task.classes, columns, safe=safe)
    counts: dict[str, int] = dict.fromkeys(parts, 0)

    def counting(name: str) -> Iterator[JsonDict]:
        for row in counted(parts[name](), name):
            counts[name] += 1
            yield row

    out.parent.mkdir(parents=True, exist_ok=True)
    if form == "hf":
        write_hf(out, {name if what == "datasets" else "train": counting(name) for name in parts}, shape)
    elif what == "datasets":
        out.mkdir()
        suffix, write = FILES[form]
        for name in parts:
            write(out / f"{name}{suffix}", counting(name), shape)
        (out / "dataset.json").write_bytes(ports.data.get(layout.dataset(str(version))))
    else:
        FILES[form][1](out, counting(next(iter(parts))), shape)
    told: JsonDict = {"what": what, "format": form, "dataset": version, "rows": counts}
    return {**told, "look_like_numbers": shape.look_like_numbers if form == "csv" else 0}


def _by_role(rows: list[JsonDict]) -> dict[str, Rows]:
    """A part a role that has rows."""
    found = {role: [row for row in rows if row["winnow"]["role"] == role] for role in ROLES}
    return {role: (lambda part=part: iter(part)) for role, part in found.items() if part}


def _living(ports: Ports) -> Iterator[tuple[str, list[Record]]]:
    """The records artifacts of objects that were not superseded, each with its records."""
    superseded = {item["sk"] for item in ports.table.query("SUPERSEDED")}
    keys = (key for key in ports.data.list(layout.RECORDS) if layout.oid_of(key) not in superseded)
    for key, body in fetch(keys, ports):
        yield key, [Record.from_json(row) for row in from_jsonl(gzip.decompress(body))]


def _pool(ports: Ports) -> Iterator[JsonDict]:
    champion, _ = pointers.champion(ports)
    seen: set[str] = set()
    for key, records in _living(ports):
        views = _views(champion.model, key, ports)
        for record in records:
            if record.id not in seen:
                seen.add(record.id)
                known = {"id": record.id, "cluster": record.cluster, "role": record.role, "key": record.key}
                view = views.get(record.id, {})
                label = {} if record.label is None else {"label": record.label}
                yield {
                    **_said(record),
                    **_payload(record, ports),
                    **label,
                    "winnow": {**known, **view, "origin": record.origin},
                }


def _views(model: str, key: str, ports: Ports) -> dict[str, JsonDict]:
    """What the champion thinks of the records of an artifact, by id; nothing while it has not scored them."""
    try:
        rows = Candidates.from_bytes(ports.data.get(layout.scores(model, key)))
    except NotFound:
        return {}
    task = ports.loop.task
    known = not model.startswith(layout.BOOTSTRAP)
    views = {}
    for place, identity in enumerate(rows.id.tolist()):
        view: JsonDict = {name: round(float(values[place]), 6) for name, values in rows.scores.items()}
        view = {"champion": model, "scores": view}
        if known and task.type == "regression":
            view["prediction"] = float(rows.prediction[place])
        elif known:
            view["prediction"] = task.classes[int(rows.prediction[place])]
            view["confidence"] = round(float(rows.confidence[place]), 6)
        views[identity] = view
    return views


def _said(record: Record) -> JsonDict:
    """What the user said of a record."""
    said = {"id": record.external_id, "subject": record.subject, "cost": record.cost, "captured_at": record.captured_at}
    found: JsonDict = {name: value for name, value in said.items() if value is not None}
    return {**found, "slices": dict(record.slices)} if record.slices else found


def _payload(record: Record, ports: Ports) -> JsonDict:
    if record.image is None:
        return record.payload()
    png = record.image.png or ports.data.get(record.image.ref)
    return {"image": base64.b64encode(png).decode("ascii")}


def _labeled(version: str, ports: Ports) -> list[JsonDict]:
    """The rows of a dataset version, each with where its label comes from."""
    try:
        batches = json.loads(ports.data.get(layout.dataset(version)))["batches"]
    except NotFound as error:
        raise UsageError(f"there is no dataset {version}; winnow status names the newest") from error
    entries = lines(version, ports)
    said = _said_of({entry["id"] for entry in entries}, ports)
    labels = _labels({batches[entry["batch"] - 1] for entry in entries}, ports)
    salt = salt_digest(ports.loop.privacy.salt)
    rows = []
    for entry in entries:
        identity = entry["id"]
        label = labels[batches[entry["batch"] - 1], identity]
        payload = {name: entry[name] for name in ("text", "row") if name in entry}
        if "image" in entry:
            payload["image"] = entry["image"]["png"]
        known = {
            "id": identity,
            "cluster": entry["cluster"],
            "role": entry["role"],
            "number": entry["batch"],
            "salt": salt,
        }
        # Of a label that was asked again the dataset keeps the arm that chose its record.
        told = {name: value for name, value in label.to_json().items() if name in _LABEL} | {"arm": entry["arm"]}
        rows.append({**said.get(identity, {}), **payload, "label": entry["label"], "winnow": {**known, **told}})
    return rows


def _said_of(wanted: set[str], ports: Ports) -> dict[str, JsonDict]:
    found: dict[str, JsonDict] = {}
    for _, records in _living(ports):
        found |= {record.id: _said(record) for record in records if record.id in wanted}
    return found


def _labels(batches: set[str], ports: Ports) -> Mapping[tuple[str, str], Label]:
    """Batch and content → label."""
    found = {}
    for batch, (_, body) in zip(
        sorted(batches), fetch((layout.labels(one) for one in sorted(batches)), ports), strict=True
    ):
        for line in from_jsonl(body):
            found[batch, line["id"]] = Label.from_json(line)
    return found
