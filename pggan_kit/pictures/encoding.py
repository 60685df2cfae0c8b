"""Pictures of pixels, and the content of their files."""

from __future__ import annotations

import io

import numpy as np
from PIL import Image


def make_picture(pixels: np.ndarray) -> Image.Image:
    """Return an image uint8 (h, w, 1 or 3) as a picture of mode `L` or `RGB`."""
    if pixels.shape[-1] == 1:
        # Pillow takes gray pixels without an axis of channels.
        pixels = pixels[..., 0]
    return Image.fromarray(pixels)


def encode_png(picture: Image.Image) -> bytes:
    """Return a picture as the content of a PNG."""
    content = io.BytesIO()
    picture.save(content, "PNG")
    return content.getvalue()
