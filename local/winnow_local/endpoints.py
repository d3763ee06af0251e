"""SageMaker endpoints: models in containers, blue/green updates that bake under alarms, invocations, data capture.

Traffic shifts and bakes in virtual time; while a deployment bakes, its alarms are evaluated every virtual minute, and
one in ALARM brings the old fleet back. After that the endpoint is InService again with the *old* config and a
FailureReason, as on AWS. Shapes and rules: aws-contracts 1.11 and 3.1 to 3.6.
"""

from __future__ import annotations

import base64
import hashlib
import json
import time as real_time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from .patches import Patch
from .sagemaker import Request, Service, find, page, patches, refuse
from .serving import Container

if TYPE_CHECKING:
    from .cloud import LocalCloud

PROVISIONING_SECONDS, ROLLBACK_SECONDS, DELETING_SECONDS = 240.0, 120.0, 60.0
ALARM_PERIOD_SECONDS, CAPTURE_FLUSH_SECONDS = 60.0, 300.0
MAX_BODY_BYTES = 6 * 2**20
SPELLED = {"InService": "IN_SERVICE", "RollingBack": "ROLLING_BACK"}
"""How events spell a status where it is not just upper case."""
_VARIANT = {"ModelName", "InitialInstanceCount", "InstanceType"}
_INFERENCE, _CUSTOM = "x-amzn-sagemaker-inference-id", "x-amzn-sagemaker-custom-attributes"


class RolledBackError(Exception):
    """Why the deployment under way has to go back."""


@dataclass
class Fleet:
    """The instances of one endpoint config: its one variant, its container."""

    config: Request
    container: Container

    @property
    def name(self) -> str:
        """The config's name."""
        return str(self.config["EndpointConfigName"])

    @property
    def variant(self) -> Request:
        """The one production variant."""
        found: Request = self.config["ProductionVariants"][0]
        return found


@dataclass
class Endpoint:
    """What Describe shows, the fleet in service (blue), the one that comes (green) and green's share of the traffic."""

    shown: Request
    blue: Fleet | None = None
    green: Fleet | None = None
    share: float = 0.0
    calls: int = 0


