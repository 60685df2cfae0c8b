"""Images as numbers in [-1, 1] and as bytes."""

import numpy as np
import pytest
import torch

from pggan_kit.layers.tensors import images_from_uint8, images_to_uint8


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_all_bytes_can_be_converted_to_numbers_and_back(dtype: torch.dtype) -> None:
    pixels = torch.arange(256, dtype=torch.uint8).reshape(1, 1, 16, 16)
    images = images_from_uint8(pixels, dtype)
    assert images.dtype == dtype
    expected = np.linspace(-1, 1, 256).reshape(1, 1, 16, 16)
    np.testing.assert_allclose(images.numpy(), expected, atol=1e-7)
    assert torch.equal(images_to_uint8(images), pixels)


def test_numbers_are_rounded_to_the_nearest_byte_and_clipped() -> None:
    values = torch.tensor([-3.0, -1.0, -1.0 + 0.9 / 255, -1.0 + 1.1 / 255, 0.999, 1.0, 7.0])
    assert images_to_uint8(values).tolist() == [0, 0, 0, 1, 255, 255, 255]
