"""GIF files that grow by a frame at a time: each frame is encoded once, and the file is put together from the pieces.

Pillow encodes a whole animation at each save, which would cost more and more from tick to tick. Each frame carries
the clock in a comment of its own, so that a resumed run can tell which frames are still true.
"""

from __future__ import annotations

import io
import struct
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from PIL import Image

_HEADER = struct.Struct("<6sHHBBB")
_DESCRIPTOR = struct.Struct("<BHHHHB")
_EXTENSION, _IMAGE, _TRAILER = 0x21, 0x2C, 0x3B
_CONTROL, _COMMENT = 0xF9, 0xFE
_HAS_TABLE = 0x80
_LOOP_FOREVER = b"\x21\xff\x0bNETSCAPE2.0\x03\x01\x00\x00\x00"


class Frame(NamedTuple):
    """An encoded frame.

    Attributes:
        images: the clock when it was drawn.
        data: image descriptor, colour table and compressed pixels, as they stand in the file.
    """

    images: int
    data: bytes


def encode(image: Image.Image, images: int) -> Frame:
    """Compress a picture of mode `L` or `P`."""
    buffer = io.BytesIO()
    image.save(buffer, "GIF", optimize=False, interlace=False)
    content = buffer.getvalue()
    table, flags = content[_HEADER.size : _body(content)], content[10]
    block = next(block for code, block in _blocks(content) if code == _IMAGE)
    # The only frame of a file uses the file's colour table; beside others it needs it for its own.
    descriptor = block[: _DESCRIPTOR.size - 1] + bytes([_HAS_TABLE | flags & 0x07])
    return Frame(images, descriptor + table + block[_DESCRIPTOR.size :])


def assemble(frames: Sequence[Frame], shown_ms: Sequence[int]) -> bytes:
    """A GIF of equal-sized frames that loops, each shown for so many milliseconds."""
    _, _, _, width, height, _ = _DESCRIPTOR.unpack_from(frames[0].data)
    parts = [_HEADER.pack(b"GIF89a", width, height, 0x70, 0, 0), _LOOP_FOREVER]
    for frame, milliseconds in zip(frames, shown_ms, strict=True):
        comment = str(frame.images).encode()
        parts += [
            struct.pack("<BBBBHBB", _EXTENSION, _CONTROL, 4, 0, round(milliseconds / 10), 0, 0),
            bytes([_EXTENSION, _COMMENT, len(comment)]) + comment + b"\x00",
            frame.data,
        ]
    return b"".join([*parts, bytes([_TRAILER])])


def disassemble(content: bytes) -> list[Frame]:
    """The frames of a file that `assemble` made; those up to the damage if it is cut short or something else."""
    frames: list[Frame] = []
    images = 0
    try:
        for code, block in _blocks(content):
            if code == _IMAGE:
                frames.append(Frame(images, block))
            elif block[1] == _COMMENT:
                images = int(block[3:-1])
    except (IndexError, ValueError):
        pass
    return frames


def _body(content: bytes) -> int:
    """Where header and global colour table end."""
    return _HEADER.size + _table_bytes(content[10])


def _table_bytes(flags: int) -> int:
    return 3 * 2 ** ((flags & 0x07) + 1) if flags & _HAS_TABLE else 0


def _blocks(content: bytes) -> Iterator[tuple[int, bytes]]:
    """The extensions and images of a GIF, each as its first byte and its whole content."""
    start = _body(content)
    while content[start] != _TRAILER:
        if content[start] == _EXTENSION:
            end = start + 2
        elif content[start] == _IMAGE:
            end = start + _DESCRIPTOR.size + _table_bytes(content[start + _DESCRIPTOR.size - 1]) + 1
        else:
            raise ValueError(f"no GIF block begins with {content[start]:#x}")
        while content[end]:
            end += content[end] + 1
        yield content[start], content[start : end + 1]
        start = end + 1
