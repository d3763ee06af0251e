"""Endpoints in the local cloud: containers, blue/green deployments on virtual time, metrics, data capture."""

from __future__ import annotations

import base64
import io
import json
import tarfile
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest
from botocore.exceptions import ClientError

from tests.local.small_cloud import SmallCloud, small_cloud

ROLE = "arn:aws:iam::123456789012:role/endpoint"
CODE = """
import json
from werkzeug.wrappers import Response
def model_fn(folder):
    print("loading")
    return json.load(open(folder + "/model.json"))
def input_fn(body, content_type):
    if content_type != "application/json":
        return Response("not JSON", status=415)
    return json.loads(body)
def predict_fn(data, model):
    if isinstance(data, Response) or "bad" in data:
        return data if isinstance(data, Response) else Response("no instances", status=400)
    return {"model": model["model"], "got": 1 / data["x"]}
def output_fn(prediction, accept):
    return prediction if isinstance(prediction, Response) else (json.dumps(prediction), accept)
"""


def archive(**files: str) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
        for name, text in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(text)
            tar.addfile(entry, io.BytesIO(text.encode()))
    return buffer.getvalue()


@pytest.fixture
def cloud() -> Iterator[SmallCloud]:
    with small_cloud() as cloud:
        configure(cloud, "m1")
        configure(cloud, "m2")
        cloud.client("sagemaker").create_endpoint(EndpointName="winnow", EndpointConfigName="m1")
        cloud.clock.run()
        yield cloud


def configure(cloud: SmallCloud, name: str, *, code: str = CODE, percent: int = 100) -> None:
    sagemaker = cloud.client("sagemaker")
    files = {"model.json": json.dumps({"model": name}), "code/inference.py": code}
    container = {"Image": "image", "ModelDataUrl": cloud.put(f"{name}.tar.gz", archive(**files))}
    sagemaker.create_model(ModelName=name, ExecutionRoleArn=ROLE, PrimaryContainer=container)
    production = {
        "VariantName": "AllTraffic",
        "ModelName": name,
        "InitialInstanceCount": 1,
        "InstanceType": "ml.m5.large",
    }
    capture = {
        "EnableCapture": True, "InitialSamplingPercentage": percent, "DestinationS3Uri": "s3://data/capture",
        "CaptureOptions": [{"CaptureMode": "Input"}, {"CaptureMode": "Output"}],
        "CaptureContentTypeHeader": {"JsonContentTypes": ["application/json"]},
    }  # fmt: skip
    sagemaker.create_endpoint_config(
        EndpointConfigName=name, ProductionVariants=[production], DataCaptureConfig=capture
    )


def invoke(cloud: SmallCloud, body: dict[str, Any] | bytes, **more: str) -> dict[str, Any]:
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    request = {"EndpointName": "winnow", "ContentType": "application/json", **more}
    answer: dict[str, Any] = cloud.client("sagemaker-runtime").invoke_endpoint(Body=raw, **request)
    return {**answer, "Body": json.loads(answer["Body"].read())}


def shown(cloud: SmallCloud) -> dict[str, Any]:
    found: dict[str, Any] = cloud.client("sagemaker").describe_endpoint(EndpointName="winnow")
    return found


def update(cloud: SmallCloud, config: str = "m2", routing: dict[str, Any] | None = None, **policy: Any) -> None:
    size = {"Type": "CAPACITY_PERCENT", "Value": 10}
    canary = {"Type": "CANARY", "CanarySize": size, "WaitIntervalInSeconds": 600}
    cloud.client("cloudwatch").put_metric_alarm(
        AlarmName="errors", Namespace="N", MetricName="m", Statistic="Sum", Period=60, EvaluationPeriods=1, Threshold=1.0,
        ComparisonOperator="GreaterThanThreshold",
    )  # fmt: skip
    cloud.client("sagemaker").update_endpoint(
        EndpointName="winnow", EndpointConfigName=config,
        DeploymentConfig={
            "BlueGreenUpdatePolicy": {"TrafficRoutingConfiguration": routing or canary, **policy},
            "AutoRollbackConfiguration": {"Alarms": [{"AlarmName": "errors"}]},
        },
    )  # fmt: skip


def ring(cloud: SmallCloud, state: str = "ALARM") -> None:
    cloud.client("cloudwatch").set_alarm_state(AlarmName="errors", StateValue=state, StateReason="drill")


def wait(cloud: SmallCloud, seconds: float) -> None:
    cloud.clock.run(until=cloud.clock.time() + seconds)


def models(cloud: SmallCloud, calls: int = 200) -> Counter[str]:
    return Counter(invoke(cloud, {"x": 1})["Body"]["model"] for _ in range(calls))


def test_an_endpoint_answers_with_what_its_model_says(cloud: SmallCloud) -> None:
    answer = invoke(cloud, {"x": 4})

    assert answer["Body"] == {"model": "m1", "got": 0.25}
    assert answer["InvokedProductionVariant"] == "AllTraffic"
    assert answer["ContentType"] == "application/json"


