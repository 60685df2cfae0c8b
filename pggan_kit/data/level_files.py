"""The files of a level in the cache: whose they are, which pictures are in them, and which rows can be used again."""

from __future__ import annotations

import hashlib
import json
import os
import weakref
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from pggan_kit.components import Dataset
from pggan_kit.data.array_files import find_map, open_array
from pggan_kit.data.image_kinds import ImageKind
from pggan_kit.errors import PluginError, RunError
from pggan_kit.schedule import Size
from pggan_kit.system import locks
from pggan_kit.system.files import read_bytes, write_atomically

DIGEST_WORDS = 4
"""32-bit words of the digest that stands for a picture."""

MODE_WORDS = 2
"""32-bit words of the text that says which mode a picture has in its file."""

MODE_LETTERS = 4 * MODE_WORDS
"""Maximum number of letters of that text."""

SHAPE_PLACE = DIGEST_WORDS
MODE_PLACE = DIGEST_WORDS + 2
"""Where the height and the width, and the mode, begin in a row of the file of rows."""

ROW_WORDS = MODE_PLACE + MODE_WORDS
"""32-bit words of a row of the file of rows: the picture's digest, its height and width, and its mode."""


class LevelFiles(NamedTuple):
    """The paths of a level's files.

    Attributes:
        images: The images (n, C, h, w), of the type of the data.
        labels: int64 (n,).
        rows: uint32 (n, `ROW_WORDS`); zeros for a digest that is not known, and for a mode that is not.
        about: JSON: whose copies these are. Its time of change is the time of the last use, and its lock says that
            somebody uses the level.
    """

    images: Path
    labels: Path
    rows: Path
    about: Path

    @classmethod
    def of_stem(cls, folder: Path, stem: str) -> LevelFiles:
        """Return the paths of the level of this name."""
        return cls(*(folder / f"{stem}.{end}" for end in ("images.npy", "labels.npy", "rows.npy", "json")))

    def use(self) -> int | None:
        """Mark the level as in use, and note the time; return what `locks.share` returns.

        Raises:
            InUseError: Another process is removing the level.
        """
        descriptor = locks.share(self.about)
        if descriptor is not None:
            with suppress(OSError):  # a cache that is read-only for this user notes nothing
                os.utime(self.about)
        return descriptor

    def keep_while_used(self, images: np.ndarray, descriptor: int | None) -> None:
        """Keep the mark of `use` until nobody holds the images any more."""
        if descriptor is not None:
            weakref.finalize(find_map(images), os.close, descriptor)

    def describe(self, description: Mapping[str, Any]) -> None:
        """Write whose copies these are, unless this is written, or the cache is read-only."""
        if not self.about.exists():
            with suppress(RunError):
                write_atomically(self.about, json.dumps(description, allow_nan=False).encode())


def read_description(path: Path) -> dict[str, Any]:
    """Return what a text file of the cache says; nothing where it is missing or corrupt."""
    try:
        content = json.loads(read_bytes(path))
    except (OSError, ValueError, RecursionError):
        return {}
    return content if isinstance(content, dict) else {}


def describe_dataset(dataset: Dataset) -> dict[str, Any]:
    """Return what the cache's files say of a data set."""
    return {
        "dataset": type(dataset).__name__,
        "location": str(getattr(dataset, "location", "")),
        "images": len(dataset),
    }


def digest_rows(dataset: Dataset) -> np.ndarray | None:
    """Return the digest of each picture, uint32 (n, `DIGEST_WORDS`); None where the data set has no such fingerprints.

    Zeros stand for a picture that is always read.

    Raises:
        PluginError: The data set's fingerprints are not one text for each picture.
    """
    # Only some data sets know their pictures one by one.
    method = getattr(dataset, "row_fingerprints", None)
    if method is None:
        return None
    texts = method()
    if len(texts) != len(dataset) or not all(isinstance(text, str) for text in texts):
        raise PluginError(
            f"row_fingerprints() of the data set {type(dataset).__name__} must return a text for each of its "
            f"{len(dataset)} images"
        )

    # A picture without a text gets zeros.
    size = 4 * DIGEST_WORDS
    digests = b"".join(hashlib.sha256(text.encode()).digest()[:size] if text else bytes(size) for text in texts)
    return np.frombuffer(digests, np.uint32).reshape(-1, DIGEST_WORDS)


def encode_mode(mode: str) -> np.ndarray:
    """Return the words that stand for a mode, uint32 (`MODE_WORDS`,); zeros for an empty text.

    Raises:
        PluginError: The text is too long, or has other letters than those of ASCII.
    """
    if not isinstance(mode, str) or not mode.isascii() or len(mode) > MODE_LETTERS:
        raise PluginError(
            f"image_mode() of a data set must return a text of at most {MODE_LETTERS} letters of ASCII, and returns "
            f"{mode!r}"
        )
    return np.frombuffer(mode.encode().ljust(MODE_LETTERS, b"\0"), np.uint32)


def count_modes(rows: np.ndarray) -> dict[str, int]:
    """Return the number of pictures of each mode, by rows of the file of rows, the most frequent one first.

    Pictures without a mode are not counted.
    """
    words = np.ascontiguousarray(rows[:, MODE_PLACE:])
    texts, counts = np.unique(words.view(f"S{MODE_LETTERS}")[:, 0], return_counts=True)
    by_mode = {text.decode(): int(count) for text, count in zip(texts.tolist(), counts, strict=True) if text}
    return dict(sorted(by_mode.items(), key=lambda entry: (-entry[1], entry[0])))


