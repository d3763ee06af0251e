"""What the labels of each competing strategy were worth, on reward records: measured once a challenger, promoted or not.

A challenger is compared with the newest model that learnt from nothing but what it learnt from too: the champion, or a
challenger the gate did not promote. So what is measured is what the labels between the two taught. Evaluation records have no
part in it: strategies that were chosen by them would spoil the gate.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from winnow import layout
from winnow.datasets.versions import evaluation_identity
from winnow.digests import digest
from winnow.errors import NotFound
from winnow.metrics import Metric
from winnow.models.gate import GatePolicy, Scores, paired_gain
from winnow.ports import JsonDict, Ports
from winnow.selection.bandit import Reward, standing
from winnow.steps import labeled
from winnow.steps.batches import read_plan
from winnow.steps.documents import document
from winnow.steps.plan_training import ATTEMPTS, model_of

REWARD = "REWARD"
LEAST_RECORDS = 10
"""Labeled reward records below which a gain is not measured: its error would be larger than any gain."""

Look = Callable[[str, Sequence[Mapping[str, Any]], Sequence[Any], str], Scores]
"""(model id, lines, their truth, identity of the set) → what the model says about them."""


def measure(
    model: str, version: str, report: Mapping[str, Any], *, look: Look, policy: GatePolicy, ports: Ports
) -> None:
    """Write the reward of the labels that this challenger has and its baseline has not, unless that is done or there is
    nothing to compare: no competitors, too few reward records, or no label of a competitor among the new ones."""
    competing = ports.loop.acquisition.competing
    if not competing or layout.imported_model(version) is not None or ports.table.get(REWARD, model) is not None:
        return
    dataset = labeled.load(ports.data, version)
    lines = labeled.part(ports.data, dataset, "reward")
    if len(lines) < LEAST_RECORDS:
        return
    baseline, known = _baseline(version, str(report["champion"]), ports)
    if not known:
        return  # the bootstrap model, or one that learnt elsewhere: a gain over it says nothing about single labels
    batches = _new_labels(version, dataset, known, ports)
    if not any(name in competing for name, _ in batches.values()):
        return
    truth = [labeled.truth(line, dataset) for line in lines]
    identity = evaluation_identity({str(line["id"]): label for line, label in zip(lines, truth, strict=True)})
    before, after = (look(name, lines, truth, identity) for name in (baseline, model))
    rng = np.random.default_rng(int(digest({"reward": model, "records": identity}, length=16), 16))
    found = paired_gain(policy, before, after, rng=rng)
    if found is None:
        return
    gain, error = found
    item = {
        "dataset": version, "baseline": baseline, "metric": policy.metric, "gain": gain, "error": error, "start": len(known),
        "records": len(lines), "batches": {batch: list(made) for batch, made in sorted(batches.items())},
    }  # fmt: skip
    ports.table.put_new(REWARD, model, item)


def rewards(ports: Ports) -> list[Reward]:
    """Every reward that was measured by the metric the loop is judged by now, in points."""
    return [_reward(item) for item in ports.table.query(REWARD) if item["metric"] == ports.loop.metric]


def _reward(item: Mapping[str, Any]) -> Reward:
    batches = {str(batch): (made[0], int(made[1])) for batch, made in item["batches"].items()}
    return Reward(str(item["sk"]), 100.0 * item["gain"], 100.0 * item["error"], int(item["start"]), batches)


def figures(ports: Ports) -> tuple[Metric, ...]:
    """What the competitors' labels gained so far, for the dashboards."""
    competing = ports.loop.acquisition.competing
    if not competing:
        return ()
    found = standing(rewards(ports), competing)
    return tuple(Metric("StrategyReward", one.gain, {"Strategy": one.name}) for one in found.competitors if one.rounds)


def _baseline(version: str, champion: str, ports: Ports) -> tuple[str, set[str]]:
    """The newest earlier model whose batches this version all has, and the ids of its train records (none: unknown)."""
    batches = _believed(document(ports.data, layout.dataset(version)))
    parent = document(ports.data, layout.dataset(version)).get("parent")
    while parent is not None and ports.data.exists(layout.dataset(parent)):
        body = document(ports.data, layout.dataset(parent))
        if _believed(body) <= batches:
            for attempt in range(ATTEMPTS):
                model = model_of(str(parent), ports, attempt=attempt)
                if ports.data.exists(layout.model(model)):
                    return model, _train_ids(str(parent), ports)
        parent = body.get("parent")
    trained = None
    if not champion.startswith(layout.BOOTSTRAP):
        trained = document(ports.data, layout.model(champion)).get("dataset")
    return champion, _train_ids(str(trained), ports) if trained and ports.data.exists(
        layout.dataset(trained)
    ) else set()


def _believed(body: Mapping[str, Any]) -> set[str]:
    return set(body["batches"]) - {entry["batch"] for entry in body["held_out"]}


def _train_ids(version: str, ports: Ports) -> set[str]:
    dataset = labeled.load(ports.data, version)
    return {str(line["id"]) for line in labeled.part(ports.data, dataset, "train")}


def _new_labels(
    version: str, dataset: labeled.Dataset, known: set[str], ports: Ports
) -> dict[str, tuple[str | None, int]]:
    """Batch → who made its active arm, and how many of the new train labels are its; what experts settled is their
    batch's."""
    names = document(ports.data, layout.dataset(version))["batches"]
    counts: Counter[str] = Counter()
    for line in labeled.part(ports.data, dataset, "train"):
        if str(line["id"]) not in known:
            counts[str(names[int(line["batch"]) - 1])] += 1
    return {batch: (_made_by(batch, ports), count) for batch, count in counts.items()}


def _made_by(batch: str, ports: Ports) -> str | None:
    if layout.is_import(batch):
        return None
    try:
        plan = read_plan(batch, ports)
        plan = read_plan(plan.parent, ports) if plan.parent else plan
    except NotFound:
        return None  # a batch of another stack, that came here with its labels
    course: JsonDict = plan.course or {}
    competition: JsonDict = course.get("competition") or {}
    drawn = competition.get("drawn")
    return None if drawn is None else str(drawn)
