"""What a person types: files of every kind in, a figure and a package out."""

from __future__ import annotations

import base64
import csv
import gzip
import io
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from examples import read_people, read_rows
from PIL import Image

from winnow.models.package import ModelCard

ROOT = Path(__file__).resolve().parents[2]


def png(level: int) -> bytes:
    out = io.BytesIO()
    Image.fromarray(np.full((6, 6), level, np.uint8)).save(out, format="PNG")
    return out.getvalue()


def test_json_lines_plain_packed_and_in_a_folder(tmp_path: Path) -> None:
    lines = '{"body": "a\\u2028b", "intent": 3}\n\n{"body": "c", "intent": "x"}\n'
    (tmp_path / "one.jsonl").write_text("\ufeff" + lines, encoding="utf-8")
    (tmp_path / "two.jsonl.gz").write_bytes(gzip.compress(lines.encode()))

    one = read_people(tmp_path / "one.jsonl", kind="text", label="intent", text="body", part="train")
    both = read_people(tmp_path, kind="text", label="intent", text="body", part="train")

    assert [(item.payload, item.label) for item in one] == [("a\u2028b", "3"), ("c", "x")]
    assert len(both) == 4
    assert len({item.id for item in both}) == 4


def test_comma_separated_texts(tmp_path: Path) -> None:
    (tmp_path / "x.csv").write_text('text,label\n"a, b\nc",yes\n')

    examples = read_people(tmp_path / "x.csv", kind="text", label=None, text="text", part="train")

    assert [(item.payload, item.label) for item in examples] == [("a, b\nc", "yes")]


@pytest.mark.parametrize(
    "images",
    [np.full((1, 3, 5, 6), 51, np.uint8), np.full((1, 5, 6, 3), 0.2, np.float32), np.full((1, 5, 6, 3), 51.0)],
)
def test_arrays_of_other_layouts_become_pixels(tmp_path: Path, images: np.ndarray) -> None:
    np.savez(tmp_path / "x.npz", x_train=images, y_train=np.array([0]))

    payload = read_people(tmp_path / "x.npz", kind="image", label=None, text="text", part="train")[0].payload

    assert isinstance(payload, np.ndarray)
    assert (payload.shape, payload.dtype, payload.max()) == ((5, 6, 3), np.uint8, 51)


def test_arrays_that_are_no_pictures_are_refused(tmp_path: Path) -> None:
    np.savez(tmp_path / "x.npz", x_train=np.zeros((2, 9), np.uint8), y_train=np.array([0, 1]))

    with pytest.raises(ValueError, match=r"x_train is uint8 \(2, 9\)"):
        read_people(tmp_path / "x.npz", kind="image", label=None, text="text", part="train")
    with pytest.raises(ValueError, match="lacks x_test or y_test"):
        read_people(tmp_path / "x.npz", kind="image", label=None, text="text", part="test")


def test_images_in_a_folder_a_class(tmp_path: Path) -> None:
    for label, level in (("dark", 10), ("light", 250)):
        (tmp_path / label).mkdir()
        (tmp_path / label / "1.PNG").write_bytes(png(level))
        (tmp_path / label / "notes.txt").write_text("not an image")

    examples = read_people(tmp_path, kind="image", label=None, text="text", part="train")

    assert [(item.id, item.label) for item in examples] == [("dark/1.PNG", "dark"), ("light/1.PNG", "light")]
    assert examples[0].payload == png(10)


@pytest.mark.parametrize(("label", "found"), [(None, "shirt"), ("label", "0")])
def test_images_with_a_table(tmp_path: Path, label: str | None, found: str) -> None:
    (tmp_path / "a.png").write_bytes(png(1))
    with (tmp_path / "labels.csv").open("w", newline="") as out:
        csv.writer(out).writerows([("file", "label", "class_name"), ("a.png", 0, "shirt")])

    examples = read_people(tmp_path, kind="image", label=label, text="text", part="train")

    assert [item.label for item in examples] == [found]


def test_images_as_base64_lines(tmp_path: Path) -> None:
    (tmp_path / "x.jsonl").write_text(json.dumps({"image": base64.b64encode(png(3)).decode(), "label": "a"}))

    assert read_people(tmp_path / "x.jsonl", kind="image", label=None, text="text", part="train")[0].payload == png(3)


