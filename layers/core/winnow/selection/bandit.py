"""Which of several strategies makes the next active arm: they compete, and a batch's labels are the reward.

Rounds are few and their rewards noisy, so everything known is used at once: a Gaussian model of the gains with the errors that
were measured, Thompson's sampling of its posterior, and a floor under every weight that falls with the rounds. An adversarial
bandit (Exp3, Tsallis-INF) would need hundreds of rounds for the same: it knows neither the errors nor that early labels teach
more than late ones, and both are known here.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
import numpy.typing as npt

from winnow.digests import digest

Floats = npt.NDArray[np.float64]

_CHANCE = 0.05
"""How often equal competitors may be called different: over all pairs together, since the first is chosen by the same data."""
_FLOOR = 0.5
"""Share of the draws that all floors together take in the first round; it falls with the root of the rounds, so that what
exploring costs grows as that root."""
_WIDE = 3.0
"""Prior standard deviation of the common gain and of its trend, in typical gains: they are learnt from the rounds alone."""
_APART = 0.5
"""The same of one competitor's own part: published strategies differ by about half of what labels gain."""
_TREND = 1.5
"""Exponent with which gains fall: accuracy often follows a root of the labels, whose slope falls with the power 1.5."""
_LEAST_SCALE = 0.5
"""Points for 100 labels below which gains are not told from each other anyway."""
_DRAWS = 8192
_MOST_ROUNDS = 200
"""More rounds than this nobody will wait for."""


@dataclass(frozen=True)
class Reward:
    """What the labels between two models gained, measured on reward records. One a model, written once."""

    model: str
    gain: float
    """Challenger's metric minus that of the baseline, in points (hundredths of the metric)."""
    error: float
    """Standard error of the gain, paired over the records; above 0."""
    start: int
    """Train labels of the baseline."""
    batches: Mapping[str, tuple[str | None, int]]
    """Batch → the competitor that made its active arm (None: none did), and its train labels that are new."""

    @property
    def labels(self) -> int:
        return sum(count for _, count in self.batches.values())


@dataclass(frozen=True)
class Competitor:
    """How one strategy stands. Gains are points of the metric for 100 new labels at the size of the newest rounds' dataset."""

    name: str
    rounds: int
    labels: int
    gain: float
    error: float
    weight: float
    """Probability with which it makes the next batch's active arm."""

    def to_json(self) -> dict[str, str | int | float]:
        return {name: round(value, 6) if isinstance(value, float) else value for name, value in self.__dict__.items()}


@dataclass(frozen=True)
class Standing:
    """What the rounds say about the competitors, best first."""

    competitors: tuple[Competitor, ...]
    rounds: int
    lead: float
    """Points for 100 labels between the first and the second."""
    lead_error: float
    regret: float
    """Points that the rounds would have gained more, had the first made all of them (estimated)."""
    regret_error: float
    sentence: str

    @property
    def separated(self) -> bool:
        """Whether the lead is more than chance."""
        return self.rounds > 0 and self.lead > _margin(self.lead_error, len(self.competitors))

    @property
    def weights(self) -> dict[str, float]:
        return {one.name: one.weight for one in self.competitors}


def counted(rewards: Collection[Reward]) -> list[Reward]:
    """The rewards that count, in one order: every batch counts once, where it stands with the fewest others.

    So a reward that comes late, twice or in another order changes nothing, and a batch that was measured again together with
    later ones is not paid twice.

    >>> first = Reward("m1", 2.0, 1.0, 100, {"b1": ("margin+top_k", 50)})
    >>> both = Reward("m2", 3.0, 1.0, 100, {"b1": ("margin+top_k", 50), "b2": ("entropy+top_k", 50)})
    >>> [one.model for one in counted([both, first, first])]
    ['m1']
    """
    kept: list[Reward] = []
    seen: set[str] = set()
    unique = {one.model: one for one in rewards if one.labels > 0 and one.start > 0}
    for one in sorted(unique.values(), key=lambda one: (len(one.batches), one.start, one.model)):
        if not seen & set(one.batches):
            seen |= set(one.batches)
            kept.append(one)
    return sorted(kept, key=lambda one: (one.start, one.model))


