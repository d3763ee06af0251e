"""Reading and writing ONNX files without the `onnx` package.

An ONNX file is one protocol-buffer message whose fields have not moved since 2018
(https://github.com/onnx/onnx/blob/main/onnx/onnx.proto). Writing the few that a graph needs keeps `onnx`, `ml_dtypes`
and a second protobuf out of the training container, whose own toolkit is pinned to protobuf 3.20, and gives the same
bytes for the same graph, which protobuf does not promise. Reading them lets the publisher look at an untrusted file
before any runtime opens it.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from winnow.errors import BadModel

FLOAT, UINT8, INT32, INT64, STRING, BOOL = 1, 2, 6, 7, 8, 9
"""Element types of tensors (`TensorProto.DataType`)."""

IR_VERSION = 9
"""The file format's version: onnxruntime reads 9 since 1.16."""

OPSETS: Mapping[str, int] = {"": 20, "ai.onnx.ml": 4, "com.microsoft": 1}
"""Operator sets of the graphs written here; 20 is the first with StringSplit and StringConcat."""

_ELEMENT_TYPES = {
    np.dtype(np.float32): FLOAT,
    np.dtype(np.uint8): UINT8,
    np.dtype(np.int32): INT32,
    np.dtype(np.int64): INT64,
    np.dtype(np.bool_): BOOL,
}
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
_ATTRIBUTE_FLOAT, _ATTRIBUTE_INT, _ATTRIBUTE_STRING, _ATTRIBUTE_FLOATS, _ATTRIBUTE_INTS, _ATTRIBUTE_STRINGS = (
    1, 2, 3, 6, 7, 8,
)  # fmt: skip

Attribute = int | float | str | Sequence[int] | Sequence[float] | Sequence[str]
Dimension = int | str


# Writing


def _varint(value: int) -> bytes:
    value &= (1 << 64) - 1  # negative numbers are written as their 64-bit two's complement
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def _number(number: int, value: int) -> bytes:
    return _varint(number << 3 | _VARINT) + _varint(value)


def _block(number: int, value: bytes | str) -> bytes:
    data = value.encode() if isinstance(value, str) else value
    return _varint(number << 3 | _BYTES) + _varint(len(data)) + data


def _single(number: int, value: float) -> bytes:
    return _varint(number << 3 | _FIXED32) + struct.pack("<f", value)


def _attribute(name: str, value: Attribute) -> bytes:
    body = _block(1, name)
    if isinstance(value, int):
        return body + _number(3, value) + _number(20, _ATTRIBUTE_INT)
    if isinstance(value, float):
        return body + _single(2, value) + _number(20, _ATTRIBUTE_FLOAT)
    if isinstance(value, str):
        return body + _block(4, value) + _number(20, _ATTRIBUTE_STRING)
    first = value[0]
    if isinstance(first, str):
        return body + b"".join(_block(9, str(item)) for item in value) + _number(20, _ATTRIBUTE_STRINGS)
    if isinstance(first, float):
        packed = struct.pack(f"<{len(value)}f", *value)
        return body + _block(7, packed) + _number(20, _ATTRIBUTE_FLOATS)
    return body + _block(8, b"".join(_varint(int(item)) for item in value)) + _number(20, _ATTRIBUTE_INTS)


def _tensor(name: str, array: npt.NDArray[Any]) -> bytes:
    dims = b"".join(_number(1, size) for size in array.shape)
    if array.dtype.kind in "UO":
        return dims + _number(2, STRING) + b"".join(_block(6, str(item)) for item in array.ravel()) + _block(8, name)
    data = np.ascontiguousarray(array).astype(array.dtype.newbyteorder("<"), copy=False).tobytes()
    return dims + _number(2, _ELEMENT_TYPES[array.dtype]) + _block(8, name) + _block(9, data)


def _value_info(name: str, element: int, shape: Sequence[Dimension]) -> bytes:
    dims = b"".join(_block(1, _block(2, size) if isinstance(size, str) else _number(1, size)) for size in shape)
    return _block(1, name) + _block(2, _block(1, _number(1, element) + _block(2, dims)))


