"""Test the one reader of pictures: which files count, what becomes of their values, and what is refused."""

from __future__ import annotations

import io
import os
import shutil
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from pggan_kit.api.image_folders import read_images
from pggan_kit.errors import DataError
from pggan_kit.pictures import PictureReader, list_pictures
from pggan_kit.pictures.array_reading import read_array
from pggan_plugins.datasets import ImageFolder, Torch

SIDE = 8


def draw_gradient() -> np.ndarray:
    """Return colours (SIDE, SIDE, 3), each pixel another."""
    y, x = np.mgrid[:SIDE, :SIDE]
    return np.stack([y * 30, x * 30, (x + y) * 15], 2).astype(np.uint8)


def write_zoo(folder: Path) -> None:
    """Write pictures of one size and many modes: what evaluation once read in a way of its own."""
    folder.mkdir(parents=True)
    gradient = draw_gradient()
    alpha = np.broadcast_to(np.linspace(0, 255, SIDE).astype(np.uint8), (SIDE, SIDE))
    clear = Image.fromarray(np.dstack([gradient, alpha]))
    clear.save(folder / "transparent.png")
    clear.save(folder / "transparent.tif")
    clear.convert("LA").save(folder / "gray_transparent.png")
    clear.convert("RGB").quantize(8).save(folder / "palette.png", transparency=0)
    Image.fromarray(gradient[..., 0].astype(np.uint16) * 257).save(folder / "deep.png")
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(gradient).save(folder / "turned.png", exif=exif)
    Image.fromarray(np.dstack([gradient, alpha]), "CMYK").save(folder / "ink.tif")


def test_evaluation_and_training_see_the_same_pixels(tmp_path: Path) -> None:
    write_zoo(tmp_path / "zoo")
    (tmp_path / "zoo" / "sub").mkdir()
    Image.fromarray(draw_gradient()).save(tmp_path / "zoo" / "sub" / "A.PNG")
    Image.fromarray(draw_gradient()).save(tmp_path / "zoo" / ".hidden.png")
    (tmp_path / "zoo" / "a.heic").write_bytes(b"of another kind")

    with pytest.warns(UserWarning, match=r"zoo: 8 images; 2 of other kinds \(\.heic 1, hidden 1\) were not read"):
        evaluated = read_images(tmp_path / "zoo")
    folder = ImageFolder(str(tmp_path / "zoo"))
    trained = [folder.image(i).transpose(2, 0, 1) for i in range(len(folder))]
    np.testing.assert_array_equal(evaluated, np.stack(trained))
    assert evaluated.shape == (8, 3, SIDE, SIDE)
    first_column = evaluated[-1][:, :, 0]
    assert first_column.shape == (3, SIDE)


def test_a_folder_is_gray_where_all_its_pictures_are(tmp_path: Path) -> None:
    gray = Image.fromarray(draw_gradient()[..., 0])
    for name in "ab":
        gray.save(tmp_path / f"{name}.png")
    gray.convert("LA").save(tmp_path / "c.png")
    assert read_images(tmp_path).shape == (3, 1, SIDE, SIDE)
    Image.fromarray(draw_gradient()).save(tmp_path / "d.png")
    assert read_images(tmp_path).shape == (4, 3, SIDE, SIDE), "colour is not lost where the first picture has none"


def test_whatever_is_not_read_is_counted_by_kind(tmp_path: Path) -> None:
    for name in ("b.JPG", "sub/a.tiff", "c.HEIC", "d.HEIC", "README", ".x.png", ".git/a.png"):
        path = tmp_path / "data" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"")
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "a.png").write_bytes(b"")
    os.symlink(tmp_path / "elsewhere", tmp_path / "data" / "link")
    os.symlink(tmp_path / "gone.png", tmp_path / "data" / "broken.png")
    files, left_out = list_pictures(tmp_path / "data")
    assert files == ["b.JPG", "sub/a.tiff"]
    assert left_out == {".HEIC": 2, "hidden": 2, "links to folders": 1, "no regular files": 1, "without a suffix": 1}


