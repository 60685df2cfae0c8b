"""Read the images of a folder, or of a file of arrays, at once: those that are compared with others."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np

from pggan_kit.api.sample import ARRAYS
from pggan_kit.data.contents import describe_left_out
from pggan_kit.errors import DataError, SettingError
from pggan_kit.layers.value_maps import KINDS
from pggan_kit.pictures.array_reading import ARRAY_SUFFIXES, choose_layout, read_array
from pggan_kit.pictures.decoding import open_picture
from pggan_kit.pictures.reading import SUFFIXES, PictureReader, find_channels, list_pictures
from pggan_kit.system.activities import track_items


def read_comparable_images(fake_folder: Path, real_folder: Path) -> tuple[np.ndarray, np.ndarray]:
    """Return two sets of images (N, C, h, w) as they are, after checking that they are of one size and type.

    Args:
        fake_folder: folder or file of the generated images.
        real_folder: folder or file of the real ones.

    Raises:
        DataError: they differ, or one of the sets cannot be read.
    """
    fake_images = read_images(fake_folder)
    real_images = read_images(real_folder)
    # Gray pictures are colour, too, as a data set in colour reads them.
    if fake_folder.is_dir() and real_folder.is_dir():
        if real_images.shape[1] == 3:
            fake_images = _convert_to_colour(fake_images, fake_folder, real_folder)
        elif fake_images.shape[1] == 3:
            real_images = _convert_to_colour(real_images, real_folder, fake_folder)
    if fake_images.shape[1:] != real_images.shape[1:] or fake_images.dtype != real_images.dtype:
        raise DataError(
            f"{fake_folder} has images of {_describe_shape(fake_images)}, {real_folder} of "
            f"{_describe_shape(real_images)}: make them alike first"
        )
    return fake_images, real_images


def _convert_to_colour(images: np.ndarray, folder: Path, other: Path) -> np.ndarray:
    """Return gray pictures (N, 1, h, w) in three equal channels, and say so; other images as they are."""
    if images.shape[1] != 1 or images.dtype != np.uint8:
        return images
    warnings.warn(f"{folder} is gray and {other} in colour: they are compared in colour", stacklevel=3)
    return images.repeat(3, axis=1)


def read_images(path: Path) -> np.ndarray:
    """Return the images (N, C, h, w) of a folder in the order of their paths, or of an .npy or .npz file.

    Arrays are (N, h, w), (N, h, w, C) or (N, C, h, w), of which the shape tells which. A folder of pictures is read as
    `PictureReader` reads it for training: in gray where all its images are gray, else in colour. One with .npy files,
    or with TIFFs that are no photographs of 8 bits, is read as numbers.

    Raises:
        DataError: there are none, one is damaged, or they differ in size.
    """
    if path.suffix.lower() in ARRAYS:
        return _read_array_file(path)
    if not path.is_dir():
        raise DataError(f"no folder {path}: name a run, a folder of images, or an .npz or .npy file")
    numbers = _read_folder_of_numbers(path)
    if numbers is not None:
        return numbers
    names, left_out = list_pictures(path)
    if len(names) < 2:
        raise DataError(
            f"{path} holds {len(names)} images ({', '.join(SUFFIXES)}): name a run, a folder of images or an .npz file"
        )
    if left_out:
        warnings.warn(f"{path}: {len(names):,} images; {describe_left_out(left_out)}", stacklevel=2)

    # All have the channels and the size of the first.
    files = [path / name for name in names]
    reader = PictureReader(find_channels(track_items(files, f"looking for colour in {path}", len(files))))
    images: list[np.ndarray] = []
    for file in track_items(files, f"reading the images of {path}", len(files)):
        images.append(reader.read(file, str(file)).transpose(2, 0, 1))
        _require_same_size(images[-1], images[0], file)
    for line in reader.list_warnings("datasets.ImageFolder.value_range"):
        warnings.warn(
            f"{path}: {line}, where a run is evaluated; where two folders are compared, save both as TIFFs or .npy "
            "files, which are compared as numbers",
            stacklevel=2,
        )
    return np.stack(images)


def _require_same_size(image: np.ndarray, first: np.ndarray, file: Path) -> None:
    if image.shape != first.shape or image.dtype != first.dtype:
        raise DataError(
            f"{file} has {_describe_image(image)}, and those before it have {_describe_image(first)}: make them alike"
        )


def _describe_image(image: np.ndarray) -> str:
    channels, height, width = image.shape
    return f"{height}x{width} pixels in {channels} channels of {image.dtype}"


def _read_folder_of_numbers(path: Path) -> np.ndarray | None:
    """Return the images (N, C, h, w) of a folder of .npy files or TIFFs that are no photographs; None of another one.

    Raises:
        DataError: one is damaged, or they differ in size.
    """
    names, left_out = list_pictures(path, ARRAY_SUFFIXES)
    holds_pictures = any(kind.lower() in SUFFIXES for kind in left_out)
    if len(names) < 2 or holds_pictures or _holds_photograph(path / names[0]):
        return None
    if left_out:
        warnings.warn(f"{path}: {len(names):,} images; {describe_left_out(left_out)}", stacklevel=2)
    images: list[np.ndarray] = []
    for name in track_items(names, f"reading the images of {path}", len(names)):
        image = read_array(path / name).transpose(2, 0, 1)
        images.append(_check_numbers(image, str(path / name)))
        _require_same_size(images[-1], images[0], path / name)
    return np.stack(images)


def _holds_photograph(file: Path) -> bool:
    """Return whether a file is a picture of 8 bits, in gray or colour."""
    try:
        with open_picture(file) as picture:
            is_deep = picture.mode in ("I", "F") or picture.mode.startswith("I;16")
        PictureReader(3).read(file, str(file))
    except DataError:
        return False
    return not is_deep


def _check_numbers(images: np.ndarray, name: str) -> np.ndarray:
    """Return images in this machine's byte order, floats as float32.

    They are checked to be finite, and of a type that data may have.

    Raises:
        DataError: they are not.
    """
    if images.dtype.kind == "f":
        images = images.astype(np.float32)
    # Files of other machines may have the bytes of a number in another order, which tensors have not.
    images = images.astype(images.dtype.newbyteorder("="), copy=False)
    if images.dtype.name not in KINDS:
        raise DataError(f"{name}: images must be {', '.join(KINDS[:-1])} or {KINDS[-1]}, and are {images.dtype}")
    if images.dtype.kind == "f" and not np.isfinite(images).all():
        raise DataError(f"{name} has numbers that are NaN or infinite")
    return images


def _read_array_file(path: Path) -> np.ndarray:
    try:
        content = np.load(path, allow_pickle=False)
        if isinstance(content, np.ndarray):
            images = content
        else:
            with content:
                images = content["images"]
    except Exception as error:  # a damaged file can raise nearly anything
        raise DataError(
            f"{path} cannot be read as an .npy file, or as an .npz file with an array `images` ({error})"
        ) from error

    # Gray images may have no axis of channels.
    if images.ndim == 3:
        images = images[..., np.newaxis]
    if images.ndim != 4 or len(images) < 2 or not images.size:
        raise DataError(
            f"{path}: images must be (N, h, w), (N, h, w, C) or (N, C, h, w), and are {images.dtype} {images.shape}"
        )
    images = _check_numbers(images, str(path))
    try:
        layout = choose_layout(images.shape, "auto", str(path))
    except SettingError:
        raise DataError(
            f"{path}: the shape {images.shape} does not tell which axis holds the channels: compare images that have "
            "1 or 3 channels, or fewer channels than rows and columns"
        ) from None
    if layout == "NHWC":
        images = images.transpose(0, 3, 1, 2)
    return images


def _describe_shape(images: np.ndarray) -> str:
    _, channels, height, width = images.shape
    return f"{height}x{width} in {channels} channels of {images.dtype}"
