"""SageMaker endpoints: models in containers, canary updates that bake under alarms, invocations, data capture.

While a deployment bakes, its alarms are evaluated every virtual minute; one in ALARM brings the old fleet back, and the
endpoint is InService again with the *old* config and a FailureReason. Rules: aws-contracts 1.11 and 3.1 to 3.6.
"""

from __future__ import annotations

import base64
import hashlib
import itertools
import json
import time as real_time
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

from moto.core.exceptions import ServiceException
from moto.core.responses import ActionResult

from .patches import Cloud, patched
from .sagemaker import Request, Service, only, refuse
from .serving import Container, DeploymentError

PROVISIONING_SECONDS, ROLLBACK_SECONDS = 240.0, 120.0
ALARM_PERIOD_SECONDS, CAPTURE_FLUSH_SECONDS = 60.0, 300.0


class InvokeError(ServiceException):
    """No model answered."""


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


class Endpoints(Service):
    """Models, endpoint configs of one variant, endpoints and their runtime. `skew[config]` changes what that fleet's
    container sees of a request body, `(body, content_type) -> body`: a preprocessing fault for a drill."""

    plain: ClassVar = {"list_models": "Model Models", "list_endpoint_configs": "EndpointConfig EndpointConfigs",
                       "list_endpoints": "Endpoint Endpoints"}  # fmt: skip

    def __init__(self, cloud: Cloud) -> None:
        super().__init__(cloud)
        self.skew: dict[str, Callable[[bytes, str], bytes]] = {}
        self._endpoints, self._calls, self._files = dict[str, Endpoint](), itertools.count(1), itertools.count(1)
        self._captured = defaultdict[str, list[str]](list)

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
        return self._kept["EndpointConfig"].pop(p["EndpointConfigName"].lower()) and {}

    def create_endpoint(self, p: Request) -> Request:
        config, made = self.find("EndpointConfig", p), self.keep("Endpoint", p, EndpointStatus="Creating")
        endpoint = self._endpoints[p["EndpointName"]] = Endpoint(self.find("Endpoint", p))
        self.clock.start(self._deploy(endpoint, config, {}), name="deployment")
        return made

    def update_endpoint(self, p: Request) -> Request:
        shown, config, how = self.find("Endpoint", p), self.find("EndpointConfig", p), p.get("DeploymentConfig", {})
        only(how, "BlueGreenUpdatePolicy AutoRollbackConfiguration")
        if how:
            routing = how["BlueGreenUpdatePolicy"]["TrafficRoutingConfiguration"]
            only({routing["Type"]: routing}, "CANARY")
            only({routing["CanarySize"]["Type"]: routing}, "CAPACITY_PERCENT")
            refuse(not 1 <= routing["CanarySize"]["Value"] <= 50, "CanarySize must be 1 to 50 percent")
        refuse(shown["EndpointStatus"] != "InService", "Cannot update in-progress endpoint")
        shown.pop("FailureReason", None)
        self._show(shown, "Updating")
        self.clock.start(self._deploy(self._endpoints[p["EndpointName"]], config, how), name="deployment")
        return {"EndpointArn": shown["EndpointArn"]}

    def describe_endpoint(self, p: Request) -> Request:
        shown, green = self.find("Endpoint", p), self._endpoints[p["EndpointName"]].green
        return {**shown, "PendingDeploymentSummary": {"EndpointConfigName": green.name}} if green else shown

    def close(self) -> None:
        """Stop every container."""
        for one in self._endpoints.values():
            for fleet in filter(None, (one.blue, one.green)):
                fleet.close()

    def invoke_endpoint(self, p: Request) -> Request:
        name, kind, body = p["EndpointName"], p.get("ContentType", "application/octet-stream"), p.get("Body", b"")
        endpoint = self._endpoints.get(name)
        if endpoint is None or endpoint.blue is None:
            raise InvokeError("ValidationError", f"Endpoint {name} of account {self.cloud.account} not found.")
        request, green, started = f"{name}-{next(self._calls)}", endpoint.green, real_time.perf_counter()
        fleet = green if green and _uniform(request) < endpoint.share else endpoint.blue
        seen = self.skew[fleet.name](body, kind) if fleet.name in self.skew else body
        status, answered, answer = fleet.invoke(seen, kind, "application/json")
        self._measure(name, fleet, status, (real_time.perf_counter() - started) * 1e6)
        if status != 200:
            error = InvokeError("ModelError", f"Received error ({status}) from primary")
            vars(error).update(OriginalStatusCode=status, OriginalMessage=answer.decode(errors="replace"))
            raise error
        if _uniform(f"capture {request}") * 100 < fleet.capture.get("InitialSamplingPercentage", 0):
            about = {"eventId": request, "inferenceTime": f"{self.clock.now():%Y-%m-%dT%H:%M:%SZ}"}
            about |= {"inferenceId": p["InferenceId"]} if "InferenceId" in p else {}
            self._capture(name, fleet, about, Input=(body, kind), Output=(answer, answered))
        return {"Body": answer, "ContentType": answered, "InvokedProductionVariant": fleet.variant}

    def _deploy(self, endpoint: Endpoint, config: Request, how: Request) -> Iterator[float]:
        """Provision the new fleet, shift the canary and then everything, bake both, retire the old fleet; or go back."""
        alarms = [alarm["AlarmName"] for alarm in how.get("AutoRollbackConfiguration", {}).get("Alarms", [])]
        model = self.find("Model", config["ProductionVariants"][0])["PrimaryContainer"]
        shown, retired = endpoint.shown, endpoint.blue
        try:
            yield PROVISIONING_SECONDS
            endpoint.green = Fleet(config, self.get(model["ModelDataUrl"]), model.get("Environment", {}))
            if policy := how.get("BlueGreenUpdatePolicy"):
                routing = policy["TrafficRoutingConfiguration"]
                for endpoint.share in (routing["CanarySize"]["Value"] / 100, 1.0):
                    yield from self._bake(alarms, routing["WaitIntervalInSeconds"])
                yield policy.get("TerminationWaitInSeconds", 0)
            endpoint.blue, endpoint.green, shown["EndpointConfigName"] = (
                endpoint.green,
                None,
                config["EndpointConfigName"],
            )
        except DeploymentError as why:
            retired, endpoint.green, shown["FailureReason"] = endpoint.green, None, str(why)[:1024]
            if endpoint.blue:
                self._show(shown, "RollingBack")
                yield ROLLBACK_SECONDS
        endpoint.share = 0.0
        if retired:
            retired.close()
        self._show(shown, "InService" if endpoint.blue else "Failed")

    def _show(self, shown: Request, status: str) -> None:
        shown.update(EndpointStatus=status, LastModifiedTime=self.clock.now())

    def _bake(self, alarms: list[str], seconds: float) -> Iterator[float]:
        """Let time pass; DeploymentError when one of the alarms is in ALARM at the start or after any minute."""
        end, kinds = self.clock.time() + seconds, ("MetricAlarm", "CompositeAlarm")
        while True:
            self.cloud.cloudwatch.evaluate(alarms)
            found = self.cloud.client("cloudwatch").describe_alarms(AlarmNames=alarms, AlarmTypes=kinds)
            rows = [alarm for kind in kinds for alarm in found.get(f"{kind}s", [])]
            if ringing := sorted(alarm["AlarmName"] for alarm in rows if alarm["StateValue"] == "ALARM"):
                raise DeploymentError(f"Endpoint deployment was rolled back: {', '.join(ringing)} in ALARM state")
            if self.clock.time() >= end:
                return
            yield min(ALARM_PERIOD_SECONDS, end - self.clock.time())

    def _measure(self, name: str, fleet: Fleet, status: int, microseconds: float) -> None:
        dimensions = {"EndpointName": name, "VariantName": fleet.variant}
        counts = {"Invocations": 1.0, "Invocation4XXErrors": 400 <= status < 500, "Invocation5XXErrors": status >= 500}
        for dims in (dimensions, {**dimensions, "EndpointConfigName": fleet.name}):
            for metric, value in {**counts, "ModelLatency": microseconds}.items():
                self.cloud.put_metric("AWS/SageMaker", metric, float(value), dims)

    def _capture(self, name: str, fleet: Fleet, about: Request, **sides: tuple[bytes, str]) -> None:
        """Keep what was asked and answered until it is flushed; what the config calls JSON stays readable."""
        data, plain = {}, fleet.capture["CaptureContentTypeHeader"]["JsonContentTypes"]
        for side, (body, kind) in sides.items():
            text, encoding = (body.decode(), "JSON") if kind in plain else (base64.b64encode(body).decode(), "BASE64")
            seen = {"observedContentType": kind, "mode": side.upper(), "data": text, "encoding": encoding}
            data[f"endpoint{side}"] = seen
        line = json.dumps({"captureData": data, "eventMetadata": about, "eventVersion": "0"})
        folder = (
            f"{fleet.capture['DestinationS3Uri'].rstrip('/')}/{name}/{fleet.variant}/{self.clock.now():%Y/%m/%d/%H}"
        )
        with self.cloud.gateway.lock:
            if not self._captured:
                self.clock.call_later(CAPTURE_FLUSH_SECONDS, self._flush, name="data capture")
            self._captured[folder].append(line)

    def _flush(self) -> None:
        """Write the captured requests to S3, one file an hour's folder."""
        with self.cloud.gateway.lock:
            captured, self._captured = self._captured, defaultdict(list)
        for folder, lines in captured.items():
            file = f"{self.clock.now():%M-%S}-{next(self._files):08}.jsonl"
            self.put(f"{folder}/{file}", ("\n".join(lines) + "\n").encode())


def _uniform(text: str) -> float:
    return int(hashlib.sha256(text.encode()).hexdigest()[:13], 16) / 16**13


_RUNTIME = "moto.sagemakerruntime.responses.SageMakerRuntimeResponse"


@patched(_RUNTIME, "use_raw_body", "A request's body reaches the container byte for byte.", value=True)
def _raw(*_: Any) -> bool:
    return True


@patched(_RUNTIME, "invoke_endpoint", "An endpoint answers with what its model says.")
def _invoke(cloud: Cloud, _: Any, self: Any) -> ActionResult:
    self.parse_parameters(self.normalized_request)
    return ActionResult(cloud.endpoints.invoke_endpoint(self.params))