@pytest.mark.parametrize("older", [False, True])
@pytest.mark.parametrize(("background", "shown"), [("white", 255), ("#333", 51)])
def test_the_transparent_value_of_a_16_bit_png_is_the_background(background: str, shown: int, older: bool) -> None:
    """One value may be transparent, and its neighbour is not: 257 of 65535 is 1 of 255."""
    values = np.array([[256, 257, 65535]], np.int32 if older else np.uint16)
    picture = Image.fromarray(values)
    picture.format = "PNG"
    picture.info["transparency"] = 256
    if not older:
        content = io.BytesIO()
        picture.save(content, "PNG", transparency=256)
        picture = Image.open(io.BytesIO(content.getvalue()))
    assert picture.info["transparency"] == 256
    for channels in (1, 3):
        pixels = PictureReader(channels, background=background).convert(picture)
        assert pixels[..., 0].tolist() == [[shown, 1, 255]]


def encode_tiff(samples: int, photometric: int, extra: tuple[int, ...] | None, pixels: np.ndarray) -> bytes:
    """Return an uncompressed TIFF (Pillow cannot write one whose extra bands are undeclared)."""
    # The entries of the only directory.
    height, width = pixels.shape[:2]
    bits = struct.pack(f"<{samples}H", *[8] * samples)
    entries = [
        (256, 3, 1, width),
        (257, 3, 1, height),
        (258, 3, samples, None),
        (259, 3, 1, 1),
        (262, 3, 1, photometric),
        (273, 4, 1, None),
        (277, 3, 1, samples),
        (278, 3, 1, height),
        (279, 4, 1, pixels.size),
    ]
    if extra is not None:
        packed = struct.unpack("<I", struct.pack("<2H", *[*extra, 0][:2]))[0]
        entries.append((338, 3, len(extra), packed))

    # Values that do not fit into their entry come after it, and then the pixels.
    after = 8 + 2 + 12 * len(entries) + 4
    values = {258: after, 273: after + len(bits)}
    if samples < 3:
        values[258] = struct.unpack("<I", bits.ljust(4, b"\0"))[0]
    content = b"II*\0" + struct.pack("<IH", 8, len(entries))
    for tag, kind, count, value in entries:
        content += struct.pack("<HHII", tag, kind, count, values[tag] if value is None else value)
    return content + struct.pack("<I", 0) + bits + pixels.tobytes()


@pytest.mark.parametrize("extra", [None, (0,)])
def test_a_fourth_band_that_is_not_declared_as_opacity_is_refused(extra: tuple[int, ...] | None) -> None:
    bands = np.dstack([draw_gradient(), np.full((SIDE, SIDE), 3, np.uint8)])
    content = io.BytesIO(encode_tiff(4, 2, extra, bands))
    assert Image.open(content).mode in ("RGB", "RGBA"), "Pillow drops it, or takes it for opacity"
    with pytest.raises(DataError, match=r"^a: has 4 bands, of which 1 are not declared .*save it with 1 or 3 bands"):
        PictureReader(3).read(content, "a")


def test_five_bands_are_refused() -> None:
    bands = np.zeros((SIDE, SIDE, 5), np.uint8)
    with pytest.raises(DataError, match="has 5 bands, of which 2 are not declared"):
        PictureReader(3).read(io.BytesIO(encode_tiff(5, 2, (0, 0), bands)), "a")


def test_a_declared_opacity_is_composited() -> None:
    bands = np.dstack([draw_gradient(), np.zeros((SIDE, SIDE), np.uint8)])
    pixels = PictureReader(3, "#010203").read(io.BytesIO(encode_tiff(4, 2, (2,), bands)), "a")
    assert (pixels == (1, 2, 3)).all()


def write_ct(folder: Path) -> None:
    """Write a 16-bit picture of 12-bit values 0, 1, ..., 4095."""
    folder.mkdir()
    Image.fromarray(np.arange(4096, dtype=np.uint16).reshape(64, 64)).save(folder / "a.png")


