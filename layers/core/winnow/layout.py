"""Where everything lies in the data bucket, and what the table's keys are. The only place that spells a key.

A digest in a name is what makes a hop safe to run twice: the second run computes the same name and finds its work.

The table's items (partition, sort → attributes), each with the hop that owns it:

    OBJECT#<digest of key> VERSION      → key, oid, version, sequencer            ingest_object
    SUPERSEDED             <oid>        → by, at                                  ingest_object
    CONTENT#<id>           CLAIM        → oid, row                                ingest_object
    CONTENT#<id>           ALSO#<oid>#<row> → further occurrences                 ingest_object
    ARRIVAL#<model>        <hour>#<name> → sketches: train, admitted, ...         score_records
    SHARD#<model>          <name>       → key, rows                               index_candidates
    BATCH                  <batch>      → number, kind, status, job, ...          select_batch, collect_labels (status)
    RESERVATION            <content>    → batch, state                            select_batch, collect_labels, reconcile
    HEAD                   BATCH        → number, batch, usd: the newest batch    select_batch, collect_labels
    BUDGET                 <batch>      → usd (text)                              select_batch, collect_labels
    ANNOTATOR              <worker>#<batch> → answers, agreement, spam, ..., suspect  collect_labels
    LOOK                   <number>     → model, dataset, at                      evaluate_challenger
    REWARD                 <model>      → baseline, gain, error, start, batches   evaluate_challenger
    DEPLOYMENT             <model>      → status, dataset, champion, alarms, at   deploy_challenger, settle_deployment
    SUSPECT                <kind>#<name> → since, repairs                         reconcile
    EXPIRY                 <content>#<batch> → at, recheck: the batch that asks again  reconcile, select_batch
    IMPORT                 <batch>      → oid, dataset once it is done            collect_labels
    LEASE                  <name>       → owner, until                            whoever holds it
"""

from __future__ import annotations

from winnow.digests import digest
from winnow.records import PoolObject

LOOP = "config/loop.yaml"
RECORDS = "records/"
OCCURRENCES = "occurrences/"
SCORES = "scores/"
CANDIDATES = "candidates/"
IMPORTS = "imports/"
LABELS = "labels/"
MODELS = "models/"
EMBEDDINGS = "embeddings/"
ENCODERS = "encoders/"
CAPTURE = "capture/"
PRODUCTION = "production/"
QUARANTINE = "quarantine/"
CHAMPION = "models/champion.json"
HEAD = "datasets/head.json"
RESERVATION = "RESERVATION"
EXPIRY = "EXPIRY"
BOOTSTRAP = "bootstrap"
"""Prefix of the ids of models that ship: they know nothing, so selection covers the pool instead."""


def object_id(item: PoolObject) -> str:
    """Name of one version of one pool object.

    >>> object_id(PoolObject("b", "k", "v1", "00"))
    'oce2a9ff93ece8b07f7ec'
    """
    return "o" + digest({"bucket": item.bucket, "key": item.key, "version": item.version}, length=20)


def records(oid: str, part: int = 0) -> str:
    return f"{RECORDS}{oid}/part-{part:04d}.jsonl.gz"


def rehomed(oid: str, superseded: str) -> str:
    """Contents that `superseded` owned and that live on because `oid` holds them too."""
    return f"{RECORDS}{oid}/from-{superseded}.jsonl.gz"


def oid_of(records_key: str) -> str:
    """The object id in a key under `records/`.

    >>> oid_of("records/oab/part-0000.jsonl.gz")
    'oab'
    """
    return records_key.split("/")[1]


def occurrences(oid: str) -> str:
    return f"{OCCURRENCES}{oid}.jsonl.gz"


def imported(oid: str) -> str:
    """The labels that came with an object's rows."""
    return f"{IMPORTS}{oid}.jsonl.gz"


def oid_of_import(key: str) -> str:
    """The object id in a key under `imports/`.

    >>> oid_of_import(imported("oab"))
    'oab'
    """
    return key.removeprefix(IMPORTS).removesuffix(".jsonl.gz")


def import_batch(oid: str) -> str:
    """Name under which an object's labels stand in datasets, as those of a labeling batch do."""
    return f"i{oid}"


def oid_of_import_batch(batch: str) -> str:
    """The object id in a name of `import_batch`.

    >>> oid_of_import_batch(import_batch("oab"))
    'oab'
    """
    return batch[1:]


def is_import(batch: str) -> bool:
    """Whether a batch's name is one of `import_batch`.

    >>> is_import(import_batch("oab")), is_import("bab")
    (True, False)
    """
    return batch.startswith("io")


