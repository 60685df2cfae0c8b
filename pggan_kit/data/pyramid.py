"""The size pyramid: a data set's images at each stage's size, built once and kept on disk as memory maps."""

from __future__ import annotations

import hashlib
import itertools
import json
import secrets
import shutil
import warnings
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from pggan_kit.components import Dataset
from pggan_kit.data.array_files import ArrayWriter, explain_disk_errors, lock_file, open_array
from pggan_kit.data.build_journal import Journal, Progress
from pggan_kit.data.census import Census, take_census
from pggan_kit.data.constant_channels import describe_constant_channels
from pggan_kit.data.contents import check_classes
from pggan_kit.data.image_kinds import ImageKind, find_image_kind
from pggan_kit.data.level_files import (
    ROW_WORDS,
    SOURCE_DIGITS,
    LevelFiles,
    ReusableRows,
    describe_dataset,
    digest_rows,
    find_reusable_rows,
    read_description,
)
from pggan_kit.data.resizing import ResizedChunk, Resizer, count_pixels
from pggan_kit.data.settings import DataSettings
from pggan_kit.errors import DataError, PluginError, UserError
from pggan_kit.layers.value_maps import KINDS
from pggan_kit.schedule import Size
from pggan_kit.system.activities import Activity, report_activity
from pggan_kit.system.cache import cache_folder
from pggan_kit.system.files import UNFINISHED
from pggan_kit.system.locks import InUseError

FORMAT = 3
"""Number in every file's key: raise it when the same source, filter and size would give other bytes than before."""


MOST_REASONS = 20
"""Maximum number of left-out images whose reasons are kept beside a level."""


class Level(NamedTuple):
    """All images at one size.

    Attributes:
        images: The images (n, C, h, w), of the type of the data, one of `KINDS`; memory-mapped and read-only. n is the
            data set's length less what it skipped.
        labels: int64 (n,), or None where there are no labels.
    """

    images: np.ndarray
    labels: np.ndarray | None


