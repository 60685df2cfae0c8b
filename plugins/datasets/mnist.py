"""The MNIST digits, from the bundled 10,000 or from a folder with the original IDX files."""

from __future__ import annotations

import gzip
import hashlib
import struct
import zlib
from pathlib import Path
from typing import BinaryIO

import numpy as np

from pggan_kit import DataError, SettingError, check_at_least, check_choice

BUNDLED = Path(__file__).with_name("mnist")
PREFIXES = {"train": "train", "test": "t10k"}

LEARNING_DIGITS = 50_000
"""Number of the training digits that belong to `learning`; the rest belongs to `tuning`."""

SPLITS = {
    "train": ("train", slice(None)),
    "learning": ("train", slice(LEARNING_DIGITS)),
    "tuning": ("train", slice(LEARNING_DIGITS, None)),
    "test": ("test", slice(None)),
}
"""Files and rows of each split, by its name."""

IMAGES_MAGIC = 0x803
LABELS_MAGIC = 0x801
SIDE = 28

MAX_COUNT = 10_000_000
"""Maximum count that an IDX header may announce: more than any file in use has."""


class MNIST:
    """Gray digits of 28x28 pixels in 10 classes.

    Args:
        folder: A folder with the full IDX files (`train-images-idx3-ubyte`, ...), gzipped or not. None: the bundled
            10,000 training digits, 1,000 of each class.
        split: `train` (all 60,000 training digits), `learning` (the first 50,000 of them), `tuning` (the last 10,000)
            or `test` (the 10,000 test digits). The bundled digits are all of `learning`; the others need a folder.
        split_seed: Seed of a random choice of the 50,000 training digits that are `learning`; the other 10,000 are
            `tuning`. It changes none of the other splits, and needs a folder. None: the split above.
        pad: Black pixels added on each side: 2 makes 32x32.
        limit: The number of digits to use, from the first on. None: all.

    Raises:
        ValueError: An argument out of range.
        DataError: A folder or file that does not exist, or a file that is not what its name says.
    """

    classes = 10

    def __init__(
        self,
        folder: str | Path | None = None,
        split: str = "train",
        pad: int = 0,
        limit: int | None = None,
        split_seed: int | None = None,
    ) -> None:
        check_choice("split", split, tuple(SPLITS))
        if not isinstance(pad, int) or not 0 <= pad <= 1000:
            raise SettingError("pad", f"must be a whole number of pixels in [0, 1000], not {pad!r}")
        check_at_least("limit", limit, 1, instead="None for all", whole=True)
        if folder is None and split in ("tuning", "test"):
            raise SettingError(
                "split",
                f"{split!r} needs a folder with the full IDX files: the bundled digits are all of 'learning'",
            )

        check_at_least("split_seed", split_seed, 0, instead="None", whole=True)
        if folder is None and split == "learning" and split_seed is not None:
            raise SettingError("split_seed", "needs a folder with the full IDX files: the bundled digits are no choice")

        # The digits, padded and with an axis of one channel.
        images, labels = _read_split_rows(BUNDLED if folder is None else Path(folder).expanduser(), split, split_seed)
        self._images = np.pad(images[:limit], ((0, 0), (pad, pad), (pad, pad)))[..., None]
        self._labels = labels[:limit]

    def __len__(self) -> int:
        return len(self._images)

    def image(self, i: int) -> np.ndarray:
        """Return image i as uint8 (28 + 2 pad, 28 + 2 pad, 1); ink is bright."""
        image: np.ndarray = self._images[i]
        return image

    def label(self, i: int) -> int:
        """Return the digit that image i shows."""
        return int(self._labels[i])

    def fingerprint(self) -> str:
        """Return the SHA-256 of shape, pixels and labels."""
        content = hashlib.sha256(repr(self._images.shape).encode())
        content.update(np.ascontiguousarray(self._images).data)
        content.update(np.ascontiguousarray(self._labels).data)
        return f"mnist {content.hexdigest()}"


