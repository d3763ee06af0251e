"""Training jobs, the endpoint and the model registry."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Literal

from winnow import layout
from winnow.aws.errors import translated
from winnow.aws.listing import exists
from winnow.aws.s3 import DataBucket
from winnow.aws.settings import VARIANT, Settings
from winnow.digests import digest
from winnow.errors import ConfigError, NotFound, Retryable
from winnow.loop import Loop
from winnow.ports import EndpointState, Rollout, TrainingState

_TRAINING: Mapping[str, Literal["running", "completed", "failed", "stopped"]] = {
    "InProgress": "running", "Stopping": "running", "Completed": "completed", "Failed": "failed", "Stopped": "stopped",
}  # fmt: skip
_SOURCE = "sourcedir.tar.gz"
_CAPTURED = {"JsonContentTypes": ["application/json", "application/x-jsonlines"]}


class TrainingJobs:
    def __init__(self, client: Any, settings: Settings, data: DataBucket, loop: Loop) -> None:
        self._sagemaker = client
        self._settings = settings
        self._data = data
        self._policy = loop.training

    def request(self, model: str, *, dataset: str, seed: int) -> dict[str, Any]:
        settings, policy = self._settings, self._policy
        if not settings.training_image:
            raise ConfigError("no training image is configured; deploy the stack with parameter TrainingImage")
        seconds = policy.max_minutes * 60
        parameters = {
            "sagemaker_program": "train.py",
            # A channel, not the archive's address: the toolkit would fetch that itself, and an isolated container cannot.
            "sagemaker_submit_directory": f"/opt/ml/input/data/code/{_SOURCE}",
            "sagemaker_region": settings.region,
            "seed": seed,
        }
        request: dict[str, Any] = {
            "TrainingJobName": settings.named(model),
            "AlgorithmSpecification": {"TrainingImage": settings.training_image, "TrainingInputMode": "File"},
            "RoleArn": settings.role("training"),
            "HyperParameters": {name: json.dumps(value) for name, value in parameters.items()},
            "InputDataConfig": [
                self._channel("train", layout.training_channel(dataset)),
                self._channel("spec", layout.training_spec(model).removesuffix("spec.json")),
                self._channel("code", self._source()),
                *([self._channel("encoder", layout.encoder(policy.encoder, ""))] if policy.encoder else []),
            ],
            "OutputDataConfig": {"S3OutputPath": self._data.uri("training-output")},
            "ResourceConfig": {"InstanceType": policy.instance, "InstanceCount": 1, "VolumeSizeInGB": 30},
            "StoppingCondition": {"MaxRuntimeInSeconds": seconds},
            "EnableNetworkIsolation": True,
            "EnableManagedSpotTraining": policy.spot,
            "Tags": [{"Key": "winnow:stack", "Value": settings.stack}],
        }
        if policy.spot:
            request["StoppingCondition"]["MaxWaitTimeInSeconds"] = 2 * seconds
        return request

    def _channel(self, name: str, prefix: str) -> dict[str, Any]:
        source = {
            "S3DataType": "S3Prefix",
            "S3Uri": self._data.uri(prefix),
            "S3DataDistributionType": "FullyReplicated",
        }
        return {"ChannelName": name, "DataSource": {"S3DataSource": source}, "InputMode": "File"}

    def _source(self) -> str:
        # Only the function that plans trainings carries the training layer.
        from winnow_training.source import build_source_archive

        archive = build_source_archive()
        key = f"code/{digest(archive)}/{_SOURCE}"
        if not self._data.exists(key):
            self._data.put(key, archive)
        return key

    def describe(self, model: str) -> TrainingState | None:
        name = self._settings.named(model)
        if not exists(self._sagemaker, "list_training_jobs", "TrainingJobSummaries", "TrainingJobName", name):
            return None
        with translated(f"training job {name}"):
            job = self._sagemaker.describe_training_job(TrainingJobName=name)
        return TrainingState(
            _TRAINING[job["TrainingJobStatus"]],
            job.get("ModelArtifacts", {}).get("S3ModelArtifacts"),
            job.get("FailureReason") or (job["SecondaryStatus"] if job["TrainingJobStatus"] == "Stopped" else None),
            int(job.get("BillableTimeInSeconds", 0)),
        )


class Endpoint:
    """The one endpoint of a stack; SageMaker model and endpoint config carry the model's id."""

    def __init__(self, client: Any, settings: Settings, data: DataBucket, loop: Loop) -> None:
        self._sagemaker = client
        self._settings = settings
        self._data = data
        self._policy = loop.rollout

    def enabled(self) -> bool:
        return self._settings.endpoint

    def state(self) -> EndpointState | None:
        name = self._settings.stack
        if not exists(self._sagemaker, "list_endpoints", "Endpoints", "EndpointName", name):
            return None
        with translated(f"endpoint {name}"):
            endpoint = self._sagemaker.describe_endpoint(EndpointName=name)
        config = endpoint.get("EndpointConfigName")
        pending = endpoint.get("PendingDeploymentSummary", {}).get("EndpointConfigName")
        return EndpointState(
            endpoint["EndpointStatus"],
            self._settings.identifier(config) if config else None,
            endpoint.get("FailureReason"),
            self._settings.identifier(pending) if pending else None,
        )

    def prepare(self, model: str, *, artifact: str) -> None:
        settings, policy, name = self._settings, self._policy, self._settings.named(model)
        container = {
            "Image": settings.training_image,
            "ModelDataUrl": artifact,
            "Environment": {
                "SAGEMAKER_PROGRAM": "inference.py",
                "SAGEMAKER_SUBMIT_DIRECTORY": "/opt/ml/model/code",
                "SAGEMAKER_REGION": settings.region,
            },
        }
        if not exists(self._sagemaker, "list_models", "Models", "ModelName", name):
            with translated(f"model {name}"):
                self._sagemaker.create_model(
                    ModelName=name,
                    PrimaryContainer=container,
                    ExecutionRoleArn=settings.role("endpoint"),
                    EnableNetworkIsolation=True,
                )
        if not exists(self._sagemaker, "list_endpoint_configs", "EndpointConfigs", "EndpointConfigName", name):
            variant = {
                "VariantName": VARIANT,
                "ModelName": name,
                "InstanceType": policy.instance,
                "InitialInstanceCount": policy.instances,
                "InitialVariantWeight": 1.0,
            }
            capture = {
                "EnableCapture": True,
                "InitialSamplingPercentage": policy.capture_percent,
                "DestinationS3Uri": self._data.uri(layout.CAPTURE.rstrip("/")),
                "CaptureOptions": [{"CaptureMode": "Input"}, {"CaptureMode": "Output"}],
                "CaptureContentTypeHeader": _CAPTURED,
            }
            with translated(f"endpoint config {name}"):
                self._sagemaker.create_endpoint_config(
                    EndpointConfigName=name, ProductionVariants=[variant], DataCaptureConfig=capture
                )

    def create(self, model: str) -> None:
        with translated(f"endpoint {self._settings.stack}"):
            self._sagemaker.create_endpoint(
                EndpointName=self._settings.stack, EndpointConfigName=self._settings.named(model)
            )

    def update(self, model: str, *, rollout: Rollout) -> None:
        state = self.state()
        if state is not None and state.status != "InService":
            raise Retryable(
                f"endpoint {self._settings.stack} is {state.status}; the update waits until it is InService"
            )
        seconds = rollout.wait_seconds + rollout.termination_wait_seconds
        policy = {
            "TrafficRoutingConfiguration": {
                "Type": "CANARY",
                "CanarySize": {"Type": "CAPACITY_PERCENT", "Value": rollout.canary_percent},
                "WaitIntervalInSeconds": rollout.wait_seconds,
            },
            "TerminationWaitInSeconds": rollout.termination_wait_seconds,
            "MaximumExecutionTimeoutInSeconds": min(28_800, max(600, seconds + 3600)),
        }
        with translated(f"endpoint {self._settings.stack}"):
            self._sagemaker.update_endpoint(
                EndpointName=self._settings.stack,
                EndpointConfigName=self._settings.named(model),
                RetainAllVariantProperties=False,
                DeploymentConfig={
                    "BlueGreenUpdatePolicy": policy,
                    "AutoRollbackConfiguration": {"Alarms": [{"AlarmName": name} for name in rollout.alarms]},
                },
            )

    def retire(self, model: str) -> None:
        name = self._settings.named(model)
        if exists(self._sagemaker, "list_endpoint_configs", "EndpointConfigs", "EndpointConfigName", name):
            with translated(f"endpoint config {name}"):
                self._sagemaker.delete_endpoint_config(EndpointConfigName=name)
        if exists(self._sagemaker, "list_models", "Models", "ModelName", name):
            with translated(f"model {name}"):
                self._sagemaker.delete_model(ModelName=name)


