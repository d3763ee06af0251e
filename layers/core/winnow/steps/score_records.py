"""Hop 2: the champion scores records: one pass gives uncertainty, disagreement and an embedding.

Candidates go to the queue before the score artifact is written: the artifact says that all of it is done, and a repeat
only sends candidates again, which selection counts once. When more arrives than selection should look at, only what the
arrivals of the last day admit goes there (`winnow.selection.admission`); everything is scored all the same.
"""

from __future__ import annotations

import base64
import gzip
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from winnow import layout
from winnow.acquisition import STRATEGIES, able, gives, score
from winnow.digests import digest
from winnow.errors import BadInput, NotFound
from winnow.loop import Acquisition, Loop
from winnow.metrics import Metric
from winnow.models.predictions import Predictions
from winnow.ports import JsonDict, Model, Ports
from winnow.records import SYNTHETIC, Record, from_jsonl
from winnow.selection.sketch import Scores
from winnow.steps import Outcome, vectors
from winnow.steps.arrivals import Arrivals, Lane, Mask
from winnow.steps.batches import reservations
from winnow.steps.candidates import Candidates, packed
from winnow.steps.groups import groups
from winnow.steps.pointers import Champion, champion
from winnow.steps.ranking import forwarded_by

ROWS_PER_MESSAGE = 250
MESSAGE_BYTES = 180_000
"""Of columns in one message, before they are compressed and written in base64: SQS takes 256 KB."""
GROUP_SHARE = 10
"""A group with a quota and a rare class have a tenth of `candidates_per_day` each, beside what the scores admit."""


@dataclass(frozen=True)
class ScoreRequest:
    """Record artifacts to score; `model` is given by a rescore and makes it end when a newer champion reigns."""

    keys: tuple[str, ...]
    model: str | None = None


def score_records(request: ScoreRequest, ports: Ports) -> Outcome:
    """Score every record of the given artifacts with the champion. A key that fails is named in `failed`."""
    crowned = champion(ports)[0]
    if request.model is not None and request.model != crowned.model:
        return Outcome({"model": request.model, "stale": True, "failed": {}})
    model = ports.models.load(crowned.model, classes=ports.loop.task.classes)
    superseded = {item["sk"] for item in ports.table.query("SUPERSEDED")}
    pools: list[Candidates] = []
    done: list[tuple[str, Candidates]] = []
    failed: dict[str, str] = {}
    doubts: list[float] = []
    skipped = 0
    for key in dict.fromkeys(request.keys):
        if layout.oid_of(key) in superseded:
            skipped += 1
            continue
        target = layout.scores(crowned.model, key)
        if ports.data.exists(target):
            skipped += 1
            continue
        try:
            records = [Record.from_json(body) for body in from_jsonl(gzip.decompress(ports.data.get(key)))]
            scored = _score(key, records, model, crowned.is_bootstrap, ports)
        except NotFound:
            skipped += 1  # superseded and cleaned up since the event was sent
            continue
        except (BadInput, OSError, EOFError, UnicodeDecodeError, zlib.error) as error:
            failed[key] = str(error)
            continue
        doubts += _doubts(scored)
        done.append((target, scored))
        pools.append(scored.take(np.array([record.origin != SYNTHETIC for record in records], dtype=np.bool_)))
    admissions = _forward(pools, crowned, ports, rescore=request.model is not None)
    for target, scored in done:
        ports.data.put(target, scored.to_bytes())
    places = [f"{layout.SCORES}{crowned.model}/"]
    if model.card.encoder is not None:
        places.append(f"{layout.EMBEDDINGS}{model.card.encoder.digest}/{layout.RECORDS}")
    _withdraw(places, superseded, [layout.oid_of(key) for key in request.keys], ports)
    metrics = [Metric("RecordsScored", sum(len(scored) for _, scored in done)), *admissions]
    if doubts:
        unsure = "PredictiveSpread" if ports.loop.task.type == "regression" else "PredictiveEntropy"
        metrics.append(Metric(unsure, float(np.mean(doubts))))
    return Outcome({"model": crowned.model, "scored": len(done), "skipped": skipped, "failed": failed}, tuple(metrics))


