"""The whole loop once, in an AWS account: deploy, drop, answer, train, gate, serve, roll back, delete.

NOT RUN ON AWS YET. Its logic is tested against the local cloud only (tests/cloud/test_smoke_aws.py).

    make smoke-aws ACCOUNT=111122223333 [REGION=eu-central-1] [FLAGS="--keep --json"]

It makes a stack of its own, under a name nobody has, from what `sam build` left, and refuses to begin unless your
credentials belong to the account you name. It says first what it will cost about. Ground Truth's jobs are answered by
people in a portal, not over an API, and take no new customers: so the answers arrive as `winnow import labels` brings
them. Whatever happens, it deletes what it made, and nothing that does not belong to a stack with its tag (`--keep`
leaves everything). Exit status 0 when everything passed, 1 when something failed, 2 when it was asked wrongly.
"""

from __future__ import annotations

import argparse
import gzip
import io
import json
import os
import secrets
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, redirect_stdout
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Protocol, TypeVar, get_args

import numpy as np
from botocore import xform_name
from botocore.exceptions import BotoCoreError, ClientError

from winnow import layout
from winnow.aws import wiring
from winnow.errors import WinnowError
from winnow.ports import Ports, QueueName
from winnow.records import PoolObject, from_jsonl
from winnow.steps import pointers
from winnow.steps.deploy_challenger import rollout
from winnow_cli.errors import UsageError
from winnow_cli.main import main as winnow
from winnow_cli.stack import Stack, connect

ROOT = Path(__file__).resolve().parents[1]
HEADING = "NOT RUN ON AWS YET: this script was only ever tested against the local cloud. Read what it prints with care."
TAG = "winnow:smoke"
RECORDS = 200
WORDS = ("parcel", "invoice", "garden", "window", "letter", "bridge", "basket", "ladder", "carpet", "village", "engine")
MARKS = {"negative": ("broken", "awful", "late"), "positive": ("lovely", "perfect", "quick")}
INSTANCE, INSTANCES = "ml.m5.large", 2  # the smallest that trains and serves at one price; a canary needs two
USD_PER_HOUR = 0.115
"""One ml.m5.large, training or real-time inference, on demand, us-east-1: https://aws.amazon.com/sagemaker/pricing/, as
quoted in public cost tables on 2026-11-21 (the page itself could not be asked). Other regions cost more: look there."""
NOT_PRICED = "requests, storage, logs, a KMS key, 43 alarms and 3 dashboards for as long as the stack lives"
TRAINING_MINUTES, SERVING_MINUTES, BOTH_FLEETS_MINUTES = 10, 60, 30  # for the estimate; what it was is measured
LOOP: dict[str, Any] = {
    "acquisition": {"arms": {"evaluation_target": 40}},
    "training": {"min_labels": 10, "min_new_labels": 0, "members": 2, "instance": INSTANCE, "max_minutes": 30},
    "gate": {"min_records": 20, "planned_looks": 3, "alpha": 0.2},
    "rollout": {
        "instance": INSTANCE,
        "instances": INSTANCES,
        "canary_percent": 50,
        "bake_minutes": 10,
        "termination_minutes": 0,
    },
}
RETAINED = ("AWS::S3::Bucket", "AWS::DynamoDB::Table", "AWS::SageMaker::ModelPackageGroup")

Answer = TypeVar("Answer")


class Failed(Exception):
    """A step did not find what it should have."""


@dataclass(frozen=True)
class Finding:
    """One line of the table. `passed` is None for what could not be tried because something before it failed."""

    name: str
    passed: bool | None
    seconds: float
    detail: str


@dataclass(frozen=True)
class Patience:
    """Asks again and again until there is an answer, for at most `minutes`; its clock is the one times are told by."""

    minutes: float
    now: Callable[[], float] = time.time
    sleep: Callable[[float], None] = time.sleep

    def until(self, ask: Callable[[], Answer | None], otherwise: str) -> Answer:
        """The first answer that is not None. Raises Failed when patience is at its end."""
        end = self.now() + 60 * self.minutes
        while (answer := ask()) is None:
            if self.now() >= end:
                raise Failed(f"{otherwise} within {self.minutes:g} minutes")
            self.sleep(10.0)
        return answer


