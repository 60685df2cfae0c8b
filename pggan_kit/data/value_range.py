"""Find the range of a data set's numbers that becomes [-1, 1], and say what it cuts off."""

from __future__ import annotations

import hashlib
import json
import math
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from pggan_kit.components import Dataset
from pggan_kit.data.array_files import find_map
from pggan_kit.data.image_kinds import name_image
from pggan_kit.data.level_files import read_description
from pggan_kit.data.settings import MIN_MAX, parse_value_range
from pggan_kit.errors import DataError, RunError, SettingError
from pggan_kit.layers.value_maps import BYTES, Range, ValueMap, read_value_map
from pggan_kit.system.files import write_atomically

MOST_CLIPPED = 0.001
"""Share of a channel's numbers that a range may cut off without a word."""

FEWEST_SHARE = 0.25
"""Share of its range that a channel must use, or something is said."""

CHUNK_BYTES = 64 << 20
"""Maximum bytes of a level that are read at once."""

DRAWN_NUMBERS = 20_000_000
"""Maximum number of floats of a channel from which percentiles are computed."""


def find_value_map(dataset: Dataset, images: np.ndarray, setting: Any) -> ValueMap:
    """Return the map of a data set's numbers to [-1, 1], from a setting or from the numbers themselves.

    Numbers are looked through once: the map is kept beside the level, and what there is to say is said then.

    Args:
        dataset: Data set, for the names of its images.
        images: Images (n, C, h, w) of its largest level.
        setting: Value of `data.value_range`.

    Raises:
        DataError: The numbers have no range of their own, or a channel has one number alone.
        SettingError: There is not one range for each channel.
    """
    kind = images.dtype.name
    channels = images.shape[1]
    parsed = parse_value_range(setting)
    if parsed is None:
        if kind == "uint8":
            return BYTES
        raise DataError(
            f"the images are {kind}, which has no range of its own: set data.value_range to (low, high), to such a "
            f"pair for each channel ({channels}), to 'min_max', or to ('percentile', 0.5, 99.5)"
        )
    if not isinstance(parsed[0], str) and len(parsed) not in (1, channels):
        raise SettingError(
            "data.value_range", f"has {len(parsed)} pairs, and the images {channels} channels: give one for each"
        )

    # The map that is kept, or a new one.
    path = _locate_record(images, parsed)
    if path is not None:
        with suppress(ValueError):
            return read_value_map(read_description(path))
    values = ValueMap(kind, _find_ranges(images, parsed))
    if not values.is_plain:
        spans = _list_spans(images, values)
        for sentence in [*_list_unused(spans), *_describe_clipping(dataset, images, spans)]:
            warnings.warn(sentence, stacklevel=2)
    _write_record(path, values)
    return values


def say_what_is_clipped(dataset: Dataset, images: np.ndarray, values: ValueMap) -> None:
    """Say what the range of other data cuts off of these, unless that was said before.

    Args:
        dataset, images: See `find_value_map`.
        values: Map of the other data's numbers.
    """
    path = _locate_record(images, values.record())
    if values.is_plain or (path is not None and values in _read_records(path)):
        return
    for sentence in _describe_clipping(dataset, images, _list_spans(images, values)):
        warnings.warn(sentence, stacklevel=2)
    _write_record(path, values)


def _read_records(path: Path) -> list[ValueMap]:
    """Return the maps that lie beside the level of a record."""
    records = []
    for other in path.parent.glob(f"{path.name.partition('.')[0]}.*{path.suffix}"):
        with suppress(ValueError):
            records.append(read_value_map(read_description(other)))
    return records


def _write_record(path: Path | None, values: ValueMap) -> None:
    """Write a map beside its level."""
    if path is not None:
        with suppress(RunError):  # a cache that is read-only for this user keeps nothing
            write_atomically(path, json.dumps(values.record(), allow_nan=False).encode())


def _locate_record(images: np.ndarray, parsed: Any) -> Path | None:
    """Return the file of a level's map; None where the level is in no file."""
    mapped = find_map(images)
    if mapped is None or mapped.filename is None:
        return None
    level = Path(mapped.filename)
    name = hashlib.sha256(json.dumps(parsed, allow_nan=False).encode()).hexdigest()[:8]
    return level.with_name(f"{level.name.removesuffix('.images.npy')}.{name}.range")