def test_arrays_with_and_without_class_names(tmp_path: Path) -> None:
    arrays = {
        "x_train": np.zeros((2, 4, 4), np.uint8),
        "y_train": np.array([1, 0]),
        "x_test": np.ones((1, 4, 4), np.uint8),
    }
    np.savez(tmp_path / "named.npz", **arrays, y_test=np.array([1]), class_names=np.array(["no", "yes"]))
    np.savez(tmp_path / "plain.npz", **arrays, y_test=np.array([1]))

    named = read_people(tmp_path / "named.npz", kind="image", label=None, text="text", part="train")
    plain = read_people(tmp_path / "plain.npz", kind="image", label=None, text="text", part="test")

    assert [item.label for item in named] == ["yes", "no"]
    assert [item.label for item in plain] == ["1"]


@pytest.mark.parametrize(
    ("name", "content", "kind", "message"),
    [
        ("absent.jsonl", None, "text", "does not exist"),
        ("x.jsonl", b'{"text": "a"}\n', "text", "no field 'label'; name the label's field with --label"),
        ("x.jsonl", b'{"label": "a"}\n', "text", "field 'text' holds no text"),
        ("x.jsonl", b"[1]\n", "text", "line 1 is no JSON object"),
        ("x.jsonl", b"", "text", "holds no examples"),
        ("x.jsonl", b'{"label": "a", "image": "*"}\n', "image", "not base64"),
        ("labels.csv", b"name,kind\nx,y\n", "image", "it needs `file` and `label`"),
    ],
)
def test_what_cannot_be_read_names_the_remedy(
    tmp_path: Path, name: str, content: bytes | None, kind: str, message: str
) -> None:
    path = tmp_path / name
    if content is not None:
        path.write_bytes(content)

    with pytest.raises(ValueError) as refused:
        read_people(path.parent if name == "labels.csv" else path, kind=kind, label=None, text="text", part="train")

    assert message in str(refused.value)


