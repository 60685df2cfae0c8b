"""Image files in a folder or a ZIP file."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from pggan_kit import DataError
from pggan_kit.pictures import MAX_PIXELS

from .label_file import NAME, parse_labels
from .picture_dataset import PictureDataset, find_top_folder, read_as_pictures
from .picture_sources import PictureSource, SourceWithFiles, find_pictures

OFF = "set labels = False"
"""How labels are switched off, for messages."""


class ImageFolder(PictureDataset):
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
        reading = read_as_pictures(channels, size, fit, background, on_error, max_pixels, value_range)
        source = find_pictures(Path(folder).expanduser(), max_pixels)
        super().__init__("folder", source, reading)
        if labels:
            self._read_labels(source)

    def _read_labels(self, source: SourceWithFiles) -> None:
        """Give each image its class, by `dataset.json` or else by the sub-folders, whose names are kept.

        Raises:
            DataError: Images without a label, or of one class alone.
        """
        content = source.read_file(NAME)
        if content is None:
            self._set_labels_by_folder(list_class_names(self._source, f"add a {NAME} with a label for each image"), OFF)
            self._count_empty_folders()
            return

        place = self._source.path / NAME
        label_of = parse_labels(content, str(place))
        missing = [file for file in self._files if file not in label_of]
        if missing:
            raise DataError(
                f"{place} has no label for {missing[0]} ({len(missing)} of {len(self._files)} images have none): add "
                f"them to it, or {OFF}"
            )
        self._set_labels([label_of[file] for file in self._files], (), place, OFF)

        # The file is read, and what it says of images that are not there is not.
        self.left_out[".json"] -= 1
        self.left_out["labels without an image"] = len(label_of) - len(self._files)
        self.left_out = {kind: count for kind, count in self.left_out.items() if count}

    def _count_empty_folders(self) -> None:
        """Count the first-level folders without an image as left out: classes after them have a lower number."""
        path = self._source.path
        if not path.is_dir():
            return
        folders = [entry.name for entry in path.iterdir() if entry.is_dir() and not entry.is_symlink()]
        empty = [name for name in folders if not name.startswith(".") and name not in self.class_names]
        if empty:
            self.left_out["sub-folders without an image"] = len(empty)


def list_class_names(source: PictureSource, remedy: str | None = None) -> list[str]:
    """List the names of the first-level sub-folders, sorted.

    Args:
        source: Where the images lie.
        remedy: What else gives images labels, for messages; None where nothing else does.

    Raises:
        DataError: An image that is in no sub-folder, or images in one sub-folder alone.
    """
    # Each image is in a sub-folder, and there are at least two.
    loose = [file for file in source.files if "/" not in file]
    if loose:
        raise DataError(
            f"{source.path / loose[0]} is in no sub-folder, and with labels = True each is a class: "
            f"{_list_remedies('move it', remedy, OFF)}"
        )
    names = sorted({find_top_folder(file) for file in source.files})
    if len(names) == 1:
        raise DataError(
            f"{source.path} has images in the one sub-folder {names[0]} alone, and with labels = True each sub-folder "
            f"is a class: {_list_remedies('give each class a sub-folder', remedy, OFF)}"
        )
    return names


def _list_remedies(first: str, other: str | None, last: str) -> str:
    if other is None:
        return f"{first}, or {last}"
    return f"{first}, {other}, or {last}"
