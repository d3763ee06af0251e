"""SageMaker endpoints: models in containers, blue/green updates that bake under alarms, invocations, data capture.

Traffic shifts and bakes in virtual time; while a deployment bakes, its alarms are evaluated every virtual minute, and one
in ALARM brings the old fleet back. After that the endpoint is InService again with the *old* config and a FailureReason,
as on AWS. Shapes and rules: aws-contracts 1.11 and 3.1 to 3.6.
"""

from __future__ import annotations

import base64
import hashlib
import json
import time as real_time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from .patches import Patch
from .sagemaker import Request, Service, find, page, patches, refuse
from .serving import Container

if TYPE_CHECKING:
    from .cloud import LocalCloud

PROVISIONING_SECONDS, ROLLBACK_SECONDS, DELETING_SECONDS = 240.0, 120.0, 60.0
ALARM_PERIOD_SECONDS, CAPTURE_FLUSH_SECONDS = 60.0, 300.0
MAX_BODY_BYTES = 6 * 2**20


class RolledBack(Exception):
    """Why the deployment under way has to go back."""


@dataclass
class Fleet:
    """The instances of one endpoint config: its variant, its container."""

    config: Request
    container: Container

    @property
    def variant(self) -> Request:
        """The one production variant."""
        found: Request = self.config["ProductionVariants"][0]
        return found


@dataclass
class Endpoint:
    """One endpoint: what Describe shows, the fleet in service, the one that comes, and its share of the traffic."""

    shown: Request
    blue: Fleet | None = None
    green: Fleet | None = None
    share: float = 0.0
    baking: bool = False
    calls: int = 0