class ModelRegistry:
    """Packages are found by their description, which is the model's id: versions are numbered by SageMaker."""

    def __init__(self, client: Any, settings: Settings) -> None:
        self._sagemaker = client
        self._settings = settings

    def _find(self, model: str) -> str | None:
        with translated(f"model package group {self._settings.stack}"):
            pages = self._sagemaker.get_paginator("list_model_packages").paginate(
                ModelPackageGroupName=self._settings.stack
            )
            for page in pages:
                for item in page["ModelPackageSummaryList"]:
                    if item.get("ModelPackageDescription") == model:
                        return str(item["ModelPackageArn"])
        return None

    def register(self, model: str, *, artifact: str, report_key: str, properties: Mapping[str, str]) -> str:
        found = self._find(model)
        if found is not None:
            return found
        bucket = self._settings.data_bucket
        with translated(f"model package of {model}"):
            answer = self._sagemaker.create_model_package(
                ModelPackageGroupName=self._settings.stack,
                ModelPackageDescription=model,
                ModelApprovalStatus="PendingManualApproval",
                InferenceSpecification={
                    "Containers": [{"Image": self._settings.training_image, "ModelDataUrl": artifact}],
                    "SupportedContentTypes": ["application/json", "application/x-jsonlines", "text/plain", "image/png"],
                    "SupportedResponseMIMETypes": ["application/json"],
                },
                ModelMetrics={
                    "ModelQuality": {
                        "Statistics": {"ContentType": "application/json", "S3Uri": f"s3://{bucket}/{report_key}"}
                    }
                },
                CustomerMetadataProperties=dict(properties),
                ClientToken=model,
            )
        return str(answer["ModelPackageArn"])

    def decide(self, model: str, *, approved: bool, reason: str) -> None:
        arn = self._find(model)
        if arn is None:
            raise NotFound(
                f"model {model} is not in the registry group {self._settings.stack}; publish_model registers it"
            )
        with translated(f"model package {arn}"):
            self._sagemaker.update_model_package(
                ModelPackageArn=arn,
                ModelApprovalStatus="Approved" if approved else "Rejected",
                ApprovalDescription=reason[:1024],
            )
