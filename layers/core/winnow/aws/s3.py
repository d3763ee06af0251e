"""The two buckets: ours (`DataBucket`) and the one users drop objects into (`PoolBucket`)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from botocore.exceptions import ClientError

from winnow.aws.errors import code, translated
from winnow.errors import BadInput, Conflict, NotFound
from winnow.records import PoolObject


class DataBucket:
    def __init__(self, client: Any, bucket: str) -> None:
        self._s3 = client
        self._bucket = bucket

    def get(self, key: str) -> bytes:
        return self.get_tagged(key)[0]

    def get_tagged(self, key: str) -> tuple[bytes, str]:
        with translated(f"s3://{self._bucket}/{key}"):
            answer = self._s3.get_object(Bucket=self._bucket, Key=key)
            return answer["Body"].read(), answer["ETag"]

    def put(self, key: str, body: bytes) -> None:
        with translated(f"s3://{self._bucket}/{key}"):
            self._s3.put_object(Bucket=self._bucket, Key=key, Body=body)

    def put_new(self, key: str, body: bytes) -> bool:
        try:
            with translated(f"s3://{self._bucket}/{key}"):
                self._s3.put_object(Bucket=self._bucket, Key=key, Body=body, IfNoneMatch="*")
            return True
        except Conflict:  # maybe caused by our own first attempt, whose reply was lost: read it back
            return self.get(key) == body

    def replace(self, key: str, body: bytes, *, tag: str | None) -> str:
        condition = {"IfNoneMatch": "*"} if tag is None else {"IfMatch": tag}
        try:
            with translated(f"s3://{self._bucket}/{key}"):
                return str(self._s3.put_object(Bucket=self._bucket, Key=key, Body=body, **condition)["ETag"])
        except (Conflict, NotFound) as error:
            try:
                current, current_tag = self.get_tagged(key)
            except NotFound:
                raise error from None
            if current == body:
                return current_tag
            raise Conflict(f"{key} was changed by somebody else") from error

    def exists(self, key: str) -> bool:
        try:
            with translated(f"s3://{self._bucket}/{key}"):
                self._s3.head_object(Bucket=self._bucket, Key=key)
            return True
        except NotFound:
            return False

    def list(self, prefix: str) -> Iterator[str]:
        with translated(f"s3://{self._bucket}/{prefix}"):
            for page in self._s3.get_paginator("list_objects_v2").paginate(Bucket=self._bucket, Prefix=prefix):
                for item in page.get("Contents", ()):
                    yield item["Key"]

    def delete(self, keys: Sequence[str]) -> None:
        for start in range(0, len(keys), 1000):
            with translated(f"s3://{self._bucket}"):
                self._s3.delete_objects(
                    Bucket=self._bucket,
                    Delete={"Objects": [{"Key": key} for key in keys[start : start + 1000]], "Quiet": True},
                )

    def uri(self, key: str) -> str:
        return f"s3://{self._bucket}/{key}"

    def key_of(self, uri: str) -> str:
        prefix = f"s3://{self._bucket}/"
        if not uri.startswith(prefix):
            raise BadInput(f"{uri} does not lie in our data bucket {self._bucket}", code="foreign-uri")
        return uri.removeprefix(prefix)


class PoolBucket:
    """Reads objects by version. Captured production traffic lies in the data bucket and is read the same way."""

    def __init__(self, client: Any, bucket: str) -> None:
        self._s3 = client
        self._bucket = bucket

    def read(self, item: PoolObject, *, limit: int) -> bytes:
        with translated(f"s3://{item.bucket}/{item.key}"):
            version = {"VersionId": item.version} if item.version else {}
            answer = self._s3.get_object(Bucket=item.bucket, Key=item.key, **version)
            if answer["ContentLength"] > limit:
                answer["Body"].close()
                raise BadInput(
                    f"{item.key} has {answer['ContentLength']} bytes, more than limits.max_object_mb allows ({limit}); "
                    "split it into smaller objects",
                    code="oversized",
                )
            return bytes(answer["Body"].read())

    def current(self, key: str) -> PoolObject | None:
        try:
            head = self._s3.head_object(Bucket=self._bucket, Key=key)
        except ClientError as error:
            if code(error) in {"404", "NoSuchKey"}:
                return None
            raise
        return PoolObject(self._bucket, key, head.get("VersionId", ""), "", int(head["ContentLength"]))

    def list(self) -> Iterator[PoolObject]:
        with translated(f"s3://{self._bucket}"):
            for page in self._s3.get_paginator("list_object_versions").paginate(Bucket=self._bucket):
                for item in page.get("Versions", ()):
                    if item["IsLatest"]:
                        yield PoolObject(self._bucket, item["Key"], item["VersionId"], "", int(item["Size"]))