class Pyramid:
    """A data set at several sizes, opened from the cache folder and built there where it is missing.

    Each size is made straight from the full-size images: cropped to its aspect ratio around the centre, then resized.
    A file is named by the SHA-256 of format, source, filter and size, so it is reused by every later run and built
    again only if one of them changed; a file of the wrong length or with a wrong header is built again too. All missing
    sizes come from one pass over the images, in `settings.workers` threads (Pillow decodes and resizes outside Python's
    lock, and threads require of a data set only that `image` may be called from several at once).

    Args:
        dataset: Full-size images.
        settings: Filter, cache folder and number of threads.
        sizes: (height, width) of each level.
        fingerprint: Fingerprint of the data set, where it is known. None to ask the data set for it.

    Attributes:
        levels: Levels by size.
        fingerprint: Fingerprint of the data set.

    Raises:
        DataError: The data set has no images or one that cannot be used, too many classes or a label that is out of
            range, or the cache folder cannot be written.
    """

    def __init__(
        self, dataset: Dataset, settings: DataSettings, sizes: Iterable[Size], fingerprint: str | None = None
    ) -> None:
        if len(dataset) == 0:
            raise DataError("the data set holds no images")
        check_classes(dataset)
        self.folder = cache_folder(settings.cache) / "pyramids"
        self.fingerprint = dataset.fingerprint() if fingerprint is None else fingerprint
        # Checkpoints note it, and one that notes something else could not be loaded.
        if type(self.fingerprint) is not str:
            raise PluginError(
                f"fingerprint() of the data set {type(dataset).__name__} must return a string, and returns a "
                f"{type(self.fingerprint).__name__}"
            )
        self._dataset = dataset
        self._settings = settings
        self._source = name_source(self.fingerprint)

        # The folder is touched only where a level is missing: a complete cache may be read-only for this user.
        distinct_sizes = list(dict.fromkeys(sizes))
        self.levels = self._open_levels(distinct_sizes)
        if len(self.levels) < len(distinct_sizes):
            self._build_missing(distinct_sizes)
            self.levels = self._open_levels(distinct_sizes)
        if len(self.levels) < len(distinct_sizes):
            raise DataError(f"files were removed from {self.folder} while they were built: start again")

    def _name_level(self, size: Size, filter: str) -> str:
        """Return what the names of a level's files begin with."""
        return f"{self._source}-{_digest(FORMAT, self.fingerprint, filter, *size)}"

    def _name_files(self, size: Size) -> LevelFiles:
        """Return the paths of the files of a size."""
        return LevelFiles.of_stem(self.folder, self._name_level(size, self._settings.filter))

    def take_census(self) -> Census:
        """Return what the images of the largest level are in their files, as far as its files say it."""
        size = max(self.levels)
        level = self.levels[size]
        files = self._name_files(size)
        return take_census(level.images, level.labels, files, len(self._dataset), self._dataset.classes)

    def _open_levels(self, sizes: Iterable[Size]) -> dict[Size, Level]:
        """Return the levels that are complete in the cache, by size."""
        levels = {}
        for size in sizes:
            level = self._open_level(size)
            if level is not None:
                levels[size] = level
        return levels

    def _open_level(self, size: Size) -> Level | None:
        """Return the level of a size, or None where it is not complete in the cache."""
        files = self._name_files(size)
        images = open_array(files.images, None, 4)
        if images is None or images.dtype.name not in KINDS or images.shape[2:] != size:
            return None
        if not 1 <= len(images) <= len(self._dataset):
            return None
        labels = None
        if self._dataset.classes:
            mapped = open_array(files.labels, np.int64, 1)
            if mapped is None or len(mapped) != len(images):
                return None
            labels = np.array(mapped)

        # From now on `data prune` leaves it alone, unless it was faster.
        files.describe(self._describe_level(size, len(images)))
        try:
            files.keep_while_used(images, files.use())
        except InUseError:
            return None
        return Level(images, labels) if files.images.exists() else None

    def _describe_level(self, size: Size, count: int) -> dict[str, Any]:
        """Return what is written beside a level of `count` images, which may be fewer than the data set has."""
        about = {**describe_dataset(self._dataset), "images": count}
        return {**about, "format": FORMAT, "filter": self._settings.filter, "size": size}

    def _build_missing(self, sizes: Sequence[Size]) -> None:
        """Build the levels that the cache lacks, unless another process is building them."""
        with explain_disk_errors(self.folder):
            self.folder.mkdir(parents=True, exist_ok=True)

        waiting = report_activity("waiting for another process that resizes the same images")
        with ExitStack() as stack:
            with ExitStack() as until_locked:
                lock = lock_file(self.folder / f"{self._source}.lock", lambda: until_locked.enter_context(waiting))
                locked = stack.enter_context(lock)

            # Another process may have built levels while this one waited.
            levels = self._open_levels(sizes)
            missing = [size for size in sizes if size not in levels]
            if locked:
                self._remove_leftovers()
            if missing:
                self._build(missing, locked)

    def _remove_leftovers(self) -> None:
        """Remove the temporary files of processes that were killed, but for builds that can be gone on with."""
        leftovers = set(self.folder.glob(f".{self._source}-*{UNFINISHED}"))
        kept: set[Path] = set()
        for path in leftovers:
            journal = Journal.of_path(path)
            if journal is None:
                continue
            if journal.read(len(self._dataset)) is not None and not self._has_levels_of(read_description(path)):
                kept |= {other for other in leftovers if journal.owns(other)}
        for leftover in leftovers - kept:
            leftover.unlink(missing_ok=True)

    def _has_levels_of(self, description: Mapping[str, Any]) -> bool:
        """Return whether the levels that another build was to make are there, or cannot be made from its files."""
        filter = description.get("filter")
        sizes = description.get("sizes")
        if description.get("format") != FORMAT or not isinstance(filter, str) or not isinstance(sizes, list):
            return True
        levels = (LevelFiles.of_stem(self.folder, self._name_level(tuple(size), filter)) for size in sizes)
        return all(files.images.exists() for files in levels)

    def _build(self, sizes: Sequence[Size], locked: bool) -> None:
        """Build the levels of some sizes in one pass over the images, which may go on from where another one ended.

        Args:
            sizes: The sizes.
            locked: Whether no other process builds levels of this data set: only then can a later one go on.
        """
        total = len(self._dataset)
        kind = find_image_kind(self._dataset)
        digests = digest_rows(self._dataset)
        journal, writers = self._begin_or_go_on(sizes, kind, locked)
        progress = journal.progress
        done_before = progress.images
        self._check_space((total - progress.images) * kind.count_bytes(count_pixels(sizes)))
        reusable = None
        if digests is not None:
            reusable = find_reusable_rows(self.folder, sizes, self._settings.filter, FORMAT, kind, digests)
        self._say_what_is_there(progress, reusable)
        listed = ", ".join(f"{height}x{width}" for height, width in sizes)

        # Files that are left before their commit are removed by the stack, unless another process can go on with them.
        resizer = Resizer(self._dataset, sizes, kind, self._settings.filter, digests, reusable)
        with ExitStack() as stack:
            for writer in writers.list_all():
                stack.enter_context(writer)
            with report_activity(f"resizing images to {listed}", total) as activity:
                if progress.images:
                    activity.advance(progress.images)
                with self._keep_when_stopped(journal, writers):
                    progress = self._resize_all(resizer, writers, journal, progress, activity)
                    self._check_unchanged()
            self._commit(writers, progress.skipped)
        journal.remove()
        self._warn(progress, sizes, kind)
        # A data set may have noticed something about its images: it can judge them where it has just read them all.
        if not done_before and not progress.reused:
            self._warn_of_what_was_noticed()

    def _resize_all(
        self, resizer: Resizer, writers: _Writers, journal: Journal, progress: Progress, activity: Activity
    ) -> Progress:
        """Resize and write all images from where a build stands on, and return its progress at the end."""
        # Threads resize, and this one writes in the data set's order.
        chunks = resizer.split(progress.images)
        for chunk in _run_in_order(resizer.resize_chunk, chunks, self._settings.count_threads()):
            writers.append(chunk)
            # Where a signal ends this before the next line, the chunk is made again: rows beyond the journal's are cut.
            progress = chunk.add_to(progress)
            journal.progress = progress
            if journal.is_due():
                writers.sync()
                journal.write()
            activity.advance(len(chunk.labels) + len(chunk.skipped))

        # The files only need their names then: a kill in the middle of that is unlikely.
        writers.sync()
        return progress

    def _check_unchanged(self) -> None:
        """Let the data set check that it read what its fingerprint is of; one that does not say it is trusted.

        Raises:
            DataError: Its files were changed.
        """
        check: Callable[[], None] | None = getattr(self._dataset, "check_unchanged", None)
        if check is not None:
            check()

    def _begin_or_go_on(self, sizes: Sequence[Size], kind: ImageKind, locked: bool) -> tuple[Journal, _Writers]:
        """Return the journal of a build, which knows how far it is, and writers that stand there."""
        files = {size: self._name_files(size) for size in sizes}
        filter = self._settings.filter
        key = _digest(FORMAT, self.fingerprint, filter, kind.channels, ROW_WORDS, *itertools.chain(*sizes))[:16]
        if not locked:
            key = secrets.token_hex(8)
        about = {**describe_dataset(self._dataset), "format": FORMAT, "filter": filter, "sizes": list(sizes)}
        journal = Journal(self.folder, self._source, key, about)
        progress = journal.read(len(self._dataset))
        if progress is not None:
            writers = _Writers(files, kind, key, progress.rows)
            if all(writer.can_go_on() for writer in writers.list_all()):
                journal.progress = progress
                return journal, writers

        # Nothing is there, or less than the journal says.
        for leftover in self.folder.glob(f".{self._source}-*{UNFINISHED}"):
            if journal.owns(leftover):
                leftover.unlink(missing_ok=True)
        return journal, _Writers(files, kind, key, 0)

    def _say_what_is_there(self, progress: Progress, reusable: ReusableRows | None) -> None:
        """Say that a build goes on, and how many images need not be read again."""
        total = len(self._dataset)

        # What an earlier process wrote.
        if progress.images:
            warnings.warn(
                f"going on with the resized copies at picture {progress.images:,} of {total:,}: an earlier process "
                "stopped there",
                stacklevel=2,
            )

        # What an earlier version of the data has in common with this one.
        reused = 0 if reusable is None else reusable.count()
        if reused:
            rest = f"only the other {total - reused:,} are read" if reused < total else "no other is read"
            warnings.warn(
                f"resized copies of {reused:,} of {total:,} images are taken from those of an earlier version of the "
                f"data: {rest}",
                stacklevel=2,
            )

    @contextmanager
    def _keep_when_stopped(self, journal: Journal, writers: _Writers) -> Iterator[None]:
        """Keep what a build has made where a signal or an unforeseen error ends the block, and say so.

        A user's error, such as a full disk, leaves nothing: what is corrected is another data set, or another folder.
        """
        try:
            yield
        except UserError:
            # What was made of data that are wrong is of no use later.
            journal.remove()
            raise
        except BaseException:
            if journal.progress.rows:
                for writer in writers.list_all():
                    writer.keeps = True
                writers.sync()
                journal.write()
                warnings.warn(
                    f"stopped: the resized copies of {journal.progress.images:,} of {len(self._dataset):,} images are "
                    f"kept in {self.folder}, and the next start goes on from there",
                    stacklevel=2,
                )
            raise

    def _commit(self, writers: _Writers, skipped: Sequence[str]) -> None:
        """Put all files of a build in their places, with the reasons for the first images that it left out."""
        # Images last: those in their place are the sign that all is there, and is of one build. Damaged ones that
        # might look whole beside other labels go before.
        with explain_disk_errors(self.folder):
            for size in writers.images:
                files = self._name_files(size)
                files.images.unlink(missing_ok=True)
                files.rows.unlink(missing_ok=True)
                files.about.unlink(missing_ok=True)
        for size in writers.images:
            count = len(self._dataset) - len(skipped)
            about = {**self._describe_level(size, count), "skipped": list(skipped[:MOST_REASONS])}
            self._name_files(size).describe(about)
        for writer in writers.list_all():
            writer.keeps = False
            writer.commit()

    def _warn(self, progress: Progress, sizes: Sequence[Size], kind: ImageKind) -> None:
        """Warn of images that were skipped, enlarged or rounded, and of channels that have one number alone."""
        total = len(self._dataset)
        skipped = progress.skipped
        enlarged = progress.enlarged
        if kind.is_rounded:
            warnings.warn("the images are float64, and kept as float32", stacklevel=2)
        if skipped:
            names = "\n  ".join(skipped[:5])
            if len(skipped) > 5:
                names += "\n  ..."
            warnings.warn(f"{len(skipped)} of {total} images are left out:\n  {names}", stacklevel=2)
        if enlarged:
            height, width = max(sizes)
            warnings.warn(f"{enlarged} of {total} images are smaller than {height}x{width}, and enlarged", stacklevel=2)

        levels = [level.images for level in self._open_levels(sizes).values()]
        for line in describe_constant_channels(self._dataset, levels, progress.skipped_images):
            warnings.warn(line, stacklevel=2)

    def _warn_of_what_was_noticed(self) -> None:
        """Warn of what the data set noticed about its images."""
        notice: Callable[[], Sequence[str]] = getattr(self._dataset, "list_warnings", list)
        for line in notice():
            warnings.warn(line, stacklevel=2)

    def _check_space(self, needed: int) -> None:
        """Check that the disk has room for a number of bytes: a full disk might show only after an hour of writing."""
        with explain_disk_errors(self.folder):
            free = shutil.disk_usage(self.folder).free
        if needed > free:
            raise DataError(
                f"the resized images need {needed / 2**30:.1f} GiB, and {self.folder} has {free / 2**30:.1f} GiB free: "
                "free some space, or name another folder with data.cache or $PGGAN_KIT_CACHE"
            )


