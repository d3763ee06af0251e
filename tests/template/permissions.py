"""What a role of the template may do, decided as IAM decides it for identity policies (Allow only; there is no Deny)."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Any

from tests.template.stack import stack


def statements(role: str) -> list[dict[str, Any]]:
    """Statements of a role by its logical id, those of its managed policies included."""
    resolver = stack()
    properties = resolver(resolver.template["Resources"][role]["Properties"])
    found = [s for policy in properties.get("Policies", []) for s in policy["PolicyDocument"]["Statement"]]
    managed = {resolver.arn(name): body for name, body in resolver.resources("AWS::IAM::ManagedPolicy").items()}
    for arn in properties.get("ManagedPolicyArns", []):
        found += managed[arn]["PolicyDocument"]["Statement"]
    return found


def role_of(hop: str) -> str:
    """Logical id of a hop's role."""
    return "".join(word.title() for word in hop.split("_")) + "Role"


def allows(role: str, action: str, resource: str, context: Mapping[str, str | Sequence[str]] | None = None) -> bool:
    """Whether the role may do `action` (such as `s3:GetObject`) on the ARN `resource`."""
    return any(
        any(fnmatchcase(action.lower(), pattern.lower()) for pattern in many(statement["Action"]))
        and any(_matches(resource, pattern) for pattern in many(statement["Resource"]))
        and _holds(statement.get("Condition", {}), context or {})
        for statement in statements(role)
    )


def _holds(condition: Mapping[str, Any], context: Mapping[str, Any]) -> bool:
    for operator, tests in condition.items():
        for key, wanted in tests.items():
            given = [str(item) for item in many(context.get(key, []))]
            for_all = operator.startswith("ForAllValues:")
            kind = operator.removeprefix("ForAllValues:")
            match = _matches if kind in ("StringLike", "ArnLike", "ArnEquals") else str.__eq__
            fits = [any(match(item, str(pattern)) for pattern in many(wanted)) for item in given]
            if not (all(fits) if for_all else bool(fits) and all(fits)):
                return False
    return True


def _matches(value: str, pattern: str) -> bool:
    """IAM's `*` and `?`, which cross slashes and colons.

    >>> _matches("arn:aws:s3:::b/records/x", "arn:aws:s3:::b/records/*"), _matches("ab", "a")
    (True, False)
    """
    return re.fullmatch(re.escape(pattern).replace(r"\*", ".*").replace(r"\?", "."), value, re.DOTALL) is not None


def many(value: Any) -> list[Any]:
    return value if isinstance(value, list) else list(value) if isinstance(value, tuple) else [value]