@dataclass
class GraphBuilder:
    """Collects the nodes of one graph and writes them as an ONNX file; the same calls give the same bytes.

    >>> graph = GraphBuilder("double")
    >>> x = graph.input("x", FLOAT, ("n",))
    >>> graph.output("y", graph.op("Mul", x, graph.constant(np.array(2.0, np.float32))), FLOAT, ("n",))
    >>> sorted(read_facts(graph.to_bytes()).operators)
    [('', 'Identity'), ('', 'Mul')]
    """

    name: str
    _nodes: list[bytes] = field(default_factory=list)
    _inputs: list[bytes] = field(default_factory=list)
    _outputs: list[bytes] = field(default_factory=list)
    _constants: list[bytes] = field(default_factory=list)
    _count: int = 0

    def _fresh(self, stem: str) -> str:
        self._count += 1
        return f"{stem.lower()}_{self._count}"

    def input(self, name: str, element: int, shape: Sequence[Dimension]) -> str:
        """Declare a graph input; text as a dimension is a free one."""
        self._inputs.append(_value_info(name, element, shape))
        return name

    def output(self, name: str, value: str, element: int, shape: Sequence[Dimension]) -> None:
        """Declare `value` to be the graph output `name`."""
        self._nodes.append(_block(1, value) + _block(2, name) + _block(4, "Identity"))
        self._outputs.append(_value_info(name, element, shape))

    def constant(self, array: npt.ArrayLike) -> str:
        """Store an array in the file (float32, uint8, int32, int64, bool or text) and return its name."""
        value = np.asarray(array)
        name = self._fresh("constant")
        self._constants.append(_tensor(name, value))
        return name

    def op(self, kind: str, *inputs: str, domain: str = "", **attributes: Attribute) -> str:
        """Add a node with one output and return the output's name; an empty input name skips that input."""
        return self.ops(kind, *inputs, domain=domain, outputs=1, **attributes)[0]

    def ops(self, kind: str, *inputs: str, outputs: int, domain: str = "", **attributes: Attribute) -> list[str]:
        """Add a node with several outputs and return their names."""
        names = [self._fresh(kind) for _ in range(outputs)]
        body = b"".join(_block(1, name) for name in inputs) + b"".join(_block(2, name) for name in names)
        body += _block(4, kind) + b"".join(_block(5, _attribute(key, value)) for key, value in attributes.items())
        self._nodes.append(body + (_block(7, domain) if domain else b""))
        return names

    def to_bytes(self) -> bytes:
        """The ONNX file."""
        graph = b"".join(_block(1, node) for node in self._nodes) + _block(2, self.name)
        graph += b"".join(_block(5, constant) for constant in self._constants)
        graph += b"".join(_block(11, value) for value in self._inputs)
        graph += b"".join(_block(12, value) for value in self._outputs)
        opsets = b"".join(_block(8, _block(1, name) + _number(2, version)) for name, version in OPSETS.items())
        return _number(1, IR_VERSION) + _block(2, "winnow") + _block(7, graph) + opsets


# Reading

_MAX_DEPTH = 16


@dataclass(frozen=True)
class Value:
    """A declared input or output: name, element type and shape (None where the size is free or unsaid)."""

    name: str
    element: int | None
    shape: tuple[int | None, ...] | None


@dataclass(frozen=True)
class Facts:
    """What an ONNX file says about itself, read without running or resolving anything."""

    ir_version: int
    opsets: Mapping[str, int]
    operators: frozenset[tuple[str, str]]
    inputs: tuple[Value, ...]
    outputs: tuple[Value, ...]
    external_tensors: tuple[str, ...]
    local_functions: int


