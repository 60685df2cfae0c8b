"""Test the map between a data set's own numbers and [-1, 1]."""

from __future__ import annotations

import json
import math
import pickle
from typing import Any

import numpy as np
import pytest
import torch

from pggan_kit.data.recorded import read_record
from pggan_kit.layers.tensors import images_from_uint8, images_to_uint8
from pggan_kit.layers.value_maps import BYTES, KINDS, ValueMap, hold_in_tensor, read_value_map


def test_bytes_are_mapped_as_they_always_were() -> None:
    pixels = torch.arange(256, dtype=torch.uint8).reshape(1, 2, 8, 16)
    for values in (BYTES, ValueMap("uint8", [(0, 255), (0.0, 255.0)])):
        assert values.is_plain
        for dtype in (torch.float32, torch.float64):
            assert torch.equal(values.to_images(pixels, dtype), images_from_uint8(pixels, dtype))
        noise = 1.5 * torch.randn(1, 2, 8, 16)
        assert torch.equal(values.to_units(noise), images_to_uint8(noise))
        assert torch.equal(values.round_images(noise), images_from_uint8(images_to_uint8(noise)))
    assert not ValueMap("uint8", [(0, 254)]).is_plain and not ValueMap("uint16", [(0, 255)]).is_plain


@pytest.mark.parametrize(
    ("kind", "ranges"),
    [
        ("uint8", [(10, 200)]),
        ("uint16", [(0, 4095)]),
        ("uint16", [(0, 65535)]),
        ("int16", [(-32768, 32767)]),
        ("int16", [(-1024, 3071), (-5, 900)]),
    ],
)
def test_every_level_comes_back(kind: str, ranges: list[tuple[int, int]]) -> None:
    """All whole numbers of a range, to the network and back: 4,096 levels of 12 bits, 65,536 of 16."""
    values = ValueMap(kind, ranges)
    low = max(pair[0] for pair in ranges)
    high = min(pair[1] for pair in ranges)
    numbers = np.arange(low, high + 1, dtype=kind)
    stored = np.broadcast_to(numbers, (1, len(ranges), 1, len(numbers))).copy()
    images = values.to_images(hold_in_tensor(stored))
    expected = np.stack([(numbers.astype(float) - a) / (b - a) * 2 - 1 for a, b in ranges])
    np.testing.assert_allclose(images[0, :, 0].numpy(), expected, atol=2e-7)
    back = values.to_units(images)
    assert back.numpy().dtype == np.dtype(kind)
    np.testing.assert_array_equal(back.numpy(), stored)
    assert torch.equal(values.round_images(images), images)


def test_floats_and_what_is_outside() -> None:
    values = ValueMap("float32", [(-1000.0, 600.0), (0.0, 1.0)])
    numbers = torch.tensor([[-1000.0, 600.0, -200.0, 5000.0], [0.0, 1.0, 0.25, -7.0]]).reshape(1, 2, 1, 4)
    images = values.to_images(numbers)
    assert images.flatten().tolist() == [-1, 1, 0, 1, -1, 1, -0.5, -1]
    assert values.to_units(images).flatten().tolist() == [-1000, 600, -200, 600, 0, 1, 0.25, 0]
    assert values.round_images(torch.full((1, 2, 1, 1), 0.3)).flatten().tolist() == pytest.approx([0.3, 0.3])
    assert values.to_images(numbers, torch.float64).dtype == torch.float64
    outside = ValueMap("uint8", [(-50, 400)]).to_units(torch.tensor([-1.0, 1.0]).reshape(2, 1, 1, 1))
    assert outside.flatten().tolist() == [0, 255], "no number of the type is beyond its own limits"


def test_the_ends_of_ranges_are_placed_once() -> None:
    """A CUDA graph reads the same storage in each step."""
    values = ValueMap("float32", [(0, 1), (0, 2)])
    first = values.place(torch.device("cpu"))
    values.to_images(torch.zeros(1, 2, 2, 2))
    assert values.place(torch.device("cpu"))[0] is first[0] and values.place(torch.device("cpu"))[1] is first[1]
    assert first[0].shape == (2, 1, 1)


@pytest.mark.parametrize("kind", KINDS)
def test_a_map_is_recorded(kind: str) -> None:
    values = ValueMap(kind, [(0.1, 2), (-3, 4)])
    assert read_value_map(json.loads(json.dumps(values.record()))) == values
    assert pickle.loads(pickle.dumps(values)) == values
    assert len({values, ValueMap(kind, [(0.1, 2), (-3, 4)]), ValueMap(kind, [(0.1, 2)])}) == 2
    assert str(values) == f"{kind} (0.1, 2), (-3, 4)"


@pytest.mark.parametrize(
    "record",
    [
        {},
        {"type": "int8", "ranges": [[0, 1]]},
        {"type": "uint8", "ranges": []},
        {"type": "uint8", "ranges": [1]},
        {"type": "float32", "ranges": [[0, math.nan]]},
        {"type": "float32", "ranges": [[-math.inf, 1]]},
        {"type": "float32", "ranges": [[0, 1], [2, 2]]},
        {"type": "float32", "ranges": [[1, 0]]},
    ],
)
def test_damaged_records_are_refused(record: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="its values"):
        read_value_map(record)


def test_a_record_has_one_range_or_one_for_each_channel() -> None:
    record: dict[str, Any] = {"images": 8, "channels": 3, "classes": 0}
    for count in (1, 3):
        values = ValueMap("float32", [(0, 1)] * count)
        assert read_record({**record, "values": values.record()}).values == values
    with pytest.raises(ValueError, match="its values have 2 ranges, and its images 3 channels"):
        read_record({**record, "values": ValueMap("float32", [(0, 1), (0, 1)]).record()})
