"""Payloads to tensors: text cleaning, image decoding and their limits."""

from __future__ import annotations

import base64
import io
import struct
import zlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from winnow.errors import BadInput
from winnow.onnx import features
from winnow.onnx.features import (
    category_column,
    clean_text,
    hashed_rows,
    image_bytes_of,
    image_tensor,
    number_column,
    open_image,
    row_of,
    text_of,
)
from winnow.records import Image as ImageRecord
from winnow.records import Record


def png(pixels: np.ndarray, **options: object) -> bytes:
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, format="PNG", **options)
    return out.getvalue()


def record(**payload: object) -> Record:
    kind = "text" if "text" in payload else "image"
    return Record(id="c", oid="o", kind=kind, cluster="k", role="train", key=0.5, **payload)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("raw", "cleaned"),
    [
        ("Hello, World", " hello , world"),
        ("STRASSE straße", " strasse strasse"),
        ("ＦＵＬＬ ﬁn", " full fin"),
        ("don\u00b4t\tstop\u2028now", " don \u0301t stop now"),
        ("\u0130stanbul", " i\u0307stanbul"),
        ("snake_case x2", " snake_case x2"),
        ("\u0939\u093f\u0928\u094d\u0926\u0940", " \u0939\u093f\u0928\u094d\u0926\u0940"),
        ("\u3053\u308c\u306fPC", " \u3053 \u308c \u306f pc"),
        ("a\x00b\ud800c", " a bc"),
        ("", " \u2205"),
        ("\n \x07", " \u2205"),
        ("😀!", " 😀 !"),
    ],
)
def test_text_is_folded_and_cut_into_words(raw: str, cleaned: str) -> None:
    assert clean_text(raw) == cleaned


@settings(deadline=None)
@given(st.text())
def test_clean_text_has_one_form(raw: str) -> None:
    cleaned = clean_text(raw)

    assert cleaned.startswith(" ")
    assert "" not in cleaned[1:].split(" ")
    assert clean_text(cleaned) == cleaned
    cleaned.encode("utf-8")


def test_long_texts_are_cut_off() -> None:
    assert len(clean_text("ab " * features.MAX_TEXT_CHARS)) <= features.MAX_TEXT_CHARS + 1


@pytest.mark.parametrize("payload", ["hi", {"text": "hi"}, record(text="hi")])
def test_every_form_of_text_payload(payload: object) -> None:
    assert text_of(payload) == "hi"  # type: ignore[arg-type]


@pytest.mark.parametrize("payload", [b"hi", {"image": "x"}, {"text": 3}, {}])
def test_what_is_no_text_is_refused(payload: object) -> None:
    with pytest.raises(BadInput, match="needs text") as refused:
        text_of(payload)  # type: ignore[arg-type]

    assert refused.value.code == "no-text"


def test_every_form_of_image_payload() -> None:
    data = png(np.zeros((2, 2), np.uint8))
    encoded = base64.b64encode(data).decode()

    for payload in (
        data,
        {"image": encoded},
        {"image": {"png": encoded, "width": 2, "height": 2, "ref": ""}},
        record(image=ImageRecord(ref="contents/c.png", width=2, height=2, png=data)),
    ):
        assert image_bytes_of(payload) == data  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("payload", "code"),
    [
        ("text", "no-image"),
        ({"text": "x"}, "no-image"),
        ({"image": {"ref": "contents/c.png"}}, "no-image"),
        ({"image": "not base64!"}, "bad-base64"),
    ],
)
def test_what_is_no_image_is_refused(payload: object, code: str) -> None:
    with pytest.raises(BadInput) as refused:
        image_bytes_of(payload)  # type: ignore[arg-type]

    assert refused.value.code == code


def test_grey_and_colour_become_what_the_model_wants() -> None:
    red = png(np.full((4, 4, 3), (255, 0, 0), np.uint8))
    grey = png(np.full((4, 4), 51, np.uint8))

    assert image_tensor(red, shape=(2, 2, 3))[0, 0].tolist() == [1.0, 0.0, 0.0]
    assert image_tensor(red, shape=(2, 2, 1))[0, 0].tolist() == pytest.approx([76 / 255])
    assert image_tensor(grey, shape=(4, 4, 3))[3, 3].tolist() == pytest.approx([0.2, 0.2, 0.2])


def test_resizing_keeps_the_whole_picture() -> None:
    pixels = np.zeros((4, 8), np.uint8)
    pixels[:, 4:] = 255

    tensor = image_tensor(png(pixels), shape=(2, 2, 1))

    assert tensor.dtype == np.float32
    assert tensor.shape == (2, 2, 1)
    assert tensor[:, 0].max() < 0.2
    assert tensor[:, 1].min() > 0.8


def test_transparency_lies_on_white() -> None:
    clear = np.zeros((2, 2, 4), np.uint8)
    palette = Image.new("P", (2, 2), 0)
    out = io.BytesIO()
    palette.save(out, format="PNG", transparency=0)

    assert image_tensor(png(clear), shape=(2, 2, 3)).min() == 1.0
    assert image_tensor(out.getvalue(), shape=(2, 2, 3)).min() == 1.0


