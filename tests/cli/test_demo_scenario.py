"""What the demo's people do, and that nobody but them is near the truth."""

from __future__ import annotations

import base64
import io
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from winnow.loop import parse, to_yaml
from winnow_cli import labeled as data
from winnow_cli.demo import people, scenario
from winnow_cli.demo.loopfile import batch_size, loop_file


def texts(path: Path, labels: list[str]) -> data.LabeledData:
    rows = [json.dumps({"id": f"{label}-{n}", "text": f"text {n}", "y": label}) for n, label in enumerate(labels)]
    path.write_text("\n".join(rows), encoding="utf-8")
    return data.load(path, label="y")


def test_scrambling_the_truth_changes_nothing_the_loop_reads(tmp_path: Path) -> None:
    labels = ["a", "b", "c"] * 40
    scrambled = list(np.random.default_rng(1).permutation(labels))
    one, other = texts(tmp_path / "one.jsonl", labels), texts(tmp_path / "other.jsonl", scrambled)

    def read_by_the_loop(given: data.LabeledData) -> tuple[object, ...]:
        pool, live = scenario._split(given.samples, rng=np.random.default_rng(0))
        sent = [sample.payload for sample in live]
        return scenario.pool_objects(pool, kind="text", wave=0), sent, loop_file(given, batch=20, rounds=5, seed=0).task

    assert read_by_the_loop(one)[:2] == read_by_the_loop(other)[:2]
    assert one.truth != other.truth
    ids = [json.loads(line)["id"] for _, body in read_by_the_loop(one)[0] for line in body.splitlines()]  # type: ignore[attr-defined]
    assert all(name.startswith("w0-") for name in ids)


def test_names_of_dropped_images_do_not_give_the_class_away(tmp_path: Path) -> None:
    for name in ("cat", "dog"):
        (tmp_path / name).mkdir()
        (tmp_path / name / f"{name}.png").write_bytes(data.png(np.full((4, 4), ord(name[0]), dtype=np.uint8)))
    loaded = data.load(tmp_path, label="folder")

    keys = [key for key, _ in scenario.pool_objects(loaded.samples, kind="image", wave=1)]

    assert keys == ["wave-1/image-00000.png", "wave-1/image-00001.png"]


def test_texts_are_dropped_in_objects_of_a_thousand_rows() -> None:
    samples = [data.Sample(str(n), f"text {n}") for n in range(2300)]

    objects = scenario.pool_objects(samples, kind="text", wave=2)

    assert [key for key, _ in objects] == [f"wave-2/texts-000{n}.jsonl" for n in range(3)]
    assert [len(body.splitlines()) for _, body in objects] == [1000, 1000, 300]
    assert json.loads(objects[1][1].splitlines()[0]) == {"id": "w2-001000", "text": "text 1000"}


def test_a_payload_is_either_dropped_or_sent() -> None:
    samples = [data.Sample(str(n), f"text {n % 50}") for n in range(100)]

    pool, live = scenario._split(samples, rng=np.random.default_rng(0))

    assert not {sample.payload for sample in pool} & {sample.payload for sample in live}
    assert len(live) == 15


def test_a_mangled_request_has_the_shape_of_the_request() -> None:
    picture = data.png(np.arange(16, dtype=np.uint8).reshape(4, 4))
    request = json.dumps({"instances": [{"text": "abc"}, {"image": base64.b64encode(picture).decode()}]}).encode()

    first, second = json.loads(scenario.mangled_request(request, "application/json"))["instances"]

    assert first == {"text": "cba"}
    assert base64.b64decode(second["image"]) != picture
    assert scenario.mangled_request(b"abc", "text/plain") == b"abc"


def test_an_inverted_picture_is_upside_down() -> None:
    picture = data.png(np.array([[0, 10], [20, 255]], dtype=np.uint8))

    turned = people.mangle(picture)

    assert turned == data.png(np.array([[0, 235], [245, 255]], dtype=np.uint8))


