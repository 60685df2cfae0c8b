"""Reduce pictures to the means of the areas that their pixels cover: exact sums of whole numbers, rounded once.

Sums of floats are taken in float64, and rounded to float32 once.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from functools import lru_cache
from typing import NamedTuple

import numpy as np

from pggan_kit.schedule import Size

SIGN = np.uint16(0x8000)
"""Bit that turns 16-bit numbers with a sign into those from 0 up, in the same order."""


class _Sums(NamedTuple):
    """Weighted sums of pixels.

    Attributes:
        values: Numbers (w, C, h): rows of the first axis lie in one piece, where most of the work is.
        weight: Sum of the weights in each of them.
        largest: Largest whole number that a pixel may have; 0 for floats.
    """

    values: np.ndarray
    weight: int
    largest: int


def average_areas(pixels: np.ndarray, sizes: Iterable[Size]) -> Iterator[tuple[Size, np.ndarray]]:
    """Yield a picture at each of several sizes, where each pixel is the mean of what it covers.

    The picture is read once, for the largest size. The sums of a smaller one are sums of sums where its sides divide
    those, and so are exact too.

    Args:
        pixels: uint8, uint16, int16 or float32 (H, W, C).
        sizes: (height, width) of the results.

    Yields:
        The size, and the picture (C, h, w) of the same type.
    """
    # Whole numbers from 0 up, of which halves round up.
    if pixels.dtype == np.int16:
        shifted = pixels.view(np.uint16) ^ SIGN
        for size, means in average_areas(shifted, sizes):
            yield size, (means ^ SIGN).view(np.int16)
        return

    largest = 0 if pixels.dtype.kind == "f" else int(np.iinfo(pixels.dtype).max)
    sums: _Sums | None = None
    for height, width in sorted(sizes, reverse=True):
        if (height, width) == pixels.shape[:2]:
            yield (height, width), pixels.transpose(2, 0, 1)
            continue
        if sums is None or sums.values.shape[0] % width or sums.values.shape[2] % height:
            rows = _sum_along(_Sums(pixels, 1, largest), 0, height)
            sums = rows._replace(values=np.ascontiguousarray(rows.values.transpose(1, 2, 0)))
        else:
            sums = _sum_along(sums, 2, height)
        sums = _sum_along(sums, 0, width)
        yield (height, width), _divide(sums, pixels.dtype).transpose(1, 2, 0)


def _divide(sums: _Sums, kind: np.dtype[np.generic]) -> np.ndarray:
    """Return the means (w, C, h) of a type; whole ones rounded to the nearest, halves up."""
    if not sums.largest:
        return (sums.values / sums.weight).astype(kind)
    # Without fractions: floor(s / w + 1/2) = floor((s + floor(w / 2)) / w) for whole numbers.
    means = sums.values.astype(_choose_type(2 * sums.weight * sums.largest))
    means += means.dtype.type(sums.weight // 2)
    means //= means.dtype.type(sums.weight)
    return means.astype(kind)


def _choose_type(largest: int) -> type[np.generic]:
    """Return the smallest type that holds sums up to a largest one; that of sums of floats where it is 0."""
    if not largest:
        return np.float64
    for kind in (np.uint16, np.uint32):
        if largest <= np.iinfo(kind).max:
            return kind
    return np.uint64


def _sum_along(sums: _Sums, axis: int, length: int) -> _Sums:
    """Sum over `length` equal intervals along an axis, which may begin or end within a pixel.

    Args:
        sums: Sums of pixels.
        axis: The axis.
        length: Number of intervals.
    """
    values, weight, largest = sums
    source = values.shape[axis]
    if source == length:
        return sums

    factor, rest = divmod(source, length)
    if rest == 0:
        kind = _choose_type(weight * factor * largest)
        before = (slice(None),) * axis
        first, *others = [(*before, slice(start, None, factor)) for start in range(factor)]
        total = values[first].astype(kind)
        for places in others:
            total += values[places]
        return _Sums(total, weight * factor, largest)

    # Weights are whole numbers too, in units of a fraction of a pixel.
    unit = math.gcd(source, length)
    kind = _choose_type(weight * source // unit * largest)
    shape = [1] * values.ndim
    shape[axis] = length
    whole = values.astype(kind)
    products = []
    for pixels, weights in _find_overlaps(source // unit, length // unit, unit):
        product = whole.take(pixels, axis)
        product *= weights.astype(kind).reshape(shape)
        products.append(product)
    total, *rest_of_products = products
    for product in rest_of_products:
        total += product
    return _Sums(total, weight * source // unit, largest)


@lru_cache(maxsize=256)
def _find_overlaps(source: int, length: int, repeats: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """Find what each of `length` equal intervals over `source` pixels covers, and so on in each repetition of these.

    Returns:
        Pairs of one pixel for each interval, and the pixel's weight there in units of 1/length of a pixel: the first
        that each interval covers, the second that each covers, and so on; the weight is 0 where an interval has fewer.
    """
    starts = np.arange(length * repeats) * source
    ends = starts + source
    first = starts // length
    most = int((-(-ends // length) - first).max())
    overlaps = []
    for place in range(most):
        pixels = first + place
        covered = np.minimum((pixels + 1) * length, ends) - np.maximum(pixels * length, starts)
        overlaps.append((np.minimum(pixels, source * repeats - 1), np.maximum(covered, 0)))
    return overlaps
