"""Shortcuts for what a loop asks of S3 by the thousand: answered from moto's own objects, past HTTP and XML.

Only plain requests that succeed take them, and the question whether a key is there. What carries another option, fails
or is to fail on order goes the long way.
"""

from __future__ import annotations

import io
from base64 import urlsafe_b64decode, urlsafe_b64encode
from bisect import bisect_right
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC
from http import HTTPStatus
from operator import itemgetter
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from botocore.handlers import BUILTIN_HANDLERS
from botocore.response import StreamingBody
from moto.s3.models import FakeKey, S3Backend, s3_backends

if TYPE_CHECKING:
    from .cloud import LocalCloud

Params = dict[str, Any]
Answer = dict[str, Any] | None
_clouds: list[LocalCloud] = []


@contextmanager
def taken(cloud: LocalCloud) -> Iterator[None]:
    """The cloud's clients take the shortcuts. RuntimeError while another cloud is open: they would meet in moto."""
    if _clouds:
        raise RuntimeError("another local cloud is open in this process; close it first")
    _clouds.append(cloud)
    try:
        yield
    finally:
        _clouds.remove(cloud)


def _answer(model: Any, params: Params, context: Params, **_: Any) -> tuple[Any, Params] | None:
    known = _KNOWN.get(model.name)
    if not _clouds or known is None or ".amazonaws.com/" not in params["url"]:
        return None
    cloud, asked, (allowed, act) = _clouds[-1], context["s3_redirect"]["params"], known
    if asked.keys() - allowed or cloud.faults.request("s3", model.name, use=0) is not None:
        return None
    with cloud.gateway.lock:
        backend = s3_backends[cloud.account]["aws"]
        answer = act(backend, asked) if asked["Bucket"] in backend.buckets else None
    if answer is None:
        return None
    status = HTTPStatus.NOT_FOUND if "Error" in answer else HTTPStatus.OK
    answer["ResponseMetadata"] = {"HTTPStatusCode": status, "HTTPHeaders": {}, "RetryAttempts": 0}
    return SimpleNamespace(status_code=status, headers={}), answer


def _head(backend: S3Backend, asked: Params) -> Answer:
    key = backend.get_object(asked["Bucket"], asked["Key"], version_id=asked.get("VersionId"))
    if key is None:
        return None
    meta = key.metadata
    if any(name != "content-type" for name in meta):
        return None
    about = {"AcceptRanges": "bytes", "LastModified": _moment(key), "ContentLength": key.size, "ETag": key.etag}
    about |= {"ContentType": meta.get("content-type", "binary/octet-stream"), "Metadata": {}}
    return about | ({"VersionId": key.version_id} if backend.buckets[asked["Bucket"]].is_versioned else {})


def _head_or_missing(backend: S3Backend, asked: Params) -> Answer:
    missing = "VersionId" not in asked and asked["Key"] not in backend.buckets[asked["Bucket"]].keys
    return {"Error": {"Code": "404", "Message": "Not Found"}} if missing else _head(backend, asked)


def _get(backend: S3Backend, asked: Params) -> Answer:
    about = _head(backend, asked)
    if about is None:
        return None
    key: Any = backend.get_object(asked["Bucket"], asked["Key"], version_id=asked.get("VersionId"))
    value = key.value
    return {**about, "Body": StreamingBody(io.BytesIO(value), len(value))}


def _put(backend: S3Backend, asked: Params) -> Answer:
    bucket, body = backend.buckets[asked["Bucket"]], asked.get("Body", b"")
    taken_already = "IfNoneMatch" in asked and backend.get_object(bucket.name, asked["Key"]) is not None
    if taken_already or bucket.object_lock_enabled or not isinstance(body, (bytes, bytearray, io.BytesIO)):
        return None
    value = body.getvalue() if isinstance(body, io.BytesIO) else bytes(body)
    key = backend.put_object(bucket.name, asked["Key"], value, storage="STANDARD")
    key.set_metadata({"Content-Type": asked["ContentType"]} if "ContentType" in asked else {})
    key.set_acl(bucket.acl)
    return {"ETag": key.etag, **({"VersionId": key.version_id} if bucket.is_versioned else {})}


def _list(backend: S3Backend, asked: Params) -> Answer:
    bucket, prefix, size = backend.buckets[asked["Bucket"]], asked.get("Prefix", ""), asked.get("MaxKeys", 1000)
    latest = ((name, bucket.keys[name]) for name in list(bucket.keys) if name.startswith(prefix))
    live = sorted((name, key) for name, key in latest if isinstance(key, FakeKey))
    token = asked.get("ContinuationToken")
    after = urlsafe_b64decode(token).decode() if token else asked.get("StartAfter", "")
    start = bisect_right(live, after, key=itemgetter(0)) if after else 0
    page, more = live[start : start + size], start + size < len(live)
    found = {"Name": bucket.name, "Prefix": prefix, "MaxKeys": size, "KeyCount": len(page), "IsTruncated": more}
    if page:
        found["Contents"] = [{"Key": name, **_listed(key)} for name, key in page]
    return found | ({"NextContinuationToken": urlsafe_b64encode(page[-1][0].encode()).decode()} if more else {})


def _list_versions(backend: S3Backend, asked: Params) -> Answer:
    bucket, prefix, size = backend.buckets[asked["Bucket"]], asked.get("Prefix", ""), asked.get("MaxKeys", 1000)
    if not bucket.is_versioned:
        return None
    names = sorted(name for name in list(bucket.keys) if name.startswith(prefix))
    flat = [(name, key, place == 0) for name in names for place, key in enumerate(reversed(bucket.keys.getlist(name)))]
    marker = asked.get("KeyMarker", ""), asked.get("VersionIdMarker")
    seen = [n for n, (name, key, _) in enumerate(flat) if name < marker[0] or (name, key.version_id) == marker]
    start = seen[-1] + 1 if seen else 0
    page, more = flat[start : start + size], start + size < len(flat)
    found: Params = {"Name": bucket.name, "Prefix": prefix, "MaxKeys": size, "IsTruncated": more}
    for name, key, newest in page:
        live, about = isinstance(key, FakeKey), {"Key": name, "VersionId": key.version_id, "IsLatest": newest}
        about |= _listed(key) if live else {"LastModified": _moment(key)}
        found.setdefault("Versions" if live else "DeleteMarkers", []).append(about)
    return found | ({"NextKeyMarker": page[-1][0], "NextVersionIdMarker": page[-1][1].version_id} if more else {})


def _listed(key: FakeKey) -> Params:
    return {"LastModified": _moment(key), "ETag": key.etag, "Size": key.size, "StorageClass": key.storage_class}


def _moment(key: Any) -> Any:
    return key.last_modified.replace(tzinfo=UTC, microsecond=0)


_READ = {"Bucket", "Key", "VersionId", "ChecksumMode"}
_PAGED = {"Bucket", "Prefix", "MaxKeys", "EncodingType"}
_KNOWN: dict[str, tuple[set[str], Callable[[S3Backend, Params], Answer]]] = {
    "GetObject": (_READ, _get),
    "HeadObject": (_READ, _head_or_missing),
    "PutObject": ({"Bucket", "Key", "Body", "ContentType", "IfNoneMatch"}, _put),
    "ListObjectsV2": (_PAGED | {"ContinuationToken", "StartAfter"}, _list),
    "ListObjectVersions": (_PAGED | {"KeyMarker", "VersionIdMarker"}, _list_versions),
}
BUILTIN_HANDLERS.append(("before-call.s3", _answer))
