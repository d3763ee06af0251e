"""May the challenger replace the champion? Paired statistics on records neither was trained on.

The champion stays unless the policy's test supports the challenger (invariant I6): too few records, a missing or NaN
figure, another evaluation set or a look too many can only ever lead to "no".
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import NormalDist
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from winnow.errors import ConfigError

Decision = Literal["promote", "reject", "inconclusive"]
Metric = Literal["accuracy", "average_precision", "r2"]
Floats = npt.NDArray[np.float64]
Measure = Callable[[npt.NDArray[Any]], Floats]
"""Figures (replicates, ...) of the weights (replicates, n) with which n records count; NaN where there is none."""

_CHUNK_CELLS = 1 << 22
"""Weights drawn at once (replicates x records): 32 MB as float64, whatever the sizes."""
_TAIL_DRAWS = 10
"""Replicates that should fall beyond a quantile for it to be more than luck."""
_MAX_REPLICATES = 20_000
"""Enough for 10 draws beyond a 0.05 % quantile; more would only cost time."""
_NO_SPREAD = 1e-12
"""Share of the variance of the truth below which what is left is rounding."""


@dataclass(frozen=True)
class GatePolicy:
    """What a challenger must prove, with the reason for each threshold."""

    metric: Metric = "accuracy"
    """What must get better. With 1 % positives always saying no is 99 % accurate: there average precision tells more."""
    positive_class: str | None = None
    """The class that average precision is about."""
    alpha: float = 0.1
    """One-sided probability, over all planned looks together, of promoting a challenger that is no better. One in ten
    over the life of an evaluation set is affordable because rollout watches the challenger again."""
    planned_looks: int = 20
    """Decisions one evaluation set is meant to last for; every look at it spends a part of alpha."""
    min_records: int = 50
    """Fewer evaluation records decide nothing: with 20, three lucky records are 15 points of accuracy."""
    min_gain: float = 0.0
    """Metric by which the challenger must be better. Below 0 it only has to be no worse than that (hotfixes)."""
    class_floor: float = 0.15
    """No class may be shown to lose more recall than this: a better average must not be paid by one class."""
    class_alpha: float = 0.05
    """One-sided error of the class and calibration checks, over all classes together (Bonferroni)."""
    min_class_records: int = 5
    """A class with fewer evaluation records is reported, not judged, and average precision of it decides nothing."""
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
        if self.metric == "average_precision" and self.positive_class is None:
            raise ConfigError("gate: average_precision is about one class; name it in positive_class")
        for name in ("min_gain", "class_floor", "max_ece_increase", "tolerated_ece"):
            if not math.isfinite(getattr(self, name)):
                raise ConfigError(f"gate {name} must be a finite number")


@dataclass(frozen=True, eq=False)
class Scores:
    """What one model said about the evaluation records, in their order."""

    model: str
    evaluation: str
    """Identity of the evaluation set (`winnow.datasets.versions.evaluation_identity`)."""
    truth: Sequence[str] | Sequence[float]
    """(n,) true class names, or true numbers."""
    classes: tuple[str, ...]
    """The model's own classes, in the order of its probabilities. A challenger may know classes a champion does not.
    Empty for a regression."""
    probabilities: npt.NDArray[np.floating]
    """(n, classes)."""
    prediction: npt.NDArray[np.floating] | None = None
    """(n,) numbers of a regression."""


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
    metric: Metric
    champion_value: float | None = None
    """Of the metric, on the evaluation set."""
    challenger_value: float | None = None
    gain: float | None = None
    """Challenger's value minus the champion's."""
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
    column = values.astype(np.float64)
    (sums,) = _replicate(len(values), replicates, rng, [lambda weights: weights @ column])
    low, high = np.quantile(sums / len(values), [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def estimate(
    policy: GatePolicy, scores: Scores, *, rng: np.random.Generator, level: float = 0.95, replicates: int = 2000
) -> tuple[float, float, float] | None:
    """(value, low, high) of the policy's metric for one model; None where it has no value (no positives, nothing varies).

    Accuracy has Wilson's interval. The others are bootstrapped, with the replicates moved so that their mean is the value:
    a resample holds some records twice, and two copies of a positive make a ranking look better than it is.

    Raises ConfigError for no records or outputs that are not finite.

    >>> numbers = Scores("m", "e1", [1.0, 2.0, 3.0, 4.0], (), np.empty((4, 0)), np.array([1.0, 2.0, 3.0, 3.0]))
    >>> value, low, high = estimate(GatePolicy(metric="r2"), numbers, rng=np.random.default_rng(0))
    >>> value, low < value < high <= 1.0
    (0.8, True)
    """
    n = len(scores.truth)
    outputs = scores.probabilities if scores.prediction is None else scores.prediction
    if not n or not np.isfinite(outputs).all():
        raise ConfigError("an estimate needs at least one record and finite outputs")
    if policy.metric == "accuracy":
        right = _right(scores)
        return float(right.mean()), *wilson(round(float(right.sum())), n, level=level)
    measure = _measure(policy, scores)
    value = float(measure(np.ones((1, n)))[0])
    if math.isnan(value):
        return None
    (values,) = _replicate(n, replicates, rng, [measure])
    values = values[~np.isnan(values)]
    low, high = np.quantile(values - values.mean() + value, [(1 - level) / 2, (1 + level) / 2])
    lowest = 0.0 if policy.metric == "average_precision" else -math.inf
    return value, max(lowest, float(low)), min(1.0, float(high))


def paired_gain(
    policy: GatePolicy, before: Scores, after: Scores, *, rng: np.random.Generator, replicates: int = 2000
) -> tuple[float, float] | None:
    """(gain, standard error) of the policy's metric from one model to another on the same records; None where either has
    no value.

    The error is paired over the records, and above 0: of accuracy, one disagreement more than was seen is counted, since few
    records without any prove no equality; of the others it is the spread of a bootstrap.

    >>> truth = ["a", "b", "a", "b"]
    >>> def model(name, right):
    ...     p = np.where(np.array([True, False, True, False]) == (np.arange(4) < right), 0.9, 0.1)
    ...     return Scores(name, "e1", truth, ("a", "b"), np.column_stack([p, 1 - p]))
    >>> gain, error = paired_gain(GatePolicy(), model("old", 2), model("new", 4), rng=np.random.default_rng(0))
    >>> gain, round(error, 4)
    (0.5, 0.3536)
    """
    n = len(after.truth)
    if not n or any(reason.code in _UNUSABLE for reason in _unusable(policy, before, after)):
        return None
    if policy.metric == "accuracy":
        changes = _right(after) - _right(before)
        gain = float(changes.mean())
        return gain, math.sqrt(float(np.abs(changes).sum()) + 1.0 - n * gain**2) / n
    measures = [_measure(policy, before), _measure(policy, after)]
    old, new = (float(measure(np.ones((1, n)))[0]) for measure in measures)
    if math.isnan(old) or math.isnan(new):
        return None
    drawn_old, drawn_new = _replicate(n, replicates, rng, measures)
    spread = drawn_new - drawn_old
    error = float(np.std(spread[~np.isnan(spread)]))
    return new - old, max(error, 1.0 / n)


def _replicate(n: int, replicates: int, rng: np.random.Generator, measures: Sequence[Measure]) -> list[Floats]:
    """Each measure over n records drawn with replacement, `replicates` times: the same draws for all measures."""
    found: list[list[Floats]] = [[] for _ in measures]
    chunk = max(1, _CHUNK_CELLS // n)
    for start in range(0, replicates, chunk):
        rows = min(chunk, replicates - start)
        drawn = rng.integers(0, n, size=(rows, n)) + n * np.arange(rows)[:, None]
        weights = np.bincount(drawn.ravel(), minlength=rows * n).reshape(rows, n)
        for parts, measure in zip(found, measures, strict=True):
            parts.append(measure(weights))
    return [np.concatenate(parts) for parts in found]


def _measure(policy: GatePolicy, scores: Scores) -> Measure:
    """The policy's metric of one model, as a function of how often each record counts."""
    if policy.metric == "r2":
        return _r2(scores)
    if policy.metric == "average_precision":
        assert policy.positive_class is not None  # by GatePolicy
        return _average_precision(scores, policy.positive_class)
    right = _right(scores)
    return lambda weights: np.asarray(weights @ right / len(right), dtype=np.float64)


