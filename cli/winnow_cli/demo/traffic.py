"""The application that uses the endpoint: requests over virtual time, and users who judge some of the answers."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from moto.sagemaker.exceptions import ValidationError

from winnow_cli.labeled import Payload, Sample
from winnow_local.cloud import LocalCloud

PERIOD_SECONDS = 300.0
BUSY_REQUESTS = 24
"""Requests in five minutes of a busy hour: rollouts happen then, or a canary would see nothing."""
QUIET_REQUESTS = 2
QUIET_PERIODS = 72
"""In quiet times the application asks a little every six hours."""
JUDGED_SHARE = 0.75


class Application:
    """Sends held-out samples to the endpoint by plain boto3, and what users say of the answers to receive_feedback."""

    def __init__(
        self, cloud: LocalCloud, samples: Sequence[Sample], judges: Mapping[Payload, str], *, rng: np.random.Generator
    ) -> None:
        self._cloud, self._samples, self._judges, self._rng = cloud, list(samples), judges, rng
        self._periods, self.sent = 0, 0
        self.failed: list[str] = []

    def open(self) -> None:
        """Start business, and go on for ever."""
        if self._samples:
            self._later()

    def _later(self) -> None:
        clock = self._cloud.clock
        clock.call_later(PERIOD_SECONDS, self._period, background=True)

    def _period(self) -> None:
        self._later()
        self._periods += 1
        status = self._endpoint_status()
        if status == "Updating":
            self._send(BUSY_REQUESTS)
        elif status == "InService" and self._periods % QUIET_PERIODS == 0:
            self._send(QUIET_REQUESTS)

    def _endpoint_status(self) -> str | None:
        """As the API would say it. Asking the API itself every five minutes, for weeks, would take seconds of a demo."""
        try:
            return str(self._cloud.endpoints.find("Endpoint", {"EndpointName": self._cloud.stack})["EndpointStatus"])
        except ValidationError:
            return None

    def _send(self, count: int) -> None:
        runtime = self._cloud.client("sagemaker-runtime")
        for index in self._rng.integers(len(self._samples), size=count):
            payload = self._samples[int(index)].payload
            self.sent += 1
            inference = f"request-{self.sent:06d}"
            try:
                answer = runtime.invoke_endpoint(
                    EndpointName=self._cloud.stack, ContentType="application/json", Body=json.dumps(body(payload)),
                    InferenceId=inference,
                )  # fmt: skip
            except runtime.exceptions.ModelError as error:
                self.failed.append(str(error))
                continue
            if self._rng.random() < JUDGED_SHARE:
                self._judge(inference, payload, json.loads(answer["Body"].read()))

    def _judge(self, inference: str, payload: Payload, said: Mapping[str, Any]) -> None:
        """A user says what would have been right. The request has the form in which a function URL delivers it."""
        truth, answer = self._judges[payload], said["predictions"][0]
        right, given = (truth, answer["label"]) if "label" in answer else (float(truth), answer["prediction"])
        feedback = {"inference_id": inference, "label": right, "prediction": given, "model": said["model"]}
        event = {
            "version": "2.0", "routeKey": "$default", "rawPath": "/", "rawQueryString": "",
            "headers": {"content-type": "application/json"},
            "requestContext": {
                "accountId": self._cloud.account, "stage": "$default", "requestId": inference,
                "http": {"method": "POST", "path": "/", "protocol": "HTTP/1.1", "sourceIp": "127.0.0.1", "userAgent": "app"},
            },
            "body": json.dumps(feedback), "isBase64Encoded": False,
        }  # fmt: skip
        reply = self._cloud.client("lambda").invoke(
            FunctionName=f"{self._cloud.stack}-receive_feedback", Payload=json.dumps(event).encode()
        )
        told = json.loads(reply["Payload"].read())
        if reply.get("FunctionError") or int(told.get("statusCode", 200)) >= 400:
            self.failed.append(json.dumps(told))


def body(payload: Payload) -> dict[str, list[dict[str, Any]]]:
    """A request as the endpoint takes it."""
    if isinstance(payload, str):
        return {"instances": [{"text": payload}]}
    if isinstance(payload, tuple):
        return {"instances": [{"row": dict(payload)}]}
    return {"instances": [{"image": base64.b64encode(payload).decode("ascii")}]}
