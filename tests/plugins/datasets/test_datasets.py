"""The data sets: every kind of input they accept, and every error message."""

from __future__ import annotations

import gzip
import io
import math
import os
import struct
import sys
import types
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers.hugging_face import Rows, install_library
from helpers.modules import load_module
from helpers.paths import ROOT
from PIL import Image

from pggan_kit.components import Dataset
from pggan_kit.data.sampler import open_data
from pggan_kit.data.settings import DataSettings
from pggan_kit.errors import DataError, SkipImage
from pggan_kit.pictures import PictureReader
from pggan_kit.system import content_hashes
from pggan_plugins import datasets as plugin
from pggan_plugins.datasets import MNIST, Arrays, HuggingFace, ImageFolder, Torch
from pggan_plugins.datasets.framing import Framing

SCRIPT = ROOT / "scripts" / "draw_mnist_subset.py"


def test_each_is_a_component_and_a_data_set(tmp_path: Path) -> None:
    rows = {row.name: row for row in plugin.components()}
    assert set(rows) == set(plugin.__all__)
    assert {"MNIST", "StackedMNIST", "ImageFolder", "ArrayFolder", "Arrays", "Torch", "HuggingFace"} < set(rows)
    assert {"CSV", "LMDB", "WebDataset", "HDF5", "DICOM"} < set(rows)
    assert {row.kind for row in rows.values()} == {"datasets"}
    save(tmp_path / "a.png", gradient())
    np.save(tmp_path / "a.npy", np.zeros((2, 4, 4), np.uint8))
    for dataset in (
        MNIST(limit=3),
        ImageFolder(str(tmp_path)),
        Arrays(str(tmp_path / "a.npy")),
        Torch([torch.zeros(1, 4, 4, dtype=torch.uint8)]),
    ):
        assert isinstance(dataset, Dataset)
        assert dataset.image(0).dtype == np.uint8
        assert dataset.image(0).ndim == 3
        assert dataset.label(0) in range(max(1, dataset.classes))


# MNIST


def write_idx(path: Path, values: np.ndarray, magic: int | None = None, count: int | None = None) -> None:
    magic = 0x800 + values.ndim if magic is None else magic
    shape = (len(values) if count is None else count, *values.shape[1:])
    content = struct.pack(f">{1 + values.ndim}I", magic, *shape) + values.astype(np.uint8).tobytes()
    path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)


def mnist_folder(folder: Path, count: int = 20, suffix: str = "", prefix: str = "train") -> np.ndarray:
    images = np.random.default_rng(0).integers(0, 256, (count, 28, 28), np.uint8)
    write_idx(folder / f"{prefix}-images-idx3-ubyte{suffix}", images)
    write_idx(folder / f"{prefix}-labels-idx1-ubyte{suffix}", np.arange(count) % 10)
    return images


def test_the_bundled_digits() -> None:
    digits = MNIST()
    assert (len(digits), digits.classes, digits.image(0).shape) == (10_000, 10, (28, 28, 1))
    labels = np.array([digits.label(i) for i in range(10_000)])
    assert np.bincount(labels).tolist() == [1000] * 10
    assert labels[:10].tolist() == [5, 0, 4, 1, 9, 2, 1, 3, 1, 4], "as the original training set begins"
    # Bright ink on black: the borders are empty, and ones have the least ink.
    images = np.stack([digits.image(i) for i in range(10_000)])
    assert images[:, :2].mean() < 0.5
    assert 30 < images.mean() < 36
    assert np.argmin([images[labels == digit].mean() for digit in range(10)]) == 1


@pytest.mark.parametrize("suffix", ["", ".gz"])
@pytest.mark.parametrize("split", ["train", "test"])
def test_mnist_from_a_folder(tmp_path: Path, suffix: str, split: str) -> None:
    images = mnist_folder(tmp_path, suffix=suffix, prefix={"train": "train", "test": "t10k"}[split])
    digits = MNIST(str(tmp_path), split=split, pad=2, limit=15)
    assert len(digits) == 15
    assert digits.image(7).shape == (32, 32, 1)
    np.testing.assert_array_equal(digits.image(7)[2:-2, 2:-2, 0], images[7])
    assert digits.image(7).sum() == images[7].sum(), "padded with black"
    assert digits.label(13) == 3


