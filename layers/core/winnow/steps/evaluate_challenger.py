"""Scores challenger and champion on the same held-out records and lets the gate decide. An answer once given stands."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from winnow import layout
from winnow.datasets.versions import evaluation_identity
from winnow.digests import digest
from winnow.errors import Retryable
from winnow.labels.numbers import agree
from winnow.loop import Loop
from winnow.metrics import Metric
from winnow.models.drift import binned, quantile_edges
from winnow.models.evaluation import confusion, evaluate, evaluate_regression
from winnow.models.gate import GatePolicy, Scores, Verdict, decide, estimate, wilson
from winnow.models.predictions import Predictions
from winnow.ports import JsonDict, Model, Ports
from winnow.steps import Outcome, labeled, pointers, rewards, vectors
from winnow.steps.documents import document
from winnow.steps.labeled import Dataset

ROWS_A_PASS = 256
"""Records a model sees at once: bounds the memory of large images."""

ARMS = ("active", "control")

Floats = npt.NDArray[np.float64]


def evaluate_challenger(request: Mapping[str, Any], ports: Ports) -> Outcome:
    """`{"model", "dataset"}` → `{"model", "dataset", "verdict"}`; everything it rests on is in `reports/<model>/gate.json`.

    A report that exists is the answer, whatever the champion is by now: looking again at the same evaluation set until it
    says yes is what the gate's error budget is there to prevent (I6). Raises ConfigError when the evaluation part is not
    the one that was committed, NotFound or BadModel when a model cannot be loaded; nothing is promoted then.
    """
    model, version = str(request["model"]), str(request["dataset"])
    key = layout.gate_report(model)
    if not ports.data.exists(key):
        report = _judge(model, version, ports)
        ports.data.put_new(key, json.dumps(report, indent=1, ensure_ascii=False, allow_nan=False).encode())
    report = document(ports.data, key)
    known = _Known(version, ports)

    def look(name: str, lines: Sequence[Mapping[str, Any]], truth: Sequence[Any], identity: str) -> Scores:
        return _scores(ports.models.load(name, classes=ports.loop.task.classes), lines, truth, identity, known)

    rewards.measure(model, version, report, look=look, policy=_policy(ports.loop, bootstrap=False), ports=ports)
    answer = {"model": model, "dataset": version, "verdict": report["verdict"]}
    return Outcome(answer, (*_metrics(report), *rewards.figures(ports)))


def _judge(model: str, version: str, ports: Ports) -> JsonDict:
    imported = _import(model, version, ports)
    dataset = _judged_on(version, ports)
    lines = labeled.part(ports.data, dataset, "evaluation")
    truth = [labeled.truth(line, dataset) for line in lines]
    identity = evaluation_identity({str(line["id"]): label for line, label in zip(lines, truth, strict=True)})
    crowned, _ = pointers.champion(ports)
    policy = _policy(ports.loop, bootstrap=crowned.is_bootstrap)
    rng = np.random.default_rng(int(digest({"model": model, "dataset": version}, length=16), 16))
    known = _Known(dataset.version, ports)
    new = _scores(ports.models.load(model), lines, truth, identity, known)
    old = _scores(ports.models.load(crowned.model, classes=dataset.classes), lines, truth, identity, known)
    if crowned.is_bootstrap and dataset.is_regression:
        old = replace(old, prediction=_mean_of_train(dataset, ports, len(lines)))
    # With fewer records than the policy asks for nothing can be promoted, so no look at the evaluation set is spent.
    spent = imported is None and len(lines) >= ports.loop.gate.min_records
    look = _look(model, version, ports) if spent else 0
    verdict = decide(policy, old, new, look=max(look, 1), rng=rng)
    return {
        "format": 1,
        "model": model,
        "champion": crowned.model,
        "dataset": version,
        "verdict": verdict.decision if imported is None else "promote",
        "reasons": [*([] if imported is None else [imported]), *_reasons(verdict)],
        "look": look,
        "alpha": verdict.alpha,
        "metric": verdict.metric,
        "difference": _difference(verdict),
        "challenger": _figures(new, policy, dataset, ports.loop, rng),
        "champion_metrics": _figures(old, policy, dataset, ports.loop, rng),
        "arms": _arms(model, lines, new, known, policy, dataset, ports, rng),
        "evaluation": {"records": len(lines), "digest": identity},
        "entropy": {"before": _entropy(old), "after": _entropy(new)},
        "created_at": ports.clock.now().isoformat(),
        **({} if imported is None else {"imported": True, "gate_would_say": verdict.decision}),
    }


def _import(model: str, version: str, ports: Ports) -> JsonDict | None:
    """Why a model that was imported becomes champion: a person said so, whatever the gate would say."""
    if layout.imported_model(version) is None:
        return None
    told = document(ports.data, layout.training_spec(model))["imported"]
    message = f"imported by {told['by']} at {told['at']}: {told['reason'] or 'no champion was trained yet'}"
    return {"code": "imported", "message": message, "weight": "supports", "value": None, "threshold": None}


def _judged_on(version: str, ports: Ports) -> Dataset:
    """The version a model is judged on: its own, or for an imported model the newest (an empty one before the first)."""
    if layout.imported_model(version) is None:
        return labeled.load(ports.data, version)
    newest, _ = pointers.head(ports.data)
    if newest is not None:
        return labeled.load(ports.data, newest)
    task = ports.loop.task
    return Dataset(version, None, task.kind, task.classes, files={}, counts={}, by_class={}, task=task.type)


def _policy(loop: Loop, *, bootstrap: bool) -> GatePolicy:
    """The team's policy. The bootstrap model knows nothing: it names one class for everything and is perfectly calibrated
    at that, so there is no recall and no calibration to hold on to, only the metric to gain."""
    gate = loop.gate
    return GatePolicy(
        metric=loop.metric, positive_class=loop.task.positive_class,
        alpha=gate.alpha, planned_looks=gate.planned_looks, min_records=gate.min_records, min_gain=gate.min_gain,
        class_floor=1.0 if bootstrap else gate.class_floor,
        max_ece_increase=1.0 if bootstrap else gate.max_ece_increase,
    )  # fmt: skip


def _mean_of_train(dataset: Dataset, ports: Ports, n: int) -> Floats:
    """(n,) what is predicted without any model: the mean of the train labels.

    The bootstrap model's zeros are no opinion, and hardly anything is worse than they are. The first champion has to beat
    what everybody has who looks at the labels alone.
    """
    labels = [float(labeled.truth(line, dataset)) for line in labeled.part(ports.data, dataset, "train")]
    return np.full(n, np.mean(labels) if labels else 0.0)


def _look(model: str, version: str, ports: Ports) -> int:
    """This model's look number, for ever: the first free one, claimed before the result is known."""
    taken = ports.table.query("LOOK")
    for item in taken:
        if item["model"] == model:
            return int(item["number"])
    for number in range(len(taken) + 1, len(taken) + 50):
        claim = {"model": model, "number": number, "dataset": version, "at": ports.clock.now().isoformat()}
        present = ports.table.put_new("LOOK", f"{number:06d}", claim)
        if present is None or present["model"] == model:
            return number
    raise Retryable(f"no look number was free for {model}; evaluate again")