def _average_precision(scores: Scores, positive_class: str) -> Measure:
    """As `winnow.models.evaluation.average_precision`; a class the model does not know has probability 0."""
    positive = np.asarray(scores.truth, dtype=object) == positive_class
    claimed = np.zeros(len(positive))
    if positive_class in scores.classes:
        claimed = scores.probabilities[:, scores.classes.index(positive_class)].astype(np.float64)
    order = np.argsort(-claimed, kind="stable")
    last = np.append(np.flatnonzero(np.diff(claimed[order])), len(order) - 1)  # of each run of equal probabilities

    def measure(weights: npt.NDArray[Any]) -> Floats:
        drawn = weights[:, order]
        hits = np.cumsum(drawn * positive[order], axis=1)[:, last].astype(np.float64)
        seen = np.cumsum(drawn, axis=1)[:, last]
        found = (np.diff(hits, axis=1, prepend=0.0) * hits / np.maximum(seen, 1)).sum(axis=1)
        total = hits[:, -1]
        values: Floats = np.divide(found, total, out=np.full(len(total), np.nan), where=total > 0)
        return values

    return measure


def _r2(scores: Scores) -> Measure:
    truth = np.asarray(scores.truth, dtype=np.float64)
    assert scores.prediction is not None  # by _unusable
    unit = float(truth.std()) or 1.0  # so that squares of large numbers stay exact
    centred = (truth - truth.mean()) / unit
    columns = np.column_stack([_squares(scores) / unit**2, centred, centred**2])

    def measure(weights: npt.NDArray[Any]) -> Floats:
        sums = weights @ columns
        spread = sums[:, 2] - sums[:, 1] ** 2 / weights.sum(axis=1)
        unexplained = np.full(len(spread), np.nan)
        np.divide(sums[:, 0], spread, out=unexplained, where=spread > _NO_SPREAD * weights.sum(axis=1))
        return 1.0 - unexplained

    return measure