def _read_split_rows(folder: Path, split: str, split_seed: int | None) -> tuple[np.ndarray, np.ndarray]:
    """Read images uint8 (n, 28, 28) and labels uint8 (n,) of a key of `SPLITS`.

    With a seed, rows of `learning` and `tuning` are those of a random order, sorted as in the file.

    Raises:
        DataError: Files that cannot be read, or that have no digits of this split.
    """
    # The rows of the split, which a seed chooses from the whole file.
    files, rows = SPLITS[split]
    images, labels = read_split(folder, files)
    chosen = np.arange(len(images))
    if split_seed is not None and split in ("learning", "tuning"):
        chosen = np.random.default_rng(split_seed).permutation(chosen)
    chosen = np.sort(chosen[rows])

    # What is left of the digits.
    images = images[chosen]
    labels = labels[chosen]
    if not len(images):
        raise DataError(
            f"{folder} has no digits after the first {LEARNING_DIGITS:,}, which make up the split {split!r}: give a "
            "folder with the full IDX files"
        )
    return images, labels


def read_split(folder: Path, split: str) -> tuple[np.ndarray, np.ndarray]:
    """Read images uint8 (n, 28, 28) and labels uint8 (n,) from the IDX files of `train` or `test`.

    Raises:
        DataError: A folder or file that does not exist, or a file that is not what its name says.
    """
    if not folder.is_dir():
        raise DataError(
            f"no folder {folder}: name one with the MNIST files, or leave `folder` out for the bundled digits"
        )
    prefix = PREFIXES[split]
    images = _read_idx(_find_file(folder, f"{prefix}-images-idx3-ubyte"), IMAGES_MAGIC, (SIDE, SIDE))
    path = _find_file(folder, f"{prefix}-labels-idx1-ubyte")
    labels = _read_idx(path, LABELS_MAGIC, ())

    # Files of different downloads may be valid each, and not fit together.
    if len(images) != len(labels):
        raise DataError(f"{path} has {len(labels)} labels for {len(images)} images: download both files again")
    if labels.max() > 9:
        raise DataError(f"{path} has a label {labels.max()}; digits are 0 to 9: download the file again")
    return images, labels


def _find_file(folder: Path, name: str) -> Path:
    for path in (folder / name, folder / f"{name}.gz"):
        if path.is_file():
            return path
    raise DataError(f"{folder} lacks {name} (or {name}.gz): put the original IDX file there")


def _read_idx(path: Path, magic: int, shape: tuple[int, ...]) -> np.ndarray:
    """Read uint8 (n, *shape), and no more than the header announces: a small file must not unpack to a huge array.

    Raises:
        DataError: A file that is corrupt, or announces something else.
    """
    try:
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
            return _parse_idx(file, path, magic, shape)  # type: ignore[arg-type]
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise DataError(f"{path} is corrupt or cut short ({error}): download it again") from error
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror or error}") from error


def _parse_idx(file: BinaryIO, path: Path, magic: int, shape: tuple[int, ...]) -> np.ndarray:
    """Parse an IDX file with this magic number and shape of each row; see `_read_idx`."""
    field_count = 2 + len(shape)
    header = file.read(4 * field_count)
    if len(header) < 4 * field_count:
        raise DataError(f"{path} is cut short: it ends within its header. Download it again")

    # Check what the header announces before reading that much.
    actual_magic, count, *sides = struct.unpack(f">{field_count}I", header)
    if actual_magic != magic:
        raise DataError(f"{path} is no such IDX file: it begins with {actual_magic:#010x}, not {magic:#010x}")
    if tuple(sides) != shape or not 1 <= count <= MAX_COUNT:
        announced = "x".join(map(str, (count, *sides)))
        raise DataError(
            f"{path} announces {announced} values; MNIST has images of {SIDE}x{SIDE} and one label for each"
        )

    # Read a byte more than announced, to notice a file that goes on.
    byte_count = count * int(np.prod(shape, dtype=np.int64))
    content = file.read(byte_count + 1)
    if len(content) != byte_count:
        state = "is cut short" if len(content) < byte_count else "goes on after its last value"
        raise DataError(f"{path} {state}: it announces {byte_count} bytes. Download it again")
    return np.frombuffer(content, np.uint8).reshape(count, *shape)