def test_a_body_that_is_no_text_reaches_the_container_byte_for_byte(cloud: SmallCloud) -> None:
    seen: list[bytes] = []
    cloud.endpoints.skew["m1"] = lambda body, kind: seen.append(body) or b'{"x": 1}'  # type: ignore[attr-defined]

    with pytest.raises(ClientError):  # this model takes JSON only
        invoke(cloud, bytes(range(256)), ContentType="image/png")

    assert seen == [bytes(range(256))]


def test_a_new_endpoint_is_in_service_after_its_provisioning(cloud: SmallCloud) -> None:
    endpoint = shown(cloud)

    assert (endpoint["EndpointStatus"], endpoint["EndpointConfigName"]) == ("InService", "m1")
    assert (endpoint["LastModifiedTime"] - endpoint["CreationTime"]).total_seconds() == 240


@pytest.mark.parametrize(
    ("body", "kind", "status"), [({"x": 0}, "", 500), ({"bad": 1}, "", 400), ({"x": 1}, "text/csv", 415)]
)
def test_a_model_that_fails_is_a_model_error(cloud: SmallCloud, body: dict[str, int], kind: str, status: int) -> None:
    with pytest.raises(cloud.client("sagemaker-runtime").exceptions.ModelError) as failed:
        invoke(cloud, body, ContentType=kind or "application/json")

    assert failed.value.response["OriginalStatusCode"] == status
    assert failed.value.response["ResponseMetadata"]["HTTPStatusCode"] == 424


def test_an_unknown_endpoint_is_a_validation_error(cloud: SmallCloud) -> None:
    with pytest.raises(ClientError) as refused:
        invoke(cloud, {"x": 1}, EndpointName="nope")

    assert refused.value.response["Error"]["Code"] == "ValidationError"


def test_invocations_are_measured_by_endpoint_and_by_config(cloud: SmallCloud) -> None:
    invoke(cloud, {"x": 1})
    with pytest.raises(ClientError):
        invoke(cloud, {"x": 0})

    sums: Counter[tuple[str, int]] = Counter()
    for namespace, name, value, dims in cloud.metrics:
        assert namespace == "AWS/SageMaker"
        assert dims["EndpointName"], dims["VariantName"] == ("winnow", "AllTraffic")
        sums[name, len(dims)] += value if name != "ModelLatency" else value > 0
    assert {sums["Invocations", n] for n in (2, 3)} == {2}
    assert {sums["Invocation5XXErrors", n] for n in (2, 3)} == {1}
    assert {sums["Invocation4XXErrors", n] for n in (2, 3)} == {0}
    assert {sums["ModelLatency", n] for n in (2, 3)} == {2}


def test_a_canary_gets_its_share_then_everything(cloud: SmallCloud) -> None:
    update(cloud, TerminationWaitInSeconds=120)
    before, during = models(cloud), shown(cloud)
    wait(cloud, 300)
    baking, seen = models(cloud), shown(cloud)
    cloud.clock.run()

    after = shown(cloud)
    assert before == {"m1": 200}
    assert during["EndpointStatus"] == "Updating"
    assert 8 <= baking["m2"] <= 35  # 20 expected
    assert seen["PendingDeploymentSummary"]["EndpointConfigName"] == "m2"
    assert (after["EndpointStatus"], after["EndpointConfigName"]) == ("InService", "m2")
    assert "FailureReason" not in after
    assert "PendingDeploymentSummary" not in after
    # provisioning, two bakes, the termination wait
    assert (after["LastModifiedTime"] - during["LastModifiedTime"]).total_seconds() == 240 + 600 + 600 + 120
    assert models(cloud) == {"m2": 200}


def test_an_alarm_while_baking_brings_the_old_config_back(cloud: SmallCloud) -> None:
    update(cloud)
    wait(cloud, 300)
    ring(cloud)
    wait(cloud, 60)
    rolling = shown(cloud)["EndpointStatus"]
    cloud.clock.run()

    after = shown(cloud)
    assert rolling == "RollingBack"
    assert (after["EndpointStatus"], after["EndpointConfigName"]) == ("InService", "m1")
    assert "errors" in after["FailureReason"]
    assert models(cloud) == {"m1": 200}


def test_an_alarm_before_the_deployment_rolls_it_back_and_a_later_success_clears_the_reason(cloud: SmallCloud) -> None:
    update(cloud)
    ring(cloud)
    cloud.clock.run()
    failed = shown(cloud)
    ring(cloud, "OK")
    update(cloud)
    cloud.clock.run()

    assert "rolled back" in failed["FailureReason"]
    assert shown(cloud)["EndpointConfigName"] == "m2"
    assert "FailureReason" not in shown(cloud)


