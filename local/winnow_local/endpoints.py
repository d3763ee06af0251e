"""SageMaker endpoints: models in containers, canary updates that bake under alarms, invocations, data capture.

While a deployment bakes, its alarms are evaluated every virtual minute; one in ALARM brings the old fleet back, and the
endpoint is InService again with the *old* config and a FailureReason. Rules: aws-contracts 1.11 and 3.1 to 3.6.
"""

import base64
import hashlib
import io
import itertools
import json
import os
import subprocess
import sys
import tarfile
import tempfile
import threading
import time as real_time
from collections import defaultdict
from collections.abc import Callable, Generator, Iterator
from multiprocessing import Pipe
from pathlib import Path
from typing import Any, ClassVar

from moto.cloudwatch.models import cloudwatch_backends
from moto.core.exceptions import ServiceException
from moto.core.responses import ActionResult

from .patches import Cloud, patched
from .sagemaker import Request, Service, only, refuse

SERVING = Path(__file__).parent / "worker" / "serving.py"
PROVISIONING_SECONDS, ROLLBACK_SECONDS = 240.0, 120.0
ALARM_PERIOD_SECONDS, CAPTURE_FLUSH_SECONDS = 60.0, 300.0


class InvokeError(ServiceException):
    """No model answered."""


class Fleet:
    """The instances of one endpoint config, of its one variant: a container in a process. Safe to use from many threads."""

    def __init__(self, config: Request, model_archive: bytes, environment: dict[str, str]) -> None:
        self.name, self.capture = config["EndpointConfigName"], config.get("DataCaptureConfig", {})
        self.variant = config["ProductionVariants"][0]["VariantName"]
        self._lock, self._folder = threading.Lock(), tempfile.TemporaryDirectory()
        model, (self._pipe, inside) = self._folder.name, Pipe()
        with tarfile.open(fileobj=io.BytesIO(model_archive)) as tar:
            tar.extractall(model, filter="data")
        own = {"PATH": os.defpath, "LANG": "C.UTF-8", "PYTHONPATH": f"{model}/code", "OMP_NUM_THREADS": "1"}
        with inside:
            command = [sys.executable, "-P", str(SERVING), model, str(inside.fileno())]
            self._process = subprocess.Popen(command, env=own | environment, pass_fds=[inside.fileno()], cwd=model)

    def invoke(self, *request: bytes | str) -> tuple[int, str, bytes]:
        """Status, content type and body for (body, content type, accept), or for a ping; a dead container answers 500."""
        with self._lock:
            try:
                self._pipe.send(request)
                return self._pipe.recv()
            except (EOFError, OSError):
                return 500, "text/plain", b"the container has died"

    def close(self) -> None:
        """End the process and drop its files."""
        self._process.kill()
        self._process.wait()
        self._pipe.close()
        self._folder.cleanup()