class Deployer(Protocol):
    """How the stack comes and goes."""

    def deploy(self, stack: str, parameters: Mapping[str, str]) -> None:
        """Make the stack, tagged TAG=stack. Raises Failed."""

    def delete(self, stack: str) -> None:
        """Delete the stack and what was uploaded for it. Raises Failed."""


class Sam:
    """The SAM CLI of `make sam`, from what `make build` left."""

    def __init__(self, region: str) -> None:
        self._region = region

    def deploy(self, stack: str, parameters: Mapping[str, str]) -> None:
        self._run(
            "deploy", "--template-file", ".aws-sam/build/template.yaml", "--stack-name", stack, "--s3-prefix", stack,
            "--resolve-s3", "--no-confirm-changeset", "--capabilities", "CAPABILITY_NAMED_IAM", "CAPABILITY_AUTO_EXPAND",
            "--tags", f"{TAG}={stack}", "--parameter-overrides", *(f'{name}="{value}"' for name, value in parameters.items()),
        )  # fmt: skip

    def delete(self, stack: str) -> None:
        self._run("delete", "--no-prompts", "--stack-name", stack)

    def _run(self, *arguments: str) -> None:
        command = [str(ROOT / ".cache/sam/bin/sam"), *arguments, "--region", self._region]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)  # noqa: S603
        if done.returncode:
            raise Failed(f"sam {arguments[0]}: {(done.stdout + done.stderr).strip()[-600:]}")


