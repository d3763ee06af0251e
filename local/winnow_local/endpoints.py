"""SageMaker endpoints: models in containers, canary updates that bake under alarms, invocations, data capture.

While a deployment bakes, its alarms are evaluated every virtual minute; one in ALARM brings the old fleet back, and the
endpoint is InService again with the *old* config and a FailureReason. Rules: aws-contracts 1.11 and 3.1 to 3.6.
"""

from __future__ import annotations

import base64
import hashlib
import json
import time as real_time
from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from .patches import Patch
from .sagemaker import Request, Service, only, refuse
from .serving import Container

PROVISIONING_SECONDS, ROLLBACK_SECONDS = 240.0, 120.0
ALARM_PERIOD_SECONDS, CAPTURE_FLUSH_SECONDS = 60.0, 300.0
Reply = tuple[int, dict[str, str], bytes]


class RolledBackError(Exception):
    """Why the deployment under way has to go back."""


class Fleet(Container):
    """The instances of one endpoint config, of its one variant."""

    def __init__(self, config: Request, model_archive: bytes, environment: dict[str, str]) -> None:
        super().__init__(model_archive, environment)
        self.name, self.capture = config["EndpointConfigName"], config.get("DataCaptureConfig", {})
        self.variant = config["ProductionVariants"][0]["VariantName"]


@dataclass
class Endpoint:
    """What Describe shows, the fleet in service (blue), the one that comes (green) and green's share of the traffic."""

    shown: Request
    blue: Fleet | None = None
    green: Fleet | None = None
    share: float = 0.0
    calls: int = 0

    @property
    def fleets(self) -> list[Fleet]:
        """Those that are up."""
        return [fleet for fleet in (self.blue, self.green) if fleet]


