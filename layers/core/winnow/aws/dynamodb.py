"""The table: small facts under (pk, sk), changed by conditional writes only."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from decimal import Decimal
from typing import Any

from boto3.dynamodb.types import TypeDeserializer, TypeSerializer
from botocore.exceptions import ClientError

from winnow.aws.errors import code, translated
from winnow.errors import Conflict

JsonDict = dict[str, Any]


def _plain(value: Any) -> Any:
    if isinstance(value, Decimal):
        return int(value) if value == value.to_integral_value() else float(value)
    if isinstance(value, dict):
        return {name: _plain(item) for name, item in value.items()}
    if isinstance(value, list):
        return [_plain(item) for item in value]
    return value


def _storable(value: Any) -> Any:
    if isinstance(value, float):
        return Decimal(repr(value))
    if isinstance(value, Mapping):
        return {name: _storable(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [_storable(item) for item in value]
    return value


class DynamoTable:
    def __init__(self, client: Any, name: str, *, parallel: int = 8) -> None:
        self._client = client
        self._name = name
        self._parallel = parallel
        self._write = TypeSerializer().serialize
        self._read = TypeDeserializer().deserialize

    def _encode(self, pk: str, sk: str, item: Mapping[str, Any]) -> JsonDict:
        return {name: self._write(_storable(value)) for name, value in {"pk": pk, "sk": sk, **item}.items()}

    def _decode(self, item: Mapping[str, Any]) -> JsonDict:
        return {name: _plain(self._read(value)) for name, value in item.items()}

    def _condition(self, expected: Mapping[str, Any] | None) -> JsonDict:
        if expected is None:
            return {"ConditionExpression": "attribute_not_exists(pk)"}
        names = {f"#{n}": name for n, name in enumerate(expected)}
        values = {f":{n}": self._write(_storable(value)) for n, value in enumerate(expected.values())}
        return {
            "ConditionExpression": " AND ".join(f"#{n} = :{n}" for n in range(len(expected))),
            "ExpressionAttributeNames": names,
            "ExpressionAttributeValues": values,
        }

    def get(self, pk: str, sk: str) -> JsonDict | None:
        with translated(f"table {self._name}, {pk} / {sk}"):
            key = {"pk": {"S": pk}, "sk": {"S": sk}}
            item = self._client.get_item(TableName=self._name, Key=key, ConsistentRead=True).get("Item")
        return self._decode(item) if item else None

    def query(self, pk: str, *, prefix: str = "") -> list[JsonDict]:
        condition, values = "pk = :pk", {":pk": {"S": pk}}
        if prefix:
            condition += " AND begins_with(sk, :prefix)"
            values[":prefix"] = {"S": prefix}
        with translated(f"table {self._name}, {pk}"):
            pages = self._client.get_paginator("query").paginate(
                TableName=self._name,
                KeyConditionExpression=condition,
                ExpressionAttributeValues=values,
                ConsistentRead=True,
            )
            return [self._decode(item) for page in pages for item in page["Items"]]

    def put(self, pk: str, sk: str, item: Mapping[str, Any]) -> None:
        with translated(f"table {self._name}, {pk} / {sk}"):
            self._client.put_item(TableName=self._name, Item=self._encode(pk, sk, item))

    def put_new(self, pk: str, sk: str, item: Mapping[str, Any]) -> JsonDict | None:
        encoded = self._encode(pk, sk, item)
        with translated(f"table {self._name}, {pk} / {sk}"):
            try:
                self._client.put_item(
                    TableName=self._name,
                    Item=encoded,
                    ConditionExpression="attribute_not_exists(pk)",
                    ReturnValuesOnConditionCheckFailure="ALL_OLD",
                )
            except ClientError as error:
                if code(error) != "ConditionalCheckFailedException":
                    raise
                present = error.response.get("Item")
                found = self._decode(present) if present else self.get(pk, sk)
                return None if found == self._decode(encoded) else found
        return None

    def put_new_many(self, pk_sk_items: Sequence[tuple[str, str, Mapping[str, Any]]]) -> list[JsonDict | None]:
        if len(pk_sk_items) < 2:
            return [self.put_new(pk, sk, item) for pk, sk, item in pk_sk_items]
        with ThreadPoolExecutor(self._parallel) as pool:
            return list(pool.map(lambda entry: self.put_new(*entry), pk_sk_items))

    def replace(self, pk: str, sk: str, item: Mapping[str, Any], *, expected: Mapping[str, Any] | None) -> None:
        try:
            with translated(f"table {self._name}, {pk} / {sk}"):
                self._client.put_item(
                    TableName=self._name, Item=self._encode(pk, sk, item), **self._condition(expected)
                )
        except Conflict:
            # Our own first attempt may have won before its reply was lost.
            if self.get(pk, sk) != self._decode(self._encode(pk, sk, item)):
                raise

    def delete(self, pk: str, sk: str, *, expected: Mapping[str, Any] | None = None) -> bool:
        condition = self._condition(expected) if expected is not None else {}
        try:
            with translated(f"table {self._name}, {pk} / {sk}"):
                self._client.delete_item(TableName=self._name, Key={"pk": {"S": pk}, "sk": {"S": sk}}, **condition)
            return True
        except Conflict:
            return self.get(pk, sk) is None

    def acquire_lease(self, name: str, owner: str, *, now: datetime, seconds: int) -> bool:
        moment = now.timestamp()
        try:
            self._client.put_item(
                TableName=self._name,
                Item=self._encode("LEASE", name, {"owner": owner, "until": moment + seconds}),
                ConditionExpression="attribute_not_exists(pk) OR #owner = :owner OR #until < :now",
                ExpressionAttributeNames={"#owner": "owner", "#until": "until"},
                ExpressionAttributeValues={":owner": {"S": owner}, ":now": self._write(_storable(moment))},
            )
        except ClientError as error:
            if code(error) == "ConditionalCheckFailedException":
                return False
            raise
        return True

    def release_lease(self, name: str, owner: str) -> None:
        self.delete("LEASE", name, expected={"owner": owner})
