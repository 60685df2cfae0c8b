"""Open pictures of files: known formats alone, of limited size, and regular files only."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import BinaryIO

from PIL import Image, UnidentifiedImageError

from pggan_kit.errors import DataError
from pggan_kit.system.files import open_regular

FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "TIFF")
"""Formats that are decoded: a file called .png must not reach Pillow's other decoders (EPS runs Ghostscript)."""

MAX_PIXELS = 89_478_485
"""Maximum number of pixels where nothing else is asked for: Pillow warns above it."""

PILLOW_LIMIT = 178_956_970
"""Maximum number of pixels that Pillow decodes, whatever is asked for."""

MAX_SIDE = 32_768
"""Maximum pixels of a side: so thin or so large a picture is of no use here."""


@contextmanager
def open_picture(
    source: Path | BinaryIO, *, formats: Sequence[str] = FORMATS, max_pixels: int = MAX_PIXELS
) -> Iterator[Image.Image]:
    """Open a picture within a block that decodes it; nothing here opens one in another way.

    Args:
        source: The file.
        formats: The formats that may be decoded, by Pillow's names.
        max_pixels: The most pixels; a larger picture is refused by its header, before anything is decoded.

    Raises:
        DataError: The file is no picture of these formats, is corrupt or too large, or is no regular file; or the block
            fails to decode it.
    """
    try:
        with ExitStack() as stack:
            file = stack.enter_context(open_regular(source)) if isinstance(source, Path) else source
            picture = stack.enter_context(Image.open(file, formats=tuple(formats)))
            _check_size(picture, max_pixels)
            yield picture
    except DataError:
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise DataError(f"has more than {max_pixels} pixels (max_pixels)") from None
    except UnidentifiedImageError as error:
        raise DataError(f"cannot be read as an image (its content is not {' or '.join(formats)})") from error
    except Exception as error:  # a corrupt file can raise nearly anything: OSError, SyntaxError, struct.error, ...
        raise DataError(f"cannot be read as an image ({error})") from error


def _check_size(picture: Image.Image, max_pixels: int) -> None:
    if max(picture.size) > MAX_SIDE or picture.width * picture.height > max_pixels:
        raise DataError(
            f"is {picture.height}x{picture.width} pixels, above the limit of {max_pixels} in all (max_pixels) or "
            f"{MAX_SIDE} a side"
        )
