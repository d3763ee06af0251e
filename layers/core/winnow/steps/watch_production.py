"""Hop 10: what the endpoint really served: how sure it was, how far traffic drifted, and the records back into the pool."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from winnow import layout
from winnow.errors import NotFound
from winnow.metrics import Metric
from winnow.models.drift import binned, psi
from winnow.ports import Ports
from winnow.privacy.masking import mask_row, mask_text
from winnow.records import to_jsonl
from winnow.steps import Outcome
from winnow.steps.captured import Refused, Served, served
from winnow.steps.documents import document

CHANCE_FOR_DRIFT = 0.1
"""The index is not reported while chance alone would make it this large, which by custom is where stable ends."""


def watch_production(request: Mapping[str, Any], ports: Ports) -> Outcome:
    """`{"key"}` of a data-capture file → counts by outcome.

    The requests go back into the pool through `production/<digest>.jsonl`, masked, each with its inference id; lines that
    cannot be read go to quarantine with their reason. A file that was read before changes nothing.
    """
    key = str(request["key"])
    name = layout.captured(key)
    found = list(served(ports.data.get(key), task=ports.loop.task))
    answers = [one for one in found if isinstance(one, Served)]
    refused = [one for one in found if isinstance(one, Refused)]
    if refused:
        rows = [
            {"key": key, "row": one.line, "reason": f"{one.problem.code}: {one.problem}"} for one in refused
        ]  # fmt: skip
        ports.data.put(layout.quarantine(name), to_jsonl(rows))
    repeated = bool(answers) and ports.data.exists(layout.production(name))
    if answers and not repeated:
        ports.data.put(layout.production(name), to_jsonl([_row(one, mask=ports.loop.privacy.mask) for one in answers]))
    body = {"key": key, "served": len(answers), "refused": len(refused), "repeated": repeated}
    return Outcome(body, () if repeated else _metrics(answers, ports))


def _row(one: Served, *, mask: bool) -> dict[str, Any]:
    payload = dict(one.payload)
    if mask and "text" in payload:
        payload["text"] = mask_text(payload["text"])[0]
    if mask and "row" in payload:
        payload["row"] = mask_row(payload["row"])[0]
    return {"id": one.id, **payload, **({"captured_at": one.at} if one.at else {})}


def _metrics(answers: Sequence[Served], ports: Ports) -> tuple[Metric, ...]:
    by_model: dict[str, list[Served]] = defaultdict(list)
    for one in answers:
        by_model[one.model].append(one)
    metrics = [Metric("ServedRecords", len(answers))]
    for model, group in sorted(by_model.items()):
        metrics.append(_typical(model, group))
        counts = _counts(model, [one.label for one in group], ports)
        if counts is not None and _by_chance(len(group), int(counts[0].sum()), len(counts[0])) <= CHANCE_FOR_DRIFT:
            metrics.append(Metric("PredictionDrift", psi(*counts)))
    return tuple(metrics)


def _typical(model: str, group: Sequence[Served]) -> Metric:
    """How sure the model was on average; of numbers, which come without confidence, what it predicted on average."""
    confidences = [one.confidence for one in group if one.confidence is not None]
    if confidences:
        return Metric("ServedConfidence", 100.0 * float(np.mean(confidences)), {"Model": model})
    return Metric("ServedPrediction", float(np.mean([float(one.label) for one in group])), {"Model": model})


def _by_chance(served: int, expected: int, classes: int) -> float:
    """Mean of the index between two samples of the same distribution.

    >>> round(_by_chance(100, 300, 4), 3)
    0.04
    """
    return (classes - 1) * (1 / max(1, served) + 1 / max(1, expected))


Counts = np.ndarray[Any, np.dtype[np.int64]]


def _counts(model: str, answers: Sequence[str | float], ports: Ports) -> tuple[Counts, Counts] | None:
    """How often the model predicted each class, or a number in each of its bins of equal mass: on the evaluation set, a
    uniform sample of the pool, and here. None if the gate never looked at the model."""
    try:
        figures = document(ports.data, layout.gate_report(model))["challenger"]
    except NotFound:
        return None
    if figures is None:
        return None
    if ports.loop.task.type == "regression":
        return np.asarray(figures["bins"]["counts"], dtype=np.int64), binned(answers, figures["bins"]["edges"])
    order = ports.loop.task.classes
    observed = np.bincount([order.index(str(answer)) for answer in answers], minlength=len(order))
    return np.asarray(figures["confusion"], dtype=np.int64).sum(axis=0), observed.astype(np.int64)