class Endpoints(Service):
    """Models, endpoint configs, endpoints and their runtime. `skew[name]`, name of a model or config, changes what that
    fleet's container sees of a request body: `(body, content_type) -> body`, a preprocessing fault for a drill."""

    actions = (
        "create_model", "describe_model", "list_models", "delete_model", "create_endpoint_config",
        "describe_endpoint_config", "list_endpoint_configs", "delete_endpoint_config", "create_endpoint",
        "update_endpoint", "describe_endpoint", "list_endpoints", "delete_endpoint",
    )  # fmt: skip
    spelled: ClassVar[dict[str, str]] = {"InService": "IN_SERVICE", "RollingBack": "ROLLING_BACK"}

    def __init__(self, cloud: LocalCloud, tags: dict[str, dict[str, str]]) -> None:
        super().__init__(cloud, tags)
        self.skew: dict[str, Callable[[bytes, str], bytes]] = {}
        self.seed = 0
        self._models, self._configs = dict[str, Request](), dict[str, Request]()
        self._endpoints, self._captured = dict[str, Endpoint](), dict[str, list[str]]()
        self._files = 0

    def create_model(self, p: Request) -> Request:
        name, container = p["ModelName"], p.get("PrimaryContainer", {})
        refuse(name in self._models, f"Cannot create already existing model {name}")
        refuse("Containers" in p or not container.get("ModelDataUrl"), "a PrimaryContainer with ModelDataUrl is needed here")
        refuse("Image" not in container, "the local cloud runs models from an Image and ModelDataUrl")
        refuse(not p.get("ExecutionRoleArn"), "ExecutionRoleArn is required for a model from ECR and S3")
        refuse(not self.exists(container["ModelDataUrl"]), f"Could not find model data at {container['ModelDataUrl']}.")
        arn = self.arn("model", name, tags=p.get("Tags"))
        self._models[name] = {**p, "ModelArn": arn, "CreationTime": self.now()}
        return {"ModelArn": arn}

    def describe_model(self, p: Request) -> Request:
        return find(self._models, p["ModelName"], "model")

    def list_models(self, p: Request) -> Request:
        return page(self._models.values(), p, into="Models", name="ModelName")

    def delete_model(self, p: Request) -> Request:
        self.describe_model(p)
        del self._models[p["ModelName"]]
        return {}

    def create_endpoint_config(self, p: Request) -> Request:
        name, variants = p["EndpointConfigName"], p["ProductionVariants"]
        refuse(name in self._configs, f"Cannot create already existing endpoint configuration {name}")
        refuse(len(variants) != 1, "the local cloud serves endpoints of one production variant")
        known = {"ModelName", "InitialInstanceCount", "InstanceType"}
        refuse(not known <= set(variants[0]), f"the local cloud serves variants with {sorted(known)}")
        find(self._models, variants[0]["ModelName"], "model")
        arn = self.arn("endpoint-config", name, tags=p.get("Tags"))
        self._configs[name] = {**p, "EndpointConfigArn": arn, "CreationTime": self.now()}
        return {"EndpointConfigArn": arn}

    def describe_endpoint_config(self, p: Request) -> Request:
        return find(self._configs, p["EndpointConfigName"], "endpoint configuration")

    def list_endpoint_configs(self, p: Request) -> Request:
        return page(self._configs.values(), p, into="EndpointConfigs", name="EndpointConfigName")

    def delete_endpoint_config(self, p: Request) -> Request:
        name = self.describe_endpoint_config(p)["EndpointConfigName"]
        used = [f for e in self._endpoints.values() for f in (e.blue, e.green) if f and f.config is self._configs[name]]
        refuse(bool(used), f"Cannot delete endpoint configuration {name} while an endpoint uses it")
        del self._configs[name]
        return {}

    def create_endpoint(self, p: Request) -> Request:
        name, config = p["EndpointName"], self.describe_endpoint_config(p)
        with self._lock:
            refuse(name in self._endpoints, f"Cannot create already existing endpoint {name}")
            arn = self.arn("endpoint", name.lower(), tags=p.get("Tags"))
            endpoint = self._endpoints[name] = Endpoint({**p, "EndpointArn": arn, "CreationTime": self.now()})
            self._set(endpoint, "Creating")
        self.clock.spawn(lambda: self._deploy(endpoint, config, {}), name=f"create {name}")
        return {"EndpointArn": arn}

    def update_endpoint(self, p: Request) -> Request:
        endpoint: Endpoint = find(self._endpoints, p["EndpointName"], "endpoint")
        config, how, running = self.describe_endpoint_config(p), p.get("DeploymentConfig", {}), endpoint.blue
        refuse(endpoint.shown["EndpointStatus"] != "InService" or not running, "Cannot update in-progress endpoint")
        assert running is not None
        names = [f["ProductionVariants"][0]["VariantName"] for f in (running.config, config)]
        refuse(names[0] != names[1], f"the new config must keep the variant name {names[0]}, not {names[1]}")
        _check(how)
        with self._lock:
            refuse(endpoint.green is not None or endpoint.shown["EndpointStatus"] != "InService", "Cannot update twice")
            endpoint.shown.pop("FailureReason", None)
            endpoint.shown["LastDeploymentConfig"] = how
            self._set(endpoint, "Updating")
        self.clock.spawn(lambda: self._deploy(endpoint, config, how), name=f"update {p['EndpointName']}")
        return {"EndpointArn": endpoint.shown["EndpointArn"]}

    def describe_endpoint(self, p: Request) -> Request:
        endpoint: Endpoint = find(self._endpoints, p["EndpointName"], "endpoint")
        shown, fleet, green = dict(endpoint.shown), endpoint.blue, endpoint.green
        if fleet:
            shown["ProductionVariants"] = [self._variant(endpoint, fleet)]
            if capture := fleet.config.get("DataCaptureConfig"):
                on = capture.get("EnableCapture", True)
                shown["DataCaptureConfig"] = {
                    "EnableCapture": on, "CaptureStatus": "Started" if on else "Stopped", "KmsKeyId": capture.get("KmsKeyId", ""),
                    "CurrentSamplingPercentage": capture["InitialSamplingPercentage"], "DestinationS3Uri": capture["DestinationS3Uri"],
                }  # fmt: skip
        if green:
            pending = {"EndpointConfigName": green.config["EndpointConfigName"], "StartTime": endpoint.shown["LastModifiedTime"]}
            shown["PendingDeploymentSummary"] = {**pending, "ProductionVariants": [self._variant(endpoint, green)]}
        return shown

    def list_endpoints(self, p: Request) -> Request:
        rows = [endpoint.shown for endpoint in self._endpoints.values()]
        return page(rows, p, into="Endpoints", name="EndpointName", status="EndpointStatus")

    def delete_endpoint(self, p: Request) -> Request:
        endpoint: Endpoint = find(self._endpoints, p["EndpointName"], "endpoint")
        refuse(endpoint.shown["EndpointStatus"] in ("Creating", "Updating", "RollingBack"), "Cannot delete in-progress endpoint")
        self._set(endpoint, "Deleting")
        self.clock.call_later(DELETING_SECONDS, lambda: self._forget(p["EndpointName"]), name="delete endpoint")
        return {}

    def close(self) -> None:
        """Stop every container."""
        for name in list(self._endpoints):
            self._forget(name)

    def invoke(self, name: str, body: bytes, headers: dict[str, str]) -> tuple[int, dict[str, str], bytes]:
        """InvokeEndpoint: HTTP status, headers and body. `headers` have lower-case names."""
        endpoint, refusal = self._endpoints.get(name), ""
        if endpoint is None or endpoint.blue is None:
            refusal = f"Endpoint {name} of account {self.cloud.account} not found."
        elif len(body) > MAX_BODY_BYTES:
            refusal = f"the body has {len(body)} bytes; {MAX_BODY_BYTES} are allowed"
        elif headers.get("x-amzn-sagemaker-target-variant", endpoint.blue.variant["VariantName"]) != endpoint.blue.variant["VariantName"]:
            refusal = "no such variant"
        if refusal or endpoint is None:
            return _error(400, "ValidationError", {"Message": refusal})
        fleet, number = self._route(endpoint)
        seen_type, accept = headers.get("content-type", "application/octet-stream"), headers.get("accept", "application/json")
        accept = "application/json" if accept in ("*/*", "") else accept
        seen = body
        for skewed in (fleet.variant["ModelName"], fleet.config["EndpointConfigName"]):
            seen = self.skew[skewed](seen, seen_type) if skewed in self.skew else seen
        started = real_time.perf_counter()
        status, kind, answer = fleet.container.invoke(seen, content_type=seen_type, accept=accept)
        self._measure(name, fleet, status, (real_time.perf_counter() - started) * 1e6)
        if status != 200:
            stream = f"arn:aws:logs:{self.cloud.region}:{self.cloud.account}:log-group:/aws/sagemaker/Endpoints/{name}"
            said = {"OriginalStatusCode": status, "OriginalMessage": answer.decode(errors="replace"), "LogStreamArn": stream}
            return _error(424, "ModelError", {"Message": f"Received error ({status}) from primary", **said})
        self._capture(name, fleet, number, (body, seen_type), (answer, kind), headers)
        passed = {"content-type": kind, "x-amzn-invoked-production-variant": fleet.variant["VariantName"]}
        if "x-amzn-sagemaker-custom-attributes" in headers:
            passed["x-amzn-sagemaker-custom-attributes"] = headers["x-amzn-sagemaker-custom-attributes"]
        return 200, passed, answer

    def _deploy(self, endpoint: Endpoint, config: Request, how: Request) -> None:
        """Provision the new fleet, shift the traffic step by step, bake each step, retire the old fleet; or go back."""
        policy = how.get("BlueGreenUpdatePolicy", {})
        alarms = [alarm["AlarmName"] for alarm in how.get("AutoRollbackConfiguration", {}).get("Alarms", [])]
        routing = policy.get("TrafficRoutingConfiguration", {"Type": "ALL_AT_ONCE", "WaitIntervalInSeconds": 0})
        old = endpoint.blue
        try:
            self.clock.sleep(PROVISIONING_SECONDS)
            endpoint.green = self._provision(config)
            for share in _steps(routing, endpoint.green.variant["InitialInstanceCount"]) if old else ():
                endpoint.share, endpoint.baking = share, True
                self._tell_deployment(endpoint)
                self._bake(alarms, routing["WaitIntervalInSeconds"])
            endpoint.baking = False
            endpoint.blue, endpoint.green, endpoint.share = endpoint.green, None, 0.0
            if old:
                self.clock.sleep(policy.get("TerminationWaitInSeconds", 0))
            endpoint.shown["EndpointConfigName"] = config["EndpointConfigName"]
            retired = old
        except RolledBack as why:
            retired, endpoint.green, endpoint.share, endpoint.baking = endpoint.green, None, 0.0, False
            endpoint.shown["FailureReason"] = str(why)[:1024]
            if old:
                self._set(endpoint, "RollingBack")
                self.clock.sleep(ROLLBACK_SECONDS)
        if retired:
            retired.container.close()
        self._set(endpoint, "InService" if endpoint.blue else "Failed")

    def _provision(self, config: Request) -> Fleet:
        model = self._models.get(config["ProductionVariants"][0]["ModelName"])
        try:
            if model is None:
                raise RuntimeError("the model was deleted")
            container = model["PrimaryContainer"]
            return Fleet(config, Container(self.get(container["ModelDataUrl"]), container.get("Environment", {})))
        except RuntimeError as error:
            variant = config["ProductionVariants"][0]["VariantName"]
            why = f"The primary container for production variant {variant} did not pass the ping health check. {error}"
            raise RolledBack(why) from error

    def _bake(self, alarms: list[str], seconds: float) -> None:
        """Let time pass; RolledBack when one of the alarms is in ALARM at the start or after any minute."""
        end = self.clock.time() + seconds
        while alarms and seconds:
            self.cloud.cloudwatch.evaluate(alarms)
            found = self.cloud.client("cloudwatch").describe_alarms(AlarmNames=alarms, AlarmTypes=["MetricAlarm", "CompositeAlarm"])
            rows = found["MetricAlarms"] + found.get("CompositeAlarms", [])
            if ringing := sorted(alarm["AlarmName"] for alarm in rows if alarm["StateValue"] == "ALARM"):
                raise RolledBack(f"Endpoint deployment was rolled back: alarm {', '.join(ringing)} was in ALARM state")
            if self.clock.time() >= end:
                return
            self.clock.sleep(min(ALARM_PERIOD_SECONDS, end - self.clock.time()))
        self.clock.sleep(seconds)

    def _route(self, endpoint: Endpoint) -> tuple[Fleet, int]:
        with self._lock:
            endpoint.calls += 1
            drawn = _uniform(f"{self.seed}/{endpoint.shown['EndpointName']}/{endpoint.calls}")
            fleet = endpoint.green if endpoint.green and drawn < endpoint.share else endpoint.blue
            assert fleet is not None
            return fleet, endpoint.calls

    def _measure(self, name: str, fleet: Fleet, status: int, microseconds: float) -> None:
        dimensions = {"EndpointName": name, "VariantName": fleet.variant["VariantName"]}
        values = (("Invocations", 1.0, "Count"), ("Invocation4XXErrors", float(400 <= status < 500), "Count"),
                  ("Invocation5XXErrors", float(status >= 500), "Count"), ("ModelLatency", microseconds, "Microseconds"))  # fmt: skip
        for more in ({}, {"EndpointConfigName": fleet.config["EndpointConfigName"]}):
            for metric, value, unit in values:
                self.cloud.put_metric("AWS/SageMaker", metric, value, {**dimensions, **more}, unit)

    def _capture(
        self, name: str, fleet: Fleet, number: int, request: tuple[bytes, str], reply: tuple[bytes, str], headers: dict[str, str]
    ) -> None:
        config = fleet.config.get("DataCaptureConfig")
        if not config or not config.get("EnableCapture", True):
            return
        if _uniform(f"capture/{self.seed}/{name}/{number}") * 100 >= config["InitialSamplingPercentage"]:
            return
        modes = {option["CaptureMode"] for option in config["CaptureOptions"]}
        kinds, captured = config.get("CaptureContentTypeHeader", {}), {}
        for side, mode, (body, kind) in (("endpointInput", "Input", request), ("endpointOutput", "Output", reply)):
            if modes & {mode, "InputAndOutput"}:
                captured[side] = {"observedContentType": kind, "mode": mode.upper(), **_encoded(body, kind, kinds)}
        about = {"eventId": hashlib.sha256(f"{name}/{number}/{self.clock.time()}".encode()).hexdigest()[:32],
                 "inferenceTime": f"{self.now():%Y-%m-%dT%H:%M:%SZ}"}  # fmt: skip
        if "x-amzn-sagemaker-inference-id" in headers:
            about["inferenceId"] = headers["x-amzn-sagemaker-inference-id"]
        if "x-amzn-sagemaker-custom-attributes" in headers:
            about["customAttributes"] = [headers["x-amzn-sagemaker-custom-attributes"]]  # type: ignore[assignment]
        line = json.dumps({"captureData": captured, "eventMetadata": about, "eventVersion": "0"})
        folder = f"{config['DestinationS3Uri'].rstrip('/')}/{name}/{fleet.variant['VariantName']}/{self.now():%Y/%m/%d/%H}"
        with self._lock:
            first = not self._captured
            self._captured.setdefault(folder, []).append(line)
        if first:
            self.clock.call_later(CAPTURE_FLUSH_SECONDS, lambda: self.clock.spawn(self.flush), name="data capture")

    def flush(self) -> None:
        """Write the captured requests to S3."""
        with self._lock:
            captured, self._captured = self._captured, {}
        for folder, lines in captured.items():
            self._files += 1
            unique = hashlib.sha256(f"{folder}/{self._files}".encode()).hexdigest()[:12]
            self.put(f"{folder}/{self.now():%M-%S}-{unique}.jsonl", ("\n".join(lines) + "\n").encode())

    def _variant(self, endpoint: Endpoint, fleet: Fleet) -> Request:
        v, green = fleet.variant, fleet is endpoint.green
        image = self._models.get(v["ModelName"], {}).get("PrimaryContainer", {}).get("Image", "deleted")
        weight = endpoint.share if green else 1 - endpoint.share
        status = [{"Status": "Baking" if endpoint.baking else "Creating"}] if green else []
        return {
            "VariantName": v["VariantName"], "DeployedImages": [{"SpecifiedImage": image}], "CurrentWeight": weight,
            "DesiredWeight": v.get("InitialVariantWeight", 1.0), "CurrentInstanceCount": v["InitialInstanceCount"],
            "DesiredInstanceCount": v["InitialInstanceCount"], "VariantStatus": status,
        }  # fmt: skip

    def _forget(self, name: str) -> None:
        endpoint = self._endpoints.pop(name)
        for fleet in (endpoint.blue, endpoint.green):
            if fleet:
                fleet.container.close()

    def _set(self, endpoint: Endpoint, status: str) -> None:
        endpoint.shown.update(EndpointStatus=status, LastModifiedTime=self.now())
        self.tell("Endpoint", self._event(endpoint), endpoint.shown["EndpointArn"])

    def _tell_deployment(self, endpoint: Endpoint) -> None:
        assert endpoint.green is not None
        variant = {"VariantName": endpoint.green.variant["VariantName"], "CurrentWeight": endpoint.share,
                   "VariantStatus": [{"Status": "Baking"}]}  # fmt: skip
        pending = {"EndpointConfigName": endpoint.green.config["EndpointConfigName"], "ProductionVariants": [variant]}
        detail = {**self._event(endpoint), "PendingDeploymentSummary": pending}
        self.tell("Endpoint Deployment", detail, endpoint.shown["EndpointArn"])

    def _event(self, endpoint: Endpoint) -> Request:
        shown = endpoint.shown
        times = {key: int(shown[key].timestamp() * 1000) for key in ("CreationTime", "LastModifiedTime")}
        names = {key: shown[key] for key in ("EndpointName", "EndpointArn", "EndpointConfigName", "FailureReason") if key in shown}
        status = shown["EndpointStatus"]
        return {**names, **times, "EndpointStatus": self.spelled.get(status, status.upper()), "Tags": self._tags[shown["EndpointArn"]]}