def test_mnist_splits(tmp_path: Path) -> None:
    """`learning` has the first 50,000 training digits and `tuning` the others; bundled digits are all of `learning`."""
    images = np.zeros((50_003, 28, 28), np.uint8)
    images[:, 0, 0], images[:, 0, 1] = np.divmod(np.arange(50_003) // 2, 256)
    write_idx(tmp_path / IMAGES, images)
    write_idx(tmp_path / LABELS, np.arange(50_003) % 10)
    learning, tuning = (MNIST(str(tmp_path), split) for split in ("learning", "tuning"))
    assert (len(learning), len(tuning), len(MNIST(str(tmp_path)))) == (50_000, 3, 50_003)
    np.testing.assert_array_equal(learning.image(49_999)[..., 0], images[49_999])
    np.testing.assert_array_equal(tuning.image(2)[..., 0], images[50_002])
    assert (learning.label(49_999), tuning.label(2), MNIST(str(tmp_path), "tuning", limit=2).label(1)) == (9, 2, 1)
    assert MNIST(split="learning").fingerprint() == MNIST().fingerprint()

    # With a seed, each digit is in one of both, in the file's order; another seed chooses others.
    def read_numbers(split: str, split_seed: int) -> list[int]:
        digits = MNIST(str(tmp_path), split, split_seed=split_seed)
        pixels = [digits.image(i)[0, :2, 0].astype(int) for i in range(len(digits))]
        return [256 * high + low for high, low in pixels]

    chosen = read_numbers("learning", 1)
    assert len(chosen) == 50_000 and chosen == sorted(chosen)
    left = read_numbers("tuning", 1)
    assert len(left) == 3 and sorted([*chosen, *left]) == [i // 2 for i in range(50_003)]
    assert left == read_numbers("tuning", 1) and left not in (read_numbers("tuning", 2), [25_000, 25_000, 25_001])
    assert len(MNIST(str(tmp_path), split_seed=1)) == 50_003


def test_a_folder_without_digits_for_tuning(tmp_path: Path) -> None:
    mnist_folder(tmp_path)
    with pytest.raises(DataError, match=r"has no digits after the first 50,000, which make up the split 'tuning'"):
        MNIST(str(tmp_path), "tuning")


def test_mnist_fingerprints_tell_what_differs(tmp_path: Path) -> None:
    mnist_folder(tmp_path)
    choices: list[dict[str, Any]] = [{}, {"pad": 2}, {"limit": 5}, {"limit": 20}]
    prints = [MNIST(str(tmp_path), **options).fingerprint() for options in choices]
    assert len(set(prints)) == 3
    assert prints[0] == prints[3], "the same digits"
    write_idx(tmp_path / "train-labels-idx1-ubyte", np.arange(20) % 9)
    assert MNIST(str(tmp_path)).fingerprint() not in prints


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"split": "tset"}, r"^split must be 'train', 'learning', 'tuning' or 'test', not 'tset' \(did you mean"),
        ({"split": "test"}, r"^split 'test' needs a folder"),
        ({"split": "tuning"}, r"^split 'tuning' needs a folder with the full IDX files"),
        ({"split": "learning", "split_seed": 1}, r"^split_seed needs a folder with the full IDX files: the bundled"),
        ({"split_seed": -1}, r"^split_seed must be a whole number of at least 0, or None, and is -1"),
        ({"pad": -1}, r"^pad must be a whole number of pixels"),
        ({"pad": 1.5}, r"^pad must be"),
        ({"limit": 0}, r"^limit must be a whole number of at least 1, or None for all, and is 0"),
    ],
)
def test_wrong_mnist_arguments(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        MNIST(**options)


IMAGES = "train-images-idx3-ubyte"
LABELS = "train-labels-idx1-ubyte"
BLANK = np.zeros((20, 28, 28), np.uint8)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda f: (f / IMAGES).unlink(), f"lacks {IMAGES}.*put the original IDX file there"),
        (lambda f: (f / LABELS).unlink(), f"lacks {LABELS}"),
        (lambda f: write_idx(f / IMAGES, BLANK, magic=7), f"{IMAGES} is no such IDX file: it begins with 0x00000007"),
        (lambda f: write_idx(f / IMAGES, BLANK[:, :14]), f"{IMAGES} announces 20x14x28 values"),
        (lambda f: write_idx(f / IMAGES, BLANK, count=21), f"{IMAGES} is cut short: it announces 16464 bytes"),
        (lambda f: write_idx(f / IMAGES, BLANK, count=19), f"{IMAGES} goes on after its last value"),
        (lambda f: write_idx(f / IMAGES, BLANK, count=2**32 - 1), "announces 4294967295x28x28"),
        (lambda f: write_idx(f / IMAGES, BLANK[:19]), f"{LABELS} has 20 labels for 19 images"),
        (lambda f: write_idx(f / LABELS, np.full(20, 10)), f"{LABELS} has a label 10; digits are 0 to 9"),
        (lambda f: (f / IMAGES).write_bytes(b"\0\0\x08"), f"{IMAGES} is cut short: it ends within its header"),
    ],
)
def test_damaged_mnist_files_are_named(tmp_path: Path, spoil: Callable[[Path], None], message: str) -> None:
    mnist_folder(tmp_path)
    spoil(tmp_path)
    with pytest.raises(DataError, match=message):
        MNIST(str(tmp_path))


@pytest.mark.parametrize("keep", [0, 5, 200, -1])
def test_a_cut_gzip_file_is_named(tmp_path: Path, keep: int) -> None:
    mnist_folder(tmp_path, suffix=".gz")
    path = tmp_path / f"{IMAGES}.gz"
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(DataError, match=rf"{IMAGES}\.gz is (corrupt or )?cut short"):
        MNIST(str(tmp_path))