def test_annotators_differ_and_err_as_promised() -> None:
    crowd = people.annotators(10, rng=np.random.default_rng(0))

    right = [np.mean([person.confusion[n][n] for n in range(10)]) for person in crowd]
    assert len(crowd) == 9
    assert right == pytest.approx(list(np.linspace(0.88, 0.98, 9)))
    assert len({person.seconds_per_item for person in crowd}) == 9


def test_annotators_of_two_classes_err_too() -> None:
    assert people.annotators(2, rng=np.random.default_rng(0))[0].confusion[0] == pytest.approx((0.88, 0.12))


def test_spammers_agree_on_the_first_class() -> None:
    rng = np.random.default_rng(0)

    assert {person.answer("b", ("a", "b"), rng) for person in people.spammers(("a", "b"))} == {"a"}
    assert {person.answer("7", (), rng) for person in people.spammers(())} == {"0"}


def test_people_who_give_numbers_are_off_by_a_share_of_them() -> None:
    crowd = people.annotators(0, rng=np.random.default_rng(0))
    rng = np.random.default_rng(1)

    errors = [np.std([float(person.answer("200", (), rng)) / 200 - 1 for _ in range(2000)]) for person in crowd]

    assert errors == pytest.approx(list(np.linspace(0.10, 0.02, 9)), rel=0.1)


def test_the_truth_of_a_row_is_found_by_its_cells_as_they_are_shown() -> None:
    oracle = people.TruthOracle([((("age", "39"), ("city", "\N{EM DASH}")), "yes")])
    row = [{"name": "city", "value": "\N{EM DASH}"}, {"name": "age", "value": "39"}]

    assert oracle({"title": "39", "row": row}) == "yes"
    with pytest.raises(LookupError, match="no truth"):
        oracle({"row": row[:1]})


def test_a_mangled_row_has_its_cells_under_other_columns() -> None:
    body = json.dumps({"instances": [{"row": {"a": 1.0, "b": None, "c": "x"}}]}).encode()

    mangled = json.loads(scenario.mangled_request(body, "application/json"))

    assert mangled == {"instances": [{"row": {"a": None, "b": "x", "c": 1.0}}]}


def test_the_truth_of_a_text_survives_case_and_white_space() -> None:
    oracle = people.TruthOracle([("Call  [NAME] now", "cat")])

    assert oracle({"classes": ["cat", "dog"], "text": "call [NAME] now"}) == "cat"
    with pytest.raises(LookupError, match="no truth"):
        oracle({"text": "unheard of"})


def test_the_truth_of_an_image_is_found_by_its_pixels() -> None:
    image = Image.new("RGB", (3, 2), (9, 8, 7))
    encodings = []
    for level in (0, 9):
        image.save(buffer := io.BytesIO(), "PNG", compress_level=level)
        encodings.append(buffer.getvalue())
    oracle = people.TruthOracle([(encodings[0], "dog")], read=lambda uri: encodings[1])

    assert encodings[0] != encodings[1]
    assert oracle({"image": "s3://bucket/key.png"}) == "dog"


@pytest.mark.parametrize(("rounds", "skew", "poison"), [(7, 3, 4), (3, 2, 3), (2, 2, 2)])
def test_drills_fit_into_the_rounds(rounds: int, skew: int, poison: int) -> None:
    assert scenario.drills_for(rounds, poison=True, skew=True) == scenario.Drills(poison=poison, skew=skew)
    assert scenario.drills_for(rounds, poison=False, skew=False) == scenario.Drills()


@pytest.mark.parametrize("size", [60, 200, 3000])
@pytest.mark.parametrize("classes", [2, 10, 77])
def test_the_loop_file_is_valid_for_any_data(size: int, classes: int) -> None:
    samples = tuple(data.Sample(str(n), f"text {n}") for n in range(size))
    given = data.LabeledData("x", "text", tuple(f"c{n}" for n in range(classes)), samples, data.Truth(()))

    loop = loop_file(given, batch=batch_size(given), rounds=5, seed=3)

    assert parse(to_yaml(loop)) == loop
    assert loop.gate.min_records <= loop.acquisition.arms.evaluation_target <= max(20, size // 8)
    assert loop.batches.size <= max(10, size // 5)