def _check(how: Request) -> None:
    """The rules of a DeploymentConfig that the service model does not state."""
    if not how:
        return
    refuse("RollingUpdatePolicy" in how, "the local cloud deploys blue/green only")
    policy = how["BlueGreenUpdatePolicy"]
    routing = policy["TrafficRoutingConfiguration"]
    for kind, needed, low, high in (("CANARY", "CanarySize", 1, 50), ("LINEAR", "LinearStepSize", 10, 50)):
        refuse((routing["Type"] == kind) != (needed in routing), f"{needed} goes with {kind}, and only with it")
        size = routing.get(needed)
        percent = size and size["Type"] == "CAPACITY_PERCENT"
        refuse(bool(percent) and not low <= size["Value"] <= high, f"{needed} must be {low} to {high} percent")
    waits = routing["WaitIntervalInSeconds"] * len(_steps(routing, 100)) + policy.get("TerminationWaitInSeconds", 0)
    longest = policy.get("MaximumExecutionTimeoutInSeconds", waits + 600)
    refuse(longest <= waits, f"MaximumExecutionTimeoutInSeconds {longest} must exceed the sum of the waits, {waits}")


def _steps(routing: Request, instances: int) -> list[float]:
    """The new fleet's share of the traffic after each shift."""
    if routing["Type"] == "ALL_AT_ONCE":
        return [1.0]
    size = routing["CanarySize" if routing["Type"] == "CANARY" else "LinearStepSize"]
    step = size["Value"] / (100 if size["Type"] == "CAPACITY_PERCENT" else instances)
    if routing["Type"] == "CANARY":
        return [min(step, 1.0), 1.0]
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


PATCHES = (
    *patches("endpoints", Endpoints.actions, "An update bakes under alarms, and goes back.", absent=("update_endpoint",)),
    Patch(
        "moto.sagemakerruntime.responses.SageMakerRuntimeResponse",
        "invoke_endpoint",
        "An endpoint answers with what its model says.",
        _invoke,
    ),
)