class Endpoints(Service):
    """Models, endpoint configs of one variant, endpoints, runtime. `skew[config](body, type) -> body`: a drill's fault."""

    plain: ClassVar = {"list_models": "Model Models", "list_endpoint_configs": "EndpointConfig EndpointConfigs",
                       "list_endpoints": "Endpoint Endpoints", "describe_endpoint": "Endpoint",
                       "delete_model": "Model", "delete_endpoint_config": "EndpointConfig"}  # fmt: skip

    def __init__(self, cloud: Cloud) -> None:
        super().__init__(cloud)
        self.skew: dict[str, Callable[[bytes, str], bytes]] = {}
        self._routes: dict[str, list[tuple[float, Fleet]]] = {}  # the first takes its share, the next the rest
        self._calls, self._files = itertools.count(1), itertools.count(1)
        self._captured = defaultdict[str, list[str]](list)

    def create_model(self, p: Request) -> Request:
        self.get(p["PrimaryContainer"]["ModelDataUrl"])
        return self.keep("Model", p)

    def create_endpoint_config(self, p: Request) -> Request:
        refuse(len(p["ProductionVariants"]) != 1, "the local cloud serves one variant")
        self.find("Model", p["ProductionVariants"][0])
        return self.keep("EndpointConfig", p)

    def create_endpoint(self, p: Request) -> Request:
        config, made = self.find("EndpointConfig", p), self.keep("Endpoint", p, EndpointStatus="Creating")
        self.clock.start(self._deploy(self.find("Endpoint", p), config, {}))
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
        shown.update(EndpointStatus="Updating", LastModifiedTime=self.clock.now())
        self.clock.start(self._deploy(shown, config, how))
        return {"EndpointArn": shown["EndpointArn"]}

    def delete_endpoint(self, p: Request) -> Request:
        refuse(self.find("Endpoint", p)["EndpointStatus"] in ("Creating", "Updating"), "the endpoint is in progress")
        for _, fleet in self._routes.pop(p["EndpointName"], []):
            fleet.close()
        return self.drop("Endpoint", p)

    def close(self) -> None:
        for _, fleet in itertools.chain(*self._routes.values()):
            fleet.close()

    def invoke_endpoint(self, p: Request) -> Request:
        name, kind, body = p["EndpointName"], p.get("ContentType", "application/octet-stream"), p.get("Body", b"")
        request, started = f"{name}-{next(self._calls)}", real_time.perf_counter()
        fleet = next((fleet for share, fleet in self._routes.get(name, ()) if _uniform(request) < share), None)
        if fleet is None:
            raise InvokeError("ValidationError", f"Endpoint {name} of account {self.cloud.account} not found.")
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

    def _deploy(self, shown: Request, config: Request, how: Request) -> Iterator[float]:
        """Provision the new fleet, shift the canary and then everything, bake both, retire the old fleet; or go back."""
        name, policy = shown["EndpointName"], how.get("BlueGreenUpdatePolicy", {})
        alarms = [alarm["AlarmName"] for alarm in how.get("AutoRollbackConfiguration", {}).get("Alarms", [])]
        routing, old = policy.get("TrafficRoutingConfiguration"), self._routes.get(name, [])
        model = self.find("Model", config["ProductionVariants"][0])["PrimaryContainer"]
        yield PROVISIONING_SECONDS
        new = Fleet(config, self.get(model["ModelDataUrl"]), model.get("Environment", {}))
        shown["PendingDeploymentSummary"] = {"EndpointConfigName": config["EndpointConfigName"]}
        why = "" if new.invoke()[0] == 200 else "The primary container did not pass the ping health check."
        for share in (routing["CanarySize"]["Value"] / 100, 1.0) if routing and not why else ():
            self._routes[name] = [(share, new), *old]
            if why := (yield from self._bake(alarms, routing["WaitIntervalInSeconds"])):
                break
        if not why:
            yield policy.get("TerminationWaitInSeconds", 0)
        self._routes[name] = old if why else [(1.0, new)]
        del shown["PendingDeploymentSummary"]
        if why:
            new.close()
            shown["FailureReason"] = why[:1024]
            if old:
                shown.update(EndpointStatus="RollingBack", LastModifiedTime=self.clock.now())
                yield ROLLBACK_SECONDS
        else:
            shown["EndpointConfigName"] = config["EndpointConfigName"]
            for _, fleet in old:
                fleet.close()
        shown.update(EndpointStatus="InService" if self._routes[name] else "Failed", LastModifiedTime=self.clock.now())

    def _bake(self, names: list[str], seconds: float) -> Generator[float, None, str]:
        """Let time pass; gives why it went wrong when an alarm is in ALARM, at the start or after any minute."""
        end, alarms = self.clock.time() + seconds, cloudwatch_backends[self.cloud.account][self.cloud.region].alarms
        while True:
            self.cloud.cloudwatch.evaluate(names)
            if ringing := [name for name in names if alarms[name].state_value == "ALARM"]:
                return f"Endpoint deployment was rolled back: {', '.join(ringing)} in ALARM state"
            if self.clock.time() >= end:
                return ""
            yield min(ALARM_PERIOD_SECONDS, end - self.clock.time())

    def _measure(self, name: str, fleet: Fleet, status: int, microseconds: float) -> None:
        dimensions = {"EndpointName": name, "VariantName": fleet.variant}
        counts = {"Invocations": 1.0, "Invocation4XXErrors": 400 <= status < 500, "Invocation5XXErrors": status >= 500}
        for dims in (dimensions, {**dimensions, "EndpointConfigName": fleet.name}):
            for metric, value in {**counts, "ModelLatency": microseconds}.items():
                self.cloud.cloudwatch.record("AWS/SageMaker", metric, dims, float(value))

    def _capture(self, name: str, fleet: Fleet, about: Request, **sides: tuple[bytes, str]) -> None:
        """Keep what was asked and answered until it is flushed; what the config calls JSON stays readable."""
        data, plain = {}, fleet.capture["CaptureContentTypeHeader"]["JsonContentTypes"]
        for side, (body, kind) in sides.items():
            text, form = (body.decode(), "JSON") if kind in plain else (base64.b64encode(body).decode(), "BASE64")
            about_side = {"observedContentType": kind, "mode": side.upper(), "data": text, "encoding": form}
            data[f"endpoint{side}"] = about_side
        line = json.dumps({"captureData": data, "eventMetadata": about, "eventVersion": "0"})
        folder = f"{name}/{fleet.variant}/{self.clock.now():%Y/%m/%d/%H}"
        with self.cloud.gateway.lock:
            if not self._captured:
                self.clock.call_later(CAPTURE_FLUSH_SECONDS, self._flush)
            self._captured[f"{fleet.capture['DestinationS3Uri'].rstrip('/')}/{folder}"].append(line)

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
patched(_RUNTIME, "use_raw_body", "A body reaches the container byte for byte.", value=True)(lambda *_: True)


@patched(_RUNTIME, "invoke_endpoint", "An endpoint answers with what its model says.")
def _invoke(cloud: Cloud, _: Any, self: Any) -> ActionResult:
    self.parse_parameters(self.normalized_request)
    return ActionResult(cloud.endpoints.invoke_endpoint(self.params))
