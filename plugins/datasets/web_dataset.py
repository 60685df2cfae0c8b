"""Pictures in tar files, as WebDataset has them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from pggan_kit import DataError, SettingError
from pggan_kit.pictures import MAX_PIXELS

from .picture_dataset import PictureDataset, read_as_pictures
from .tar_shards import ShardSource, find_shards

OFF = "set label_key = None"
"""How labels are switched off, for messages."""


class WebDataset(PictureDataset):
    """The pictures of tar files as WebDataset writes them, without its library: `0001.jpg` beside `0001.cls`.

    Pictures are read as `datasets.ImageFolder` reads files, from where they lie in the tar files, which must not be
    compressed. Their order is that of the shards' names and of the files in them.

    Args:
        shards: A tar file, a folder of them, or names such as `train-*.tar` or `train-{000000..000146}.tar`.
        image_key: What follows the first dot in the names of the pictures, e.g. `jpg` or `front.png`. None: the one
            picture of each sample.
        label_key: What follows the first dot in the names of the files with the labels: `cls` for a class number in
            each, or `json`. None: no labels.
        label_field: The field of the JSON files that has the class number.
        channels: 1 for gray, 3 for colour; images are converted.
        size: A side or (height, width); see `datasets.ImageFolder`.
        fit: `crop` or `pad`; see `datasets.ImageFolder`.
        background: A colour in CSS notation, for bars and behind transparent pixels.
        on_error: `stop` to fail with the name of a broken image, `skip` to leave it out and count it.
        max_pixels: The most pixels of an image; a larger one counts as broken.
        value_range: The pair (low, high) of values of 16-bit and 32-bit gray images that become 0 and 255; see
            `datasets.ImageFolder`.

    Attributes:
        classes: The largest label plus 1; 0 without labels.

    Raises:
        ValueError: An argument out of range.
        DataError: Shards that do not exist, cannot be read or hold no pictures, or labels that are missing or cannot be
            used.
    """

    def __init__(
        self,
        shards: str | Path,
        image_key: str | None = None,
        label_key: str | None = None,
        label_field: str = "label",
        channels: int = 3,
        size: int | Sequence[int] | None = None,
        fit: str = "crop",
        background: str = "white",
        on_error: str = "stop",
        max_pixels: int = MAX_PIXELS,
        value_range: Sequence[float] | None = None,
    ) -> None:
        reading = read_as_pictures(channels, size, fit, background, on_error, max_pixels, value_range)
        for name, value in (("image_key", image_key), ("label_key", label_key)):
            if value is not None and (not isinstance(value, str) or not value or value.startswith(".")):
                raise SettingError(name, f"must be what follows the dot, such as 'jpg' or 'cls', not {value!r}")
        if not isinstance(label_field, str) or not label_field:
            raise SettingError("label_field", f"must be the name of a field of the JSON files, not {label_field!r}")
        source = ShardSource(find_shards(Path(shards).expanduser()), image_key, max_pixels)
        super().__init__("web dataset", source, reading)
        if label_key is not None:
            self._set_labels(_read_labels(source, label_key, label_field), (), source.path, OFF)
            # They are read, one for each picture.
            del self.left_out[f".{label_key}"]


def _read_labels(source: ShardSource, key: str, field: str) -> list[int]:
    """Return the class number of each picture.

    Raises:
        DataError: A label is missing, or is no class number.
    """
    is_json = key.split(".")[-1] == "json"
    wanted = f"a field {field!r} with a class number" if is_json else "a class number"
    labels = []
    for name, sample in zip(source.files, source.samples, strict=True):
        place = sample.get(key)
        if place is None:
            raise DataError(f"{source.path / name} has no label: there is no .{key} beside it; add it, or {OFF}")

        # What cannot be parsed, or is another kind of value, is one mistake.
        content = source.read_place(place)
        try:
            value = json.loads(content)[field] if is_json else int(content)
        except (ValueError, RecursionError, KeyError, TypeError, IndexError):
            value = None
        if not isinstance(value, int) or isinstance(value, bool) or value < 0:
            raise DataError(
                f"{source.path / name} has no label: the .{key} beside it must hold {wanted} from 0 up; mend it, or "
                f"{OFF}"
            )
        labels.append(value)
    return labels
