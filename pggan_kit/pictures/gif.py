"""GIF files that grow by a frame at a time: each frame is encoded once, and the file is assembled from the frames.

Pillow encodes a whole animation at each save, which would take longer from tick to tick. Each frame carries the clock
in a comment of its own, so that a resumed run can tell which frames are still valid.
"""

from __future__ import annotations

import io
import struct
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from PIL import Image

_HEADER = struct.Struct("<6sHHBBB")
_DESCRIPTOR = struct.Struct("<BHHHHB")
_FLAGS = 10  # of the file, in its header
_EXTENSION = 0x21
_IMAGE = 0x2C
_TRAILER = 0x3B
_CONTROL = 0xF9
_COMMENT = 0xFE
_HAS_TABLE = 0x80
_LOOP_FOREVER = b"\x21\xff\x0bNETSCAPE2.0\x03\x01\x00\x00\x00"


class Frame(NamedTuple):
    """An encoded frame.

    Attributes:
        images: Clock when the frame was drawn.
        data: Image descriptor, colour table and compressed pixels, as the file holds them.
    """

    images: int
    data: bytes

    @property
    def size(self) -> tuple[int, int]:
        """Width and height in pixels."""
        _, _, _, width, height, _ = _DESCRIPTOR.unpack_from(self.data)
        return width, height


def encode_frame(image: Image.Image, images: int) -> Frame:
    """Encode a picture of mode `L` or `P` that was drawn when the clock was `images`."""
    buffer = io.BytesIO()
    image.save(buffer, "GIF", optimize=False, interlace=False)
    content = buffer.getvalue()
    table = content[_HEADER.size : _find_body(content)]
    flags = content[_FLAGS]
    block = next(block for code, block in _read_blocks(content) if code == _IMAGE)

    # The only frame of a file uses the file's colour table; in a file with other frames it needs a table of its own.
    descriptor = block[: _DESCRIPTOR.size - 1] + bytes([_HAS_TABLE | flags & 0x07])
    return Frame(images, descriptor + table + block[_DESCRIPTOR.size :])


def assemble_gif(frames: Sequence[Frame], shown_ms: Sequence[int]) -> bytes:
    """Return the content of a GIF file that loops.

    Args:
        frames: Frames of equal size, at least one.
        shown_ms: Milliseconds for which each frame is shown.

    Raises:
        ValueError: Frames differ in size.
    """
    sizes = {frame.size for frame in frames}
    if len(sizes) > 1:
        raise ValueError(f"frames differ in size ({sorted(sizes)}): assemble those of one size")
    blocks = [_HEADER.pack(b"GIF89a", *frames[0].size, 0x70, 0, 0), _LOOP_FOREVER]
    for frame, milliseconds in zip(frames, shown_ms, strict=True):
        # GIF counts in hundredths of a second.
        hundredths = round(milliseconds / 10)
        comment = str(frame.images).encode()
        blocks.append(struct.pack("<BBBBHBB", _EXTENSION, _CONTROL, 4, 0, hundredths, 0, 0))
        blocks.append(bytes([_EXTENSION, _COMMENT, len(comment)]) + comment + b"\x00")
        blocks.append(frame.data)
    blocks.append(bytes([_TRAILER]))
    return b"".join(blocks)


def disassemble_gif(content: bytes) -> list[Frame]:
    """Return the frames of a file that `assemble_gif` made, up to the first damage where it is cut short or corrupt."""
    frames: list[Frame] = []
    images = 0
    try:
        for code, block in _read_blocks(content):
            if code == _IMAGE:
                frames.append(Frame(images, block))
            elif block[1] == _COMMENT:
                images = int(block[3:-1])
    except (IndexError, ValueError):  # the damage
        pass
    return frames


def _find_body(content: bytes) -> int:
    """Return the offset at which the header and the file's colour table end."""
    return _HEADER.size + _count_table_bytes(content[_FLAGS])


def _count_table_bytes(flags: int) -> int:
    """Return the size of the colour table that a byte of flags announces."""
    if not flags & _HAS_TABLE:
        return 0
    colours = 2 << (flags & 0x07)
    return 3 * colours


def _read_blocks(content: bytes) -> Iterator[tuple[int, bytes]]:
    """Yield the extensions and images of a GIF, each as its first byte and its whole content."""
    start = _find_body(content)
    while content[start] != _TRAILER:
        # A block begins with fields whose length depends on its kind.
        if content[start] == _EXTENSION:
            end = start + 2
        elif content[start] == _IMAGE:
            flags = content[start + _DESCRIPTOR.size - 1]
            end = start + _DESCRIPTOR.size + _count_table_bytes(flags) + 1
        else:
            raise ValueError(f"no GIF block begins with {content[start]:#x}")

        # Pieces of up to 255 bytes follow, each after its length; the last one is empty.
        while content[end]:
            end += content[end] + 1
        yield content[start], content[start : end + 1]
        start = end + 1
