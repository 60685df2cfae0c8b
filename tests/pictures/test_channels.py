"""Test pictures of images with any number of channels."""

from __future__ import annotations

import sys

import matplotlib
import numpy as np
import pytest
import torch

from pggan_kit.errors import SettingError
from pggan_kit.pictures import PictureSettings, draw_channels, image_grid, to_uint8

IMAGES = torch.linspace(-1.2, 1.2, 2 * 7 * 3 * 4).reshape(2, 7, 3, 4)


@pytest.mark.parametrize("channels", [1, 3])
def test_photographs_are_drawn_as_they_are(channels: int) -> None:
    images = IMAGES[:, :channels]
    np.testing.assert_array_equal(draw_channels(images, PictureSettings()), to_uint8(images))


@pytest.mark.parametrize("channels", [2, 4, 7])
def test_others_are_drawn_side_by_side(channels: int) -> None:
    drawn = draw_channels(IMAGES[:, :channels], PictureSettings())
    assert drawn.shape == (2, 3, 4 * channels, 1)
    expected = to_uint8(IMAGES)
    for channel in range(channels):
        np.testing.assert_array_equal(drawn[:, :, 4 * channel : 4 * channel + 4, 0], expected[..., channel])
    assert PictureSettings().count_panels(channels) == channels
    assert image_grid(drawn, 2).mode == "L"


def test_chosen_channels() -> None:
    expected = to_uint8(IMAGES)
    drawn = draw_channels(IMAGES, PictureSettings((5, 0, 5)))
    np.testing.assert_array_equal(drawn, expected[..., [5, 0, 5]])
    np.testing.assert_array_equal(draw_channels(IMAGES, PictureSettings(2)), expected[..., 2:3])
    colour = IMAGES[:, :3]
    assert draw_channels(colour, PictureSettings("all")).shape == (2, 3, 12, 1)
    counts = [PictureSettings(chosen).count_panels(3) for chosen in (None, "all", 1, [2, 1, 0])]
    assert counts == [1, 3, 1, 1]


def test_colour_maps_are_those_of_matplotlib() -> None:
    drawn = draw_channels(IMAGES[:, :2], PictureSettings(colour_map="viridis"))
    levels = to_uint8(IMAGES[:, :2])
    expected = matplotlib.colormaps["viridis"](levels / 255, bytes=True)[..., :3]
    np.testing.assert_array_equal(drawn[:, :, :4], expected[:, :, :, 0])
    np.testing.assert_array_equal(drawn[:, :, 4:], expected[:, :, :, 1])


def test_matplotlib_that_is_not_there_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    assert PictureSettings(2).channels == 2
    with pytest.raises(SettingError, match=r"colour_map needs matplotlib .*: pip install 'pggan_kit\[report\]'"):
        PictureSettings(colour_map="viridis")


@pytest.mark.parametrize("channels", [2, 4])
def test_no_channel_is_taken_for_transparency(channels: int) -> None:
    """Pillow takes the second of two channels, and the fourth of four, for opacity."""
    with pytest.raises(ValueError, match=rf"images have {channels} channels, and a picture shows 1 or 3"):
        image_grid(np.zeros((4, 8, 8, channels), np.uint8), 2)
