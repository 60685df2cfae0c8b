"""Test that data sets keep their contract."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from numbers import Integral
from typing import Any

import numpy as np

from pggan_kit.data.level_files import MODE_LETTERS
from pggan_kit.errors import SkipImage
from pggan_kit.layers.value_maps import KINDS
from pggan_kit.testing.suite import Suite
from pggan_kit.testing.support import require


class DatasetSuite(Suite):
    """Full-size images; `make` must give the same data at each call.

    Attributes:
        looked_at: Number of images that are looked at, spread evenly, the first and the last among them.
    """

    kind = "datasets"
    looked_at = 8

    def make_others(self) -> Sequence[Any]:
        """Return the data set with other settings, each of which changes its images, labels or length; none here.

        Their fingerprints must differ: a setting that `fingerprint` forgets lets runs train on copies that were made
        with another one.
        """
        return ()

    def choose_indices(self, length: int) -> list[int]:
        """Return the indices of the images that are looked at."""
        step = (length - 1) / max(1, self.looked_at - 1)
        return sorted({round(i * step) for i in range(self.looked_at)})

    def test_length(self) -> None:
        """Require images."""
        require(len(self.make()) > 0, "the data set is empty")

    def test_images(self) -> None:
        """Require (H, W, C) of a type that data may have, all with the same C and type, and finite."""
        dataset = self.make()

        # Each image by itself.
        channels = set()
        types = set()
        for i in self.choose_indices(len(dataset)):
            image = read_image(dataset, i)
            if image is None:
                continue
            require(isinstance(image, np.ndarray), f"image({i}) is a {type(image).__name__}, no NumPy array")
            require(
                image.dtype.name in (*KINDS, "float16", "float64"),
                f"image({i}) is {image.dtype}, not {', '.join(KINDS[:-1])} or {KINDS[-1]}",
            )
            require(image.ndim == 3 and image.size > 0, f"image({i}) has shape {image.shape}, not (H, W, C)")
            require(bool(np.isfinite(image).all()), f"image({i}) has numbers that are NaN or infinite")
            channels.add(image.shape[2])
            types.add(image.dtype.name)

        # All images together.
        require(len(channels) > 0, f"each of the images {self.choose_indices(len(dataset))} is left out (SkipImage)")
        require(len(channels) == 1, f"some images have {min(channels)} channels and some {max(channels)}")
        require(len(types) == 1, f"some images are {min(types)} and some {max(types)}")

    def test_labels(self) -> None:
        """Require integers in [0, classes), 0 where there are no classes."""
        dataset = self.make()
        other = self.make()
        classes = dataset.classes
        require(isinstance(classes, Integral) and int(classes) >= 0, f"classes is {classes!r}, no number from 0 up")
        require(classes != 1, "classes is 1: a single class says nothing, so give 0, or the number of all classes")
        bound = max(1, classes)
        for i in self.choose_indices(len(dataset)):
            if read_image(dataset, i) is None:
                continue  # nobody asks for the label of an image that is left out
            label = dataset.label(i)
            require(isinstance(label, Integral), f"label({i}) is a {type(label).__name__}, no integer")
            require(0 <= label < bound, f"label({i}) is {label}, outside [0, {bound}) ({classes} classes)")
            require(
                label == dataset.label(i) == other.label(i),
                f"label({i}) is not the same each time it is read: draw no random numbers",
            )

    def test_class_names(self) -> None:
        """Require a name for each class, of a data set that names its classes."""
        dataset = self.make()
        names = getattr(dataset, "class_names", [])
        are_texts = isinstance(names, list) and all(isinstance(name, str) for name in names)
        require(are_texts, f"class_names is {names!r}, no list of texts")
        require(len(names) in (0, dataset.classes), f"class_names has {len(names)} names for {dataset.classes} classes")

    def test_image_mode(self) -> None:
        """Require short texts, of a data set that knows the modes of its files."""
        dataset = self.make()
        if hasattr(dataset, "image_mode"):
            for i in self.choose_indices(len(dataset)):
                if read_image(dataset, i) is None:
                    continue
                mode = dataset.image_mode(i)
                is_short = isinstance(mode, str) and mode.isascii() and len(mode) <= MODE_LETTERS
                require(is_short, f"image_mode({i}) is {mode!r}, no text of at most {MODE_LETTERS} letters of ASCII")

    def test_left_out(self) -> None:
        """Require counts by kind, of a data set that says what it did not read."""
        left_out = getattr(self.make(), "left_out", {})
        are_counts = isinstance(left_out, dict) and all(
            isinstance(kind, str) and isinstance(count, Integral) and int(count) > 0 for kind, count in left_out.items()
        )
        require(are_counts, f"left_out is {left_out!r}, no numbers from 1 up by kind")

    def test_list_warnings(self) -> None:
        """Require sentences, of a data set that has warnings about its images."""
        dataset = self.make()
        if hasattr(dataset, "list_warnings"):
            read_image(dataset, 0)
            lines = dataset.list_warnings()
            are_texts = isinstance(lines, list) and all(isinstance(line, str) for line in lines)
            require(are_texts, f"list_warnings() returns {lines!r}, no list of texts")

    def test_same_image_each_time(self) -> None:
        """Require the same image at each reading, also by another object, or none: augmentations belong elsewhere."""
        dataset = self.make()
        other = self.make()
        for i in self.choose_indices(len(dataset)):
            first = read_image(dataset, i)
            require(
                np.array_equal(first, read_image(dataset, i)) and np.array_equal(first, read_image(other, i)),
                f"image({i}) is not the same each time it is read",
            )

    def test_threads(self) -> None:
        """Require the same images where several threads read at once."""
        dataset = self.make()
        indices = self.choose_indices(len(dataset)) * 4
        alone = [read_image(dataset, i) for i in indices]
        with ThreadPoolExecutor(4) as pool:
            together = list(pool.map(lambda i: read_image(dataset, i), indices))
        for i, image, wanted in zip(indices, together, alone, strict=True):
            require(np.array_equal(image, wanted), f"image({i}) differs when several threads read at once")

    def test_fingerprint(self) -> None:
        """Require a text that is the same for the same data."""
        dataset = self.make()
        fingerprints = [dataset.fingerprint(), dataset.fingerprint(), self.make().fingerprint()]
        are_texts = all(isinstance(text, str) and text for text in fingerprints)
        require(are_texts, "fingerprint() is no text, or an empty one")
        require(
            len(set(fingerprints)) == 1,
            "fingerprint() differs from call to call, or object to object, for the same data: resized copies would be "
            "made again in each run",
        )

    def test_other_fingerprints(self) -> None:
        """Require different fingerprints of `make` and each of `make_others`, where images or labels differ."""
        datasets = [self.make(), *self.make_others()]
        names = ["make()", *(f"make_others()[{number}]" for number in range(len(datasets) - 1))]
        contents = [self._read_looked_at(dataset) for dataset in datasets]
        for number in range(1, len(datasets)):
            require(
                contents[number] != contents[0],
                f"{names[number]} has the same images and labels as make(): choose settings that change them",
            )
            for before in range(number):
                require(
                    contents[number] == contents[before]
                    or datasets[number].fingerprint() != datasets[before].fingerprint(),
                    f"{names[number]} has other images or labels than {names[before]}, and the same fingerprint(): "
                    "include all settings that change them, or runs train on resized copies that were made with others",
                )

    def _read_looked_at(self, dataset: Any) -> list[Any]:
        """Return length, and shapes, types, numbers and labels of the images that are looked at."""
        content: list[Any] = [len(dataset)]
        for i in self.choose_indices(len(dataset)):
            image = read_image(dataset, i)
            if image is not None:
                content.append((image.shape, image.dtype.name, image.tobytes(), int(dataset.label(i))))
        return content

    def test_row_fingerprints(self) -> None:
        """Require a text for each image that is the same for the same image; data sets without such texts pass."""
        dataset = self.make()
        if not hasattr(dataset, "row_fingerprints"):
            return

        # A text for each image, the same for each object.
        texts = list(dataset.row_fingerprints())
        are_texts = len(texts) == len(dataset) and all(isinstance(text, str) for text in texts)
        require(are_texts, f"row_fingerprints() has not one text for each of {len(dataset)} images")
        require(
            texts == list(self.make().row_fingerprints()),
            "row_fingerprints() differs from object to object for the same data: no image would be found again",
        )

        # Images that share a text are equal.
        image_of: dict[str, int] = {}
        for i in self.choose_indices(len(dataset)):
            first = image_of.setdefault(texts[i], i)
            if texts[i] and first != i:
                same = np.array_equal(read_image(dataset, i), read_image(dataset, first))
                require(same, f"row_fingerprints() is the same for images {first} and {i}, which differ")


def read_image(dataset: Any, i: int) -> Any:
    """Return a copy of what `image` returns, None where the data set leaves the image out (`SkipImage`)."""
    try:
        return copy.copy(dataset.image(i))
    except SkipImage:
        return None
