"""May the challenger replace the champion? Paired statistics on records neither was trained on.

The champion stays unless the policy's test supports the challenger (invariant I6): too few records, a missing or NaN
figure, another evaluation set or a look too many can only ever lead to "no".
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from statistics import NormalDist
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from winnow.errors import ConfigError

Decision = Literal["promote", "reject", "inconclusive"]
Floats = npt.NDArray[np.float64]

_CHUNK_CELLS = 1 << 22
"""Weights drawn at once (replicates x records): 32 MB as float64, whatever the sizes."""
_TAIL_DRAWS = 10
"""Replicates that should fall beyond a quantile for it to be more than luck."""
_MAX_REPLICATES = 20_000
"""Enough for 10 draws beyond a 0.05 % quantile; more would only cost time."""


@dataclass(frozen=True)
class GatePolicy:
    """What a challenger must prove, with the reason for each threshold."""

    alpha: float = 0.1
    """One-sided probability, over all planned looks together, of promoting a challenger that is no better. One in ten
    over the life of an evaluation set is affordable because rollout watches the challenger again."""
    planned_looks: int = 20
    """Decisions one evaluation set is meant to last for; every look at it spends a part of alpha."""
    min_records: int = 50
    """Fewer evaluation records decide nothing: with 20, three lucky records are 15 points of accuracy."""
    min_gain: float = 0.0
    """Accuracy by which the challenger must be better. Below 0 it only has to be no worse than that (hotfixes)."""
    class_floor: float = 0.15
    """No class may be shown to lose more recall than this: a better average must not be paid by one class."""
    class_alpha: float = 0.05
    """One-sided error of the class and calibration checks, over all classes together (Bonferroni)."""
    min_class_records: int = 5
    """A class with fewer evaluation records is reported, not judged."""
    recall_floors: Mapping[str, float] = field(default_factory=dict)
    """Recall that named classes may never be shown to miss, whatever the champion does."""
    max_ece_increase: float = 0.1
    """Confidence drives selection, auto-labels and thresholds in applications: it may not get much worse."""
    tolerated_ece: float = 0.1
    """A calibration error that is good enough, whatever the champion's: a champion that always says 1/classes is
    perfectly calibrated and useless."""
    replicates: int = 4000
    """Bootstrap replicates at least; more are drawn when a look's share of alpha needs them."""

    def __post_init__(self) -> None:
        if not 0.0 < self.alpha < 1.0 or not 0.0 < self.class_alpha < 1.0:
            raise ConfigError(f"gate alpha {self.alpha} and class_alpha {self.class_alpha} must be inside 0..1")
        if self.planned_looks < 1 or self.min_records < 1 or self.min_class_records < 1 or self.replicates < 100:
            raise ConfigError("gate: planned_looks and record minima must be 1 or more, replicates 100 or more")
        for name in ("min_gain", "class_floor", "max_ece_increase", "tolerated_ece"):
            if not math.isfinite(getattr(self, name)):
                raise ConfigError(f"gate {name} must be a finite number")


@dataclass(frozen=True, eq=False)
class Scores:
    """What one model said about the evaluation records, in their order."""

    model: str
    evaluation: str
    """Identity of the evaluation set (`winnow.datasets.versions.evaluation_identity`)."""
    truth: Sequence[str]
    """(n,) true class names."""
    classes: tuple[str, ...]
    """The model's own classes, in the order of its probabilities. A challenger may know classes a champion does not."""
    probabilities: npt.NDArray[np.floating]
    """(n, classes)."""


@dataclass(frozen=True)
class Reason:
    """One finding for machines (`code`) and people (`detail`); `value` is compared with `threshold`.

    `hard` findings reject, `missing` ones forbid promotion, the rest only inform.
    """

    code: str
    detail: str
    weight: Literal["hard", "missing", "supports", "informs"]
    value: float | None = None
    threshold: float | None = None

    def to_json(self) -> dict[str, Any]:
        return dict(self.__dict__)


@dataclass(frozen=True)
class Verdict:
    """The decision with everything it rests on. Figures are None when they could not be computed."""

    decision: Decision
    reasons: tuple[Reason, ...]
    champion: str
    challenger: str
    evaluation: str
    records: int
    look: int
    alpha: float
    """The part of the policy's alpha that this look may spend."""
    champion_accuracy: float | None = None
    challenger_accuracy: float | None = None
    gain: float | None = None
    """Challenger's accuracy minus the champion's."""
    gain_interval: tuple[float, float] | None = None
    """Two-sided bootstrap interval of the gain, `alpha` in each tail."""
    p_value: float | None = None
    """One-sided: how often a gain this large appears by chance when there is none beyond `min_gain`."""

    def to_json(self) -> dict[str, Any]:
        return {
            **self.__dict__,
            "reasons": [reason.to_json() for reason in self.reasons],
            "gain_interval": None if self.gain_interval is None else list(self.gain_interval),
        }