def standing(rewards: Collection[Reward], names: Sequence[str]) -> Standing:
    """What the rewards say about the competitors `names`, and with which weights the next one is drawn.

    The model: a round's gain is the sum over its labels of a common part, a trend that falls as the dataset grows, and the
    competitor's own part, plus noise of the round's standard error; errors are widened by Birge's ratio when rounds scatter
    more than they say. The weight of a competitor is the probability of being the best (Thompson 1933), mixed with a floor
    of `1 / (2 K sqrt(1 + rounds))` for each of K. Nothing depends on the order of the rewards, and the same give the same.

    Sources: Thompson, On the likelihood that one unknown probability exceeds another, 1933; Russo et al., A Tutorial on
    Thompson Sampling, 2018; Birge, The Calculation of Errors by the Method of Least Squares, 1932.

    >>> better = [Reward(f"a{n}", 3.0, 0.5, 200 + 100 * n, {f"a{n}": ("a+top_k", 100)}) for n in range(4)]
    >>> worse = [Reward(f"b{n}", 1.0, 0.5, 250 + 100 * n, {f"b{n}": ("b+top_k", 100)}) for n in range(4)]
    >>> found = standing([*better, *worse], ["b+top_k", "a+top_k"])
    >>> [one.name for one in found.competitors], found.separated, found.weights["a+top_k"] > 0.8
    (['a+top_k', 'b+top_k'], True, True)
    >>> found.sentence
    'after 8 rounds a+top_k leads by 1.9 ± 0.7 points per 100 labels: separated'
    >>> standing([], ["a+top_k", "b+top_k"]).sentence
    'no round was measured yet: nothing tells the competitors apart'
    """
    rounds = [one for one in counted(rewards) if any(name in names for name, _ in one.batches.values())]
    mean, covariance = _posterior(rounds, names)
    best = _shares_of_best(mean, covariance, rounds)
    floor = _FLOOR / (len(names) * math.sqrt(1 + len(rounds)))
    weights = floor + (1 - floor * len(names)) * best
    order = sorted(range(len(names)), key=lambda place: (-mean[place + 2], names[place]))
    common = mean[0] + mean[1]
    competitors = tuple(
        Competitor(
            names[place], sum(_labels(one, names[place]) > 0 for one in rounds),
            sum(_labels(one, names[place]) for one in rounds), float(common + mean[place + 2]),
            _error(covariance, {0: 1.0, 1: 1.0, place + 2: 1.0}), float(weights[place]),
        )
        for place in order
    )  # fmt: skip
    lead = lead_error = regret = regret_error = 0.0
    if len(names) > 1 and rounds:
        first, second = order[0] + 2, order[1] + 2
        lead, lead_error = float(mean[first] - mean[second]), _error(covariance, {first: 1.0, second: -1.0})
        missed = {place + 2: -sum(_labels(one, names[place]) for one in rounds) / 100 for place in range(len(names))}
        missed[first] -= sum(missed.values())
        regret = float(sum(share * mean[place] for place, share in missed.items()))
        regret_error = _error(covariance, missed)
    sentence = _sentence(competitors, len(rounds), lead, lead_error)
    return Standing(competitors, len(rounds), lead, lead_error, regret, regret_error, sentence)


def draw(weights: Mapping[str, float], *, rng: np.random.Generator) -> str:
    """One competitor, each with its weight.

    >>> draw({"a+top_k": 1.0, "b+top_k": 0.0}, rng=np.random.default_rng(0))
    'a+top_k'
    """
    names = sorted(weights)
    shares = np.array([weights[name] for name in names])
    return names[int(rng.choice(len(names), p=shares / shares.sum()))]


def _labels(one: Reward, name: str) -> int:
    return sum(count for made_by, count in one.batches.values() if made_by == name)


