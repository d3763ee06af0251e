"""Commands other than the demo, against moto's plain AWS."""

from __future__ import annotations

import gzip
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import boto3
import pytest
from moto import mock_aws

from tests.encoders import pets
from winnow_cli.main import main

ACCOUNT, REGION = "123456789012", "us-east-1"


@pytest.fixture
def aws(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("AWS_DEFAULT_REGION", REGION)
    monkeypatch.delenv("AWS_ENDPOINT_URL", raising=False)
    with mock_aws():
        yield


def bucket(kind: str) -> str:
    name = f"winnow-{kind}-{ACCOUNT}-{REGION}"
    boto3.client("s3", region_name=REGION).create_bucket(Bucket=name)
    return name


def test_help_needs_nothing_heavy() -> None:
    code = (
        "import sys; from winnow_cli.main import main\n"
        "try: main(['--help'])\n"
        "except SystemExit: pass\n"
        "heavy = {'boto3', 'numpy', 'pydantic', 'moto', 'sklearn', 'PIL', 'yaml'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )

    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=False,
        env={"PYTHONPATH": ":".join(sys.path)},
    )

    assert done.returncode == 0, done.stderr
    assert "run weeks of the loop in a minute" in done.stdout


def test_without_a_command_the_help_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 2
    assert "commands:" in capsys.readouterr().out


def test_config_check_accepts_a_valid_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "loop.yaml"
    file.write_text("task: {kind: image, classes: [cat, dog]}\nbatches: {size: 50}\n", encoding="utf-8")

    assert main(["config", "check", str(file)]) == 0
    assert "image, 2 classes, batches of 50, budget $1000" in capsys.readouterr().out


def test_config_check_names_every_problem(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "loop.yaml"
    file.write_text("batches: {sise: 3}\nacquisition: {strategy: magic}\n", encoding="utf-8")

    assert main(["config", "check", str(file)]) == 2
    said = capsys.readouterr().err
    assert "batches.sise: unknown field; known here: adaptive, max_open, min_size, minutes, size" in said
    assert "strategy 'magic' is unknown; choose one of" in said


def test_config_check_of_a_missing_file_names_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["config", "check", str(tmp_path / "none.yaml")]) == 2
    assert "none.yaml: No such file or directory" in capsys.readouterr().err


def test_config_explain_shows_the_fields_under_a_path(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["config", "explain", "batches"]) == 0
    said = capsys.readouterr().out
    assert "batches.size = 100" in said
    assert "gate." not in said


def test_config_explain_of_an_unknown_path_lists_the_sections(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["config", "explain", "batch"]) == 2
    assert "its sections are acquisition, batches, budget" in capsys.readouterr().err


def test_config_push_writes_where_functions_read(aws: None, tmp_path: Path) -> None:
    name, file = bucket("data"), tmp_path / "loop.yaml"
    file.write_text("batches: {size: 50}\n", encoding="utf-8")

    assert main(["config", "push", str(file)]) == 0

    stored = boto3.client("s3", region_name=REGION).get_object(Bucket=name, Key="config/loop.yaml")["Body"].read()
    assert stored == b"batches: {size: 50}\n"


def test_config_push_refuses_before_it_writes(aws: None, tmp_path: Path) -> None:
    name, file = bucket("data"), tmp_path / "loop.yaml"
    file.write_text("batches: {size: 0}\n", encoding="utf-8")

    assert main(["config", "push", str(file)]) == 2

    assert boto3.client("s3", region_name=REGION).list_objects_v2(Bucket=name)["KeyCount"] == 0


def test_an_encoder_is_imported_and_then_named_in_the_loop(
    aws: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    name, file = bucket("data"), tmp_path / "loop.yaml"
    file.write_text("training: {encoder: pets}\n", encoding="utf-8")

    assert main(["config", "push", str(file)]) == 2
    assert "run winnow import encoder DIR --name pets first" in capsys.readouterr().err
    assert main(["import", "encoder", str(pets(tmp_path / "Pets"))]) == 0
    assert "pets reads text and gives 2 numbers a record" in capsys.readouterr().out
    assert main(["config", "push", str(file)]) == 0

    keys = [item["Key"] for item in boto3.client("s3", region_name=REGION).list_objects_v2(Bucket=name)["Contents"]]
    assert keys == [
        "config/loop.yaml", "encoders/pets/encoder.json", "encoders/pets/encoder.onnx", "encoders/pets/tokenizer.json",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("name", "reason"), [("My Encoder", "is no name"), ("empty", "holds no encoder.onnx, model.onnx")]
)
def test_what_is_no_encoder_is_not_uploaded(
    aws: None, tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str, reason: str
) -> None:
    data = bucket("data")

    assert main(["import", "encoder", str(tmp_path), "--name", name]) == 2

    assert reason in capsys.readouterr().err
    assert boto3.client("s3", region_name=REGION).list_objects_v2(Bucket=data)["KeyCount"] == 0


def test_put_drops_files_and_folders(aws: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    name = bucket("pool")
    (tmp_path / "set" / "deep").mkdir(parents=True)
    (tmp_path / "a.txt").write_bytes(b"one\n")
    (tmp_path / "set" / "deep" / "b.txt").write_bytes(b"two\n")

    assert main(["put", str(tmp_path / "a.txt"), str(tmp_path / "set"), "--prefix", "new/"]) == 0

    keys = [item["Key"] for item in boto3.client("s3", region_name=REGION).list_objects_v2(Bucket=name)["Contents"]]
    assert keys == ["new/a.txt", "new/deep/b.txt"]
    assert "2 objects dropped into s3://winnow-pool-" in capsys.readouterr().out


def push_table_loop() -> None:
    loop = b"task: {kind: table, classes: [cat, dog]}\n"
    boto3.client("s3", region_name=REGION).put_object(Bucket=bucket("data"), Key="config/loop.yaml", Body=loop)


def test_put_says_what_will_be_decided_about_a_file(
    aws: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bucket("pool")
    push_table_loop()
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / "a.csv").write_bytes("größe;label\n1,5;cat\n2,5;cow\n".encode("cp1252"))
    (tmp_path / "set" / "notes.md").write_bytes(b"# About\n")

    assert main(["put", str(tmp_path / "set")]) == 0

    assert capsys.readouterr().out.splitlines()[:-1] == [
        "a.csv: it is not UTF-8 and was read as Windows-1252",
        "a.csv: numbers are written with a decimal comma",
        "a.csv: of the first 2 rows 1 will be refused; row 3: label 'cow' is none of task.classes (cat, dog)",
        "notes.md is left out: its format is not read",
    ]


def test_put_drops_nothing_when_a_file_would_end_in_quarantine(
    aws: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    name = bucket("pool")
    push_table_loop()
    (tmp_path / "a.csv").write_bytes(b"a,b\n1,2\n")
    (tmp_path / "b.csv").write_bytes(b"a,b,a\n1,2,3\n")
    (tmp_path / "c.csv").write_bytes(b"a,label\n1,cow\n2,cow\n")
    (tmp_path / "d.xlsx").write_bytes(b"PK\x03\x04")
    files = [str(tmp_path / file) for file in ("a.csv", "b.csv", "c.csv", "d.xlsx")]

    assert main(["put", *files]) == 2

    said = capsys.readouterr().err
    assert "  b.csv has two columns named 'a'; rename one\n" in said
    assert "  c.csv: row 2: label 'cow' is none of task.classes (cat, dog)\n" in said
    assert "  d.xlsx is a zip archive (or an Excel workbook): save its table as CSV" in said
    assert boto3.client("s3", region_name=REGION).list_objects_v2(Bucket=name)["KeyCount"] == 0
    assert main(["put", "--no-check", *files]) == 0
    assert boto3.client("s3", region_name=REGION).list_objects_v2(Bucket=name)["KeyCount"] == 4


def test_put_does_not_guess_what_a_broken_loop_reads(
    aws: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bucket("pool")
    boto3.client("s3", region_name=REGION).put_object(Bucket=bucket("data"), Key="config/loop.yaml", Body=b"tasc: {}")
    (tmp_path / "a.txt").write_bytes(b"one\n")

    assert main(["put", str(tmp_path / "a.txt")]) == 2

    assert "loop.yaml: tasc: unknown field" in capsys.readouterr().err


def test_put_names_what_is_missing(aws: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "a.txt").write_bytes(b"one\n")

    assert main(["put", str(tmp_path / "none.txt")]) == 2
    assert main(["put", str(tmp_path / "a.txt")]) == 2

    said = capsys.readouterr().err
    assert "none.txt: there is no such file or folder" in said
    assert "NoSuchBucket" in said
    assert "is the stack deployed in this account and region?" in said


def test_select_of_a_stack_that_is_not_there_says_so(aws: None, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["select", "--stack", "other"]) == 2
    assert "function other-select_batch" in capsys.readouterr().err


def test_a_local_cloud_that_is_down_is_named(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")  # the discard port: nobody listens
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")

    assert main(["select"]) == 2
    assert "is the local cloud at http://127.0.0.1:9 up? (winnow local up)" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["demo", "--label", "y"], "--label goes with --data"),
        (["demo", "--data", "x.jsonl"], "--data needs --label"),
        (["demo", "--data", "/nowhere/x.jsonl", "--label", "y"], "there is no such file or folder"),
    ],
)
def test_a_demo_that_is_asked_wrongly_says_what_is_missing(
    arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments) == 2
    assert said in capsys.readouterr().err


SEEDS = b'{"body": "fine", "mood": "positive"}\n{"body": "bad", "mood": "negative"}\n{"body": "so", "mood": "cow"}\n'


def test_seeds_are_told_uploaded_once_and_in_the_form_ingest_reads(
    aws: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pool, _ = bucket("pool"), bucket("data")
    (tmp_path / "old.jsonl").write_bytes(SEEDS)
    command = ["import", "labels", str(tmp_path / "old.jsonl"), "--label", "mood", "--text", "body", "--by", "ada"]
    s3 = boto3.client("s3", region_name=REGION)

    assert main([*command, "--dry-run"]) == 0
    assert s3.list_objects_v2(Bucket=pool)["KeyCount"] == 0
    said = capsys.readouterr().out
    assert "3 rows: 2 with a usable label" in said
    assert "old.jsonl, line 3: label 'cow' is none of task.classes (negative, positive)" in said
    assert main([*command, "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert main(command) == 0
    assert "imported before, nothing changes" in capsys.readouterr().out

    (entry,) = s3.list_objects_v2(Bucket=pool)["Contents"]
    lines = gzip.decompress(s3.get_object(Bucket=pool, Key=entry["Key"])["Body"].read()).splitlines()
    assert told["objects"] == [{"key": entry["Key"], "status": "imported"}]
    assert (told["labeled"], told["classes"]) == (2, {"negative": 1, "positive": 1})
    first = json.loads(lines[0])
    assert {name: first[name] for name in ("text", "label")} == {"text": "fine", "label": "positive"}
    assert (first["winnow"]["file"], first["winnow"]["line"], first["winnow"]["by"]) == ("old.jsonl", 1, "ada")


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (b"", "is empty"),
        (b'{"text": "a"}\n', "no row has a label under 'label'; say --label FIELD"),
        (b'{"text": "a", "label": "cow"}\n', "is loop.yaml pushed"),
        (b'{"body": "a", "label": "positive"}\n', "say --text FIELD"),
    ],
)
def test_seeds_without_a_usable_row_are_refused_with_the_remedy(
    body: bytes, said: str, aws: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pool, _ = bucket("pool"), bucket("data")
    (tmp_path / "old.jsonl").write_bytes(body)

    assert main(["import", "labels", str(tmp_path / "old.jsonl")]) == 2

    assert said in capsys.readouterr().err
    assert boto3.client("s3", region_name=REGION).list_objects_v2(Bucket=pool)["KeyCount"] == 0


def test_an_export_refuses_what_it_cannot_write(aws: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "there").mkdir()

    assert main(["export", "pool", str(tmp_path / "there")]) == 2
    assert main(["export", "pool", str(tmp_path / "new"), "--dataset", "d1"]) == 2

    said = capsys.readouterr().err
    assert "there exists; remove it or name another" in said
    assert "--dataset belongs to `winnow export datasets`" in said
