"""Any PNG or JPEG into its canonical form: upright, 8-bit grey or RGB, bounded, without metadata."""

from __future__ import annotations

import io

import numpy as np
from PIL import Image as Pillow
from PIL import ImageOps, UnidentifiedImageError

from winnow.errors import BadInput
from winnow.ports import CanonicalImage

MOST_SCANS = 200
"""Passes over a JPEG's pixels; progressive ones have about ten, and each costs the same however few bytes it has."""

_SCAN = b"\xff\xda"
_BAND = 256
"""Rows flattened at once: a large picture with an alpha channel would otherwise take six times its size."""


class PillowImages:
    """Re-encoding is what removes EXIF, thumbnails and whatever else hides in a file."""

    def canonical(self, data: bytes, *, side: int, megapixels: int) -> CanonicalImage:
        if data.startswith(b"\xff\xd8") and data.count(_SCAN) > MOST_SCANS:
            raise BadInput(
                f"the image is drawn in {data.count(_SCAN)} passes, {MOST_SCANS} at most; save it again",
                code="oversized",
            )
        try:
            with Pillow.open(io.BytesIO(data), formats=("PNG", "JPEG")) as image:
                if image.width * image.height > megapixels * 1_000_000:
                    raise BadInput(
                        f"the image has {image.width} x {image.height} pixels, more than limits.max_image_megapixels "
                        f"({megapixels}) allows; scale it down",
                        code="oversized",
                    )
                image.load()
                ImageOps.exif_transpose(image, in_place=True)
                plain = _flat(image)
        except (Pillow.DecompressionBombError, Pillow.DecompressionBombWarning) as error:
            raise BadInput(
                f"the image is too large to be decoded ({error}); scale it down", code="oversized"
            ) from error
        except UnidentifiedImageError as error:
            raise BadInput("the bytes are neither PNG nor JPEG; convert the image", code="undecodable") from error
        except (OSError, ValueError, SyntaxError, EOFError) as error:
            raise BadInput(
                f"the image cannot be decoded ({error}); it is truncated or damaged", code="truncated"
            ) from error
        if max(plain.size) > side:
            plain.thumbnail((side, side), Pillow.Resampling.LANCZOS)
        out = io.BytesIO()
        plain.save(out, "PNG")
        pixels = np.asarray(plain)
        return CanonicalImage(
            png=out.getvalue(),
            width=plain.width,
            height=plain.height,
            pixels=pixels,
            grey=np.asarray(plain.convert("L")),
        )


def _flat(image: Pillow.Image) -> Pillow.Image:
    """16-bit and 1-bit scans become grey; palettes and transparency are flattened to colour on white."""
    if image.mode in {"1", "L", "I", "I;16", "F"}:
        wide = image.mode in {"I", "I;16", "F"}
        return (image.point(lambda value: value / 257) if wide else image).convert("L")
    if image.mode == "RGB":
        return image
    plain = Pillow.new("RGB", image.size)
    for top in range(0, image.height, _BAND):
        box = (0, top, image.width, min(top + _BAND, image.height))
        layer = image.crop(box).convert("RGBA")
        plain.paste(Pillow.alpha_composite(Pillow.new("RGBA", layer.size, "white"), layer).convert("RGB"), box)
    return plain
