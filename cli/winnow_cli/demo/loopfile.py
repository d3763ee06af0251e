"""The loop file of a demo: what a team with this data might decide."""

from __future__ import annotations

import math
from decimal import Decimal

from winnow.loop import Loop, parse, to_yaml
from winnow.models.encoder import EncoderCard
from winnow_cli.labeled import LabeledData

WORKERS_PER_ITEM = 3
TASK_SECONDS = 28_800
"""Time for one item. Annotators of a demo have other work too, and experts look once or twice a day."""
EVALUATION_SHARE, DRILLED_SHARE = 0.6, 0.8
"""Share of the first batches that goes to evaluation. Where spammers are to come it is most of them: that set has to be
complete by then, or they would spoil what the gate judges by."""
MOST_EVALUATION, MOST_EVALUATION_OF_RARE = 400, 1000
POSITIVES_IN_A_BATCH, LARGEST_BATCH = 8, 400
"""A random sample has to hold positives, or average precision cannot be measured: of a rare class batches are larger."""
_QUESTION = {"classification": "Which class is it?", "regression": "Which number is it?"}
SPARE_ROUNDS = 3
"""Rounds the budget covers beyond those asked for, so that disputes and repeats fit."""


ENCODER = "demo"
"""The name under which a demo's encoder is imported."""

Encoder = tuple[EncoderCard, dict[str, bytes]]
"""An encoder's card and its files by name."""


COMPETITORS = ["margin+margin_kmeans", "entropy+margin_kmeans"]
"""They make the digits' active arm by turns, so that the report has weights and a regret to show."""


def batch_size(data: LabeledData, *, asked: int | None = None) -> int:
    """Records in a batch: enough that a round can teach every class something, at most a fifth of the pool."""
    if asked is not None:
        return asked
    wanted = max(100, 4 * len(data.classes), min(LARGEST_BATCH, math.ceil(POSITIVES_IN_A_BATCH / data.positive_share)))
    return max(10, min(wanted, len(data.samples) // 5))


def loop_file(
    data: LabeledData, *, batch: int, rounds: int, seed: int, drilled: bool = False, encoded: bool = False
) -> Loop:
    """A loop for `rounds` batches of `batch` records on this data."""
    most = MOST_EVALUATION if data.positive is None else MOST_EVALUATION_OF_RARE
    evaluation = max(20, min(2 * batch, most, len(data.samples) // 8))
    price, expert = Decimal("0.08"), Decimal("0.50")
    budget = (rounds + SPARE_ROUNDS) * batch * (WORKERS_PER_ITEM * price + expert / 2)
    body = {
        "task": {
            "kind": data.kind, "type": data.task, "title": f"{_QUESTION[data.task]} ({data.name})"[:128],
            "classes": list(data.classes), "rare_classes": list(data.rare), "positive_class": data.positive,
        },
        "acquisition": {
            "competing": COMPETITORS if drilled else [],
            "candidates_per_object": min(20_000, max(1000, 10 * batch)),
            "arms": {
                "control": 0.15, "rare": 0.05 if data.rare else 0.0, "evaluation_target": evaluation,
                "evaluation_share": DRILLED_SHARE if drilled else EVALUATION_SHARE,
            },
        },
        "batches": {"size": batch, "min_size": min(10, batch)},
        "budget": {
            "total_usd": str(math.ceil(budget)), "price_per_answer_usd": str(price),
            "expert_price_per_answer_usd": str(expert),
        },
        "labeling": {"task_seconds": TASK_SECONDS},
        "quality": {
            "workers_per_item": WORKERS_PER_ITEM, "consensus": "majority" if data.classes else "median", "min_confidence": 0.6,
        },
        "training": {
            "min_labels": 10, "min_new_labels": max(2, batch // 8), "members": 4, "seed": seed,
            "encoder": ENCODER if encoded else None,
        },
        "gate": {
            "metric": "auto" if data.positive is None else "average_precision",
            "min_records": min(50, max(10, evaluation // 2)), "planned_looks": rounds + 2,
        },
        "rollout": {"canary_percent": 50, "bake_minutes": 30, "termination_minutes": 5, "max_quality_drop": 0.3},
    }  # fmt: skip
    return parse(to_yaml(Loop.model_validate(body)))