class _Writers:
    """The writers of all files of some levels.

    Args:
        files: Paths by size.
        kind: Channels and type of the images.
        token: What tells the temporary files of this build.
        rows: Number of rows that they hold already.
    """

    def __init__(self, files: Mapping[Size, LevelFiles], kind: ImageKind, token: str, rows: int) -> None:
        self.images: dict[Size, ArrayWriter] = {}
        self._labels = []
        self._rows = []
        for size, paths in files.items():
            self.images[size] = ArrayWriter(paths.images, kind.dtype, (kind.channels, *size), token, rows)
            self._labels.append(ArrayWriter(paths.labels, np.int64, (), token, rows))
            self._rows.append(ArrayWriter(paths.rows, np.uint32, (ROW_WORDS,), token, rows))

    def list_all(self) -> list[ArrayWriter]:
        """Return all writers, those of images last."""
        return [*self._labels, *self._rows, *self.images.values()]

    def append(self, chunk: ResizedChunk) -> None:
        """Append a chunk."""
        for size, writer in self.images.items():
            writer.append(chunk.images[size])
        for writer in self._labels:
            writer.append(chunk.labels)
        for writer in self._rows:
            writer.append(chunk.rows)

    def sync(self) -> None:
        """Return when everything is safely on the disk."""
        for writer in self.list_all():
            writer.sync()


def _run_in_order(
    work: Callable[[range], ResizedChunk], chunks: Iterator[range], threads: int
) -> Iterator[ResizedChunk]:
    """Yield the result of each chunk in order, with no more than two for each thread in memory."""
    if threads == 1:
        yield from map(work, chunks)
        return
    pool = ThreadPoolExecutor(threads, thread_name_prefix="pyramid")
    running: deque[Future[ResizedChunk]] = deque()
    try:
        # Two chunks for each thread at first, then another one whenever a result is taken.
        for chunk in itertools.islice(chunks, 2 * threads):
            running.append(pool.submit(work, chunk))
        while running:
            yield running.popleft().result()
            for chunk in itertools.islice(chunks, 1):
                running.append(pool.submit(work, chunk))
    finally:
        pool.shutdown(cancel_futures=True)


def name_source(fingerprint: str) -> str:
    """Return the name of a data set in the cache."""
    return _digest(fingerprint)[:SOURCE_DIGITS]


def _digest(*fields: str | int) -> str:
    """Return the first 32 digits of the SHA-256 of some fields."""
    return hashlib.sha256(json.dumps(fields, allow_nan=False).encode()).hexdigest()[:32]