def quarantine(oid: str) -> str:
    return f"{QUARANTINE}{oid}.jsonl"


def content(content_id: str) -> str:
    return f"contents/{content_id}.png"


def scores(model: str, records_key: str) -> str:
    """The score artifact of one records artifact under one model.

    >>> scores("m1", "records/oab/part-0000.jsonl.gz")
    'scores/m1/oab/part-0000.npz'
    """
    return f"{SCORES}{model}/" + records_key.removeprefix(RECORDS).removesuffix(".jsonl.gz") + ".npz"


def embeddings(encoder: str, records_key: str) -> str:
    """An encoder's vectors of one records artifact.

    >>> embeddings("e1", "records/oab/part-0000.jsonl.gz")
    'embeddings/e1/records/oab/part-0000.npz'
    """
    return f"{EMBEDDINGS}{encoder}/" + records_key.removesuffix(".jsonl.gz") + ".npz"


def batch_embeddings(encoder: str, batch: str) -> str:
    return f"{EMBEDDINGS}{encoder}/batches/{batch}.npz"


def encoder(name: str, file: str = "encoder.json") -> str:
    """A file of an encoder that was imported under a name; its card comes last, so it is complete or absent."""
    return f"{ENCODERS}{name}/{file}"


def candidates(model: str, name: str) -> str:
    return f"{CANDIDATES}{model}/{name}.npz"


def plan(batch: str) -> str:
    return f"batches/{batch}/plan.json"


def manifest(batch: str) -> str:
    return f"batches/{batch}/manifest.jsonl"


def synthetic(batch: str) -> str:
    """The records that a batch made of others, outside of `records/`: nothing scores them and no other batch asks them."""
    return f"batches/{batch}/synthetic.jsonl.gz"


def asked_row(batch: str, content_id: str) -> str:
    """A table's row that is too long for a line of the batch's manifest."""
    return f"batches/{batch}/rows/{content_id}.json"


def labels(batch: str) -> str:
    return f"{LABELS}{batch}.jsonl"


def dataset(version: str) -> str:
    return f"datasets/{version}/dataset.json"


def dataset_part(version: str, role: str) -> str:
    """The labeled records of one role: `train`, `evaluation` or `reward`.

    >>> dataset_part("d1", "train")
    'datasets/d1/train/train.jsonl.gz'
    """
    return f"datasets/{version}/{role}/{role}.jsonl.gz"


def training_channel(version: str) -> str:
    """Prefix of the `train` channel: the dataset itself, so nothing is copied."""
    return f"datasets/{version}/train/"


def training_spec(model: str) -> str:
    return f"training/{model}/spec/spec.json"


def training_vectors(model: str) -> str:
    """Vectors of labeled records that were encoded before, beside the specification."""
    return f"training/{model}/spec/vectors.npz"


def model(model_id: str, name: str = "model.json") -> str:
    return f"{MODELS}{model_id}/{name}"


IMPORTED_MODEL = "import-"


def imported_model(dataset: str) -> str | None:
    """The model whose import stands where a model that was trained here has its dataset version; None for a version.

    >>> imported_model(IMPORTED_MODEL + "m1"), imported_model("d33a2cac2e35194fdff2")
    ('m1', None)
    """
    return dataset.removeprefix(IMPORTED_MODEL) if dataset.startswith(IMPORTED_MODEL) else None


def gate_report(model_id: str) -> str:
    return f"reports/{model_id}/gate.json"


def deployment_report(model_id: str) -> str:
    return f"reports/{model_id}/deployment.json"


def stopping_report(name: str) -> str:
    """Why selection asked no batch: the next labels are not worth their price."""
    return f"reports/stopping/{name}.json"


def publish_report(model_id: str) -> str:
    """Why a trained package was refused; absent for a package that was published."""
    return f"reports/{model_id}/publish.json"


def training_artifact(stack: str, model_id: str) -> str:
    """What a training job leaves.

    >>> training_artifact("winnow", "m1")
    'training-output/winnow-m1/output/model.tar.gz'
    """
    return f"training-output/{stack}-{model_id}/output/model.tar.gz"


def captured(capture_key: str) -> str:
    """Name under which a data-capture file's requests go back into the pool, or into quarantine.

    >>> captured("capture/endpoint/AllTraffic/2026/01/06/09/00-00.jsonl")
    'c9f823c686e5e436a1ae2'
    """
    return "c" + digest({"capture": capture_key}, length=20)


def production(name: str) -> str:
    """Captured requests on their way back into the pool; ingest reads them as it reads a dropped object."""
    return f"{PRODUCTION}{name}.jsonl"


def feedback(inference_id: str) -> str:
    return f"feedback/{inference_id}.json"