def _read_varint(data: memoryview, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        if at >= len(data) or shift > 63:
            raise BadModel("model.onnx is no ONNX file: a number runs past its end; export the model again")
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
        shift += 7


def _fields(data: memoryview) -> Iterator[tuple[int, int | memoryview]]:
    """The (field number, value) pairs of one message: numbers for varints, views for everything else."""
    at = 0
    while at < len(data):
        key, at = _read_varint(data, at)
        number, kind = key >> 3, key & 7
        if kind == _VARINT:
            value, at = _read_varint(data, at)
            yield number, value
            continue
        size = {_FIXED64: 8, _FIXED32: 4}.get(kind, -1)
        if kind == _BYTES:
            size, at = _read_varint(data, at)
        if number == 0 or size < 0 or at + size > len(data):
            raise BadModel("model.onnx is no ONNX file: a field runs past its end; export the model again")
        yield number, data[at : at + size]
        at += size


def _text(value: int | memoryview) -> str:
    return "" if isinstance(value, int) else bytes(value).decode("utf-8", "replace")


class _Survey:
    """Walks every graph of a file, the ones inside attributes and functions too."""

    def __init__(self) -> None:
        self.operators: set[tuple[str, str]] = set()
        self.external: list[str] = []

    def tensor(self, data: memoryview) -> None:
        name, external = "", False
        for number, value in _fields(data):
            if number == 8:
                name = _text(value)
            # Field 13 lists where the bytes lie, field 14 says that they lie elsewhere; either is refused.
            external = external or number == 13 or (number == 14 and value != 0)
        if external:
            self.external.append(name or "?")

    def sparse_tensor(self, data: memoryview) -> None:
        for number, value in _fields(data):
            if number in (1, 2) and not isinstance(value, int):
                self.tensor(value)

    def node(self, data: memoryview, depth: int) -> None:
        kind = domain = ""
        for number, value in _fields(data):
            if number == 4:
                kind = _text(value)
            elif number == 7:
                domain = _text(value)
            elif number == 5 and not isinstance(value, int):
                self.attribute(value, depth)
        self.operators.add((domain, kind))

    def attribute(self, data: memoryview, depth: int) -> None:
        for number, value in _fields(data):
            if isinstance(value, int):
                continue
            if number in (5, 10):
                self.tensor(value)
            elif number in (6, 11):
                self.graph(value, depth + 1)
            elif number in (22, 23):
                self.sparse_tensor(value)

    def graph(self, data: memoryview, depth: int) -> tuple[list[Value], list[Value], set[str]]:
        if depth > _MAX_DEPTH:
            raise BadModel(f"model.onnx nests graphs deeper than {_MAX_DEPTH}; flatten its loops and branches")
        inputs: list[Value] = []
        outputs: list[Value] = []
        stored: set[str] = set()
        for number, value in _fields(data):
            if isinstance(value, int):
                continue
            if number == 1:
                self.node(value, depth)
            elif number == 5:
                self.tensor(value)
                stored |= {_text(item) for key, item in _fields(value) if key == 8}
            elif number == 15:
                self.sparse_tensor(value)
            elif number == 11:
                inputs.append(_read_value(value))
            elif number == 12:
                outputs.append(_read_value(value))
        return inputs, outputs, stored


def _read_value(data: memoryview) -> Value:
    name, element, shape = "", None, None
    for number, value in _fields(data):
        if number == 1:
            name = _text(value)
        elif number == 2 and not isinstance(value, int):
            for inner, tensor in _fields(value):
                if inner == 1 and not isinstance(tensor, int):
                    element, shape = _read_tensor_type(tensor)
    return Value(name=name, element=element, shape=shape)


def _read_tensor_type(data: memoryview) -> tuple[int | None, tuple[int | None, ...] | None]:
    element: int | None = None
    shape: tuple[int | None, ...] | None = None
    for number, value in _fields(data):
        if number == 1 and isinstance(value, int):
            element = value
        elif number == 2 and not isinstance(value, int):
            dims: list[int | None] = []
            for inner, dimension in _fields(value):
                if inner == 1 and not isinstance(dimension, int):
                    sizes = [size for key, size in _fields(dimension) if key == 1 and isinstance(size, int)]
                    dims.append(sizes[-1] if sizes else None)
            shape = tuple(dims)
    return element, shape


def read_facts(data: bytes) -> Facts:
    """Read what an ONNX file declares; raises `BadModel` for anything that is not one.

    >>> read_facts(b"")
    Traceback (most recent call last):
    winnow.errors.BadModel: model.onnx has no graph; export the model again
    """
    survey = _Survey()
    inputs: list[Value] = []
    outputs: list[Value] = []
    stored: set[str] = set()
    opsets: dict[str, int] = {}
    ir_version = functions = graphs = 0
    for number, value in _fields(memoryview(data)):
        if number == 1 and isinstance(value, int):
            ir_version = value
        elif isinstance(value, int):
            continue
        elif number == 7:
            graphs += 1
            inputs, outputs, stored = survey.graph(value, 0)
        elif number == 8:
            entry = dict(_fields(value))
            version = entry.get(2, 0)
            opsets[_text(entry.get(1, 0))] = version if isinstance(version, int) else 0
        elif number == 20:
            raise BadModel("model.onnx carries training information; export it for inference only")
        elif number == 25:
            functions += 1
            for inner, node in _fields(value):
                if inner == 7 and not isinstance(node, int):
                    survey.node(node, 1)
                elif inner == 11 and not isinstance(node, int):
                    survey.attribute(node, 1)
    if graphs == 0:
        raise BadModel("model.onnx has no graph; export the model again")
    if graphs > 1:
        raise BadModel("model.onnx has several graphs at its top; export the model again")
    return Facts(
        ir_version=ir_version,
        opsets=opsets,
        operators=frozenset(survey.operators),
        inputs=tuple(value for value in inputs if value.name not in stored),
        outputs=tuple(outputs),
        external_tensors=tuple(survey.external),
        local_functions=functions,
    )