def _split_rows(images: np.ndarray) -> Iterator[tuple[int, np.ndarray]]:
    """Yield the images (k, C, h, w) in pieces, each with the number of its first one."""
    step = max(1, CHUNK_BYTES // max(1, images[:1].nbytes))
    for first in range(0, len(images), step):
        yield first, images[first : first + step]


def _measure_extremes(images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the smallest and the largest number of each channel, float64 (C,)."""
    pieces = [piece for _, piece in _split_rows(images)]
    low = np.stack([piece.min(axis=(0, 2, 3)) for piece in pieces]).min(axis=0)
    high = np.stack([piece.max(axis=(0, 2, 3)) for piece in pieces]).max(axis=0)
    return low.astype(np.float64), high.astype(np.float64)


def _find_ranges(images: np.ndarray, parsed: Sequence[Any]) -> Sequence[Range]:
    """Return the range of each channel, or one for all.

    Raises:
        DataError: A channel has one number alone, from which no range follows.
    """
    # Ranges that are given in numbers, or measured in the images.
    if not isinstance(parsed[0], str):
        return parsed
    if parsed[0] == MIN_MAX:
        low, high = _measure_extremes(images)
    else:
        ends = [_measure_percentiles(images[:, channel], parsed[1:]) for channel in range(images.shape[1])]
        low, high = np.array(ends).T

    # A channel of one number has no range.
    for channel in np.flatnonzero(low >= high):
        raise DataError(
            f"channel {channel} has the one number {low[channel]:g} in all images, or nearly, from which no range "
            "follows: leave it out, or set data.value_range to a pair for each channel"
        )
    return list(zip(low.tolist(), high.tolist(), strict=True))


def _measure_percentiles(numbers: np.ndarray, shares: Sequence[float]) -> np.ndarray:
    """Return percentiles of a channel (n, h, w): of all whole numbers, or of floats at even distances."""
    if numbers.dtype.kind == "f":
        # A step that divides the rows or the images would draw the same columns or pixels alone.
        pixels = numbers[0].size
        step = -(-numbers.size // DRAWN_NUMBERS)
        while math.gcd(step, pixels) > 1:
            step += 1
        pieces = [piece.reshape(-1)[-first * pixels % step :: step] for first, piece in _split_rows(numbers)]
        drawn = np.concatenate(pieces)
        return np.percentile(drawn.astype(np.float64), shares)

    limits = np.iinfo(numbers.dtype)
    counts = np.zeros(int(limits.max) - int(limits.min) + 1, np.int64)
    for _, piece in _split_rows(numbers):
        counts += np.bincount(piece.reshape(-1).astype(np.int64) - int(limits.min), minlength=len(counts))
    ranks = np.asarray(shares) / 100 * (numbers.size - 1)
    places: np.ndarray = np.searchsorted(np.cumsum(counts), np.rint(ranks), side="right") + int(limits.min)
    return places.astype(np.float64)


class _Span(NamedTuple):
    """The smallest and the largest number of a channel, and its range."""

    channel: int
    least: float
    most: float
    low: float
    high: float


def _list_spans(images: np.ndarray, values: ValueMap) -> list[_Span]:
    """Return the span of each channel."""
    spans = []
    lowest, highest = _measure_extremes(images)
    for channel, (least, most) in enumerate(zip(lowest.tolist(), highest.tolist(), strict=True)):
        spans.append(_Span(channel, least, most, *values.ranges[channel % len(values.ranges)]))
    return spans


def _list_unused(spans: Sequence[_Span]) -> list[str]:
    """Return a sentence for each channel that leaves most of its range unused."""
    sentences = []
    for channel, least, most, low, high in spans:
        # A channel of one number is reported elsewhere.
        if least < most and min(most, high) - max(least, low) < FEWEST_SHARE * (high - low):
            sentences.append(
                f"channel {channel} has numbers from {least:g} to {most:g}, a small part of its range ({low:g}, "
                f"{high:g}): set data.value_range to theirs"
            )
    return sentences


def _describe_clipping(dataset: Dataset, images: np.ndarray, spans: Sequence[_Span]) -> list[str]:
    """Return a sentence on what `data.value_range` cuts off; see `_describe_largest_loss`."""

    def name_row(row: int) -> str:
        # Images that were left out have no row.
        return name_image(dataset, row) if len(dataset) == len(images) else f"row {row} of the resized copies"

    return _describe_largest_loss("data.value_range", images, spans, name_row)


def describe_clipping(cause: str, images: np.ndarray, values: ValueMap, folder: object) -> list[str]:
    """Return a sentence on what a map's ranges cut off, with the image that loses most; none where it is little.

    Args:
        cause: What the ranges are of, as the subject of the sentence.
        images: Images (N, C, h, w).
        values: Map of the numbers.
        folder: Where the images lie, for the message.
    """
    if values.is_plain:
        return []
    spans = _list_spans(images, values)
    return _describe_largest_loss(cause, images, spans, lambda row: f"image {row} of {folder}")


def _describe_largest_loss(
    cause: str, images: np.ndarray, spans: Sequence[_Span], name_row: Callable[[int], str]
) -> list[str]:
    """Return a sentence on what the ranges cut off, with the image that loses most; none where it is little."""
    clipped: dict[int, tuple[np.ndarray, str]] = {}
    for channel, least, most, low, high in spans:
        if least < low or most > high:
            # The share of each image that is cut off.
            pieces = _split_rows(images[:, channel])
            outside = np.concatenate([((piece < low) | (piece > high)).mean(axis=(1, 2)) for _, piece in pieces])
            if outside.mean() > MOST_CLIPPED:
                clipped[channel] = outside, f"numbers from {least:g} to {most:g} and the range ({low:g}, {high:g})"
    if not clipped:
        return []

    channel = max(clipped, key=lambda one: float(clipped[one][0].mean()))
    outside, described = clipped[channel]
    row = int(outside.argmax())
    sentence = (
        f"{cause} cuts off {outside.mean():.2%} of channel {channel}, which has {described}, and "
        f"{outside[row]:.2%} of it in {name_row(row)}"
    ).replace("%", " %")
    if len(clipped) > 1:
        sentence += f"; and something of {len(clipped) - 1} other channels"
    return [sentence]