def _squares(scores: Scores) -> Floats:
    assert scores.prediction is not None  # by _unusable
    off: Floats = scores.prediction.astype(np.float64) - np.asarray(scores.truth, dtype=np.float64)
    return off**2


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
    (leaks, schema); hard ones reject. The policy's metric is compared by a paired bootstrap over records (the same draws
    for both models) and, because resampling flatters few disagreements, also by a second test; the larger p-value counts.
    The second test is for accuracy the exact sign test, for R2 the randomisation of which model made which squared error
    (with 50 records and skewed errors the bootstrap alone promotes twice as often as alpha says), and for average
    precision the bootstrap around its own mean (against a champion that says the same of all, resampled rankings look up
    to twenty times as significant as they are). Recall of classes and calibration are checked for classifications only.

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
        metric=policy.metric,
        **facts,
    )


_UNUSABLE = frozenset({"other-evaluation-set", "shape", "not-finite", "no-records", "no-positives", "no-variance"})
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
        found += _unusable_outputs(policy, name, scores)
    lost = sorted(set(champion.classes) - set(challenger.classes))
    if lost:
        detail = f"challenger {challenger.model} does not know the champion's classes {', '.join(lost)}"
        found.append(Reason("missing-classes", detail, "hard", float(len(lost)), 0.0))
    if n < policy.min_records:
        detail = f"{n} evaluation records decide nothing; {policy.min_records} are needed"
        found.append(Reason("few-records", detail, "missing", float(n), float(policy.min_records)))
    if n == 0:
        found.append(Reason("no-records", "the evaluation set is empty", "missing", 0.0, 1.0))
    elif policy.metric == "average_precision":
        found += _few_positives(policy, sum(label == policy.positive_class for label in challenger.truth))
    elif policy.metric == "r2":
        numbers = np.asarray(challenger.truth, dtype=np.float64)
        if not np.isfinite(numbers).all():
            found.append(Reason("not-finite", "the evaluation set holds labels that are NaN or infinite", "missing"))
        elif (numbers == numbers[0]).all():
            detail = f"all {n} evaluation records have the label {numbers[0]:g}; R2 says nothing about them"
            found.append(Reason("no-variance", detail, "missing", 0.0))
    return found


def _unusable_outputs(policy: GatePolicy, name: str, scores: Scores) -> list[Reason]:
    n = len(scores.truth)
    if policy.metric == "r2":
        what, outputs = "predictions", np.empty(0) if scores.prediction is None else scores.prediction
        fits = outputs.shape == (n,)
    else:
        what, outputs = "probabilities", scores.probabilities
        fits = outputs.shape == (n, len(scores.classes)) and len(scores.classes) > 0
    if not fits:
        detail = f"{name} {scores.model} gives {what} of shape {outputs.shape} for {n} records"
        return [Reason("shape", detail, "hard")]
    if not np.isfinite(outputs).all():
        # A champion that cannot be compared is no fault of the challenger, and no support for it either.
        weight: Literal["hard", "missing"] = "hard" if name == "challenger" else "missing"
        return [Reason("not-finite", f"{name} {scores.model} gives {what} that are NaN or infinite", weight)]
    return []