def _score(key: str, records: Sequence[Record], model: Model, bootstrap: bool, ports: Ports) -> Candidates:
    payloads = [_payload(record, ports) for record in records]
    embeddings = vectors.of_records(key, [record.id for record in records], payloads, model, ports)
    predictions = model.predict(payloads) if embeddings is None else model.predict(payloads, embeddings=embeddings)
    rng = np.random.default_rng(int(digest(key, length=12), 16))
    given = gives(predictions)
    # What compares records with one another is computed where all of them are seen: at selection.
    names = [name for name in able(given) if name != "random" and STRATEGIES[name].scope == "record"]
    for wanted in ports.loop.acquisition.strategies:
        if not bootstrap and wanted not in able({*given, "labeled"}):
            score(wanted, predictions, rng=rng, model=model.card.model)  # raises ConfigError with the remedy
    scores = {name: score(name, predictions, rng=rng, model=model.card.model) for name in names}
    return _columns(key, records, predictions, scores, carried=ports.loop.acquisition.reads & given)


def _doubts(scored: Candidates) -> list[float]:
    """How unsure the model is of each record: entropy in nats, or the spread of the committee in the target's unit."""
    if "entropy" in scored.scores:
        return [float(value) for value in scored.scores["entropy"]]
    return [float(value) ** 0.5 for value in scored.scores.get("variance", ())]


def _payload(record: Record, ports: Ports) -> JsonDict:
    """What the model sees; an image too large to travel inside its record is read from where it lies."""
    payload = record.payload()
    if record.image is not None and record.image.png is None:
        payload["image"]["png"] = base64.b64encode(ports.data.get(record.image.ref)).decode("ascii")
    return payload


def _columns(
    key: str,
    records: Sequence[Record],
    predictions: Predictions,
    scores: dict[str, np.ndarray[tuple[int], np.dtype[np.float32]]],
    *,
    carried: frozenset[str],
) -> Candidates:
    numbers = predictions.prediction
    if numbers is not None and not np.isfinite(numbers).all():
        raise BadInput("the model predicts numbers that are NaN or infinite; publish another", code="unusable-scores")
    return Candidates(
        id=np.array([record.id for record in records]),
        oid=np.array([record.oid for record in records]),
        cluster=np.array([record.cluster for record in records]),
        role=np.array([record.role for record in records]),
        records=np.full(len(records), key),
        key=np.array([record.key for record in records], dtype=np.float64),
        prediction=predictions.probabilities.argmax(axis=1).astype(np.int32) if numbers is None else numbers,
        confidence=(
            predictions.probabilities.max(axis=1).astype(np.float32)
            if numbers is None
            else np.full(len(records), np.nan, dtype=np.float32)
        ),
        scores=scores,
        embedding=predictions.embedding.astype(np.float16),
        probabilities=predictions.probabilities.astype(np.float16) if "probabilities" in carried else None,
        members=_members(predictions) if "members" in carried else None,
        minutes=_minutes(records),
        slices=np.array([packed(record.slices) for record in records]) if any(r.slices for r in records) else None,
    )


def _members(predictions: Predictions) -> np.ndarray[tuple[int, ...], np.dtype[np.floating]] | None:
    """Probabilities of the members in float16, or their numbers as they are: those may be far beyond it."""
    members = predictions.members
    return members.astype(np.float16) if members is not None and predictions.prediction is None else members


def _minutes(records: Sequence[Record]) -> np.ndarray[tuple[int], np.dtype[np.float32]] | None:
    costs = [record.cost for record in records]
    if all(cost is None for cost in costs):
        return None
    return np.array([np.nan if cost is None else cost for cost in costs], dtype=np.float32)


def _forward(parts: Sequence[Candidates], crowned: Champion, ports: Ports, *, rescore: bool) -> tuple[Metric, ...]:
    """Send what selection may need of the artifacts just scored, and only as much as `candidates_per_day` has room for.

    What was asked before comes along whatever its score: coverage need not repeat it, and its label may be asked again. Only
    a rescore meets such records.
    """
    if not sum(len(part) for part in parts):
        return ()
    lanes = [] if crowned.is_bootstrap else _lanes(parts, ports.loop)
    arrivals = Arrivals(crowned.model, parts, lanes, ports, rescore=rescore)
    intake = arrivals.weigh()
    sent = {
        lane.name: [
            admitted & _best(worth, rows, lane.most)
            for admitted, worth, rows in zip(intake.admitted[lane.name], lane.scores, lane.rows, strict=True)
        ]
        for lane in lanes
    }
    asked = sorted(reservations(ports)) if rescore else []
    chosen = []
    for place, part in enumerate(parts):
        keep = _uniform(part, ports.loop.acquisition, intake.bounds) | np.isin(part.id, asked)
        for masks in sent.values():
            keep |= masks[place]
        chosen.append(part.take(keep))
    ports.queues.send("candidates", _messages(crowned.model, Candidates.concat(chosen)))
    return (*intake.metrics, *arrivals.note(sent))


