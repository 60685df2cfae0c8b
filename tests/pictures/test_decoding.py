"""Test the one opener of pictures: its formats, its limits, and what it says of everything else."""

from __future__ import annotations

import io
import os
from pathlib import Path

import numpy as np
import pytest
from PIL import EpsImagePlugin, Image

from pggan_kit.errors import DataError
from pggan_kit.pictures import open_picture

EPS = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n%%EndComments\n"


def encode(size: tuple[int, int], form: str = "PNG") -> bytes:
    """Return a gray picture as a file."""
    content = io.BytesIO()
    Image.new("L", size, 7).save(content, form)
    return content.getvalue()


def read(path: Path, **options: object) -> np.ndarray:
    """Return the pixels of a picture."""
    with open_picture(path, **options) as picture:  # type: ignore[arg-type]
        return np.asarray(picture)


def test_a_picture_is_read_from_a_file_or_from_memory(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(encode((5, 3)))
    assert read(path).tolist() == [[7] * 5] * 3
    with open_picture(io.BytesIO(path.read_bytes())) as picture:
        assert picture.size == (5, 3)


def test_other_decoders_are_not_reached(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the file is called: Pillow's decoder of EPS starts Ghostscript."""
    path = tmp_path / "000000008-4x4.png"
    path.write_bytes(EPS)
    reached = []
    monkeypatch.setattr(EpsImagePlugin.EpsImageFile, "_open", lambda self: reached.append(self))
    with pytest.raises(Image.UnidentifiedImageError):
        Image.open(path)
    assert reached, "Pillow by itself gets there"
    reached.clear()
    with pytest.raises(DataError, match="cannot be read as an image"):
        read(path)
    assert reached == []


def test_formats_may_be_limited_further(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(encode((4, 4), "BMP"))
    assert read(path).shape == (4, 4)
    with pytest.raises(DataError, match=r"cannot be read as an image \(its content is not PNG\)"):
        read(path, formats=("PNG",))


def test_a_large_picture_is_refused_by_its_header(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(encode((11, 10))[:45])  # the header alone: nothing could be decoded
    with pytest.raises(DataError, match=r"is 10x11 pixels, above the limit of 100 in all"):
        read(path, max_pixels=100)
    path.write_bytes(encode((40_000, 1)))
    with pytest.raises(DataError, match="32768 a side"):
        read(path)


def test_what_cannot_be_decoded_is_an_error_of_data(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(encode((64, 64))[:-30])
    with pytest.raises(DataError, match="cannot be read as an image"):
        read(path)
    with pytest.raises(DataError, match="No such file"):
        read(tmp_path / "missing.png")


def test_a_named_pipe_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a.png")
    with pytest.raises(DataError, match="no regular file"):
        read(tmp_path / "a.png")