class Endpoints(Service):
    """Models, endpoint configs of one variant, endpoints and their runtime. `skew[config]` changes what that fleet's
    container sees of a request body, `(body, content_type) -> body`: a preprocessing fault for a drill."""

    plain: ClassVar = {"list_models": "Model Models", "list_endpoint_configs": "EndpointConfig EndpointConfigs",
                       "list_endpoints": "Endpoint Endpoints"}  # fmt: skip

    def __init__(self, cloud: Any) -> None:
        super().__init__(cloud)
        self.skew: dict[str, Callable[[bytes, str], bytes]] = {}
        self._endpoints, self._captured, self._files = dict[str, Endpoint](), defaultdict[str, list[str]](list), 0

    def create_model(self, p: Request) -> Request:
        self.get(p["PrimaryContainer"]["ModelDataUrl"])
        return self.keep("Model", p)

    def delete_model(self, p: Request) -> Request:
        return self._kept["Model"].pop(p["ModelName"].lower()) and {}

    def create_endpoint_config(self, p: Request) -> Request:
        refuse(len(p["ProductionVariants"]) != 1, "the local cloud serves one variant")
        self.find("Model", p["ProductionVariants"][0])
        return self.keep("EndpointConfig", p)

    def delete_endpoint_config(self, p: Request) -> Request:
        used = {fleet.name for endpoint in self._endpoints.values() for fleet in endpoint.fleets}
        refuse(p["EndpointConfigName"] in used, f"Cannot delete {p['EndpointConfigName']}: an endpoint uses it")
        return self._kept["EndpointConfig"].pop(p["EndpointConfigName"].lower()) and {}

    def create_endpoint(self, p: Request) -> Request:
        self.find("EndpointConfig", p)
        made = self.keep("Endpoint", p)
        self._endpoints[p["EndpointName"]] = Endpoint(self.find("Endpoint", p))
        return made | self._begin(p, "Creating", {})

    def update_endpoint(self, p: Request) -> Request:
        shown, how = self.find("Endpoint", p), p.get("DeploymentConfig", {})
        self.find("EndpointConfig", p)
        only(how, "BlueGreenUpdatePolicy AutoRollbackConfiguration")
        if how:
            routing = how["BlueGreenUpdatePolicy"]["TrafficRoutingConfiguration"]
            only({routing["Type"]: routing}, "CANARY")
            only({routing["CanarySize"]["Type"]: routing}, "CAPACITY_PERCENT")
            refuse(not 1 <= routing["CanarySize"]["Value"] <= 50, "CanarySize must be 1 to 50 percent")
        refuse(shown["EndpointStatus"] != "InService", "Cannot update in-progress endpoint")
        shown.pop("FailureReason", None)
        return self._begin(p, "Updating", how)

    def describe_endpoint(self, p: Request) -> Request:
        shown, green = self.find("Endpoint", p), self._endpoints[p["EndpointName"]].green
        return {**shown, "PendingDeploymentSummary": {"EndpointConfigName": green.name}} if green else shown

    def close(self) -> None:
        """Stop every container."""
        for fleet in (fleet for endpoint in self._endpoints.values() for fleet in endpoint.fleets):
            fleet.close()

    def invoke(self, name: str, body: bytes, headers: Mapping[str, str]) -> Reply:
        """InvokeEndpoint: HTTP status, headers and body. `headers` have lower-case names."""
        endpoint = self._endpoints.get(name)
        if endpoint is None or endpoint.blue is None:
            return _error(
                400, "ValidationError", {"Message": f"Endpoint {name} of account {self.cloud.account} not found."}
            )
        with self.cloud.gateway.lock:
            endpoint.calls += 1
            request = f"{name}-{endpoint.calls}"
            fleet = endpoint.green if endpoint.green and _uniform(request) < endpoint.share else endpoint.blue
        kind, started = headers.get("content-type", "application/octet-stream"), real_time.perf_counter()
        seen = self.skew[fleet.name](body, kind) if fleet.name in self.skew else body
        status, answered, answer = fleet.invoke(seen, kind, "application/json")
        self._measure(name, fleet, status, (real_time.perf_counter() - started) * 1e6)
        if status != 200:
            said = {"OriginalStatusCode": status, "OriginalMessage": answer.decode(errors="replace")}
            return _error(424, "ModelError", {"Message": f"Received error ({status}) from primary", **said})
        if _uniform(f"capture {request}") * 100 < fleet.capture.get("InitialSamplingPercentage", 0):
            inference = headers.get("x-amzn-sagemaker-inference-id")
            about = {"eventId": request, "inferenceTime": f"{self.clock.now():%Y-%m-%dT%H:%M:%SZ}"}
            about |= {"inferenceId": inference} if inference else {}
            self._capture(name, fleet, about, Input=(body, kind), Output=(answer, answered))
        return 200, {"content-type": answered, "x-amzn-invoked-production-variant": fleet.variant}, answer

    def _begin(self, p: Request, status: str, how: Request) -> Request:
        endpoint, config = self._endpoints[p["EndpointName"]], self.find("EndpointConfig", p)
        self._set(endpoint, status)
        self.clock.spawn(lambda: self._deploy(endpoint, config, how), name="deployment")
        return {"EndpointArn": endpoint.shown["EndpointArn"]}

    def _set(self, endpoint: Endpoint, status: str) -> None:
        endpoint.shown.update(EndpointStatus=status, LastModifiedTime=self.clock.now())

    def _deploy(self, endpoint: Endpoint, config: Request, how: Request) -> None:
        """Provision the new fleet, shift the canary and then everything, bake both, retire the old fleet; or go back."""
        alarms = [alarm["AlarmName"] for alarm in how.get("AutoRollbackConfiguration", {}).get("Alarms", [])]
        old = endpoint.blue
        try:
            self.clock.sleep(PROVISIONING_SECONDS)
            endpoint.green = self._provision(config)
            if policy := how.get("BlueGreenUpdatePolicy"):
                routing = policy["TrafficRoutingConfiguration"]
                for endpoint.share in (routing["CanarySize"]["Value"] / 100, 1.0):
                    self._bake(alarms, routing["WaitIntervalInSeconds"])
                self.clock.sleep(policy.get("TerminationWaitInSeconds", 0))
            endpoint.blue, retired = endpoint.green, old
            endpoint.shown["EndpointConfigName"] = config["EndpointConfigName"]
        except RolledBackError as why:
            retired, endpoint.shown["FailureReason"] = endpoint.green, str(why)[:1024]
            if old:
                self._set(endpoint, "RollingBack")
        endpoint.green, endpoint.share = None, 0.0
        self.clock.sleep(ROLLBACK_SECONDS if endpoint.shown["EndpointStatus"] == "RollingBack" else 0.0)
        if retired:
            retired.close()
        self._set(endpoint, "InService" if endpoint.blue else "Failed")

    def _provision(self, config: Request) -> Fleet:
        model = self.find("Model", config["ProductionVariants"][0])["PrimaryContainer"]
        try:
            return Fleet(config, self.get(model["ModelDataUrl"]), model.get("Environment", {}))
        except RuntimeError as error:
            raise RolledBackError(f"The primary container did not pass the ping health check. {error}") from error

    def _bake(self, alarms: list[str], seconds: float) -> None:
        """Let time pass; RolledBackError when one of the alarms is in ALARM at the start or after any minute."""
        end, kinds = self.clock.time() + seconds, ("MetricAlarm", "CompositeAlarm")
        while True:
            self.cloud.cloudwatch.evaluate(alarms)
            found = self.cloud.client("cloudwatch").describe_alarms(AlarmNames=alarms, AlarmTypes=kinds)
            rows = [alarm for kind in kinds for alarm in found.get(f"{kind}s", [])]
            if ringing := sorted(alarm["AlarmName"] for alarm in rows if alarm["StateValue"] == "ALARM"):
                raise RolledBackError(f"Endpoint deployment was rolled back: {', '.join(ringing)} in ALARM state")
            if self.clock.time() >= end:
                return
            self.clock.sleep(min(ALARM_PERIOD_SECONDS, end - self.clock.time()))

    def _measure(self, name: str, fleet: Fleet, status: int, microseconds: float) -> None:
        dimensions = {"EndpointName": name, "VariantName": fleet.variant}
        counts = {"Invocations": 1.0, "Invocation4XXErrors": 400 <= status < 500, "Invocation5XXErrors": status >= 500}
        for dims in (dimensions, {**dimensions, "EndpointConfigName": fleet.name}):
            for metric, value in counts.items():
                self.cloud.cloudwatch.record("AWS/SageMaker", metric, dims, float(value))
            self.cloud.cloudwatch.record("AWS/SageMaker", "ModelLatency", dims, microseconds)

    def _capture(self, name: str, fleet: Fleet, about: Request, **sides: tuple[bytes, str]) -> None:
        """Keep what was asked and answered until it is flushed; what the config calls JSON stays readable."""
        data = {}
        for side, (body, kind) in sides.items():
            plain = kind in fleet.capture["CaptureContentTypeHeader"]["JsonContentTypes"]
            text, encoding = (body.decode(), "JSON") if plain else (base64.b64encode(body).decode(), "BASE64")
            seen = {"observedContentType": kind, "mode": side.upper(), "data": text, "encoding": encoding}
            data[f"endpoint{side}"] = seen
        hour = f"{name}/{fleet.variant}/{self.clock.now():%Y/%m/%d/%H}"
        with self.cloud.gateway.lock:
            if not self._captured:
                self.clock.call_later(CAPTURE_FLUSH_SECONDS, lambda: self.clock.spawn(self._flush), name="data capture")
            line = json.dumps({"captureData": data, "eventMetadata": about, "eventVersion": "0"})
            self._captured[f"{fleet.capture['DestinationS3Uri'].rstrip('/')}/{hour}"].append(line)

    def _flush(self) -> None:
        """Write the captured requests to S3, one file an hour's folder."""
        with self.cloud.gateway.lock:
            captured, self._captured = self._captured, defaultdict(list)
        for folder, lines in captured.items():
            self._files += 1
            self.put(f"{folder}/{self.clock.now():%M-%S}-{self._files:08}.jsonl", ("\n".join(lines) + "\n").encode())


def _uniform(text: str) -> float:
    return int(hashlib.sha256(text.encode()).hexdigest()[:13], 16) / 16**13


def _error(status: int, code: str, said: Request) -> Reply:
    return status, {"x-amzn-errortype": code, "content-type": "application/json"}, json.dumps(said).encode()


def _invoke(_: Any, cloud: Any) -> Callable[[Any], tuple[bytes, dict[str, str]]]:
    def invoke_endpoint(response: Any) -> tuple[bytes, dict[str, str]]:
        headers = {key.lower(): value for key, value in response.headers.items()}
        body = response.body if isinstance(response.body, bytes) else str(response.body).encode()
        status, answered, answer = cloud.endpoints.invoke(response.path.split("/")[2], body, headers)
        return answer, {**answered, "status": str(status)}

    return invoke_endpoint


_RUNTIME = "moto.sagemakerruntime.responses.SageMakerRuntimeResponse"
PATCHES = (
    Patch(_RUNTIME, "use_raw_body", "A request's body reaches the container byte for byte.", lambda *_: True),
    Patch(_RUNTIME, "invoke_endpoint", "An endpoint answers with what its model says.", _invoke),
)