def run(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(ROOT / "training" / "train.py"), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_a_person_trains_and_tests_from_a_shell(tmp_path: Path) -> None:
    rows = [{"text": f"{word} number {n}", "label": word} for n in range(12) for word in ("apples", "pears")]
    (tmp_path / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "test.jsonl").write_text(
        '{"text": "some apples", "label": "apples"}\n{"text": "a pear", "label": "pears"}\n{"text": "?", "label": "figs"}\n'
    )

    done = run(
        "--kind", "text", "--train", tmp_path / "train.jsonl", "--test", tmp_path / "test.jsonl",
        "--model-dir", tmp_path / "out",
    )  # fmt: skip

    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "test_accuracy=0.6667"
    assert "test_n=3 test_unknown_class=1" in done.stdout
    card = ModelCard.from_bytes((tmp_path / "out" / "model.json").read_bytes())
    assert (card.classes, card.masker) == (("apples", "pears"), "none")


def write_people(path: Path, *, rows: int = 80) -> None:
    """A German spreadsheet's export: semicolons, decimal commas, gaps, an id, a reserved name."""
    lines = ["Nr;Alter;Stadt;cost;Gehalt;Klasse"]
    for number in range(rows):
        age, city = 20 + number * 7 % 40, ("Ulm", "Köln", "-")[number % 3]
        pay = 1000.5 + 50 * age + (500 if city == "Ulm" else 0)
        lines.append(f"{number};{age};{city};3;{pay:.1f}".replace(".", ",") + f";{'viel' if pay > 3200 else 'wenig'}")
    path.write_bytes("\r\n".join(lines).encode("cp1252"))


def test_a_person_trains_on_a_table(tmp_path: Path) -> None:
    write_people(tmp_path / "people.csv")

    done = run(
        "--kind", "table", "--train", tmp_path / "people.csv", "--holdout", "0.3", "--label", "Klasse",
        "--model-dir", tmp_path / "out", "--members", "1",
    )  # fmt: skip

    assert done.returncode == 0, done.stderr
    figures = dict(part.split("=", 1) for line in done.stdout.splitlines() for part in line.split() if "=" in part)
    assert (figures["train_n"], figures["test_n"], figures["positive_class"]) == ("56", "24", "wenig")
    assert float(figures["test_accuracy"]) > 0.8
    assert float(figures["test_average_precision"]) > 0.8
    assert "column 'cost' of people.csv is left out: the name is reserved" in done.stdout
    card = ModelCard.from_bytes((tmp_path / "out" / "model.json").read_bytes())
    assert {item.source: item.kind for item in card.payloads} == {
        "Alter": "number", "Gehalt": "number", "Nr": "number", "Stadt": "category",
    }  # fmt: skip


def test_a_person_trains_on_numbers(tmp_path: Path) -> None:
    write_people(tmp_path / "train.csv")
    rows = [
        {"Alter": 30, "Stadt": "Ulm", "Gehalt": 3000.5}, {"Alter": 41, "Stadt": None, "Gehalt": 3050.5}, {"Alter": 50},
    ]  # fmt: skip
    (tmp_path / "test.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))

    done = run(
        "--kind", "table", "--train", tmp_path / "train.csv", "--test", tmp_path / "test.jsonl", "--label", "Gehalt",
        "--task", "regression", "--model-dir", tmp_path / "out", "--members", "0",
    )  # fmt: skip

    assert done.returncode == 0, done.stderr
    assert "test_n=2 " in done.stdout  # the third row has no label
    assert float(done.stdout.rsplit("test_mae=", 1)[1].split()[0]) < 250
    assert ModelCard.from_bytes((tmp_path / "out" / "model.json").read_bytes()).task == "regression"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--label", "Preis"], "people.csv has no column 'Preis'; name one of 'Nr', 'Alter'"),
        (["--label", "Stadt", "--task", "regression"], "people.csv:1: the label 'Ulm' is no number"),
        (
            ["--label", "Nr"],
            "column 'Nr' has 80 different values in 80 rows; to predict a number add --task regression",
        ),
        (["--label", "Klasse", "--positive", "reich"], "the positive class 'reich' is none of the classes"),
        (["--label", "Klasse", "--holdout", "0.001"], "leaves nothing to learn from or to judge by"),
    ],
)
def test_a_table_that_cannot_be_learned_says_why(tmp_path: Path, arguments: list[str], message: str) -> None:
    write_people(tmp_path / "people.csv")

    done = run("--kind", "table", "--train", tmp_path / "people.csv", "--model-dir", tmp_path / "out", *arguments)

    assert done.returncode == 1
    assert message in done.stderr


def test_rows_come_from_every_file_of_a_folder(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("x,label\n1,None\n2,\n5,2.0\n6,2.50\n")
    (tmp_path / "b.jsonl").write_text('{"row": {"x": 3}, "label": 1.0}\n{"x": "4", "label": true}\n')
    (tmp_path / "notes.txt").write_text("not a table")

    said: list[str] = []
    examples = read_rows(tmp_path, label="label", task="classification", say=said.append)

    assert [(item.payload, item.label) for item in examples] == [
        ({"x": 1.0}, "None"), ({"x": 5.0}, "2"), ({"x": 6.0}, "2.50"), ({"x": 3.0}, "1"), ({"x": "4"}, "true"),
    ]  # fmt: skip
    assert said == []


def test_a_person_is_told_what_is_missing(tmp_path: Path) -> None:
    without_kind = run("--train", tmp_path)
    number_text = run("--train", tmp_path, "--kind", "text", "--model-dir", tmp_path, "--task", "regression")
    both = run("--train", "a", "--kind", "text", "--model-dir", "b", "--test", "c", "--holdout", "0.3")
    mistyped = run("--train", tmp_path, "--kind", "text", "--model-dir", tmp_path, "--modle")
    nothing = run()

    assert without_kind.returncode == mistyped.returncode == 2
    assert "--train needs --kind and --model-dir" in without_kind.stderr
    assert "'--modle' is unknown" in mistyped.stderr
    assert "--task regression and --positive need --kind table" in number_text.stderr
    assert "give --test or --holdout, not both" in both.stderr
    assert nothing.returncode == 1
    assert "give --train, --kind and --model-dir" in nothing.stderr