class _Known:
    """Vectors of the evaluation records by encoder: an encoder works once, however many models stand on it."""

    def __init__(self, dataset: str, ports: Ports) -> None:
        self._dataset, self._ports = dataset, ports
        self._vectors: dict[str, vectors.Known] = {}

    def of(self, encoder: str) -> vectors.Known:
        if encoder not in self._vectors:
            self._vectors[encoder] = vectors.kept(encoder, self._dataset, self._ports)
        return self._vectors[encoder]


def _scores(
    model: Model, lines: Sequence[Mapping[str, Any]], truth: Sequence[Any], identity: str, known: _Known
) -> Scores:
    """What a model says about the lines, in their order."""
    passes = [
        _predicted(model, lines[start : start + ROWS_A_PASS], known) for start in range(0, len(lines), ROWS_A_PASS)
    ]
    classes = model.card.classes
    return Scores(
        model.card.model, identity, truth, classes,
        probabilities=_joined([one.probabilities for one in passes], np.zeros((0, len(classes)))),
        prediction=_numbers(passes, regression=not classes),
    )  # fmt: skip


def _numbers(passes: Sequence[Predictions], *, regression: bool) -> Floats | None:
    """(n,) predicted numbers; None from a model that does not give one for each record, which the gate refuses."""
    found = [one.prediction for one in passes if one.prediction is not None]
    return _joined(found, np.zeros(0)) if regression and len(found) == len(passes) else None


def _joined(parts: Sequence[npt.NDArray[Any]], empty: Floats) -> Floats:
    return np.concatenate(parts).astype(np.float64) if parts else empty


def _figures(
    scores: Scores, policy: GatePolicy, dataset: Dataset, loop: Loop, rng: np.random.Generator
) -> JsonDict | None:
    """The figures of one model; None when they cannot be computed.

    `value`, `low` and `high` are of the gate's `metric`. `correct` is the share of records that are right, as served
    predictions are judged: the true class, or a number within the task's tolerance.
    """
    outputs = scores.probabilities if scores.prediction is None else scores.prediction
    if not scores.truth or not np.isfinite(outputs).all() or (dataset.is_regression and scores.prediction is None):
        return None
    of_kind = _of_numbers(scores, loop) if dataset.is_regression else _of_classes(scores, dataset, policy)
    found = estimate(policy, scores, rng=rng)
    value, low, high = found if found is not None else (None, None, None)
    return {"metric": policy.metric, "value": value, "low": low, "high": high, **of_kind}


