"""Small data of every kind, in which a class or a number is easily learned: payloads as records have them, and labels."""

from __future__ import annotations

import base64
import io
from typing import Any

import numpy as np
from PIL import Image

Example = tuple[dict[str, Any], str | float]


WORDS = {
    "card": ("chip", "contactless", "pin"),
    "loan": ("mortgage", "repay", "credit"),
    "wire": ("iban", "send", "abroad"),
}


def texts(count: int, *, seed: int = 0) -> list[Example]:
    """Requests to a bank about a card, a loan or a transfer."""
    filler = ("please", "help", "me", "with", "the", "my", "today", "now", "why", "später")
    rng, found = np.random.default_rng(seed), list[Example]()
    for number in range(count):
        label = list(WORDS)[number % 3]
        chosen = [*rng.choice(WORDS[label], 2), *rng.choice(filler, 5), f"case{number}"]
        found.append(({"text": " ".join(rng.permutation(chosen))}, label))
    return found


def picture(number: int, *, side: int = 16, form: str = "PNG") -> bytes:
    """Noisy stripes, across for even numbers and down for odd ones."""
    plane = np.zeros((side, side), np.uint8)
    plane[::4] = plane[1::4] = 200
    noise = np.random.default_rng(number).integers(0, 40, (side, side), dtype=np.uint8)
    out = io.BytesIO()
    Image.fromarray((plane if number % 2 == 0 else plane.T) + noise).save(out, form)
    return out.getvalue()


def pictures(count: int, *, first: int = 0) -> list[Example]:
    return [
        (
            {"image": {"ref": "", "width": 16, "height": 16, "png": base64.b64encode(picture(number)).decode()}},
            ("across", "down")[number % 2],
        )
        for number in range(first, first + count)
    ]


def homes(count: int, *, seed: int = 0, regression: bool = False) -> list[Example]:
    """Rows with gaps; size and rooms decide about the price."""
    rng, found = np.random.default_rng(seed), list[Example]()
    for number in range(count):
        size, rooms = round(float(rng.uniform(20, 150)), 1), float(number % 6 + 1)
        price = 20 * size + 150 * rooms
        row = {"rooms": rooms if number % 9 else None, "m2": size, "heating": ("gas", "wood", None)[number % 3]}
        found.append(({"row": row}, price if regression else "dear" if price > 2200 else "cheap"))
    return found