@dataclass
class Smoke:
    """One run. What its steps learn for those after them, and for the bill, stands here."""

    stack: Stack
    deployer: Deployer
    patience: Patience
    workteam: str
    seed: int
    model: str = ""
    training_seconds: int = 0
    served: list[tuple[float, float]] = field(default_factory=list)
    """Spans of time with a fleet of INSTANCES; two of them overlap while an update bakes."""

    @property
    def name(self) -> str:
        return self.stack.settings.stack

    @property
    def ports(self) -> Ports:
        return wiring.ports()

    def run(self, *, keep: bool) -> list[Finding]:
        """Take the steps in their order up to the first that fails; clean up whatever happens."""
        findings: list[Finding] = []
        try:
            for step in (
                self.deploy, self.drop, self.answer, self.train, self.gate, self.serve, self.roll_back, self.dead_letters,
            ):  # fmt: skip
                failed = any(one.passed is False for one in findings)
                findings.append(Finding(_name(step), None, 0.0, "not tried") if failed else self._try(step))
        finally:
            if keep:
                findings.append(Finding("clean up", None, 0.0, f"--keep: {self.name} stays and costs money"))
            else:
                findings.append(self._try(self.clean_up))
        return findings

    def _try(self, step: Callable[[], str]) -> Finding:
        started = self.patience.now()
        try:
            passed, detail = True, step()
        except (Failed, UsageError, WinnowError, ClientError, BotoCoreError) as error:
            passed, detail = False, f"{type(error).__name__}: {error}" if not isinstance(error, Failed) else str(error)
        return Finding(_name(step), passed, round(self.patience.now() - started, 1), detail)

    def deploy(self) -> str:
        parameters = {
            "WorkteamArn": self.workteam, "EndpointEnabled": "true", "LogRetentionDays": "1",
            "SelectSchedule": "rate(30 days)",  # nobody is asked for labels: they are imported
        }  # fmt: skip
        self.deployer.deploy(self.name, parameters)
        lambdas = self.stack.client("lambda")
        about = lambdas.get_function_configuration(FunctionName=f"{self.name}-deploy_challenger")
        os.environ.update({**self.stack.environment(), **about["Environment"]["Variables"]})
        self.stack.data.put(layout.LOOP, json.dumps(LOOP).encode())
        return f"{self.name}, {len(self._resources())} resources"

    def drop(self) -> str:
        s3, bucket, key = self.stack.client("s3"), self.stack.settings.pool_bucket, "smoke/texts.jsonl"
        body = b"".join(json.dumps({"text": text}).encode() + b"\n" for text, _ in texts(self.seed))
        version = s3.put_object(Bucket=bucket, Key=key, Body=body)["VersionId"]
        oid, data = layout.object_id(PoolObject(bucket, key, version, "")), self.ports.data
        found = self.patience.until(
            lambda: data.get(layout.occurrences(oid)) if data.exists(layout.occurrences(oid)) else None,
            "the object was not ingested (see ingest_object's log)",
        )
        accepted = sum(row["status"] == "accepted" for row in from_jsonl(gzip.decompress(found)))
        if accepted != RECORDS:
            raise Failed(f"{accepted} of {RECORDS} rows accepted")
        champion = pointers.champion(self.ports)[0].model
        files = data.list(f"{layout.RECORDS}{oid}/")
        self.patience.until(
            lambda: True if all(data.exists(layout.scores(champion, one)) for one in files) else None,
            f"the records were not scored by {champion} (see score_records' log)",
        )
        return f"{accepted} records, scored by {champion}"

    def answer(self) -> str:
        with tempfile.TemporaryDirectory() as folder, redirect_stdout(io.StringIO()) as said:
            path = Path(folder, "answers.jsonl")
            path.write_text(
                "".join(json.dumps({"text": one, "label": label}) + "\n" for one, label in texts(self.seed))
            )
            asked = ["import", "labels", str(path), "--stack", self.name, "--region", self.stack.settings.region]
            if winnow(asked):
                raise Failed(said.getvalue().strip())
        version = self.patience.until(lambda: pointers.head(self.ports.data)[0], "no dataset version was written")
        counts = json.loads(self.ports.data.get(layout.dataset(version)))["counts"]
        return f"dataset {version}: " + ", ".join(f"{count} {role}" for role, count in sorted(counts.items()))

    def train(self) -> str:
        sagemaker = self.stack.client("sagemaker")

        def ended() -> dict[str, Any] | None:
            for row in self._mine("list_training_jobs", "TrainingJobSummaries", "TrainingJobName"):
                shown: dict[str, Any] = sagemaker.describe_training_job(TrainingJobName=row)
                if shown["TrainingJobStatus"] not in ("InProgress", "Stopping"):
                    return shown
            return None

        job = self.patience.until(ended, "no training job ended")
        self.training_seconds = job.get("BillableTimeInSeconds", 0)
        if job["TrainingJobStatus"] != "Completed":
            raise Failed(f"{job['TrainingJobName']} {job['TrainingJobStatus']}: {job.get('FailureReason')}")
        self.model = self.stack.settings.identifier(job["TrainingJobName"]) or ""
        return f"{job['TrainingJobName']}: {self.training_seconds} s of {job['ResourceConfig']['InstanceType']}"

    def gate(self) -> str:
        key, data = layout.gate_report(self.model), self.ports.data
        report = json.loads(
            self.patience.until(lambda: data.get(key) if data.exists(key) else None, f"no report on {self.model}")
        )
        if report["verdict"] != "promote":
            raise Failed(f"{report['verdict']}: {'; '.join(report['reasons'])}")
        return f"{report['verdict']} on {report['evaluation']['records']} evaluation records"

    def serve(self) -> str:
        started, champion = self.patience.now(), lambda: pointers.champion(self.ports)[0].model
        self.patience.until(lambda: True if champion() == self.model else None, f"{self.model} is not the champion")
        created = self._endpoint()["CreationTime"].timestamp()
        self.served.append((min(created, started), float("inf")))
        text = f"{WORDS[0]} {' '.join(MARKS['positive'])}"
        body = json.dumps({"instances": [{"text": text}]})
        runtime = self.stack.client("sagemaker-runtime")
        answer = runtime.invoke_endpoint(EndpointName=self.name, ContentType="application/json", Body=body)
        (said,) = json.loads(answer["Body"].read())["predictions"]
        if said["label"] != "positive":
            raise Failed(f"{text!r} was taken for {said}")
        return f"endpoint {self.name} serves {self.model}"

    def roll_back(self) -> str:
        """Roll the champion out again under another name, and let an alarm ring while that bakes."""
        cloudwatch, policy, again = self.stack.client("cloudwatch"), self.ports.loop.rollout, f"{self.model}-again"
        alarm = {
            "AlarmName": f"{self.name}-smoke", "Namespace": f"{self.name}/smoke", "MetricName": "Nothing", "Period": 60,
            "Statistic": "Sum", "EvaluationPeriods": 1, "Threshold": 0.0, "ComparisonOperator": "GreaterThanThreshold",
        }  # fmt: skip
        cloudwatch.put_metric_alarm(**alarm, TreatMissingData="notBreaching")
        artifact = self.ports.data.uri(layout.training_artifact(self.name, self.model))
        self.ports.serving.prepare(again, artifact=artifact)
        started = self.patience.now()
        self.ports.serving.update(again, rollout=rollout(policy, alarms=[alarm["AlarmName"]]))
        self.patience.until(self._bakes, "the new fleet does not bake")
        cloudwatch.put_metric_alarm(**alarm, TreatMissingData="breaching")  # a metric nobody reports: it rings now
        self.patience.until(self._rests, "the endpoint does not come to rest")
        ended = self._endpoint()
        self.served.append((started, self.patience.now()))
        if ended["EndpointStatus"] != "InService" or ended["EndpointConfigName"] != self.stack.settings.named(
            self.model
        ):
            raise Failed(f"{ended['EndpointStatus']} with {ended['EndpointConfigName']}: {ended.get('FailureReason')}")
        return f"back with {self.model}: {ended.get('FailureReason', 'no reason given')}"

    def _endpoint(self) -> dict[str, Any]:
        shown: dict[str, Any] = self.stack.client("sagemaker").describe_endpoint(EndpointName=self.name)
        return shown

    def _bakes(self) -> bool | None:
        """Whether a pending fleet gets traffic; SageMaker shows a fleet as pending from its creation on."""
        pending = self._endpoint().get("PendingDeploymentSummary")
        variants = (pending or {}).get("ProductionVariants", [])
        states = [state["Status"] for variant in variants for state in variant.get("VariantStatus", [])]
        return True if pending and (not states or "Baking" in states) else None

    def dead_letters(self) -> str:
        dead = {queue: self.ports.queues.state(queue).dead for queue in get_args(QueueName)}
        if some := ", ".join(f"{count} in {queue}-dlq" for queue, count in dead.items() if count):
            raise Failed(some)
        return "none"

    def clean_up(self) -> str:
        """Delete what belongs to the stack with our tag: what costs most first, and every part though another fails."""
        cloudformation = self.stack.client("cloudformation")
        try:
            (shown,) = cloudformation.describe_stacks(StackName=self.name)["Stacks"]
        except ClientError as error:
            if "does not exist" in str(error):  # CloudFormation says it in words only
                return "there was nothing"
            raise
        if {"Key": TAG, "Value": self.name} not in shown.get("Tags", []):
            raise Failed(f"stack {self.name} does not carry the tag {TAG}={self.name}: nothing was deleted")
        resources, troubles = self._resources(), list[str]()
        owned = [one for one in resources if one[0] in RETAINED]

        @contextmanager
        def noted(what: str) -> Iterator[None]:
            try:
                yield
            except (Failed, ClientError, BotoCoreError) as error:
                troubles.append(f"{what}: {error}")

        with noted("executions"):  # else one of them might make an endpoint while we delete
            states = self.stack.client("stepfunctions")
            for arn in [name for kind, name in resources if kind == "AWS::StepFunctions::StateMachine"]:
                for row in states.list_executions(stateMachineArn=arn, statusFilter="RUNNING")["executions"]:
                    states.stop_execution(executionArn=row["executionArn"])
        self._sweep(noted)
        ended = self.patience.now()
        self.served = [(since, min(until, ended)) for since, until in self.served]
        with noted("stack"):
            self.deployer.delete(self.name)
        self._sweep(noted)  # what its last calls left
        with noted("alarms"):
            cloudwatch = self.stack.client("cloudwatch")
            rows = cloudwatch.describe_alarms(AlarmNamePrefix=f"{self.name}-")["MetricAlarms"]
            cloudwatch.delete_alarms(AlarmNames=[row["AlarmName"] for row in rows])
        with noted("logs"):
            logs, group = self.stack.client("logs"), f"/aws/sagemaker/Endpoints/{self.name}"
            for row in logs.describe_log_groups(logGroupNamePrefix=group)["logGroups"]:
                logs.delete_log_group(logGroupName=row["logGroupName"])
        for kind, name in owned:
            with noted(name):
                self._delete_retained(kind, name)
        if troubles:
            raise Failed("; ".join(troubles))
        return f"{self.name} and the {len(owned)} things its template retains"

    def _sweep(self, noted: Callable[[str], AbstractContextManager[None]]) -> None:
        """Stop and delete the loop's own resources in SageMaker, which are not the stack's."""
        sagemaker = self.stack.client("sagemaker")
        with noted("training jobs"):
            for name in self._mine("list_training_jobs", "TrainingJobSummaries", "TrainingJobName"):
                if sagemaker.describe_training_job(TrainingJobName=name)["TrainingJobStatus"] == "InProgress":
                    sagemaker.stop_training_job(TrainingJobName=name)
        for row in ("Endpoint", "EndpointConfig", "Model"):
            kind = xform_name(row)
            with noted(f"{kind}s"):
                for name in self._mine(f"list_{kind}s", f"{row}s", f"{row}Name"):
                    if row == "Endpoint":  # one that moves cannot be deleted
                        self.patience.until(self._rests, f"endpoint {name} does not come to rest")
                    getattr(sagemaker, f"delete_{kind}")(**{f"{row}Name": name})

    def _rests(self) -> bool | None:
        return True if self._endpoint()["EndpointStatus"] in ("InService", "Failed", "OutOfService") else None

    def _resources(self) -> list[tuple[str, str]]:
        """Type and name of what CloudFormation says belongs to the stack."""
        pages = self.stack.client("cloudformation").get_paginator("list_stack_resources").paginate(StackName=self.name)
        rows = [row for page in pages for row in page["StackResourceSummaries"]]
        return [(row["ResourceType"], row["PhysicalResourceId"]) for row in rows if row.get("PhysicalResourceId")]

    def _mine(self, listing: str, member: str, named: str) -> list[str]:
        """Names of the stack's own resources of a kind: the stack's name alone, or it and an id."""
        rows = getattr(self.stack.client("sagemaker"), listing)(NameContains=self.name)[member]
        return [row[named] for row in rows if row[named] == self.name or row[named].startswith(f"{self.name}-")]

    def _delete_retained(self, kind: str, name: str) -> None:
        if kind == "AWS::S3::Bucket":
            s3 = self.stack.client("s3")
            for page in s3.get_paginator("list_object_versions").paginate(Bucket=name):
                for row in (*page.get("Versions", ()), *page.get("DeleteMarkers", ())):
                    s3.delete_object(Bucket=name, Key=row["Key"], VersionId=row["VersionId"])
            s3.delete_bucket(Bucket=name)
        elif kind == "AWS::DynamoDB::Table":
            self.stack.client("dynamodb").delete_table(TableName=name)
        else:
            sagemaker = self.stack.client("sagemaker")
            for row in sagemaker.list_model_packages(ModelPackageGroupName=name)["ModelPackageSummaryList"]:
                sagemaker.delete_model_package(ModelPackageName=row["ModelPackageArn"])
            sagemaker.delete_model_package_group(ModelPackageGroupName=name)

    def cost(self) -> dict[str, float]:
        """What was measured, in units and US dollars."""
        hours = sum(until - since for since, until in self.served if until < float("inf")) / 3600 * INSTANCES
        training = self.training_seconds / 3600 * USD_PER_HOUR
        return {
            "training_seconds": self.training_seconds, "training_usd": round(training, 4),
            "endpoint_instance_hours": round(hours, 3), "endpoint_usd": round(hours * USD_PER_HOUR, 4),
        }  # fmt: skip


