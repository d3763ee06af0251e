"""Packages that nobody trusts: each hostile or sloppy one is refused with its reason, and nothing else happens."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

from winnow.errors import BadModel
from winnow.models.bootstrap import bootstrap_files
from winnow.models.package import CARD_FILE, MODEL_FILE, ModelCard, ModelInput, ModelOutputs, digest
from winnow.onnx.check import check_package, main, validate_package
from winnow.onnx.wire import FLOAT, INT64, STRING, GraphBuilder

SECONDS, MEGABYTES = 60.0, 1024


def image_card(graph: bytes, **changes: Any) -> ModelCard:
    fields: dict[str, Any] = {
        "model": "m",
        "kind": "image",
        "classes": ("a", "b"),
        "inputs": (ModelInput(name="image", kind="image", source="image", shape=(4, 4, 1)),),
        "masker": "1",
        "files": {MODEL_FILE: digest(graph)},
        "outputs": ModelOutputs(members=None),
    }
    return ModelCard(**{**fields, **changes})


def write(folder: Path, graph: bytes, **changes: Any) -> Path:
    (folder / MODEL_FILE).write_bytes(graph)
    (folder / CARD_FILE).write_bytes(image_card(graph, **changes).to_bytes())
    return folder


def small_graph(
    *,
    columns: int = 2,
    scale: float = 1.0,
    dims: int = 16,
    divide: bool = False,
    softmax: bool = True,
    members: int = 0,
) -> bytes:
    """A correct image model unless an option breaks one thing."""
    graph = GraphBuilder("small")
    flat = graph.op("Flatten", graph.input("image", FLOAT, ("n", 4, 4, 1)), axis=1)
    logits = graph.op("MatMul", flat, graph.constant(np.ones((16, columns), np.float32)))
    rows = graph.op("Mul", graph.op("Softmax", logits) if softmax else logits, graph.constant(np.float32(scale)))
    if divide:
        rows = graph.op("Div", rows, graph.op("Sub", rows, rows))
    graph.output("probabilities", rows, FLOAT, ("n", columns))
    graph.output(
        "embedding", graph.op("MatMul", flat, graph.constant(np.ones((16, dims), np.float32))), FLOAT, ("n", dims)
    )
    if members:
        cube = graph.op("Unsqueeze", rows, graph.constant(np.array([1])))
        graph.output("members", graph.op("Concat", *[cube] * members, axis=1), FLOAT, ("n", members, columns))
    return graph.to_bytes()


def protobuf_graph(nodes: list[Any], *, initializers: list[Any] | None = None) -> bytes:
    """A graph by the onnx package with our input and outputs; `nodes` make `p` and `e` from `image`."""
    graph = helper.make_graph(
        nodes,
        "hostile",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["n", 4, 4, 1])],
        [
            helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, None),
            helper.make_tensor_value_info("embedding", TensorProto.FLOAT, None),
        ],
        initializers or [],
    )
    domains = [
        helper.make_opsetid(name, version) for name, version in (("", 17), ("com.evil", 1), ("com.microsoft", 1))
    ]
    return helper.make_model(graph, opset_imports=domains, ir_version=9).SerializeToString()


@pytest.mark.parametrize(
    ("kind", "classes"), [("text", "abc"), ("image", "abc"), ("table", "abc"), ("table", "")], ids=str
)
def test_the_shipped_packages_pass_in_a_child(tmp_path: Path, kind: str, classes: str) -> None:
    for name, content in bootstrap_files(kind, classes=list(classes)).items():
        (tmp_path / name).write_bytes(content)

    card = validate_package(tmp_path, seconds=SECONDS, megabytes=MEGABYTES)

    assert card == ModelCard.from_bytes((tmp_path / CARD_FILE).read_bytes())


def test_a_committee_passes(tmp_path: Path) -> None:
    assert check_package(write(tmp_path, small_graph(members=3), outputs=ModelOutputs())).outputs.members == "members"


@pytest.mark.parametrize(
    ("graph", "changes", "message"),
    [
        ({"columns": 3}, {}, "output 'probabilities' has 3 columns, classes has 2"),
        ({"scale": 0.5}, {}, "output 'probabilities' has rows that do not sum to 1"),
        ({"softmax": False}, {}, "do not sum to 1"),
        ({"divide": True}, {}, "output 'probabilities' holds NaN or infinity"),
        ({"dims": 513}, {}, "has 513 dimensions; project it to at most 512"),
        ({}, {"outputs": ModelOutputs()}, "outputs names 'members', the graph gives"),
        ({}, {"outputs": ModelOutputs(probabilities="p", members=None)}, "outputs names 'p'"),
        ({}, {"inputs": (ModelInput(name="x", kind="image", shape=(4, 4, 1)),)}, "inputs lists ['x']"),
        ({}, {"inputs": (ModelInput(name="image", kind="image", shape=(5, 4, 1)),)}, "fails on 1 plain records"),
        (
            {},
            {"kind": "text", "inputs": (ModelInput(name="image", kind="text"),)},
            "inputs[image] is of kind text, so the graph must take string",
        ),
    ],
)
def test_a_sloppy_package_is_told_what_to_mend(
    tmp_path: Path, graph: dict[str, Any], changes: dict[str, Any], message: str
) -> None:
    write(tmp_path, small_graph(**graph), **changes)

    with pytest.raises(BadModel) as refused:
        check_package(tmp_path)

    assert message in str(refused.value)


def table_folder(folder: Path, *, fault: str = "") -> Path:
    """A regression over a number and a category column, with one thing wrong when `fault` names it."""
    graph = GraphBuilder("table")
    number = graph.input("c0", FLOAT, ("n",) if fault == "rank" else ("n", 2) if fault == "width" else ("n", 1))
    category = graph.input("c1", FLOAT if fault == "strings" else STRING, ("n", 1))
    code = category
    if fault != "strings":
        code = graph.op(
            "LabelEncoder", category, domain="ai.onnx.ml", keys_strings=["a"], values_floats=[1.0], default_float=0.0
        )
    known = graph.op("Where", graph.op("IsNaN", number), code, number)
    if fault == "missing":
        known = graph.op("Add", number, code)
    if fault != "huge":
        known = graph.op("Tanh", known)
    known = graph.op("Mul", known, graph.constant(np.float32(2)))
    flat = known if fault == "flat" else graph.op("Reshape", known, graph.constant(np.array([-1])))
    graph.output("prediction", flat, FLOAT, ("n",))
    graph.output("embedding", code, FLOAT, ("n", 1))
    graph.output("members", flat if fault == "members" else graph.op("Concat", code, code, axis=1), FLOAT, ("n", 2))
    columns = (ModelInput(name="c0", kind="number", source="x"), ModelInput(name="c1", kind="category", source="y"))
    return write(
        folder, graph.to_bytes(), kind="table", task="regression", classes=(), inputs=columns,
        outputs=ModelOutputs(prediction="prediction"),
    )  # fmt: skip


def test_a_regression_over_columns_passes(tmp_path: Path) -> None:
    assert check_package(table_folder(tmp_path)).task == "regression"


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ("rank", "inputs[c0] has 1 dimensions in the graph; 2 are given to it"),
        ("width", "inputs[c0] takes 2 columns; (n, 1) is given to it"),
        ("strings", "inputs[c1] is of kind category, so the graph must take string tensors"),
        ("missing", "output 'prediction' holds NaN or infinity"),
        ("huge", "output 'prediction' holds NaN or infinity"),
        ("flat", "output 'prediction' has shape (1, 1) for 1 records; it needs 1 dimensions"),
        ("members", "output 'members' has shape (1,) for 1 records; it needs 2 dimensions"),
    ],
)
def test_a_table_model_must_take_any_row(tmp_path: Path, fault: str, message: str) -> None:
    with pytest.raises(BadModel) as refused:
        check_package(table_folder(tmp_path, fault=fault))

    assert message in str(refused.value)


def test_other_types_and_ranks_are_refused(tmp_path: Path) -> None:
    whole = GraphBuilder("whole")
    image = whole.input("image", FLOAT, ("n", 4, 4, 1))
    whole.output("probabilities", whole.op("Shape", image), INT64, (4,))
    whole.output("embedding", image, FLOAT, ("n", 4, 4, 1))
    with pytest.raises(BadModel, match="is int64; cast it to float32"):
        check_package(write(tmp_path, whole.to_bytes()))

    flat = protobuf_graph(
        [
            helper.make_node("Identity", ["image"], ["probabilities"]),
            helper.make_node("Flatten", ["image"], ["embedding"]),
        ]
    )
    with pytest.raises(BadModel, match="it needs 2 dimensions"):
        check_package(write(tmp_path, flat))


def test_a_graph_for_one_record_only_is_refused(tmp_path: Path) -> None:
    graph = GraphBuilder("fixed")
    text = graph.input("text", STRING, (1,))
    graph.output("probabilities", text, STRING, (1,))
    graph.output("embedding", text, STRING, (1,))

    with pytest.raises(BadModel, match="leave the first dimension free"):
        check_package(write(tmp_path, graph.to_bytes(), kind="text", inputs=(ModelInput(name="text", kind="text"),)))


def external(location: str) -> bytes:
    tensor = TensorProto(name="w", data_type=TensorProto.FLOAT, dims=[4], data_location=TensorProto.EXTERNAL)
    tensor.external_data.add(key="location", value=location)
    nodes = [helper.make_node("Identity", ["w"], [name]) for name in ("probabilities", "embedding")]
    return protobuf_graph(nodes, initializers=[tensor])


@pytest.mark.parametrize("location", ["../secret.bin", "/etc/passwd", "weights.bin", "*/_ORT_MEM_ADDR_/*"])
def test_weights_outside_of_the_file_are_refused(tmp_path: Path, location: str) -> None:
    with pytest.raises(BadModel, match="keeps weights outside of itself"):
        check_package(write(tmp_path, external(location)))


def test_foreign_operators_are_refused(tmp_path: Path) -> None:
    graph = protobuf_graph([helper.make_node("Evil", ["image"], ["probabilities"], domain="com.evil")])

    with pytest.raises(BadModel, match=r"com\.evil:Evil"):
        check_package(write(tmp_path, graph))


def test_links_are_not_followed(tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_bytes(small_graph())
    folder = tmp_path / "package"
    folder.mkdir()
    write(folder, small_graph())
    (folder / MODEL_FILE).unlink()
    (folder / MODEL_FILE).symlink_to(secret)

    with pytest.raises(BadModel, match="is no regular file"):
        check_package(folder)


def test_what_is_missing_or_changed_is_named(tmp_path: Path) -> None:
    with pytest.raises(BadModel, match=r"model\.json is missing"):
        check_package(tmp_path)

    write(tmp_path, small_graph())
    (tmp_path / MODEL_FILE).write_bytes(small_graph(scale=0.5))
    with pytest.raises(BadModel, match="another sha256"):
        check_package(tmp_path)


def looping_graph() -> bytes:
    values = [helper.make_tensor_value_info("v_in", TensorProto.FLOAT, None)]
    body = helper.make_graph(
        [helper.make_node("Identity", ["more"], ["again"]), helper.make_node("Identity", ["v_in"], ["v_out"])],
        "body",
        [
            helper.make_tensor_value_info("i", TensorProto.INT64, []),
            helper.make_tensor_value_info("more", TensorProto.BOOL, []),
            *values,
        ],
        [
            helper.make_tensor_value_info("again", TensorProto.BOOL, []),
            helper.make_tensor_value_info("v_out", TensorProto.FLOAT, None),
        ],
    )
    nodes = [
        helper.make_node("Loop", ["", "yes", "image"], ["probabilities"], body=body),
        helper.make_node("Flatten", ["image"], ["embedding"]),
    ]
    return protobuf_graph(nodes, initializers=[numpy_helper.from_array(np.array(True), "yes")])


def test_a_graph_that_loops_for_ever_runs_out_of_time(tmp_path: Path) -> None:
    write(tmp_path, looping_graph())

    with pytest.raises(BadModel, match="did not finish") as refused:
        validate_package(tmp_path, seconds=3.0, megabytes=MEGABYTES)

    assert refused.value.code == "model-timeout"


def test_a_graph_that_asks_for_all_memory_gets_none(tmp_path: Path) -> None:
    shape = numpy_helper.from_array(np.array([2000, 1000, 1000], np.int64), "shape")
    nodes = [
        helper.make_node("ConstantOfShape", ["shape"], ["huge"]),
        helper.make_node("ReduceSum", ["huge"], ["sum"], keepdims=0),
        helper.make_node("Add", ["image", "sum"], ["probabilities"]),
        helper.make_node("Flatten", ["image"], ["embedding"]),
    ]
    write(tmp_path, protobuf_graph(nodes, initializers=[shape]))

    with pytest.raises(BadModel, match="needs more than 1024 MB") as refused:
        validate_package(tmp_path, seconds=SECONDS, megabytes=MEGABYTES)

    assert refused.value.code == "model-memory"


@pytest.mark.parametrize("data", [b"", b"PK\x03\x04rest", b"\x9c\xa4\xc3\xd3" * 16, small_graph()[:300]])
def test_damaged_files_are_refused_in_the_child(tmp_path: Path, data: bytes) -> None:
    write(tmp_path, data)

    with pytest.raises(BadModel) as refused:
        validate_package(tmp_path, seconds=SECONDS, megabytes=MEGABYTES)

    assert refused.value.code == "bad-model"


@pytest.mark.parametrize(
    ("status", "err", "code"),
    [(-11, b"", "model-crash"), (-6, b"terminate: std::bad_alloc", "model-memory"), (-9, b"", "model-memory"),
     (-24, b"", "model-timeout")],
)  # fmt: skip
def test_how_the_child_dies_tells_why(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, status: int, err: bytes, code: str
) -> None:
    died = subprocess.CompletedProcess([], status, stdout=b"", stderr=err)
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: died)

    with pytest.raises(BadModel) as refused:
        validate_package(tmp_path, seconds=SECONDS, megabytes=MEGABYTES)

    assert refused.value.code == code


def test_the_child_has_no_secrets_and_reads_no_code_from_the_package(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "x")
    witness = tmp_path / "witness"
    write(tmp_path, small_graph())
    (tmp_path / "numpy.py").write_text(f"open({str(witness)!r}, 'w').write('ran')")
    (tmp_path / "sitecustomize.py").write_text(f"open({str(witness)!r}, 'w').write('ran')")

    validate_package(tmp_path, seconds=SECONDS, megabytes=MEGABYTES)

    assert not witness.exists()


def test_the_command_prints_its_verdict(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("winnow.onnx.check._limit", lambda **_: None)  # or the limits would stay for all other tests

    assert main([str(write(tmp_path, small_graph()))]) == 0
    assert main([str(write(tmp_path, small_graph(scale=0.5)))]) == 1
    good, bad = capsys.readouterr().out.splitlines()
    assert good.startswith('{"ok": true')
    assert "do not sum to 1" in bad
