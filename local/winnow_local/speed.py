"""What a loop asks of S3 and of its table by the thousand, answered from moto's own objects, past HTTP, XML and sorting.

Only requests that carry no other options than `PLAIN` names take a shortcut, and of failures only the missing head.
"""

from __future__ import annotations

import copy
import io
from datetime import UTC
from functools import cache
from types import SimpleNamespace
from typing import Any

from botocore.response import StreamingBody
from moto.s3.models import FakeBucket, FakeKey, S3Backend, s3_backends

from .patches import Cloud, patched

Params = dict[str, Any]


@patched("botocore.client.BaseClient", "_make_request", "S3 answers plain requests alike, by whichever way.")
def _make_request(cloud: Cloud, original: Any, self: Any, model: Any, request: Params, context: Params) -> Any:
    asked, answer = context.get("s3_redirect", {}).get("params", {}), None
    act, options = PLAIN.get(model.name, (None, set()))
    if act and asked and asked.keys() <= options and ".amazonaws.com/" in request["url"]:
        with cloud.gateway.lock:
            backend = s3_backends[cloud.account]["aws"]
            bucket = backend.buckets.get(asked["Bucket"])
            answer = act(backend, bucket, asked) if bucket else None
    if answer is None:
        return original(self, model, request, context)
    status = 404 if "Error" in answer else 200
    answer["ResponseMetadata"] = {"HTTPStatusCode": status, "HTTPHeaders": {}, "RetryAttempts": 0}
    return SimpleNamespace(status_code=status, headers={}), answer


def _get(backend: S3Backend, bucket: FakeBucket, asked: Params) -> Params | None:
    key = backend.get_object(bucket.name, asked["Key"], version_id=asked.get("VersionId"))
    if key is None or key.metadata.keys() != {"content-type"}:
        return None
    about = {name: value for name, value in _listed(key).items() if name in ("ETag", "LastModified")}
    about |= {"AcceptRanges": "bytes", "ContentType": key.metadata["content-type"], "Metadata": {}}
    about |= {"ContentLength": key.size, "Body": StreamingBody(io.BytesIO(key.value), key.size)}
    return about | ({"VersionId": key.version_id} if bucket.is_versioned else {})


def _head(backend: S3Backend, bucket: FakeBucket, asked: Params) -> Params | None:
    if "VersionId" not in asked and asked["Key"] not in bucket.keys:
        return {"Error": {"Code": "404", "Message": "Not Found"}}
    found = _get(backend, bucket, asked)
    return {name: found[name] for name in found.keys() - {"Body"}} if found else None


def _put(backend: S3Backend, bucket: FakeBucket, asked: Params) -> Params | None:
    body, taken = asked.get("Body"), "IfNoneMatch" in asked and asked["Key"] in bucket.keys
    if taken or bucket.object_lock_enabled or not isinstance(body, io.BytesIO):
        return None
    key = backend.put_object(bucket.name, asked["Key"], body.getvalue(), storage="STANDARD")
    return {"ETag": key.etag, **({"VersionId": key.version_id} if bucket.is_versioned else {})}


def _list(backend: S3Backend, bucket: FakeBucket, asked: Params) -> Params:
    prefix, size, after = asked.get("Prefix", ""), asked.get("MaxKeys", 1000), asked.get("StartAfter")
    narrow: Any = copy.copy(bucket)  # moto looks at every key in many steps
    narrow.keys = {name: bucket.keys[name] for name in list(bucket.keys) if name.startswith(prefix)}
    page, more, token = backend.list_objects_v2(narrow, prefix, None, asked.get("ContinuationToken"), after, size)
    found = {"Name": bucket.name, "Prefix": prefix, "MaxKeys": size, "KeyCount": len(page), "IsTruncated": more}
    found |= {"Contents": [_listed(key) for key in page]} if page else {}
    return found | ({"NextContinuationToken": token} if token else {})


