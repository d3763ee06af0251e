"""Loading labeled data: what the loop may see is split from the truth, and every refusal names file and remedy."""

from __future__ import annotations

import csv
import gzip
import io
import json
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pytest

from tests import parquets
from winnow_cli import labeled as data
from winnow_cli.errors import UsageError


def jsonl(path: Path, rows: list[dict[str, object]]) -> Path:
    body = "".join(json.dumps(row) + "\n" for row in rows).encode()
    path.write_bytes(gzip.compress(body) if path.suffix == ".gz" else body)
    return path


def picture(value: int) -> bytes:
    return data.png(np.full((4, 4), value, dtype=np.uint8))


def test_digits_are_pngs_with_one_class_made_rare() -> None:
    digits = data.digits(rng=np.random.default_rng(3))

    labels = digits.truth.lookup()
    eights = sum(label == "8" for label in labels.values())
    assert digits.kind == "image"
    assert digits.rare == ("8",)
    assert eights == 17  # a tenth of 174
    assert all(sample.payload.startswith(b"\x89PNG") for sample in digits.samples if isinstance(sample.payload, bytes))
    assert len(digits.samples) == len(digits.truth)


def test_digits_are_the_same_for_the_same_seed() -> None:
    once = data.digits(rng=np.random.default_rng(5), size=40)
    again = data.digits(rng=np.random.default_rng(5), size=40)

    assert once == again
    assert len(once.samples) == 40


@pytest.mark.parametrize("name", ["rows.jsonl", "rows.jsonl.gz"])
def test_json_lines_give_texts_and_a_truth_apart(tmp_path: Path, name: str) -> None:
    path = jsonl(tmp_path / name, [{"id": "a", "text": "hot", "y": 1}, {"id": "b", "text": "cold", "y": 0}])

    loaded = data.load(path, label="y")

    assert loaded.kind == "text"
    assert loaded.classes == ("0", "1")
    assert loaded.samples == (data.Sample("a", "hot"), data.Sample("b", "cold"))
    assert loaded.truth.lookup() == {"hot": "1", "cold": "0"}


def test_the_only_other_string_field_is_the_text(tmp_path: Path) -> None:
    path = jsonl(tmp_path / "r.jsonl", [{"question": "q1", "y": "a"}, {"question": "q2", "y": "b"}])

    assert [sample.payload for sample in data.load(path, label="y").samples] == ["q1", "q2"]


def test_csv_is_read_too(tmp_path: Path) -> None:
    path = tmp_path / "r.csv"
    path.write_text("text,y\nhello there,a\nbye,b\n", encoding="utf-8")

    assert data.load(path, label="y").truth.lookup() == {"hello there": "a", "bye": "b"}


def test_rows_without_a_label_are_left_out_and_counted(tmp_path: Path) -> None:
    rows = [{"text": "1", "y": "a"}, {"text": "2", "y": "b"}, {"text": "3", "y": None}, {"text": "4"}]

    loaded = data.load(jsonl(tmp_path / "r.jsonl", rows), label="y")

    assert len(loaded.samples) == 2
    assert loaded.unlabeled == 2


def folder(path: Path) -> Path:
    for number, name in enumerate(("cat", "dog", "cat")):
        (path / name).mkdir(parents=True, exist_ok=True)
        (path / name / f"{number}.png").write_bytes(picture(number))
    return path


def test_subfolders_are_classes(tmp_path: Path) -> None:
    loaded = data.load(folder(tmp_path / "set"), label="folder")

    assert loaded.kind == "image"
    assert loaded.classes == ("cat", "dog")
    assert loaded.truth.lookup()[picture(1)] == "dog"
    assert [sample.name for sample in loaded.samples] == ["cat-0.png", "cat-2.png", "dog-1.png"]


def test_labels_csv_names_files_relative_to_itself(tmp_path: Path) -> None:
    base = tmp_path / "set"
    (base / "images").mkdir(parents=True)
    for number in range(2):
        (base / "images" / f"{number}.png").write_bytes(picture(number))
    with (base / "labels.csv").open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([["file", "class_name"], ["images/0.png", "shoe"], ["images/1.png", "bag"]])

    loaded = data.load(base, label="class_name")

    assert loaded.truth.lookup() == {picture(0): "shoe", picture(1): "bag"}


@pytest.mark.parametrize("suffix", [".tar", ".tar.gz", ".zip"])
def test_an_archive_is_read_as_the_folder_it_holds(tmp_path: Path, suffix: str) -> None:
    source, path = folder(tmp_path / "set"), tmp_path / f"set{suffix}"
    if suffix == ".zip":
        with zipfile.ZipFile(path, "w") as archive:
            for item in sorted(source.rglob("*.png")):
                archive.write(item, item.relative_to(source))
            archive.writestr("__MACOSX/._0.png", b"")
    else:
        with tarfile.open(path, "w:gz" if suffix.endswith("gz") else "w") as tar:
            tar.add(source, ".")

    assert data.load(path, label="folder").samples == data.load(source, label="folder").samples


def test_numbers_sort_by_value(tmp_path: Path) -> None:
    rows = [{"text": str(number), "y": number} for number in (10, 9, 2)]

    assert data.load(jsonl(tmp_path / "r.jsonl", rows), label="y").classes == ("2", "9", "10")


