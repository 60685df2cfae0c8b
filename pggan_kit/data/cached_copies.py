"""List the resized copies in the cache folder, and remove those that nobody uses."""

from __future__ import annotations

import contextlib
import os
import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from filelock import Timeout

from pggan_kit.data.build_journal import JOURNAL_SUFFIX
from pggan_kit.data.level_files import list_sources, read_description
from pggan_kit.errors import DataError, did_you_mean, suggest
from pggan_kit.system import locks
from pggan_kit.system.files import is_unfinished

DAY_SECONDS = 86_400
"""Seconds of a day."""


@dataclass(frozen=True)
class Copies:
    """The resized copies of one data set.

    Attributes:
        name: Name that the cache gives to the data set: another content has another name.
        dataset: Class of the data set, and where its images lie; empty where this is not known.
        images: Number of its images, without those that were left out; None where this is not known.
        sizes: Sizes of the levels, smallest first, such as `8x8`; with the filter where it is not `area`.
        bytes: Bytes on the disk, with those of the sheets that were drawn of it.
        last_used: Time of the last use, in seconds since 1970.
        unfinished: Whether builds have been stopped that can go on.
        in_use: Whether a process uses the copies or makes some, or the file system does not tell.
    """

    name: str
    dataset: str
    images: int | None
    sizes: list[str]
    bytes: int
    last_used: float
    unfinished: bool
    in_use: bool


def list_copies(folder: Path) -> list[Copies]:
    """Return the resized copies in a cache folder, the one that was used last first.

    Args:
        folder: The cache folder, which need not exist.
    """
    place = folder / "pyramids"
    files = dict(list_sources(place))
    sheets = dict(list_sources(folder / "sheets"))
    copies = [_describe(place, name, files.get(name, []), sheets.get(name, [])) for name in {**files, **sheets}]
    return sorted(copies, key=lambda one: -one.last_used)


def _describe(place: Path, name: str, files: Sequence[Path], sheets: Sequence[Path]) -> Copies:
    total = 0
    last_used = 0.0
    dataset = ""
    images = None
    sizes: list[tuple[int, str]] = []
    for path in [*files, *(picture for folder in sheets for picture in folder.glob("*"))]:
        with contextlib.suppress(FileNotFoundError):  # another process has just removed or renamed it
            status = path.stat()
            total += status.st_size
            last_used = max(last_used, status.st_mtime)
        if path.suffix != ".json" and not path.name.endswith(JOURNAL_SUFFIX):
            continue

        # What the copies are of is said beside each level, and in the journal of levels that are being made.
        about = read_description(path)
        dataset = " ".join(filter(None, (str(about.get("dataset", "")), str(about.get("location", "")))))
        images = about.get("images")
        size = about.get("size")
        if isinstance(size, list) and len(size) == 2:
            filter_name = about.get("filter")
            text = f"{size[0]}x{size[1]}" + ("" if filter_name == "area" else f" {filter_name}")
            sizes.append((size[0], text))
    unfinished = any(is_unfinished(path.name) for path in files)
    texts = [text for _, text in sorted(sizes)]
    return Copies(name, dataset, images, texts, total, last_used, unfinished, _is_in_use(place, name, files))


def _is_in_use(place: Path, name: str, files: Sequence[Path]) -> bool:
    if locks.is_locked(place / f"{name}.lock"):
        return True
    for path in files:
        if path.suffix == ".json":
            try:
                descriptor = locks.share(path, alone=True)
            except locks.InUseError:
                return True
            if descriptor is not None:
                os.close(descriptor)
    return False


def choose_copies(copies: Sequence[Copies], names: Sequence[str], older_than: float | None) -> list[Copies]:
    """Return the copies of these names (all without names) that were not used for `older_than` days; None: all.

    Raises:
        DataError: There are none of a name.
    """
    known = {one.name: one for one in copies}
    for name in names:
        if name not in known:
            meant = suggest(did_you_mean(name, known))
            raise DataError(f"there are no resized copies {name}{meant}: `pggan-kit data list` shows all")
    chosen = [one for one in copies if not names or one.name in names]
    if older_than is None:
        return chosen
    return [one for one in chosen if one.last_used < time.time() - older_than * DAY_SECONDS]


def remove_copies(folder: Path, name: str) -> bool:
    """Remove the resized copies and sheets of a data set, unless somebody uses them; return whether they are gone.

    Args:
        folder: The cache folder.
        name: Name of the copies.

    Raises:
        DataError: The folder cannot be written.
    """
    place = folder / "pyramids"
    try:
        # Nobody builds while this lock is held. Its file stays: two processes might lock two files of that name.
        try:
            lock = locks.acquire(place / f"{name}.lock")
        except Timeout:
            return False
        if lock is None:
            return False
        try:
            if not _remove_unused(place, name):
                return False
            for sheets in dict(list_sources(folder / "sheets")).get(name, []):
                shutil.rmtree(sheets)
            return True
        finally:
            lock.release()
    except OSError as error:
        raise DataError(f"cannot remove resized copies in {place}: {error.strerror or error}") from error


def _remove_unused(place: Path, name: str) -> bool:
    files = dict(list_sources(place)).get(name, [])
    with contextlib.ExitStack() as stack:
        for path in files:
            if path.suffix == ".json":
                try:
                    descriptor = locks.share(path, alone=True)
                except locks.InUseError:
                    return False
                if descriptor is not None:
                    stack.callback(os.close, descriptor)

        # Images first: without them, all that is left of a level counts as nothing.
        for path in sorted(files, key=lambda path: not path.name.endswith(".images.npy")):
            path.unlink(missing_ok=True)
    return True


def format_size(count: int) -> str:
    """Return bytes in short: `950 B`, `12.8 MiB`, `23.1 GiB`."""
    size = float(count)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if size < 1024:
            return f"{size:.3g} {unit}"
        size /= 1024
    return f"{size:.3g} TiB"
