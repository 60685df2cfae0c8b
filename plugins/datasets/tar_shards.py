"""Find the pictures in tar files as WebDataset has them, and read them from where they lie."""

from __future__ import annotations

import io
import os
import re
import tarfile
from collections import Counter
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import BinaryIO, NamedTuple

from pggan_kit import DataError, track_items
from pggan_kit.pictures import SUFFIXES

from .file_versions import FileVersions
from .picture_sources import LARGEST_FILE, find_largest_bytes, hash_entries

BRACES = re.compile(r"\{(\d+)\.\.(\d+)\}")
"""Range of numbers in the names of shards, as WebDataset writes it: `{000000..000146}`."""

MOST_SHARDS = 1_000_000
"""Maximum number of shards that braces stand for."""


class Place(NamedTuple):
    """Where a file lies.

    Attributes:
        shard: Tar file.
        start: Number of its first byte there.
        bytes: Its length.
    """

    shard: Path
    start: int
    bytes: int


class ShardSource:
    """The pictures in tar files, and the other files of their samples.

    A sample is what WebDataset takes for one: the files of one tar whose paths are the same up to the first dot of the
    file's name. The rest is the key of each file: `cls`, `json`, `front.jpg`.

    Args:
        shards: Paths of the tar files.
        key: Key of the pictures; None for the one picture of each sample.
        max_pixels: Maximum number of pixels of a picture.

    Attributes:
        path: Folder that all tar files are in.
        files: Name of each picture, `train-000000.tar/0001.jpg`, in the order of the files.
        samples: Places of the files of each picture's sample, by their keys.
        left_out: Number of the entries that are not read, by kind.

    Raises:
        DataError: A tar file that cannot be read, samples with several pictures, or no pictures.
    """

    def __init__(self, shards: Sequence[Path], key: str | None, max_pixels: int) -> None:
        self.path = Path(os.path.commonpath([shard.parent for shard in shards]))
        self._shards = shards
        self._key = key
        self._largest = find_largest_bytes(max_pixels)
        self._versions = FileVersions(self.path, [os.path.relpath(shard, self.path) for shard in shards])
        self.files: list[str] = []
        self.samples: list[dict[str, Place]] = []
        self._places: dict[str, Place] = {}

        # Each shard is listed once; its files are read where they lie in it.
        counts: Counter[str] = Counter()
        for shard in track_items(shards, f"listing what is in {self.path}", len(shards), "shards"):
            for stem, sample in _list_samples(shard, counts).items():
                self._add(shard, stem, sample, counts)
        if not self.files:
            wanted = f"files .{key}" if key is not None else f"pictures ({', '.join(SUFFIXES)})"
            raise DataError(f"{self._describe()} holds no {wanted}")
        self.left_out = dict(sorted(counts.items()))

    def _describe(self) -> str:
        return str(self._shards[0]) if len(self._shards) == 1 else f"{self.path} ({len(self._shards)} shards)"

    def _add(self, shard: Path, stem: str, sample: dict[str, Place], counts: Counter[str]) -> None:
        """Add a sample, if it has a picture, and count what is not read of it."""
        if self._key is None:
            keys = [key for key in sample if PurePosixPath(f"x.{key}").suffix.lower() in SUFFIXES]
        else:
            keys = [key for key in sample if key == self._key]
        if len(keys) > 1:
            raise DataError(
                f"{shard}: the sample {stem} has the pictures {', '.join(f'.{key}' for key in keys)}: set "
                f"datasets.WebDataset.image_key to one of them, such as {keys[0]!r}"
            )
        if not keys:
            counts["samples without a picture"] += 1
            return

        # What lies beside the picture is counted, since nothing reads it unless it has the labels.
        name = f"{shard.relative_to(self.path).as_posix()}/{stem}.{keys[0]}"
        self.files.append(name)
        self.samples.append(sample)
        self._places[name] = sample[keys[0]]
        for key in sample:
            if key != keys[0]:
                counts[f".{key}"] += 1

    def open(self, name: str) -> BinaryIO:
        """Return the content of a picture.

        Raises:
            DataError: It is cut off or too large.
        """
        return io.BytesIO(self._read_picture(name))

    def hash_pictures(self) -> list[str]:
        """Return the SHA-256 of each picture's content, or `UNREADABLE`; each version of the shards is read once."""
        settings = f"tar {self._key} {self._largest}"
        return hash_entries(self.files, self._read_picture, self._shards, self.check_unchanged, settings)

    def check_unchanged(self) -> None:
        """Check that all tar files are what they were when they were opened.

        Raises:
            DataError: One was changed.
        """
        self._versions.check_unchanged()

    def read_place(self, place: Place, largest: int = LARGEST_FILE) -> bytes:
        """Return the content of a file.

        Raises:
            DataError: It is cut off or too large.
        """
        if place.bytes > largest:
            raise DataError(f"{place.shard}: a file in it has {place.bytes} bytes, above the limit of {largest}")
        try:
            with place.shard.open("rb") as stream:
                stream.seek(place.start)
                content = stream.read(place.bytes)
        except OSError as error:
            raise DataError(f"{place.shard}: cannot be read ({error.strerror or error})") from error
        if len(content) < place.bytes:
            raise DataError(f"{place.shard}: is cut off, within a file: copy it again")
        return content

    def _read_picture(self, name: str) -> bytes:
        return self.read_place(self._places[name], self._largest)