def alpha_at(look: int, *, alpha: float, planned_looks: int) -> float:
    """The part of `alpha` that look number `look` (from 1) may spend; 0.0 after the planned looks.

    The spending function ln(1 + (e - 1) t) of Pocock's type, at equally spaced t = look / planned_looks: every look
    gets its increment, early ones a little more, and the increments sum to alpha. Spending increments as if looks were
    independent is conservative (union bound), and holds for a different challenger at every look.

    Raises ConfigError when look or planned_looks is below 1.

    Source: Lan and DeMets, Discrete Sequential Boundaries for Clinical Trials, 1983.

    >>> [round(alpha_at(look, alpha=0.1, planned_looks=4), 4) for look in (1, 2, 3, 4, 5)]
    [0.0357, 0.0263, 0.0208, 0.0172, 0.0]
    """
    if look < 1 or planned_looks < 1:
        raise ConfigError(f"looks count from 1: look {look} of {planned_looks}")
    if look > planned_looks:
        return 0.0

    def spent(looks: int) -> float:
        return math.log1p((math.e - 1.0) * looks / planned_looks)

    return alpha * (spent(look) - spent(look - 1))


def wilson(successes: int, n: int, *, level: float = 0.95) -> tuple[float, float]:
    """Interval of a share, trustworthy for few records and for shares near 0 and 1; (0, 1) without records.

    Source: Wilson, Probable Inference, the Law of Succession, and Statistical Inference, 1927.

    >>> tuple(round(bound, 4) for bound in wilson(9, 10))
    (0.5958, 0.9821)
    """
    if n <= 0:
        return 0.0, 1.0
    z = NormalDist().inv_cdf(0.5 + level / 2)
    share = successes / n
    middle = (share + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    return max(0.0, middle - half), min(1.0, middle + half)


def interval(
    values: npt.NDArray[np.floating] | npt.NDArray[np.bool_],
    *,
    rng: np.random.Generator,
    level: float = 0.95,
    replicates: int = 4000,
) -> tuple[float, float]:
    """Interval of one model's mean figure over n records: Wilson's for right/wrong, a percentile bootstrap otherwise.

    Raises ConfigError for no records or values that are not finite.

    >>> right = np.array([True] * 9 + [False])
    >>> tuple(round(bound, 4) for bound in interval(right, rng=np.random.default_rng(0)))
    (0.5958, 0.9821)
    """
    if not len(values) or not np.isfinite(values).all():
        raise ConfigError("an interval needs at least one record and finite values")
    if values.dtype == np.bool_:
        return wilson(int(values.sum()), len(values), level=level)
    means = _resample(values.astype(np.float64)[:, None], replicates, rng)[:, 0] / len(values)
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def _resample(columns: Floats, replicates: int, rng: np.random.Generator) -> Floats:
    """Sums (replicates, columns) of columns (n, columns) over n records drawn with replacement, the same for all."""
    n = len(columns)
    sums = np.empty((replicates, columns.shape[1]))
    chunk = max(1, _CHUNK_CELLS // n)
    for start in range(0, replicates, chunk):
        rows = min(chunk, replicates - start)
        drawn = rng.integers(0, n, size=(rows, n)) + n * np.arange(rows)[:, None]
        weights = np.bincount(drawn.ravel(), minlength=rows * n).reshape(rows, n)
        sums[start : start + rows] = weights @ columns
    return sums


def decide(
    policy: GatePolicy,
    champion: Scores,
    challenger: Scores,
    *,
    look: int,
    rng: np.random.Generator,
    failures: Sequence[Reason] = (),
) -> Verdict:
    """Promote when the challenger is significantly better and nothing speaks against it; reject when a hard check fails
    or it is significantly worse; otherwise inconclusive, which more evaluation labels can settle.

    `look` counts the decisions made on this evaluation set, from 1. `failures` are findings of checks made elsewhere
    (leaks, schema); hard ones reject. Accuracy is compared by a paired bootstrap over records (the same draws for both
    models) and, because resampling flatters few disagreements, also by the exact sign test; the larger p-value counts.

    >>> truth = ["a"] * 60 + ["b"] * 60
    >>> def model(name, right):
    ...     p = np.where((np.arange(120) % 10 < right) == (np.arange(120) < 60), 0.9, 0.1)
    ...     return Scores(name, "e1", truth, ("a", "b"), np.column_stack([p, 1 - p]))
    >>> decide(GatePolicy(), model("old", 5), model("new", 9), look=1, rng=np.random.default_rng(0)).decision
    'promote'
    >>> decide(GatePolicy(), model("old", 9), model("new", 5), look=1, rng=np.random.default_rng(0)).decision
    'reject'
    >>> decide(GatePolicy(), model("old", 9), model("new", 9), look=1, rng=np.random.default_rng(0)).decision
    'inconclusive'
    """
    allowed = alpha_at(look, alpha=policy.alpha, planned_looks=policy.planned_looks)
    reasons = [*failures, *_unusable(policy, champion, challenger)]
    n = len(challenger.truth)
    facts: dict[str, Any] = {}
    if not any(reason.code in _UNUSABLE for reason in reasons):
        facts, compared = _compare(policy, champion, challenger, alpha=allowed, rng=rng)
        reasons += compared
    if allowed == 0.0:
        detail = f"look {look} is beyond the {policy.planned_looks} planned; label a larger evaluation set"
        reasons.append(Reason("looks-spent", detail, "missing", float(look), float(policy.planned_looks)))
    weights = {reason.weight for reason in reasons}
    if "hard" in weights:
        decision: Decision = "reject"
    elif "supports" in weights and "missing" not in weights:
        decision = "promote"
    else:
        decision = "inconclusive"
    return Verdict(
        decision,
        tuple(reasons),
        champion=champion.model,
        challenger=challenger.model,
        evaluation=challenger.evaluation,
        records=n,
        look=look,
        alpha=allowed,
        **facts,
    )


_UNUSABLE = frozenset({"other-evaluation-set", "shape", "not-finite", "no-records"})
"""Findings after which no figure can be computed."""


def _unusable(policy: GatePolicy, champion: Scores, challenger: Scores) -> list[Reason]:
    found = []
    n = len(challenger.truth)
    if champion.evaluation != challenger.evaluation or list(champion.truth) != list(challenger.truth):
        detail = (
            f"champion was scored on {champion.evaluation}, challenger on {challenger.evaluation}; score both again"
        )
        found.append(Reason("other-evaluation-set", detail, "hard"))
    for name, scores in (("champion", champion), ("challenger", challenger)):
        if scores.probabilities.shape != (len(scores.truth), len(scores.classes)):
            detail = f"{name} {scores.model} gives {scores.probabilities.shape} for {n} records"
            found.append(Reason("shape", detail, "hard"))
        elif not np.isfinite(scores.probabilities).all():
            # A champion that cannot be compared is no fault of the challenger, and no support for it either.
            weight: Literal["hard", "missing"] = "hard" if name == "challenger" else "missing"
            detail = f"{name} {scores.model} gives probabilities that are NaN or infinite"
            found.append(Reason("not-finite", detail, weight))
    lost = sorted(set(champion.classes) - set(challenger.classes))
    if lost:
        detail = f"challenger {challenger.model} does not know the champion's classes {', '.join(lost)}"
        found.append(Reason("missing-classes", detail, "hard", float(len(lost)), 0.0))
    if n < policy.min_records:
        detail = f"{n} evaluation records decide nothing; {policy.min_records} are needed"
        found.append(Reason("few-records", detail, "missing", float(n), float(policy.min_records)))
    if n == 0:
        found.append(Reason("no-records", "the evaluation set is empty", "missing", 0.0, 1.0))
    return found


def _compare(
    policy: GatePolicy, champion: Scores, challenger: Scores, *, alpha: float, rng: np.random.Generator
) -> tuple[dict[str, Any], list[Reason]]:
    n = len(challenger.truth)
    truth = np.asarray(challenger.truth, dtype=object)
    old, new = _right(champion, truth), _right(challenger, truth)
    classes = sorted(set(challenger.truth))
    members = np.column_stack([truth == name for name in classes]).astype(np.float64)
    change = (new - old)[:, None]
    gaps = [_calibration_gaps(champion, old), _calibration_gaps(challenger, new)]
    bins = gaps[0].shape[1]
    columns = np.hstack([change, members, members * change, members * new[:, None], *gaps])
    checks = len(classes) + len(policy.recall_floors) + 1
    smallest = min(alpha or 1.0, policy.class_alpha / checks)
    replicates = min(max(policy.replicates, math.ceil(_TAIL_DRAWS / smallest)), _MAX_REPLICATES)
    sums = _resample(columns, replicates, rng)
    gains = sums[:, 0] / n
    support, recall_change, recall_new = np.split(sums[:, 1 : 1 + 3 * len(classes)], 3, axis=1)
    ece_old = np.abs(sums[:, -2 * bins : -bins]).sum(axis=1) / n
    ece_new = np.abs(sums[:, -bins:]).sum(axis=1) / n

    reasons = _accuracy_reasons(policy, old, new, gains, alpha=alpha)
    per_check = policy.class_alpha / checks
    for index, name in enumerate(classes):
        reasons += _class_reasons(
            policy,
            name,
            records=int(members[:, index].sum()),
            losses=recall_change[:, index] / np.maximum(support[:, index], 1.0),
            recalls=recall_new[:, index] / np.maximum(support[:, index], 1.0),
            alpha=per_check,
        )
    worse = float(np.quantile(ece_new - ece_old, per_check))
    bad = float(np.quantile(ece_new, per_check))
    if worse > policy.max_ece_increase and bad > policy.tolerated_ece:
        detail = f"calibration error is at least {bad:.3f} and grew by at least {worse:.3f}; recalibrate"
        reasons.append(Reason("calibration", detail, "hard", worse, policy.max_ece_increase))
    tail = alpha or policy.alpha
    low, high = np.quantile(gains, [tail, 1 - tail])
    facts = {
        "champion_accuracy": float(old.mean()),
        "challenger_accuracy": float(new.mean()),
        "gain": float((new - old).mean()),
        "gain_interval": (float(low), float(high)),
        "p_value": _p_value(gains, new - old, above=policy.min_gain),
    }
    return facts, reasons


def _accuracy_reasons(policy: GatePolicy, old: Floats, new: Floats, gains: Floats, *, alpha: float) -> list[Reason]:
    better = _p_value(gains, new - old, above=policy.min_gain)
    # With a margin below 0 "not better" and "worse" are different questions; worse must mean worse than the margin.
    worse = _p_value(-gains, old - new, above=max(0.0, -policy.min_gain))
    gain = float((new - old).mean())
    if better <= alpha:
        detail = f"accuracy {old.mean():.3f} to {new.mean():.3f}, better than by {policy.min_gain:g} (p = {better:.4f})"
        return [Reason("better", detail, "supports", better, alpha)]
    if worse <= alpha:
        detail = f"accuracy {old.mean():.3f} to {new.mean():.3f} is significantly worse (p = {worse:.4f})"
        return [Reason("worse", detail, "hard", worse, alpha)]
    detail = f"accuracy {old.mean():.3f} to {new.mean():.3f}: a change of {gain:+.3f} may be chance (p = {better:.4f})"
    return [Reason("not-significant", detail, "missing", better, alpha)]


def _p_value(gains: Floats, changes: Floats, *, above: float) -> float:
    """One-sided p-value for a mean change above `above`: the larger of bootstrap and (for margin 0) exact sign test."""
    resampled = (1.0 + float((gains <= above + 1e-12).sum())) / (len(gains) + 1.0)
    if above != 0.0:
        return resampled
    wins, losses = int((changes > 0).sum()), int((changes < 0).sum())
    return max(resampled, _sign_test(wins, losses))


def _sign_test(wins: int, losses: int) -> float:
    """P(at least `wins` heads in wins + losses fair tosses), exactly; 1.0 without any toss."""
    n = wins + losses
    logs = [
        math.lgamma(n + 1) - math.lgamma(k + 1) - math.lgamma(n - k + 1) - n * math.log(2.0) for k in range(wins, n + 1)
    ]
    return min(1.0, math.fsum(math.exp(value) for value in logs))


def _class_reasons(
    policy: GatePolicy, name: str, *, records: int, losses: Floats, recalls: Floats, alpha: float
) -> list[Reason]:
    if records < policy.min_class_records:
        detail = f"class {name} has {records} evaluation records and is not judged"
        return [Reason("class-not-judged", detail, "informs", float(records), float(policy.min_class_records))]
    found = []
    best = float(np.quantile(losses, 1 - alpha))
    if best < -policy.class_floor:
        detail = f"class {name} loses at least {-best:.3f} of its recall; {policy.class_floor:g} is allowed"
        found.append(Reason("class-recall", detail, "hard", best, -policy.class_floor))
    floor = policy.recall_floors.get(name)
    if floor is not None and float(np.quantile(recalls, 1 - alpha)) < floor:
        reached = float(np.quantile(recalls, 1 - alpha))
        detail = f"class {name} reaches at most {reached:.3f} recall; {floor:g} is required"
        found.append(Reason("recall-floor", detail, "hard", reached, floor))
    return found


def _right(scores: Scores, truth: npt.NDArray[np.object_]) -> Floats:
    """(n,) 1.0 where the most probable class (the first of equals) is the true one."""
    named = np.asarray(scores.classes, dtype=object)[scores.probabilities.argmax(axis=1)]
    return np.asarray(named == truth, dtype=np.float64)


_BINS = 10
"""Confidence bins of the calibration check: few, because a gate often has only a few hundred records."""


def _calibration_gaps(scores: Scores, right: Floats) -> Floats:
    """(n, bins): right minus confidence of each record, in the column of its confidence bin.

    Sums of these columns are what the expected calibration error adds up, so one resampling serves it too.
    """
    confidence = scores.probabilities.max(axis=1).astype(np.float64)
    place = np.clip((confidence * _BINS).astype(np.int64), 0, _BINS - 1)
    gaps = np.zeros((len(right), _BINS))
    gaps[np.arange(len(right)), place] = right - confidence
    return gaps