def _posterior(rounds: Sequence[Reward], names: Sequence[str]) -> tuple[Floats, Floats]:
    """Mean (2 + K,) and covariance of the common gain, the trend and each competitor's own part, points for 100 labels."""
    size = 2 + len(names)
    if not rounds:
        prior = _LEAST_SCALE**2 * np.array([_WIDE**2] * 2 + [_APART**2] * len(names))
        return np.zeros(size), np.diag(prior)
    gains = np.array([one.gain for one in rounds])
    errors = np.array([max(one.error, 1e-6) for one in rounds])
    hundreds = np.array([one.labels / 100 for one in rounds])
    middles = np.array([one.start + one.labels / 2 for one in rounds])
    trend = (middles.max() / middles) ** _TREND
    own = np.array([[_labels(one, name) / 100 for name in names] for one in rounds])
    columns = np.column_stack([hundreds, hundreds * trend, own])
    # What labels gain: the median, which noise leaves where it is and one spoilt round does too.
    scale = max(_LEAST_SCALE, abs(float(np.median(gains / hundreds))))
    precision = np.diag(1 / scale**2 / np.array([_WIDE**2] * 2 + [_APART**2] * len(names)))

    def solve(widened: float) -> tuple[Floats, Floats]:
        weighted = columns / (errors * widened)[:, None]
        covariance = np.linalg.inv(weighted.T @ weighted + precision)
        return covariance @ (weighted.T @ (gains / (errors * widened))), covariance

    mean, covariance = solve(1.0)
    free = len(rounds) - size
    if free >= 2:
        scatter = float(np.sum(((gains - columns @ mean) / errors) ** 2)) / free
        if scatter > 1.0:
            mean, covariance = solve(math.sqrt(scatter))
    return mean, covariance


def _error(covariance: Floats, shares: Mapping[int, float]) -> float:
    """Standard error of a sum of parameters, each with its factor."""
    vector = np.zeros(len(covariance))
    for place, share in shares.items():
        vector[place] = share
    return math.sqrt(max(0.0, float(vector @ covariance @ vector)))


def _shares_of_best(mean: Floats, covariance: Floats, rounds: Sequence[Reward]) -> Floats:
    """(K,) how often each competitor is the best of a draw from the posterior."""
    count = len(mean) - 2
    if count == 1 or not rounds:
        return np.full(count, 1 / count)
    rng = np.random.default_rng(int(digest([one.model for one in rounds], length=12), 16))
    root = np.linalg.cholesky(covariance[2:, 2:] + 1e-12 * np.eye(count))
    normal = rng.standard_normal((_DRAWS // 2, count))
    draws = mean[2:] + np.vstack([normal, -normal]) @ root.T
    return np.bincount(draws.argmax(axis=1), minlength=count) / len(draws)


def _sentence(competitors: Sequence[Competitor], rounds: int, lead: float, error: float) -> str:
    if len(competitors) == 1:
        return f"{competitors[0].name} competes with nobody"
    if rounds == 0:
        return "no round was measured yet: nothing tells the competitors apart"
    after = f"after {rounds} round{'s' if rounds > 1 else ''} {competitors[0].name}"
    margin = _margin(error, len(competitors))
    text = f"{after} leads by {lead:.1f} ± {margin:.1f} points per 100 labels"
    if lead > margin:
        return f"{text}: separated"
    return f"{text}: not separated; {_needed(rounds, lead, margin)}"


def _margin(error: float, competitors: int) -> float:
    """How large a lead between K competitors may be by chance (Bonferroni over their pairs)."""
    return error * NormalDist().inv_cdf(1 - _CHANCE / max(2, competitors * (competitors - 1)))


def _needed(rounds: int, lead: float, margin: float) -> str:
    """How many rounds more would show a lead of this size: the margin falls with their root."""
    if lead <= 0.0 or rounds * ((margin / lead) ** 2 - 1) > _MOST_ROUNDS:
        return f"a lead this small would need more than {_MOST_ROUNDS} more rounds"
    more = max(1, math.ceil(rounds * ((margin / lead) ** 2 - 1)))
    return f"needs about {more} more round{'s' if more > 1 else ''}"
