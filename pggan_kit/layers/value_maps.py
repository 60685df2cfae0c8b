"""Map a data set's numbers to those that networks see, in [-1, 1], and back to the data's own units."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pggan_kit.layers.tensors import images_from_uint8, images_to_uint8

KINDS = ("uint8", "uint16", "int16", "float32")
"""Types of numbers that data keep on the disk."""

Range = tuple[float, float]
"""The numbers that become -1 and 1."""

BYTE_RANGE: Range = (0.0, 255.0)
"""Range of 8-bit data where nothing else is said."""


class ValueMap:
    """What a data set's numbers mean: their type, and for each channel the range that becomes [-1, 1].

    Numbers outside the range are clipped, on the way to networks and on the way back.

    Args:
        kind: One of `KINDS`.
        ranges: Pair (low, high) for each channel, low below high; a single pair is that of all channels.
    """

    def __init__(self, kind: str, ranges: Sequence[Sequence[float]]) -> None:
        assert kind in KINDS
        self.kind = kind
        self.ranges: tuple[Range, ...] = tuple((float(low), float(high)) for low, high in ranges)
        # For each device, (C, 1, 1): the lower end, and half of the width. They are made once, and keep their storage.
        self._placed: dict[torch.device, tuple[Tensor, Tensor]] = {}

    @property
    def is_plain(self) -> bool:
        """Return whether these are bytes from 0 to 255."""
        return self.kind == "uint8" and all(pair == BYTE_RANGE for pair in self.ranges)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, ValueMap) and (self.kind, self.ranges) == (other.kind, other.ranges)

    def __hash__(self) -> int:
        return hash((self.kind, self.ranges))

    def __str__(self) -> str:
        listed = ", ".join(f"({low:.9g}, {high:.9g})" for low, high in self.ranges)
        return f"{self.kind} {listed}"

    def __getstate__(self) -> dict[str, Any]:
        return {"kind": self.kind, "ranges": self.ranges, "_placed": {}}

    def place(self, device: torch.device) -> tuple[Tensor, Tensor]:
        """Return the lower ends and half of the widths of the ranges, float32 (C, 1, 1), on a device."""
        if device not in self._placed:
            low, high = torch.tensor(self.ranges, dtype=torch.float64).T[:, :, None, None]
            self._placed[device] = (low.float().to(device), ((high - low) / 2).float().to(device))
        return self._placed[device]

    def to_images(self, pixels: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
        """Map the data's numbers (N, C, h, w), as `hold_in_tensor` holds them, to images of a dtype in [-1, 1].

        All operations are the device's own: none waits for it, and a CUDA graph can record them.
        """
        if self.is_plain:
            return images_from_uint8(pixels, dtype)
        if self.kind == "uint16":
            pixels = pixels.int() & 0xFFFF
        low, half = self.place(pixels.device)
        return ((pixels.float() - low) / half - 1.0).clamp(-1.0, 1.0).to(dtype)

    def to_units(self, images: Tensor) -> Tensor:
        """Map images (N, C, h, w) in [-1, 1] to the data's own numbers and type; whole numbers are rounded."""
        if self.is_plain:
            return images_to_uint8(images)
        low, half = (ends.double() for ends in self.place(images.device))
        numbers = (images.double().clamp(-1.0, 1.0) + 1.0) * half + low
        if self.kind == "float32":
            return numbers.float()
        kind = getattr(torch, self.kind)
        limits = torch.iinfo(kind)
        return numbers.round().clamp(limits.min, limits.max).int().to(kind)

    def round_images(self, images: Tensor) -> Tensor:
        """Round images in [-1, 1] to values that the data can hold; floats are clipped alone, as reals are."""
        if self.kind == "float32":
            return images.float().clamp(-1.0, 1.0)
        units = self.to_units(images)
        if self.kind == "uint16":
            units = units.view(torch.int16)
        return self.to_images(units)

    def record(self) -> dict[str, Any]:
        """Return the map as plain data."""
        return {"type": self.kind, "ranges": [list(pair) for pair in self.ranges]}


BYTES = ValueMap("uint8", (BYTE_RANGE,))
"""The map of 8-bit data where nothing else is said."""


def read_value_map(record: Mapping[str, Any]) -> ValueMap:
    """Return the map that `ValueMap.record` returned.

    Raises:
        ValueError: It is no such record.
    """
    kind = record.get("type")
    ranges = record.get("ranges")
    if kind not in KINDS or not isinstance(ranges, list) or not ranges:
        raise ValueError("its values are not recorded by their type and ranges")
    try:
        pairs = [(float(low), float(high)) for low, high in ranges]
    except (TypeError, ValueError):
        raise ValueError("the ranges of its values are not recorded as pairs of numbers") from None
    for low, high in pairs:
        if not (low < high and math.isfinite(high - low)):
            raise ValueError(f"a range of its values, ({low}, {high}), is not from a finite number to a higher one")
    return ValueMap(str(kind), pairs)


def hold_in_tensor(pixels: np.ndarray) -> Tensor:
    """Return a tensor of an array's numbers, in the same memory.

    16 bits without a sign are held as the same bits with one, since most operations lack the former;
    `ValueMap.to_images` undoes it.
    """
    if pixels.dtype == np.uint16:
        pixels = pixels.view(np.int16)
    return torch.from_numpy(pixels)