def test_twelve_bits_in_sixteen_are_reported_and_can_be_spread(tmp_path: Path) -> None:
    write_ct(tmp_path / "ct")
    narrow = ImageFolder(str(tmp_path / "ct"), channels=1)
    assert len(np.unique(narrow.image(0))) == 17
    (warning,) = narrow.list_warnings()
    assert warning == (
        "16-bit pictures have values from 0 to 4095 only, which become 16 of 256 levels; set "
        "datasets.ImageFolder.value_range = (0, 4095), or to the range that matters"
    )

    spread = ImageFolder(str(tmp_path / "ct"), channels=1, value_range=(0, 4095))
    np.testing.assert_array_equal(spread.image(0).ravel(), np.round(np.arange(4096) * 255 / 4095))
    assert spread.list_warnings() == []
    window = ImageFolder(str(tmp_path / "ct"), channels=1, value_range=(1000, 2020)).image(0).ravel()
    assert window[[0, 1000, 1400, 2020, 4095]].tolist() == [0, 0, 100, 255, 255]


def test_pictures_that_use_their_range_are_not_reported(tmp_path: Path) -> None:
    Image.fromarray(np.linspace(0, 65535, 64, dtype=np.uint16).reshape(8, 8)).save(tmp_path / "a.png")
    Image.fromarray(np.full((8, 8), 9, np.uint8)).save(tmp_path / "dark.png")
    folder = ImageFolder(str(tmp_path))
    assert folder.list_warnings() == []
    for i in range(2):
        folder.image(i)
    assert folder.list_warnings() == []


def encode_png(width: int, height: int, depth: int, colour: int, rows: bytes, clear: bytes = b"") -> bytes:
    """Return a PNG of any depth (Pillow writes few).

    Args:
        width, height, depth, colour: Fields of the header; `colour` is its type, 0 for gray and 2 for colour.
        rows: Rows, each after the byte of its filter.
        clear: Content of the chunk that names the transparent colour; empty for none.
    """
    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    chunks = [(b"IHDR", header), (b"tRNS", clear), (b"IDAT", zlib.compress(rows)), (b"IEND", b"")]
    content = b"\x89PNG\r\n\x1a\n"
    for name, body in chunks:
        if body or name != b"tRNS":
            content += struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))
    return content


@pytest.mark.parametrize(
    ("depth", "colour", "row", "clear", "mode", "shown"),
    [
        (2, 0, bytes([0b00011011]), (1,), "L+A", [0, 255, 170, 255]),
        (4, 0, bytes([0x30]), (3,), "L+A", [255, 0]),
        (16, 2, struct.pack(">6H", 0x1234, 0, 0, 0x8000, 0, 0), (0x1234, 0, 0), "RGB;16+A", [255, 128]),
        (16, 2, struct.pack(">6H", 0x0012, 0, 0, 0x1200, 0, 0), (0x0012, 0, 0), "RGB;16+A", [255, 18]),
    ],
)
def test_a_transparent_colour_is_of_the_depth_of_the_file(
    depth: int, colour: int, row: bytes, clear: tuple[int, ...], mode: str, shown: list[int]
) -> None:
    content = encode_png(len(shown), 1, depth, colour, b"\0" + row, struct.pack(f">{len(clear)}H", *clear))
    reader = PictureReader(3)
    assert reader.read(io.BytesIO(content), "a")[0, :, 0].tolist() == shown
    assert reader.read_mode(io.BytesIO(content), "a") == mode


def test_a_palette_that_is_transparent_has_a_mode_that_says_so() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (8, 8, 4)).astype(np.uint8)
    for picture, mode in ((Image.fromarray(pixels).quantize(16), "P+A"), (Image.fromarray(pixels), "RGBA")):
        content = io.BytesIO()
        picture.save(content, "PNG")
        assert PictureReader(3).read_mode(content, "a") == mode


GARBAGE = [b"Exif\0\0garbage!", b"Exif\0\0II*\0", b"Exif\0\0" + bytes(30)]