def _few_positives(policy: GatePolicy, positives: int) -> list[Reason]:
    if positives >= policy.min_class_records:
        return []
    detail = (
        f"{positives} evaluation records are of class {policy.positive_class}; average precision of it needs "
        f"{policy.min_class_records}: raise acquisition.arms.evaluation_target"
    )
    code = "few-positives" if positives else "no-positives"
    return [Reason(code, detail, "missing", float(positives), float(policy.min_class_records))]


def _compare(
    policy: GatePolicy, champion: Scores, challenger: Scores, *, alpha: float, rng: np.random.Generator
) -> tuple[dict[str, Any], list[Reason]]:
    n = len(challenger.truth)
    classes = sorted({str(label) for label in challenger.truth}) if challenger.classes else []
    checks = len(classes) + len(policy.recall_floors) + 1
    smallest = min(alpha or 1.0, policy.class_alpha / checks)
    replicates = min(max(policy.replicates, math.ceil(_TAIL_DRAWS / smallest)), _MAX_REPLICATES)
    measures = [_measure(policy, scores) for scores in (champion, challenger)]
    old, new = (float(measure(np.ones((1, n)))[0]) for measure in measures)
    if classes:
        columns = _class_columns(champion, challenger, classes)
        measures.append(lambda weights: np.asarray(weights @ columns, dtype=np.float64))
    before, after, *sums = _replicate(n, replicates, rng, measures)
    gains = np.nan_to_num(after - before)  # a resample that holds nothing to rank, or no variance, shows no gain

    changes = _changes(policy.metric, champion, challenger)

    def p_value(sign: float, above: float) -> float:
        """Of the gain (sign 1) or of the loss (sign -1) being larger than `above` by chance."""
        second = _second_opinion(
            policy.metric, sign * gains, sign * changes, gain=sign * (new - old), above=above, rng=rng
        )
        resampled = (1.0 + float((sign * gains <= above + 1e-12).sum())) / (len(gains) + 1.0)
        return max(resampled, second)

    better = p_value(1.0, policy.min_gain)
    # With a margin below 0 "not better" and "worse" are different questions; worse must mean worse than the margin.
    worse = p_value(-1.0, max(0.0, -policy.min_gain))
    reasons = _metric_reasons(policy, old, new, better=better, worse=worse, alpha=alpha)
    if classes:
        reasons += _classification_reasons(
            policy, classes, columns=columns, sums=sums[0], alpha=policy.class_alpha / checks
        )
    tail = alpha or policy.alpha
    # Two copies of a positive make a resampled ranking look better than it is, and one model's more than the other's.
    around = gains - gains.mean() + new - old if policy.metric == "average_precision" else gains
    low, high = np.quantile(around, [tail, 1 - tail])
    facts = {
        "champion_value": old,
        "challenger_value": new,
        "gain": new - old,
        "gain_interval": (float(low), float(high)),
        "p_value": better,
    }
    return facts, reasons


def _changes(metric: Metric, champion: Scores, challenger: Scores) -> Floats:
    """(n,) what each record adds to the gain, up to a common factor; nothing for a ranking, which has no such parts."""
    if metric == "accuracy":
        return _right(challenger) - _right(champion)
    if metric == "r2":
        return _squares(champion) - _squares(challenger)
    return np.zeros(0)


def _second_opinion(
    metric: Metric, gains: Floats, changes: Floats, *, gain: float, above: float, rng: np.random.Generator
) -> float:
    """The p-value of the metric's second test (see `decide`); 0.0 where there is none for this margin."""
    if metric == "average_precision":
        return (1.0 + float((gains - gains.mean() >= gain - above - 1e-12).sum())) / (len(gains) + 1.0)
    if above != 0.0:
        return 0.0
    if metric == "accuracy":
        return _sign_test(int((changes > 0).sum()), int((changes < 0).sum()))
    return _randomisation_test(changes, len(gains), rng)