def _lanes(parts: Sequence[Candidates], loop: Loop) -> list[Lane]:
    """What train records compete by: the scores of every strategy that may choose, which share the budget, and within every
    group with a quota and every rare class those of the first; selection never needs the others."""
    policy = loop.acquisition
    train = [part.role == "train" for part in parts]
    worth: dict[str, list[Scores]] = {}
    for strategy in policy.strategies:
        found = [forwarded_by(part, strategy, policy) for part in parts]
        known = [scores for scores in found if scores is not None]
        if len(known) == len(parts):
            worth[strategy] = known
    if not worth:
        return []
    share = max(policy.candidates_per_day // len(worth), loop.batches.size)
    lanes = [Lane(name, share, policy.candidates_per_object, scores, train) for name, scores in worth.items()]
    first, group_share = lanes[0].scores, max(policy.candidates_per_day // GROUP_SHARE, loop.batches.size)
    inside = [_groups(part, loop) for part in parts]
    for name in inside[0]:
        rows = [each & masks[name] for each, masks in zip(train, inside, strict=True)]
        lanes.append(Lane(name, group_share, loop.batches.size, first, rows))
    return lanes


def _groups(scored: Candidates, loop: Loop) -> dict[str, Mask]:
    """The rows of every group with a quota and every rare class."""
    found = {f"quota {name}": mask for name, mask in groups(scored, loop).items()}
    for name in loop.task.rare_classes:
        found[f"rare {name}"] = scored.prediction == loop.task.classes.index(name)
    return found


def _best(worth: Scores, rows: Mask, most: int) -> Mask:
    """Of an artifact's rows those with the best scores."""
    places = np.flatnonzero(rows)
    return _mask(len(rows), places[np.argsort(-worth[places], kind="stable")[:most]])


def _uniform(scored: Candidates, policy: Acquisition, bounds: Mapping[str, float]) -> Mask:
    """The lowest uniform keys of every role, whatever the scores say.

    The n lowest keys of the whole pool are among the n lowest of each artifact and below every bound, so uniform choices
    stay uniform.
    """
    keep = np.zeros(len(scored), dtype=bool)
    for role in ("train", "evaluation", "reward"):
        rows = np.flatnonzero((scored.role == role) & (scored.key < bounds.get(role, 1.0)))
        keep |= _mask(len(scored), rows[np.argsort(scored.key[rows], kind="stable")[: policy.uniform_per_object]])
    return keep


def _mask(size: int, rows: npt.NDArray[np.integer[Any]]) -> Mask:
    mask = np.zeros(size, dtype=bool)
    mask[rows] = True
    return mask


def _messages(model: str, rows: Candidates) -> list[JsonDict]:
    a_row = sum(column.nbytes for column in (*rows.columns().values(), *rows.scores.values())) / max(len(rows), 1)
    step = max(1, min(ROWS_PER_MESSAGE, int(MESSAGE_BYTES / max(a_row, 1.0))))
    return [
        {
            "model": model,
            "rows": len(part),
            "columns": base64.b64encode(part.to_bytes()).decode("ascii"),
        }
        for start in range(0, len(rows), step)
        for part in (rows.take(np.arange(start, min(start + step, len(rows)))),)
    ]


def _withdraw(places: Sequence[str], superseded: set[str], scored: Sequence[str], ports: Ports) -> None:
    """Remove the scores and vectors of superseded versions whose records passed through here, so that one set remains:
    the newest's."""
    if not superseded:
        return
    gone = {item["sk"] for item in ports.table.query("SUPERSEDED") if item["by"] in scored or item["sk"] in scored}
    stale = [key for place in places for oid in sorted(gone) for key in ports.data.list(f"{place}{oid}/")]
    if stale:
        ports.data.delete(stale)