@pytest.mark.filterwarnings("ignore:Corrupt EXIF")
@pytest.mark.parametrize("form", ["PNG", "WEBP", "JPEG"])
@pytest.mark.parametrize("exif", GARBAGE)
def test_a_picture_with_damaged_exif_is_read_as_it_is(form: str, exif: bytes) -> None:
    pixels = draw_gradient()
    content = io.BytesIO()
    options: dict[str, Any] = {"lossless": True} if form == "WEBP" else {}
    Image.fromarray(pixels).save(content, form, exif=exif, **options)
    read = PictureReader(3).read(content, "a")
    np.testing.assert_allclose(read.astype(int), pixels, atol=0 if form != "JPEG" else 40)
    (item,) = [np.asarray(Torch([Image.open(content)]).image(0))]
    np.testing.assert_array_equal(item, read)


def test_damaged_exif_hides_no_damaged_pixels() -> None:
    content = io.BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3)).astype(np.uint8)).save(content, "PNG")
    with pytest.raises(DataError, match="a: cannot be read as an image"):
        PictureReader(3).read(io.BytesIO(content.getvalue()[:6000]), "a")


def test_sixteen_bit_colour_has_no_value_range() -> None:
    content = encode_png(SIDE, SIDE, 16, 2, (b"\0" + np.full((SIDE, 3), 4095, ">u2").tobytes()) * SIDE)
    reader = PictureReader(3)
    reader.read(io.BytesIO(content), "a")
    assert "values from 3855 to 3855 only" in reader.list_warnings("x")[0]
    with pytest.raises(DataError, match=r"a: has 16-bit colour, .* value_range has no use"):
        PictureReader(3, value_range=(0, 4095)).read(io.BytesIO(content), "a")


def test_pixels_that_are_no_numbers_are_refused() -> None:
    content = io.BytesIO()
    Image.fromarray(np.array([[0.0, np.nan]], np.float32)).save(content, "TIFF")
    with pytest.raises(DataError, match="a: has pixels that are no numbers"):
        PictureReader(1, value_range=(0, 1)).read(content, "a")


@pytest.mark.parametrize("suffix", ["jpg", "JPG"])
def test_a_folder_of_pictures_is_one_whatever_the_case_of_suffixes(tmp_path: Path, suffix: str) -> None:
    for i in range(5):
        Image.fromarray(draw_gradient()).save(tmp_path / f"{i}.{suffix}", "JPEG")
    for i in range(2):
        Image.fromarray(np.full((SIDE, SIDE), 40_000, np.uint16)).save(tmp_path / f"m{i}.tif")
    assert read_images(tmp_path).shape == (7, 3, SIDE, SIDE)


def test_folders_of_twelve_bits_are_reported_where_they_are_compared(tmp_path: Path) -> None:
    write_ct(tmp_path / "ct")
    shutil.copy(tmp_path / "ct" / "a.png", tmp_path / "ct" / "b.png")
    with pytest.warns(UserWarning, match=r"values from 0 to 4095 only, which become 16 of 256 levels.*\.npy files"):
        read_images(tmp_path / "ct")


def test_an_upright_picture_of_the_wanted_mode_is_not_copied(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two copies, as Pillow makes them by itself, take as long as the decoding of a large picture."""
    copies: list[object] = []
    monkeypatch.setattr(Image.Image, "copy", lambda picture: copies.append(picture) or picture)
    gradient = draw_gradient()
    np.testing.assert_array_equal(PictureReader(3).convert(Image.fromarray(gradient)), gradient)
    assert not copies


def test_an_npy_file_holds_one_array_of_numbers(tmp_path: Path) -> None:
    file = tmp_path / "a.npy"
    with file.open("wb") as stream:
        np.savez(stream, images=np.zeros((4, 4), np.uint8))
    with pytest.raises(DataError, match=r"a\.npy is an \.npz file by its content: save each array as an \.npy file"):
        read_array(file)
    for content in (np.full((4, 4), "x"), np.zeros((4, 4), "datetime64[s]")):
        np.save(file, content)
        with pytest.raises(DataError, match=r"a\.npy holds .*, which are no plain numbers"):
            read_array(file)
