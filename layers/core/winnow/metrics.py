"""The metric catalogue: every number Winnow emits, who emits it, and the question it answers.

Handlers emit only what stands here, dashboards and alarms use only what stands here, and a test holds the three together.
Dimensions are a fixed tuple of names; `Stack` always comes first. High-cardinality values (record, worker, job) never
become dimensions: each combination is a billed metric.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

NAMESPACE = "Winnow"
Unit = Literal["Count", "Seconds", "Percent", "None"]


@dataclass(frozen=True)
class Definition:
    name: str
    unit: Unit
    emitter: str
    """The hop that emits it."""
    question: str
    dimensions: tuple[str, ...] = ("Stack",)


@dataclass(frozen=True)
class Metric:
    """One measured value. `dimensions` holds the values of the definition's dimensions after `Stack`."""

    name: str
    value: float
    dimensions: Mapping[str, str] = field(default_factory=dict)


_ALL = (
    Definition("OccurrencesIn", "Count", "ingest_object", "How many rows and files arrived?"),
    Definition("RecordsAccepted", "Count", "ingest_object", "How many new contents joined the pool?"),
    Definition("Duplicates", "Count", "ingest_object", "How many arrived that we already had?"),
    Definition("Quarantined", "Count", "ingest_object", "How many could not be used?"),
    Definition("Superseded", "Count", "ingest_object", "How many belonged to an older version of an object?"),
    Definition("PersonalDataMasked", "Count", "ingest_object", "How many pieces of personal data were masked?"),
    Definition("RecordsScored", "Count", "score_records", "How many records did the champion score?"),
    Definition("PredictiveEntropy", "None", "score_records", "How unsure is the champion of the pool (nats, mean)?"),
    Definition(
        "PredictiveSpread",
        "None",
        "score_records",
        "How far do the committee's numbers differ (mean standard deviation, in the target's unit)?",
    ),
    Definition("AdmissionThreshold", "None", "score_records", "Which score must a record have to become a candidate?"),
    Definition(
        "AdmittedShare", "Percent", "score_records", "What share of the scored became candidates for their score?"
    ),
    Definition("CandidatesIndexed", "Count", "index_candidates", "How many candidates can selection see?"),
    Definition("ItemsSelected", "Count", "select_batch", "How many items did each arm get?", ("Stack", "Arm")),
    Definition("FreshShare", "Percent", "select_batch", "What share of the pool carries the champion's scores?"),
    Definition("SelectionSkipped", "Count", "select_batch", "Why was no batch made?", ("Stack", "Reason")),
    Definition("BatchNotes", "Count", "select_batch", "How much of loop.yaml could a batch not do (quotas, columns)?"),
    Definition("MoneyCommitted", "None", "select_batch", "How much of the budget is committed (USD)?"),
    Definition("BatchSize", "Count", "select_batch", "How large is the next batch to be?"),
    Definition("LabelsPerHour", "None", "select_batch", "How fast were the last labels answered?"),
    Definition(
        "GainPerLabel", "None", "select_batch", "What should one more train label gain (points of the gate's metric)?"
    ),
    Definition(
        "StrategyWeight", "None", "select_batch", "How likely is each competitor drawn (0 to 1)?", ("Stack", "Strategy")
    ),
    Definition(
        "StrategyRegret", "None", "select_batch", "How many points more had the leading strategy made all rounds?"
    ),
    Definition("TasksPrepared", "Count", "prepare_task", "How many tasks were shown to annotators?"),
    Definition("TasksConsolidated", "Count", "consolidate_annotations", "How many items got a consolidated label?"),
    Definition("ItemsLabeled", "Count", "collect_labels", "How many labels were bought (M1)?"),
    Definition("ItemsDisputed", "Count", "collect_labels", "How many need an expert (M11)?"),
    Definition("ItemsExpired", "Count", "collect_labels", "How many did nobody answer?"),
    Definition("ItemsQuarantined", "Count", "collect_labels", "How many labels were held out of the dataset?"),
    Definition("LabelsImported", "Count", "collect_labels", "How many labels came with records?"),
    Definition("LabelHours", "None", "collect_labels", "How long from selected to labeled, p95 of the batch (M2)?"),
    Definition(
        "AnnotatorAgreement",
        "Percent",
        "collect_labels",
        "Do annotators agree with the consensus (numbers: within the tolerance)?",
    ),
    Definition("AnnotatorAlpha", "None", "collect_labels", "How far beyond chance do annotators agree (Krippendorff)?"),
    Definition("AnnotatorsSuspected", "Count", "collect_labels", "Whose answers in a batch need a second look?"),
    Definition("MoneyPerLabel", "None", "collect_labels", "What does an effective label cost (M6, USD)?"),
    Definition("DatasetSize", "Count", "collect_labels", "How many train labels has the newest dataset?"),
    Definition(
        "TrainingPlanned", "Count", "plan_training", "Was a training started or skipped?", ("Stack", "Decision")
    ),
    Definition("ModelsPublished", "Count", "publish_model", "How many packages passed validation?"),
    Definition("GateVerdict", "Count", "evaluate_challenger", "What did the gate say (M7)?", ("Stack", "Verdict")),
    Definition(
        "ChallengerAccuracy", "Percent", "evaluate_challenger", "How good is the challenger on the evaluation set?"
    ),
    Definition("ChampionAccuracy", "Percent", "evaluate_challenger", "How good is the champion on the same records?"),
    Definition(
        "ArmAccuracy", "Percent", "evaluate_challenger", "What do equal labels of each arm buy (M4)?", ("Stack", "Arm")
    ),
    Definition(
        "ChallengerMetric",
        "None",
        "evaluate_challenger",
        "How good is the challenger by the gate's metric (1 is perfect)?",
        ("Stack", "Metric"),
    ),
    Definition(
        "ChampionMetric",
        "None",
        "evaluate_challenger",
        "How good is the champion by it, on the same records?",
        ("Stack", "Metric"),
    ),
    Definition(
        "ArmMetric", "None", "evaluate_challenger", "What do equal labels of each arm buy by it (M4)?", ("Stack", "Arm")
    ),
    Definition(
        "StrategyReward",
        "None",
        "evaluate_challenger",
        "What do 100 labels of each competitor gain on reward records (points)?",
        ("Stack", "Strategy"),
    ),
    Definition("DeploymentsStarted", "Count", "deploy_challenger", "How many rollouts started?"),
    Definition("DeploymentsSettled", "Count", "settle_deployment", "How did rollouts end?", ("Stack", "Outcome")),
    Definition("ServedRecords", "Count", "watch_production", "How many predictions were captured?"),
    Definition("ServedConfidence", "Percent", "watch_production", "How sure was the served model?", ("Stack", "Model")),
    Definition(
        "ServedPrediction", "None", "watch_production", "Which number was served on average?", ("Stack", "Model")
    ),
    Definition("PredictionDrift", "None", "watch_production", "How far is served traffic from the pool (PSI)?"),
    Definition(
        "ServedCorrect",
        "Percent",
        "receive_feedback",
        "Were served predictions right (numbers: within the tolerance)?",
        ("Stack", "Model"),
    ),
    Definition("FeedbackReceived", "Count", "receive_feedback", "How many judgements came from users?"),
    Definition("Repairs", "Count", "reconcile", "What had to be brought home?", ("Stack", "Kind")),
    Definition("Heartbeat", "Count", "report_health", "Does the pipeline still run?"),
    Definition("BacklogItems", "Count", "report_health", "How many items wait for annotators?"),
    Definition("BacklogHours", "None", "report_health", "How old is the oldest open batch?"),
    Definition("PoolRecords", "Count", "report_health", "How many contents are in the pool?"),
    Definition("UnscoredObjects", "Count", "report_health", "How many record files lack the champion's scores?"),
    Definition("DeadLetters", "Count", "report_health", "How many messages nobody could handle?"),
    Definition("BudgetLeft", "None", "report_health", "How much money is left (USD)?"),
    Definition("RareClassShare", "Percent", "report_health", "What share of labels are of a rare class (M10)?"),
)

CATALOGUE: Mapping[str, Definition] = {definition.name: definition for definition in _ALL}
