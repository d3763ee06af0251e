"""How one batch is composed: evaluation, reward, control, rare and active arms, out of one pool of candidates.

The arms that judge (evaluation, reward, control) take the lowest uniform keys of their role and nothing else, so that
they stay uniform samples of the pool; the arms that choose (rare, active) divide what is left of the train role.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from winnow.errors import BadInput, ConfigError
from winnow.records import Arm
from winnow.selection import SELECTORS, Pool
from winnow.selection.active import choose
from winnow.selection.distances import Floats
from winnow.selection.selector import Indices
from winnow.selection.top_k import top_k

UNIFORM = "uniform"
"""Strategy noted on picks that are a uniform sample; their score is the uniform key."""

_OUTPUTS = ("probabilities", "members")


@dataclass(frozen=True)
class ArmPolicy:
    """How a batch is divided. What the shares leave is the active arm's."""

    strategy: str
    """Name of the strategy the candidates' scores came from."""
    selector: str
    """Makes the active arm once a trained champion scores the pool."""
    cold_selector: str = "kmeans"
    """Makes the active arm while the champion is the bootstrap model, whose probabilities say nothing."""
    control: float = 0.15
    """Share chosen uniformly: what random selection would have bought, without which no gain can be shown."""
    rare: float = 0.0
    """Share for records predicted to be of a rare class, so that uncertainty does not starve them."""
    rare_classes: tuple[str, ...] = ()
    evaluation_target: int = 300
    """Labeled evaluation records to collect in all; a gate with 20 decides nothing."""
    evaluation_share: float = 0.5
    """Largest share of a batch for evaluation until the target is met: front-loaded, but never the whole batch."""
    reward: float = 0.0
    """Share for the records that strategies are compared on."""
    near_duplicate_distance: float = 0.02
    """Cosine distance under which two records of the active arm count as one; 0 switches the check off."""

    def __post_init__(self) -> None:
        for name in ("control", "rare", "evaluation_share", "reward"):
            if not 0.0 <= getattr(self, name) <= 1.0:
                raise ConfigError(f"arm share {name} is {getattr(self, name)}; it must be in 0..1")
        for name in ("selector", "cold_selector"):
            if getattr(self, name) not in SELECTORS:
                known = ", ".join(sorted(SELECTORS))
                raise ConfigError(f"{name} {getattr(self, name)!r} is unknown; choose one of {known}")
        if SELECTORS[self.cold_selector].needs - {"embedding"}:
            raise ConfigError(f"cold_selector {self.cold_selector} needs scores, which a bootstrap model cannot give")


@dataclass(frozen=True, eq=False)
class ScoredPool:
    """n records that may be asked for, as columns."""

    ids: Sequence[str]
    roles: Sequence[str]
    keys: npt.NDArray[np.float64]
    """(n,) uniform keys in [0, 1)."""
    clusters: Sequence[str]
    """Near-duplicate cluster digests; of one cluster at most one record is asked."""
    scores: npt.NDArray[np.float32]
    """(n,) of the policy's strategy, higher = more worth labeling; ignored in the cold phase."""
    embedding: Floats
    """(n, dim)."""
    predicted: Sequence[str] | None = None
    """The champion's class for each record; None for a regression, where nothing is of a rare class."""
    confidence: npt.NDArray[np.float32] | None = None
    """(n,) probability of the predicted class; None for a regression."""
    worth: npt.NDArray[np.float32] | None = None
    """(n,) factors of the scores in the active arm, for classes with few labels (`class_worth`)."""
    excluded: npt.NDArray[np.bool_] | None = None
    """(n,) True where a record is reserved, labeled or otherwise not to be asked."""
    labeled: Floats | None = None
    """(m, dim) embeddings of labeled train records, which selectors need not repeat."""
    probabilities: Floats | None = None
    """(n, classes), for selectors that need them."""
    members: Floats | None = None
    """(n, members, classes), likewise."""

    def __post_init__(self) -> None:
        n = len(self.ids)
        columns = ("roles", "keys", "clusters", "scores", "embedding", "predicted", "confidence", "worth", "excluded")
        for name in (*columns, *_OUTPUTS):
            column = getattr(self, name)
            if column is not None and len(column) != n:
                raise BadInput(f"{n} candidate ids but {len(column)} {name}", code="candidates-shape")


