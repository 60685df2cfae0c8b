"""Count the sizes, modes and classes of a data set's images as their files have them, and what was left out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from pggan_kit.data.array_files import open_array
from pggan_kit.data.level_files import MODE_PLACE, ROW_WORDS, SHAPE_PLACE, LevelFiles, count_modes, read_description
from pggan_kit.schedule import Size

MOST_CLASSES = 12
"""Maximum number of classes that are listed one by one."""

MOST_NAMES = 5
"""Maximum number of left-out images that are named."""


class Census(NamedTuple):
    """What the images of a level are in their files.

    Attributes:
        kind: Type of the numbers.
        channels: Number of channels.
        sizes: Number of different sizes; 0 where they are not known.
        smallest: Size with the fewest pixels.
        largest: Size with the most pixels.
        modes: Number of images by their mode, the most frequent one first; nothing where files have none.
        class_counts: Number of images of each class; nothing without labels.
        skipped: Number of images that were left out.
        reasons: Reasons for the first of them, as far as they are known.
    """

    kind: str
    channels: int
    sizes: int
    smallest: Size
    largest: Size
    modes: dict[str, int]
    class_counts: list[int]
    skipped: int
    reasons: list[str]

    def list_lines(self, class_names: Sequence[str] = ()) -> list[str]:
        """Return what there is to say, in lines.

        Args:
            class_names: Names of the classes by their numbers; none where they have no names.
        """
        # What is in the files.
        lines = []
        if self.sizes == 1:
            lines.append(f"size in the files, height x width: {_format_size(self.smallest)}")
        elif self.sizes:
            lines.append(
                f"sizes in the files, height x width: {self.sizes:,}, from {_format_size(self.smallest)} to "
                f"{_format_size(self.largest)}"
            )
        if self.modes:
            lines.append(f"modes in the files: {_list_counts(self.modes)}")

        # What the data set makes of it.
        lines.append(f"kept as: {self.kind}, {self.channels} channel{'' if self.channels == 1 else 's'}")
        transparent = sum(count for mode, count in self.modes.items() if _is_transparent(mode))
        if transparent and self.channels in (1, 3):
            images = "image" if transparent == 1 else "images"
            lines.append(
                f"transparency: not kept, of {transparent:,} {images}; the background of the data set replaces it"
            )
        if self.class_counts:
            lines.append(self._describe_classes(class_names))
        if self.skipped:
            lines.append(f"left out: {self.skipped:,}, because they could not be read")
            lines += [f"  {reason}" for reason in self.reasons[:MOST_NAMES]]
            if self.skipped > MOST_NAMES and self.reasons:
                lines.append("  ...")
        return lines

    def _describe_classes(self, names: Sequence[str]) -> str:
        counts = self.class_counts
        if len(counts) > MOST_CLASSES:
            return f"classes: {len(counts):,}, of {min(counts):,} to {max(counts):,} images"
        labels = names or [str(number) for number in range(len(counts))]
        return f"classes: {len(counts)} ({_list_counts(dict(zip(labels, counts, strict=True)))})"


def take_census(images: np.ndarray, labels: np.ndarray | None, files: LevelFiles, total: int, classes: int) -> Census:
    """Return what the images of a level are in their files.

    Args:
        images: The images (n, C, h, w).
        labels: int64 (n,); None where there are no labels.
        files: Paths of the level's files.
        total: Number of images of the data set, with those that were left out.
        classes: Number of classes.
    """
    distinct = np.zeros((0, 2), np.int64)
    modes: dict[str, int] = {}
    rows = open_array(files.rows, np.uint32, 2)
    # Copies that an earlier version made have no such rows.
    if rows is not None and rows.shape == (len(images), ROW_WORDS):
        distinct = np.unique(rows[:, SHAPE_PLACE:MODE_PLACE], axis=0).astype(np.int64)
        modes = count_modes(rows)
    smallest = (0, 0)
    largest = (0, 0)
    if len(distinct):
        pixels = distinct.prod(axis=1)
        smallest = _to_size(distinct[pixels.argmin()])
        largest = _to_size(distinct[pixels.argmax()])

    class_counts: list[int] = []
    if labels is not None:
        class_counts = np.bincount(labels, minlength=classes).tolist()
    skipped = total - len(images)
    reasons = read_description(files.about).get("skipped")
    if not skipped or not isinstance(reasons, list):
        reasons = []
    return Census(
        images.dtype.name,
        int(images.shape[1]),
        len(distinct),
        smallest,
        largest,
        modes,
        class_counts,
        skipped,
        [str(reason) for reason in reasons],
    )


def _is_transparent(mode: str) -> bool:
    """Return whether a mode has transparency: it ends in A before or after the depth, as RGBA;16, LA and I;16+A do."""
    return mode.partition(";")[0].endswith(("A", "a")) or mode.endswith("+A")


def _list_counts(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{name}: {count:,}" for name, count in counts.items())


def _to_size(row: np.ndarray) -> Size:
    return int(row[0]), int(row[1])


def _format_size(size: Size) -> str:
    return f"{size[0]}x{size[1]}"
