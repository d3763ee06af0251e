"""Requests held against the service model, as AWS does and botocore mostly does not: enums, patterns, lengths, ranges."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sized
from math import nan
from typing import Any, ClassVar

from botocore.exceptions import ClientError
from botocore.model import Shape
from botocore.validate import ParamValidator, ValidationErrors


class StrictValidator(ParamValidator):
    """In place of botocore's validator: it also refuses what AWS would, in AWS's words."""

    VALIDATED_METADATA_ATTRS: ClassVar = ParamValidator.VALIDATED_METADATA_ATTRS | {"max", "enum", "pattern"}

    def validate(self, params: Any, shape: Shape) -> ValidationErrors:
        """botocore's own findings; ClientError, as AWS answers, where a constraint is not satisfied."""
        report = super().validate(params, shape)
        if found := [about["told"] for _, _, about in report._errors if "told" in about]:
            text = f"{len(found)} validation error{'s' * (len(found) > 1)} detected: {'; '.join(found)}"
            answer = {"Error": {"Code": "ValidationException", "Message": text}}
            answer["ResponseMetadata"] = {"HTTPStatusCode": 400}
            raise ClientError(answer, re.sub("(Input|Request)$", "", shape.name))
        return report

    def _validate(self, params: Any, shape: Shape, errors: ValidationErrors, name: str) -> None:
        super()._validate(params, shape, errors, name)
        for rule in _broken(shape.metadata, params) if shape.metadata else ():
            path = re.sub(r"\[(\d+)\]", lambda place: f".{int(place[1]) + 1}.member", name).lstrip(".")
            told = f"Value '{str(params)[:200]}' at '{path}' failed to satisfy constraint: Member must {rule}"
            errors.report(name, "constraint", told=told)


def _broken(rules: dict[str, Any], value: Any) -> Iterator[str]:
    number = isinstance(value, (int, float))
    size, what = (value, "value") if number else (len(value) if isinstance(value, Sized) else nan, "length")
    if size < rules.get("min", size):
        yield f"have {what} greater than or equal to {rules['min']}"
    if size > rules.get("max", size):
        yield f"have {what} less than or equal to {rules['max']}"
    if rules.get("enum") and value not in rules["enum"]:
        yield f"satisfy enum value set: [{', '.join(rules['enum'])}]"
    if isinstance(value, str) and "pattern" in rules and not _matches(rules["pattern"], value):
        yield f"satisfy regular expression pattern: {rules['pattern']}"


def _matches(pattern: str, value: str) -> bool:
    """Whether the Java expression does; yes for the few that say what Python cannot."""
    try:
        return bool(re.search(r"\\[pPu]|&&", pattern) or re.fullmatch(pattern, value))
    except re.error:
        return True