def test_a_container_that_does_not_come_up_rolls_back_or_fails(cloud: SmallCloud) -> None:
    configure(cloud, "broken", code="def model_fn(folder):\n    raise OSError('no model.onnx')\n")
    update(cloud, "broken")
    cloud.client("sagemaker").create_endpoint(EndpointName="other", EndpointConfigName="broken")
    cloud.clock.run()

    other = cloud.client("sagemaker").describe_endpoint(EndpointName="other")
    assert (shown(cloud)["EndpointStatus"], shown(cloud)["EndpointConfigName"]) == ("InService", "m1")
    assert other["EndpointStatus"] == "Failed"
    assert all("ping health check" in reason["FailureReason"] for reason in (shown(cloud), other))


def test_one_update_at_a_time_and_names_are_taken(cloud: SmallCloud) -> None:
    update(cloud)

    with pytest.raises(ClientError, match="in-progress"):
        update(cloud)
    with pytest.raises(ClientError, match="already existing"):
        configure(cloud, "m2")


def test_a_canary_is_at_most_half_and_other_ways_to_shift_are_not_simulated(cloud: SmallCloud) -> None:
    size = {"Type": "CAPACITY_PERCENT", "Value": 60}
    linear = {"Type": "LINEAR", "WaitIntervalInSeconds": 60, "LinearStepSize": size}

    with pytest.raises(ClientError, match="1 to 50"):
        update(cloud, routing={"Type": "CANARY", "WaitIntervalInSeconds": 60, "CanarySize": size})
    with pytest.raises(NotImplementedError, match="LINEAR"):
        update(cloud, routing=linear)


def test_without_a_policy_all_traffic_goes_at_once_and_what_served_can_be_deleted(cloud: SmallCloud) -> None:
    sagemaker = cloud.client("sagemaker")

    sagemaker.update_endpoint(EndpointName="winnow", EndpointConfigName="m2")
    cloud.clock.run()
    sagemaker.delete_endpoint_config(EndpointConfigName="m1")
    sagemaker.delete_model(ModelName="m1")

    assert models(cloud, 5) == {"m2": 5}
    assert [model["ModelName"] for model in sagemaker.list_models()["Models"]] == ["m2"]
    assert [config["EndpointConfigName"] for config in sagemaker.list_endpoint_configs()["EndpointConfigs"]] == ["m2"]


def test_an_endpoint_that_is_not_there_is_a_validation_exception(cloud: SmallCloud) -> None:
    with pytest.raises(ClientError, match="Could not find") as refused:
        cloud.client("sagemaker").describe_endpoint(EndpointName="nope")

    assert refused.value.response["Error"]["Code"] == "ValidationException"


def test_what_was_asked_and_answered_is_captured_by_the_hour(cloud: SmallCloud) -> None:
    invoke(cloud, {"x": 1}, InferenceId="i-1")
    with pytest.raises(ClientError):
        invoke(cloud, b"a,b", ContentType="text/csv")
    wait(cloud, 301)

    (entry,) = cloud.client("s3").list_objects_v2(Bucket="data", Prefix="capture/")["Contents"]
    (line,) = cloud.read(f"s3://data/{entry['Key']}").decode().splitlines()
    record = json.loads(line)
    assert entry["Key"].startswith("capture/winnow/AllTraffic/2026/03/02/09/")
    data = {"observedContentType": "application/json", "mode": "INPUT", "data": '{"x": 1}', "encoding": "JSON"}
    assert record["captureData"]["endpointInput"] == data
    assert json.loads(record["captureData"]["endpointOutput"]["data"]) == {"model": "m1", "got": 1.0}
    assert record["eventMetadata"]["inferenceId"] == "i-1"
    assert record["eventVersion"] == "0"


def test_capture_samples_and_encodes_what_no_header_names(cloud: SmallCloud) -> None:
    code = CODE.replace('!= "application/json"', '== "text/csv"')
    configure(cloud, "m4", code=code, percent=50)
    cloud.client("sagemaker").update_endpoint(EndpointName="winnow", EndpointConfigName="m4")
    cloud.clock.run()

    for _ in range(100):
        invoke(cloud, {"x": 1}, ContentType="application/x-other")
    wait(cloud, 301)

    (entry,) = cloud.client("s3").list_objects_v2(Bucket="data", Prefix="capture/")["Contents"]
    lines = cloud.read(f"s3://data/{entry['Key']}").decode().splitlines()
    asked = json.loads(lines[0])["captureData"]["endpointInput"]
    assert 30 < len(lines) < 70
    assert (asked["encoding"], base64.b64decode(asked["data"])) == ("BASE64", b'{"x": 1}')


def test_a_skew_in_one_fleets_preprocessing_is_seen_by_that_fleet_only(cloud: SmallCloud) -> None:
    cloud.endpoints.skew["m2"] = lambda body, content_type: b'{"x": 0}'  # type: ignore[attr-defined]
    update(cloud)
    wait(cloud, 300)

    outcomes: Counter[str] = Counter()
    for _ in range(200):
        try:
            outcomes[invoke(cloud, {"x": 1})["Body"]["model"]] += 1
        except ClientError:
            outcomes["failed"] += 1

    assert outcomes["m2"] == 0
    assert 8 <= outcomes["failed"] <= 35