def _of_classes(scores: Scores, dataset: Dataset, policy: GatePolicy) -> JsonDict:
    classes = dataset.classes
    rows = _aligned(scores.probabilities.astype(np.float64), own=scores.classes, classes=classes)
    labels = [classes.index(str(label)) for label in scores.truth]
    found = evaluate(rows, labels, classes=classes, positive=policy.positive_class)
    return {
        "correct": _share(round(found.accuracy * found.n), found.n),
        "accuracy": found.accuracy, "macro_f1": found.macro_f1, "log_loss": found.log_loss, "ece": found.ece,
        **({} if found.average_precision is None else {"average_precision": found.average_precision}),
        "per_class": {
            report.name: {"recall": report.recall, "precision": report.precision, "n": report.support}
            for report in found.classes
        },
        "confusion": confusion(rows.argmax(axis=1), labels, classes=len(classes)).tolist(),
    }  # fmt: skip


def _of_numbers(scores: Scores, loop: Loop) -> JsonDict:
    """R2, errors in the target's unit, and how the predictions are spread (`bins`), which drift is measured against."""
    assert scores.prediction is not None  # by _figures
    found = evaluate_regression(scores.prediction, scores.truth)
    near = agree(scores.prediction, scores.truth, tolerance=loop.task.tolerance)
    edges = quantile_edges(scores.prediction)
    return {
        "correct": _share(int(near.sum()), found.n), "r2": found.r2, "mae": found.mae, "rmse": found.rmse,
        "bins": {"edges": edges.tolist(), "counts": binned(scores.prediction, edges).tolist()},
    }  # fmt: skip


def _share(right: int, n: int) -> JsonDict:
    low, high = wilson(right, n)
    return {"value": right / n, "low": low, "high": high}


def _aligned(probabilities: Floats, *, own: Sequence[str], classes: Sequence[str]) -> Floats:
    """Columns in the order of `classes`; a class the model does not know has probability 0."""
    if tuple(own) == tuple(classes):
        return probabilities
    columns = np.zeros((len(probabilities), len(classes)))
    for place, name in enumerate(classes):
        if name in own:
            columns[:, place] = probabilities[:, list(own).index(name)]
    return columns


def _predicted(model: Model, lines: Sequence[Mapping[str, Any]], known: _Known) -> Predictions:
    payloads = [labeled.payload(line) for line in lines]
    if model.card.encoder is None:
        return model.predict(payloads)
    embeddings = vectors.of_lines(lines, payloads, model, known.of(model.card.encoder.digest))
    return model.predict(payloads, embeddings=embeddings)


def _arms(
    model: str,
    lines: Sequence[Mapping[str, Any]],
    whole: Scores,
    known: _Known,
    policy: GatePolicy,
    dataset: Dataset,
    ports: Ports,
    rng: np.random.Generator,
) -> dict[str, JsonDict | None]:
    """What the same number of labels of either arm buys; None for an arm that was not fitted."""
    found: dict[str, JsonDict | None] = {}
    for arm in ARMS:
        fit = ports.models.load_arm(model, "active" if arm == "active" else "control")
        figures = None
        if fit is not None:
            scores = _scores(fit, lines, whole.truth, whole.evaluation, known)
            figures = _figures(scores, policy, dataset, ports.loop, rng)
        if fit is not None and figures is not None:
            kept = {name: figures[name] for name in _KEPT if name in figures}
            found[arm] = {"labels": fit.card.metrics.get("n"), **kept}
        else:
            found[arm] = None
    return found


_KEPT = ("metric", "value", "low", "high", "accuracy", "r2")
"""Figures that the arms are compared by."""


def _reasons(verdict: Verdict) -> list[JsonDict]:
    return [
        {
            "code": reason.code, "message": reason.detail, "weight": reason.weight,
            "value": reason.value, "threshold": reason.threshold,
        }
        for reason in verdict.reasons
    ]  # fmt: skip


def _difference(verdict: Verdict) -> JsonDict | None:
    if verdict.gain is None or verdict.gain_interval is None:
        return None
    low, high = verdict.gain_interval
    return {"value": verdict.gain, "low": low, "high": high, "p_value": verdict.p_value}


def _entropy(scores: Scores) -> float | None:
    """Mean predictive entropy in nats: what the labels of the last rounds took away (M5). None for numbers."""
    probabilities = scores.probabilities
    if not probabilities.size or not np.isfinite(probabilities).all():
        return None
    safe = np.clip(probabilities, 1e-12, 1.0)
    return float(-(probabilities * np.log(safe)).sum(axis=1).mean())


def _metrics(report: Mapping[str, Any]) -> tuple[Metric, ...]:
    metrics = [] if report.get("imported") else [Metric("GateVerdict", 1, {"Verdict": report["verdict"]})]
    for name, figures in (("Challenger", report["challenger"]), ("Champion", report["champion_metrics"])):
        if figures is None:
            continue
        if "accuracy" in figures:
            metrics.append(Metric(f"{name}Accuracy", 100.0 * figures["accuracy"]))
        if figures.get("value") is not None:
            metrics.append(Metric(f"{name}Metric", figures["value"], {"Metric": figures["metric"]}))
    for arm, figures in report["arms"].items():
        if figures is None:
            continue
        if "accuracy" in figures:
            metrics.append(Metric("ArmAccuracy", 100.0 * figures["accuracy"], {"Arm": arm}))
        if figures.get("value") is not None:
            metrics.append(Metric("ArmMetric", figures["value"], {"Arm": arm}))
    return tuple(metrics)
