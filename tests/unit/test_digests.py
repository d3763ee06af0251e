from __future__ import annotations

import hashlib
import re

import pytest

from winnow.digests import canonical_json, digest, short_id


def test_canonical_json_is_independent_of_key_order_and_spells_floats_by_repr() -> None:
    one = canonical_json({"b": 0.1, "a": [1e16, 1, True, None], "é": "ü"})
    two = canonical_json({"é": "ü", "a": [1e16, 1, True, None], "b": 0.1})

    assert one == two == '{"a":[1e+16,1,true,null],"b":0.1,"é":"ü"}'.encode()


def test_canonical_json_refuses_what_has_no_agreed_spelling() -> None:
    with pytest.raises(ValueError, match="JSON compliant"):
        canonical_json({"score": float("nan")})
    with pytest.raises(TypeError):
        canonical_json({"when": object()})


def test_digest_of_bytes_is_sha256_of_them_and_of_objects_sha256_of_their_canonical_json() -> None:
    assert digest(b"abc", length=64) == hashlib.sha256(b"abc").hexdigest()
    assert digest(bytearray(b"abc")) == digest(memoryview(b"abc")) == digest(b"abc")
    assert digest({"a": 1}) == hashlib.sha256(b'{"a":1}').hexdigest()[:32]


@pytest.mark.parametrize("length", [0, 65])
def test_digest_length_out_of_range_is_refused(length: int) -> None:
    with pytest.raises(ValueError, match="1 to 64"):
        digest(b"", length=length)


@pytest.mark.parametrize("prefix", ["b", "m", "ds", "batc"])
def test_short_ids_fit_every_aws_name_pattern(prefix: str) -> None:
    name = short_id(prefix, {"any": "thing"})

    assert len(name) == 20
    assert re.fullmatch(r"[a-z][a-z0-9]{19}", name)
    assert name.startswith(prefix)


@pytest.mark.parametrize("prefix", ["", "B", "1b", "batch", "b-"])
def test_a_prefix_that_would_break_a_name_is_refused(prefix: str) -> None:
    with pytest.raises(ValueError, match="prefix"):
        short_id(prefix, {})