def texts(seed: int) -> Iterator[tuple[str, str]]:
    """Invented texts and their classes in turn; none was ever dropped under another seed."""
    rng = np.random.default_rng(seed)
    for number in range(RECORDS):
        label = sorted(MARKS)[number % 2]
        words = [
            *rng.choice(WORDS, 5, replace=False),
            *rng.choice(MARKS[label], 2, replace=False),
            f"case{seed}x{number}",
        ]
        yield " ".join(rng.permutation(words)), label


def estimate() -> str:
    """What a run costs about.

    >>> estimate().split(" (")[0]
    'about $0.36: 10 min of training, 2 instances for 60 min, and twice that many for 30 min'
    """
    hours = TRAINING_MINUTES / 60 + INSTANCES * (SERVING_MINUTES + BOTH_FLEETS_MINUTES) / 60
    return (
        f"about ${hours * USD_PER_HOUR:.2f}: {TRAINING_MINUTES} min of training, {INSTANCES} instances for "
        f"{SERVING_MINUTES} min, and twice that many for {BOTH_FLEETS_MINUTES} min ({INSTANCE} at ${USD_PER_HOUR} an hour in "
        f"us-east-1); not counted: {NOT_PRICED}"
    )


def table(findings: Sequence[Finding]) -> str:
    """The findings as lines.

    >>> print(table([Finding("drop", True, 61.0, "200 records"), Finding("train", None, 0.0, "not tried")]))
    pass  drop           61 s  200 records
    --    train           0 s  not tried
    """
    words = {True: "pass", False: "FAIL", None: "--"}
    return "\n".join(f"{words[one.passed]:<5} {one.name:<12} {one.seconds:>4.0f} s  {one.detail}" for one in findings)