def _metric_reasons(
    policy: GatePolicy, old: float, new: float, *, better: float, worse: float, alpha: float
) -> list[Reason]:
    name = _NAMES[policy.metric]
    if better <= alpha:
        detail = f"{name} {old:.3f} to {new:.3f}, better than by {policy.min_gain:g} (p = {better:.4f})"
        return [Reason("better", detail, "supports", better, alpha)]
    if worse <= alpha:
        detail = f"{name} {old:.3f} to {new:.3f} is significantly worse (p = {worse:.4f})"
        return [Reason("worse", detail, "hard", worse, alpha)]
    detail = f"{name} {old:.3f} to {new:.3f}: a change of {new - old:+.3f} may be chance (p = {better:.4f})"
    return [Reason("not-significant", detail, "missing", better, alpha)]


_NAMES: Mapping[Metric, str] = {"accuracy": "accuracy", "average_precision": "average precision", "r2": "R2"}


def _randomisation_test(changes: Floats, replicates: int, rng: np.random.Generator) -> float:
    """How often the sum of changes (n,) with random signs is at least theirs: if the models did not differ, each change
    might as well have been the other way round.

    Source: Fisher, The Design of Experiments, 1935, section 21.
    """
    n, observed, reached = len(changes), float(changes.sum()), 0
    chunk = max(1, _CHUNK_CELLS // n)
    slack = 1e-12 * float(np.abs(changes).sum())
    for start in range(0, replicates, chunk):
        rows = min(chunk, replicates - start)
        kept = rng.integers(0, 2, size=(rows, n), dtype=np.int8) @ changes  # the sum with signs is 2 x kept - observed
        reached += int((2.0 * kept - observed >= observed - slack).sum())
    return (1.0 + reached) / (replicates + 1.0)


def _sign_test(wins: int, losses: int) -> float:
    """P(at least `wins` heads in wins + losses fair tosses), exactly; 1.0 without any toss."""
    n = wins + losses
    logs = [
        math.lgamma(n + 1) - math.lgamma(k + 1) - math.lgamma(n - k + 1) - n * math.log(2.0) for k in range(wins, n + 1)
    ]
    return min(1.0, math.fsum(math.exp(value) for value in logs))


def _class_columns(champion: Scores, challenger: Scores, classes: Sequence[str]) -> Floats:
    """(n, ...) what sums to each class's records, change of hits and hits, and to each calibration bin's gap."""
    truth = np.asarray(challenger.truth, dtype=object)
    old, new = _right(champion), _right(challenger)
    members = np.column_stack([truth == name for name in classes]).astype(np.float64)
    gaps = [_calibration_gaps(champion, old), _calibration_gaps(challenger, new)]
    return np.hstack([members, members * (new - old)[:, None], members * new[:, None], *gaps])


def _classification_reasons(
    policy: GatePolicy, classes: Sequence[str], *, columns: Floats, sums: Floats, alpha: float
) -> list[Reason]:
    """What recall and calibration say against the challenger; `sums` (replicates, ...) are of `_class_columns`."""
    n = len(columns)
    support, recall_change, recall_new = np.split(sums[:, : 3 * len(classes)], 3, axis=1)
    reasons: list[Reason] = []
    for index, name in enumerate(classes):
        reasons += _class_reasons(
            policy,
            name,
            records=int(columns[:, index].sum()),
            losses=recall_change[:, index] / np.maximum(support[:, index], 1.0),
            recalls=recall_new[:, index] / np.maximum(support[:, index], 1.0),
            alpha=alpha,
        )
    ece_old = np.abs(sums[:, -2 * _BINS : -_BINS]).sum(axis=1) / n
    ece_new = np.abs(sums[:, -_BINS:]).sum(axis=1) / n
    worse = float(np.quantile(ece_new - ece_old, alpha))
    bad = float(np.quantile(ece_new, alpha))
    if worse > policy.max_ece_increase and bad > policy.tolerated_ece:
        detail = f"calibration error is at least {bad:.3f} and grew by at least {worse:.3f}; recalibrate"
        reasons.append(Reason("calibration", detail, "hard", worse, policy.max_ece_increase))
    return reasons


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


def _right(scores: Scores) -> Floats:
    """(n,) 1.0 where the most probable class (the first of equals) is the true one."""
    named = np.asarray(scores.classes, dtype=object)[scores.probabilities.argmax(axis=1)]
    return np.asarray(named == np.asarray(scores.truth, dtype=object), dtype=np.float64)


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