class Endpoints(Service):
    """Models, endpoint configs, endpoints and their runtime.

    `skew[name]`, name of a model or config, changes what that fleet's container sees of a request body,
    `(body, content_type) -> body`: a preprocessing fault for a drill. `seed` decides which requests a canary gets.
    """

    actions = (
        "create_model", "describe_model", "list_models", "delete_model", "create_endpoint_config",
        "describe_endpoint_config", "list_endpoint_configs", "delete_endpoint_config", "create_endpoint",
        "update_endpoint", "describe_endpoint", "list_endpoints", "delete_endpoint",
    )  # fmt: skip

    def __init__(self, cloud: LocalCloud, tags: dict[str, dict[str, str]]) -> None:
        super().__init__(cloud, tags)
        self.skew: dict[str, Callable[[bytes, str], bytes]] = {}
        self.seed, self._files = 0, 0
        self._models, self._configs = dict[str, Request](), dict[str, Request]()
        self._endpoints, self._captured = dict[str, Endpoint](), dict[str, list[str]]()

    def create_model(self, p: Request) -> Request:
        name, container = p["ModelName"], p.get("PrimaryContainer", {})
        refuse(name in self._models, f"Cannot create already existing model {name}")
        refuse(not {"Image", "ModelDataUrl"} <= container.keys(), "a PrimaryContainer with Image and ModelDataUrl is needed")
        refuse(not p.get("ExecutionRoleArn"), "ExecutionRoleArn is required for a model from ECR and S3")
        refuse(not self.exists(container["ModelDataUrl"]), f"Could not find model data at {container['ModelDataUrl']}.")
        arn = self.arn("model", name, tags=p.get("Tags"))
        self._models[name] = {**p, "ModelArn": arn, "CreationTime": self.clock.now()}
        return {"ModelArn": arn}

    def describe_model(self, p: Request) -> Request:
        return find(self._models, p["ModelName"], "model")

    def list_models(self, p: Request) -> Request:
        return page(self._models.values(), p, into="Models", name="ModelName")

    def delete_model(self, p: Request) -> Request:
        del self._models[self.describe_model(p)["ModelName"]]
        return {}

    def create_endpoint_config(self, p: Request) -> Request:
        name, variants = p["EndpointConfigName"], p["ProductionVariants"]
        refuse(name in self._configs, f"Cannot create already existing endpoint configuration {name}")
        refuse(len(variants) != 1 or not set(variants[0]) >= _VARIANT, f"here a config is one variant with {sorted(_VARIANT)}")
        self.describe_model(variants[0])
        arn = self.arn("endpoint-config", name, tags=p.get("Tags"))
        self._configs[name] = {**p, "EndpointConfigArn": arn, "CreationTime": self.clock.now()}
        return {"EndpointConfigArn": arn}

    def describe_endpoint_config(self, p: Request) -> Request:
        return find(self._configs, p["EndpointConfigName"], "endpoint configuration")

    def list_endpoint_configs(self, p: Request) -> Request:
        return page(self._configs.values(), p, into="EndpointConfigs", name="EndpointConfigName")

    def delete_endpoint_config(self, p: Request) -> Request:
        name = self.describe_endpoint_config(p)["EndpointConfigName"]
        fleets = [fleet for endpoint in self._endpoints.values() for fleet in (endpoint.blue, endpoint.green) if fleet]
        refuse(name in [fleet.name for fleet in fleets], f"Cannot delete endpoint configuration {name}: an endpoint uses it")
        del self._configs[name]
        return {}

    def create_endpoint(self, p: Request) -> Request:
        name, config = p["EndpointName"], self.describe_endpoint_config(p)
        with self._lock:
            refuse(name in self._endpoints, f"Cannot create already existing endpoint {name}")
            arn = self.arn("endpoint", name.lower(), tags=p.get("Tags"))
            endpoint = self._endpoints[name] = Endpoint({**p, "EndpointArn": arn, "CreationTime": self.clock.now()})
            self._set(endpoint, "Creating")
        self.clock.spawn(lambda: self._deploy(endpoint, config, {}), name=f"create {name}")
        return {"EndpointArn": arn}

    def update_endpoint(self, p: Request) -> Request:
        endpoint, config, how = self._find(p), self.describe_endpoint_config(p), p.get("DeploymentConfig", {})
        _check(how)
        with self._lock:
            refuse(endpoint.shown["EndpointStatus"] != "InService", "Cannot update in-progress endpoint")
            assert endpoint.blue is not None
            before, after = endpoint.blue.variant["VariantName"], config["ProductionVariants"][0]["VariantName"]
            refuse(before != after, f"the new config must keep the variant name {before}, not {after}")
            endpoint.shown.pop("FailureReason", None)
            endpoint.shown["LastDeploymentConfig"] = how
            self._set(endpoint, "Updating")
        self.clock.spawn(lambda: self._deploy(endpoint, config, how), name=f"update {p['EndpointName']}")
        return {"EndpointArn": endpoint.shown["EndpointArn"]}

    def describe_endpoint(self, p: Request) -> Request:
        endpoint = self._find(p)
        shown = dict(endpoint.shown)
        if endpoint.blue:
            shown["ProductionVariants"] = [self._variant(endpoint, endpoint.blue)]
            if capture := endpoint.blue.config.get("DataCaptureConfig"):
                shown["DataCaptureConfig"] = {
                    "EnableCapture": True, "CaptureStatus": "Started", "KmsKeyId": capture.get("KmsKeyId", ""),
                    "CurrentSamplingPercentage": capture["InitialSamplingPercentage"],
                    "DestinationS3Uri": capture["DestinationS3Uri"],
                }  # fmt: skip
        if endpoint.green:
            variants, since = [self._variant(endpoint, endpoint.green)], shown["LastModifiedTime"]
            pending = {"EndpointConfigName": endpoint.green.name, "StartTime": since, "ProductionVariants": variants}
            shown["PendingDeploymentSummary"] = pending
        return shown

    def list_endpoints(self, p: Request) -> Request:
        rows = [endpoint.shown for endpoint in self._endpoints.values()]
        return page(rows, p, into="Endpoints", name="EndpointName", status="EndpointStatus")

    def delete_endpoint(self, p: Request) -> Request:
        endpoint = self._find(p)
        under_way = endpoint.shown["EndpointStatus"] in ("Creating", "Updating", "RollingBack")
        refuse(under_way, "Cannot delete in-progress endpoint")
        self._set(endpoint, "Deleting")
        self.clock.call_later(DELETING_SECONDS, lambda: self._forget(p["EndpointName"]), name="delete endpoint")
        return {}

    def close(self) -> None:
        """Stop every container."""
        for name in list(self._endpoints):
            self._forget(name)

    def invoke(self, name: str, body: bytes, headers: Mapping[str, str]) -> tuple[int, dict[str, str], bytes]:
        """InvokeEndpoint: HTTP status, headers and body. `headers` have lower-case names."""
        endpoint = self._endpoints.get(name)
        if endpoint is None or endpoint.blue is None:
            return _error(400, "ValidationError", {"Message": f"Endpoint {name} of account {self.cloud.account} not found."})
        if len(body) > MAX_BODY_BYTES:
            return _error(400, "ValidationError", {"Message": f"{len(body)} bytes; {MAX_BODY_BYTES} are allowed"})
        fleet, number = self._route(name, endpoint)
        kind, accept = headers.get("content-type", "application/octet-stream"), headers.get("accept", "*/*")
        seen = body
        for skewed in sorted({fleet.variant["ModelName"], fleet.name} & set(self.skew)):
            seen = self.skew[skewed](seen, kind)
        started = real_time.perf_counter()
        accepted = "application/json" if accept == "*/*" else accept
        status, answered, answer = fleet.container.invoke(seen, content_type=kind, accept=accepted)
        self._measure(name, fleet, status, (real_time.perf_counter() - started) * 1e6)
        if status != 200:
            stream = f"arn:aws:logs:{self.cloud.region}:{self.cloud.account}:log-group:/aws/sagemaker/Endpoints/{name}"
            said = {"OriginalStatusCode": status, "OriginalMessage": answer.decode(errors="replace"), "LogStreamArn": stream}
            return _error(424, "ModelError", {"Message": f"Received error ({status}) from primary", **said})
        self._capture(name, fleet, number, {"Input": (body, kind), "Output": (answer, answered)}, headers)
        passed = {_CUSTOM: headers[_CUSTOM]} if _CUSTOM in headers else {}
        variant = {"x-amzn-invoked-production-variant": fleet.variant["VariantName"]}
        return 200, {"content-type": answered, **variant, **passed}, answer

    def _find(self, p: Request) -> Endpoint:
        endpoint: Endpoint = find(self._endpoints, p["EndpointName"], "endpoint")
        return endpoint

    def _deploy(self, endpoint: Endpoint, config: Request, how: Request) -> None:
        """Provision the new fleet, shift the traffic step by step, bake each step, retire the old fleet; or go back."""
        policy, old = how.get("BlueGreenUpdatePolicy", {}), endpoint.blue
        alarms = [alarm["AlarmName"] for alarm in how.get("AutoRollbackConfiguration", {}).get("Alarms", [])]
        routing = policy.get("TrafficRoutingConfiguration", {"Type": "ALL_AT_ONCE", "WaitIntervalInSeconds": 0})
        try:
            self.clock.sleep(PROVISIONING_SECONDS)
            endpoint.green = self._provision(config)
            for share in _steps(routing, endpoint.green.variant["InitialInstanceCount"]) if old else ():
                endpoint.share = share
                self._tell_deployment(endpoint, endpoint.green)
                self._bake(alarms, routing["WaitIntervalInSeconds"])
            if old:
                self.clock.sleep(policy.get("TerminationWaitInSeconds", 0))
            endpoint.blue, endpoint.green, endpoint.share, retired = endpoint.green, None, 0.0, old
            endpoint.shown["EndpointConfigName"] = config["EndpointConfigName"]
        except RolledBackError as why:
            retired, endpoint.green, endpoint.share = endpoint.green, None, 0.0
            endpoint.shown["FailureReason"] = str(why)[:1024]
            if old:
                self._set(endpoint, "RollingBack")
                self.clock.sleep(ROLLBACK_SECONDS)
        if retired:
            retired.container.close()
        self._set(endpoint, "InService" if endpoint.blue else "Failed")

    def _provision(self, config: Request) -> Fleet:
        variant = config["ProductionVariants"][0]
        try:
            container = find(self._models, variant["ModelName"], "model")["PrimaryContainer"]
            return Fleet(config, Container(self.get(container["ModelDataUrl"]), container.get("Environment", {})))
        except RuntimeError as error:
            why = f"The primary container for production variant {variant['VariantName']} did not pass the ping health check."
            raise RolledBackError(f"{why} {error}") from error

    def _bake(self, alarms: list[str], seconds: float) -> None:
        """Let time pass; RolledBackError when one of the alarms is in ALARM at the start or after any minute."""
        end = self.clock.time() + seconds
        while alarms and seconds:
            self.cloud.cloudwatch.evaluate(alarms)
            kinds = ["MetricAlarm", "CompositeAlarm"]
            found = self.cloud.client("cloudwatch").describe_alarms(AlarmNames=alarms, AlarmTypes=kinds)
            rows = [*found.get("MetricAlarms", []), *found.get("CompositeAlarms", [])]
            if ringing := sorted(alarm["AlarmName"] for alarm in rows if alarm["StateValue"] == "ALARM"):
                raise RolledBackError(f"Endpoint deployment was rolled back: {', '.join(ringing)} in ALARM state")
            if self.clock.time() >= end:
                return
            self.clock.sleep(min(ALARM_PERIOD_SECONDS, end - self.clock.time()))
        self.clock.sleep(seconds)

    def _route(self, name: str, endpoint: Endpoint) -> tuple[Fleet, int]:
        with self._lock:
            endpoint.calls += 1
            canary = _uniform(f"{self.seed}/{name}/{endpoint.calls}") < endpoint.share
            fleet = endpoint.green if endpoint.green and canary else endpoint.blue
            assert fleet is not None
            return fleet, endpoint.calls

    def _measure(self, name: str, fleet: Fleet, status: int, microseconds: float) -> None:
        dimensions = {"EndpointName": name, "VariantName": fleet.variant["VariantName"]}
        values = {"Invocations": 1.0, "Invocation4XXErrors": float(400 <= status < 500),
                  "Invocation5XXErrors": float(status >= 500), "ModelLatency": microseconds}  # fmt: skip
        for more in ({}, {"EndpointConfigName": fleet.name}):
            for metric, value in values.items():
                unit = "Microseconds" if metric == "ModelLatency" else "Count"
                self.cloud.put_metric("AWS/SageMaker", metric, value, {**dimensions, **more}, unit)

    def _capture(
        self, name: str, fleet: Fleet, number: int, bodies: dict[str, tuple[bytes, str]], headers: Mapping[str, str]
    ) -> None:
        config = fleet.config.get("DataCaptureConfig", {})
        if _uniform(f"capture/{self.seed}/{name}/{number}") * 100 >= config.get("InitialSamplingPercentage", 0):
            return
        modes = {option["CaptureMode"] for option in config["CaptureOptions"]}
        kinds = config.get("CaptureContentTypeHeader", {})
        data = {
            f"endpoint{side}": {"observedContentType": kind, "mode": side.upper(), **_encoded(body, kind, kinds)}
            for side, (body, kind) in bodies.items() if modes & {side, "InputAndOutput"}
        }  # fmt: skip
        event = hashlib.sha256(f"{name}/{number}/{self.clock.time()}".encode()).hexdigest()[:32]
        about: Request = {"eventId": event, "inferenceTime": f"{self.clock.now():%Y-%m-%dT%H:%M:%SZ}"}
        about |= {"inferenceId": headers[_INFERENCE]} if _INFERENCE in headers else {}
        about |= {"customAttributes": [headers[_CUSTOM]]} if _CUSTOM in headers else {}
        line = json.dumps({"captureData": data, "eventMetadata": about, "eventVersion": "0"})
        hour = f"{name}/{fleet.variant['VariantName']}/{self.clock.now():%Y/%m/%d/%H}"
        with self._lock:
            if not self._captured:
                self.clock.call_later(CAPTURE_FLUSH_SECONDS, lambda: self.clock.spawn(self._flush), name="data capture")
            self._captured.setdefault(f"{config['DestinationS3Uri'].rstrip('/')}/{hour}", []).append(line)

    def _flush(self) -> None:
        """Write the captured requests to S3, one file an hour's folder."""
        with self._lock:
            captured, self._captured = self._captured, {}
        for folder, lines in captured.items():
            self._files += 1
            unique = hashlib.sha256(f"{folder}/{self._files}".encode()).hexdigest()[:12]
            self.put(f"{folder}/{self.clock.now():%M-%S}-{unique}.jsonl", ("\n".join(lines) + "\n").encode())

    def _variant(self, endpoint: Endpoint, fleet: Fleet) -> Request:
        image = self._models.get(fleet.variant["ModelName"], {}).get("PrimaryContainer", {}).get("Image", "deleted")
        green, count = fleet is endpoint.green, fleet.variant["InitialInstanceCount"]
        return {
            "VariantName": fleet.variant["VariantName"], "DeployedImages": [{"SpecifiedImage": image}],
            "CurrentWeight": endpoint.share if green else 1 - endpoint.share, "DesiredWeight": 1.0,
            "CurrentInstanceCount": count, "DesiredInstanceCount": count,
            "VariantStatus": [{"Status": "Baking"}] if green else [],
        }  # fmt: skip

    def _forget(self, name: str) -> None:
        endpoint = self._endpoints.pop(name)
        for fleet in (endpoint.blue, endpoint.green):
            if fleet:
                fleet.container.close()

    def _set(self, endpoint: Endpoint, status: str) -> None:
        endpoint.shown.update(EndpointStatus=status, LastModifiedTime=self.clock.now())
        self.tell("Endpoint", self._event(endpoint), endpoint.shown["EndpointArn"])

    def _tell_deployment(self, endpoint: Endpoint, green: Fleet) -> None:
        baking = {"VariantName": green.variant["VariantName"], "CurrentWeight": endpoint.share, "VariantStatus": "Baking"}
        pending = {"EndpointConfigName": green.name, "ProductionVariants": [baking]}
        detail = {**self._event(endpoint), "PendingDeploymentSummary": pending}
        self.tell("Endpoint Deployment", detail, endpoint.shown["EndpointArn"])

    def _event(self, endpoint: Endpoint) -> Request:
        shown, names = endpoint.shown, ("EndpointName", "EndpointArn", "EndpointConfigName", "FailureReason")
        times = {key: int(shown[key].timestamp() * 1000) for key in ("CreationTime", "LastModifiedTime")}
        status = SPELLED.get(shown["EndpointStatus"], shown["EndpointStatus"].upper())
        return {**{key: shown[key] for key in names if key in shown}, **times, "EndpointStatus": status}


