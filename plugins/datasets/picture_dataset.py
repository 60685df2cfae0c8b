"""What data sets of a picture for each file or entry share, wherever the pictures lie."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, NamedTuple, Protocol

import numpy as np

from pggan_kit import DataError, SkipImage, check_choice
from pggan_kit.pictures import PictureReader

from .conversion import check_channels, check_max_pixels, parse_window
from .framing import Framing
from .picture_sources import UNREADABLE, PictureSource

if TYPE_CHECKING:
    from pggan_kit import Stage


class Reader(Protocol):
    """A reader of one kind of file, for use from several threads.

    Attributes:
        settings: What decides the numbers that are read of a file, as JSON can hold it.
    """

    @property
    def settings(self) -> list[Any]: ...

    def read(self, source: Path | BinaryIO, name: str) -> np.ndarray:
        """Return an image (H, W, C).

        Raises:
            DataError: The file is broken, or is no such image.
        """

    def read_mode(self, source: Path | BinaryIO, name: str) -> str:
        """Return the mode of an image that `read` has read, by its header."""

    def list_warnings(self, setting: str) -> list[str]:
        """Return what was noticed of the images that were read; `setting` is the name of the setting of a range."""


class Reading(NamedTuple):
    """How the entries of a source become images.

    Attributes:
        reader: Reader of an entry.
        skip: Whether a broken entry is left out.
        framing: What becomes of unusual sizes; None where images stay as they are.
    """

    reader: Reader
    skip: bool
    framing: Framing | None = None


def read_as_pictures(
    channels: int,
    size: int | Sequence[int] | None,
    fit: str,
    background: str,
    on_error: str,
    max_pixels: int,
    value_range: Sequence[float] | None,
) -> Reading:
    """Return how photographs and drawings are read; see `datasets.ImageFolder` for the settings.

    Raises:
        SettingError: A setting out of range.
    """
    check_channels(channels)
    check_max_pixels(max_pixels)
    framing = Framing(size, fit, background, channels, max_pixels)
    reader = PictureReader(channels, background, max_pixels, parse_window(value_range))
    return Reading(reader, parse_on_error(on_error), framing)


def parse_on_error(on_error: str) -> bool:
    """Return whether broken entries are left out.

    Raises:
        SettingError: The setting is neither `stop` nor `skip`.
    """
    check_choice("on_error", on_error, ("stop", "skip"))
    return on_error == "skip"


def find_top_folder(file: str) -> str:
    """Return the first-level folder that the path of an entry begins with."""
    return file.partition("/")[0]


class PictureDataset:
    """A data set with an image for each entry of a source.

    Args:
        kind: What fingerprints begin with.
        source: Where the entries lie.
        reading: How they become images.

    Attributes:
        classes: Number of classes; 0 without labels.
        class_names: Names of the classes, in the order of their numbers; empty where they have none.
        left_out: Number of the entries that are not read, by kind, such as `.HEIC`.
    """

    def __init__(self, kind: str, source: PictureSource, reading: Reading) -> None:
        self._kind = kind
        # The source lists its entries once: a run sees what was there when it started.
        self._source = source
        self._files = source.files
        self._reading = reading
        self.left_out = dict(source.left_out)
        self._labels: list[int] | None = None
        self._has_labels_in_names = False
        self.class_names: list[str] = []
        self.classes = 0
        self._hashes: list[str] | None = None

    def _set_labels(self, labels: Sequence[int], class_names: Sequence[str], place: object, remedy: str) -> None:
        """Give each entry a label.

        Args:
            labels: Class number of each entry.
            class_names: Names of the classes; none where they have none.
            place: What says the labels, for messages.
            remedy: How labels are switched off, for messages.

        Raises:
            DataError: All have the same label.
        """
        # One label for all images is a mistake in the folders or in the table.
        if len(set(labels)) == 1:
            label = repr(class_names[labels[0]]) if class_names else labels[0]
            raise DataError(f"{place} gives all images the one label {label}: {remedy}")
        self._labels = list(labels)
        self.class_names = list(class_names)
        self.classes = max(labels) + 1

    def _set_labels_by_folder(self, class_names: Sequence[str], remedy: str) -> None:
        """Give each entry the class of the first-level folder that its name begins with.

        Args:
            class_names: Names of the folders, in the order of their numbers.
            remedy: How labels are switched off, for messages.

        Raises:
            DataError: All are in the same folder.
        """
        number_of = {name: number for number, name in enumerate(class_names)}
        labels = [number_of[find_top_folder(file)] for file in self._files]
        self._set_labels(labels, class_names, self._source.path, remedy)
        self._has_labels_in_names = True

    def __len__(self) -> int:
        return len(self._files)

    def image(self, i: int) -> np.ndarray:
        """Return image i (H, W, C).

        Raises:
            SkipImage: A broken image where `on_error` is `skip`.
            DataError: A broken image where `on_error` is `stop`.
        """
        # A broken image is left out, or ends the run with advice, as the settings say.
        name = self.image_name(i)
        reading = self._reading
        try:
            image = reading.reader.read(self._source.open(self._files[i]), name)
            if reading.framing is not None:
                image = reading.framing.apply(image, name)
            return image
        except DataError as error:
            if reading.skip:
                raise SkipImage(str(error)) from error
            raise DataError(
                f"{error}. Repair it or take it out, or set on_error = 'skip' to leave such files out"
            ) from error

    def image_name(self, i: int) -> str:
        """Return the path of image i."""
        return str(self._source.path / self._files[i])

    def image_mode(self, i: int) -> str:
        """Return the mode of image i in its file."""
        return self._reading.reader.read_mode(self._source.open(self._files[i]), self.image_name(i))

    def label(self, i: int) -> int:
        """Return the class of image i; 0 without labels."""
        if self._labels is None:
            return 0
        return self._labels[i]

    def fingerprint(self) -> str:
        """Return the SHA-256 of the settings, and of each entry's name, content and label, however they were copied.

        The contents are hashed once for each version of a file; see `hash_files`.

        Raises:
            DataError: A file was changed since it was opened.
        """
        if self._hashes is not None:  # which are of an earlier call
            self.check_unchanged()
        labels = [] if self._labels is None or self._has_labels_in_names else [self._labels]
        settings = [*self._list_image_settings(), self._reading.skip, self.classes]
        files = list(zip(self._files, self._hash_pictures(), strict=True))
        content = json.dumps([settings, files, *labels], allow_nan=False).encode()
        return f"{self._kind} {hashlib.sha256(content).hexdigest()}"

    def row_fingerprints(self) -> list[str]:
        """Return the SHA-256 of each entry's content, and how it is read; an empty text for one that is unreadable."""
        settings = json.dumps(self._list_image_settings(), allow_nan=False)
        return ["" if content == UNREADABLE else f"{settings} {content}" for content in self._hash_pictures()]

    def check_unchanged(self) -> None:
        """Check that the files are what they were when they were opened, or hashed where each is opened anew.

        Raises:
            DataError: One was changed.
        """
        self._source.check_unchanged()

    @property
    def location(self) -> str:
        """The path of the source."""
        return str(self._source.path.resolve())

    def _list_image_settings(self) -> list[Any]:
        """Return the settings that change what an image looks like."""
        framing = self._reading.framing
        return [self._reading.reader.settings, *([] if framing is None else framing.settings)]

    def _hash_pictures(self) -> list[str]:
        """Return the hash of each entry as of the first call, like the list of entries."""
        if self._hashes is None:
            self._hashes = self._source.hash_pictures()
        return self._hashes

    def list_warnings(self) -> list[str]:
        """Return what the reader noticed, such as 16-bit images that use a small part of their range."""
        return self._reading.reader.list_warnings(f"datasets.{type(self).__name__}.value_range")

    def check_stages(self, stages: Sequence[Stage]) -> None:
        """Check that padded images have the aspect ratio of the stages.

        Raises:
            DataError: They have another one.
        """
        if self._reading.framing is not None:
            self._reading.framing.check_stages(stages, f"datasets.{type(self).__name__}.size")
