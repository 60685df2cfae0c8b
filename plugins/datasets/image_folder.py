"""Image files in a folder or a ZIP file."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from pggan_kit import DataError, SettingError, SkipImage, check_choice
from pggan_kit.pictures import MAX_PIXELS, PictureReader

from .conversion import check_channels, check_max_pixels, parse_colour, parse_window
from .label_file import NAME, parse_labels
from .picture_sources import UNREADABLE, PictureSource, find_pictures

if TYPE_CHECKING:
    from pggan_kit import Stage


class ImageFolder:
    """PNG, JPEG, WebP, BMP and TIFF files in a folder and its sub-folders, or in a ZIP, in the order of their paths.

    Images may be of any mode and differ in size. Transparent ones are composited on `background`, 16-bit ones scaled
    to 8 bits, and all are rotated as their EXIF says. Hidden files and folders, links to folders and files of other
    kinds are not read, but counted.

    Images of unusual sizes:

    * `fit = 'crop'`, no `size`: each image stays as it is; the core centre-crops it to the stages' aspect ratio.
    * `fit = 'crop'` with a `size`: the central `size` pixels. A smaller image counts as broken.
    * `fit = 'pad'`, no `size`: bars of `background` make each image square.
    * `fit = 'pad'` with a `size`: bars enlarge it to `size`, or to the aspect ratio of `size` where it is larger.
      Stages that are not square need it.

    Args:
        folder: The folder with the images, or a ZIP file with them, stored or deflated.
        channels: 1 for gray, 3 for colour; images are converted.
        size: A side or (height, width), in pixels; nothing is resized here. None: see above.
        fit: `crop` or `pad`.
        background: A colour in CSS notation, `white` or `#ffcc00`.
        on_error: `stop` to fail with the name of a broken image, `skip` to leave it out and count it.
        labels: Whether images have labels: the class numbers in the file `dataset.json` of the folder or ZIP, as
            StyleGAN's tools write it; or, where there is no such file, the first-level sub-folders, numbered in the
            order of their names.
        max_pixels: The most pixels of an image, at most Pillow's 178,956,970; a larger one counts as broken, by its
            header.
        value_range: The pair (low, high) of values of 16-bit and 32-bit gray images that become 0 and 255; values
            outside are clipped. None: 0 to 65535, and 32-bit images count as broken.

    Attributes:
        classes: The number of classes; 0 without labels.
        class_names: The sub-folders' names, in the order of their numbers; empty where `dataset.json` has the labels.

    Raises:
        ValueError: An argument out of range.
        DataError: A folder or ZIP that does not exist, is corrupt or holds no images, or labels that cannot be used.
    """

    def __init__(
        self,
        folder: str | Path,
        channels: int = 3,
        size: int | Sequence[int] | None = None,
        fit: str = "crop",
        background: str = "white",
        on_error: str = "stop",
        labels: bool = False,
        max_pixels: int = MAX_PIXELS,
        value_range: Sequence[float] | None = None,
    ) -> None:
        check_channels(channels)
        check_choice("fit", fit, ("crop", "pad"))
        check_choice("on_error", on_error, ("stop", "skip"))
        check_max_pixels(max_pixels)
        self._background = parse_colour(background, channels)
        self._reader = PictureReader(channels, background, max_pixels, parse_window(value_range))
        self._size = _parse_size(size)
        self._fit = fit
        self._skip = on_error == "skip"

        # List the folder once: a run sees the files that were there when it started.
        self._source = find_pictures(Path(folder).expanduser(), max_pixels)
        self._files = self._source.files
        self._left_out = dict(self._source.left_out)
        self._labels: list[int] | None = None
        self.class_names: list[str] = []
        self.classes = 0
        if labels:
            self._labels = self._read_labels()
            self.classes = max(self._labels) + 1
        self._hashes: list[str] | None = None

    def __len__(self) -> int:
        return len(self._files)

    def image(self, i: int) -> np.ndarray:
        """Return image i as uint8 (H, W, channels).

        Raises:
            SkipImage: A broken image where `on_error` is `skip`.
            DataError: A broken image where `on_error` is `stop`.
        """
        path = self._source.path / self._files[i]
        try:
            file = self._source.open(self._files[i])
            return self._fit_to_size(self._reader.read(file, str(path)), path)
        except DataError as error:
            if self._skip:
                raise SkipImage(str(error)) from error
            raise DataError(
                f"{error}. Repair it or take it out, or set on_error = 'skip' to leave such files out"
            ) from error

    def label(self, i: int) -> int:
        """Return the class of image i; 0 without labels."""
        if self._labels is None:
            return 0
        return self._labels[i]

    @property
    def left_out(self) -> dict[str, int]:
        """The number of entries of the folder or ZIP that are not read, by kind, such as `.HEIC`."""
        return self._left_out

    def fingerprint(self) -> str:
        """Return the SHA-256 of the settings, and of each file's path, content and label, however they were copied.

        A ZIP has the fingerprint of the folder that it was made from. The contents are hashed once for each version of
        a file; see `hash_files`.
        """
        # The paths tell the classes of sub-folders.
        labels = [self._labels] if self._labels is not None and not self.class_names else []
        settings = [*self._list_image_settings(), self._skip, self.classes]
        files = list(zip(self._files, self._hash_pictures(), strict=True))
        content = json.dumps([settings, files, *labels], allow_nan=False).encode()
        return f"folder {hashlib.sha256(content).hexdigest()}"

    def row_fingerprints(self) -> list[str]:
        """Return the SHA-256 of each file's content, and how it is read; an empty text for one that cannot be read."""
        settings = json.dumps(self._list_image_settings(), allow_nan=False)
        return ["" if content == UNREADABLE else f"{settings} {content}" for content in self._hash_pictures()]

    @property
    def location(self) -> str:
        """The path of the folder or ZIP."""
        return str(self._source.path.resolve())

    def _list_image_settings(self) -> list[Any]:
        """Return the settings that change what an image looks like."""
        return [self._reader.settings, self._size, self._fit]

    def _hash_pictures(self) -> list[str]:
        """Return the hash of each picture as of the first call, like the list of files."""
        if self._hashes is None:
            self._hashes = self._source.hash_pictures()
        return self._hashes

    def list_warnings(self) -> list[str]:
        """Return a warning if the 16-bit images that were read use a small part of their range."""
        return self._reader.list_warnings("datasets.ImageFolder.value_range")

    def check_stages(self, stages: Sequence[Stage]) -> None:
        """Check that padded images have the aspect ratio of the stages: else the core would cut the bars off again.

        Raises:
            DataError: They have another one.
        """
        if self._fit != "pad":
            return
        height, width = self._size or (1, 1)
        for stage in stages:
            if height * stage.width != width * stage.height:
                raise DataError(
                    f"fit = 'pad' makes images of the aspect ratio {height}:{width}, and the stage {stage.size} would "
                    f"crop them: set datasets.ImageFolder.size = ({stage.height}, {stage.width})"
                )

    def _read_labels(self) -> list[int]:
        """Return the class of each image, by `dataset.json` or else by the sub-folders, whose names are kept.

        Raises:
            DataError: Images without a label, or of one class alone.
        """
        content = self._source.read_file(NAME)
        if content is None:
            self.class_names = list_class_names(self._source)
            numbers = {name: number for number, name in enumerate(self.class_names)}
            return [numbers[file.split("/")[0]] for file in self._files]

        place = self._source.path / NAME
        label_of = parse_labels(content, str(place))
        missing = [file for file in self._files if file not in label_of]
        if missing:
            raise DataError(
                f"{place} has no label for {missing[0]} ({len(missing)} of {len(self._files)} images have none): add "
                "them to it, or set labels = False"
            )
        labels = [label_of[file] for file in self._files]
        if len(set(labels)) == 1:
            raise DataError(f"{place} gives all images the one label {labels[0]}: set labels = False")

        # The file is read, and what it says of images that are not there is not.
        self._left_out[".json"] -= 1
        self._left_out["labels without an image"] = len(label_of) - len(self._files)
        self._left_out = {kind: count for kind, count in self._left_out.items() if count}
        return labels

    def _fit_to_size(self, image: np.ndarray, path: Path) -> np.ndarray:
        """Crop or pad an image (H, W, C) to the size asked for.

        Raises:
            DataError: An image that is too small to be cropped.
        """
        height, width = image.shape[:2]

        if self._fit == "pad":
            size = _find_padded_size(height, width, self._size or (1, 1))
            padded = np.empty((*size, image.shape[2]), np.uint8)
            padded[:] = self._background
            _view_centre(padded, (height, width))[:] = image
            return padded

        # Without a size the core crops, to the aspect ratio of the stages.
        if self._size is None:
            return image
        size = self._size
        if height < size[0] or width < size[1]:
            raise DataError(f"{path}: is {height}x{width} pixels, too small to be cropped to {size[0]}x{size[1]}")
        return _view_centre(image, size)