def _name(step: Callable[[], str]) -> str:
    return step.__name__.replace("_", " ")


def main(
    arguments: Sequence[str] | None = None, *, deployer: Deployer | None = None, patience: Patience | None = None
) -> int:
    """Run the smoke test as the command line says."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--account", required=True, help="twelve digits; must be your credentials' account")
    parser.add_argument("--region", help="region (default: as your AWS configuration says)")
    parser.add_argument("--stack", default=f"winnow-smoke-{secrets.token_hex(4)}", help="(default: a name nobody has)")
    parser.add_argument("--workteam", help="ARN of a work team; nobody is asked (default: one that does not exist)")
    parser.add_argument("--minutes", type=float, default=45.0, help="patience for each wait (default: %(default)s)")
    parser.add_argument(
        "--seed", type=int, default=int(time.time()), help="of the invented records (default: the time)"
    )
    parser.add_argument(
        "--keep", action="store_true", help="delete nothing afterwards; the endpoint goes on costing money"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON document at the end")
    given = parser.parse_args(arguments)
    told = sys.stderr if given.json else sys.stdout
    print(HEADING, file=told)
    try:
        stack = connect(given)
        settings = stack.settings
        if settings.account != given.account:
            raise UsageError(
                f"--account {given.account}: your credentials belong to {settings.account}; nothing was done"
            )
    except UsageError as error:
        print(f"smoke_aws: {error}", file=sys.stderr)
        return 2
    print(f"{settings.stack} in {settings.account}, {settings.region}. It costs {estimate()}", file=told, flush=True)
    nobody = f"arn:aws:sagemaker:{settings.region}:{settings.account}:workteam/private-crowd/nobody"
    smoke = Smoke(
        stack,
        deployer or Sam(settings.region),
        patience or Patience(given.minutes),
        given.workteam or nobody,
        given.seed,
    )
    findings = smoke.run(keep=given.keep)
    cost = smoke.cost()
    if given.json:
        about = {"stack": settings.stack, "account": settings.account, "region": settings.region, "note": HEADING}
        print(json.dumps({**about, "steps": [asdict(one) for one in findings], "cost": cost}, indent=1))
    else:
        print(table(findings))
        print(
            f"cost: {cost['training_seconds']} s of training ${cost['training_usd']}, {cost['endpoint_instance_hours']} "
            f"instance-hours of the endpoint ${cost['endpoint_usd']}; not counted: {NOT_PRICED}"
        )
    return 1 if any(one.passed is False for one in findings) else 0


if __name__ == "__main__":
    sys.exit(main())