@dataclass(frozen=True)
class Choice:
    """One record of the batch and why it is in it. `rank` counts from 1 within its arm."""

    id: str
    arm: Arm
    strategy: str
    score: float | None
    """Strategy's score; the uniform key for uniform picks; None where the cold phase has no score."""
    rank: int


def ranked(choices: Iterable[Choice]) -> list[Choice]:
    """The choices in their order, with ranks from 1 within each arm."""
    places: Counter[Arm] = Counter()
    found = []
    for choice in choices:
        places[choice.arm] += 1
        found.append(replace(choice, rank=places[choice.arm]))
    return found


def divide(k: int, policy: ArmPolicy, *, evaluation_labeled: int) -> dict[Arm, int]:
    """Places of each arm in a batch of k, evaluation first; they sum to k.

    Shares apply to the whole batch and are rounded by largest remainder; an arm with a share gets one place at least
    while the batch has room. Evaluation never gets more than its target still lacks.

    >>> policy = ArmPolicy("margin", "top_k", control=0.2, evaluation_target=300, evaluation_share=0.5)
    >>> divide(10, policy, evaluation_labeled=0)
    {'evaluation': 5, 'reward': 0, 'control': 2, 'rare': 0, 'active': 3}
    >>> divide(10, policy, evaluation_labeled=299)
    {'evaluation': 1, 'reward': 0, 'control': 2, 'rare': 0, 'active': 7}
    """
    lacking = max(0, policy.evaluation_target - evaluation_labeled)
    shares: dict[Arm, float] = {
        "evaluation": min(k * policy.evaluation_share, lacking),
        "reward": k * policy.reward,
        "control": k * policy.control,
        "rare": k * policy.rare if policy.rare_classes else 0.0,
    }
    asked = sum(shares.values())
    scale = min(1.0, k / asked) if asked > 0.0 else 0.0
    places: dict[Arm, int] = {arm: int(share * scale) for arm, share in shares.items()}
    left = k - sum(places.values())
    by_remainder = sorted(shares, key=lambda arm: shares[arm] * scale - places[arm], reverse=True)
    extra = round(sum(shares.values()) * scale) - sum(places.values())
    for arm in by_remainder[: min(max(extra, 0), left)]:
        places[arm] += 1
    for arm, share in shares.items():
        if share > 0.0 and places[arm] == 0 and sum(places.values()) < k:
            places[arm] = 1
    return {**places, "active": k - sum(places.values())}


class _Draft:
    """The batch so far: which rows are taken, and which rows may still be."""

    def __init__(self, candidates: ScoredPool, order: Indices) -> None:
        n = len(order)
        self.candidates = candidates
        self.order = order
        """Rows of the candidates by uniform key; everything below works in positions of this order."""
        self.roles = np.asarray(candidates.roles, dtype=object)[order]
        _, self.cluster = np.unique(np.asarray(candidates.clusters, dtype=str)[order], return_inverse=True)
        self.scores = candidates.scores[order]
        self.free = np.ones(n, dtype=bool) if candidates.excluded is None else ~candidates.excluded[order]
        self.choices: list[Choice] = []
        self._ranks: dict[Arm, int] = {}

    def open(self, role: str) -> Indices:
        """Positions of a role that may be taken, by uniform key, one of each cluster (the lowest key)."""
        positions = np.flatnonzero(self.free & (self.roles == role))
        _, first = np.unique(self.cluster[positions], return_index=True)
        return positions[np.sort(first)]

    def best_open(self, role: str) -> Indices:
        """The same with the best-scored record of each cluster, still by uniform key."""
        positions = np.flatnonzero(self.free & (self.roles == role))
        by_score = positions[np.argsort(-self.scores[positions], kind="stable")]
        _, first = np.unique(self.cluster[by_score], return_index=True)
        return np.sort(by_score[first])

    def take(self, positions: Indices, *, arm: Arm, strategy: str, scores: Sequence[float | None]) -> None:
        for position, score in zip(positions, scores, strict=True):
            self._ranks[arm] = rank = self._ranks.get(arm, 0) + 1
            name = str(self.candidates.ids[int(self.order[position])])
            self.choices.append(Choice(name, arm, strategy, score, rank))
        self.free &= ~np.isin(self.cluster, self.cluster[positions])

    def take_uniform(self, places: int, *, arm: Arm, role: str) -> int:
        """Take the lowest keys of a role; returns how many there were."""
        positions = self.open(role)[:places]
        keys = self.candidates.keys[self.order[positions]]
        self.take(positions, arm=arm, strategy=UNIFORM, scores=[float(key) for key in keys])
        return len(positions)

    def embedding(self, positions: Indices) -> Floats:
        return self.candidates.embedding[self.order[positions]].astype(np.float32, copy=False)

    def outputs(self, name: str, positions: Indices) -> Floats | None:
        values: Floats | None = getattr(self.candidates, name)
        return None if values is None else values[self.order[positions]].astype(np.float32, copy=False)