def _find_padded_size(height: int, width: int, size: tuple[int, int]) -> tuple[int, int]:
    """Return the smallest size that holds an image, is at least `size`, and has its aspect ratio, but for rounding."""
    scale = max(1, height / size[0], width / size[1])
    return max(height, round(scale * size[0])), max(width, round(scale * size[1]))


def _view_centre(image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Return a view of the central (height, width) pixels."""
    top = (image.shape[0] - size[0]) // 2
    left = (image.shape[1] - size[1]) // 2
    return image[top : top + size[0], left : left + size[1]]


def _parse_size(size: int | Sequence[int] | None) -> tuple[int, int] | None:
    """Return a size as (height, width), or None.

    Raises:
        SettingError: A value that is neither a side nor such a pair.
    """
    if size is None:
        return None

    # gin hands over lists as well as tuples.
    pair: tuple[int, ...] = ()
    if isinstance(size, int):
        pair = (size, size)
    elif isinstance(size, (list, tuple)):
        pair = tuple(size)
    if len(pair) != 2 or not all(isinstance(n, int) and not isinstance(n, bool) and n >= 1 for n in pair):
        raise SettingError("size", f"must be a side or (height, width) of at least 1, or None, not {size!r}")
    return pair[0], pair[1]


def list_class_names(source: PictureSource) -> list[str]:
    """List the names of the first-level sub-folders, sorted.

    Raises:
        DataError: An image that is in no sub-folder, or images in one sub-folder alone.
    """
    loose = [file for file in source.files if "/" not in file]
    if loose:
        raise DataError(
            f"{source.path / loose[0]} is in no sub-folder, and with labels = True each is a class: move it, or add a "
            f"{NAME} with a label for each image"
        )
    names = sorted({file.split("/")[0] for file in source.files})
    if len(names) == 1:
        raise DataError(
            f"{source.path} has images in the one sub-folder {names[0]} alone, and with labels = True each sub-folder "
            f"is a class: give each class a sub-folder, add a {NAME} with a label for each image, or set labels = False"
        )
    return names
