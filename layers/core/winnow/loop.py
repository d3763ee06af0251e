"""`loop.yaml`: what a team decides about its loop. Validated as a whole; every field has a default and a sentence.

Unknown keys are refused, so that a misspelled budget is an error and not a silent default.
"""

from __future__ import annotations

from decimal import Decimal
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError, field_validator, model_validator

from winnow.acquisition import DEFAULTS, STRATEGIES, check_choice
from winnow.errors import ConfigError
from winnow.records import Kind
from winnow.selection import SELECTING, SELECTORS
from winnow.selection.quotas import LONGEST_SLICE, PREDICTED, split
from winnow.selection.selector import PoolNeed
from winnow.tables import MAX_NAME, RESERVED, ColumnKind

Share = Annotated[float, Field(ge=0.0, le=1.0)]
ClassName = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=256)]
ColumnName = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=MAX_NAME)]
GroupName = Annotated[str, StringConstraints(strip_whitespace=True, min_length=3)]
Finite = Annotated[float, Field(allow_inf_nan=False)]
Metric = Literal["accuracy", "average_precision", "r2"]


LEAST_CONTROL = 0.05
"""Share of the control arm where strategies compete: that one beats another is no proof that either beats chance."""

REWARD_SHARE = 0.1
"""Share of a batch for reward records where strategies compete and nothing else is said: ten batches of 100 give 100, which
measure a gain of models that differ on a fifth of them to about 4 points."""

CONSENSUS = {"classification": ("majority", "dawid_skene"), "regression": ("median", "weighted_mean")}
"""How the answers of a task may become a label; the first is the default."""


class Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Task(Section):
    """What is to be learned."""

    kind: Kind = Field("text", description="What a record is.")
    type: Literal["classification", "regression"] = Field(
        "classification", description="Whether the answer is a class or, for tables, a number."
    )
    classes: tuple[ClassName, ...] = Field(
        ("negative", "positive"),
        max_length=1000,
        description="Every answer an annotator may give, in order; absent for regression.",
    )
    columns: dict[ColumnName, ColumnKind] = Field(
        default_factory=dict,
        max_length=10_000,
        description="Tables: the columns models see, each number or category; empty means all, kinds found in training.",
    )
    unit: str = Field("", max_length=32, description="Regression: shown behind the number, such as USD.")
    minimum: Finite | None = Field(None, description="Regression: smaller answers are refused.")
    maximum: Finite | None = Field(None, description="Regression: larger answers are refused.")
    tolerance: Share = Field(
        0.1, description="Regression: answers agree when they differ by at most this share of the larger one."
    )
    title: str = Field("Choose the class", min_length=1, max_length=128, description="Headline the annotator sees.")
    guideline: str = Field(
        "Choose the one class that fits best.", min_length=1, max_length=20_000,
        description="How to decide, shown beside every item; its digest is kept with every label.",
    )  # fmt: skip
    rare_classes: tuple[ClassName, ...] = Field((), description="Classes that get a quota of their own in each batch.")
    positive_class: ClassName | None = Field(
        None, description="Class that average precision is about; null means the first rare class."
    )
    show_prediction: bool = Field(False, description="Whether annotators see the model's guess (it biases them).")

    @model_validator(mode="before")
    @classmethod
    def _defaults_that_depend(cls, body: Any) -> Any:
        """What a field left out means where it depends on another one."""
        if not isinstance(body, dict):
            return body
        body = dict(body)
        if body.get("type") == "regression":
            body.setdefault("classes", ())
            body.setdefault("title", "Give the number")
            body.setdefault("guideline", "Give the number that fits best.")
        elif body.get("positive_class") is None and isinstance(body.get("rare_classes"), list | tuple):
            body["positive_class"] = next(iter(body["rare_classes"]), None)
        return body

    @model_validator(mode="after")
    def _consistent(self) -> Task:
        if self.type == "regression":
            return self._consistent_regression()
        if len(self.classes) < 2:
            raise ValueError("classes: there is nothing to choose from; list at least two")
        if len(set(self.classes)) != len(self.classes):
            raise ValueError("classes: names repeat; list every class once")
        unknown = sorted(set(self.rare_classes) - set(self.classes))
        if unknown:
            raise ValueError(f"rare_classes: {unknown} are not among classes; add them there or remove them here")
        if self.positive_class is not None and self.positive_class not in self.classes:
            raise ValueError(f"positive_class: {self.positive_class!r} is not among classes; name one of them")
        for name in ("unit", "minimum", "maximum"):
            if getattr(self, name) not in ("", None):
                raise ValueError(f"{name}: only for regression; remove it or set type: regression")
        return self._consistent_columns()

    def _consistent_regression(self) -> Task:
        if self.kind != "table":
            raise ValueError(f"type: regression needs kind: table in this version, not {self.kind}")
        for name in ("classes", "rare_classes", "positive_class"):
            if getattr(self, name):
                raise ValueError(f"{name}: a number has no classes; remove it or set type: classification")
        if self.minimum is not None and self.maximum is not None and self.minimum >= self.maximum:
            raise ValueError("minimum is not below maximum; no answer would be accepted")
        return self._consistent_columns()

    def _consistent_columns(self) -> Task:
        if self.columns and self.kind != "table":
            raise ValueError(f"columns: only for kind: table, not {self.kind}; remove it")
        reserved = sorted(set(self.columns) & set(RESERVED))
        if reserved:
            raise ValueError(f"columns: {reserved} say something about a row and are never features; remove them")
        return self


