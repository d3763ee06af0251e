"""What a demo tells: frozen records that the table, the JSON document and the report are made of."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from winnow.records import Kind
from winnow_cli.demo.engine import Decided

TOTALS = ("in", "scored", "duplicate", "superseded", "quarantined", "waiting", "dead_lettered")
"""The seven numbers of invariant I3, in the order in which they are printed."""

HELD = ("I1", "I2", "I3", "I4", "I5", "I7")
"""Invariants that must hold when a demo ends."""

Verdict = Literal["promoted", "rejected", "rolled back", "not trained", "not decided"]


@dataclass(frozen=True)
class Estimate:
    """What the gate compares, with its interval; None where nothing was measured."""

    value: float | None
    low: float | None = None
    high: float | None = None
    labels: int | None = None

    def to_json(self) -> dict[str, float | None]:
        bounds = {"value": self.value, "low": self.low, "high": self.high}
        return {name: None if bound is None else round(bound, 4) for name, bound in bounds.items()}


@dataclass(frozen=True)
class Measure:
    """How people read what the gate compares: as a percentage, or as it is.

    >>> ACCURACY.text(0.8125), ACCURACY.change(-0.02), R2.text(0.8125), R2.change(0.1)
    ('81.2 %', '-2.0 points', '0.812', '+0.100')
    """

    name: str
    title: str
    percent: bool = False

    def bare(self, value: float) -> str:
        return f"{100 * value:.1f}" if self.percent else f"{value:.3f}"

    def text(self, value: float | None) -> str:
        if value is None:
            return "-"
        return self.bare(value) + (" %" if self.percent else "")

    def change(self, difference: float) -> str:
        return f"{100 * difference:+.1f} points" if self.percent else f"{difference:+.3f}"

    def tick(self, value: float) -> str:
        return f"{100 * value:.0f} %" if self.percent else f"{value:.1f}"

    def interval(self, one: Estimate) -> str:
        if one.value is None:
            return f"no {self.title}"
        limits = "" if one.low is None or one.high is None else f" ({self.text(one.low)} to {self.text(one.high)})"
        return self.text(one.value) + limits


ACCURACY = Measure("accuracy", "accuracy", percent=True)
AVERAGE_PRECISION = Measure("average_precision", "average precision")
R2 = Measure("r2", "R\N{SUPERSCRIPT TWO}")
MEASURES = {one.name: one for one in (ACCURACY, AVERAGE_PRECISION, R2)}


@dataclass(frozen=True)
class Round:
    """A batch of labels and what came of it. `labels` and `spend_usd` count this round alone; times are days."""

    number: int
    batch: str
    labels: int
    spend_usd: float
    metric: Estimate
    active: Estimate
    control: Estimate
    champion: str
    verdict: Verdict
    challenger: str | None = None
    reasons: tuple[str, ...] = ()
    difference: Estimate | None = None
    started_day: float = 0.0
    ended_day: float = 0.0
    by_arm: Mapping[str, int] = field(default_factory=dict)
    drill: Literal["poison", "skew"] | None = None
    entropy_before: float | None = None
    entropy_after: float | None = None
    total_labels: int = 0
    decided: Decided | None = None
    """What the engine decided for it; None where no plan says so."""

    def to_json(self) -> dict[str, Any]:
        return {
            "round": self.number, "labels": self.labels, "spend_usd": round(self.spend_usd, 2),
            "metric": self.metric.to_json()["value"], "active": self.active.to_json(),
            "control": self.control.to_json(),
            "champion": self.champion, "verdict": self.verdict,
        }  # fmt: skip


@dataclass(frozen=True)
class Asked:
    """A record somebody was paid to label, and why. `payload` is the text, the row as text or the PNG, `confidence` in 0..1."""

    round: int
    arm: str
    strategy: str
    score: float | None
    rank: int
    label: str | None
    confidence: float
    status: str
    payload: str | bytes


@dataclass(frozen=True)
class Happening:
    """One line of the log: what the stack did on which virtual day."""

    day: float
    kind: Literal["drop", "batch", "labels", "train", "gate", "deploy", "champion", "rollback", "drill", "skip"]
    text: str
    model: str | None = None
    verdict: str | None = None
    """Of a gate: promote, reject or inconclusive."""


@dataclass(frozen=True)
class Deployment:
    """One model's way to the endpoint; `serving_until` is None while it serves."""

    model: str
    round: int
    day: float
    settled_day: float | None
    outcome: Literal["promoted", "rolled back", "in progress"]
    serving_until: float | None = None
    cause: str = ""


@dataclass(frozen=True)
class Confusion:
    """Rows = true class, columns = predicted, counted on evaluation records."""

    model: str
    classes: tuple[str, ...]
    counts: tuple[tuple[int, ...], ...]
    accuracy: float


@dataclass(frozen=True)
class Served:
    """What the application's users judged of one model: right answers of judged answers."""

    model: str
    judged: int
    right: int


@dataclass(frozen=True)
class Story:
    """Everything a finished demo has to say; made from the stack's artifacts alone."""

    title: str
    kind: Kind
    classes: tuple[str, ...]
    seed: int
    days: float
    rounds: tuple[Round, ...]
    totals: Mapping[str, int]
    invariants: Mapping[str, bool]
    violations: tuple[str, ...] = ()
    asked: tuple[Asked, ...] = ()
    log: tuple[Happening, ...] = ()
    deployments: tuple[Deployment, ...] = ()
    before: Confusion | None = None
    after: Confusion | None = None
    measure: Measure = ACCURACY
    champion: Estimate = Estimate(None)
    """What the last champion reaches."""
    served: tuple[Served, ...] = ()
    real_seconds: float = 0.0
    budget_usd: float = 0.0

    def to_json(self) -> dict[str, Any]:
        """The document of `winnow demo --json`."""
        return {
            "metric": self.measure.name,
            "rounds": [one.to_json() for one in self.rounds],
            "totals": {name: int(self.totals[name]) for name in TOTALS},
            "invariants": {name: bool(self.invariants[name]) for name in sorted(self.invariants)},
        }

    def broken(self) -> list[str]:
        """The invariants that must hold and do not."""
        return [name for name in HELD if not self.invariants.get(name, False)]


def balance(totals: Mapping[str, int]) -> str:
    """Invariant I3 as an equation.

    >>> balance(dict(zip(TOTALS, (5, 3, 1, 0, 1, 0, 0))))
    '5 in = 3 scored + 1 duplicate + 0 superseded + 1 quarantined + 0 waiting + 0 dead-lettered'
    """
    parts = " + ".join(f"{totals[name]} {name.replace('_', '-')}" for name in TOTALS[1:])
    return f"{totals['in']} in = {parts}"


def days(seconds: float) -> float:
    """Virtual seconds as days."""
    return seconds / 86_400


def short(model: str | None) -> str:
    """A model id as people read it: the prefix and eight digits.

    >>> short("m5e1c0ffee1234567890"), short("bootstrap-image"), short(None)
    ('m5e1c0ff', 'bootstrap', '-')
    """
    if model is None:
        return "-"
    return "bootstrap" if model.startswith("bootstrap") else model[:8]


def shares(counts: Sequence[int]) -> list[float]:
    """Counts as shares of their sum (zeros for an empty row).

    >>> shares([3, 1])
    [0.75, 0.25]
    """
    total = sum(counts)
    return [count / total if total else 0.0 for count in counts]
