"""The work queues."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from winnow.aws.errors import translated
from winnow.errors import Retryable
from winnow.ports import QueueName, QueueState

_BATCH_BYTES = 1_000_000
"""Ten messages share SQS's limit of 1 MiB."""


class SqsQueues:
    def __init__(self, client: Any, stack: str) -> None:
        self._sqs = client
        self._stack = stack
        self._urls: dict[str, str] = {}

    def _url(self, name: str) -> str:
        if name not in self._urls:
            with translated(f"queue {name}"):
                self._urls[name] = self._sqs.get_queue_url(QueueName=name)["QueueUrl"]
        return self._urls[name]

    def send(self, queue: QueueName, bodies: Sequence[Mapping[str, Any]]) -> None:
        url = self._url(f"{self._stack}-{queue}")
        batch: list[str] = []
        size = 0
        for body in bodies:
            text = json.dumps(body, separators=(",", ":"))
            if batch and (len(batch) == 10 or size + len(text) > _BATCH_BYTES):
                self._send(url, batch)
                batch, size = [], 0
            batch.append(text)
            size += len(text)
        if batch:
            self._send(url, batch)

    def _send(self, url: str, texts: Sequence[str]) -> None:
        with translated(f"queue {url}"):
            answer = self._sqs.send_message_batch(
                QueueUrl=url, Entries=[{"Id": str(n), "MessageBody": text} for n, text in enumerate(texts)]
            )
        if answer.get("Failed"):
            raise Retryable(f"queue {url} refused {len(answer['Failed'])} of {len(texts)} messages")

    def state(self, queue: QueueName) -> QueueState:
        names = [
            "ApproximateNumberOfMessages",
            "ApproximateNumberOfMessagesNotVisible",
            "ApproximateNumberOfMessagesDelayed",
        ]
        name = f"{self._stack}-{queue}"
        with translated(f"queue {name}"):
            main = self._sqs.get_queue_attributes(QueueUrl=self._url(name), AttributeNames=names)["Attributes"]
            dead = self._sqs.get_queue_attributes(QueueUrl=self._url(f"{name}-dlq"), AttributeNames=names)["Attributes"]
        return QueueState(
            visible=int(main[names[0]]) + int(main[names[2]]), in_flight=int(main[names[1]]), dead=int(dead[names[0]])
        )
