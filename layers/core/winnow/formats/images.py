"""Any PNG or JPEG into its canonical form: upright, 8-bit grey or RGB, bounded, without metadata."""

from __future__ import annotations

import io

import numpy as np
from PIL import Image as Pillow
from PIL import ImageOps, UnidentifiedImageError

from winnow.errors import BadInput
from winnow.ports import CanonicalImage


class PillowImages:
    """Re-encoding is what removes EXIF, thumbnails and whatever else hides in a file."""

    def canonical(self, data: bytes, *, side: int, megapixels: int) -> CanonicalImage:
        try:
            with Pillow.open(io.BytesIO(data), formats=("PNG", "JPEG")) as image:
                if image.width * image.height > megapixels * 1_000_000:
                    raise BadInput(
                        f"the image has {image.width} x {image.height} pixels, more than limits.max_image_megapixels "
                        f"({megapixels}) allows; scale it down",
                        code="oversized",
                    )
                image.load()
                upright = ImageOps.exif_transpose(image)
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
        # 16-bit and 1-bit scans are grey; palettes and transparency are flattened to colour on white.
        if upright.mode in {"1", "L", "I", "I;16", "F"}:
            wide = upright.mode in {"I", "I;16", "F"}
            grey = upright.point(lambda value: value / 257) if wide else upright
            plain = grey.convert("L")
        elif upright.mode == "RGB":
            plain = upright
        else:
            layered = upright.convert("RGBA")
            plain = Pillow.alpha_composite(Pillow.new("RGBA", layered.size, "white"), layered).convert("RGB")
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
