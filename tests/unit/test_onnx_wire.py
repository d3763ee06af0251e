"""Our ONNX writer and reader against the onnx package, which reads the same format with protobuf."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from winnow.errors import BadModel
from winnow.models.bootstrap import bootstrap_files
from winnow.models.package import MODEL_FILE
from winnow.onnx.wire import BOOL, FLOAT, INT64, STRING, GraphBuilder, read_facts


def sample_graph() -> bytes:
    graph = GraphBuilder("sample")
    text = graph.input("text", STRING, ("n",))
    tokens, counts = graph.ops("StringSplit", text, outputs=2)
    ids = graph.op(
        "LabelEncoder", tokens, domain="ai.onnx.ml", keys_strings=["a", "é"], values_int64s=[1, -2], default_int64=0
    )  # fmt: skip
    graph.output("ids", ids, INT64, ("n", "t"))
    graph.output("counts", counts, INT64, ("n",))
    return graph.to_bytes()


def test_onnx_reads_what_we_write() -> None:
    model = onnx.load_from_string(sample_graph())

    onnx.checker.check_model(model, full_check=True)
    encoder = model.graph.node[1]
    attributes = {item.name: helper.get_attribute_value(item) for item in encoder.attribute}
    assert (encoder.domain, encoder.op_type) == ("ai.onnx.ml", "LabelEncoder")
    assert attributes == {"keys_strings": [b"a", "é".encode()], "values_int64s": [1, -2], "default_int64": 0}
    assert [value.name for value in model.graph.output] == ["ids", "counts"]


@pytest.mark.parametrize(
    "array",
    [
        np.array([[1.5, -2.5]], np.float32),
        np.array([2**40, -1]),
        np.array(7, np.int32),
        np.array([True, False]),
        np.zeros((2, 0, 3), np.float32),
        np.array([0, 255], np.uint8),
    ],
)
def test_constants_keep_value_type_and_shape(array: np.ndarray) -> None:
    graph = GraphBuilder("constant")
    graph.output("y", graph.constant(array), FLOAT, ())

    stored = numpy_helper.to_array(onnx.load_from_string(graph.to_bytes()).graph.initializer[0])

    assert stored.dtype == array.dtype
    assert stored.shape == array.shape
    assert stored.tolist() == array.tolist()


def test_text_constants_and_float_attributes_survive() -> None:
    graph = GraphBuilder("constant")
    text = graph.constant(np.array(["a", "ß 中"]))
    graph.output("y", graph.op("Made", text, level=0.5, scales=[0.25, -1.0], name="ß"), FLOAT, (1, "n"))

    model = onnx.load_from_string(graph.to_bytes())

    attributes = {item.name: helper.get_attribute_value(item) for item in model.graph.node[0].attribute}
    assert [item.decode() for item in model.graph.initializer[0].string_data] == ["a", "ß 中"]
    assert attributes == {"level": 0.5, "scales": [0.25, -1.0], "name": "ß".encode()}
    dims = model.graph.output[0].type.tensor_type.shape.dim
    assert (dims[0].dim_value, dims[1].dim_param) == (1, "n")


def test_the_same_calls_give_the_same_bytes() -> None:
    assert sample_graph() == sample_graph()


def test_facts_of_a_file_that_the_onnx_package_wrote() -> None:
    body = helper.make_graph(
        [helper.make_node("Custom", ["x"], ["y"], domain="com.inner")],
        "body",
        [],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1])],
    )
    graph = helper.make_graph(
        [helper.make_node("If", ["c"], ["y"], then_branch=body, else_branch=body)],
        "outer",
        [
            helper.make_tensor_value_info("c", TensorProto.BOOL, []),
            helper.make_tensor_value_info("w", FLOAT, [2, None]),
        ],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 3])],
        [numpy_helper.from_array(np.zeros((2, 1), np.float32), "w")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17), helper.make_opsetid("com.inner", 1)])

    facts = read_facts(model.SerializeToString())

    assert facts.operators == {("", "If"), ("com.inner", "Custom")}
    assert facts.opsets == {"": 17, "com.inner": 1}
    assert [(value.name, value.element, value.shape) for value in facts.inputs] == [("c", BOOL, ())]
    assert [(value.name, value.element, value.shape) for value in facts.outputs] == [("y", FLOAT, (None, 3))]
    assert facts.external_tensors == ()
    assert facts.local_functions == 0


@pytest.mark.parametrize("place", ["initializer", "attribute", "subgraph", "sparse"])
def test_an_external_tensor_is_found_wherever_it_hides(place: str) -> None:
    tensor = TensorProto(name="w", data_type=TensorProto.FLOAT, dims=[4], data_location=TensorProto.EXTERNAL)
    tensor.external_data.add(key="location", value="../secret.bin")
    inner = helper.make_graph([], "inner", [], [], [tensor])
    model = helper.make_model(helper.make_graph([], "outer", [], []))
    if place == "initializer":
        model.graph.initializer.append(tensor)
    elif place == "attribute":
        model.graph.node.append(helper.make_node("Constant", [], ["c"], value=tensor))
    elif place == "subgraph":
        model.graph.node.append(helper.make_node("Loop", [], ["c"], body=inner))
    else:
        model.graph.sparse_initializer.add().values.CopyFrom(tensor)

    assert read_facts(model.SerializeToString()).external_tensors == ("w",)


def test_a_location_without_the_external_flag_is_still_external() -> None:
    tensor = TensorProto(name="w", data_type=TensorProto.FLOAT, dims=[4])
    tensor.external_data.add(key="location", value="*/_ORT_MEM_ADDR_/*")
    model = helper.make_model(helper.make_graph([], "g", [], [], [tensor]))

    assert read_facts(model.SerializeToString()).external_tensors == ("w",)


def test_local_functions_are_counted_and_searched() -> None:
    model = helper.make_model(helper.make_graph([], "g", [], []))
    node = helper.make_node("Hidden", ["x"], ["y"], domain="com.evil")
    model.functions.append(helper.make_function("pkg", "F", ["x"], ["y"], [node], [helper.make_opsetid("", 17)]))

    facts = read_facts(model.SerializeToString())

    assert facts.local_functions == 1
    assert ("com.evil", "Hidden") in facts.operators


def test_graphs_without_end_are_refused() -> None:
    graph = helper.make_graph([], "leaf", [], [])
    for _ in range(20):
        graph = helper.make_graph([helper.make_node("If", ["c"], ["y"], then_branch=graph)], "g", [], [])

    with pytest.raises(BadModel, match="nests graphs deeper"):
        read_facts(helper.make_model(graph).SerializeToString())


def test_two_top_graphs_are_refused() -> None:
    data = helper.make_model(helper.make_graph([], "g", [], [])).SerializeToString()

    with pytest.raises(BadModel, match="several graphs"):
        read_facts(data + data)


@pytest.mark.parametrize("data", [b"", b"\x00", b"PK\x03\x04", b"\x3a\xff\xff\xff\xff\x0f", b"\x80" * 40, b"ORTM" * 9])
def test_what_is_no_onnx_file_is_refused(data: bytes) -> None:
    with pytest.raises(BadModel):
        read_facts(data)


@settings(deadline=None)
@given(st.data())
def test_damage_is_refused_or_read_but_never_crashes(data: st.DataObject) -> None:
    good = sample_graph()
    place = data.draw(st.integers(0, len(good) - 1))
    bad = bytearray(good[: data.draw(st.integers(place, len(good)))])
    if place < len(bad):
        bad[place] ^= data.draw(st.integers(1, 255))

    try:
        facts = read_facts(bytes(bad))
    except BadModel:
        return
    assert facts.ir_version >= 0


@pytest.mark.parametrize("kind", ["text", "image"])
def test_the_shipped_graphs_pass_the_onnx_checker(kind: str) -> None:
    graph = bootstrap_files(kind, classes=["a", "b"])[MODEL_FILE]

    onnx.checker.check_model(onnx.load_from_string(graph))
    assert len(graph) < 1_500_000