def plan_arms(
    candidates: ScoredPool,
    k: int,
    *,
    policy: ArmPolicy,
    rng: np.random.Generator,
    evaluation_labeled: int = 0,
    bootstrap: bool = False,
) -> list[Choice]:
    """A batch of at most k different records, never two of one cluster; the same seed gives the same batch.

    `evaluation_labeled` counts the evaluation records labeled or being labeled; `bootstrap` says that the champion
    knows nothing yet, so the active arm covers the pool (and the rare arm, which would trust predictions, stays empty).
    Places an arm cannot fill go to the active arm, and what that cannot fill goes to control; fewer than k come back
    when the train role runs out. The order of the candidates does not matter: they are put in the order of their
    uniform keys first.

    Raises BadInput when the columns of the candidates disagree in length or hold NaN.
    """
    order = np.lexsort((np.asarray(candidates.ids, dtype=str), candidates.keys)).astype(np.int64)
    draft = _Draft(candidates, order)
    places = divide(max(k, 0), policy, evaluation_labeled=evaluation_labeled)
    filled = draft.take_uniform(places["evaluation"], arm="evaluation", role="evaluation")
    filled += draft.take_uniform(places["reward"], arm="reward", role="reward")
    filled += draft.take_uniform(places["control"], arm="control", role="train")
    if not bootstrap:
        filled += _take_rare(draft, places["rare"], policy=policy)
    filled += _take_active(draft, max(k, 0) - filled, policy=policy, bootstrap=bootstrap, rng=rng)
    draft.take_uniform(max(k, 0) - filled, arm="control", role="train")
    return draft.choices


def _take_rare(draft: _Draft, places: int, *, policy: ArmPolicy) -> int:
    """Best scores among records predicted rare, the classes in turn, so that the commonest does not take all."""
    if draft.candidates.predicted is None:
        return 0
    predicted = np.asarray(draft.candidates.predicted, dtype=object)[draft.order]
    open_rows = draft.best_open("train")
    queues = []
    for name in policy.rare_classes:
        positions = open_rows[predicted[open_rows] == name]
        queues.append(iter(positions[top_k(draft.scores[positions], len(positions))]))
    taken = 0
    while queues and taken < places:
        queue = queues.pop(0)
        position = next((row for row in queue if draft.free[row]), None)
        if position is not None:
            score = float(draft.scores[position])
            draft.take(np.array([position]), arm="rare", strategy=policy.strategy, scores=[score])
            taken += 1
            queues.append(queue)
    return taken


def _take_active(draft: _Draft, places: int, *, policy: ArmPolicy, bootstrap: bool, rng: np.random.Generator) -> int:
    name = policy.cold_selector if bootstrap else policy.selector
    positions = draft.open("train") if bootstrap else draft.best_open("train")
    confidence, worth = draft.candidates.confidence, draft.candidates.worth
    scores = draft.scores[positions] if worth is None else draft.scores[positions] * worth[draft.order[positions]]
    pool = Pool(
        len(positions),
        scores=None if bootstrap else scores,
        embedding=draft.embedding(positions),
        labeled=draft.candidates.labeled,
        probabilities=draft.outputs("probabilities", positions),
        members=draft.outputs("members", positions),
        confidence=None if bootstrap or confidence is None else confidence[draft.order[positions]],
    )
    rows = choose(pool, places, selector=name, rng=rng, near_duplicate_distance=policy.near_duplicate_distance)
    chosen = positions[rows]
    noted = [None if bootstrap else float(score) for score in draft.scores[chosen]]
    strategy = f"coverage:{name}" if bootstrap else policy.strategy
    draft.take(chosen, arm="active", strategy=strategy, scores=noted)
    return len(chosen)