def _list_samples(shard: Path, counts: Counter[str]) -> dict[str, dict[str, Place]]:
    """Return the files of each sample of a tar file by their keys, and count what is no file of a sample.

    Raises:
        DataError: It cannot be read.
    """
    samples: dict[str, dict[str, Place]] = {}
    try:
        # Nothing is unpacked: only headers are read, and pictures later from where they lie.
        with tarfile.open(shard, "r:") as tar:
            for member in tar:
                if member.isdir():
                    continue
                name = PurePosixPath(member.name)
                if any(part.startswith(".") for part in name.parts):
                    counts["hidden"] += 1
                    continue
                if not member.isreg() or member.issparse():
                    counts["no regular files"] += 1
                    continue
                first, _, key = name.name.partition(".")
                stem = (name.parent / first).as_posix()
                files = samples.setdefault(stem, {})
                if key in files:
                    raise DataError(f"{shard} has two files {member.name}: make it again with one of them")
                files[key] = Place(shard, member.offset_data, member.size)
    except DataError:
        raise
    except Exception as error:  # a corrupt file can raise nearly anything
        raise DataError(
            f"{shard} cannot be read as a tar file without compression ({error}): unpack it if it is compressed, or "
            "copy it again"
        ) from error
    return samples


def find_shards(pattern: Path) -> list[Path]:
    """Return the tar files that a path stands for: a file, a folder of them, a pattern with `*`, or braces.

    Raises:
        DataError: There are none, or one that braces name is missing.
    """
    text = str(pattern)
    if pattern.is_dir():
        shards = sorted(pattern.glob("*.tar"))
    elif BRACES.search(text):
        shards = _expand_braces(text)
        missing = [shard for shard in shards if not shard.is_file()]
        if missing:
            raise DataError(
                f"no file {missing[0]}, one of {len(shards)} shards of {text}: copy it, or change the range"
            )
    elif pattern.is_file():
        shards = [pattern]
    else:
        folder, rest = _split_pattern(pattern)
        shards = sorted(path for path in folder.glob(rest) if path.is_file())

    # A folder and a pattern may match nothing.
    if not shards:
        raise DataError(
            f"no tar files at {text}: set datasets.WebDataset.shards to one, to a folder of them, or to names such as "
            "'train-*.tar' or 'train-{000000..000146}.tar'"
        )
    return shards


def _split_pattern(pattern: Path) -> tuple[Path, str]:
    """Return the folder that a pattern begins with, whose name may have brackets, and the rest of the pattern."""
    folder = Path(pattern.anchor)
    rest = list(pattern.relative_to(pattern.anchor).parts)
    while len(rest) > 1 and (folder / rest[0]).is_dir():
        folder /= rest.pop(0)
    return folder, "/".join(rest)


def _expand_braces(text: str) -> list[Path]:
    """Return a path for each number of each range in braces, with leading zeros as in the first one."""
    texts = [text]
    while (found := BRACES.search(texts[0])) is not None:
        first, last = found.group(1), found.group(2)
        numbers = range(int(first), int(last) + 1)
        if not numbers or len(texts) * len(numbers) > MOST_SHARDS:
            raise DataError(
                f"{found.group(0)} in {text} stands for {len(texts) * len(numbers):,} shards: mend the range"
            )
        width = len(first)
        texts = [BRACES.sub(f"{number:0{width}d}", one, count=1) for one in texts for number in numbers]
    return [Path(one) for one in texts]