def _check(how: Request) -> None:
    """The rules of a DeploymentConfig that the service model does not state."""
    refuse("RollingUpdatePolicy" in how, "the local cloud deploys blue/green only")
    if "BlueGreenUpdatePolicy" not in how:
        return
    policy = how["BlueGreenUpdatePolicy"]
    routing = policy["TrafficRoutingConfiguration"]
    for kind, needed, low in (("CANARY", "CanarySize", 1), ("LINEAR", "LinearStepSize", 10)):
        refuse((routing["Type"] == kind) != (needed in routing), f"{needed} goes with {kind}, and only with it")
        size = routing.get(needed, {"Type": "INSTANCE_COUNT"})
        wrong = size["Type"] == "CAPACITY_PERCENT" and not low <= size["Value"] <= 50
        refuse(wrong, f"{needed} must be {low} to 50 percent")
    waits = routing["WaitIntervalInSeconds"] * len(_steps(routing, 100)) + policy.get("TerminationWaitInSeconds", 0)
    longest = policy.get("MaximumExecutionTimeoutInSeconds", waits + 600)
    refuse(longest <= waits, f"MaximumExecutionTimeoutInSeconds {longest} must exceed the sum of the waits, {waits}")


def _steps(routing: Request, instances: int) -> list[float]:
    """The new fleet's share of the traffic after each shift."""
    if routing["Type"] == "ALL_AT_ONCE":
        return [1.0]
    size = routing["CanarySize" if routing["Type"] == "CANARY" else "LinearStepSize"]
    step = min(1.0, size["Value"] / (100 if size["Type"] == "CAPACITY_PERCENT" else instances))
    if routing["Type"] == "CANARY":
        return [step, 1.0]
    return [min(1.0, step * (i + 1)) for i in range(-int(-1 // step))]


def _encoded(body: bytes, kind: str, kinds: dict[str, list[str]]) -> dict[str, str]:
    for name, encoding in (("JsonContentTypes", "JSON"), ("CsvContentTypes", "CSV")):
        if kind in kinds.get(name, []):
            return {"data": body.decode(), "encoding": encoding}
    return {"data": base64.b64encode(body).decode(), "encoding": "BASE64"}


def _uniform(text: str) -> float:
    return int(hashlib.sha256(text.encode()).hexdigest()[:13], 16) / 16**13


def _error(status: int, code: str, said: Request) -> tuple[int, dict[str, str], bytes]:
    return status, {"x-amzn-errortype": code, "content-type": "application/json"}, json.dumps(said).encode()


def _invoke(_: Any, cloud: LocalCloud) -> Callable[[Any], tuple[bytes, dict[str, str]]]:
    def invoke_endpoint(response: Any) -> tuple[bytes, dict[str, str]]:
        headers = {key.lower(): value for key, value in response.headers.items()}
        body = response.body if isinstance(response.body, bytes) else str(response.body).encode()
        status, answered, answer = cloud.endpoints.invoke(response.path.split("/")[2], body, headers)
        return answer, {**answered, "status": str(status)}

    return invoke_endpoint


_RUNTIME = "moto.sagemakerruntime.responses.SageMakerRuntimeResponse"
PATCHES = (
    *patches("endpoints", Endpoints.actions, "An update bakes under alarms, and goes back.", absent=("update_endpoint",)),
    Patch(_RUNTIME, "use_raw_body", "A request's body reaches the container byte for byte.", lambda *_: True),
    Patch(_RUNTIME, "invoke_endpoint", "An endpoint answers with what its model says.", _invoke),
)