def test_sixteen_bit_grey_keeps_its_scale() -> None:
    half = png(np.full((2, 2), 32_896, np.uint16))

    assert open_image(half).mode == "L"
    assert image_tensor(half, shape=(2, 2, 1)).ravel().tolist() == pytest.approx([128 / 255] * 4)


def test_decoded_arrays_are_taken_as_they_are() -> None:
    pixels = np.arange(12, dtype=np.uint8).reshape(2, 2, 3)

    assert image_tensor(pixels, shape=(2, 2, 3)) == pytest.approx(pixels / np.float32(255))
    with pytest.raises(BadInput, match="uint8"):
        image_tensor(pixels.astype(np.float32), shape=(2, 2, 3))
    with pytest.raises(BadInput, match="uint8"):
        image_tensor(np.zeros((2, 2, 4), np.uint8), shape=(2, 2, 3))


def test_jpeg_is_read() -> None:
    out = io.BytesIO()
    Image.new("CMYK", (8, 8)).save(out, format="JPEG")

    assert image_tensor(out.getvalue(), shape=(4, 4, 3)).shape == (4, 4, 3)


def bomb(width: int, height: int) -> bytes:
    """A PNG of a few bytes that claims to be this large."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(b"\0" * 9999))
        + chunk(b"IEND", b"")
    )


@pytest.mark.parametrize("size", [(8000, 8000), (50_000, 50_000)])
def test_a_picture_that_claims_to_be_huge_is_refused_before_it_is_decoded(size: tuple[int, int]) -> None:
    with pytest.raises(BadInput):
        open_image(bomb(*size))


def test_damaged_and_foreign_files_are_refused() -> None:
    good = png(np.random.default_rng(0).integers(0, 255, (32, 32, 3), dtype=np.uint8))
    gif = io.BytesIO()
    Image.new("L", (2, 2)).save(gif, format="GIF")

    for data in (b"", b"not an image", good[: len(good) // 2], gif.getvalue(), b"<svg/>"):
        with pytest.raises(BadInput) as refused:
            open_image(data)
        assert refused.value.code == "bad-image"


def test_a_number_column_keeps_numbers_and_nothing_else() -> None:
    cells = [39.0, None, "39", "", 7, True, 1e300, -1e300, float("inf"), 10**400, 1e-50]

    column = number_column(cells)

    largest = float(np.finfo(np.float32).max)
    assert column.dtype == np.float32
    assert column.shape == (11, 1)
    expected = [39.0, None, None, None, 7.0, None, largest, -largest, None, None, 0.0]
    assert [None if np.isnan(value) else value for value in column.ravel().tolist()] == expected
    assert number_column([1.5, None]).ravel().tolist() == pytest.approx([1.5, float("nan")], nan_ok=True)


def test_a_category_column_is_text() -> None:
    column = category_column(["Ulm", None, 39.0, 3.5, -0.0, 1e20, float("nan"), "Ulm", "a\ud800"])

    assert (column.dtype, column.shape) == (object, (9, 1))
    assert column.ravel().tolist() == ["Ulm", "", "39", "3.5", "0", "1e+20", "", "Ulm", "a?"]


def test_hashed_rows_by_hand() -> None:
    ulm, first, both, minus, zero = (
        features._bucket(term) for term in ("city=Ulm", "age~3e+01", "age~3.9e+01", "age~-3e+01", "age~0e+00")
    )

    rows = hashed_rows([{"age": 39.0, "city": "Ulm"}, {"city": "Ulm", "age": -39.9}, {"age": 0.0}, {}, {"age": None}])

    assert rows.shape == (5, 256)
    places, signs = zip(ulm, first, both, strict=True)
    assert rows[0, places] == pytest.approx([signs[0] * 0.5**0.5, signs[1] * 0.5, signs[2] * 0.5])
    assert np.count_nonzero(rows[0]) == 3
    assert rows[1, [ulm[0], minus[0]]] == pytest.approx([ulm[1] * 0.5**0.5, minus[1] * 0.5])
    assert rows[2, zero[0]] == pytest.approx(zero[1] * 0.5**0.5)
    assert not rows[3:].any()


@pytest.mark.parametrize(
    ("number", "one", "two"), [(0.3, 0.3, 0.3), (1234.5, 1000, 1200), (-0.0079, -0.007, -0.0079), (0.0, 0.0, 0.0)]
)
def test_leading_digits_are_cut_off_not_rounded(number: float, one: float, two: float) -> None:
    assert features._leading(np.array([number]), 1) == pytest.approx([one])
    assert features._leading(np.array([number]), 2) == pytest.approx([two])


def test_hashes_are_the_same_on_every_machine() -> None:
    assert [features._bucket(term) for term in ("age", "city=Ulm", "\ud800")] == [(219, -1.0), (20, 1.0), (205, 1.0)]


def test_a_row_comes_out_of_its_payload() -> None:
    table = Record(id="c", oid="o", kind="table", cluster="k", role="train", key=0.5, row={"age": 1.0, "city": None})

    assert row_of({"row": {"age": 1.0}}) == {"age": 1.0}
    assert row_of(table) == {"age": 1.0, "city": None}
    for payload in ({"age": 1.0}, {"row": 3.0}, "text", b"bytes", {"text": "x"}):
        with pytest.raises(BadInput, match="needs a row"):
            row_of(payload)  # type: ignore[arg-type]