class ReusableRows:
    """Rows of older levels, by the pictures of a data set.

    Args:
        images: Images of the older level of each size (m, C, h, w).
        rows: Row of each picture in them, int64 (n,); -1 where there is none.
        described: Rows of the file of rows of the level of the first size, uint32 (m, `ROW_WORDS`).
    """

    def __init__(self, images: dict[Size, np.ndarray], rows: dict[Size, np.ndarray], described: np.ndarray) -> None:
        self._images = images
        self._rows = rows
        self._described = described
        self._first = next(iter(rows))
        found = np.stack(list(rows.values()))
        self._reusable: np.ndarray = np.all(found >= 0, axis=0)

    def count(self) -> int:
        """Return the number of pictures of which all sizes are there."""
        return int(self._reusable.sum())

    def copy(self, i: int, targets: Mapping[Size, np.ndarray], row: int) -> np.ndarray | None:
        """Copy the picture i into a row of the targets; return its row of the file of rows, or None for no picture."""
        if not self._reusable[i]:
            return None
        for size, images in self._images.items():
            targets[size][row] = images[self._rows[size][i]]
        described: np.ndarray = self._described[self._rows[self._first][i]]
        return described


def find_reusable_rows(
    folder: Path, sizes: Sequence[Size], filter: str, level_format: int, kind: ImageKind, digests: np.ndarray
) -> ReusableRows | None:
    """Find the older copies, at all sizes, that have most of a data set's pictures; None where there are none.

    Args:
        folder: Folder of the levels.
        sizes: Sizes that are needed.
        filter: Filter of the resizing.
        level_format: Format of the levels.
        kind: Channels and type of the images.
        digests: See `digest_rows`.
    """
    # Levels that were made in the same way, by the data set that they are of.
    by_source: dict[str, dict[Size, str]] = {}
    for path in sorted(folder.glob("*.json")):
        about = read_description(path)
        if about.get("filter") != filter or about.get("format") != level_format:
            continue
        size = about.get("size")
        if isinstance(size, list) and tuple(size) in sizes:
            by_source.setdefault(path.stem.split("-")[0], {})[tuple(size)] = path.stem

    # Rows are of use only where all sizes have them.
    best: ReusableRows | None = None
    for stems in by_source.values():
        if len(stems) == len(sizes):
            candidate = _find_rows_of_source(folder, {size: stems[size] for size in sizes}, kind, digests)
            if candidate is not None and candidate.count() > (0 if best is None else best.count()):
                best = candidate
    return best


def _find_rows_of_source(
    folder: Path, stems: Mapping[Size, str], kind: ImageKind, digests: np.ndarray
) -> ReusableRows | None:
    """Return the rows of one data set's levels; None where a level is not whole or has no digests."""
    images = {}
    rows = {}
    first = None

    # Rows are taken from all levels or from none.
    for size, stem in stems.items():
        opened = _open_level_with_rows(LevelFiles.of_stem(folder, stem), kind, size)
        if opened is None:
            return None
        images[size], described = opened
        rows[size] = match_digests(described[:, :DIGEST_WORDS], digests)
        if first is None:
            first = np.array(described)
    assert first is not None
    return ReusableRows(images, rows, first)


def _open_level_with_rows(files: LevelFiles, kind: ImageKind, size: Size) -> tuple[np.ndarray, np.ndarray] | None:
    """Return the images of a level and what its file of rows says, both of one build; None where they are not whole."""
    try:
        descriptor = files.use()
        version = files.rows.stat()
    except (locks.InUseError, OSError):
        return None
    rows = open_array(files.rows, np.uint32, 2)
    images = open_array(files.images, kind.dtype, 4)
    if images is not None:
        files.keep_while_used(images, descriptor)
    elif descriptor is not None:
        os.close(descriptor)
    if rows is None or images is None or rows.shape != (len(images), ROW_WORDS):
        return None
    if images.shape[1:] != (kind.channels, *size):
        return None

    # A process that builds the level again replaces the file of rows before the images.
    try:
        now = files.rows.stat()
    except OSError:
        return None
    if (now.st_ino, now.st_mtime_ns) != (version.st_ino, version.st_mtime_ns):
        return None
    return images, rows


def match_digests(known: np.ndarray, digests: np.ndarray) -> np.ndarray:
    """Return the row among the known digests of each digest, -1 where it is not there or is zero."""
    # The first half of a digest finds a row, and all of it tells whether that is the one.
    keys = _view_first_half(known)
    order = np.argsort(keys, kind="stable")
    place = np.minimum(np.searchsorted(keys[order], _view_first_half(digests)), len(keys) - 1)
    rows = order[place]
    found = (known[rows] == digests).all(1) & digests.any(1)
    return np.where(found, rows, -1)


def _view_first_half(digests: np.ndarray) -> np.ndarray:
    half = np.ascontiguousarray(digests[:, : DIGEST_WORDS // 2])
    return half.view(np.uint64)[:, 0]


def list_sources(folder: Path) -> Iterator[tuple[str, list[Path]]]:
    """Yield the name of each data set that a folder has copies of, and all of its files but the lock."""
    by_source: dict[str, list[Path]] = {}
    with suppress(FileNotFoundError, NotADirectoryError):
        for entry in os.scandir(folder):
            source = entry.name.lstrip(".").split("-")[0]
            if len(source) == SOURCE_DIGITS and set(source) <= set("0123456789abcdef"):
                by_source.setdefault(source, []).append(Path(entry.path))
    yield from sorted(by_source.items())


SOURCE_DIGITS = 16
"""Hexadecimal digits that stand for a data set, at the beginning of its files' names."""
