"""Reduce pictures to the means of the areas that their pixels cover: exact sums of whole numbers, rounded once.

Sums of floats are taken in float64, in the same order on every machine, and rounded to float32 once. Whole numbers that
float32 holds exactly have the same sum in any order, so that a matrix product may take it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import lru_cache
from math import gcd
from typing import NamedTuple

import numpy as np

from pggan_kit.schedule import Size

SIGN = np.uint16(0x8000)
"""Bit that turns 16-bit numbers with a sign into those from 0 up, in the same order."""

BAND_BYTES = 1 << 18
"""Bytes of the rows that are summed at a time: what is computed of them stays in the processor's cache."""


PERIODS = range(16, 129)
"""Pixels after which the overlaps of a line repeat, for which a matrix product is faster than sums: for fewer there are
too few multiplications in it, and for more too many of them are by 0."""

LARGEST_PRODUCT = 1 << 18
"""Multiplications of a matrix product up to which OpenBLAS takes one thread: pictures are resized by threads."""


class _Sums(NamedTuple):
    """Weighted sums of pixels.

    Attributes:
        values: Numbers (C, h, w).
        weight: Sum of the weights in each of them.
        largest: Largest whole number that a pixel may have; 0 for floats.
    """

    values: np.ndarray
    weight: int
    largest: int


class _Overlaps(NamedTuple):
    """The pixels that each of some equal intervals along an axis covers, at one place: first, second, and so on.

    Attributes:
        intervals: Numbers of the intervals that cover a pixel at this place, in their order.
        pixels: Pixel of each of them.
        weights: Weight of each of these pixels, in units of a fraction of a pixel.
    """

    intervals: np.ndarray
    pixels: np.ndarray
    weights: np.ndarray


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

    sums: _Sums | None = None
    for height, width in sorted(sizes, reverse=True):
        if (height, width) == pixels.shape[:2]:
            yield (height, width), pixels.transpose(2, 0, 1)
            continue
        if sums is None or sums.values.shape[1] % height or sums.values.shape[2] % width:
            sums = _sum_areas(pixels, height, width)
        else:
            sums = _sum_blocks(sums, height, width)
        yield (height, width), _divide(sums, pixels.dtype)


