"""Scores challenger and champion on the same held-out records and lets the gate decide. An answer once given stands."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from winnow import layout
from winnow.datasets.versions import evaluation_identity
from winnow.digests import digest
from winnow.errors import Retryable
from winnow.loop import Gate
from winnow.metrics import Metric
from winnow.models.evaluation import confusion, evaluate
from winnow.models.gate import GatePolicy, Scores, Verdict, decide, wilson
from winnow.ports import JsonDict, Model, Ports
from winnow.steps import Outcome, labeled, pointers

ROWS_A_PASS = 256
"""Records a model sees at once: bounds the memory of large images."""

ARMS = ("active", "control")

Probabilities = npt.NDArray[np.float64]


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
    report = json.loads(ports.data.get(key))
    return Outcome({"model": model, "dataset": version, "verdict": report["verdict"]}, _metrics(report))


def _judge(model: str, version: str, ports: Ports) -> JsonDict:
    dataset = labeled.load(ports.data, version)
    lines = labeled.part(ports.data, dataset, "evaluation")
    truth = [str(line["label"]) for line in lines]
    identity = evaluation_identity({str(line["id"]): str(line["label"]) for line in lines})
    crowned, _ = pointers.champion(ports)
    challenger = ports.models.load(model)
    champion = ports.models.load(crowned.model, classes=dataset.classes)
    new, old = _predict(challenger, lines), _predict(champion, lines)
    # With fewer records than the policy asks for nothing can be promoted, so no look at the evaluation set is spent.
    look = _look(model, version, ports) if len(lines) >= ports.loop.gate.min_records else 0
    verdict = decide(
        _policy(ports.loop.gate, bootstrap=crowned.is_bootstrap),
        Scores(crowned.model, identity, truth, champion.card.classes, old),
        Scores(model, identity, truth, challenger.card.classes, new),
        look=max(look, 1),
        rng=np.random.default_rng(int(digest({"model": model, "dataset": version}, length=16), 16)),
    )
    return {
        "format": 1,
        "model": model,
        "champion": crowned.model,
        "dataset": version,
        "verdict": verdict.decision,
        "reasons": _reasons(verdict),
        "look": look,
        "alpha": verdict.alpha,
        "difference": _difference(verdict),
        "challenger": _figures(new, truth, own=challenger.card.classes, classes=dataset.classes),
        "champion_metrics": _figures(old, truth, own=champion.card.classes, classes=dataset.classes),
        "arms": _arms(model, lines, truth, ports, classes=dataset.classes),
        "evaluation": {"records": len(lines), "digest": identity},
        "entropy": {"before": _entropy(old), "after": _entropy(new)},
        "created_at": ports.clock.now().isoformat(),
    }


def _policy(gate: Gate, *, bootstrap: bool) -> GatePolicy:
    """The team's policy. The bootstrap model knows nothing: it names one class for everything and is perfectly calibrated
    at that, so there is no recall and no calibration to hold on to, only accuracy to gain."""
    return GatePolicy(
        alpha=gate.alpha, planned_looks=gate.planned_looks, min_records=gate.min_records, min_gain=gate.min_gain,
        class_floor=1.0 if bootstrap else gate.class_floor,
        max_ece_increase=1.0 if bootstrap else gate.max_ece_increase,
    )  # fmt: skip


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


def _predict(model: Model, lines: Sequence[Mapping[str, Any]]) -> Probabilities:
    """(n, classes of the model), in the order of the lines."""
    payloads = [labeled.payload(line) for line in lines]
    passes = [
        model.predict(payloads[start : start + ROWS_A_PASS]).probabilities
        for start in range(0, len(payloads), ROWS_A_PASS)
    ]
    width = len(model.card.classes)
    return np.concatenate(passes).astype(np.float64) if passes else np.zeros((0, width))


def _figures(
    probabilities: Probabilities, truth: Sequence[str], *, own: Sequence[str], classes: Sequence[str]
) -> JsonDict | None:
    """The figures of one model over the dataset's classes; None when they cannot be computed."""
    if not truth or not np.isfinite(probabilities).all():
        return None
    rows = _aligned(probabilities, own=own, classes=classes)
    labels = [classes.index(label) for label in truth]
    found = evaluate(rows, labels, classes=classes)
    low, high = wilson(round(found.accuracy * found.n), found.n)
    return {
        "accuracy": found.accuracy, "low": low, "high": high, "macro_f1": found.macro_f1, "log_loss": found.log_loss,
        "ece": found.ece,
        "per_class": {
            report.name: {"recall": report.recall, "precision": report.precision, "n": report.support}
            for report in found.classes
        },
        "confusion": confusion(rows.argmax(axis=1), labels, classes=len(classes)).tolist(),
    }  # fmt: skip


def _aligned(probabilities: Probabilities, *, own: Sequence[str], classes: Sequence[str]) -> Probabilities:
    """Columns in the order of `classes`; a class the model does not know has probability 0."""
    if tuple(own) == tuple(classes):
        return probabilities
    columns = np.zeros((len(probabilities), len(classes)))
    for place, name in enumerate(classes):
        if name in own:
            columns[:, place] = probabilities[:, list(own).index(name)]
    return columns


def _arms(
    model: str, lines: Sequence[Mapping[str, Any]], truth: Sequence[str], ports: Ports, *, classes: Sequence[str]
) -> dict[str, JsonDict | None]:
    """What the same number of labels of either arm buys; None for an arm that was not fitted."""
    found: dict[str, JsonDict | None] = {}
    for arm in ARMS:
        fit = ports.models.load_arm(model, "active" if arm == "active" else "control")
        figures = None
        if fit is not None:
            figures = _figures(_predict(fit, lines), truth, own=fit.card.classes, classes=classes)
        if fit is not None and figures is not None:
            kept = {name: figures[name] for name in ("accuracy", "low", "high")}
            found[arm] = {"labels": fit.card.metrics.get("n"), **kept}
        else:
            found[arm] = None
    return found


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


def _entropy(probabilities: Probabilities) -> float | None:
    """Mean predictive entropy in nats: what the labels of the last rounds took away (M5)."""
    if not len(probabilities) or not np.isfinite(probabilities).all():
        return None
    safe = np.clip(probabilities, 1e-12, 1.0)
    return float(-(probabilities * np.log(safe)).sum(axis=1).mean())


def _metrics(report: Mapping[str, Any]) -> tuple[Metric, ...]:
    metrics = [Metric("GateVerdict", 1, {"Verdict": report["verdict"]})]
    for name, figures in (
        ("ChallengerAccuracy", report["challenger"]),
        ("ChampionAccuracy", report["champion_metrics"]),
    ):
        if figures is not None:
            metrics.append(Metric(name, 100.0 * figures["accuracy"]))
    for arm, figures in report["arms"].items():
        if figures is not None:
            metrics.append(Metric("ArmAccuracy", 100.0 * figures["accuracy"], {"Arm": arm}))
    return tuple(metrics)
