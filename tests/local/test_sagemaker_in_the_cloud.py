"""Labeling, training and endpoints in the whole local cloud: real functions, rules, alarms, strict requests."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from tests.local.test_sagemaker_endpoints import CODE, archive
from winnow_local.annotators import Annotator, Crowd
from winnow_local.cloud import LocalCloud

TEMPLATE = """
AWSTemplateFormatVersion: "2010-09-09"
Transform: AWS::Serverless-2016-10-31
Globals: {Function: {Runtime: python3.13, Handler: app.handler, Timeout: 30}}
Resources:
  Data: {Type: AWS::S3::Bucket, Properties: {BucketName: loop-data}}
  Prepare: {Type: AWS::Serverless::Function, Properties: {FunctionName: prepare, CodeUri: prepare}}
  Consolidate: {Type: AWS::Serverless::Function, Properties: {FunctionName: consolidate, CodeUri: consolidate}}
  Ended: {Type: AWS::SQS::Queue, Properties: {QueueName: ended}}
  EndedRule:
    Type: AWS::Events::Rule
    Properties:
      EventPattern:
        source: [aws.sagemaker]
        detail-type: [SageMaker Ground Truth Labeling Job State Change, SageMaker Training Job State Change]
      Targets: [{Id: ended, Arn: !GetAtt Ended.Arn}]
  Improve:
    Type: AWS::Serverless::StateMachine
    Properties:
      Name: improve
      DefinitionUri: improve.asl.json
  Errors:
    Type: AWS::CloudWatch::Alarm
    Properties:
      AlarmName: canary-errors
      Namespace: AWS/SageMaker
      MetricName: Invocation5XXErrors
      Dimensions: [{Name: EndpointName, Value: loop}, {Name: VariantName, Value: AllTraffic}]
      Statistic: Sum
      Period: 60
      EvaluationPeriods: 1
      Threshold: 0
      ComparisonOperator: GreaterThanThreshold
      TreatMissingData: notBreaching
"""
MACHINE = {
    "QueryLanguage": "JSONata",
    "StartAt": "train",
    "States": {
        "train": {
            "Type": "Task",
            "Resource": "arn:aws:states:::sagemaker:createTrainingJob.sync",
            "Arguments": "{% $states.input %}",
            "TimeoutSeconds": 5000,
            "Output": "{% $states.result.ModelArtifacts %}",
            "End": True,
        }
    },
}
PREPARE = 'def handler(event, context):\n    return {"taskInput": {"text": event["dataObject"]["source"]}}\n'
CONSOLIDATE = """
import json
import boto3

def handler(event, context):
    bucket, key = event["payload"]["s3Uri"][5:].split("/", 1)
    rows = json.loads(boto3.client("s3").get_object(Bucket=bucket, Key=key)["Body"].read())
    def label(row):
        votes = [json.loads(a["annotationData"]["content"])["answer"]["label"] for a in row["annotations"]]
        return max(sorted(set(votes)), key=votes.count)
    return [{"datasetObjectId": row["datasetObjectId"], "consolidatedAnnotation":
             {"content": {event["labelAttributeName"]: {"label": label(row)}}}} for row in rows]