def _divide(sums: _Sums, kind: np.dtype[np.generic]) -> np.ndarray:
    """Return the means (C, h, w) of a type; whole ones rounded to the nearest, halves up."""
    values, weight, largest = sums
    if not largest:
        return (values / weight).astype(kind)
    # floor(s / w + 1/2) = floor((s + floor(w / 2)) / w) for whole numbers. A quotient of floats is rounded, but never
    # up to the next whole number: it is at least 1/w below that, and both numbers are exact (see `_choose_type`).
    divide = np.floor_divide if values.dtype.kind == "u" else np.divide
    half = values.dtype.type(weight // 2)
    means = np.empty_like(values, kind)
    for band in _split_rows(values):
        divide(values[:, band] + half, values.dtype.type(weight), out=means[:, band], casting="unsafe")
    return means


def _split_rows(values: np.ndarray) -> Iterator[slice]:
    """Yield the bands of rows of sums (C, h, w)."""
    height = values.shape[1]
    step = max(1, BAND_BYTES * height // values.nbytes)
    for start in range(0, height, step):
        yield slice(start, start + step)


def _choose_type(weight: int, largest: int) -> type[np.generic]:
    """Return the smallest type that holds weighted sums of pixels, and half the weight more, without rounding.

    Args:
        weight: Sum of the weights.
        largest: Largest whole number that a pixel may have; 0 for floats. No picture that fits into memory has sums of
            whole numbers that float64 cannot hold.
    """
    most = weight * (largest + 1)
    if not largest:
        return np.float64
    if most <= np.iinfo(np.uint16).max:
        return np.uint16
    return np.float32 if most <= 2**24 else np.float64


def _sum_blocks(sums: _Sums, height: int, width: int) -> _Sums:
    """Sum over blocks of sums, to a size whose sides divide theirs."""
    values, weight, largest = sums
    rows = values.shape[1] // height
    columns = values.shape[2] // width
    weight *= rows * columns
    kind = _choose_type(weight, largest)
    # Rows of the picture lie in one piece, so they are added up first.
    values = _add([values[:, start::rows] for start in range(rows)], kind)
    values = _add([values[:, :, start::columns] for start in range(columns)], kind)
    return _Sums(values, weight, largest)


def _add(terms: list[np.ndarray], kind: type[np.generic], out: np.ndarray | None = None) -> np.ndarray:
    """Return the sum of arrays of one shape, as numbers of a type; in `out` if it is given."""
    if len(terms) == 1:
        if out is None:
            return terms[0].astype(kind, copy=False)
        out[...] = terms[0]
        return out
    total: np.ndarray = np.add(terms[0], terms[1], out=out, dtype=kind)
    for term in terms[2:]:
        total += term
    return total


def _sum_areas(pixels: np.ndarray, height: int, width: int) -> _Sums:
    """Sum what each pixel of a size covers, which may begin or end within a pixel of the picture.

    Args:
        pixels: Picture (H, W, C).
        height: Height of the result.
        width: Width of the result.
    """
    # The smallest types that hold the sums: of rows alone, and of rows and columns.
    full_height, full_width, channels = pixels.shape
    largest = 0 if pixels.dtype.kind == "f" else int(np.iinfo(pixels.dtype).max)
    row_weight = full_height // gcd(full_height, height)
    column_weight = full_width // gcd(full_width, width)
    weight = row_weight * column_weight
    row_kind = _choose_type(row_weight, largest)
    kind = _choose_type(weight, largest)
    lines = np.ascontiguousarray(pixels).reshape(full_height, full_width * channels)

    # Rows first, a band at a time, and then the columns of their sums in the quickest way that there is.
    values = np.empty((channels, height, width), kind)
    step = max(1, BAND_BYTES // (lines.shape[1] * np.dtype(row_kind).itemsize))
    for start in range(0, height, step):
        stop = min(height, start + step)
        rows = _sum_lines(lines, height, range(start, stop), row_kind)
        rows = rows.reshape(stop - start, full_width, channels)
        if full_width % width == 0:
            factor = full_width // width
            terms = [rows[:, place::factor].transpose(2, 0, 1) for place in range(factor)]
            _add(terms, kind, values[:, start:stop])
        elif kind == np.float32 and column_weight in PERIODS:
            _multiply_columns(rows, values[:, start:stop])
        else:
            columns = np.ascontiguousarray(rows.transpose(1, 2, 0)).reshape(full_width, -1)
            sums = _sum_lines(columns, width, range(width), kind)
            values[:, start:stop] = sums.reshape(width, channels, -1).transpose(1, 2, 0)
    return _Sums(values, weight, largest)


def _multiply_columns(rows: np.ndarray, sums: np.ndarray) -> None:
    """Sum lines over equal intervals by matrix products, a period of their overlaps at a time.

    Args:
        rows: Whole numbers (n, W, C).
        sums: Sums (C, n, w), float32, which are written.
    """
    # Weights of one period, after which the overlaps repeat.
    count, full_width, channels = rows.shape
    width = sums.shape[2]
    weights = _make_period(full_width, width)
    period, length = weights.shape

    # One channel at a time, so that a period is a row of a matrix.
    planes = np.empty((channels, count, full_width), np.float32)
    np.copyto(planes, rows.transpose(2, 0, 1), casting="unsafe")
    step = max(1, LARGEST_PRODUCT // (full_width * length))
    for plane, own_sums in zip(planes, sums, strict=True):
        for start in range(0, count, step):
            lines = plane[start : start + step].reshape(-1, period)
            np.matmul(lines, weights, out=own_sums[start : start + step].reshape(-1, length))


@lru_cache(maxsize=64)
def _make_period(source: int, length: int) -> np.ndarray:
    """Return the weights (pixels, intervals) of the shortest part of a line after which overlaps repeat."""
    unit = gcd(source, length)
    weights = np.zeros((source // unit, length // unit), np.float32)
    for intervals, pixels, covered in _find_overlaps(source // unit, length // unit):
        weights[pixels, intervals] = covered
    return weights


def _sum_lines(lines: np.ndarray, length: int, intervals: range, kind: type[np.generic]) -> np.ndarray:
    """Return weighted sums of lines over some of `length` equal intervals.

    Args:
        lines: Numbers (n, k).
        length: Number of intervals over n.
        intervals: Numbers of those that are wanted.
        kind: Type of the sums.

    Returns:
        Sums (len(intervals), k).
    """
    first, last = intervals.start, intervals.stop
    factor, rest = divmod(len(lines), length)
    if rest == 0:
        return _add([lines[place + first * factor : last * factor : factor] for place in range(factor)], kind)

    total = np.empty((len(intervals), lines.shape[1]), kind)
    products = np.empty_like(total)
    taken = np.empty(total.shape, lines.dtype)
    for place, (numbers, pixels, weights) in enumerate(_find_overlaps(len(lines), length)):
        begin, end = np.searchsorted(numbers, (first, last))
        own_weights = weights[begin:end, None].astype(kind)
        if end - begin < len(intervals):
            total[numbers[begin:end] - first] += lines.take(pixels[begin:end], 0) * own_weights
            continue
        # NumPy multiplies numbers of one type twice as fast as those of two.
        target = products if place else total
        lines.take(pixels[begin:end], 0, out=taken, mode="clip")
        np.copyto(target, taken)
        target *= own_weights
        if place:
            total += products
    return total


@lru_cache(maxsize=256)
def _find_overlaps(source: int, length: int) -> list[_Overlaps]:
    """Find what each of `length` equal intervals over `source` pixels covers, in units of 1/length of a pixel."""
    unit = gcd(source, length)
    starts = np.arange(length) * source
    ends = starts + source
    first = starts // length
    counts = -(-ends // length) - first
    overlaps = []
    for place in range(int(counts.max())):
        numbers = np.flatnonzero(counts > place)
        pixels = first[numbers] + place
        covered = np.minimum((pixels + 1) * length, ends[numbers]) - np.maximum(pixels * length, starts[numbers])
        overlaps.append(_Overlaps(numbers, pixels, covered // unit))
    return overlaps