class Arms(Section):
    """How a batch is divided. What is left after the shares below is the active arm's."""

    control: Share = Field(0.15, description="Share chosen uniformly: what random selection would have bought.")
    rare: Share = Field(0.0, description="Share for records predicted to be of a rare class.")
    recheck: Share = Field(
        0.05,
        description="Largest share of a batch for labels that look wrong, asked again where that is worth more than a new "
        "record; of classes only.",
    )
    synthesis: Share = Field(
        0.0,
        description="Largest share of a batch for records made of two others (texts, tables); people label them as any.",
    )
    evaluation_target: int = Field(300, ge=20, le=100_000, description="Labeled evaluation records to collect in all.")
    evaluation_share: Share = Field(
        0.5, description="Largest share of a batch spent on evaluation until the target is met; early gates need it."
    )
    reward_share: Share = Field(0.0, description="Share for the records that strategies are compared on.")

    @model_validator(mode="after")
    def _leaves_room(self) -> Arms:
        if self.control + self.rare + self.reward_share + self.recheck + self.synthesis > 0.9:
            raise ValueError(
                "control + rare + reward_share + recheck + synthesis: more than 0.9 leaves nothing to choose actively; "
                "lower one"
            )
        return self


class Acquisition(Section):
    """Which records are worth a person's time."""

    strategy: str = Field(
        "margin",
        description="Score of the active arm once a trained champion exists; of regression by default variance.",
    )
    selector: str = Field(
        SELECTING["classification"]["selector"],
        description="How a batch is made of the scores; of regression by default stratified.",
    )
    competing: tuple[str, ...] = Field(
        (),
        max_length=8,
        description="Strategies that compete for the active arm, each `strategy+selector`; empty means the two above alone.",
    )
    balance: bool = Field(
        True, description="Whether a record counts for more in the active arm where its predicted class has few labels."
    )
    per_minute: bool = Field(
        False, description="Whether a record's value is divided by the minutes it needs (its `cost`)."
    )
    quotas: dict[GroupName, Share] = Field(
        default_factory=dict,
        max_length=50,
        description="Least share of a batch by slice (`lang=de: 0.1`) or predicted class (`predicted=refund: 0.05`).",
    )
    cold_start: str = Field(
        SELECTING["classification"]["cold_start"],
        description="Selector of the coverage phase: until doubt is known to tell; of regression by default stratified.",
    )
    candidates_per_object: int = Field(1000, ge=10, le=20_000, description="Best-scored records forwarded per object.")
    uniform_per_object: int = Field(
        1000, ge=10, le=20_000, description="Lowest uniform keys forwarded per object and role."
    )
    candidates_per_day: int = Field(
        10_000, ge=0, le=1_000_000,
        description="Candidates forwarded a day for their score once more records than this arrive; 0 means no limit.",
    )  # fmt: skip
    near_duplicate_distance: float = Field(
        0.02,
        ge=0.0,
        le=2.0,
        description="Records nearer than this (cosine distance) are asked once a batch; of tables by default 0, which asks all.",
    )
    min_fresh_share: Share = Field(0.9, description="Share of the pool the champion must have scored before selecting.")
    arms: Arms = Field(default_factory=Arms, description="Division of a batch.")

    @model_validator(mode="before")
    @classmethod
    def _share_to_compete_on(cls, body: Any) -> Any:
        """Competitors are compared on reward records, so some are asked unless a share is given."""
        if not isinstance(body, dict) or not body.get("competing"):
            return body
        arms = body.get("arms", {})
        return {**body, "arms": {"reward_share": REWARD_SHARE, **arms}} if isinstance(arms, dict) else body

    @field_validator("competing")
    @classmethod
    def _known_competitors(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        for name in names:
            strategy, _, selector = name.partition("+")
            if strategy not in STRATEGIES or selector not in SELECTORS:
                raise ValueError(
                    f"{name!r} is no strategy+selector, such as margin+margin_kmeans; strategies: "
                    f"{', '.join(sorted(STRATEGIES))}; selectors: {', '.join(sorted(SELECTORS))}"
                )
        if len(set(names)) != len(names) or len(names) == 1:
            raise ValueError("a competition needs two different strategies at least; leave it empty to have none")
        return names

    @model_validator(mode="after")
    def _can_be_compared(self) -> Acquisition:
        if self.competing and self.arms.reward_share == 0.0:
            raise ValueError(
                "competing strategies are compared on reward records, but arms.reward_share is 0; "
                f"set it to {REWARD_SHARE} or leave it out"
            )
        if self.competing and self.arms.control < LEAST_CONTROL:
            raise ValueError(
                f"competing strategies may not starve the control arm, but arms.control is {self.arms.control:g}; "
                f"set it to {LEAST_CONTROL} at least"
            )
        return self

    @property
    def strategies(self) -> tuple[str, ...]:
        """Names of the strategies whose scores selection may ask for, each once."""
        return tuple(dict.fromkeys((self.strategy, *(name.partition("+")[0] for name in self.competing))))

    @field_validator("strategy")
    @classmethod
    def _known_strategy(cls, name: str) -> str:
        if name not in STRATEGIES:
            raise ValueError(f"strategy {name!r} is unknown; choose one of {', '.join(sorted(STRATEGIES))}")
        return name

    @field_validator("quotas")
    @classmethod
    def _possible_quotas(cls, quotas: dict[str, float]) -> dict[str, float]:
        asked: dict[str, float] = {}
        for group, share in quotas.items():
            try:
                name, value = split(group)
            except ConfigError as error:
                raise ValueError(str(error)) from error
            if name != PREDICTED and len(name) + len(value) > LONGEST_SLICE:
                raise ValueError(f"{group!r} is longer than the {LONGEST_SLICE} characters that are kept of a slice")
            asked[name] = asked.get(name, 0.0) + share
        for name, total in asked.items():
            if total > 1.0 + 1e-9:
                raise ValueError(f"the shares of {name} add up to {total:g}; a batch has no more than 1, lower one")
        return quotas

    @property
    def reads(self) -> frozenset[str]:
        """Outputs of the model that selection itself reads, so that candidates carry them along."""
        selectors = (self.selector, self.cold_start, *(name.partition("+")[2] for name in self.competing))
        chosen = {str(need) for name in selectors for need in SELECTORS[name].needs}
        pooled = [STRATEGIES[name].needs for name in self.strategies if STRATEGIES[name].scope == "pool"]
        return frozenset({"probabilities", "members"} & chosen.union(*pooled))

    @field_validator("selector", "cold_start")
    @classmethod
    def _known_selector(cls, name: str) -> str:
        if name not in SELECTORS:
            raise ValueError(f"selector {name!r} is unknown; choose one of {', '.join(sorted(SELECTORS))}")
        return name


class Batches(Section):
    """How large a batch is."""

    size: int = Field(100, ge=1, le=100_000, description="Records asked in one batch.")
    min_size: int = Field(10, ge=1, le=100_000, description="A smaller batch is not worth a job; wait instead.")
    minutes: float | None = Field(
        None,
        gt=0.0,
        le=1_000_000.0,
        description="Most minutes that the records of a batch may need (their `cost`, one answer each); null: no limit.",
    )
    max_open: int = Field(1, ge=1, le=20, description="Labeling batches open at once.")
    adaptive: bool = Field(
        False,
        description="Whether batches shrink, from size to min_size, with throughput, queue age, budget and clear gains.",
    )

    @model_validator(mode="after")
    def _ordered(self) -> Batches:
        if self.min_size > self.size:
            raise ValueError("min_size is above size; lower it")
        return self


class Budget(Section):
    """What labels may cost; a hard limit under every duplicate."""

    total_usd: Decimal = Field(Decimal(1000), ge=0, le=10_000_000, description="All money for labels.")
    price_per_answer_usd: Decimal = Field(
        Decimal("0.08"), ge=0, le=1000, description="One annotator's answer to one item."
    )
    expert_price_per_answer_usd: Decimal = Field(Decimal("0.50"), ge=0, le=1000, description="One expert's answer.")
    gain_worth_usd: Decimal | None = Field(
        None,
        gt=0,
        le=10_000_000,
        description="What a point (a hundredth) of the gate's metric is worth; a batch worth less is not asked. Null: no limit.",
    )


class Quality(Section):
    """When a label is believed."""

    workers_per_item: int = Field(3, ge=1, le=9, description="Annotators asked per item.")
    consensus: Literal["majority", "dawid_skene", "median", "weighted_mean"] = Field(
        "majority", description="How answers become a label; of regression median (the default) or weighted_mean."
    )
    min_confidence: float = Field(0.6, ge=0.0, le=1.0, description="A consensus below this goes to experts.")
    expert_workers: int = Field(1, ge=1, le=9, description="Experts asked per disputed item.")
    disputes: bool = Field(True, description="Whether disputed items are asked of experts at all.")


class Labeling(Section):
    """Where the answers come from."""

    backend: Literal["groundtruth"] = Field("groundtruth", description="The labeling backend.")
    task_seconds: int = Field(600, ge=30, le=28_800, description="Time an annotator has for one item.")
    lifetime_hours: int = Field(120, ge=1, le=720, description="After this an unanswered item expires.")


class TrainingPolicy(Section):
    """When and how a challenger is trained."""

    min_labels: int = Field(20, ge=2, le=1_000_000, description="Train-role labels needed before the first training.")
    min_new_labels: int = Field(
        5, ge=0, le=1_000_000, description="New train labels that make another challenger worth it."
    )
    members: int = Field(4, ge=0, le=16, description="Committee members beside the main head.")
    seed: int = Field(0, ge=0, le=2**31 - 1, description="Seed of the fit; the same data and seed give the same model.")
    encoder: str | None = Field(
        None,
        pattern=r"^[a-z][a-z0-9-]{0,31}$",
        description="Encoder of texts or images, by the name it was imported under.",
    )
    instance: str = Field("ml.m5.large", pattern=r"^ml\.[a-z0-9-]+\.[a-z0-9]+$", description="Training instance type.")
    max_minutes: int = Field(60, ge=1, le=1440, description="Training is stopped after this.")
    synthetic: bool = Field(
        True,
        description="Whether labeled synthetic records are learned from; false removes them from every later dataset.",
    )
    spot: bool = Field(False, description="Use spot capacity.")


class Gate(Section):
    """What a challenger must prove. Reasons stand with the thresholds in `winnow.models.gate`."""

    metric: Literal["auto"] | Metric = Field(
        "auto", description="What must not get worse: auto is r2 for regression, else accuracy."
    )
    alpha: float = Field(0.1, gt=0.0, lt=0.5, description="Total error probability over all planned looks.")
    planned_looks: int = Field(20, ge=1, le=1000, description="Gate decisions the evaluation set is meant to last for.")
    min_records: int = Field(50, ge=10, le=1_000_000, description="Fewer evaluation records decide nothing.")
    min_gain: float = Field(0.0, ge=-0.2, le=0.5, description="How much better the metric must be.")
    class_floor: float = Field(0.15, ge=0.0, le=1.0, description="No class may lose more recall than this.")
    max_ece_increase: float = Field(0.1, ge=0.0, le=1.0, description="Calibration may not get worse by more than this.")


class RolloutPolicy(Section):
    """How the endpoint moves to a new model, and what sends it back."""

    instance: str = Field("ml.m5.large", pattern=r"^ml\.[a-z0-9-]+\.[a-z0-9]+$", description="Serving instance type.")
    instances: int = Field(2, ge=1, le=100, description="Serving instances; a canary needs two.")
    canary_percent: int = Field(10, ge=1, le=50, description="Capacity that gets the new model first.")
    bake_minutes: int = Field(30, ge=0, le=60, description="How long the canary is watched.")
    termination_minutes: int = Field(5, ge=0, le=60, description="How long the old fleet is kept after the shift.")
    max_quality_drop: float = Field(
        0.15, ge=0.0, le=1.0, description="Served accuracy this far under the gate's estimate trips the canary alarm."
    )
    min_feedback: int = Field(5, ge=1, le=1000, description="Judged predictions in a period before quality can alarm.")
    max_error_rate: float = Field(0.05, ge=0.0, le=1.0, description="Share of failed invocations that trips the alarm.")
    max_latency_ms: int = Field(2000, ge=1, le=60_000, description="p90 model latency that trips the alarm.")
    capture_percent: int = Field(100, ge=0, le=100, description="Share of requests captured for watching production.")


class Privacy(Section):
    """What annotators and models may see."""

    mask: bool = Field(True, description="Mask personal data in text before anything else sees it.")
    salt: str = Field("winnow", min_length=1, max_length=128, description="Keys roles and pseudonyms; never change it.")


class Limits(Section):
    """What counts as input that can be used."""

    max_object_mb: int = Field(64, ge=1, le=512, description="Larger pool objects go to quarantine.")
    max_text_chars: int = Field(20_000, ge=100, le=100_000, description="Longer texts go to quarantine.")
    max_image_megapixels: int = Field(25, ge=1, le=100, description="Larger images go to quarantine.")
    image_side: int = Field(256, ge=16, le=2048, description="Longest side of the canonical image.")
    max_rows: int = Field(
        100_000,
        ge=1,
        le=1_000_000,
        description="Rows read of one object; the rest goes to quarantine, for time's sake.",
    )
    max_columns: int = Field(1000, ge=1, le=10_000, description="Tables with more columns go to quarantine.")
    max_cell_chars: int = Field(1000, ge=10, le=20_000, description="Rows with a longer cell go to quarantine.")


class Slo(Section):
    """What is promised; alarms and dashboards use it."""

    label_hours_p95: int = Field(48, ge=1, le=720, description="95 % of selected items are labeled within this.")
    agreement: float = Field(0.9, ge=0.0, le=1.0, description="Agreement between annotators that is expected.")


class Loop(Section):
    """The whole of `loop.yaml`."""

    version: Literal[1] = Field(1, description="Format of this file.")
    task: Task = Field(default_factory=Task, description="What is to be learned.")
    acquisition: Acquisition = Field(default_factory=Acquisition, description="Which records to ask for.")
    batches: Batches = Field(default_factory=Batches, description="How large a batch is.")
    budget: Budget = Field(default_factory=Budget, description="What labels may cost.")
    labeling: Labeling = Field(default_factory=Labeling, description="Where the answers come from.")
    quality: Quality = Field(default_factory=Quality, description="When a label is believed.")
    training: TrainingPolicy = Field(
        default_factory=TrainingPolicy, description="When and how a challenger is trained."
    )
    gate: Gate = Field(default_factory=Gate, description="What a challenger must prove.")
    rollout: RolloutPolicy = Field(default_factory=RolloutPolicy, description="How the endpoint moves to a new model.")
    privacy: Privacy = Field(default_factory=Privacy, description="What annotators and models may see.")
    limits: Limits = Field(default_factory=Limits, description="What counts as usable input.")
    slo: Slo = Field(default_factory=Slo, description="What is promised.")

    @model_validator(mode="before")
    @classmethod
    def _defaults_of_the_task(cls, body: Any) -> Any:
        """What a section leaves out means what fits the task's type."""
        task = body.get("task") if isinstance(body, dict) else None
        if not isinstance(task, dict | Task):
            return body
        said = task if isinstance(task, dict) else task.__dict__
        fitting: dict[str, dict[str, Any]] = {
            "acquisition": dict(SELECTING.get(said.get("type", ""), {})),
            "quality": {},
        }
        if said.get("kind") == "table":
            fitting["acquisition"]["near_duplicate_distance"] = 0.0
        if said.get("type") == "regression":
            fitting["acquisition"]["strategy"] = DEFAULTS["regression"]
            fitting["quality"]["consensus"] = CONSENSUS["regression"][0]
        given = {name: body.get(name, {}) for name in fitting}
        return {**body, **{name: {**fitting[name], **own} for name, own in given.items() if isinstance(own, dict)}}

    @model_validator(mode="after")
    def _affordable(self) -> Loop:
        if self.acquisition.arms.rare > 0 and not self.task.rare_classes:
            raise ValueError("acquisition.arms.rare is above 0 but task.rare_classes is empty; name the rare classes")
        if self.gate.min_records > self.acquisition.arms.evaluation_target:
            raise ValueError(
                "gate.min_records is above acquisition.arms.evaluation_target; the gate could never decide"
            )
        if 0 < self.acquisition.candidates_per_day < self.batches.size:
            raise ValueError(
                "acquisition.candidates_per_day is below batches.size, so a batch could not be chosen; raise it, or set 0"
            )
        if self.training.encoder is not None and self.task.kind == "table":
            raise ValueError("training.encoder is for texts and images; a table has none: remove it")
        regression = self.task.type == "regression"
        if self.gate.metric != "auto" and (self.gate.metric == "r2") != regression:
            fitting = "r2" if regression else "accuracy or average_precision"
            raise ValueError(f"gate.metric: {self.gate.metric} does not fit {self.task.type}; choose auto, {fitting}")
        if self.gate.metric == "average_precision" and self.task.positive_class is None:
            raise ValueError("gate.metric: average_precision is about one class; name it in task.positive_class")
        consensuses = CONSENSUS[self.task.type]
        if self.quality.consensus not in consensuses:
            raise ValueError(
                f"quality.consensus: {self.quality.consensus} does not fit {self.task.type}; choose {' or '.join(consensuses)}"
            )
        if self.acquisition.arms.synthesis > 0 and self.task.kind == "image":
            raise ValueError("acquisition.arms.synthesis: images are not made of others in this version; set it to 0")
        if self.acquisition.arms.synthesis > 0 and not self.training.synthetic:
            raise ValueError(
                "acquisition.arms.synthesis pays for records that training.synthetic: false leaves out; set it to 0"
            )
        self._check_selectors()
        for group in self.acquisition.quotas:
            name, value = split(group)
            if name == PREDICTED and value not in self.task.classes:
                raise ValueError(f"acquisition.quotas: {value!r} is not among task.classes; name one of them")
        try:
            check_choice(self.acquisition.strategy, task=self.task.type, members=self.training.members)
        except ConfigError as error:
            raise ValueError(f"acquisition.strategy: {error}") from error
        for name in self.acquisition.competing:
            self._can_compete(name)
        return self

    def _can_compete(self, name: str) -> None:
        strategy, _, selector = name.partition("+")
        try:
            check_choice(strategy, task=self.task.type, members=self.training.members)
        except ConfigError as error:
            raise ValueError(f"acquisition.competing: {error}") from error
        needs = {str(need) for need in SELECTORS[selector].needs}
        if "probabilities" in needs and self.task.type == "regression":
            raise ValueError(f"acquisition.competing: {name} needs probabilities, and a number has none; remove it")
        if "members" in needs and self.training.members == 0:
            raise ValueError(f"acquisition.competing: {name} needs members; raise training.members or remove it")

    def _check_selectors(self) -> None:
        """What a selector reads must come from a model of this task, and before there is one only embeddings do."""
        acquisition, regression = self.acquisition, self.task.type == "regression"
        for field, name in (("cold_start", acquisition.cold_start), ("selector", acquisition.selector)):
            needs = SELECTORS[name].needs
            where = f"acquisition.{field}: {name} needs"
            lacking = sorted(needs - {"embedding"}) if field == "cold_start" else []
            if lacking:
                raise ValueError(f"{where} {lacking[0]}, which a bootstrap model cannot give; {_other(COLD)}")
            if regression and needs & {"probabilities", "members"}:
                raise ValueError(f"{where} probabilities of classes, which a regression does not give; {_other(PLAIN)}")
            if "members" in needs and not self.training.members:
                raise ValueError(f"{where} a committee, but training.members is 0; raise it or {_other(PLAIN)}")

    @property
    def metric(self) -> Metric:
        """`gate.metric` with auto decided."""
        if self.gate.metric != "auto":
            return self.gate.metric
        return "r2" if self.task.type == "regression" else "accuracy"


COLD: frozenset[PoolNeed] = frozenset({"embedding"})
PLAIN: frozenset[PoolNeed] = frozenset({"embedding", "scores"})


def _other(given: frozenset[PoolNeed]) -> str:
    """The remedy: selectors that need no more than this."""
    return "choose one of " + ", ".join(sorted(name for name, one in SELECTORS.items() if one.needs <= given))


def parse(document: bytes | str) -> Loop:
    """A validated loop from YAML (an empty document is all defaults).

    Raises ConfigError with one line a problem, each naming the field and the remedy.

    >>> parse("task: {kind: image, classes: [cat, dog]}").task.classes
    ('cat', 'dog')
    >>> parse("slo: {label_hour: 3}")
    Traceback (most recent call last):
    ...
    winnow.errors.ConfigError: loop.yaml: slo.label_hour: unknown field; known here: agreement, label_hours_p95
    """
    try:
        body = yaml.safe_load(document) or {}
    except yaml.YAMLError as error:
        raise ConfigError(f"loop.yaml: not YAML: {error}") from error
    if not isinstance(body, dict):
        raise ConfigError("loop.yaml: the top level must be a mapping of sections such as 'task:' and 'budget:'")
    try:
        return Loop.model_validate(body)
    except ValidationError as error:
        raise ConfigError("\n".join(f"loop.yaml: {line}" for line in _explain(error))) from error


def _explain(error: ValidationError) -> list[str]:
    lines = []
    for problem in error.errors():
        path = ".".join(str(part) for part in problem["loc"]) or "top level"
        if problem["type"] == "extra_forbidden":
            known = ", ".join(sorted(_section(problem["loc"][:-1]).model_fields))
            lines.append(f"{path}: unknown field; known here: {known}")
        else:
            given = "" if isinstance(problem["input"], dict | BaseModel) else f" (given: {problem['input']!r:.80})"
            lines.append(f"{path}: {problem['msg'].removeprefix('Value error, ')}{given}")
    return lines


def _section(path: tuple[int | str, ...]) -> type[BaseModel]:
    section: type[BaseModel] = Loop
    for part in path:
        annotation: Any = section.model_fields[str(part)].annotation
        section = annotation
    return section


def to_yaml(loop: Loop) -> str:
    """The loop as YAML that `parse` reads back to an equal loop."""
    return yaml.safe_dump(loop.model_dump(mode="json"), sort_keys=False, allow_unicode=True)


def describe() -> list[tuple[str, str, str]]:
    """(path, default, sentence) of every field, for the documentation and `winnow config explain`."""
    rows: list[tuple[str, str, str]] = []

    def walk(section: type[BaseModel], prefix: str) -> None:
        for name, item in section.model_fields.items():
            annotation: Any = item.annotation
            if isinstance(annotation, type) and issubclass(annotation, BaseModel):
                walk(annotation, f"{prefix}{name}.")
            else:
                rows.append(
                    (f"{prefix}{name}", str(item.get_default(call_default_factory=True)), item.description or "")
                )

    walk(Loop, "")
    return rows