@pytest.mark.parametrize(
    ("rows", "options", "said"),
    [
        ([{"text": "a", "y": "1"}], {"label": "z"}, "no field 'z' (--label); it has text, y"),
        ([{"text": "a", "y": "1"}], {"label": "y"}, "only the class '1'"),
        ([{"q": "a", "w": "b", "y": "1"}], {"label": "y", "kind": "text"}, "which of q, w is it? Say --text FIELD"),
        ([{"q": "is it one", "w": "or the other", "y": "1"}], {"label": "y"}, "q, w hold texts; say --text FIELD"),
        ([{"text": "a", "y": "1"}, {"text": "b", "y": "2"}], {"label": "y", "positive": "3"}, "it has 1, 2"),
        ([{"text": "a", "y": 1.5}, {"text": "b", "y": 2}], {"label": "y", "task": "regression"}, "needs a table"),
        ([{"a": 1, "y": 1.5}, {"a": 2, "y": 2}], {"label": "y", "task": "regression", "positive": "2"}, "are numbers"),
        ([{"a": 1, "y": "x"}, {"a": 2, "y": "y"}], {"label": "y", "task": "regression"}, "0 rows have a number"),
        ([{"q": "a", "y": "1"}], {"label": "y", "text": "t"}, "no field 't' (--text)"),
        ([{"text": str(n), "y": str(n)} for n in range(1001)], {"label": "y"}, "at most 1000 classes"),
        ([{"text": "a", "y": "1"}], {"label": "y", "kind": "image"}, "no PNG or JPEG file"),
    ],
)
def test_what_cannot_be_loaded_is_refused_with_a_remedy(
    tmp_path: Path, rows: list[dict[str, object]], options: dict[str, str], said: str
) -> None:
    path = jsonl(tmp_path / "r.jsonl", rows)

    with pytest.raises(UsageError) as refused:
        data.load(path, **options)  # type: ignore[arg-type]

    assert said in str(refused.value)
    assert str(path) in str(refused.value)


def test_a_damaged_line_is_named(tmp_path: Path) -> None:
    path = tmp_path / "r.jsonl"
    path.write_bytes(b'{"text":"a","y":"1"}\n{"text":\n')

    with pytest.raises(UsageError, match=r"r\.jsonl: line 2 is not JSON"):
        data.load(path, label="y")


def test_a_missing_path_and_a_folder_without_labels_are_named(tmp_path: Path) -> None:
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / "a.png").write_bytes(picture(1))

    with pytest.raises(UsageError, match="there is no such file or folder"):
        data.load(tmp_path / "nothing", label="y")
    with pytest.raises(UsageError, match=r"no labels.csv \(columns file,y\)"):
        data.load(tmp_path / "set", label="y")


def test_a_broken_archive_is_named(tmp_path: Path) -> None:
    path = tmp_path / "set.zip"
    path.write_bytes(io.BytesIO(b"not a zip").read())

    with pytest.raises(UsageError, match="not a readable archive"):
        data.load(path, label="folder")


TABLE = "age;stadt;preis;fehlt\n39;Ulm;1,5;-\n007;Bonn;2;x\n;Ulm;3,25;\n"


def test_a_table_is_told_from_texts_and_keeps_its_cells(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "t.csv").write_bytes(TABLE.encode("utf-16"))

    loaded = data.load(tmp_path / "t.csv", label="stadt")

    assert (loaded.kind, loaded.task, loaded.classes) == ("table", "classification", ("Bonn", "Ulm"))
    assert loaded.samples[0].payload == (("age", 39.0), ("preis", 1.5), ("fehlt", None))
    assert loaded.truth.lookup()[(("age", "007"), ("preis", 2.0), ("fehlt", "x"))] == "Bonn"
    assert "read as a table of 3 columns" in capsys.readouterr().err


def test_a_note_beside_many_columns_does_not_make_a_table_a_text(tmp_path: Path) -> None:
    rows: list[dict[str, object]] = [
        {"a": 1, "b": 2, "c": 3, "note": "a few words here", "y": name} for name in ("x", "z")
    ]

    assert data.load(jsonl(tmp_path / "t.jsonl", rows), label="y").kind == "table"
    for row in rows:
        del row["b"]
    assert data.load(jsonl(tmp_path / "t.jsonl", rows), label="y").kind == "text"


@pytest.mark.parametrize(
    ("values", "task"),
    [
        ([n / 8 for n in range(30)], "regression"),
        ([float(n) for n in range(60)], "regression"),
        ([float(n % 7) for n in range(60)], "classification"),
        ([*range(60), "many"], "classification"),
    ],
)
def test_labels_that_are_many_numbers_are_a_quantity(tmp_path: Path, values: list[object], task: str) -> None:
    rows: list[dict[str, object]] = [{"width": number, "y": value} for number, value in enumerate(values)]
    path = jsonl(tmp_path / "t.jsonl", rows)

    loaded = data.load(path, label="y")

    assert loaded.task == task
    assert len(loaded.samples) == len(values)
    if task == "regression":
        assert loaded.classes == ()
        assert loaded.truth.pairs[1] == ((("width", 1.0),), repr(float(values[1])))  # type: ignore[arg-type]


def test_parquet_and_csv_of_one_table_are_the_same_data(tmp_path: Path) -> None:
    columns = {"age": [39.0, 41.0, None], "city": ["Ulm", "Bonn", "Ulm"], "y": [True, False, True]}
    (tmp_path / "t.parquet").write_bytes(parquets.file(columns))
    (tmp_path / "t.csv").write_text("age,city,y\n39,Ulm,True\n41,Bonn,False\nNA,Ulm,TRUE\n")

    one, other = (data.load(tmp_path / name, label="y", positive="false") for name in ("t.parquet", "t.csv"))

    assert [sample.payload for sample in one.samples] == [sample.payload for sample in other.samples]
    assert one.truth == other.truth
    assert one.classes == ("false", "true")
    assert (one.rare, one.positive, one.positive_share) == (("false",), "false", 1 / 3)