def _versions(backend: S3Backend, bucket: FakeBucket, asked: Params) -> Params | None:
    prefix, size, (key, version) = asked.get("Prefix", ""), asked.get("MaxKeys", 1000), map(asked.get, _MARKS)
    page, _, gone, *after = backend.list_object_versions(bucket.name, None, key, size, prefix, version)
    found = {"Name": bucket.name, "Prefix": prefix, "MaxKeys": size, "IsTruncated": after[0] is not None}
    found |= {name: asked.get(name, "") for name in _MARKS}
    found |= {f"Next{name}": mark for name, mark in zip(_MARKS, after, strict=True) if mark is not None}
    about = [{"VersionId": each.version_id or "null", "IsLatest": each.is_latest, "Owner": _OWNER} for each in page]
    found |= {"Versions": [_listed(each) | more for each, more in zip(page, about, strict=True)]} if page else {}
    return None if gone else found


def _listed(key: FakeKey) -> Params:
    about = {"Key": key.name, "Size": key.size, "StorageClass": key.storage_class, "ETag": key.etag}
    return {**about, "LastModified": key.last_modified.replace(tzinfo=UTC, microsecond=0)}


_OWNER = {"ID": "75aa57f09aa0c8caeab4f8c24e99d10f8e7faeebf76c078efc7c6caea54ba06a", "DisplayName": "webfile"}  # moto's
_MARKS = ("KeyMarker", "VersionIdMarker")
_READ, _PAGED = {"Bucket", "Key", "VersionId", "ChecksumMode"}, {"Bucket", "Prefix", "MaxKeys", "EncodingType"}
PLAIN: dict[str, tuple[Any, set[str]]] = {
    "GetObject": (_get, _READ), "HeadObject": (_head, _READ), "PutObject": (_put, {"Bucket", "Key", "Body", "IfNoneMatch"}),
    "ListObjectsV2": (_list, _PAGED | {"ContinuationToken", "StartAfter"}),
    "ListObjectVersions": (_versions, _PAGED | {*_MARKS}),
}  # fmt: skip


@patched("moto.s3.models", "copy", "Versions are listed newest first, also those of one moment.", value=True)
def _copy(cloud: Cloud, original: Any) -> SimpleNamespace:
    return SimpleNamespace(copy=original.copy, deepcopy=lambda versions: versions[::-1])  # all a listing copies


@patched("moto.dynamodb.models.table.Table", "query", "A query's cost does not grow with other partitions.")
def _query(cloud: Cloud, original: Any, self: Any, *asked: Any, **conditions: Any) -> Any:
    hash_key, index = asked[0], asked[7]
    if hash_key is not None and index is None:
        self = copy.copy(self)
        self.items = {hash_key: self.items[hash_key]} if hash_key in self.items else {}
    return original(self, *asked, **conditions)


@patched("moto.sqs.models", "unix_time_millis", "A queue asks the clock for each of its messages.")
def _millis(cloud: Cloud, *_: Any) -> float:
    return cloud.clock.time() * 1000.0


@patched("moto.core.serialize.ResponseSerializer", "get_value", "An answer spelled as in the API stays as it is.")
def _get_value(cloud: Cloud, original: Any, self: Any, value: Any, key: str, shape: Any) -> Any:
    plain = type(value) is dict and not self._value_picker.response_transformers  # else other names are tried for each
    if plain and (key in value or self.operation_model.service_model.service_name == "dynamodb"):
        return value.get(key)
    return original(self, value, key, shape)


patched(
    "moto.core.base_backend.BaseBackend", "urls", "A service's addresses stay the same.", kind=property, value=True
)(lambda _, original: cache(original.fget))
patched("botocore.useragent.UserAgentString", "to_string", "Nobody reads the user agent.")(lambda *_: "winnow")
for _owner, _name in (("core.responses", "method_names_from_class"), ("sqs.models", "camelcase_to_underscores")):
    patched(f"moto.{_owner}", _name, "A service's names stay the same.", value=True)(
        lambda _, original: cache(original)
    )
