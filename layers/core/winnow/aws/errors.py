"""Turns botocore's errors into ours, by code and never by message."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from botocore.exceptions import ClientError, ConnectionError, HTTPClientError, ReadTimeoutError

from winnow.errors import Conflict, NotFound, Retryable, WinnowError

_NOT_FOUND = {"NoSuchKey", "NoSuchVersion", "NoSuchBucket", "404", "ResourceNotFound", "ResourceNotFoundException",
              "AWS.SimpleQueueService.NonExistentQueue", "QueueDoesNotExist", "ExecutionDoesNotExist"}  # fmt: skip
_CONFLICT = {"PreconditionFailed", "412", "ConditionalRequestConflict", "409", "ConditionalCheckFailedException",
             "ResourceInUse", "ResourceInUseException", "ConflictException", "ExecutionAlreadyExists"}  # fmt: skip
_RETRYABLE = {"Throttling", "ThrottlingException", "TooManyRequestsException", "RequestLimitExceeded", "SlowDown",
              "ProvisionedThroughputExceededException", "ServiceUnavailable", "InternalError", "InternalServerError",
              "InternalFailure", "503", "500", "RequestTimeout", "ResourceLimitExceeded", "TransactionConflictException",
              "ServiceUnavailableException", "InternalServerException"}  # fmt: skip


def code(error: ClientError) -> str:
    return str(error.response.get("Error", {}).get("Code", ""))


@contextmanager
def translated(what: str) -> Iterator[None]:
    """Raises NotFound, Conflict, Retryable or WinnowError in place of botocore's errors; `what` names the thing."""
    try:
        yield
    except ClientError as error:
        kind: type[WinnowError] = WinnowError
        for codes, answer in ((_NOT_FOUND, NotFound), (_CONFLICT, Conflict), (_RETRYABLE, Retryable)):
            if code(error) in codes:
                kind = answer
        raise kind(f"{what}: {error}") from error
    except (ConnectionError, HTTPClientError, ReadTimeoutError) as error:
        raise Retryable(f"{what}: {error}") from error