def test_no_mnist_folder(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no folder .*nowhere: name one with the MNIST files"):
        MNIST(str(tmp_path / "nowhere"))


def test_the_script_draws_the_first_of_each_class_the_same_each_time(tmp_path: Path) -> None:
    labels = np.random.default_rng(0).permutation(np.repeat(np.arange(10), 1010))
    images = np.zeros((len(labels), 28, 28), np.uint8)
    images[:, 0, :2] = np.stack([np.arange(len(labels)) // 256, np.arange(len(labels)) % 256], 1)
    write_idx(tmp_path / IMAGES, images)
    write_idx(tmp_path / LABELS, labels)
    script = load_module(SCRIPT)
    for out in ("a", "b"):
        script.main(tmp_path, tmp_path / out)
    for name in (IMAGES, LABELS):
        assert (tmp_path / "a" / f"{name}.gz").read_bytes() == (tmp_path / "b" / f"{name}.gz").read_bytes()
    drawn = MNIST(str(tmp_path / "a"))
    corner = np.stack([drawn.image(i)[0, :2, 0] for i in range(len(drawn))]).astype(int) @ [256, 1]
    expected = [i for i, label in enumerate(labels) if (labels[:i] == label).sum() < 1000]
    assert corner.tolist() == expected


# ImageFolder


def gradient(height: int = 8, width: int = 12) -> np.ndarray:
    """Return a colour image in which each corner differs."""
    y, x = np.mgrid[:height, :width]
    return np.stack([y * 20, x * 15, (x + y) * 10], 2).astype(np.uint8)


def save(path: Path, pixels: np.ndarray | Image.Image, **options: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    picture = pixels if isinstance(pixels, Image.Image) else Image.fromarray(pixels)
    picture.save(path, **options)


def read_only_image(folder: Path, **options: Any) -> np.ndarray:
    dataset = ImageFolder(str(folder), **options)
    assert len(dataset) == 1
    return dataset.image(0)


@pytest.mark.parametrize("name", ["a.png", "a.BMP", "a.tif", "a.tiff"])
def test_lossless_formats(tmp_path: Path, name: str) -> None:
    save(tmp_path / name, gradient())
    np.testing.assert_array_equal(read_only_image(tmp_path), gradient())


@pytest.mark.parametrize("name", ["a.jpg", "a.JPEG", "a.webp"])
def test_lossy_formats(tmp_path: Path, name: str) -> None:
    save(tmp_path / name, gradient(), quality=95)
    assert np.abs(read_only_image(tmp_path).astype(int) - gradient()).mean() < 4


def test_gray_from_colour_is_its_luma(tmp_path: Path) -> None:
    save(tmp_path / "a.png", gradient())
    gray = read_only_image(tmp_path, channels=1)
    assert gray.shape == (8, 12, 1)
    assert np.abs(gray[..., 0] - gradient() @ [0.299, 0.587, 0.114]).max() < 1


@pytest.mark.parametrize("mode", ["1", "L"])
def test_gray_files_in_either_kind(tmp_path: Path, mode: str) -> None:
    pixels = np.where(gradient()[..., 0] > 60, 255, 0).astype(np.uint8)
    save(tmp_path / "a.png", Image.fromarray(pixels).convert(mode))
    np.testing.assert_array_equal(read_only_image(tmp_path, channels=1)[..., 0], pixels)
    np.testing.assert_array_equal(read_only_image(tmp_path), np.repeat(pixels[..., None], 3, 2))


def test_transparency_goes_on_the_stated_colour(tmp_path: Path) -> None:
    alpha = np.tile(np.linspace(0, 255, 12).astype(np.uint8), (8, 1))
    save(tmp_path / "a.png", np.dstack([gradient(), alpha]))
    share = alpha[..., None] / 255
    for background, colour in (("white", (255, 255, 255)), ("#ff8000", (255, 128, 0))):
        expected = gradient() * share + np.array(colour) * (1 - share)
        assert np.abs(read_only_image(tmp_path, background=background) - expected).max() <= 1


def test_gray_with_transparency(tmp_path: Path) -> None:
    save(tmp_path / "a.png", Image.fromarray(np.array([[[40, 0], [40, 255]]], np.uint8), "LA"))
    assert read_only_image(tmp_path, channels=1, background="black").ravel().tolist() == [0, 40]
    assert read_only_image(tmp_path, channels=1, background="red").ravel().tolist() == [76, 40]


def test_palettes_with_and_without_transparency(tmp_path: Path) -> None:
    picture = Image.new("P", (3, 1))
    picture.putpalette([10, 20, 30, 200, 100, 50, 0, 0, 0])
    picture.putdata([0, 1, 0])
    save(tmp_path / "plain" / "a.png", picture)
    save(tmp_path / "clear" / "a.png", picture, transparency=0)
    assert read_only_image(tmp_path / "plain").tolist() == [[[10, 20, 30], [200, 100, 50], [10, 20, 30]]]
    assert read_only_image(tmp_path / "clear").tolist() == [[[255] * 3, [200, 100, 50], [255] * 3]]


@pytest.mark.parametrize("name", ["a.png", "a.tif"])
def test_sixteen_bit_gray_is_scaled(tmp_path: Path, name: str) -> None:
    values = np.array([[0, 128, 257, 4096, 32768, 65535]], np.uint16)
    save(tmp_path / name, Image.fromarray(values))
    assert (
        read_only_image(tmp_path, channels=1).ravel().tolist() == np.rint(values / 257.0).astype(int).ravel().tolist()
    )
    assert read_only_image(tmp_path).shape == (1, 6, 3)


def png(width: int, height: int, depth: int, kind: int, rows: bytes) -> bytes:
    """Build a PNG file by hand: one that Pillow cannot write, or whose header lies."""
    import zlib

    def chunk(name: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))

    header = struct.pack(">IIBBBBB", width, height, depth, kind, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def test_sixteen_bit_colour_is_scaled(tmp_path: Path) -> None:
    values = np.array([0, 257, 65535, 32768, 4112, 60000], ">u2")
    (tmp_path / "a.png").write_bytes(png(2, 1, 16, 2, b"\0" + values.tobytes()))
    # Pillow keeps the high byte: within a level of the exact quotient.
    assert np.abs(read_only_image(tmp_path).ravel() - values / 257).max() < 1


def test_cmyk(tmp_path: Path) -> None:
    ink = np.zeros((8, 8, 4), np.uint8)
    ink[:, :4, 0] = 255  # cyan on the left, white on the right
    save(tmp_path / "a.tif", Image.fromarray(ink, "CMYK"))
    pixels = read_only_image(tmp_path)
    assert pixels[0, 0].tolist() == [0, 255, 255]
    assert pixels[0, 7].tolist() == [255, 255, 255]
    save(tmp_path / "b.jpg", Image.fromarray(ink, "CMYK"), quality=100)
    assert np.abs(ImageFolder(str(tmp_path)).image(1).astype(int) - pixels).max() < 12


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_rotation(tmp_path: Path, orientation: int) -> None:
    upright = gradient()
    # What a camera held that way stores, by the EXIF specification's table of where row 0 and column 0 are.
    stored = {
        1: upright,
        2: upright[:, ::-1],
        3: upright[::-1, ::-1],
        4: upright[::-1],
        5: upright.swapaxes(0, 1),
        6: np.rot90(upright),
        7: np.rot90(upright, 2).swapaxes(0, 1),
        8: np.rot90(upright, -1),
    }[orientation]
    exif = Image.Exif()
    exif[0x0112] = orientation
    save(tmp_path / "a.png", np.ascontiguousarray(stored), exif=exif)
    np.testing.assert_array_equal(read_only_image(tmp_path), upright)


def test_odd_sizes(tmp_path: Path) -> None:
    save(tmp_path / "a.png", gradient(8, 12))
    assert read_only_image(tmp_path).shape == (8, 12, 3)
    np.testing.assert_array_equal(read_only_image(tmp_path, size=(6, 4)), gradient(8, 12)[1:7, 4:8])
    square = read_only_image(tmp_path, fit="pad", background="#010203")
    assert square.shape == (12, 12, 3)
    np.testing.assert_array_equal(square[2:10], gradient(8, 12))
    assert (square[:2] == (1, 2, 3)).all()
    assert (square[10:] == (1, 2, 3)).all()
    larger = read_only_image(tmp_path, fit="pad", size=16, channels=1, background="white")
    assert larger.shape == (16, 16, 1)
    assert (larger[:4] == 255).all()
    with pytest.raises(DataError, match=r"a\.png: is 8x12 pixels, too small to be cropped to 10x10"):
        read_only_image(tmp_path, size=10)
    # A larger image is padded to the aspect ratio.
    wide = read_only_image(tmp_path, size=(2, 6), fit="pad", background="black")
    assert wide.shape == (8, 24, 3)
    np.testing.assert_array_equal(wide[:, 6:18], gradient(8, 12))


@pytest.mark.parametrize("size", [(3, 2), (2, 3), (9, 16), (64, 48), (5, 7)])
def test_bars_cost_no_row_or_column(size: tuple[int, int]) -> None:
    """The core crops to the aspect ratio of the stages, which images with bars have."""
    framing = Framing(size, "pad", "black", 1, 10**6)
    base = (size[0] // math.gcd(*size), size[1] // math.gcd(*size))
    for height in range(1, 40):
        for width in range(1, 40):
            padded = framing.apply(np.full((height, width, 1), 255, np.uint8), "a.png")
            assert (padded == 255).sum() == height * width
            assert padded.shape[0] >= size[0] and padded.shape[0] * size[1] == padded.shape[1] * size[0]
            smaller = np.subtract(padded.shape[:2], base)
            assert (smaller < np.maximum(size, (height, width))).any(), "no smaller one would do"


def test_bars_count_towards_the_limit_of_pixels(tmp_path: Path) -> None:
    save(tmp_path / "a.png", np.zeros((1, 40, 3), np.uint8))
    assert read_only_image(tmp_path, fit="pad", max_pixels=1600).shape == (40, 40, 3)
    with pytest.raises(DataError, match=r"is 1x40 pixels, and with bars 40x40, above the limit of 1599 pixels"):
        read_only_image(tmp_path, fit="pad", max_pixels=1599)
    with pytest.raises(SkipImage):
        read_only_image(tmp_path, fit="pad", max_pixels=1599, on_error="skip")


def test_empty_sub_folders_are_counted(tmp_path: Path) -> None:
    """Classes after them have a lower number."""
    for name in ("0/a.png", "2/a.png"):
        save(tmp_path / name, np.zeros((4, 4, 3), np.uint8))
    for name in ("1", ".hidden"):
        (tmp_path / name).mkdir()
    assert ImageFolder(tmp_path, labels=True).left_out == {"hidden": 1, "sub-folders without an image": 1}
    assert ImageFolder(tmp_path).left_out == {"hidden": 1}


def test_sub_folders_are_sorted_and_may_be_classes(tmp_path: Path) -> None:
    for number, name in enumerate(["cat/b.png", "cat/a.png", "ant/deep/z.png", "dog/a.png"]):
        save(tmp_path / name, np.full((4, 4, 3), number, np.uint8))
    save(tmp_path / ".hidden" / "a.png", gradient())
    save(tmp_path / "cat" / ".a.png", gradient())
    (tmp_path / "notes.txt").write_text("not an image")
    folder = ImageFolder(str(tmp_path), labels=True)
    assert [folder.image(i)[0, 0, 0] for i in range(len(folder))] == [2, 1, 0, 3]
    assert folder.class_names == ["ant", "cat", "dog"]
    assert folder.classes == 3
    assert [folder.label(i) for i in range(4)] == [0, 1, 1, 2]
    plain = ImageFolder(str(tmp_path))
    assert plain.classes == 0
    assert plain.label(2) == 0
    assert folder.left_out == {".txt": 1, "hidden": 2}
    save(tmp_path / "loose.png", gradient())
    with pytest.raises(DataError, match=r"loose\.png is in no sub-folder, and with labels = True each is a class"):
        ImageFolder(str(tmp_path), labels=True)


def test_folders_without_images(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no folder .*gone: set datasets\.ImageFolder\.folder"):
        ImageFolder(str(tmp_path / "gone"))
    (tmp_path / "a.txt").write_text("")
    with pytest.raises(DataError, match=r"and its sub-folders hold no images \(\.png, .*\)"):
        ImageFolder(str(tmp_path))


def broken_folder(folder: Path) -> None:
    for name in "abcd":
        save(folder / f"{name}.png", gradient(32, 32))
    whole = (folder / "b.png").read_bytes()
    (folder / "b.png").write_bytes(whole[: len(whole) // 2])
    (folder / "d.png").write_text("no image")


def test_a_broken_image_stops_with_its_name(tmp_path: Path) -> None:
    broken_folder(tmp_path)
    folder = ImageFolder(str(tmp_path))
    for i, name in ((1, "b"), (3, "d")):
        with pytest.raises(
            DataError, match=rf"{name}\.png: cannot be read as an image .*set on_error = 'skip'"
        ) as caught:
            folder.image(i)
        assert not isinstance(caught.value, SkipImage)
    with pytest.raises(DataError, match=r"b\.png"):
        open_data(folder, DataSettings(cache=str(tmp_path / "cache")), [(8, 8)], 0)


def test_a_broken_image_may_be_skipped_and_counted(tmp_path: Path) -> None:
    broken_folder(tmp_path / "images")
    folder = ImageFolder(str(tmp_path / "images"), on_error="skip")
    with pytest.warns(UserWarning, match=r"2 of 4 images are left out:\n.*b\.png.*\n.*d\.png"):
        data = open_data(folder, DataSettings(cache=str(tmp_path / "cache")), [(8, 8)], 0)
    assert (len(data), data.skipped) == (2, 2)


@pytest.mark.parametrize("suffix", ["png", "jpg", "webp", "bmp", "tif"])
@pytest.mark.filterwarnings("ignore")
def test_a_file_cut_anywhere_is_an_error(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"a.{suffix}"
    save(path, np.random.default_rng(0).integers(0, 256, (16, 16, 3), np.uint8))
    whole = path.read_bytes()
    for length in range(0, int(len(whole) * 0.9), max(1, len(whole) // 40)):
        with pytest.raises(DataError, match=r"^name: "):
            PictureReader(3, max_pixels=10_000).read(io.BytesIO(whole[:length]), "name")


@pytest.mark.parametrize("suffix", ["png", "jpg", "webp", "bmp", "tif"])
@pytest.mark.filterwarnings("ignore")
def test_only_the_documented_error_comes_out(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"a.{suffix}"
    save(path, np.random.default_rng(0).integers(0, 256, (16, 16, 3), np.uint8))
    whole = path.read_bytes()
    rng = np.random.default_rng(1)
    for _ in range(300):
        content = bytearray(whole)
        for _ in range(rng.integers(1, 4)):
            content[rng.integers(0, min(len(content), 200))] = rng.integers(0, 256)
        try:
            pixels = PictureReader(3, max_pixels=10_000).read(io.BytesIO(bytes(content)), "name")
        except DataError:
            continue
        assert pixels.dtype == np.uint8
        assert pixels.shape[2] == 3
        assert pixels.shape[0] * pixels.shape[1] <= 10_000


@pytest.mark.filterwarnings("ignore:.*decompression bomb")
def test_bombs_are_refused_by_their_header(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail_to_decode(*args: object) -> None:
        raise AssertionError("it was decoded")

    monkeypatch.setattr("PIL.ImageFile.ImageFile.load", fail_to_decode)
    for width, height in ((50_000, 50_000), (50_000, 1), (12_000, 12_000), (9_000, 9_000)):
        (tmp_path / "a.png").write_bytes(png(width, height, 8, 2, b""))
        with pytest.raises(DataError, match=r"a\.png: .*pixels.*max_pixels"):
            read_only_image(tmp_path, max_pixels=80_000_000)
    (tmp_path / "a.png").write_bytes(png(11, 10, 8, 2, b""))
    with pytest.raises(DataError, match=r"is 10x11 pixels, above the limit of 100 in all \(max_pixels\)"):
        read_only_image(tmp_path, max_pixels=100)


def test_a_file_of_another_format_does_not_reach_its_decoder(tmp_path: Path) -> None:
    with (tmp_path / "a.png").open("wb") as file:
        Image.fromarray(gradient()).save(file, format="GIF")  # whole, and Pillow could read it
    with pytest.raises(DataError, match=r"a\.png: cannot be read as an image"):
        read_only_image(tmp_path)


@pytest.mark.parametrize("mode", ["I", "F"])
def test_pixels_without_a_defined_range_are_refused(tmp_path: Path, mode: str) -> None:
    save(tmp_path / "a.tif", Image.new(mode, (4, 4)))
    with pytest.raises(DataError, match=r"a\.tif: has 32-bit pixels .*: set value_range, or save it with 8 or 16 bit"):
        read_only_image(tmp_path)
    values = np.array([[-1000, -200, 400, 3000]])
    save(tmp_path / "a.tif", Image.fromarray(values.astype(np.int32 if mode == "I" else np.float32)))
    assert read_only_image(tmp_path, channels=1, value_range=(-1000, 600)).ravel().tolist() == [0, 128, 223, 255]


def test_folder_fingerprints(tmp_path: Path) -> None:
    save(tmp_path / "x" / "a.png", gradient())
    first = ImageFolder(str(tmp_path / "x")).fingerprint()
    assert ImageFolder(str(tmp_path / "x")).fingerprint() == first
    for options in ({"channels": 1}, {"size": 4}, {"fit": "pad"}, {"background": "red"}, {"on_error": "skip"}):
        assert ImageFolder(str(tmp_path / "x"), **options).fingerprint() != first, options
    assert ImageFolder(str(tmp_path / "x"), value_range=(0, 1)).fingerprint() != first
    os.rename(tmp_path / "x", tmp_path / "y")
    os.utime(tmp_path / "y" / "a.png", ns=(1, 1))
    assert ImageFolder(str(tmp_path / "y")).fingerprint() == first, "moved, without its times"

    # Other bytes of the same number, at the same time.
    content = bytearray((tmp_path / "y" / "a.png").read_bytes())
    content[-1] ^= 1
    (tmp_path / "y" / "a.png").write_bytes(content)
    os.utime(tmp_path / "y" / "a.png", ns=(1, 1))
    second = ImageFolder(str(tmp_path / "y")).fingerprint()
    assert second != first, "changed"
    os.rename(tmp_path / "y" / "a.png", tmp_path / "y" / "b.png")
    assert ImageFolder(str(tmp_path / "y")).fingerprint() != second, "renamed"

    save(tmp_path / "z" / "a.png", gradient())
    before = ImageFolder(str(tmp_path)).fingerprint()
    assert ImageFolder(str(tmp_path), labels=True).fingerprint() != before


def test_rows_are_named_by_what_is_read_of_a_file_and_not_by_its_place(tmp_path: Path) -> None:
    for name in ("x/a.png", "x/b.png", "y/a.png"):
        save(tmp_path / name, gradient())
    save(tmp_path / "y/b.png", 255 - gradient())
    (tmp_path / "y" / "c.png").symlink_to(tmp_path / "x" / "a.png")
    first = ImageFolder(str(tmp_path), labels=True)
    rows = first.row_fingerprints()
    assert len(rows) == len(first) == 5
    assert rows[0] == rows[1] == rows[2] == rows[4] != rows[3]
    assert all(rows)
    assert ImageFolder(str(tmp_path / "x")).row_fingerprints() == rows[:2], "neither labels nor folders matter"
    for options in ({"size": 4}, {"fit": "pad"}, {"channels": 1}, {"value_range": (0, 1)}, {"background": "black"}):
        assert ImageFolder(str(tmp_path / "x"), **options).row_fingerprints()[0] != rows[0], options
    assert first.location == str(tmp_path)


def test_a_file_that_cannot_be_read_has_no_fingerprint_of_its_row(tmp_path: Path) -> None:
    for name in "ab":
        save(tmp_path / f"{name}.png", gradient())
    folder = ImageFolder(str(tmp_path))
    (tmp_path / "a.png").unlink()
    rows = folder.row_fingerprints()
    assert rows[0] == "" != rows[1]


def test_contents_are_hashed_once_for_each_version(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hashed: list[str] = []
    hash_file = content_hashes._hash

    def count(path: str) -> str:
        hashed.append(Path(path).name)
        return hash_file(path)

    monkeypatch.setattr(content_hashes, "_hash", count)
    for name in "ab":
        save(tmp_path / f"{name}.png", gradient())
    first = ImageFolder(str(tmp_path)).fingerprint()
    assert ImageFolder(str(tmp_path)).fingerprint() == first
    assert sorted(hashed) == ["a.png", "a.png", "b.png", "b.png"], "a file that is so young may change unseen"

    monkeypatch.setattr(content_hashes, "SETTLED_NS", 0)
    hashed.clear()
    for _ in range(2):
        assert ImageFolder(str(tmp_path)).fingerprint() == first
    assert sorted(hashed) == ["a.png", "b.png"]
    save(tmp_path / "b.png", 255 - gradient())
    assert ImageFolder(str(tmp_path)).fingerprint() != first
    assert sorted(hashed) == ["a.png", "b.png", "b.png"]

    # An array file is as large as all pictures together.
    np.save(tmp_path / "c.npy", np.stack([gradient(), gradient()]))
    hashed.clear()
    for _ in range(2):
        Arrays(str(tmp_path / "c.npy")).fingerprint()
    assert hashed == ["c.npy"]

    # Hashes that are damaged, and a cache that cannot be written, cost time alone.
    second = ImageFolder(str(tmp_path)).fingerprint()
    for kept in Path(os.environ["PGGAN_KIT_CACHE"], "contents").iterdir():
        for damage in (b"", b"[1]", b"\xff", b'{"b.png": [[1], 2]}', b'{"b.png": 5}'):
            kept.write_bytes(damage)
            assert ImageFolder(str(tmp_path)).fingerprint() == second, damage
    (tmp_path / "blocked").write_text("")
    monkeypatch.setenv("PGGAN_KIT_CACHE", str(tmp_path / "blocked"))
    (tmp_path / "b.png").chmod(0o000)
    if not os.access(tmp_path / "b.png", os.R_OK):
        assert ImageFolder(str(tmp_path)).fingerprint() != second, "a file that cannot be read is none of them"
    (tmp_path / "b.png").chmod(0o600)
    assert ImageFolder(str(tmp_path)).fingerprint() == second


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"channels": 2}, r"^channels must be 1 \(gray\) or 3 \(colour\), not 2"),
        ({"channels": True}, r"^channels must be"),
        ({"size": 0}, r"^size must be a side or \(height, width\) of at least 1, or None, not 0"),
        ({"size": (1, 2, 3)}, r"^size must be"),
        ({"size": "big"}, r"^size must be"),
        ({"fit": "padd"}, r"^fit must be 'crop' or 'pad', not 'padd' \(did you mean 'pad'\?\)"),
        ({"background": "whit"}, r"^background must be a colour like 'white' or '#ffcc00', not 'whit'"),
        ({"background": 3}, r"^background must be"),
        ({"background": "#fff0"}, r"^background must be a colour without opacity, such as '#ffcc00', not '#fff0'"),
        ({"background": "#ffffff80"}, r"^background must be a colour without opacity"),
        ({"on_error": "ignore"}, r"^on_error must be 'stop' or 'skip', not 'ignore'"),
        ({"max_pixels": 0}, r"^max_pixels must be a whole number in \[1, 178956970\], not 0"),
        ({"max_pixels": 10**9}, r"^max_pixels must be"),
        ({"value_range": (5, 5)}, r"^value_range must be \(low, high\), .*, not \(5, 5\)"),
        ({"value_range": (0, float("inf"))}, r"^value_range must be"),
        ({"value_range": (0, 10**400)}, r"^value_range must be"),
        ({"value_range": 4095}, r"^value_range must be"),
    ],
)
def test_wrong_folder_arguments(tmp_path: Path, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ImageFolder(str(tmp_path), **options)


# Arrays

COLOUR = np.random.default_rng(5).integers(0, 256, (6, 5, 7, 3), np.uint8)


@pytest.mark.parametrize("suffix", ["npy", "npz"])
@pytest.mark.parametrize("layout", ["NCHW", "NHWC", "auto"])
@pytest.mark.parametrize("first", [False, True])
def test_arrays_in_either_layout(tmp_path: Path, suffix: str, layout: str, first: bool) -> None:
    stored = COLOUR.transpose(0, 3, 1, 2) if first else COLOUR
    path = tmp_path / f"a.{suffix}"
    np.save(path, stored) if suffix == "npy" else np.savez(path, images=stored, labels=np.arange(6) % 4)
    if layout != "auto" and (layout == "NCHW") != first:
        layout = "auto"
    arrays = Arrays(str(path), layout=layout)
    assert len(arrays) == 6
    np.testing.assert_array_equal(np.stack([arrays.image(i) for i in range(6)]), COLOUR)
    assert arrays.classes == (4 if suffix == "npz" else 0)
    assert arrays.label(5) == (1 if suffix == "npz" else 0)
    data = open_data(arrays, DataSettings(cache=str(tmp_path / "cache")), [(5, 7)], 0)
    np.testing.assert_array_equal(data._levels[(5, 7)].images, COLOUR.transpose(0, 3, 1, 2))


def test_gray_arrays_need_no_layout(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", COLOUR[..., 0])
    np.testing.assert_array_equal(Arrays(str(tmp_path / "a.npy")).image(2), COLOUR[2, ..., :1])


def test_an_npy_file_is_mapped(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", COLOUR)
    assert isinstance(Arrays(str(tmp_path / "a.npy"))._images, np.memmap)


@pytest.mark.parametrize("kind", ["uint16", ">u2", "int16", "float32", ">f4", "float16", "float64"])
def test_numbers_are_kept_as_they_are(tmp_path: Path, kind: str) -> None:
    """Those of files in the other byte order too; only floats of 16 and 64 bits change their type."""
    numbers = COLOUR.astype(kind) * np.array(100).astype(kind)
    np.save(tmp_path / "a.npy", numbers)
    arrays = Arrays(str(tmp_path / "a.npy"))
    np.testing.assert_array_equal(arrays.image(3), numbers[3])
    warns: AbstractContextManager[object] = nullcontext()
    if kind == "float64":
        warns = pytest.warns(UserWarning, match="the images are float64, and kept as float32")
    with warns:
        settings = DataSettings(cache=str(tmp_path / "cache"), value_range="min_max")
        level = open_data(arrays, settings, [(5, 7)], 0).level((5, 7)).images
    assert level.dtype == {">u2": "uint16", "uint16": "uint16", "int16": "int16"}.get(kind, "float32")
    np.testing.assert_array_equal(level, numbers.transpose(0, 3, 1, 2))


class Payload:
    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (Path("executed"),))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda p: None, r"no file .*: set datasets\.Arrays\.file"),
        (lambda p: p.write_bytes(b"junk"), "cannot be read as an .npy or .npz file of plain arrays"),
        (lambda p: p.write_bytes(b""), "cannot be read"),
        (lambda p: p.write_bytes(b"PK\x03\x04junk"), "cannot be read"),
        (lambda p: save_array(p, np.zeros((2, 4, 4), np.int64)), "holds int64; images must be uint8, uint16, int16, "),
        (lambda p: save_array(p, np.zeros((4, 4), np.uint8)), r"holds \(4, 4\); images must be \(n, H, W\)"),
        (lambda p: save_array(p, np.zeros((0, 4, 4), np.uint8)), r"holds \(0, 4, 4\)"),
        (lambda p: save_arrays(p, pictures=COLOUR), "has no array 'images', but 'pictures'"),
        (
            lambda p: save_arrays(p, images=np.array(5, np.uint8), labels=np.array([1])),
            r"holds \(\); images must be \(n, H, W\)",
        ),
        (lambda p: save_arrays(p, images=COLOUR, labels=np.zeros(5, int)), "'labels' must be 6 whole numbers"),
        (lambda p: save_arrays(p, images=COLOUR, labels=np.zeros(6)), "'labels' must be 6 whole numbers from 0 up"),
        (lambda p: save_arrays(p, images=COLOUR, labels=np.full(6, -1)), "'labels' must be 6 whole numbers from 0 up"),
        (lambda p: save_array(p, np.array([Payload()], dtype=object), allow_pickle=True), "cannot be read"),
        (lambda p: save_arrays(p, images=np.array([Payload()], dtype=object)), "cannot be read"),
    ],
)
def test_wrong_array_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, make: Callable[[Path], None], message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    make(tmp_path / "a.npy")
    with pytest.raises(DataError, match=message):
        Arrays(str(tmp_path / "a.npy"))
    assert not Path("executed").exists()


def save_array(path: Path, array: np.ndarray, **options: Any) -> None:
    with path.open("wb") as file:
        np.save(file, array, **options)


def save_arrays(path: Path, **arrays: np.ndarray) -> None:
    with path.open("wb") as file:
        np.savez_compressed(file, **arrays)  # type: ignore[arg-type]


@pytest.mark.parametrize("shape", [(2, 3, 5, 3), (2, 4, 4, 5), (2, 5, 8, 5), (2, 9, 8, 8)])
def test_an_ambiguous_layout_is_refused(tmp_path: Path, shape: tuple[int, ...]) -> None:
    np.save(tmp_path / "a.npy", np.zeros(shape, np.uint8))
    with pytest.raises(ValueError, match=r"^layout must be 'NCHW' or 'NHWC': the shape .* does not tell which axis"):
        Arrays(str(tmp_path / "a.npy"))
    assert Arrays(str(tmp_path / "a.npy"), layout="NHWC").image(0).shape == shape[1:]


@pytest.mark.parametrize(("shape", "channels"), [((2, 2, 8, 8), 2), ((2, 8, 9, 7), 7), ((2, 13, 16, 16), 13)])
def test_the_shorter_axis_holds_the_channels(tmp_path: Path, shape: tuple[int, ...], channels: int) -> None:
    np.save(tmp_path / "a.npy", np.zeros(shape, np.uint8))
    assert Arrays(str(tmp_path / "a.npy")).image(1).shape[2] == channels


def test_one_class_in_an_array_is_none(tmp_path: Path) -> None:
    save_arrays(tmp_path / "a.npz", images=np.zeros((2, 4, 4), np.uint8), labels=np.zeros(2, np.int64))
    assert Arrays(str(tmp_path / "a.npz")).classes == 0


def test_one_class_folder_is_refused(tmp_path: Path) -> None:
    save(tmp_path / "00000" / "a.png", gradient())
    with pytest.raises(DataError, match=r"images in the one sub-folder 00000 alone, .* add a dataset\.json"):
        ImageFolder(str(tmp_path), labels=True)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"layout": "nhwc"}, r"^layout must be 'auto', 'NCHW' or 'NHWC', not 'nhwc'"),
    ],
)
def test_wrong_array_arguments(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Arrays("a.npy", **options)


def test_array_fingerprints(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", COLOUR)
    np.save(tmp_path / "b.npy", COLOUR)
    first = Arrays(str(tmp_path / "a.npy")).fingerprint()
    assert Arrays(str(tmp_path / "b.npy")).fingerprint() == first
    np.save(tmp_path / "c.npy", COLOUR.astype(np.uint16))
    assert Arrays(str(tmp_path / "c.npy")).fingerprint() != first
    assert first.endswith("(6, 5, 7, 3) (0.0, 1.0)"), "copies of bytes keep the name that they had"
    np.save(tmp_path / "cube.npy", np.arange(128, dtype=np.uint8).reshape(2, 4, 4, 4))
    cubes = {Arrays(str(tmp_path / "cube.npy"), layout).fingerprint() for layout in ("NCHW", "NHWC")}
    assert len(cubes) == 2, "the layout matters where the shape does not tell it"
    changed = COLOUR.copy()
    changed[0, 0, 0, 0] ^= 1
    np.save(tmp_path / "b.npy", changed)
    assert Arrays(str(tmp_path / "b.npy")).fingerprint() != first


# Torch


class Items(torch.utils.data.Dataset):  # type: ignore[type-arg]
    def __init__(self, *items: Any) -> None:
        self.items = items

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, i: int) -> Any:
        return self.items[i]


def test_torch_items_of_each_kind() -> None:
    pixels = gradient()
    tensor = torch.from_numpy(pixels).permute(2, 0, 1)
    clear = Image.fromarray(np.dstack([pixels, np.zeros((8, 12), np.uint8)]))
    wrapped = Torch(
        Items(
            tensor, (tensor.float(), 1), Image.fromarray(pixels), [Image.fromarray(pixels[..., 0]), 2], tensor[0], clear
        )
    )
    for i in range(3):
        np.testing.assert_array_equal(wrapped.image(i), pixels)
    for i in range(3, 5):
        np.testing.assert_array_equal(wrapped.image(i), pixels[..., :1])
    assert (wrapped.image(5) == 255).all()
    assert Torch(Items(tensor.bfloat16())).image(0).dtype == np.float32
    assert Torch(Items(torch.zeros(7, 4, 5, dtype=torch.int16))).image(0).shape == (4, 5, 7)
    assert Torch(Items((tensor, 3))).label(0) == 0, "ignored unless classes are stated"


@pytest.mark.parametrize("label", [2, torch.tensor(2), np.int64(2)])
def test_torch_labels(label: Any) -> None:
    assert Torch(Items((torch.zeros(1, 2, 2), label, "more")), classes=3).label(0) == 2


@pytest.mark.parametrize("rest", [(), (None,), ([1, 2],), (0.9,), (2.0,), ("2",), (True,), (torch.tensor(1.5),)])
def test_torch_items_without_a_label(rest: tuple[Any, ...]) -> None:
    with pytest.raises(DataError, match="item 0 has no whole number as its label"):
        Torch(Items((torch.zeros(1, 2, 2), *rest)), classes=3).label(0)


@pytest.mark.parametrize("mode", ["I;16", "I;16B", "F"])
def test_torch_keeps_the_numbers_of_deep_pictures(mode: str) -> None:
    numbers = np.arange(96).reshape(8, 12)
    kind = {"I;16": "<u2", "I;16B": ">u2", "F": "<f4"}[mode]
    picture = Image.frombytes(mode, (12, 8), numbers.astype(kind).tobytes())
    image = Torch(Items(picture)).image(0)
    assert image.dtype.name == np.dtype(kind).name
    np.testing.assert_array_equal(image[..., 0], numbers)


def test_torch_reads_sixteen_bits_of_a_png_whatever_mode_pillow_opens_it_in(tmp_path: Path) -> None:
    numbers = np.arange(96, dtype=np.uint16).reshape(8, 12) * 600
    Image.fromarray(numbers).save(tmp_path / "a.png")
    with Image.open(tmp_path / "a.png") as picture:
        image = Torch(Items(picture)).image(0)
    assert image.dtype == np.uint16
    np.testing.assert_array_equal(image[..., 0], numbers)


def test_torch_pictures_that_are_truncated_are_named(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    Image.fromarray(noise).save(tmp_path / "a.png")
    content = (tmp_path / "a.png").read_bytes()
    picture = Image.open(io.BytesIO(content[: len(content) // 2]))
    with pytest.raises(DataError, match=r"^item 0: \S"):
        Torch(Items(picture)).image(0)


@pytest.mark.parametrize(
    ("item", "message"),
    [
        (torch.zeros(2, 2, 4, 4), r"item 0: an image must be .* not \(2, 2, 4, 4\)"),
        (np.zeros((4, 4, 3)), "item 0: an image must be a Pillow image or a tensor .* not ndarray"),
    ],
)
def test_wrong_torch_items(item: Any, message: str) -> None:
    with pytest.raises(DataError, match=message):
        Torch(Items(item)).image(0)


def test_torch_fingerprints() -> None:
    a = torch.zeros(1, 4, 4)
    b = torch.ones(1, 4, 4)
    assert Torch(Items(a, b)).fingerprint() == Torch(Items(a, b)).fingerprint()
    assert Torch(Items(a, b)).fingerprint() != Torch(Items(b, a)).fingerprint()
    labelled = [Torch(Items((a, label)), classes=2).fingerprint() for label in (0, 1)]
    assert labelled[0] != labelled[1]
    assert Torch(Items(a), name="x").fingerprint() == Torch(Items(b), name="x").fingerprint()
    assert Torch(Items(a), name="x").fingerprint() != Torch(Items(a), name="y").fingerprint()
    assert Torch(Items(a.byte()), name="x").fingerprint() == "torch x 1 0 (0.0, 1.0)", "as of copies made before"
    assert Torch(Items(a.byte()), name="x").fingerprint() != Torch(Items(a), name="x").fingerprint()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"dataset": 3}, r"^dataset must be map-style, with a length and items by index, not int"),
        ({"dataset": iter([])}, r"^dataset must be map-style"),
        ({"classes": -1}, r"^classes must be a whole number of at least 0, and is -1"),
    ],
)
def test_wrong_torch_arguments(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Torch(**{"dataset": Items(), **options})


def test_torch_items_are_fetched_one_at_a_time(tmp_path: Path) -> None:
    import threading
    import time

    class Shy(Items):
        busy = threading.Lock()

        def __getitem__(self, i: int) -> Any:
            assert self.busy.acquire(blocking=False), "two at once"
            time.sleep(0.0005)
            self.busy.release()
            return self.items[i]

    shy = Torch(Shy(*[torch.zeros(1, 4, 4)] * 200), name="shy")
    assert len(open_data(shy, DataSettings(cache=str(tmp_path), workers=4, value_range=(0, 1)), [(4, 4)], 0)) == 200


# HuggingFace, against a stand-in for its library


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Rows:
    save(tmp_path / "a.png", gradient())
    content = (tmp_path / "a.png").read_bytes()
    cells = [
        {"bytes": content, "path": None},
        {"bytes": None, "path": str(tmp_path / "a.png")},
        None,
        {"bytes": b"junk"},
    ]
    rows = Rows(cells, [0, 2, 1, 0])
    rows.features = {"label": types.SimpleNamespace(num_classes=5)}
    install_library(monkeypatch, {"some/set": rows})
    return rows


def test_hugging_face(hub: Rows) -> None:
    dataset = HuggingFace("some/set", label_column="label")
    assert isinstance(dataset, Dataset)
    assert (len(dataset), dataset.classes, dataset.label(1)) == (4, 5, 2)
    for i in range(2):
        np.testing.assert_array_equal(dataset.image(i), gradient())
    with pytest.raises(DataError, match="some/set train, row 2 has no image in column 'image'"):
        dataset.image(2)
    with pytest.raises(DataError, match="some/set train, row 3: cannot be read as an image"):
        dataset.image(3)
    assert dataset.fingerprint() != HuggingFace("some/set", label_column="label", channels=1).fingerprint()


def test_hugging_face_columns_of_numbers(hub: Rows) -> None:
    numbers = np.random.default_rng(2).normal(size=(4, 2, 8, 9)).astype(np.float32)
    hub.features["image"] = types.SimpleNamespace()  # no feature of pictures
    hub.cells = list(numbers)
    dataset = HuggingFace("some/set")
    np.testing.assert_array_equal(dataset.image(1), numbers[1].transpose(1, 2, 0))
    assert HuggingFace("some/set", layout="NHWC").image(1).shape == (2, 8, 9)
    first = dataset.fingerprint()
    assert HuggingFace("some/set", layout="NHWC").fingerprint() != first
    hub._fingerprint = "changed"  # type: ignore[misc]
    hub.cells[3] = numbers[0]
    assert HuggingFace("some/set").fingerprint() != first
    hub.cells[3] = numbers
    with pytest.raises(DataError, match=r"some/set train, row 3 holds \(4, 2, 8, 9\); an image must be \(H, W\)"):
        HuggingFace("some/set").image(3)
    with pytest.raises(ValueError, match=r"^layout must be"):
        HuggingFace("some/set", layout="CHW")


def test_hugging_face_fingerprints_are_of_contents(hub: Rows, monkeypatch: pytest.MonkeyPatch) -> None:
    first = HuggingFace("some/set", label_column="label").fingerprint()
    assert HuggingFace("some/set").fingerprint() != first
    hub._fingerprint = "after copying"  # type: ignore[misc]
    assert HuggingFace("some/set", label_column="label").fingerprint() == first
    reads: list[int] = []
    monkeypatch.setattr(HuggingFace, "_hash_images", lambda self: reads.append(1))
    assert HuggingFace("some/set", label_column="label").fingerprint() == first
    assert not reads, "a version is hashed once"
    monkeypatch.undo()


def test_hugging_face_fingerprints_tell_images_and_labels_apart(hub: Rows) -> None:
    first = HuggingFace("some/set", label_column="label").fingerprint()
    hub.labels = [0, 2, 1, 1]
    assert HuggingFace("some/set", label_column="label").fingerprint() != first
    hub.labels = [0, 2, 1, 0]
    hub._fingerprint = "changed"  # type: ignore[misc]
    hub.cells[3] = {"bytes": b"other junk"}
    assert HuggingFace("some/set", label_column="label").fingerprint() != first


def test_hugging_face_labels(hub: Rows) -> None:
    assert HuggingFace("some/set").classes == 0
    assert HuggingFace("some/set").label(1) == 0
    hub.features["label"] = object()
    assert HuggingFace("some/set", label_column="label").classes == 3, "one more than the largest"
    hub.features["label"] = types.SimpleNamespace(num_classes=3, names=["ant", "bee", "cat"])
    assert HuggingFace("some/set", label_column="label").class_names == ["ant", "bee", "cat"]
    hub.labels = [0.5, 1.0, 0.0, 0.0]  # type: ignore[list-item]
    with pytest.raises(ValueError, match=r"^label_column must hold class numbers from 0 up, and 'label' does not"):
        HuggingFace("some/set", label_column="label")


def test_hugging_face_refuses_large_images(hub: Rows) -> None:
    with pytest.raises(DataError, match="row 0: is 8x12 pixels, above the limit of 50 in all"):
        HuggingFace("some/set", max_pixels=50).image(0)


def test_wrong_hugging_face_arguments(hub: Rows) -> None:
    with pytest.raises(DataError, match="cannot load the data set 'missing', split 'train': no such data set"):
        HuggingFace("missing")
    with pytest.raises(ValueError, match=r"^image_column must be 'image' or 'label', not 'picture'"):
        HuggingFace("some/set", image_column="picture")
    with pytest.raises(ValueError, match=r"^label_column must be 'image' or 'label', not 'class'"):
        HuggingFace("some/set", label_column="class")
    with pytest.raises(ValueError, match=r"^channels must be"):
        HuggingFace("some/set", channels=4)


def test_the_missing_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(DataError, match=r"needs the library `datasets` \(.*\): pip install 'pggan_kit\[huggingface\]'"):
        HuggingFace("some/set")
