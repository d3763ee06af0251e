"""The error family: what went wrong decides where the work goes next.

    WinnowError
    ├── Retryable         the queue gets it back: throttling, a conflict that a re-read resolves, a lease held by another
    ├── BadInput          quarantine, with the reason: the user's object or record cannot be used
    │   └── BadModel      a model package that breaks the contract
    ├── ConfigError       refused before anything is spent: loop.yaml, a policy, a strategy, a template parameter
    ├── NotFound          the named artifact or resource does not exist
    ├── Conflict          a conditional write lost: somebody else owns or changed the thing
    └── BudgetExceeded    the label budget does not cover what was asked for

Everything else is a bug or an outage and reaches the dead-letter queue. Messages name the thing and the remedy.
"""

from __future__ import annotations


class WinnowError(Exception):
    """Base of every error Winnow raises on purpose."""


class Retryable(WinnowError):
    """The same call may succeed later; the message goes back to its queue."""


class BadInput(WinnowError):
    """The input cannot be used; it goes to quarantine with this reason.

    `code` is a short stable word for counting (`truncated`, `empty`, ...); the message is for people.
    """

    def __init__(self, message: str, *, code: str = "bad-input") -> None:
        super().__init__(message)
        self.code = code


class BadModel(BadInput):
    """A model package breaks the contract of `model.json`."""

    def __init__(self, message: str, *, code: str = "bad-model") -> None:
        super().__init__(message, code=code)


class ConfigError(WinnowError):
    """A configuration is wrong; the message names the field and the remedy."""


class NotFound(WinnowError):
    """The named artifact or resource does not exist."""


class Conflict(WinnowError):
    """A conditional write lost the race; re-read before deciding what that means."""


class BudgetExceeded(WinnowError):
    """The remaining label budget does not cover the request."""