"""
LAMBDA = "arn:aws:lambda:us-east-1:123456789012:function:"
ROLE = "arn:aws:iam::123456789012:role/anything"


@pytest.fixture
def cloud(launch: Callable[..., LocalCloud], tmp_path: Path) -> LocalCloud:
    (tmp_path / "template.yaml").write_text(TEMPLATE)
    (tmp_path / "improve.asl.json").write_text(json.dumps(MACHINE))
    for name, code in (("prepare", PREPARE), ("consolidate", CONSOLIDATE)):
        (tmp_path / name).mkdir()
        (tmp_path / name / "app.py").write_text(code)
    return launch(tmp_path / "template.yaml")


def put(cloud: LocalCloud, key: str, body: bytes | str) -> str:
    cloud.client("s3").put_object(Bucket="loop-data", Key=key, Body=body)
    return f"s3://loop-data/{key}"


def ended(cloud: LocalCloud) -> list[dict[str, Any]]:
    url = cloud.client("sqs").get_queue_url(QueueName="ended")["QueueUrl"]
    found = cloud.client("sqs").receive_message(QueueUrl=url, MaxNumberOfMessages=10).get("Messages", [])
    return [json.loads(message["Body"]) for message in found]


def test_a_labeling_job_runs_through_functions_rules_and_queues(cloud: LocalCloud) -> None:
    truth = {f"text {n}": "cat" if n % 2 else "dog" for n in range(40)}
    people = [Annotator.skilled(f"w{n}", accuracy=1.0, classes=2) for n in range(4)]
    team = cloud.labeling.employ("crowd", Crowd(people, lambda task: truth[str(task["text"])], classes=["cat", "dog"]))
    manifest = put(cloud, "m.jsonl", "\n".join(json.dumps({"source": text}) for text in truth))
    template = put(cloud, "t.html", '<crowd-form><crowd-classifier name="answer"></crowd-classifier></crowd-form>')

    cloud.client("sagemaker").create_labeling_job(
        LabelingJobName="round-1", LabelAttributeName="label", RoleArn=ROLE,
        InputConfig={"DataSource": {"S3DataSource": {"ManifestS3Uri": manifest}}},
        OutputConfig={"S3OutputPath": "s3://loop-data/jobs/"},
        HumanTaskConfig={
            "WorkteamArn": team, "UiConfig": {"UiTemplateS3Uri": template}, "PreHumanTaskLambdaArn": f"{LAMBDA}prepare",
            "TaskTitle": "t", "TaskDescription": "d", "NumberOfHumanWorkersPerDataObject": 3,
            "TaskTimeLimitInSeconds": 600,
            "AnnotationConsolidationConfig": {"AnnotationConsolidationLambdaArn": f"{LAMBDA}consolidate"},
        },
    )  # fmt: skip
    cloud.run_until_idle()

    (event,) = ended(cloud)
    job = cloud.client("sagemaker").describe_labeling_job(LabelingJobName=event["resources"][0].rsplit("/", 1)[1])
    key = job["LabelingJobOutput"]["OutputDatasetS3Uri"].removeprefix("s3://loop-data/")
    lines = cloud.client("s3").get_object(Bucket="loop-data", Key=key)["Body"].read().decode().splitlines()
    assert event["detail"] == {"LabelingJobStatus": "Completed"}
    assert [json.loads(line)["label"]["label"] for line in lines] == list(truth.values())
    assert {call.invoker for call in cloud.invocations} == {"sagemaker"}


def test_a_machine_trains_and_waits_for_the_event(cloud: LocalCloud) -> None:
    buffer = io.BytesIO()
    script = "import os\nopen(os.environ['SM_MODEL_DIR'] + '/model.json', 'w').write('{}')\n"
    with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
        entry = tarfile.TarInfo("train.py")
        entry.size = len(script)
        tar.addfile(entry, io.BytesIO(script.encode()))
    submit = put(cloud, "code.tar.gz", buffer.getvalue())
    source = {"S3DataType": "S3Prefix", "S3Uri": put(cloud, "train/a", "A")}
    request = {
        "TrainingJobName": "m1", "RoleArn": ROLE, "OutputDataConfig": {"S3OutputPath": "s3://loop-data/out"},
        "AlgorithmSpecification": {"TrainingImage": "image", "TrainingInputMode": "File"},
        "HyperParameters": {"sagemaker_program": "train.py", "sagemaker_submit_directory": submit},
        "InputDataConfig": [{"ChannelName": "train", "DataSource": {"S3DataSource": source}}],
        "ResourceConfig": {"InstanceCount": 1, "InstanceType": "ml.m5.large", "VolumeSizeInGB": 1},
        "StoppingCondition": {"MaxRuntimeInSeconds": 3600},
    }  # fmt: skip
    machine = f"arn:aws:states:{cloud.region}:{cloud.account}:stateMachine:improve"

    execution = cloud.client("stepfunctions").start_execution(stateMachineArn=machine, input=json.dumps(request))
    cloud.run_until_idle()

    shown = cloud.client("stepfunctions").describe_execution(executionArn=execution["executionArn"])
    assert json.loads(shown["output"]) == {"S3ModelArtifacts": "s3://loop-data/out/m1/output/model.tar.gz"}
    assert [event["detail"]["TrainingJobStatus"] for event in ended(cloud)] == ["Completed"]


@pytest.mark.parametrize(("skewed", "serving"), [(True, "m1"), (False, "m2")])
def test_the_alarm_on_a_canarys_errors_decides_its_rollout(cloud: LocalCloud, skewed: bool, serving: str) -> None:
    sagemaker, runtime = cloud.client("sagemaker"), cloud.client("sagemaker-runtime")
    for name in ("m1", "m2"):
        model = archive(**{"model.json": json.dumps({"model": name}), "code/inference.py": CODE})
        container = {"Image": "image", "ModelDataUrl": put(cloud, f"{name}.tar.gz", model)}
        sagemaker.create_model(ModelName=name, ExecutionRoleArn=ROLE, PrimaryContainer=container)
        variant = {
            "VariantName": "AllTraffic",
            "ModelName": name,
            "InitialInstanceCount": 1,
            "InstanceType": "ml.m5.large",
        }
        sagemaker.create_endpoint_config(EndpointConfigName=name, ProductionVariants=[variant])
    sagemaker.create_endpoint(EndpointName="loop", EndpointConfigName="m1")
    cloud.run_until_idle()
    if skewed:
        cloud.endpoints.skew["m2"] = lambda body, content_type: b'{"x": 0}'

    def ask() -> None:
        for _ in range(10):
            with suppress(runtime.exceptions.ModelError):
                runtime.invoke_endpoint(EndpointName="loop", Body=b'{"x": 1}', ContentType="application/json")

    for minute in range(40):
        cloud.clock.call_later(60 * minute, lambda: cloud.clock.spawn(ask))
    canary = {"Type": "CANARY", "CanarySize": {"Type": "CAPACITY_PERCENT", "Value": 10}, "WaitIntervalInSeconds": 600}
    sagemaker.update_endpoint(
        EndpointName="loop", EndpointConfigName="m2",
        DeploymentConfig={
            "BlueGreenUpdatePolicy": {"TrafficRoutingConfiguration": canary},
            "AutoRollbackConfiguration": {"Alarms": [{"AlarmName": "canary-errors"}]},
        },
    )  # fmt: skip
    cloud.run_until_idle()

    endpoint = sagemaker.describe_endpoint(EndpointName="loop")
    assert (endpoint["EndpointStatus"], endpoint["EndpointConfigName"]) == ("InService", serving)
    assert ("canary-errors" in endpoint.get("FailureReason", "")) is skewed


def test_an_action_the_local_cloud_does_not_simulate_is_never_met_with_silence(cloud: LocalCloud) -> None:
    with pytest.raises(NotImplementedError, match="list_notebook_instances"):
        cloud.client("sagemaker").list_notebook_instances()
