"""Parquet files for tests, good and evil, made by the library that reads them."""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import arro3.io
from arro3.core import Array, DataType, Field, RecordBatch, RecordBatchReader, Schema, list_array, struct_array

INT, FLOAT, BOOL, TEXT, BYTES = (
    DataType.int64(), DataType.float64(), DataType.bool(), DataType.string(), DataType.binary()
)  # fmt: skip


def array(values: Sequence[Any], kind: DataType | None = None) -> Array:
    """A column; its type is that of its first value unless `kind` says it."""
    if kind is None:
        first = next((value for value in values if value is not None), None)
        kind = {bool: BOOL, int: INT, float: FLOAT, str: TEXT, bytes: BYTES}[type(first)]
    try:
        return Array(values, type=kind)
    except NotImplementedError:  # times can only be cast to
        return Array(values, type=INT).cast(kind)


def file(columns: Mapping[str, Sequence[Any] | Array], **options: Any) -> bytes:
    """A Parquet file of columns, as lists of plain values or as arrays."""
    arrays = {name: values if isinstance(values, Array) else array(values) for name, values in columns.items()}
    return write(RecordBatch.from_pydict(arrays), **options)


def write(batches: RecordBatch | RecordBatchReader, **options: Any) -> bytes:
    out = io.BytesIO()
    arro3.io.write_parquet(batches, out, **options)
    return out.getvalue()


def twice_named() -> bytes:
    """Two columns of one name, which a mapping could not hold."""
    schema = Schema([Field("a", INT), Field("a", INT)])
    return write(RecordBatch.from_arrays([array([1]), array([2])], schema=schema))


def listed() -> Array:
    return list_array(Array([0, 1, 2], type=DataType.int32()), array([7, 8]))


def pictures(images: Sequence[bytes | None], paths: Sequence[str | None]) -> Array:
    """Images as Hugging Face's datasets keep them."""
    fields = [Field("bytes", BYTES), Field("path", TEXT)]
    return struct_array([array(images, BYTES), array(paths, TEXT)], fields=fields)


def endless(rows: int) -> bytes:
    """Equal rows, which take almost no room."""

    def batches() -> Iterator[RecordBatch]:
        batch = RecordBatch.from_pydict({"a": array([7] * 10_000)})
        for _ in range(rows // 10_000):
            yield batch

    one = RecordBatch.from_pydict({"a": array([7])})
    return write(RecordBatchReader.from_batches(one.schema, list(batches())))


def swollen(megabytes: int) -> bytes:
    """A dictionary of one long text that every row repeats: `megabytes` in all once it is read."""
    text = "x" * 900_000
    return file({"a": [text] * megabytes}, dictionary_page_size_limit=10_000_000, compression="zstd(3)")


def page(megabytes: int) -> bytes:
    """One text of that many megabytes in one page, packed into next to nothing."""
    return file({"a": ["x" * (megabytes << 20)]}, dictionary_enabled=False, compression="zstd(3)")
